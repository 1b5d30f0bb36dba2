"""Media that nobody has claimed yet waits here, in RAM only, for a bounded time and in bounded memory. Pure.

It is kept as packet blocks ready for a spool file, a chunk for each visit to the ring. Rows that a call has already are
held too where the call is over or not sure of the stream, so that another call can still have them.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .blocks import PacketBlocks, take
from .records import Ints

Streams = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
NEVER = 1 << 62
BESIDE = 22
"""Bytes that are remembered of a packet beside its block."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Packet blocks in the order of time, and of each its stream's number, its time (ns), the captured frames it took,
    and whether a call has it already.
    """

    blocks: PacketBlocks
    stream: Streams
    time: Ints
    frames: npt.NDArray[np.uint8]
    taken: Mask

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return int(self.blocks.start[-1]) + BESIDE * len(self.stream)

    def pick(self, rows: Ints) -> "Waiting":
        """Return these rows only."""
        return Waiting(
            take(self.blocks, rows), self.stream[rows], self.time[rows], self.frames[rows], self.taken[rows].copy()
        )

    def count(self, mask: Mask) -> int:
        """Count the captured frames of these rows."""
        return int(self.frames[mask].sum(dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Found:
    """What of a stream a chunk had: its blocks, the time of the first (ns), captured frames, and those nobody had;
    `regained` is the time of the first that a call had already (ns, far in the future if none had any).
    """

    blocks: PacketBlocks
    first: int
    frames: int
    fresh: int
    regained: int


class Hold:
    """The chunks, oldest first. `limit` is the memory in bytes; what does not fit is refused, the newest first."""

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._limit = limit
        self._chunks: deque[Waiting] = deque()

    @property
    def frames(self) -> int:
        """Captured frames that wait and that no call has."""
        return sum(chunk.count(~chunk.taken) for chunk in self._chunks)

    def room(self, size: int) -> bool:
        """Tell whether `size` more bytes may be added; what a call has already gives way."""
        if self.size + size > self._limit:
            self._drop_taken()
        return self.size + size <= self._limit

    def add(self, chunk: Waiting) -> None:
        """Hold a chunk for which there is room."""
        if len(chunk.stream):
            self._chunks.append(chunk)
            self.size += chunk.size

    def fetch(self, stream: int, since: int, until: int) -> list[Found]:
        """Return a stream's blocks with since <= time < until (ns), chunk by chunk; a call has them now."""
        found: list[Found] = []
        for chunk in self._chunks:
            if chunk.time[-1] < since or chunk.time[0] >= until:
                continue
            mask = (chunk.stream == stream) & (chunk.time >= since) & (chunk.time < until)
            rows = np.nonzero(mask)[0]
            if len(rows) == 0:
                continue
            had = rows[chunk.taken[rows]]
            regained = int(chunk.time[had[0]]) if len(had) else NEVER
            first, frames, fresh = int(chunk.time[rows[0]]), chunk.count(mask), chunk.count(mask & ~chunk.taken)
            found.append(Found(take(chunk.blocks, rows), first, frames, fresh, regained))
            chunk.taken[mask] = True
        return found

    def expire(self, before: int) -> int:
        """Forget chunks that are wholly older than `before` (ns); return how many frames of them nobody had taken."""
        lost = 0
        while self._chunks and self._chunks[0].time[-1] < before:
            chunk = self._chunks.popleft()
            self.size -= chunk.size
            lost += chunk.count(~chunk.taken)
        return lost

    def finish(self) -> int:
        """Forget everything; return how many frames nobody had taken."""
        lost = self.frames
        self._chunks.clear()
        self.size = 0
        return lost

    def _drop_taken(self) -> None:
        kept: deque[Waiting] = deque()
        for chunk in self._chunks:
            rest = np.nonzero(~chunk.taken)[0]
            if len(rest) == len(chunk.taken):
                kept.append(chunk)
            elif len(rest):
                kept.append(chunk.pick(rest))
        self._chunks = kept
        self.size = sum(chunk.size for chunk in kept)
