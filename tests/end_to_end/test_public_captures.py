"""Real calls that others captured and published, beside what the manifest next to them expects.

The manifest was made with tshark. Where Tapdeck tells something else on purpose, `DIFFERENT` says what and why;
an entry that no longer differs fails too. The captures are not part of the project (set TAPDECK_CAPTURES to their folder).
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
from tests.support.record import A_LAW, DAMAGED, MU_LAW, NO_CALL, REPOSITORY, Recording, Result, record, unbalanced

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
DIFFERENT: dict[tuple[str, int], tuple[set[str], str]] = {}

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
    """What differs, by the manifest's number of the call. Each call is held against the one of ours that is most like it."""
    lines = sorted(result.lines[:-1], key=lambda line: str(line["start"]))
    ours = [found_facts(line, info_of(result, line), began(expected.name)) for line in lines]
    found: dict[int, set[str]] = {CAPTURE: set()}
    if len({line["call_id"] for line in lines}) != expected.invites:
        found[CAPTURE].add("Call-IDs")
    for call in expected.calls:
        facts = expected_facts(call)
        best = min(ours, key=lambda one: len(differences(facts, one)), default=None)
        if best is None:
            found[call.number] = {"missing"}
            continue
        ours.remove(best)
        found[call.number] = differences(facts, best)
    if ours and len(lines) != expected.invites:
        found[CAPTURE].add("more calls")
    return {number: keys for number, keys in found.items() if keys}


def info_of(result: Result, line: dict[str, Any]) -> str:
    names = [name for name in line["files"] if name.endswith("_info.txt")]
    return (result.out / names[0]).read_text(encoding="utf-8") if names else ""


def recordings(result: Result) -> Iterable[tuple[Recording, str]]:
    """The recordings with sound and the text beside each."""
    for one in result.recordings:
        yield one, one.path.with_name(one.path.stem + "_info.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", EXPECTED)
def test_the_calls_are_those_of_the_manifest(name: str, folder: Path) -> None:
    found = compare(EXPECTED[name], recorded(folder, name))
    known = {number: keys for (capture, number), (keys, _) in DIFFERENT.items() if capture == name}
    assert found == known


@pytest.mark.parametrize("name", EXPECTED)
def test_the_accounts_balance(name: str, folder: Path) -> None:
    result = recorded(folder, name)
    summary = result.summary
    assert unbalanced(summary["packets"]) == unbalanced(summary["calls"]) == 0
    assert len(result.lines) - 1 == summary["calls"]["seen"]
    assert bool(summary["damaged"]) == (name in CUT)
    assert result.code == (DAMAGED if name in CUT else 0 if summary["calls"]["seen"] else NO_CALL), result.stderr


@pytest.mark.parametrize("name", [name for name, one in EXPECTED.items() if one.strangers])
def test_streams_of_no_call_are_in_no_recording(name: str, folder: Path) -> None:
    result = recorded(folder, name)
    texts = [info_of(result, line) for line in result.lines[:-1]]
    heard = {ends for text in texts for side in ("Caller", "Callee") if text for ends in media(text, side)}
    assert not heard & {stream.ends for stream in EXPECTED[name].strangers}


def test_the_table_names_what_is_there() -> None:
    assert {name for name, _ in DIFFERENT} <= EXPECTED.keys()


# -- the sound ---------------------------------------------------------------------------------------------------------

SOUNDING = [
    name
    for name, one in EXPECTED.items()
    if any(stream.audible is not None and not stream.encrypted for call in one.calls for stream in call.streams)
]


@pytest.mark.parametrize("name", SOUNDING)
def test_as_much_is_audible_as_was_sent(name: str, folder: Path) -> None:
    streams = [stream for call in EXPECTED[name].calls for stream in call.streams]
    compared = 0
    for recording, info in recordings(recorded(folder, name)):
        for side, channel in zip(("Caller", "Callee"), hearing.sound(recording.path), strict=True):
            told = [stream for stream in streams if stream.ends in media(info, side) and stream.audible is not None]
            if told:
                heard, expected = _audible(name, channel, told)
                print(name, side, heard, expected)
                compared += 1
    assert compared == len([s for s in streams if s.audible is not None])


def _audible(name: str, channel: hearing.Sound, told: list[ExpectedStream]) -> tuple[int, int]:
    return hearing.audible_windows(channel, 160, LOUD), told[0].audible or 0


@pytest.mark.parametrize("name", SOUNDING)
def test_the_channels_are_the_payload_bytes(name: str, folder: Path) -> None:
    streams = shark.rtp_streams(CAPTURES / name)
    for recording, info in recordings(recorded(folder, name)):
        silence = hearing.SILENCE[recording.wav.tag]
        for side, channel in zip(("Caller", "Callee"), recording.wav.channels(), strict=True):
            own = [stream for stream in streams if stream.media_line in repeated(info, f"{side}-Media")]
            begin = _seconds(repeated(info, "AudioStart")[0])
            p = hearing.placed(channel, own, silence)
            late = [x.packet.time_s - begin - x.sample/8000 for x in p]
            print(name, side, len(p), [x.moved for x in p if x.moved], min(late, default=0), max(late, default=0))
