"""The lines of a recording's info file, from the plan. docs/info-file.md documents the keys. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..rtp.codecs import by_the_book
from ..rtp.decoder import library
from ..sip.dialog import Party
from ..sniffer.addresses import AddressBook
from ..sniffer.selection import FAX, Track, Use
from . import shapes
from .hearing import described, faults
from .localtime import Zone
from .plan import Plan, gaps
from .presses import Press
from .quality import flags, quality_lines
from .side import Side

Pairs = list[tuple[str, str]]
MAX_LIST = 200
"""Entries of a list (gaps, digits, holds) that are written out; beyond it only their number is."""
SECOND = 1_000_000_000
CLOCK_STEP = 100_000_000
"""From such a change on, in ns, the clock was set; smaller ones are drift."""


@dataclass(frozen=True, slots=True)
class Recorder:
    """Which recorder made a recording: `instance` name, version, host and the interface or file it read."""

    instance: str
    version: str
    host: str
    source: str

    def on(self, source: str) -> "Recorder":
        """Return the recorder with another source, if one is given."""
        return replace(self, source=source) if source else self

    def __str__(self) -> str:
        return f"instance={self.instance} version={self.version} host={self.host} source={self.source}"


def codec_text(plan: Plan) -> str:
    """Return the codecs of the call: one if both sides agree, else each side's."""
    caller, callee = (plan.sides[party].codecs for party in Party)
    if not caller or not callee or caller == callee:
        return ", ".join(caller or callee)
    return f"caller {', '.join(caller)}; callee {', '.join(callee)}"


def pairs(
    plan: Plan,
    *,
    identity: str,
    direction: str,
    zone: Zone,
    recorder: Recorder,
    presses: list[Press],
    related: Mapping[str, str],
    kept: str = "",
    notes: Iterable[str],
    book: AddressBook,
    seal: Iterable[tuple[str, str]] = (),
) -> Pairs:
    """Return the info file's lines in their documented order; `seal` are those of a recording that is sealed,
    `kept` names its file of kept packets, `related` says what the calls that belong to it are to it."""
    call = plan.ended.call
    end = call.ended if call.ended is not None else plan.last
    lines: Pairs = [
        ("Datetime", zone.iso(plan.ended.started)),
        ("DatetimeUtc", zone.utc().iso(plan.ended.started)),
        ("End", zone.iso(end)),
        ("Duration", f"{plan.frames / plan.rate:.3f}"),
        ("AudioStart", zone.iso(plan.reference)),
        ("RecordingId", identity),
        ("CallId", call.call_id),
        ("Direction", direction),
        ("Caller", call.caller.number),
        ("CallerName", call.caller.name),
        ("Callee", call.callee.number),
        ("CalleeName", call.callee.name),
        ("Dialled", call.dialled),
    ]
    lines += [("Asserted", f"{one.name} {one.number}".strip()) for one in call.asserted]
    lines += [("Diversion", number) for number in call.diversion]
    if call.referred_by:
        lines.append(("ReferredBy", call.referred_by))
    lines += [
        ("Answered", zone.iso(call.answered) if call.answered is not None else "no"),
        ("EndReason", call.end_reason),
        ("Codec", codec_text(plan)),
    ]
    lines += _decoding(plan, kept)
    lines += _encryption(plan)
    lines.append(("Channels", "left=caller right=callee"))
    for party in Party:
        lines += _side_lines(plan, party, book)
    lines += [("SoundFault", f"{code}: {text}") for code, text in faults(plan)]
    lines += [("Digits", "".join(press.digit for press in presses if len(press.digit) == 1))]
    lines += _listed("Digit", [_press_text(press, plan, zone) for press in presses])
    lines += _masking(plan, kept)
    lines += _listed("Hold", list(shapes.holds(plan, zone)))
    lines += _listed("OtherMedia", list(_other_media(plan, zone)))
    lines += _listed("Fork", list(shapes.forks(plan, zone)))
    lines += _listed("Forwarded", list(shapes.forwards(plan, zone)))
    lines += _listed("Transfer", list(shapes.transfers(plan, zone)))
    lines += shapes.took_over(plan)
    lines += shapes.relations(related)
    lines += [("RecordingSession", person) for person in call.siprec]
    lines += _circumstances(plan, zone)
    lines += seal
    lines += [("Note", note) for note in notes]
    lines += [("Recorder", str(recorder.on(plan.ended.circumstances.source)))]
    return lines


def _encryption(plan: Plan) -> Pairs:
    """What the sound was encrypted with."""
    suites = dict.fromkeys(suite for srtp in plan.ended.srtp.values() for suite in srtp.suites)
    return [("Encrypted", "SRTP " + ", ".join(suites))] if suites else []


