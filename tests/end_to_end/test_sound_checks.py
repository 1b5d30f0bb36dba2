"""What the info file says of how a call sounds; SoX and FFmpeg measure the same sound."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support import encoded, files, recipes
from tests.support.ip import Packet
from tests.support.keys import FULL, RATE, Samples, quiet, talking
from tests.support.media import CN, MS, PCMA, PCMU
from tests.support.record import Recording, read_info, record
from tests.support.scene import Scene, ended
from tests.support.signalling import Signal


def recorded(folder: Path, packets: list[Packet]) -> Recording:
    return record(folder / "out", files.write(folder, files.pcap(packets, nano=True))).only()


def figures(recording: Recording, side: str) -> dict[str, float]:
    text = recording.info[f"{side}-Sound"]
    return {name: float(value) for name, value in re.findall(r"(\w+)=(-?[\d.]+)", text)}


def sine(seconds: float, level: float, frequency: float = 1020.0) -> Samples:
    """A sine at a level in dBm0."""
    wave = np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)
    return np.asarray(FULL * 10 ** (level / 20) * wave)


def spoken(seconds: float, seed: int, rate: int = RATE) -> Samples:
    """Something like speech: a second of it, and a second of pause."""
    sound = encoded.tune(rate, seed, round(seconds)).astype(float)
    return np.asarray(sound * (np.arange(len(sound)) // rate % 2 == 0))


def sox(channel: Samples, what: str) -> float:
    """A figure of `sox -n stats` in dB, or as it is."""
    whole = np.clip(channel, -32768, 32767).astype("<i2").tobytes()
    command = ["sox", "-t", "raw", "-r", str(RATE), "-e", "signed", "-b", "16", "-c", "1", "-", "-n", "stats"]
    told = subprocess.run(command, input=whole, capture_output=True, check=True).stderr.decode()
    found = re.search(rf"^{re.escape(what)}\s+(-?[\d.]+)", told, re.MULTILINE)
    assert found, told
    return float(found[1])


@pytest.mark.parametrize("pts", [(PCMA, PCMA), (PCMU, PCMU), (PCMA, PCMU)])
@pytest.mark.parametrize("level", [-10.0, -30.0])
def test_levels_are_those_that_sox_measures(tmp_path: Path, pts: tuple[int, int], level: float) -> None:
    """SoX's RMS is against a square wave at full scale: 3.01 dB below a sine's, which is +3.14 dBm0."""
    left, right = sine(4, level), spoken(4, 3)
    recording = recorded(tmp_path, talking(left, right, pts=pts).packets())
    heard, other = figures(recording, "Caller"), figures(recording, "Callee")
    assert heard["level"] == pytest.approx(level, abs=0.25)
    assert heard["level"] == pytest.approx(sox(left, "RMS lev dB") + 3.01 + 3.14, abs=0.25)
    assert heard["peak"] == pytest.approx(sox(left, "Pk lev dB"), abs=0.35)
    assert heard["active"] >= 99
    loud = right[np.arange(len(right)) // RATE % 2 == 0]
    assert other["level"] == pytest.approx(sox(loud, "RMS lev dB") + 6.15, abs=0.5)
    assert other["peak"] == pytest.approx(sox(right, "Pk lev dB"), abs=1.0)
    assert other["active"] == pytest.approx(50, abs=3)
    assert "SoundFault" not in recording.info


def test_levels_of_decoded_sound(tmp_path: Path) -> None:
    """The WAV of a G.722 call is 16-bit PCM at 16,000 Hz: FFmpeg's volumedetect looks at it."""
    recording = recorded(tmp_path, encoded.call(encoded.g722(1), encoded.g722(2)).packets())
    for number, side in enumerate(("Caller", "Callee")):
        cut = f"pan=mono|c0=c{number},volumedetect"
        command = ["ffmpeg", "-hide_banner", "-i", str(recording.path), "-af", cut, "-f", "null", "-"]
        told = subprocess.run(command, capture_output=True, check=True).stderr.decode()
        mean, most = (float(value) for value in re.findall(r"(?:mean|max)_volume: (-?[\d.]+) dB", told))
        assert figures(recording, side)["level"] == pytest.approx(mean + 6.15, abs=1.0)
        assert figures(recording, side)["peak"] == pytest.approx(most, abs=1.0)


