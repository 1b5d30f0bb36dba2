"""A live capture's stamps show the wall clock, which is set now and then; calls need a time that only goes on. Pure.

Whoever captures reads both clocks once a visit to the ring, after the frames. How far the wall clock is ahead of the
monotonic one changes only when somebody sets it: an era ends and another begins. Frames near such a change are judged
by which era makes their stamps possible, and where that leaves a choice, by their order. Steady time is the wall
clock's as it was at the start, for ever: it follows no later step. All times are in ns.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .clock import MAX_STEPS, SECOND, Steps
from .records import Ints

TOLERANCE = 1_000_000
"""Changes of the difference of both clocks up to this are not followed: noise of reading them, or drift that waits."""
STEP = 100_000_000
"""From such a change on the clock was set; a smaller one is drift, taken out in one go."""
REACH = SECOND
"""How long a frame may lie in a block of the ring before the block is handed over, at most."""

DISORDER = 100_000_000
"""How far a stamp may lie before an earlier frame's: several processors fill one ring."""


@dataclass(frozen=True, slots=True)
class Step:
    """The wall clock was set `by` so much, no later than at steady time `time`; it is `ahead` of steady time since."""

    time: int
    by: int
    ahead: int


@dataclass(slots=True)
class _Era:
    """The wall clock is `ahead` of steady time. That began between the steady times `earliest` and `latest`; `since` is
    the best guess.
    """

    ahead: int
    earliest: int
    latest: int
    since: int


@dataclass(slots=True)
class _Source:
    """A ring: the number of the era that its frames have come to, and the latest steady time among them. None that is
    still to come is older than `oldest`; none of this era goes back behind `floor`. `backlog`: more was ready.
    """

    era: int
    oldest: int
    last: int | None = None
    floor: int | None = None
    backlog: bool = False

    @property
    def low(self) -> int:
        """Before this steady time no frame is expected."""
        return self.oldest if self.last is None else max(self.oldest, self.last - DISORDER)


