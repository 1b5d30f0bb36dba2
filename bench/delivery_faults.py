"""Delivery killed at random moments: at the end every recording is on every target, once, and whole.

    python bench/delivery_faults.py                   200 kills, about seven minutes
    python bench/delivery_faults.py --kills 20 --seed 7 --json

`tapdeck deliver` copies to a folder, to a real Samba and to a real OpenSSH server at once, while recordings are handed
over; the stage, the servers, or all of them are killed by SIGKILL at random moments, and started again. Then what lies
in the servers' folders is compared with what was handed over, byte for byte. Needs root.
The exit code is 1 when a file is missing, differs, is there twice, when a temporary one is left, or something waits.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.support.delivering import Servers, Stage, held, servers  # noqa: E402
from tests.support.parcels import ALL_ENDINGS, DAY, noise, record  # noqa: E402

LONG = 8 << 20
"""Size from which on uploads are gone on with."""
END_S = 300.0


@dataclass(frozen=True)
class Campaign:
    """`kills` kills while recordings are handed over, one each `every_s` seconds, every `large_every`th a large one."""

    kills: int = 200
    seed: int = 1
    every_s: float = 0.25
    large_every: int = 20
    pause_s: tuple[float, float] = (0.1, 2.5)


@dataclass
class Verdict:
    """What was killed, and what was found. `in_flight` counts kills while temporary files lay on a target."""

    killed: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    recordings: int = 0
    large: int = 0
    bytes: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(self.killed.values())

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings and self.recordings > 0


class Feeder(threading.Thread):
    """Writes recordings and hands them over, until it is told to stop."""

    def __init__(self, campaign: Campaign, stage: Stage) -> None:
        super().__init__(daemon=True)
        self._campaign, self._stage = campaign, stage
        self._chance = random.Random(campaign.seed)
        self._halt = threading.Event()
        self.sizes: list[int] = []

    def run(self) -> None:
        while not self._halt.wait(self._campaign.every_s):
            number = len(self.sizes)
            large = number % self._campaign.large_every == 5
            size = self._chance.randint(LONG, LONG + (6 << 20)) if large else self._chance.randint(2_000, 300_000)
            ended = 1_795_000_000.0 + number
            made = record(self._stage.root, identity(number), noise(size), ended=ended, endings=ALL_ENDINGS)
            self._stage.hand_over(made)
            self.sizes.append(size)

    def end(self) -> None:
        self._halt.set()
        self.join()


def identity(number: int) -> str:
    """Return an id as recordings have them: ten letters."""
    return "".join(chr(97 + int(digit)) for digit in f"{number:010}")


def run(campaign: Campaign, folder: Path) -> Verdict:
    """The campaign in a folder of its own; what it found."""
    verdict, started = Verdict(), time.monotonic()
    with servers(folder / "servers") as site:
        stage = Stage(folder, site.targets)
        feeder = Feeder(campaign, stage)
        try:
            stage.start()
            feeder.start()
            _kill(campaign, stage, site, verdict)
            feeder.end()
            count = len(feeder.sizes)
            stage.until_confirmed(END_S, **dict.fromkeys(site.targets, count))
            waiting = {name: row["waiting"] for name, row in stage.queue().items()}
            code = stage.stop()
        finally:
            stage.kill()
        verdict.recordings, verdict.large = count, sum(size >= LONG for size in feeder.sizes)
        verdict.findings += [f"{name}: {count} still wait" for name, count in waiting.items() if count]
        verdict.findings += [f"deliver ended with {code}"] if code else []
        _compare(stage, site, verdict)
    verdict.seconds = time.monotonic() - started
    return verdict


def _kill(campaign: Campaign, stage: Stage, site: Servers, verdict: Verdict) -> None:
    """All kills, at moments that nobody can foresee; what was killed is down for a moment."""
    chance = random.Random(f"kills {campaign.seed}")
    victims: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "deliver": (stage.kill, stage.start),
        "samba": (site.samba.kill, site.samba.start),
        "sshd": (site.ssh.kill, site.ssh.start),
        "sshd's sessions": (site.ssh.kill_sessions, lambda: None),
    }
    while verdict.kills < campaign.kills:
        time.sleep(chance.uniform(*campaign.pause_s))
        one = chance.choices(list(victims), (4, 2, 2, 1))
        chosen = ["deliver", "samba", "sshd"] if chance.random() < 0.1 else one
        verdict.in_flight += any(list((folder / DAY).glob(".*.part")) for folder in site.folders.values())
        for name in chosen:
            victims[name][0]()
        what = " + ".join(chosen)
        verdict.killed[what] = verdict.killed.get(what, 0) + 1
        time.sleep(chance.choice((0.0, 0.0, chance.uniform(0, 2))))
        for name in reversed(chosen):
            victims[name][1]()


def _compare(stage: Stage, site: Servers, verdict: Verdict) -> None:
    """Hold what lies on each target against what was handed over: the same files, no more, no fewer."""
    wanted = held(stage.root)
    verdict.bytes = sum(path.stat().st_size for path in wanted.values())
    if len(wanted) != verdict.recordings * len(ALL_ENDINGS):
        verdict.findings.append(f"{len(wanted)} files of {verdict.recordings} recordings are left here")
    for name, folder in site.folders.items():
        found = held(folder)
        verdict.findings += [f"{name}: missing: {path}" for path in sorted(wanted.keys() - found.keys())]
        verdict.findings += [f"{name}: too much: {path}" for path in sorted(found.keys() - wanted.keys())]
        verdict.findings += [
            f"{name}: differs: {path}"
            for path in sorted(wanted.keys() & found.keys())
            if not filecmp.cmp(wanted[path], found[path], shallow=False)
        ]


def table(verdict: Verdict) -> str:
    """The verdict for a reader."""
    lines = [
        f"{verdict.kills} kills ({', '.join(f'{name} {count}' for name, count in sorted(verdict.killed.items()))}),"
        f" {verdict.in_flight} of them with files half written on a target, in {verdict.seconds:.0f} s",
        f"{verdict.recordings} recordings ({verdict.large} of them large), {verdict.bytes / 1e6:,.0f} MB, to three"
        f" targets; found wrong: {len(verdict.findings)}",
    ]
    return "\n".join([*lines, *(f"  {text}" for text in verdict.findings[:40])])


def main() -> int:
    """Run a campaign, print what it found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=Campaign.kills)
    parser.add_argument("--seed", type=int, default=Campaign.seed)
    parser.add_argument("--keep", type=Path, help="folder in which all is left")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="bench") as name:
        folder = arguments.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        verdict = run(Campaign(arguments.kills, arguments.seed), folder)
    if arguments.json:
        print(json.dumps(asdict(verdict) | {"kills": verdict.kills, "good": verdict.good}))
    else:
        print(table(verdict))
    return 0 if verdict.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
