"""A call as the correlator sees it: its dialog, its claims on streams, and what was heard on the way. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..sip.dialog import Call, Described, Party
from ..sip.sdp import Format, Media
from .bindings import EndpointKey, Match
from .keyring import Keyring
from .prints import Prints, SoundPrints, same_sound
from .reports import Reports
from .ties import Tie

SECOND = 1_000_000_000
FOREVER = 1 << 62
SLACK = 2 * SECOND
"""How much later or earlier another leg's sound may begin or end, in ns, and still be all of it."""
MAX_MEDIA_CHANGES = 256
MAX_OTHER = 200
"""Characters of what is noted of an m-line."""


class Leg(NamedTuple):
    """What names a call for good: Call-ID, the caller's first From-tag, start in ns; and its number in this run."""

    call_id: str
    caller_tag: str
    started: int
    number: int


@dataclass(slots=True, eq=False)
class Claim:
    """A call's hold on a stream for since <= time < until (ns)."""

    tracked: "Tracked"
    stream: int
    match: Match
    since: int
    until: int = FOREVER

    @property
    def sender(self) -> Party:
        """Whose sound it is."""
        return self.match.sender


@dataclass(slots=True, eq=False)
class Tracked:
    """A call as the correlator sees it: the dialog, its claims, and what was heard on the way.

    `voices` are the parties whose sound came, and can be read, from when to when (ns) and what it was, as far as that
    was looked at (`listened`).
    """

    call: Call
    claims: list[Claim] = field(default_factory=list)
    endpoints: list[EndpointKey] = field(default_factory=list)
    media: dict[Party, list[tuple[int, Media]]] = field(default_factory=lambda: {Party.CALLER: [], Party.CALLEE: []})
    offers: dict[Party, list[tuple[int, Media]]] = field(default_factory=lambda: {Party.CALLER: [], Party.CALLEE: []})
    asked: dict[Party, tuple[int, Media]] = field(default_factory=dict)
    digits: list[tuple[int, Party, str]] = field(default_factory=list)
    holds: list[tuple[int, Party, bool]] = field(default_factory=list)
    others: list[tuple[int, Party, str]] = field(default_factory=list)
    related: dict["Leg", Tie] = field(default_factory=dict)
    voices: dict[Party, tuple[int, int, Prints]] = field(default_factory=dict)
    tags: dict[EndpointKey, set[str]] = field(default_factory=dict)
    secured: dict[tuple[EndpointKey, EndpointKey], int] = field(default_factory=dict)
    keys: Keyring = field(default_factory=Keyring)
    reports: Reports = field(default_factory=Reports)
    closed: bool = False
    leg: "Leg" = field(init=False)

    def __post_init__(self) -> None:
        self.leg = Leg(self.call.call_id, self.call.caller_tag, self.call.started, self.call.number)

    def forget(self) -> None:
        """Let go of what is no longer needed once the call is given out: other calls may hold on to this one."""
        self.claims, self.endpoints, self.tags, self.keys, self.reports = [], [], {}, Keyring(), Reports()
        for tie in self.related.values():
            tie.other = None  # each held another, and so on: none would ever go

    def listened(self, streams: Any, prints: SoundPrints) -> None:
        """All sound that will come has come: note whose that was, and whether related calls have it too. `streams` are
        the rows of all streams, `prints` what their sound was.
        """
        self._hear(streams, prints)
        for tie in self.related.values():
            other = tie.other
            if other is None:
                continue
            if not other.closed:
                other._hear(streams, prints)
            tie.heard = bool(self.voices) and all(
                party in other.voices
                and other.voices[party][0] <= first + SLACK
                and other.voices[party][1] >= last - SLACK
                and same_sound(sound, other.voices[party][2])
                for party, (first, last, sound) in self.voices.items()
            )
        self.related = {leg: tie for leg, tie in self.related.items() if tie.sure or tie.heard}

    def _hear(self, streams: Any, prints: SoundPrints) -> None:
        self.voices = {}
        if self.secured or (self.encrypted and not self.keys.usable):
            return
        for claim in self.claims:
            if claim.match.kind == "audio":
                row = streams[claim.stream]
                first, last = max(int(row["first"]), claim.since), min(int(row["last"]), claim.until)
                sound = prints.of(claim.stream)
                known = self.voices.get(claim.sender, (first, last, sound))
                joined = np.minimum(known[2], sound)
                self.voices[claim.sender] = min(known[0], first), max(known[1], last), joined

    def formats(self, sender: Party) -> list[tuple[int, Mapping[int, Format]]]:
        """Return what payload types mean in packets of this sender, each map with the time it holds from (ns).

        The receiver's word counts before the sender's, and what was agreed before what was only offered.
        """
        said = [table[party] for table in (self.offers, self.media) for party in (sender, sender.other)]
        maps: list[tuple[int, Mapping[int, Format]]] = []
        for time in sorted({time for entries in said for time, _ in entries}):
            merged: dict[int, Format] = {}
            for entries in said:
                for since, media in entries:
                    if since <= time:
                        merged.update(media.formats)
            if not maps or maps[-1][1] != merged:
                maps.append((time, merged))
        return maps

    @property
    def encrypted(self) -> bool:
        """Whether the parties agreed on SRTP: each that spoke of media last offered it with keys."""
        last = [spoken[-1][1] for spoken in self.media.values() if spoken]
        return bool(last) and all(media.encrypted for media in last)

    def secrecy(self) -> list[tuple[int, bool]]:
        """Return whether the parties had agreed on SRTP, each answer with the time it holds from (ns).

        What was agreed first holds for all that came before it; an offer that nobody answered changes nothing.
        """
        spoken = [(time, party, media.encrypted) for party in Party for time, media in self.media[party]]
        spoken.sort(key=lambda entry: entry[0])
        agreed: list[tuple[int, bool]] = []
        waiting: tuple[Party, bool] | None = None
        for time, party, encrypted in spoken:
            if waiting is None or waiting[0] is party:
                waiting = party, encrypted
            else:
                agreed.append((time, encrypted and waiting[1]))
                waiting = None
        return agreed or [(time, encrypted) for time, _, encrypted in spoken[-1:]]


