"""RTCP: what receivers say of a stream, and what tells how long packets are on their way. Pure.

RFC 3550 section 6 (SR, RR), RFC 3611 (XR: receiver reference time, DLRR, VoIP metrics). SRTCP (RFC 3711 section 3.4,
RFC 7714 section 9) is read where it is authenticated only, its E flag off; encrypted packets make no sense and are
passed over.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_SIZE = 1500
"""Longer datagrams are not looked at, in bytes: no report is as long as that."""
MAX_BLOCKS = 64
"""Report blocks of a datagram that are looked at."""
_SR, _RR, _XR = 200, 201, 207
_TRAILERS = {14: 0, 20: 16}
"""Bytes that SRTCP appends: index and tag of 80 bits, or the tag of AEAD and the index; where the E flag is in them."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A stamp that its receiver will answer: who sent it, and the middle 32 bits of its NTP time."""

    ssrc: int
    stamp: int


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to the last stamp that `reporter` had from `source`, given `late` s after that stamp came."""

    reporter: int
    source: int
    stamp: int
    late: float


@dataclass(frozen=True, slots=True)
class Reception:
    """What `reporter` says of the packets of `source` that it got: packets `lost` in all (more came than were due if
    negative), the `highest` sequence number with its wraps, and the jitter, in units of the RTP clock.
    """

    reporter: int
    source: int
    lost: int
    highest: int
    jitter: int


@dataclass(frozen=True, slots=True)
class VoipMetrics:
    """What `reporter` says of how the sound of `source` plays (RFC 3611 section 4.7); None where it cannot tell.

    `loss` and `discard` (came too late to be played) in per cent; delays in ms: round trip between the two ends, and
    what the end itself adds; `buffer` is what its jitter buffer adds; `rating` is R, `mos` for listening.
    """

    reporter: int
    source: int
    loss: float
    discard: float
    round_trip: int | None
    end_system: int | None
    buffer: int | None
    rating: int | None
    mos: float | None


@dataclass(slots=True)
class Report:
    """What one datagram says."""

    sent: list[Sent] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    receptions: list[Reception] = field(default_factory=list)
    voip: list[VoipMetrics] = field(default_factory=list)


def parse(payload: bytes) -> Report | None:
    """Return what a datagram says, None if it is no RTCP in the clear."""
    packets = list(_packets(payload))
    if not packets:
        return None
    report = Report()
    for kind, count, body in packets:
        if kind == _SR and len(body) >= 24:
            (stamp,) = struct.unpack_from(">I", body, 6)
            report.sent.append(Sent(_word(body, 0), stamp))
            _receptions(body, 24, count, report)
        elif kind == _RR:
            _receptions(body, 4, count, report)
        elif kind == _XR:
            _extended(body, report)
    return report


def _packets(payload: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield each packet: its type, the count in its header, and what follows the header's first four bytes; nothing if
    the lengths do not add up (RFC 3550 appendix A.2).
    """
    found: list[tuple[int, int, bytes]] = []
    place, size = 0, len(payload)
    while place < size:
        one = _packet(payload, place) if len(found) < MAX_BLOCKS else None
        if one is None:
            rest = size - place
            if not found or rest not in _TRAILERS or payload[place + _TRAILERS[rest]] & 0x80:
                return
            break
        found.append(one[:3])
        place = one[3]
    yield from found


def _packet(payload: bytes, place: int) -> tuple[int, int, bytes, int] | None:
    """Return a packet as above, and where it ends; None if there is none."""
    if len(payload) - place < 8:
        return None
    first, kind, words = struct.unpack_from(">BBH", payload, place)
    end = place + 4 + 4 * words
    if first >> 6 != 2 or not 192 <= kind <= 223 or words < 1 or end > len(payload):
        return None
    padding = payload[end - 1] if first & 0x20 else 0
    if padding > 4 * words or padding % 4:
        return None
    return kind, first & 0x1F, payload[place + 4 : end - padding], end


def _word(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 4], "big")


def _receptions(body: bytes, place: int, count: int, report: Report) -> None:
    reporter = _word(body, 0)
    for at in range(place, min(place + 24 * count, len(body) - 23), 24):
        if len(report.receptions) == MAX_BLOCKS:
            return
        source, lost, highest, jitter, stamp, late = struct.unpack_from(">IIIIII", body, at)
        lost &= 0xFFFFFF
        lost -= (lost & 0x800000) << 1
        report.receptions.append(Reception(reporter, source, lost, highest, jitter))
        if stamp:
            report.answers.append(Answer(reporter, source, stamp, late / 65536))


def _extended(body: bytes, report: Report) -> None:
    reporter, place = _word(body, 0), 4
    while place + 4 <= len(body):
        kind, _, words = struct.unpack_from(">BBH", body, place)
        end = place + 4 + 4 * words
        if end > len(body):
            return
        if kind == 4 and words == 2:
            report.sent.append(Sent(reporter, int.from_bytes(body[place + 6 : place + 10], "big")))
        elif kind == 5:
            _late_answers(body, place + 4, end, reporter, report)
        elif kind == 7 and words == 8 and len(report.voip) < MAX_BLOCKS:
            report.voip.append(_voip(body[place + 4 : end], reporter))
        place = end


def _late_answers(body: bytes, place: int, end: int, reporter: int, report: Report) -> None:
    """DLRR: answers to the stamps of those who send no sound (RFC 3611 section 4.5)."""
    for at in range(place, end - 11, 12):
        source, stamp, late = struct.unpack_from(">III", body, at)
        if stamp and len(report.answers) < 2 * MAX_BLOCKS:
            report.answers.append(Answer(reporter, source, stamp, late / 65536))


def _voip(block: bytes, reporter: int) -> VoipMetrics:
    source, loss, discard = struct.unpack_from(">IBB", block)
    round_trip, end_system = struct.unpack_from(">HH", block, 12)
    rating, mos = block[20], block[22]
    (buffer,) = struct.unpack_from(">H", block, 26)
    return VoipMetrics(
        reporter,
        source,
        loss * 100 / 256,
        discard * 100 / 256,
        round_trip or None,
        end_system or None,
        buffer or None,
        rating if rating <= 100 else None,
        mos / 10 if 10 <= mos <= 50 else None,
    )
