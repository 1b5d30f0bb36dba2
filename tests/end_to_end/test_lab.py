"""Calls between real clients, recorded on a mirror port, beside what the lab says happened in them.

Expected values come from the JSON beside each capture, from the speech that was played, and from tshark.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.support import hearing, shark
from tests.support.record import A_LAW, MU_LAW, NO_CALL, PCM, REPOSITORY, Recording, Result, record, unbalanced

Expected = dict[str, Any]

OURS = REPOSITORY / "fixtures" / "lab"
LAB = Path(os.environ.get("TAPDECK_LAB", REPOSITORY.parent / "shared" / "lab" / "captures"))
AUDIO = LAB.parent / "audio"
CAPTURES = {path.stem: path for folder in (LAB, OURS) for path in sorted(folder.glob("*.pcap"))}

DIALOGS = {"k2_b2bua": 2, "k3_b2bua_newid": 2, "k4_transcode": 2}
"""Scenarios whose one call crosses the mirror as so many dialogs."""
HIDDEN = ("g1_tls_rsa", "g2_tls13_keylog")
DECODED = {"c_g722": 16_000, "d_opus": 48_000}
"""Scenarios in codecs that have to be decoded, and the rate of their sound."""
SILENT = (*HIDDEN, *DECODED, "e_sdes", "l_failed")
SOUNDING = sorted(CAPTURES.keys() - set(SILENT))

CLOCK_S = 0.06
"""The phone tells of an event, and the packet of it passes the mirror, within this time."""
PLACE_S, STALL_S = 0.03, 0.25
"""A packet is heard where it arrived: most within the first (jitter), all within the second (a machine that stood)."""
BUFFER_S = 0.3
"""A user agent that decodes and encodes again may fill a stall with so much silence of its own."""
LIKE, UNLIKE = 0.98, 0.3
"""How a channel correlates with the text spoken in it, and with another."""


def every(names: list[str] | tuple[str, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", names)


def only(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(name not in CAPTURES, reason=f"no capture {name}: set TAPDECK_LAB to the lab's folder")


needs_speech = pytest.mark.skipif(not AUDIO.is_dir(), reason="no speech: set TAPDECK_LAB to the lab's captures")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@cache
def recorded(folder: Path, name: str) -> Result:
    return record(folder / name, CAPTURES[name])


def call_file(name: str) -> Expected:
    found: Expected = json.loads(CAPTURES[name].with_suffix(".json").read_text())
    return found


def calls(name: str) -> list[Expected]:
    found: list[Expected] = call_file(name)["calls"]
    return found


def pairs(folder: Path, name: str) -> list[tuple[Expected, Recording]]:
    """Each recording and the call it must be of, in order of start; of two legs, the one with the caller first."""
    expected = [call for call in calls(name) for _ in range(DIALOGS.get(name, 1))]
    found = sorted(recorded(folder, name).recordings, key=lambda one: one.info["Datetime"])
    assert len(found) == len(expected)
    if name in DIALOGS:
        found.sort(key=lambda one: not is_own(expected[0], one, "caller"))
    return list(zip(expected, found, strict=True))


def is_own(call: Expected, recording: Recording, side: str) -> bool:
    """Whether the sound of a side is what its phone sent, not what a PBX sent on."""
    address = call["media"][side]["ip"]
    return recording.info[f"{side.title()}-Media"].startswith((f"{address}:", f"[{address}]:"))


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def user(address: str) -> str:
    return address.partition(":")[2].partition("@")[0]


def counts(recording: Recording, side: str) -> dict[str, str]:
    return dict(word.split("=") for word in recording.info[f"{side}-Packets"].split())


def repeated(recording: Recording, key: str) -> list[str]:
    """All lines of a key that may come several times."""
    text = recording.path.with_name(recording.path.stem + "_info.txt").read_text(encoding="utf-8")
    return [line.partition(": ")[2] for line in text.splitlines() if line.startswith(key + ":")]


def own_streams(name: str, recording: Recording, side: str) -> list[shark.Stream]:
    """The streams of a side as tshark sees them."""
    lines = repeated(recording, f"{side}-Media")
    found = [stream for stream in streams(name) if stream.media_line in lines]
    assert len(found) == len(lines)
    return found


@cache
def streams(name: str) -> list[shark.Stream]:
    return shark.rtp_streams(CAPTURES[name])


# -- what is said of every call ----------------------------------------------------------------------------------------


@every(sorted(CAPTURES.keys() - set(HIDDEN)))
def test_the_calls(name: str, folder: Path) -> None:
    result = recorded(folder, name)
    assert result.code == 0, result.stderr
    expected = [call for call in calls(name) for _ in range(DIALOGS.get(name, 1))]
    found = sorted(result.lines[:-1], key=lambda line: str(line["start"]))
    assert [(line["caller"], line["callee"]) for line in found] == [
        (user(call["caller"]), user(call["callee"])) for call in expected
    ]
    for call, line in zip(expected, found, strict=True):
        assert seconds(line["start"]) == pytest.approx(call["start"], abs=CLOCK_S)
        if by := call.get("ended_by"):
            assert line["reason"] == f"BYE by {by}"


@every(sorted(CAPTURES))
def test_the_accounts_balance(name: str, folder: Path) -> None:
    summary = recorded(folder, name).summary
    assert unbalanced(summary["packets"]) == 0
    assert unbalanced(summary["calls"]) == 0
    assert not summary["damaged"]


@every(SOUNDING)
def test_what_the_info_file_says(name: str, folder: Path) -> None:
    laws = {"PCMA": A_LAW, "PCMU": MU_LAW}
    for number, (call, recording) in enumerate(pairs(folder, name)):
        info = recording.info
        assert (info["Caller"], info["Callee"]) == (user(call["caller"]), user(call["callee"]))
        assert seconds(info["Answered"]) == pytest.approx(call["answer"], abs=CLOCK_S)
        assert seconds(info["End"]) == pytest.approx(call["end"], abs=CLOCK_S)
        early = call["answer"] - call.get("progress", call["answer"])
        assert float(info["Duration"]) == pytest.approx(call["duration"] + early, abs=0.1)
        # A back-to-back user agent between the two may use another codec towards the callee.
        codec = call["media"]["callee" if number and name in DIALOGS else "caller"]["codec"]
        assert info["Codec"] == codec
        assert recording.wav.tag == laws[codec]
        assert len(recording.wav.data) / 2 / hearing.RATE == pytest.approx(float(info["Duration"]), abs=0.001)


@every([name for name in SOUNDING if name not in ("n_impaired", "j_dtmf")])
def test_nothing_is_lost_or_doubled(name: str, folder: Path) -> None:
    for _, recording in pairs(folder, name):
        for side in ("Caller", "Callee"):
            said = counts(recording, side)
            assert (said["lost"], said["duplicate"], said["reordered"]) == ("0", "0", "0")
            assert float(recording.info["Duration"]) * 50 - 3 <= int(said["received"]) + held(recording, side)


def held(recording: Recording, side: str) -> float:
    """Packets of 20 ms that the stretches without any could have held."""
    return sum(float(gap.split("+")[1]) for gap in repeated(recording, f"{side}-Gap")) * 50


# -- the sound ---------------------------------------------------------------------------------------------------------


@shark.needs_wireshark
@every(SOUNDING)
def test_the_channels_are_the_payload_bytes(name: str, folder: Path) -> None:
    for _, recording in pairs(folder, name):
        begin = seconds(recording.info["AudioStart"])
        silence = hearing.SILENCE[recording.wav.tag]
        for side, channel in zip(("Caller", "Callee"), recording.wav.channels(), strict=True):
            found = hearing.placed(channel, own_streams(name, recording, side), silence)
            assert found
            late = [one.packet.time_s - begin - one.sample / hearing.RATE for one in found]
            assert abs(median(late)) < PLACE_S
            assert max(map(abs, late)) < STALL_S
            moved = [one.moved for one in found if one.moved]
            # sipp's second file begins with a time stamp of its own, 8 ms off
            assert not moved or (name == "i_early" and side == "Callee" and len(moved) == 1)


@dataclass(frozen=True)
class Heard:
    """One channel between the answer and the first hold, the text that was spoken into it, and another's.

    `begin_s`: where the text must begin, counted from the first sample of `sound`.
    """

    sound: hearing.Sound
    own: hearing.Sound
    other: hearing.Sound
    begin_s: float
    passed_on: bool


def text(source: str) -> hearing.Sound:
    return hearing.alaw_file(AUDIO / f"{Path(source).stem}.al")


def heard(call: Expected, recording: Recording) -> list[Heard]:
    start = seconds(recording.info["AudioStart"])
    first = max(int((call["answer"] - start) * hearing.RATE), 0)
    last = int((call["hold" if "hold" in call else "end"] - start) * hearing.RATE)
    both = [text(call["media"][side]["source_wav"]) for side in ("caller", "callee")]
    found: list[Heard] = []
    for side, channel, own, other in zip(
        ("caller", "callee"), hearing.sound(recording.path), both, both[::-1], strict=True
    ):
        # The caller's phone plays from the moment it has an answer's SDP, be that in a 183.
        speaks: float = call["progress" if side == "caller" and "progress" in call else "answer"]
        begin_s = speaks - start - first / hearing.RATE
        found.append(Heard(channel[first:last], own, other, begin_s, not is_own(call, recording, side)))
    return found


@needs_speech
@every([name for name in SOUNDING if name not in ("n_impaired", "k4_transcode")])
def test_who_is_heard_where(name: str, folder: Path) -> None:
    for call, recording in pairs(folder, name):
        for one in heard(call, recording):
            found = hearing.match(one.sound, one.own)
            assert found.likeness > LIKE
            assert found.lag / hearing.RATE == pytest.approx(one.begin_s, abs=CLOCK_S)
            assert abs(hearing.match(one.sound, one.other).likeness) < UNLIKE


@needs_speech
@only("k4_transcode")
def test_who_is_heard_through_a_transcoder(folder: Path) -> None:
    """The phones' own sound is exact. Its copy was decoded and encoded again, with silence where a packet was late."""
    passed_on = 0
    for call, recording in pairs(folder, "k4_transcode"):
        for one in heard(call, recording):
            passed_on += one.passed_on
            middle = len(one.sound) // 2
            for part in (slice(0, 2 * hearing.RATE), slice(middle, None)) if one.passed_on else (slice(None),):
                found = hearing.match(one.sound[part], one.own[part])
                assert found.likeness > LIKE
                assert -CLOCK_S < found.lag / hearing.RATE - one.begin_s < (BUFFER_S if one.passed_on else CLOCK_S)
            assert abs(hearing.match(one.sound, one.other).likeness) < UNLIKE
    assert passed_on == 2


