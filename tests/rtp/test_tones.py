"""Tones of keys: what ITU-T Q.24 wants taken and what it wants left, and nothing where nobody pressed a key."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tapdeck.rtp.ear import Ear
from tapdeck.rtp.g711 import Law
from tapdeck.rtp.tones import Tone
from tests.support.keys import KEYS, RATE, Samples, quiet, tone, with_keys
from tests.support.media import PCMA, PCMU

LAWS = {PCMA: Law.A, PCMU: Law.MU}


def heard(sound: Samples, rate: int = RATE, cuts: tuple[int, ...] = ()) -> list[Tone]:
    """The keys in samples, which are heard in pieces cut at these places."""
    whole: NDArray[np.int16] = np.clip(np.round(sound), -32768, 32767).astype(np.int16)
    ear = Ear(Law.NONE, rate)
    edges = [0, *sorted(cuts), len(whole)]
    for start, stop in pairwise(edges):
        ear.hear(whole[start:stop], last=stop == len(whole))
    return ear.tones


def keys(sound: Samples, rate: int = RATE) -> str:
    return "".join(one.digit for one in heard(sound, rate))


def row(
    text: str = KEYS * 4,
    *,
    noise: float = -30.0,
    seed: int = 1,
    ms: float = 40.0,
    pause: float = 40.0,
    low: float = 0.0,
    high: float = 0.0,
    level: float = -20.0,
    twist: float = 0.0,
) -> Samples:
    """Keys behind each other, their tones off by so many per cent, in noise."""
    random = np.random.default_rng(seed)
    parts = []
    for key in text:
        phase = (float(random.uniform(0, 6.28)), float(random.uniform(0, 6.28)))
        made = tone(key, ms, off=(low, high), phase=phase, level=level, twist=twist)
        parts += [np.zeros(round(pause * 8) + int(random.integers(40))), made]
    sound = np.concatenate([*parts, np.zeros(400)])
    return sound + quiet(len(sound) / RATE, noise, seed)


OFF = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]


def test_all_keys_in_noise_ten_decibels_below_them() -> None:
    """-20 dBm0, 40 ms long and 40 ms apart: 640 keys, not one missing and none too many."""
    for seed in range(10):
        assert keys(row(seed=seed)) == KEYS * 4


@pytest.mark.parametrize("level", [0.0, -6.0, -20.0, -30.0, -36.0])
def test_all_levels(level: float) -> None:
    assert keys(row(level=level, noise=level - 10)) == KEYS * 4


@pytest.mark.parametrize(("low", "high"), OFF)
def test_frequencies_that_are_off_by_a_little_are_taken_and_by_much_are_not(low: int, high: int) -> None:
    """Q.24: 1.5 % (and 2 Hz) must work, 3.5 % must not (3 % for some networks)."""
    assert keys(row(low=1.5 * low, high=1.5 * high)) == KEYS * 4
    assert keys(row(low=1.7 * low, high=1.6 * high, ms=60)) == KEYS * 4
    for ms in (40.0, 100.0, 500.0):
        assert keys(row(KEYS, low=3.5 * low, high=3.5 * high, ms=ms)) == ""
        assert keys(row(KEYS, low=3.5 * low, high=3.5 * high, ms=ms, noise=-70.0)) == ""


@pytest.mark.parametrize("noise", [-30.0, -70.0])
def test_tones_that_are_too_short_are_no_keys(noise: float) -> None:
    """Q.24: 40 ms must work; 24 ms (NTT), 23 ms (AT&T) and 20 ms (others) must not."""
    assert keys(row(ms=40.0, noise=noise)) == KEYS * 4
    for ms in (24.0, 23.0, 20.0, 10.0):
        assert keys(row(ms=ms, noise=noise)) == ""


@pytest.mark.parametrize("twist", [-8.0, -4.0, 0.0, 4.0])
def test_one_tone_may_be_louder(twist: float) -> None:
    """AT&T: the high one by 4 dB, the low one by 8."""
    assert keys(row(twist=twist)) == KEYS * 4


@pytest.mark.parametrize("twist", [-14.0, 9.0])
def test_but_not_by_any_amount(twist: float) -> None:
    assert keys(row(twist=twist, noise=-70.0)) == ""


@pytest.mark.parametrize("pause", [30.0, 40.0, 65.0, 500.0])
def test_a_pause_parts_two_presses_of_a_key(pause: float) -> None:
    assert keys(row("5555111199990000", pause=pause)) == "5555111199990000"


@pytest.mark.parametrize("ms", [5, 10])
def test_a_break_of_some_milliseconds_does_not(ms: int) -> None:
    for key in KEYS:
        sound = np.concatenate((np.zeros(400), tone(key, 100), np.zeros(400)))
        sound[800 : 800 + 8 * ms] = 0
        assert keys(sound) == key


def test_one_tone_alone_or_three_are_no_key() -> None:
    time = np.arange(RATE) / RATE
    for frequency in (350, 425, 440, 480, 620, 697, 941, 1209, 1633, 2100):
        assert keys(3000 * np.sin(2 * np.pi * frequency * time)) == ""
    pairs = [(350, 440), (440, 480), (480, 620), (697, 941), (1209, 1336), (941, 1100), (1300, 2100)]
    for pair in pairs:  # dial, ring and busy tones, two of one group, fax
        assert keys(sum((3000 * np.sin(2 * np.pi * f * time) for f in pair), np.zeros(RATE))) == ""
    for third in (852, 1477, 2000):
        assert keys(tone("1", 1000) + 2500 * np.sin(2 * np.pi * third * time)) == ""


def test_a_voice_has_second_harmonics_and_a_key_has_not() -> None:
    time = np.arange(RATE // 4) / RATE
    for key, pair in (("1", (697, 1209)), ("5", (770, 1336)), ("*", (941, 1209)), ("D", (941, 1633))):
        assert keys(tone(key, 250)) == key
        harmonics = sum((1200 * np.sin(2 * np.pi * 2 * f * time) for f in pair), np.zeros(len(time)))
        assert keys(tone(key, 250) + harmonics) == ""


@pytest.mark.parametrize("ms", [50.0, 1000.0, 40_000.0])
def test_where_a_key_begins_and_ends(ms: float) -> None:
    sound = np.concatenate((np.zeros(4321), tone("7", ms), np.zeros(4321)))
    (found,) = heard(sound + quiet(len(sound) / RATE, -50.0))
    assert found.start == pytest.approx(4321, abs=80)
    assert found.stop == pytest.approx(4321 + 8 * ms, abs=80)
    assert found.level == pytest.approx(-23.0, abs=0.5)


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_other_rates(rate: int) -> None:
    sound = with_keys(quiet(5, -45.0, rate=rate), KEYS, ms=50, pause_ms=50, rate=rate)
    assert keys(sound, rate) == KEYS


def test_a_rate_that_is_no_multiple_is_left_alone() -> None:
    sound = with_keys(quiet(3, -45.0, rate=11_025), "123", rate=11_025)
    assert keys(sound, 11_025) == ""


@pytest.mark.parametrize("pt", [PCMA, PCMU])
def test_codes_of_both_laws(pt: int) -> None:
    from tests.support.keys import encoded

    ear = Ear(LAWS[pt], RATE)
    ear.hear(np.frombuffer(encoded(row(noise=-45.0), pt), dtype=np.uint8), last=True)
    assert "".join(one.digit for one in ear.tones) == KEYS * 4


def test_keys_as_sox_makes_them(tmp_path: Path) -> None:
    """Another generator: SoX's two sines, mixed, with its own levels."""
    wav = tmp_path / "five.wav"
    words = [
        "sox",
        "-n",
        "-r",
        "8000",
        "-b",
        "16",
        str(wav),
        "synth",
        "0.08",
        "sine",
        "770",
        "sine",
        "1336",
        "remix",
        "-",
    ]
    subprocess.run([*words, "gain", "-n", "-12", "pad", "0.2", "0.2", "repeat", "4"], check=True)
    sound, _ = soundfile.read(str(wav), dtype="int16")
    assert keys(sound.astype(float)) == "55555"


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 20_000), max_size=12), seed=st.integers(0, 1000))
def test_pieces_of_any_size_are_one_sound(cuts: list[int], seed: int) -> None:
    sound = with_keys(quiet(2.5, -50.0, seed), "1590*#AD", at_s=0.2 + seed / 5000, ms=45, pause_ms=45, seed=seed)
    assert len(sound) == 20_000
    whole, parts = heard(sound), heard(sound, cuts=tuple(cuts))
    assert [(one.digit, one.start, one.stop) for one in parts] == [(one.digit, one.start, one.stop) for one in whole]
    assert "".join(one.digit for one in whole) == "1590*#AD"


@settings(max_examples=40, deadline=None)
@given(codes=st.binary(max_size=6000), law=st.sampled_from([Law.A, Law.MU]), cut=st.integers(0, 6000))
def test_any_codes(codes: bytes, law: Law, cut: int) -> None:
    ear = Ear(law, RATE)
    data = np.frombuffer(codes, dtype=np.uint8)
    ear.hear(data[:cut], last=False)
    ear.hear(data[cut:], last=True)
    assert all(0 <= one.start < one.stop <= len(codes) + 128 for one in ear.tones)
    assert ear.sound().active <= 1
