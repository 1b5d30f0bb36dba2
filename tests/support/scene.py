"""A call as it crosses the wire: its SIP, its RTP, and the sound a recorder must make of it.

scene = plain_call(seed=1)
scene = replace(scene, left=lost(scene.left, {3, 4}))
files.write(folder, files.pcap(scene.packets()))
left, right = scene.channels()
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import count

from . import ip, tcp
from .ip import Endpoint, Packet
from .media import MS, PCMA, SILENCE, Rtp, channels, talk
from .signalling import Dialog, Party, Signal, sdp

START_NS = 1_772_445_600_000_000_000
"""2026-03-02 10:00:00 UTC, when a scene's first INVITE is sent."""

RING_MS = 100
LAST_WORD_MS = 200
"""From the last packet to the BYE: late ones arrive before it, for what comes behind a BYE is not the call's."""


@dataclass(frozen=True)
class Scene:
    """One dialog with the packets of the caller (`left`) and the callee (`right`) that must be heard.

    `unheard` crosses the wire too but adds no sound: copies behind a relay, other forks, RTCP, strangers.
    """

    dialog: Dialog
    signals: tuple[Signal, ...] = ()
    left: tuple[Rtp, ...] = ()
    right: tuple[Rtp, ...] = ()
    unheard: tuple[Packet, ...] = ()

    @property
    def call_id(self) -> str:
        return self.dialog.call_id

    def packets(self) -> list[Packet]:
        """Everything in order of time, SIP over UDP."""
        return in_order(self._signal_packets(), self.media_packets())

    def packets_over_tcp(self, *, seed: int, cuts: int = 3, swap: bool = False) -> list[Packet]:
        """Everything in order of time, SIP in one TCP connection."""
        return in_order(tcp.connection(self.signals, seed=seed, cuts=cuts, swap=swap), self.media_packets())

    def media_packets(self) -> list[Packet]:
        """The RTP and what else is not SIP."""
        return in_order([packet.packet() for packet in (*self.left, *self.right)], self.unheard)

    def channels(self) -> tuple[bytes, bytes]:
        """The expected bytes of the left (caller) and right (callee) channel."""
        return channels(self.left, self.right, (_silence(self.dialog.caller), _silence(self.dialog.callee)))

    def until(self, time_ns: int) -> Scene:
        """What of the scene crosses the wire before `time_ns`."""
        return Scene(
            self.dialog,
            tuple(signal for signal in self.signals if signal.time_ns < time_ns),
            tuple(packet for packet in self.left if packet.time_ns < time_ns),
            tuple(packet for packet in self.right if packet.time_ns < time_ns),
            tuple(packet for packet in self.unheard if packet.time_ns < time_ns),
        )

    def _signal_packets(self) -> list[Packet]:
        return [
            Packet(signal.time_ns, ip.udp(signal.source, signal.target, signal.text, ident=number))
            for number, signal in enumerate(self.signals)
        ]


def in_order(*streams: Iterable[Packet]) -> list[Packet]:
    """Packets of several sources in order of time."""
    tie = count()
    keyed = [sorted((packet.time_ns, next(tie), packet) for packet in stream) for stream in streams]
    return [packet for _, _, packet in heapq.merge(*keyed)]


def each_packet(packets: Iterable[Packet], change: Callable[[bytes], Iterable[bytes]]) -> list[Packet]:
    """Every packet replaced by what `change` makes of it (fragments, copies), a microsecond apart."""
    return [
        Packet(packet.time_ns + number * 1000, piece)
        for packet in packets
        for number, piece in enumerate(change(packet.ip))
    ]


def parties(seed: int, *, six: bool = False, pts: tuple[int, int] = (PCMA, PCMA)) -> tuple[Party, Party]:
    """Two phones of their own network, different for each seed."""
    net = f"2001:db8:{seed:x}::" if six else f"10.{seed // 200}.{seed % 200}."
    caller = Party(
        f"{100 + seed}", f"Caller {seed}", Endpoint(net + "11", 5060), Endpoint(net + "12", 10000), f"a{seed}"
    )
    callee = Party(
        f"{2000 + seed}", f"Callee {seed}", Endpoint(net + "21", 5060), Endpoint(net + "22", 20000), f"b{seed}"
    )
    return replace(caller, pt=pts[0]), replace(callee, pt=pts[1])


