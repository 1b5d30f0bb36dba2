"""The delivery queue, `<state>/queue.sqlite`: which recording has to go to which target, and what came of it.

It can be lost without loss: what lies in the folder of the recordings comes into a new queue by itself, and what a
target has already is found there and confirmed. Times are seconds since the epoch. All methods raise QueueError.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from .parcel import Parcel
from .space import Local

WAITING, CONFIRMED = "waiting", "confirmed"
LONGEST_PAUSE_S = 3600.0
"""No attempt lies further ahead: one that does was written before the clock was set back, and is due."""

_BUSY_S = 60
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_tables = sa.MetaData()
_recordings = sa.Table(
    "recordings",
    _tables,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("stem", sa.Text, nullable=False, unique=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("files", sa.Text, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("ended", sa.Float, nullable=False),
    sa.Column("going", sa.Float),  # when its removal from this machine's disk began
    sa.Column("removed", sa.Float),
    sa.Index("recordings_here", "removed", "ended"),
)
_jobs = sa.Table(
    "jobs",
    _tables,
    sa.Column("recording", sa.ForeignKey("recordings.number", ondelete="CASCADE"), primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("ended", sa.Float, nullable=False),  # the recording's, to find the oldest without a join
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_try", sa.Float, nullable=False),
    sa.Column("failing_since", sa.Float),
    sa.Column("error", sa.Text),
    sa.Column("place", sa.Text),  # the folder on the target
    sa.Column("beside", sa.Boolean, nullable=False),
    sa.Column("confirmed", sa.Float),
    sa.Index("jobs_next", "target", "state", "ended", "recording"),
)
_targets = sa.Table(
    "targets",
    _tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("known", sa.Boolean, nullable=False),  # something was delivered to it
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("next_try", sa.Float, nullable=False),
    sa.Column("failing_since", sa.Float),
    sa.Column("error", sa.Text),
)


class QueueError(OSError):
    """The queue cannot be read or written: its disk is full or fails."""


class _Damaged(Exception):
    """The file is no sound database."""


@dataclass(frozen=True, slots=True)
class Job:
    """One recording that waits for one target."""

    number: int
    target: str
    parcel: Parcel
    attempts: int


@dataclass(frozen=True, slots=True)
class TargetState:
    """How a target does. `failures` counts those in a row, 0 when it works."""

    known: bool = False
    failures: int = 0
    next_try: float = 0.0
    failing_since: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Totals:
    """What of one target's jobs has come to what. `failing` are recordings that it refuses while it takes others;
    `beside` those of the last day whose name was taken.
    """

    waiting: int = 0
    confirmed: int = 0
    oldest: float | None = None
    failing: int = 0
    failing_since: float | None = None
    error: str = ""
    beside: int = 0


class Queue:
    """The queue of one process. Threads may share it."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it. One that is damaged is set aside as `queue.sqlite.damaged`, and `damaged` is true."""
        self.damaged = False
        try:
            self._engine = _open(path)
        except _Damaged:
            self.damaged = True
            for ending in ("", "-wal", "-shm"):
                if os.path.lexists(f"{path}{ending}"):
                    os.replace(f"{path}{ending}", f"{path}.damaged{ending}")
            self._engine = _open(path)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add(self, parcels: Iterable[Parcel], targets: Sequence[str]) -> None:
        """Take in recordings, with a job for each target, in one transaction. One that is known and unchanged stays as
        it is; one that has more files than before, or had gone and is here again, is delivered again.
        """
        with self._change() as change:
            for parcel in parcels:
                number = _put(change, parcel)
                if number is not None:
                    change.execute(_jobs.delete().where(_jobs.c.recording == number))
                    _make_jobs(change, targets, _recordings.c.number == number)

    def want(self, targets: Sequence[str], again: bool) -> None:
        """Make the jobs that a target lacks which has just been configured. All targets are tried again at once, and
        where it is `again`, so are the recordings that they have refused.
        """
        with self._change() as change:
            for name in targets:
                new = insert(_targets).values(name=name, known=False, failures=0, next_try=0.0)
                change.execute(new.on_conflict_do_update(index_elements=["name"], set_={"next_try": 0.0}))
            if again:
                change.execute(
                    _jobs.update().where(_jobs.c.state == WAITING, _jobs.c.next_try > 0).values(next_try=0.0)
                )
            _make_jobs(change, targets, sa.true())

    def next(self, target: str, now: float) -> Job | None:
        """Return the oldest job that is due, None if none is."""
        late = sa.or_(_jobs.c.next_try <= now, _jobs.c.next_try > now + LONGEST_PAUSE_S)
        query = (
            sa.select(_jobs.c.attempts, _recordings)
            .join(_recordings, _recordings.c.number == _jobs.c.recording)
            .where(_jobs.c.target == target, _jobs.c.state == WAITING, late)
            .order_by(_jobs.c.ended, _jobs.c.recording)
            .limit(1)
        )
        with self._look() as look:
            row = look.execute(query).first()
        return Job(row.number, target, _parcel(row), row.attempts) if row else None

    def confirm(self, job: Job, now: float, place: str, beside: bool) -> None:
        """Mark a job as done: the target has the recording, checked and durable."""
        done = {"state": CONFIRMED, "confirmed": now, "place": place, "beside": beside}
        done |= {"attempts": job.attempts + 1, "failing_since": None, "error": None}
        with self._change() as change:
            change.execute(_jobs.update().where(*_this(job)).values(**done))
            change.execute(_targets.update().where(_targets.c.name == job.target).values(known=True))

    def fail(self, job: Job, now: float, error: str, pause: float) -> None:
        """Write down that a target refused a recording, and when to try again."""
        since = sa.func.coalesce(_jobs.c.failing_since, now)
        values = {"attempts": job.attempts + 1, "next_try": now + pause, "error": error, "failing_since": since}
        with self._change() as change:
            change.execute(_jobs.update().where(*_this(job)).values(**values))

    def target(self, name: str) -> TargetState:
        """Return how a target does."""
        with self._look() as look:
            row = look.execute(sa.select(_targets).where(_targets.c.name == name)).first()
        if row is None:
            return TargetState()
        return TargetState(row.known, row.failures, row.next_try, row.failing_since, row.error or "")

    def outage(self, name: str, now: float, error: str, pause: float) -> None:
        """Write down that a target does not work, and when to try again."""
        since = sa.func.coalesce(_targets.c.failing_since, now)
        values = {"failures": _targets.c.failures + 1, "next_try": now + pause, "error": error, "failing_since": since}
        with self._change() as change:
            change.execute(_targets.update().where(_targets.c.name == name).values(**values))

    def works(self, name: str) -> None:
        """Write down that a target works again."""
        values = {"failures": 0, "next_try": 0.0, "error": None, "failing_since": None}
        with self._change() as change:
            change.execute(_targets.update().where(_targets.c.name == name).values(**values))

    def totals(self, target: str, now: float) -> Totals:
        """Return the counts of one target's jobs."""
        jobs = _jobs.c
        mine, refused = jobs.target == target, jobs.failing_since.is_not(None)
        count = sa.func.count()
        waiting = sa.select(
            count.label("waiting"),
            sa.func.min(jobs.ended).label("oldest"),
            count.filter(refused).label("failing"),
            sa.func.min(jobs.failing_since).label("since"),
        ).where(mine, jobs.state == WAITING)
        error = sa.select(jobs.error).where(mine, jobs.state == WAITING, refused).order_by(jobs.ended).limit(1)
        done = sa.select(
            count.label("all"), count.filter(jobs.beside, jobs.confirmed > now - 86400).label("beside")
        ).where(mine, jobs.state == CONFIRMED)
        with self._look() as look:
            row, first, last = look.execute(waiting).one(), look.execute(error).scalar(), look.execute(done).one()
        return Totals(row.waiting, last.all, row.oldest, row.failing, row.since, first or "", last.beside)

    def stems(self, folder: str) -> set[str]:
        """Return the recordings in one folder that are in the queue and on this machine's disk."""
        stem = _recordings.c.stem
        below = (
            sa.func.instr(stem, "/") == 0 if folder == "." else stem.between(f"{folder}/", f"{folder}0")
        )  # 0 follows /
        found = sa.select(stem, _recordings.c.removed).where(below)  # not where it is null: that takes the wrong index
        with self._look() as look:
            return {row.stem for row in look.execute(found) if row.removed is None}

    def here(self, since: float) -> tuple[int, int, float | None]:
        """Return the bytes of all recordings on this machine's disk, the bytes of those that ended after `since`
        (removed ones too), and when the first of all ended.
        """
        size = sa.func.coalesce(sa.func.sum(_recordings.c.bytes), 0)
        with self._look() as look:
            used = look.execute(sa.select(size).where(_recordings.c.removed.is_(None))).scalar_one()
            lately = look.execute(sa.select(size).where(_recordings.c.ended > since)).scalar_one()
            first = look.execute(sa.select(sa.func.min(_recordings.c.ended))).scalar()
        return int(used), int(lately), first

    def local(self) -> Iterator[Local]:
        """Yield the recordings on this machine's disk that some target has confirmed, oldest first."""
        targets = sa.func.json_group_array(_jobs.c.target)
        confirmed = sa.select(targets).where(_jobs.c.recording == _recordings.c.number, _jobs.c.state == CONFIRMED)
        names = confirmed.scalar_subquery().label("confirmed")
        any_target = sa.exists().where(_jobs.c.recording == _recordings.c.number, _jobs.c.state == CONFIRMED)
        query = (
            sa.select(_recordings, names)
            .where(_recordings.c.removed.is_(None), any_target)
            .order_by(_recordings.c.ended, _recordings.c.number)
        )
        with self._look() as look:
            for row in look.execute(query):
                yield Local(row.number, _parcel(row), frozenset(json.loads(row.confirmed)))

    def going(self, numbers: Sequence[int], now: float) -> None:
        """Write down that these recordings are about to be removed from this machine's disk."""
        with self._change() as change:
            change.execute(_recordings.update().where(_recordings.c.number.in_(numbers)).values(going=now))

    def half_gone(self) -> list[Local]:
        """Return the recordings whose removal was begun and not ended."""
        with self._look() as look:
            rows = look.execute(sa.select(_recordings).where(_recordings.c.going.is_not(None))).all()
        return [Local(row.number, _parcel(row), frozenset()) for row in rows]

    def gone(self, numbers: Sequence[int], now: float) -> None:
        """Write down that these recordings are no longer on this machine's disk."""
        values = {"going": None, "removed": now}
        with self._change() as change:
            change.execute(_recordings.update().where(_recordings.c.number.in_(numbers)).values(**values))

    @contextmanager
    def _change(self) -> Iterator[sa.Connection]:
        """A transaction that writes; it is durable when the block has ended."""
        try:
            with self._engine.begin() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
        except SQLAlchemyError as error:
            raise _queue_error(error) from error

    @contextmanager
    def _look(self) -> Iterator[sa.Connection]:
        """A view of one moment."""
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("BEGIN")
                yield connection
        except SQLAlchemyError as error:
            raise _queue_error(error) from error