@pytest.mark.parametrize(
    ("right", "text"),
    [(np.zeros(8 * RATE), "silent"), (quiet(8, -55.0), "quiet peak="), (quiet(8, -45.0), "level=-45.")],
    ids=["nothing", "the noise of a line", "noise that is heard"],
)
def test_silence_is_told_from_noise(tmp_path: Path, right: Samples, text: str) -> None:
    recording = recorded(tmp_path, talking(spoken(8, 1), right).packets())
    assert recording.info["Callee-Sound"].startswith(text)
    assert ("SoundFault" in recording.info) is False  # 4 s of the caller's are too little to judge by


def test_one_way_sound(tmp_path: Path) -> None:
    """Silence from the callee, and then no packets at all."""
    scene = talking(spoken(14, 1), np.zeros(14 * RATE))
    recording = recorded(tmp_path, scene.packets())
    fault = "ONE_WAY_SOUND: callee is not heard ({}), caller is, for 7 s"
    assert recording.info["SoundFault"] == fault.format("it is silent")
    other = tmp_path / "other"
    other.mkdir()
    recording = recorded(other, ended(replace(scene, right=())).packets())
    assert recording.info["Callee-Sound"] == "none: no packets with sound came"
    assert recording.info["SoundFault"] == fault.format("no packets with sound came")


def told(scene: Scene, offer: bytes, answer: bytes) -> Scene:
    """The call with other directions in its offer and its answer."""
    first, *rest = scene.signals
    signals = (one if b"200 OK" not in one.text else _directed(one, answer) for one in rest)
    return replace(scene, signals=(_directed(first, offer), *signals))


def _directed(signal: Signal, direction: bytes) -> Signal:
    return replace(signal, text=signal.text.replace(b"a=sendrecv", b"a=" + direction))


def test_an_announcement_is_no_fault_and_no_hold(tmp_path: Path) -> None:
    """Who calls only to listen is not expected to speak; who answers that, and speaks, holds nobody."""
    scene = talking(np.zeros(14 * RATE), spoken(14, 1))
    recording = recorded(tmp_path, ended(replace(told(scene, b"recvonly", b"sendonly"), left=())).packets())
    assert recording.info["Caller-Sound"] == "none: no packets with sound came, as agreed: it only listens"
    assert "SoundFault" not in recording.info
    assert "Hold" not in recording.info


def test_an_answer_that_is_one_way_by_its_own_wish_is_a_hold(tmp_path: Path) -> None:
    scene = told(talking(spoken(8, 2), spoken(8, 1)), b"sendrecv", b"sendonly")
    assert recorded(tmp_path, scene.packets()).info["Hold"].startswith("held by callee at ")


def test_a_hold_that_is_refused_is_none(tmp_path: Path) -> None:
    scene = recipes.held(1)
    held, answer = (n for n, one in enumerate(scene.signals) if b"a=sendonly" in one.text or b"a=recvonly" in one.text)
    signals = list(scene.signals)
    signals[answer] = replace(
        signals[answer], text=signals[answer].text.replace(b"200 OK", b"491 Request Pending").partition(b"v=0")[0]
    )
    assert held < answer
    recording = recorded(tmp_path, replace(scene, signals=tuple(signals)).packets())
    assert "Hold" not in recording.info


def test_comfort_noise_alone_is_silence(tmp_path: Path) -> None:
    scene = talking(spoken(14, 1), np.zeros(14 * RATE))
    right = tuple(replace(one, pt=CN, payload=b"\x40", sound=False) for one in scene.right[::10])
    recording = recorded(tmp_path, ended(replace(scene, right=right)).packets())
    assert recording.info["Callee-Sound"] == "none: only comfort noise came"
    assert recording.info["SoundFault"].startswith("ONE_WAY_SOUND: callee is not heard (only comfort noise came)")


