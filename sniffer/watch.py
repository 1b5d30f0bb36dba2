"""What `inspect` needs to know beyond the calls: every media stream in figures, and what else a capture holds. No I/O.

Figures are kept as the packets come, because the engine forgets streams that no call wants. All tables are bounded.
"""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ..rtp.timeline import MAX_DROPOUT, MAX_MISORDER
from ..sip.sdp import STATIC_FORMATS
from .addresses import AddressBook
from .columns import Block, Columns
from .datagrams import Datagrams, RtpColumns
from .peeling import Part
from .records import Ints, Records, gather
from .streams import Lookup

Endpoint = tuple[str, int]
MAX_FIGURES = 10_000
"""Streams whose figures are kept; the packets of further ones are only counted."""
MAX_PAIRS = 256
RECENT = 1024
"""How many sequence numbers back a packet is known for a repeated one."""
CLOSE = 100
"""A step in sequence numbers up to this is what RTP does; random numbers hardly ever make one."""
_PORTS = np.dtype([("source", ">u2"), ("destination", ">u2")])
OTHER_SIGNALLING = {5061: "SIP over TLS", 1720: "H.323", 2000: "SCCP (Skinny)"}
"""TCP ports of signalling that Tapdeck cannot read."""


@dataclass(frozen=True, slots=True)
class Use:
    """A call's share in a stream: the call's number, whose sound it is, for what it is used, how many packets."""

    call: int
    party: str
    use: str
    packets: int


