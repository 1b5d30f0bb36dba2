"""What is heard live, in visits cut anywhere, kept in spool files and sealed, is what a capture of it gives offline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest

from tapdeck.sniffer.engine import Limits
from tapdeck.sniffer.records import Records
from tapdeck.sniffer.sources.capture_file import open_capture
from tapdeck.sniffer.sources.payloads import Payloads
from tapdeck.sniffer.tap import merged_records
from tests.sniffer.test_correlator import zrtp
from tests.support import ip, recipes
from tests.support.ip import Endpoint, Packet
from tests.support.live import Capture, block, frames, offline, offline_file, recordings, seal, sealed, without_ends
from tests.support.media import MS, SECOND, follow, talk
from tests.support.record import REPOSITORY, assert_sound
from tests.support.scene import START_NS, Scene, dialog, each_packet, hang_up, in_order, parties, plain_call, set_up
from tests.support.signalling import sdp

ALL = 1 << 30


def fragmented(packets: Sequence[Packet], size: int) -> list[Packet]:
    return each_packet(packets, lambda packet: ip.fragments(packet, ident=len(packet), size=size))


def together(*scenes: Scene) -> list[Packet]:
    return in_order(*(scene.packets() for scene in scenes))


SCENES: dict[str, Callable[[], list[Packet]]] = {
    "plain": lambda: plain_call().packets(),
    "plain over IPv6": lambda: plain_call(six=True).packets(),
    "two at a time": lambda: together(plain_call(1), plain_call(2, start_ns=START_NS + 130 * MS)),
    "held": lambda: recipes.held(1).packets(),
    "held by address": lambda: recipes.held(1, offer="0.0.0.0", clock_runs=False).packets(),
    "moved": lambda: recipes.moved(1).packets(),
    "moved with a new SSRC": lambda: recipes.moved(1, address="10.0.1.99", new_ssrc=True).packets(),
    "early media": lambda: recipes.early_media(1).packets(),
    "early media, not answered": lambda: recipes.early_media(1, answered=False).packets(),
    "busy": lambda: recipes.failed(1, "486 Busy Here").packets(),
    "cancelled": lambda: recipes.failed(1, "487 Request Terminated").packets(),
    "authenticated": lambda: recipes.authenticated(1).packets(),
    "delayed offer": lambda: recipes.delayed_offer(1).packets(),
    "forked": lambda: recipes.forked(1).packets(),
    "behind NAT": lambda: recipes.behind_nat(1).packets(),
    "two legs": lambda: together(*recipes.two_legs(1)),
    "relayed": lambda: recipes.relayed(1).packets(),
    "with RTCP": lambda: recipes.with_rtcp(plain_call(), muxed=False).packets(),
    "with RTCP muxed": lambda: recipes.with_rtcp(plain_call(), muxed=True).packets(),
    "with keep-alives": lambda: recipes.with_keep_alives(plain_call()).packets(),
    "messages repeated": lambda: recipes.signalling_repeated(plain_call()).packets(),
    "a bad network": lambda: recipes.impaired(plain_call(), 3).packets(),
    "SIP over TCP": lambda: plain_call().packets_over_tcp(seed=5),
    "SIP over TCP, out of order": lambda: plain_call().packets_over_tcp(seed=6, swap=True),
}


def assert_alike(folder: Path, packets: Sequence[Packet], sizes: Sequence[int], wrapping: str = "ethernet") -> None:
    """Visits of each of these sizes give what the packets give offline, and every frame is accounted for."""
    expected = offline(folder, packets, wrapping)
    for size in sizes:
        run = folder / str(size)
        run.mkdir()
        with Capture(run) as capture:
            capture.hear(packets, size=size, wrapping=wrapping)
        account = seal(run)
        assert sealed(run) == expected, f"visits of {size}"
        assert sum(account.packets.values()) == capture.count("kept"), "the stages count differently"
        assert not capture.files_of("resume")


@pytest.mark.parametrize("name", SCENES)
def test_visits_of_any_size(name: str, tmp_path: Path) -> None:
    assert_alike(tmp_path, SCENES[name](), (1, 7, ALL))


@pytest.mark.parametrize("wrapping", ["raw_ip", "vlan", "linux_cooked_v1", "bsd_null", "erspan2", "vxlan"])
def test_wrappings(wrapping: str, tmp_path: Path) -> None:
    assert_alike(tmp_path, plain_call().packets(), (5,), wrapping)


@pytest.mark.parametrize(("six", "size"), [(False, 200), (True, 104)])
def test_fragments(six: bool, size: int, tmp_path: Path) -> None:
    packets = fragmented(plain_call(six=six).packets(), size)
    with Capture(tmp_path) as capture:
        capture.hear(packets, size=3)
        half = ip.fragments(plain_call(six=six).packets()[0].ip, ident=9, size=size)[0]
        capture.hear([Packet(packets[-1].time_ns + MS, half)])
        assert capture.engine.waiting == 1
    assert sealed(tmp_path) == offline(tmp_path, packets)
    assert capture.count("malformed", "fragments without the rest") == 1


@pytest.mark.parametrize("capture_file", sorted((REPOSITORY / "fixtures" / "lab").glob("*.pcap")), ids=lambda p: p.stem)
def test_captures_of_the_lab(capture_file: Path, tmp_path: Path) -> None:
    expected = offline_file(tmp_path, capture_file)
    for number, patience in enumerate((20 * MS, SECOND)):
        run = tmp_path / str(number)
        run.mkdir()
        payloads = Payloads(run)
        with Capture(run) as live:
            for records in open_capture(str(capture_file), payloads).blocks():
                live.visits(records, np.nonzero(np.diff(records.time // patience))[0] + 1)
        payloads.close()
        assert without_ends(sealed(run)) == without_ends(expected)


def test_a_message_behind_a_hole_in_a_connection_is_heard_when_capture_stops(tmp_path: Path) -> None:
    scene = plain_call()
    server = ip_address(scene.dialog.callee.sip.address).packed
    answered = scene.signals[3].time_ns + 3 * MS
    packets = [
        packet
        for packet in scene.packets_over_tcp(seed=1, cuts=0)
        if packet.time_ns < answered
        or packet.ip[9] != ip.TCP
        or not (b"ACK sip" in packet.ip or packet.ip[12:16] == server)
    ]
    with Capture(tmp_path) as capture:
        capture.hear(packets, size=5)
    seal(tmp_path)
    (recording,) = recordings(tmp_path)
    assert recording.info["EndReason"] == "BYE by caller"


# -- calls that meet ---------------------------------------------------------------------------------------------------


def again(scene: Scene, after_ms: int, *, new_ssrc: bool) -> Scene:
    """The same phones talk again on the same ports, so long after the first call's BYE."""
    start = scene.signals[-2].time_ns + after_ms * MS
    last = scene.left[-1], scene.right[-1]
    shape = replace(scene.dialog, call_id="again-" + scene.call_id)
    later = plain_call(1, start_ns=start, shape=shape, seq=last[0].seq + 5, ts=last[0].ts + 9000)
    if new_ssrc:
        return later
    left, right = (
        tuple(replace(one, ssrc=before.ssrc) for one in side)
        for side, before in zip((later.left, later.right), last, strict=True)
    )
    return replace(later, left=left, right=right)


