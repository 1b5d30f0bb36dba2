"""What the deliver stage says: a line for each recording, its report, its alarms, in words for the admin."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ..storage.courier import Report
from ..storage.jobs import Job, TargetState, Totals
from ..storage.removal import DISK_LOW
from ..storage.safe_text import for_json, for_terminal
from ..storage.space import Decision, Disk, Local, size_text
from ..storage.state import Severity

STALLED_S = 120.0
"""Seconds without a byte after which a target counts as stalled. A slow disk writes 32 MiB in less."""
CRITICAL_S = 86_400.0
"""An outage of this length is more than a warning."""

SHOWN = 5
"""Recordings that an alarm names."""

Words = tuple[str, Severity]


@dataclass(frozen=True, slots=True)
class TargetView:
    """One target at a moment. `silent` is the seconds in which a running delivery has not moved a byte; `trouble` what
    keeps its courier from working at all; `rate` the bytes a second that move; `opens` when its hours begin, None while
    it may be used.
    """

    name: str
    state: TargetState
    totals: Totals
    silent: float = 0.0
    trouble: str = ""
    rate: float = 0.0
    opens: float | None = None

    @property
    def failing_since(self) -> float | None:
        """Since when the target, or a recording that waits for it, fails; seconds since the epoch."""
        times = [time for time in (self.state.failing_since, self.totals.failing_since) if time is not None]
        return min(times, default=None)

    @property
    def error(self) -> str:
        """What is wrong, empty if nothing is."""
        stalled = f"no byte has moved for {self.silent:.0f} s: the target or its connection hangs"
        return self.trouble or (stalled if self.silent > STALLED_S else "") or self.state.error or self.totals.error

    @property
    def next_try(self) -> float | None:
        """When a target that fails is tried again, in seconds since the epoch."""
        times = [self.state.next_try, self.opens or 0.0]
        return max(times) if self.state.failing_since is not None else None

    def as_dict(self) -> dict[str, Any]:
        """Return the target as deliver.json has it. Bytes are those that wait."""
        return {
            "name": self.name,
            "waiting": self.totals.waiting,
            "bytes": self.totals.bytes,
            "rate": round(self.rate),
            "confirmed": self.totals.confirmed,
            "failing_since": _iso(self.failing_since),
            "error": self.error or None,
            "refused": self.totals.failing,
            "lost": self.totals.lost,
            "beside": self.totals.beside,
            "oldest_waiting": _iso(self.totals.oldest),
            "next_try": _iso(self.next_try),
            "outside_hours": self.opens is not None,
            "opens": _iso(self.opens),
        }


def line(report: Report) -> str:
    """Return what came of one delivery as a line of text."""
    clock, target = f"{datetime.now():%H:%M:%S}", for_terminal(report.target)
    again = f"tried again in {_span(report.pause)}"
    if report.outcome == "outage":
        return f"{clock}  {target} does not work, {again}: {for_terminal(report.error, 500)}"
    if report.outcome == "refused":
        return f"{clock}  {report.id}  not delivered to {target}, {again}: {for_terminal(report.error, 500)}"
    if report.outcome == "lost":
        return f"{clock}  {report.id}  cannot go to {target}: {for_terminal(report.error, 500)}"
    back = "  (works again)" if report.recovered else ""
    beside = f"  in {for_terminal(report.folder, 500)}: its name was taken" if report.beside else ""
    size = f"{report.files} files, {size_text(report.bytes)}, {report.seconds:.1f} s"
    return f"{clock}  {report.id}  delivered to {target}  {size}{beside}{back}"


def json_line(report: Report) -> str:
    """Return the same as one JSON object."""
    return _json({"event": report.outcome, **{key: value for key, value in asdict(report).items() if key != "outcome"}})


def removed_line(local: Local, reason: str) -> str:
    """Return the line for a recording that has gone from this machine."""
    where = ", ".join(for_terminal(name) for name in sorted(local.confirmed))
    why = "to make room" if reason == DISK_LOW else f"({for_terminal(reason)})"
    return f"{datetime.now():%H:%M:%S}  {local.parcel.id}  removed here {why}; it is on {where}"


def removed_json(local: Local, reason: str) -> str:
    """Return the same as one JSON object."""
    parcel = local.parcel
    facts = {"id": parcel.id, "stem": parcel.stem, "bytes": parcel.bytes, "confirmed_by": sorted(local.confirmed)}
    return _json({"event": "removed", **facts, "reason": reason})


def failure(view: TargetView, now: float) -> Words | None:
    """Return the words for DELIVER_FAILED about one target, None if all is well."""
    if not view.error:
        return None
    long = view.failing_since is not None and now - view.failing_since > CRITICAL_S
    return f"{_failing(view)}: {view.error}. {_waits(view.totals)}. {_next(view)}", "critical" if long else "warning"


def name_taken(view: TargetView) -> Words | None:
    """Return the words for NAME_TAKEN about one target, None if no name was taken in the last day."""
    if not view.totals.beside:
        return None
    return (
        f"on {view.name}, {_count(view.totals.beside, 'recording')} of the last day lie in folders ending in "
        "_other-..., because other files had their names. Those were not touched, and nothing is lost: find out who "
        "wrote them",
        "warning",
    )


def lost(jobs: Sequence[Job]) -> Words | None:
    """Return the words for RECORDING_LOST, None if there are none."""
    if not jobs:
        return None
    named = "; ".join(f"{job.parcel.id} ({job.parcel.stem}, not on {job.target})" for job in jobs[:SHOWN])
    more = f"; and {len(jobs) - SHOWN} more" if len(jobs) > SHOWN else ""
    return (
        f"files of {_count(len({job.number for job in jobs}), 'recording')} have vanished from this machine before "
        f"they were delivered: {named}{more}. Nothing else is affected. Put the files back, from a backup or another "
        "target, and they are delivered; or take note with `tapdeck queue drop RECORDING`",
        "critical",
    )


def disk_report(disk: Disk, used: int, daily: float, decision: Decision) -> dict[str, Any]:
    """Return the disk as deliver.json has it, in bytes."""
    days = round(decision.days, 1) if decision.days is not None else None
    account = {"free": disk.free, "total": disk.total, "used_by_recordings": used}
    return {**account, "bytes_per_day": round(daily), "days_until_full": days}


def _failing(view: TargetView) -> str:
    since = f" since {_iso(view.failing_since)}" if view.failing_since is not None else ""
    if view.trouble or view.silent > STALLED_S or view.state.failing_since is not None:
        return f"{view.name} takes nothing{since}"
    return f"{view.name} refuses {_count(view.totals.failing, 'recording')}{since}, and takes others"


def _waits(totals: Totals) -> str:
    if not totals.waiting:
        return "Nothing waits for it"
    oldest = f", the oldest of {_iso(totals.oldest)}" if totals.oldest is not None else ""
    wait = "waits" if totals.waiting == 1 else "wait"
    return f"{_count(totals.waiting, 'recording')} ({size_text(totals.bytes)}) {wait}, safe on this machine{oldest}"


def _next(view: TargetView) -> str:
    when = f" at {_iso(view.next_try)}" if view.next_try is not None else ""
    return f"It is tried again{when} by itself; at once with `tapdeck queue retry`"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _json(content: dict[str, Any]) -> str:
    stamp = datetime.now().astimezone().isoformat(timespec="milliseconds")
    return json.dumps(for_json({"time": stamp, **content}), ensure_ascii=False)
