"""Processes killed at random moments over a run of calls: nothing may be lost but the last second before a kill.

    python bench/faults.py                    100 kills, about seven minutes
    python bench/faults.py --kills 20 --supervised
    python bench/faults.py --json

Calls are sent through a veth pair; capture and seal run in its tap's namespace, are killed by SIGKILL (one of them, or
all at once) and started again at once, as a service manager does; some kills hit a stage that is just starting. With
`--supervised` it is `tapdeck run` that starts its stages again. Then every recording is held against what the generator
sent. Needs root.
The exit code is 1 when a call is missing, doubled or damaged, when more than a second before a kill is missing, when
sound is missing for any other reason, or when something half-written is left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from bench import sender  # noqa: E402
from bench.losses import Verdict, judge  # noqa: E402
from bench.traffic import Plan  # noqa: E402
from tests.support.box import Box  # noqa: E402
from tests.support.netns import Namespaces, Wire, end_in_order, missing, wait_for  # noqa: E402

SETTLE_S = 1.5
"""From the first call to the first kill."""
BACK_S = 90.0
"""A stage that does not listen again after this time never will."""
SILENCE_S = 10
"""A call whose BYE nobody heard is over when it has been silent for so much longer than a call lasts."""


@dataclass(frozen=True)
class Campaign:
    """`kills` kills while about `calls` calls of `seconds` seconds are running.

    `supervised`: by `tapdeck run`; else each stage is a process of its own that is started again here.
    """

    kills: int = 100
    calls: int = 40
    seconds: int = 20
    seed: int = 1
    supervised: bool = False
    hasty: float = 0.2
    """Share of kills that do not wait until all is well again."""
    pause_s: tuple[float, float] = (0.3, 4.0)

    @property
    def plans(self) -> list[Plan]:
        """More than enough traffic: it is stopped after the last kill."""
        total = self.seconds + 60 + self.kills * (90 if self.supervised else 8)
        return sender.steady(self.calls, self.seconds, total, every=2)


@dataclass(frozen=True)
class Kill:
    """When (monotonic ns), and which processes."""

    at_ns: int
    what: tuple[str, ...]


@dataclass
class Site:
    """The recorder under test: one `tapdeck run`, or a process for each stage."""

    boxes: list[Box]
    kills: list[Kill] = field(default_factory=list)

    @classmethod
    def of(cls, campaign: Campaign, wire: Wire, folder: Path) -> Site:
        more = ("--media-silence-s", str(campaign.seconds + SILENCE_S))
        stages = ["run"] if campaign.supervised else ["capture", "seal"]
        return cls([Box(wire.tap, [wire.tap_interface], folder, stage, more, alone=stage != "run") for stage in stages])

    def pids(self) -> dict[str, int]:
        return {name: pid for box in self.boxes for name, pid in box.pids().items()}

    def kill(self, what: Sequence[str]) -> None:
        """Kill the processes of these names that there are."""
        pids = self.pids()
        found = tuple(name for name in what if name in pids)
        now = time.monotonic_ns()
        for name in found:
            with suppress(ProcessLookupError):
                os.kill(pids[name], signal.SIGKILL)
        if found:
            self.kills.append(Kill(now, found))
        wait_for("the killed to die", lambda: not any(alive(pids[name]) for name in found))

    def revive(self) -> None:
        """Start again what has ended."""
        for box in self.boxes:
            if box.ended():
                box.start(wait=False)

    def well(self) -> bool:
        """Whether every stage has said that it runs."""
        self.revive()
        return all(box.well() for box in self.boxes)


def alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def run(campaign: Campaign, folder: Path) -> Verdict:
    """The campaign in a folder of its own; what it found."""
    with Namespaces() as spaces:
        wire = Wire.between(spaces)
        site = Site.of(campaign, wire, folder)
        try:
            for box in site.boxes:
                box.start()
            sending = sender.start(wire.sender, wire.interface, campaign.plans)
            _kill(campaign, site)
            played = sending.finish()
            site.boxes[-1].wait_until_sealed()
            codes = {box.stage: box.stop() for box in site.boxes}
        finally:
            for box in site.boxes:
                box.kill()
    sent = campaign.plans[: played.parts]
    return judge(sent, site.boxes[0], sending.started, [(kill.at_ns, kill.what) for kill in site.kills], codes)


def _kill(campaign: Campaign, site: Site) -> None:
    """All kills, at moments that nobody can foresee."""
    chance = random.Random(campaign.seed)
    time.sleep(SETTLE_S)
    while len(site.kills) < campaign.kills:
        if chance.random() < campaign.hasty:
            time.sleep(chance.uniform(0.02, 0.6))
        else:
            wait_for("the stages to be well again", site.well, BACK_S)
            time.sleep(chance.uniform(*campaign.pause_s))
        running = tuple(site.pids())
        choice = [("capture",), ("seal",), running, *([("run",)] if campaign.supervised else [])]
        site.kill(chance.choices(choice, (3, 1, 1, 1)[: len(choice)])[0])
        site.revive()
    wait_for("the stages to be well again", site.well, BACK_S)


def table(campaign: Campaign, verdict: Verdict) -> str:
    """The verdict for a reader."""
    lines = [
        f"{len(verdict.kills)} kills ({', '.join(f'{name} {count}' for name, count in verdict.killed.items())}),"
        f" {verdict.calls} calls, {verdict.recordings} recordings, {verdict.continuations} of them continuations",
        f"calls lost {len(verdict.lost)}, doubled or damaged {len(verdict.damaged)},"
        f" more than a second before a kill {len(verdict.overlong)}, missing without a kill {len(verdict.unexplained)},"
        f" wrongly marked {len(verdict.unmarked)}, left behind {len(verdict.leftovers)}",
        f"sound lost before a kill: at most {verdict.worst_loss_s:.2f} s, half of them {verdict.median_loss_s:.2f} s;"
        f" until capture listened again: at most {verdict.worst_gap_s:.2f} s, half {verdict.median_gap_s:.2f} s",
        f"calls that began in the last second before a kill or while nothing listened: {verdict.in_shadow},"
        f" of which recorded {verdict.in_shadow_recorded}",
    ]
    return "\n".join([*lines, *(f"  {text}" for text in verdict.findings[:40])])


def main() -> int:
    """Run a campaign, print what it found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=Campaign.kills)
    parser.add_argument("--calls", type=int, default=Campaign.calls)
    parser.add_argument("--seconds", type=int, default=Campaign.seconds, help="length of a call")
    parser.add_argument("--seed", type=int, default=Campaign.seed)
    parser.add_argument("--supervised", action="store_true", help="`tapdeck run` starts its stages again")
    parser.add_argument("--keep", type=Path, help="folder in which all is left")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    end_in_order()
    if reason := missing():
        raise SystemExit(reason)
    campaign = Campaign(
        arguments.kills, arguments.calls, arguments.seconds, arguments.seed, supervised=arguments.supervised
    )
    with TemporaryDirectory(prefix="bench") as name:
        folder = arguments.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        verdict = run(campaign, folder)
    if arguments.json:
        print(json.dumps(asdict(verdict) | {"good": verdict.good}))
    else:
        print(table(campaign, verdict))
    return 0 if verdict.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