def trailing(scene: Scene, for_ms: int) -> Scene:
    """Both sides go on sending for a while after the BYE."""
    after = scene.signals[-2].time_ns + 10 * MS
    left, right = (follow(side, after, for_ms, seed=50 + n) for n, side in enumerate((scene.left, scene.right)))
    return replace(scene, left=scene.left + left, right=scene.right + right)


@pytest.mark.parametrize("new_ssrc", [True, False])
@pytest.mark.parametrize("after_ms", [30, 900, 2500, 6000])
def test_ports_used_again_by_the_next_call(after_ms: int, new_ssrc: bool, tmp_path: Path) -> None:
    first = plain_call(1)
    assert_alike(tmp_path, together(first, again(first, after_ms, new_ssrc=new_ssrc)), (1, 11, ALL))


@pytest.mark.parametrize("after_ms", [200, 1500])
def test_media_of_the_first_call_trails_into_the_next(after_ms: int, tmp_path: Path) -> None:
    first = trailing(plain_call(1), after_ms + 80)
    assert_alike(tmp_path, together(first, again(first, after_ms, new_ssrc=True)), (1, 11, ALL))


def without_bye(scene: Scene) -> Scene:
    return replace(scene, signals=scene.signals[:-2])


def test_the_next_call_takes_the_ports_of_one_whose_bye_was_missed(tmp_path: Path) -> None:
    first = without_bye(plain_call(1))
    second = again(plain_call(1), 3000, new_ssrc=False)
    packets = together(first, second)
    with Capture(tmp_path) as capture:
        capture.hear(packets, size=4)
    found = without_ends(sealed(tmp_path))
    assert found == without_ends(offline(tmp_path, packets))
    for recording, scene in zip(recordings(tmp_path), (first, second), strict=True):
        assert_sound(recording, *scene.channels())


