"""When and how fast a target may be used: hours of the day, bandwidth, pauses after failures. Pure, save a lock."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import time as TimeOfDay

from .localtime import NS, Zone

LEAST_BLOCK, MOST_BLOCK = 16 << 10, 1 << 20
_CREDIT_S = 1.0
"""How much of the time that passed unused may be made up for: a sender needs some itself."""
_BLOCKS_A_SECOND = 4
_MINUTE_S = 60
_LOOK_AHEAD_MINUTES = 3 * 24 * 60


class PaceError(ValueError):
    """This is no such setting; the message says what one looks like."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds between attempts: `first`, twice that, and so on, up to `longest`, for ever."""

    first: float = 2.0
    longest: float = 3600.0

    def after(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row."""
        return min(self.first * 2.0 ** min(max(failures, 1) - 1, 32), self.longest)


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of each day, `22:00-06:00`, as the clock on the wall shows it in `zone`: in the nights when that is set,
    the hours are longer or shorter.
    """

    start: TimeOfDay
    end: TimeOfDay
    zone: Zone = field(default_factory=Zone, compare=False)

    def open(self, now: float) -> bool:
        """Whether a moment, in seconds since the epoch, is one of these hours. The last minute is not."""
        clock = self.zone.local(int(now * NS)).time()
        if self.start < self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end

    def opens(self, now: float) -> float:
        """Return when they begin next, in seconds since the epoch: `now` if they have begun."""
        if self.open(now):
            return now
        minute = int(now // _MINUTE_S)
        later = (float((minute + n) * _MINUTE_S) for n in range(1, _LOOK_AHEAD_MINUTES))
        return next((moment for moment in later if self.open(moment)), now + _LOOK_AHEAD_MINUTES * _MINUTE_S)


def hours(text: str, zone: Zone | None = None) -> Hours | None:
    """Return the hours that `22:00-06:00` names, None for an empty text: always. Raises PaceError."""
    if not text:
        return None
    start, _, end = text.partition("-")
    try:
        found = (
            TimeOfDay.fromisoformat(_time(start)),
            TimeOfDay.fromisoformat("00:00" if end == "24:00" else _time(end)),
        )
    except ValueError:
        raise PaceError(f"{text!r} is no part of a day like 22:00-06:00") from None
    if found[0] == found[1]:
        raise PaceError(f"{text!r} begins when it ends: leave it empty for the whole day")
    return Hours(*found, zone or Zone())


class Bandwidth:
    """So many bytes a second for all who share it, from any thread."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._used_until = clock()

    @property
    def block(self) -> int:
        """How much to send at a time, in bytes, so that it goes evenly."""
        return int(min(max(self._rate / _BLOCKS_A_SECOND, LEAST_BLOCK), MOST_BLOCK))

    def spend(self, size: int) -> float:
        """Account for bytes that were moved; return the seconds to wait before any more are."""
        with self._lock:
            now = self._clock()
            self._used_until = max(self._used_until, now - _CREDIT_S) + size / self._rate
            return max(self._used_until - now, 0.0)


def bandwidth(kbit: float, clock: Callable[[], float] = time.monotonic) -> Bandwidth | None:
    """Return what a limit in kbit/s allows, None for 0: no limit."""
    return Bandwidth(kbit * 125.0, clock) if kbit > 0 else None


def _time(text: str) -> str:
    """Return a time of day, if it is one written like 22:00. Raises ValueError."""
    if len(text) != 5 or text[2] != ":":
        raise ValueError
    return text
