"""Who owns which media: calls as they cross the wire, and the payloads that each must be found to consist of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tapdeck.sip.dialog import Party
from tapdeck.sniffer.bindings import MAX_ENDPOINTS
from tapdeck.sniffer.engine import CallSettings, Engine, Limits
from tapdeck.sniffer.selection import Use
from tests.sniffer.listening import Found, Wire, listen
from tests.support import ip, recipes
from tests.support.ip import Endpoint, Packet
from tests.support.media import MS, SECOND, Rtp, follow, talk
from tests.support.scene import START_NS, Scene, answered_ns, end_ns, hang_up, in_order, plain_call, set_up
from tests.support.signalling import sdp

HOUR = 3600 * SECOND


def payloads(*streams: Sequence[Rtp]) -> list[bytes]:
    packets = sorted((packet for stream in streams for packet in stream), key=lambda packet: packet.time_ns)
    return [packet.payload for packet in packets]


def assert_found(found: Found, scene: Scene) -> None:
    assert found.left == payloads(scene.left), "the caller's sound"
    assert found.right == payloads(scene.right), "the callee's sound"


def without_bye(scene: Scene) -> Scene:
    return replace(scene, signals=tuple(signal for signal in scene.signals if b" BYE\r\n" not in signal.text))


def clock(begin: int, end: int, step: int = 10 * SECOND) -> list[Packet]:
    """Something of no call every ten seconds, so that time is seen to pass."""
    here, there = Endpoint("203.0.113.1", 9), Endpoint("203.0.113.2", 9)
    return [Packet(time, ip.udp(here, there, b"tick")) for time in range(begin, end, step)]


# -- whose media -------------------------------------------------------------------------------------------------------


def test_a_plain_call() -> None:
    scene = plain_call(1)
    result = listen(scene.packets())
    assert_found(result[scene.call_id], scene)
    assert len(result.found) == 1


def test_media_before_its_answer_is_claimed_backwards() -> None:
    """The callee speaks 2 s before its 200, and its own SDP, cross the wire."""
    scene = plain_call(1)
    late = [
        replace(s, time_ns=s.time_ns + 2000 * MS) if b"SIP/2.0 200" in s.text and b"INVITE" in s.text else s
        for s in scene.signals
    ]
    assert_found(listen(replace(scene, signals=tuple(late)).packets())[scene.call_id], scene)


@pytest.mark.parametrize("late_s", [29, 31])
def test_media_waits_for_its_call_as_long_as_it_is_told(late_s: int) -> None:
    """A call joined in the middle: 30 s before the first word of SDP are claimed, not more."""
    scene = plain_call(1, duration_ms=40_000)
    first = scene.left[0].time_ns
    shape = scene.dialog
    begin = first + late_s * SECOND
    signals = (
        shape.request(begin, "INVITE", sdp(shape.caller.media), cseq=5),
        shape.reply(begin + MS, "200 OK", sdp(shape.callee.media), cseq=5),
        shape.request(begin + 2 * MS, "ACK", cseq=5),
        *scene.signals[-2:],
    )
    found = listen(replace(scene, signals=signals).packets())[scene.call_id]
    reach = begin - 30 * SECOND
    assert found.left == payloads([packet for packet in scene.left if packet.time_ns >= reach])


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_behind_nat(block: int) -> None:
    scene = recipes.behind_nat(1)
    assert_found(listen(scene.packets(), size=block)[scene.call_id], scene)


@pytest.mark.parametrize("bye", [True, False])
@pytest.mark.parametrize("pause_ms", [1500, 20_000, 60_000])
@pytest.mark.parametrize("same_ssrc", [True, False])
def test_ports_that_the_next_call_uses_again(bye: bool, pause_ms: int, same_ssrc: bool) -> None:
    media = (Endpoint("10.9.9.1", 6000), Endpoint("10.9.9.2", 7000))
    ssrc = (0xCAFE, 0xBEEF) if same_ssrc else None
    one = plain_call(1, media=media, ssrc=ssrc)
    one = one if bye else without_bye(one)
    two = plain_call(2, start_ns=end_ns(one) + pause_ms * MS, media=media, ssrc=ssrc)
    result = listen(in_order(one.packets(), two.packets()))
    assert_found(result[one.call_id], one)
    assert_found(result[two.call_id], two)


def bypassed(first: Scene) -> tuple[Scene, Scene]:
    """A B2BUA that passes SDP on unchanged: two dialogs name the same two phones, whose media passes it by."""
    shape = first.dialog
    pbx = Endpoint("10.0.1.1", 5060)
    inward = replace(shape, callee=replace(shape.callee, sip=pbx, tag="in"))
    outward = replace(shape, call_id="second-leg", caller=replace(shape.caller, sip=pbx, tag="out"))
    end = first.signals[-2].time_ns
    one = set_up(inward, START_NS) + hang_up(inward, end)
    two = [replace(signal, time_ns=signal.time_ns + MS) for signal in set_up(outward, START_NS)]
    two[3] = replace(two[3], time_ns=one[3].time_ns - MS)
    two += hang_up(outward, end + MS)
    return replace(first, dialog=inward, signals=one), Scene(outward, tuple(two), first.left, first.right)


@pytest.mark.parametrize("block", [1, 50, 1 << 20])
def test_a_b2bua_that_media_passes_by_gives_both_legs_the_sound(block: int) -> None:
    one, two = bypassed(plain_call(1))
    packets = in_order(one.packets(), replace(two, left=(), right=()).packets())
    result = listen(packets, size=block)
    assert_found(result[one.call_id], one)
    assert_found(result["second-leg"], two)
    fresh = [int(track.fresh.sum()) for found in result.found for track in found.ended.tracks]
    assert sum(fresh) == len(one.left) + len(one.right), "each packet is counted for one of them"
    assert result[one.call_id].related == {"second-leg"}


@pytest.mark.parametrize(("ports", "ssrc"), [("one pair", "own"), ("one pair", "one"), ("own", "one"), ("own", "own")])
def test_a_load_generator(ports: str, ssrc: str) -> None:
    """One pair of ports for all its calls, or one SSRC, or both: here one call after the other."""
    media = (Endpoint("10.9.9.1", 6000), Endpoint("10.9.9.2", 7000)) if ports == "one pair" else (None, None)
    scenes = [
        plain_call(
            number,
            start_ns=START_NS + number * 2 * SECOND,
            media=media,
            ssrc=(0xCAFE, 0xCAFE) if ssrc == "one" else None,
        )
        for number in range(1, 7)
    ]
    result = listen(in_order(*(scene.packets() for scene in scenes)))
    for scene in scenes:
        assert_found(result[scene.call_id], scene)


def test_a_load_generator_on_one_port_with_calls_at_once() -> None:
    gateway = Endpoint("10.9.9.9", 6000)
    scenes = [
        plain_call(number, start_ns=START_NS + number * 13 * MS, ssrc=(0xCAFE, 0xCAFE), media=(None, gateway))
        for number in range(1, 7)
    ]
    result = listen(in_order(*(scene.packets() for scene in scenes)), size=20)
    for scene in scenes:
        assert_found(result[scene.call_id], scene)


def test_of_forks_the_one_that_answered_is_heard() -> None:
    scene = recipes.forked(1)
    found = listen(scene.packets())[scene.call_id]
    assert_found(found, scene)
    assert len(found.payloads(Party.CALLEE, Use.OTHER_FORK)) == len(scene.unheard)


def test_relayed_copies_are_told_from_the_sender_s_own() -> None:
    scene = recipes.relayed(1)
    found = listen(scene.packets())[scene.call_id]
    assert_found(found, scene)
    relayed = [found.payloads(party, Use.RELAYED) for party in Party]
    assert [len(side) for side in relayed] == [len(scene.left), len(scene.right)]


def test_a_new_ssrc_and_a_new_port_belong_to_the_same_call() -> None:
    scene = plain_call(1)
    last = scene.left[-1]
    moved = Endpoint(last.source.address, last.source.port + 2)
    again = follow(scene.left, last.time_ns + 20 * MS, 400, seed=77)
    again = tuple(replace(packet, ssrc=0x1234, source=moved) for packet in again)
    scene = replace(scene, left=scene.left + again)
    end = again[-1].time_ns + 100 * MS
    scene = replace(without_bye(scene), signals=scene.signals[:-2] + hang_up(scene.dialog, end))
    assert_found(listen(scene.packets())[scene.call_id], scene)


def test_a_stranger_s_stream_goes_to_no_call() -> None:
    scene = plain_call(1)
    stray = talk(Endpoint("203.0.113.5", 1000), Endpoint("203.0.113.6", 2000), answered_ns(), 500, seed=9)
    result = listen(in_order(scene.packets(), [packet.packet() for packet in stray]))
    assert_found(result[scene.call_id], scene)
    assert result.packets("not_a_call", "RTP of no call") == len(stray)


# -- legs that belong together -----------------------------------------------------------------------------------------


def test_the_legs_of_a_b2bua_are_related_and_own_their_own_media() -> None:
    one, two = recipes.two_legs(1)
    result = listen(in_order(one.packets(), two.packets()))
    for scene, other in ((one, two), (two, one)):
        assert_found(result[scene.call_id], scene)
        assert result[scene.call_id].related == {other.call_id}


def test_calls_of_other_people_are_not_related() -> None:
    scenes = [plain_call(number, start_ns=START_NS + number * MS) for number in (1, 2, 3)]
    result = listen(in_order(*(scene.packets() for scene in scenes)))
    assert all(found.related == set() for found in result.found)


def test_a_transfer_relates_the_call_that_it_asks_for() -> None:
    one = plain_call(1)
    middle = one.left[20].time_ns
    refer = one.dialog.request(middle, "REFER", cseq=5, backward=True, extra=("Refer-To: <sip:2002@10.0.2.21>",))
    one = replace(one, signals=(*one.signals[:-2], refer, *one.signals[-2:]))
    two = plain_call(2, start_ns=middle + 100 * MS)
    result = listen(in_order(one.packets(), two.packets()))
    assert result[two.call_id].related == {one.call_id}


# -- encryption --------------------------------------------------------------------------------------------------------


def zrtp(time: int, source: Endpoint, target: Endpoint, kind: bytes) -> Packet:
    """RFC 6189 section 5: a ZRTP message begins with 0x505A and its length, then eight letters name it."""
    message = b"\x50\x5a\0\3" + kind
    return Packet(time, ip.udp(source, target, b"\x10\0\0\1ZRTP\0\0\0\7" + message + bytes(4)))


def test_after_a_zrtp_handshake_the_sound_is_sealed() -> None:
    scene = plain_call(1)
    here, there = scene.dialog.caller.media, scene.dialog.callee.media
    when = scene.left[20].time_ns + 5 * MS
    handshake = [
        zrtp(when - 2 * MS, here, there, b"Hello   "),
        zrtp(when - MS, there, here, b"Commit  "),
        zrtp(when, here, there, b"Confirm2"),
        zrtp(when + MS, there, here, b"Conf2ACK"),
    ]
    found = listen(replace(scene, unheard=tuple(handshake)).packets())[scene.call_id]
    assert {track.clear_until for track in found.ended.tracks} == {when}


def test_zrtp_that_comes_to_nothing_seals_nothing() -> None:
    scene = plain_call(1)
    here, there = scene.dialog.caller.media, scene.dialog.callee.media
    hello = [zrtp(scene.left[k].time_ns + 5 * MS, here, there, b"Hello   ") for k in range(10)]
    found = listen(replace(scene, unheard=tuple(hello)).packets())[scene.call_id]
    assert {track.clear_until for track in found.ended.tracks} == {None}


# -- when a call is over -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patience_s", [300, 60])
@pytest.mark.parametrize("block", [20, 1 << 20])
def test_media_silence_ends_a_call_whose_bye_was_missed(patience_s: int, block: int) -> None:
    scene = without_bye(plain_call(1))
    last = scene.right[-1].time_ns
    ticks = clock(last, last + 400 * SECOND)
    settings = CallSettings(media_silence_s=patience_s)
    found = listen(in_order(scene.packets(), ticks), settings=settings, size=block)[scene.call_id]
    assert (found.reason, found.ended.call.ended) == ("media silence", last)


def test_a_pause_shorter_than_the_patience_ends_nothing() -> None:
    scene = without_bye(plain_call(1))
    last = scene.right[-1].time_ns
    again = follow(scene.right, last + 290 * SECOND, 500, seed=5)
    scene = replace(scene, right=scene.right + again)
    bye = hang_up(scene.dialog, again[-1].time_ns + 100 * MS)
    scene = replace(scene, signals=scene.signals + bye)
    found = listen(in_order(scene.packets(), clock(last, last + 290 * SECOND)))[scene.call_id]
    assert_found(found, scene)
    assert found.reason != "media silence"


def on_hold(scene: Scene, *, expires: int | None = None) -> tuple[Scene, int]:
    """The call is put on hold after its last sound and stays so; gives it and when the hold began."""
    shape, when = scene.dialog, scene.right[-1].time_ns + 50 * MS
    extra = () if expires is None else (f"Session-Expires: {expires};refresher=uac",)
    hold = (
        shape.request(when, "INVITE", sdp(shape.caller.media, direction="sendonly", session=2), cseq=3, extra=extra),
        shape.reply(when + MS, "200 OK", sdp(shape.callee.media, direction="recvonly"), cseq=3, extra=extra),
        shape.request(when + 2 * MS, "ACK", cseq=3),
    )
    return replace(without_bye(scene), signals=without_bye(scene).signals + hold), when


def test_a_held_call_may_be_silent_for_four_hours() -> None:
    scene, when = on_hold(plain_call(1))
    bye = hang_up(scene.dialog, when + 3 * HOUR)
    ended = replace(scene, signals=scene.signals + bye)
    ticks = clock(when, when + 5 * HOUR, 60 * SECOND)
    found = listen(in_order(ended.packets(), ticks))[scene.call_id]
    assert found.ended.call.ended == when + 3 * HOUR
    found = listen(in_order(scene.packets(), ticks))[scene.call_id]
    assert found.reason == "media silence"
    assert found.ended.call.ended is not None
    assert found.ended.call.ended <= when + SECOND


def test_a_session_timer_shortens_the_patience_with_a_held_call() -> None:
    """RFC 4028: without a refresh within the interval the session is over."""
    scene, when = on_hold(plain_call(1), expires=1800)
    again = follow(scene.right, when + 2 * HOUR, 400, seed=5)
    later = replace(scene, right=scene.right + again)
    found = listen(in_order(later.packets(), clock(when, when + 2 * HOUR, 60 * SECOND)))[scene.call_id]
    assert found.reason == "media silence"
    assert_found(found, scene)


def test_the_end_of_the_input_ends_what_still_goes_on() -> None:
    scene = without_bye(plain_call(1))
    found = listen(scene.packets())[scene.call_id]
    assert found.reason == "end of input"
    assert_found(found, scene)


def test_media_that_trails_the_bye_is_kept_for_the_linger_only() -> None:
    scene = plain_call(1, duration_ms=10_000)
    bye = scene.left[100].time_ns + MS
    scene = replace(without_bye(scene), signals=without_bye(scene).signals + hang_up(scene.dialog, bye))
    found = listen(scene.packets())[scene.call_id]
    until = bye + 5 * SECOND
    assert found.left == payloads([packet for packet in scene.left if packet.time_ns < until])


# -- overload ----------------------------------------------------------------------------------------------------------


def test_a_full_stream_table_drops_new_media_and_says_so() -> None:
    scene = plain_call(1, duration_ms=3000)
    flood = [
        talk(
            Endpoint("203.0.113.5", 1000 + number),
            Endpoint("203.0.113.6", 2000),
            answered_ns() + 500 * MS,
            100,
            seed=number,
        )
        for number in range(40)
    ]
    strays = [packet.packet() for stream in flood for packet in stream]
    result = listen(in_order(scene.packets(), strays), limits=Limits(max_streams=12))
    assert_found(result[scene.call_id], scene)
    assert result.packets("overload_dropped") == (40 - 10) * 5
    assert result.packets("not_a_call", "RTP of no call") == 10 * 5


def test_a_full_call_table_refuses_new_calls_and_keeps_the_old() -> None:
    scenes = [plain_call(number, start_ns=START_NS + number * 5 * MS) for number in range(1, 6)]
    result = listen(in_order(*(scene.packets() for scene in scenes)), limits=Limits(max_calls=3))
    assert [found.ended.call.call_id for found in result.found] == [scene.call_id for scene in scenes[:3]]
    assert result.engine.correlator.dialogs.refused_calls == 2
    for scene in scenes[:3]:
        assert_found(result[scene.call_id], scene)


def test_a_call_that_moves_without_end_is_known_by_its_latest_endpoints_only() -> None:
    scene = plain_call(1)
    shape = scene.dialog
    moves = [
        signal
        for n in range(600)
        for signal in recipes.re_invite(
            shape,
            scene.left[0].time_ns + n * MS,
            sdp(replace(shape.caller.media, port=30_000 + 2 * n), session=n + 2),
            sdp(shape.callee.media),
            cseq=n + 2,
        )
    ]
    signals = tuple(sorted((*scene.signals[:-2], *moves), key=lambda signal: signal.time_ns))
    last = replace(shape.caller.media, port=30_000 + 2 * 599)
    heard = talk(shape.callee.media, last, moves[-1].time_ns + 20 * MS, 200, seed=1, ssrc=77)
    packets = replace(scene, signals=signals, left=(), right=heard).packets()
    assert len(listen(packets)[scene.call_id].right) == 10
    engine, wire = Engine(stash=lambda data: 0), Wire(packets)
    for block in wire.blocks(1000):
        assert not list(engine.feed(engine.columns.read(block)))
    assert 100 < len(engine.correlator._bindings) <= MAX_ENDPOINTS
