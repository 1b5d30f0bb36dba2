"""The threads of the deliver stage: for each target as many as it has connections."""

import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence

from ..storage.courier import Courier, Report, Stopped
from ..storage.dispatch import Dispatch
from ..storage.queue import QueueError

_IDLE_S, _RETRY_S = 1.0, 5.0
_REST_AFTER_S = 60.0
"""Seconds without work after which a connection is dropped."""
_RATE_OVER_S = 5.0
"""Seconds over which the rate of a target is taken."""


class Worker:
    """A courier in a thread of its own: a target that hangs holds up nobody else."""

    def __init__(self, courier: Courier, reports: "queue.SimpleQueue[Report]", once: bool) -> None:
        self.courier = courier
        self.trouble = ""
        self._reports = reports
        self._once = once
        self._wake = threading.Event()
        self._ended = False
        self._idle_since: float | None = None
        self._thread = threading.Thread(target=self._run, name=courier.target.name, daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Have it look for work at once."""
        self._wake.set()

    def stop(self) -> None:
        """Have it end soon."""
        self._ended = True
        self.courier.stop()
        self._wake.set()

    def join(self, patience: float) -> None:
        """Wait until it has ended. One whose target hangs is left behind: it cannot be ended, and ends with us."""
        self._thread.join(patience)

    def _run(self) -> None:
        try:
            while not self._ended and self._step():
                pass
        except Stopped:
            pass
        finally:
            self.courier.target.close()

    def _step(self) -> bool:
        """Do one thing, or wait for one. False when there is nothing more to do for good. Raises Stopped."""
        try:
            report = self.courier.step()
            self.trouble = ""
        except Stopped:
            raise
        except QueueError as error:
            report, self.trouble = None, str(error)
        except Exception:  # noqa: BLE001 - a mistake in one target must not end the others
            report, self.trouble = None, f"a mistake in Tapdeck: {traceback.format_exc().strip()}"
        if report is not None:
            self._idle_since = None
            self._reports.put(report)
        elif self._once:
            return False
        else:
            self._wait()
        return True

    def _wait(self) -> None:
        now = time.monotonic()
        if self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since > _REST_AFTER_S:
            self.courier.rest()
            self._idle_since = now
        self._wake.wait(_RETRY_S if self.trouble else _IDLE_S)
        self._wake.clear()


class Crew:
    """All couriers of one target."""

    def __init__(
        self,
        dispatch: Dispatch,
        couriers: Sequence[Courier],
        reports: "queue.SimpleQueue[Report]",
        once: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.dispatch = dispatch
        self._clock = clock
        self._seen = (clock(), 0)
        self._rate = 0.0
        self._workers = [Worker(courier, reports, once) for courier in couriers]

    @property
    def busy(self) -> bool:
        """Whether one of them still has something to do."""
        return any(worker.busy for worker in self._workers)

    @property
    def trouble(self) -> str:
        """What keeps one of them from working at all, empty if nothing does."""
        return next((worker.trouble for worker in self._workers if worker.trouble), "")

    @property
    def silent_for(self) -> float:
        """The longest that one of them has been at something without moving a byte, in seconds."""
        return max(worker.courier.silent_for() for worker in self._workers)

    def rate(self) -> float:
        """Return the bytes a second that have moved lately."""
        now, moved = self._clock(), self.dispatch.moved
        since, before = self._seen
        if now - since >= _RATE_OVER_S:
            self._rate, self._seen = (moved - before) / (now - since), (now, moved)
        return self._rate

    def wake(self) -> None:
        """Have all of them look for work at once: there is some."""
        self.dispatch.look_again()
        for worker in self._workers:
            worker.wake()

    def stop(self) -> None:
        """Have all of them end soon."""
        for worker in self._workers:
            worker.stop()

    def join(self, deadline: float) -> None:
        """Wait until all have ended, until a moment of the monotonic clock at most."""
        for worker in self._workers:
            worker.join(max(deadline - time.monotonic(), 0.0))
