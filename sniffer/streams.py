"""Which RTP stream a datagram belongs to, for a whole block of datagrams at once.

A stream is a source, a destination, their ports and an SSRC. A seeded 64-bit hash of these is looked up in an
open-addressing table held in NumPy arrays; only streams not seen before reach Python, together, once a block.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .addresses import AddressBook
from .datagrams import RtpColumns
from .records import Ints

Keys = npt.NDArray[np.uint64]
_SEEDS = tuple(np.uint64(secrets.randbits(64) | 1) for _ in range(4))
_EMPTY = np.uint64(0)

STREAM = np.dtype(
    [
        ("source", "u8"),
        ("destination", "u8"),
        ("ports", "u4"),
        ("ssrc", "u4"),
        ("hash", "u8"),
        ("first", "i8"),
        ("last", "i8"),
        ("packets", "i8"),
        ("kind", "u1"),
        ("sequence", "u2"),
        ("stamp", "u4"),
        ("live", "?"),
    ]
)
"""One row a stream: address keys, ports (source << 16 | destination), SSRC, first and last packet (ns), packets seen,
the first packet's marker and payload type, sequence number and time stamp, and whether the number is in use."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Stream numbers of a block's rows (int32, -1 where the table was full), and the numbers that are new."""

    numbers: npt.NDArray[np.int32]
    new: list[int]


class StreamTable:
    """All streams seen lately, at most `limit`: beyond it new streams are refused and their rows get the number -1.

    `admit` (source key, destination key, ports) vouches for streams that are let in even then.
    """

    def __init__(self, *, limit: int = 1 << 20, admit: Callable[[int, int, int], bool] | None = None) -> None:
        self.rows = np.zeros(1024, dtype=STREAM)
        self.count = 0
        self.live = 0
        self._limit = limit
        self._admit = admit
        self._free: list[int] = []
        self._resize(4096)

    def look_up(self, rtp: RtpColumns, *, other: bool = False) -> Lookup:
        """Number the rows, and start the streams not seen before. Tell `note` when the rows have been dealt with.

        Rows that are no RTP are `other` streams than any RTP, whatever the SSRC.
        """
        hashes = _others(_hashes(rtp)) if other else _hashes(rtp)
        numbers = self._find(hashes)
        missing = np.nonzero(numbers < 0)[0]
        new: list[int] = []
        if len(missing):
            new = self._start(rtp, hashes, numbers, missing)
        return Lookup(numbers, new)

    def known(self, rtp: RtpColumns, *, other: bool = False) -> npt.NDArray[np.int32]:
        """Return the numbers of rows whose streams are there already, -1 for all others."""
        return self._find(_others(_hashes(rtp)) if other else _hashes(rtp))

    def note(self, rtp: RtpColumns, numbers: npt.NDArray[np.int32]) -> None:
        """Note when each stream was last seen, and count its packets."""
        known = numbers if len(numbers) == 0 or numbers.min() >= 0 else numbers[numbers >= 0]
        times = rtp.time if len(known) == len(numbers) else rtp.time[numbers >= 0]
        if len(known) == 0:
            return
        counts = np.bincount(known, minlength=0)
        self.rows["packets"][: len(counts)] += counts
        self.rows["last"][known] = times  # rows are in time order, and the last assignment to a place holds

    def _find(self, hashes: Keys) -> npt.NDArray[np.int32]:
        mask = int(self._mask)
        slots = (hashes & self._mask).astype(np.int64)
        held = self._hashes[slots]
        numbers = np.where(held == hashes, self._numbers[slots], np.int32(-1)).astype(np.int32)
        probing = np.nonzero((held != hashes) & (held != _EMPTY))[0]
        slots = slots[probing]
        while len(probing):
            slots = (slots + 1) & mask
            held, wanted = self._hashes[slots], hashes[probing]
            hit = held == wanted
            numbers[probing[hit]] = self._numbers[slots[hit]]
            going = ~hit & (held != _EMPTY)
            probing, slots = probing[going], slots[going]
        return numbers

    def _start(self, rtp: RtpColumns, hashes: Keys, numbers: npt.NDArray[np.int32], missing: Ints) -> list[int]:
        unique, index, inverse = np.unique(hashes[missing], return_index=True, return_inverse=True)
        order = np.argsort(index, kind="stable")  # numbers in order of first appearance: the same run, the same numbers
        room = max(self._limit - self.live, 0)
        if len(order) > room:
            order = np.concatenate((order[:room], self._admitted(rtp, missing[index[order[room:]]], order[room:])))
        while (self.live + len(order)) * 2 > len(self._hashes):
            self._resize(len(self._hashes) * 2)
        assigned = np.full(len(unique), -1, dtype=np.int32)
        new = self._take_numbers(len(order))
        assigned[order] = new
        first = missing[index[order]]
        rows = self.rows
        for name in ("source", "destination", "ports", "ssrc", "kind", "sequence", "stamp"):
            rows[name][new] = getattr(rtp, name)[first]
        rows["hash"][new] = hashes[first]
        rows["first"][new] = rows["last"][new] = rtp.time[first]
        rows["packets"][new] = 0
        rows["live"][new] = True
        self.live += len(new)
        for number, key in zip(new, hashes[first].tolist(), strict=True):
            self._insert(key, number)
        numbers[missing] = assigned[inverse]
        return new

    def _admitted(self, rtp: RtpColumns, rows: Ints, order: Ints) -> Ints:
        """Of the streams that find the table full, return those that `admit` vouches for, while twice the limit
        lasts."""
        if self._admit is None:
            return order[:0]
        ends = zip(rtp.source[rows].tolist(), rtp.destination[rows].tolist(), rtp.ports[rows].tolist(), strict=True)
        wanted = np.array([self._admit(*end) for end in ends], dtype=bool)
        admitted: Ints = order[wanted][: max(2 * self._limit - max(self.live, self._limit), 0)]
        return admitted

    def _take_numbers(self, wanted: int) -> list[int]:
        reused = [self._free.pop() for _ in range(min(wanted, len(self._free)))]
        fresh = wanted - len(reused)
        while self.count + fresh > len(self.rows):
            self.rows = np.concatenate((self.rows, np.zeros(len(self.rows), dtype=STREAM)))
        numbers = reused + list(range(self.count, self.count + fresh))
        self.count += fresh
        return numbers

    def _insert(self, key: int, number: int) -> None:
        slot = key & int(self._mask)
        while self._hashes[slot]:
            slot = (slot + 1) & int(self._mask)
        self._hashes[slot] = key
        self._numbers[slot] = number

    def _resize(self, size: int) -> None:
        self._hashes = np.zeros(size, dtype=np.uint64)
        self._numbers = np.zeros(size, dtype=np.int32)
        self._mask = np.uint64(size - 1)
        for number in np.nonzero(self.rows["live"][: self.count])[0].tolist():
            self._insert(int(self.rows["hash"][number]), number)

    def touching(self, address: int, port: int) -> list[int]:
        """Return the live streams that come from or go to this endpoint."""
        rows = self.rows[: self.count]
        key = np.uint64(address)
        from_it = (rows["source"] == key) & (rows["ports"] >> np.uint32(16) == port)
        to_it = (rows["destination"] == key) & (rows["ports"] & np.uint32(0xFFFF) == port)
        return np.nonzero((from_it | to_it) & rows["live"])[0].tolist()

    def ends(self, stream: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return a stream's source and destination: address key and port of each."""
        row = self.rows[stream]
        ports = int(row["ports"])
        return (int(row["source"]), ports >> 16), (int(row["destination"]), ports & 0xFFFF)

    def flow(self, stream: int, book: AddressBook) -> list[Any]:
        """Return what names a stream outside this process: source, port, destination, port, SSRC."""
        row = self.rows[stream]
        ports = int(row["ports"])
        source, destination = book.text(int(row["source"])), book.text(int(row["destination"]))
        return [source, ports >> 16, destination, ports & 0xFFFF, int(row["ssrc"])]

    def forget(self, numbers: Ints) -> None:
        """Free streams: none of their rows may be kept any more."""
        if len(numbers) == 0:
            return
        self.rows["live"][numbers] = False
        self._free.extend(numbers.tolist())
        self.live -= len(numbers)
        self._resize(len(self._hashes))

    def idle(self, before: int) -> Ints:
        """Return the live streams whose last packet is older than `before` (ns)."""
        rows = self.rows[: self.count]
        return np.nonzero(rows["live"] & (rows["last"] < before))[0]


def _others(hashes: Keys) -> Keys:
    """Return the hashes of streams that are no RTP, of those that RTP of the same fields has."""
    result: Keys = (hashes ^ _SEEDS[3]) | np.uint64(1)
    return result


def _hashes(rtp: RtpColumns) -> Keys:
    """Return a seeded hash (uint64, never 0) of each row's stream."""
    tail = (rtp.ports.astype(np.uint64) << np.uint64(32)) | rtp.ssrc.astype(np.uint64)
    mixed = rtp.source * _SEEDS[0] + rtp.destination * _SEEDS[1] + tail * _SEEDS[2]
    mixed ^= mixed >> np.uint64(32)
    mixed *= _SEEDS[3]
    mixed ^= mixed >> np.uint64(29)
    result: Keys = mixed | np.uint64(1)
    return result
