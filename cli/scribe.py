"""A thread for what may take its time: a terminal that nobody reads, a disk that hangs must not hold up capture."""

import threading
from collections import deque
from collections.abc import Callable

MOST = 10_000
"""Tasks that may wait; what comes then is dropped. Reports and alarms come again each second."""


class Scribe:
    """Does tasks in their order. `dropped` counts those for which there was no room."""

    def __init__(self) -> None:
        self.dropped = 0
        self._tasks: deque[Callable[[], object]] = deque()
        self._change = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="scribe", daemon=True)

    def start(self) -> None:
        """Begin; what was asked for before is done first."""
        self._thread.start()

    def do(self, task: Callable[[], object]) -> None:
        """Have something done. Never waits."""
        with self._change:
            if len(self._tasks) >= MOST:
                self.dropped += 1
                return
            self._tasks.append(task)
            self._change.notify()

    def stop(self, patience_s: float) -> None:
        """Do what is left, for at most `patience_s` seconds."""
        with self._change:
            self._stopping = True
            self._change.notify()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._tasks and not self._stopping:
                    self._change.wait()
                if not self._tasks:
                    return
                task = self._tasks.popleft()
            task()
