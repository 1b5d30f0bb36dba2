"""Packets that come twice within milliseconds: what a mirror with two source ports, or two directions, makes. Pure.

A packet's print is a hash of its addresses, ports, size and first bytes, behind all tags and tunnels: a copy differs at
most in what lies around it. What is sent again on purpose (TCP after 200 ms, SIP after 500 ms) comes too late to count.
"""

import numpy as np
import numpy.typing as npt

from .records import Bytes, Ints, gather

WINDOW = 20_000_000
"""Two equal packets so close to each other, in ns, are copies."""
MAX_WAITING = 1 << 16
MIN_BYTES = 32
"""Shorter payloads have no print: there is too little in them to tell one from the next."""

Keys = npt.NDArray[np.uint64]
_HEAD = np.dtype([("a", "<u8"), ("b", "<u8"), ("c", "<u8"), ("d", "<u8")])
_FACTORS = tuple(np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))


def prints(data: Bytes, at: Ints, size: Ints, source: Keys, destination: Keys, ports: Ints) -> Keys:
    """Return a hash of each packet; `at` is where at least `MIN_BYTES` of its payload lie in `data`."""
    head = gather(data, at, _HEAD)
    mixed: Keys = np.bitwise_xor(source * _FACTORS[0], destination * _FACTORS[1])
    mixed ^= (ports << 17 ^ size).astype(np.uint64)
    for name in ("a", "b", "c", "d"):
        mixed = np.multiply(mixed ^ head[name], _FACTORS[2])
        mixed ^= mixed >> np.uint64(31)
    return mixed


class Copies:
    """Counts packets, and those of them that are copies of one just before."""

    def __init__(self) -> None:
        self.packets = 0
        self.copies = 0
        self._prints: Keys = np.empty(0, dtype=np.uint64)
        self._times: Ints = np.empty(0, dtype=np.int64)

    def add(self, found: Keys, times: Ints) -> None:
        """Take the prints and times (ns) of a block's packets, in any order."""
        if len(found) == 0:
            return
        self.packets += len(found)
        known = len(self._prints)
        every, when = np.concatenate((self._prints, found)), np.concatenate((self._times, times))
        order = np.lexsort((when, every))
        again = (np.diff(every[order]) == 0) & (np.diff(when[order]) <= WINDOW)
        self.copies += int(np.count_nonzero(again & (order[1:] >= known)))
        recent = np.nonzero(when >= when.max() - WINDOW)[0][-MAX_WAITING:]
        self._prints, self._times = every[recent], when[recent]
