"""`tapdeck redecode --conceal`: copies to listen to, marked as such; recordings stay as they are."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from tapdeck.cli.main import cli
from tapdeck.rtp.g711 import PCM, Law
from tests.support import encoded, files
from tests.support.media import PCMA, PCMU, Rtp, lost, with_digit
from tests.support.record import record
from tests.support.scene import Scene, plain_call

Samples = NDArray[np.int16]
_CODES = np.array([int(np.abs(PCM[Law.A].astype(int) - value).argmin()) for value in range(-32768, 32768, 8)])


def a_law(sound: Samples) -> bytes:
    return bytes(_CODES[(sound.astype(int) + 32768) >> 3].astype(np.uint8))


def speaking(stream: tuple[Rtp, ...], seed: int) -> tuple[Rtp, ...]:
    """The stream with something like a voice in it."""
    codes = a_law(np.tile(encoded.tune(8000, seed), 30))
    first = stream[0].ts
    return tuple(replace(one, payload=codes[one.ts - first : one.ts - first + 160]) for one in stream)


def conversation(seconds: int = 10) -> Scene:
    scene = plain_call(duration_ms=1000 * seconds)
    return replace(scene, left=speaking(scene.left, 1), right=speaking(scene.right, 2))


def recording(folder: Path, scene: Scene) -> Path:
    folder.mkdir(exist_ok=True)
    return record(folder / "out", files.write(folder, files.pcap(scene.packets(), nano=True))).only().path


def redecode(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["redecode", *map(str, words)])


def sound_of(wav: Path) -> NDArray[np.float64]:
    return np.asarray(soundfile.read(str(wav), dtype="int16")[0], dtype=np.float64)


def wrong(found: NDArray[np.float64], whole: NDArray[np.float64]) -> float:
    """The energy of the difference, against that of the whole."""
    return float(((found - whole) ** 2).sum() / (whole**2).sum())


def state(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_losses_are_concealed_in_a_copy_that_says_so(tmp_path: Path) -> None:
    scene = conversation()
    gone = random.Random(1).sample(range(20, 480), 24)
    whole = sound_of(recording(tmp_path / "whole", scene))
    wav = recording(tmp_path / "lossy", replace(scene, left=lost(scene.left, gone)))
    before, lossy, out = state(wav.parent), sound_of(wav), tmp_path / "copy.wav"
    done = redecode(wav, "--conceal", "--out", out)
    assert done.exit_code == 0, done.output
    assert "losses concealed" in done.output
    found = sound_of(out)
    assert found.shape == lossy.shape
    assert wrong(found[:, 0], whole[:, 0]) < 0.5 * wrong(lossy[:, 0], whole[:, 0])
    assert (found[:, 1] == lossy[:, 1]).all(), "nothing was lost of the callee"
    with soundfile.SoundFile(str(out)) as copy:
        assert (copy.subtype, copy.samplerate, copy.channels) == ("PCM_16", 8000, 2)
        assert "losses concealed" in copy.title
        assert "Not as it crossed the wire" in copy.comment
    assert state(wav.parent) == before


def test_without_losses_the_copy_is_the_sound(tmp_path: Path) -> None:
    wav = recording(tmp_path / "whole", conversation(2))
    assert redecode(wav, "--conceal", "--out", tmp_path / "copy.wav").exit_code == 0
    assert (sound_of(tmp_path / "copy.wav") == sound_of(wav)).all()


def test_pauses_are_not_concealed(tmp_path: Path) -> None:
    """A stretch without packets in which none is missing: the sender said nothing."""
    scene = conversation(4)
    paused = tuple(
        replace(one, seq=one.seq - 10 * (number >= 110))
        for number, one in enumerate(scene.left)
        if not 100 <= number < 110
    )
    wav = recording(tmp_path / "paused", replace(scene, left=paused))
    done = redecode(wav, "--conceal", "--out", tmp_path / "copy.wav")
    assert ": 0 losses concealed" in done.output
    assert (sound_of(tmp_path / "copy.wav") == sound_of(wav)).all()


def test_of_a_decoded_call_by_its_kept_packets(tmp_path: Path) -> None:
    voices = encoded.g722(1), encoded.g722(2)
    scene = encoded.call(*voices, (2, 2))
    gone = {20, 21, 60}
    whole = sound_of(recording(tmp_path / "whole", scene))
    wav = recording(tmp_path / "lossy", replace(scene, left=lost(scene.left, gone)))
    assert wav.with_suffix(".pcapng").is_file()
    before, lossy = state(wav.parent), sound_of(wav)
    done = redecode(wav, "--conceal", "--out", tmp_path / "copy.wav")
    assert done.exit_code == 0, done.output
    assert ": 2 losses concealed" in done.output
    found = sound_of(tmp_path / "copy.wav")
    assert found.shape == lossy.shape
    assert (found[:, 1] == lossy[:, 1]).all()
    assert wrong(found[:, 0], whole[:, 0]) < wrong(lossy[:, 0], whole[:, 0])
    assert state(wav.parent) == before


def test_of_a_call_in_both_laws(tmp_path: Path) -> None:
    scene = plain_call(duration_ms=2000, pts=(PCMA, PCMU))
    scene = replace(scene, left=speaking(scene.left, 1))
    wav = recording(tmp_path / "laws", replace(scene, left=lost(scene.left, {40, 60, 61})))
    done = redecode(wav, "--conceal", "--out", tmp_path / "copy.wav")
    assert ": 2 losses concealed" in done.output
    found, lossy = sound_of(tmp_path / "copy.wav"), sound_of(wav)
    assert (found[:, 1] == lossy[:, 1]).all()
    assert not lossy[40 * 160 : 41 * 160, 0].any()
    assert found[40 * 160 : 41 * 160, 0].any()


def test_a_key_is_no_loss(tmp_path: Path) -> None:
    """While a key is sent, no sound is; nothing is missing."""
    scene = encoded.call(encoded.g722(1), encoded.g722(2), (2, 2))
    wav = recording(tmp_path / "keys", replace(scene, left=with_digit(scene.left, 20, "5", packets=4)))
    assert (wav.with_name(wav.stem + "_info.txt").read_text()).count("Caller-Gap: ") == 1
    done = redecode(wav, "--conceal", "--out", tmp_path / "copy.wav")
    assert ": 0 losses concealed" in done.output
    assert (sound_of(tmp_path / "copy.wav") == sound_of(wav)).all()


def test_more_losses_than_the_info_file_lists(tmp_path: Path) -> None:
    scene = conversation(60)
    gone = set(range(100, 2900, 9))
    whole = sound_of(recording(tmp_path / "whole", scene))
    wav = recording(tmp_path / "lossy", replace(scene, right=lost(scene.right, gone)))
    assert f"Callee-Gap: and {len(gone) - 200} more" in wav.with_name(wav.stem + "_info.txt").read_text()
    done = redecode(wav, "--conceal", "--out", tmp_path / "copy.wav")
    assert f": {len(gone)} losses concealed" in done.output
    found, lossy = sound_of(tmp_path / "copy.wav")[:, 1], sound_of(wav)[:, 1]
    end = 8000 * 40
    assert wrong(found[end:], whole[end:, 1]) < 0.5 * wrong(lossy[end:], whole[end:, 1])


def test_a_copy_is_never_written_over_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = conversation(2)
    wav = recording(tmp_path / "lossy", replace(scene, left=lost(scene.left, {30})))
    before = state(wav.parent)
    link = tmp_path / "link.wav"
    link.symlink_to(wav)
    monkeypatch.chdir(wav.parent)
    for out in (wav, Path(wav.name), wav.with_name(wav.stem + "_info.txt"), link):
        refused = redecode(wav, "--conceal", "--out", out)
        assert refused.exit_code == 64, refused.output
        assert "choose another name" in " ".join(refused.output.split())
    assert state(wav.parent) == before
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert redecode(wav, "--conceal").exit_code == 0
    assert (tmp_path / f"{wav.stem}_concealed.wav").is_file()
    (tmp_path / "other.wav").write_bytes(b"precious")
    assert redecode(wav, "--conceal", "--out", tmp_path / "other.wav").exit_code == 64
    assert (tmp_path / "other.wav").read_bytes() == b"precious"
    assert state(wav.parent) == before


@pytest.mark.parametrize("what", [".wav", "_info.txt"])
def test_what_is_missing_is_said(what: str, tmp_path: Path) -> None:
    wav = recording(tmp_path / "whole", conversation(1))
    wav.with_name(wav.stem + what).unlink()
    done = redecode(wav.with_name(wav.stem + "_info.txt"), "--conceal", "--out", tmp_path / "copy.wav")
    assert done.exit_code == 66
    assert "does not exist" in " ".join(done.output.split())