def _decoding(plan: Plan, kept: str) -> Pairs:
    """How sound came about that is not stored as it crossed the wire."""
    if not plan.decoded:
        return []
    own = {one.name for party in Party for one in plan.heard(party) if by_the_book(one) == one}
    whose = library() + "".join(f", {name} by the Recommendation itself" for name in sorted(own))
    how = f"to 16-bit PCM at {plan.rate} Hz by {whose}; the packets as they crossed the wire are in {kept}"
    lines: Pairs = [("Decoded", how)]
    for party in Party:
        rates = sorted({one.rate for one in plan.heard(party)} - {plan.rate})
        if rates:
            shown = ", ".join(f"{rate} Hz" for rate in rates)
            lines.append(("Resampled", f"{party.value} from {shown} to {plan.rate} Hz"))
    for party in Party:
        if plan.sides[party].mixed:
            lines.append(("Mixed", f"{party.value}'s two channels into one"))
    return lines


def late_notes(plan: Plan) -> tuple[str, ...]:
    """Return what is known of a recording only when its sound has been rendered."""
    return tuple(
        f"{side.undecoded} packets of {party.value} could not be decoded; they are silence in the WAV"
        for party, side in plan.sides.items()
        if side.undecoded
    )


def _circumstances(plan: Plan, zone: Zone) -> Pairs:
    """How the call was captured, where that is not plain."""
    how = plan.ended.circumstances
    lines: Pairs = []
    if how.continues:
        lines.append(("ContinuationOf", how.continues))
    if how.truncated is not None:
        why = "the recorder broke off" if how.broke_off else "the recorder was stopped"
        lines.append(("Truncated", f"yes, at {zone.iso(how.truncated)}: {why}"))
    if how.kernel_drops:
        lines.append(("CaptureLoss", f"CAPTURE_LOSS: the kernel dropped {how.kernel_drops} packets during this call"))
    if how.lost:
        lines.append(("CaptureLoss", f"{how.lost} packets of this call were lost: the disk was full or too slow"))
    before = 0
    for since, ahead in how.clock:
        if since > plan.ended.started and abs(ahead - before) >= CLOCK_STEP:
            step = (ahead - before) / SECOND
            lines.append(("ClockStep", f"{step:+.3f}s at {zone.iso(since)} ({_offset(since, plan)})"))
        before = ahead
    return lines


def _side_lines(plan: Plan, party: Party, book: AddressBook) -> Pairs:
    side, name = plan.sides[party], party.value.capitalize()
    figures = side.figures
    call = plan.ended.call
    lines: Pairs = [
        (
            f"{name}-Packets",
            f"received={figures.received} expected={figures.expected} lost={figures.lost} "
            f"duplicate={figures.duplicate} reordered={figures.reordered} "
            f"loss={figures.loss_percent:.2f}% jitter={figures.jitter_ms:.2f}ms"
            + (f" recovered={figures.recovered}" if side.redundant else ""),
        )
    ]
    lines += quality_lines(plan, party)
    lines += [(f"{name}-Sound", text) for text in described(plan, party)]
    srtp = plan.ended.srtp.get(party)
    if srtp is not None:
        lines.append((f"{name}-Srtp", f"authenticated={srtp.authenticated} failed={srtp.failed}"))
    media = [_path(track, book) for track in plan.ended.tracks if track.sender is party and track.use is Use.SOUND]
    lines += [(f"{name}-Media", text) for text in dict.fromkeys(media)]
    lines.append((f"{name}-UserAgent", call.user_agents.get(party, "")))
    if len(side.channel.sample):
        lines.append((f"{name}-Drift", f"{figures.drift_ms:+.1f}ms anchors={figures.anchors}"))
    silent = [f"{start / plan.rate:.3f}+{length / plan.rate:.3f}" for start, length in gaps(side.channel)]
    return lines + _listed(f"{name}-Gap", silent)


def _path(track: Track, book: AddressBook) -> str:
    source, destination = (_endpoint(book.text(key), port) for key, port in (track.source, track.destination))
    return f"{source} > {destination} ssrc=0x{track.ssrc:08x}"


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _listed(key: str, entries: list[str]) -> Pairs:
    lines = [(key, entry) for entry in entries[:MAX_LIST]]
    if len(entries) > MAX_LIST:
        lines.append((key, f"and {len(entries) - MAX_LIST} more"))
    return lines


def _press_text(press: Press, plan: Plan, zone: Zone) -> str:
    when = f"{zone.iso(press.time)} ({_offset(press.time, plan)})"
    return f"{press.digit} by {press.party.value} at {when} by {press.means}" + (", masked" if press.masked else "")


