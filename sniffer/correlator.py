"""The correlator joins dialogs and streams to calls: a pure state machine fed with events in the order of time.

A stream belongs to the call whose SDP named its destination; else to the one whose SDP named its source (NAT, symmetric
RTP). What came before the SDP that explains it is claimed backwards. A claim has a span of time, because ports are used
again: who owns an endpoint is a question with a time in it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ..sip.call import Call, Closed, Described, Digits, Ended, Event, Party, Started, Transferred
from ..sip.dialog import Dialogs
from ..sip.link_headers import LINK_HEADERS
from ..sip.sdp import Media
from .addresses import address_key
from .bindings import Binding, Bindings, EndpointKey, Match, Source
from .datagrams import Mask, RtpColumns
from .prints import SoundPrints
from .related import Relations, same_sound
from .reports import Reporting
from .streams import StreamTable
from .tracked import FOREVER, SECOND, Claim, Tracked, note_media, note_other
from .twins import Twins

PAUSE = SECOND
"""How long a stream must have been silent, in ns, before another call may take it from one that is not over."""


@dataclass(frozen=True, slots=True)
class CallSettings:
    """When a call is over, and how long media waits for its call. All in seconds."""

    media_silence_s: float = 300.0
    held_silence_s: float = 14_400.0
    unclaimed_hold_s: float = 30.0
    bye_linger_s: float = 5.0

    @property
    def hold(self) -> int:
        """How far back media is claimed, in ns."""
        return int(self.unclaimed_hold_s * SECOND)

    @property
    def linger(self) -> int:
        """How long media may trail a BYE, in ns."""
        return int(self.bye_linger_s * SECOND)


MAX_CLAIMS = 4096
MAX_DIGITS = 4096


class Correlator:
    """Owns the dialogs, the bindings and the claims. `closed` collects the calls that nothing more can happen to.

    `last_before(stream, time)` says when a stream's last packet before a time came, both in ns; `claimed(stream)` is
    told of each claim, `observer`, if somebody sets it, of each event of a call before it takes effect on claims.
    """

    def __init__(
        self,
        streams: StreamTable,
        settings: CallSettings,
        *,
        link_headers: tuple[str, ...] = LINK_HEADERS,
        last_before: Callable[[int, int], int],
        claimed: Callable[[int], None] | None = None,
        max_calls: int = 100_000,
    ) -> None:
        self.dialogs = Dialogs(limit=max_calls, linger_ns=settings.linger, link_headers=link_headers)
        self.observer: Callable[[Tracked, Event], None] | None = None
        self.closed: list[Tracked] = []
        self.open: dict[int, Tracked] = {}
        self.present = 0
        """Up to when streams have had their turn (ns): a message that was read late is older than that."""
        self._streams = streams
        self._last_before = last_before
        self._claimed = claimed
        self._settings = settings
        self._bindings = Bindings()
        self.reporting = Reporting(self._bindings)
        self._owners: dict[int, list[Claim]] = {}
        self._past: dict[int, list[Claim]] = {}
        self.prints = SoundPrints()
        self._relations = Relations()
        self._twins = Twins()
        self._seen = 0
        self._next_check = 0

    def reconfigure(self, settings: CallSettings) -> None:
        """Go on with other settings."""
        self._settings = settings
        self.dialogs.set_linger(settings.linger)

    # -- what happens --------------------------------------------------------------------------------------------------

    def happened(self, events: Iterable[Event]) -> None:
        """Take what the dialogs say."""
        for event in events:
            if isinstance(event, Started):
                self._begin(event.call, event.time)
            tracked = self.open.get(event.call.number)
            if tracked is None:
                continue
            if self.observer is not None:
                self.observer(tracked, event)
            self._take(tracked, event)

    def _begin(self, call: Call, time: int) -> None:
        self._seen += 1
        tracked = self.open[call.number] = Tracked(call)
        self._relations.begin(tracked, time)

    def _take(self, tracked: Tracked, event: Event) -> None:
        match event:
            case Described():
                self._describe(tracked, event)
            case Digits():
                if len(tracked.digits) < MAX_DIGITS:
                    tracked.digits.append((event.time, event.party, event.digit))
            case Transferred():
                self._relations.transferred(tracked, event.target, event.time, event.replaces)
            case Ended():
                for forward in tracked.call.forwards:
                    if forward.time == event.time:
                        self._relations.forwarded(tracked, forward)
                for claim in [claim for claim in tracked.claims if claim.until == FOREVER]:
                    self._evaluate(claim.stream, event.time)  # another call may have waited for it
            case Closed():
                self._close(tracked)
            case _:
                pass  # the call itself says that it rings, was answered, has ended or goes on

    def beside(self, rows: RtpColumns) -> Mask:
        """Tell which datagrams that are no RTP may be a call's: a fax by T.38."""
        return self._bindings.beside(rows)

    def disguised(self, rows: RtpColumns) -> Mask:
        """Tell which datagrams that look like RTP come to an end that SDP named last for something else."""
        found = self._bindings.beside(rows) if self._bindings.any_beside else np.zeros(len(rows), dtype=bool)
        if not found.any():
            return found
        ends = list(zip(rows.destination[found].tolist(), (rows.ports[found] & 0xFFFF).tolist(), strict=True))
        named = {end: self._bindings.only_beside(end) for end in set(ends)}
        found[found] = [named[end] for end in ends]
        return found

    def knows(self, source: EndpointKey, destination: EndpointKey) -> bool:
        """Tell whether an open call knows either endpoint."""
        return bool(self._bindings.matches(source, destination))

    def stream_started(self, stream: int, time: int) -> None:
        """A stream begins, or goes on after a silence in which its ports may have changed hands."""
        self._evaluate(stream, time)

    def secured(self, source: tuple[str, int], destination: tuple[str, int], time: int) -> list[Tracked]:
        """A ZRTP handshake (RFC 6189) is complete between two endpoints: what follows is SRTP, whatever the SDP
        says. Return the calls that this concerns.
        """
        keys = address_key(source[0]), address_key(destination[0])
        if keys[0] is None or keys[1] is None:
            return []
        here, there = (keys[0], source[1]), (keys[1], destination[1])
        matches = self._bindings.matches(here, there)
        for match in matches:
            secured = match.tracked.secured
            if len(secured) < MAX_CLAIMS:
                secured.setdefault((here, there), time)
                secured.setdefault((there, here), time)
        return [match.tracked for match in matches]

    # -- bindings ------------------------------------------------------------------------------------------------------

    def _describe(self, tracked: Tracked, event: Described) -> None:
        first_audio = True
        for media in event.sdp.media:
            if media.kind != "audio" and media.port and event.hop == 0:
                note_other(tracked, event.party, event.time, media)
            if media.kind == "audio" and media.port and first_audio and event.hop == 0:
                note_media(tracked, event, media)
                first_audio = False
            if media.kind == "audio" and media.crypto:
                tracked.keys.add(event.party, media.crypto)
            if media.kind == "audio":
                self.reporting.told(media)
            for endpoint, source in self._endpoints(media, event):
                since, by = event.time, event.announced_by
                if event.party is Party.CALLEE and len(tracked.tags) < MAX_CLAIMS:
                    tracked.tags.setdefault(endpoint, set()).add(event.tag)
                self._bind(endpoint, Binding(tracked, event.party, event.tag, since, by, source, media), event.time)

    def _endpoints(self, media: Media, event: Described) -> list[tuple[EndpointKey, Source]]:
        """Return the endpoints that an m-line names or suggests."""
        key = address_key(media.address)
        if not media.port or key is None:
            return []
        found = []
        if key:
            found.append(((key, media.port), Source.OWN if event.hop == 0 else Source.RELAY))
        spoken_from = address_key(event.announced_by)
        if event.hop == 0 and spoken_from is not None and spoken_from != key:  # behind NAT, perhaps
            found.append(((spoken_from, media.port), Source.LEARNED))
        for address, port in media.candidates[:16]:
            candidate = address_key(address)
            if candidate is not None and (candidate, port) not in [endpoint for endpoint, _ in found]:
                found.append(((candidate, port), Source.LEARNED))
        return found

    def _bind(self, endpoint: EndpointKey, binding: Binding, time: int) -> None:
        if not self._bindings.add(endpoint, binding):
            return
        for stream in self._streams.touching(*endpoint):
            row, now = self._streams.rows[stream], max(time, self.present)
            # Streams that begin later have their turn.
            if int(row["first"]) <= now and int(row["last"]) >= time - self._settings.hold:
                self._evaluate(stream, now)

    def _ends(self, stream: int) -> tuple[EndpointKey, EndpointKey]:
        row = self._streams.rows[stream]
        ports = int(row["ports"])
        return (int(row["source"]), ports >> 16), (int(row["destination"]), ports & 0xFFFF)

    # -- claims --------------------------------------------------------------------------------------------------------

    def _evaluate(self, stream: int, time: int) -> None:
        """Decide anew whose a stream is, after something changed at `time`."""
        source, destination = self._ends(stream)
        first = int(self._streams.rows["first"][stream])
        matches = [
            match
            for match in self._bindings.matches(source, destination)
            if match.tracked.call.ended is None or first < match.tracked.call.ended + self._settings.linger
        ]
        alive = [match for match in matches if match.tracked.call.ended is None] or matches
        if not alive:
            return
        best = max(alive, key=lambda match: (match.score, match.since))
        chosen = [best] + [match for match in alive if match is not best and _shares(best, match)]
        for match in chosen:
            self._claim(stream, match, [other.tracked for other in chosen], time)
        self._learn(best, source, destination, time)

    def _claim(self, stream: int, match: Match, sharers: list[Tracked], time: int) -> None:
        tracked = match.tracked
        claims = self._owners.setdefault(stream, [])
        for claim in claims:
            if claim.tracked is tracked and claim.until == FOREVER:
                claim.match = max(claim.match, match, key=lambda one: (one.score, one.standing))
                return
        rivals = [claim for claim in claims if claim.until == FOREVER and claim.tracked not in sharers]
        since = self._reach(tracked, time)
        going = [claim for claim in rivals if claim.tracked.call.ended is None]
        if any(claim.match.score >= match.score for claim in going):
            last = self._last_before(stream, time)
            if time - last < PAUSE:
                return
            since = max(since, last + 1)  # it had fallen silent: whoever owned the ports left without a BYE
        if len(tracked.claims) >= MAX_CLAIMS:
            return
        for claim in claims:
            if claim.tracked not in sharers and claim.tracked.call.ended is not None:
                since = max(since, claim.tracked.call.ended)
        for claim in rivals:
            claim.until = max(since, claim.since)
        for claim in self._past.get(stream, ()):  # the trailing media of a call that is over, not yet given out
            if claim.tracked not in sharers and claim.until > since:
                since = max(since, claim.tracked.call.ended or since)
                claim.until = min(claim.until, max(since, claim.since))
        if self._claimed is not None:
            self._claimed(stream)
        self.dialogs.prove(tracked.call)
        new = Claim(tracked, stream, match, since)
        claims.append(new)
        tracked.claims.append(new)
        same_sound(self._twins.meet(new, self._streams.rows), new)

    def _reach(self, tracked: Tracked, time: int) -> int:
        """How far back a call may claim media, in ns: not before its own start, unless we came in the middle."""
        reach = time - self._settings.hold
        return reach if tracked.call.joined_late else max(reach, tracked.call.started)

    def _learn(self, match: Match, source: EndpointKey, destination: EndpointKey, time: int) -> None:
        """Bind the end of a claimed stream that no SDP named: media towards it belongs to the same call."""
        known, endpoint = (match.to, source) if match.from_ is None else (match.from_, destination)
        if (
            known is None
            or known.source is Source.LEARNED
            or (match.to and match.from_)
            or self._bindings.bound(endpoint)
        ):
            return
        party = Party.CALLEE if known.party is Party.CALLER else Party.CALLER
        self._bind(endpoint, Binding(match.tracked, party, "", time, "", Source.LEARNED, None), time)

    # -- time ----------------------------------------------------------------------------------------------------------

    def advance(self, now: int) -> None:
        """Let time pass: calls whose linger is over are closed, silent ones are ended."""
        due = now >= self._next_check or now < self._next_check - 20 * SECOND
        if due:
            self._next_check = now + 5 * SECOND
            self._keep_ringing(now)
        self.happened(self.dialogs.advance(now))
        if due:
            for tracked in list(self.open.values()):
                if tracked.call.ended is None:
                    self._check_silence(tracked, now)

    def _keep_ringing(self, now: int) -> None:
        """A call that is not answered yet goes on while there is media: queues play music for a long time."""
        for tracked in self.open.values():
            if tracked.call.answered is None and tracked.claims:
                media = self.last_media(tracked)
                if media is not None and now - media <= self._settings.media_silence_s * SECOND:
                    self.dialogs.keep(tracked.call, media)

    def _check_silence(self, tracked: Tracked, now: int) -> None:
        call = tracked.call
        media = self.last_media(tracked)
        patience = self._settings.media_silence_s
        if call.held or (media is None and call.answered is not None):
            patience = max(patience, self._settings.held_silence_s)
            if call.session_expires:
                patience = min(patience, max(call.session_expires, self._settings.media_silence_s))
        last = max(call.last_seen, media or 0) if media is None or call.held else max(media, call.answered or 0)
        if call.answered is None:
            last = max(call.last_seen, media or 0)
        if now - last > patience * SECOND:
            reason = (
                "media silence" if media is not None else "no answer seen" if call.answered is None else "no BYE seen"
            )
            self.happened(self.dialogs.end(call, last, reason))

    def last_media(self, tracked: Tracked) -> int | None:
        """Return when the call's last media packet came (ns), None if none did."""
        if not tracked.claims:
            return None
        last = self._streams.rows["last"]
        return max(min(int(last[claim.stream]), claim.until) for claim in tracked.claims)

    def finish(self, now: int, reason: str = "end of input") -> None:
        """The input is over at `now` (ns): all calls end here, for this reason."""
        for tracked in list(self.open.values()):
            if tracked.call.ended is None:
                self.happened(self.dialogs.end(tracked.call, now, reason))
        self.happened(self.dialogs.finish())
        for tracked in list(self.open.values()):
            self._close(tracked)

    def _close(self, tracked: Tracked) -> None:
        call = tracked.call
        tracked.listened(self._streams.rows, self.prints)
        limit = FOREVER if call.ended is None else call.ended + self._settings.linger
        for claim in tracked.claims:
            claim.until = min(claim.until, limit)
            owners = self._owners.get(claim.stream, [])
            owners.remove(claim)
            if not owners:
                self._owners.pop(claim.stream, None)
            self._past.setdefault(claim.stream, []).append(claim)
            self._twins.forget(claim, self._streams.rows)
        tracked.closed = True
        self._bindings.remove(tracked)
        del self.open[call.number]
        self.closed.append(tracked)

    def give_out(self) -> list[Tracked]:
        """Return the closed calls, and forget them."""
        closed, self.closed, self._past = self.closed, [], {}
        return closed

    def holders(self, stream: int) -> list[Claim]:
        """Return the claims on a stream of calls that were not given out yet, in the order in which they were made."""
        return [*self._past.get(stream, ()), *self._owners.get(stream, ())]

    def claimed_streams(self) -> set[int]:
        """Return the streams that open or just closed calls hold."""
        held = set(self._owners)
        for tracked in self.closed:
            held.update(claim.stream for claim in tracked.claims)
        return held

    def explain(self, stream: int) -> str:
        """Say in words why a stream went to no call, for people."""
        source, destination = self._ends(stream)
        matches = self._bindings.matches(source, destination)
        if not matches:
            return "no SDP of an open call names its source or destination"
        return f"its endpoint belongs to call {matches[0].tracked.call.call_id}, which holds another stream there"


def _shares(best: Match, other: Match) -> bool:
    """Tell whether two calls are legs that name the same media: a B2BUA that lets media pass it by.

    The legs are related, and their SDP for one endpoint comes from different hosts. One host that announces one
    endpoint for two calls is using it again, or is a load generator.
    """
    if other.score != best.score or not best.consistent:
        return False
    if best.tracked.leg not in other.tracked.related and other.tracked.leg not in best.tracked.related:
        return False
    for one, two in ((best.to, other.to), (best.from_, other.from_)):
        if one is not None and two is not None and one.announced_by != two.announced_by:
            return True
    return False
