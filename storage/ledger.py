"""The recording log, `<state>/ledger.sqlite`: what was sealed, refused, stopped, deleted, and what happened to the box.

Entries are only ever added, and each carries a hash over itself and the one before, so that a changed or removed one
shows. Recordings are named by id and hash alone: no numbers, no names, no paths. One process writes (flock). The
sealing under way is written down before its first file appears, so that a kill at any moment is made good.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from .ledger_entry import Entry, tombstone_text

KINDS = (
    "recording",
    "refusal",
    "stop",
    "tombstone",
    "removal",
    "downtime",
    "key",
    "configuration",
    "checkpoint",
    "abandoned",
)
NAME = "ledger.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries(seq INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL,
    hash TEXT NOT NULL, signature BLOB NOT NULL, body TEXT NOT NULL, link TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS recording_id ON entries(id) WHERE kind = 'recording';
CREATE INDEX IF NOT EXISTS kinds ON entries(kind, seq);
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TABLE IF NOT EXISTS pending(id TEXT PRIMARY KEY, sealed_at TEXT NOT NULL, previous_id TEXT NOT NULL,
    previous_signature BLOB NOT NULL, late TEXT NOT NULL DEFAULT '', spool TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS marks(name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_COLUMNS = "seq, time, kind, id, hash, signature, body, link"
_FILE_MODE = 0o640


class LedgerError(OSError):
    """The log cannot be written or read; the message says what to do."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class LedgerInUse(LedgerError):
    """Another process writes to the log."""


@dataclass(frozen=True, slots=True)
class New:
    """An entry to be added; its time is now, if none is given (ISO 8601 with offset)."""

    kind: str
    id: str = ""
    hash: str = ""
    signature: bytes = b""
    facts: Mapping[str, Any] = field(default_factory=dict)
    time: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """The sealing under way: what the info file says of it, and the spool file that it is of."""

    id: str
    sealed_at: str
    previous_id: str
    previous_signature: bytes
    late: str = ""
    spool: str = ""


