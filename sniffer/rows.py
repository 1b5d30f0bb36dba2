"""The index of media packets that may still be wanted: where each payload lies, by stream, in bounded memory.

Rows are collected as they come; when `SEGMENT_ROWS` are there, they are sorted by stream once and become a segment, so
that a stream's rows are a few slices. Segments beyond the memory limit are parked in a `Parking` the caller hands in.
"""

from dataclasses import dataclass, field
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
        ("head", "u2"),
    ]
)
"""One row a media packet, 32 bytes: arrival (ns), payload position in the input, RTP time stamp, stream number,
sequence number, payload bytes, marker bit and payload type, captured frames, bytes of RTP header before the payload."""

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
    """Rows sorted by stream, in memory or parked: those of `streams` lie from `starts` to `stops`.

    `taken` are the rows that a call has, or that belong to a stream nobody asks for any more.
    """

    rows: Rows | None
    ticket: int
    streams: npt.NDArray[np.int32]
    starts: Ints
    stops: Ints
    taken: npt.NDArray[np.bool_]
    oldest: int
    newest: int
    places: dict[int, tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        spans = zip(self.starts.tolist(), self.stops.tolist(), strict=True)
        self.places = dict(zip(self.streams.tolist(), spans, strict=True))

    def slice(self, start: int, stop: int, parking: Parking | None) -> Rows:
        if self.rows is not None:
            return self.rows[start:stop]
        assert parking is not None
        return parking.fetch(self.ticket, start, stop)

    def of(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which rows are of the masked streams."""
        edges = np.zeros(len(self.taken) + 1, dtype=np.int8)
        edges[self.starts[mask]] += 1
        edges[self.stops[mask]] -= 1
        rows: npt.NDArray[np.bool_] = np.cumsum(edges[:-1], dtype=np.int8).view(np.bool_)
        return rows


def rows_of(rtp: RtpColumns, numbers: npt.NDArray[np.int32]) -> Rows:
    """Return the index rows of these datagrams."""
    rows = np.empty(len(rtp), dtype=ROW)
    rows["time"], rows["position"], rows["stamp"], rows["stream"] = rtp.time, rtp.position, rtp.stamp, numbers
    rows["sequence"], rows["size"], rows["kind"], rows["frames"] = rtp.sequence, rtp.size, rtp.kind, rtp.frames
    rows["head"] = rtp.head
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
        edges = np.concatenate(([0], np.nonzero(np.diff(stream))[0] + 1, [len(rows)])).astype(np.int64)
        starts, stops, taken = edges[:-1], edges[1:], np.zeros(len(rows), dtype=bool)
        oldest, newest = int(rows["time"].min()), int(rows["time"].max())
        self._segments.append(_Segment(rows, -1, stream[starts], starts, stops, taken, oldest, newest))
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

    def release(self, keep: Ints, before: int, gone: Ints) -> int:
        """Forget rows older than `before` (ns) of streams not in `keep`, and all rows of streams that are `gone`:
        their numbers will be used again. Return how many frames nobody had taken.
        """
        untaken = 0
        segments = []
        for segment in self._segments:
            over = np.isin(segment.streams, gone)
            if segment.newest < before:
                over |= ~np.isin(segment.streams, keep)
            if not over.any():
                segments.append(segment)
                continue
            rows = segment.of(over)
            untaken += self._count(segment, rows & ~segment.taken)
            segment.taken |= rows
            kept = self._thin(segment, ~over)
            if kept is not None:
                segments.append(kept)
        self._segments = segments
        return untaken

    def _thin(self, segment: _Segment, wanted: npt.NDArray[np.bool_]) -> _Segment | None:
        """Return the segment with the wanted streams only, None if nothing is left."""
        streams, starts, stops = segment.streams[wanted], segment.starts[wanted], segment.stops[wanted]
        lengths = stops - starts
        rows, ticket, taken = segment.rows, segment.ticket, segment.taken
        if lengths.sum() * 4 <= len(taken):  # worth the copy; else its other rows are left where they lie
            slices = [segment.slice(*span, self._parking) for span in zip(starts.tolist(), stops.tolist(), strict=True)]
            taken = taken[segment.of(wanted)]
            if rows is None and self._parking is not None:
                self._parking.drop(ticket)
            if not slices:
                return None
            rows, ticket, stops = (
                np.concatenate([part.view(_OPAQUE) for part in slices]).view(ROW),
                -1,
                np.cumsum(lengths),
            )
            starts = stops - lengths
        return _Segment(rows, ticket, streams, starts, stops, taken, segment.oldest, segment.newest)

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