def test_a_call_of_comfort_noise_alone_says_why_it_has_no_wav(tmp_path: Path) -> None:
    scene = talking(np.zeros(4 * RATE), np.zeros(4 * RATE))
    left, right = (
        tuple(replace(one, pt=CN, payload=b"\x40", sound=False) for one in side[::10])
        for side in (scene.left, scene.right)
    )
    packets = ended(replace(scene, left=left, right=right)).packets()
    result = record(tmp_path / "out", files.write(tmp_path, files.pcap(packets, nano=True)))
    assert not result.recordings
    (info,) = result.out.rglob("*_info.txt")
    told = read_info(info.with_name(info.name.replace("_info.txt", ".wav")))
    assert told["Note"] == "no WAV: 40 packets came, none with sound: they are comfort noise, or keys"


def test_a_call_that_nobody_answers_is_no_one_way_sound(tmp_path: Path) -> None:
    """Early media: an announcement to the caller, who has nothing to say yet."""
    scene = talking(spoken(14, 1), np.zeros(14 * RATE))
    signals = tuple(one for one in scene.signals if not (b"200 OK" in one.text and b"INVITE" in one.text))
    ringing = replace(scene.signals[3], text=scene.signals[3].text.replace(b"200 OK", b"183 Session Progress"))
    signals = tuple(one for one in (*signals[:3], ringing) if b"ACK " not in one.text[:4])
    recording = recorded(tmp_path, replace(scene, signals=signals).packets())
    assert recording.info["Answered"] == "no"
    assert "SoundFault" not in recording.info


def test_silence_from_both_sides(tmp_path: Path) -> None:
    nothing = np.zeros(12 * RATE)
    recording = recorded(tmp_path, talking(nothing, nothing).packets())
    assert recording.info["SoundFault"] == "NO_SOUND: 12 s of silence from both sides"


@pytest.mark.parametrize("pts", [(PCMA, PCMA), (PCMA, PCMU)])
def test_the_same_sound_on_both_sides(tmp_path: Path, pts: tuple[int, int]) -> None:
    """A mirror that shows one direction twice; two sides that speak at once are not the same."""
    sound = spoken(8, 1)
    recording = recorded(tmp_path, talking(sound, sound).packets())
    assert recording.info["SoundFault"].startswith("SAME_SOUND: ")
    other = tmp_path / "other"
    other.mkdir()
    assert "SoundFault" not in recorded(other, talking(sound, spoken(8, 2), pts=pts).packets()).info


@pytest.mark.parametrize("later_ms", [20, 137, 900])
def test_sound_that_comes_back_in_a_loop(tmp_path: Path, later_ms: int) -> None:
    """The far end sends each packet back, some of them are lost on the way."""
    scene = talking(spoken(8, 1), np.zeros(8 * RATE))
    back = [
        replace(one, time_ns=one.time_ns + later_ms * MS, source=one.target, target=one.source, ssrc=7, ts=one.ts + 5)
        for number, one in enumerate(scene.left)
        if number % 30
    ]
    recording = recorded(tmp_path, ended(replace(scene, right=tuple(back))).packets())
    told = recording.info["SoundFault"]
    found = re.match(r"SAME_SOUND: both sides are the same sound, callee (\d+) ms later", told)
    assert found, told
    assert int(found[1]) == pytest.approx(later_ms, abs=2)


def overdriven(gain_db: float) -> Scene:
    loud = np.clip(spoken(6, 1) * 10 ** (gain_db / 20), -32768, 32767)
    return talking(loud, spoken(6, 2))


def test_clipping_is_counted_as_sox_does_it(tmp_path: Path) -> None:
    scene = overdriven(20)
    recording = recorded(tmp_path, scene.packets())
    assert recording.info["SoundFault"].startswith("CLIPPING: caller is overdriven: ")
    left, _ = recording.wav.channels()
    assert recording.wav.tag == 6
    sound, _ = soundfile.read(str(recording.path), dtype="int16")
    share = 100 * np.mean(np.abs(sound[:, 0].astype(int)) >= 32256) * 2  # half of it is pause
    assert share > 1
    assert figures(recording, "Caller")["clipped"] == pytest.approx(share, rel=0.15)
    assert figures(recording, "Callee")["clipped"] == 0
    assert len(left) == len(sound)


def test_loud_is_not_overdriven(tmp_path: Path) -> None:
    """Up to the last decibel before full scale."""
    sound = spoken(6, 1)
    loud = sound / np.abs(sound).max() * 32000
    assert "SoundFault" not in recorded(tmp_path, talking(loud, spoken(6, 2)).packets()).info
