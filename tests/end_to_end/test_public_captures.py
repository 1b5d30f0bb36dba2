"""Real calls that others captured and published, beside what the manifest next to them expects.

The manifest was made with tshark. Where Tapdeck tells something else on purpose, `DIFFERENT` says what and why;
an entry that no longer differs fails too. The captures are not part of the project: TAPDECK_CAPTURES is their folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support import hearing, manifest, shark
from tests.support.manifest import ExpectedCall, ExpectedCapture, ExpectedStream
from tests.support.record import DAMAGED, MU_LAW, NO_CALL, REPOSITORY, Recording, Result, record, unbalanced

CAPTURES = Path(os.environ.get("TAPDECK_CAPTURES", REPOSITORY.parent / "shared" / "captures"))
MANIFEST = CAPTURES / "MANIFEST.tsv"
EXPECTED = {one.name: one for one in manifest.read(MANIFEST)} if MANIFEST.is_file() else {}
CUT = ("jnetpcap_tc_TC_IDPRE_EXT0140.pcap",)
"""Captures that end in the middle of a packet."""

CLOCK_S = 0.06
"""The manifest rounds to tenths of a second."""
LOUD = 150
"""RMS (of 16-bit samples) above which the manifest calls a packet audible."""

Facts = dict[str, Any]
CAPTURE = 0
"""In `DIFFERENT`, the number that stands for the capture itself."""
GONE = "only failures of an INVITE before the capture: a call begins with its INVITE, a provisional answer or a 2xx"
JOINED = "the capture begins within the call, whose INVITE it lacks"
FUZZED = (
    "fuzzed until its Call-ID, CSeq or start line is broken: Tapdeck counts the message as malformed, tshark reads on"
)
DIFFERENT: dict[tuple[str, int], tuple[set[str], str]] = {
    ("Asterisk_ZFONE_XLITE.pcap", 1): (
        {"outcome"},
        "in the clear until ZRTP has agreed on keys; that part is recorded",
    ),
    ("FAX-Call-t38.pcap", 1): (
        {"packets"},
        "from the offer of T.38 on, tshark takes RTP for T.38, although the offer was refused with 488 and RTP went on",
    ),
    ("goffinet_private-test-sip-2_g722.pcapng", 1): (
        {"bye"},
        "the first BYE was refused with 500, and media went on until the other side's BYE",
    ),
    ("goffinet_private-test-sip-2_g722.pcapng", 2): ({"missing"}, GONE),
    ("heplify_ipip0_rawip.pcap", 2): ({"missing"}, GONE),
    ("h223-over-rtp_clearmode.pcap", 1): ({"caller"}, "From is anonymous, the asserted identity is not"),
    ("sngrep_ipv6frag.pcap", 1): ({"caller"}, "the asserted identity is a number, From a name"),
    ("jnetpcap_tc_TC_IDPRE_EXT0140.pcap", 2): ({"callee"}, "the answers assert another identity than To has"),
    ("magum_call_transfer.pcapng", 1): ({"caller"}, "its users have one digit, which the manifest took for none"),
    ("magum_call_transfer.pcapng", 2): ({"missing"}, "its users have one digit, which the manifest took for none"),
    ("aaa.pcap", 1): ({"end"}, "the caller cancelled; 408 is what the server said of it afterwards"),
    ("freeswitch_oreka1_mid.pcapng", CAPTURE): ({"Call-IDs"}, JOINED),
    ("freeswitch_oreka1_mid.pcapng", 2): ({"end", "bye"}, "its BYE goes to a port that tshark does not know for SIP"),
    ("freeswitch_oreka1_mid.pcapng", 3): (
        {"answered", "end", "bye"},
        "the ACK and the BYE's answer tell of what is missing",
    ),
    ("vowifi_amr_sll_esp.pcap", CAPTURE): ({"Call-IDs"}, JOINED),
    ("vowifi_amr_sll_esp.pcap", 1): ({"callee", "end", "bye"}, "the answers' To and the answer to the BYE tell"),
    ("ndpi_gre_vlan_ppp_sip.pcapng", CAPTURE): ({"Call-IDs"}, JOINED),
    ("fuzz-2006-06-26-2594.pcap", CAPTURE): ({"Call-IDs"}, FUZZED),
    ("fuzz-2006-06-26-2594.pcap", 1): ({"missing"}, FUZZED),
    ("fuzz-2006-06-26-2594.pcap", 2): (
        {"outcome", "answered", "bye", "codec", "packets"},
        "RTP of the last call, a quarter of an hour later: the same port was offered in both",
    ),
    ("fuzz-2006-06-26-2594.pcap", 3): ({"caller"}, FUZZED),
    ("fuzz-2006-06-26-2594.pcap", 4): ({"missing"}, FUZZED),
    ("fuzz-2006-06-26-2594.pcap", 5): ({"caller"}, FUZZED),
    ("fuzz-2006-06-26-2594.pcap", 6): ({"end"}, FUZZED),
    ("fuzz-2006-06-26-2594.pcap", 7): ({"missing"}, FUZZED),
    **dict.fromkeys(
        (("voipshark_SIP-SRTP_two_parties.pcap", number) for number in (1, 2)),
        ({"outcome"}, "the manifest calls all SRTP encrypted; the keys of these calls are in their SDP"),
    ),
}
MORE_AUDIBLE = {("FAX-Call-t38.pcap", "10.35.60.100:15580 > 10.23.1.52:16756")}
"""Streams of which tshark, and so the manifest, sees only a part (see DIFFERENT)."""
SLOW_CLOCK = ("goffinet_voip1b_directmedia.pcapng",)
"""Its sender's time stamps advance 20 ms every 30: seven seconds in twenty, all silence."""
STALL_S = 0.25

