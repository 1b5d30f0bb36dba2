"""Half an hour of an office's calls: does any process grow?

    python bench/soak.py                              200 calls at one time, 30 minutes
    python bench/soak.py --calls 20 --minutes 2 --json

Calls of a minute begin and end all the time. Memory is each process's own (RssAnon: neither the ring nor files that are
mapped), looked at every five seconds. Bounded tables take a while to fill (the last 4,096 calls are remembered, twenty
minutes of them here); memory is flat if in the last fifth of the run it is no more than in the fifth before, save 2 %
and 1 MiB. Needs root.
The exit code is 1 when a process grew, a packet was dropped, or a recording is missing or wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from bench import compare, sender  # noqa: E402
from bench.traffic import Plan, call_id  # noqa: E402
from bench.usage import Sample, Watch  # noqa: E402
from tests.support.box import Box  # noqa: E402
from tests.support.netns import Namespaces, Wire, end_in_order, missing  # noqa: E402
from tests.support.record import Recording  # noqa: E402

EVERY_S = 5.0
ROWS = 15
SHARE, SLACK = 1.02, 1 << 20
SAMPLE = 40


@dataclass(frozen=True)
class Growth:
    """A process's memory in the second, fourth and last fifth of the run, and at most, in bytes; its CPU in cores."""

    name: str
    early: float
    before: float
    late: float
    peak: int
    cores: float

    @property
    def flat(self) -> bool:
        return self.late <= SHARE * self.before + SLACK


@dataclass(frozen=True)
class Soak:
    """What the run showed."""

    calls: int
    packets: int
    seen: int
    dropped: int
    recordings: int
    wrong: list[str]
    growth: list[Growth]

    @property
    def good(self) -> bool:
        whole = self.recordings == self.calls and not self.wrong
        return whole and not self.dropped and self.seen == self.packets and all(one.flat for one in self.growth)


def soak(calls: int, minutes: float, folder: Path, stage: str, every_s: float = EVERY_S) -> tuple[Soak, list[Sample]]:
    """Run it in a folder of its own."""
    total = int(minutes * 60)
    plans = sender.steady(calls, min(60, total // 3), total)
    with Namespaces() as spaces:
        wire = Wire.between(spaces)
        with Box(wire.tap, [wire.tap_interface], folder, stage) as box:
            with Watch(box.pids, every_s) as watch:
                played = sender.start(wire.sender, wire.interface, plans).wait()
            time.sleep(2)
            [port] = box.report("capture")["interfaces"]
            box.wait_until_sealed(300)
            found = compare.by_call(box.recordings())
        every = [(plan, call) for plan in plans for call in range(plan.calls)]
        return Soak(
            calls=len(every),
            packets=played.packets,
            seen=port["packets"] - port["drops"],
            dropped=port["drops"],
            recordings=sum(map(len, found.values())),
            wrong=_wrong(every, found),
            growth=[_growth(watch, name) for name in watch.names()],
        ), watch.samples


def _wrong(every: Sequence[tuple[Plan, int]], found: dict[str, list[Recording]]) -> list[str]:
    """What is wrong in a sample of the recordings."""
    some = random.Random(1).sample(every, min(SAMPLE, len(every)))
    texts = [compare.whole(plan, call, found.get(call_id(plan.first + call), [])) for plan, call in some]
    return [text for text in texts if text]


def _growth(watch: Watch, name: str) -> Growth:
    seen = [sample.of[name].own for sample in watch.samples if name in sample.of]
    fifth = max(len(seen) // 5, 1)
    return Growth(
        name,
        median(seen[fifth : 2 * fifth] or seen),
        median(seen[-2 * fifth : -fifth] or seen),
        median(seen[-fifth:]),
        watch.peak(name),
        round(watch.cores(name), 3),
    )


def table(soaked: Soak, samples: Sequence[Sample]) -> str:
    """Memory over time, and the verdict, as Markdown."""
    names = [one.name for one in soaked.growth]
    lines = [
        f"| minute | {' | '.join(f'{name}, MB' for name in names)} |",
        "|---" * (len(names) + 1) + "|",
    ]
    for sample in samples[:: max(len(samples) // ROWS, 1)]:
        own = [f"{sample.of[name].own / 1e6:.1f}" if name in sample.of else "-" for name in names]
        lines.append(f"| {sample.at_s / 60:.1f} | {' | '.join(own)} |")
    lines += [
        "",
        f"{soaked.calls:,} calls, {soaked.packets:,} packets sent, {soaked.seen:,} seen, {soaked.dropped:,} dropped,"
        f" {soaked.recordings:,} recordings, {SAMPLE} of them checked: {len(soaked.wrong)} wrong",
        *soaked.wrong[:5],
    ]
    for one in soaked.growth:
        fifths = ", ".join(f"{size / 1e6:.1f}" for size in (one.early, one.before, one.late))
        memory = f"{fifths} MB in the second, fourth and last fifth, {one.peak / 1e6:.1f} MB at most"
        lines.append(f"{one.name}: {memory}: {'flat' if one.flat else 'GROWS'}; {one.cores:.2f} cores")
    return "\n".join(lines)


def main() -> int:
    """Run it, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--stage", choices=("run", "capture"), default="run", help="the command that is run")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    end_in_order()
    if reason := missing():
        raise SystemExit(reason)
    with TemporaryDirectory(prefix="bench") as name:
        soaked, samples = soak(arguments.calls, arguments.minutes, Path(name), arguments.stage)
    if arguments.json:
        print(json.dumps(asdict(soaked) | {"good": soaked.good, "samples": [asdict(sample) for sample in samples]}))
    else:
        print(table(soaked, samples))
    return 0 if soaked.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
