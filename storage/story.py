"""The whole story of a conversation: the calls that it is made of, joined by what their info files say of each other.

Each info file says what its own call knew when it was sealed; what one did not know yet, a later one says. Both are
put together here. Pure but for the reading of info files.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ..sniffer.ties import How
from . import info
from .parcel import ENDINGS, INFO

MAX_CALLS = 500
"""Calls of one story."""
_RELATION = re.compile(r"([a-z]{1,16}) (.+?)(?: \(by (.*)\))?")
_RELATED = re.compile(r"([a-z]{1,16}) \(")
_WHEN = re.compile(r" at (\d{4}-\d\d-\d\dT\S+)")
_REPLACES = re.compile(r" replaces=(.*)$")
_OTHER_WAY = {how.value: how.other_way.value for how in How}


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened in a call, in the words of its info file: `kind` is the key of its line."""

    time: datetime
    kind: str
    text: str


@dataclass(slots=True)
class Told:
    """A call as its info file, or a capture, tells it. `related` is what other calls are to it, by id: how, and who
    brought that about; `names` are Call-IDs that it says something of; `files` are its recording's.
    """

    id: str
    call_id: str
    start: datetime
    end: datetime
    answered: datetime | None
    caller: str
    caller_name: str
    callee: str
    callee_name: str
    reason: str
    related: dict[str, tuple[str, str]]
    names: dict[str, str]
    continues: str
    moments: list[Moment]
    referred_by: str = ""
    files: list[Path] = field(default_factory=list)


@dataclass(slots=True)
class Story:
    """Calls in the order of their start, and ids of recordings that are named but not to be found."""

    calls: list[Told]
    missing: list[str] = field(default_factory=list)


def told(pairs: info.Pairs, files: Iterable[Path] = ()) -> Told | None:
    """Return what an info file's lines tell of a call, None if they are none of ours."""
    one = dict(reversed(pairs))
    try:
        start, end = datetime.fromisoformat(one["Datetime"]), datetime.fromisoformat(one["End"])
        answered = datetime.fromisoformat(one["Answered"]) if one.get("Answered", "no") != "no" else None
        identity, call_id = one["RecordingId"], one["CallId"]
    except (KeyError, ValueError):
        return None
    if start.tzinfo is None or end.tzinfo is None or (answered is not None and answered.tzinfo is None):
        return None
    every: dict[str, list[str]] = {}
    for key, value in pairs:
        every.setdefault(key, []).append(value)
    return Told(
        id=identity,
        call_id=call_id,
        start=start,
        end=end,
        answered=answered,
        caller=one.get("Caller", ""),
        caller_name=one.get("CallerName", ""),
        callee=one.get("Callee", ""),
        callee_name=one.get("CalleeName", ""),
        reason=one.get("EndReason", ""),
        related=_related(every),
        names=_named(every),
        continues=one.get("ContinuationOf", ""),
        moments=list(_moments(every)),
        referred_by=one.get("ReferredBy", ""),
        files=list(files),
    )


def _related(every: Mapping[str, list[str]]) -> dict[str, tuple[str, str]]:
    """What other calls are to this one; info files of earlier versions only name them."""
    found = {
        name: (How.SAME_CALL.value, "") for text in every.get("RelatedCalls", []) for name in _RELATED.findall(text)
    }
    for line in every.get("Relation", []):
        match = _RELATION.fullmatch(line)
        if match:
            found[match[1]] = match[2], match[3] or ""
    return found


def _named(every: Mapping[str, list[str]]) -> dict[str, str]:
    """Call-IDs of other calls, and what these are to this one."""
    names = {value.removesuffix(" (early only)"): How.REPLACED.value for value in every.get("Replaces", [])}
    names |= dict.fromkeys(every.get("Joins", []), How.JOINED.value)
    for line in every.get("Transfer", []):
        match = _REPLACES.search(line)
        if match:
            names.setdefault(match[1], How.CONSULTED.value)
    return names


def _moments(every: Mapping[str, list[str]]) -> Iterator[Moment]:
    for kind in ("Hold", "Transfer", "Forwarded"):
        for line in every.get(kind, []):
            match = _WHEN.search(line)
            try:
                time = datetime.fromisoformat(match[1]) if match else None
            except ValueError:
                time = None
            if time is not None and time.tzinfo is not None:
                yield Moment(time, kind, line)


def archived(folders: Iterable[Path]) -> Iterator[Told | None]:
    """Yield what the info files below folders tell; None for each that cannot be read."""
    for folder in folders:
        for path in sorted(folder.rglob(f"*{INFO}")):
            stem = path.name.removesuffix(INFO)
            try:
                if path.stat().st_size > info.MAX_SIZE:
                    yield None
                    continue
                pairs = info.parse(path.read_bytes())
            except (OSError, info.InfoError):
                yield None
                continue
            files = (path.with_name(f"{stem}{ending}") for ending in ENDINGS)
            yield told(pairs, [one for one in files if one.is_file()])


def story_of(which: str, calls: Iterable[Told]) -> Story | None:
    """Return the story that a call (its Call-ID, or its recording's id) is part of, None if there is no such call."""
    known: dict[str, Told] = {}
    for call in calls:
        before = known.get(call.id)
        if before is None or (call.files and not before.files):
            known[call.id] = call
    _both_ways(known)
    begun = [call.id for call in known.values() if which in (call.id, call.call_id)]
    if not begun:
        return None
    found = _reached(begun, known)
    named = {name for call in found for name in (*call.related, call.continues) if name}
    return Story(sorted(found, key=lambda call: (call.start, call.id)), sorted(named - set(known)))


def _both_ways(known: dict[str, Told]) -> None:
    """What one call says of another, that one says of it too; what is named by Call-ID gets its id."""
    by_name: dict[str, list[Told]] = {}
    for call in known.values():
        by_name.setdefault(call.call_id, []).append(call)
    for call in known.values():
        for name, how in call.names.items():
            for other in by_name.get(name, []):
                if other is not call and _near(call, other):
                    call.related.setdefault(other.id, (how, ""))
        for other in by_name[call.call_id]:
            if other is not call and _near(call, other):
                call.related.setdefault(other.id, (How.SAME_CALL.value, ""))
    for call in list(known.values()):
        for name, (how, by) in list(call.related.items()):
            if name in known:
                known[name].related.setdefault(call.id, (_OTHER_WAY.get(how, how), by))
        if call.continues in known:
            known[call.continues].related.setdefault(call.id, ("continuation", ""))
            call.related.setdefault(call.continues, ("continued", ""))


def _near(one: Told, other: Told) -> bool:
    """Whether two calls that name each other by Call-ID may: within a day, for phones use Call-IDs again."""
    return abs((one.start - other.start).total_seconds()) < 86_400


def _reached(begun: list[str], known: Mapping[str, Told]) -> list[Told]:
    found: dict[str, Told] = {}
    waiting = list(begun)
    while waiting and len(found) < MAX_CALLS:
        call = known.get(waiting.pop(0))
        if call is not None and call.id not in found:
            found[call.id] = call
            waiting += call.related
    return list(found.values())
