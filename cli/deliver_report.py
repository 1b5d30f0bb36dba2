"""What the deliver stage says: a line for each recording, its report, its alarms, in words for the admin."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ..storage.courier import Report
from ..storage.queue import TargetState, Totals
from ..storage.safe_text import for_json, for_terminal
from ..storage.space import Decision, Disk, Local, size_text
from ..storage.state import Severity

STALLED_S = 120.0
"""Seconds without a byte after which a target counts as stalled. A slow disk writes 32 MiB in less."""
CRITICAL_S = 86_400.0
"""An outage of this length is more than a warning."""

Words = tuple[str, Severity]


@dataclass(frozen=True, slots=True)
class TargetView:
    """One target at a moment. `silent` is the seconds in which a running delivery has not moved a byte; `trouble` what
    keeps its courier from working at all.
    """

    name: str
    state: TargetState
    totals: Totals
    silent: float = 0.0
    trouble: str = ""

    @property
    def failing_since(self) -> float | None:
        """Since when the target, or a recording that waits for it, fails; seconds since the epoch."""
        times = [time for time in (self.state.failing_since, self.totals.failing_since) if time is not None]
        return min(times, default=None)

    @property
    def error(self) -> str:
        """What is wrong, empty if nothing is."""
        stalled = f"no byte has moved for {self.silent:.0f} s: the disk or its connection hangs"
        return self.trouble or (stalled if self.silent > STALLED_S else "") or self.state.error or self.totals.error

    def as_dict(self) -> dict[str, Any]:
        """Return the target as deliver.json has it."""
        return {
            "name": self.name,
            "waiting": self.totals.waiting,
            "confirmed": self.totals.confirmed,
            "failing_since": _iso(self.failing_since),
            "error": self.error or None,
            "refused": self.totals.failing,
            "beside": self.totals.beside,
            "oldest_waiting": _iso(self.totals.oldest),
            "next_try": _iso(self.state.next_try or None),
        }


def line(report: Report) -> str:
    """Return what came of one delivery as a line of text."""
    clock, target = f"{datetime.now():%H:%M:%S}", for_terminal(report.target)
    again = f"tried again in {_span(report.pause)}"
    if report.outcome == "outage":
        return f"{clock}  {target} does not work, {again}: {for_terminal(report.error, 500)}"
    if report.outcome == "refused":
        return f"{clock}  {report.id}  not delivered to {target}, {again}: {for_terminal(report.error, 500)}"
    back = "  (works again)" if report.recovered else ""
    beside = f"  in {for_terminal(report.folder, 500)}: its name was taken" if report.beside else ""
    size = f"{report.files} files, {size_text(report.bytes)}, {report.seconds:.1f} s"
    return f"{clock}  {report.id}  delivered to {target}  {size}{beside}{back}"


def json_line(report: Report) -> str:
    """Return the same as one JSON object."""
    return _json({"event": report.outcome, **{key: value for key, value in asdict(report).items() if key != "outcome"}})


def removed_line(local: Local) -> str:
    """Return the line for a recording that made room."""
    where = ", ".join(for_terminal(name) for name in sorted(local.confirmed))
    return f"{datetime.now():%H:%M:%S}  {local.parcel.id}  removed here to make room; it is on {where}"


def removed_json(local: Local) -> str:
    """Return the same as one JSON object."""
    parcel = local.parcel
    facts = {"id": parcel.id, "stem": parcel.stem, "bytes": parcel.bytes, "confirmed_by": sorted(local.confirmed)}
    return _json({"event": "removed", **facts})


def failure(views: Sequence[TargetView], now: float) -> Words | None:
    """Return the words for DELIVER_FAILED, None if all is well."""
    failing = [view for view in views if view.error]
    if not failing:
        return None
    long = any(view.failing_since is not None and now - view.failing_since > CRITICAL_S for view in failing)
    return "; ".join(text for view in failing for text in _failing(view)), "critical" if long else "warning"


def name_taken(views: Sequence[TargetView]) -> Words | None:
    """Return the words for NAME_TAKEN, None if no name was taken in the last day."""
    texts = [
        f"on {view.name}, {view.totals.beside} recordings of the last day lie in folders ending in _other-..., because "
        "other files had their names: find out who wrote those"
        for view in views
        if view.totals.beside
    ]
    return ("; ".join(texts), "warning") if texts else None


def disk_report(disk: Disk, used: int, daily: float, decision: Decision) -> dict[str, Any]:
    """Return the disk as deliver.json has it, in bytes."""
    days = round(decision.days, 1) if decision.days is not None else None
    account = {"free": disk.free, "total": disk.total, "used_by_recordings": used}
    return {**account, "bytes_per_day": round(daily), "days_until_full": days}


def _failing(view: TargetView) -> Iterator[str]:
    since = f" since {_iso(view.failing_since)}" if view.failing_since is not None else ""
    waits = f"{view.totals.waiting} recordings wait, safe on this machine"
    if view.totals.oldest is not None:
        waits += f", the oldest of {_iso(view.totals.oldest)}"
    if view.trouble or view.silent > STALLED_S or view.state.failing_since is not None:
        yield f"{view.name} takes nothing{since}: {view.error}. {waits}"
    else:
        yield f"{view.name} refuses {view.totals.failing} recordings{since}: {view.error}. {waits}"


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _json(content: dict[str, Any]) -> str:
    stamp = datetime.now().astimezone().isoformat(timespec="milliseconds")
    return json.dumps(for_json({"time": stamp, **content}), ensure_ascii=False)
