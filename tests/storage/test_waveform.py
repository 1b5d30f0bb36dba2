"""WAVs read again: against soundfile and NumPy, and bytes that are none."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapdeck.storage import waveform
from tapdeck.storage.markers import Lossy, Markers
from tapdeck.storage.wav import Encoding, header
from tapdeck.storage.waveform import WaveError, envelope, open_wave, unlisted

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def written(path: Path, encoding: Encoding, frames: int, seed: int = 1, rate: int = 8000) -> Path:
    data = np.random.default_rng(seed).integers(0, 256, 2 * frames * encoding.sample_size, dtype=np.uint8)
    path.write_bytes(header(encoding, 2, rate, frames, {"INAM": "odd"}) + data.tobytes())
    return path


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("frames", [0, 1, 7, 5000])
def test_the_sound_is_that_of_another_reader(
    encoding: Encoding, frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waveform, "PIECE", 1000)
    path = written(tmp_path / "r.wav", encoding, frames)
    wave = open_wave(path)
    assert (wave.frames, wave.rate, wave.encoding) == (frames, 8000, encoding)
    theirs = soundfile.read(str(path), dtype="int16", always_2d=True)[0]
    ours = np.concatenate([np.empty((0, 2), dtype=np.int16), *wave.pieces()])
    assert (ours == theirs).all()
    assert ours.shape == theirs.shape


@pytest.mark.parametrize(("frames", "columns"), [(5000, 7), (5000, 1400), (9, 1400), (4096, 1), (1, 1)])
def test_lowest_and_highest_of_each_stretch(
    frames: int, columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waveform, "PIECE", 640)
    wave = open_wave(written(tmp_path / "r.wav", Encoding.PCM16, frames))
    sound = np.concatenate(list(wave.pieces()))
    low, high = envelope(wave, columns)
    count = min(columns, frames)
    edges = [frames * n // count for n in range(count + 1)]
    stretches = [sound[first:last] for first, last in pairwise(edges)]
    assert low.tolist() == [part.min(axis=0).tolist() for part in stretches]
    assert high.tolist() == [part.max(axis=0).tolist() for part in stretches]


def test_nothing_has_no_height(tmp_path: Path) -> None:
    low, high = envelope(open_wave(written(tmp_path / "r.wav", Encoding.ALAW, 0)), 100)
    assert not low.any()
    assert not high.any()


@given(cut=st.integers(0, 200), place=st.integers(0, 90), byte=st.integers(0, 255))
@SAME_FOLDER
def test_any_file(cut: int, place: int, byte: int, tmp_path: Path) -> None:
    data = bytearray(written(tmp_path / "r.wav", Encoding.MULAW, 40).read_bytes())
    data[place : place + 1] = bytes([byte])
    (tmp_path / "r.wav").write_bytes(data[: len(data) - cut])
    with suppress(WaveError):
        low, high = envelope(open_wave(tmp_path / "r.wav"), 10)
        assert (low <= high).all()


@pytest.mark.parametrize("piece", [333, 80, 1 << 20])
def test_gaps_that_are_only_counted(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waveform, "PIECE", piece)
    sound = np.full((8000, 2), 0x2A, dtype=np.uint8)
    for start, length in ((800, 160), (2400, 320), (4000, 79), (4800, 2000), (7840, 160)):
        sound[start : start + length, 1] = 0xD5
    path = tmp_path / "r.wav"
    path.write_bytes(header(Encoding.ALAW, 2, 8000, 8000) + sound.tobytes())
    markers = Markers()
    markers.lossy["Callee"] = [Lossy(0.0, 9, 1.0)]
    assert list(unlisted(open_wave(path), markers, "Callee")) == []
    markers.unlisted["Callee"] = 2
    assert list(unlisted(open_wave(path), markers, "Callee")) == [(800, 160), (2400, 320)]
    markers.lossy["Callee"] = []
    assert list(unlisted(open_wave(path), markers, "Callee")) == []
