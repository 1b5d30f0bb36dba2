"""RTP packets whose every payload byte is known, what a network does to them, and the sound they must give.

A packet knows when it arrives and where its sound belongs. The two differ only where a test says so (`delayed`),
so the expected channel follows from the packets that arrive, not from the rules of a timeline.
Times are nanoseconds since 1970, on the grid of 8 kHz samples (125 us) unless a test says otherwise.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from . import ip
from .ip import Endpoint, Packet

PCMU, PCMA, CN, EVENT = 0, 8, 13, 101
SILENCE = {PCMA: 0xD5, PCMU: 0xFF}
SAMPLE_NS = 125_000
MS = 1_000_000
SECOND = 1_000_000_000

_NEVER_SILENT = bytes(0x2A if byte in SILENCE.values() else byte for byte in range(256))


@dataclass(frozen=True)
class Form:
    """What an RTP packet has beside header and payload: its first byte and the bytes before and behind the payload."""

    first: int = 0x80
    between: bytes = b""
    behind: bytes = b""


PLAIN = Form()
FORMS = {
    "two contributing sources": Form(0x82, bytes(range(8))),
    "a header extension": Form(0x90, b"\xbe\xde\0\2" + b"\x10\xaa\0\0\0\0\0\0"),
    "an empty header extension": Form(0x90, b"\0\1\0\0"),
    "padding": Form(0xA0, b"", b"\0\0\0\4"),
    "all of these": Form(0xB1, b"abcd" + b"\xbe\xde\0\1" + b"\x10\x7f\0\0", b"\0" * 7 + b"\x08"),
}


@dataclass(frozen=True)
class Rtp:
    """One RTP packet; `seq` and `ts` count on without wrapping and are cut to 16 and 32 bits on the wire."""

    time_ns: int
    place_ns: int
    source: Endpoint
    target: Endpoint
    seq: int
    ts: int
    ssrc: int
    pt: int
    payload: bytes
    marker: bool = False
    sound: bool = True
    form: Form = PLAIN

    def wire(self) -> bytes:
        """The packet as in RFC 3550, 5.1."""
        second = self.pt | (0x80 if self.marker else 0)
        head = struct.pack("!BBHII", self.form.first, second, self.seq & 0xFFFF, self.ts & 0xFFFFFFFF, self.ssrc)
        return head + self.form.between + self.payload + self.form.behind

    def packet(self) -> Packet:
        """The datagram that carries it."""
        return Packet(self.time_ns, ip.udp(self.source, self.target, self.wire(), ident=self.seq))


def talk(
    source: Endpoint,
    target: Endpoint,
    start_ns: int,
    duration_ms: int,
    *,
    seed: int,
    pt: int = PCMA,
    ssrc: int = 0x5EED,
    seq: int = 1000,
    ts: int = 160_000,
    ptime_ms: int = 20,
) -> tuple[Rtp, ...]:
    """A stream of G.711 sent evenly, with random (seeded) bytes that are never the silence code."""
    voice = random.Random(seed)
    size = 8 * ptime_ms
    return tuple(
        Rtp(
            time_ns=start_ns + count * ptime_ms * MS,
            place_ns=start_ns + count * ptime_ms * MS,
            source=source,
            target=target,
            seq=seq + count,
            ts=ts + count * size,
            ssrc=ssrc,
            pt=pt,
            payload=voice.randbytes(size).translate(_NEVER_SILENT),
            marker=count == 0,
        )
        for count in range(duration_ms // ptime_ms)
    )


def follow(
    stream: Sequence[Rtp], start_ns: int, duration_ms: int, *, seed: int, clock_runs: bool = True
) -> tuple[Rtp, ...]:
    """More of the same stream from `start_ns`: the sequence goes on, the RTP clock too unless it stood still."""
    last = stream[-1]
    size = len(last.payload)
    gap = (start_ns - last.place_ns) // SAMPLE_NS if clock_runs else size
    return talk(
        last.source,
        last.target,
        start_ns,
        duration_ms,
        seed=seed,
        pt=last.pt,
        ssrc=last.ssrc,
        seq=last.seq + 1,
        ts=last.ts + gap,
        ptime_ms=size // 8,
    )


def lost(stream: Iterable[Rtp], numbers: Collection[int]) -> tuple[Rtp, ...]:
    """The stream without the packets at these places."""
    return tuple(packet for count, packet in enumerate(stream) if count not in numbers)


def delayed(stream: Iterable[Rtp], numbers: Collection[int], by_ms: int) -> tuple[Rtp, ...]:
    """The packets at these places arrive later than sent, behind their successors if late enough."""
    return in_time(
        replace(packet, time_ns=packet.time_ns + by_ms * MS) if count in numbers else packet
        for count, packet in enumerate(stream)
    )


def repeated(stream: Iterable[Rtp], numbers: Collection[int], after_ms: int) -> tuple[Rtp, ...]:
    """The sender sends the packets at these places a second time (RFC 3550 has no word for it; phones do it)."""
    packets = tuple(stream)
    again = (replace(packets[n], time_ns=packets[n].time_ns + after_ms * MS) for n in numbers)
    return in_time((*packets, *again))


def changed(stream: Iterable[Rtp], start: int, change: Callable[[Rtp], Rtp]) -> tuple[Rtp, ...]:
    """The stream with `change` made to every packet from the place `start` on."""
    return tuple(change(packet) if count >= start else packet for count, packet in enumerate(stream))


def with_pauses(stream: Iterable[Rtp], numbers: Collection[int]) -> tuple[Rtp, ...]:
    """Silence suppression: nothing is sent at these places but one comfort-noise packet at each one's beginning."""
    result: list[Rtp] = []
    sent = 0
    pause = False
    for count, packet in enumerate(stream):
        first, pause = not pause and count in numbers, count in numbers
        if pause and not first:
            continue
        seq, sent = packet.seq - count + sent, sent + 1
        if first:
            result.append(replace(packet, seq=seq, pt=CN, payload=b"\x30", sound=False))
        else:
            result.append(replace(packet, seq=seq, marker=bool(result) and result[-1].pt == CN))
    return tuple(result)


