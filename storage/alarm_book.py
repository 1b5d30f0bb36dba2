"""The book of alarms: what is raised, who looks after it, what is over. Nothing here reads, writes or knows the time.

Events and reports of the stages go in, changes come out (`Change`): an alarm was raised, weighs more or less, is
acknowledged, is over. An alarm that comes again within `hold_s` is the same one, and nothing new: it is over only when
it has stayed away for so long.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from .safe_text import for_line

Kind = Literal["raised", "changed", "acknowledged", "over"]
Key = tuple[str, str, str]
"""Stage, code, and what it is about."""

MOST_ACTIVE, MOST_PAST = 300, 200
MARGIN_S = 2.0
"""A report that is younger than the last event by less than this may have been made before it."""

_TEXT, _WORD = 1000, 100


@dataclass(frozen=True, slots=True)
class Entry:
    """One alarm, from its beginning to its end. Times are seconds since the epoch; `over` is when it was last gone,
    `times` how often it came, `changed` when it last came or went.
    """

    stage: str
    code: str
    about: str
    severity: str
    text: str
    since: float
    changed: float
    times: int = 1
    over: float | None = None
    acknowledged: float | None = None
    by: str = ""
    note: str = ""

    @property
    def key(self) -> Key:
        """What tells it from other alarms at the same time."""
        return self.stage, self.code, self.about

    @property
    def id(self) -> str:
        """What tells it from all other alarms."""
        return ":".join((*self.key, iso(self.since)))

    @property
    def name(self) -> str:
        """Its code, and what it is about."""
        return f"{self.code} ({self.about})" if self.about else self.code

    @property
    def state(self) -> str:
        """`active`, `acknowledged` or `cleared`."""
        if self.over is not None:
            return "cleared"
        return "active" if self.acknowledged is None else "acknowledged"

    def shown(self) -> dict[str, Any]:
        """Return it for people and programs: times are ISO 8601."""
        return {
            "code": self.code,
            "about": self.about,
            "stage": self.stage,
            "severity": self.severity,
            "state": self.state,
            "text": self.text,
            "since": iso(self.since),
            "times": self.times,
            "acknowledged": None if self.acknowledged is None else iso(self.acknowledged),
            "by": self.by,
            "note": self.note,
            "cleared": None if self.over is None else iso(self.over),
        }


@dataclass(frozen=True, slots=True)
class Change:
    """Something that somebody may want to be told."""

    kind: Kind
    entry: Entry
    at: float

    def shown(self) -> dict[str, Any]:
        """Return it as hooks get it."""
        return {"event": f"alarm {self.kind}", "time": iso(self.at), "id": self.entry.id, **self.entry.shown()}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a stage's report says, and when it was written."""

    updated: float
    alarms: tuple[Mapping[str, Any], ...] = ()


