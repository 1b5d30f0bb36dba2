"""`tapdeck inspect`: explain a capture to the installer and the support engineer. Writes no files."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..rtp.quality import jitter_ms
from ..sip.dialog import Call, Party
from ..sip.sdp import STATIC_FORMATS, Format
from ..sniffer.engine import Engine
from ..sniffer.explain import Life, Overheard, Why, arrows_of, format_name, without_copies
from ..sniffer.selection import EndedCall, Track, Use
from ..sniffer.sources.payloads import Payloads, RowParking
from ..sniffer.watch import Figures, Seen, StreamWatch, WatchedColumns
from ..sniffer.watch import Use as Share
from ..storage.plan import plan
from ..storage.unlock import Unlocker
from .config import load, with_options
from .exit_codes import ExitCode
from .inspect_report import CallReport, Report, as_json, as_text
from .progress import ProgressBar
from .record import Captures, build_engine
from .settings import OFFLINE, Settings
from .tls_keys import TlsKeys

MAX_CALLS = 10_000
"""Calls told of; further ones are only counted."""
MAX_LIVES = 100_000
"""Calls whose time is remembered, to tell why a stream went to none."""
MAX_SHARING = 64
"""Calls of one Call-ID that are told apart."""


@click.command()
@click.argument("captures", nargs=-1, required=True, metavar="CAPTURE...")
@click.option("--json", "json", is_flag=True, help="One JSON object, with all that the text says and more.")
@click.option("--calls", "ladders", type=click.IntRange(0), default=20, show_default=True, help="Ladders drawn.")
@click.option("--messages", type=click.IntRange(1), default=100, show_default=True, help="Messages drawn of each call.")
@click.option("--call-id", "call_id", default="", metavar="TEXT", help="Only calls whose Call-ID holds TEXT.")
@click.option("--number", default="", metavar="TEXT", help="Only calls with TEXT in a caller's or callee's number.")
@click.option("--second-opinion", is_flag=True, help="Compare with Wireshark's dissectors (needs tshark and pyshark).")
@with_options(*OFFLINE)
def inspect(
    captures: tuple[str, ...],
    json: bool,
    ladders: int,
    messages: int,
    call_id: str,
    number: str,
    second_opinion: bool,
    config: Path | None,
    **options: Any,
) -> int:
    """Explain a capture: its calls, its streams, and which belong together.

    CAPTURE is a pcap or pcapng file, gzip or not, or - for standard input. Shows each call's SIP as a ladder, each
    media stream with its figures, the call it went to or why it went to none, and what became of every packet.
    Writes no files.
    """
    settings = load(config, options)
    if second_opinion:
        from .second_opinion import check_tools

        check_tools(captures)
    with tempfile.TemporaryDirectory(prefix="tapdeck-") as scratch:
        inspection = _Inspection(settings, captures, Path(scratch), (call_id, number), MAX_CALLS if json else ladders)
        report = inspection.run()
    if second_opinion:
        from .second_opinion import ask

        report.second_opinion = ask(captures, report)
    wall = inspection.captures.steps.wall
    click.echo(as_json(report, wall) if json else as_text(report, settings.zone().on(wall), ladders, messages))
    return _exit_code(report)


def _exit_code(report: Report) -> int:
    if report.damaged:
        return ExitCode.DAMAGED_CAPTURE
    return ExitCode.OK if report.calls else ExitCode.NO_CALL


class _Inspection:
    """One run of the command over the captures."""

    def __init__(
        self, settings: Settings, names: tuple[str, ...], scratch: Path, wanted: tuple[str, str], ladders: int
    ) -> None:
        """`wanted` is what a Call-ID and a number must hold; the messages of `ladders` calls are needed."""
        self.payloads = payloads = Payloads(scratch)
        self.captures = Captures(names, payloads)
        self.keys = TlsKeys(settings)
        self.keys.require()
        plain = build_engine(settings, payloads, RowParking(scratch), self.keys.secrets)
        self.engine: Engine = replace(plain, layers=WatchedColumns)
        self.streams = StreamWatch(self.engine.book)
        self.overheard = Overheard(self.streams)
        self.engine.listener = self.overheard
        self.why = Why(self.overheard, self._seen(), self.engine.settings.hold)
        self.wanted = wanted
        self.drawn = ladders
        self.reports: list[CallReport] = []
        self.calls: list[Call] = []
        self.all_calls = 0
        self.skipped: set[int] = set()

    def _seen(self) -> Seen:
        columns = self.engine.columns
        assert isinstance(columns, WatchedColumns)
        return columns.seen

    def run(self) -> Report:
        with ProgressBar(self.captures.total) as bar:
            for block in self.captures.blocks(self.engine):
                self.keys.poll()
                for ended in self.engine.feed(block):
                    self._take(ended)
                bar.update(self.captures.consumed, self.engine.account.seen, self.all_calls)
            for ended in self.engine.finish():
                self._take(ended)
        return self._report()

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _take(self, ended: EndedCall) -> None:
        call = ended.call
        self.all_calls += 1
        end = call.ended if call.ended is not None else call.last_seen
        if len(self.why.lives) < MAX_LIVES:
            self.why.lives.setdefault(call.call_id, []).append(Life(call.number, call.started, end))
        for track in ended.tracks:
            self._share(ended, track)
        Unlocker(self.payloads, self.engine.account).unlock(ended)
        outcome = plan(ended, self.engine.account).outcome
        self.payloads.give_back()
        wanted = self._is_wanted(call)
        if not wanted or (call.number > self.drawn and not any(self.wanted)):
            self.overheard.drop(call.call_id)
        if not wanted or len(self.reports) >= MAX_CALLS:
            self.skipped.add(call.number)
            return
        self.calls.append(call)
        self.reports.append(_call_report(ended, outcome))

    def _is_wanted(self, call: Call) -> bool:
        call_id, number = self.wanted
        numbers = [call.caller.number, call.callee.number, call.dialled, *(one.number for one in call.asserted)]
        return call_id in call.call_id and any(number in one for one in numbers)

    def _share(self, ended: EndedCall, track: Track) -> None:
        figures = self.streams.of(track.claim.stream)
        if figures is None:
            return
        formats: dict[int, Format] = {}
        for _, changed in track.formats if track.use is not Use.OTHER_MEDIA else ():
            formats.update(changed)
        if track.claim.match.media is not None and track.use is Use.OTHER_MEDIA:
            formats.update(track.claim.match.media.formats)
        figures.names |= {number: format_name(form.name) for number, form in formats.items() if form.name}
        figures.jitter_ms = _jitter(track, formats)
        use = track.use.value
        if track.use is Use.SOUND and (ended.tracked.encrypted or track.clear_until is not None):
            use = "encrypted"
        figures.uses.append(Share(ended.call.number, track.sender.value, use, len(track.rows)))

    # -- the report ----------------------------------------------------------------------------------------------------

    def _report(self) -> Report:
        engine, account, seen = self.engine, self.engine.account, self._seen()
        self._draw()
        account.dropped(self.captures.dropped)
        return Report(
            files=[(capture.name, capture.consumed) for capture in self.captures.opened],
            links=dict(seen.links),
            first=seen.first,
            last=seen.last,
            methods=dict(self.overheard.methods),
            not_parsed=_not_parsed(engine),
            packets=account.packet_totals(),
            packet_kinds=account.packet_kinds(),
            calls=sorted(self.reports, key=lambda one: one.number),
            calls_seen=self.all_calls,
            filtered=any(self.wanted),
            streams=self._streams(),
            streams_more=(self.streams.more["streams"], self.streams.more["packets"]),
            other_signalling=[(kind, *hosts) for hosts, kind in seen.others.items()],
            damaged=self.captures.damage,
            notes=self._notes(),
        )

    def _draw(self) -> None:
        """Give the calls their messages; of calls that share a Call-ID each gets those of its time."""
        sharing: dict[str, list[Call]] = {}
        for call in self.calls:
            sharing.setdefault(call.call_id, []).append(call)
        for report, call in zip(self.reports, self.calls, strict=True):
            others = [one for one in sharing[call.call_id][:MAX_SHARING] if one is not call]
            later = [one.started for one in others if one.caller_tag == call.caller_tag and one.started > call.started]
            thread = self.overheard.threads.get(call.call_id)
            report.arrows = without_copies(arrows_of(call, thread, min(later, default=None)))
            report.more = thread.more if thread is not None and not others else 0

    def _streams(self) -> list[tuple[Figures, str]]:
        found = []
        for figures in self.streams.all:
            if any(self.wanted):
                figures.uses = [use for use in figures.uses if use.call not in self.skipped]
                if not figures.uses:
                    continue
            found.append((figures, "" if figures.uses else self.why.words(figures)))
        return found

    def _notes(self) -> list[str]:
        notes = [f"{text}: {count}" for text, count in sorted(self.engine.account.notes.items())]
        dialogs = self.engine.correlator.dialogs
        notes += [f"session description not readable, {kind}: {count}" for kind, count in dialogs.sdp_errors.items()]
        if dialogs.refused_calls:
            notes.append(f"{dialogs.refused_calls} calls did not fit into the table (limits.max_calls)")
        if self.engine.cut:
            notes.append(f"{self.engine.cut} RTP packets were captured only in part (snap length)")
        if len(self.reports) == MAX_CALLS:
            notes.append(f"only the first {MAX_CALLS:,} calls are told of")
        if self.overheard.not_kept:
            notes.append(f"{self.overheard.not_kept:,} SIP messages beyond the bounds are not in the ladders")
        unseen = [call_id for call_id in self.overheard.threads if call_id not in self.why.lives]
        if unseen and not any(self.wanted):
            shown = ", ".join(unseen[:5]) + (" ..." if len(unseen) > 5 else "")
            notes.append(f"{len(unseen)} Call-IDs of calls whose beginning was not seen: {shown}")
        return notes


def _not_parsed(engine: Engine) -> dict[str, int]:
    account = engine.account
    found = {kind[5:]: count for (_, kind), count in account.packets.items() if kind.startswith("SIP: ")}
    for text, count in account.notes.items():
        if text.startswith("SIP over TCP: "):
            found[f"{text[14:]} (TCP)"] = count
    return found


def _call_report(ended: EndedCall, outcome: str) -> CallReport:
    call = ended.call
    return CallReport(
        number=call.number,
        call_id=call.call_id,
        caller=(call.caller.number, call.caller.name),
        callee=(call.callee.number, call.callee.name),
        dialled=call.dialled,
        started=call.started,
        answered=call.answered,
        ended=call.ended if call.ended is not None else call.last_seen,
        reason=call.end_reason,
        outcome=outcome,
        joined_late=call.joined_late,
        encrypted=ended.tracked.encrypted,
        forks=len(call.forks),
        related=[leg.number for leg in ended.tracked.related],
        endpoints={party: call.signalling[party] for party in Party if party in call.signalling},
    )


def _jitter(track: Track, formats: dict[int, Format]) -> float | None:
    """Jitter of the payload type that most of a track's packets have, in ms."""
    types = track.rows["kind"] & 0x7F
    main = int(np.bincount(types).argmax())
    known = formats.get(main)
    if known is None or not known.rate:
        known = STATIC_FORMATS.get(main)
    if known is None:
        return None
    rows = track.rows[types == main]
    return jitter_ms(rows["time"], rows["stamp"], known.rate)[0]
