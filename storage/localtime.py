"""Time for people: local time of a time zone, and the time stamp at the front of a file name.

The time stamp sorts as text the way the instants sort, also in the night when the clock is set back and an hour comes
twice: then the hour carries a letter, `02A` and `02B`, as German law names them.
"""

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

NS = 1_000_000_000

_EPOCH = datetime(1970, 1, 1)
_HOUR = timedelta(hours=1)
# No zone has ever set its clock back further at the end of its summer time (Antarctica/Troll: two hours).
_LONGEST_REPEAT = 3 * 3600

Offset = Callable[[int], int]
"""Seconds since the epoch -> how many seconds local time is ahead of UTC."""


class ZoneError(ValueError):
    """There is no such time zone."""


class Zone:
    """A time zone: an IANA name, "UTC", or "" for the machine's own.

    `wall` turns the times given (ns) into what the clock showed then; by default they are that.
    """

    def __init__(self, name: str = "", wall: Callable[[int], int] = int) -> None:
        """Raises ZoneError."""
        self.name = name
        self._offset = _offset_of(name)
        self._wall = wall

    def on(self, wall: Callable[[int], int]) -> "Zone":
        """Return this zone for times of another clock."""
        return Zone(self.name, wall)

    def utc(self) -> "Zone":
        """Return UTC for times of the same clock."""
        return Zone("UTC", self._wall)

    def local(self, time_ns: int) -> datetime:
        """Return `time_ns` (ns since the epoch) as an aware datetime in this zone, cut to microseconds."""
        seconds, rest = divmod(self._wall(time_ns), NS)
        zone = timezone(timedelta(seconds=self._offset(seconds)))
        return (_EPOCH + timedelta(seconds=seconds, microseconds=rest // 1000)).replace(tzinfo=UTC).astimezone(zone)

    def iso(self, time_ns: int) -> str:
        """Return `time_ns` as `2026-11-22T14:03:05.123+01:00`, cut to milliseconds."""
        return self.local(time_ns).isoformat(timespec="milliseconds")

    def end_of(self, day: date) -> int:
        """Return when a day is over for good, in ns since the epoch. It may have 23 or 25 hours, and midnight may come
        twice, or not at all.
        """
        middle = int((datetime.combine(day, datetime.min.time()) - _EPOCH).total_seconds())
        step = 900
        high = middle + 3 * 86400
        while self._date(high - step) > day:
            high -= step
        low = high - step
        while high - low > 1:
            between = (low + high) // 2
            low, high = (low, between) if self._date(between) > day else (between, high)
        return high * NS

    def _date(self, seconds: int) -> date:
        return (_EPOCH + timedelta(seconds=seconds + self._offset(seconds))).date()

    def stamp(self, time_ns: int) -> "Stamp":
        """Return the time stamp of a file name for `time_ns` (ns since the epoch)."""
        seconds, rest = divmod(self._wall(time_ns), NS)
        local = _EPOCH + timedelta(seconds=seconds + self._offset(seconds))
        hour, letter = self._hour(seconds, local)
        minutes = f"{local:%M%S}.{rest // 1_000_000:03d}"
        # strftime does not pad years before 1000 everywhere; captures with such clocks exist.
        return Stamp(f"{hour.year:04d}{hour:%m%d}-{hour:%H}{letter}{minutes}", hour)

    def _hour(self, seconds: int, local: datetime) -> tuple[datetime, str]:
        """Return the hour to write for `local`, and its letter when that hour, or a part of it, comes twice.

        Letters count the hours written from the first repeated one on. Mostly these are two passes of one hour; Troll
        repeats two hours (01A 01B, then 01C 01D), Lord Howe half an hour (01A30 to 01A59, then 01B30 to 01B59).
        """
        hour = local.replace(minute=0, second=0)
        change = self._set_back_near(seconds)
        if change is None:
            return hour, ""
        start, end = (_EPOCH + timedelta(seconds=change + self._offset(at)) for at in (change, change - 1))
        first = start.replace(minute=0, second=0)
        hours_a_pass = (end - _EPOCH - timedelta(microseconds=1)) // _HOUR - (first - _EPOCH) // _HOUR + 1
        if start <= local < end:
            index = (hour - first) // _HOUR + (hours_a_pass if seconds >= change else 0)
        elif local >= end and hour == first:
            index = 2  # what follows the second pass within the same hour has to sort behind it
        else:
            return hour, ""
        return first, "ABCDEFGH"[index]

    def _set_back_near(self, seconds: int) -> int | None:
        """Return the second at which the clock is set back, if that is within three hours."""
        low, high = seconds - _LONGEST_REPEAT, seconds + _LONGEST_REPEAT
        before = self._offset(low)
        if before <= self._offset(high):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._offset(middle) == before else (low, middle)
        return high


class Stamp(str):
    """The text of a time stamp, and the date and hour it is sorted under (naive local time) for folder names."""

    hour: datetime

    def __new__(cls, text: str, hour: datetime) -> "Stamp":
        """Join the text and the hour it is sorted under."""
        stamp = super().__new__(cls, text)
        stamp.hour = hour
        return stamp


def _offset_of(name: str) -> Offset:
    if name == "":
        return _machine_offset
    if name.upper() == "UTC":
        return lambda seconds: 0
    try:
        zone = ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ZoneError(f"no time zone is called {name!r}; names look like Europe/Amsterdam") from None

    def offset(seconds: int) -> int:
        shift = datetime.fromtimestamp(seconds, zone).utcoffset()
        return int(shift.total_seconds()) if shift is not None else 0

    return offset


def _machine_offset(seconds: int) -> int:
    return time.localtime(seconds).tm_gmtoff
