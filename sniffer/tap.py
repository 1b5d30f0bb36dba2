"""Several rings as one source: the frames of a visit, in the order of time. No clock: time is handed in."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from .blocks import copy_pieces
from .records import PADDING, Records


@dataclass(slots=True)
class Interleave:
    """Puts the frames of several interfaces in the order of time.

    A frame is given out once every interface has shown what it had at that time: one that shows nothing has nothing
    older than `patience` ns. Frames are copied, for the blocks of one ring cannot wait for those of another.
    """

    patience: int
    _waiting: Records | None = field(init=False, default=None)

    def take(self, read: Iterable[Records | None], now: int) -> Records | None:
        """Take what each interface gave in this visit, read at `now` (ns, the frames' clock); return what is due."""
        parts, quiet, horizon = [], False, now - self.patience
        newest = None
        for records in read:
            if records is None or len(records) == 0:
                quiet = True
                continue
            parts.append(records)
            last = int(records.time.max())
            newest = last if newest is None else min(newest, last)
        if not quiet and newest is not None:
            horizon = max(horizon, newest)
        if self._waiting is not None:
            parts.insert(0, self._waiting)
        if not parts:
            return None
        merged = merged_records(parts)
        due = int(np.searchsorted(merged.time, horizon, side="right"))
        self._waiting = _rows(merged, slice(due, None)) if due < len(merged) else None
        return _rows(merged, slice(0, due)) if due else None


def merged_records(parts: list[Records]) -> Records:
    """Copy the frames of several blocks behind each other, in the order of time."""
    time = np.concatenate([part.time for part in parts])
    order = np.argsort(time, kind="stable")
    length = np.concatenate([part.length for part in parts])
    place = np.empty(len(order), dtype=np.int64)
    ends = np.cumsum(length[order])
    place[order] = ends - length[order]
    data = np.zeros((int(ends[-1]) if len(ends) else 0) + PADDING, dtype=np.uint8)
    start = 0
    for part in parts:
        rows = slice(start, start + len(part))
        copy_pieces(part.data, part.offset, part.length, data, place[rows])
        start += len(part)
    wire = np.concatenate([part.wire for part in parts])
    link = np.concatenate([part.link for part in parts])
    return Records(data, place[order], length[order], wire[order], time[order], link[order], 0)


def _rows(records: Records, rows: slice) -> Records:
    return replace(
        records,
        offset=records.offset[rows],
        length=records.length[rows],
        wire=records.wire[rows],
        time=records.time[rows],
        link=records.link[rows],
    )