@needs_speech
@only("n_impaired")
def test_who_is_heard_on_a_bad_line(folder: Path) -> None:
    [(call, recording)] = pairs(folder, "n_impaired")
    lost = call_file("n_impaired")["impairment"]["lost_from_phone"] / (call["duration"] * 50)
    caller, callee = heard(call, recording)
    # Were all packets as loud, the coefficient would fall by half of the share that is missing.
    assert hearing.match(caller.sound, caller.own).likeness > 1 - 3 * lost
    assert hearing.match(callee.sound, callee.own).likeness > LIKE
    for one in (caller, callee):
        assert hearing.match(one.sound, one.own).lag / hearing.RATE == pytest.approx(one.begin_s, abs=CLOCK_S)
        assert abs(hearing.match(one.sound, one.other).likeness) < UNLIKE


# -- what is special in one scenario -----------------------------------------------------------------------------------


@only("n_impaired")
def test_loss_and_copies_are_those_of_the_link(folder: Path) -> None:
    """Only the caller's link is bad, and what was lost towards the caller passed the mirror before."""
    recording = recorded(folder, "n_impaired").only()
    done = call_file("n_impaired")["impairment"]
    caller, callee = counts(recording, "Caller"), counts(recording, "Callee")
    assert (int(caller["lost"]), int(caller["duplicate"])) == (done["lost_from_phone"], done["dup_from_phone"])
    assert int(caller["received"]) == int(caller["expected"]) - done["lost_from_phone"] + done["dup_from_phone"]
    assert 0 < int(caller["reordered"]) <= done["late_from_phone"]
    assert (callee["lost"], callee["duplicate"], callee["reordered"]) == ("0", "0", "0")
    silent = sum(float(gap.split("+")[1]) for gap in repeated(recording, "Caller-Gap"))
    assert silent == pytest.approx(done["lost_from_phone"] * 0.02, abs=0.001)


