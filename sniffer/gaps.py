"""Moments at which all streams miss packets at once: lost by the mirror, or on the way from it. Pure."""

from dataclasses import dataclass

import numpy as np

from ..rtp.timeline import MAX_DROPOUT
from .datagrams import RtpColumns
from .records import Ints
from .streams import Lookup

TOGETHER = 80_000_000
"""Gaps within this span of time, in ns, are one moment: streams of 20 to 60 ms a packet resume within it."""
RUNNING = 1_000_000_000
"""A stream whose last packet is older than this, in ns, pauses; it cannot miss any."""
SHARE = 0.7
"""So many of the streams that run have to miss packets at once."""
LONG = 3
"""Where only two or three streams run, each has to miss so many packets: chance makes shorter gaps coincide."""
FEW = 4
MAX_MOMENTS = 1000
MAX_WAITING = 1 << 17
LATE = 8
"""So many packets later a missing one may still come: then it was only overtaken."""
_STRIDE = 1 << 32


@dataclass(frozen=True, slots=True)
class Moment:
    """When (ns), how many streams of those that ran, and how many packets all of them missed."""

    time: int
    streams: int
    running: int
    packets: int


class Gaps:
    """Watches the sequence numbers of all streams; an engine's listener hands it what it is told."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.packets = 0
        self._highest: Ints = np.zeros(1024, dtype=np.int64)
        self._first: Ints = np.zeros(1024, dtype=np.int64)
        self._last: Ints = np.full(1024, -1, dtype=np.int64)
        self._waiting: Ints = np.empty((3, 0), dtype=np.int64)

    def take(self, rtp: RtpColumns, found: Lookup) -> None:
        """Take a block's packets in the order of time; see `engine.Listener.streamed`."""
        known = found.numbers >= 0
        if not known.any():
            return
        numbers = found.numbers[known].astype(np.int64)
        self._make_room(int(numbers.max()) + 1)
        self._last[np.array(found.new, dtype=np.int64)] = -1
        order = np.argsort(numbers, kind="stable")
        sequence, time = rtp.sequence[known].astype(np.int64), rtp.time[known]
        self._judge(self._missed(numbers[order], sequence[order], time[order]), int(time[-1]) - TOGETHER)

    def finish(self) -> None:
        """Nothing more comes: judge the gaps that waited for others."""
        self._judge(np.empty((3, 0), dtype=np.int64), None)

    def _missed(self, numbers: Ints, sequence: Ints, time: Ints) -> Ints:
        """Return three rows, in the order of time: when each gap was over (ns), its stream, how many packets it has."""
        begins = np.nonzero(np.concatenate(([True], np.diff(numbers) != 0)))[0]
        ends = np.concatenate((begins[1:], [len(numbers)])) - 1
        streams = numbers[begins]
        fresh = self._last[streams] < 0
        self._first[streams[fresh]] = time[begins[fresh]]
        before, earlier = np.concatenate(([0], sequence[:-1])), np.concatenate(([0], time[:-1]))
        before[begins], earlier[begins] = self._highest[streams], self._last[streams]
        step = ((sequence - before + 0x8000) & 0xFFFF) - 0x8000
        step[(np.abs(step) > MAX_DROPOUT)] = 1  # begun anew
        step[begins[fresh]] = 1
        place, top, behind = _heights(step, begins, ends)
        self._highest[streams] = (sequence[ends] + top[ends] - place[ends]) & 0xFFFF
        self._last[streams] = time[ends]
        rows = np.nonzero((behind > 0) & (time - earlier < RUNNING))[0]
        rows = rows[~_filled(rows, numbers, place, behind)]
        rows = rows[np.argsort(time[rows], kind="stable")]
        return np.stack((time[rows], numbers[rows], behind[rows]))

    def _judge(self, gaps: Ints, until: int | None) -> None:
        """Find the gaps that come together; those later than `until` (ns) wait for more."""
        self._waiting = np.concatenate((self._waiting, gaps), axis=1)[:, -MAX_WAITING:]
        when, stream, missed = self._waiting
        start = 0
        while start < len(when) and (until is None or when[start] <= until):
            time = int(when[start])
            stop = int(np.searchsorted(when, time + TOGETHER, side="right"))
            gapped, place = np.unique(stream[start:stop], return_inverse=True)
            running = int(np.count_nonzero((self._last >= time - RUNNING) & (self._first < time) & (self._last >= 0)))
            each = np.bincount(place, weights=missed[start:stop])
            enough = len(gapped) >= FEW or (len(gapped) >= 2 and each.min() >= LONG)
            if not enough or len(gapped) < SHARE * running:
                start += 1
                continue
            self.packets += int(each.sum())
            if len(self.moments) < MAX_MOMENTS:
                self.moments.append(Moment(time, len(gapped), running, int(each.sum())))
            start = stop
        self._waiting = self._waiting[:, start:]

    def _make_room(self, count: int) -> None:
        size = len(self._last)
        while size < count:
            size *= 2
        nothing = np.zeros(size - len(self._last), dtype=np.int64)
        if len(nothing):
            self._highest = np.concatenate((self._highest, nothing))
            self._first = np.concatenate((self._first, nothing))
            self._last = np.concatenate((self._last, nothing - 1))


def _heights(step: Ints, begins: Ints, ends: Ints) -> tuple[Ints, Ints, Ints]:
    """Return each packet's number, counted from its stream's highest before; the highest with it; the gap below it."""
    lengths = ends - begins + 1
    total = np.cumsum(step)
    place = total - np.repeat(total[begins] - step[begins], lengths)
    lane = np.repeat(np.arange(len(begins), dtype=np.int64) * _STRIDE, lengths)
    top = np.maximum(np.maximum.accumulate(place + lane) - lane, 0)
    before = np.concatenate(([0], top[:-1]))
    before[begins] = 0
    return place, top, place - before - 1


def _filled(rows: Ints, numbers: Ints, place: Ints, gap: Ints) -> np.ndarray:
    """Tell which gaps were filled by packets that had been overtaken."""
    filled = np.zeros(len(rows), dtype=bool)
    for ahead in range(1, LATE + 1):
        later = np.minimum(rows + ahead, len(numbers) - 1)
        same = numbers[later] == numbers[rows]
        filled |= same & (place[later] < place[rows]) & (place[later] >= place[rows] - gap[rows])
    return filled
