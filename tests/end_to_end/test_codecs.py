"""Calls in every codec, recorded from captures: sample for sample what FFmpeg makes of the same payloads."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tapdeck.cli.main import cli
from tests.support import encoded, files, hearing, shark
from tests.support.encoded import Samples, Voice
from tests.support.live import Capture, recordings, seal
from tests.support.media import PCMA, PCMU, Rtp, delayed, lost, repeated
from tests.support.record import PCM, REPOSITORY, UNREADABLE, Recording, read_info, read_wav, record
from tests.support.scene import START_NS, Scene, ended, plain_call, set_up

CAPTURES = Path(os.environ.get("TAPDECK_CAPTURES", REPOSITORY.parent / "shared" / "captures"))
LIKE = 0.98
RAW = ("-t", "raw", "-e", "signed", "-b", "16", "-c", "1")
MS = 1_000_000

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("ffmpeg", "sox")), reason="ffmpeg and sox are not installed"
)

VOICES: dict[str, Callable[[int], Voice]] = {
    "G.722": encoded.g722,
    "GSM": encoded.gsm,
    **{f"G.726 {8 * bits}": lambda seed, bits=bits: encoded.g726(bits, seed) for bits in (2, 3, 4, 5)},  # type: ignore[misc]
    **{
        f"AAL2 G.726 {8 * bits}": lambda seed, bits=bits: encoded.g726(bits, seed, aal2=True)  # type: ignore[misc]
        for bits in (2, 3, 4, 5)
    },
    "Opus": encoded.opus,
    "Opus, 60 ms": lambda seed: encoded.opus(seed, 60),
    "AMR": lambda seed: encoded.amr("AMR", seed),
    "AMR in octets": lambda seed: encoded.amr("AMR", seed, octets=True),
    "AMR-WB": lambda seed: encoded.amr("AMR-WB", seed),
    "AMR-WB in octets": lambda seed: encoded.amr("AMR-WB", seed, octets=True),
    "Speex": lambda seed: encoded.speex(8000, seed),
    "Speex, wideband": lambda seed: encoded.speex(16000, seed),
    "Speex, ultra-wideband": lambda seed: encoded.speex(32000, seed),
    "G.723.1": encoded.g723,
    "L16": lambda seed: encoded.l16(16000, seed),
    "L16 at 44,100 Hz": lambda seed: encoded.l16(44100, seed),
}
WAVEFORM = ("G.722", "G.726 32", "G.726 40", "AAL2 G.726 32", "AAL2 G.726 40", "Opus", "L16")
"""Codecs that keep the wave's form, at these rates, so that it can be held against what was played."""


def per_packet(name: str) -> int:
    return 1 if name.startswith("Opus") else 2


def recorded(folder: Path, scene: Scene) -> Recording:
    capture = files.write(folder, files.pcap(scene.packets(), nano=True))
    return record(folder / "out", capture).only()


def channels(recording: Recording) -> tuple[Samples, Samples]:
    wav = recording.wav
    assert (wav.tag, wav.bits, wav.channel_count) == (PCM, 16, 2)
    frames = np.frombuffer(wav.data, dtype="<i2").reshape(-1, 2)
    return frames[:, 0], frames[:, 1]


def zero(scene: Scene) -> int:
    return min(packet.time_ns for packet in (*scene.left, *scene.right))


def assert_heard(found: Samples, expected: Samples) -> None:
    assert found[: len(expected)].tolist() == expected.tolist()
    assert not found[len(expected) :].any()


def likeness(found: Samples, played: Samples) -> float:
    return hearing.match(found.astype(np.float64), played.astype(np.float64)).likeness


@pytest.mark.parametrize("name", VOICES)
def test_both_sides_are_what_ffmpeg_makes_of_the_same_payload(name: str, tmp_path: Path) -> None:
    """With packets lost on one side: they are silence of the same length, and nothing else changes its place."""
    count = per_packet(name)
    left, right = VOICES[name](1), VOICES[name](2)
    scene = encoded.call(left, right, (count, count))
    scene = ended(replace(scene, left=lost(scene.left, {4, 5, 20})))
    recording = recorded(tmp_path, scene)
    sound = channels(recording)
    assert recording.wav.rate == left.rate
    assert_heard(sound[0], encoded.heard(left, scene.left, zero(scene), per_packet=count))
    assert_heard(sound[1], encoded.heard(right, scene.right, zero(scene), per_packet=count))
    assert recording.info["Codec"].partition("/")[0] == left.rtpmap.partition("/")[0].upper()
    assert f"to 16-bit PCM at {left.rate} Hz" in recording.info["Decoded"]
    assert "lost=3 " in recording.info["Caller-Packets"]
    gap = 2 * count * left.frame_ms / 1000
    assert recording.info["Caller-Gap"].endswith(f"+{gap / 2:.3f}")
    if name in WAVEFORM:
        assert likeness(sound[1], right.played) > LIKE


@pytest.mark.parametrize("name", ["G.722", "AMR"])
def test_the_payloads_are_kept_beside_it(name: str, tmp_path: Path) -> None:
    scene = encoded.call(VOICES[name](1), VOICES[name](2))
    recording = recorded(tmp_path, scene)
    [kept] = (tmp_path / "out").rglob("*.pcapng")
    assert recording.info["Decoded"].endswith(kept.name)
    for side in (scene.left, scene.right):
        ends = tuple(f"{end.address}:{end.port}" for end in (side[0].source, side[0].target))
        assert shark.udp_payloads(kept, (ends[0], ends[1])) == [packet.wire().hex() for packet in side]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_packets_of_ten_to_sixty_milliseconds(count: int, tmp_path: Path) -> None:
    left, right = encoded.g722(1), encoded.g722(2)
    scene = encoded.call(left, right, (count, 2))
    sound = channels(recorded(tmp_path, scene))
    assert_heard(sound[0], encoded.heard(left, scene.left, zero(scene), per_packet=count))


PTIMES = [
    *[(name, count) for name in ("GSM", "AMR", "AMR in octets", "AMR-WB", "Speex") for count in (1, 3)],
    *[(name, count) for name in ("G.726 24", "AAL2 G.726 40", "L16") for count in (1, 3, 6)],
    ("G.723.1", 1),
]


