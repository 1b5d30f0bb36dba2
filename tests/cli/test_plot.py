"""`tapdeck plot`: the picture shows the sound, the losses, digits and holds of the recording, where they are."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import wave
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from tapdeck.cli.main import cli
from tapdeck.cli.picture import clock
from tests.support import files, recipes
from tests.support.media import lost, with_digit
from tests.support.record import REPOSITORY, record
from tests.support.scene import Scene, plain_call

RED, LOST, BLUE, GREEN = (214, 39, 40), (230, 125, 126), (31, 95, 168), (47, 125, 79)


def plot(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["plot", *map(str, words)])


def recording(folder: Path, scene: Scene) -> Path:
    return record(folder / "out", files.write(folder, files.pcap(scene.packets()))).only().path


def pixels(path: Path) -> NDArray[np.int16]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"), dtype=np.int16)


def like(picture: NDArray[np.int16], colour: tuple[int, int, int], near: int = 30) -> NDArray[np.bool_]:
    close: NDArray[np.bool_] = np.abs(picture - np.array(colour)).sum(axis=2) < near
    return close


def seconds(columns: NDArray[np.int64], length: float, picture: NDArray[np.int16]) -> NDArray[np.float64]:
    """Where columns of pixels lie on the time axis: it goes from 8.5 % of the width to 97.5 %."""
    width = picture.shape[1]
    found: NDArray[np.float64] = (columns / width - 0.085) / 0.89 * length
    return found


def test_losses_are_red_where_they_are(tmp_path: Path) -> None:
    scene = plain_call(duration_ms=8000)
    gone = {50, 51, 52, 300}  # at 1 s and 6 s
    wav = recording(tmp_path, replace(scene, right=lost(scene.right, gone)))
    out = tmp_path / "picture.png"
    done = plot(wav, "--out", out)
    assert done.exit_code == 0, done.output
    picture = pixels(out)
    assert picture.shape[:2] == (700, 1600)
    upper, lower = picture[80:320], picture[400:640]
    red = like(lower, LOST, 40)
    columns = np.nonzero(red[: len(red) * 3 // 4].sum(axis=0) > len(red) // 2)[0]
    found = seconds(columns, 8.015, picture)
    assert len(found)
    assert all(min(abs(at - 1.03), abs(at - 6.02)) < 0.06 for at in found)
    assert {round(at) for at in found} == {1, 6}
    assert not like(upper, LOST, 40).any()
    assert like(upper, BLUE).any()
    assert like(lower, GREEN).any()


def test_digits_and_holds_are_between_the_waveforms(tmp_path: Path) -> None:
    scene = recipes.held(3, pause_ms=3000)
    wav = recording(tmp_path, replace(scene, left=with_digit(scene.left, 10, "5")))
    length = float(record_of(wav)["Duration"])
    (at,) = [float(line.partition("(+")[2].partition("s)")[0]) for line in lines(wav, "Digit")]
    begin, end = (float(line.partition("(+")[2].partition("s)")[0]) for line in lines(wav, "Hold"))
    out = tmp_path / "picture.png"
    assert plot(wav.with_name(wav.stem + "_info.txt"), "--out", out).exit_code == 0
    picture = pixels(out)
    strip = picture[338:384]
    amber = np.nonzero(like(strip, (245, 214, 167), 60).sum(axis=0) > 30)[0]
    found = seconds(amber, length, picture)
    assert found.min() == pytest.approx(begin, abs=0.02)
    assert found.max() == pytest.approx(end, abs=0.02)
    blue = seconds(np.nonzero(like(strip, BLUE, 90).sum(axis=0) > 25)[0], length, picture)
    assert blue == pytest.approx(at, abs=0.02)


def record_of(wav: Path) -> dict[str, str]:
    text = wav.with_name(wav.stem + "_info.txt").read_text(encoding="utf-8")
    return {key: value for key, _, value in (line.partition(": ") for line in text.splitlines())}


def lines(wav: Path, key: str) -> list[str]:
    text = wav.with_name(wav.stem + "_info.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith(f"{key}: ")]


def test_the_waveform_is_that_of_the_sound(tmp_path: Path) -> None:
    """Two seconds loud, two silent: the caller's from one second on."""
    info = "Datetime: x\nCaller: 1\nCallee: 2\n"
    sound = np.zeros((40_000, 2), dtype="<i2")
    sound[8_000:24_000, 0] = (20_000 * np.sin(np.arange(16_000))).astype("<i2")
    wav = written(tmp_path / "r.wav", sound)
    (tmp_path / "r_info.txt").write_text(info)
    assert plot(wav, "--out", tmp_path / "picture.png").exit_code == 0
    picture = pixels(tmp_path / "picture.png")
    high = seconds(np.nonzero(like(picture[80:320], BLUE).sum(axis=0) > 80)[0], 5.0, picture)
    assert (high.min(), high.max()) == pytest.approx((1.0, 3.0), abs=0.01)
    assert like(picture[400:640], GREEN).sum(axis=0).max() <= 3, "a line where nothing is said"


def written(path: Path, sound: NDArray[np.int16]) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(sound.tobytes())
    return path


