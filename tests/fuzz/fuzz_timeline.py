"""Fuzz the timeline: `python tests/fuzz/fuzz_timeline.py [seconds [seed]]`.

The law: any columns give a timeline in which each packet lies once, in the order of its place, and none over the one
before it unless its own time stamp says so; copies and another order of arrival change nothing.
"""

import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import numpy as np  # noqa: E402

from tapdeck.rtp.timeline import Timeline, overlay, place, sort_packets  # noqa: E402
from tests.fuzz.loop import main  # noqa: E402

Packet = tuple[int, int, int]
"""Sequence number (without wraps), time stamp, samples."""


def lay(packets: list[Packet], times: list[int]) -> tuple[dict[int, int], Timeline]:
    """Place packets that arrive at these times; give the place of each sequence number."""
    order = sorted(range(len(packets)), key=lambda index: times[index])
    columns = [packets[index] for index in order]
    line = place(
        np.array([times[index] for index in order], dtype=np.int64),
        np.array([stamp & 0xFFFF_FFFF for _, stamp, _ in columns], dtype=np.uint32),
        np.array([size for _, _, size in columns], dtype=np.int64),
        sort_packets(
            np.array([number & 0xFFFF for number, _, _ in columns], dtype=np.uint16),
            np.array([stamp & 0xFFFF_FFFF for _, stamp, _ in columns], dtype=np.uint32),
        ),
        reference=min(times),
    )
    assert len(set(line.row.tolist())) == len(line.row)
    assert (np.diff(line.start) >= 0).all(), "places are not in order"
    return {columns[row][0]: start for row, start in zip(line.row.tolist(), line.start.tolist(), strict=True)}, line


def stream(rng: random.Random) -> tuple[list[Packet], list[int]]:
    """A sender with pauses, jumps, odd sizes and losses, through a network with jitter, stalls and clock steps."""
    number, stamp, time = rng.randrange(2**16), rng.randrange(2**32), rng.randrange(10**12)
    packets, times = [], []
    for _ in range(rng.randint(1, 300)):
        size = rng.choice([160, 160, 160, 80, 1, 1400])
        packets.append((number, stamp, size))
        times.append(time + rng.choice([0, 0, rng.randrange(80_000_000), rng.randrange(3_000_000_000)]))
        number += rng.choice([1, 1, 1, 1, 2, 40])
        stamp += size + rng.choice([0, 0, 0, 0, rng.randrange(9000), rng.randrange(2**31) - 2**30])
        time += rng.choice([size * 125_000] * 6 + [rng.randrange(10**11)])
    return packets, times


def check(rng: random.Random) -> None:
    """One stream as it is, shuffled, doubled; and several on one channel."""
    packets, times = stream(rng)
    places, line = lay(packets, times)
    spread = packets[-1][0] - packets[0][0]
    if spread < 1000:
        shuffled = sorted(times)
        rng.shuffle(shuffled)
        assert lay(packets, shuffled)[0] == lay(packets, sorted(times))[0], "the order of arrival matters"
        again = [rng.randrange(len(packets)) for _ in range(10)]
        doubled = lay(packets + [packets[k] for k in again], times + [times[k] + rng.randrange(10**9) for k in again])
        assert doubled[0] == places, "copies matter"
    parts = [lay(*stream(rng))[1].start for _ in range(rng.randint(1, 4))]
    moves, heard = overlay(parts, [np.full(len(part), 160, dtype=np.int64) for part in parts])
    assert all(move >= 0 for move in moves)
    assert any(mask.any() for mask in heard)
    assert line.anchors >= 1


if __name__ == "__main__":
    sys.exit(main(check))
