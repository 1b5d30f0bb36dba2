"""What the fuzz targets share: changing bytes, and running a check until the time is over."""

from __future__ import annotations

import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence

Check = Callable[[random.Random], object]


def mutate(
    data: bytes, rng: random.Random, others: Sequence[bytes], tokens: Sequence[bytes] = (b"\0", b"\xff")
) -> bytes:
    """Change, cut, double, insert or cross over, a few times."""
    raw = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(raw) + 1)
        to = min(len(raw), at + rng.choice([1, 1, 2, 4, 40]))
        choice = rng.randrange(7)
        if choice == 0:
            raw[at:to] = rng.randbytes(to - at)
        elif choice == 1:
            del raw[at:to]
        elif choice == 2:
            raw[at:at] = raw[at:to] * rng.choice([1, 2, 50])
        elif choice == 3:
            raw[at:to] = rng.choice(tokens) * (to - at)
        elif choice == 4 and at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
        elif choice == 5:
            del raw[at:]
        else:
            other = rng.choice(others)
            raw[at:] = other[rng.randrange(len(other)) :]
    return bytes(raw[:100_000])


def run(check: Check, seconds: float, seed: int) -> int:
    """Check until the time is over; the exit code. Each round has a seed of its own, which a breach prints."""
    rounds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        rounds += 1
        own = seed * 1_000_003 + rounds
        try:
            check(random.Random(own))
        except Exception:  # noqa: BLE001 - whatever it is, it is the finding
            traceback.print_exc()
            sys.stderr.write(f"to see it again: check(random.Random({own}))\n")
            return 1
    sys.stdout.write(f"{rounds} rounds, no breach\n")
    return 0


def main(check: Check) -> int:
    """Read `[seconds [seed]]` from the command line and run."""
    arguments = [float(word) for word in sys.argv[1:]]
    seed = int(arguments[1]) if len(arguments) > 1 else random.randrange(2**32)
    return run(check, arguments[0] if arguments else 10, seed)
