"""Which of a call's streams are its sound: one of each party at any time. Pure.

A relay shows the same packets twice; the ones closest to their sender are recorded, the copies counted. Of a forked
call the fork that answered is heard; before the answer, the first one with media, and once that is silent, the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

from ..sip.dialog import Call, Party
from ..sip.sdp import Format
from .bindings import EndpointKey, Source
from .dtls import Agreement
from .keyring import Keyring
from .reports import Reports
from .rows import Rows
from .tls.secrets import Secrets
from .tracked import FOREVER, Claim, Tracked

Mask = npt.NDArray[np.bool_]
FAX = "image"
"""The kind of a track that is no RTP: ITU-T T.38 calls its m-line so (RFC 3362)."""


TURN = 200_000_000
"""How long a fork must have been silent, in ns, before one that has spoken meanwhile is heard in its place."""


class Use(Enum):
    """What a track's packets are to the recording."""

    SOUND = "sound"
    RELAYED = "relayed copy"
    OTHER_FORK = "other fork"
    OTHER_MEDIA = "other media"


@dataclass(slots=True)
class Track:
    """One stream's part in a call. `fresh` marks the rows no other call took before; `clear_until` is when SRTP took
    over (ns, None: never); `formats` is what payload types mean, each map with the time it holds from (ns); `forks` are
    the To-tags of the phones that may have sent it.
    """

    claim: Claim
    sender: Party
    source: EndpointKey
    destination: EndpointKey
    ssrc: int
    rows: Rows
    fresh: Mask
    kind: str
    formats: list[tuple[int, Mapping[int, Format]]]
    clear_until: int | None = None
    use: Use = Use.SOUND
    forks: frozenset[str] = frozenset()

    @property
    def is_rtp(self) -> bool:
        """Whether its packets have headers of RTP: those of a fax in UDPTL have none."""
        return bool(self.rows["head"].any()) if len(self.rows) else True

    @property
    def standing(self) -> int:
        """How close to its sender it was seen; see `bindings.Match.standing`."""
        return self.claim.match.standing


@dataclass(frozen=True, slots=True)
class Circumstances:
    """How a call was captured, where that is not plain.

    `id` is its recording's, if that was fixed before; `since` (ns) is when capture of it went on after an interruption,
    in the recording `continues`; `truncated` (ns) is where it breaks off, because the recorder was stopped or, if it
    `broke_off`, killed; `kernel_drops` and `lost` are packets of all calls, and of this one, that the recorder lost
    meanwhile; `harm` is what is wrong with what was kept of it, in words; `source` is what it was heard on, `clock`
    what the wall clock was set to and when.
    """

    id: str = ""
    since: int | None = None
    continues: str = ""
    truncated: int | None = None
    broke_off: bool = False
    kernel_drops: int = 0
    lost: int = 0
    harm: str = ""
    source: str = ""
    clock: tuple[tuple[int, int], ...] = ()


PLAIN = Circumstances()


@dataclass(slots=True)
class Srtp:
    """How much of a party's sound was SRTP: the `suites` in use, as people read them, packets that were `authenticated`
    and decrypted, that `failed` authentication, and of streams that no key fits (`no_key`).
    """

    suites: list[str] = field(default_factory=list)
    authenticated: int = 0
    failed: int = 0
    no_key: int = 0


@dataclass(slots=True)
class EndedCall:
    """A call that nothing more can happen to, with all its packets' rows, and the `keys` that were told in it; `srtp`
    says what was decrypted, `reports` what RTCP said.
    """

    tracked: Tracked
    tracks: list[Track]
    circumstances: Circumstances = PLAIN
    keys: Keyring = field(default_factory=Keyring)
    agreements: list[Agreement] = field(default_factory=list)
    secrets: Secrets | None = field(default=None, repr=False)
    srtp: dict[Party, Srtp] = field(default_factory=dict)
    reports: Reports = field(default_factory=Reports)

    @property
    def started(self) -> int:
        """When the recording's call begins, in ns: later than the call itself if this is a continuation."""
        since = self.circumstances.since
        return self.call.started if since is None else since

    @property
    def call(self) -> Call:
        """The dialog."""
        return self.tracked.call

    def sound(self, party: Party) -> list[Track]:
        """Return the tracks that make a party's channel."""
        return [track for track in self.tracks if track.sender is party and track.use is Use.SOUND]


def select(ended: EndedCall) -> None:
    """Give every track its use, splitting tracks where the use changes in time."""
    for track in ended.tracks:
        if track.kind != "audio":
            track.use = Use.OTHER_MEDIA
    for party in Party:
        _find_copies(ended.sound(party))
    for party in Party:
        _use_the_empty_channel(ended.sound(party), ended.sound(party.other), party.other)
    ended.tracks = _split_forks(ended)


