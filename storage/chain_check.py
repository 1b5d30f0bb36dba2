"""What was found about each recording, in a temporary database, and what the recordings say about each other.

A recording names the one sealed before it, with its signature. Only what intact recordings, checkpoints and the log
say is believed. 100,000 recordings are rows on the disk, not objects in memory.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from .verify_files import HASH, SIGNATURE, Checked, Verdict

_COLUMNS = [one.name for one in fields(Checked) if one.name not in ("found", "wanted")]

_TABLES = f"""
CREATE TABLE recording ({", ".join(_COLUMNS)});
CREATE TABLE found (digest, name, recording INTEGER);
CREATE TABLE wanted (digest, name, recording INTEGER);
CREATE TABLE named (id, hash, place, day);
CREATE TABLE tombstone (id PRIMARY KEY, hash) WITHOUT ROWID;
CREATE TABLE missing (id PRIMARY KEY, reason) WITHOUT ROWID;
CREATE TABLE checkpoint (day);
CREATE TABLE note (kind, verdict, path, reason);
CREATE INDEX recording_id ON recording (id);
CREATE INDEX recording_hash ON recording (hash);
CREATE INDEX recording_previous ON recording (previous);
CREATE INDEX recording_sealed ON recording (sealed);
CREATE INDEX found_digest ON found (digest);
CREATE INDEX named_id ON named (id);
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is said of a recording, a checkpoint or the log. `kind` is one of these three; `path` names it, without
    ending if it is a recording, and is empty if it is missing.
    """

    kind: str
    verdict: Verdict
    path: str
    id: str = ""
    file: str = ""
    reason: str = ""


class Findings:
    """Collects what was checked, and then judges recordings by each other. `gap` is the verdict on what is not there:
    where something could not be read, it may lie there. `elsewhere` are recordings that lie in the folders of days
    which were not given: id and day. `begins` says where the chain begins in the midst of a longer one.
    """

    def __init__(self, gap: Verdict = "missing") -> None:
        self.gap: Verdict = gap
        self.elsewhere: dict[str, str] = {}
        self.begins = ""
        self._base = sqlite3.connect("")  # a file of its own that nobody else sees, gone with the process
        self._base.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _TABLES)
        self.copies = 0

    def close(self) -> None:
        """Forget everything."""
        self._base.close()

    def add(self, one: Checked) -> None:
        """Note one recording."""
        values = [_plain(getattr(one, name)) for name in _COLUMNS]
        marks = ", ".join("?" * len(_COLUMNS))
        number = self._base.execute(f"INSERT INTO recording ({', '.join(_COLUMNS)}) VALUES ({marks})", values).lastrowid
        for table, pairs in (("found", one.found), ("wanted", one.wanted)):
            rows = [(digest, _plain(name), number) for name, digest in pairs]
            self._base.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", rows)

    def name(self, identity: str, digest: str, place: str, day: str) -> None:
        """Note that a checkpoint or the log names a recording, its hash file's hash, and the day on which the call
        began, which is empty if all days are given.
        """
        self._base.execute("INSERT INTO named VALUES (?, ?, ?, ?)", tuple(map(_plain, (identity, digest, place, day))))

    def checkpoint(self, day: str) -> None:
        """Note that there is the checkpoint of a day."""
        self._base.execute("INSERT INTO checkpoint VALUES (?)", (_plain(day),))

    def tombstone(self, identity: str, digest: str) -> None:
        """Note that a recording was deleted, and that this was written down."""
        self._base.execute("INSERT OR REPLACE INTO tombstone VALUES (?, ?)", (_plain(identity), _plain(digest)))

    def holds(self, identity: str) -> bool:
        """Return whether a recording of this id is there."""
        return bool(self.rows("SELECT 1 FROM recording WHERE id = ? LIMIT 1", _plain(identity)))

    def say(self, kind: str, verdict: Verdict, path: str, reason: str = "") -> None:
        """Note a verdict on a checkpoint or the log."""
        self._base.execute("INSERT INTO note VALUES (?, ?, ?, ?)", tuple(map(_plain, (kind, verdict, path, reason))))

    def keys(self) -> dict[str, int]:
        """Return how many recordings each key has signed."""
        return dict(self._base.execute("SELECT key, count(*) FROM recording WHERE key != '' GROUP BY key"))

    def distrust(self, trusted: Iterable[str]) -> None:
        """Judge recordings by other keys than these."""
        marks = list(trusted)
        self._alter(
            f"verdict = 'intact' AND key != '' AND key NOT IN ({', '.join('?' * len(marks))})",
            marks,
            SIGNATURE,
            "it is signed with another key: no certificate by the recorder's key vouches for that one",
        )

    def judge(self, gaps: bool) -> None:
        """Judge recordings by each other; `gaps` tells whether one that is not there counts as missing."""
        self._swapped_signatures()
        self._moved_files()
        self._same_id()
        self._later_signatures()
        self._named_by_others()
        self._forks()
        if gaps:
            self._gaps()
            self._new_chains()

    def counts(self) -> dict[str, int]:
        """Return how many recordings there are of each verdict, those that are missing too."""
        counts = dict.fromkeys(("intact", "altered", "missing", "cannot be checked"), 0)
        counts |= dict(self._base.execute("SELECT verdict, count(*) FROM recording GROUP BY verdict"))
        counts[self.gap] += self._one("SELECT count(*) FROM missing")
        return counts

    def size(self) -> int:
        """Return how many bytes were checked."""
        return int(self._one("SELECT coalesce(sum(bytes), 0) FROM recording"))

    def findings(self, intact: bool = False) -> Iterator[Finding]:
        """Yield what was found, folder by folder; what is `intact` only if asked for."""
        query = "SELECT kind, verdict, path, reason FROM note WHERE verdict != 'intact' OR ? ORDER BY path"
        for kind, verdict, path, reason in self._base.execute(query, (intact,)):
            yield Finding(kind, verdict, path, reason=reason)
        query = """SELECT verdict, folder, stem, id, file, reason FROM recording
            WHERE verdict != 'intact' OR ? ORDER BY folder, stem"""
        for verdict, folder, stem, identity, file, reason in self._base.execute(query, (intact,)):
            yield Finding("recording", verdict, str(Path(folder, stem)), identity, file, reason)
        for identity, reason in self._base.execute("SELECT id, reason FROM missing ORDER BY id"):
            doubt = "" if self.gap == "missing" else "; it may lie where nothing could be read"
            yield Finding("recording", self.gap, "", identity, reason=reason + doubt)

    def notes(self) -> list[tuple[str, str]]:
        """Return kind and verdict of each note."""
        return list(self._base.execute("SELECT kind, verdict FROM note"))

    def missing(self, identity: str, reason: str) -> None:
        """Note a recording that is not there. Whoever says so first gives the reason."""
        self._base.execute("INSERT OR IGNORE INTO missing VALUES (?, ?)", (identity, reason))

    def alter(self, row: int, file: str, reason: str) -> None:
        """Judge a recording as altered."""
        self._base.execute(
            "UPDATE recording SET verdict = 'altered', file = stem || ?, reason = ? WHERE rowid = ?",
            (file, reason, row),
        )

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self._base.execute(query, values).fetchall()

    def _one(self, query: str, *values: Any) -> Any:
        return self._base.execute(query, values).fetchone()[0]

    def _alter(self, where: str, values: list[Any], file: str, reason: str) -> None:
        self._base.execute(
            f"UPDATE recording SET verdict = 'altered', file = stem || ?, reason = ? WHERE {where}",
            [file, reason, *values],
        )

    def _swapped_signatures(self) -> None:
        """A signature that is genuine, but over another recording's hash file."""
        query = """SELECT one.rowid, one.stem, other.stem FROM recording one JOIN recording other
            ON other.hash = one.signed AND other.rowid != one.rowid
            WHERE one.verdict = 'altered' AND one.signed != '' AND one.signed != one.hash"""
        for row, stem, other in self.rows(query):
            self.alter(
                row, SIGNATURE, f"{stem}{SIGNATURE} is the signature of {other}{HASH}: the signature was swapped"
            )

    def _moved_files(self) -> None:
        """Files that are somewhere else, or in another's place."""
        query = """SELECT wanted.recording, wanted.name, found.name, found.recording FROM wanted
            JOIN found ON found.digest = wanted.digest AND found.name != wanted.name"""
        for row, name, now, place in self.rows(query):
            update = "UPDATE recording SET reason = reason || ? WHERE rowid = ? AND verdict = 'altered'"
            self._base.execute(update, (f"; {now} has the content of {name}", row))
            unsealed = """SELECT 1 FROM recording WHERE rowid = ? AND verdict = 'cannot be checked' AND hash = ''
                AND file = ''"""
            if self.rows(unsealed, place):
                self._base.execute(
                    "UPDATE recording SET verdict = 'altered', file = ?, reason = ? WHERE rowid = ?",
                    (now, f"{now} is {name}, renamed", place),
                )

    def _same_id(self) -> None:
        """Copies are counted; different recordings with one id are not both right."""
        twice = (
            "SELECT id, count(*), count(DISTINCT hash) FROM recording WHERE id != '' GROUP BY id HAVING count(*) > 1"
        )
        for identity, number, different in self.rows(twice):
            self.copies += number - different
            if different == 1:
                continue
            rows = self.rows("SELECT rowid, signature FROM recording WHERE id = ? AND verdict = 'intact'", identity)
            after = {
                one
                for (one,) in self.rows(
                    "SELECT previous_signature FROM recording WHERE previous = ? AND verdict = 'intact'", identity
                )
            }
            wrong = [row for row, signature in rows if signature not in after] if after else [row for row, _ in rows]
            for row in wrong if len(rows) > 1 else []:
                self.alter(row, "", f"there is another recording with the id {identity}, and both are signed")

    def _later_signatures(self) -> None:
        """A recording whose successor saw another signature on it."""
        query = """SELECT one.rowid, one.stem, next.stem
            FROM recording one JOIN recording next ON next.previous = one.id
            WHERE one.verdict = 'intact' AND next.verdict = 'intact' AND next.previous_signature != one.signature"""
        for row, stem, after in self.rows(query):
            reason = f"{stem}{SIGNATURE} is not the signature that {after} names: it was sealed again later"
            self.alter(row, SIGNATURE, reason)

    def _named_by_others(self) -> None:
        """What checkpoints and the log say of recordings that are there; and seals that were taken away."""
        query = """SELECT recording.rowid, recording.stem, named.place FROM named JOIN recording USING (id)
            WHERE recording.verdict = 'intact' AND recording.hash != named.hash"""
        for row, stem, place in self.rows(query):
            self.alter(row, HASH, f"{stem}{HASH} is not the one that {place} names: it was sealed again later")
        unsealed = """SELECT recording.rowid, recording.hash, named.place FROM named JOIN recording USING (id)
            WHERE recording.verdict = 'cannot be checked' AND (recording.hash = '' OR recording.signature = '')
            AND recording.file = ''
            UNION SELECT one.rowid, one.hash, next.stem
            FROM recording one JOIN recording next ON next.previous = one.id AND next.verdict = 'intact'
            WHERE one.verdict = 'cannot be checked' AND (one.hash = '' OR one.signature = '') AND one.file = ''"""
        for row, digest, place in self.rows(unsealed):
            what = "signature was" if digest else "hash file and its signature were"
            self.alter(row, SIGNATURE if digest else HASH, f"its {what} removed: it was sealed, {place} names it")

    def _forks(self) -> None:
        """Two recordings that name the same one before them: the chain goes on from one of them."""
        query = """SELECT previous FROM recording WHERE verdict = 'intact' AND previous != ''
            GROUP BY previous HAVING count(DISTINCT id) > 1"""
        for (previous,) in self.rows(query):
            rows = self.rows(
                """SELECT rowid, stem, EXISTS (SELECT 1 FROM recording next WHERE next.previous = one.id)
                OR EXISTS (SELECT 1 FROM named WHERE named.id = one.id)
                FROM recording one WHERE previous = ? AND verdict = 'intact'""",
                previous,
            )
            right = [stem for _, stem, goes_on in rows if goes_on]
            for row, stem, goes_on in rows:
                if len(right) != 1 or not goes_on:
                    others = ", ".join(right) or ", ".join(other for _, other, _ in rows if other != stem)
                    reason = f"it was inserted: it names {previous} as sealed before it, and so does {others}"
                    self.alter(row, "_info.txt", reason)

    def _gaps(self) -> None:
        """Recordings that intact ones, checkpoints or the log name, and that are not there."""
        days = self._days()
        near = Neighbours()
        query = """SELECT previous, previous_day, stem, folder, sealed FROM recording one WHERE verdict = 'intact'
            AND previous != '' AND NOT EXISTS (SELECT 1 FROM recording other WHERE other.id = one.previous)
            AND NOT EXISTS (SELECT 1 FROM tombstone WHERE id = one.previous)"""
        for previous, day, stem, folder, sealed in self.rows(query):
            before = self.rows(
                "SELECT stem FROM recording WHERE verdict = 'intact' AND sealed < ? ORDER BY sealed DESC LIMIT 1",
                sealed,
            )
            if not before:
                of_day = f" of {day}" if day else ""
                self.begins = (
                    f"{stem}; nothing is said of {previous}{of_day}, sealed before it, and what was before that"
                )
            else:
                reason = f"{stem} names it as sealed before itself; the gap is between {before[0][0]} and {stem}"
                self._absent(previous, day, reason, near, [folder], days)
        query = """SELECT id, day, place FROM named WHERE NOT EXISTS
            (SELECT 1 FROM recording WHERE recording.id = named.id)
            AND NOT EXISTS (SELECT 1 FROM tombstone WHERE tombstone.id = named.id) ORDER BY named.rowid"""
        folders = [folder for (folder,) in self.rows("SELECT DISTINCT folder FROM recording")]
        for identity, day, place in self.rows(query):
            self._absent(identity, day, f"{place} names it", near, folders, days)

    def _new_chains(self) -> None:
        """A recording that names none before it, though the same key sealed others earlier: not merely by the clock,
        which may have been set back, but such as do not go on from this one.
        """
        query = """SELECT one.folder, one.stem, (
                SELECT stem FROM recording before WHERE before.key = one.key AND before.verdict = 'intact'
                AND before.sealed < one.sealed ORDER BY before.sealed DESC LIMIT 1
            ) AS last
            FROM recording one WHERE one.verdict = 'intact' AND one.previous = '' AND last IS NOT NULL
            AND EXISTS (SELECT 1 FROM recording head WHERE head.verdict = 'intact' AND head.sealed < one.sealed
                AND head.id != one.id AND NOT EXISTS (SELECT 1 FROM recording two WHERE two.id = head.previous))"""
        for folder, stem, last in self.rows(query):
            reason = f"a new chain begins here: whether any were removed between {last} and {stem} cannot be told"
            self.say("chain", "cannot be checked", str(Path(folder, stem)), reason)

    def _days(self) -> tuple[str, str]:
        """Return the first and the last day of what was given."""
        query = """SELECT min(day), max(day) FROM (SELECT day FROM recording WHERE day != ''
            UNION SELECT day FROM checkpoint)"""
        first, last = self.rows(query)[0]
        return first or "", last or ""

    def _absent(
        self, identity: str, day: str, reason: str, near: "Neighbours", folders: Iterable[str], days: tuple[str, str]
    ) -> None:
        """A recording is not there. If its call began before or after the days that were given, it lies in the folder
        of its own day: only where that is beside these ones can it be said to be missing.
        """
        if any(near.hold(folder, identity) for folder in folders):
            return
        known = bool(day and all(days)) and not days[0] <= day <= days[1]
        if known and not any(near.has(folder, day) for folder in folders):
            self.elsewhere[identity] = day
        else:
            self.missing(identity, reason)


