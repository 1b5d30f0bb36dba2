"""Calls that go on as other calls: transfers, forwards, pick-ups, legs of a PBX. Each is several `Scene`s, by name.

shape = blind_transfer(1)
files.write(folder, files.pcap(packets(shape)))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

from .ip import Endpoint, Packet
from .media import MS, follow, talk
from .recipes import forked
from .scene import START_NS, Scene, answered_ns, dialog, hang_up, in_order, plain_call
from .signalling import Dialog, Party, Signal, sdp

Shape = Mapping[str, Scene]
TALK_MS = 1000


def packets(shape: Shape) -> list[Packet]:
    """All scenes of a shape in the order of time."""
    return in_order(*(scene.packets() for scene in shape.values()))


def people(seed: int) -> tuple[Party, Party, Party]:
    """Three phones: Ann, Bob and Cid."""
    net = f"10.{100 + seed // 200}.{seed % 200}."
    return tuple(  # type: ignore[return-value]
        Party(
            str(2001 + n),
            name,
            Endpoint(f"{net}{11 + n}", 5060),
            Endpoint(f"{net}{11 + n}", 10000 + 2 * n),
            f"{name}{seed}",
        )
        for n, name in enumerate(("Ann", "Bob", "Cid"))
    )


def call(
    call_id: str,
    caller: Party,
    callee: Party,
    start_ns: int,
    seed: int,
    extra: tuple[str, ...] = (),
    talk_ms: int = TALK_MS,
) -> Scene:
    """A plain call whose INVITE has more headers."""
    shape = Dialog(call_id, caller, callee)
    scene = plain_call(seed, start_ns=start_ns, shape=shape, duration_ms=talk_ms, ssrc=(seed << 8 | 1, seed << 8 | 2))
    invite = shape.request(start_ns, "INVITE", sdp(caller.media, pts=(caller.pt, 101)), inside=False, extra=extra)
    return replace(scene, signals=(invite, *scene.signals[1:]))


def refer(
    shape: Dialog, time_ns: int, to: str, *, backward: bool = True, more: str = "", by: str = ""
) -> tuple[Signal, ...]:
    """A REFER and its 202; `backward` if the callee asks."""
    extra = (f"Refer-To: <{to}{more}>", *([f"Referred-By: <sip:{by}@example.invalid>"] if by else []))
    return (
        shape.request(time_ns, "REFER", cseq=21, backward=backward, extra=extra),
        shape.reply(time_ns + 2 * MS, "202 Accepted", method="REFER", cseq=21, backward=backward),
    )


def notify(shape: Dialog, time_ns: int, status: str, *, backward: bool = False, cseq: int = 31) -> tuple[Signal, ...]:
    """A NOTIFY of what became of the call asked for (RFC 3515, 2.4.5), and its 200; `backward`: by the callee."""
    message = shape.request(
        time_ns,
        "NOTIFY",
        f"SIP/2.0 {status}\r\n",
        cseq=cseq,
        backward=backward,
        extra=("Event: refer", "Subscription-State: active;expires=60"),
    )
    text = message.text.replace(b"Content-Type: application/sdp", b"Content-Type: message/sipfrag;version=2.0")
    done = shape.reply(time_ns + 2 * MS, "200 OK", method="NOTIFY", cseq=cseq, backward=backward)
    return replace(message, text=text), done


def blind_transfer(seed: int, outcome: str = "200 OK") -> Shape:
    """Ann talks with Bob, who sends her on to Cid; she calls Cid, tells Bob how it goes, and hangs up on him."""
    ann, bob, cid = people(seed)
    first = call(f"first-{seed}@example.invalid", ann, bob, START_NS, seed)
    when = first.left[-1].time_ns + 60 * MS
    second = call(
        f"second-{seed}@example.invalid",
        replace(ann, media=Endpoint(ann.media.address, ann.media.port + 10), tag=f"again{seed}"),
        cid,
        when + 20 * MS,
        seed + 1,
        (f"Referred-By: <sip:{bob.number}@example.invalid>",),
    )
    shape = first.dialog
    asked = (
        *refer(shape, when, f"sip:{cid.number}@{cid.sip.address}", by=bob.number),
        *notify(shape, when + 10 * MS, "100 Trying"),
        *notify(shape, answered_ns(when + 20 * MS) + 20 * MS, outcome, cseq=32),
        *hang_up(shape, answered_ns(when + 20 * MS) + 60 * MS, backward=True),
    )
    return {"first": replace(first, signals=(*first.signals[:-2], *asked)), "second": second}


def attended_transfer(seed: int) -> Shape:
    """Ann talks with Bob; he asks Cid in a call of his own, then has Ann call Cid in that one's place."""
    ann, bob, cid = people(seed)
    first = call(f"first-{seed}@example.invalid", ann, bob, START_NS, seed)
    asking = replace(bob, media=Endpoint(bob.media.address, bob.media.port + 10), tag=f"ask{seed}")
    begun = first.left[-1].time_ns + 60 * MS
    asked = call(f"asked-{seed}@example.invalid", asking, cid, begun, seed + 1)
    when = asked.left[-1].time_ns + 60 * MS
    place = f"{asked.call_id};to-tag={cid.tag};from-tag={asking.tag}"
    calling = replace(ann, media=Endpoint(ann.media.address, ann.media.port + 10), tag=f"again{seed}")
    called = replace(cid, media=Endpoint(cid.media.address, cid.media.port + 10), tag=f"anew{seed}")
    headers = (f"Replaces: {place}", f"Referred-By: <sip:{bob.number}@example.invalid>")
    last = call(f"last-{seed}@example.invalid", calling, called, when + 20 * MS, seed + 2, headers)
    over = answered_ns(when + 20 * MS)
    more = f"?Replaces={quote(place, safe='')}"
    asks = (
        *refer(first.dialog, when, f"sip:{cid.number}@{cid.sip.address}", more=more, by=bob.number),
        *notify(first.dialog, when + 10 * MS, "100 Trying"),
        *notify(first.dialog, over + 20 * MS, "200 OK", cseq=32),
        *hang_up(first.dialog, over + 60 * MS, backward=True),
    )
    return {
        "first": replace(first, signals=(*first.signals[:-2], *asks)),
        "asked": replace(asked, signals=(*asked.signals[:-2], *hang_up(asked.dialog, over + 10 * MS, backward=True))),
        "last": last,
    }


