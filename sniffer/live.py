"""Live capture: from frames to what goes into the spool of each call, visit by visit. No I/O, no clock.

The engine decides as it does offline; instead of an index of packets it gives out the packets themselves, as blocks for
the spool files of the calls that own them. What no call owns waits in `Hold`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..sip.call import Answered, Closed, Ended, Event, Revived, Ringing, Started
from ..sip.link_headers import LINK_HEADERS
from ..sip.sdp import Format
from . import blocks, hiding
from .correlator import CallSettings
from .datagrams import Datagrams, Fate, Mask, SlowPacket
from .engine import SLICE, Engine
from .gate import Gate
from .hold import BESIDE, Hold, Waiting
from .items import Cycle, Forgotten, Media, Noted, Over, Past
from .records import Ints, Records
from .signalling import Heard, Stash
from .speaking import SpeakingEngine, Spool
from .tracked import FOREVER, SECOND, Claim, Tracked
from .visit import Visit

FREE, MIXED = -1, -2
"""What stands in the route of a stream that no call owns, and of one whose packets need a closer look."""
SURE = 8
"""The score of a match from which on no other call is likely to get the stream (`bindings.Match.score`)."""
FORGET_EVERY = SECOND
"""How often streams that fell silent are looked for, in ns: the table is made anew without them."""


@dataclass(slots=True)
class LiveEngine(SpeakingEngine):
    """An engine that gives out packets as they come. `links` are the link types of the interfaces, `memory` what media
    without a call may take, in bytes. Beyond `new_calls_per_s` INVITEs are a flood (`gate`): while it lasts a call gets
    its spool only when somebody answers, or media comes. With `mask_digits` no key that is pressed is given out.
    """

    stash: Stash = field(init=False)
    links: tuple[int, ...] = (1,)
    new_calls_per_s: int = 500
    hold: Hold = field(init=False)
    _visit: Visit = field(init=False)
    _route: npt.NDArray[np.int64] = field(init=False)
    _dirty: set[int] = field(init=False, default_factory=set)
    _known: dict[int, dict[int, tuple[Claim, int]]] = field(init=False, default_factory=dict)
    _latest: int = field(init=False, default=0)
    _forgot: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._visit = Visit(self.links)
        self.stash = self._visit.keep_whole
        Engine.__post_init__(self)
        self.correlator.observer = self._observe
        self.gate = self._signalling.gate = Gate(self.new_calls_per_s, self.correlator.dialogs.knows)
        self.hold = Hold(self.limits.memory)
        self._route = np.full(1024, FREE, dtype=np.int64)

    # -- the caller's side ---------------------------------------------------------------------------------------------

    def listen(self, records: Records) -> Cycle:
        """Take the frames of one visit to the ring, in steady time; return what they gave."""
        if len(records) == 0:
            return self.idle(self._now)
        self._visit.records = records
        for _ in self.feed(self.columns.read(records)):
            raise AssertionError("a live engine gives out no ended calls")
        return self._finished_cycle()

    def idle(self, now: int) -> Cycle:
        """Nothing came up to `now` (ns): let time pass."""
        self._catch_up()
        if now > self._now:
            self._now = now
            self.correlator.advance(now)
        self._let_go()
        return self._finished_cycle()

    def resume(self, history: Iterable[tuple[Past, Heard | SlowPacket]]) -> Cycle:
        """Hear again, in the order of time, what was said (SIP, or ZRTP and DTLS as packets) in calls that ran when an
        earlier run ended.

        Their spools begin when something more comes of them.
        """
        for past, heard in history:
            self._past = past
            if isinstance(heard, Heard):
                self._hear(heard)
            elif heard.fate is Fate.DTLS:
                self._shook_hands(heard)
            else:
                self._secured(heard)
            self._now = max(self._now, heard.time)
        self._past = None
        return self._finished_cycle()

    def recall_tls(self, told: Iterable[Mapping[str, Any]]) -> int:
        """Go on with TLS connections that an earlier run followed; return how many that are."""
        return self._signalling.recall_tls(told)

    def remember_tls(self) -> list[dict[str, Any]]:
        """Return what another run has to know of the TLS connections that carry SIP: JSON, without secrets."""
        return self._signalling.tls.remember()

    def stop(self) -> Cycle:
        """Capture stops: give out all open calls as running, and close the books."""
        self._joiner.finish()
        for heard in self._signalling.finish(self._now):
            self._hear(heard)
        self._let_go()
        for tracked in list(self.correlator.open.values()):
            self._over(tracked, running=tracked.call.ended is None)
        self.account.packet("not_a_call", "RTP of no call", self.hold.finish())
        return self._finished_cycle()

    def reconfigure(
        self,
        settings: CallSettings,
        sip_ports: frozenset[int],
        new_calls_per_s: int,
        link_headers: tuple[str, ...] = LINK_HEADERS,
    ) -> None:
        """Go on with other settings, from the next visit on."""
        self.correlator.dialogs.link_headers = link_headers
        self.settings = settings
        self.correlator.reconfigure(settings)
        self.columns.listen_on(sip_ports)
        self._signalling.listen_on(sip_ports)
        self.sip_ports, self.gate.rate = sip_ports, new_calls_per_s

    def note(self, note: dict[str, Any]) -> Cycle:
        """Put a note into the spool of every open call."""
        for number, spool in self._spools.items():
            if spool.begun:
                self._cycle.items.append(Noted(number, self._now, note))
        return self._finished_cycle()

    @property
    def waiting(self) -> int:
        """Captured frames of which nobody knows yet what will become of them."""
        return self.hold.frames + self._joiner.waiting

    @property
    def now(self) -> int:
        """The latest time heard of, in ns."""
        return self._now

    def _finished_cycle(self) -> Cycle:
        done, self._cycle = self._cycle, Cycle()
        self._visit.end()
        return done

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _observe(self, tracked: Tracked, event: Event) -> None:
        number = event.call.number
        if isinstance(event, Started):
            self._spools[number] = Spool(tracked, self._past)
        elif isinstance(event, Ended | Revived | Closed):
            self._dirty.update(claim.stream for claim in tracked.claims)
        if self._past is None and isinstance(event, Started | Ringing | Answered | Ended | Revived | Closed):
            self._cycle.events.append((tracked, event))

    def _claimed(self, stream: int) -> None:
        Engine._claimed(self, stream)
        self._dirty.add(stream)

    # -- media ---------------------------------------------------------------------------------------------------------

    def _store(self, block: Datagrams, numbers: npt.NDArray[np.int32]) -> None:
        self._settle(block.first)
        rtp, numbers = self._admitted(block.rtp, numbers)
        if len(rtp) == 0:
            return
        if self.mask_digits:
            self._visit.hide(rtp, hiding.events(rtp, numbers, self._formats))
        owners, rows, copies = self._owners_of(rtp.time, numbers)
        for records, here, frame in self._visit.frames(rtp):
            mine = here[rows]
            self._give(records, frame[rows[mine]], owners[mine], rtp.frames[rows[mine]])
            held = np.nonzero(here & (copies != 0))[0]
            if len(held):
                self._wait(records, frame[held], numbers[held], rtp.time[held], rtp.frames[held], copies[held] == 2)
        given = np.zeros(len(rtp), dtype=bool)
        given[rows] = True
        self.account.packet("kept", "handed to calls", int(rtp.frames[given].sum(dtype=np.int64)))
        self._latest = max(self._latest, int(rtp.time[-1]))

    def _formats(self, stream: int) -> list[Mapping[int, Format]]:
        """Return all that was said of a stream's payload types by the calls that have it."""
        claims = self.correlator.holders(stream)
        return [known for claim in claims for _, known in claim.tracked.formats(claim.sender)]

    def _owners_of(self, time: Ints, numbers: npt.NDArray[np.int32]) -> tuple[Ints, Ints, npt.NDArray[np.uint8]]:
        """Return who gets which row: owners (call numbers) and rows, a row as often as it has owners; and of each row
        whether it is to be held: 1 because nobody has it, 2 although somebody has.
        """
        route = self._route[numbers]
        rows = [np.nonzero(route >= 0)[0]]
        owners = [route[rows[0]]]
        copies = (route == FREE).astype(np.uint8)
        mixed = np.nonzero(route == MIXED)[0]
        if len(mixed):
            mixed = mixed[np.argsort(numbers[mixed], kind="stable")]
            edges = np.nonzero(np.diff(numbers[mixed]))[0] + 1
            for mine in np.split(mixed, edges):
                self._look_closer(int(numbers[mine[0]]), mine, time[mine], rows, owners, copies)
        return np.concatenate(owners), np.concatenate(rows), copies

    def _look_closer(
        self, stream: int, mine: Ints, time: Ints, rows: list[Ints], owners: list[Ints], copies: npt.NDArray[np.uint8]
    ) -> None:
        """Give the rows of one stream to the claims that cover them."""
        copies[mine] = 1
        for claim in self.correlator.holders(stream):
            call = claim.tracked.call
            covered = mine[(time >= claim.since) & (time < claim.until)]
            if call.number in self._spools and len(covered):
                rows.append(covered)
                owners.append(np.full(len(covered), call.number, dtype=np.int64))
                sure = call.ended is None and claim.match.score >= SURE
                copies[covered] = 0 if sure else 2

    def _give(self, records: Records, frame: Ints, owner: Ints, frames: npt.NDArray[np.uint8]) -> None:
        """Give frames to calls: `owner` is the call of each."""
        if len(owner) == 0:
            return
        order = np.argsort(owner, kind="stable")
        owner = owner[order]
        packed = self._visit.packets(records, frame[order])
        edges = [0, *(np.nonzero(np.diff(owner))[0] + 1).tolist(), len(owner)]
        counts = np.add.reduceat(frames[order].astype(np.int64), edges[:-1]).tolist()
        parts = []
        for start, stop, count in zip(edges[:-1], edges[1:], counts, strict=True):
            spool = self._spools[int(owner[start])]
            self._begin(spool, int(records.time[frame[order[start]]]))
            spool.frames += count
            parts.append((int(owner[start]), int(packed.start[start]), int(packed.start[stop]), count))
        self._cycle.items.append(Media(packed, parts))

    def _wait(
        self,
        records: Records,
        frame: Ints,
        numbers: npt.NDArray[np.int32],
        time: Ints,
        frames: npt.NDArray[np.uint8],
        taken: Mask,
    ) -> None:
        """Hold frames that nobody owns, and copies of those whose owner may change."""
        size = int(records.length[frame].sum()) + (blocks.MOST_BESIDE + BESIDE) * len(frame)
        if not self.hold.room(size):
            count = int(frames[~taken].sum(dtype=np.int64))
            self.account.packet("overload_dropped", "media without a call: memory full", count)
            return
        self.hold.add(Waiting(self._visit.packets(records, frame), numbers, time, frames, taken))

    # -- claims --------------------------------------------------------------------------------------------------------

    def _settle(self, first: int) -> None:
        """Act on the claims that changed: fetch what waited for them, tell calls what they lost, set the route."""
        if len(self._route) < len(self.streams.rows):
            more = np.full(len(self.streams.rows) - len(self._route), FREE, dtype=np.int64)
            self._route = np.concatenate((self._route, more))
        dirty, self._dirty = self._dirty, set()
        for stream in dirty:
            claims, before = self.correlator.holders(stream), self._known.pop(stream, {})
            if claims:
                self._compare(stream, claims, before)
                self._known[stream] = {id(claim): (claim, claim.until) for claim in claims}
            self._route[stream] = self._way(claims, first)
            if self._route[stream] == MIXED and len(claims) == 1 and claims[0].since > first:
                self._dirty.add(stream)  # plain from the next slice on

    def _compare(self, stream: int, claims: list[Claim], before: dict[int, tuple[Claim, int]]) -> None:
        """Tell the calls that hold a stream what changed: `before` are the claims known so far, and their ends."""
        new = [claim for claim in claims if id(claim) not in before]
        regained = min((self._fetch(stream, claim) for claim in new), default=FOREVER)
        for claim in new:
            self._tell_agreements(stream, claim)
        for claim, until in before.values():
            if claim.until < until and claim.tracked.closed:
                for other in claims:
                    if other.until > claim.until:
                        self._note(stream, other, "alone", claim.until)
            elif claim.until < until and max(claim.until, regained) <= self._latest:
                self._note(stream, claim, "ignore", max(claim.until, regained), until=self._latest + 1)
        earlier = [claim for claim, _ in before.values()]
        for claim in new:
            for other in earlier:
                since, until = max(claim.since, other.since), min(claim.until, other.until)
                if since < until:  # both have it: the other's recording counts the packets
                    self._note(stream, claim, "shared", since, until=until)
            earlier.append(claim)

    def _fetch(self, stream: int, claim: Claim) -> int:
        """Claim backwards what waited. Return the time (ns) from which on another call had it already."""
        spool = self._spools.get(claim.tracked.call.number)
        found = self.hold.fetch(stream, claim.since, claim.until) if spool is not None else []
        if spool is None or not found:
            return FOREVER
        self._begin(spool, found[0].first)
        for one in found:
            part = claim.tracked.call.number, 0, int(one.blocks.start[-1]), one.frames
            self._cycle.items.append(Media(one.blocks, [part]))
            spool.frames += one.frames
        self.account.packet("kept", "handed to calls", sum(one.fresh for one in found))
        return min(one.regained for one in found)

    def _way(self, claims: list[Claim], first: int) -> int:
        if not claims:
            return FREE
        if len(claims) > 1:
            return MIXED
        claim = claims[0]
        plain = claim.until == FOREVER and claim.since <= first and claim.tracked.call.ended is None
        number = claim.tracked.call.number
        return number if plain and claim.match.score >= SURE and number in self._spools else MIXED

    def _note(self, stream: int, claim: Claim, kind: str, since: int, **more: int) -> None:
        """Note in a call's spool what happened to its hold on a stream."""
        spool = self._spools.get(claim.tracked.call.number)
        if spool is not None and spool.begun:
            note = {"note": kind, "flow": self.streams.flow(stream, self.book), "since": since, **more}
            self._cycle.items.append(Noted(claim.tracked.call.number, self._now, note))

    # -- what is over --------------------------------------------------------------------------------------------------

    def _harvest(self) -> Iterator[Any]:
        self._let_go()
        yield from ()

    def _is_due(self) -> bool:
        return True

    def _let_go(self) -> None:
        """Give out the closed calls, and forget what nobody can want any more."""
        self._settle(self._now)
        for tracked in self.correlator.give_out():
            streams = {claim.stream for claim in tracked.claims}
            self._over(tracked, running=False)
            tracked.forget()
            self._dirty |= streams
        lost = self.hold.expire(self._now - self.settings.hold)
        self.account.packet("not_a_call", "RTP of no call", lost)
        if not 0 <= self._now - self._forgot < FORGET_EVERY:
            self._forgot = self._now
            self._forget_streams()

    def _forget_streams(self) -> None:
        """Free the streams that fell silent so long ago that no call can claim them any more."""
        idle = self.streams.idle(self._now - self.settings.hold - SLICE)
        held = np.array(sorted(self.correlator.claimed_streams()), dtype=np.int64)
        gone = np.setdiff1d(idle, held)
        self.streams.forget(gone)
        self._route[gone] = FREE
        for stream in gone.tolist():
            self._known.pop(stream, None)

    def _over(self, tracked: Tracked, running: bool) -> None:
        spool = self._spools.pop(tracked.call.number, None)
        if spool is None:
            return
        self._early.take(tracked.call.number)
        if spool.past is not None and not spool.begun:
            if not running:
                self._cycle.items.append(Forgotten(spool.past))
            return
        self._cycle.items.append(Over(tracked, self._now, spool.frames, running))