@only("t_both")
def test_a_mirror_of_both_directions(folder: Path) -> None:
    result = recorded(folder, "t_both")
    kept = sum(int(counts(result.only(), side)["received"]) for side in ("Caller", "Callee"))
    assert result.summary["packets"]["duplicate"] == result.summary["packets"]["kept"] == kept
    assert result.summary["packet_kinds"]["duplicate"] == {"mirrored copies": kept}
    assert any("twice" in note for note in repeated(result.only(), "Note"))


@shark.needs_wireshark
@only("k1_proxy")
def test_relayed_media_is_one_recording(folder: Path) -> None:
    result = recorded(folder, "k1_proxy")
    packets = sum(len(stream.packets) for stream in streams("k1_proxy"))
    assert packets == 2 * 1053
    assert (result.summary["packets"]["kept"], result.summary["packets"]["relayed"]) == (1053, 1053)
    [(call, recording)] = pairs(folder, "k1_proxy")
    assert all(is_own(call, recording, side) for side in ("caller", "callee"))
    assert any("1053 packets were relayed copies" in note for note in repeated(recording, "Note"))


@pytest.mark.parametrize("name", [pytest.param(name, marks=only(name)) for name in DIALOGS])
def test_two_legs_name_each_other(name: str, folder: Path) -> None:
    (call, first), (_, second) = pairs(folder, name)
    assert [is_own(call, first, side) for side in ("caller", "callee")] == [True, False]
    assert [is_own(call, second, side) for side in ("caller", "callee")] == [False, True]
    for one, other in ((first, second), (second, first)):
        assert one.info["RelatedCalls"] == f"{other.info['RecordingId']} ({other.info['CallId']})"
    assert (first.info["CallId"] == second.info["CallId"]) == (name == "k2_b2bua")


