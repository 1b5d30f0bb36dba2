"""The sums of `tapdeck forecast`, against those that customers make by hand."""

from __future__ import annotations

import math

import pytest

from tapdeck.sniffer.forecast import CODECS, G711, bytes_per_day, days_until_full, forecast, size_text


def test_an_estate_agents_day() -> None:
    """Three agents and two assistants, 300 minutes a day: just under 1 MB a minute."""
    daily = bytes_per_day(300, G711)
    assert daily == 288_000_000
    assert daily / 300 == 960_000
    assert forecast(daily, 250, 5).total == 360e9
    assert forecast(daily, 250, 7).total == 504e9


def test_what_is_decoded_takes_more() -> None:
    assert all(codec.bytes_per_second > G711.bytes_per_second for codec in CODECS.values() if not codec.exact)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 kB"), (288e6, "288 MB"), (360e9, "360 GB"), (1.84e12, "1.8 TB"), (2e12, "2 TB"), (5.76e9, "5.8 GB")],
)
def test_sizes_as_people_write_them(size: float, text: str) -> None:
    assert size_text(size) == text


def test_a_disk_lasts_as_long_as_what_is_free() -> None:
    assert days_until_full(288e6 * 10, 288e6) == 10
    assert days_until_full(-1, 1) == 0
    assert math.isinf(days_until_full(1, 0))