def dialog(seed: int, *, six: bool = False, pts: tuple[int, int] = (PCMA, PCMA)) -> Dialog:
    """The dialog of the call with this seed."""
    caller, callee = parties(seed, six=six, pts=pts)
    return Dialog(f"synth-{seed}@example.invalid", caller, callee)


def answered_ns(start_ns: int = START_NS) -> int:
    """When a plain call is answered."""
    return start_ns + RING_MS * MS


def set_up(shape: Dialog, start_ns: int, offer: str | None = None, answer: str | None = None) -> tuple[Signal, ...]:
    """INVITE, 100, 180, 200 and ACK."""
    answered = answered_ns(start_ns)
    offer = sdp(shape.caller.media, pts=_pts(shape.caller)) if offer is None else offer
    answer = sdp(shape.callee.media, pts=_pts(shape.callee)) if answer is None else answer
    return (
        shape.invite(start_ns, offer),
        shape.reply(start_ns + 2 * MS, "100 Trying"),
        shape.reply(start_ns + 4 * MS, "180 Ringing"),
        shape.reply(answered, "200 OK", answer),
        shape.request(answered + 5 * MS, "ACK"),
    )


def hang_up(shape: Dialog, time_ns: int, *, backward: bool = False, cseq: int = 9) -> tuple[Signal, ...]:
    """BYE and its 200."""
    return (
        shape.request(time_ns, "BYE", cseq=cseq, backward=backward),
        shape.reply(time_ns + 5 * MS, "200 OK", method="BYE", cseq=cseq, backward=backward),
    )


def ended(scene: Scene) -> Scene:
    """The scene hung up after its last sound, however long that has become."""
    last = max(packet.time_ns for packet in (*scene.left, *scene.right))
    signals = tuple(signal for signal in scene.signals if b" BYE\r\n" not in signal.text)
    return replace(scene, signals=signals + hang_up(scene.dialog, last + LAST_WORD_MS * MS))


def plain_call(
    seed: int = 1,
    *,
    start_ns: int = START_NS,
    duration_ms: int = 1000,
    six: bool = False,
    pts: tuple[int, int] = (PCMA, PCMA),
    ptime_ms: int = 20,
    left_later_ms: int = 10,
    right_later_ms: int = 25,
    seq: int = 1000,
    ts: int = 160_000,
    ssrc: tuple[int, int] | None = None,
    media: tuple[Endpoint | None, Endpoint | None] = (None, None),
    shape: Dialog | None = None,
) -> Scene:
    """A call that is answered, talks both ways and ends by BYE; each side begins a little after the answer.

    `shape` gives another dialog than the seed's, `media` other addresses for the two sides' sound.
    """
    shape = _at(shape or dialog(seed, six=six, pts=pts), media)
    caller, callee = shape.caller.media, shape.callee.media
    ssrcs = ssrc or (0xA0000000 + seed, 0xB0000000 + seed)
    left_start = answered_ns(start_ns) + left_later_ms * MS
    right_start = answered_ns(start_ns) + right_later_ms * MS
    left = talk(
        caller,
        callee,
        left_start,
        duration_ms,
        seed=2 * seed,
        pt=pts[0],
        ssrc=ssrcs[0],
        seq=seq,
        ts=ts,
        ptime_ms=ptime_ms,
    )
    right = talk(
        callee,
        caller,
        right_start,
        duration_ms,
        seed=2 * seed + 1,
        pt=pts[1],
        ssrc=ssrcs[1],
        seq=seq + 7,
        ts=ts + 77,
        ptime_ms=ptime_ms,
    )
    end = max(left[-1].time_ns, right[-1].time_ns) + LAST_WORD_MS * MS
    return Scene(shape, set_up(shape, start_ns) + hang_up(shape, end), left, right)


def end_ns(scene: Scene) -> int:
    """When the scene's last packet passes."""
    return max(packet.time_ns for packet in scene.packets())


def _at(shape: Dialog, media: tuple[Endpoint | None, Endpoint | None]) -> Dialog:
    caller, callee = shape.caller, shape.callee
    return replace(
        shape,
        caller=replace(caller, media=media[0] or caller.media),
        callee=replace(callee, media=media[1] or callee.media),
    )


def _pts(party: Party) -> tuple[int, ...]:
    return (party.pt, 101)


def _silence(party: Party) -> int:
    return SILENCE.get(party.pt, SILENCE[PCMA])
