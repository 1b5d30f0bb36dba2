"""Fuzz the capture reader: `python tests/fuzz/fuzz_capture_file.py [seconds [seed]]`.

The law: any bytes give frames that lie in the file, and damage that is said; or `CaptureError`, before any frame.
What was found does not depend on the size of the window.
"""

import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tapdeck.sniffer.sources.capture_file import CaptureError  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402
from tests.sniffer.captures import PCAP_MAGICS, Frame, Section, pcap, read  # noqa: E402

FRAMES = [Frame(1_772_445_600_000_000_000 + k, bytes([k]) * (20 + k % 3)) for k in range(40)]
SEEDS = [pcap(FRAMES, kind=kind, order=order) for kind in PCAP_MAGICS for order in "<>"]
for _order in "<>":
    _section = Section(_order).interface(1, 9, offset=5).interface(113, 0x80 | 20, snap=60)
    for _frame in FRAMES:
        _section.enhanced(0, _frame.time, _frame.data).obsolete(1, 7 << 40, _frame.data).simple(_frame.data, 900)
    SEEDS.append(bytes(_section.block(77, bytes(30))) + bytes(Section().interface().enhanced(0, 3, b"frame")))
TOKENS = [b"\0", b"\xff", b"\x0a\x0d\x0d\x0a", b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d", b"\x06\0\0\0", b"\0\0\1\0"]


def check(rng: random.Random) -> None:
    """One damaged capture, read twice."""
    data = mutate(rng.choice(SEEDS), rng, SEEDS, TOKENS)
    try:
        found, capture = read(data, 1 << 16)
    except CaptureError:
        return
    assert sum(len(frame.data) for frame in found) <= len(data) + 64 * len(found)
    assert all(frame.data in data for frame in found)
    again, other = read(data, 4096)
    assert again == found, "the window changes the frames"
    assert bool(other.damage) == bool(capture.damage), "the window changes whether there is damage"


if __name__ == "__main__":
    sys.exit(main(check))
