"""The shape of a call in words, for its info file: which phones rang, forwards, transfers, and what other calls are to
it. Pure.
"""

from collections.abc import Iterator, Mapping

from ..sniffer.selection import EndedCall, Track, Use
from .localtime import Zone
from .plan import Plan

Pairs = list[tuple[str, str]]
SECOND = 1_000_000_000
_SOUND = {Use.SOUND: "in the WAV", Use.OTHER_FORK: "not in the WAV"}


def outline(ended: EndedCall, identity: str, related: Mapping[str, str], zone: Zone) -> Pairs:
    """Return the lines of an info file that tell how a call went, without a look at its sound."""
    call = ended.call
    plan = Plan(ended, {}, "", call.started, 0, call.last_seen)
    return [
        ("Datetime", zone.iso(call.started)),
        ("End", zone.iso(call.ended if call.ended is not None else call.last_seen)),
        ("RecordingId", identity),
        ("CallId", call.call_id),
        ("Caller", call.caller.number),
        ("CallerName", call.caller.name),
        ("Callee", call.callee.number),
        ("CalleeName", call.callee.name),
        ("ReferredBy", call.referred_by),
        ("Answered", zone.iso(call.answered) if call.answered is not None else "no"),
        ("EndReason", call.end_reason),
        *(("Hold", line) for line in holds(plan, zone)),
        *(("Forwarded", line) for line in forwards(plan, zone)),
        *(("Transfer", line) for line in transfers(plan, zone)),
        *took_over(plan),
        *relations(related),
    ]


def relations(related: Mapping[str, str]) -> Pairs:
    """Return what other calls are to this one, as `id (Call-ID)` tells it."""
    lines = [("Relation", f"{one.partition(' ')[0]} {how}") for one, how in related.items()]
    return [("RelatedCalls", ", ".join(related)), *lines]


def offset(time: int, plan: Plan) -> str:
    """Return where in the WAV a time (ns) is: `+3.120s`."""
    return f"{(time - plan.reference) / SECOND:+.3f}s"


def forks(plan: Plan, zone: Zone) -> Iterator[str]:
    """Yield the phones that rang, if several did, and what became of what each of them sent."""
    call = plan.ended.call
    if len(call.forks) < 2:
        return
    for fork in call.forks.values():
        address, port = fork.source
        came = f"status={fork.status} from {address}:{port} at {zone.iso(fork.first_seen)}"
        answered = "answered too late" if 200 <= fork.status < 300 else "did not answer"
        if fork.tag == call.answered_tag:
            answered = "answered"
        tracks = [track for track in plan.ended.tracks if fork.tag in track.forks]
        yield f"{answered} {came} ({offset(fork.first_seen, plan)}) {_media(tracks)} tag={fork.tag}"


def _media(tracks: list[Track]) -> str:
    """How many packets of a fork came, by what became of them."""
    counts: dict[str, int] = {}
    for track in tracks:
        where = _SOUND.get(track.use, "copies")
        counts[where] = counts.get(where, 0) + len(track.rows)
    return "packets=" + (", ".join(f"{count} {where}" for where, count in counts.items() if count) or "0")


def forwards(plan: Plan, zone: Zone) -> Iterator[str]:
    """Yield the redirections: who sent the call on, and to whom."""
    for one in plan.ended.call.forwards:
        when = f"at {zone.iso(one.time)} ({offset(one.time, plan)})"
        yield f"{one.status} by {one.by} to {', '.join(one.targets)} {when}"


def transfers(plan: Plan, zone: Zone) -> Iterator[str]:
    """Yield the transfers that a party asked for, and what came of them."""
    for one in plan.ended.call.transfers:
        kind = "attended" if one.replaces else "blind"
        when = f"at {zone.iso(one.time)} ({offset(one.time, plan)})"
        result = f"answer={one.answer or 'none'} outcome={one.outcome or 'none'}"
        replaces = f" replaces={one.replaces}" if one.replaces else ""
        yield f"{kind} by {one.by.value} to {one.target} {when} {result}{replaces}"


def holds(plan: Plan, zone: Zone) -> Iterator[str]:
    """Yield who put the other on hold, and took it off."""
    for time, party, held in plan.ended.tracked.holds:
        what = "held" if held else "resumed"
        yield f"{what} by {party.value} at {zone.iso(time)} ({offset(time, plan)})"


def took_over(plan: Plan) -> Pairs:
    """Return whose place the call took, and which call it joined."""
    call = plan.ended.call
    lines: Pairs = []
    if call.replaces:
        lines.append(("Replaces", call.replaces + (" (early only)" if call.early_only else "")))
    if call.joins:
        lines.append(("Joins", call.joins))
    return lines
