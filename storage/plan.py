"""What a recording will be, decided from a call's packet rows, before its sound is touched.

A channel is a party's sound tracks laid one behind the other on the call's time axis. The axis begins with the first
sound or other media packet of either party. Payloads are looked at only where a codec's packets tell their length
nowhere else (`Fetch`); but for that it is pure.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..rtp.codecs import Codec
from ..rtp.g711 import Law
from ..rtp.timeline import overlay
from ..sip.dialog import Party
from ..sniffer.account import Account
from ..sniffer.selection import EndedCall, Track, Use
from .kinds import FEW, Codecs, Kind
from .placing import frames_of, lay_track, scaled
from .side import RATE, Channel, Fetch, Side, joined
from .wav import MAX_RIFF_SIZE

if TYPE_CHECKING:
    from .hearing import Listener
    from .masking import Masked

LONGEST_S = 48 * 3600
"""No call's sound is longer, in seconds: then the capture's clock was set in the middle of it."""
LOWER_RATES = (24_000, 16_000, RATE)
"""What a decoded call is brought down to if it is too long for a WAV at its codec's rate, in Hz."""
_ROOM = MAX_RIFF_SIZE - (1 << 16)


@dataclass(slots=True)
class Plan:
    """What is to be written for a call.

    `reference` is the time of sample 0 in ns; `frames` the samples of each channel, `rate` of them a second; `codecs`
    those that have to be decoded; `decoded` tells whether any is heard, which a WAV cannot hold as it crossed the wire.
    `keep`: all packets are to be kept, those of `others` too: media beside sound, packets by sender and kind.
    `listener` has heard the sound, when it has been written; `masked` is what became of keys, if they are masked.
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
    rate: int = RATE
    codecs: Codecs = field(default_factory=Codecs)
    decoded: bool = False
    keep: bool = False
    listener: "Listener | None" = None
    masked: "Masked | None" = None
    others: Counter[tuple[Party, str]] = field(default_factory=Counter)

    @property
    def has_sound(self) -> bool:
        """Whether there is anything to put into a WAV."""
        return self.frames > 0

    @property
    def keeps_packets(self) -> bool:
        """Whether the payloads must be kept beside the WAV, because it does not hold them as they were."""
        kept = any(side.foreign or side.hidden or side.redundant or side.fec for side in self.sides.values())
        return self.outcome == "recorded" and (
            self.decoded or len(self.laws) > 1 or kept or self.other_forks > 0 or self.impossible_s > 0
        )

    def heard(self, party: Party) -> list[Codec]:
        """Return the codecs that a party's channel is of."""
        return [self.codecs.of(kind) for kind in np.unique(self.sides[party].channel.law).tolist()]


def plan(ended: EndedCall, account: Account, fetch: Fetch | None = None, *, keep: bool = False) -> Plan:
    """Decide what becomes of a call, and count its packets. `keep`: all of them are wanted, whatever they are."""
    planned = _planned(ended, account, fetch, keep)
    planned.keep = keep
    for track in ended.tracks:
        if track.use is Use.OTHER_MEDIA:
            planned.others[track.sender, track.kind] += len(track.rows)
    return planned


def is_kept(planned: Plan, track: Track) -> bool:
    """Tell whether a track is kept as packets if any is: nothing that is encrypted."""
    if track.use is Use.OTHER_MEDIA:
        return planned.keep and not (planned.ended.srtp and track.is_rtp)
    return track.use in (Use.SOUND, Use.OTHER_FORK) and not track.clear_until


def _planned(ended: EndedCall, account: Account, fetch: Fetch | None, keep: bool) -> Plan:
    account.calls["seen"] += 1
    for track in ended.tracks:
        if track.use in (Use.RELAYED, Use.OTHER_MEDIA, Use.OTHER_FORK):
            _count_aside(track, account, keep)
    sound = {party: ended.sound(party) for party in Party}
    everything = [track for tracks in sound.values() for track in tracks]
    forks = sum(len(track.rows) for track in ended.tracks if track.use is Use.OTHER_FORK)
    others = [track for track in ended.tracks if track.use is Use.OTHER_MEDIA]
    if not everything and others and keep and not ended.srtp:
        first = min(int(track.rows["time"][0]) for track in others)
        last = max(int(track.rows["time"][-1]) for track in others)
        return Plan(ended, {party: Side() for party in Party}, "recorded", first, 0, last, forks)
    if not everything:
        outcome = "encrypted" if ended.srtp else "without_media"
        account.calls[outcome] += 1
        last = ended.call.last_seen if ended.srtp else 0
        return Plan(ended, {party: Side() for party in Party}, outcome, ended.call.started, 0, last, forks)
    reference = min(int(track.rows["time"].min()) for track in everything)
    last = max(int(track.rows["time"].max()) for track in everything)
    return _recorded(ended, sound, reference, last, forks, account, fetch)


