"""Calls between real phones, recorded from a mirror port while they are made.

What is expected comes from the speech that was played, and from tcpdump on the same tap.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import hearing, replay, shark
from tests.support.box import Box
from tests.support.lab import DOUBLED, ONCE, RX_ONLY, Lab, Mirror
from tests.support.netns import Namespaces, Wire
from tests.support.phones import Baresip, Dump, Sipp, needs_phones
from tests.support.record import A_LAW, MU_LAW, REPOSITORY, Recording, record
from tests.support.speech import Speech, speech

LIKE, UNLIKE = 0.98, 0.3
"""How a channel correlates with the text spoken in it, and with another."""
TALK_S = 2.0
CAPTURES = sorted((REPOSITORY / "fixtures" / "lab").glob("*.pcap"))

pytestmark = needs_phones


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Speech]:
    folder = tmp_path_factory.mktemp("speech")
    return {host: speech(folder, host) for host in ("a", "b")}


@contextmanager
def listening(folder: Path, mirror: Mirror = ONCE) -> Iterator[tuple[Lab, Box, Path]]:
    """A lab with a recorder and tcpdump on its tap; the recorder is stopped, with all calls sealed, at the end."""
    dump = folder / "dump.pcap"
    with Lab(mirror) as lab, Box(lab.tap, ["mon0"], folder, more=("--bye-linger-s", "0.5")) as box:
        with Dump(lab.spaces, lab.tap, dump):
            yield lab, box, dump
        box.wait_until_sealed()
        assert box.stop() == 0


def talk(lab: Lab, voices: dict[str, Speech], folder: Path, codec: str = "PCMA", hold_s: float = 0.0) -> None:
    """Phone a calls phone b; both speak; a may hold the call in the middle of it; a hangs up."""
    with Baresip(lab, "a", voices["a"], folder, codec) as a, Baresip(lab, "b", voices["b"], folder, codec) as b:
        a.dial(b)
        b.answer()
        a.wait("CALL_ESTABLISHED")
        time.sleep(TALK_S)
        if hold_s:
            a.hold()
            time.sleep(hold_s)
            a.resume()
            time.sleep(TALK_S)
        a.hang_up()
        b.wait("CALL_CLOSED")


def assert_heard(recording: Recording, voices: dict[str, Speech], seconds: float = TALK_S) -> None:
    """Left is phone a's speech and right phone b's, from the beginning on, and neither is the other's."""
    channels = [channel[: int(seconds * hearing.RATE)] for channel in hearing.sound(recording.path)]
    for channel, own, other in zip(channels, ("a", "b"), ("b", "a"), strict=True):
        assert hearing.match(channel, voices[own].samples).likeness > LIKE
        assert abs(hearing.match(channel, voices[other].samples).likeness) < UNLIKE


def assert_payloads(recording: Recording, dump: Path, twice: bool = False) -> None:
    """Each channel is, byte for byte, the payloads that tcpdump saw, at the places that their time stamps say."""
    streams = shark.rtp_streams(dump)
    silence = hearing.SILENCE[recording.wav.tag]
    for side, channel in zip(("Caller", "Callee"), recording.wav.channels(), strict=True):
        own = [stream for stream in streams if stream.media_line == recording.info[f"{side}-Media"]]
        [stream] = own
        found = hearing.placed(channel, own, silence)
        assert len(found) == len(stream.ordered()) == len(stream.packets) // (2 if twice else 1)
        assert not [one for one in found if one.moved]


def gaps(recording: Recording, side: str) -> list[float]:
    """The lengths of the stretches without packets, in seconds."""
    text = recording.path.with_name(recording.path.stem + "_info.txt").read_text(encoding="utf-8")
    return [float(line.rpartition("+")[2]) for line in text.splitlines() if line.startswith(f"{side}-Gap:")]


def only(box: Box) -> Recording:
    [recording] = box.recordings()
    return recording


# -- phones ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("codec", "tag"), [("PCMA", A_LAW), ("PCMU", MU_LAW)])
def test_a_call_is_heard_as_it_was_spoken(codec: str, tag: int, voices: dict[str, Speech], tmp_path: Path) -> None:
    with listening(tmp_path) as (lab, box, dump):
        talk(lab, voices, tmp_path, codec)
    recording = only(box)
    assert (recording.info["Caller"], recording.info["Callee"]) == ("2001", "2002")
    assert (recording.info["Codec"], recording.wav.tag) == (codec, tag)
    assert recording.info["EndReason"] == "BYE by caller"
    assert_heard(recording, voices)
    assert_payloads(recording, dump)


