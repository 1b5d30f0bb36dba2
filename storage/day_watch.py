"""Looks at the stages' counters for the accounts of the days, and keeps how far they had got in the recording log.

Capture's are in its report, rewritten each second; seal's are given. What is kept is at most SAVE_S old when the
process is killed; the counters of a stage that goes on meanwhile are not lost by it, those of one that has ended are,
and `DayCounts.gaps` says so.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from . import state
from .day_counts import DayCounts, Run, from_text, to_text
from .ledger import Ledger
from .localtime import NS, Zone

MARK = "day counts"
"""Name of the mark in the recording log."""
SAVE_S = 10.0
_SAME_S = 0.01
_PACKETS = ("kept", "duplicate", "relayed")


@dataclass(slots=True)
class DayWatch:
    """The counts of the days. `folder` holds the stages' reports."""

    ledger: Ledger
    folder: Path
    zone: Zone
    counts: DayCounts = field(init=False)
    _began: str = field(init=False)
    _saved: float = field(init=False, default=0.0)
    _text: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self._text = self.ledger.mark(MARK)
        try:
            self.counts = from_text(self._text)
        except ValueError:
            self.counts = DayCounts()
        self._began = self._now()
        before = self.counts.latest("seal")
        if before is not None and not before.ended:
            self._gap("seal", before.seen, self._began)

    def look(self, media: Mapping[str, int], ended: bool = False) -> None:
        """Look at the counters; `media` are those of this stage. Raises OSError."""
        now = self._now()
        own = {name: count for name, count in media.items() if name != "seen" and (count or name in _PACKETS)}
        self.counts.look(_day(now), Run("seal", self._began, own, now, ended))
        report = state.read(self.folder, "capture")
        if report is not None:
            self._look_at_capture(report)
        if ended or time.monotonic() - self._saved >= SAVE_S:
            self.save()

    def save(self) -> None:
        """Keep what was seen, durably. Raises OSError."""
        text = to_text(self.counts)
        if text != self._text:
            self.ledger.append(mark=(MARK, text))
            self._text = text
        self._saved = time.monotonic()

    def _look_at_capture(self, report: Mapping[str, Any]) -> None:
        began, updated = report.get("started"), report.get("updated")
        if not isinstance(began, str) or not isinstance(updated, (int, float)):
            return
        before = self.counts.latest("capture")
        seen = self.zone.iso(int(updated * NS))
        if before is not None and before.began != began:
            self._look_at_change(before, report, began)
        run = Run("capture", began, captured(report), seen, bool(report.get("clean")))
        if before is None and _seconds(began) and _day(began) < _day(seen):
            self.counts.look(_day(seen) - timedelta(1), run)  # what it counted before belongs to days before, unknown
            self._gap("capture", began, seen)
        self.counts.look(_day(seen), run)

    def _look_at_change(self, before: Run, report: Mapping[str, Any], began: str) -> None:
        """Another run of capture: it has written down when the one before it counted last."""
        downtimes = report.get("downtime")
        last = downtimes[-1] if isinstance(downtimes, list) and downtimes else None
        until = last.get("from") if isinstance(last, dict) and last.get("to") == began else None
        if isinstance(until, str) and _seconds(until) - _seconds(before.seen) > _SAME_S:
            self._gap("capture", before.seen, self.zone.iso(int(_seconds(until) * NS)))
        elif until is None and not before.ended:
            self._gap("capture", before.seen, began)

    def _gap(self, stage: str, since: str, until: str) -> None:
        for day in {_day(since), _day(until)}:
            self.counts.gap(day, stage, since, until)

    def _now(self) -> str:
        return self.zone.iso(time.time_ns())


def captured(report: Mapping[str, Any]) -> dict[str, int]:
    """Return what capture counts: packets by their fate, and `calls ...`."""
    packets = report.get("packets")
    calls = report.get("calls")
    found = dict(packets) if isinstance(packets, dict) else {}
    for name in ("seen", "answered", "handed_over", "without_media", "refused"):
        if isinstance(calls, dict) and name in calls:
            found[f"calls {name}"] = calls[name]
    return {str(name): count for name, count in found.items() if isinstance(count, int)}


def _day(time: str) -> date:
    return datetime.fromisoformat(time).date()


def _seconds(time: str) -> float:
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return 0.0