def note_media(tracked: Tracked, event: Described, media: Media) -> None:
    """Note what a party says of its sound, and whether it puts the other on hold.

    An offer in a call that has media already counts from its answer on, and not at all if it is refused (RFC 3264
    section 8).
    """
    party, time = event.party, event.time
    if event.asks and tracked.media[party]:
        offers = tracked.offers[party]
        if len(offers) < MAX_MEDIA_CHANGES and (not offers or offers[-1][1] != media):
            offers.append((time, media))
        tracked.asked[party] = time, media
    else:
        tracked.asked.pop(party, None)
        since, asked = tracked.asked.pop(party.other, (time, None))
        if asked is not None:
            _agree(tracked, party.other, time, asked)
            _note_hold(tracked, party.other, since, asked.held)
        _agree(tracked, party, time, media)
        _note_hold(tracked, party, time, media.held and (event.asks or _is_asked_to_talk(tracked, party)))


def _is_asked_to_talk(tracked: Tracked, party: Party) -> bool:
    """Tell whether an answer that is one-way is so by its sender's own wish: the offer is not (RFC 3264 section 8.4).
    A hold that lasts may go on.
    """
    said = tracked.media[party.other]
    return _holds(tracked, party) or (bool(said) and said[-1][1].direction == "sendrecv" and not said[-1][1].held)


def _holds(tracked: Tracked, party: Party) -> bool:
    return next((state for _, who, state in reversed(tracked.holds) if who is party), False)


def _note_hold(tracked: Tracked, party: Party, time: int, held: bool) -> None:
    if held != _holds(tracked, party) and len(tracked.holds) < MAX_MEDIA_CHANGES:
        tracked.holds.append((time, party, held))


def _agree(tracked: Tracked, party: Party, time: int, media: Media) -> None:
    spoken = tracked.media[party]
    if len(spoken) < MAX_MEDIA_CHANGES and (not spoken or spoken[-1][1] != media):
        spoken.append((time, media))


def note_other(tracked: Tracked, party: Party, time: int, media: Media) -> None:
    """Note what a party wants beside sound: video, a fax by T.38."""
    names = ", ".join(dict.fromkeys(known.name for known in media.formats.values() if known.name))
    text = f"{media.kind} {names or media.proto}"[:MAX_OTHER]
    if len(tracked.others) < MAX_MEDIA_CHANGES and (party, text) not in [entry[1:] for entry in tracked.others]:
        tracked.others.append((time, party, text))
