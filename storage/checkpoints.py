"""The checkpoints of the days, `tapdeck-day-2026-11-24.txt`: signed lists of what was sealed, read for verification."""

import hashlib
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from .chain_check import Findings, days_beside
from .parcel import INFO
from .timestamp import StampError, stamped
from .verify_files import NO_KEY, open_seal, read_small, seconds

SIGNATURE = ".SHA256withRSA.sig"
MAX_SIZE = 64 << 20
_NAME = re.compile(r"tapdeck-day-\d{4}-\d\d-\d\d\.txt")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that is as it was signed. `listed` are lines of `Recording` and `Tombstone`: kind, id, hash;
    `other_day` has, by id, the day of calls that began on another. `until` is when its day was over, in seconds since
    the epoch, `stamp` when an authority saw it (RFC 3161).
    """

    path: Path
    digest: str
    day: str = ""
    previous: str = ""
    sealed: float = 0.0
    until: float = 0.0
    stamp: datetime | None = None
    last: int = 0
    link: str = ""
    listed: list[tuple[str, str, str]] = field(default_factory=list)
    other_day: dict[str, str] = field(default_factory=dict)


def is_checkpoint(name: str) -> bool:
    """Return whether a file of this name is a checkpoint."""
    return bool(_NAME.fullmatch(name))


def is_lone_signature(name: str, names: Container[str]) -> bool:
    """Return whether a file of this name is the signature of a checkpoint that is not among these names."""
    text = name.removesuffix(SIGNATURE) + ".txt"
    return name.endswith(SIGNATURE) and is_checkpoint(text) and text not in names


def check_checkpoints(
    paths: Iterable[Path], lone_signatures: Iterable[Path], keys: Mapping[str, bytes], findings: Findings
) -> list[Checkpoint]:
    """Check signatures and chain of the checkpoints, note what they name, and return the good ones by day."""
    good: dict[str, Checkpoint] = {}
    for path in lone_signatures:
        text = path.name.removesuffix(SIGNATURE) + ".txt"
        findings.say("checkpoint", "altered", str(path), f"{text} is not there, but its signature is")
    for path in paths:
        one = _checked(path, keys, findings)
        if one is None or one.digest in good:
            continue
        for kind, identity, digest in one.listed:
            if kind == "Tombstone":
                findings.tombstone(identity, digest)
            else:
                findings.name(identity, digest, one.path.name, one.other_day.get(identity, one.day))
        findings.checkpoint(one.day)
        good[one.digest] = replace(one, listed=[], other_day={})  # years of days need not stay in memory
    days = sorted(good.values(), key=lambda one: (one.sealed, one.day))
    for number, one in enumerate(days):
        if number and one.previous and one.previous not in good and not _lies_beside(one):
            reason = f"a checkpoint between {days[number - 1].path.name} and {one.path.name} is not there"
            findings.say("checkpoint", findings.gap, str(one.path.parent), reason)
    _unlisted(days, findings)
    return days


def _lies_beside(one: Checkpoint) -> bool:
    """Return whether the checkpoint that this one names lies in the folder of a day beside its own."""
    paths = (path for day in days_beside(one.path.parent.absolute()) for path in day.glob("tapdeck-day-*.txt"))
    for path in paths:
        try:
            if hashlib.sha256(read_small(path, MAX_SIZE)).hexdigest() == one.previous:
                return True
        except OSError:
            continue
    return False


def parse(path: Path, content: bytes) -> Checkpoint:
    """Return what a checkpoint says. Raises ValueError."""
    values: dict[str, str] = {}
    listed, other_day = [], {}
    for line in content.decode().splitlines():
        key, _, value = line.partition(":")
        if key in ("Recording", "Tombstone"):
            _, identity, digest = value.split()
            listed.append((key, identity, digest))
        elif key == "OtherDay":
            _, identity, day = value.split()
            other_day[identity] = day
        else:
            values.setdefault(key, value.strip())
    return Checkpoint(
        path,
        hashlib.sha256(content).hexdigest(),
        values.get("Day", ""),
        values.get("PreviousCheckpoint", ""),
        seconds(values.get("SealedAt", "")),
        seconds(values.get("Until") or values.get("SealedAt", "")),
        last=int(values.get("LedgerTo") or 0),
        link=values.get("LedgerLink", ""),
        listed=listed,
        other_day=other_day,
    )


def _checked(path: Path, keys: Mapping[str, bytes], findings: Findings) -> Checkpoint | None:
    try:
        content = read_small(path, MAX_SIZE)
        signature = read_small(path.with_suffix(SIGNATURE), 1 << 16)
    except OSError as error:
        name = Path(str(error.filename)).name
        reason = f"{name} cannot be read: {error.strerror}"
        findings.say("checkpoint", "cannot be checked", str(path), reason)
        return None
    if not keys:
        findings.say("checkpoint", "cannot be checked", str(path), "there is no certificate to check it with")
        return None
    seal = open_seal(signature, keys)
    digest = hashlib.sha256(content).hexdigest()
    if seal.digest != digest:
        name = path.with_suffix(SIGNATURE).name
        reason = f"{path.name} is not the checkpoint that was signed" if seal.key else f"{name} {NO_KEY}"
        findings.say("checkpoint", "altered", str(path), reason)
        return None
    try:
        result = parse(path, content)
    except ValueError:
        findings.say("checkpoint", "cannot be checked", str(path), f"{path.name} is signed, but no checkpoint")
        return None
    if path.name != f"tapdeck-day-{result.day}.txt":
        reason = f"it was renamed: it is the checkpoint of {result.day}"
        findings.say("checkpoint", "altered", str(path), reason)
        return result
    try:
        stamp = stamped(path, content)
    except (StampError, OSError) as error:
        findings.say("checkpoint", "altered", str(path), f"{path.with_suffix('.tsr').name} proves no time: {error}")
        return result
    said = f"time-stamped {stamp.time:%Y-%m-%d %H:%M:%S} UTC" if stamp else ""
    findings.say("checkpoint", "intact", str(path), said)
    return replace(result, stamp=stamp.time if stamp else None)


def _unlisted(days: list[Checkpoint], findings: Findings) -> None:
    """A recording that was sealed between two checkpoints is named by the second."""
    query = """SELECT rowid, stem FROM recording WHERE verdict = 'intact' AND sealed > ? AND sealed < ?
        AND NOT EXISTS (SELECT 1 FROM named WHERE named.id = recording.id)"""
    by_digest = {one.digest: one for one in days}
    for one in days:
        before = by_digest.get(one.previous)
        if before is None:
            continue
        for row, stem in findings.rows(query, before.until, one.until):
            findings.alter(row, INFO, f"{stem} was inserted: {one.path.name}, made after it, does not name it")
