"""A capture's wall clock may be set while it runs; calls need a time that only goes on. Pure.

`Clock.steady` turns a capture's time stamps, in file order, into steady time: as they are until the clock is set, and
from there on without the step. `Steps.wall` turns steady time back into what the clock showed, for people. A step is
told from mere disorder by its persistence: everything behind it stays on its far side.
"""

from bisect import bisect_right
from dataclasses import dataclass, field, replace

import numpy as np

from .records import Ints, Records

SECOND = 1_000_000_000
BACK = 10 * SECOND
"""How far time may go back before it is a step, in ns: interfaces and queues are merged with less disorder."""
AHEAD = 86_400 * SECOND
"""How far time may leap ahead before it is a step, in ns: a capture may be quiet for hours."""
PERSISTENT = 8
"""So many frames must lie behind a step."""
MAX_STEPS = 1024


@dataclass(slots=True)
class Steps:
    """All steps of a run's clocks: from which steady time on (ns) wall time is how far ahead of it (ns)."""

    since: list[int] = field(default_factory=list)
    ahead: list[int] = field(default_factory=list)

    def add(self, since: int, ahead: int) -> None:
        """Note that from `since` on wall time is `ahead` of steady time."""
        place = bisect_right(self.since, since)
        if len(self.since) < MAX_STEPS:
            self.since.insert(place, since)
            self.ahead.insert(place, ahead)

    def wall(self, steady: int) -> int:
        """Return what the clock showed at a steady time."""
        place = bisect_right(self.since, steady)
        return steady + self.ahead[place - 1] if place else steady

    def walls(self, steady: Ints) -> Ints:
        """Return what the clock showed at each of these steady times."""
        if not self.since:
            return steady
        place = np.searchsorted(np.array(self.since), steady, side="right")
        shown: Ints = steady + np.array([0, *self.ahead], dtype=np.int64)[place]
        return shown


@dataclass(slots=True)
class Clock:
    """The clock of one capture. `set` counts how often it was set, `strays` frames with a time of their own."""

    steps: Steps
    set: int = 0
    strays: int = 0
    _shift: int = 0
    _latest: int | None = None

    def steady(self, records: Records) -> Records:
        """Return the records with steady times."""
        if len(records) == 0:
            return records
        time = records.time + self._shift if self._shift else records.time
        latest = int(time[0]) if self._latest is None else self._latest
        if self._is_calm(time, latest):
            self._latest = max(latest, int(time[-1]))
            return records if time is records.time else replace(records, time=time)
        time = self._straighten(time.copy(), latest)
        self._latest = max(latest, int(time.max()))
        return replace(records, time=time)

    @staticmethod
    def _is_calm(time: Ints, latest: int) -> bool:
        if not latest - BACK <= int(time[0]) <= latest + AHEAD:
            return False
        change = np.diff(time)
        return len(change) == 0 or bool(change.min() >= 0 and change.max() <= AHEAD)

    def _straighten(self, time: Ints, latest: int) -> Ints:
        """Take out the steps, first to last."""
        start = 0
        for _ in range(MAX_STEPS):
            before = np.maximum.accumulate(np.concatenate(([latest], time[:-1])))
            lowest = np.minimum.accumulate(time[::-1])[::-1]
            highest = np.maximum.accumulate(time[::-1])[::-1]
            ahead, back = time - before > AHEAD, highest < before - BACK
            found = np.nonzero((ahead | back)[start:])[0]
            if len(found) == 0:
                break
            place = start + int(found[0])
            enough = min(PERSISTENT, len(time))
            persistent = len(time) - place >= enough and (back[place] or lowest[place] > before[place] + AHEAD)
            if persistent:
                self._step(time, place, int(before[place]))
            elif ahead[place]:
                time[place] = before[place]
                self.strays += 1
            start = place + 1
        return time

    def _step(self, time: Ints, place: int, before: int) -> None:
        leap = before + 1 - int(time[place])  # 1 ns later, so that what the clock showed can be told of both sides
        time[place:] += leap
        self._shift += leap
        self.set += 1
        self.steps.add(before + 1, -self._shift)

    def end(self) -> None:
        """The capture is over: what comes later in steady time is no longer its business."""
        if self._shift and self._latest is not None:
            self.steps.add(self._latest + 1, 0)
