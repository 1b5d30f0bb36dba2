"""What the couriers of one target share: which recordings are next and who has which, whether the target works, when
and how fast it may be used.

Who has which is in memory only: after a kill nobody has anything.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .about import read_about
from .delivery import BLOCK, Beat, Delivered, Manner, Places, Vanished, deliver
from .jobs import Job
from .pace import Bandwidth, Hours, Pauses
from .queue import Queue
from .route import Route
from .targets import ForGood, Target

_AHEAD = 20
"""Jobs that are looked up at a time."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a target is served. Without a route everything goes where it lies here; without hours, always."""

    route: Route | None = None
    pauses: Pauses = field(default_factory=Pauses)
    hours: Hours | None = None
    bandwidth: Bandwidth | None = None
    read_back: bool = True


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job, and what was known of the target when it was given out: whether anything was ever delivered to it, and how
    often in a row it has failed.
    """

    job: Job
    known: bool
    failures: int


class Dispatch:
    """The office of one target. Its methods may be called from any thread; all of them raise QueueError."""

    def __init__(
        self,
        name: str,
        queue: Queue,
        root: Path,
        terms: Terms | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.terms = terms or Terms()
        self._queue, self._root, self._clock = queue, root, clock
        limit = self.terms.bandwidth
        self._manner = Manner(self.terms.read_back, block=limit.block if limit else BLOCK)
        self._lock = threading.Lock()
        self._ahead: deque[Job] = deque()
        self._taken: set[int] = set()
        self._trying: int | None = None
        self._state = queue.target(name)
        self._failing = False
        self._moved = 0

    @property
    def moved(self) -> int:
        """The bytes that have gone to the target or come back from it."""
        return self._moved

    def open(self) -> bool:
        """Whether the target may be used now."""
        hours = self.terms.hours
        return hours is None or hours.open(self._clock())

    def opens(self) -> float | None:
        """Return when it may be used next, None if it may be now."""
        hours, now = self.terms.hours, self._clock()
        return None if hours is None or hours.open(now) else hours.opens(now)

    def look_again(self) -> None:
        """Take note that there is more to do than there was."""
        with self._lock:
            self._ahead.clear()

    def take(self) -> Assignment | None:
        """Give out the oldest job that is due and that nobody has. None if there is none, outside the hours, in the
        pause after a failure, and while somebody else finds out whether the target works again.
        """
        with self._lock:
            if not self.open():
                self._ahead.clear()
                return None
            if not self._ahead and not self._look_up():
                return None
            job = self._ahead.popleft()
            self._taken.add(job.number)
            if self._failing:
                self._trying = job.number
            return Assignment(job, self._state.known, self._state.failures)

    def _look_up(self) -> bool:
        now, longest = self._clock(), self.terms.pauses.longest
        self._state = state = self._queue.target(self.name)
        self._failing = state.failing_since is not None
        if now < state.next_try <= now + longest or (self._failing and self._trying is not None):
            return False
        limit = 1 if self._failing else _AHEAD
        self._ahead.extend(self._queue.due(self.name, now, longest, limit, self._taken))
        return bool(self._ahead)

    def give_back(self, job: Job) -> None:
        """Take note that nobody has the job any more."""
        with self._lock:
            self._taken.discard(job.number)
            if self._trying == job.number:
                self._trying = None

    def answers(self, job: Job) -> None:
        """Take note that the target has taken a few bytes: the others may try it too."""
        with self._lock:
            if self._trying == job.number:
                self._trying = None

    def carry(self, job: Job, target: Target, beat: Beat) -> Delivered:
        """Copy the recording. Raises TargetError."""
        return deliver(job.parcel, self._root, target, beat, self._places(job), self._manner)

    def _places(self, job: Job) -> Places | None:
        route = self.terms.route
        if route is None or not (route.folder or route.file):
            return None
        try:
            return route.places(job.parcel, read_about(self._root, job.parcel))
        except FileNotFoundError as error:
            raise Vanished(f"the recording itself is gone from this machine: {error.filename}") from error
        except OSError as error:
            raise ForGood(f"the recording itself cannot be read: {error.filename}: {error.strerror}") from error

    def spend(self, size: int) -> float:
        """Account for bytes that have moved; return the seconds to wait before any more do."""
        with self._lock:
            self._moved += size
        limit = self.terms.bandwidth
        return limit.spend(size) if limit and size else 0.0

    def confirm(self, job: Job, done: Delivered) -> None:
        """Write down that the target has the recording."""
        self._queue.confirm(job, self._clock(), done.folder, done.beside)

    def refused(self, job: Job, error: str, passes: bool) -> float:
        """Write down that the target does not take a recording while it takes others; return the pause."""
        pauses = self.terms.pauses
        pause = pauses.after(job.attempts + 1) if passes else pauses.longest
        self._queue.fail(job, self._clock(), error, pause)
        return pause

    def lost(self, job: Job, error: str) -> None:
        """Write down that the recording is gone from this machine."""
        self._queue.lose(job, self._clock(), error)

    def outage(self, error: str, failures: int) -> float | None:
        """Write down that the target does not work; return the pause, None if somebody else was quicker."""
        pause = self.terms.pauses.after(failures + 1)
        with self._lock:
            self._ahead.clear()
            self._failing = True
        return pause if self._queue.outage(self.name, self._clock(), error, pause, failures) else None

    def works(self) -> bool:
        """Write down that the target works; return whether it did not before."""
        with self._lock:
            failing, self._failing = self._failing, False
        return failing and self._queue.works(self.name)
