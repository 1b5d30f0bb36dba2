"""Concealment by the ear's measures: what goes on, how it fades, and that nothing else is touched."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tapdeck.rtp.conceal import conceal

RATE = 8000
Samples = NDArray[np.int16]


def voice(seconds: float = 1.0, rate: int = RATE, pitch: float = 125.0) -> Samples:
    t = np.arange(int(seconds * rate)) / rate
    sound = sum(np.sin(2 * np.pi * pitch * harmonic * t + harmonic) / harmonic for harmonic in range(1, 9))
    return np.asarray(4000 * sound, dtype=np.int16)


def lossy(sound: Samples, start: int, length: int) -> Samples:
    """The sound with silence in it."""
    lost = sound.copy()
    lost[start : start + length] = 0
    return lost


def error(found: Samples, sound: Samples, start: int, length: int) -> float:
    """The energy of what is wrong in a stretch, against that of the sound."""
    part = slice(start, start + length)
    wrong = found[part].astype(float) - sound[part]
    return float((wrong**2).sum() / (sound[part].astype(float) ** 2).sum())


@pytest.mark.parametrize("rate", [8000, 16_000, 48_000])
@pytest.mark.parametrize("pitch", [80, 125, 190])
def test_a_voice_goes_on(rate: int, pitch: float) -> None:
    sound = voice(rate=rate, pitch=pitch)
    start, length = rate // 2, rate // 50
    found = lossy(sound, start, length)
    conceal(found, start, length, rate)
    assert error(found, sound, start, length) < 0.1, "silence would be 1"


def test_only_the_edges_beside_the_loss_are_touched() -> None:
    sound = voice()
    found = lossy(sound, 4000, 160)
    conceal(found, 4000, 160, RATE)
    assert (found[: 4000 - 30] == sound[: 4000 - 30]).all()
    assert (found[4000 + 160 + 80 :] == sound[4000 + 160 + 80 :]).all()


def test_it_gets_softer_and_ends() -> None:
    sound = voice()
    found = lossy(sound, 4000, 2000)
    conceal(found, 4000, 2000, RATE)
    loud = [float(np.abs(found[4000 + 80 * n : 4080 + 80 * n].astype(float)).mean()) for n in range(8)]
    assert loud[0] > 0.8 * np.abs(sound.astype(float)).mean()
    assert all(loud[n + 1] < loud[n] for n in range(1, 5))
    assert loud[6] == loud[7] == 0
    assert not found[4000 + 480 : 6000].any()
    assert (found[6000:] == sound[6000:]).all()


def test_no_clicks() -> None:
    """Steps from sample to sample are no higher than those of the voice itself."""
    sound = voice()
    found = lossy(sound, 4013, 480)
    conceal(found, 4013, 480, RATE)
    assert np.abs(np.diff(found.astype(int))).max() <= 1.3 * np.abs(np.diff(sound.astype(int))).max()


@pytest.mark.parametrize("start", [0, 100, 359])
def test_too_little_before_it_stays_silence(start: int) -> None:
    sound = lossy(voice(), start, 160)
    found = sound.copy()
    conceal(found, start, 160, RATE)
    assert (found == sound).all()


def test_silence_stays_silence() -> None:
    found = np.zeros(8000, dtype=np.int16)
    conceal(found, 4000, 160, RATE)
    assert not found.any()


@given(
    seed=st.integers(0, 2**32 - 1),
    start=st.integers(0, 3000),
    length=st.integers(-1, 4000),
    rate=st.sampled_from([8000, 11_025, 16_000, 48_000]),
)
def test_any_loss_anywhere(seed: int, start: int, length: int, rate: int) -> None:
    sound = np.random.default_rng(seed).integers(-32768, 32768, 3000).astype(np.int16)
    found = sound.copy()
    conceal(found, start, length, rate)
    assert len(found) == len(sound)
    assert (found[: max(0, start - rate)] == sound[: max(0, start - rate)]).all()