def _recorded(
    ended: EndedCall,
    sound: dict[Party, list[Track]],
    reference: int,
    last: int,
    forks: int,
    account: Account,
    fetch: Fetch | None,
) -> Plan:
    codecs = Codecs()
    sides = {party: Side() for party in Party}
    laid = {
        party: [lay_track(track, sides[party], codecs, reference, account, fetch) for track in tracks]
        for party, tracks in sound.items()
    }
    kinds = np.nonzero(np.bincount(np.concatenate([part.law for parts in laid.values() for part in parts])))[0]
    decoded = bool((kinds >= Kind.CODEC).any())
    rate = max((codecs.of(kind).rate for kind in kinds.tolist()), default=RATE)
    for party, tracks in sound.items():
        sides[party].channel = _channel(tracks, laid[party], sides[party], codecs, rate)
    reference = _begin_at_nought(sides, codecs, reference, rate)
    frames = max(side.channel.end for side in sides.values())
    if decoded and 4 * frames > _ROOM:
        frames, rate = _lowered(sides, codecs, frames, rate)
    span = frames // rate if frames > LONGEST_S * rate else 0
    if span:
        frames = 0
    laws = frozenset(law for law in (Law.A, Law.MU) for side in sides.values() if (side.channel.law == law).any())
    return Plan(ended, sides, "recorded", reference, frames, last, forks, laws, span, rate, codecs, decoded)


def _count_aside(track: Track, account: Account, keep: bool) -> None:
    fate, kind = {
        Use.RELAYED: ("relayed", "RTP"),
        Use.OTHER_MEDIA: ("kept" if keep else "not_a_call", "media of a call other than sound"),
        Use.OTHER_FORK: ("kept", "other fork"),
    }[track.use]
    account.packet(fate, kind, frames_of(track, track.fresh))


def _channel(tracks: list[Track], parts: list[Channel], side: Side, codecs: Codecs, rate: int) -> Channel:
    """Lay a party's streams on one channel."""
    voices = 0
    for part in parts:
        _scale(part, codecs, rate)
        part.voice += voices
        voices = int(part.voice[-1]) + 1 if len(part.voice) else voices
    ranks = [_rank(track) for track in tracks]
    moves, heard = overlay([part.sample for part in parts], [part.length for part in parts], ranks, rate)
    _, rates = codecs.tables()
    for number, (part, move, mask) in enumerate(zip(parts, moves, heard, strict=True)):
        side.hidden += int(np.count_nonzero(~mask))
        if move:
            part.at = part.at + move * rates[part.law] // rate
            _scale(part, codecs, rate)
        parts[number] = part if mask.all() else part.take(mask)
    return joined(parts)


def _scale(channel: Channel, codecs: Codecs, rate: int) -> None:
    """Say where a channel's packets lie in a WAV of this rate."""
    if not codecs.known:
        channel.sample, channel.length = channel.at, channel.count
        return
    rates = codecs.tables()[1][channel.law]
    channel.sample = scaled(channel.at, rates, rate)
    channel.length = scaled(channel.at + channel.count, rates, rate) - channel.sample


def _begin_at_nought(sides: dict[Party, Side], codecs: Codecs, reference: int, rate: int) -> int:
    """Move the axis if a burst at the start put a stream before its first arrival; return where it begins."""
    channels = [side.channel for side in sides.values() if len(side.channel.sample)]
    earliest = min((int(channel.sample[0]) for channel in channels), default=0)
    if earliest >= 0:
        return reference
    for channel in channels:
        channel.at = channel.at - earliest * codecs.tables()[1][channel.law] // rate
        _scale(channel, codecs, rate)
    return reference + earliest * 1_000_000_000 // rate


def _lowered(sides: dict[Party, Side], codecs: Codecs, frames: int, rate: int) -> tuple[int, int]:
    """Bring a long call down to the highest rate at which it fits into a WAV; return its samples and that rate."""
    for lower in LOWER_RATES:
        if lower < rate and (4 * frames * lower // rate <= _ROOM or lower == RATE):
            for side in sides.values():
                _scale(side.channel, codecs, lower)
            return max(side.channel.end for side in sides.values()), lower
    return frames, rate


def _rank(track: Track) -> int:
    """How sure it is that a track is the party's sound: both ends known, and more than a stray packet."""
    return 2 * (len(track.rows) > FEW) + track.claim.match.consistent


def gaps(channel: Channel) -> Iterable[tuple[int, int]]:
    """Yield the silent spans of a channel between its first and last packet, as (first sample, samples)."""
    if len(channel.sample) < 2:
        return
    ends = np.maximum.accumulate(channel.sample + channel.length)
    wide = channel.sample[1:] - ends[:-1]
    for index in np.nonzero(wide > 0)[0].tolist():
        yield int(ends[index]), int(wide[index])