def test_again_it_is_the_same_and_nothing_else_is_written_over(tmp_path: Path) -> None:
    wav = recording(tmp_path, plain_call())
    before = wav.read_bytes()
    out = tmp_path / "picture.png"
    assert plot(wav, "--out", out).exit_code == 0
    first = out.read_bytes()
    assert plot(wav, "--out", out).exit_code == 0
    assert out.read_bytes() == first
    (tmp_path / "other.png").write_bytes(b"precious")
    refused = plot(wav, "--out", tmp_path / "other.png")
    assert refused.exit_code == 64
    assert "choose another name" in refused.output
    assert plot(wav, "--out", wav).exit_code == 64
    assert wav.read_bytes() == before
    assert (tmp_path / "other.png").read_bytes() == b"precious"


def test_without_out_it_lies_here_under_the_recordings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wav = recording(tmp_path, plain_call())
    monkeypatch.chdir(tmp_path)
    assert plot(wav).exit_code == 0
    assert (tmp_path / f"{wav.stem}.png").is_file()
    assert sorted(path.suffix for path in wav.parent.iterdir()) == [".txt", ".wav"]


def test_names_that_are_formulas_or_escapes_are_only_text(tmp_path: Path) -> None:
    wav = recording(tmp_path, plain_call())
    path = wav.with_name(wav.stem + "_info.txt")
    text = path.read_text(encoding="utf-8").replace("CallerName: Caller 1", "CallerName: $\\frac{1}{$ 中文 \x1b[31m")
    path.write_text(text.replace("Codec: PCMA", "Codec: $x^"), encoding="utf-8")
    done = plot(wav, "--out", tmp_path / "picture.png")
    assert done.exit_code == 0, done.output
    assert "Warning" not in done.output


@pytest.mark.parametrize("what", ["no WAV", "no info file", "not a WAV", "not an info file", "cut", "mono"])
def test_what_cannot_be_drawn_is_said(what: str, tmp_path: Path) -> None:
    wav = recording(tmp_path, plain_call())
    info = wav.with_name(wav.stem + "_info.txt")
    data = wav.read_bytes()
    match what:
        case "no WAV":
            wav.unlink()
        case "no info file":
            info.unlink()
        case "not a WAV":
            wav.write_bytes(b"x" * 100)
        case "not an info file":
            info.write_bytes(b"\xff\xfe\n")
        case "cut":
            wav.write_bytes(data[:-5000])
        case "mono":
            wav.write_bytes(data[:22] + b"\1" + data[23:])
    done = plot(wav, "--out", tmp_path / "picture.png")
    assert done.exit_code == 66, done.output
    assert wav.stem in done.output.replace("\n", "")
    assert not (tmp_path / "picture.png").exists()


def test_an_altered_recording_is_drawn_with_a_warning(tmp_path: Path) -> None:
    config = tmp_path / "tapdeck.toml"
    config.write_text(f'[signing]\nkeys = "{tmp_path / "keys"}"\n')
    capture = files.write(tmp_path, files.pcap(plain_call().packets()))
    wav = record(tmp_path / "out", capture, more=("--sign", "--config", str(config))).only().path
    assert "Warning" not in plot(wav, "--out", tmp_path / "good.png").output
    data = bytearray(wav.read_bytes())
    data[-100] ^= 1
    wav.chmod(0o600)
    wav.write_bytes(data)
    done = plot(wav, "--out", tmp_path / "picture.png")
    assert done.exit_code == 0
    assert f"Warning: {wav.name} is not as it was sealed" in done.output
    assert (tmp_path / "picture.png").is_file()


def test_ten_hours_take_no_more_memory_than_minutes(tmp_path: Path) -> None:
    """A sparse file of 576 MB; the whole command stays below 300 MB."""
    frames = 10 * 3600 * 8000
    wav = tmp_path / "r.wav"
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
    head = bytearray(buffer.getvalue())
    head[40:44] = (frames * 4 & 0xFFFFFFFF).to_bytes(4, "little")
    with wav.open("wb") as out:
        out.write(head)
        out.truncate(len(head) + frames * 4)
    (tmp_path / "r_info.txt").write_text("Caller: 1\nCaller-LossPart: +7200.000s lost=9 loss=1.80% mos=4.1\n")
    limit = 1200 << 20  # address space: NumPy and matplotlib map much that they never touch
    command = [sys.executable, "-m", "tapdeck.cli", "plot", str(wav), "--out", str(tmp_path / "picture.png")]
    done = subprocess.run(
        ["/usr/bin/env", "bash", "-c", f'ulimit -v {limit >> 10}; exec "$@"', "-", *command],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("36000.000 s drawn")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 600_000
    assert like(pixels(tmp_path / "picture.png")[80:320], RED, 120).any()


@pytest.mark.parametrize(
    ("at", "of", "text"), [(3.25, 10, "0:03.2"), (75, 600, "1:15"), (7265, 36_000, "2:01:05"), (59.99, 60, "0:59")]
)
def test_times_as_people_write_them(at: float, of: float, text: str) -> None:
    assert clock(at, of) == text
