"""The account of the disk that holds the recordings: how long it lasts, and what may go when it does not.

Nothing here touches the disk: figures in, a decision out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .parcel import Parcel

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
    how many targets have to have a recording before the one here may go.
    """

    reserve: int
    warn_days: float
    copies: int = 1


@dataclass(frozen=True, slots=True)
class Local:
    """A recording on this machine's disk, by its number in the queue, and the targets that have confirmed it."""

    number: int
    parcel: Parcel
    confirmed: frozenset[str]


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


def decide(
    disk: Disk,
    daily: float,
    limits: Limits,
    recordings: Iterable[Local],
    targets: frozenset[str],
    holds: frozenset[str] = frozenset(),
) -> Decision:
    """Decide what to say of the disk and what goes.

    `daily` is in bytes a day, `recordings` come oldest first and are looked at only where room is short, `holds` are
    the ids of recordings that must stay. A recording goes only if every one of `targets` has confirmed it, and these
    are at least `limits.copies`; without targets nothing goes.
    """
    days = disk.free / daily if daily > 0 else None
    missing = limits.reserve - disk.free
    go: list[Local] = []
    for recording in recordings if missing > 0 and targets else ():
        if missing <= 0:
            break
        if _may_go(recording, targets, holds, limits.copies):
            go.append(recording)
            missing -= recording.parcel.bytes
    return Decision(days, tuple(_alarms(disk, days, limits, missing, bool(targets))), tuple(go))


def size_text(size: float) -> str:
    """Return bytes as people read them: 1.2 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 999.5 or (unit == "bytes" and abs(size) < 1000):
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _may_go(recording: Local, targets: frozenset[str], holds: frozenset[str], copies: int) -> bool:
    return (
        bool(targets)
        and targets <= recording.confirmed
        and len(targets) >= max(copies, 1)
        and recording.parcel.id not in holds
    )


def _alarms(disk: Disk, days: float | None, limits: Limits, missing: int, delivers: bool) -> Iterable[DiskAlarm]:
    free = f"{size_text(disk.free)} of {size_text(disk.total)} are free"
    what = (
        "add a target, or move recordings away"
        if not delivers
        else "see why recordings are not delivered, or move some"
    )
    if missing > 0:
        why = "nothing that is left may go" if delivers else "without a target nothing may go"
        yield DiskAlarm(
            "DISK_FULL", "critical", f"{free}, less than the reserve of {size_text(limits.reserve)}, and {why}: {what}"
        )
    if days is not None and days <= limits.warn_days:
        then = "then the oldest delivered recordings make room" if delivers else "then recording stops"
        yield DiskAlarm(
            "DISK_LOW", "warning", f"{free}: enough for {_days(days)}; {then}: use a larger disk, or {what}"
        )


def _days(days: float) -> str:
    if days < 1:
        return "less than a day"
    return f"{days:.0f} day{'' if round(days) == 1 else 's'}"
