"""Calls as capture hands them over to the seal stage, and a seal stage whose steps can be watched, or broken off.

python -m tests.support.spooled FOLDER [STEP [NUMBER]]: seal what is there; the process kills itself when a step is done
for the NUMBERth time.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tapdeck.cli.call_events import EventPrinter
from tapdeck.cli.parts import live_engine, origin
from tapdeck.cli.seal_stage import SealStage
from tapdeck.cli.settings import RecordingSettings, Settings, SigningSettings, StorageSettings, UserSettings
from tapdeck.sniffer.synthetic import synthetic_call
from tapdeck.storage.spool import DONE, SpoolBook, SpoolFiles

START_NS = 1_795_000_000_000_000_000
SECOND = 1_000_000_000


def settings(folder: Path, keep_packets: bool = False, **signing: Any) -> Settings:
    """A box with all its folders below one."""
    recordings, spool, state = (str(folder / name) for name in ("recordings", "spool", "state"))
    return Settings(
        recording=RecordingSettings(timezone="Europe/Amsterdam", instance="mains street"),
        storage=StorageSettings(recordings, spool, state, keep_packets),
        signing=SigningSettings(**{"keys": str(folder / "keys"), **signing}),
        users=UserSettings(group="", capture="", seal="", deliver="", metrics=""),
    )


def hand_over(folder: Path, calls: int, first: int = 0) -> list[Path]:
    """Put the spool files of so many calls into the folder of those that are over, and return them in their order."""
    made = settings(folder)
    for name in ("recordings", "spool", "state", "state/log", "state/handover"):
        (folder / name).mkdir(exist_ok=True)
    found = []
    for number in range(first, first + calls):
        call = synthetic_call(f"call-{number}", START_NS + number * SECOND, 5060)
        book, files = SpoolBook(origin(made, "test", (101, 1)), []), SpoolFiles(folder / "spool")
        before = set((folder / "spool" / DONE).glob("*")) if (folder / "spool" / DONE).exists() else set()
        engine = live_engine(made, (1,))
        cycles = [engine.listen(records) for records in call.visits()]
        for cycle in [*cycles, engine.idle(call.ended + 600 * SECOND)]:
            for job in book.jobs(cycle.items):
                files.do(job)
        files.sync()
        (new,) = set((folder / "spool" / DONE).glob("*.pcapng")) - before
        os.utime(new, (START_NS // SECOND + number, START_NS // SECOND + number))
        found.append(new)
    return found


def stage(made: Settings, at: Callable[[str], None] = lambda step: None) -> SealStage:
    """A seal stage."""
    return SealStage(made, EventPrinter(True), at)


def seal_all(made: Settings, at: Callable[[str], None] = lambda step: None) -> SealStage:
    """Seal all that is there, and end."""
    one = stage(made, at)
    try:
        one.begin()
        while one.tick():
            pass
    finally:
        one.end()
    return one


def main() -> None:
    done: Counter[str] = Counter()
    last, number = (sys.argv[2], int(sys.argv[3])) if len(sys.argv) > 3 else ("", 0)

    def at(step: str) -> None:
        done[step] += 1
        if step == last and done[step] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    seal_all(settings(Path(sys.argv[1]), keep_packets=True), at)


if __name__ == "__main__":
    main()
