"""Our WAV headers, read by the tools that customers have: soxi, ffprobe, ffmpeg, libsndfile."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tapdeck.storage.wav import MAX_RIFF_SIZE, Encoding, WavTooLong, header, padding

SOX_NAMES = {Encoding.PCM16: "Signed Integer PCM", Encoding.ALAW: "A-law", Encoding.MULAW: "u-law"}
FFMPEG_NAMES = {Encoding.PCM16: "pcm_s16le", Encoding.ALAW: "pcm_alaw", Encoding.MULAW: "pcm_mulaw"}
SNDFILE_NAMES = {Encoding.PCM16: "PCM_16", Encoding.ALAW: "ALAW", Encoding.MULAW: "ULAW"}

ALL = pytest.mark.parametrize(
    ("encoding", "channels", "frames"),
    [(encoding, channels, frames) for encoding in Encoding for channels in (1, 2) for frames in (0, 801, 8000)],
)


def write(path: Path, encoding: Encoding, channels: int, frames: int) -> bytes:
    rng = np.random.default_rng(7)
    data = rng.integers(0, 256, frames * channels * encoding.sample_size, dtype=np.uint8).tobytes()
    path.write_bytes(header(encoding, channels, 8000, frames) + data + padding(encoding, channels, frames))
    return data


def run(*command: str | Path) -> str:
    assert shutil.which(str(command[0])), f"{command[0]} is missing: scripts/setup --test installs it"
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@ALL
def test_soxi_reads_it(tmp_path: Path, encoding: Encoding, channels: int, frames: int) -> None:
    path = tmp_path / "a.wav"
    write(path, encoding, channels, frames)
    # SoX takes the frames of a compressed format from the fact chunk and cannot tell that there are none.
    answers = [run("soxi", f"-{option}", path).strip() for option in "crse"]
    assert answers[:2] == [str(channels), "8000"]
    assert answers[3] == SOX_NAMES[encoding]
    assert answers[2] == str(frames)


@ALL
def test_ffprobe_reads_it(tmp_path: Path, encoding: Encoding, channels: int, frames: int) -> None:
    path = tmp_path / "a.wav"
    write(path, encoding, channels, frames)
    found = json.loads(run("ffprobe", "-v", "error", "-of", "json", "-show_streams", path))["streams"][0]
    assert found["codec_name"] == FFMPEG_NAMES[encoding]
    assert found["channels"] == channels
    assert found["sample_rate"] == "8000"
    assert found.get("duration_ts", 0) == frames


@ALL
def test_ffmpeg_and_libsndfile_find_the_same_bytes(
    tmp_path: Path, encoding: Encoding, channels: int, frames: int
) -> None:
    path = tmp_path / "a.wav"
    data = write(path, encoding, channels, frames)
    if frames:
        run("ffmpeg", "-v", "error", "-xerror", "-i", path, "-c", "copy", "-f", "data", "-map", "0", tmp_path / "raw")
        assert (tmp_path / "raw").read_bytes() == data
    about = soundfile.info(path)
    assert (about.subtype, about.channels, about.samplerate) == (SNDFILE_NAMES[encoding], channels, 8000)
    assert about.frames == frames
    samples, _ = soundfile.read(path, dtype="int16", always_2d=True)
    if encoding is Encoding.PCM16:
        assert samples.tobytes() == data


def test_the_chunks_are_as_the_specification_has_them() -> None:
    head = header(Encoding.ALAW, 1, 8000, 3)
    assert head + b"\xd5\xd5\xd5" + padding(Encoding.ALAW, 1, 3) == b"".join(
        [
            struct.pack("<4sI4s", b"RIFF", 4 + (8 + 18) + (8 + 4) + (8 + 4), b"WAVE"),
            struct.pack("<4sIHHIIHHH", b"fmt ", 18, 6, 1, 8000, 8000, 1, 8, 0),
            struct.pack("<4sII", b"fact", 4, 3),
            struct.pack("<4sI", b"data", 3),
            b"\xd5\xd5\xd5\0",
        ]
    )


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    """Read by ffprobe; control characters from the wire do not reach it, and the sound stays where it is looked for."""
    about = {"INAM": "abcdefghij", "IART": "box", "ICMT": "CallId a\x1b[31mb\n" + "x" * 500, "ISFT": "Tapdeck 1.0"}
    path = tmp_path / "a.wav"
    sound = bytes(range(201))
    path.write_bytes(header(Encoding.ALAW, 1, 8000, 201, about) + sound + padding(Encoding.ALAW, 1, 201))
    found = json.loads(run("ffprobe", "-v", "error", "-of", "json", "-show_format", path))["format"]["tags"]
    assert (found["title"], found["artist"], found["encoder"]) == ("abcdefghij", "box", "Tapdeck 1.0")
    assert found["comment"].startswith("CallId a\ufffd[31mb ")
    assert len(found["comment"]) == 200
    run("ffmpeg", "-v", "error", "-xerror", "-i", path, "-c", "copy", "-f", "data", "-map", "0", tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == sound
    assert soundfile.info(path).frames == 201
    assert run("soxi", "-s", path).strip() == "201"


@pytest.mark.parametrize("encoding", list(Encoding))
def test_four_gibibytes_are_refused(encoding: Encoding) -> None:
    overhead = len(header(encoding, 2, 8000, 0)) - 8
    most = (MAX_RIFF_SIZE - overhead) // (2 * encoding.sample_size)
    size = struct.unpack_from("<I", header(encoding, 2, 8000, most), 4)[0]
    assert MAX_RIFF_SIZE - 4 < size <= MAX_RIFF_SIZE
    with pytest.raises(WavTooLong, match="less than 4 GiB"):
        header(encoding, 2, 8000, most + 1)