def forwarded(seed: int, *, anew: bool = True) -> Shape:
    """Bob's phone answers 302, naming Cid; Ann calls there, in a new dialog or in this one (RFC 3261, 8.1.3.4)."""
    ann, bob, cid = people(seed)
    shape = Dialog(f"first-{seed}@example.invalid", ann, bob)
    moved: tuple[Signal, ...] = (
        shape.invite(START_NS, sdp(ann.media)),
        shape.reply(START_NS + 2 * MS, "100 Trying"),
        shape.reply(START_NS + 30 * MS, "302 Moved Temporarily", extra=()),
        shape.request(START_NS + 33 * MS, "ACK"),
    )
    contact = f"Contact: <sip:{cid.number}@{cid.sip.address}>".encode()
    own = f"Contact: <sip:{bob.number}@{bob.sip.address}:5060>".encode()
    moved = tuple(replace(one, text=one.text.replace(own, contact)) if b" 302 " in one.text else one for one in moved)
    if anew:
        second = call(f"second-{seed}@example.invalid", replace(ann, tag=f"again{seed}"), cid, START_NS + 50 * MS, seed)
        return {"first": Scene(shape, moved), "second": second}
    second = call(shape.call_id, ann, cid, START_NS + 50 * MS, seed)
    again = tuple(_renumbered(one, 5) for one in second.signals[:-2])
    return {"first": replace(second, signals=(*moved, *again, *second.signals[-2:]))}


