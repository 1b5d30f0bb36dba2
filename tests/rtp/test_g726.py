"""G.726 at 40 kbit/s by the Recommendation, against libsndfile, whose code for it is another's (Sun's)."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.rtp.g726 import Itu40, codes
from tests.support.encoded import Samples, tune

AU_G723_40 = 26


def sndfile(packed: bytes) -> Samples:
    """What libsndfile decodes."""
    head = struct.pack(">4sIIIII", b".snd", 24, len(packed), AU_G723_40, 8000, 1)
    return np.asarray(soundfile.read(io.BytesIO(head + packed), dtype="int16")[0], dtype=np.int16)


def encoded(sound: Samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound, 8000, format="AU", subtype="G723_40")
    return file.getvalue()[24:]


def tone(frequency: float, level: int, gate_hz: float = 0.0) -> Samples:
    t = np.arange(24_000) / 8000
    gate = np.sin(2 * np.pi * gate_hz * t) >= 0 if gate_hz else 1
    return np.asarray(level * np.sin(2 * np.pi * frequency * t) * gate, dtype=np.int16)


SOUNDS = {
    "voice": tune(8000, 1),
    "quiet voice": (tune(8000, 2) // 64).astype(np.int16),
    "loud noise": np.random.default_rng(1).normal(0, 9000, 24_000).clip(-32768, 32767).astype(np.int16),
    "tone": tone(425, 8000),
    "loud tone with pauses": tone(425, 30_000, 1.0),
    "frequency shift keying": np.concatenate([tone(f, 12_000)[:240] for f in (1180, 980, 1850, 1650) * 25]),
    "silence": np.zeros(24_000, dtype=np.int16),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_every_sample_is_libsndfile_s_but_for_its_rounding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """libsndfile leaves out what the Recommendation adds in FMULT; without it both are one. That phones add it shows in
    `test_real_codecs`: with it their speech is 3 to 7 dB nearer to what was spoken.
    """
    packed = encoded(SOUNDS[name])
    given_codes = codes(np.frombuffer(packed, dtype=np.uint8), first_high=False)
    monkeypatch.setattr("tapdeck.rtp.g726._HALF", 0)
    heard, expected = Itu40().decode(given_codes), sndfile(packed)
    assert heard[: len(expected)].tolist() == expected.tolist()


@given(data=st.binary(max_size=400))
def test_any_codes_in_either_packing(data: bytes) -> None:
    """Eight codes of 5 bits in five bytes, the first in the low bits or in the high ones; as many samples as codes."""
    low, high = (codes(np.frombuffer(data, dtype=np.uint8), first_high=way) for way in (False, True))
    number, bits = int.from_bytes(data, "little"), len(data) * 8
    assert low == [number >> at & 31 for at in range(0, bits - 4, 5)]
    number = int.from_bytes(data, "big")
    assert high == [number >> bits - 5 - at & 31 for at in range(0, bits - 4, 5)]
    assert len(Itu40().decode(low)) == len(low)


def test_pieces_are_one_sound() -> None:
    given_codes = codes(np.frombuffer(encoded(tune(8000, 1)), dtype=np.uint8), first_high=False)
    one = Itu40()
    parts = [one.decode(given_codes[at : at + 161]) for at in range(0, len(given_codes), 161)]
    assert np.concatenate(parts).tolist() == Itu40().decode(given_codes).tolist()
