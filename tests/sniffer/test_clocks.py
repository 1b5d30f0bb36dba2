"""Both clocks at one moment."""

import time

from tapdeck.sniffer.sources import clocks


def test_both_clocks_are_of_one_moment_between_before_and_after() -> None:
    wall_before, monotonic_before = time.time_ns(), time.monotonic_ns()
    wall, monotonic = clocks.both()
    wall_after, monotonic_after = time.time_ns(), time.monotonic_ns()
    assert wall_before <= wall <= wall_after
    assert monotonic_before <= monotonic <= monotonic_after
