"""What the delivery queue tells: jobs, how targets do, counts. Times are seconds since the epoch."""

from dataclasses import dataclass

from .parcel import Parcel


@dataclass(frozen=True, slots=True)
class Job:
    """One recording that waits for one target."""

    number: int
    target: str
    parcel: Parcel
    attempts: int


@dataclass(frozen=True, slots=True)
class TargetState:
    """How a target does. `failures` counts those in a row, 0 when it works."""

    known: bool = False
    failures: int = 0
    next_try: float = 0.0
    failing_since: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Totals:
    """What of one target's jobs has come to what. `failing` are recordings that it refuses while it takes others;
    `beside` those of the last day whose name was taken; `lost` those that are gone here and that it has not got.
    """

    waiting: int = 0
    confirmed: int = 0
    oldest: float | None = None
    failing: int = 0
    failing_since: float | None = None
    error: str = ""
    beside: int = 0
    bytes: int = 0
    lost: int = 0
