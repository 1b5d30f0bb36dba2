"""The delivery queue as commands use it, beside the running stage or without one: to look, to ask for another attempt,
to take note of what was lost. It is never made, checked or changed in its form here.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import sqlalchemy as sa

from . import queue_schema as schema
from .parcel import ENDINGS, Parcel
from .queue import Queue, is_, parcel_of
from .queue_schema import DROPPED, LOST, WAITING, QueueError

_recordings, _jobs, _targets = schema.recordings, schema.jobs, schema.targets
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Known:
    """A recording in the queue; `removed` is when it went from this machine, None while it is here."""

    number: int
    parcel: Parcel
    removed: float | None


@dataclass(frozen=True, slots=True)
class Fate:
    """What has come of one recording at one target."""

    target: str
    state: str
    attempts: int
    next_try: float
    failing_since: float | None
    error: str
    place: str
    beside: bool
    confirmed: float | None


class QueueVisit(Queue):
    """The queue of another process. Its methods raise QueueError."""

    def __init__(self, path: Path) -> None:
        """Raises QueueError if there is none, if this user may not use it, or if it is of another version."""
        if not path.exists():
            raise QueueError(f"{path}: there is no delivery queue yet: `tapdeck deliver` makes it when it starts")
        self.damaged = False
        self._engine = schema.connect(path)
        with self._look() as look:
            version = int(look.exec_driver_sql("PRAGMA user_version").scalar_one())
        if version != schema.VERSION:
            raise QueueError(f"{path}: it is of version {version}, not {schema.VERSION}: restart `tapdeck deliver`")

    def find(self, text: str, root: Path) -> list[Known]:
        """Return the recordings that an id, the path of a file below `root`, or the name of a file means."""
        path = PurePosixPath(os.path.relpath(text, root)) if text.startswith("/") else PurePosixPath(text)
        ending = next((one for one in sorted(ENDINGS, key=len, reverse=True) if path.name.endswith(one)), "")
        stem = str(path).removesuffix(ending)
        name = f"/{PurePosixPath(stem).name}"
        last = sa.func.substr(_recordings.c.stem, -len(name)) == name
        exact = sa.or_(_recordings.c.id == text, _recordings.c.stem == stem)
        by_name = last if "/" not in text else sa.false()
        # A target may have named the file otherwise, but with the id in it.
        by_id = _recordings.c.id.in_(re.findall(r"[0-9A-Za-z]{8,}", path.name))
        for which in (exact, by_name, by_id):
            with self._look() as look:
                rows = look.execute(sa.select(_recordings).where(which).limit(_SHOWN)).all()
            if rows:
                return [Known(row.number, parcel_of(row), row.removed) for row in rows]
        return []

    def fates(self, number: int) -> list[Fate]:
        """Return what has come of a recording at each target that has a job for it."""
        with self._look() as look:
            rows = look.execute(sa.select(_jobs).where(_jobs.c.recording == number).order_by(_jobs.c.target)).all()
        return [
            Fate(
                row.target,
                row.state,
                row.attempts,
                row.next_try,
                row.failing_since,
                row.error or "",
                row.place or "",
                row.beside,
                row.confirmed,
            )
            for row in rows
        ]

    def left(self, targets: Sequence[str]) -> dict[str, int]:
        """Return how many recordings wait for other targets than these: disabled ones, and those of old."""
        count = sa.func.count()
        query = sa.select(_jobs.c.target, count).where(is_(WAITING), _jobs.c.target.not_in(list(targets)))
        with self._look() as look:
            return {name: int(size) for name, size in look.execute(query.group_by(_jobs.c.target))}

    def retry(self, targets: Sequence[str], numbers: Sequence[int] | None = None) -> int:
        """Have everything that waits for these targets, or these recordings of it, tried at once; return how many."""
        which = [_jobs.c.target.in_(list(targets)), is_(WAITING)]
        if numbers is not None:
            which.append(_jobs.c.recording.in_(list(numbers)))
        with self._change() as change:
            change.execute(_targets.update().where(_targets.c.name.in_(list(targets))).values(next_try=0.0))
            change.execute(_jobs.update().where(*which, _jobs.c.next_try > 0).values(next_try=0.0))
            return int(change.execute(sa.select(sa.func.count()).select_from(_jobs).where(*which)).scalar_one())

    def drop(self, numbers: Sequence[int], targets: Sequence[str]) -> int:
        """Take note that these recordings were lost: nobody waits for them any more. Return how many jobs that were."""
        lost = _jobs.update().where(_jobs.c.recording.in_(list(numbers)), _jobs.c.target.in_(list(targets)), is_(LOST))
        return self._update(lost.values(state=DROPPED))
