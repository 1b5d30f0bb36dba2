"""Digits in RTP: telephone-event payloads (RFC 4733). Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

DIGITS = "0123456789*#ABCD"
FLASH = 16


@dataclass(frozen=True, slots=True)
class Digit:
    """One key pressed: `time` of its first packet in ns, the `digit`, how long it was held in RTP clock units."""

    time: int
    digit: str
    duration: int


def digits(packets: Iterable[tuple[int, int, bytes]]) -> Iterator[Digit]:
    """Yield the digits in telephone-event packets, given as (time ns, RTP time stamp, payload) in order of arrival.

    All packets of one event share a time stamp (section 2.4.1), its retransmitted ends included; long events go on
    under a new time stamp at the moment the old one's duration ran out (section 2.5.1.3) and stay one digit.
    """
    seen: dict[int, Digit] = {}
    before: dict[int, int] = {}  # what earlier segments of a long event lasted
    order: list[int] = []
    for time, stamp, payload in packets:
        if len(payload) < 4 or payload[0] > FLASH:
            continue
        name = DIGITS[payload[0]] if payload[0] < len(DIGITS) else "flash"
        duration = int.from_bytes(payload[2:4], "big")
        known = seen.get(stamp)
        if known is not None:
            if duration + before[stamp] > known.duration:
                seen[stamp] = Digit(known.time, known.digit, duration + before[stamp])
            continue
        last = seen[order[-1]] if order else None
        gone = last.duration - before[order[-1]] if last is not None else 0
        if last is not None and last.digit == name and gone >= 0xFF00 and stamp - order[-1] & 0xFFFFFFFF == gone:
            before[stamp] = last.duration
            seen[stamp] = Digit(last.time, name, last.duration + duration)
            del seen[order.pop()]
        else:
            before[stamp] = 0
            seen[stamp] = Digit(time, name, duration)
        order.append(stamp)
    for stamp in order:
        yield seen[stamp]