@dataclass(slots=True)
class Figures:
    """One stream's figures. Times in ns; `lost` packets are numbers that never came, over all runs of numbers.

    `types` counts packets by payload type; `steady` of `steps` changes of the sequence number are as RTP makes them;
    `runs` counts how often the sender began its numbers anew; `jitter_ms` is None where the clock is not known.
    """

    source: Endpoint
    destination: Endpoint
    ssrc: int
    first: int
    last: int
    packets: int = 0
    distinct: int = 0
    steps: int = 0
    steady: int = 0
    runs: int = 1
    types: Counter[int] = field(default_factory=Counter)
    names: dict[int, str] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    jitter_ms: float | None = None
    _number: int = -1
    _stamp: int = 0
    _low: int = 0
    _high: int = 0
    _before: int = 0
    _recent: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    _late: tuple[float, int] = (0.0, 0)

    @property
    def expected(self) -> int:
        """Packets that the sequence numbers tell of."""
        return self._before + self._high - self._low + 1 if self.packets else 0

    @property
    def lost(self) -> int:
        """Packets that never came."""
        return self.expected - self.distinct

    @property
    def repeated(self) -> int:
        """Packets that came before: the mirror shows them twice, or the network doubles them."""
        return self.packets - self.distinct

    @property
    def seconds(self) -> float:
        """From the first to the last packet."""
        return (self.last - self.first) / 1e9

    @property
    def accidental(self) -> bool:
        """Whether the sequence numbers are no sequence: something else that looks like RTP."""
        return self.packets > 1 and self.steady * 2 < max(self.steps, 1)

    def add(self, rtp: RtpColumns) -> None:
        """Take the stream's packets of a block, in the order of time."""
        count = len(rtp)
        sequence = rtp.sequence.astype(np.int64)
        if not self.packets:
            self._number = self._low = self._high = int(sequence[0])
            self._high -= 1
        raw = np.concatenate(([self._number & 0xFFFF], sequence))
        steps = (np.diff(raw) + 0x8000 & 0xFFFF) - 0x8000
        numbers = self._number + np.cumsum(steps)
        self._count(steps if self.packets else steps[1:])
        self._jitter(rtp)
        cuts = np.nonzero((steps > MAX_DROPOUT) | (steps < -MAX_MISORDER))[0].tolist()
        for begin, end in zip([0, *cuts], [*cuts, count], strict=True):
            if end > begin:
                self._run(numbers[begin:end], begin in cuts)
        self._number = int(numbers[-1])
        for kind, number in zip(*np.unique(rtp.kind & 0x7F, return_counts=True), strict=True):
            self.types[int(kind)] += int(number)
        self.packets += count
        self.last = max(self.last, int(rtp.time[-1]))

    def _count(self, steps: Ints) -> None:
        moves = steps[steps != 0]
        self.steps += len(moves)
        self.steady += int(np.count_nonzero(np.abs(moves) <= CLOSE))

    def _run(self, numbers: Ints, anew: bool) -> None:
        """Take numbers that follow each other, `anew` if they do not follow those before."""
        if anew:
            self._before += self._high - self._low + 1
            self.runs += 1
            self._recent = self._recent[:0]
            self._low, self._high = int(numbers[0]), int(numbers[0]) - 1
        fresh = np.setdiff1d(numbers, self._recent)
        self.distinct += len(fresh)
        self._low, self._high = min(self._low, int(numbers.min())), max(self._high, int(numbers.max()))
        self._recent = np.concatenate((self._recent, fresh))[-RECENT:]

    def _jitter(self, rtp: RtpColumns) -> None:
        """Mean interarrival jitter (RFC 3550 section 6.4.1) of a payload type whose clock needs no SDP."""
        known = STATIC_FORMATS.get(int(rtp.kind[0]) & 0x7F)
        if known is None or len(rtp) < 2:
            return
        sound = (rtp.kind & 0x7F) == (rtp.kind[0] & 0x7F)
        step = (np.diff(rtp.stamp[sound].astype(np.int64)) + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        late = np.abs(np.diff(rtp.time[sound]) * 1e-6 - step * (1000.0 / known.rate))
        late = late[late < 1000.0]
        self._late = self._late[0] + float(late.sum()), self._late[1] + len(late)
        self.jitter_ms = self._late[0] / self._late[1] if self._late[1] else None


class StreamWatch:
    """The figures of the first `limit` streams, by the engine's stream number while it is in use."""

    def __init__(self, book: AddressBook, limit: int = MAX_FIGURES) -> None:
        self.all: list[Figures] = []
        self.more = Counter[str]()
        self._book = book
        self._limit = limit
        self._current: dict[int, Figures] = {}
        self._known: dict[tuple[int, int, int, int], Figures] = {}

    def take(self, rtp: RtpColumns, found: Lookup) -> None:
        """Take a block's packets; see `engine.Listener.streamed`."""
        for number in found.new:
            self._current.pop(number, None)
        new = set(found.new)
        order = np.argsort(found.numbers, kind="stable")
        numbers = found.numbers[order]
        edges = np.concatenate(([0], np.nonzero(np.diff(numbers))[0] + 1, [len(numbers)])).tolist()
        for begin, end in pairwise(edges):
            if end > begin and numbers[begin] >= 0:
                number = int(numbers[begin])
                self._add(number, rtp.take(order[begin:end]), number in new)

    def _add(self, number: int, rtp: RtpColumns, new: bool) -> None:
        figures = self._current.get(number)
        if figures is None:
            identity = int(rtp.source[0]), int(rtp.destination[0]), int(rtp.ports[0]), int(rtp.ssrc[0])
            figures = self._known.get(identity)  # the engine forgets a stream in a long pause
        if figures is None:
            if len(self.all) >= self._limit:
                self.more["streams"] += new
                self.more["packets"] += len(rtp)
                return
            figures = self._known[identity] = self._start(rtp)
            self.all.append(figures)
        self._current[number] = figures
        figures.add(rtp)

    def _start(self, rtp: RtpColumns) -> Figures:
        ports, first = int(rtp.ports[0]), int(rtp.time[0])
        source = self._book.text(int(rtp.source[0])), ports >> 16
        destination = self._book.text(int(rtp.destination[0])), ports & 0xFFFF
        return Figures(source, destination, int(rtp.ssrc[0]), first, first)

    def of(self, number: int) -> Figures | None:
        """Return the figures of a stream that the engine still knows by this number."""
        return self._current.get(number)


@dataclass(slots=True)
class Seen:
    """What a capture holds: frames by link type (LINKTYPE_* number), first and last time (ns), unreadable signalling.

    `others` maps the two hosts of a TCP connection to the kind of signalling its port stands for.
    """

    links: Counter[int] = field(default_factory=Counter)
    first: int | None = None
    last: int | None = None
    others: dict[tuple[str, str], str] = field(default_factory=dict)


class WatchedColumns(Columns):
    """Columns that note what they see (`engine.Engine.layers`)."""

    def __init__(self, *, sip_ports: frozenset[int] = frozenset({5060}), book: AddressBook | None = None) -> None:
        super().__init__(sip_ports=sip_ports, book=book)
        self.seen = Seen()

    def read(self, records: Records) -> Datagrams:
        """Peel all frames of a block, and note what is in it."""
        if len(records) and records.position:  # at 0 lie datagrams put together from fragments, seen before
            seen = self.seen
            for link, count in zip(*np.unique(records.link, return_counts=True), strict=True):
                seen.links[int(link)] += int(count)
            first, last = int(records.time.min()), int(records.time.max())
            seen.first = first if seen.first is None else min(seen.first, first)
            seen.last = last if seen.last is None else max(seen.last, last)
        return WatchedBlock(records, self, self.seen).datagrams()


class WatchedBlock(Block):
    """One block, whose connections are noted in `seen`."""

    def __init__(self, records: Records, columns: Columns, seen: Seen) -> None:
        super().__init__(records, columns.book, columns.sip_ports, columns.tcp_flows, columns.tls_ports)
        self.seen = seen

    def tcp(self, part: Part) -> None:
        """Note the hosts of connections whose signalling cannot be read."""
        whole = part.pick(part.end - part.at >= 20)
        ports = gather(self.data, whole.at, _PORTS)
        for port, kind in OTHER_SIGNALLING.items():
            talk = (ports["source"] == port) | (ports["destination"] == port)
            for row in np.nonzero(talk)[0].tolist() if talk.any() else ():
                hosts = sorted((self.book.text(int(whole.source[row])), self.book.text(int(whole.destination[row]))))
                if len(self.seen.others) < MAX_PAIRS:
                    self.seen.others.setdefault((hosts[0], hosts[1]), kind)
        super().tcp(part)