def _renumbered(signal: Signal, number: int) -> Signal:
    """A message of another transaction: with a higher CSeq."""
    for method in (b"INVITE", b"ACK"):
        signal = replace(signal, text=signal.text.replace(b"CSeq: 1 " + method, b"CSeq: %d " % number + method))
    return replace(signal, text=signal.text.replace(b".1.INVITE", b".%d.INVITE" % number))


def picked_up(seed: int) -> Shape:
    """Ann calls Bob, whose phone rings with a tone; Cid takes the call by an INVITE with Replaces (RFC 3891, 3)."""
    ann, bob, cid = people(seed)
    shape = Dialog(f"rings-{seed}@example.invalid", ann, bob)
    tone = talk(bob.media, ann.media, START_NS + 40 * MS, 400, seed=seed, ssrc=seed << 8 | 7)
    taken = START_NS + 460 * MS
    headers = (f"Replaces: {shape.call_id};to-tag={bob.tag};from-tag={ann.tag};early-only",)
    heard = replace(ann, media=Endpoint(ann.media.address, ann.media.port + 10), tag=f"taken{seed}")
    second = call(f"takes-{seed}@example.invalid", cid, heard, taken, seed + 1, headers)
    over = answered_ns(taken) + 10 * MS
    rings = (
        shape.invite(START_NS, sdp(ann.media)),
        shape.reply(START_NS + 10 * MS, "183 Session Progress", sdp(bob.media)),
        shape.request(over, "CANCEL", inside=False),
        shape.reply(over + 2 * MS, "200 OK", method="CANCEL"),
        shape.reply(over + 4 * MS, "487 Request Terminated"),
        shape.request(over + 6 * MS, "ACK"),
    )
    return {"rings": Scene(shape, rings, (), tone), "takes": second}


def through_pbx(
    seed: int,
    *,
    headers: tuple[str, ...] = (),
    later_ms: int = 6,
    number: str = "",
    relays: bool = True,
    talk_ms: int = TALK_MS,
    far: str = "",
) -> Shape:
    """Ann's call to Bob over a PBX that hands on the RTP as it is.

    `number` is whom it calls instead of Bob's own, `far` its address on the other side (a session border controller).
    """
    ann, bob, _ = people(seed)
    net = ann.sip.address.rpartition(".")[0]
    pbx, sound = Endpoint(f"{net}.1", 5060), f"{net}.1"
    inward = replace(bob, sip=pbx, media=Endpoint(sound, 30000), tag=f"in{seed}")
    outward = replace(
        ann, sip=Endpoint(far or pbx.address, 5060), media=Endpoint(far or sound, 30002), tag=f"out{seed}"
    )
    outer = call(f"outer-{seed}@example.invalid", ann, inward, START_NS, seed, headers, talk_ms)
    if number:
        bob = replace(bob, number=number, name="")
        outward = replace(outward, number="0", name="")
    inner = call(f"inner-{seed}@example.invalid", outward, bob, START_NS + later_ms * MS, seed + 1, headers, talk_ms)
    if not relays:
        return {"outer": outer, "inner": inner}
    left, right = (
        tuple(
            replace(
                packet,
                source=after.source,
                target=after.target,
                time_ns=packet.time_ns + MS,
                place_ns=packet.place_ns + MS,
            )
            for packet, after in zip(side, copy, strict=True)
        )
        for side, copy in ((outer.left, inner.left), (outer.right, inner.right))
    )
    return {"outer": outer, "inner": replace(inner, left=left, right=right)}


