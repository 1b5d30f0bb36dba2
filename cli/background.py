"""One piece of work at a time that may take long, or hang, while a stage goes on with its round."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Result = TypeVar("Result")


@dataclass(slots=True)
class Background(Generic[Result]):
    """Runs work in a thread of its own. A thread that hangs keeps the process from nothing, not even from its end."""

    name: str
    _thread: threading.Thread | None = None
    _done: list[Callable[[], Result]] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        """Whether work is under way, or its result has not been taken yet."""
        return self._thread is not None

    def start(self, work: Callable[[], Result]) -> None:
        """Begin. Only when nothing is under way."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._run, args=(work,), name=self.name, daemon=True)
        self._thread.start()

    def take(self) -> list[Result]:
        """Return the result, once, if there is one by now. Raises what the work has raised."""
        if self._thread is None or not self._done:
            return []
        self._thread.join()
        self._thread = None
        return [self._done.pop()()]

    def wait(self, patience_s: float) -> None:
        """Give it that long to end."""
        if self._thread is not None:
            self._thread.join(patience_s)

    def _run(self, work: Callable[[], Result]) -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that takes the result
            caught = error

            def fail() -> Result:
                raise caught

            self._done.append(fail)
        else:
            self._done.append(lambda: result)