class Ledger:
    """The log, opened for writing; `now` gives the time of entries (ISO 8601 with offset). Raises LedgerInUse,
    LedgerError.
    """

    def __init__(self, path: Path, now: Callable[[], str] | None = None) -> None:
        self.path = path
        self._now = now or _now
        self._lock = os.open(
            path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise LedgerInUse(0, "another process seals recordings into this log: stop it first", str(path)) from None
        try:
            self._base = sqlite3.connect(path, isolation_level=None)
        except sqlite3.Error as error:
            os.close(self._lock)
            raise self._broken(error) from None
        try:
            with self._errors():
                self._base.execute("PRAGMA journal_mode=WAL")
                self._base.execute("PRAGMA synchronous=FULL")
                self._base.executescript(_SCHEMA)
        except LedgerError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the log."""
        self._base.close()
        os.close(self._lock)

    # -- reading -------------------------------------------------------------------------------------------------------

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the entries after this number, in order."""
        yield from self._select("seq > ? ORDER BY seq", after)

    def last(self, kind: str = "") -> Entry | None:
        """Return the last entry, or the last of a kind."""
        where = "kind = ? ORDER BY seq DESC LIMIT 1" if kind else "? = '' ORDER BY seq DESC LIMIT 1"
        return next(self._select(where, kind), None)

    def of_kind(self, kind: str) -> Iterator[Entry]:
        """Yield the entries of a kind, in order."""
        yield from self._select("kind = ? ORDER BY seq", kind)

    def recording(self, identity: str) -> Entry | None:
        """Return the entry of a recording, None if it has not been sealed."""
        return next(self._select("kind = 'recording' AND id = ?", identity), None)

    def abandoned(self, identity: str) -> bool:
        """Whether a sealing of this recording was given up."""
        return next(self._select("kind = 'abandoned' AND id = ? LIMIT 1", identity), None) is not None

    def previous(self) -> tuple[str, bytes]:
        """Return id and signature of the recording that was sealed last; empty before the first."""
        entry = self.last("recording")
        return (entry.id, entry.signature) if entry else ("", b"")

    def pending(self) -> Pending | None:
        """Return the sealing under way."""
        with self._errors():
            row = self._base.execute(
                "SELECT id, sealed_at, previous_id, previous_signature, late, spool FROM pending"
            ).fetchone()
        return Pending(*row) if row else None

    def mark(self, name: str) -> str:
        """Return how far something was read that becomes entries; empty if it never was."""
        with self._errors():
            row = self._base.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    # -- writing -------------------------------------------------------------------------------------------------------

    def append(self, *new: New, mark: tuple[str, str] | None = None) -> None:
        """Add entries, and note how far something was read, in one transaction. Raises LedgerError."""
        with self._transaction():
            for one in new:
                self._add(one)
            if mark is not None:
                self._base.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", mark)

    def begin(self, pending: Pending) -> None:
        """Write down the sealing under way. One that was never finished, of another recording, is given up."""
        with self._transaction():
            self._abandon("another recording was sealed after it")
            row = (pending.id, pending.sealed_at, pending.previous_id, pending.previous_signature)
            self._base.execute("INSERT INTO pending VALUES (?, ?, ?, ?, ?, ?)", (*row, pending.late, pending.spool))

    def finish(self, pending: Pending, digest: str, signature: bytes, day: str) -> None:
        """A recording of a call that began on this day is sealed: its files are there, durably."""
        facts = {"previous": pending.previous_id, "day": day} | ({"late": True} if pending.late else {})
        with self._transaction():
            self._add(New("recording", pending.id, digest, signature, facts, pending.sealed_at))
            self._base.execute("DELETE FROM pending WHERE id = ?", (pending.id,))

    def abandon(self, reason: str) -> None:
        """Give up the sealing under way: its spool file is gone, or cannot be read any more."""
        with self._transaction():
            self._abandon(reason)

    def withdraw(self, identity: str) -> None:
        """Forget a sealing that failed before it left anything behind."""
        with self._transaction():
            self._base.execute("DELETE FROM pending WHERE id = ?", (identity,))

    def tombstone(self, identity: str, digest: str, reason: str, by: str, sign: Callable[[bytes], bytes]) -> None:
        """Write down, signed, that a recording was deleted, why, and by whom. Raises LedgerError."""
        time = self._now()
        signature = sign(tombstone_text(identity, digest, reason, by, time))
        self.append(New("tombstone", identity, digest, signature, {"reason": reason, "by": by}, time))

    def _abandon(self, reason: str) -> None:
        row = self._base.execute("SELECT id FROM pending").fetchone()
        if row:
            self._add(New("abandoned", row[0], facts={"reason": reason}))
            self._base.execute("DELETE FROM pending")

    def _add(self, new: New) -> None:
        if new.kind not in KINDS:
            raise ValueError(f"not a kind of entry: {new.kind!r}")
        row = self._base.execute("SELECT seq, link FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        seq, previous = (row[0] + 1, row[1]) if row else (1, "")
        body = json.dumps(dict(new.facts), ensure_ascii=False, sort_keys=True)
        entry = Entry(seq, new.time or self._now(), new.kind, new.id, new.hash, new.signature, body, "")
        values = (entry.seq, entry.time, entry.kind, entry.id, entry.hash, entry.signature, entry.body)
        self._base.execute(
            f"INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*values, entry.linked_to(previous))
        )

    def _select(self, where: str, *values: object) -> Iterator[Entry]:
        with self._errors():
            for row in self._base.execute(f"SELECT {_COLUMNS} FROM entries WHERE {where}", values):
                yield Entry(*row)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                self._base.rollback()
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def _broken(self, error: sqlite3.Error) -> LedgerError:
        cure = "make room on its disk, or, if it is damaged, move it aside and keep it: a new one is begun then"
        return LedgerError(0, f"the recording log cannot be used ({error}): {cure}", str(self.path))


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
