"""Calls that do what office phones do: hold, early media, forks, relays, failures. Each is a `Scene`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from . import ip
from .ip import Endpoint, Packet
from .media import MS, Rtp, follow, in_time, sender_report, talk
from .scene import LAST_WORD_MS, START_NS, Scene, answered_ns, dialog, hang_up, plain_call, set_up
from .signalling import Dialog, Signal, sdp

SPARED = 8
"""Packets at the end of a side that a bad network leaves alone: more than any delay lasts."""


def held(seed: int, *, offer: str = "sendonly", clock_runs: bool = True, pause_ms: int = 700) -> Scene:
    """Talk, hold by re-INVITE, talk again. `offer` is the direction, or an address for hold by 0.0.0.0 (RFC 2543)."""
    scene = plain_call(seed, duration_ms=600)
    shape = scene.dialog
    stop = scene.right[-1].time_ns + 30 * MS
    resume = stop + pause_ms * MS
    by_address = offer == "0.0.0.0"
    media = Endpoint(offer, shape.caller.media.port) if by_address else shape.caller.media
    pause = sdp(media, direction="sendrecv" if by_address else offer, session=2)
    agree = sdp(
        shape.callee.media, direction={"sendonly": "recvonly"}.get(offer, offer if not by_address else "sendrecv")
    )
    left = follow(scene.left, resume + 20 * MS, 500, seed=seed + 500, clock_runs=clock_runs)
    right = follow(scene.right, resume + 40 * MS, 500, seed=seed + 600, clock_runs=clock_runs)
    end = right[-1].time_ns + LAST_WORD_MS * MS
    signals = (
        *set_up(shape, START_NS),
        *re_invite(shape, stop, pause, agree, cseq=2),
        *re_invite(shape, resume, sdp(shape.caller.media, session=3), sdp(shape.callee.media, session=3), cseq=3),
        *hang_up(shape, end),
    )
    return replace(scene, signals=signals, left=scene.left + left, right=scene.right + right)


def re_invite(shape: Dialog, time_ns: int, offer: str, answer: str, *, cseq: int = 2) -> tuple[Signal, ...]:
    """A re-INVITE of the caller with its answer."""
    return (
        shape.invite(time_ns, offer, cseq=cseq, again=True),
        shape.reply(time_ns + 5 * MS, "200 OK", answer, cseq=cseq),
        shape.request(time_ns + 8 * MS, "ACK", cseq=cseq),
    )


def moved(seed: int, *, address: str | None = None, new_ssrc: bool = False) -> Scene:
    """After a re-INVITE the caller hears and speaks at another port (and address), the sound going on."""
    scene = plain_call(seed, duration_ms=1200)
    shape = scene.dialog
    old = shape.caller.media
    new = Endpoint(address or old.address, old.port + 500)
    when = scene.left[30].time_ns - 10 * MS

    def move(packet: Rtp) -> Rtp:
        if packet.time_ns < when + 8 * MS:
            return packet
        ssrc = packet.ssrc ^ 0xFFFF if new_ssrc and packet.source == old else packet.ssrc
        source, target = (new if end == old else end for end in (packet.source, packet.target))
        return replace(packet, source=source, target=target, ssrc=ssrc)

    change = re_invite(shape, when, sdp(new, session=2), sdp(shape.callee.media, session=2))
    signals = tuple(sorted((*scene.signals, *change), key=lambda signal: signal.time_ns))
    left, right = (tuple(map(move, side)) for side in (scene.left, scene.right))
    return replace(scene, signals=signals, left=left, right=right)


def early_media(seed: int, *, answered: bool = True) -> Scene:
    """A ringing tone in 183 (RFC 3960) that turns into the callee's voice, or into 486."""
    shape = dialog(seed)
    caller, callee = shape.caller, shape.callee
    start = START_NS + 40 * MS
    tone = talk(callee.media, caller.media, start, 600, seed=seed, ssrc=0xE0000000 + seed)
    answer = start + 620 * MS
    begin = (
        shape.invite(START_NS, sdp(caller.media)),
        shape.reply(START_NS + 2 * MS, "100 Trying"),
        shape.reply(START_NS + 10 * MS, "183 Session Progress", sdp(callee.media)),
    )
    if not answered:
        end = (shape.reply(answer, "486 Busy Here"), shape.request(answer + 3 * MS, "ACK"))
        return Scene(shape, begin + end, (), tone)
    left = talk(caller.media, callee.media, answer + 40 * MS, 500, seed=seed + 1)
    right = follow(tone, answer + 20 * MS, 500, seed=seed + 2)
    end_ = hang_up(shape, right[-1].time_ns + 70 * MS, backward=True)
    middle = (shape.reply(answer, "200 OK", sdp(callee.media)), shape.request(answer + 3 * MS, "ACK"))
    return Scene(shape, begin + middle + end_, left, tone + right)


