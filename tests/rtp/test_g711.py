"""Both laws against libsndfile's and FFmpeg's decoders, code by code, and against the words of ITU-T G.711."""

import io
import subprocess

import numpy as np
import pytest
import soundfile

from tapdeck.rtp.g711 import SILENCE, Law, decode

CODES = np.arange(256, dtype=np.uint8)
NAMES = {Law.A: ("ALAW", "alaw"), Law.MU: ("ULAW", "mulaw")}


@pytest.mark.parametrize("law", [Law.A, Law.MU])
def test_every_code_is_what_libsndfile_makes_of_it(law: Law) -> None:
    samples, _ = soundfile.read(
        io.BytesIO(CODES.tobytes()), dtype="int16", format="RAW", subtype=NAMES[law][0], samplerate=8000, channels=1
    )
    assert decode(CODES, law).tolist() == samples.tolist()


@pytest.mark.parametrize("law", [Law.A, Law.MU])
def test_every_code_is_what_ffmpeg_makes_of_it(law: Law) -> None:
    command = ["ffmpeg", "-loglevel", "error", "-f", NAMES[law][1], "-ar", "8000", "-i", "-", "-f", "s16le", "-"]
    out = subprocess.run(command, input=CODES.tobytes(), capture_output=True, check=True).stdout
    assert decode(CODES, law).astype("<i2").tobytes() == out


def test_the_corners_of_the_tables() -> None:
    """G.711 tables 1 and 2, scaled to 16 bits: the loudest codes and the quietest."""
    assert decode(np.array([0xAA, 0x2A, 0xD5, 0x55], dtype=np.uint8), Law.A).tolist() == [32256, -32256, 8, -8]
    assert decode(np.array([0x80, 0x00, 0xFF, 0x7F], dtype=np.uint8), Law.MU).tolist() == [32124, -32124, 0, 0]


@pytest.mark.parametrize("law", [Law.A, Law.MU])
def test_silence_is_the_quietest_positive_code(law: Law) -> None:
    quietest = int(np.abs(decode(CODES, law).astype(np.int32)).min())
    assert decode(np.array([SILENCE[law]], dtype=np.uint8), law)[0] == quietest
    assert SILENCE[law] & 0x80
