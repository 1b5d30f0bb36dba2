"""Losses, jitter, delay and scores in the info file, from captures: against what was lost, Wireshark, and by hand."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import encoded, files, recipes, rtcp, shark
from tests.support.ip import Endpoint, Packet, udp
from tests.support.live import Capture, offline, sealed
from tests.support.media import MS, SECOND, lost
from tests.support.record import REPOSITORY, Recording, record
from tests.support.rtcp import Talk
from tests.support.scene import START_NS, Scene, plain_call, set_up
from tests.support.signalling import sdp

FIXTURES = sorted((REPOSITORY / "fixtures" / "lab").glob("*.pcap"))
NEAR, FAR = 12 * MS, 31 * MS


def recorded(folder: Path, packets: list[Packet]) -> Recording:
    return record(folder / "out", files.write(folder, files.pcap(packets, nano=True))).only()


def figures(line: str) -> dict[str, float]:
    """`name=value` pairs as numbers, whatever their unit."""
    return {name: float(value.rstrip("ms%")) for name, _, value in (word.partition("=") for word in line.split())}


def lines(recording: Recording, key: str) -> list[str]:
    text = recording.path.with_name(recording.path.stem + "_info.txt").read_text(encoding="utf-8")
    return [line.partition(": ")[2] for line in text.splitlines() if line.startswith(f"{key}: ")]


def talking(step: int = 1) -> Scene:
    scene = plain_call(duration_ms=8000)
    return replace(scene, unheard=Talk(scene, NEAR, FAR, step).packets())


def with_sdp(scene: Scene, caller: tuple[str, ...], callee: tuple[str, ...]) -> Scene:
    shape = scene.dialog
    said = sdp(shape.caller.media, more=caller), sdp(shape.callee.media, more=callee)
    return replace(scene, signals=set_up(shape, START_NS, *said) + scene.signals[-2:])


WAYS = {
    "on the next port": lambda: talking(),
    "on the media's port": lambda: with_sdp(talking(0), ("a=rtcp-mux",), ("a=rtcp-mux",)),
    "on ports that SDP names": lambda: with_sdp(talking(38), ("a=rtcp:10038",), ("a=rtcp:20038",)),
}


@pytest.mark.parametrize("way", WAYS)
def test_how_far_away_each_side_is(way: str, tmp_path: Path) -> None:
    info = recorded(tmp_path, WAYS[way]().packets()).info
    for side, away in (("Caller", NEAR), ("Callee", FAR)):
        told = figures(info[f"{side}-Delay"])
        assert told["measured"] >= 6
        assert [told[name] for name in ("roundtrip", "least", "most")] == pytest.approx([2 * away / MS] * 3, abs=0.1)
    quality = figures(info["Caller-Quality"])
    assert quality["delay"] == pytest.approx((NEAR + FAR) / MS + 20, abs=0.1), "half of both ways, and a packet"
    assert quality["mos"] == pytest.approx(4.38, abs=0.02)
    reports = figures(info["Callee-Reported"])
    assert reports["lost"] >= 10
    assert reports["jitter"] == reports["lost"], "8 units of the RTP clock for each packet that the test says is lost"


def test_sealed_from_the_spool_it_is_the_same(tmp_path: Path) -> None:
    packets = talking().packets()
    with Capture(tmp_path) as capture:
        capture.hear(packets, size=9)
    made = sealed(tmp_path)
    assert made == offline(tmp_path, packets)
    (info,) = [data for name, data in made.items() if name.endswith("_info.txt")]
    assert b"\nCaller-Delay: roundtrip=24.0ms" in info


@pytest.mark.parametrize("copies", [1, 2])
def test_a_mirror_that_shows_all_twice_changes_nothing(copies: int, tmp_path: Path) -> None:
    packets = talking().packets()
    twice = [Packet(packet.time_ns + 20_000 * number, packet.ip) for packet in packets for number in range(copies)]
    told = figures(recorded(tmp_path, sorted(twice, key=lambda packet: packet.time_ns)).info["Callee-Delay"])
    assert told["roundtrip"] == pytest.approx(62.0, abs=0.1)
    assert told["measured"] == 7


def test_what_plays_at_the_other_end(tmp_path: Path) -> None:
    scene = plain_call(duration_ms=2000)
    right = scene.right[50]
    told = rtcp.voip_metrics(scene.left[0].ssrc, loss=13, discard=26, round_trip=86, end_system=70, rating=88, mos=42)
    ends = Endpoint(right.source.address, right.source.port + 1), Endpoint(right.target.address, right.target.port + 1)
    text = rtcp.receiver(right.ssrc) + rtcp.extended(right.ssrc, told)
    scene = replace(scene, unheard=(Packet(right.time_ns, udp(*ends, text)),))
    info = recorded(tmp_path, scene.packets()).info
    assert info["Caller-VoipMetrics"] == "loss=5.08% discard=10.16% roundtrip=86ms endsystem=70ms rating=88 mos=4.2"
    assert "Callee-VoipMetrics" not in info
    assert "Caller-Delay" not in info


def test_encrypted_reports_tell_nothing(tmp_path: Path) -> None:
    scene = plain_call(duration_ms=8000)
    keys = random.Random(1)
    secret = []
    for packet in Talk(scene, NEAR, FAR).packets():
        ip, text = packet.ip[:28], packet.ip[28:]
        cipher = text[:8] + keys.randbytes(len(text) - 8) + b"\x80\0\0\1" + keys.randbytes(10)
        source, target = Endpoint("", 0), Endpoint("", 0)
        source = Endpoint(".".join(map(str, ip[12:16])), int.from_bytes(ip[20:22], "big"))
        target = Endpoint(".".join(map(str, ip[16:20])), int.from_bytes(ip[22:24], "big"))
        secret.append(Packet(packet.time_ns, udp(source, target, cipher)))
    info = recorded(tmp_path, replace(scene, unheard=tuple(secret)).packets()).info
    assert not [key for key in info if key.endswith(("-Delay", "-Reported", "-VoipMetrics"))]
    assert "delay=" not in info["Caller-Quality"]


def test_losses_by_ten_seconds(tmp_path: Path) -> None:
    """Three single packets at the start, a burst of 50 from 15 s on, and one over the edge at 20 s."""
    scene = plain_call(duration_ms=31_000)
    gone = {10, 20, 30, *range(750, 800), *range(995, 1005)}
    recording = recorded(tmp_path, replace(scene, left=lost(scene.left, gone)).packets())
    info = recording.info
    quality = figures(info["Caller-Quality"])
    assert (quality["bursts"], quality["longest"]) == (5, 50)
    assert quality["burstratio"] == pytest.approx(63 / 5 * (1 - 63 / 1550), abs=0.01)
    found = lines(recording, "Caller-LossPart")
    assert [line.split()[:2] for line in found] == [
        ["+0.000s", "lost=3"],
        ["+10.000s", "lost=55"],
        ["+20.000s", "lost=5"],
    ]
    scores = [figures(line.partition(" ")[2])["mos"] for line in found]
    assert scores[1] < scores[2] <= scores[0] < 4.42
    assert quality["moslow"] == scores[1] < quality["mos"]
    assert info["Caller-Scores"] == " ".join(f"{one:.2f}" for one in (*scores, 4.41))
    assert info["Callee-Scores"] == "4.41 4.41 4.41 4.41"
    assert lines(recording, "Note") == ["Quality: loss 4.1% > 3% from caller"]
    assert figures(info["Callee-Quality"]) == pytest.approx(
        {"bursts": 0, "longest": 0, "burstratio": 1, "jittermost": 0, "mos": 4.41, "moslow": 4.41}
    )


@pytest.mark.parametrize(("gone", "flag"), [(29, None), (30, None), (31, "3.1"), (0, None)])
def test_loss_over_three_per_cent_is_flagged(gone: int, flag: str | None, tmp_path: Path) -> None:
    scene = plain_call(duration_ms=20_000)
    which = random.Random(gone).sample(range(1, 999), gone)
    notes = lines(recorded(tmp_path, replace(scene, right=lost(scene.right, which)).packets()), "Note")
    assert notes == ([f"Quality: loss {flag}% > 3% from callee"] if flag else [])


@shark.needs_wireshark
@pytest.mark.parametrize("capture", FIXTURES, ids=lambda path: path.stem)
def test_jitter_as_wireshark_has_it(capture: Path, tmp_path: Path) -> None:
    """Mean and highest estimate. Wireshark's mean is that of the estimate, which begins at nought: a little less."""
    theirs = shark.jitter(capture)
    compared = 0
    for recording in record(tmp_path / "out", capture).recordings:
        for side in ("Caller", "Callee"):
            media = lines(recording, f"{side}-Media")
            if len(media) != 1 or media[0] not in theirs:
                continue
            mean, most, packets = theirs[media[0]]
            ours = figures(recording.info[f"{side}-Packets"])["jitter"]
            highest = figures(recording.info[f"{side}-Quality"])["jittermost"]
            assert ours == pytest.approx(mean / (1 - 16 / packets), rel=0.08, abs=0.05), (side, ours, mean)
            assert highest == pytest.approx(most, rel=0.02, abs=0.02), (side, highest, most)
            compared += 1
    assert compared


