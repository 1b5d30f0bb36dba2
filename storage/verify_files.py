"""One recording on a disk: are its files those that were sealed? This is what the processes of verify.py work at.

Of everything that is wrong it says one thing that is surely true, and of which file. The signature is opened with the
certificate's key (RSA gives back the SHA-256 that was signed), so that a changed hash file, a swapped signature and
another key can be told apart.
"""

import base64
import binascii
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from io import BufferedReader
from pathlib import Path
from typing import Literal

from . import info
from .parcel import INFO
from .trust import key_bytes, signed_digest

Verdict = Literal["intact", "altered", "missing", "cannot be checked"]

HASH = "_hash.txt"
SIGNATURE = "_hash.SHA256withRSA.sig"
CONTENT = (".wav", "_caller.wav", "_callee.wav", ".pcapng", "_packets.pcapng", INFO)
"""The endings of the files that the hash file vouches for."""

NO_KEY = "is no signature by a key whose certificate is here: it was changed, or made with another key"
"""What is true of a signature that no key opens."""

MAX_SMALL = 1 << 16
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\0\n]+)")


@dataclass(frozen=True, slots=True)
class Job:
    """A recording to check: its files' names within the folder, and the keys (DER) that may have signed it."""

    folder: str
    stem: str
    names: tuple[str, ...]
    keys: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found. Digests are SHA-256 in hex, of the hash file, of the signature, of the signature that the info
    file says came before; days are those on which the calls began; `signed` is what the signature is over; `sealed` in
    seconds since the epoch. `found` and `wanted` are names and digests of files whose place may have been changed.
    """

    folder: str
    stem: str
    id: str = ""
    verdict: Verdict = "intact"
    file: str = ""
    reason: str = ""
    hash: str = ""
    signature: str = ""
    signed: str = ""
    key: str = ""
    day: str = ""
    previous: str = ""
    previous_day: str = ""
    previous_signature: str = ""
    sealed: float = 0.0
    bytes: int = 0
    found: tuple[tuple[str, str], ...] = ()
    wanted: tuple[tuple[str, str], ...] = ()


def stems(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the recordings among the names of a folder: what their files' names have in common, and the names."""
    shown = [name for name in names if not name.startswith(".")]
    anchors = {
        name.removesuffix(end)
        for name in shown
        for end in (INFO, HASH, SIGNATURE)
        if name.endswith(end) and name != end
    }
    result: dict[str, list[str]] = {}
    for name in sorted(shown):
        fitting = [name.removesuffix(end) for end in (*CONTENT, HASH, SIGNATURE) if name.endswith(end) and name != end]
        if fitting:
            stem = next((one for one in fitting if one in anchors), min(fitting, key=len))
            result.setdefault(stem, []).append(name)
    return result


def check(job: Job) -> Checked:
    """Check one recording. What cannot be read is part of the result."""
    result = _described(job)
    try:
        hashes = _content(job, HASH)
        signature = _content(job, SIGNATURE)
    except OSError as error:
        return _unreadable(result, error)
    digests, problem = _digests(job)
    result = replace(
        result,
        bytes=sum(size for _, size in digests.values()) + len(hashes or b"") + len(signature or b""),
        hash=_hex(hashes),
        signature=_hex(signature),
    )
    actual = {name: digest for name, (digest, _) in digests.items()}
    if hashes is None or signature is None:
        return replace(_without_seal(job, result, hashes, signature), found=tuple(actual.items()))
    result = _signed(job, result, hashes, signature, actual)
    if result.verdict == "altered":
        return replace(result, found=tuple(actual.items()))
    result = _compared(job, result, hashes, {**digests})
    return _unreadable(result, problem) if problem is not None and result.verdict != "altered" else result


@dataclass(frozen=True, slots=True)
class Seal:
    """What a signature says: the key that made it, and the SHA-256 (hex) it is over; both empty if no key fits."""

    key: str = ""
    digest: str = ""


