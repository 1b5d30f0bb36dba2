"""RTCP as phones send it (RFC 3550, RFC 3611): every number is the test's own."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from .ip import Endpoint, Packet, udp
from .media import MS, Rtp, lost
from .scene import Scene, plain_call

NTP_1970 = 2_208_988_800


def ntp(time_ns: int) -> int:
    """A time of day as 64 bits (RFC 5905)."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return (seconds + NTP_1970 & 0xFFFFFFFF) << 32 | (rest << 32) // 1_000_000_000


def middle(time_ns: int) -> int:
    """The middle 32 bits of that."""
    return ntp(time_ns) >> 16 & 0xFFFFFFFF


def block(source: int, lost: int, jitter: int, stamp: int, late_s: float, fraction: int = 0, highest: int = 0) -> bytes:
    """A report block."""
    first = fraction << 24 | lost & 0xFFFFFF
    return struct.pack("!IIIIII", source, first, highest, jitter, stamp, round(late_s * 65536))


def sender(ssrc: int, sent_ns: int, *blocks: bytes) -> bytes:
    body = struct.pack("!IQIII", ssrc, ntp(sent_ns), 0, 1, 160) + b"".join(blocks)
    return packet(200, len(blocks), body)


def receiver(ssrc: int, *blocks: bytes) -> bytes:
    return packet(201, len(blocks), struct.pack("!I", ssrc) + b"".join(blocks))


def extended(ssrc: int, *blocks: bytes) -> bytes:
    return packet(207, 0, struct.pack("!I", ssrc) + b"".join(blocks))


def reference_time(sent_ns: int) -> bytes:
    return struct.pack("!BBHQ", 4, 0, 2, ntp(sent_ns))


def late_answer(source: int, stamp: int, late_s: float) -> bytes:
    return struct.pack("!BBHIII", 5, 0, 3, source, stamp, round(late_s * 65536))


def voip_metrics(source: int, **told: int) -> bytes:
    """RFC 3611 section 4.7; what is not told is given as not known."""
    known = {"loss": 0, "discard": 0, "round_trip": 0, "end_system": 0, "rating": 127, "mos": 127, "buffer": 0} | told
    return struct.pack(
        "!BBHIBBBBHHHHbbBBBBBBBBHHH",
        *(7, 0, 8, source, known["loss"], known["discard"], 0, 0, 0, 0, known["round_trip"], known["end_system"]),
        *(127, 127, 127, 16, known["rating"], 127, known["mos"], 127, 0, 0, known["buffer"], 0, 0),
    )


def description(ssrc: int) -> bytes:
    return packet(202, 1, struct.pack("!I", ssrc) + b"\x01\x04a@bc\0\0")


def packet(kind: int, count: int, body: bytes) -> bytes:
    return struct.pack("!BBH", 0x80 | count, kind, len(body) // 4) + body


@dataclass(frozen=True)
class Talk:
    """Two phones that report to each other, seen from a tap between them: how far each is away from it, one way."""

    scene: Scene
    caller_ns: int
    callee_ns: int
    step: int = 1
    every_ns: int = 500 * MS

    def packets(self) -> tuple[Packet, ...]:
        """Each side reports in turn, and answers the last report that reached it."""
        left, right = self.scene.left, self.scene.right
        sides = [(left[0], right[0].ssrc, self.caller_ns), (right[0], left[0].ssrc, self.callee_ns)]
        last: dict[int, tuple[int, int]] = {}  # whose report: its stamp, and when it reached the other one
        found = []
        begin = max(left[0].time_ns, right[0].time_ns)
        for turn in range((left[-1].time_ns - begin) // self.every_ns):
            own, other, away = sides[turn % 2]
            now = begin + turn * self.every_ns
            stamp, came = last.get(other, (0, now))
            blocks = [block(other, turn, 8 * turn, stamp, (now - came) / 1e9)] if turn else []
            text = sender(own.ssrc, now, *blocks) + description(own.ssrc)
            found.append(Packet(now + away, udp(self.end(own, "source"), self.end(own, "target"), text)))
            last[own.ssrc] = middle(now), now + self.caller_ns + self.callee_ns
        return tuple(found)

    def end(self, of: Rtp, name: str) -> Endpoint:
        end: Endpoint = getattr(of, name)
        return Endpoint(end.address, end.port + self.step)


def all_said(seed: int = 77) -> Scene:
    """A call whose sides lose packets, report to each other, and say how the other one's sound plays."""
    scene = plain_call(seed, duration_ms=3000)
    scene = replace(scene, left=lost(scene.left, {20}), right=lost(scene.right, {30}))
    talk = Talk(scene, 5 * MS, 7 * MS)
    plays = [
        Packet(
            own.time_ns + MS,
            udp(
                talk.end(own, "source"),
                talk.end(own, "target"),
                receiver(own.ssrc) + extended(own.ssrc, voip_metrics(other.ssrc, round_trip=24, rating=91, mos=43)),
            ),
        )
        for own, other in ((scene.left[50], scene.right[0]), (scene.right[50], scene.left[0]))
    ]
    return replace(scene, unheard=(*talk.packets(), *plays))
