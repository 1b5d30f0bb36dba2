"""Faxes by T.38 in UDPTL, and the SDP that switches a call to them.

scene, pages = switched(plain_call(1))
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, replace

from .ip import Endpoint, Packet, udp
from .media import MS
from .scene import LAST_WORD_MS, Scene, hang_up, in_order
from .signalling import sdp

PAUSE_MS = 40


@dataclass(frozen=True)
class Ifp:
    """One UDPTL packet (ITU-T T.38 section 9.1): sequence number, a primary packet, and copies of those before it."""

    time_ns: int
    source: Endpoint
    target: Endpoint
    seq: int
    primary: bytes
    before: tuple[bytes, ...] = ()

    def wire(self) -> bytes:
        """Lengths below 128 take one byte; behind the primary packet come 0, for copies, and their count."""
        copies = b"".join(bytes([len(one)]) + one for one in self.before)
        head = struct.pack("!HB", self.seq & 0xFFFF, len(self.primary))
        return head + self.primary + bytes([0, len(self.before)]) + copies

    def packet(self) -> Packet:
        """The datagram that carries it."""
        return Packet(self.time_ns, udp(self.source, self.target, self.wire(), ident=self.seq & 0xFFFF))


def pages(source: Endpoint, target: Endpoint, start_ns: int, count: int, *, seed: int = 1, seq: int = 0) -> list[Ifp]:
    """So many packets of a fax, 40 ms apart, with two copies each."""
    rng = random.Random(seed)
    sent = [bytes([0xC0 | rng.randrange(16)]) + rng.randbytes(rng.randrange(1, 60)) for _ in range(count)]
    return [
        Ifp(start_ns + n * PAUSE_MS * MS, source, target, seq + n, one, tuple(reversed(sent[max(0, n - 2) : n])))
        for n, one in enumerate(sent)
    ]


def image(media: Endpoint, *, session: int = 2, proto: str = "udptl", refused_sound: bool = False) -> str:
    """A description that wants a fax at this endpoint, perhaps with the m-line of the sound before it refused."""
    text = sdp(media, pts=(8,), session=session)
    line = f"m=image {media.port} {proto} t38\r\na=T38FaxVersion:0\r\na=T38FaxUdpEC:t38UDPRedundancy\r\n"
    head, _, _ = text.partition("m=audio")
    return head + ("m=audio 0 RTP/AVP 8\r\n" if refused_sound else "") + line


def switched(
    scene: Scene,
    count: int = 50,
    *,
    ends: tuple[Endpoint, Endpoint] | None = None,
    seq: int = 0,
    refused_sound: bool = False,
) -> tuple[Scene, list[Ifp], list[Ifp]]:
    """The scene, whose callee asks for a fax after the last sound; then so many packets each way."""
    shape = scene.dialog
    caller, callee = ends or (shape.caller.media, shape.callee.media)
    last = max(packet.time_ns for packet in (*scene.left, *scene.right))
    asked = last + 50 * MS
    again = (
        shape.request(asked, "INVITE", image(callee, refused_sound=refused_sound), cseq=3, backward=True),
        shape.reply(asked + 10 * MS, "200 OK", image(caller, refused_sound=refused_sound), cseq=3, backward=True),
        shape.request(asked + 20 * MS, "ACK", cseq=3, backward=True),
    )
    there = pages(caller, callee, asked + 30 * MS, count, seed=1, seq=seq)
    back = pages(callee, caller, asked + 35 * MS, count, seed=2, seq=seq)
    end = max(one.time_ns for one in (*there, *back)) + LAST_WORD_MS * MS
    kept = tuple(one for one in scene.signals if one.time_ns < last)
    return replace(scene, signals=(*kept, *again, *hang_up(shape, end))), there, back


def packets(scene: Scene, *faxes: list[Ifp]) -> list[Packet]:
    """The scene and its fax in order of time."""
    return in_order(scene.packets(), *([one.packet() for one in fax] for fax in faxes))
