"""Calls sent through an interface as they are planned, made in memory and ahead of time.

    echo '[{"calls": 1000, "seconds": 70}]' | python -m bench.sender --interface tx0

prints what tests/support/replay.py prints: a line when the clock begins to run, a line when all is sent.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.invites import Flood, write_flood
from bench.traffic import START_US, Plan, write_records
from tests.support.netns import within
from tests.support.replay import Frames, Played, Started, frames, run

REPOSITORY = Path(__file__).resolve().parents[1]
AHEAD = 3
"""Plans that are ready before their time comes."""
NICE = -10
"""A wire does not wait for what else the machine does."""


def made(plan: Plan | Flood) -> Frames:
    """All frames of a plan."""
    space = io.BytesIO()
    if isinstance(plan, Plan):
        write_records(replace(plan), space)  # what a plan works out for itself goes with the copy
    else:
        write_flood(plan, space)
    return frames(space.getbuffer())


def steady(calls: int, seconds: int, total: int, every: int = 10, first: int = 0) -> list[Plan]:
    """Plans that keep about `calls` calls of `seconds` seconds running for `total` seconds."""
    each = round(calls * every / seconds)
    return [
        Plan(each, seconds, every, seed=1 + first + number, first=first + each * number, begin=every * number)
        for number in range(max((total - seconds) // every, 1))
    ]


def ahead(plans: Iterable[Plan | Flood]) -> Iterator[Frames]:
    """The frames of each plan, made by a thread while earlier ones are played."""
    ready: queue.Queue[Frames | None] = queue.Queue(AHEAD)

    def work() -> None:
        for plan in plans:
            ready.put(made(plan))
        ready.put(None)

    threading.Thread(target=work, daemon=True).start()
    while (some := ready.get()) is not None:
        yield some


@dataclass
class Sending:
    """A sender at work: when it began, and, once it is done, what it sent."""

    process: subprocess.Popen[str]
    started: Started

    def done(self) -> bool:
        return self.process.poll() is not None

    def wait(self) -> Played:
        """Wait for its end. Raises RuntimeError if it failed."""
        text, _ = self.process.communicate()
        if self.process.returncode:
            raise RuntimeError(f"the sender ended with exit code {self.process.returncode}")
        return Played(**json.loads(text.splitlines()[-1]))

    def finish(self) -> Played:
        """Have it begin no further plan, and wait for the end of those that run."""
        self.process.send_signal(signal.SIGUSR1)
        return self.wait()


def start(namespace: str, interface: str, plans: Iterable[Plan | Flood], speed: float = 1.0) -> Sending:
    """Start sending from a namespace; return when the first frame is on its way."""
    command = [sys.executable, "-m", "bench.sender", "--interface", interface, "--speed", str(speed)]
    process = subprocess.Popen(
        within(namespace, *command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([asdict(plan) for plan in plans]))
    process.stdin.close()
    process.stdin = None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the sender ended with exit code {process.wait()}")
    return Sending(process, Started(**json.loads(line)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--interface", required=True)
    parser.add_argument("--speed", type=float, default=1.0)
    arguments = parser.parse_args()
    plans = [Flood(**plan) if "rate" in plan else Plan(**plan) for plan in json.load(sys.stdin)]
    enough = threading.Event()
    signal.signal(signal.SIGUSR1, lambda number, frame: enough.set())
    source = ahead(plans)
    first = next(source)
    os.nice(NICE)
    zero_ns = (START_US + 1_000_000 * plans[0].begin) * 1000
    run(arguments.interface, _until(enough, first, source), arguments.speed, zero_ns)


def _until(enough: threading.Event, first: Frames, rest: Iterator[Frames]) -> Iterator[Frames]:
    yield first
    while not enough.is_set() and (some := next(rest, None)) is not None:
        yield some


if __name__ == "__main__":
    main()
