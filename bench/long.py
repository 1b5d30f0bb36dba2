"""Whether memory stays flat on captures of any length: 200 calls at a time, lot after lot.

    python bench/long.py                  captures of 1, 5 and 10 GB
    python bench/long.py --gb 1 20

Needs room for the greatest capture and its recordings (three quarters of its size). The exit code is 1 when a recording
is missing or wrong; the figures are for the reader to judge.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from bench.throughput import channel_is_right, compiled, elsewhere, make, measured, record, seen  # noqa: E402

CALLS, SECONDS, EVERY_S = 200, 60, 80
"""Calls begin within 10 s and last a minute: each lot is over when the next one begins."""
LOT = 276_000_000
"""Bytes of a lot's packets in the capture, about."""


def row(size: int, folder: Path) -> tuple[str, bool]:
    """Record a capture of that size: a row of the table, and whether all is right."""
    lots, capture, report, out = max(1, round(size / LOT)), folder / "capture.pcap", folder / "report", folder / "out"
    elsewhere(make, capture, CALLS, SECONDS, lots, EVERY_S)
    run = measured("tapdeck", record(capture, out), report)
    wavs, packets = len(list(out.rglob("*.wav"))), seen(report)
    checked = [elsewhere(channel_is_right, out, CALLS, SECONDS, lot, EVERY_S) for lot in range(lots - 1, -1, -8)]
    right = wavs == CALLS * lots and all(checked)
    cells = (
        f"{capture.stat().st_size / 1e9:.1f} GB",
        f"{lots * EVERY_S // 60} min",
        f"{packets:,}",
        f"{wavs:,}{'' if right else ', WRONG'}",
        f"{run.cpu:.1f}",
        f"{packets / run.cpu:,.0f}",
        f"{run.memory / 1e6:.0f} MB",
    )
    return "| " + " | ".join(cells) + " |", right


def main() -> int:
    """Measure, print, and say by the exit code whether all recordings are there and right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gb", type=float, nargs="+", default=[1, 5, 10], help="sizes of the captures")
    arguments = parser.parse_args()
    compiled()
    print("| capture | time in it | packets | recordings | CPU, s | packets per CPU-second | peak memory |")
    print("|---|---|---|---|---|---|---|")
    good = True
    for size in arguments.gb:
        with TemporaryDirectory(prefix="bench") as folder:
            line, right = row(round(size * 1e9), Path(folder))
        print(line, flush=True)
        good &= right
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
