"""What lies on disk afterwards: names, formats, text, and that players can play it."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from tests.support import files
from tests.support.media import PCMA, PCMU, changed
from tests.support.record import PCM, Recording, record
from tests.support.scene import START_NS, Scene, plain_call, set_up
from tests.support.signalling import sdp


def recorded(folder: Path, scene: Scene) -> Recording:
    result = record(folder / "out", files.write(folder, files.pcap(scene.packets())))
    assert result.code == 0, result.stderr
    return result.only()


def decoded(law: int, sound: bytes) -> list[int]:
    """G.711 to 16-bit PCM, as ffmpeg decodes it."""
    form = {PCMA: "alaw", PCMU: "mulaw"}[law]
    command = ["ffmpeg", "-v", "error", "-f", form, "-ar", "8000", "-i", "-", "-f", "s16le", "-"]
    pcm = subprocess.run(command, input=sound, capture_output=True, check=True).stdout
    return list(struct.unpack(f"<{len(pcm) // 2}h", pcm))


def test_the_layout_of_the_folder(tmp_path: Path) -> None:
    recording = recorded(tmp_path, plain_call(7))
    place = recording.path.relative_to(tmp_path / "out")
    assert place.parent == Path("2026/03/02")
    assert re.fullmatch(r"20260302-100000\.\d{3}_107_2007_[0-9A-Za-z-]+\.wav", place.name)
    beside = {path.name for path in recording.path.parent.iterdir()}
    assert beside == {place.name, place.stem + "_info.txt"}, "nothing else, no half-written file"


def test_the_info_file_says_who_when_and_what(tmp_path: Path) -> None:
    scene = plain_call(7)
    info = recorded(tmp_path, scene).info
    expected = {
        "CallId": scene.call_id,
        "Caller": "107",
        "CallerName": "Caller 7",
        "Callee": "2007",
        "CalleeName": "Callee 7",
        "Channels": "left=caller right=callee",
    }
    assert {key: info[key] for key in expected} == expected
    assert re.match(r"2026-03-02T10:00:00(\.\d+)?(\+00:00|Z)$", info["Datetime"])
    assert "2026-03-02T10:00:00.1" in info["Answered"]
    assert "bye" in info["EndReason"].lower()
    assert "PCMA" in info["Codec"].upper() or "A-LAW" in info["Codec"].upper()
    for key in ("End", "Duration", "Direction", "Digits", "RelatedCalls", "Recorder"):
        assert key in info


@pytest.mark.parametrize(("pt", "subtype"), [(PCMA, "ALAW"), (PCMU, "ULAW")])
def test_soundfile_reads_what_was_sent(pt: int, subtype: str, tmp_path: Path) -> None:
    scene = plain_call(pts=(pt, pt))
    recording = recorded(tmp_path, scene)
    sound, rate = soundfile.read(recording.path, dtype="int16")
    assert (rate, soundfile.info(recording.path).subtype) == (8000, subtype)
    left, right = scene.channels()
    assert sound[:, 0].tolist() == decoded(pt, left)
    assert sound[:, 1].tolist() == decoded(pt, right)


@pytest.mark.parametrize("pt", [PCMA, PCMU])
def test_sox_and_ffmpeg_know_the_file(pt: int, tmp_path: Path) -> None:
    if not (shutil.which("soxi") and shutil.which("ffprobe")):
        pytest.skip("sox and ffmpeg are not installed")
    scene = plain_call(pts=(pt, pt))
    path = str(recorded(tmp_path, scene).path)
    samples = len(scene.channels()[0])
    sox = [
        subprocess.run(["soxi", option, path], capture_output=True, text=True, check=True)
        for option in ("-c", "-r", "-s")
    ]
    assert [run.stdout.strip() for run in sox] == ["2", "8000", str(samples)]
    assert not any(run.stderr for run in sox), "no warning about the header"
    command = ["ffprobe", "-v", "warning", "-show_streams", "-of", "json", path]
    probe = subprocess.run(command, capture_output=True, text=True, check=True)
    stream = json.loads(probe.stdout)["streams"][0]
    assert stream["codec_name"] == {PCMA: "pcm_alaw", PCMU: "pcm_mulaw"}[pt]
    assert (stream["channels"], stream["duration_ts"]) == (2, samples)
    assert not probe.stderr


def pcm_of(recording: Recording) -> tuple[list[int], list[int]]:
    wav = recording.wav
    assert (wav.tag, wav.channel_count, wav.rate, wav.bits) == (PCM, 2, 8000, 16)
    left, right = (list(struct.unpack(f"<{len(side) // 2}h", side)) for side in wav.channels())
    return left, right


def assert_payload_kept(recording: Recording, scene: Scene) -> None:
    """A capture beside the recording holds every payload byte for byte."""
    kept = [path for path in recording.path.parent.iterdir() if path.suffix == ".pcapng"]
    assert len(kept) == 1
    assert kept[0].stem.startswith(recording.path.stem)
    content = kept[0].read_bytes()
    assert content.startswith(b"\x0a\x0d\x0d\x0a")
    assert all(packet.payload in content for packet in (*scene.left, *scene.right))


@pytest.mark.parametrize("pts", [(PCMA, PCMU), (PCMU, PCMA)])
def test_one_law_each_way_gives_linear_sound_and_keeps_the_payload(pts: tuple[int, int], tmp_path: Path) -> None:
    scene = plain_call(pts=pts)
    recording = recorded(tmp_path, scene)
    for found, sound, law in zip(pcm_of(recording), scene.channels(), pts, strict=True):
        expected = decoded(law, sound)
        assert len(found) == len(expected)
        assert all(abs(a - b) <= 8 for a, b in zip(found, expected, strict=True)), (
            "but for the silence code's own value"
        )
        assert [a for a, byte in zip(found, sound, strict=True) if byte not in (0xD5, 0xFF)] == [
            b for b, byte in zip(expected, sound, strict=True) if byte not in (0xD5, 0xFF)
        ]
    assert_payload_kept(recording, scene)


def test_a_change_of_law_within_the_call(tmp_path: Path) -> None:
    scene = plain_call()
    caller, callee = scene.dialog.caller.media, scene.dialog.callee.media
    offers = [sdp(media, pts=(PCMA, PCMU, 101)) for media in (caller, callee)]
    left = changed(scene.left, 20, lambda packet: replace(packet, pt=PCMU))
    signals = set_up(scene.dialog, START_NS, *offers) + scene.signals[-2:]
    scene = replace(scene, left=left, signals=signals)
    recording = recorded(tmp_path, scene)
    found, sound = pcm_of(recording)[0], scene.channels()[0]
    assert found[: 20 * 160] == decoded(PCMA, sound[: 20 * 160])
    assert found[20 * 160 : 50 * 160] == decoded(PCMU, sound[20 * 160 : 50 * 160])
    assert_payload_kept(recording, scene)
