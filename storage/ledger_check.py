"""The recorder's log, `ledger.sqlite`, held against itself and against the recordings. It is only read, and nothing in
it is believed to be of the right type: whoever edits it may put anything there.
"""

import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from .chain_check import Findings
from .checkpoints import Checkpoint
from .ledger_entry import Entry
from .parcel import INFO
from .verify_files import open_seal

_READ = "SELECT seq, time, kind, id, hash, signature, body, link FROM entries WHERE ? IN ('', id) ORDER BY seq"
_SIGNERS = "SELECT signature FROM entries WHERE kind = 'recording' ORDER BY seq DESC LIMIT 1000"


class LogUnreadable(OSError):
    """The log is none, or damaged; the message says so."""


@dataclass(slots=True)
class _Check:
    """The check of one log under way. Entries after `end` were added while the recordings were being looked at."""

    path: Path
    keys: Mapping[str, bytes]
    findings: Findings
    days: Sequence[Checkpoint]
    given: frozenset[str] | None
    end: int
    wrong: bool = field(default=False)
    removed: int = field(default=0)

    def say(self, verdict: str, reason: str) -> None:
        self.findings.say("log", "missing" if verdict == "missing" else "altered", str(self.path), reason)
        self.wrong = True


def check_ledger(
    path: Path,
    keys: Mapping[str, bytes],
    findings: Findings,
    days: Sequence[Checkpoint],
    given: Iterable[str] | None = (),
    end: int = sys.maxsize,
) -> None:
    """Check the links of the log's entries, their signatures, and what the checkpoints say of it; note the recordings
    that it names. `given` are the names of the checkpoints that are there (None: nobody has looked), the good ones
    among them are `days`; `end` is the last entry that there was before anybody looked at the recordings.
    """
    check = _Check(path, keys, findings, days, None if given is None else frozenset(given), end)
    try:
        with closing(_opened(path)) as base:
            _check_entries(check, _rows(base))
    except sqlite3.Error as error:
        findings.say("log", "cannot be checked", str(path), f"{path.name} cannot be read: {error}")
        return
    _unlogged(findings)


def read(path: Path, identity: str = "") -> Iterator[Entry]:
    """Yield the entries of a log, or those of one recording. Raises LogUnreadable."""
    try:
        with closing(_opened(path)) as base:
            yield from _rows(base, identity)
    except sqlite3.Error as error:
        raise LogUnreadable(f"{path} cannot be read: {error}") from None


def signers(path: Path, keys: Mapping[str, bytes]) -> Counter[str]:
    """Return how many of the last recordings each key has signed, as the log has it."""
    try:
        with closing(_opened(path)) as base:
            found = [open_seal(row[0], keys).key for row in base.execute(_SIGNERS) if isinstance(row[0], bytes)]
    except sqlite3.Error:
        return Counter()
    return Counter(key for key in found if key)


def last_entry(path: Path) -> int:
    """Return the number of the log's last entry; without bounds if it cannot be read, which `check_ledger` will say."""
    try:
        with closing(_opened(path)) as base:
            (last,) = base.execute("SELECT max(seq) FROM entries").fetchone()
    except sqlite3.Error:
        return sys.maxsize
    return int(last or 0)


def _opened(path: Path) -> sqlite3.Connection:
    """Open it for reading, from a read-only disc too, where SQLite may not make the files it would wish for."""
    base = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
    try:
        base.execute("SELECT 1 FROM entries LIMIT 1")
    except sqlite3.OperationalError:
        base.close()
        base = sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)
    base.text_factory = lambda text: text.decode(errors="surrogateescape")
    return base


def _rows(base: sqlite3.Connection, identity: str = "") -> Iterator[Entry]:
    for seq, *values in base.execute(_READ, (identity,)):
        wanted = (str, str, str, str, bytes, str, str)
        typed = all(type(value) is kind for value, kind in zip(values, wanted, strict=True))
        texts = [one if isinstance(one, str) else "" for one in values]
        signature = values[4] if isinstance(values[4], bytes) else b""
        yield Entry(seq, texts[0], texts[1], texts[2], texts[3], signature, texts[5], texts[6], typed)


def _check_entries(check: _Check, rows: Iterable[Entry]) -> None:
    previous, expected, links = "", 1, {one.last: one for one in check.days}
    for row in rows:
        if row.seq != expected:
            check.say("missing", f"entry {expected} is not there: it was deleted")
        elif not row.typed or row.link != row.linked_to(previous):
            check.say("altered", f"{row.name} was changed")
        elif check.keys and not row.is_genuine(check.keys):
            check.say("altered", f"{row.name} has no signature by the recorder's key over what it says")
        day = links.get(row.seq)
        if day is not None and day.link and day.link != row.link:
            reason = f"entry {row.seq} is not the one that {day.path.name} names: the log was written anew"
            check.say("altered", reason)
        _take(check, row)
        previous, expected = row.link, row.seq + 1
    last = max(links, default=0)
    if expected <= last:
        reason = (
            f"its end is not there: it stops at entry {expected - 1}, and {links[last].path.name} names entry {last}"
        )
        check.say("missing", reason)
    if not check.keys:
        reason = "there is no certificate to check its signatures with"
        check.findings.say("log", "cannot be checked", str(check.path), reason)
    elif not check.wrong:
        check.findings.say("log", "intact", str(check.path))
    if check.removed:
        reason = (
            f"it says that {check.removed} recordings were removed here to make room, after their delivery: "
            "verify the archive to which they were delivered"
        )
        check.findings.say("log", "cannot be checked", str(check.path), reason)


def _take(check: _Check, row: Entry) -> None:
    """Note what an entry says of a recording or a checkpoint."""
    new = row.seq > check.end
    if row.kind == "recording":
        if not new or check.findings.holds(row.id):
            check.findings.name(row.id, row.hash, f"the log (entry {row.seq}, {row.time})", "")
    elif row.kind == "tombstone" and row.is_genuine(check.keys):
        check.findings.tombstone(row.id, row.hash)
    elif row.kind == "removal" and not check.findings.holds(row.id):
        check.findings.tombstone(row.id, row.hash)
        check.removed += 1
    elif row.kind == "checkpoint" and "what" not in row.facts and not new:
        _compare_day(check, row)


def _compare_day(check: _Check, row: Entry) -> None:
    """The checkpoint that an entry names is there, and is that one."""
    good = {one.digest for one in check.days}
    name = f"tapdeck-day-{row.facts.get('day')}.txt"
    if check.given is None or row.hash in good:
        return
    if name not in check.given:
        check.findings.say(
            "checkpoint", check.findings.gap, name, f"{name} is not there: the log (entry {row.seq}) names it"
        )
    elif name in {one.path.name for one in check.days}:
        check.findings.say("checkpoint", "altered", name, f"{name} is not the one that the log (entry {row.seq}) names")


def _unlogged(findings: Findings) -> None:
    query = """SELECT rowid, stem FROM recording WHERE verdict = 'intact' AND NOT EXISTS
        (SELECT 1 FROM named WHERE named.id = recording.id AND named.place LIKE 'the log %')"""
    for row, stem in findings.rows(query):
        findings.alter(
            row, INFO, f"{stem} was inserted, or its entry was deleted from the log: the log does not name it"
        )