def open_seal(signature: bytes, keys: Mapping[str, bytes]) -> Seal:
    """Return by which of the keys a signature is, and over what."""
    for name, public in keys.items():
        digest = signed_digest(public, signature)
        if digest is not None:
            return Seal(name, digest.hex())
    return Seal()


def read_small(path: Path, limit: int) -> bytes:
    """Return the content of a regular file of at most so many bytes. Raises OSError."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(0, f"more than {limit:,} bytes", str(path))
    return content


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; a pipe or a device of that name does not hang it. Raises OSError."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(0, "not a file", str(path))
    return os.fdopen(number, "rb")


def _described(job: Job) -> Checked:
    """Read the info file: the id, the time of sealing, what was sealed before. Nothing in it is believed yet."""
    result = Checked(job.folder, job.stem)
    name = job.stem + INFO
    if name not in job.names:
        return replace(result, id=job.stem.rpartition("_")[2])
    try:
        pairs = dict(reversed(info.parse(read_small(Path(job.folder, name), info.MAX_SIZE))))
    except (OSError, info.InfoError):
        return replace(result, id=job.stem.rpartition("_")[2])
    before = pairs.get("PreviousSignature", "")
    try:
        decoded = base64.b64decode(before, validate=True)
    except binascii.Error:
        decoded = before.encode()
    return replace(
        result,
        id=pairs.get("RecordingId", "") or job.stem.rpartition("_")[2],
        day=pairs.get("Datetime", "")[:10],
        previous=pairs.get("PreviousRecording", ""),
        previous_day=pairs.get("PreviousDay", ""),
        previous_signature=_hex(decoded) if before else "",
        sealed=seconds(pairs.get("SealedAt", "")),
    )


def _without_seal(job: Job, result: Checked, hashes: bytes | None, signature: bytes | None) -> Checked:
    if hashes is None and signature is not None:
        name = job.stem + HASH
        return replace(result, verdict="altered", file=name, reason=f"{name} is not there, but its signature is")
    lack = "it is not sealed: there is neither a hash file nor a signature" if hashes is None else ""
    lack = lack or f"{job.stem}{SIGNATURE} is not there: nothing vouches for the hash file"
    result = replace(result, verdict="cannot be checked", reason=lack)
    if hashes is None:
        return result
    compared = _compared(job, replace(result, verdict="intact"), hashes, dict(_digests(job)[0]))
    return compared if compared.verdict == "altered" else result


def _signed(job: Job, result: Checked, hashes: bytes, signature: bytes, actual: Mapping[str, str]) -> Checked:
    """Check the signature over the hash file."""
    name, vouching = job.stem + HASH, job.stem + SIGNATURE
    if not job.keys:
        return replace(result, verdict="cannot be checked", reason="there is no certificate to check it with")
    seal = open_seal(signature, job.keys)
    result = replace(result, key=seal.key, signed=seal.digest)
    if not seal.key:
        sizes = sorted({key_bytes(public) for public in job.keys.values()})
        if len(signature) < sizes[0]:
            why = f"{vouching} is cut: it has {len(signature)} of {sizes[0]} bytes"
        elif len(signature) not in sizes:
            why = f"{vouching} was changed: it has {len(signature)} bytes and should have {sizes[0]}"
        else:
            why = f"{vouching} {NO_KEY}"
        return replace(result, verdict="altered", file=vouching, reason=why)
    if seal.digest == result.hash:
        return result
    before = "".join(f"{actual[one]}  {one}\n" for one in sorted(actual))
    if _hex(before.encode()) == seal.digest:
        why = f"{name} was changed; the files that it vouches for are as they were sealed"
        return replace(result, verdict="altered", file=name, reason=why)
    why = f"{name} is not the hash file that was signed in {vouching}: one of the two was changed"
    return replace(result, verdict="altered", file=name, reason=why)


def _compared(job: Job, result: Checked, hashes: bytes, digests: Mapping[str, tuple[str, int]]) -> Checked:
    """Compare the files with the hash file."""
    listed = listed_in(hashes)
    if listed is None:
        name = job.stem + HASH
        return replace(result, verdict="altered", file=name, reason=f"{name} is not a list of hashes")
    other = {name for name in listed if not name.startswith(job.stem)}
    if other and other == set(listed) and not other & set(digests):
        was = next(iter(stems(other)), "of another recording")
        why = f"it was renamed: its files were sealed under the name {was}"
        return _altered(result, job.stem + HASH, why, listed, digests)
    problems = list(_differences(job, listed, digests))
    if not problems:
        return result
    file, why = problems[0]
    if len(problems) > 1:
        why += "; so with " + ", ".join(name for name, _ in problems[1:])
    return _altered(result, file, why, listed, digests)


def _altered(
    result: Checked, file: str, why: str, listed: Mapping[str, str], digests: Mapping[str, tuple[str, int]]
) -> Checked:
    wrong = {name: digest for name, (digest, _) in digests.items() if listed.get(name) != digest}
    lacking = {name: digest for name, digest in listed.items() if digests.get(name, ("", 0))[0] != digest}
    found, wanted = tuple(wrong.items()), tuple(lacking.items())
    return replace(result, verdict="altered", file=file, reason=why, found=found, wanted=wanted)


def _differences(
    job: Job, listed: Mapping[str, str], digests: Mapping[str, tuple[str, int]]
) -> Iterator[tuple[str, str]]:
    for name, digest in listed.items():
        if name not in job.names:
            yield name, f"{name} is not there"
        elif name in digests and digests[name][0] != digest:
            yield name, _what_changed(Path(job.folder, name), digests[name][1])
    for name in digests:
        if name not in listed:
            yield name, f"{name} was added: the hash file does not name it"


def _what_changed(path: Path, size: int) -> str:
    """Say what can be said of a file that is not the one that was sealed."""
    if size == 0:
        return f"{path.name} is empty"
    if path.name.endswith(".wav"):
        with open_regular(path) as file:
            head = file.read(8)
        announced = int.from_bytes(head[4:8], "little") + 8
        if head.startswith(b"RIFF") and size < announced:
            return f"{path.name} is cut: it has {size:,} of {announced:,} bytes"
    return f"{path.name} was changed: it is not the file that was sealed"


def listed_in(content: bytes) -> dict[str, str] | None:
    """Return name and digest of what a hash file names, None if it is none."""
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        return None
    matches = [_LINE.fullmatch(line) for line in lines[:-1]]
    found = {match[2]: match[1] for match in matches if match}
    return found if found and not lines[-1] and len(found) == len(matches) else None


@dataclass(slots=True)
class _Digests:
    files: dict[str, tuple[str, int]] = field(default_factory=dict)
    problem: OSError | None = None


def _digests(job: Job) -> tuple[dict[str, tuple[str, int]], OSError | None]:
    """Return digest and size of every file that a hash file vouches for, and the first error in reading them."""
    result = _Digests()
    for name in job.names:
        if name.endswith((HASH, SIGNATURE)):
            continue
        try:
            with open_regular(Path(job.folder, name)) as file:
                result.files[name] = (hashlib.file_digest(file, "sha256").hexdigest(), file.tell())
        except OSError as error:
            result.problem = result.problem or error
    return result.files, result.problem


def _content(job: Job, ending: str) -> bytes | None:
    """Return a small file's content, cut if it has grown beyond all measure: it is not what was signed then either."""
    name = job.stem + ending
    if name not in job.names:
        return None
    with open_regular(Path(job.folder, name)) as file:
        return file.read(MAX_SMALL)


def _unreadable(result: Checked, error: OSError) -> Checked:
    name = os.path.basename(str(error.filename or ""))
    why = f"{name} cannot be read: {error.strerror or error}".lstrip()
    return replace(result, verdict="cannot be checked", file=name, reason=why)


def _hex(content: bytes | None) -> str:
    return "" if content is None else hashlib.sha256(content).hexdigest()


def seconds(text: str) -> float:
    """Return a time (ISO 8601) in seconds since the epoch, 0 if it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0