def with_digit(stream: Iterable[Rtp], start: int, digit: str, packets: int = 5) -> tuple[Rtp, ...]:
    """The packets from `start` on carry a key press (RFC 4733) in place of sound; the end is sent three times."""
    code = "0123456789*#ABCD".index(digit)
    stream = tuple(stream)
    result = list(stream)
    for step in range(packets):
        end = step >= packets - 3
        duration = min(step + 1, packets - 2) * len(stream[start].payload)
        result[start + step] = replace(
            stream[start + step],
            pt=EVENT,
            ts=stream[start].ts,
            marker=step == 0,
            payload=struct.pack("!BBH", code, (0x80 if end else 0) | 10, duration),
            sound=False,
        )
    return tuple(result)


def in_time(stream: Iterable[Rtp]) -> tuple[Rtp, ...]:
    """The packets in order of arrival."""
    return tuple(sorted(stream, key=lambda packet: packet.time_ns))


def channels(
    left: Iterable[Rtp], right: Iterable[Rtp], silence: tuple[int, int] = (SILENCE[PCMA], SILENCE[PCMA])
) -> tuple[bytes, bytes]:
    """The caller's and the callee's sound on one axis that begins with the first arrival, padded to one length."""
    sides = [tuple(left), tuple(right)]
    zero = min(packet.time_ns for side in sides for packet in side)
    size = max((_end(packet, zero) for side in sides for packet in side if packet.sound), default=0)
    return _channel(sides[0], zero, size, silence[0]), _channel(sides[1], zero, size, silence[1])


def _channel(stream: Iterable[Rtp], zero: int, size: int, silence: int) -> bytes:
    samples = bytearray([silence]) * size
    for packet in stream:
        if packet.sound:
            end = _end(packet, zero)
            samples[end - len(packet.payload) : end] = packet.payload
    return bytes(samples)


def _end(packet: Rtp, zero: int) -> int:
    return (packet.place_ns - zero) // SAMPLE_NS + len(packet.payload)


def sender_report(of: Rtp, target: Endpoint, source: Endpoint) -> Packet:
    """An RTCP sender report with its source description (RFC 3550, 6.4.1 and 6.5) about the stream of `of`."""
    report = struct.pack("!BBHI", 0x80, 200, 6, of.ssrc) + struct.pack("!QIII", of.time_ns, of.ts & 0xFFFFFFFF, 1, 160)
    name = struct.pack("!BBHI", 0x81, 202, 3, of.ssrc) + b"\x01\x04a@bc\0\0"
    return Packet(of.time_ns + 1_000_000, ip.udp(source, target, report + name))
