"""What a recording will be, decided from a call's packet rows alone, before any payload is touched. Pure.

A channel is a party's sound tracks laid one behind the other on the call's time axis. The axis begins with the first
sound or other media packet of either party.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..rtp.g711 import Law
from ..rtp.quality import jitter_ms
from ..rtp.timeline import overlay, place, sort_packets
from ..sip.dialog import Party
from ..sip.sdp import STATIC_FORMATS, Format
from ..sniffer.account import Account
from ..sniffer.rows import Rows
from ..sniffer.selection import EndedCall, Track, Use

Ints = npt.NDArray[np.int64]
RATE = 8000
MIRROR_NS = 50_000_000
"""Copies that a mirror makes of a packet lie closer together than this, in ns."""
LONGEST_S = 48 * 3600
"""No call's sound is longer, in seconds: then the capture's clock was set in the middle of it."""
FEW = 4
"""So few packets of an unknown payload type are keep-alives, not a codec."""


class Kind:
    """What a payload type's packets are; the values up to 2 are those of `Law`."""

    A, MU = int(Law.A), int(Law.MU)
    COMFORT, EVENT, FOREIGN, UNKNOWN, SEALED = 3, 4, 5, 6, 7


_FATES = {
    int(Law.NONE): ("kept", "no sound"),
    Kind.A: ("kept", "sound"),
    Kind.MU: ("kept", "sound"),
    Kind.COMFORT: ("kept", "comfort noise"),
    Kind.EVENT: ("kept", "telephone-event"),
    Kind.FOREIGN: ("kept", "codec not decoded yet"),
    Kind.UNKNOWN: ("kept", "unknown payload type"),
    Kind.SEALED: ("refused", "encrypted, no key"),
}
_STEADY = np.isin(np.arange(Kind.SEALED + 1), (Kind.A, Kind.MU, Kind.FOREIGN))  # kinds sent at a steady pace


@dataclass(slots=True)
class Channel:
    """One party's sound: first `sample`, payload `position`, `size` in bytes (= samples) and `law` of each packet
    placed."""

    sample: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    position: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    size: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    law: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, dtype=np.uint8))

    @property
    def end(self) -> int:
        """Samples up to the end of the last packet."""
        return int((self.sample + self.size).max()) if len(self.sample) else 0


@dataclass(slots=True)
class Figures:
    """A side's packets: counts, loss and jitter over all its sound tracks."""

    received: int = 0
    expected: int = 0
    lost: int = 0
    duplicate: int = 0
    mirrored: int = 0
    reordered: int = 0
    jitter_ms: float = 0.0
    drift_ms: float = 0.0
    anchors: int = 0

    @property
    def loss_percent(self) -> float:
        """Share of the expected packets that never came."""
        return 100.0 * self.lost / self.expected if self.expected else 0.0


@dataclass(slots=True)
class Side:
    """All about one party's media."""

    channel: Channel = field(default_factory=Channel)
    figures: Figures = field(default_factory=Figures)
    codecs: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    unknown: Counter[int] = field(default_factory=Counter)
    events: list[tuple[Rows, int]] = field(default_factory=list)
    hidden: int = 0
    sealed: int = 0


@dataclass(slots=True)
class Plan:
    """What is to be written for a call.

    `reference` is the time of sample 0 in ns; `frames` the samples of each channel.
    """

    ended: EndedCall
    sides: dict[Party, Side]
    outcome: str
    reference: int
    frames: int
    last: int
    other_forks: int = 0
    laws: frozenset[int] = frozenset()
    impossible_s: int = 0

    @property
    def has_sound(self) -> bool:
        """Whether there is anything to put into a WAV."""
        return self.frames > 0

    @property
    def keeps_packets(self) -> bool:
        """Whether the payloads must be kept beside the WAV, because it does not hold them as they were."""
        foreign = any(side.foreign for side in self.sides.values())
        hidden = any(side.hidden for side in self.sides.values())
        return self.outcome == "recorded" and (
            len(self.laws) > 1 or foreign or hidden or self.other_forks > 0 or self.impossible_s > 0
        )


