"""Keys through `tapdeck record`: by RTP events, in SIP, as tones; each once, with its time; and none where they are
masked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support import files
from tests.support.keys import KEYS, RATE, decoded, encoded, info, keys_in, pressed, quiet, stream, talking, with_keys
from tests.support.media import EVENT, MS, PCMA, PCMU, Rtp, lost
from tests.support.record import Recording, Result, record
from tests.support.scene import Scene, answered_ns, dialog, ended
from tests.support.shark import run as shark

NUMBER = "4929123456789012"
MASK = ("--mask-digits",)


def recorded(folder: Path, scene: Scene, *more: str) -> Result:
    return record(folder / "out", files.write(folder, files.pcap(scene.packets(), nano=True)), more=more)


def lines(recording: Recording, key: str) -> list[str]:
    text = recording.path.with_name(recording.path.stem + "_info.txt").read_text(encoding="utf-8")
    return [line.partition(": ")[2] for line in text.splitlines() if line.startswith(f"{key}: ")]


def seconds(line: str) -> float:
    """Where in the WAV a key is."""
    found = re.search(r"\(([+-][0-9.]+)s\)", line)
    assert found
    return float(found[1])


# -- tones -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pts", [(PCMA, PCMA), (PCMU, PCMU), (PCMA, PCMU)])
def test_tones_are_found_with_their_times(tmp_path: Path, pts: tuple[int, int]) -> None:
    """All sixteen, at -20 dBm0 with noise 10 dB below them, 40 ms long and 40 ms apart."""
    noise = quiet(4, -30.0)
    left = with_keys(noise, KEYS, at_s=1.0, ms=40, pause_ms=40)
    result = recorded(tmp_path, talking(left, with_keys(quiet(4, -50), "5", at_s=3.0), pts=pts))
    recording = result.only()
    assert recording.info["Digits"] == KEYS + "5"
    found = lines(recording, "Digit")
    assert [line.split(" by ")[0] for line in found] == [*KEYS, "5"]
    assert [line.split(" by ")[1].split()[0] for line in found] == ["caller"] * 16 + ["callee"]
    assert all(line.endswith(" by in-band") for line in found)
    wanted = [1.0 + 0.08 * number for number in range(16)] + [3.0]
    assert [seconds(line) for line in found] == pytest.approx(wanted, abs=0.015)


def test_tones_in_a_call_of_many_minutes_at_the_edges_of_pieces(tmp_path: Path) -> None:
    """The sound is rendered in pieces of 4 Mi samples; a key lies across the edge, and others around it."""
    edge = (4 << 20) / RATE
    sound = quiet(edge + 3, -60.0)
    for number, key in enumerate("123456789"):
        sound = with_keys(sound, key, at_s=edge - 0.81 + 0.2 * number, ms=50)
    silence = np.zeros(len(sound))
    recording = recorded(tmp_path, talking(sound, silence)).only()
    assert recording.info["Digits"] == "123456789"
    times = [seconds(line) for line in lines(recording, "Digit")]
    assert times == pytest.approx([edge - 0.81 + 0.2 * number for number in range(9)], abs=0.015)


def test_tones_are_left_alone_if_that_is_wanted(tmp_path: Path) -> None:
    scene = talking(with_keys(quiet(2), "123"), quiet(2))
    assert recorded(tmp_path, scene, "--no-inband-digits").only().info["Digits"] == ""


def test_a_tone_that_comes_back_as_an_echo_is_one_key(tmp_path: Path) -> None:
    left = with_keys(quiet(3), "159", at_s=1.0, pause_ms=200)
    right = with_keys(quiet(3), "159", at_s=1.03, pause_ms=200, level=-34.0)
    recording = recorded(tmp_path, talking(left, right)).only()
    assert [line.split(" at ")[0] for line in lines(recording, "Digit")] == [f"{key} by caller" for key in "159"]


# -- by several means --------------------------------------------------------------------------------------------------


def test_a_key_that_comes_as_event_and_as_tone_is_listed_once(tmp_path: Path) -> None:
    """A gateway that lets the tone pass until it knows it, and one that lets all of it pass beside the events."""
    scene = talking(with_keys(quiet(4), "77", at_s=1.0, ms=60, pause_ms=440), quiet(4))
    left = pressed(pressed(scene.left, 53, "7"), 78, "7")
    beside = with_keys(quiet(4), "3", at_s=3.0, ms=200)
    left = left[:150] + stream(scene.dialog, encoded(beside))[150:]
    events = [one for one in pressed(left, 152, "3") if one.pt == EVENT and one.seq >= 1152]
    again = [replace(one, seq=one.seq + 5000, ssrc=0x77, time_ns=one.time_ns + MS, place_ns=0) for one in events]
    scene = replace(scene, left=tuple(sorted((*left, *again), key=lambda one: one.time_ns)))
    recording = recorded(tmp_path, ended(scene)).only()
    assert recording.info["Digits"] == "773"
    assert [line.rpartition(" by ")[2] for line in lines(recording, "Digit")] == ["RFC 4733 and in-band"] * 3


def test_events_and_info_of_the_same_keys(tmp_path: Path) -> None:
    shape = dialog(1)
    said = [info(shape, answered_ns() + (1300 + 500 * n) * MS, f"Signal={key}\r\nDuration=160\r\n", cseq=2 + n)
            for n, key in enumerate("55")]  # fmt: skip
    said.append(info(shape, answered_ns() + 3000 * MS, "#", "application/dtmf", cseq=4))
    scene = talking(quiet(4), quiet(4), more=said)
    scene = replace(scene, left=pressed(pressed(scene.left, 55, "5"), 80, "5"))
    recording = recorded(tmp_path, scene).only()
    assert recording.info["Digits"] == "55#"
    means = [line.rpartition(" by ")[2] for line in lines(recording, "Digit")]
    assert means == ["RFC 4733 and INFO", "RFC 4733 and INFO", "INFO"]


# -- events ------------------------------------------------------------------------------------------------------------


def test_events_whatever_packets_of_them_are_lost(tmp_path: Path) -> None:
    """Of each event only some packets come: no end, only one end, only one update; the same key again and again."""
    scene = talking(quiet(6), quiet(6))
    left: tuple[Rtp, ...] = scene.left
    gone: set[int] = set()
    left_of = [{0, 1, 2, 3, 4}, {7}, {2}, {0}, {5, 6}, {0, 1, 2, 3, 4, 5, 6, 7}]
    for number, stays in enumerate(left_of):
        at = 30 + 30 * number
        left = pressed(left, at, "2", marker=number % 2 == 0)
        gone |= {at + step for step in range(8) if step not in stays}
    recording = recorded(tmp_path, replace(scene, left=lost(left, gone))).only()
    assert recording.info["Digits"] == "222222"


def test_long_events_in_segments_are_one_key(tmp_path: Path) -> None:
    """20 s at 8,000 Hz are three segments (section 2.5.1.3); the last packets of the first one are lost."""
    scene = talking(quiet(25), quiet(25))
    left = list(scene.left)
    start = left[50]
    for step in range(1000):
        ticks = 160 * (step + 1)
        segment, duration = divmod(ticks, 0xFFFF)
        code = bytes([9, 0x8A if step >= 997 else 0x0A]) + duration.to_bytes(2, "big")
        stamp = start.ts + segment * 0xFFFF
        left[50 + step] = replace(left[50 + step], pt=EVENT, ts=stamp, payload=code, marker=step == 0, sound=False)
    gone = set(range(50 + 400, 50 + 412))
    recording = recorded(tmp_path, replace(scene, left=lost(left, gone))).only()
    assert recording.info["Digits"] == "9"


def test_events_of_both_sides_and_of_several_payload_types(tmp_path: Path) -> None:
    """The callee wants 96, and later 101 too: events come with both, from both sides at the same time."""
    scene = talking(quiet(4), quiet(4))
    more = b"a=rtpmap:96 telephone-event/8000\r\na=fmtp:96 0-15\r\n"

    def told(text: bytes) -> bytes:
        if b"m=audio" not in text:
            return text
        head, _, body = text.partition(b"\r\n\r\n")
        body = body.replace(b" 101\r\n", b" 101 96\r\n") + more
        return re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head) + b"\r\n\r\n" + body

    signals = tuple(replace(one, text=told(one.text)) for one in scene.signals)
    left = pressed(pressed(scene.left, 30, "1", pt=96), 60, "2")
    right = pressed(pressed(scene.right, 30, "8", pt=96), 90, "9", pt=96)
    recording = recorded(tmp_path, replace(scene, signals=signals, left=left, right=right)).only()
    by = [line.partition(" at ")[0] for line in lines(recording, "Digit")]
    assert sorted(by[:2]) == ["1 by caller", "8 by callee"]
    assert by[2:] == ["2 by caller", "9 by callee"]


# -- masked ------------------------------------------------------------------------------------------------------------


def card_call(pts: tuple[int, int] = (PCMA, PCMA)) -> Scene:
    """The number comes in three ways: four keys as tones (heard by the callee as an echo, too), four as events, with
    a bit of the tone before each, four by INFO; and four more as tones that the callee sends.
    """
    shape = dialog(7, pts=pts)
    left = with_keys(quiet(9, -50), NUMBER[:4], at_s=0.5)
    for number in range(4):
        left = with_keys(left, NUMBER[4 + number], at_s=2.0 + 0.4 * number, ms=25)
    right = with_keys(quiet(9, -50), NUMBER[:4], at_s=0.53, level=-42.0)
    right = with_keys(right, NUMBER[12:], at_s=7.0)
    said = [
        info(shape, answered_ns() + (4500 + 300 * n) * MS, f"Signal={key}\r\nDuration=160\r\n", cseq=2 + n)
        for n, key in enumerate(NUMBER[8:11])
    ]
    said.append(info(shape, answered_ns() + 5400 * MS, NUMBER[11], "application/dtmf", cseq=5))
    scene = talking(left, right, 7, pts, said)
    packets = scene.left
    for number in range(4):
        packets = pressed(packets, 102 + 20 * number, NUMBER[4 + number])
    return ended(replace(scene, left=packets))


def channels(recording: Recording, pts: tuple[int, int]) -> Iterator[np.ndarray]:
    wav = recording.wav
    for channel, pt in zip(wav.channels(), pts, strict=True):
        yield np.frombuffer(channel, dtype="<i2").astype(float) if wav.bits == 16 else decoded(channel, pt)


def rtp_of(capture: Path) -> list[tuple[str, bytes, str]]:
    """Source port, RTP payload and payload type of the packets in a capture; Wireshark finds the datagrams."""
    command: list[str | Path] = ["tshark", "-r", capture, "-Y", "udp and not sip and not icmp"]
    fields = ["-T", "fields", "-e", "udp.srcport", "-e", "udp.payload"]
    rows = [line.split("\t") for line in shark(*command, *fields).splitlines()]
    packets = [(port, bytes.fromhex(payload)) for port, payload in rows if payload]
    return [(port, data[12:], str(data[1] & 0x7F)) for port, data in packets if data[0] == 0x80 and len(data) > 12]


def assert_no_key_in(capture: Path, pts: tuple[int, int] = (PCMA, PCMA)) -> int:
    """No key in the events, the sound or the SIP of a capture; how many events there are."""
    packets = rtp_of(capture)
    assert packets
    events = [payload for _, payload, kind in packets if kind == str(EVENT)]
    assert {payload[0] for payload in events} <= {0xFF}
    for port, pt in zip(("10000", "20000"), pts, strict=True):
        sound = b"".join(payload for source, payload, kind in packets if source == port and kind == str(pt))
        assert sound
        assert keys_in(decoded(sound, pt)) == ""
    data = capture.read_bytes()
    assert not re.search(rb"Signal=[0-9*#]", data)
    assert not re.search(rb"\r\n\r\n[0-9*#]\x00*$|Content-Length: 1\r\n\r\n[0-9]", data)
    return len(events)


@pytest.mark.parametrize("pts", [(PCMA, PCMA), (PCMU, PCMU), (PCMA, PCMU)])
def test_masked_keys_are_in_nothing_that_is_kept(tmp_path: Path, pts: tuple[int, int]) -> None:
    scene = card_call(pts)
    plain = recorded(tmp_path, scene).only()
    assert plain.info["Digits"] == NUMBER
    assert "4929" in "".join(keys_in(sound) for sound in channels(plain, pts))
    masked = record(tmp_path / "masked", tmp_path / "capture.pcap", more=(*MASK, "--keep-packets")).only()
    assert masked.info["Digits"] == "*" * 16
    assert masked.info["DigitsMasked"].startswith("16: ")
    shown, before = lines(masked, "Digit"), lines(plain, "Digit")
    assert [seconds(line) for line in shown] == pytest.approx([seconds(line) for line in before], abs=0.006)
    assert all(line.startswith("* by ") and line.endswith(", masked") for line in shown)
    for sound in channels(masked, pts):
        assert keys_in(sound) == ""
    (kept,) = (tmp_path / "masked").rglob("*.pcapng")
    assert assert_no_key_in(kept, pts) == 32
    for path in (tmp_path / "masked").rglob("*_info.txt"):
        assert not re.search(r"^Digit: [0-9#A-D]", path.read_text(), re.MULTILINE)


def test_what_is_no_key_stays_as_it_was(tmp_path: Path) -> None:
    """Masked are the tones, 20 ms around them, and what comes 100 ms before an event; the rest is sample for sample."""
    left = with_keys(quiet(3, -30), "5", at_s=1.0, ms=100)
    scene = talking(left, quiet(3, -30, seed=2))
    recording = record(
        tmp_path / "out", files.write(tmp_path, files.pcap(scene.packets(), nano=True)), more=MASK
    ).only()
    heard, sent = recording.wav.channels(), scene.channels()
    assert heard[1] == sent[1]
    different = [n for n, (a, b) in enumerate(zip(heard[0], sent[0], strict=True)) if a != b]
    assert 0.975 * RATE <= different[0] <= 0.99 * RATE
    assert 1.11 * RATE <= different[-1] <= 1.13 * RATE
    assert set(heard[0][different[0] : different[-1]]) == {0xD5}


def test_a_call_without_keys_says_that_none_was_masked(tmp_path: Path) -> None:
    scene = talking(quiet(3, -30), quiet(3, -30, seed=2))
    recording = recorded(tmp_path, scene, *MASK).only()
    assert recording.info["DigitsMasked"] == "0"
    assert recording.wav.channels() == scene.channels()


def test_kept_packets_give_the_same_masked_sound_again(tmp_path: Path) -> None:
    """Of two laws in one call the WAV is 16-bit PCM, and the payloads lie beside it."""
    from click.testing import CliRunner

    from tapdeck.cli.main import cli

    recording = recorded(tmp_path, card_call((PCMA, PCMU)), *MASK).only()
    done = CliRunner().invoke(cli, ["redecode", str(recording.path)])
    assert done.exit_code == 0, done.output
