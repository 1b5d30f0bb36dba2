"""Jitter by hand and by a plain loop over RFC 3550's D(i-1, i)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.rtp.quality import jitter_ms

MS = 1_000_000


def jitter(times_ms: list[float], stamps: list[int], rate: int = 8000) -> float:
    times = np.array([int(time * MS) for time in times_ms], dtype=np.int64)
    return jitter_ms(times, np.array([stamp & 0xFFFF_FFFF for stamp in stamps], dtype=np.uint32), rate)


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
