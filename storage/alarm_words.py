"""Mails of alarms in plain words: what failed, since when, what is safe, what to do, and what is waiting."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .advice import advice
from .alarm_book import Change, Entry
from .heartbeat import span
from .outbox import Letter
from .safe_text import for_line
from .space import size_text

_FOOT = (
    "`tapdeck status` on the recorder says how it is now; `tapdeck alarms ack CODE` tells the others that you look "
    "after an alarm."
)


@dataclass(frozen=True, slots=True)
class Scene:
    """How the box is while a mail is written: its name, what waits where, and what else is raised."""

    instance: str
    waiting: tuple[tuple[str, int], ...] = ()
    unsealed: int = 0
    raised: tuple[Entry, ...] = ()
    waited: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Day:
    """What a day brought, for the mail that all is well."""

    date: str
    recorded: int = 0
    seconds: float = 0.0
    others: Mapping[str, int] = field(default_factory=dict)
    delivered: Mapping[str, int] = field(default_factory=dict)
    alarms: int = 0
    disk: Mapping[str, Any] = field(default_factory=dict)


def letters(
    changes: Sequence[Change],
    people: Mapping[str, Sequence[str]],
    routes: Mapping[str, Sequence[str]],
    scene: Scene,
    now: float,
) -> list[Letter]:
    """Return the mails that tell of these changes: one for all who get the same. `people` has the addresses of each
    role, `routes` the roles of each code.
    """
    told = [one for one in _worth_telling(changes) if _addresses(one.entry.code, people, routes)]
    by_reader: dict[str, list[Change]] = {}
    for change in told:
        for address in _addresses(change.entry.code, people, routes):
            by_reader.setdefault(address, []).append(change)
    groups: dict[tuple[str, ...], list[str]] = {}
    for address, found in by_reader.items():
        groups.setdefault(tuple(f"{one.kind} {one.entry.id}" for one in found), []).append(address)
    return [
        Letter(tuple(readers), _subject(by_reader[readers[0]], scene), _body(by_reader[readers[0]], scene, now), now)
        for readers in groups.values()
    ]


def trial_letter(to: Iterable[str], instance: str, now: float) -> Letter:
    """Return the mail of `tapdeck alarms test`."""
    body = (
        f"This is a test: somebody has run `tapdeck alarms test` on the recorder {for_line(instance)}.\n"
        "Nothing is wrong. Mails of alarms will reach you in this way."
    )
    return Letter(tuple(to), f"[tapdeck {for_line(instance, 60)}] test", body, now)


def alive_letter(to: Iterable[str], day: Day, scene: Scene, now: float) -> Letter:
    """Return the daily mail that the box is alive."""
    raised = f", {len(scene.raised)} alarms" if scene.raised else ", no alarm"
    lines = [
        f"The recorder {for_line(scene.instance)} is alive.",
        "",
        f"On {day.date}:",
        *_figures(day),
        "",
        *_now(scene),
    ]
    subject = f"[tapdeck {for_line(scene.instance, 60)}] alive{raised}; {day.recorded} recordings on {day.date}"
    return Letter(tuple(to), subject, "\n".join(lines), now, kind="alive")


def heartbeat_letter(to: str, content: Mapping[str, Any], instance: str, now: float) -> Letter:
    """Return the sign of life as a mail."""
    body = "\n".join(f"{key}: {for_line(str(value))}" for key, value in content.items())
    return Letter((to,), f"[tapdeck {for_line(instance, 60)}] sign of life", body, now, kind="heartbeat")


def day_of(date: str, events: Iterable[Mapping[str, Any]], disk: Mapping[str, Any]) -> Day:
    """Count what the event log has of one day."""
    recorded, seconds, alarms = 0, 0.0, 0
    others: dict[str, int] = {}
    delivered: dict[str, int] = {}
    for event in events:
        kind = event.get("event")
        if kind == "call" and event.get("outcome") == "recorded":
            recorded += 1
            length = event.get("duration_s")
            seconds += length if isinstance(length, (int, float)) else 0.0
        elif kind == "call":
            outcome = for_line(str(event.get("outcome")), 40).replace("_", " ")
            others[outcome] = others.get(outcome, 0) + 1
        elif kind == "delivered":
            target = for_line(str(event.get("target")), 100)
            delivered[target] = delivered.get(target, 0) + 1
        elif kind == "alarm":
            alarms += 1
    return Day(date, recorded, seconds, others, delivered, alarms, disk)


def _worth_telling(changes: Sequence[Change]) -> Iterator[Change]:
    """People are told that an alarm was raised, and that it is over; if both at once, then only that."""
    over = {change.entry.id for change in changes if change.kind == "over"}
    for change in changes:
        if change.kind == "over" or (change.kind == "raised" and change.entry.id not in over):
            yield change


def _addresses(code: str, people: Mapping[str, Sequence[str]], routes: Mapping[str, Sequence[str]]) -> list[str]:
    found = (address for role in routes.get(code, advice(code).roles) for address in people.get(role, ()))
    return list(dict.fromkeys(found))


def _subject(changes: Sequence[Change], scene: Scene) -> str:
    raised = [change.entry for change in changes if change.kind == "raised"]
    over = [change.entry for change in changes if change.kind == "over"]
    mark = "CRITICAL: " if any(one.severity == "critical" for one in raised) else ""
    parts = [mark + ", ".join(one.name for one in raised)] if raised else []
    parts += ["over: " + ", ".join(one.name for one in over)] if over else []
    return f"[tapdeck {for_line(scene.instance, 60)}] {'; '.join(parts)}"


def _body(changes: Sequence[Change], scene: Scene, now: float) -> str:
    lines = [f"From the recorder {for_line(scene.instance)}, {_local(now)}.", ""]
    for change in changes:
        lines += [*(_raised(change.entry) if change.kind == "raised" else _over(change.entry)), ""]
    told = {change.entry.id for change in changes}
    lines += _now(scene, told)
    if scene.waited:
        lines.append(f"{scene.waited} messages had to wait for this mail, because of alarms.mails_an_hour.")
    if scene.lost:
        lines.append(f"{scene.lost} older messages were left out: there were too many. The event log has them.")
    return "\n".join([*lines, "", _FOOT])


def _raised(entry: Entry) -> Iterator[str]:
    known = advice(entry.code)
    yield f"{entry.name}, {entry.severity}"
    yield f"  What:   {known.means}"
    yield f"          {entry.text}"
    yield f"  Since:  {_local(entry.since)}"
    yield f"  Safe:   {known.safe}"
    yield f"  Do:     {known.do}"


def _over(entry: Entry) -> Iterator[str]:
    end = entry.changed if entry.over is None else entry.over
    yield f"Over: {entry.name}"
    yield f"  What:   {advice(entry.code).means}"
    yield f"          {entry.text}"
    yield f"  From:   {_local(entry.since)}"
    yield f"  To:     {_local(end)}, after {span(end - entry.since)}"
    if entry.times > 1:
        yield f"  It came and went {entry.times} times."
    if entry.by:
        yield f"  Looked after by {entry.by}{': ' + entry.note if entry.note else ''}."


def _now(scene: Scene, told: Iterable[str] = ()) -> Iterator[str]:
    counts = [f"{for_line(name, 100)}: {count:,}" for name, count in scene.waiting]
    yield f"Recordings that wait for a target: {', '.join(counts) or 'there is no target'}."
    if scene.unsealed:
        yield f"Calls that wait to be made a recording: {scene.unsealed:,}."
    others = [entry for entry in scene.raised if entry.id not in set(told)]
    if others:
        yield f"{'Also raised' if told else 'Raised'}: {', '.join(_standing(entry) for entry in others)}."
    elif not told:
        yield "No alarm is raised."


def _standing(entry: Entry) -> str:
    care = f", looked after by {entry.by}" if entry.acknowledged is not None and entry.by else ""
    return f"{entry.name} since {_local(entry.since)}{care}"


def _figures(day: Day) -> Iterator[str]:
    hours, rest = divmod(round(day.seconds), 3600)
    yield f"  {day.recorded:,} recordings, {hours}:{rest // 60:02}:{rest % 60:02} long in all"
    for outcome, count in sorted(day.others.items()):
        yield f"  {count:,} calls {outcome}"
    for target, count in sorted(day.delivered.items()):
        yield f"  {count:,} delivered to {target}"
    yield f"  {day.alarms:,} alarms"
    if day.disk:
        free, days = day.disk.get("free"), day.disk.get("days_until_full")
        room = f"  disk: {size_text(free)} free" if isinstance(free, int) else "  disk:"
        yield room + (f", full in {days:,.0f} days" if isinstance(days, (int, float)) else "")


def _local(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment).astimezone():%Y-%m-%d %H:%M:%S}"