def failed(seed: int, status: str) -> Scene:
    """A call that rings and fails with `status`; 487 comes after the caller's CANCEL."""
    shape = dialog(seed)
    begin = (
        shape.invite(START_NS, sdp(shape.caller.media)),
        shape.reply(START_NS + 2 * MS, "100 Trying"),
        shape.reply(START_NS + 4 * MS, "180 Ringing"),
    )
    end = START_NS + 500 * MS
    cancel = (
        shape.request(end - 10 * MS, "CANCEL", inside=False),
        shape.reply(end - 5 * MS, "200 OK", method="CANCEL"),
    )
    final = (shape.reply(end, status), shape.request(end + 3 * MS, "ACK"))
    return Scene(shape, begin + (cancel if status.startswith("487") else ()) + final)


def authenticated(seed: int, status: str = "407 Proxy Authentication Required") -> Scene:
    """The first INVITE is refused for want of a password; the second, with one, makes the call."""
    scene = plain_call(seed, start_ns=START_NS + 20 * MS)
    shape = scene.dialog
    challenge = 'Proxy-Authenticate: Digest realm="synth", nonce="1", algorithm=MD5'
    first = (
        shape.invite(START_NS, sdp(shape.caller.media)),
        shape.branch_of("refused").reply(START_NS + 3 * MS, status, extra=(challenge,)),
        shape.branch_of("refused").request(START_NS + 6 * MS, "ACK"),
    )
    proof = ('Proxy-Authorization: Digest username="u", realm="synth", nonce="1", uri="sip:x", response="0"',)
    again = shape.request(START_NS + 20 * MS, "INVITE", sdp(shape.caller.media), cseq=2, inside=False, extra=proof)
    answers = (
        shape.reply(START_NS + 22 * MS, "100 Trying", cseq=2),
        shape.reply(answered_ns(START_NS + 20 * MS), "200 OK", sdp(shape.callee.media), cseq=2),
        shape.request(answered_ns(START_NS + 20 * MS) + 5 * MS, "ACK", cseq=2),
    )
    return replace(scene, signals=(*first, again, *answers, *scene.signals[-2:]))


def delayed_offer(seed: int) -> Scene:
    """The INVITE has no SDP: the offer comes in the 200, the answer in the ACK (RFC 3264, 4)."""
    scene = plain_call(seed)
    shape = scene.dialog
    answered = answered_ns()
    ack = shape.request(answered + 5 * MS, "ACK", sdp(shape.caller.media))
    signals = (*set_up(shape, START_NS, "", sdp(shape.callee.media))[:-1], ack, *scene.signals[-2:])
    return replace(scene, signals=signals)