def test_a_call_on_hold(voices: dict[str, Speech], tmp_path: Path) -> None:
    with listening(tmp_path) as (lab, box, dump):
        talk(lab, voices, tmp_path, hold_s=1.0)
    recording = only(box)
    assert_heard(recording, voices)
    assert_payloads(recording, dump)
    for side in ("Caller", "Callee"):
        [gap] = gaps(recording, side)
        assert gap == pytest.approx(1.0, abs=0.1)
    assert recording.info["Hold"].startswith("resumed by caller")
    assert float(recording.info["Duration"]) == pytest.approx(2 * TALK_S + 1.0, abs=0.2)


@pytest.mark.parametrize(
    "mirror", [pytest.param(Mirror(vlans=(100,)), id="vlan"), pytest.param(Mirror(vlans=(300, 42)), id="qinq")]
)
def test_a_tagged_mirror(mirror: Mirror, voices: dict[str, Speech], tmp_path: Path) -> None:
    with listening(tmp_path, mirror) as (lab, box, dump):
        talk(lab, voices, tmp_path)
    assert_heard(only(box), voices)
    assert_payloads(only(box), dump)


def test_a_mirror_that_shows_each_frame_twice(voices: dict[str, Speech], tmp_path: Path) -> None:
    with listening(tmp_path, DOUBLED) as (lab, box, dump):
        talk(lab, voices, tmp_path)
    assert_heard(only(box), voices)
    assert_payloads(only(box), dump, twice=True)
    totals = box.report("seal")["packets"]
    assert totals["duplicate"] == totals["kept"] > 0


def test_a_mirror_of_one_direction(voices: dict[str, Speech], tmp_path: Path) -> None:
    """The classic fault: only what phone a sends is mirrored. Half of the call is better than none."""
    with listening(tmp_path, RX_ONLY) as (lab, box, _):
        talk(lab, voices, tmp_path)
    left, right = hearing.sound(only(box).path)
    heard = left if left.any() else right
    assert hearing.match(heard[: int(TALK_S * hearing.RATE)], voices["a"].samples).likeness > LIKE


def test_calls_at_one_time(voices: dict[str, Speech], tmp_path: Path) -> None:
    """All callers have one SSRC, and all callees another: only their ports differ. Each channel is what was played."""
    calls = 3
    with listening(tmp_path) as (lab, box, _):
        played = {host: voices[host].packets(tmp_path, ssrc) for host, ssrc in (("a", 1), ("b", 2))}
        Sipp(lab, "b", "callee", played["b"], tmp_path).answers()
        Sipp(lab, "a", "caller", played["a"], tmp_path).calls("b", calls=calls, talk_s=TALK_S)()
    recordings = box.recordings()
    assert sorted(one.info["Caller"] for one in recordings) == [f"7{number}" for number in range(1, calls + 1)]
    for recording in recordings:
        for channel, host in zip(recording.wav.channels(), ("a", "b"), strict=True):
            at = channel.find(voices[host].alaw[:1600])
            assert at >= 0
            assert voices[host].alaw.startswith(channel[at:].rstrip(hearing.SILENCE[A_LAW]))
            assert len(channel) - at > TALK_S * hearing.RATE * 0.9


# -- live and offline --------------------------------------------------------------------------------------------------


def test_live_and_offline_give_the_same_sound(tmp_path: Path) -> None:
    """The lab's captures, all at once through a wire: `tapdeck record` on tcpdump's file of it gives the same files."""
    dump = tmp_path / "dump.pcap"
    with Namespaces() as spaces:
        wire = Wire.between(spaces)
        with Box(wire.tap, [wire.tap_interface], tmp_path) as box:
            with Dump(spaces, wire.tap, dump):
                sent = replay.replay(wire.sender, wire.interface, *CAPTURES)
            box.wait_until_sealed()
            assert box.stop() == 0
    offline = record(tmp_path / "offline", dump)
    assert offline.summary["packets"]["seen"] == box.report("capture")["packets"]["seen"] == sent.packets
    assert len(box.recordings()) == len(offline.recordings) >= len(CAPTURES)
    for live, other in zip(box.recordings(), offline.recordings, strict=True):
        assert live.path.name == other.path.name
        assert live.path.read_bytes() == other.path.read_bytes()
        assert differing(live.info, other.info) <= {"Recorder", *SEALED}


SEALED = ("SealedAt", "PreviousRecording", "PreviousDay", "PreviousSignature", "SealedBy")
"""What a box seals, a run over a capture file does not, unless it is told to."""


def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