@dataclass(slots=True)
class Book:
    """All alarms that are raised or rest, and the last ones that are over."""

    hold_s: float = 600.0
    active: dict[Key, Entry] = field(default_factory=dict)
    past: list[Entry] = field(default_factory=list)
    refused: int = 0

    def event(self, event: Mapping[str, Any]) -> list[Change]:
        """Take an event of the log; others than those of alarms change nothing."""
        kind, at = event.get("event"), _epoch(event.get("time"))
        if kind not in ("alarm", "alarm over") or at is None:
            return []
        if kind == "alarm":
            return list(self._raise(_entry(str(event.get("stage", "")), event, at, at)))
        key = _key(str(event.get("stage", "")), event)
        entry = self.active.get(key)
        if entry is not None and entry.over is None and at >= entry.since - MARGIN_S:
            self.active[key] = replace(entry, over=at, changed=at)
        return []

    def reports(self, seen: Mapping[str, Seen]) -> list[Change]:
        """Take the reports of all stages that speak. Of one that says nothing the alarms stay as they are."""
        changes: list[Change] = []
        for stage, report in seen.items():
            listed = {_key(stage, alarm): alarm for alarm in report.alarms if alarm.get("code")}
            for key, alarm in listed.items():
                if not self._is_older(key, report.updated):
                    began = _epoch(alarm.get("since"))
                    since = report.updated if began is None else min(began, report.updated)
                    changes += self._raise(_entry(stage, alarm, since, report.updated))
            for key, entry in list(self.active.items()):
                gone = key[0] == stage and key not in listed and entry.over is None
                if gone and not self._is_older(key, report.updated):
                    self.active[key] = replace(entry, over=report.updated, changed=report.updated)
        return changes

    def settle(self, now: float) -> list[Change]:
        """Return what has stayed away for so long that it is over."""
        resting = [one for one in self.active.values() if one.over is not None]
        return [
            self._finish(one, now) for one in resting if one.over is not None and not 0 <= now - one.over < self.hold_s
        ]

    def acknowledge(self, code: str, about: str | None, by: str, note: str, now: float) -> list[Change]:
        """Note who looks after an alarm: of this code, and about this, or about anything."""
        found = [
            one
            for one in self.active.values()
            if one.code == code and about in (None, one.about) and one.over is None and one.acknowledged is None
        ]
        changes = []
        for one in found:
            known = replace(one, acknowledged=now, by=for_line(by, _WORD), note=for_line(note, _TEXT))
            self.active[one.key] = known
            changes.append(Change("acknowledged", known, now))
        return changes

    def as_json(self) -> dict[str, Any]:
        """Return all of it, for a file."""
        return {
            "alarms": [asdict(one) for one in self.active.values()],
            "past": [asdict(one) for one in self.past],
            "refused": self.refused,
        }

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Book":
        """Return what `as_json` has given. Raises TypeError, KeyError, ValueError for anything else."""
        active = [Entry(**one) for one in content["alarms"]]
        past = [Entry(**one) for one in content["past"]]
        return cls(active={one.key: one for one in active}, past=past, refused=int(content["refused"]))

    def _raise(self, new: Entry) -> Iterator[Change]:
        """`new.since` is when it came, `new.changed` when we heard of it."""
        known = self.active.get(new.key)
        if known is not None and known.over is not None and new.since - known.over >= self.hold_s:
            yield self._finish(known, new.changed)
            known = None
        if known is None:
            if len(self.active) >= MOST_ACTIVE:
                self.refused += 1
                return
            self.active[new.key] = new
            yield Change("raised", new, new.changed)
            return
        back = known.over is not None
        changed = new.changed if back or known.severity != new.severity else known.changed
        times = known.times + 1 if back else known.times
        now = replace(known, text=new.text, severity=new.severity, over=None, times=times, changed=changed)
        self.active[new.key] = now
        if known.severity != new.severity:
            yield Change("changed", now, new.changed)

    def _finish(self, entry: Entry, now: float) -> Change:
        del self.active[entry.key]
        self.past = [*self.past, entry][-MOST_PAST:]
        return Change("over", entry, now)

    def _is_older(self, key: Key, updated: float) -> bool:
        """Whether a report may have been made before what is known of an alarm. One that is a minute older is not: the
        clock was set.
        """
        known = self.active.get(key) or next((one for one in reversed(self.past) if one.key == key), None)
        return known is not None and -60.0 < updated - known.changed <= MARGIN_S


def iso(moment: float) -> str:
    """Return seconds since the epoch as ISO 8601 in this machine's zone."""
    return datetime.fromtimestamp(moment).astimezone().isoformat(timespec="seconds")


def known(entries: Iterable[Entry], code: str, about: str | None) -> bool:
    """Whether such an alarm is raised."""
    return any(one.code == code and about in (None, one.about) and one.over is None for one in entries)


def _key(stage: str, alarm: Mapping[str, Any]) -> Key:
    return (
        for_line(stage, _WORD),
        for_line(str(alarm.get("code", "")), _WORD),
        for_line(str(alarm.get("about", "")), 300),
    )


def _entry(stage: str, alarm: Mapping[str, Any], since: float, changed: float) -> Entry:
    severity = "critical" if alarm.get("severity") == "critical" else "warning"
    return Entry(*_key(stage, alarm), severity, for_line(str(alarm.get("text", "")), _TEXT), since, changed)


def _epoch(when: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(when)
    except (TypeError, ValueError):
        return None
    return moment.timestamp() if moment.tzinfo else None
