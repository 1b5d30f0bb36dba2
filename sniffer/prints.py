"""What a stream's payloads were, in a few numbers, by which two legs show that they carry the same sound. Pure.

Each payload has a print. Of those with the same lowest bits the smallest is kept: streams with the same payloads keep
the same ones, whatever SSRC, numbers and order their packets bear, and only who has the sound can make them.
"""

import numpy as np
import numpy.typing as npt

from .records import Bytes, Ints, gather

Prints = npt.NDArray[np.uint32]
NONE = np.uint32(0xFFFFFFFF)
"""The print of a payload that tells nothing: too short, or the same byte all along, as silence is."""
SHORTEST = 3
SLOTS = 16
ENOUGH = 0.75
"""How many of a stream's prints another one must have to be the same sound: a mirror loses packets of either."""
_WORD = np.dtype([("word", "<u8")])
_MIX = np.uint64(0x9E3779B97F4A7C15)
_EMPTY: Prints = np.full(SLOTS, NONE, dtype=np.uint32)


def prints_of(data: Bytes, at: Ints, size: Ints) -> Prints:
    """Return a number for each payload: of eight bytes at its first quarter and at its last, as far as it has them."""
    spare, last = np.maximum(size - 8, 0), len(data) - _WORD.itemsize
    first, second = (gather(data, np.minimum(at + (spare * part >> 2), last), _WORD)["word"] for part in (1, 3))
    short = size < 8
    if short.any():
        whole = ~np.uint64(0) >> (8 * np.clip(8 - size, 0, 7)).astype(np.uint64)
        first, second = first & whole, second & whole
    plain = (first == second) & (first == (first >> np.uint64(8) | first << np.uint64(56)))
    mixed = (first * _MIX) ^ (second + _MIX)
    mixed = (mixed ^ mixed >> np.uint64(29)) * _MIX
    return np.where(plain | (size < SHORTEST), NONE, mixed >> np.uint64(32)).astype(np.uint32)


class SoundPrints:
    """The prints of all streams, by their numbers."""

    def __init__(self) -> None:
        self._table: Prints = np.empty((0, SLOTS), dtype=np.uint32)

    def note(self, prints: Prints, numbers: npt.NDArray[np.int32], new: list[int], count: int) -> None:
        """Take the prints of datagrams of these streams (below `count`), of which those in `new` begin."""
        if len(self._table) < count:
            more = np.full((count - len(self._table), SLOTS), NONE, dtype=np.uint32)
            self._table = np.concatenate((self._table, more))
        self._table[new] = NONE
        told = (prints != NONE) & (numbers >= 0)
        slots = numbers[told].astype(np.int64) * SLOTS + (prints[told] & np.uint32(SLOTS - 1))
        np.minimum.at(self._table.reshape(-1), slots, prints[told])

    def of(self, stream: int) -> Prints:
        """Return those of a stream."""
        return self._table[stream] if stream < len(self._table) else _EMPTY


def same_sound(mine: Prints, other: Prints) -> bool:
    """Tell whether what has the prints `mine` is in the other too; what has none is nothing but silence."""
    told = mine != NONE
    return bool(np.count_nonzero(mine[told] == other[told]) >= ENOUGH * np.count_nonzero(told))
