"""The delivery queue, `<state>/queue.sqlite`: which recording has to go to which target, and what came of it.

It can be lost without loss: what lies in the folder of the recordings comes into a new queue by itself, and what a
target has already is found there and confirmed. Times are seconds since the epoch. All methods raise QueueError.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError

from . import queue_schema as schema
from .jobs import Job, TargetState, Totals
from .parcel import Parcel
from .queue_schema import CONFIRMED, LOST, SETTLED, UNWANTED, WAITING, QueueError, queue_error
from .space import Local

__all__ = ["Job", "Queue", "QueueError", "TargetState", "Totals"]

LONGEST_PAUSE_S = 3600.0
_SOME = 500

_recordings, _jobs, _targets = schema.recordings, schema.jobs, schema.targets

Wants = Callable[[str, Parcel], bool]
"""Whether a target, by its name, gets a recording."""


class Queue:
    """The queue of one process. Threads may share it."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it. One that is damaged is set aside as `queue.sqlite.damaged`, and `damaged` is true."""
        self.damaged = False
        try:
            self._engine = schema.open_engine(path)
        except schema.Damaged:
            self.damaged = True
            for ending in ("", "-wal", "-shm"):
                if os.path.lexists(f"{path}{ending}"):
                    os.replace(f"{path}{ending}", f"{path}.damaged{ending}")
            self._engine = schema.open_engine(path)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add(
        self, parcels: Iterable[Parcel], targets: Sequence[str], wants: Wants = lambda target, parcel: True
    ) -> None:
        """Take in recordings, with a job for each target that wants them, in one transaction. One that is known and
        unchanged stays as it is; one that has more files than before, or had gone and is here again, is delivered
        again.
        """
        decided = [(parcel, {name: wants(name, parcel) for name in targets}) for parcel in parcels]
        with self._change() as change:
            for parcel, wanted in decided:
                number = _put(change, parcel)
                if number is not None:
                    _forget_jobs(change, number)
                    rows = [_job(number, parcel, name, WAITING if yes else UNWANTED) for name, yes in wanted.items()]
                    if rows:
                        change.execute(_jobs.insert(), rows)

    def want(self, targets: Sequence[str], again: bool, selections: Mapping[str, str] | None = None) -> None:
        """Make the jobs that a target lacks which has just been configured. All targets are tried again at once, and
        where it is `again`, so are the recordings that they have refused.

        A target with one of the `selections` gets its jobs by `decide`; where it is another one than before, those
        that are not done are forgotten.
        """
        with self._change() as change:
            for name in targets:
                selection = (selections or {}).get(name, "")
                new = insert(_targets).values(name=name, known=False, failures=0, next_try=0.0, selection=selection)
                before = change.execute(sa.select(_targets.c.selection).where(_targets.c.name == name)).scalar()
                values = {"next_try": 0.0, "selection": selection}
                change.execute(new.on_conflict_do_update(index_elements=["name"], set_=values))
                if before is not None and before != selection:
                    open_ = _jobs.c.state.in_((WAITING, UNWANTED))
                    change.execute(_jobs.delete().where(_jobs.c.target == name, open_))
                if not selection:
                    _make_jobs(change, name)
            if again:
                change.execute(
                    _jobs.update().where(_jobs.c.state == WAITING, _jobs.c.next_try > 0).values(next_try=0.0)
                )

    def undecided(self, target: str, after: int = -1, limit: int = _SOME) -> list[tuple[int, Parcel]]:
        """Return recordings here, by their numbers from `after` on, of which it is not known whether a target wants
        them.
        """
        known = sa.exists().where(_jobs.c.recording == _recordings.c.number, _jobs.c.target == target)
        query = sa.select(_recordings).where(_recordings.c.number > after, _recordings.c.removed.is_(None), ~known)
        with self._look() as look:
            rows = look.execute(query.order_by(_recordings.c.number).limit(limit)).all()
        return [(row.number, parcel_of(row)) for row in rows]

    def decide(self, target: str, decisions: Iterable[tuple[int, Parcel, bool]]) -> None:
        """Write down which of these recordings a target wants."""
        rows = [_job(number, parcel, target, WAITING if yes else UNWANTED) for number, parcel, yes in decisions]
        if rows:
            with self._change() as change:
                change.execute(insert(_jobs).on_conflict_do_nothing(), rows)

    def next(self, target: str, now: float) -> Job | None:
        """Return the oldest job that is due, None if none is."""
        return next(iter(self.due(target, now, limit=1)), None)

    def due(
        self, target: str, now: float, longest: float = LONGEST_PAUSE_S, limit: int = 1, without: Collection[int] = ()
    ) -> list[Job]:
        """Return the oldest jobs that are due, save those of some recordings. No attempt lies further ahead than the
        `longest` pause: one that does was written before the clock was set back, and is due.
        """
        late = sa.or_(_jobs.c.next_try <= now, _jobs.c.next_try > now + longest)
        query = (
            sa.select(_jobs.c.attempts, _recordings)
            .join(_recordings, _recordings.c.number == _jobs.c.recording)
            .where(_jobs.c.target == target, is_(WAITING), late, _jobs.c.recording.not_in(list(without)))
            .order_by(_jobs.c.ended, _jobs.c.recording)
            .limit(limit)
        )
        with self._look() as look:
            rows = look.execute(query).all()
        return [Job(row.number, target, parcel_of(row), row.attempts) for row in rows]

    def confirm(self, job: Job, now: float, place: str, beside: bool) -> None:
        """Mark a job as done: the target has the recording, checked and durable. Not so if the recording has changed
        meanwhile.
        """
        done = {"state": CONFIRMED, "confirmed": now, "place": place, "beside": beside}
        done |= {"attempts": job.attempts + 1, "failing_since": None, "error": None}
        files = json.dumps(job.parcel.files)
        same = sa.exists().where(_recordings.c.number == job.number, _recordings.c.files == files)
        count = {"known": True, "confirmed": _targets.c.confirmed + 1}
        with self._change() as change:
            update = _jobs.update().where(*_this(job), _jobs.c.state != CONFIRMED, same)
            if change.execute(update.values(**done)).rowcount:
                first = insert(_targets).values(name=job.target, known=True, failures=0, next_try=0.0, confirmed=1)
                change.execute(first.on_conflict_do_update(index_elements=["name"], set_=count))

    def fail(self, job: Job, now: float, error: str, pause: float) -> None:
        """Write down that a target refused a recording, and when to try again."""
        since = sa.func.coalesce(_jobs.c.failing_since, now)
        values = {"attempts": job.attempts + 1, "next_try": now + pause, "error": error, "failing_since": since}
        self._update(_jobs.update().where(*_this(job)).values(**values))

    def lose(self, job: Job, now: float, error: str) -> None:
        """Write down that a recording is gone from this machine before a target had it: it is not tried again."""
        since = sa.func.coalesce(_jobs.c.failing_since, now)
        values = {"state": LOST, "attempts": job.attempts + 1, "error": error, "failing_since": since}
        self._update(_jobs.update().where(*_this(job)).values(**values))

    def lost(self, targets: Sequence[str], limit: int = _SOME) -> list[Job]:
        """Return the jobs of recordings that were lost."""
        query = (
            sa.select(_jobs.c.attempts, _jobs.c.target, _recordings)
            .join(_recordings, _recordings.c.number == _jobs.c.recording)
            .where(_jobs.c.target.in_(list(targets)), is_(LOST))
            .order_by(_jobs.c.ended, _jobs.c.recording)
            .limit(limit)
        )
        with self._look() as look:
            rows = look.execute(query).all()
        return [Job(row.number, row.target, parcel_of(row), row.attempts) for row in rows]

    def found(self, found: Sequence[Job]) -> None:
        """Write down that what was lost is back: it waits again."""
        values = {"state": WAITING, "next_try": 0.0, "failing_since": None, "error": None}
        with self._change() as change:
            for job in found:
                change.execute(_jobs.update().where(*_this(job), is_(LOST)).values(**values))

    def target(self, name: str) -> TargetState:
        """Return how a target does."""
        with self._look() as look:
            row = look.execute(sa.select(_targets).where(_targets.c.name == name)).first()
        if row is None:
            return TargetState()
        return TargetState(row.known, row.failures, row.next_try, row.failing_since, row.error or "")

    def outage(self, name: str, now: float, error: str, pause: float, failures: int | None = None) -> bool:
        """Write down that a target does not work, and when to try again. False if it has failed more often than
        `failures` meanwhile: somebody else has written it down.
        """
        since = sa.func.coalesce(_targets.c.failing_since, now)
        values = {"failures": _targets.c.failures + 1, "next_try": now + pause, "error": error, "failing_since": since}
        same = sa.true() if failures is None else _targets.c.failures == failures
        return self._update(_targets.update().where(_targets.c.name == name, same).values(**values)) > 0

    def works(self, name: str) -> bool:
        """Write down that a target works again. False if it did all the time."""
        values = {"failures": 0, "next_try": 0.0, "error": None, "failing_since": None}
        failing = _targets.c.failing_since.is_not(None)
        return self._update(_targets.update().where(_targets.c.name == name, failing).values(**values)) > 0

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
            sa.func.coalesce(sa.func.sum(jobs.bytes), 0).label("bytes"),
        ).where(mine, is_(WAITING))
        error = sa.select(jobs.error).where(mine, is_(WAITING), refused).order_by(jobs.ended).limit(1)
        beside = sa.select(count).where(mine, sa.text("beside = 1"), jobs.confirmed > now - 86400)
        lost = sa.select(count).where(mine, is_(LOST))
        done = sa.select(_targets.c.confirmed).where(_targets.c.name == target)
        with self._look() as look:
            row = look.execute(waiting).one()
            confirmed, aside, gone = (look.execute(query).scalar() or 0 for query in (done, beside, lost))
            first = look.execute(error).scalar() if row.failing else None
        return Totals(
            row.waiting, confirmed, row.oldest, row.failing, row.since, first or "", aside, int(row.bytes), gone
        )

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

    def by_day(self, before: float, waiting_for: Collection[str] = ()) -> dict[int, int]:
        """Return the bytes of the recordings on this machine's disk, or of those of them that wait for some targets,
        for each day since the epoch in which they ended: of those that ended `before`.
        """
        here = sa.select(_recordings.c.ended, _recordings.c.bytes).where(_recordings.c.removed.is_(None))
        waiting = sa.select(_jobs.c.recording, _jobs.c.ended, _jobs.c.bytes)
        waiting = waiting.where(_jobs.c.target.in_(list(waiting_for)), is_(WAITING)).distinct()
        rows = (waiting if waiting_for else here).subquery()
        day = sa.cast(rows.c.ended / 86400.0, sa.Integer)
        query = sa.select(day, sa.func.sum(rows.c.bytes)).where(rows.c.ended < before).group_by(day)
        with self._look() as look:
            return {int(when): int(size) for when, size in look.execute(query)}

    def local(self, required: Collection[str] = (), before: float | None = None) -> Iterator[Local]:
        """Yield the recordings on this machine's disk that some target has confirmed, and that none of the `required`
        ones needs any more, oldest first: only those that ended `before`, if that is given.
        """
        mine = _jobs.c.recording == _recordings.c.number
        names = sa.func.json_group_array(_jobs.c.target)

        def having(*states: str) -> Any:
            return sa.select(names).where(mine, _jobs.c.state.in_(states)).scalar_subquery()

        settled = sa.select(sa.func.count()).where(mine, _jobs.c.target.in_(list(required)), _jobs.c.state.in_(SETTLED))
        query = sa.select(
            _recordings, having(CONFIRMED).label("has"), having(UNWANTED, schema.DROPPED).label("needs_not")
        ).where(
            _recordings.c.removed.is_(None),
            _recordings.c.ended < before if before is not None else sa.true(),
            settled.scalar_subquery() == len(set(required)),
            sa.exists().where(mine, _jobs.c.state == CONFIRMED),
        )
        with self._look() as look:
            for row in look.execute(query.order_by(_recordings.c.ended, _recordings.c.number)):
                has, needs_not = (frozenset(json.loads(names)) for names in (row.has, row.needs_not))
                yield Local(row.number, parcel_of(row), has, needs_not)

    def going(self, numbers: Sequence[int], now: float) -> None:
        """Write down that these recordings are about to be removed from this machine's disk."""
        with self._change() as change:
            for some in _portions(numbers):
                change.execute(_recordings.update().where(_recordings.c.number.in_(some)).values(going=now))

    def half_gone(self) -> list[Local]:
        """Return the recordings whose removal was begun and not ended."""
        with self._look() as look:
            rows = look.execute(sa.select(_recordings).where(_recordings.c.going.is_not(None))).all()
        return [Local(row.number, parcel_of(row), frozenset()) for row in rows]

    def gone(self, numbers: Sequence[int], now: float) -> None:
        """Write down that these recordings are no longer on this machine's disk."""
        values = {"going": None, "removed": now}
        with self._change() as change:
            for some in _portions(numbers):
                change.execute(_recordings.update().where(_recordings.c.number.in_(some)).values(**values))

    def _update(self, statement: sa.Update) -> int:
        """Change something in a transaction of its own; return how many rows."""
        with self._change() as change:
            return change.execute(statement).rowcount

    @contextmanager
    def _change(self) -> Iterator[sa.Connection]:
        """A transaction that writes; it is durable when the block has ended."""
        try:
            with self._engine.begin() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
        except SQLAlchemyError as error:
            raise queue_error(error) from error

    @contextmanager
    def _look(self) -> Iterator[sa.Connection]:
        """A view of one moment."""
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("BEGIN")
                yield connection
        except SQLAlchemyError as error:
            raise queue_error(error) from error


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


