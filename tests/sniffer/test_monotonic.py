"""Steady time made of a wall clock that is set while capture runs, against a world whose true times are known."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sniffer.clock import MAX_STEPS, SECOND
from tapdeck.sniffer.monotonic import REACH, STEP, TOLERANCE, SteadyClock, Step
from tapdeck.sniffer.records import Ints

MS = 1_000_000
YEAR = 365 * 86_400 * SECOND
BOOT = 5_000 * SECOND
"""What the monotonic clock shows at the start."""
START = 1_800_000_000 * SECOND
PACE = 20 * MS
CYCLE = 200 * MS

leaps = st.one_of(
    st.integers(STEP, 3 * SECOND),
    st.integers(SECOND, 86_400 * SECOND),
    st.integers(YEAR, 50 * YEAR),
).flatmap(lambda size: st.sampled_from([size, -size]))


@dataclass
class World:
    """True time runs from 0. The wall clock is set at `steps` (true time, by how much), and gains `ppm`."""

    steps: list[tuple[int, int]]
    ppm: float = 0.0
    whens: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.steps.sort()
        self.whens = [when for when, _ in self.steps]

    def ahead(self, true: int) -> int:
        """By how much the wall clock leads true time (and START)."""
        count = bisect_right(self.whens, true)
        return sum(by for _, by in self.steps[:count]) + int(true * self.ppm / 1e6)

    def stamps(self, true: list[int]) -> list[int]:
        return [START + when + self.ahead(when) for when in true]


@dataclass
class Run:
    """A capture in that world: visits every `CYCLE`; each takes what came, at most `limit` frames. `idle`: a visit that
    finds nothing only looks at the clocks.
    """

    world: World
    clock: SteadyClock = field(default_factory=lambda: SteadyClock(START, BOOT))
    limit: int = 1 << 30
    noise: list[int] = field(default_factory=lambda: [0])
    idle: bool = False
    found: list[Step] = field(default_factory=list)

    def steady(self, true: list[int], source: int = 0) -> list[int]:
        """The steady times of all frames, counted from the start."""
        stamps, taken, now, visit = self.world.stamps(true), 0, 0, 0
        out: list[Ints] = []
        while taken < len(true):
            now += CYCLE
            ready = bisect_right(true, now)
            stop = min(ready, taken + self.limit)
            read = np.array(stamps[taken:stop], dtype=np.int64)
            wall = START + now + self.world.ahead(now) + self.noise[visit % len(self.noise)]
            if self.idle and stop == taken:
                steps = self.clock.sample(wall, BOOT + now)
            else:
                times, steps = self.clock.cycle(read, wall, BOOT + now, source=source, backlog=stop < ready)
                out.append(times)
            self.found += steps
            taken, visit = stop, visit + 1
        return [time - START for time in np.concatenate(out).tolist()]


def ticking(seconds: float, pace: int = PACE) -> list[int]:
    return list(range(PACE, int(seconds * SECOND), pace))


@given(st.lists(st.tuples(st.integers(0, 10 * SECOND), leaps), max_size=4), st.integers(1, PACE), st.data())
def test_audio_never_follows_a_step(steps: list[tuple[int, int]], phase: int, data: st.DataObject) -> None:
    """Frames every 20 ms, the clock set at any moment, inside a visit's frames too: each keeps its true time."""
    apart = [(number * 10 * SECOND + when % (8 * SECOND) + SECOND, by) for number, (when, by) in enumerate(steps)]
    run = Run(World(apart))
    true = [phase + time for time in ticking(10 * len(steps) + 4)]
    assert run.steady(true) == true
    assert [step.by for step in run.found] == [by for _, by in apart]
    assert run.clock.set == len(apart)
    for step, (when, _) in zip(run.found, apart, strict=True):
        assert 0 <= step.time - START - when <= CYCLE
        assert step.ahead == run.world.ahead(when)


@given(st.integers(0, 3 * SECOND), leaps)
def test_the_wall_clock_can_be_shown_of_every_frame(when: int, by: int) -> None:
    run = Run(World([(when, by)]))
    true = ticking(4)
    shown = [run.clock.wall(START + time) for time in run.steady(true)]
    assert shown == run.world.stamps(true)


@given(
    st.lists(st.integers(MS, 90 * SECOND), min_size=1, max_size=40),
    st.integers(0, 600 * SECOND),
    st.integers(3 * SECOND, 50 * YEAR).flatmap(lambda size: st.sampled_from([size, -size])),
    st.booleans(),
)
def test_on_a_quiet_link_too(gaps: list[int], when: int, by: int, idle: bool) -> None:
    """Minutes without a frame: nothing but the clocks tells when it happened."""
    true = np.cumsum(gaps).tolist()
    run = Run(World([(when, by)]), idle=idle)
    assert run.steady(true) == true


@given(st.integers(SECOND, 6 * SECOND), st.integers(30 * SECOND, YEAR), st.sampled_from([1, -1]), st.integers(15, 60))
def test_frames_that_waited_long_in_the_ring(when: int, by: int, sign: int, limit: int) -> None:
    """The reader was held up and then takes its time: a step is seen long before the frames around it are read."""
    run = Run(World([(when, by * sign)]), limit=limit)
    run.clock.cycle(np.empty(0, dtype=np.int64), START + 1, BOOT + 1)
    true = ticking(8, pace=4 * MS)
    assert run.steady(true) == true