def test_reports_that_the_mirror_shows_twice_count_once(tmp_path: Path) -> None:
    scene = talking()
    once = recorded(tmp_path, scene.packets())
    twice = tmp_path / "twice"
    twice.mkdir()
    copies = tuple(replace(one, time_ns=one.time_ns + 2_000) for one in scene.unheard)
    shown = recorded(twice, replace(scene, unheard=scene.unheard + copies).packets())
    for side in ("Caller", "Callee"):
        assert figures(once.info[f"{side}-Reported"])["reports"] > 1
        assert shown.info[f"{side}-Reported"] == once.info[f"{side}-Reported"]
        assert shown.info[f"{side}-Delay"] == once.info[f"{side}-Delay"]


@shark.needs_wireshark
@pytest.mark.parametrize("capture", FIXTURES, ids=lambda path: path.stem)
def test_delay_and_reports_as_wireshark_reads_them(capture: Path, tmp_path: Path) -> None:
    """From the fields of each RTCP packet as tshark gives them: when a stamp passed, when it was answered, how late."""
    trips, told = shark.reports(capture)
    for recording in record(tmp_path / "out", capture).recordings:
        for side, other in (("Caller", "Callee"), ("Callee", "Caller")):
            (media,) = lines(recording, f"{side}-Media")
            expected = trips.get(media, [])
            found = lines(recording, f"{other}-Delay")
            assert len(found) == bool(expected)
            if expected:
                shown = figures(found[0])
                assert shown["measured"] == len(expected)
                assert shown["roundtrip"] == pytest.approx(sum(expected) / len(expected), abs=0.1)
            if media in told:
                count, missing, jitter = told[media]
                assert lines(recording, f"{side}-Reported") == [f"reports={count} lost={missing} jitter={jitter:.2f}ms"]


