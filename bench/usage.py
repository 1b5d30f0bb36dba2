"""What processes cost: CPU and memory, read from /proc while they run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """CPU used so far, and memory: resident, and its own (not shared with files or other processes)."""

    cpu_s: float
    resident: int
    own: int


def usage(pid: int) -> Usage | None:
    """What a process has used, with its threads; None if it is no more."""
    with suppress(OSError, IndexError, KeyError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        own = int(status["RssAnon"].split()[0]) * 1024
        return Usage((int(fields[11]) + int(fields[12])) / TICKS, int(fields[21]) * PAGE, own)
    return None


@dataclass(frozen=True)
class Sample:
    """One look: seconds since the beginning, and each process's usage by its name."""

    at_s: float
    of: dict[str, Usage]


@dataclass
class Watch:
    """Looks at processes every so often, as long as the `with` block lasts."""

    pids: Callable[[], dict[str, int]]
    every_s: float = 1.0
    samples: list[Sample] = field(default_factory=list)

    def __enter__(self) -> Watch:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def cores(self, name: str) -> float:
        """CPU seconds a second of a process, over its samples."""
        seen = [(sample.at_s, sample.of[name].cpu_s) for sample in self.samples if name in sample.of]
        if len(seen) < 2:
            return 0.0
        return (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])

    def peak(self, name: str) -> int:
        """The greatest memory of a process's own."""
        return max((sample.of[name].own for sample in self.samples if name in sample.of), default=0)

    def names(self) -> list[str]:
        return sorted({name for sample in self.samples for name in sample.of})

    def _run(self) -> None:
        begin = time.monotonic()
        while True:
            found = {name: usage(pid) for name, pid in self.pids().items()}
            self.samples.append(
                Sample(time.monotonic() - begin, {name: one for name, one in found.items() if one is not None})
            )
            if self._over.wait(self.every_s):
                return