def test_a_stream_that_changes_hands_and_back_is_counted_once(tmp_path: Path) -> None:
    """The second call takes the silent stream of the first, whose BYE was missed, and gives it back when it ends."""
    first = without_bye(plain_call(1, duration_ms=20))
    second, third = (
        plain_call(1, start_ns=START_NS + start * MS, duration_ms=20, ssrc=(start, start + 1), shape=shape)
        for start, shape in ((1010, replace(first.dialog, call_id="2")), (6230, replace(first.dialog, call_id="3")))
    )
    with Capture(tmp_path) as capture:
        capture.hear(together(first, second, without_bye(third)))
    assert dict(seal(tmp_path).packets) == {("kept", "sound"): 6}


def late_answer(seed: int, media_ms: int) -> Scene:
    """The callee's SDP comes so long after its media: nothing said where that belongs, not even the offer."""
    shape = dialog(seed)
    caller, callee = shape.caller.media, shape.callee.media
    answer = START_NS + 60 * MS + media_ms * MS
    right = talk(callee, caller, START_NS + 50 * MS, media_ms + 400, seed=seed, ssrc=7)
    left = talk(caller, callee, START_NS + 55 * MS, media_ms + 400, seed=seed + 1, ssrc=8)
    signals = (
        shape.invite(START_NS),
        shape.reply(START_NS + 5 * MS, "180 Ringing"),
        shape.reply(answer, "200 OK", sdp(callee)),
        shape.request(answer + 5 * MS, "ACK", sdp(caller)),
        *hang_up(shape, right[-1].time_ns + 200 * MS),
    )
    return Scene(shape, signals, left, right)


def test_media_before_its_answer(tmp_path: Path) -> None:
    scene = late_answer(1, 2500)
    assert_alike(tmp_path, scene.packets(), (1, 9, ALL))
    (recording,) = recordings(tmp_path / "9")
    assert_sound(recording, *scene.channels())


def bypassed(seed: int) -> tuple[Scene, Scene]:
    """A B2BUA that lets media pass it by: both legs name the phones' own addresses."""
    first, second = recipes.two_legs(seed)
    caller, callee = parties(seed)
    shapes = [
        replace(
            one.dialog,
            caller=replace(one.dialog.caller, media=caller.media),
            callee=replace(one.dialog.callee, media=callee.media),
        )
        for one in (first, second)
    ]
    one = plain_call(seed, shape=shapes[0])
    other = plain_call(seed, start_ns=START_NS + 6 * MS, shape=shapes[1])
    return one, replace(other, left=(), right=())


def test_legs_that_share_their_streams_both_have_them(tmp_path: Path) -> None:
    one, other = bypassed(1)
    packets = together(one, other)
    assert_alike(tmp_path, packets, (1, 9, ALL))
    both = recordings(tmp_path / "9")
    assert len(both) == 2
    for recording in both:
        assert_sound(recording, *one.channels())


@pytest.mark.parametrize("longer", [0, 1])
def test_one_leg_outlives_the_other(longer: int, tmp_path: Path) -> None:
    """The stages agree on what is counted once, though one leg's share ends in the middle."""
    legs = list(bypassed(1))
    more = follow(legs[0].right, legs[0].right[-1].time_ns + 20 * MS, 7000, seed=9)
    bye = hang_up(legs[longer].dialog, more[-1].time_ns + 200 * MS)
    legs[longer] = replace(legs[longer], signals=legs[longer].signals[:-2] + bye)
    packets = in_order(together(*legs), [packet.packet() for packet in more])
    assert_alike(tmp_path, packets, (1, ALL))