def forked(seed: int) -> Scene:
    """Two phones ring with early media; the second answers. Heard are the first until then, then the second."""
    shape = dialog(seed)
    caller = shape.caller.media
    net = shape.callee.sip.address.rpartition(".")[0]
    one = shape.branch_of("fork1", media=Endpoint(f"{net}.31", 21000))
    two = shape.branch_of("fork2", media=Endpoint(f"{net}.32", 22000))
    answer = START_NS + 610 * MS
    tone1 = talk(one.callee.media, caller, START_NS + 40 * MS, 560, seed=seed, ssrc=1)
    tone2 = talk(two.callee.media, caller, START_NS + 100 * MS, 500, seed=seed + 1, ssrc=2)
    right = follow(tone2, START_NS + 620 * MS, 500, seed=seed + 2)
    left = talk(caller, two.callee.media, START_NS + 640 * MS, 480, seed=seed + 3)
    signals = (
        shape.invite(START_NS, sdp(caller)),
        one.reply(START_NS + 10 * MS, "183 Session Progress", sdp(one.callee.media)),
        two.reply(START_NS + 15 * MS, "183 Session Progress", sdp(two.callee.media)),
        two.reply(answer, "200 OK", sdp(two.callee.media)),
        two.request(answer + 5 * MS, "ACK"),
        *hang_up(two, right[-1].time_ns + LAST_WORD_MS * MS),
    )
    return Scene(shape, signals, left, tone1 + right, tuple(packet.packet() for packet in tone2))


def behind_nat(seed: int) -> Scene:
    """The caller's SDP names its private address; its packets come from elsewhere, and are answered there."""
    scene = plain_call(seed)
    outside = Endpoint("203.0.113.9", 61000 + seed)
    shape = scene.dialog
    private = sdp(Endpoint("192.168.1.5", 4000))
    left = tuple(replace(packet, source=outside) for packet in scene.left)
    right = tuple(replace(packet, target=outside) for packet in scene.right)
    return replace(scene, signals=set_up(shape, START_NS, private) + scene.signals[-2:], left=left, right=right)


def two_legs(seed: int) -> tuple[Scene, Scene]:
    """A B2BUA on the mirrored segment: two dialogs at a time, the second with the first one's sound 2 ms later."""
    shape = dialog(seed)
    net = shape.caller.sip.address.rpartition(".")[0]
    pbx, sound = Endpoint(f"{net}.1", 5060), f"{net}.2"
    inward = replace(shape.callee, sip=pbx, media=Endpoint(sound, 30000), tag="pbx1")
    outward = replace(shape.caller, sip=pbx, media=Endpoint(sound, 30002), tag="pbx2")
    first = plain_call(seed, shape=replace(shape, callee=inward))
    second_shape = replace(shape, call_id=f"{seed}-other@example.invalid", caller=outward)
    second = plain_call(seed + 1, start_ns=START_NS + 6 * MS, shape=second_shape)
    heard = [
        tuple(
            replace(after, payload=before.payload, time_ns=before.time_ns + 2 * MS, place_ns=before.place_ns + 2 * MS)
            for before, after in zip(side, copy, strict=True)
        )
        for side, copy in ((first.left, second.left), (first.right, second.right))
    ]
    return first, replace(second, left=heard[0], right=heard[1])


def relayed(seed: int) -> Scene:
    """A proxy with a media relay: one dialog seen twice, four streams, of which two are copies."""
    scene = plain_call(seed)
    shape = scene.dialog
    caller, callee = shape.caller, shape.callee
    net = caller.sip.address.rpartition(".")[0]
    proxy, to_caller, to_callee = Endpoint(f"{net}.1", 5060), Endpoint(f"{net}.2", 30000), Endpoint(f"{net}.2", 30002)
    inside = replace(shape, callee=replace(callee, sip=proxy))
    outside = replace(shape, caller=replace(caller, sip=proxy), extra=(f"Record-Route: <sip:{proxy.address};lr>",))
    near = set_up(inside, START_NS, answer=sdp(to_caller)) + hang_up(inside, scene.signals[-2].time_ns)
    far = set_up(outside, START_NS, offer=sdp(to_callee)) + hang_up(outside, scene.signals[-2].time_ns)
    signals = [*near, *(replace(signal, time_ns=signal.time_ns + _hop(signal, proxy)) for signal in far)]
    left = tuple(replace(packet, target=to_caller) for packet in scene.left)
    right = tuple(replace(packet, target=to_callee) for packet in scene.right)
    copies = [
        *(_relay(packet, to_callee, callee.media) for packet in left),
        *(_relay(packet, to_caller, caller.media) for packet in right),
    ]
    signals.sort(key=lambda signal: signal.time_ns)
    return Scene(shape, tuple(signals), left, right, tuple(copies))


