"""The recorder's log, `ledger.sqlite`, held against itself and against the recordings. It is only read."""

import base64
import hashlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from .chain_check import Findings
from .checkpoints import Checkpoint
from .parcel import INFO
from .verify_files import open_seal

_READ = "SELECT seq, time, kind, id, hash, signature, body, link FROM entries ORDER BY seq"


def check_ledger(path: Path, keys: Mapping[str, bytes], findings: Findings, days: Sequence[Checkpoint]) -> None:
    """Check the links of the log's entries, the signatures of those over recordings, and what the checkpoints say of
    it; note the recordings that it names.
    """
    try:
        with _opened(path) as base:
            _check_entries(base, path, keys, findings, {one.last: one for one in days})
    except sqlite3.Error as error:
        findings.note("log", "cannot be checked", str(path), f"{path.name} cannot be read: {error}")
        return
    _unlogged(findings)


def link(previous: str, entry: Iterable[object], signature: bytes, body: str) -> str:
    """Return the link of an entry (seq, time, kind, id, hash), which goes into the next one."""
    fields = [previous, *map(str, entry), base64.b64encode(signature).decode(), body]
    return hashlib.sha256("\n".join(fields).encode()).hexdigest()


def _opened(path: Path) -> sqlite3.Connection:
    """Open it for reading, from a read-only disc too, where SQLite may not make the files it would wish for."""
    base = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
    try:
        base.execute("SELECT 1 FROM entries LIMIT 1")
    except sqlite3.OperationalError:
        base.close()
        base = sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)
    return base


def _check_entries(
    base: sqlite3.Connection, path: Path, keys: Mapping[str, bytes], findings: Findings, days: Mapping[int, Checkpoint]
) -> None:
    previous, expected, wrong = "", 1, False
    for seq, time, kind, identity, digest, signature, body, stored in base.execute(_READ):
        entry = (seq, time, kind or "", identity or "", digest or "")
        if seq != expected:
            reason = f"entry {expected} is not there: it was deleted"
            findings.note("log", "missing", str(path), reason)
            wrong = True
        elif stored != link(previous, entry, signature or b"", body or ""):
            findings.note("log", "altered", str(path), f"entry {seq} ({kind}, {time}) was changed")
            wrong = True
        elif signature and kind in ("recording", "tombstone") and keys and not _genuine(kind, digest, signature, keys):
            findings.note("log", "altered", str(path), f"entry {seq} ({kind}, {time}) has a signature by another key")
            wrong = True
        if kind == "recording":
            findings.name(identity, digest, f"the log (entry {seq}, {time})")
        elif kind == "tombstone":
            findings.tombstone(identity, digest)
        day = days.get(seq)
        if day is not None and day.link and day.link != stored:
            reason = f"entry {seq} is not the one that {day.path.name} names: the log was written anew"
            findings.note("log", "altered", str(path), reason)
            wrong = True
        previous, expected = stored, seq + 1
    last = max(days, default=0)
    if expected <= last:
        reason = (
            f"its end is not there: it stops at entry {expected - 1}, and {days[last].path.name} names entry {last}"
        )
        findings.note("log", "missing", str(path), reason)
    elif not wrong:
        findings.note("log", "intact", str(path))


def _genuine(kind: str, digest: str, signature: bytes, keys: Mapping[str, bytes]) -> bool:
    """A recording's entry holds the signature of its hash file; a tombstone's is over what it says."""
    seal = open_seal(signature, keys)
    return bool(seal.key) and (kind != "recording" or seal.digest == digest)


def _unlogged(findings: Findings) -> None:
    query = """SELECT rowid, stem FROM recording WHERE verdict = 'intact' AND NOT EXISTS
        (SELECT 1 FROM named WHERE named.id = recording.id AND named.place LIKE 'the log %')"""
    for row, stem in findings.rows(query):
        findings.alter(
            row, INFO, f"{stem} was inserted, or its entry was deleted from the log: the log does not name it"
        )
