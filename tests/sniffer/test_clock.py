"""The wall clock of a capture, set while it runs, against steady time."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sniffer.clock import AHEAD, BACK, PERSISTENT, SECOND, Clock, Steps
from tapdeck.sniffer.records import Ints, Records

DAY = 86_400 * SECOND
START = 1_700_000_000 * SECOND
PACE = 20_000_000


def records(times: list[int]) -> Records:
    count = len(times)
    zeros = np.zeros(count, dtype=np.int64)
    data = np.zeros(256, dtype=np.uint8)
    return Records(data, zeros, zeros, zeros, np.array(times, dtype=np.int64), np.ones(count, dtype=np.uint16), 0)


def steady(times: list[int], cut: int, clock: Clock) -> list[int]:
    """Feed the times in blocks of `cut` frames."""
    blocks = [clock.steady(records(times[start : start + cut])).time for start in range(0, len(times), cut)]
    return [time for block in blocks for time in block.tolist()]


def ticking(count: int, start: int = START) -> list[int]:
    return [start + n * PACE for n in range(count)]


@pytest.mark.parametrize("cut", [50, 1000])
@pytest.mark.parametrize("leap", [56 * 365 * DAY, 2 * DAY, -60 * SECOND, -3600 * SECOND, -56 * 365 * DAY])
def test_a_step_leaves_no_trace_in_steady_time_and_stays_in_wall_time(leap: int, cut: int) -> None:
    steps = Steps()
    clock = Clock(steps)
    shown = ticking(120) + ticking(120, START + 120 * PACE + leap)
    found = steady(shown, cut, clock)
    assert clock.set == 1
    assert max(abs(after - before) for before, after in pairwise(found)) <= PACE
    assert [steps.wall(time) for time in found] == shown
    assert steps.walls(np.array(found)).tolist() == [steps.wall(time) for time in found]


def test_disorder_of_some_seconds_is_no_step() -> None:
    """Two interfaces whose clocks differ, their frames alternating in the file."""
    clock = Clock(Steps())
    shown = [time - (index % 2) * (BACK - SECOND) for index, time in enumerate(ticking(200))]
    assert steady(shown, 50, clock) == shown
    assert (clock.set, clock.strays) == (0, 0)


def test_even_more_disorder_is_none_as_long_as_it_does_not_last() -> None:
    clock = Clock(Steps())
    shown = [time - (index % 2) * 30 * SECOND for index, time in enumerate(ticking(200))]
    assert steady(shown, 100, clock) == shown
    assert clock.set == 0


def test_one_frame_of_another_decade_is_a_stray() -> None:
    clock = Clock(Steps())
    shown = ticking(200)
    shown[50] += 10 * 365 * DAY
    found = steady(shown, 100, clock)
    assert found == [*shown[:50], shown[49], *shown[51:]]
    assert (clock.set, clock.strays) == (0, 1)


def test_a_quiet_night_is_no_step() -> None:
    clock = Clock(Steps())
    shown = ticking(50) + ticking(50, START + AHEAD - 60 * SECOND)
    assert steady(shown, 30, clock) == shown
    assert clock.set == 0


def test_after_the_capture_its_steps_no_longer_hold() -> None:
    steps = Steps()
    clock = Clock(steps)
    steady(ticking(50, 0) + ticking(50), 100, clock)
    clock.end()
    assert steps.wall(START + DAY) == START + DAY


@given(st.lists(st.integers(-(1 << 61), 1 << 61), min_size=1, max_size=60), st.integers(1, 60))
def test_any_times_give_times(times: list[int], cut: int) -> None:
    found: Ints = np.array(steady(times, cut, Clock(Steps())), dtype=np.int64)
    assert len(found) == len(times)


def test_few_frames_behind_a_step_are_not_enough() -> None:
    clock = Clock(Steps())
    steady(ticking(50) + ticking(PERSISTENT - 1, START - DAY), 1000, clock)
    assert clock.set == 0
