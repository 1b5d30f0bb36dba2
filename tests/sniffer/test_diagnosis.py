"""What the doctor says of traffic whose every fault was put there on purpose."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tapdeck.sniffer.checkup import Checkup
from tapdeck.sniffer.diagnosis import judge
from tapdeck.sniffer.finding import Colour, Finding, worst
from tapdeck.sniffer.sources.capture_file import CaptureFile
from tests.support import files, recipes, srtp
from tests.support.ip import Endpoint, Packet, tcp, udp
from tests.support.media import MS, SECOND, lost, talk
from tests.support.record import REPOSITORY
from tests.support.scene import START_NS, Scene, in_order, plain_call
from tests.support.wrap import ethernet

GREEN, AMBER, RED, OPEN = Colour.GREEN, Colour.AMBER, Colour.RED, Colour.OPEN
LAB = REPOSITORY / "fixtures" / "lab"
BROADCAST = b"\xff" * 6 + b"\2\0\0\0\0\1"
HERE = 0x020000000999
ARP = BROADCAST + b"\x08\x06" + bytes(46)


def call(seed: int = 1, duration_ms: int = 6000, start_ns: int = START_NS) -> Scene:
    return plain_call(seed, duration_ms=duration_ms, start_ns=start_ns)


def checkup(capture: bytes | Path, own: int = HERE) -> Checkup:
    content = capture if isinstance(capture, bytes) else capture.read_bytes()
    watch = Checkup(own=frozenset({own}))
    for block in CaptureFile("test", io.BytesIO(content), base=1 << 44).blocks():
        watch.read(block)
    return watch


def findings(capture: bytes | Path, own: int = HERE) -> dict[str, Finding]:
    watch = checkup(capture, own)
    watch.finish()
    return {one.check: one for one in judge(watch.traffic())}


def of(packets: Iterable[Packet], wrapping: str = "ethernet") -> dict[str, Finding]:
    return findings(files.pcap(packets, wrapping))


def frames(some: Sequence[bytes], snap: int = files.SNAP_LENGTH) -> bytes:
    head = files.pcap_header(1, snap=snap)
    return head + b"".join(files.pcap_record(START_NS + n * MS, one, snap=snap) for n, one in enumerate(some))


def colours(found: dict[str, Finding], *checks: str) -> list[Colour]:
    return [found[check].colour for check in checks]


# -- all is well -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a_alaw", "h_hold", "i_early", "j_dtmf", "k1_proxy", "k4_transcode", "n_impaired"])
def test_a_good_mirror_is_all_green(name: str) -> None:
    found = findings(LAB / f"{name}.pcap")
    assert {one.colour for one in found.values()} == {GREEN}
    assert not any(one.todo for one in found.values())
    assert worst(found.values()) is GREEN


def test_a_call_that_goes_on_is_judged_too() -> None:
    scene = call().until(START_NS + 5 * SECOND)
    watch = checkup(files.pcap(scene.packets()))
    found = {one.check: one.colour for one in judge(watch.traffic(), over=False)}
    assert found["sound-both-ways"] is found["rtp"] is found["sip"] is GREEN
    assert (watch.picture().open_calls, watch.picture().calls, watch.picture().streams) == (1, 1, 2)


def test_nobody_is_blamed_for_silence_before_the_watch_is_over() -> None:
    quiet = Checkup()
    assert {one.colour for one in judge(quiet.traffic(), over=False)} == {OPEN}
    assert {one.check: one.colour for one in judge(quiet.traffic())}["traffic"] is RED


# -- no mirror ---------------------------------------------------------------------------------------------------------


def test_nothing_at_all() -> None:
    found = {one.check: one for one in judge(Checkup().traffic(20.0))}
    assert found["traffic"].colour is RED
    assert "20 s" in found["traffic"].seen
    assert {one.colour for check, one in found.items() if check != "traffic"} == {OPEN}


def test_only_broadcasts_and_own_traffic_is_no_mirror() -> None:
    to_us = HERE.to_bytes(6, "big") + b"\2\0\0\0\0\7" + b"\x08\x00" + udp(*_ends(), b"ssh or so" * 9)
    found = findings(frames([ARP] * 30 + [to_us] * 10))
    assert found["mirror"].colour is RED
    assert "30 broadcasts and multicasts, 10 of this machine's own" in found["mirror"].seen


def test_flooding_is_no_mirror_either() -> None:
    stray = ethernet(udp(*_ends(), b"unknown unicast" * 4))
    assert findings(frames([ARP] * 99 + [stray]))["mirror"].colour is AMBER


def test_a_mirror_sent_to_us_in_a_tunnel_is_a_mirror() -> None:
    content = files.pcap(call().packets(), "erspan2")
    outer = int.from_bytes(content[24 + 16 : 24 + 22], "big")
    assert findings(content, own=outer)["mirror"].colour is GREEN


# -- one direction only ------------------------------------------------------------------------------------------------


def _from(scene: Scene, *hosts: str) -> list[Packet]:
    """What a mirror of what these hosts send shows (SPAN set to rx)."""
    signals = tuple(signal for signal in scene.signals if signal.source.address in hosts)
    sides = (tuple(packet for packet in side if packet.source.address in hosts) for side in (scene.left, scene.right))
    left, right = sides
    return replace(scene, signals=signals, left=left, right=right).packets()


def test_span_of_one_phone_rx_only() -> None:
    scene = call()
    caller = scene.dialog.caller
    found = of(_from(scene, caller.sip.address, caller.media.address))
    assert colours(found, "sip-both-ways", "sound-both-ways") == [RED, RED]
    assert "rx and tx" in found["sound-both-ways"].todo
    assert f"{caller.media.address}:{caller.media.port} > " in found["sound-both-ways"].seen


def test_the_callee_alone() -> None:
    scene = call()
    callee = scene.dialog.callee
    found = of(_from(scene, callee.sip.address, callee.media.address))
    assert colours(found, "sip-both-ways", "sound-both-ways") == [RED, RED]


def test_sip_both_ways_and_sound_one_way() -> None:
    found = of(replace(call(), right=()).packets())
    assert colours(found, "sip-both-ways", "sound-both-ways") == [GREEN, RED]
    assert "1 of the caller only" in found["sound-both-ways"].seen


def test_one_phone_of_five_is_amber() -> None:
    scenes = [call(seed) for seed in range(1, 6)]
    scenes[2] = replace(scenes[2], left=())
    found = of(in_order(*(scene.packets() for scene in scenes)))
    assert found["sound-both-ways"].colour is AMBER
    assert "1 of 5 calls" in found["sound-both-ways"].seen


def test_a_held_call_is_not_blamed() -> None:
    scene = call()
    held = tuple(replace(signal, text=signal.text.replace(b"a=sendrecv", b"a=inactive")) for signal in scene.signals)
    found = of(replace(scene, signals=held, right=()).packets())
    assert found["sound-both-ways"].colour is not GREEN  # nothing says that it is both ways, either
    assert "of the caller only" not in found["sound-both-ways"].seen


def test_streams_without_calls_are_paired_by_their_ends() -> None:
    assert of(call().media_packets())["sound-both-ways"].colour is GREEN
    assert of(replace(call(), left=()).media_packets())["sound-both-ways"].colour is RED


def test_a_host_that_sends_from_another_port_than_it_hears_on() -> None:
    scene = call()
    left = tuple(replace(packet, source=replace(packet.source, port=40_000)) for packet in scene.left)
    assert of(replace(scene, left=left).media_packets())["sound-both-ways"].colour is GREEN


def test_music_to_a_group_has_no_answer() -> None:
    stream = talk(Endpoint("10.0.0.1", 4000), Endpoint("239.1.1.1", 4000), START_NS, 6000, seed=1)
    found = of([packet.packet() for packet in stream])
    assert colours(found, "rtp", "sound-both-ways", "signalling") == [GREEN, OPEN, OPEN]


# -- signalling and media apart ----------------------------------------------------------------------------------------


def _ends() -> tuple[Endpoint, Endpoint]:
    return Endpoint("198.51.100.1", 7000), Endpoint("198.51.100.2", 7000)


def test_sip_without_sound() -> None:
    found = of(replace(call(), left=(), right=()).packets())
    assert found["rtp"].colour is RED
    assert "1 answered call" in found["rtp"].seen
    mixed = [call(1), replace(call(2), left=(), right=())]
    assert of(in_order(*(scene.packets() for scene in mixed)))["rtp"].colour is AMBER


def test_sound_without_sip() -> None:
    before = talk(*_ends(), START_NS, 9000, seed=9, ssrc=9)
    found = of(in_order(call(start_ns=START_NS + 3 * SECOND).media_packets(), [one.packet() for one in before]))
    assert colours(found, "sip", "signalling") == [AMBER, RED]
    assert found["signalling"].seen.startswith("2 of 2 new streams")
    assert "1 more ran before the watch began" in found["signalling"].seen


def test_one_call_of_two_without_sip() -> None:
    second = call(2, start_ns=START_NS + 2500 * MS)
    found = of(in_order(call(1).packets(), second.media_packets()))
    assert found["signalling"].colour is AMBER
    assert colours(found, "sip", "rtp", "sound-both-ways") == [GREEN] * 3


def test_calls_from_before_the_watch_are_nobodys_fault() -> None:
    found = of(call().media_packets())
    assert found["signalling"].colour is OPEN


# -- encrypted ---------------------------------------------------------------------------------------------------------


def test_sip_over_tls() -> None:
    hello = tcp(Endpoint("10.0.0.1", 40_000), Endpoint("10.0.0.2", 5061), 1, 1, 0x18, b"\x16\x03\1" + bytes(90))
    found = of(in_order([Packet(START_NS, hello)], call(start_ns=START_NS + 3 * SECOND).media_packets()))
    assert colours(found, "encryption", "signalling") == [RED, RED]
    assert "SIP over TLS between 1 pair of hosts" in found["encryption"].seen
    assert "SIP over TLS" in found["signalling"].todo
    assert of(in_order([Packet(START_NS, hello)], call().packets()))["encryption"].colour is AMBER


def test_srtp() -> None:
    scene = call()
    keyed = tuple(
        replace(signal, text=signal.text.replace(b"RTP/AVP", b"RTP/SAVP").replace(b"Content-Length", b"X-Length"))
        for signal in scene.signals
    )
    secret = replace(scene, signals=keyed).packets()
    assert of(secret)["encryption"].colour is RED
    assert of(in_order(secret, call(2).packets()))["encryption"].colour is AMBER


def test_srtp_whose_keys_are_told_is_no_hindrance() -> None:
    scene = call()
    keys = srtp.Key(1), srtp.Key(2)
    told = srtp.announced(scene, keys[:1], keys[1:])
    found = of(srtp.packets(told, srtp.lock(scene.left, keys[0]), srtp.lock(scene.right, keys[1])))
    assert (found["encryption"].colour, found["encryption"].seen) == (GREEN, "none")


def test_dtls() -> None:
    hello = udp(*_ends(), b"\x16\xfe\xfd" + bytes(60))
    found = of(in_order(call().packets(), [Packet(START_NS, hello)]))
    assert (found["encryption"].colour, found["encryption"].seen) == (AMBER, "1 DTLS packet")


# -- twice, cut, joined, lost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("second", "hop"), [("ethernet", False), ("vlan", False), ("ethernet", True)])
def test_packets_seen_twice(second: str, hop: bool) -> None:
    packets = call().packets()
    found = findings(files.twice(packets, second, hop=hop))
    long = len(packets)  # all have 32 bytes of payload or more
    assert (found["copies"].colour, found["copies"].seen) == (AMBER, f"{long:,} of {long:,} packets come twice (100%)")
    assert colours(found, "sound-both-ways", "loss", "rtp") == [GREEN] * 3


def test_what_is_sent_again_is_no_copy() -> None:
    scene = call()
    invite = scene.packets()[0]
    again = [Packet(invite.time_ns + n * 500 * MS, invite.ip) for n in range(1, 5)]
    assert of(in_order(scene.packets(), again))["copies"].colour is GREEN


def test_relayed_packets_are_no_copies() -> None:
    assert of(recipes.relayed(1).packets())["copies"].colour is GREEN


def test_packets_that_lost_their_end() -> None:
    packets = call().packets()
    whole, snapped = files.pcap(packets), files.pcap(packets, snap=128)
    assert findings(whole)["truncated"].colour is GREEN
    assert findings(snapped)["truncated"].colour is RED
    switch = frames([ethernet(packet.ip)[:128] for packet in packets])  # cut before it was captured
    found = findings(switch)["truncated"]
    assert found.colour is RED
    assert f"{sum(len(packet.ip) > 114 for packet in packets):,} packets" in found.seen


def test_rtp_packets_that_the_card_joined() -> None:
    scene = call()
    pairs = zip(scene.left[0::2], scene.left[1::2], strict=True)
    joined = [
        Packet(two.time_ns, udp(one.source, one.target, one.wire() + two.wire(), ident=one.seq)) for one, two in pairs
    ]
    found = of(in_order(replace(scene, left=()).packets(), joined))
    assert found["merged"].colour is RED
    assert f"{len(joined)} datagrams" in found["merged"].seen
    assert "gro off" in found["merged"].todo


def test_segments_that_the_card_joined() -> None:
    large = tcp(Endpoint("10.0.0.1", 40_000), Endpoint("10.0.0.2", 80), 1, 1, 0x18, bytes(4000))
    found = of(in_order(call().packets(), [Packet(START_NS, large)]))
    assert (found["merged"].colour, found["merged"].seen) == (AMBER, "larger than the interface's MTU: 1 TCP packet")


@pytest.mark.parametrize(("count", "colour"), [(1, AMBER), (5, RED)])
def test_all_streams_miss_packets_at_once(count: int, colour: Colour) -> None:
    gap = set(range(100, 100 + count))
    scenes = [call(seed) for seed in range(1, 4)]
    holed = [replace(scene, left=lost(scene.left, gap), right=lost(scene.right, gap)) for scene in scenes]
    found = of(in_order(*(scene.packets() for scene in holed)))["loss"]
    assert found.colour is colour
    assert found.seen == f"1 moment at which all streams miss packets, {6 * count} in all"


def test_all_streams_miss_packets_again_and_again() -> None:
    scenes = [call(seed) for seed in range(1, 4)]
    gaps = {n for n in range(40, 280) if n % 40 < 5}
    holed = [replace(scene, left=lost(scene.left, gaps), right=lost(scene.right, gaps)) for scene in scenes]
    found = of(in_order(*(scene.packets() for scene in holed)))
    assert (found["loss"].colour, "6 moments" in found["loss"].seen) == (RED, True)


def test_streams_that_lose_at_times_of_their_own_are_the_networks() -> None:
    scenes = [call(seed) for seed in range(1, 4)]
    scenes[1] = replace(scenes[1], left=lost(scenes[1].left, {50, 51, 90, 200}))
    found = of(in_order(*(scene.packets() for scene in scenes)))
    assert found["loss"].colour is GREEN
    assert "4 of" in found["loss"].seen


def test_an_overrun_mirror_port_loses_a_little_everywhere() -> None:
    scenes = [call(seed) for seed in range(1, 4)]
    holed = [
        replace(
            scene,
            left=lost(scene.left, set(range(11 + 37 * n, 290, 61))),
            right=lost(scene.right, set(range(29 + 31 * n, 290, 53))),
        )
        for n, scene in enumerate(scenes)
    ]
    found = of(in_order(*(scene.packets() for scene in holed)))
    assert found["loss"].colour is AMBER
    assert "6 of 6 streams" in found["loss"].seen


# -- wrappings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrapping", "words"),
    [
        ("ethernet", "plain packets"),
        ("vlan", "VLAN 42 (100%)"),
        ("qinq", "QinQ"),
        ("gre", "GRE ("),
        ("gre_ethernet", "GRE ("),
        ("erspan2", "ERSPAN type II ("),
        ("erspan3", "ERSPAN type III ("),
        ("vxlan", "VXLAN ("),
        ("tzsp", "TZSP ("),
        ("mpls", "MPLS ("),
        ("pppoe", "PPPoE ("),
    ],
)
def test_wrappings_are_named_and_read(wrapping: str, words: str) -> None:
    found = of(call().packets(), wrapping)
    assert words in found["wrapping"].seen
    assert {one.colour for one in found.values()} == {GREEN}


def test_what_nobody_can_read_is_said() -> None:
    odd = struct.pack("!BBHHHBBH", 0x44, 0, 60, 0, 0, 64, 17, 0) + bytes(48)  # a header of 16 bytes
    assert findings(frames([ethernet(udp(*_ends(), bytes(40))), ethernet(odd)] * 20))["wrapping"].colour is AMBER
