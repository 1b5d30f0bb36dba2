"""What an info file says of places in a recording: losses, pauses, digits, holds, in seconds of its WAV. Pure."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .info import Pairs

SIDES = ("Caller", "Callee")
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_OFFSET = re.compile(rf"\(([+-]{_NUMBER})s\)")
_PART = re.compile(rf"([+-]{_NUMBER})s lost=([0-9]{{1,9}}) loss=({_NUMBER})%")
_GAP = re.compile(rf"({_NUMBER})\+({_NUMBER})")
_SEVERAL = re.compile(r"and ([0-9]{1,9}) more")
PART_S = 10.0
"""Losses are counted over so long a stretch."""
LONGEST_PACKET_S = 0.060
"""Hardly a packet holds more sound."""
NEAR_S = 0.050
"""A gap that begins so close to a digit is the digit's: while a key is sent, no sound is."""


@dataclass(frozen=True, slots=True)
class Lossy:
    """A stretch in which packets were lost: where it begins, how many, per cent."""

    start: float
    lost: int
    percent: float


@dataclass(frozen=True, slots=True)
class Span:
    """From where to where something lasts, and what it is."""

    start: float
    end: float
    what: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something at one place: which side's, and the text of it."""

    at: float
    side: str
    text: str


@dataclass(slots=True)
class Markers:
    """All of a recording: by side its stretches with losses, its gaps that losses explain, and its other gaps; digits;
    holds. `unlisted` are gaps of a side that the info file only counts.
    """

    lossy: dict[str, list[Lossy]] = field(default_factory=lambda: {side: [] for side in SIDES})
    losses: dict[str, list[Span]] = field(default_factory=lambda: {side: [] for side in SIDES})
    pauses: dict[str, list[Span]] = field(default_factory=lambda: {side: [] for side in SIDES})
    unlisted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    digits: list[Mark] = field(default_factory=list)
    holds: list[Span] = field(default_factory=list)


def read_markers(pairs: Pairs, seconds: float) -> Markers:
    """Return what is said of a recording of that length; lines that make no sense are passed over."""
    found = Markers()
    for text in _values(pairs, "Digit"):
        at = _OFFSET.search(text)
        if at:
            found.digits.append(Mark(float(at[1]), _side_of(text), text.split()[0]))
    for side in SIDES:
        for text in _values(pairs, f"{side}-LossPart"):
            if part := _PART.match(text):
                found.lossy[side].append(Lossy(float(part[1]), int(part[2]), float(part[3])))
        for text in _values(pairs, f"{side}-Gap"):
            if gap := _GAP.fullmatch(text):
                start, length = float(gap[1]), float(gap[2])
                key = any(mark.side == side and abs(mark.at - start) < NEAR_S for mark in found.digits)
                kind = found.pauses if key or not _is_loss(found.lossy[side], start, length) else found.losses
                kind[side].append(Span(start, start + length))
            elif more := _SEVERAL.match(text):
                found.unlisted[side] += int(more[1])
    found.holds = list(_holds(_values(pairs, "Hold"), seconds))
    return found


def _values(pairs: Pairs, key: str) -> Iterator[str]:
    return (value for name, value in pairs if name == key)


def _is_loss(lossy: Iterable[Lossy], start: float, length: float) -> bool:
    """Tell a gap of lost packets from a pause: in its time at least as much was lost."""
    there = sum(
        part.lost for part in lossy if part.start < start + length + PART_S / 100 and start < part.start + PART_S
    )
    return length <= there * LONGEST_PACKET_S


def _side_of(text: str) -> str:
    return "Callee" if " by callee " in text else "Caller"


def _holds(lines: Iterable[str], seconds: float) -> Iterator[Span]:
    """Yield who held the call from when to when; what was not resumed lasts to the end."""
    held: dict[str, float] = {}
    for text in lines:
        words, at = text.split(), _OFFSET.search(text)
        if len(words) < 3 or at is None:
            continue
        what, who = words[0], words[2]
        if what == "held":
            held.setdefault(who, float(at[1]))
        elif what == "resumed" and who in held:
            yield Span(held.pop(who), float(at[1]), f"held by {who}")
    for who, start in held.items():
        yield Span(start, max(seconds, start), f"held by {who}")