def test_a_call_takes_over_a_stream_that_another_was_given(tmp_path: Path) -> None:
    """Which call a stream belongs to may be known only later; then it is in that call, and in no other."""
    a, c = plain_call(1), plain_call(2)
    x, y = c.dialog.caller.media, a.dialog.callee.media
    stream = talk(x, y, START_NS + 300 * MS, 1500, seed=5, ssrc=0x77)
    moved = recipes.re_invite(c.dialog, START_NS + 1000 * MS, sdp(x, session=2), sdp(y, session=2))
    ends = START_NS + 2100 * MS
    a = replace(a, signals=set_up(a.dialog, START_NS) + hang_up(a.dialog, ends), left=())
    c = replace(c, signals=(*set_up(c.dialog, START_NS + MS), *moved, *hang_up(c.dialog, ends)), left=(), right=())
    packets = in_order(together(a, c), [packet.packet() for packet in stream])
    assert_alike(tmp_path, packets, (1, 7, 60))
    taken = next(one for one in recordings(tmp_path / "7") if one.info["CallId"] == c.call_id)
    assert b"".join(packet.payload for packet in stream) in taken.wav.channels()


def test_zrtp_ends_the_sound_where_it_does_offline(tmp_path: Path) -> None:
    scene = plain_call()
    here, there = scene.dialog.caller.media, scene.dialog.callee.media
    when = scene.left[20].time_ns + MS
    shake = [zrtp(when, here, there, b"Confirm2"), zrtp(when + MS, there, here, b"Conf2ACK")]
    assert_alike(tmp_path, in_order(scene.packets(), shake), (1, 6))


# -- frames ------------------------------------------------------------------------------------------------------------


def test_rtp_without_a_payload_at_the_very_end_of_its_frame(tmp_path: Path) -> None:
    """Frames that lie behind each other without a gap: where an empty payload would lie, the next frame begins."""
    scene = plain_call(six=True)
    empty = tuple(replace(packet, payload=b"", sound=False) if n % 3 else packet for n, packet in enumerate(scene.left))
    assert_alike(tmp_path, replace(scene, left=empty).packets(), (ALL,), "raw_ip")


def test_a_visit_without_frames_changes_nothing(tmp_path: Path) -> None:
    packets = plain_call().packets()
    with Capture(tmp_path) as capture:
        for packet in packets:
            capture.hear([packet])
            capture.take(capture.engine.listen(block([])))
            assert capture.engine.now == packet.time_ns
    assert sealed(tmp_path) == offline(tmp_path, packets)


@pytest.mark.parametrize("links", [("ethernet", "raw_ip"), ("vlan", "linux_cooked_v1", "ethernet")])
def test_interfaces_of_several_link_types(links: Sequence[str], tmp_path: Path) -> None:
    packets = plain_call().packets()
    parts = [frames(packets[n :: len(links)], link) for n, link in enumerate(links)]
    with Capture(tmp_path) as capture:
        capture.visits(merged_records(parts), range(10, len(packets), 10))
    assert sealed(tmp_path) == offline(tmp_path, packets)


# -- bounds ------------------------------------------------------------------------------------------------------------


def strangers(count: int, start_ns: int, step_ns: int) -> list[Packet]:
    """RTP that no SDP explains, each packet of another stream."""
    here, there = Endpoint("10.77.0.1", 30000), Endpoint("10.77.0.2", 30000)
    return [talk(here, there, start_ns + n * step_ns, 20, seed=n, ssrc=n)[0].packet() for n in range(count)]


def test_media_of_no_call_waits_in_bounded_memory_and_is_counted(tmp_path: Path) -> None:
    scene = plain_call()
    noise = strangers(2000, START_NS, 500_000)
    limit = 100_000
    with Capture(tmp_path, limits=Limits(memory=limit)) as capture:
        records = frames(in_order(scene.packets(), noise))
        for start in range(0, len(records), 20):
            capture.visits(records_part(records, start, start + 20), ())
            assert capture.engine.hold.size <= limit
        dropped = capture.count("overload_dropped", "media without a call: memory full")
        assert dropped > 1000
        assert dropped + capture.engine.waiting == 2000
        capture.rest(45)
    assert capture.count("not_a_call", "RTP of no call") == 2000 - dropped
    (recording,) = (sealed(tmp_path), recordings(tmp_path))[1]
    assert_sound(recording, *scene.channels())


def records_part(records: Records, start: int, stop: int) -> Records:
    rows = slice(start, stop)
    return replace(
        records,
        offset=records.offset[rows],
        length=records.length[rows],
        wire=records.wire[rows],
        time=records.time[rows],
        link=records.link[rows],
    )