@given(st.lists(st.integers(-TOLERANCE // 2, TOLERANCE // 2), min_size=1, max_size=20))
def test_without_a_step_stamps_stay_what_they_are_to_the_nanosecond(noise: list[int]) -> None:
    true = ticking(3)
    run = Run(World([]), noise=noise)
    assert run.steady(true) == true
    assert (run.found, run.clock.ahead, run.clock.steps.since) == ([], 0, [])


@pytest.mark.parametrize("ppm", [50.0, -50.0, 500.0, -500.0])
def test_drift_is_taken_out_without_disorder(ppm: float) -> None:
    run = Run(World([], ppm=ppm))
    true = ticking(120)
    steady = run.steady(true)
    assert max(abs(got - want) for got, want in zip(steady, true, strict=True)) <= TOLERANCE + CYCLE * abs(ppm) / 1e6
    assert steady == sorted(steady)
    assert run.clock.set == 0
    assert abs(run.clock.ahead - run.world.ahead(true[-1])) <= TOLERANCE


@given(
    st.lists(st.tuples(st.integers(CYCLE, 3 * SECOND), st.integers(-YEAR, YEAR)), max_size=12),
    st.integers(MS, 100 * MS),
)
def test_whatever_is_done_to_the_clock_little_is_wrong(steps: list[tuple[int, int]], pace: int) -> None:
    """Set several times between two looks at it, even: no frame is further off than frames can wait in the ring."""
    run = Run(World(steps))
    true = ticking(4, pace)
    steady = run.steady(true)
    assert max(abs(got - want) for got, want in zip(steady, true, strict=True)) <= REACH + CYCLE + TOLERANCE


@given(
    st.lists(st.integers(-STEP + 1, STEP - 1), min_size=1, max_size=5), st.integers(0, CYCLE), st.integers(MS, 300 * MS)
)
def test_small_changes_never_change_the_order(changes: list[int], phase: int, pace: int) -> None:
    world = World([(number * SECOND + phase, by) for number, by in enumerate(changes)])
    true = ticking(len(changes) + 1, pace)
    steady = Run(world).steady(true)
    off = [abs(got - want) for got, want in zip(steady, true, strict=True)]
    assert max(off) <= max(map(abs, changes)) + TOLERANCE
    assert min(later - earlier for earlier, later in pairwise(steady)) >= -TOLERANCE


def test_small_disorder_of_the_ring_is_kept() -> None:
    """Frames of several processors: stamps microseconds out of order are the kernel's, and stay."""
    stamps = np.array([START + 10 * MS, START + 10 * MS - 3000, START + 11 * MS], dtype=np.int64)
    steady, steps = SteadyClock(START, BOOT).cycle(stamps, START + CYCLE, BOOT + CYCLE)
    assert steady.tolist() == stamps.tolist()
    assert steps == []


@given(
    st.integers(SECOND, 20 * SECOND),
    st.integers(SECOND, YEAR).flatmap(lambda size: st.sampled_from([size, -size])),
    st.lists(st.integers(CYCLE, 10 * SECOND), min_size=1, max_size=8),
)
def test_two_rings_agree(when: int, by: int, waits: list[int]) -> None:
    """Each ring comes to the step with its own frames, though the reader is held up for seconds before it reads."""
    visits = np.cumsum(waits).tolist()
    world, clock = World([(when, by)]), SteadyClock(START, BOOT)
    true = [[source * 7 * MS + time for time in ticking(100)] for source in (0, 1)]
    stamps = [world.stamps(one) for one in true]
    steady: list[list[int]] = [[], []]
    for now in visits:
        for source in (0, 1):
            look = now + source * MS  # the clocks are looked at anew for each ring
            read = np.array(stamps[source][len(steady[source]) : bisect_right(true[source], look)], dtype=np.int64)
            times, _ = clock.cycle(read, START + look + world.ahead(look), BOOT + look, source=source)
            steady[source] += [time - START for time in times.tolist()]
        look = now + 2 * MS
        clock.sample(START + look + world.ahead(look), BOOT + look)
    assert [one[: len(got)] for one, got in zip(true, steady, strict=True)] == steady
    assert clock.set == (when <= visits[-1] + 2 * MS)


def test_a_cards_own_clock_may_be_anywhere() -> None:
    """Cards often keep TAI, 37 s ahead: their stamps are only ever shifted."""
    stamps = np.array([START + 37 * SECOND + n * PACE for n in range(10)], dtype=np.int64)
    clock = SteadyClock(START, BOOT)
    steady, _ = clock.cycle(stamps, START + CYCLE, BOOT + CYCLE, card=True)
    assert steady.tolist() == stamps.tolist()


def test_what_is_forgotten_is_only_the_past() -> None:
    world = World([(n * SECOND + 5 * MS, 10 * SECOND) for n in range(1, 20)])
    run = Run(world)
    true = ticking(20)
    run.steady(true)
    late = [time for time in true if time >= 10 * SECOND]
    run.clock.forget(START + late[0])
    assert len(run.clock.steps.since) == 11
    assert [run.clock.wall(START + time) for time in late] == world.stamps(late)


def test_the_list_of_changes_is_bounded() -> None:
    clock = SteadyClock(START, BOOT)
    for n in range(1, 3 * MAX_STEPS):
        now = n * CYCLE
        clock.cycle(np.empty(0, dtype=np.int64), START + now + n * SECOND, BOOT + now)
    assert len(clock.steps.since) == MAX_STEPS
    assert clock.set == 3 * MAX_STEPS - 1
    assert clock.wall(clock.now) == clock.now + (3 * MAX_STEPS - 1) * SECOND
    stamp = np.array([clock.now + clock.ahead - 5], dtype=np.int64)
    assert clock.steady(stamp).tolist() == [clock.now - 5]
