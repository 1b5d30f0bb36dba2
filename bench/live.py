"""The highest rate at which live capture drops nothing, beside `tcpdump -w` and `dumpcap` under the same load.

    python bench/live.py                            steps of 10 s, then 1,000 calls (100,000 packets/s) for 60 s
    python bench/live.py --calls 1000 --hold 0      one step only
    python bench/live.py --json                     figures for a machine

G.711 calls, 20 ms, both directions, with their SIP, are sent through a veth pair from one network namespace into
another; the sender shares the machine's cores with who listens. One run after another: tapdeck (capture and seal),
tcpdump, dumpcap, each with a ring of 256 MiB, each writing to the same file system. Needs root.
The exit code is 1 when the last step dropped a packet, or a recording is missing or wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from bench import compare, sender  # noqa: E402
from bench.traffic import Plan, call_id  # noqa: E402
from bench.usage import Watch  # noqa: E402
from tests.support.box import Box  # noqa: E402
from tests.support.netns import Namespaces, Wire, end_in_order, missing, stop, wait_for  # noqa: E402

RING_MB = 256
PACKETS_A_CALL = 100
"""A second: 50 each way."""
BEHIND = 0.99
"""A sender that reaches less than this share of the rate is the limit, not who listens."""
SAMPLE = 25
CALLS_A_SECOND = 200
"""Begun at most: beyond 500 new calls a second the recorder takes them for a flood."""
DRAIN_S = 2.0


@dataclass(frozen=True)
class Outcome:
    """One listener under one load. Rates in packets a second, CPU in cores, memory in bytes."""

    tool: str
    calls: int
    seconds: int
    rate: int
    sent: int
    sent_rate: float
    late_ms: float
    seen: int
    dropped: int
    wire_dropped: int
    cores: dict[str, float]
    memory: dict[str, int]
    sealed_after_s: float | None = None
    recordings: int | None = None
    wrong: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing was dropped, and every recording is there and right."""
        whole = self.recordings in (None, self.calls) and not self.wrong
        return whole and not self.dropped and not self.wire_dropped and self.seen == self.sent

    @property
    def sender_limit(self) -> bool:
        """The sender did not reach the rate."""
        return self.sent_rate < BEHIND * self.rate


@dataclass
class Listener:
    """A program that listens at the tap: its processes, and how to learn what it saw and what the kernel dropped."""

    pids: Callable[[], dict[str, int]]
    finish: Callable[[], tuple[int, int]]
    box: Box | None = None


def tapdeck(spaces: Namespaces, wire: Wire, folder: Path) -> Listener:
    box = Box(wire.tap, [wire.tap_interface], folder, more=("--ring-mb", str(RING_MB)))
    box.start()

    def finish() -> tuple[int, int]:
        time.sleep(DRAIN_S)
        [port] = box.report("capture")["interfaces"]
        return port["packets"] - port["drops"], port["drops"]

    return Listener(box.pids, finish, box)


def tcpdump(spaces: Namespaces, wire: Wire, folder: Path) -> Listener:
    log = folder / "log"
    words = ("-n", "-B", RING_MB << 10, "-w", folder / "dump.pcap")
    child = spaces.start(wire.tap, "tcpdump", "-i", wire.tap_interface, *words, log=log)
    wait_for("tcpdump", lambda: "listening on" in log.read_text())

    def finish() -> tuple[int, int]:
        time.sleep(DRAIN_S)
        stop(child, signal.SIGINT)
        said = log.read_text()
        seen, dropped = (re.search(rf"(\d+) packets {word}", said) for word in ("captured", "dropped by kernel"))
        assert seen is not None, said
        assert dropped is not None, said
        return int(seen[1]), int(dropped[1])

    return Listener(lambda: {"tcpdump": child.pid}, finish)


def dumpcap(spaces: Namespaces, wire: Wire, folder: Path) -> Listener:
    log = folder / "log"
    words = ("-q", "-B", RING_MB, "-w", folder / "dump.pcapng")
    child = spaces.start(wire.tap, "dumpcap", "-i", wire.tap_interface, *words, log=log)
    wait_for("dumpcap", lambda: "File: " in log.read_text())

    def finish() -> tuple[int, int]:
        time.sleep(DRAIN_S)
        stop(child, signal.SIGINT)
        found = re.search(r"received/dropped on interface '\S+': (\d+)/(\d+)", log.read_text())
        assert found is not None, log.read_text()
        return int(found[1]), int(found[2])

    return Listener(lambda: {"dumpcap": child.pid}, finish)


TOOLS: dict[str, Callable[[Namespaces, Wire, Path], Listener]] = {
    "tapdeck": tapdeck,
    "tcpdump": tcpdump,
    "dumpcap": dumpcap,
}


def measure(tool: str, plan: Plan) -> Outcome:
    """Send the plan's calls to one listener, and look at what it has."""
    os.sync()
    with TemporaryDirectory(prefix="bench") as name, Namespaces() as spaces:
        wire = Wire.between(spaces)
        listener = TOOLS[tool](spaces, wire, Path(name))
        try:
            return _measured(tool, plan, wire, listener)
        finally:
            if listener.box is not None:
                listener.box.kill()


