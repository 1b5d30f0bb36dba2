"""Watches blocks of frames for a while and gathers what `diagnosis` judges. No I/O, no clock."""

from collections import Counter
from dataclasses import dataclass

from ..sip.call import Party
from .correlator import CallSettings
from .datagrams import Datagrams, Fate, RtpColumns
from .engine import Engine, Limits, Listener
from .gaps import Gaps
from .records import Records
from .sight import SightColumns
from .signalling import Heard
from .streams import Lookup
from .tracked import Tracked
from .traffic import SECOND, CallFact, PairFact, StreamFact, Traffic, counted
from .watch import Figures, StreamWatch

MAX_PAIRS = 4096
MAX_CALLS = 4096
"""Calls that are over and remembered; further ones are only counted."""
_UNREADABLE = (Fate.UNKNOWN_LINK, Fate.TOO_DEEP, Fate.BAD_IP, Fate.BAD_UDP)


@dataclass(frozen=True, slots=True)
class Picture:
    """How things stand, for a live display: packets seen, calls that are open, calls seen, streams that run."""

    packets: int
    open_calls: int
    calls: int
    streams: int


class Checkup(Listener):
    """Feed it blocks in the order of time; `traffic` may be asked for at any time.

    `own` are this machine's MAC addresses as numbers; `mtu` is the interface's, in bytes.
    """

    def __init__(
        self,
        *,
        sip_ports: frozenset[int] = frozenset({5060}),
        own: frozenset[int] = frozenset(),
        mtu: int = 1500,
        settings: CallSettings | None = None,
    ) -> None:
        self.engine = Engine(
            stash=lambda data: 0,  # nobody asks for it
            settings=settings or CallSettings(),
            limits=Limits(memory=32 << 20),
            sip_ports=sip_ports,
            listener=self,
            layers=SightColumns,
        )
        columns = self.engine.columns
        assert isinstance(columns, SightColumns)
        columns.own, columns.mtu = own, mtu
        self.columns = columns
        self.streams = StreamWatch(self.engine.book)
        self.gaps = Gaps()
        self._began: int | None = None
        self._now = 0
        self._methods: Counter[str] = Counter()
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._calls: list[CallFact] = []
        self._calls_seen = 0
        self._called: set[int] = set()

    # -- what comes in -------------------------------------------------------------------------------------------------

    def read(self, records: Records) -> None:
        """Take a block of frames."""
        self.feed(self.columns.read(records))

    def feed(self, block: Datagrams) -> None:
        """Take a block that `columns` has read."""
        if block.frames and self._began is None:
            self._began = block.first
        self._now = max(self._now, block.last)
        for ended in self.engine.feed(block):
            self._over(ended.tracked)

    def finish(self) -> None:
        """The watch is over."""
        self.gaps.finish()
        for ended in self.engine.finish():
            self._over(ended.tracked)

    def heard(self, heard: Heard) -> None:
        """A SIP message."""
        self._methods[heard.message.method or "response"] += 1
        pair = heard.source[0], heard.destination[0]
        if pair in self._pairs or len(self._pairs) < MAX_PAIRS:
            self._pairs[pair] += 1

    def streamed(self, rtp: RtpColumns, found: Lookup) -> None:
        """Media packets."""
        self.streams.take(rtp, found)
        self.gaps.take(rtp, found)

    def _over(self, tracked: Tracked) -> None:
        self._calls_seen += 1
        for claim in tracked.claims:
            figures = self.streams.of(claim.stream)
            if figures is not None:
                self._called.add(id(figures))
        if len(self._calls) < MAX_CALLS:
            self._calls.append(self._fact(tracked))

    # -- what is known -------------------------------------------------------------------------------------------------

    def picture(self) -> Picture:
        """Return how things stand."""
        running = sum(
            1 for figures in self.streams.all if figures.last >= self._now - SECOND and not figures.accidental
        )
        correlator = self.engine.correlator
        calls = self._calls_seen + len(correlator.closed) + len(correlator.open)
        return Picture(self.columns.sight.frames, len(correlator.open), calls, running)

    def traffic(self, seconds: float | None = None, now: int = 0) -> Traffic:
        """Return the figures so far. `seconds` is how long was watched; else from the first packet to the last.

        `now` is the time (ns), where it goes on without packets.
        """
        self._now = max(self._now, now) if self._began is not None else self._now
        sight, fates = self.columns.sight, self.columns.sight.fates
        began = self._began or 0
        waiting = [*self.engine.correlator.open.values(), *self.engine.correlator.closed]
        called = self._called | {
            id(figures)
            for tracked in waiting
            for claim in tracked.claims
            if (figures := self.streams.of(claim.stream)) is not None
        }
        return Traffic(
            seconds=(self._now - began) / SECOND if seconds is None else seconds,
            began=began,
            now=self._now,
            **{name: getattr(sight, name) for name in _SAME},
            vlans=dict(sight.vlans.most_common()),
            tunnels=counted(sight.tunnels),
            unreadable=sum(fates[fate] for fate in _UNREADABLE),
            ipsec=fates[Fate.ENCRYPTED_TUNNEL],
            dtls=fates[Fate.DTLS],
            zrtp=fates[Fate.ZRTP],
            printed=sight.copies.packets,
            copies=sight.copies.copies,
            methods=counted(self._methods),
            pairs=self._two_sided(),
            calls=(*self._calls, *map(self._fact, waiting)),
            streams=tuple(_stream(figures, id(figures) in called) for figures in self.streams.all),
            others=counted(Counter(self.columns.seen.others.values())),
            moments=len(self.gaps.moments),
            moment_packets=self.gaps.packets,
        )

    def _two_sided(self) -> tuple[PairFact, ...]:
        pairs = {(min(pair), max(pair)) for pair in self._pairs}
        return tuple(PairFact(pair, self._pairs[pair], self._pairs[pair[::-1]]) for pair in sorted(pairs))

    def _fact(self, tracked: Tracked) -> CallFact:
        packets = dict.fromkeys(Party, 0)
        for claim in tracked.claims:
            figures = self.streams.of(claim.stream)
            packets[claim.sender] += figures.packets if figures is not None else 0
        call = tracked.call
        until = call.ended if call.ended is not None else self._now
        answered = max(until - call.answered, 1) / SECOND if call.answered is not None else 0.0
        media = [spoken[-1][1] for spoken in tracked.media.values() if spoken]
        two_way = len(media) == 2 and all(one.direction == "sendrecv" and not one.held for one in media)
        return CallFact(packets, answered, tracked.encrypted and not tracked.keys.usable, two_way)


_SAME = (
    *("frames", "group", "own", "foreign", "tagged", "double_tagged"),
    *("snapped", "shortened", "large_udp", "large_tcp", "joined"),
)


def _stream(figures: Figures, called: bool) -> StreamFact:
    return StreamFact(
        figures.source,
        figures.destination,
        figures.packets,
        max(figures.lost, 0),
        figures.first,
        figures.last,
        called,
        figures.accidental,
    )