def recording_session(seed: int) -> Shape:
    """A recording session (RFC 7866) between a PBX and a recorder: metadata beside the SDP, sound one way."""
    scene = plain_call(seed)
    metadata = """<?xml version="1.0" encoding="UTF-8"?>
<recording xmlns='urn:ietf:params:xml:ns:recording:1'>
  <datamode>complete</datamode>
  <participant participant_id="srfBElmCRp2QB23b7Mpk0w==">
    <nameID aor="sip:2001@example.invalid"><name xml:lang="en">Ann &amp; Co</name></nameID>
  </participant>
  <participant participant_id="zSfPoSvdSDCmU3A3TRDxAw==">
    <nameID aor="sip:2002@example.invalid"/>
  </participant>
</recording>
"""
    shape = scene.dialog
    parts = (
        *("--b1", "Content-Type: application/sdp", "", sdp(shape.caller.media), "--b1"),
        *("Content-Type: application/rs-metadata+xml", "Content-Disposition: recording-session", "", metadata),
        *("--b1--", ""),
    )
    body = "\r\n".join(parts)
    invite = shape.request(START_NS, "INVITE", body, inside=False, extra=("Require: siprec",))
    text = invite.text.replace(
        b"Content-Type: application/sdp\r\nContent-Length",
        b"Content-Type: multipart/mixed;boundary=b1\r\nContent-Length",
    )
    return {"session": replace(scene, signals=(replace(invite, text=text), *scene.signals[1:]))}


def joined(seed: int) -> Shape:
    """Ann and Bob talk; Cid joins them (RFC 3911), after his call was diverted on its way."""
    ann, bob, cid = people(seed)
    first = call(f"talk-{seed}@example.invalid", ann, bob, START_NS, seed)
    headers = (
        f"Join: {first.call_id};to-tag={bob.tag};from-tag={ann.tag}",
        f"Diversion: <sip:{bob.number}@example.invalid>;reason=unconditional",
    )
    there = replace(ann, media=Endpoint(ann.media.address, ann.media.port + 10), tag=f"joined{seed}")
    return {
        "talk": first,
        "joins": call(f"joins-{seed}@example.invalid", cid, there, START_NS + 300 * MS, seed + 1, headers),
    }


def every_kind() -> list[Shape]:
    """One of each, all on addresses of their own."""
    return [
        blind_transfer(401),
        attended_transfer(402),
        forwarded(403, anew=False),
        picked_up(404),
        through_pbx(405),
        recording_session(206),
        joined(407),
        {"forked": forked(208)},
    ]


def rung_in_turn(seed: int) -> Scene:
    """A proxy rings one phone, then another, each with a tone of its own; the second one answers. All is heard."""
    shape = dialog(seed)
    caller, net = shape.caller.media, shape.callee.sip.address.rpartition(".")[0]
    one = shape.branch_of("turn1", media=Endpoint(f"{net}.31", 21000))
    two = shape.branch_of("turn2", media=Endpoint(f"{net}.32", 22000))
    tone1 = talk(one.callee.media, caller, START_NS + 40 * MS, 400, seed=seed, ssrc=1)
    tone2 = talk(two.callee.media, caller, START_NS + 540 * MS, 300, seed=seed + 1, ssrc=2)
    answer = START_NS + 850 * MS
    right = follow(tone2, START_NS + 860 * MS, 500, seed=seed + 2)
    left = talk(caller, two.callee.media, START_NS + 880 * MS, 480, seed=seed + 3)
    signals = (
        shape.invite(START_NS, sdp(caller)),
        one.reply(START_NS + 10 * MS, "183 Session Progress", sdp(one.callee.media)),
        two.reply(START_NS + 500 * MS, "183 Session Progress", sdp(two.callee.media)),
        two.reply(answer, "200 OK", sdp(two.callee.media)),
        two.request(answer + 5 * MS, "ACK"),
        *hang_up(two, right[-1].time_ns + 200 * MS),
    )
    return Scene(shape, signals, left, tone1 + tone2 + right)


def answered_twice(seed: int) -> Scene:
    """Two phones answer at once: the caller keeps the first one, and hangs up on the second (RFC 3261, 13.2.2.4)."""
    scene = plain_call(seed)
    shape = scene.dialog
    net = shape.callee.sip.address.rpartition(".")[0]
    two = shape.branch_of("late", media=Endpoint(f"{net}.32", 22000))
    came = answered_ns() + 30 * MS
    other = talk(two.callee.media, shape.caller.media, came + 10 * MS, 200, seed=seed + 9, ssrc=9)
    more = (
        two.reply(came, "200 OK", sdp(two.callee.media)),
        two.request(came + 5 * MS, "ACK"),
        *hang_up(two, came + 60 * MS, cseq=3),
    )
    signals = tuple(sorted((*scene.signals, *more), key=lambda one: one.time_ns))
    return replace(scene, signals=signals, unheard=tuple(packet.packet() for packet in other))


