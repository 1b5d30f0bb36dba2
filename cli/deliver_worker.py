"""The threads of the deliver stage: one for each target."""

import queue
import threading
import traceback

from ..storage.courier import Courier, Report, Stopped
from ..storage.queue import QueueError

_IDLE_S, _RETRY_S = 1.0, 5.0


class Worker:
    """A courier in a thread of its own: a target that hangs holds up nobody else."""

    def __init__(self, courier: Courier, reports: "queue.SimpleQueue[Report]", once: bool) -> None:
        self.courier = courier
        self.trouble = ""
        self._reports = reports
        self._once = once
        self._wake = threading.Event()
        self._ended = False
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
        while not self._ended:
            try:
                report = self.courier.step()
                self.trouble = ""
            except Stopped:
                return
            except QueueError as error:
                report, self.trouble = None, str(error)
            except Exception:  # noqa: BLE001 - a mistake in one target must not end the others
                report, self.trouble = None, f"a mistake in Tapdeck: {traceback.format_exc().strip()}"
            if report is not None:
                self._reports.put(report)
            elif self._once:
                return
            else:
                self._wake.wait(_RETRY_S if self.trouble else _IDLE_S)
                self._wake.clear()
