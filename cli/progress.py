"""A progress bar on a terminal, and nothing anywhere else."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ProgressBar:
    """Shows how far a run is, on standard error: `with ProgressBar(total) as bar: bar.update(...)`.

    `total` is the input's size in bytes, None if nobody knows (a pipe). What is printed to standard output meanwhile
    appears above the bar. Unless standard error is a terminal, it does nothing and does not even import rich.
    """

    def __init__(self, total: int | None, enabled: bool = True) -> None:
        self._total = total
        self._enabled = enabled and sys.stderr.isatty()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "ProgressBar":
        if self._enabled:
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, packets: int, calls: int) -> None:
        """Show `done` bytes read, and how many packets and calls there were so far."""
        self.show(done, f"{packets:,} packets  {calls:,} calls")

    def show(self, done: int, text: str, total: int | None = None) -> None:
        """Show `done` bytes read, of `total` if that was not known before, and what else there is to say."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, text=text, total=total or self._total)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            BarColumn(bar_width=None),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[text]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
            expand=True,
            refresh_per_second=4,
            redirect_stdout=sys.stdout.isatty(),  # a file or pipe gets our lines as they are
            redirect_stderr=True,
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=self._total, text="")
