"""The keys pressed in a call, however they crossed the wire: as RTP events, in SIP, as tones; each one once."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from ..rtp.events import HIDDEN, digits
from ..rtp.tones import FLOOR_DBM0, RATE
from ..sip.dialog import Party
from ..sniffer.sources.payloads import Payloads
from .hearing import Listener
from .plan import Plan

MAX_PRESSES = 4096
EVENT, INFO, TONE = "RFC 4733", "INFO", "in-band"
_AROUND = 200_000_000
"""So far apart (ns) an event and its tone may be, and still be one key: gateways need a moment to hear a tone."""
_AROUND_INFO = 1_500_000_000
"""The same for INFO, which many phones send when the key is let go, and which may be sent again."""
_ECHO_DB = 6.0
_ECHO = RATE // 2
"""So much fainter on the other side, and so many samples later at most, a tone is an echo."""


@dataclass(frozen=True, slots=True)
class Press:
    """A key pressed: when (ns), by whom, which, and by what `means`; `until` is when it was let go, as far as known.
    `masked`: which one it was is not to be told.
    """

    time: int
    party: Party
    digit: str
    means: str
    until: int = 0
    masked: bool = False


def presses(plan: Plan, payloads: Payloads) -> list[Press]:
    """Return the keys pressed, in order of time. One that came by several means is listed once, with all of them."""
    if plan.masked is not None:
        return plan.masked.presses
    found: list[Press] = []
    heard = plan.listener
    for party in Party:
        found += _once(
            list(_events(plan, party, payloads)),
            list(_tones(plan, party, heard)) if heard is not None else [],
            _AROUND,
        )
    said = [Press(time, party, digit, INFO, time) for time, party, digit in plan.ended.tracked.digits]
    for party in Party:
        mine = [press for press in found if press.party is party]
        found = [press for press in found if press.party is not party]
        found += _once(mine, [press for press in said if press.party is party], _AROUND_INFO)
    found.sort(key=lambda press: press.time)
    return [_told(press) for press in found[:MAX_PRESSES]]


def _told(press: Press) -> Press:
    """A key that was masked before is one that nobody can tell."""
    return replace(press, digit="*", masked=True) if press.digit == HIDDEN else press


def _events(plan: Plan, party: Party, payloads: Payloads) -> Iterator[Press]:
    for rows, clock in plan.sides[party].events:
        rows = rows[: MAX_PRESSES * 16]
        data = payloads.fetch(rows["position"].copy(), rows["size"].astype(np.int64))
        packets = zip(rows["time"].tolist(), rows["stamp"].tolist(), data, strict=True)
        for digit in digits(packets):
            lasted = digit.duration * 1_000_000_000 // max(clock, 1)
            yield Press(digit.time, party, digit.digit, EVENT, digit.time + lasted)


def _tones(plan: Plan, party: Party, heard: Listener) -> Iterator[Press]:
    """Yield the tones that a party sent; what comes back from the other side as an echo is none of its own."""
    others = deque(heard.tones(party.other))
    for tone in heard.tones(party):
        while others and others[0].stop + _ECHO <= tone.start:
            others.popleft()
        before = takewhile(lambda other: other.start <= tone.start, others)  # noqa: B023 - used up at once
        echo = any(other.digit == tone.digit and tone.level <= other.level - _ECHO_DB for other in before)
        if tone.level >= FLOOR_DBM0 and not echo:
            yield Press(time_of(plan, tone.start), party, tone.digit, TONE, time_of(plan, tone.stop))


def time_of(plan: Plan, sample: int) -> int:
    """Return the time (ns) of a sample, of 8,000 a second."""
    return plan.reference + sample * 1_000_000_000 // RATE


def _once(first: list[Press], second: list[Press], around: int) -> list[Press]:
    """Join two lists of a party's keys: each of the second that is one of the first's is listed with it."""
    first, rest = sorted(first, key=lambda press: press.time), []
    free = list(range(len(first)))
    for press in sorted(second, key=lambda press: press.time):
        fits = (number for number in free if _is_one(first[number], press, around))
        number = next(fits, None)
        if number is None:
            rest.append(press)
            continue
        free.remove(number)
        free = [other for other in free if other > number]
        known = first[number]
        means, digit = f"{known.means} and {press.means}", press.digit if known.digit == HIDDEN else known.digit
        first[number] = replace(known, digit=digit, means=means, until=max(known.until, press.until))
    return first + rest


def _is_one(first: Press, second: Press, around: int) -> bool:
    if HIDDEN in (first.digit, second.digit):
        around = _AROUND  # nobody can tell whether they are the same
    elif first.digit != second.digit:
        return False
    return second.time <= first.until + around and first.time <= second.until + around