def _forget_jobs(change: sa.Connection, number: int) -> None:
    """Remove a recording's jobs: it has changed."""
    mine = _jobs.c.recording == number
    for row in change.execute(sa.select(_jobs.c.target).where(mine, _jobs.c.state == CONFIRMED)).all():
        fewer = _targets.c.confirmed - 1
        change.execute(_targets.update().where(_targets.c.name == row.target).values(confirmed=fewer))
    change.execute(_jobs.delete().where(mine))


def _job(number: int, parcel: Parcel, target: str, state: str) -> dict[str, Any]:
    row = {"recording": number, "target": target, "state": state, "ended": parcel.ended, "bytes": parcel.bytes}
    return row | {"attempts": 0, "next_try": 0.0, "beside": False}


def _make_jobs(change: sa.Connection, name: str) -> None:
    """Give the recordings on this machine's disk a job for a target, where they have none."""
    here = _recordings.c
    known = sa.exists().where(_jobs.c.recording == here.number, _jobs.c.target == name)
    new: dict[str, Any] = {
        "recording": here.number,
        "target": sa.literal(name),
        "state": sa.literal(WAITING),
        "ended": here.ended,
        "bytes": here.bytes,
        "attempts": sa.literal(0),
        "next_try": sa.literal(0.0),
        "beside": sa.false(),
    }
    change.execute(
        _jobs.insert().from_select(list(new), sa.select(*new.values()).where(here.removed.is_(None), ~known))
    )


def _this(job: Job) -> tuple[sa.ColumnElement[bool], ...]:
    return _jobs.c.recording == job.number, _jobs.c.target == job.target


def is_(state: str) -> sa.ColumnElement[bool]:
    """Whether a job is in a state; written out, so that SQLite sees that the index of open jobs will do."""
    return _jobs.c.state == sa.literal_column(f"'{state}'")


def _portions(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[start : start + _SOME] for start in range(0, len(numbers), _SOME))


def parcel_of(row: Any) -> Parcel:
    """Return the parcel that a row of recordings describes."""
    return Parcel(row.id, row.stem, tuple(json.loads(row.files)), row.bytes, row.ended)