pytestmark = [
    pytest.mark.skipif(not EXPECTED, reason="no public captures: set TAPDECK_CAPTURES to their folder"),
    shark.needs_wireshark,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("public")


@cache
def recorded(folder: Path, name: str) -> Result:
    return record(folder / name, CAPTURES / name)


@cache
def began(name: str) -> float:
    return shark.starts([CAPTURES / name])[name]


# -- a call's facts, as expected and as found --------------------------------------------------------------------------


def expected_facts(call: ExpectedCall) -> Facts:
    """What the manifest says of a call, in the words of the JSON lines and info files."""
    heard = [stream for stream in call.streams if not stream.is_video]
    facts: Facts = {"caller": call.caller, "callee": call.callee, "end": _expected_ends(call)}
    if not heard:
        return facts | {"outcome": "without_media"}
    if all(stream.encrypted for stream in heard):
        return facts | {"outcome": "encrypted"}
    packets: dict[str, int] = {}
    for stream in heard:
        packets[stream.ends] = packets.get(stream.ends, 0) + stream.packets
    return facts | {
        "outcome": "recorded",
        "answered": call.answered_s,
        "bye": call.bye_s,
        "codec": {_codec(name) for stream in heard for name in stream.codecs if _is_codec(name)},
        "packets": packets,
    }


def found_facts(line: dict[str, Any], info: str, began_s: float) -> Facts:
    """The same from a JSON line and the text of an info file (empty without one)."""
    facts: Facts = {key: line[key] for key in ("caller", "callee", "outcome")}
    facts["end"] = "BYE" if line["reason"].startswith("BYE by") else line["reason"]
    if not info:
        return facts
    said = {key: repeated(info, key) for key in ("Answered", "End", "Codec")}
    return facts | {
        "answered": None if said["Answered"] == ["no"] else _seconds(said["Answered"][0]) - began_s,
        "bye": _seconds(said["End"][0]) - began_s if facts["end"] == "BYE" else None,
        "codec": {word.split()[-1].upper() for word in re.split("[,;] ?", said["Codec"][0])},
        "packets": {side: (media(info, side), received(info, side)) for side in ("Caller", "Callee")},
    }


def differences(expected: Facts, found: Facts) -> set[str]:
    """The facts that are not told alike."""
    return {key for key in expected if key not in found or not _alike(key, expected[key], found[key])}


def _alike(key: str, expected: Any, found: Any) -> bool:
    if key == "end":
        return any(str(found).startswith(end) for end in expected)
    if key in ("answered", "bye"):
        return (expected is None) == (found is None) and (expected is None or abs(expected - found) < CLOCK_S)
    if key == "codec":
        # A rate is told where it is not the codec's usual one; the manifest seldom names it.
        return bool({name.partition("/")[0] for name in found} == {name.partition("/")[0] for name in expected})
    if key == "packets":
        named = [ends for side in found.values() for ends in side[0]]
        sums = {side: sum(expected.get(ends, 0) for ends in ends_of) for side, (ends_of, _) in found.items()}
        return sorted(named) == sorted(expected) and all(sums[side] == found[side][1] for side in found)
    return bool(expected == found)


def _expected_ends(call: ExpectedCall) -> tuple[str, ...]:
    if call.answered_s is None:
        return (call.final,) if call.final else ("end of input", "no answer seen", "no final response")
    return ("BYE",) if call.bye_s is not None else ("end of input", "no BYE seen")


def _codec(name: str) -> str:
    return manifest.NAMES.get(name, name).upper()


def _is_codec(name: str) -> bool:
    return name not in manifest.NO_CODEC and not name.startswith("RTPType")


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def repeated(info: str, key: str) -> list[str]:
    return [line.partition(": ")[2] for line in info.splitlines() if line.startswith(key + ":")]


def media(info: str, side: str) -> list[str]:
    """The ends of the streams that a side's sound came by, each once."""
    return sorted({line.partition(" ssrc=")[0] for line in repeated(info, f"{side}-Media")})


def received(info: str, side: str) -> int:
    found = re.match(r"received=(\d+)", repeated(info, f"{side}-Packets")[0])
    assert found
    return int(found[1])


# -- the comparison ----------------------------------------------------------------------------------------------------


def compare(expected: ExpectedCapture, result: Result) -> dict[int, set[str]]:
    """What differs, by the manifest's number of the call."""
    lines = sorted(result.lines[:-1], key=lambda line: str(line["start"]))
    ours = [found_facts(line, info_of(result, line), began(expected.name)) for line in lines]
    found = match_calls({call.number: expected_facts(call) for call in expected.calls}, ours)
    about: set[str] = set()
    if len({line["call_id"] for line in lines}) != expected.invites:
        about.add("Call-IDs")
    if len(lines) > max(expected.invites, len(expected.calls)):
        about.add("more calls")
    return {number: keys for number, keys in (found | {CAPTURE: about}).items() if keys}


def match_calls(expected: dict[int, Facts], ours: list[Facts]) -> dict[int, set[str]]:
    """Hold each call against the one of ours that is most like it. Who shares neither party is another call."""
    pairs = [(differences(facts, one), number, at) for number, facts in expected.items() for at, one in enumerate(ours)]
    pairs = [pair for pair in pairs if not {"caller", "callee"} <= pair[0]]
    found: dict[int, set[str]] = {}
    taken: set[int] = set()
    for keys, number, at in sorted(pairs, key=lambda pair: (len(pair[0]), *pair[1:])):
        if number not in found and at not in taken:
            found[number] = keys
            taken.add(at)
    return {number: found.get(number, {"missing"}) for number in expected}


def info_of(result: Result, line: dict[str, Any]) -> str:
    names = [name for name in line["files"] if name.endswith("_info.txt")]
    return (result.out / names[0]).read_text(encoding="utf-8") if names else ""


@pytest.mark.parametrize("name", EXPECTED)
def test_the_capture_is_recorded_as_the_manifest_says(name: str, folder: Path) -> None:
    result = recorded(folder, name)
    assert_accounts(name, result)
    texts = [info_of(result, line) for line in result.lines[:-1] if line["files"]]
    heard = {ends for text in texts for side in ("Caller", "Callee") for ends in media(text, side)}
    assert not heard & {stream.ends for stream in EXPECTED[name].strangers}, "a stream of no call was recorded"
    found = compare(EXPECTED[name], result)
    known = {number: keys for (capture, number), (keys, _) in DIFFERENT.items() if capture == name}
    assert found == known, sorted(found.items())


def assert_accounts(name: str, result: Result) -> None:
    summary = result.summary
    assert unbalanced(summary["packets"]) == unbalanced(summary["calls"]) == 0
    assert len(result.lines) - 1 == summary["calls"]["seen"]
    assert bool(summary["damaged"]) == (name in CUT)
    assert result.code == (DAMAGED if name in CUT else 0 if summary["calls"]["seen"] else NO_CALL), result.stderr


def test_the_table_names_what_is_there() -> None:
    assert {name for name, _ in DIFFERENT} <= EXPECTED.keys()


# -- the sound ---------------------------------------------------------------------------------------------------------

TWO_CODECS = "codec-negotiation_reinvite.pcap"
"""It goes from mu-law to G.722, so that its WAV holds no codes; the manifest counts what is audible in mu-law alone."""
SOUNDING = [
    name
    for name, one in EXPECTED.items()
    if name != TWO_CODECS
    and any(stream.audible is not None and not stream.encrypted for call in one.calls for stream in call.streams)
]


@cache
def rtp_streams(name: str) -> list[shark.Stream]:
    return shark.rtp_streams(CAPTURES / name)


def channels(folder: Path, name: str) -> Iterable[tuple[str, Recording, str, int]]:
    """Each recording's text and path, and its two sides with the number of the channel."""
    for recording in recorded(folder, name).recordings:
        info = recording.path.with_name(recording.path.stem + "_info.txt").read_text(encoding="utf-8")
        for number, side in enumerate(("Caller", "Callee")):
            yield info, recording, side, number


@pytest.mark.parametrize("name", SOUNDING)
def test_as_much_is_audible_as_was_sent(name: str, folder: Path) -> None:
    """A WAV's packet-long windows need not begin where packets do, so a few at the edges of speech count otherwise."""
    told = [stream for call in EXPECTED[name].calls for stream in call.streams if stream.audible is not None]
    compared = set()
    for info, recording, side, number in channels(folder, name):
        for stream in (stream for stream in told if stream.ends in media(info, side)):
            compared.add(stream.ends)
            if (name, stream.ends) in MORE_AUDIBLE:
                continue
            heard = hearing.audible_windows(hearing.sound(recording.path)[number], window(name, stream), LOUD)
            assert heard == pytest.approx(stream.audible, rel=0.05, abs=5)
    assert compared == {stream.ends for stream in told}


def window(name: str, stream: ExpectedStream) -> int:
    """Samples in the stream's packets, after tshark."""
    sizes = [
        len(p.payload)
        for one in rtp_streams(name)
        if f"{one.source} > {one.target}" == stream.ends
        for p in one.packets
    ]
    return max(set(sizes), key=sizes.count)


@pytest.mark.parametrize("name", SOUNDING)
def test_the_channels_are_the_payload_bytes(name: str, folder: Path) -> None:
    for info, recording, side, number in channels(folder, name):
        lines = repeated(info, f"{side}-Media")
        own = [stream for stream in rtp_streams(name) if stream.media_line in lines]
        assert len(own) == len(lines)
        if any((name, f"{stream.source} > {stream.target}") in MORE_AUDIBLE for stream in own):
            continue
        found = hearing.placed(recording.wav.channels()[number], own, hearing.SILENCE[recording.wav.tag])
        assert len(found) == sum(packet.payload_type in hearing.LAWS for one in own for packet in one.ordered())
        late = [
            one.packet.time_s - _seconds(repeated(info, "AudioStart")[0]) - one.sample / hearing.RATE for one in found
        ]
        if name not in SLOW_CLOCK:
            assert max(map(abs, late), default=0.0) < STALL_S


# -- the traps of the folder's README ----------------------------------------------------------------------------------


def here(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(name not in EXPECTED, reason=f"no capture {name}")


@here(TWO_CODECS)
def test_a_call_in_two_codecs_is_one_sound(folder: Path) -> None:
    """Its packets follow each other without a gap, 20 ms each, whatever they hold; both halves are audible."""
    recording = recorded(folder, TWO_CODECS).only()
    assert recording.info["Codec"] == "PCMU, G722"
    assert (recording.wav.rate, recording.wav.bits) == (16000, 16)
    sound = hearing.sound(recording.path)
    streams = [stream for stream in rtp_streams(TWO_CODECS) if stream.packets]
    assert {packet.payload_type for stream in streams for packet in stream.packets} == {0, 9}
    longest = max(sum(len(other.packets) for other in streams if other.source == one.source) for one in streams)
    assert sound.shape[1] / 320 == pytest.approx(longest, abs=2)
    for channel in sound:
        halves = channel[: len(channel) // 3], channel[-len(channel) // 3 :]
        assert all(hearing.audible_windows(half, 320, LOUD) > len(half) / 320 * 0.9 for half in halves)


@here("Asterisk_ZFONE_XLITE.pcap")
def test_nothing_is_written_after_the_keys_are_agreed(folder: Path) -> None:
    """The manifest counts the packets that are SRTP from then on, although SDP says RTP/AVP."""
    name = "Asterisk_ZFONE_XLITE.pcap"
    recording = recorded(folder, name).only()
    wav = recording.wav.channels()
    packets = [packet for stream in rtp_streams(name) for packet in stream.packets if packet.payload]
    secret = [packet.payload for packet in packets if packet.secret]
    clear = [packet.payload for packet in packets if not packet.secret and packet.payload_type == 0]
    assert len(secret) == 778 + 204
    assert not [payload for payload in secret if payload in wav[0] or payload in wav[1]]
    assert clear
    assert all(payload in wav[0] or payload in wav[1] for payload in clear)
    heard = sum(octet != hearing.SILENCE[MU_LAW][0] for channel in wav for octet in channel)
    assert heard <= sum(map(len, clear))
    assert not list(recorded(folder, name).out.rglob("*.pcapng"))


@here("h223-over-rtp_clearmode.pcap")
def test_data_is_not_written_as_sound(folder: Path) -> None:
    result = recorded(folder, "h223-over-rtp_clearmode.pcap")
    assert not list(result.out.rglob("*.wav"))
    assert len(list(result.out.rglob("*.pcapng"))) == 1


@here("voipshark_SIP-SRTP_two_parties.pcap")
def test_srtp_through_a_pbx_is_the_same_speech_on_both_legs(folder: Path) -> None:
    """Asterisk encrypts each leg with keys of its own, of four lines offered; what it passes on is what it heard."""
    one, two = recorded(folder, "voipshark_SIP-SRTP_two_parties.pcap").recordings
    for side in (0, 1):
        channel, relayed = (recording.wav.channels()[side] for recording in (one, two))
        windows = [channel[at : at + 800] for at in range(8000, len(channel) - 8000, 800)]
        probe = max(windows, key=lambda window: len(set(window)))
        assert len(set(probe)) > 20
        assert probe in relayed
    for recording in (one, two):
        assert recording.info["Encrypted"] == "SRTP AES_CM_128_HMAC_SHA1_80 (SDES)"
        assert recording.info["Caller-Srtp"] == recording.info["Callee-Srtp"] == "authenticated=1135 failed=0"


@here("SIP_DTMF2.pcap")
def test_keys_of_a_call_with_a_delayed_offer(folder: Path) -> None:
    assert recorded(folder, "SIP_DTMF2.pcap").only().info["Digits"] == "6789123"


@pytest.mark.parametrize("name", [name for name, one in EXPECTED.items() if not one.calls])
def test_what_is_no_call_leaves_nothing(name: str, folder: Path) -> None:
    result = recorded(folder, name)
    assert result.code == NO_CALL
    assert not list(result.out.rglob("*.*"))


def legs(expected: ExpectedCapture) -> int:
    """Dialogs with sound that are legs of one call: the parties are the same, and so is the moment of the answer."""
    recorded_ones = [call for call in expected.calls if expected_facts(call)["outcome"] == "recorded"]
    calls = [call for call in recorded_ones if call.answered_s is not None]
    parties = [(call.caller, call.callee, call.answered_s) for call in calls]
    return sum(parties.count(one) > 1 for one in parties)


@pytest.mark.parametrize("name", [name for name, one in EXPECTED.items() if legs(one)])
def test_legs_of_one_call_name_each_other(name: str, folder: Path) -> None:
    found = recorded(folder, name).recordings
    ids = {one.info["RecordingId"]: one.info["RelatedCalls"] for one in found}
    assert len(ids) == legs(EXPECTED[name])
    for own, related in ids.items():
        assert any(other in related for other in ids if other != own)