def _find_copies(tracks: list[Track]) -> None:
    """Mark the tracks that show another track's packets again, farther from their sender.

    What only the copy shows, because the mirror missed it at the original, is added to the original.
    """
    tracks.sort(key=lambda track: (-track.standing, int(track.rows["time"][0])))
    for index, track in enumerate(tracks):
        for original in tracks[:index]:
            if original.use is Use.SOUND and _is_copy(original, track):
                track.use = Use.RELAYED
                if original.ssrc == track.ssrc:
                    _complete(original, track)
                break


def _is_copy(original: Track, track: Track) -> bool:
    if original.ssrc == track.ssrc:
        first, second = _identity(original.rows), _identity(track.rows)
        return bool(np.isin(second, first).mean() >= 0.5)
    towards = original.claim.match.to
    to_relay = towards is not None and towards.source is Source.RELAY
    if track.standing > 0 or original.standing < (1 if to_relay else 2):
        return False
    # A relay that gives its stream an SSRC of its own: it speaks from the relay's endpoint while the original runs.
    begin, end = int(original.rows["time"][0]), int(original.rows["time"][-1])
    during = (track.rows["time"] >= begin - 1_000_000_000) & (track.rows["time"] <= end + 1_000_000_000)
    return bool(during.mean() >= 0.5)


def _complete(original: Track, copy: Track) -> None:
    """Move the packets that only the copy shows to the original."""
    missed = ~np.isin(_identity(copy.rows), _identity(original.rows))
    if not missed.any():
        return
    rows = np.concatenate((original.rows, copy.rows[missed]))
    order = np.argsort(rows["time"], kind="stable")
    original.rows, original.fresh = rows[order], np.concatenate((original.fresh, copy.fresh[missed]))[order]
    copy.rows, copy.fresh = copy.rows[~missed], copy.fresh[~missed]


def _use_the_empty_channel(tracks: list[Track], others: list[Track], other: Party) -> None:
    """Give the second of two streams that sound at once to the party that has none, rather than lose it.

    SDP says of both that they go to the same party; it is wrong about that where a recording server is told of both
    sides by one, or where addresses are announced that are not the phones' own.
    """
    if others or len(tracks) < 2:
        return
    tracks.sort(key=lambda track: (-track.claim.match.score, int(track.rows["time"][0])))
    for track in tracks[1:]:
        if _overlap(tracks[0].rows, track.rows) >= 0.5:
            track.sender = other
            return


def _overlap(first: Rows, second: Rows) -> float:
    """Return how much of the shorter of two streams lies within the other, 0 to 1."""
    begin = max(int(first["time"][0]), int(second["time"][0]))
    end = min(int(first["time"][-1]), int(second["time"][-1]))
    shorter = min(int(rows["time"][-1]) - int(rows["time"][0]) for rows in (first, second))
    return (end - begin) / max(shorter, 1)


def _identity(rows: Rows) -> npt.NDArray[np.uint64]:
    """Return what two copies of an RTP packet have in common."""
    return (rows["sequence"].astype(np.uint64) << np.uint64(32)) | rows["stamp"].astype(np.uint64)


def _split_forks(ended: EndedCall) -> list[Track]:
    tracks = ended.tracks
    callee = [track for track in tracks if track.sender is Party.CALLEE and track.use is Use.SOUND]
    tags = {id(track): ended.tracked.tags.get(track.source, {""}) for track in callee}
    for track in tracks:
        if track.sender is Party.CALLEE:
            track.forks = frozenset(ended.tracked.tags.get(track.source, ()))
    if not tags or len(set().union(*tags.values())) < 2:
        return tracks
    answered, answered_tag = ended.call.answered, ended.call.answered_tag
    early = _heard_early(callee, tags, FOREVER if answered is None else answered)
    result = [track for track in tracks if id(track) not in tags]
    for track in callee:
        own, heard = tags[id(track)], early[id(track)]
        if answered is not None and (answered_tag is None or answered_tag in own or own == {""}):
            heard = heard | (track.rows["time"] >= answered)
        result += _part(track, heard, Use.SOUND) + _part(track, ~heard, Use.OTHER_FORK)
    return result


def _heard_early(callee: list[Track], tags: Mapping[int, set[str]], answered: int) -> dict[int, Mask]:
    """Return which packets of forks are heard before the answer: the first one's, and when that has fallen silent, as
    where phones are rung one after the other, the next one's.
    """
    heard: dict[int, Mask] = {}
    current: set[str] = set()
    silent = 0
    for track in sorted(callee, key=lambda one: int(one.rows["time"][0])):
        time, own = track.rows["time"], tags[id(track)]
        mask = time < answered
        if current and not own & current:
            mask &= time > silent + (TURN if time[0] <= silent else 0)
        if mask.any():
            current = own & current or own
            silent = max(silent, int(time[mask][-1]))
        heard[id(track)] = mask
    return heard


def _part(track: Track, mask: Mask, use: Use) -> list[Track]:
    if not mask.any():
        return []
    return [
        Track(
            track.claim,
            track.sender,
            track.source,
            track.destination,
            track.ssrc,
            track.rows[mask],
            track.fresh[mask],
            track.kind,
            track.formats,
            track.clear_until,
            use,
            track.forks,
        )
    ]