@only("m_refer")
def test_a_transferred_call_names_the_first(folder: Path) -> None:
    (old, first), (new, second) = pairs(folder, "m_refer")
    assert new["transferred_from"] == old["callee"]
    assert first.info["EndReason"].startswith("BYE")
    assert second.info["RelatedCalls"] == f"{first.info['RecordingId']} ({first.info['CallId']})"


@only("j_dtmf")
def test_keys(folder: Path) -> None:
    [(call, recording)] = pairs(folder, "j_dtmf")
    [pressed] = call["dtmf"]
    assert recording.info["Digits"] == pressed["digits"]
    lines = [line.split() for line in repeated(recording, "Digit")]
    assert [line[0] for line in lines] == list(pressed["digits"])
    assert {line[2] for line in lines} == {pressed["from"]}
    assert seconds(lines[0][4]) == pytest.approx(pressed["t"], abs=CLOCK_S)
    assert counts(recording, "Caller")["lost"] == counts(recording, "Caller")["duplicate"] == "0"


@only("h_hold")
def test_hold(folder: Path) -> None:
    [(call, recording)] = pairs(folder, "h_hold")
    said = [line.split() for line in repeated(recording, "Hold")]
    assert [line[:3] for line in said] == [["held", "by", "caller"], ["resumed", "by", "caller"]]
    for line, key in zip(said, ("hold", "resume"), strict=True):
        assert seconds(line[4]) == pytest.approx(call[key], abs=CLOCK_S)
    start = seconds(recording.info["AudioStart"])
    for side in ("Caller", "Callee"):
        [(first, length)] = [gap.split("+") for gap in repeated(recording, f"{side}-Gap")]
        assert float(first) == pytest.approx(call["hold"] - start, abs=CLOCK_S)
        assert float(length) == pytest.approx(call["resume"] - call["hold"], abs=CLOCK_S)


@needs_speech
@only("h_hold")
def test_the_channels_stay_aligned_after_a_hold(folder: Path) -> None:
    """The texts run on during the hold, so where each is after it tells where the channel has come to."""
    [(call, recording)] = pairs(folder, "h_hold")
    resumed = call["resume"] - seconds(recording.info["AudioStart"]) + CLOCK_S
    first = int(resumed * hearing.RATE)
    for one, channel in zip(heard(call, recording), hearing.sound(recording.path), strict=True):
        found = hearing.match(one.own[: len(channel)], channel[first:])
        assert found.likeness > LIKE
        assert found.lag / hearing.RATE == pytest.approx(resumed, abs=CLOCK_S)


@needs_speech
@only("i_early")
def test_early_media_is_on_the_right(folder: Path) -> None:
    [(call, recording)] = pairs(folder, "i_early")
    start = seconds(recording.info["AudioStart"])
    answer = int((call["answer"] - start) * hearing.RATE)
    _, right = hearing.sound(recording.path)
    early = text(call["media"]["callee"]["early_wav"])
    found = hearing.match(right[:answer], early)
    assert found.likeness > LIKE
    assert found.lag / hearing.RATE == pytest.approx(call["progress"] - start, abs=CLOCK_S)
    assert answer / hearing.RATE == pytest.approx(3, abs=CLOCK_S)
    assert abs(hearing.match(right[answer:], early).likeness) < UNLIKE