def joined_by_pbx(seed: int) -> Shape:
    """Over a PBX Ann talks with Bob, then Bob with Cid; he has the PBX join those two, which needs no further call."""
    ann, bob, cid = people(seed)
    net = ann.sip.address.rpartition(".")[0]
    first = through_pbx(seed, talk_ms=3000)
    pbx = Endpoint(f"{net}.1", 5060)
    asking = replace(bob, media=Endpoint(bob.media.address, bob.media.port + 10), tag=f"ask{seed}")
    inward = replace(cid, sip=pbx, media=Endpoint(pbx.address, 30010), tag=f"in2{seed}")
    outward = replace(bob, sip=pbx, media=Endpoint(pbx.address, 30012), tag=f"out2{seed}")
    begun = START_NS + 1000 * MS
    asks = call(f"asks-{seed}@example.invalid", asking, inward, begun, seed + 2, talk_ms=800)
    asked = call(f"asked-{seed}@example.invalid", outward, cid, begun + 6 * MS, seed + 3, talk_ms=2000)
    when = asks.left[-1].time_ns + 100 * MS
    place = f"{asks.call_id};to-tag={inward.tag};from-tag={asking.tag}"
    shape = first["inner"].dialog
    signals = (
        *first["inner"].signals[:-2],
        *refer(
            shape, when, f"sip:{cid.number}@{pbx.address}", more=f"?Replaces={quote(place, safe='')}", by=bob.number
        ),
        *notify(shape, when + 20 * MS, "200 OK"),
        *hang_up(shape, when + 40 * MS, backward=True),
    )
    gone = when + 40 * MS
    left, right = (
        tuple(one for one in side if one.time_ns < gone) for side in (first["inner"].left, first["inner"].right)
    )
    inner = replace(first["inner"], signals=signals, left=left, right=right)
    asks = replace(asks, signals=(*asks.signals[:-2], *hang_up(asks.dialog, gone + 5 * MS)))
    return {"outer": first["outer"], "inner": inner, "asks": asks, "asked": asked}


def held_with_music(seed: int) -> Scene:
    """The callee's PBX puts the caller on hold: music comes from a server of its own, then the callee's voice again."""
    scene = plain_call(seed, duration_ms=600)
    shape = scene.dialog
    ann, bob = shape.caller.media, shape.callee.media
    server = Endpoint(bob.address.rpartition(".")[0] + ".99", 40000)
    stop = scene.right[-1].time_ns + 100 * MS
    music = talk(server, ann, stop + 20 * MS, 500, seed=seed + 70, ssrc=77)
    back = music[-1].time_ns + 100 * MS
    left = follow(scene.left, back + 20 * MS, 400, seed=seed + 71)
    right = follow(scene.right, back + 40 * MS, 400, seed=seed + 72)

    def offer(time: int, there: Endpoint, direction: str, answer: str, number: int) -> tuple[Signal, ...]:
        body, reply = sdp(there, direction=direction, session=number), sdp(ann, direction=answer, session=number)
        return (
            shape.request(time, "INVITE", body, cseq=number, backward=True),
            shape.reply(time + 5 * MS, "200 OK", reply, cseq=number, backward=True),
            shape.request(time + 8 * MS, "ACK", cseq=number, backward=True),
        )

    signals = (
        *scene.signals[:-2],
        *offer(stop, server, "sendonly", "recvonly", 2),
        *offer(back, bob, "sendrecv", "sendrecv", 3),
        *hang_up(shape, right[-1].time_ns + 200 * MS),
    )
    return replace(scene, signals=signals, left=scene.left + left, right=scene.right + music + right)
