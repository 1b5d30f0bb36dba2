"""A target's courier: takes the oldest recording that waits for it, delivers it, and judges what went wrong.

After an error the target is tried with a few bytes. If these fail as well, the target is out: nothing else is tried
until a pause is over, and no recording is blamed. If they arrive, the recording is at fault: it waits its own pause,
and the next one's turn comes at once.
"""

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from .delivery import Vanished
from .dispatch import Assignment, Dispatch
from .jobs import Job
from .targets import Target, TargetError, WillPass

_NAP_S = 0.5
"""The longest sleep at a time: what waits for its turn is not silent, and stops when the hours are over."""

Outcome = Literal["delivered", "refused", "lost", "outage"]


class Stopped(Exception):
    """The courier was told to stop in the middle of a recording, which stays in the queue."""


class _Closed(Exception):
    """The hours in which the target may be used are over."""


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


class Courier:
    """Serves one target, beside others that do the same; its methods belong to one thread, save `stop` and
    `silent_for`.
    """

    def __init__(
        self,
        target: Target,
        dispatch: Dispatch,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target = target
        self._dispatch = dispatch
        self._halt = threading.Event()
        self._sleep = sleep or self._halt.wait
        self._clock = clock
        self._works = False
        self._outage: Report | None = None
        self._last_beat: float | None = None

    def stop(self) -> None:
        """Have a running step raise Stopped soon. For good: it takes no further one."""
        self._halt.set()

    def silent_for(self) -> float:
        """Return the seconds since a running step last moved a byte, or waited for its turn; 0 when none runs."""
        last = self._last_beat
        return 0.0 if last is None else time.monotonic() - last

    def rest(self) -> None:
        """Drop the connection; the next step makes a new one."""
        self._works = False
        self.target.close()

    def step(self) -> Report | None:
        """Deliver the oldest recording that is due, and return what came of it; None when nothing is due, or nothing
        may be done. Without work the target is left alone. Raises Stopped, QueueError.
        """
        if self._halt.is_set():
            raise Stopped
        given = self._dispatch.take()
        if given is None:
            return None
        try:
            self._beat()
            return self._serve(given)
        except _Closed:
            return None  # the rest comes when the hours do
        finally:
            self._last_beat = None
            self._dispatch.give_back(given.job)

    def _serve(self, given: Assignment) -> Report | None:
        if not self._works and not self._try(given):
            return self._outage
        report = self._deliver(given)
        if report is None:
            return self._outage
        return replace(report, recovered=True) if self._dispatch.works() else report

    def _deliver(self, given: Assignment) -> Report | None:
        """Return what came of it, None if the target is out."""
        job, started = given.job, time.monotonic()
        try:
            done = self._dispatch.carry(job, self.target, self._beat)
        except (Stopped, _Closed):
            raise
        except Vanished as error:
            return self._lost(job, str(error))
        except WillPass as error:
            return self._refused(job, str(error), passes=True) if self._try(given) else None
        except TargetError as error:
            return self._refused(job, str(error), passes=False)
        except Exception:  # noqa: BLE001 - a mistake over one recording must not keep the others waiting
            self.rest()
            return self._refused(job, _mistake(), passes=False)
        self._dispatch.confirm(job, done)
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

    def _try(self, given: Assignment) -> bool:
        """Try the target itself. If it does not work, `_outage` is what to report."""
        self._works, self._outage = False, None
        try:
            self.target.check(given.known)
        except TargetError as error:
            text = str(error)
        except Exception:  # noqa: BLE001 - a mistake in one target must not end its courier
            text = _mistake()
        else:
            self._works = True
            self._dispatch.answers(given.job)
            return True
        self.target.close()
        pause = self._dispatch.outage(text, given.failures)
        if pause is not None:
            self._outage = Report("outage", self.target.name, error=text, pause=pause)
        return False

    def _refused(self, job: Job, error: str, passes: bool) -> Report:
        wait = self._dispatch.refused(job, error, passes)
        parcel = job.parcel
        return Report("refused", self.target.name, parcel.id, parcel.stem, bytes=parcel.bytes, error=error, pause=wait)

    def _lost(self, job: Job, error: str) -> Report:
        self._dispatch.lost(job, error)
        return Report("lost", self.target.name, job.parcel.id, job.parcel.stem, bytes=job.parcel.bytes, error=error)

    def _beat(self, size: int = 0) -> None:
        """Show that something moves, wait where the bandwidth says so, or break off."""
        self._go_on()
        until = self._clock() + self._dispatch.spend(size)
        while (left := until - self._clock()) > 0:
            self._sleep(min(left, _NAP_S))
            self._go_on()

    def _go_on(self) -> None:
        self._last_beat = time.monotonic()
        if self._halt.is_set():
            raise Stopped
        if not self._dispatch.open():
            raise _Closed


def _mistake() -> str:
    return f"a mistake in Tapdeck: {traceback.format_exc().strip()}"