@shark.needs_wireshark
@only("i_early")
def test_drift_is_told_with_its_sign(folder: Path) -> None:
    """sipp plays a little too fast: its clock runs ahead of the recorder's, so its packets come ever earlier (`+`)."""
    recording = recorded(folder, "i_early").only()
    channel = recording.wav.channels()[1]
    found = hearing.placed(channel, own_streams("i_early", recording, "Callee"), hearing.SILENCE[A_LAW])
    late_ms = [(one.packet.time_s - one.sample / hearing.RATE) * 1000 for one in found]
    ahead_ms = min(late_ms[:50]) - min(late_ms[-50:])
    assert ahead_ms > 5
    told = recording.info["Callee-Drift"].split("ms")[0]
    assert float(told) == pytest.approx(ahead_ms, abs=3)


# -- what gives no sound -----------------------------------------------------------------------------------------------


@only("l_failed")
def test_calls_without_an_answer(folder: Path) -> None:
    result = recorded(folder, "l_failed")
    assert not list(result.out.rglob("*.*"))
    for call, line in zip(calls("l_failed"), result.lines[:-1], strict=True):
        reason = "CANCEL" if call["result"] == "cancelled" else call["close_reason"][0]
        assert (line["outcome"], line["reason"], line["files"]) == ("without_media", reason, [])
    assert result.summary["calls"]["without_media"] == len(calls("l_failed"))


@needs_speech
@only("e_sdes")
def test_an_encrypted_call(folder: Path) -> None:
    """SRTP with keys in the SDP: what baresip's libsrtp encrypted is the speech that was played."""
    [(call, recording)] = pairs(folder, "e_sdes")
    assert recording.info["Encrypted"] == "SRTP AES_CM_128_HMAC_SHA1_80 (SDES)"
    for side, name in enumerate(("Caller", "Callee")):
        assert recording.info[f"{name}-Srtp"].endswith(" failed=0")
        channel = hearing.sound(recording.path)[side]
        assert hearing.match(channel, text(call["media"][name.lower()]["source_wav"])).likeness > LIKE


@pytest.mark.parametrize("name", [pytest.param(name, marks=only(name)) for name in HIDDEN])
def test_a_call_inside_tls_is_not_seen(name: str, folder: Path) -> None:
    result = recorded(folder, name)
    assert result.code == NO_CALL
    assert result.summary["calls"]["seen"] == 0
    assert not list(result.out.rglob("*.*"))


@shark.needs_wireshark
@pytest.mark.parametrize("name", [pytest.param(name, marks=only(name)) for name in DECODED])
def test_the_packets_of_a_decoded_codec_are_kept(name: str, folder: Path) -> None:
    result = recorded(folder, name)
    [line] = result.lines[:-1]
    [call] = calls(name)
    assert line["codec"].lower() == call["codec"].lower()
    [kept] = result.out.rglob("*.pcapng")
    [info] = result.out.rglob("*_info.txt")
    said = info.read_text(encoding="utf-8")
    assert f"are in {kept.name}" in result.only().info["Decoded"]
    for stream in streams(name):
        assert stream.media_line in said
        ends = (stream.source, stream.target)
        assert shark.udp_payloads(kept, ends) == shark.udp_payloads(CAPTURES[name], ends)
    assert len(shark.udp_payloads(kept)) == sum(len(stream.packets) for stream in streams(name))


@needs_speech
@pytest.mark.parametrize("name", [pytest.param(name, marks=only(name)) for name in DECODED])
def test_a_decoded_codec_sounds_as_what_was_played(name: str, folder: Path) -> None:
    """A waveform codec, and one that keeps close to it: at the right place, in the right channel, hardly changed."""
    recording = recorded(folder, name).only()
    [call] = calls(name)
    rate = DECODED[name]
    start = seconds(recording.info["AudioStart"])
    assert (recording.wav.tag, recording.wav.bits, recording.wav.rate) == (PCM, 16, rate)
    both = [
        hearing.sound(AUDIO / f"{Path(call['media'][side]['source_wav']).stem.partition('_')[0]}_{rate // 1000}k.wav")[
            0
        ]
        for side in ("caller", "callee")
    ]
    for channel, own, other in zip(hearing.sound(recording.path), both, both[::-1], strict=True):
        found = hearing.match(channel, own)
        assert found.likeness > LIKE
        assert found.lag / rate == pytest.approx(call["answer"] - start, abs=CLOCK_S)
        assert abs(hearing.match(channel, other).likeness) < UNLIKE