@dataclass(slots=True)
class SteadyClock:
    """Made with what both clocks show, when the rings are. `set` counts how often the wall clock was set since,
    `steps` is what it showed.
    """

    wall_then: int
    monotonic_then: int
    steps: Steps = field(default_factory=Steps)
    set: int = 0
    now: int = field(init=False)
    """Steady time of the last sample."""
    _before: int = field(init=False)
    _visited: int = field(init=False)
    _seen: int = field(init=False, default=0)
    _eras: list[_Era] = field(init=False)
    _dropped: int = field(init=False, default=0)
    _sources: dict[int, _Source] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.now = self._before = self._visited = start = self.wall_then
        self._eras = [_Era(0, start, start, start)]

    # -- what the caller asks ------------------------------------------------------------------------------------------

    def cycle(
        self, time: Ints, wall: int, monotonic: int, *, source: int = 0, backlog: bool = False, card: bool = False
    ) -> tuple[Ints, list[Step]]:
        """Return the steady times of one visit's frames, and the step of the wall clock if one was found.

        `time` are their stamps in the order of the ring; both clocks were read after that, as close together as can be.
        """
        steps = self._look(wall, monotonic)
        return self.steady(time, source=source, backlog=backlog, card=card), steps

    def sample(self, wall: int, monotonic: int) -> list[Step]:
        """Take what both clocks show now; return the step, if there was one since they were looked at last.

        For the end of a visit in which every ring was read: those that gave nothing are known to be empty.
        """
        self._visited = self.now
        for ring in self._sources.values():
            if not ring.backlog:
                ring.oldest = max(ring.oldest, self._visited - REACH)
        return self._look(wall, monotonic)

    def _look(self, wall: int, monotonic: int) -> list[Step]:
        now = monotonic - self.monotonic_then + self.wall_then
        if now > self.now:
            self._before, self.now = self.now, now
        seen, self._seen = self._seen, wall - self.now
        if abs(self._seen - self.ahead) <= TOLERANCE:
            return []
        self._eras.append(_Era(self._seen, self._before, self.now, self.now))
        if len(self.steps.since) >= MAX_STEPS:
            del self.steps.since[0], self.steps.ahead[0]
        self.steps.add(self.now, self._seen)
        self._drop_eras()
        if abs(self._seen - seen) < STEP:
            return []
        self.set += 1
        return [Step(self.now, self._seen - seen, self._seen)]

    def steady(self, time: Ints, *, source: int = 0, backlog: bool = False, card: bool = False) -> Ints:
        """Return the steady times of frames that were read before the clocks were looked at last.

        `source` tells rings apart; `backlog`: more of the ring is ready to be read; `card`: the stamps are those of the
        card, whose clock is its own (a kernel's stamps that lie in the future are not believed).
        """
        ring = self._sources.setdefault(source, _Source(self._dropped, self._visited - REACH))
        ring.era = max(ring.era, self._dropped)
        parts = []
        while len(time) and ring.era < self._dropped + len(self._eras) - 1:
            count = self._before_change(time, ring)
            parts.append(self._shifted(time[:count], ring, card))
            time = time[count:]
            if len(time):
                self._enter_next(ring, int(time[0]))
        parts.append(self._shifted(time, ring, card))
        ring.backlog = backlog
        if not backlog:
            ring.oldest = self.now - REACH
            if ring.floor is not None and ring.floor < ring.oldest:
                ring.floor = None
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    @property
    def ahead(self) -> int:
        """How far the wall clock is ahead of steady time, as far as that is followed."""
        return self._eras[-1].ahead

    def wall(self, steady: int) -> int:
        """Return what the wall clock showed at a steady time."""
        return self.steps.wall(steady)

    def forget(self, before: int) -> None:
        """Drop what only tells what the wall clock showed before this steady time."""
        since, ahead = self.steps.since, self.steps.ahead
        count = max(bisect_left(since, before + 1) - 1, 0)
        del since[:count], ahead[:count]

    # -- eras ----------------------------------------------------------------------------------------------------------

    def _drop_eras(self) -> None:
        """Forget the eras that the frames of all rings have left, and the first of too many."""
        needed = min((ring.era for ring in self._sources.values()), default=self._dropped)
        count = max(needed - self._dropped, len(self._eras) - MAX_STEPS, 0)
        del self._eras[:count]
        self._dropped += count

    def _enter_next(self, ring: _Source, stamp: int) -> None:
        """Go on to the next era, whose first frame has this stamp."""
        ring.era += 1
        era = self._eras[ring.era - self._dropped]
        ring.floor = ring.last
        begin = max(stamp - era.ahead, era.earliest if ring.last is None else ring.last, era.earliest)
        if begin < era.since:
            place = bisect_left(self.steps.since, era.since)
            if place < len(self.steps.since) and self.steps.since[place] == era.since:
                self.steps.since[place] = era.since = begin

    def _shifted(self, time: Ints, ring: _Source, card: bool) -> Ints:
        """Return the steady times of frames of the ring's era."""
        if len(time) == 0:
            return time
        ahead = self._eras[ring.era - self._dropped].ahead
        steady: Ints = time - ahead if ahead else time
        # Before the first visit a ring may have waited for any time.
        low, high = int(steady.min()) if ring.last is None else ring.low - TOLERANCE, self.now + TOLERANCE
        if not card and (steady.min() < low or steady.max() > high):
            steady = np.clip(steady, low, high)
        if ring.floor is not None:
            steady = np.maximum(steady, ring.floor)
        latest = int(steady.max())
        ring.last = latest if ring.last is None else max(latest, ring.last)
        return steady

    def _before_change(self, time: Ints, ring: _Source) -> int:
        """Return how many of the frames come before the change of the clock that ends the ring's era."""
        era, following = self._eras[ring.era - self._dropped :][:2]
        by = following.ahead - era.ahead
        old, new = time - era.ahead, time - following.ahead
        may_be_old = (old >= ring.low - TOLERANCE) & (old <= following.latest + TOLERANCE)
        may_be_new = (new >= following.earliest - TOLERANCE) & (new <= self.now + TOLERANCE)
        # So many frames are on the wrong side if the change comes before the first, the second ... or after the last.
        wrong = _sums(may_be_new & ~may_be_old) + _sums((may_be_old & ~may_be_new)[::-1])[::-1]
        places = np.nonzero(wrong == wrong.min())[0]
        # Of these places, where stamps go back least in the end: a true step leaves no trace in steady time.
        gap = np.diff(time, prepend=(ring.oldest + REACH if ring.last is None else ring.last) + era.ahead)
        disorder = np.append(np.maximum(by - gap, 0) - np.maximum(-gap, 0), 0)[places]
        places = places[disorder == disorder.min()]
        if len(places) > 1 and by > 0:
            places = places[places < len(time)]
            return int(places[gap[places].argmax()])
        return int(places[-1])


def _sums(mask: npt.NDArray[np.bool_]) -> Ints:
    """Return how many are set before each place, and in all."""
    return np.concatenate(([0], np.cumsum(mask, dtype=np.int64)))
