"""The account of the disk that holds the recordings: how long it lasts, and what may go when it does not.

Nothing here touches the disk: figures in, a decision out.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .parcel import Parcel, is_day

DAY_S = 86_400.0
WINDOW_DAYS = 7
"""Days whose recordings tell how many bytes a day brings: a week has its weekend."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system, in bytes. `free` is what an ordinary user may still fill."""

    free: int
    total: int


@dataclass(frozen=True, slots=True)
class Limits:
    """`reserve` is what has to stay free, in bytes; `warn_days` how long before the end there is an alarm. `copies` is
    how many targets have to have a recording before the one here may go. It goes when it is `keep` seconds old; where
    that is None, when the disk runs short.
    """

    reserve: int
    warn_days: float
    copies: int = 1
    keep: float | None = None


@dataclass(frozen=True, slots=True)
class Receivers:
    """The names of all targets that are in use, and of those that must have a recording before the one here goes."""

    targets: frozenset[str]
    required: frozenset[str]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of the days to come. `leaving` are bytes that will go from the disk because they are old enough,
    each with the days until then, soonest first; `backlog` are bytes that a required target has not got.
    """

    leaving: tuple[tuple[float, int], ...] = ()
    backlog: int = 0


@dataclass(frozen=True, slots=True)
class Local:
    """A recording on this machine's disk, by its number in the queue, the targets that have confirmed it, and those
    that do not want it.
    """

    number: int
    parcel: Parcel
    confirmed: frozenset[str]
    unwanted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DiskAlarm:
    """An alarm as storage/state.py has it."""

    code: Literal["DISK_LOW", "DISK_FULL"]
    severity: Literal["warning", "critical"]
    text: str


@dataclass(frozen=True, slots=True)
class Decision:
    """`days` until the disk is full, None if nothing comes in; the alarms to raise, all others to clear; and what is to
    go, in this order.
    """

    days: float | None
    alarms: tuple[DiskAlarm, ...]
    go: tuple[Local, ...]


def per_day(lately: int, first: float | None, now: float) -> float:
    """Return the bytes that a day brings, from those of the last WINDOW_DAYS. `first` is the end of the first recording
    of all: a recorder younger than the window has had fewer days, though at least one.
    """
    days = min(max((now - first) / DAY_S, 1.0), WINDOW_DAYS) if first is not None else 1.0
    return lately / days


def days_until_full(free: int, daily: float, keep: float | None, outlook: Outlook) -> float | None:
    """Return the days until the disk is full, None if it will never be: nothing comes in, or as much goes as comes.
    `daily` is in bytes a day, `keep` in seconds.
    """
    if daily <= 0:
        return None
    if keep is None:
        return free / daily
    room, today = float(free), 0.0
    stops = math.inf if outlook.backlog else keep / DAY_S  # from then on what has come goes
    for day, size in outlook.leaving:
        if day > stops:
            break
        moment = max(day, today)
        room -= daily * (moment - today)
        if room <= 0:
            return moment + room / daily
        room, today = room + size, moment
    end = today + room / daily
    return None if end > stops else end


def decide(
    disk: Disk,
    daily: float,
    limits: Limits,
    recordings: Iterable[Local],
    receivers: Receivers,
    outlook: Outlook | None = None,
    holds: frozenset[str] = frozenset(),
) -> Decision:
    """Decide what to say of the disk and what goes because it runs short.

    `daily` is in bytes a day, `recordings` come oldest first and are looked at only where room is short, `holds` are
    the ids of recordings that must stay. See `may_go`; without targets nothing goes.
    """
    outlook = outlook or Outlook()
    days = days_until_full(disk.free, daily, limits.keep, outlook)
    missing = limits.reserve - disk.free
    go: list[Local] = []
    for recording in recordings if missing > 0 and receivers.targets else ():
        if missing <= 0:
            break
        if may_go(recording, receivers, limits.copies, holds):
            go.append(recording)
            missing -= recording.parcel.bytes
    alarms = _alarms(disk, days, limits, missing, bool(receivers.targets), outlook.backlog)
    return Decision(days, tuple(alarms), tuple(go))


def may_go(recording: Local, receivers: Receivers, copies: int = 1, holds: frozenset[str] = frozenset()) -> bool:
    """Whether a recording is safe elsewhere: every required target has confirmed it, or does not want it, and at least
    `copies` of the targets in use have it, and one.
    """
    return (
        receivers.required <= recording.confirmed | recording.unwanted
        and len(recording.confirmed & receivers.targets) >= max(copies, 1)
        and recording.parcel.id not in holds
        and not is_day(recording.parcel)  # small, and what proves that the others were there
    )


def size_text(size: float) -> str:
    """Return bytes as people read them: 1.2 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 999.5 or (unit == "bytes" and abs(size) < 1000):
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _alarms(
    disk: Disk, days: float | None, limits: Limits, missing: int, delivers: bool, backlog: int
) -> Iterable[DiskAlarm]:
    free = f"{size_text(disk.free)} of {size_text(disk.total)} are free"
    waits = f", and {size_text(backlog)} of what lies here must not go, for a target has not got it" if backlog else ""
    what = (
        "add a target, or move recordings away"
        if not delivers
        else "see why recordings are not delivered, or move some"
    )
    if missing > 0:
        why = "nothing that is left may go" if delivers else "without a target nothing may go"
        text = f"{free}, less than the reserve of {size_text(limits.reserve)}, and {why}{waits}: {what}"
        yield DiskAlarm("DISK_FULL", "critical", text)
    if days is not None and days <= limits.warn_days:
        early = " earlier than storage.keep_local says" if limits.keep else ""
        then = f"then the oldest delivered recordings make room{early}" if delivers else "then recording stops"
        text = f"{free}: enough for {_days(days)}{waits}; {then}: use a larger disk, or {what}"
        yield DiskAlarm("DISK_LOW", "warning", text)


def _days(days: float) -> str:
    if days < 1:
        return "less than a day"
    return f"{days:.0f} day{'' if round(days) == 1 else 's'}"
