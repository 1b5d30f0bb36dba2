"""From a spool file to a recording: the offline path, run on what capture kept of one call."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..sniffer.account import Account
from ..sniffer.addresses import address_key
from ..sniffer.clock import Steps
from ..sniffer.datagrams import NO_RTP, Datagrams, Fate, Mask, RtpColumns
from ..sniffer.direction import Own
from ..sniffer.engine import Engine
from ..sniffer.merge import in_order
from ..sniffer.selection import Circumstances, EndedCall, Track
from ..sniffer.sources.capture_file import CaptureError, open_capture
from ..sniffer.sources.payloads import Payloads
from ..sniffer.tracked import FOREVER
from .facts import Recorder
from .hearing import Hearing
from .names import Naming
from .recording import Archive, Recording
from .spool import leg_of
from .spool_file import SpoolError, SpoolFile, read_spool
from .unlock import keys_are_late

if TYPE_CHECKING:
    from .signing import Signing

SLACK = 5_000_000_000
"""How much more out of order a spool file may be than media that was claimed backwards, in ns."""
STOPPED, BROKEN_OFF = "recorder stopped", "recorder broke off"
MAX_NOTES = 4096

Flow = tuple[int, int, int, int, int]
Span = tuple[Flow, int, int]
"""A stream (address keys, ports, SSRC) from a time to another (steady ns)."""


class KeysLate(Exception):
    """The keys of a call are not known yet; nothing was recorded of it."""


@dataclass(slots=True)
class Sealer:
    """Makes recordings below `root` of spool files. `engine` gives a fresh engine for each; `scratch` is a folder for
    what does not fit into memory; `account` sums up all calls and their media; with `signing` recordings are sealed.
    """

    root: Path
    scratch: Path
    naming: Naming
    version: str
    own: Own
    engine: Callable[[Payloads], Engine]
    keep_packets: bool = False
    legs: str = "both"
    account: Account = field(default_factory=Account)
    signing: "Signing | None" = None
    hearing: Hearing = field(default_factory=Hearing)

    def seal(self, path: Path, patient: bool = False) -> list[Recording]:
        """Record the call of a spool file. Running it again gives the same files again; where a recording failed,
        nothing is counted.

        Raises SpoolError if the file is none, OSError if it cannot be read; if `patient`, KeysLate.
        """
        spool = read_spool(path)
        payloads = Payloads(self.scratch)
        try:
            engine = self.engine(payloads)
            recordings = self._record(spool, payloads, engine, patient)
        finally:
            payloads.close()
        if not any(recording.error for recording in recordings):
            self._add(engine.account)
        return recordings

    def _record(self, spool: SpoolFile, payloads: Payloads, engine: Engine, patient: bool) -> list[Recording]:
        archive = self._archive(spool, payloads, engine)
        recordings: list[Recording] = []
        for number, ended in enumerate(self._calls(spool, payloads, engine)):
            if patient and number == 0 and keys_are_late(ended):
                raise KeysLate
            self._tell(spool, ended, first=number == 0)
            recordings += archive.add(ended)
        return [*recordings, *archive.flush()]

    def _archive(self, spool: SpoolFile, payloads: Payloads, engine: Engine) -> Archive:
        head, steps = spool.head, _steps(spool)
        return Archive(
            root=self.root,
            naming=replace(self.naming, zone=self.naming.zone.on(steps.wall)),
            recorder=Recorder(head.instance, self.version, head.host, head.interfaces),
            payloads=payloads,
            book=engine.book,
            account=engine.account,
            own=self.own,
            packets=spool.path if self.keep_packets else None,
            legs=self.legs,
            keep=self.keep_packets,
            wall=steps.walls,
            signing=self.signing,
            hearing=self.hearing,
        )

    def _calls(self, spool: SpoolFile, payloads: Payloads, engine: Engine) -> Iterator[EndedCall]:
        """Run the engine over the file, up to where capture says that the call was over."""
        ignored = list(_spans(spool, "ignore"))
        try:
            capture = open_capture(str(spool.path), payloads)
            read = (_without(engine.columns.read(records), ignored) for records in capture.blocks())
            for block in in_order(read, engine.settings.hold + SLACK):
                yield from engine.feed(block)
        except CaptureError as error:
            raise SpoolError(str(error)) from None
        over = spool.over
        if over is not None:
            time = _number(over, "time", spool.last)
            nothing = np.zeros(len(Fate), dtype=np.int64)
            yield from engine.feed(Datagrams(NO_RTP, [], nothing, time, time, 0))
        yield from engine.finish(BROKEN_OFF if over is None else STOPPED)

    def _tell(self, spool: SpoolFile, ended: EndedCall, first: bool) -> None:
        """Tell a call what capture knew of it."""
        head, over = spool.head, spool.over or {}
        related = over.get("related", head.related)
        legs = [leg_of(entry) for entry in related] if isinstance(related, list) else []
        ended.tracked.related = dict(leg for leg in legs if leg is not None)
        for flow, since, until in _shared(spool):
            for track in ended.tracks:
                if _flow_of(track) == flow:
                    track.fresh &= (track.rows["time"] < since) | (track.rows["time"] >= until)
        if first:
            cut_off = ended.call.end_reason in (STOPPED, BROKEN_OFF)
            ended.circumstances = Circumstances(
                id=head.id,
                since=head.begun if head.continues else None,
                continues=head.continues,
                truncated=_truncated(spool) if cut_off else None,
                broke_off=spool.over is None,
                kernel_drops=_number(over, "kernel_drops", 0),
                lost=_number(over, "lost", 0),
                harm=spool.harm,
                source=head.interfaces,
                clock=tuple(zip(_steps(spool).since, _steps(spool).ahead, strict=True)),
            )

    def _add(self, account: Account) -> None:
        """Sum up what became of the calls and of their media; capture counts the rest."""
        for (fate, kind), count in account.packets.items():
            if fate not in ("signalling", "malformed"):
                self.account.packet(fate, kind, count)
        self.account.calls.update(account.calls)
        self.account.notes.update(account.notes)


def _truncated(spool: SpoolFile) -> int:
    """Return where the recording of a call that had not ended breaks off, in ns."""
    return spool.last if spool.over is None else _number(spool.over, "time", spool.last)


def _steps(spool: SpoolFile) -> Steps:
    steps = Steps()
    notes = [(note.get("since"), note.get("ahead")) for note in spool.of_kind("clock")]
    for entry in [*spool.head.clock, *notes]:
        match entry:
            case [int(since), int(ahead)] if abs(since) < FOREVER and abs(ahead) < FOREVER:
                steps.add(since, ahead)
    return steps


def _number(note: dict[str, Any], key: str, default: int) -> int:
    """Return a count or a time of a note, the default if there is none that makes sense."""
    value = note.get(key)
    return value if isinstance(value, int) and 0 <= value < FOREVER else default


def _spans(spool: SpoolFile, kind: str) -> Iterator[Span]:
    for note in spool.of_kind(kind)[:MAX_NOTES]:
        match note.get("flow"):
            case [str(source), int(sport), str(destination), int(dport), int(ssrc)]:
                keys = address_key(source), address_key(destination)
                sane = max(sport, dport) < 1 << 16 and ssrc < 1 << 32 and min(sport, dport, ssrc) >= 0
                if keys[0] is not None and keys[1] is not None and sane:
                    flow = keys[0], keys[1], sport, dport, ssrc
                    yield flow, _number(note, "since", 0), _number(note, "until", FOREVER)


def _shared(spool: SpoolFile) -> Iterator[Span]:
    """Yield the spans in which another call counts a stream's packets."""
    alone = [(flow, since) for flow, since, _ in _spans(spool, "alone")]
    for flow, since, until in _spans(spool, "shared"):
        yield flow, since, min([end for other, end in alone if other == flow and end >= since], default=until)


def _flow_of(track: Track) -> Flow:
    return track.source[0], track.destination[0], track.source[1], track.destination[1], track.ssrc


def _without(block: Datagrams, spans: list[Span]) -> Datagrams:
    """Return a block without what another call took from this one; its frames are counted there."""
    (rtp, taken), (other, others) = _left(block.rtp, spans), _left(block.other, spans)
    if not taken + others:
        return block
    block.frames -= taken + others
    block.fates[Fate.OTHER_UDP] -= others
    return replace(block, rtp=rtp, other=other)


def _left(rtp: RtpColumns, spans: list[Span]) -> tuple[RtpColumns, int]:
    """Return the rows of no such span, and how many captured frames the others are."""
    gone: Mask = np.zeros(len(rtp), dtype=bool)
    for (source, destination, sport, dport, ssrc), since, until in spans:
        same = (rtp.source == np.uint64(source)) & (rtp.destination == np.uint64(destination))
        same &= (rtp.ports == np.uint32(sport << 16 | dport)) & (rtp.ssrc == np.uint32(ssrc))
        gone |= same & (rtp.time >= since) & (rtp.time < until)
    return (rtp.take(~gone), int(rtp.frames[gone].sum(dtype=np.int64))) if gone.any() else (rtp, 0)
