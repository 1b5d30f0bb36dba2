"""The index of media packets that may still be wanted: where each payload lies, by stream, in bounded memory.

Rows are collected as they come; when `SEGMENT_ROWS` are there, they are sorted by stream once and become a segment, so
that a stream's rows are a few slices. Segments beyond the memory limit are parked in a `Parking` the caller hands in.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .datagrams import RtpColumns
from .records import Ints

ROW = np.dtype(
    [
        ("time", "i8"),
        ("position", "i8"),
        ("stamp", "u4"),
        ("stream", "i4"),
        ("sequence", "u2"),
        ("size", "u2"),
        ("kind", "u1"),
        ("frames", "u1"),
        ("spare", "u2"),
    ]
)
"""One row a media packet, 32 bytes: arrival (ns), payload position in the input, RTP time stamp, stream number,
sequence number, payload bytes, marker bit and payload type, captured frames."""

_OPAQUE = f"V{ROW.itemsize}"  # NumPy moves opaque bytes several times as fast as fields
Rows = npt.NDArray[np.void]
SEGMENT_ROWS = 1 << 19


class Parking(Protocol):
    """Where segments lie that do not fit into memory."""

    def park(self, rows: Rows) -> int:
        """Store rows; return a ticket."""

    def fetch(self, ticket: int, start: int, stop: int) -> Rows:
        """Return rows start to stop of a stored segment."""

    def drop(self, ticket: int) -> None:
        """Forget a stored segment."""


@dataclass(slots=True)
class _Segment:
    rows: Rows | None
    ticket: int
    streams: npt.NDArray[np.int32]
    starts: Ints  # one longer than streams
    taken: npt.NDArray[np.bool_]
    oldest: int
    newest: int
    places: dict[int, tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        starts = self.starts.tolist()
        self.places = dict(zip(self.streams.tolist(), pairwise(starts), strict=True))

    def slice(self, start: int, stop: int, parking: Parking | None) -> Rows:
        if self.rows is not None:
            return self.rows[start:stop]
        assert parking is not None
        return parking.fetch(self.ticket, start, stop)


def rows_of(rtp: RtpColumns, numbers: npt.NDArray[np.int32]) -> Rows:
    """Return the index rows of these datagrams."""
    rows = np.empty(len(rtp), dtype=ROW)
    rows["time"], rows["position"], rows["stamp"], rows["stream"] = rtp.time, rtp.position, rtp.stamp, numbers
    rows["sequence"], rows["size"], rows["kind"], rows["frames"] = rtp.sequence, rtp.size, rtp.kind, rtp.frames
    return rows


class RowStore:
    """Keeps rows until nobody can want them. `memory` is the limit in bytes for segments held in RAM."""

    def __init__(self, *, memory: int = 48 << 20, parking: Parking | None = None) -> None:
        self._memory = memory
        self._parking = parking
        self._open: list[Rows] = []
        self._open_rows = 0
        self._segments: list[_Segment] = []

    def add(self, rows: Rows) -> None:
        """Take the rows of a block, in time order."""
        self._open.append(rows)
        self._open_rows += len(rows)

    @property
    def full(self) -> bool:
        """Whether it is time to `roll`."""
        return self._open_rows >= SEGMENT_ROWS

    def roll(self) -> None:
        """Sort what has come into a segment; after this `take` finds all of it."""
        if not self._open_rows:
            return
        stream = np.concatenate([part["stream"] for part in self._open])
        order = np.argsort(_sort_key(stream), kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        rows, start = np.empty(len(order), dtype=ROW), 0
        for part in self._open:
            rows.view(_OPAQUE)[place[start : start + len(part)]] = part.view(_OPAQUE)
            start += len(part)
        self._open, self._open_rows = [], 0
        stream = stream[order]
        starts = np.concatenate(([0], np.nonzero(np.diff(stream))[0] + 1, [len(rows)])).astype(np.int64)
        streams = stream[starts[:-1]]
        oldest, newest = int(rows["time"].min()), int(rows["time"].max())
        self._segments.append(_Segment(rows, -1, streams, starts, np.zeros(len(rows), dtype=bool), oldest, newest))
        self._park()

    def _park(self) -> None:
        held = [segment for segment in self._segments if segment.rows is not None]
        size = sum(len(segment.taken) for segment in held) * ROW.itemsize
        for segment in held:
            if size <= self._memory or self._parking is None:
                return
            assert segment.rows is not None
            segment.ticket = self._parking.park(segment.rows)
            segment.rows = None
            size -= len(segment.taken) * ROW.itemsize

    def take(self, stream: int, since: int, until: int) -> tuple[Rows, npt.NDArray[np.bool_]]:
        """Return a stream's rows with since <= time < until, and which of them nobody took before."""
        found: list[Rows] = []
        fresh: list[npt.NDArray[np.bool_]] = []
        for segment in self._segments:
            start, stop = segment.places.get(stream, (0, 0))
            if start == stop or segment.newest < since or segment.oldest >= until:
                continue
            rows = segment.slice(start, stop, self._parking)
            taken = segment.taken[start:stop]
            if segment.oldest >= since and segment.newest < until:
                found.append(rows.view(_OPAQUE))
                fresh.append(~taken)
                taken[:] = True
                continue
            wanted = (rows["time"] >= since) & (rows["time"] < until)
            found.append(rows.view(_OPAQUE)[wanted])
            fresh.append(~taken[wanted])
            taken |= wanted
        if not found:
            return np.empty(0, dtype=ROW), np.empty(0, dtype=bool)
        return np.concatenate(found).view(ROW), np.concatenate(fresh)

    def release(self, keep: Ints, before: int) -> int:
        """Forget rows older than `before` (ns) of streams not in `keep`; return how many frames nobody had taken."""
        untaken = 0
        segments = []
        for segment in self._segments:
            wanted = np.isin(segment.streams, keep)
            if segment.newest >= before or wanted.all():
                segments.append(segment)
                continue
            lengths = np.diff(segment.starts)
            rest = np.repeat(wanted, lengths)
            untaken += self._count(segment, ~rest & ~segment.taken)
            kept = self._thin(segment, wanted, rest)
            if kept is not None:
                segments.append(kept)
        self._segments = segments
        return untaken

    def _thin(self, segment: _Segment, wanted: npt.NDArray[np.bool_], rest: npt.NDArray[np.bool_]) -> _Segment | None:
        """Return the segment with the wanted streams only, None if nothing is left."""
        if not wanted.any():
            if segment.rows is None and self._parking is not None:
                self._parking.drop(segment.ticket)
            return None
        if segment.rows is None:  # parked: left as it is, its other streams no longer found
            lengths = np.diff(segment.starts)
            segment.taken |= ~rest
            if lengths[wanted].sum() * 4 > len(segment.taken):
                return segment
            rows = np.concatenate(
                [
                    segment.slice(int(a), int(a + n), self._parking)
                    for a, n in zip(segment.starts[:-1][wanted], lengths[wanted], strict=True)
                ]
            )
            if self._parking is not None:
                self._parking.drop(segment.ticket)
        else:
            rows = segment.rows[rest]
        starts = np.concatenate(([0], np.cumsum(np.diff(segment.starts)[wanted])))
        return _Segment(rows, -1, segment.streams[wanted], starts, segment.taken[rest], segment.oldest, segment.newest)

    def _count(self, segment: _Segment, mask: npt.NDArray[np.bool_]) -> int:
        """Count the captured frames of these rows."""
        if not mask.any():
            return 0
        if segment.rows is not None:
            return int(segment.rows["frames"][mask].sum(dtype=np.int64))
        rows = segment.slice(0, len(segment.taken), self._parking)
        return int(rows["frames"][mask].sum(dtype=np.int64))

    def finish(self) -> int:
        """Forget everything; return how many frames nobody had taken."""
        self.roll()
        untaken = sum(self._count(segment, ~segment.taken) for segment in self._segments)
        self._segments = []
        return untaken


def _sort_key(streams: npt.NDArray[np.int32]) -> npt.NDArray[np.generic]:
    """Return the streams in 16 bits where they fit: NumPy sorts those by radix, ten times as fast."""
    low = int(streams.min())
    return (streams - low).astype(np.uint16) if int(streams.max()) - low < 1 << 16 else streams
