"""Jitter by hand and by a plain loop over RFC 3550's D(i-1, i)."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.rtp.quality import by_window, counted, jitter_ms

MS = 1_000_000


def jitter(times_ms: list[float], stamps: list[int], rate: int = 8000) -> float:
    times = np.array([int(time * MS) for time in times_ms], dtype=np.int64)
    return jitter_ms(times, np.array([stamp & 0xFFFF_FFFF for stamp in stamps], dtype=np.uint32), rate)[0]


def test_an_even_stream_has_none() -> None:
    assert jitter([0, 20, 40, 60], [0, 160, 320, 480]) == 0.0


def test_the_mean_of_the_differences() -> None:
    """Spacing 25, 15, 20 ms where 20 were sent: |D| is 5, 5 and 0."""
    assert jitter([0, 25, 40, 60], [0, 160, 320, 480]) == pytest.approx(10 / 3)


def test_the_clock_rate_counts() -> None:
    assert jitter([0, 20, 40], [0, 960, 1920], 48_000) == 0.0
    assert jitter([0, 20, 40], [0, 960, 1920], 8000) == pytest.approx(100.0)


def test_jumps_and_pauses_are_no_jitter() -> None:
    assert jitter([0, 20, 40], [0, 160, 2**31]) == 0.0
    assert jitter([0, 20, 9000, 9020], [0, 160, 320, 480]) == 0.0


@pytest.mark.parametrize(("count", "rate"), [(0, 8000), (1, 8000), (5, 0)])
def test_too_little_to_say(count: int, rate: int) -> None:
    assert jitter([20.0 * k for k in range(count)], list(range(count)), rate) == 0.0


@given(st.lists(st.floats(0, 500), min_size=1, max_size=200))
def test_the_highest_is_that_of_the_running_estimate(parted: list[float]) -> None:
    """As the RFC has it, packet after packet."""
    times = np.cumsum([0, *(int((20 + late) * MS) for late in parted)])
    stamps = np.arange(len(times), dtype=np.uint32) * 160
    estimate, highest = 0.0, 0.0
    for late in parted:
        estimate += (late - estimate) / 16
        highest = max(highest, estimate)
    assert jitter_ms(times, stamps, 8000)[1] == pytest.approx(highest, abs=0.001)


def test_losses_by_window() -> None:
    """A burst of four from 9 to 11.5 s: two were due in the first ten seconds; one packet is missing at 25 s."""
    time = np.array([0, 9, 11.5, 24, 26]) * 1e9
    missed, touched = by_window(time.astype(np.int64), np.array([2, 4]), np.array([4, 1]), 10 * 10**9)
    assert (missed, touched) == ({0: 1, 1: 3, 2: 1}, {0: 1, 1: 1, 2: 1})


@given(
    st.lists(st.tuples(st.integers(0, 40 * 10**9), st.integers(1, 3000)), min_size=1, max_size=30),
    st.sampled_from([1, 20, 10_000]),
)
def test_no_lost_packet_is_left_out(packets: list[tuple[int, int]], step: int) -> None:
    time = np.array([0, *(at * step for at, _ in packets)], dtype=np.int64)
    length = np.array([lost for _, lost in packets])
    missed, touched = by_window(time, np.arange(1, len(time)), length, 10 * 10**9)
    assert missed.total() == length.sum()
    assert set(missed) == set(touched)
    assert all(count > 0 for count in (*missed.values(), *touched.values()))


@given(st.lists(st.integers(-(2**40), 2**40) | st.integers(-5, 5)))
def test_counted(numbers: list[int]) -> None:
    assert counted(np.array(numbers, dtype=np.int64)) == Counter(numbers)


@given(
    first=st.integers(0, 0xFFFF_FFFF),
    packets=st.lists(st.tuples(st.integers(0, 200), st.integers(-800, 800)), min_size=2, max_size=40),
)
def test_as_a_plain_loop_has_it(first: int, packets: list[tuple[int, int]]) -> None:
    times, stamps = [0], [first]
    for wait, step in packets:
        times.append(times[-1] + wait)
        stamps.append(stamps[-1] + step)
    parted = [abs(wait - step / 8) for wait, step in packets]
    assert jitter([float(time) for time in times], stamps) == pytest.approx(sum(parted) / len(parted))