def test_a_change_of_clocks_is_no_jitter(tmp_path: Path) -> None:
    """A-law for a second, whose clock is 8 kHz, then Opus, whose is 48 kHz, in one stream without any jitter."""
    voice = encoded.opus(1)
    scene = encoded.call(voice, encoded.opus(2), (1, 1))
    first = scene.left[0]
    law = [
        replace(one, pt=8, ts=first.ts + 160 * number, payload=b"\x2a" * 160)
        for number, one in enumerate(scene.left[:50])
    ]
    jump = law[-1].ts + 160 - scene.left[50].ts
    rest = [replace(one, ts=one.ts + jump) for one in scene.left[50:]]
    info = recorded(tmp_path, replace(scene, left=(*law, *rest)).packets()).info
    assert info["Codec"] == "caller PCMA, OPUS; callee OPUS"
    assert figures(info["Caller-Packets"])["jitter"] < 0.01
    assert figures(info["Caller-Quality"])["jittermost"] < 0.01


def test_a_flood_of_reports_is_bounded(tmp_path: Path) -> None:
    """100,000 packets of RTCP in a second are counted, and the call is recorded as ever."""
    scene = plain_call(duration_ms=2000)
    left = scene.left[0]
    ends = Endpoint(left.source.address, left.source.port + 1), Endpoint(left.target.address, left.target.port + 1)
    text = rtcp.sender(left.ssrc, START_NS) + rtcp.description(left.ssrc)
    flood = tuple(Packet(left.time_ns + n * (SECOND // 100_000), udp(*ends, text)) for n in range(100_000))
    result = record(tmp_path / "out", files.write(tmp_path, files.pcap(replace(scene, unheard=flood).packets())))
    assert result.only().wav.channels() == scene.channels()
    assert result.summary["packet_kinds"]["signalling"]["RTCP"] == 100_000


def test_time_stamps_that_leap_are_no_drift(tmp_path: Path) -> None:
    """A phone that sets its time stamps anew, 40 s back, after a hold: its clock is right."""
    scene = recipes.held(1)
    again = next(n for n, one in enumerate(scene.left) if one.time_ns > scene.left[n - 1].time_ns + 500 * MS)
    back = [replace(one, ts=(one.ts - 40 * 8000) % 2**32) for one in scene.left[again:]]
    info = recorded(tmp_path, replace(scene, left=(*scene.left[:again], *back)).packets()).info
    drift, anchors = info["Caller-Drift"].split("ms anchors=")
    assert (abs(float(drift)) < 1, anchors) == (True, "2")