@pytest.mark.parametrize(("name", "count"), PTIMES)
def test_packets_of_other_lengths_in_other_codecs(name: str, count: int, tmp_path: Path) -> None:
    """Of 10 to 60 ms; the two sides differ."""
    left, right = VOICES[name](1), VOICES[name](2)
    scene = encoded.call(left, right, (count, 2))
    sound = channels(recorded(tmp_path, scene))
    assert_heard(sound[0], encoded.heard(left, scene.left, zero(scene), per_packet=count))
    assert_heard(sound[1], encoded.heard(right, scene.right, zero(scene)))


@pytest.mark.parametrize("name", ["AMR", "GSM", "Opus"])
def test_the_length_of_packets_changes_in_codecs_of_frames(name: str, tmp_path: Path) -> None:
    """20 ms, then 60, then 40 a packet; of Opus by another encoder in the same stream."""
    left, right = VOICES[name](1), VOICES[name](2)
    if name == "Opus":
        long = encoded.opus(1, 60)
        frames = [*left.frames[:60], *long.frames[20:40], *left.frames[120:]]
        size = [960] * 60 + [2880] * 20 + [960] * (len(frames) - 80)
        scene = encoded.call(left, replace(right, pt=112), (1, 1))
    else:
        cuts = [*range(30), *range(30, 90, 3), *range(90, 150, 2), 150]
        frames = [left.pack(left.frames[a:b]) for a, b in pairwise(cuts)]
        size = [160 * (b - a) for a, b in pairwise(cuts)]
        scene = encoded.call(left, right, (1, 2))
    clock, first = left.rtp_clock, scene.left[0]
    stamps = [sum(size[:n]) for n in range(len(frames))]
    packets = tuple(
        replace(first, payload=data, ts=first.ts + at, seq=first.seq + n, time_ns=first.time_ns + at * 10**9 // clock)
        for n, (data, at) in enumerate(zip(frames, stamps, strict=True))
    )
    sound = channels(recorded(tmp_path, ended(replace(scene, left=packets))))
    expected = left.decode(frames if name == "Opus" else left.frames)
    assert_heard(sound[0], expected)


def test_the_length_of_packets_changes(tmp_path: Path) -> None:
    left, right = encoded.g722(1), encoded.g722(2)
    scene = encoded.call(left, right, (1, 2))
    halves = [b"".join(packet.payload for packet in scene.left[at : at + 4]) for at in range(100, 300, 4)]
    longer = [
        replace(scene.left[100 + 4 * n], seq=scene.left[100].seq + n, payload=payload)
        for n, payload in enumerate(halves)
    ]
    changed = replace(scene, left=(*scene.left[:100], *longer))
    sound = channels(recorded(tmp_path, changed))
    assert_heard(sound[0], encoded.heard(left, scene.left[:300], zero(scene), per_packet=1))


def test_a_codec_changes_in_the_middle(tmp_path: Path) -> None:
    """From mu-law to G.722 and back, in one stream: each is decoded for itself, and mu-law brought up to 16 kHz."""
    voice, right = encoded.g722(1), encoded.g722(2)
    scene = encoded.call(voice, right)
    law = encoded.ffmpeg(
        encoded.tune(8000).tobytes(), ("-f", "s16le", "-ar", "8000"), "-c:a", "pcm_mulaw", "-f", "mulaw"
    )

    def mulaw(number: int, packet: Rtp) -> Rtp:
        return replace(packet, pt=0, payload=law[160 * number : 160 * number + 160]) if number < 50 else packet

    scene = replace(scene, left=tuple(mulaw(number, packet) for number, packet in enumerate(scene.left)))
    recording = recorded(tmp_path, scene)
    sound = channels(recording)[0]
    assert recording.info["Codec"] == "caller PCMU, G722; callee G722"
    assert recording.info["Resampled"] == "caller from 8000 Hz to 16000 Hz"
    later = voice.decode(voice.frames[100:])
    assert sound[16000 : 16000 + len(later)].tolist() == later.tolist()
    assert likeness(sound[:16000], voice.played[:16000]) > LIKE


def remapped(accepted: bool) -> tuple[Scene, Voice, Voice, tuple[Rtp, ...], tuple[Rtp, ...]]:
    """Payload type 96 is G.722; then the caller offers it for G.726. The callee's stream before and after that, which
    goes on as it was if the offer is refused.
    """
    first, second = replace(encoded.g722(1), pt=96), replace(encoded.g726(4, 2), pt=96)
    left = replace(encoded.gsm(3), pt=3)
    scene = encoded.call(left, first)
    shape, asked = scene.dialog, scene.right[49].time_ns + 4 * MS
    old, new = encoded.offer(shape.callee.media, left, first), encoded.offer(shape.caller.media, left, second)
    answer = encoded.offer(shape.callee.media, left, second).replace("o=- 7 1", "o=- 7 2")
    told = (
        shape.reply(asked + 9 * MS, "200 OK", answer, cseq=2)
        if accepted
        else shape.reply(asked + 9 * MS, "488 Not Acceptable Here", cseq=2)
    )
    again = (
        shape.invite(asked, new.replace("o=- 7 1", "o=- 7 2"), cseq=2, again=True),
        told,
        shape.request(asked + 12 * MS, "ACK", cseq=2),
    )
    caller = encoded.offer(shape.caller.media, left, first)
    signals = (*set_up(shape, START_NS, caller, old), *again, *scene.signals[-2:])
    before, after = scene.right[:50], scene.right[50:]
    if accepted:
        made = encoded.spoken(second, before[0].source, before[0].target, before[0].time_ns, 0xB)
        after = tuple(
            replace(one, ts=old_one.ts, seq=old_one.seq) for one, old_one in zip(made, scene.right, strict=True)
        )
        after = after[50:]
    scene = replace(scene, signals=tuple(sorted(signals, key=lambda one: one.time_ns)), right=(*before, *after))
    return scene, first, second, before, after


def test_a_payload_type_that_a_re_invite_gives_to_another_codec(tmp_path: Path) -> None:
    scene, first, second, before, after = remapped(True)
    recording = recorded(tmp_path, scene)
    assert recording.info["Codec"] == "caller GSM; callee G722, G726-32"
    assert recording.info["Resampled"]
    sound, at = channels(recording)[1], (before[0].time_ns - zero(scene)) * 16 // MS
    early = first.decode(first.frames[:100])
    assert sound[at : at + len(early)].tolist() == early.tolist()
    late = encoded.run(
        *("sox", "-D", *RAW, "-r", "8000", "-", *RAW, "-r", "16000", "-"),
        given=second.decode(second.frames[100:]).astype("<i2").tobytes(),
    )
    expected = np.frombuffer(late, dtype="<i2")
    found = hearing.match(sound[at + len(early) :].astype(np.float64), expected.astype(np.float64))
    assert (found.lag, found.likeness > 0.99) == (0, True)
    assert len(after) == 100
    assert again(recording).exit_code == 0


def test_a_payload_type_keeps_its_meaning_if_the_offer_is_refused(tmp_path: Path) -> None:
    scene, first, _, _, _ = remapped(False)
    recording = recorded(tmp_path, scene)
    assert recording.info["Codec"] == "caller GSM; callee G722"
    assert_heard(channels(recording)[1], encoded.heard(first, scene.right, zero(scene)))


def test_each_side_may_number_a_codec_as_it_likes(tmp_path: Path) -> None:
    """Packets bear the number that their receiver gave (RFC 3264 section 5.1): 97 is G.722 or G.726."""
    left, right = replace(encoded.g722(1), pt=97), replace(encoded.g722(2), pt=98)
    scene = encoded.call(left, right)
    shape, other = scene.dialog, encoded.g726(4)
    texts = (
        encoded.offer(shape.caller.media, right, replace(other, pt=97)),
        encoded.offer(shape.callee.media, left, replace(other, pt=98)),
    )
    scene = replace(scene, signals=(*set_up(shape, START_NS, *texts), *scene.signals[-2:]))
    recording = recorded(tmp_path, scene)
    assert recording.info["Codec"] == "G722"
    assert_heard(channels(recording)[0], encoded.heard(left, scene.left, zero(scene)))
    assert_heard(channels(recording)[1], encoded.heard(right, scene.right, zero(scene)))


@pytest.mark.parametrize(("low", "high"), [("G.726 40", "Opus"), ("G.722", "L16 at 44,100 Hz"), ("GSM", "AMR-WB")])
def test_the_lower_rate_is_brought_up_to_the_higher(low: str, high: str, tmp_path: Path) -> None:
    """Against SoX's resampling of the same decoded sound."""
    left, right = VOICES[low](1), replace(VOICES[high](2), pt=120)
    scene = encoded.call(left, right, (per_packet(low), per_packet(high)))
    recording = recorded(tmp_path, scene)
    sound = channels(recording)
    assert recording.wav.rate == right.rate
    assert recording.info["Resampled"] == f"caller from {left.rate} Hz to {right.rate} Hz"
    assert_heard(sound[1], encoded.heard(right, scene.right, zero(scene), per_packet=per_packet(high)))
    raw = ("-t", "raw", "-e", "signed", "-b", "16", "-c", "1")
    own = left.decode(left.frames).astype("<i2").tobytes()
    resampled = encoded.run("sox", "-D", *raw, "-r", str(left.rate), "-", *raw, "-r", str(right.rate), "-", given=own)
    expected = np.frombuffer(resampled, dtype="<i2")
    found = hearing.match(sound[0].astype(np.float64), expected.astype(np.float64))
    assert found.lag == 0
    assert found.likeness > 0.995
    assert not sound[0][len(expected) + 2 :].any()


def test_two_channels_become_one(tmp_path: Path) -> None:
    """L16 in two channels: the mean of both (RFC 3551 section 4.1: left comes first)."""
    first, second = encoded.tune(16000, 3), encoded.tune(16000, 4)
    recording = recorded(tmp_path, encoded.call(encoded.l16_stereo(first, second), encoded.l16(16000, 2), (1, 2)))
    assert recording.info["Mixed"] == "caller's two channels into one"
    mean = (first.astype(np.int32) + second) // 2
    assert channels(recording)[0][: len(mean)].tolist() == mean.tolist()


def test_stereo_opus_becomes_one_channel(tmp_path: Path) -> None:
    first, second = encoded.tune(48000, 3), encoded.tune(48000, 4)
    voice = encoded.opus_stereo(first, second)
    scene = encoded.call(voice, replace(encoded.opus(2), pt=112), (1, 1))
    recording = recorded(tmp_path, scene)
    assert recording.info["Mixed"] == "caller's two channels into one"
    left = channels(recording)[0]
    assert_heard(left, encoded.heard(voice, scene.left, zero(scene), per_packet=1))
    assert likeness(left, (first // 2 + second // 2).astype(np.int16)) > LIKE


# -- the WAV again from the packets ------------------------------------------------------------------------------------


def again(recording: Recording, *words: str) -> Result:
    return CliRunner().invoke(cli, ["redecode", str(recording.path), *words])


def mixed() -> Scene:
    """Both sides at other rates, one with losses, packets that overtake and come twice."""
    scene = encoded.call(encoded.g722(1), encoded.opus(2), (2, 1))
    scene = replace(scene, left=repeated(delayed(lost(scene.left, {3, 9, 10}), {20}, 70), {30}, 45))
    return ended(scene)


@pytest.mark.parametrize(
    "scene",
    [
        mixed,
        lambda: encoded.call(encoded.amr("AMR", 1), encoded.speex(16000, 2)),
        lambda: encoded.call(encoded.g726(3, 1), encoded.g723(2), (3, 1)),
        lambda: plain_call(1, pts=(PCMA, PCMU)),
    ],
    ids=["mixed", "AMR and Speex", "G.726 and G.723.1", "both laws"],
)
def test_the_packets_give_the_same_sound_again(scene: Callable[[], Scene], tmp_path: Path) -> None:
    recording = recorded(tmp_path, scene())
    result = again(recording)
    assert (result.exit_code, "the same, byte for byte" in result.output) == (0, True), result.output
    assert again(recording, "--out", str(tmp_path / "again.wav")).exit_code == 0
    assert read_wav(tmp_path / "again.wav") == recording.wav


@pytest.mark.parametrize("scene", [mixed, lambda: redundant(2, {5, 6})[2]], ids=["mixed", "redundant"])
def test_live_and_offline_give_the_same_sound(scene: Callable[[], Scene], tmp_path: Path) -> None:
    """By way of the spool and the seal stage's code, and from the capture at once."""
    made = scene()
    with Capture(tmp_path) as capture:
        capture.hear(made.packets(), size=10)
    seal(tmp_path)
    (live,) = recordings(tmp_path)
    (tmp_path / "offline").mkdir()
    offline = recorded(tmp_path / "offline", made)
    assert live.wav == offline.wav
    keys = ("Codec", "Resampled", "Caller-Packets", "Callee-Packets", "Duration")
    assert [live.info.get(key) for key in keys] == [offline.info.get(key) for key in keys]
    assert again(live).exit_code == 0


def test_the_clock_that_was_set_meanwhile_moves_nothing(tmp_path: Path) -> None:
    """The packets are shown with the times of the capture's clock; the sound was placed by steady ones."""
    scene = mixed()
    middle = scene.left[60].time_ns
    packets = [replace(p, time_ns=p.time_ns + 3600 * 10**9 * (p.time_ns > middle)) for p in scene.packets()]
    capture = files.write(tmp_path, files.pcap(packets, nano=True))
    recording = record(tmp_path / "out", capture).only()
    assert float(recording.info["Duration"]) < 5
    assert again(recording).exit_code == 0


def test_what_is_too_long_for_a_wav_is_brought_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With WAVs of 4 GiB that takes six hours of Opus; here they end at 400 kB."""
    monkeypatch.setattr("tapdeck.storage.plan._ROOM", 400_000)
    voice = encoded.opus(1)
    capture = files.write(tmp_path, files.pcap(encoded.call(voice, encoded.g722(2), (1, 2)).packets(), nano=True))
    done = CliRunner().invoke(cli, ["record", str(capture), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    [path] = (tmp_path / "out").rglob("*.wav")
    recording = Recording(path, read_info(path))
    assert recording.wav.rate == 24_000
    text = path.with_name(path.stem + "_info.txt").read_text(encoding="utf-8")
    assert "Resampled: caller from 48000 Hz to 24000 Hz\nResampled: callee from 16000 Hz to 24000 Hz\n" in text
    assert float(recording.info["Duration"]) == pytest.approx(3.02, abs=0.001)
    lowered = encoded.ffmpeg(voice.played.tobytes(), ("-f", "s16le", "-ar", "48000"), "-ar", "24000", "-f", "s16le")
    assert likeness(channels(recording)[0], np.frombuffer(lowered, dtype="<i2").astype(np.int16)) > LIKE
    assert again(recording).exit_code == 0


def test_another_sound_is_noticed(tmp_path: Path) -> None:
    recording = recorded(tmp_path, mixed())
    wav = bytearray(recording.path.read_bytes())
    wav[-1000] ^= 1
    recording.path.write_bytes(wav)
    result = again(recording)
    assert result.exit_code == 1
    assert f"different from byte {len(recording.wav.data) - 1000}" in result.output


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "it.pcapng"
    runner = CliRunner()
    assert runner.invoke(cli, ["redecode", str(path)]).exit_code == UNREADABLE
    for content in (b"", bytes(40), files.pcapng(plain_call(1).packets())):
        path.write_bytes(content)
        assert runner.invoke(cli, ["redecode", str(path)]).exit_code == UNREADABLE


# -- pauses: nothing is invented for them ------------------------------------------------------------------------------


def with_pause(scene: Scene, begin: int, stop: int, word: bytes) -> Scene:
    """The caller falls silent: its packets from `begin` to `stop` are not sent but for the first, which is `word`."""
    said = [
        replace(packet, payload=word) if number == begin else packet
        for number, packet in enumerate(scene.left)
        if number <= begin or number >= stop
    ]
    return replace(scene, left=tuple(replace(packet, seq=said[0].seq + n) for n, packet in enumerate(said)))


PAUSES = {
    "AMR": encoded.amr_bits([bytes([0x44]) + bytes(5)], encoded.AMR["AMR"][1]),
    "AMR in octets": encoded.amr_octets([bytes([0x7C])]),
    "AMR-WB": encoded.amr_bits([bytes([0x4C]) + bytes(5)], encoded.AMR["AMR-WB"][1]),
    "G.723.1": bytes([2, 1, 2, 3]),
    "Opus": b"\x08",
}
"""What a sender says at the beginning of a pause: a silence description, no data, an empty packet."""


@pytest.mark.parametrize("name", PAUSES)
def test_a_pause_of_the_sender_is_silence(name: str, tmp_path: Path) -> None:
    left = VOICES[name](1)
    count = per_packet(name)
    whole = encoded.call(left, VOICES[name](2), (count, count))
    scene = with_pause(whole, 10, 25, PAUSES[name])
    sound = channels(recorded(tmp_path, scene))
    kept = tuple(packet for number, packet in enumerate(whole.left) if number < 10 or number >= 25)
    assert_heard(sound[0], encoded.heard(left, kept, zero(scene), per_packet=count))


# -- the same sound twice on the way (RFC 2198), and what is not decoded -----------------------------------------------


def red(stream: tuple[Rtp, ...], pt: int, inner: int, levels: int = 1) -> tuple[Rtp, ...]:
    """Each packet with the payloads of those before it, oldest first, as RFC 2198 section 3 has it."""
    made = []
    for number, packet in enumerate(stream):
        before = [other for other in stream[max(0, number - levels) : number] if packet.ts - other.ts < 1 << 14]
        heads = b"".join(
            ((0x80 | inner) << 24 | (packet.ts - other.ts) << 10 | len(other.payload)).to_bytes(4, "big")
            for other in before
        )
        payload = heads + bytes([inner]) + b"".join(other.payload for other in before) + packet.payload
        made.append(replace(packet, pt=pt, payload=payload))
    return tuple(made)


def redundant(levels: int, gone: set[int]) -> tuple[Voice, Scene, Scene]:
    """A voice in G.722 that is sent twice or more; the scene of all packets, and the one in which some are lost."""
    voice = encoded.g722(1)
    wrapper = replace(voice, pt=121, rtpmap="RED/8000", fmtp="9/9")
    plain = encoded.call(voice, encoded.g722(2))
    ends = plain.dialog.caller.media, plain.dialog.callee.media
    signals = set_up(
        plain.dialog, START_NS, encoded.offer(ends[0], wrapper, voice), encoded.offer(ends[1], voice, wrapper)
    )
    whole = replace(plain, signals=signals + plain.signals[-2:])
    return voice, plain, replace(whole, left=lost(red(plain.left, 121, 9, levels), gone))


@pytest.mark.parametrize(("levels", "gone"), [(1, {5, 8, 20}), (2, {5, 6, 20, 30, 31}), (1, set())])
def test_what_was_lost_is_filled_with_its_copy(levels: int, gone: set[int], tmp_path: Path) -> None:
    voice, plain, scene = redundant(levels, gone)
    recording = recorded(tmp_path, scene)
    assert_heard(channels(recording)[0], encoded.heard(voice, plain.left, zero(plain)))
    assert recording.info["Codec"] == "G722"
    figures = recording.info["Caller-Packets"]
    assert f"lost={len(gone)} " in figures
    assert figures.endswith(f"recovered={len(gone)}")
    assert "recovered" not in recording.info["Callee-Packets"]
    assert "Caller-Gap" not in recording.info
    assert again(recording).exit_code == 0


def test_a_copy_may_lie_farther_back(tmp_path: Path) -> None:
    """Each packet bears a copy of the one three before it: what is lost in a burst is there."""
    voice, plain, scene = redundant(1, set())
    made = []
    for number, packet in enumerate(plain.left):
        head = b""
        if number >= 3:
            old = plain.left[number - 3]
            head = (0x89 << 24 | (packet.ts - old.ts) << 10 | len(old.payload)).to_bytes(4, "big")
        old_payload = plain.left[number - 3].payload if number >= 3 else b""
        made.append(replace(packet, pt=121, payload=head + b"\x09" + old_payload + packet.payload))
    recording = recorded(tmp_path, replace(scene, left=lost(made, {10, 11, 12, 40})))
    assert_heard(channels(recording)[0], encoded.heard(voice, plain.left, zero(plain)))
    assert recording.info["Caller-Packets"].endswith("recovered=4")


@pytest.mark.parametrize("levels", [1, 2])
def test_redundant_opus_and_error_correction_in_the_same_packets(levels: int, tmp_path: Path) -> None:
    """Opus in RED, as browsers send it, a packet in ten with a block of ULPFEC in its place (RFC 5109)."""
    voice = encoded.opus(1)
    wrapper = replace(voice, pt=63, rtpmap="red/48000/2", fmtp="111/111")
    fec = replace(voice, pt=96, rtpmap="ulpfec/48000", fmtp="")
    plain = encoded.call(voice, replace(encoded.g722(2), pt=9), (1, 2))
    ends = plain.dialog.caller.media, plain.dialog.callee.media
    texts = [encoded.offer(end, wrapper, voice, fec, encoded.g722(2)) for end in ends]
    signals = (*set_up(plain.dialog, START_NS, *texts), *plain.signals[-2:])
    sent: list[Rtp] = []
    for n, packet in enumerate(red(plain.left, 63, 111, levels)):
        sent.append(replace(packet, seq=packet.seq + n // 10))
        if n % 10 == 9:
            sent.append(replace(packet, seq=packet.seq + n // 10 + 1, payload=bytes([96]) + bytes(40)))
    scene = replace(plain, signals=signals, left=lost(sent, {13, 30, 50}))
    recording = recorded(tmp_path, scene)
    assert recording.info["Codec"] == "caller OPUS; callee G722"
    assert recording.info["Caller-Packets"].endswith("recovered=3")
    assert_heard(channels(recording)[0], encoded.heard(voice, plain.left, zero(plain), per_packet=1))
    assert "15 packets of caller are forward error correction (ULPFEC)" in notes(recording)
    assert again(recording).exit_code == 0


def test_what_no_copy_holds_stays_silent(tmp_path: Path) -> None:
    voice, plain, scene = redundant(1, {5, 6, 7})
    recording = recorded(tmp_path, scene)
    kept = lost(plain.left, {5, 6})
    assert_heard(channels(recording)[0], encoded.heard(voice, kept, zero(plain)))
    assert "lost=3 " in recording.info["Caller-Packets"]
    assert recording.info["Caller-Packets"].endswith("recovered=1")


@pytest.mark.parametrize("payload", [b"", b"\x89", b"\xff" * 200, b"\x89\x05\x00\xff\x09" + bytes(20)])
def test_headers_that_lie_are_no_sound(payload: bytes, tmp_path: Path) -> None:
    voice, plain, scene = redundant(1, set())
    bad = tuple(replace(p, payload=payload) if number == 12 else p for number, p in enumerate(scene.left))
    recording = recorded(tmp_path, replace(scene, left=bad))
    assert_heard(channels(recording)[0], encoded.heard(voice, lost(plain.left, {12}), zero(plain)))


def notes(recording: Recording) -> str:
    text = recording.path.with_name(recording.path.stem + "_info.txt").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if line.startswith("Note:"))


def test_forward_error_correction_is_counted_and_kept(tmp_path: Path) -> None:
    voice = encoded.g722(1)
    scene = encoded.call(voice, replace(voice, pt=122, rtpmap="ulpfec/8000"))
    fifth = scene.left[::5]
    fec = [replace(p, pt=122, ssrc=0xF, seq=n, payload=bytes(30)) for n, p in enumerate(fifth)]
    both = tuple(sorted((*scene.left, *fec), key=lambda p: p.time_ns))
    right = encoded.call(voice, encoded.g722(2)).right
    recording = recorded(tmp_path, ended(replace(scene, right=right, left=both)))
    assert f"{len(fec)} packets of caller are forward error correction (ULPFEC)" in notes(recording)
    assert_heard(channels(recording)[0], encoded.heard(voice, scene.left, zero(scene)))
    assert again(recording).exit_code == 0


def test_what_is_offered_beside_sound_is_said(tmp_path: Path) -> None:
    scene = encoded.call(encoded.l16(8000), encoded.l16(8000, 2), more=encoded.PICTURES)
    recording = recorded(tmp_path, scene)
    text = recording.path.with_name(recording.path.stem + "_info.txt").read_text(encoding="utf-8")
    found = [line.partition(" at ")[0] for line in text.splitlines() if line.startswith("OtherMedia")]
    assert found == ["OtherMedia: video H264 of caller", "OtherMedia: image UDPTL of caller"]


def test_a_codec_nobody_decodes_is_kept_and_said(tmp_path: Path) -> None:
    """G.722 is heard on one side; EVS on the other is silence in the WAV, and whole in the file beside it."""
    voice = encoded.g722(1)
    other = replace(encoded.g722(2), pt=123, rtpmap="EVS/16000")
    recording = recorded(tmp_path, encoded.call(voice, other))
    [kept] = (tmp_path / "out").rglob("*.pcapng")
    assert f"Codec EVS/16000 not decoded yet: callee's packets are kept in {kept.name}" in notes(recording)
    assert recording.info["Codec"] == "caller G722; callee EVS/16000"
    assert not channels(recording)[1].any()


def test_a_payload_that_makes_no_sense_is_silence_and_counted(tmp_path: Path) -> None:
    """Opus packets whose first of two frames claims more than there is (RFC 6716 section 3.2.4)."""
    voice = encoded.opus(1)
    scene = encoded.call(voice, encoded.opus(2), (1, 1))
    bad = bytes([8 << 3 | 2, 200]) + bytes(20)
    left = tuple(replace(p, payload=bad) if number in (9, 10) else p for number, p in enumerate(scene.left))
    recording = recorded(tmp_path, replace(scene, left=left))
    assert_heard(channels(recording)[0], encoded.heard(voice, lost(scene.left, {9, 10}), zero(scene), per_packet=1))
    assert "2 packets of caller could not be decoded; they are silence in the WAV" in notes(recording)


@pytest.mark.parametrize("frame_ms", [10, 20, 40, 60])
def test_opus_that_sends_nothing_in_pauses(frame_ms: int, tmp_path: Path) -> None:
    """DTX as libopus does it: it keeps quiet but for a packet now and then, and the time stamps go on."""
    sound = encoded.tune(48000, 1).copy()
    sound[48000:110000] = 0
    voice = encoded.opus_dtx(sound, frame_ms)
    scene = encoded.call(voice, replace(encoded.opus(2), pt=112), (1, 1))
    said = [packet for packet in scene.left if len(packet.payload) > 2]
    assert len(said) < 0.75 * len(scene.left)
    scene = replace(scene, left=tuple(replace(packet, seq=n) for n, packet in enumerate(said)))
    recording = recorded(tmp_path, scene)
    assert "lost=0 " in recording.info["Caller-Packets"]
    frames = {packet.place_ns: packet.payload for packet in said}
    decoded = iter(voice.decode(list(frames.values())).reshape(len(frames), -1))
    expected = np.zeros(len(sound), dtype=np.int16)
    for place in frames:
        at = (place - zero(scene)) * 48 // MS
        expected[at : at + voice.frame_samples] = next(decoded)
    assert_heard(channels(recording)[0], expected)
    assert "Caller-Gap" in recording.info


def test_both_rates_of_g_723_1_and_silence_descriptions_in_one_stream(tmp_path: Path) -> None:
    """6.3 kbit/s from an encoder; frames of 5.3 kbit/s of any bits, and silence of 30 ms, between them."""
    voice, draw = encoded.g723(1), random.Random(4)
    low = [bytes([draw.randrange(64) << 2 | 1]) + draw.randbytes(19) for _ in voice.frames]
    frames = [(voice.frames[n], low[n], bytes([2, 1, 2, 3]))[(n // 4) % 3] for n in range(len(voice.frames))]
    mixed = replace(voice, frames=tuple(frames))
    scene = encoded.call(mixed, encoded.gsm(2), (3, 2))
    recording = recorded(tmp_path, scene)
    heard = iter(voice.decode([frame for frame in frames if len(frame) > 4]).reshape(-1, 240))
    silent = np.zeros(240, dtype=np.int16)
    whole = len(frames) // 3 * 3
    expected = np.concatenate([silent if len(frame) == 4 else next(heard) for frame in frames[:whole]])
    left = channels(recording)[0]
    assert left[: len(expected)].tolist() == expected.tolist()
    assert "could not be decoded" not in notes(recording)


@pytest.mark.parametrize(
    ("mode", "said"), [(20, "mode=20"), (30, "mode=30"), (30, ""), (20, "mode=30"), (30, "mode=20")]
)
def test_both_modes_of_ilbc(mode: int, said: str, tmp_path: Path) -> None:
    """Frames of any bits, as ffmpeg decodes them; the size of a packet tells the mode where the description lies."""
    size, head = {20: (38, b"#!iLBC20\n"), 30: (50, b"#!iLBC30\n")}[mode]
    draw = random.Random(mode)
    frames = tuple(draw.randbytes(size - 1) + b"\0" for _ in range(90))
    decode = encoded.by_command("-f", "ilbc", head=head)
    left = Voice("iLBC/8000", 97, 8000, mode, frames, np.zeros(1, np.int16), decode, said)
    scene = encoded.call(left, encoded.gsm(2), (1, 2))
    recording = recorded(tmp_path, scene)
    assert_heard(channels(recording)[0], encoded.heard(left, scene.left, zero(scene), per_packet=1))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000])
@pytest.mark.parametrize("stereo", [False, True])
def test_l16_of_every_rate(rate: int, stereo: bool, tmp_path: Path) -> None:
    first, second = encoded.tune(rate, 1), encoded.tune(rate, 2)
    frame = 2 * (rate // 100) * (1 + stereo)
    left = encoded.l16_stereo(first, second, rate) if stereo else encoded.l16(rate, 1)
    data = np.stack((first, second), axis=1).astype(">i2").tobytes() if stereo else first.astype(">i2").tobytes()
    frames = encoded.cut(data, frame)
    left = replace(left, frames=frames)
    scene = encoded.call(left, replace(encoded.gsm(2), pt=3), (2, 2))
    step = rate // 100 * 2
    scene = replace(scene, left=tuple(replace(p, ts=77 + n * step) for n, p in enumerate(scene.left)))
    recording = recorded(tmp_path, scene)
    assert recording.wav.rate == rate
    expected = (first.astype(np.int32) + second) // 2 if stereo else first
    size = len(scene.left) * step
    found = channels(recording)[0][:size]
    assert found.tolist() == expected[:size].tolist()


# -- descriptions that say too little, or what is not so ------------------------------------------------------------


def renamed(scene: Scene, old: str, new: str) -> Scene:
    """The scene with other lines in its descriptions."""
    changed = [replace(one, text=relined(one.text, old, new)) for one in scene.signals]
    return replace(scene, signals=tuple(changed))


def relined(message: bytes, old: str, new: str) -> bytes:
    head, _, body = message.partition(b"\r\n\r\n")
    body = body.replace(old.encode(), new.encode())
    head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head)
    return head + b"\r\n\r\n" + body


STATIC: dict[str, Callable[[int], Voice]] = {
    "G726-32": lambda seed: replace(encoded.g726(4, seed), pt=2),
    "GSM": encoded.gsm,
    "G723": encoded.g723,
    "G722": encoded.g722,
    "L16/44100 stereo": lambda seed: replace(
        encoded.l16_stereo(encoded.tune(44100, seed), encoded.tune(44100, seed), 44100), pt=10
    ),
    "L16/44100": lambda seed: replace(encoded.l16(44100, seed), pt=11),
}


@pytest.mark.parametrize("name", STATIC)
def test_payload_types_that_need_no_rtpmap(name: str, tmp_path: Path) -> None:
    left, right = STATIC[name](1), STATIC[name](2)
    count = 1 if "stereo" in name else 2
    scene = renamed(encoded.call(left, right, (count, count)), f"a=rtpmap:{left.pt} {left.rtpmap}\r\n", "")
    assert not [one for one in scene.signals if b"rtpmap" in one.text]
    recording = recorded(tmp_path, scene)
    sound = channels(recording)
    assert recording.wav.rate == left.rate
    if "stereo" in name:
        assert sound[0][: len(left.played)].tolist() == left.played.tolist()
    else:
        assert_heard(sound[0], encoded.heard(left, scene.left, zero(scene)))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("G.722", "G722"),
        ("G.726 32", "G726-32"),
        ("G.726 32", "G721/8000"),
        ("G.723.1", "G723.1/8000"),
        ("Opus", "opus/48000"),
        ("Opus", "OPUS/48000/1"),
        ("Opus", "opus/8000/1"),
        ("AMR", "AMR"),
        ("AMR-WB", "amr-wb/8000"),
        ("Speex", "SPEEX/8000/1"),
        ("GSM", "GSM/0"),
    ],
)
def test_names_and_rates_that_are_not_as_registered(name: str, says: str, tmp_path: Path) -> None:
    """A rate that is left out or wrong where a codec has only one, other names, other letters."""
    count = per_packet(name)
    left, right = VOICES[name](1), VOICES[name](2)
    scene = renamed(encoded.call(left, right, (count, count)), left.rtpmap, says)
    recording = recorded(tmp_path, scene)
    assert_heard(channels(recording)[0], encoded.heard(left, scene.left, zero(scene), per_packet=count))
    assert float(recording.info["Caller-Packets"].rpartition("jitter=")[2].removesuffix("ms")) < 1


@pytest.mark.parametrize(
    ("name", "says", "clock"),
    [("G.722", "G722/16000", 8000), ("AMR-WB", "AMR-WB/16000", 8000), ("Opus", "opus/48000/2", 8000)],
)
def test_a_clock_that_is_not_what_the_description_says(name: str, says: str, clock: int, tmp_path: Path) -> None:
    """Time stamps count at another rate than that of the rtpmap, or of the codec: the sound keeps its length."""
    count = per_packet(name)
    left, right = VOICES[name](1), VOICES[name](2)
    scene = renamed(encoded.call(left, right, (count, count)), left.rtpmap, says)
    step = clock * left.frame_ms * count // 1000
    slow = tuple(replace(packet, ts=5000 + n * step) for n, packet in enumerate(scene.left))
    scene = replace(scene, left=lost(slow, {20, 21}))
    recording = recorded(tmp_path, scene)
    assert_heard(channels(recording)[0], encoded.heard(left, scene.left, zero(scene), per_packet=count))
    assert f"counts time at {clock} Hz" in notes(recording)
    assert float(recording.info["Caller-Packets"].rpartition("jitter=")[2].removesuffix("ms")) < 1
    assert again(recording).exit_code == 0


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
@pytest.mark.parametrize("aal2", [False, True])
def test_g_726_that_is_packed_the_other_way_round(bits: int, aal2: bool, tmp_path: Path) -> None:
    """As real phones do it: AAL2's packing under the name of RFC 3551's, or the reverse; the other side keeps to it."""
    left, right = encoded.g726(bits, 1, aal2=aal2), encoded.g726(bits, 2, aal2=not aal2)
    told = replace(left, rtpmap=right.rtpmap)
    scene = encoded.call(told, right)
    scene = replace(scene, left=lost(scene.left, {30}))
    recording = recorded(tmp_path, scene)
    assert_heard(channels(recording)[0], encoded.heard(left, scene.left, zero(scene)))
    assert_heard(channels(recording)[1], encoded.heard(right, scene.right, zero(scene)))
    name, other = right.rtpmap.partition("/")[0], left.rtpmap.partition("/")[0]
    assert notes(recording).startswith(f"Note: caller's {name} is packed as {other} is, and is decoded so")
    assert again(recording).exit_code == 0


@pytest.mark.parametrize("name", ["AMR", "AMR-WB"])
@pytest.mark.parametrize("octets", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_amr_in_the_other_payload_mode(name: str, octets: bool, count: int, tmp_path: Path) -> None:
    """The description says octet-align, or does not, and the packets are otherwise; the other side keeps to it."""
    left, right = encoded.amr(name, 1, octets=octets), encoded.amr(name, 2, octets=not octets)
    scene = encoded.call(replace(left, fmtp=right.fmtp), right, (count, 2))
    scene = replace(scene, left=lost(scene.left, {30}))
    recording = recorded(tmp_path, scene)
    assert_heard(channels(recording)[0], encoded.heard(left, scene.left, zero(scene), per_packet=count))
    assert_heard(channels(recording)[1], encoded.heard(right, scene.right, zero(scene)))
    way = "octet-aligned" if octets else "bandwidth-efficient"
    assert notes(recording) == f"Note: caller's {name} is {way}, not as its SDP has it, and is decoded so"
    assert again(recording).exit_code == 0


@pytest.mark.parametrize("aal2", [False, True])
def test_g_726_at_40_kbit_s_by_the_book(aal2: bool, tmp_path: Path) -> None:
    """As phones encode it, which is not as FFmpeg does: one side each."""
    played = encoded.tune(8000, 1)[:16_000]
    frames = encoded.cut(encoded.g726_by_the_book(played), 50)
    if aal2:
        frames = tuple(repacked(frame) for frame in frames)
    name = "AAL2-G726-40" if aal2 else "G726-40"
    right = encoded.g726(5, 2, aal2=aal2)
    left = replace(right, frames=frames, played=played)
    recording = recorded(tmp_path, encoded.call(left, right))
    sound = channels(recording)
    assert likeness(sound[0][100:16_000], played[100:]) > 0.999  # the first samples are its encoder's run-up
    assert likeness(sound[1], right.played) > 0.995
    assert f", {name} by the Recommendation itself; the packets" in recording.info["Decoded"]
    assert again(recording).exit_code == 0


def repacked(frame: bytes) -> bytes:
    """Codes of 5 bits, the first in the high bits in place of the low ones."""
    number = int.from_bytes(frame, "little")
    return int("".join(f"{number >> at & 31:05b}" for at in range(0, 8 * len(frame), 5)), 2).to_bytes(len(frame), "big")


def test_noise_in_g_726_is_decoded_as_it_was_told(tmp_path: Path) -> None:
    draw = random.Random(3)
    left = replace(encoded.g726(4, 1), frames=tuple(draw.randbytes(40) for _ in range(300)))
    scene = encoded.call(left, encoded.gsm(2))
    recording = recorded(tmp_path, scene)
    assert_heard(channels(recording)[0], encoded.heard(left, scene.left, zero(scene)))
    assert "packed" not in notes(recording)


def test_a_description_of_another_codec_is_no_crash(tmp_path: Path) -> None:
    """G.722 that is called Opus, GSM that is called AMR: nonsense, of the same length or silent, and counted."""
    left, right = encoded.g722(1), replace(encoded.gsm(2), pt=96)
    scene = renamed(encoded.call(left, right), "9 G722/8000", "9 opus/48000/2")
    scene = renamed(scene, "96 GSM/8000", "96 AMR/8000")
    recording = recorded(tmp_path, scene)
    assert float(recording.info["Duration"]) < 4
    assert "could not be decoded" in notes(recording)


@pytest.mark.parametrize(("name", "size"), [("GSM", 32), ("G.726 24", 2), ("G.723.1", 19), ("AMR", 3), ("Speex", 2)])
def test_frames_that_are_cut_short_are_silence_and_counted(name: str, size: int, tmp_path: Path) -> None:
    left, right = VOICES[name](1), VOICES[name](2)
    scene = encoded.call(left, right)
    cut = tuple(replace(p, payload=p.payload[:size]) if n in (7, 12) else p for n, p in enumerate(scene.left))
    recording = recorded(tmp_path, replace(scene, left=cut))
    assert_heard(channels(recording)[0], encoded.heard(left, lost(scene.left, {7, 12}), zero(scene)))
    assert "2 packets of caller could not be decoded; they are silence in the WAV" in notes(recording)


# -- what nobody has an encoder for: payloads of real phones -----------------------------------------------------------


def first_stream(capture: Path) -> shark.Stream:
    return max(shark.rtp_streams(capture), key=lambda stream: len(stream.packets))


REAL: dict[str, tuple[str, Callable[[list[bytes]], Samples]]] = {
    "G729": ("sip-rtp-g729a.pcap", encoded.by_command("-f", "g729")),
    "ILBC": ("sip-rtp-ilbc.pcap", encoded.by_command("-f", "ilbc", head=b"#!iLBC30\n")),
    "GSM": ("sip-rtp-gsm.pcap", encoded.by_command("-f", "gsm")),
    "OPUS": ("sip-rtp-opus.pcap", encoded.by_library("libopus", 48000)),
    "G722": ("sip-rtp-g722.pcap", encoded.by_command("-f", "g722")),
}


@shark.needs_wireshark
@pytest.mark.parametrize("name", REAL)
def test_payloads_of_real_phones(name: str, tmp_path: Path) -> None:
    capture, decode = REAL[name]
    if not (CAPTURES / capture).is_file():
        pytest.skip(f"no {capture}: set TAPDECK_CAPTURES to the folder of the public captures")
    recording = record(tmp_path / "out", CAPTURES / capture).only()
    assert recording.info["Codec"] == name
    expected = decode([packet.payload for packet in first_stream(CAPTURES / capture).ordered()])
    sound = max(channels(recording), key=lambda channel: int(np.abs(channel.astype(np.int32)).sum()))
    assert_heard(sound, expected)
    assert np.abs(expected).max() > 1000


@shark.needs_wireshark
def test_silence_descriptions_of_annex_b(tmp_path: Path) -> None:
    """G.729 from a real phone; one packet in three ends in a silence description (2 bytes), which has no length."""
    capture = CAPTURES / "sip-rtp-g729a.pcap"
    if not capture.is_file():
        pytest.skip(f"no {capture.name}: set TAPDECK_CAPTURES to the folder of the public captures")
    frames = encoded.cut(b"".join(packet.payload for packet in first_stream(capture).ordered()), 10)
    voice = Voice("G729/8000", 18, 8000, 10, frames, np.zeros(1, np.int16), encoded.by_command("-f", "g729"))
    scene = encoded.call(voice, encoded.gsm(2), (2, 2))
    cut = tuple(
        replace(packet, payload=packet.payload[:10] + b"\x12\x34") if number % 3 == 1 else packet
        for number, packet in enumerate(scene.left)
    )
    sound = channels(recorded(tmp_path, replace(scene, left=cut)))[0]
    said = [frame for packet in cut for frame in encoded.cut(packet.payload, 10)]
    decoded, at = voice.decode(said), 0
    for packet in cut:
        place = (packet.place_ns - zero(scene)) * 8000 // 10**9
        size = 80 * (len(packet.payload) // 10)
        assert sound[place : place + size].tolist() == decoded[at : at + size].tolist()
        assert not sound[place + size : place + 160].any()
        at += size