def _plain(value: Any) -> Any:
    """Return a text that can be stored: a name on a disk need not be UTF-8, nor need what stands in an edited log."""
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode(errors="surrogateescape").decode(errors="backslashreplace")


class Neighbours:
    """The day folders beside those that were looked at: a call that ends after midnight is sealed among those of the
    next day, but lies in the folder of its own.
    """

    def __init__(self) -> None:
        self._ids: dict[Path, frozenset[str]] = {}

    def hold(self, folder: str, identity: str) -> bool:
        """Return whether a recording of this id lies in the folder of the day before or after."""
        return any(identity in self._in(day) for day in days_beside(Path(os.path.abspath(folder))))

    def has(self, folder: str, day: str) -> bool:
        """Return whether there is the folder of this day beside another's."""
        beside = Path(os.path.abspath(folder))
        return bool(days_beside(beside)) and Path(*beside.parts[:-3], *day.split("-")).is_dir()

    def _in(self, folder: Path) -> frozenset[str]:
        if folder not in self._ids:
            try:
                names = os.listdir(folder)
            except OSError:
                names = []
            ends = (name.removesuffix(HASH).rpartition("_")[2] for name in names if name.endswith(HASH))
            self._ids[folder] = frozenset(ends)
        return self._ids[folder]


def days_beside(folder: Path) -> list[Path]:
    """Return the folders of the day before and after `.../2026/11/24`, none if it is not named like that."""
    try:
        day = date.fromisoformat("-".join(folder.parts[-3:]))
        beside = [day - timedelta(1), day + timedelta(1)]
    except (ValueError, OverflowError):
        return []
    return [Path(*folder.parts[:-3], *str(one).split("-")) for one in beside]
