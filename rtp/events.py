"""Digits in RTP: telephone-event payloads (RFC 4733). Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

DIGITS = "0123456789*#ABCD"
FLASH = 16
MASKED = 0xFF
"""What stands in place of a digit's number where digits are masked: RFC 4733's registry gives it to no event."""
HIDDEN = "masked"
"""The name of such an event: a key, but nobody can tell which."""
_MOST = 0xFFFF
_MOST_LOST = 8
"""Segments of one event, each of 8 s and more, that may be lost one after the other."""


@dataclass(frozen=True, slots=True)
class Digit:
    """One key pressed: `time` of its first packet in ns, the `digit`, how long it was held in RTP clock units."""

    time: int
    digit: str
    duration: int


@dataclass(slots=True)
class _Event:
    """An event as far as it is known: `before` is what its earlier segments lasted; `ended`: one of its ends came."""

    time: int
    digit: str
    stamp: int
    duration: int
    before: int = 0
    ended: bool = False

    def goes_on(self, digit: str, stamp: int) -> bool:
        """Tell whether a time stamp is this event's next segment (section 2.5.1.3).

        That begins where the longest duration ends, though the last packets before it may be lost; and what begins
        before the key was let go is no second press, whatever a sender does with its time stamps.
        """
        gone = stamp - self.stamp & 0xFFFFFFFF
        if digit != self.digit or self.ended:
            return digit == self.digit and gone == self.duration >= 0xFF00
        return 0 < gone <= self.duration or (gone % _MOST == 0 and 0 < gone // _MOST <= _MOST_LOST)


def digits(packets: Iterable[tuple[int, int, bytes]]) -> Iterator[Digit]:
    """Yield the digits in telephone-event packets, given as (time ns, RTP time stamp, payload) in order of arrival.

    All packets of one event share a time stamp (section 2.4.1), its retransmitted ends included, so that any one of
    them tells it, whichever are lost. A long event goes on under a new time stamp and stays one digit.
    """
    seen: dict[int, _Event] = {}
    events: list[_Event] = []
    for time, stamp, payload in packets:
        name = name_of(payload)
        if not name:
            continue
        duration, ended = int.from_bytes(payload[2:4], "big"), bool(payload[1] & 0x80)
        event = seen.get(stamp)
        if event is None and events and events[-1].goes_on(name, stamp):
            event = events[-1]
            event.before += stamp - event.stamp & 0xFFFFFFFF
            event.stamp, event.duration, event.ended = stamp, duration, ended
        elif event is None:
            event = _Event(time, name, stamp, duration, ended=ended)
            events.append(event)
        elif event.stamp == stamp:  # else a late packet of an earlier segment
            event.duration, event.ended = max(event.duration, duration), event.ended or ended
        seen[stamp] = event
    for event in events:
        yield Digit(event.time, event.digit, event.before + event.duration)


def name_of(payload: bytes) -> str:
    """Return the key of a telephone-event payload, `flash` for the hook, "" if it is neither."""
    if len(payload) < 4:
        return ""
    if payload[0] < len(DIGITS):
        return DIGITS[payload[0]]
    return {FLASH: "flash", MASKED: HIDDEN}.get(payload[0], "")