def _measured(tool: str, plan: Plan, wire: Wire, listener: Listener) -> Outcome:
    sending = sender.start(wire.sender, wire.interface, [plan])
    rates: list[float] = []
    with Watch(lambda: {"sender": sending.process.pid} | listener.pids()) as watch:
        before, then = _arrived(sending.process.pid, wire.interface), time.monotonic()
        while not sending.done():
            time.sleep(1)
            if (now := _arrived(sending.process.pid, wire.interface)) is not None and before is not None:
                rates.append((now - before) / (time.monotonic() - then))
            before, then = now, time.monotonic()
        played = sending.wait()
    end = time.monotonic()
    seen, dropped = listener.finish()
    counters = wire.counters()
    sealed, recordings, wrong = _checked(plan, listener.box, end) if listener.box else (None, None, [])
    return Outcome(
        tool=tool,
        calls=plan.calls,
        seconds=plan.seconds - plan.spread,
        rate=plan.calls * PACKETS_A_CALL,
        sent=played.packets,
        sent_rate=median(sorted(rates)[-max(plan.seconds - plan.spread - 2, 1) :]) if rates else played.rate,
        late_ms=played.late_ms,
        seen=seen,
        dropped=dropped,
        wire_dropped=counters["rx_dropped"] + counters["tx_dropped"],
        cores={name: round(watch.cores(name), 3) for name in watch.names()},
        memory={name: watch.peak(name) for name in watch.names() if name != "sender"},
        sealed_after_s=sealed,
        recordings=recordings,
        wrong=wrong,
    )


def _checked(plan: Plan, box: Box, end: float) -> tuple[float, int, list[str]]:
    """How long sealing went on, how many recordings there are, and what is wrong in a sample of them."""
    box.wait_until_sealed(600)
    sealed = round(time.monotonic() - end, 1)
    found = compare.by_call(box.recordings())
    some = random.Random(plan.seed).sample(range(plan.calls), min(SAMPLE, plan.calls))
    wrong = [compare.whole(plan, call, found.get(call_id(plan.first + call), [])) for call in some]
    return sealed, sum(map(len, found.values())), [text for text in wrong if text]


def _arrived(pid: int, interface: str) -> int | None:
    """Packets that have left through an interface of a process's namespace; None once the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()
    except OSError:
        return None
    counts = next((line.partition(":")[2].split() for line in lines if line.strip().startswith(f"{interface}:")), None)
    return int(counts[9]) if counts else None


HEAD = (
    "| | calls | packets/s | sent | sender: packets/s, cores, late | dropped | not delivered"
    " | CPU, cores | memory | recordings |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def row(one: Outcome) -> str:
    """An outcome as a line of a Markdown table."""
    cores = ", ".join(f"{name} {share:.2f}" for name, share in one.cores.items() if name != "sender")
    memory = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in one.memory.items())
    send = f"{one.sent_rate:,.0f}, {one.cores.get('sender', 0):.2f}, {one.late_ms:.0f} ms"
    if one.sender_limit:
        send += " (the limit)"
    kept = "-"
    if one.recordings is not None:
        kept = f"{one.recordings}, {'WRONG' if one.wrong else 'right'}, the last after {one.sealed_after_s:.0f} s"
    missed = one.sent - one.seen - one.dropped
    return (
        f"| {one.tool} | {one.calls:,} | {one.rate:,} for {one.seconds} s | {one.sent:,} | {send} | {one.dropped:,}"
        f" | {missed:,} | {cores} | {memory} | {kept} |"
    )


def highest(outcomes: list[Outcome], tool: str) -> int:
    """The highest rate of a tool's that was clean, 0 if none was."""
    return max((one.rate for one in outcomes if one.tool == tool and one.clean), default=0)


def main() -> int:
    """Measure, print; say by the exit code whether the last step was clean for tapdeck."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", default="500,1000,1500,2000,2500,3000", help="calls at one time, step by step")
    parser.add_argument("--seconds", type=int, default=10, help="a step's full load lasts so long")
    parser.add_argument("--spread", type=int, default=10, help="seconds in which the calls begin, if they are few")
    parser.add_argument("--hold", type=int, default=1000, help="calls of the last, long step; 0: none")
    parser.add_argument("--hold-seconds", type=int, default=60)
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    end_in_order()
    if reason := missing("tcpdump", "dumpcap"):
        raise SystemExit(reason)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(REPOSITORY / "src" / "tapdeck")], check=False)
    steps = [(int(calls), arguments.seconds) for calls in arguments.calls.split(",") if calls]
    steps += [(arguments.hold, arguments.hold_seconds)] if arguments.hold else []
    outcomes: list[Outcome] = []
    if not arguments.json:
        print(HEAD)
    for calls, seconds in steps:
        for tool in arguments.tools.split(","):
            spread = max(arguments.spread, calls // CALLS_A_SECOND)
            outcomes.append(measure(tool, Plan(calls, seconds + spread, spread)))
            if not arguments.json:
                print(row(outcomes[-1]), *outcomes[-1].wrong[:3], sep="\n  ", flush=True)
    if arguments.json:
        print(json.dumps([asdict(one) | {"clean": one.clean, "sender_limit": one.sender_limit} for one in outcomes]))
    else:
        for tool in arguments.tools.split(","):
            print(f"\n{tool}: {highest(outcomes, tool):,} packets/s without a drop")
    ours = [one for one in outcomes if one.tool == "tapdeck"] or outcomes
    return 0 if ours[-1].clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
