"""What a check says: a colour, what was seen, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Colour(Enum):
    """How a check came out. `OPEN` is no judgement: there was nothing to judge by."""

    OPEN = "open"
    GREEN = "green"
    AMBER = "amber"
    RED = "red"


_ORDER = (Colour.OPEN, Colour.GREEN, Colour.AMBER, Colour.RED)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its stable name, its colour, what was seen, what to do (empty where nothing is to be done)."""

    check: str
    colour: Colour
    seen: str
    todo: str = ""


def worst(findings: Iterable[Finding]) -> Colour:
    """Return the worst colour; green if nothing could be judged worse."""
    return max((one.colour for one in findings), key=_ORDER.index, default=Colour.GREEN)


def ok(check: str, seen: str) -> Finding:
    """A check that is well."""
    return Finding(check, Colour.GREEN, seen)


def warn(check: str, seen: str, todo: str) -> Finding:
    """A check that should be looked after."""
    return Finding(check, Colour.AMBER, seen, todo)


def bad(check: str, seen: str, todo: str) -> Finding:
    """A check that keeps calls from being recorded."""
    return Finding(check, Colour.RED, seen, todo)


def unjudged(check: str, seen: str) -> Finding:
    """A check that had nothing to judge by."""
    return Finding(check, Colour.OPEN, seen)
