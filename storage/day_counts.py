"""What the stages counted on each day. Pure.

A stage's counters begin at nought with each of its runs. Kept is, for each run and day, how far they had got: what a
day adds is the difference to the day before. So it does not matter how often they are looked at, and a look that was
missed makes no day's sum wrong but moves counts to the day of the next look. Where a run ended unseen, `gaps` say from
when to when nobody counted.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

Gap = tuple[str, str, str]
"""Stage, from, to."""


@dataclass(slots=True)
class Run:
    """How far the counters of one run of a stage had got on a day, when they were looked at last (ISO 8601), and
    whether it has ended since in an orderly way.
    """

    stage: str
    began: str
    counts: dict[str, int]
    seen: str
    ended: bool = False


@dataclass(slots=True)
class DayCounts:
    """The counters of the last days: day -> runs, and the gaps in each day."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    gaps: dict[str, list[Gap]] = field(default_factory=dict)

    def look(self, day: date, run: Run) -> None:
        """Note how far the counters of a run have got, on the day to which this belongs."""
        today = self.runs.setdefault(day.isoformat(), [])
        today[:] = [one for one in today if (one.stage, one.began) != (run.stage, run.began)]
        today.append(run)

    def latest(self, stage: str) -> Run | None:
        """Return the run of a stage that was looked at last."""
        runs = [run for day in sorted(self.runs) for run in self.runs[day] if run.stage == stage]
        return runs[-1] if runs else None

    def gap(self, day: date, stage: str, since: str, until: str) -> None:
        """Note that nobody counted what a stage did in this time."""
        self.gaps.setdefault(day.isoformat(), []).append((stage, since, until))

    def sums(self, day: date, stage: str) -> dict[str, int]:
        """Return what the counters of a stage add up to on a day, over all its runs."""
        sums: Counter[str] = Counter()
        for run in self.runs.get(day.isoformat(), []):
            if run.stage == stage:
                before = self._before(day, run)
                for name, count in run.counts.items():
                    sums[name] += count - before.get(name, 0)
        return dict(sums)

    def gaps_of(self, day: date) -> list[Gap]:
        """Return in which times of a day nobody counted."""
        return self.gaps.get(day.isoformat(), [])

    def forget(self, before: date) -> None:
        """Forget the days before this one, but for where the last run of each stage had got to."""
        keep = [run for run in map(self.latest, {run.stage for runs in self.runs.values() for run in runs}) if run]
        for day in [day for day in self.runs if day < before.isoformat()]:
            self.runs[day] = [run for run in self.runs[day] if any(run is one for one in keep)]
            if not self.runs[day]:
                del self.runs[day]
        self.gaps = {day: gaps for day, gaps in self.gaps.items() if day >= before.isoformat()}

    def _before(self, day: date, run: Run) -> Mapping[str, int]:
        """Return how far the same run's counters had got on the last day before."""
        earlier = [
            one.counts
            for known in sorted(self.runs)
            if known < day.isoformat()
            for one in self.runs[known]
            if (one.stage, one.began) == (run.stage, run.began)
        ]
        return earlier[-1] if earlier else {}


def to_text(counts: DayCounts) -> str:
    """Return what `from_text` reads."""
    runs = {
        day: [[run.stage, run.began, run.counts, run.seen, run.ended] for run in runs]
        for day, runs in sorted(counts.runs.items())
    }
    return json.dumps({"runs": runs, "gaps": counts.gaps}, sort_keys=True)


def from_text(text: str) -> DayCounts:
    """Read back what `to_text` wrote. Raises ValueError."""
    if not text:
        return DayCounts()
    found: dict[str, Any] = json.loads(text)
    try:
        runs = {
            str(day): [
                Run(str(stage), str(began), dict(counts), str(seen), bool(ended))
                for stage, began, counts, seen, ended in entries
            ]
            for day, entries in found["runs"].items()
        }
        gaps = {str(day): [(str(a), str(b), str(c)) for a, b, c in entries] for day, entries in found["gaps"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"these are no counts of days: {error}") from None
    return DayCounts(runs, gaps)
