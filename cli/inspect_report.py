"""What `inspect` found out, as text for people and as JSON. All text from the wire is made safe here."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..sip.dialog import Party
from ..sip.sdp import STATIC_FORMATS
from ..sniffer.explain import Arrow, endpoint_text
from ..sniffer.watch import Endpoint, Figures
from ..storage.localtime import Zone
from ..storage.quality import MOST_LOSS
from ..storage.safe_text import for_json, for_line, for_terminal
from .ladder import Ladder, draw, host_labels
from .report import gap

Stamp = Callable[[int | None], float | None]
MAX_STREAMS_SHOWN = 500
MAX_OF_A_REASON = 10
"""Streams without a call that are shown for one reason; the others are summed up."""
PLAIN_WIDTH = 100
"""Columns where there is no terminal to ask."""
LINKS = {
    0: "BSD loopback",
    1: "Ethernet",
    9: "PPP",
    12: "raw IP",
    50: "PPP",
    51: "PPPoE",
    101: "raw IP",
    108: "OpenBSD loopback",
    113: "Linux cooked",
    197: "ERF",
    228: "IPv4",
    229: "IPv6",
    276: "Linux cooked v2",
}


@dataclass(slots=True)
class CallReport:
    """One call; times in ns, `more` messages beyond those kept."""

    number: int
    call_id: str
    caller: tuple[str, str]
    callee: tuple[str, str]
    dialled: str
    started: int
    answered: int | None
    ended: int
    reason: str
    outcome: str
    joined_late: bool
    encrypted: bool
    forks: int
    related: list[int]
    endpoints: dict[Party, Endpoint]
    arrows: list[Arrow] = field(default_factory=list)
    more: int = 0

    def roles(self) -> dict[str, str]:
        """Return who is at each host of the ladder: caller, callee or a proxy."""
        roles: dict[str, str] = {}
        sends: set[str] = set()
        hears: set[str] = set()
        labels = host_labels(self.arrows)
        for arrow in self.arrows:
            sends.add(labels[arrow.source])
            hears.add(labels[arrow.destination])
        for host in sends & hears:
            roles[host] = "proxy"
        for party, endpoint in self.endpoints.items():
            if endpoint in labels:
                roles[labels[endpoint]] = party.value
        if len(labels) == 2:
            roles = {host: role for host, role in roles.items() if role != "proxy"}
        return roles


@dataclass(slots=True)
class Report:
    """All that `inspect` tells; times in ns. A stream stands with the reason why it went to no call, or ""."""

    files: list[tuple[str, int]]
    links: dict[int, int]
    first: int | None
    last: int | None
    methods: dict[str, int]
    not_parsed: dict[str, int]
    packets: dict[str, int]
    packet_kinds: dict[str, dict[str, int]]
    calls: list[CallReport]
    calls_seen: int
    filtered: bool
    streams: list[tuple[Figures, str]]
    streams_more: tuple[int, int]
    other_signalling: list[tuple[str, str, str]]
    damaged: list[str]
    notes: list[str]
    second_opinion: dict[str, Any] | None = None


# -- JSON --------------------------------------------------------------------------------------------------------------


def as_json(report: Report, wall: Callable[[int], int]) -> str:
    """Return the report as one JSON object on one line; times are seconds since 1970 UTC.

    `wall` turns the report's times into what the capture's clock showed, both in ns.
    """

    def stamp(time: int | None) -> float | None:
        return None if time is None else wall(time) / 1e9

    value = {
        "capture": {
            "files": [{"name": name, "bytes": size} for name, size in report.files],
            "link_types": {_link(number): count for number, count in report.links.items()},
            "first": stamp(report.first),
            "last": stamp(report.last),
        },
        "sip": {"messages": report.methods, "not_parsed": report.not_parsed},
        "other_signalling": [{"kind": kind, "hosts": hosts} for kind, *hosts in report.other_signalling],
        "calls_seen": report.calls_seen,
        "calls": [_call_json(call, stamp) for call in report.calls],
        "streams": [_stream_json(figures, why, stamp) for figures, why in report.streams],
        "streams_not_told_of": {"streams": report.streams_more[0], "packets": report.streams_more[1]},
        "packets": report.packets,
        "packet_kinds": report.packet_kinds,
        "damaged": report.damaged,
        "notes": report.notes,
    }
    if report.second_opinion is not None:
        value["second_opinion"] = report.second_opinion
    return json.dumps(for_json(value), ensure_ascii=False)


def _call_json(call: CallReport, stamp: Stamp) -> dict[str, Any]:
    labels = host_labels(call.arrows)
    return {
        "number": call.number,
        "call_id": call.call_id,
        "caller": {"number": call.caller[0], "name": call.caller[1]},
        "callee": {"number": call.callee[0], "name": call.callee[1]},
        "dialled": call.dialled,
        "start": stamp(call.started),
        "answered": stamp(call.answered),
        "end": stamp(call.ended),
        "end_reason": call.reason,
        "outcome": call.outcome,
        "beginning_seen": not call.joined_late,
        "encrypted": call.encrypted,
        "forks": call.forks,
        "related": call.related,
        "hosts": [{"host": host, "role": call.roles().get(host, "")} for host in dict.fromkeys(labels.values())],
        "messages": [
            {
                "time": stamp(arrow.time),
                "source": endpoint_text(arrow.source),
                "destination": endpoint_text(arrow.destination),
                "transport": arrow.transport,
                "message": arrow.label,
                "note": arrow.note,
            }
            for arrow in call.arrows
        ],
        "messages_not_kept": call.more,
    }


def _stream_json(figures: Figures, why: str, stamp: Stamp) -> dict[str, Any]:
    return {
        "source": endpoint_text(figures.source),
        "destination": endpoint_text(figures.destination),
        "ssrc": f"0x{figures.ssrc:08x}",
        "payload_types": [
            {"type": number, "name": _type_name(figures, number), "packets": count}
            for number, count in sorted(figures.types.items())
        ],
        "packets": figures.packets,
        "lost": figures.lost,
        "expected": figures.expected,
        "repeated": figures.repeated,
        "sequence_runs": figures.runs,
        "first": stamp(figures.first),
        "duration_s": round(figures.seconds, 6),
        "jitter_ms": None if figures.jitter_ms is None else round(figures.jitter_ms, 3),
        "calls": [
            {"call": use.call, "party": use.party, "use": use.use, "packets": use.packets} for use in figures.uses
        ],
        "why_no_call": why,
    }


# -- text --------------------------------------------------------------------------------------------------------------


def as_text(report: Report, zone: Zone, ladders: int, messages: int) -> str:
    """Return the report for people: at most `ladders` calls drawn, of each at most `messages` messages."""
    width = shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns
    lines = [*_capture(report, zone), *_calls(report, zone, ladders, messages, width), *_streams(report)]
    lines += [*_account(report), *_second(report)]
    lines += [f"damaged: {for_terminal(text, 500)}" for text in report.damaged]
    lines += [f"note: {for_terminal(text, 500)}" for text in report.notes]
    return "\n".join(lines)


def _capture(report: Report, zone: Zone) -> Iterator[str]:
    yield "Capture"
    for name, size in report.files[:20]:
        yield f"  {for_terminal(name)}  {size:,} bytes"
    if len(report.files) > 20:
        yield f"  and {len(report.files) - 20} more files"
    if report.first is not None and report.last is not None:
        span = (report.last - report.first) / 1e9
        yield f"  {_time(zone, report.first)} to {_time(zone, report.last)} ({span:,.1f} s)"
    frames = ", ".join(f"{_link(number)} {count:,}" for number, count in report.links.items())
    yield f"  {report.packets['seen']:,} packets: {frames or 'none'}"
    said = ", ".join(f"{method} {count:,}" for method, count in sorted(report.methods.items(), key=lambda one: -one[1]))
    yield f"  SIP messages: {for_terminal(said, 300) or 'none'}"
    if report.not_parsed:
        bad = ", ".join(f"{kind} {count:,}" for kind, count in sorted(report.not_parsed.items()))
        yield f"  SIP messages not parsed, by what is wrong with them: {for_terminal(bad, 300)}"
    kinds = Counter(kind for kind, *_ in report.other_signalling)
    for kind, count in kinds.items():
        hosts = next(one[1:] for one in report.other_signalling if one[0] == kind)
        more = f" and {count - 1} more pairs of hosts" if count > 1 else ""
        yield f"  {kind} between {hosts[0]} and {hosts[1]}{more}: cannot be read"


def _calls(report: Report, zone: Zone, ladders: int, messages: int, width: int) -> Iterator[str]:
    yield ""
    if not report.calls:
        yield "No call matches" if report.filtered and report.calls_seen else "No call"
        return
    matching = f" of {report.calls_seen:,}" if report.filtered else ""
    yield f"Calls: {len(report.calls):,}{matching}"
    for call in report.calls[:ladders]:
        yield ""
        yield from _head(call, zone)
        drawn = call.arrows[:messages]
        yield from draw(Ladder(drawn, call.started, call.roles(), call.more + len(call.arrows) - len(drawn)), width)
    if len(report.calls) > ladders:
        yield ""
        yield f"... and {len(report.calls) - ladders:,} more calls: --calls N draws more, --call-id and --number choose"


def _head(call: CallReport, zone: Zone) -> Iterator[str]:
    yield f"Call {call.number}  {_party(call.caller)} > {_party(call.callee)}  {_time(zone, call.started)}"
    yield f"  Call-ID {for_terminal(call.call_id)}"
    facts = []
    if call.joined_late:
        facts.append("its beginning was not seen")
    if call.answered is not None:
        facts.append(f"answered after {(call.answered - call.started) / 1e9:.3f} s")
    else:
        facts.append("not answered")
    facts.append(f"over after {(call.ended - call.started) / 1e9:.3f} s: {for_terminal(call.reason) or 'unknown'}")
    if call.forks > 1:
        facts.append(f"{call.forks} forks")
    if call.encrypted:
        facts.append("media encrypted")
    if call.related:
        facts.append("related to call " + ", ".join(map(str, call.related[:10])))
    yield "  " + ", ".join(facts)


def _party(party: tuple[str, str]) -> str:
    number, name = (for_terminal(text, 60) for text in party)
    return f'{number or "unknown"} "{name}"' if name and name != number else number or "unknown"


def _streams(report: Report) -> Iterator[str]:
    yield ""
    claimed = [figures for figures, _ in report.streams if figures.uses]
    loose = [(figures, why) for figures, why in report.streams if not figures.uses]
    yield f"Streams: {len(claimed):,} of calls" + (f", {len(loose):,} of none" if not report.filtered else "")
    claimed.sort(key=lambda one: (min(use.call for use in one.uses), one.first))
    for figures in claimed[:MAX_STREAMS_SHOWN]:
        yield from _stream(figures)
    if len(claimed) > MAX_STREAMS_SHOWN:
        yield f"  ... and {len(claimed) - MAX_STREAMS_SHOWN:,} more; --json tells of all"
    yield from _loose(loose)
    if report.streams_more[0]:
        streams, packets = report.streams_more
        yield f"  only the first streams are told of; {streams:,} more with {packets:,} packets are not"


def _loose(loose: Sequence[tuple[Figures, str]]) -> Iterator[str]:
    singles = [figures for figures, _ in loose if figures.packets == 1]
    shown: Counter[str] = Counter()
    rest: dict[str, list[Figures]] = {}
    for figures, why in sorted(loose, key=lambda one: -one[0].packets):
        if figures.packets == 1:
            continue
        kind = why.partition(":")[0]
        shown[kind] += 1
        if shown[kind] > MAX_OF_A_REASON:
            rest.setdefault(why, []).append(figures)
            continue
        yield from _stream(figures)
        yield f"      why: {for_terminal(why, 400)}"
    for why, others in list(rest.items())[:MAX_OF_A_REASON]:
        packets = sum(figures.packets for figures in others)
        yield f"  no call  {len(others):,} more streams, {packets:,} packets"
        yield f"      why: {for_terminal(why, 400)}"
    if singles:
        yield f"  no call  streams of a single packet: {len(singles):,}"


def _stream(figures: Figures) -> Iterator[str]:
    way = f"{endpoint_text(figures.source)} > {endpoint_text(figures.destination)}  SSRC 0x{figures.ssrc:08x}"
    uses = figures.uses[:8]
    for use in uses:
        part = f", {use.packets:,} packets" if len(figures.uses) > 1 or use.packets != figures.packets else ""
        yield f"  call {use.call}  {use.party}, {use.use}{part}"
    if not uses:
        yield f"  no call  {way}"
    else:
        yield f"      {way}"
    share = _share(100 * figures.lost / figures.expected) if figures.lost and figures.expected else ""
    facts = [f"{figures.packets:,} packets", f"{figures.lost:,} lost{share}", f"{figures.seconds:,.1f} s"]
    if figures.accidental:
        facts = [facts[0], facts[2]]
    elif figures.repeated:
        facts.append(f"{figures.repeated:,} repeated")
    if figures.runs > 1 and not figures.accidental:
        facts.append(f"sequence begun anew {figures.runs - 1:,} times")
    if figures.jitter_ms is not None and not figures.accidental:
        facts.append(f"jitter {figures.jitter_ms:.2f} ms")
    types = [f"{_type_name(figures, number)} {count:,}" for number, count in figures.types.most_common(6)]
    yield f"      {', '.join(facts)}; {for_terminal(', '.join(types), 200)}"


def _share(loss: float) -> str:
    """Return a loss in per cent, flagged if it is more than a call bears."""
    return f" ({loss:.1f}%, over {MOST_LOSS:.0f}%)" if loss > MOST_LOSS else f" ({loss:.1f}%)"


def _type_name(figures: Figures, number: int) -> str:
    """Return `PCMA`, `telephone-event (101)`, `type 96`."""
    name = figures.names.get(number) or (STATIC_FORMATS[number].name if number in STATIC_FORMATS else "")
    if not name:
        return f"type {number}"
    return for_line(name, 40) if number < 96 else f"{for_line(name, 40)} ({number})"


def _account(report: Report) -> Iterator[str]:
    yield ""
    yield "Packets"
    for fate, count in report.packets.items():
        if fate == "seen" or not count:
            continue
        kinds = ", ".join(f"{kind} {number:,}" for kind, number in report.packet_kinds.get(fate, {}).items())
        yield f"  {fate.replace('_', ' '):<17} {count:>11,}  {for_terminal(kinds, 300)}".rstrip()
    yield f"  {'seen':<17} {report.packets['seen']:>11,}"
    if gap(report.packets):
        yield f"  {'UNACCOUNTED':<17} {gap(report.packets):>11,}  a mistake in Tapdeck: please report it"


def _second(report: Report) -> Iterator[str]:
    if report.second_opinion is not None:
        from .second_opinion import as_lines

        yield ""
        yield from as_lines(report.second_opinion)


def _link(number: int) -> str:
    return LINKS.get(number, f"link type {number}")


def _time(zone: Zone, time: int) -> str:
    return f"{zone.local(time):%Y-%m-%d %H:%M:%S.%f}"[:-3]