def plan(ended: EndedCall, account: Account) -> Plan:
    """Decide what becomes of a call, and count its packets."""
    account.calls["seen"] += 1
    for track in ended.tracks:
        if track.use in (Use.RELAYED, Use.OTHER_MEDIA, Use.OTHER_FORK):
            _count_aside(track, account)
    sound = {party: ended.sound(party) for party in Party}
    everything = [track for tracks in sound.values() for track in tracks]
    forks = sum(len(track.rows) for track in ended.tracks if track.use is Use.OTHER_FORK)
    if not everything:
        account.calls["without_media"] += 1
        return Plan(ended, {party: Side() for party in Party}, "without_media", ended.call.started, 0, 0, forks)
    reference = min(int(track.rows["time"].min()) for track in everything)
    last = max(int(track.rows["time"].max()) for track in everything)
    if ended.tracked.encrypted:
        for track in everything:
            account.packet("refused", "encrypted, no key", _frames(track, track.fresh))
        account.calls["encrypted"] += 1
        return Plan(ended, {party: Side() for party in Party}, "encrypted", reference, 0, last, forks)
    sides = {party: _side(tracks, reference, account) for party, tracks in sound.items()}
    earliest = min((int(side.channel.sample[0]) for side in sides.values() if len(side.channel.sample)), default=0)
    if earliest < 0:  # a burst at the start put a stream's beginning before its first arrival
        for side in sides.values():
            side.channel.sample -= earliest
        reference += earliest * (1_000_000_000 // RATE)
    frames = max(side.channel.end for side in sides.values())
    span = frames // RATE if frames > LONGEST_S * RATE else 0
    if span:
        frames = 0
    laws = frozenset(law for law in (Law.A, Law.MU) for side in sides.values() if (side.channel.law == law).any())
    return Plan(ended, sides, "recorded", reference, frames, last, forks, laws, span)


def _frames(track: Track, mask: npt.NDArray[np.bool_]) -> int:
    return int(track.rows["frames"][mask].sum(dtype=np.int64))


def _count_aside(track: Track, account: Account) -> None:
    fate, kind = {
        Use.RELAYED: ("relayed", "RTP"),
        Use.OTHER_MEDIA: ("not_a_call", "media of a call other than sound"),
        Use.OTHER_FORK: ("kept", "other fork"),
    }[track.use]
    account.packet(fate, kind, _frames(track, track.fresh))


def _side(tracks: list[Track], reference: int, account: Account) -> Side:
    side = Side()
    parts = [_lay_track(track, side, reference, account) for track in tracks]
    ranks = [_rank(track) for track in tracks]
    moves, heard = overlay([part.sample for part in parts], [part.size for part in parts], ranks, RATE)
    for part, move, mask in zip(parts, moves, heard, strict=True):
        side.hidden += int(np.count_nonzero(~mask))
        part.sample = part.sample[mask] + move
        part.position, part.size, part.law = part.position[mask], part.size[mask], part.law[mask]
    side.channel = _joined(parts)
    return side


def _rank(track: Track) -> int:
    """How sure it is that a track is the party's sound: both ends known, and more than a stray packet."""
    return 2 * (len(track.rows) > FEW) + track.claim.match.consistent


def _joined(parts: list[Channel]) -> Channel:
    if len(parts) == 1:
        return parts[0]
    names = ("sample", "position", "size", "law")
    if not parts:
        return Channel()
    channel = Channel(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    order = np.argsort(channel.sample, kind="stable")
    return Channel(*(getattr(channel, name)[order] for name in names))


def _lay_track(track: Track, side: Side, reference: int, account: Account) -> Channel:
    """Place one stream, and add its figures to its side's."""
    rows = track.rows
    kinds = _kinds(track, side)
    packets = sort_packets(rows["sequence"], rows["stamp"])
    _count_kept(track, kinds, packets.order, side, account)
    samples = np.where(kinds <= Kind.MU, rows["size"], 0).astype(np.int64)
    line = place(rows["time"], rows["stamp"], samples, packets, reference=reference, rate=RATE)
    figures = side.figures
    figures.received += packets.received
    figures.expected += packets.expected
    figures.lost += packets.lost
    figures.reordered += packets.reordered
    figures.anchors += line.anchors
    figures.drift_ms -= line.drift * 1000.0 / RATE  # later and later arrivals: a slow clock
    steady = packets.order[_STEADY[kinds[packets.order]]]
    if packets.reordered:
        steady = np.sort(steady)
    jitter = jitter_ms(rows["time"][steady], rows["stamp"][steady], _clock(track))
    figures.jitter_ms = max(figures.jitter_ms, jitter)
    if (kinds == Kind.EVENT).any():
        first = np.sort(packets.order[kinds[packets.order] == Kind.EVENT])
        side.events.append((rows[first], track.ssrc))
    return Channel(line.start, rows["position"][line.row], samples[line.row], kinds[line.row])


def _clock(track: Track) -> int:
    """The RTP clock of the track's first packet, in Hz."""
    kind = int(track.rows["kind"][0]) & 0x7F
    for _, formats in reversed(track.formats):
        if kind in formats and formats[kind].rate:
            return formats[kind].rate
    return STATIC_FORMATS[kind].rate if kind in STATIC_FORMATS else RATE


def _kinds(track: Track, side: Side) -> npt.NDArray[np.uint8]:
    """Return what each packet is (`Kind`), by its payload type and what that meant at its time."""
    types = track.rows["kind"] & 0x7F
    kinds = np.empty(len(types), dtype=np.uint8)
    changes = [time for time, _ in track.formats]
    maps: list[Mapping[int, Format]] = [formats for _, formats in track.formats] or [{}]
    epochs = [slice(None)] if len(maps) == 1 else []
    if not epochs:
        edges = np.searchsorted(track.rows["time"], changes[1:]).tolist()
        epochs = [slice(a, b) for a, b in zip([0, *edges], [*edges, len(types)], strict=True)]
    for rows, formats in zip(epochs, maps, strict=True):
        here = types[rows]
        table = np.zeros(128, dtype=np.uint8)
        counts = np.bincount(here, minlength=128)
        for number in np.nonzero(counts)[0].tolist():
            table[number] = _kind(number, formats, side, int(counts[number]))
        kinds[rows] = table[here]
    if track.clear_until is not None:
        kinds[track.rows["time"] > track.clear_until] = Kind.SEALED
    return kinds


def _kind(number: int, formats: Mapping[int, Format], side: Side, count: int) -> int:
    named = formats.get(number) or STATIC_FORMATS.get(number)
    name = named.name if named is not None else ""
    if named is None or not name:
        if number == 19:  # reserved by RFC 3551 because drafts used it for comfort noise
            return Kind.COMFORT
        side.unknown[number] += count
        if count > FEW:
            _add(side.foreign, f"payload type {number}")
            _add(side.codecs, f"payload type {number}")
        return Kind.UNKNOWN
    if name == "CN":
        return Kind.COMFORT
    if name == "TELEPHONE-EVENT":
        return Kind.EVENT
    shown = _codec_name(named)
    _add(side.codecs, shown)
    if named.rate == RATE and named.channels == 1 and name in ("PCMA", "PCMU"):
        return Kind.A if name == "PCMA" else Kind.MU
    _add(side.foreign, shown)
    return Kind.FOREIGN


def _codec_name(named: Format) -> str:
    usual = STATIC_RATES.get(named.name)
    return named.name if usual == named.rate else f"{named.name}/{named.rate}"


STATIC_RATES = {named.name: named.rate for named in STATIC_FORMATS.values()} | {
    "OPUS": 48000,
    "SPEEX": 8000,
    "ILBC": 8000,
    "AMR": 8000,
    "AMR-WB": 16000,
    "CLEARMODE": 8000,
    "BV32": 16000,
    "G722": 8000,
    "DVI4": 8000,
}


def _add(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)


def _count_kept(track: Track, kinds: npt.NDArray[np.uint8], order: Ints, side: Side, account: Account) -> None:
    """Count each captured frame of a track once: kept by kind, duplicate, or encrypted."""
    first = np.zeros(len(kinds), dtype=bool)
    first[order] = True
    side.sealed += int(np.count_nonzero(kinds[order] == Kind.SEALED))
    counted = np.nonzero(first & track.fresh)[0]
    frames = np.bincount(kinds[counted], weights=track.rows["frames"][counted], minlength=Kind.SEALED + 1)
    for kind, count in enumerate(frames.astype(np.int64).tolist()):
        account.packet(*_FATES[kind], count)
    if len(order) == len(kinds):
        return
    copies = _mirror_copies(track.rows, first)
    repeated = ~first & ~copies
    account.packet("duplicate", "mirrored copies", _frames(track, track.fresh & copies))
    account.packet("duplicate", "repeated by the sender or the network", _frames(track, track.fresh & repeated))
    side.figures.duplicate += int(np.count_nonzero(repeated))
    side.figures.mirrored += int(np.count_nonzero(copies))
    side.figures.received -= int(np.count_nonzero(copies))


def _mirror_copies(rows: Rows, first: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Tell a mirror that shows packets twice from a network that doubles some: a mirror does it to most of them."""
    copies = np.zeros(len(rows), dtype=bool)
    originals = np.nonzero(first)[0]
    number = rows["sequence"].astype(np.int64) << 32 | rows["stamp"]
    by_number = originals[np.argsort(number[originals], kind="stable")]
    others = np.nonzero(~first)[0]
    found = by_number[np.minimum(np.searchsorted(number[by_number], number[others]), len(by_number) - 1)]
    near = (number[found] == number[others]) & (np.abs(rows["time"][others] - rows["time"][found]) <= MIRROR_NS)
    if np.count_nonzero(near) * 2 >= len(originals):
        copies[others[near]] = True
    return copies


def gaps(channel: Channel, frames: int) -> Iterable[tuple[int, int]]:
    """Yield the silent spans of a channel between its first and last packet, as (first sample, samples)."""
    if len(channel.sample) < 2:
        return
    ends = np.maximum.accumulate(channel.sample + channel.size)
    wide = channel.sample[1:] - ends[:-1]
    for index in np.nonzero(wide > 0)[0].tolist():
        yield int(ends[index]), int(wide[index])
