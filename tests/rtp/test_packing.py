"""Which way round G.726 is packed, told from its sound: made by FFmpeg's encoder either way."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from tapdeck.rtp.codecs import Codec, by_the_book, codec, packed_otherwise
from tapdeck.rtp.decoder import Decoder
from tapdeck.rtp.packing import true_packing
from tests.support import encoded, hearing

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

RATES = {2: 16, 3: 24, 4: 32, 5: 40}


def known(name: str) -> Codec:
    found = codec(name, 8000, 1, "")
    assert found is not None
    return found


def payload(sound: encoded.Samples, bits: int, aal2: bool) -> NDArray[np.uint8]:
    name = "g726" if aal2 else "g726le"
    made = encoded.encoded(sound, 8000, "-c:a", name, "-code_size", str(bits), "-f", name)
    return np.frombuffer(made[: len(made) // bits * bits], dtype=np.uint8)


def tone(frequency: int, level: int = 8000) -> encoded.Samples:
    return np.asarray(level * np.sin(2 * np.pi * frequency * np.arange(24_000) / 8000), dtype=np.int16)


SOUNDS = {
    "a voice": encoded.tune(8000, 1),
    "another": encoded.tune(8000, 5),
    "a quiet one": (encoded.tune(8000, 2) // 16).astype(np.int16),
    "a ringing tone": tone(425),
    "a high tone": tone(3000),
}


@pytest.mark.parametrize("bits", RATES)
@pytest.mark.parametrize("aal2", [False, True])
@pytest.mark.parametrize("sound", SOUNDS)
def test_the_right_way_is_found_whatever_was_told(sound: str, bits: int, aal2: bool) -> None:
    data = payload(SOUNDS[sound], bits, aal2)
    plain, other = f"G726-{RATES[bits]}", f"AAL2-G726-{RATES[bits]}"
    for told in (plain, other):
        assert true_packing(known(told), [data]).name == (other if aal2 else plain)


@pytest.mark.parametrize("bits", RATES)
@pytest.mark.parametrize("seed", range(8))
def test_noise_silence_and_too_little_change_nothing(bits: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    told = known(f"G726-{RATES[bits]}")
    noise = payload(random.normal(0, 2000, 24_000).astype(np.int16), bits, aal2=True)
    short = payload(encoded.tune(8000, 1)[:10_000], bits, aal2=True)
    bytes_ = random.integers(0, 256, 120 * bits * 10, dtype=np.uint8)
    for data in (noise, short, bytes_, np.zeros(bits * 1000, dtype=np.uint8)):
        assert true_packing(told, [data]) == told
    assert true_packing(told, []) == told


@pytest.mark.parametrize("sound", SOUNDS)
def test_who_made_40_kbit_s_is_told_apart(sound: str) -> None:
    """FFmpeg's own streams are decoded by FFmpeg, all others by the book, whatever packing was told."""
    made = np.frombuffer(encoded.g726_by_the_book(SOUNDS[sound][:14_400]), dtype=np.uint8)
    for told in ("G726-40", "AAL2-G726-40"):
        ours = true_packing(known(told), [payload(SOUNDS[sound], 5, aal2=False)])
        assert (ours.name, bool(ours.decoders)) == ("G726-40", True)
        book = true_packing(known(told), [made])
        assert book == by_the_book(known("G726-40"))
    size = np.array([len(made)])
    heard = Decoder(book).decode(made, size, size * 8 // 5)
    found = hearing.match(heard.astype(np.float64), SOUNDS[sound].astype(np.float64))
    assert found.likeness > 0.99


def test_no_more_is_decoded_than_is_needed() -> None:
    asked: list[int] = []

    def parts() -> Iterator[NDArray[np.uint8]]:
        for number in range(5):
            asked.append(number)
            yield payload(encoded.tune(8000, number), 4, aal2=True)

    assert true_packing(known("G726-32"), parts()).name == "AAL2-G726-32"
    assert asked == [0]


def test_other_codecs_have_one_way() -> None:
    assert packed_otherwise(known("G722")) is None
    assert true_packing(known("G722"), [np.zeros(8000, dtype=np.uint8)]) == known("G722")
