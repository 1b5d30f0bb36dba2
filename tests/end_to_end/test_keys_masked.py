"""Masked keys where it is not plain G.711: decoded codecs, redundant packets, SRTP, copies behind a relay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tapdeck.cli.main import cli
from tapdeck.storage.hearing import Hearing
from tapdeck.storage.spool import DONE
from tests.end_to_end.test_codecs import red
from tests.end_to_end.test_keys import MASK, assert_no_key_in, recorded, rtp_of
from tests.support import encoded, files, srtp
from tests.support.ip import Endpoint
from tests.support.keys import RATE, decoded, keys_in, pressed, quiet, talking, with_keys
from tests.support.live import Capture, recordings, sealer
from tests.support.media import EVENT, MS, PCMA, Rtp, lost
from tests.support.record import Recording, record
from tests.support.scene import START_NS, Scene, ended, set_up
from tests.support.signalling import sdp

KEYS = "4929"
_tune = encoded.tune


@cache
def tuned(rate: int, seed: int = 1, seconds: int = 3) -> encoded.Samples:
    """Keys from the first voice, between things that are said; none from the second."""
    sound = quiet(seconds, -45.0, seed, rate)
    if seed == 1:
        sound = with_keys(sound, KEYS, at_s=1.0, ms=80, pause_ms=80, rate=rate)
    said = _tune(rate, seed, seconds)
    place = np.arange(len(sound)) / rate
    sound[(place < 0.9) | (place > 2.0)] += 0.3 * said[: len(sound)][(place < 0.9) | (place > 2.0)]
    return np.asarray(np.clip(sound, -32768, 32767), dtype=np.int16)


VOICES: dict[str, Callable[[int], encoded.Voice]] = {
    "G722": encoded.g722,
    "G726-32": lambda seed: encoded.g726(4, seed),
    "L16": lambda seed: encoded.l16(16000, seed),
    "OPUS": encoded.opus,
    "GSM": encoded.gsm,
}


def sides(recording: Recording) -> list[np.ndarray]:
    both = np.frombuffer(recording.wav.data, dtype="<i2").reshape(-1, 2).astype(float)
    return [both[:, side] for side in (0, 1)]


@pytest.mark.parametrize("name", VOICES)
def test_packets_of_other_codecs_with_tones_are_left_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoded, "tune", tuned)
    scene = encoded.call(VOICES[name](1), VOICES[name](2), (1, 1) if name == "OPUS" else (2, 2))
    plain = recorded(tmp_path, scene).only()
    assert plain.info["Digits"] == KEYS
    assert keys_in(sides(plain)[0], rate=plain.wav.rate) == KEYS
    masked = record(tmp_path / "masked", tmp_path / "capture.pcap", more=MASK).only()
    assert masked.info["Digits"] == "****"
    assert masked.info["DigitsMasked"].startswith("4: 4 by in-band; ")
    assert masked.info["Duration"] == plain.info["Duration"]
    left, right = sides(masked)
    assert keys_in(left, rate=masked.wav.rate) == ""
    assert np.array_equal(right, sides(plain)[1])
    done = CliRunner().invoke(cli, ["redecode", str(masked.path)])
    assert done.exit_code == 0, done.output
    (kept,) = (tmp_path / "masked").rglob("*.pcapng")
    ends = {packet.source.port for packet in scene.left}
    there = [payload for port, payload, _ in rtp_of(kept) if int(port) in ends]
    gone = int(masked.info["DigitsMasked"].partition("; ")[2].split()[0])
    assert len(there) == len(scene.left) - gone
    assert len(scene.left) > 3 * gone > 0


@pytest.mark.parametrize("gone", [set(), {60, 61, 75}])
def test_redundant_packets_have_no_copy_of_a_tone_or_an_event(gone: set[int], tmp_path: Path) -> None:
    """Each packet bears the two before it (RFC 2198); of those that are lost the copies are heard, and masked."""
    scene = talking(with_keys(quiet(4, -50.0), KEYS, at_s=1.0, ms=80, pause_ms=80), quiet(4, -50.0))
    more = b"a=rtpmap:121 red/8000\r\na=fmtp:121 8/8/8\r\n"

    def told(text: bytes) -> bytes:
        head, gap, body = text.partition(b"\r\n\r\n")
        if b"m=audio" not in body:
            return text
        body = body.replace(b"RTP/AVP 8 ", b"RTP/AVP 121 8 ") + more
        lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
        return b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + gap + body

    signals = tuple(replace(one, text=told(one.text)) for one in scene.signals)
    left = red(scene.left, 121, PCMA, 2)
    scene = replace(scene, signals=signals, left=lost(pressed(left, 150, "8"), gone))
    plain = recorded(tmp_path, scene).only()
    assert plain.info["Digits"] == KEYS + "8"
    masked = record(tmp_path / "masked", tmp_path / "capture.pcap", more=(*MASK, "--keep-packets")).only()
    assert masked.info["Digits"] == "*****"
    sound, _ = masked.wav.channels()
    assert masked.wav.tag == 6
    assert keys_in(decoded(sound)) == ""
    (kept,) = (tmp_path / "masked").rglob("*.pcapng")
    wrapped = [payload for _, payload, kind in rtp_of(kept) if kind == "121"]
    assert len(wrapped) == len(scene.left) - 8
    for back in (1, 2, 3):  # each block of all packets, one behind the other
        whole = [payload for payload in wrapped if len(payload) == 9 + 480]
        end = (back - 1) * 160
        blocks = b"".join(payload[len(payload) - end - 160 : len(payload) - end] for payload in whole)
        assert keys_in(decoded(blocks)) == ""


def test_a_call_in_srtp(tmp_path: Path) -> None:
    """Capture can change nothing in it; what seal keeps is decrypted, and masked."""
    caller, callee = srtp.Key(1), srtp.Key(2)
    scene = talking(with_keys(quiet(4, -50.0), KEYS, at_s=1.0), quiet(4, -50.0))
    scene = replace(scene, left=pressed(scene.left, 120, "7"))
    heard = srtp.packets(
        srtp.announced(scene, [caller], [callee]), srtp.lock(scene.left, caller), srtp.lock(scene.right, callee)
    )
    with Capture(tmp_path) as capture:
        capture.engine.mask_digits = True
        capture.hear(heard, size=50)
    maker = sealer(tmp_path)
    maker.hearing, maker.keep_packets = Hearing(mask=True), True
    (path,) = capture.files_of(DONE)
    (made,) = maker.seal(path)
    assert not made.error
    (recording,) = recordings(tmp_path)
    assert recording.info["Digits"] == "*****"
    assert "failed=0" in recording.info["Caller-Srtp"]
    (kept,) = (tmp_path / "sealed").rglob("*_packets.pcapng")
    assert assert_no_key_in(kept) == 8
    for channel in recording.wav.channels():
        assert keys_in(decoded(channel)) == ""


def relayed(scene: Scene, relay: Endpoint, far: Endpoint) -> list[Rtp]:
    """The caller's packets as a relay passes them on, 30 ms later and under an SSRC of its own."""
    return [
        replace(one, time_ns=one.time_ns + 30 * MS, source=relay, target=far, ssrc=0x12345678, ts=one.ts + 777)
        for one in scene.left
    ]