def _masking(plan: Plan, kept: str) -> Pairs:
    """How many keys were masked, if they are."""
    if plan.masked is None:
        return []
    counts = plan.masked.counts()
    text = f"{counts.total()}"
    text += ": " + ", ".join(f"{count} by {means}" for means, count in counts.items()) if counts else ""
    gone = plan.masked.dropped
    where = f", nor in {kept}" if kept else ""
    return [("DigitsMasked", text + (f"; {gone} packets with tones are not in the WAV{where}" if gone else ""))]


def _offset(time: int, plan: Plan) -> str:
    return f"{(time - plan.reference) / SECOND:+.3f}s"


def _other_media(plan: Plan, zone: Zone) -> Iterator[str]:
    """Yield what was agreed on or offered beside sound; it is not recorded."""
    for time, party, what in plan.ended.tracked.others:
        yield f"{what} of {party.value} at {zone.iso(time)} ({_offset(time, plan)})"


def side_notes(plan: Plan, kept: str) -> Iterator[str]:
    """Yield what a reader must know of a recording, in words.

    `kept` names the file of kept packets, if there is one.
    """
    for party, side in plan.sides.items():
        yield from _notes_of(party, side, kept)
    yield from flags(plan)
    yield from _srtp_notes(plan)
    if len(plan.laws) > 1 and not plan.decoded:
        yield f"both G.711 laws occur: the WAV is 16-bit PCM, the payload as it crossed the wire is in {kept}"
    if plan.impossible_s:
        hours = plan.impossible_s // 3600
        yield f"the packets span {hours} hours: the capture's clock was set meanwhile; they are kept in {kept}, no WAV"
    came = sum(side.figures.received for side in plan.sides.values())
    if came and not (plan.has_sound or plan.impossible_s or plan.others or any(s.foreign for s in plan.sides.values())):
        yield f"no WAV: {came} packets came, none with sound: they are comfort noise, or keys"
    if plan.other_forks:
        yield f"{plan.other_forks} packets of forks that did not answer are in {kept}, not in the WAV"
    if plan.ended.circumstances.harm:
        yield f"what was kept of the call is not whole ({plan.ended.circumstances.harm}): its spool file is set aside"
    relayed = sum(len(track.rows) for track in plan.ended.tracks if track.use is Use.RELAYED)
    if relayed:
        yield f"{relayed} packets were relayed copies of these, and are not recorded twice"


def other_notes(plan: Plan, kept: str = "") -> Iterator[str]:
    """Yield how much media there was beside sound, and what became of it. `kept` names the file it is in, if it is."""
    for (party, kind), count in sorted(plan.others.items(), key=lambda item: item[0][1]):
        what = "a fax by T.38" if kind == FAX else "video" if kind == "video" else "other media"
        fate = f"kept in {kept}" if plan.keep else "not kept (storage.keep_packets)"
        yield f"{count} packets of {party.value} are {what}, {fate} and not decoded"


def _srtp_notes(plan: Plan) -> Iterator[str]:
    for party, srtp in plan.ended.srtp.items():
        if srtp.failed:
            yield f"{srtp.failed} SRTP packets of {party.value} failed authentication; they are silence in the WAV"
        if srtp.no_key:
            yield f"no key fits {srtp.no_key} SRTP packets of {party.value}; they are silence in the WAV"


def _notes_of(party: Party, side: Side, kept: str) -> Iterator[str]:
    for name in side.foreign:
        if name.partition("/")[0] == "T38":
            yield f"{party.value}'s packets of T.38 are a fax, not sound: they are kept in {kept}"
            continue
        yield f"Codec {name} not decoded yet: {party.value}'s packets are kept in {kept}"
    for text in side.lies:
        yield f"{party.value}'s {text}"
    if side.redundant:
        yield f"{side.redundant} packets of {party.value} bear copies of others; those as they were are in {kept}"
    for name, count in side.fec.items():
        yield f"{count} packets of {party.value} are forward error correction ({name}), kept in {kept} and not used"
    few = [number for number in side.unknown if f"payload type {number}" not in side.foreign]
    for number in few:
        count = side.unknown[number]
        yield f"{count} packets of payload type {number} from {party.value}, which no SDP explains, left out"
    if side.sealed:
        yield f"Encrypted: {side.sealed} packets of {party.value} are SRTP keyed by ZRTP; they are silence in the WAV"
    if side.hidden:
        yield f"{side.hidden} packets of {party.value} gave way to a stream that began later; they are kept in {kept}"
    if side.figures.mirrored:
        yield f"the mirror showed {side.figures.mirrored} packets of {party.value} twice"