def _open(path: Path) -> sa.Engine:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # names of files hold numbers of people
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_S, "check_same_thread": False})
    sa.event.listen(engine, "connect", _configure)
    try:
        with engine.connect() as connection:
            if connection.exec_driver_sql("PRAGMA quick_check").scalars().all() != ["ok"]:
                raise _Damaged
        _tables.create_all(engine)
    except BaseException as error:
        engine.dispose()
        if isinstance(error, DatabaseError):
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
            raise _Damaged() if code in _DAMAGE else _queue_error(error) from error
        raise
    return engine


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by us: sqlite3 would begin them late
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _put(change: sa.Connection, parcel: Parcel) -> int | None:
    """Insert or update a recording. Return its number if it has changed, None if it is known as it is."""
    files = json.dumps(parcel.files)
    known = change.execute(sa.select(_recordings).where(_recordings.c.stem == parcel.stem)).first()
    if known is not None and known.files == files and known.removed is None and known.going is None:
        return None
    values = {"id": parcel.id, "files": files, "bytes": parcel.bytes, "ended": parcel.ended}
    new = insert(_recordings).values(stem=parcel.stem, **values)
    again = new.on_conflict_do_update(index_elements=["stem"], set_=values | {"going": None, "removed": None})
    return int(change.execute(again.returning(_recordings.c.number)).scalar_one())


def _make_jobs(change: sa.Connection, targets: Sequence[str], which: sa.ColumnElement[bool]) -> None:
    """Give the recordings on this machine's disk a job for every target, where they have none."""
    here = _recordings.c
    for name in targets:
        known = sa.exists().where(_jobs.c.recording == here.number, _jobs.c.target == name)
        new: dict[str, Any] = {
            "recording": here.number,
            "target": sa.literal(name),
            "state": sa.literal(WAITING),
            "ended": here.ended,
            "attempts": sa.literal(0),
            "next_try": sa.literal(0.0),
            "beside": sa.false(),
        }
        rows = sa.select(*new.values()).where(which, here.removed.is_(None), ~known)
        change.execute(_jobs.insert().from_select(list(new), rows))


def _this(job: Job) -> tuple[sa.ColumnElement[bool], ...]:
    return _jobs.c.recording == job.number, _jobs.c.target == job.target


def _parcel(row: Any) -> Parcel:
    return Parcel(row.id, row.stem, tuple(json.loads(row.files)), row.bytes, row.ended)


def _queue_error(error: SQLAlchemyError) -> QueueError:
    return QueueError(f"the delivery queue: {getattr(error, 'orig', None) or error}")
