"""One target's courier: takes the oldest recording that waits for it, delivers it, and judges what went wrong.

After an error the target is tried with a few bytes. If these fail as well, the target is out: nothing else is tried
until a pause is over, and no recording is blamed. If they arrive, the recording is at fault: it waits its own pause,
and the next one's turn comes at once.
"""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .delivery import deliver
from .queue import LONGEST_PAUSE_S, Job, Queue
from .targets import Target, TargetError, WillPass

FIRST_PAUSE_S = 2.0

Outcome = Literal["delivered", "refused", "outage"]


class Stopped(Exception):
    """The courier was told to stop in the middle of a recording, which stays in the queue."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one step. `stem` is the recording's, empty when the target did not even take the few bytes."""

    outcome: Outcome
    target: str
    id: str = ""
    stem: str = ""
    folder: str = ""
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    beside: bool = False
    recovered: bool = False
    error: str = ""
    pause: float = 0.0


def pause(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row: 2, 4, 8 ... and from an hour on hourly, for ever."""
    return min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 32), LONGEST_PAUSE_S)


class Courier:
    """Serves one target; its methods belong to one thread, save `stop` and `silent_for`."""

    def __init__(self, target: Target, queue: Queue, root: Path, clock: Callable[[], float] = time.time) -> None:
        self.target = target
        self._queue = queue
        self._root = root
        self._clock = clock
        self._works = False
        self._stopped = False
        self._last_beat: float | None = None

    def stop(self) -> None:
        """Have a running step raise Stopped soon. For good: it takes no further one."""
        self._stopped = True

    def silent_for(self) -> float:
        """Return the seconds since a running step last moved a byte, 0 when none runs."""
        last = self._last_beat
        return 0.0 if last is None else time.monotonic() - last

    def step(self) -> Report | None:
        """Deliver the oldest recording that is due, and return what came of it; None when nothing is due. Without work
        the target is left alone. Raises Stopped, QueueError.
        """
        now = self._clock()
        known = self._queue.target(self.target.name)
        if now < known.next_try <= now + LONGEST_PAUSE_S:
            return None
        job = self._queue.next(self.target.name, now)
        if job is None:
            return None
        try:
            self._beat()
            if not self._works and (outage := self._try(known.known, known.failures)):
                return outage
            report = self._deliver(job, known.known)
        finally:
            self._last_beat = None
        if known.failing_since is None or report.outcome == "outage":
            return report
        self._queue.works(self.target.name)
        return replace(report, recovered=True)

    def _deliver(self, job: Job, known: bool) -> Report:
        started = time.monotonic()
        try:
            done = deliver(job.parcel, self._root, self.target, self._beat)
        except Stopped:
            raise
        except WillPass as error:
            return self._try(known, 0) or self._refused(job, str(error), pause(job.attempts + 1))
        except TargetError as error:
            return self._refused(job, str(error), LONGEST_PAUSE_S)
        except Exception:  # noqa: BLE001 - a mistake over one recording must not keep the others waiting
            self._works = False
            text = f"a mistake in Tapdeck: {traceback.format_exc().strip()}"
            return self._refused(job, text, LONGEST_PAUSE_S)
        self._queue.confirm(job, self._clock(), done.folder, done.beside)
        parcel = job.parcel
        return Report(
            "delivered",
            self.target.name,
            parcel.id,
            parcel.stem,
            done.folder,
            len(parcel.files),
            parcel.bytes,
            time.monotonic() - started,
            done.beside,
        )

    def _try(self, known: bool, failures: int) -> Report | None:
        """Try the target itself; return the outage if it does not work."""
        self._works = False
        try:
            self.target.check(known)
        except TargetError as error:
            wait = pause(failures + 1)
            self._queue.outage(self.target.name, self._clock(), str(error), wait)
            return Report("outage", self.target.name, error=str(error), pause=wait)
        self._works = True
        return None

    def _refused(self, job: Job, error: str, wait: float) -> Report:
        self._queue.fail(job, self._clock(), error, wait)
        parcel = job.parcel
        return Report("refused", self.target.name, parcel.id, parcel.stem, bytes=parcel.bytes, error=error, pause=wait)

    def _beat(self, size: int = 0) -> None:
        """Show that something moves, or break off."""
        self._last_beat = time.monotonic()
        if self._stopped:
            raise Stopped
