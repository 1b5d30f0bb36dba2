"""How many packets a second of CPU time `tapdeck record` takes, beside tcpdump and tshark on the same file.

    python bench/throughput.py                 200 calls of 60 s (1.2 million packets)
    python bench/throughput.py --scale 10      and ten times the calls
    python bench/throughput.py --json          figures for a machine
    python bench/throughput.py --codecs        what an hour of call costs in each codec, beside FFmpeg for G.722

CPU is user and system time of the whole process with its children, memory its greatest resident size.
The exit code is 1 when a recording is missing or wrong; the ratios are for the reader to judge.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

RUNS = 3


@dataclass(frozen=True)
class Run:
    """What one process cost: seconds of CPU, and bytes of memory at its greatest."""

    name: str
    cpu: float
    memory: int


@dataclass(frozen=True)
class Bench:
    """The figures of one capture."""

    calls: int
    packets: int
    runs: tuple[Run, ...]
    recordings: int
    channel_right: bool

    def cpu(self, name: str) -> float:
        return next(run.cpu for run in self.runs if run.name == name)


def measured(name: str, command: Sequence[str], output: Path) -> Run:
    """Run a command to its end; its report goes to `output`."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    with output.open("wb") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(
            f"{' '.join(command)}: exit code {process.returncode}\n{output.read_text(errors='replace')[-2000:]}"
        )
    return Run(name, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def best(name: str, commands: Iterable[Sequence[str]], output: Path) -> Run:
    """The cheapest of several runs, the least disturbed by what else the machine does."""
    runs = []
    for command in commands:
        os.sync()
        runs.append(measured(name, command, output))
    return min(runs, key=lambda run: run.cpu)


def bench(calls: int, seconds: int, folder: Path, *, others: bool) -> Bench:
    """Make a capture, run all on it, look at what came out; `others`: tcpdump and tshark too."""
    capture, log, report = folder / "capture.pcap", folder / "log", folder / "report"
    elsewhere(make, capture, calls, seconds)
    outs = [folder / f"out{number}" for number in range(RUNS)]
    runs = [best("tapdeck", [record(capture, out) for out in outs], report)]
    if others:
        dump = ["tcpdump", "-r", str(capture), "-w", "/dev/null"]
        # The SDP in the capture tells tshark what is RTP: its heuristic (rtp_udp), which costs more, is not needed.
        streams = ["tshark", "-q", "-z", "rtp,streams", "-r", str(capture)]
        runs = [best("tcpdump", [dump] * RUNS, log), *runs, best("tshark", [streams] * RUNS, log)]
    right = all(elsewhere(channel_is_right, out, calls, seconds) for out in outs)
    wavs = min(len(list(out.rglob("*.wav"))) for out in outs)
    return Bench(calls, seen(report), tuple(runs), wavs, right)


def record(capture: Path, out: Path) -> list[str]:
    """The command that records a capture. Each run gets a folder of its own, and none is removed before all are done:

    ext4 is slow for minutes to create files where it has just deleted some.
    """
    return [sys.executable, "-m", "tapdeck.cli", "record", str(capture), "--json", "--out", str(out)]


def seen(report: Path) -> int:
    """How many packets a run has seen, by its report."""
    packets: int = json.loads(report.read_text().splitlines()[-1])["summary"]["packets"]["seen"]
    return packets


def elsewhere(work: Callable[..., object], *arguments: object) -> bool:
    """Run it in a process of its own: a child inherits its parent's peak memory, which must stay small here."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return bool(pool.apply(work, arguments))


def compiled() -> None:
    """Compile the code, as `scripts/setup` does: once, not at every start."""
    code = [str(REPOSITORY / name) for name in ("src/tapdeck", "cli", "rtp", "sip", "sniffer", "storage")]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *code], check=False)


def make(capture: Path, calls: int, seconds: int, lots: int = 1, every_s: int = 0) -> None:
    """Make a capture of lots of calls, a new lot every so many seconds."""
    from bench.traffic import Plan, write_capture

    plans = [Plan(calls, seconds, first=lot * calls, begin=lot * every_s) for lot in range(lots)]
    write_capture(plans[0], capture, *plans[1:])


def channel_is_right(out: Path, calls: int, seconds: int, lot: int = 0, every_s: int = 0) -> bool:
    """Whether both channels of a lot's last call hold the bytes that were sent."""
    from bench.traffic import Plan, caller

    plan, call = Plan(calls, seconds, first=lot * calls, begin=lot * every_s), calls - 1
    found = list(out.rglob(f"*_{caller(plan.first + call)}_*.wav"))
    if len(found) != 1:
        return False
    data = _data_chunk(found[0].read_bytes())
    return all(data[side::2] == plan.channel(call, side).tobytes() for side in (0, 1))


def _data_chunk(content: bytes) -> bytes:
    offset = 12
    while offset < len(content):
        name, size = struct.unpack_from("<4sI", content, offset)
        if name == b"data":
            return content[offset + 8 : offset + 8 + size]
        offset += 8 + size + size % 2
    return b""


def table(bench: Bench) -> str:
    """The figures of one capture as a Markdown table."""
    base = bench.cpu("tcpdump") if any(run.name == "tcpdump" for run in bench.runs) else None
    lines = [
        f"{bench.calls} calls, {bench.packets:,} packets, {bench.recordings} recordings,"
        f" checked channel {'right' if bench.channel_right else 'WRONG'}",
        "",
        "| | CPU seconds | packets per CPU-second | times tcpdump's CPU | peak memory |",
        "|---|---|---|---|---|",
    ]
    for run in bench.runs:
        times = f"{run.cpu / base:.1f}" if base else "-"
        speed = f"{bench.packets / run.cpu:,.0f}"
        lines.append(f"| {run.name} | {run.cpu:.2f} | {speed} | {times} | {run.memory / 1e6:.0f} MB |")
    if base:
        lines += ["", f"tapdeck's CPU is {bench.cpu('tapdeck') / bench.cpu('tshark'):.3f} of tshark's."]
    return "\n".join(lines)


def main() -> int:
    """Measure, print, and say by the exit code whether all recordings are there and right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--scale", type=int, default=1, help="then again with so many times the calls")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--codecs", action="store_true", help="a row a codec instead, see bench/codecs.py")
    arguments = parser.parse_args()
    compiled()
    if arguments.codecs:
        from bench import codecs

        return codecs.table(list(codecs.voices()), seconds=600)
    sizes = [arguments.calls] + ([arguments.calls * arguments.scale] if arguments.scale > 1 else [])
    done: list[Bench] = []
    for calls in sizes:
        with TemporaryDirectory(prefix="bench") as folder:
            done.append(bench(calls, arguments.seconds, Path(folder), others=calls == arguments.calls))
        if not arguments.json:
            print(table(done[-1]), flush=True)
    scale = done[-1].cpu("tapdeck") / done[0].cpu("tapdeck")
    if arguments.json:
        print(json.dumps({"benches": [asdict(one) for one in done], "scale": arguments.scale, "cpu_ratio": scale}))
    elif len(done) > 1:
        print(f"\n{arguments.scale} times the calls cost {scale:.1f} times the CPU.")
    return 0 if all(one.channel_right and one.recordings == one.calls for one in done) else 1


if __name__ == "__main__":
    raise SystemExit(main())
