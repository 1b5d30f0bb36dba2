"""Resampling against the sines that it must give, in pieces of any length, to the sample."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tapdeck.rtp.resample import Samples, resampler

RATES = [(8000, 16000), (8000, 48000), (16000, 48000), (44100, 48000), (8000, 44100), (48000, 16000), (11025, 16000)]


def source(rate: int, begin: int, end: int, pitch: float) -> Samples:
    """Samples `begin` to `end` of a sine that has always been there."""
    return np.round(10_000 * np.sin(2 * np.pi * pitch * np.arange(begin, end) / rate)).astype(np.int16)


@pytest.mark.parametrize(("low", "high"), RATES)
@pytest.mark.parametrize("pitch", [100.0, 1000.0, 3000.0])
def test_a_sine_stays_where_it_is(low: int, high: int, pitch: float) -> None:
    made = resampler(low, high)
    out = made.apply(source(low, *made.span(0, high), pitch), 0, high)
    expected = 10_000 * np.sin(2 * np.pi * pitch * np.arange(high) / high)
    assert np.abs(out - expected).max() < 40  # -48 dB of the sine


def test_what_the_lower_rate_cannot_hold_is_gone() -> None:
    made = resampler(48000, 8000)
    out = made.apply(source(48000, *made.span(0, 8000), 6000.0), 0, 8000)
    assert np.abs(out).max() < 40


def test_a_constant_stays_what_it_is() -> None:
    for low, high in RATES:
        made = resampler(low, high)
        begin, end = made.span(0, 1000)
        out = made.apply(np.full(end - begin, -12345, dtype=np.int16), 0, 1000)
        assert set(out.tolist()) == {-12345}


@pytest.mark.parametrize(("low", "high"), RATES)
def test_pieces_are_as_the_whole(low: int, high: int) -> None:
    made = resampler(low, high)
    noise = np.random.default_rng(1).integers(-32768, 32768, 2 * low, dtype=np.int16)
    padded = np.concatenate((np.zeros(1000, np.int16), noise, np.zeros(1000, np.int16)))

    def part(start: int, stop: int) -> list[int]:
        begin, end = made.span(start, stop)
        return [int(sample) for sample in made.apply(padded[1000 + begin : 1000 + end], start, stop)]

    whole = part(0, high)
    cuts = [0, 1, 7, 1000, 1001, high // 2, high]
    assert [sample for start, stop in pairwise(cuts) for sample in part(start, stop)] == whole