def _hop(signal: Signal, proxy: Endpoint) -> int:
    """The proxy passes requests on half a millisecond later; the responses it got half a millisecond earlier."""
    return (MS if signal.source == proxy else -MS) // 2


def _relay(packet: Rtp, source: Endpoint, target: Endpoint) -> Packet:
    return replace(packet, source=source, target=target, time_ns=packet.time_ns + 300_000).packet()


def with_rtcp(scene: Scene, *, muxed: bool) -> Scene:
    """RTCP reports of both sides, on the next port or on the media's own (RFC 5761)."""
    step = 0 if muxed else 1
    reports = [
        sender_report(packet, _above(packet.target, step), _above(packet.source, step))
        for packet in (*scene.left[5::20], *scene.right[5::20])
    ]
    if not muxed:
        return replace(scene, unheard=tuple(reports))
    shape = scene.dialog
    mux = ("a=rtcp-mux",)
    signals = set_up(shape, START_NS, sdp(shape.caller.media, more=mux), sdp(shape.callee.media, more=mux))
    return replace(scene, signals=signals + scene.signals[-2:], unheard=tuple(reports))


def with_keep_alives(scene: Scene) -> Scene:
    """What phones send to keep a NAT open (RFC 5626, RFC 6263): CRLF on SIP; on media STUN, zeroes, nothing."""
    shape = scene.dialog
    stun = b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12)
    alive = [
        Packet(one.time_ns + 3 * MS, ip.udp(one.source, one.target, bytes_))
        for one, bytes_ in zip(scene.left[10:], (stun, b"\0\0\0\0", b"", b"\0", b"\x80" * 11), strict=False)
    ]
    crlf = [
        Packet(scene.left[n].time_ns + MS, ip.udp(shape.caller.sip, shape.callee.sip, text))
        for n, text in ((3, b"\r\n\r\n"), (4, b"\0"), (5, b"\r\n"))
    ]
    return replace(scene, unheard=(*alive, *crlf))


def signalling_repeated(scene: Scene) -> Scene:
    """Every message is sent again after 500 ms, as over a lossy path (RFC 3261, 17)."""
    again = (replace(signal, time_ns=signal.time_ns + 500 * MS) for signal in scene.signals)
    signals = tuple(sorted((*scene.signals, *again), key=lambda signal: signal.time_ns))
    return replace(scene, signals=signals)


def _above(endpoint: Endpoint, step: int) -> Endpoint:
    return Endpoint(endpoint.address, endpoint.port + step)


def impaired(scene: Scene, seed: int, *, loss: float = 0.1, late: float = 0.2, twice: float = 0.1) -> Scene:
    """The scene through a bad network: packets lost, overtaken and doubled at random.

    The first packet of a side comes as sent, and so do the last ones: fixed points in time.
    """
    network = random.Random(seed)
    return replace(
        scene,
        left=_impair(scene.left, network, (loss, late, twice)),
        right=_impair(scene.right, network, (loss, late, twice)),
    )


def _impair(side: Sequence[Rtp], network: random.Random, chances: tuple[float, float, float]) -> tuple[Rtp, ...]:
    loss, late, twice = chances
    arrived: list[Rtp] = [side[0], *side[-SPARED:]]
    for packet in side[1:-SPARED]:
        if network.random() < loss:
            continue
        delay = network.randrange(1, 60) * MS if network.random() < late else 0
        arrived.append(replace(packet, time_ns=packet.time_ns + delay))
        if network.random() < twice:
            arrived.append(replace(packet, time_ns=packet.time_ns + delay + network.randrange(1, 60) * MS))
    return in_time(arrived)