def test_copies_behind_a_relay_are_masked_in_what_is_kept(tmp_path: Path) -> None:
    """The mirror shows the caller's packets on their way to the relay, and again behind it."""
    scene = talking(with_keys(quiet(4, -50.0), KEYS, at_s=1.0), quiet(4, -50.0))
    scene = replace(scene, left=pressed(scene.left, 120, "7"))
    shape = scene.dialog
    relay = (Endpoint("10.0.9.1", 30000), Endpoint("10.0.9.1", 30002))
    # The caller is told the relay's port, and so is the callee.
    signals = set_up(shape, START_NS, sdp(shape.caller.media), sdp(relay[0]))
    left = tuple(replace(one, target=relay[0]) for one in scene.left)
    right = tuple(replace(one, source=relay[0]) for one in scene.right)
    copies = [one.packet() for one in relayed(scene, relay[1], shape.callee.media)]
    callee = shape.reply(START_NS + 99 * MS, "200 OK", sdp(shape.callee.media))
    scene = ended(replace(scene, signals=(*signals, callee, *scene.signals[-2:]), left=left, right=right))
    scene = replace(scene, unheard=tuple(copies))
    with Capture(tmp_path) as capture:
        capture.engine.mask_digits = True
        capture.hear(scene.packets(), size=50)
    maker = sealer(tmp_path)
    maker.hearing, maker.keep_packets = Hearing(mask=True), True
    for path in capture.files_of(DONE):
        (made,) = maker.seal(path)
        assert not made.error
    (kept,) = (tmp_path / "sealed").rglob("*_packets.pcapng")
    found = rtp_of(kept)
    assert {payload[0] for _, payload, kind in found if kind == str(EVENT)} == {0xFF}
    ports = {port for port, _, kind in found if kind == str(PCMA)}
    assert str(relay[1].port) in ports
    for port in ports:
        sound = b"".join(payload for source, payload, kind in found if (source, kind) == (port, str(PCMA)))
        assert keys_in(decoded(sound)) == ""


def test_the_sound_of_a_long_call_is_masked_in_all_its_pieces(tmp_path: Path) -> None:
    """Pieces are 4 Mi samples; a key lies across the edge."""
    edge = (4 << 20) / RATE
    sound = with_keys(quiet(edge + 2, -60.0), "159", at_s=edge - 0.15, ms=60)
    scene = talking(sound, np.zeros(len(sound)))
    capture = files.write(tmp_path, files.pcap(scene.packets(), nano=True))
    recording = record(tmp_path / "out", capture, more=MASK).only()
    assert recording.info["Digits"] == "***"
    heard, _ = recording.wav.channels()
    assert keys_in(decoded(heard)[-4 * RATE :]) == ""
    assert len(heard) == len(scene.channels()[0])
