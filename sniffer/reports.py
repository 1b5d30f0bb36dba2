"""What RTCP says of a call's streams, gathered as it crosses the tap. No I/O.

The tap stands between the parties. A sender report of one passes it, and some time later the answer of the other, who
says how long it had the report: the rest of that time both were on their way between the tap and the one who answered.
So each side's reports tell how far the other side is away, there and back. All this is told apart by the ends between
which it was seen: behind a relay the same report may pass the tap again.
"""

from array import array
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..rtp.rtcp import Reception, Report, VoipMetrics, parse
from ..sip.sdp import Media
from .addresses import address_key
from .bindings import Bindings, EndpointKey
from .datagrams import SlowPacket

if TYPE_CHECKING:
    from .tracked import Tracked

Ends = tuple[EndpointKey, EndpointKey]
"""Source and destination (address key and port) of a stream that a report belongs to."""

MAX_STAMPS = 32
"""Stamps of one sender that may still be answered."""
MAX_FLOWS = 32
"""Streams of a call of which reports are gathered, those that come first."""
MAX_TRIPS = 16_384
"""Measurements that are kept of each."""
MAX_REPORTS = 32_768
"""Datagrams of a call that are looked at: 45 hours of both sides' reports, one every 10 s."""
LONGEST_S = 60.0
"""A longer way is none: a stamp of another life of the sender."""
EARLY_S = 0.005
"""So much sooner than it can have come an answer may be, in s: the clocks of phones are rough."""
COPY_NS = 100_000_000
"""A datagram that says the same so soon after, between the same ends, is the mirror's copy."""
MAX_ELSEWHERE = 65_536
MAX_SHARED = 8
"""Calls that one report is about, at most: legs of which each says that these are its ends."""


@dataclass(slots=True)
class Trips:
    """How long packets were on their way from the tap to the receiver of a stream and back: when it was measured (ns),
    and for how long (ms).
    """

    time: "array[int]" = field(default_factory=lambda: array("q"))
    ms: "array[float]" = field(default_factory=lambda: array("d"))
    last: tuple[int, float] = (0, -1.0)


@dataclass(slots=True)
class Reports:
    """A call's reports. Streams are named by their ends and SSRC."""

    trips: dict[tuple[Ends, int], Trips] = field(default_factory=dict)
    receptions: dict[tuple[Ends, int], tuple[int, Reception]] = field(default_factory=dict)
    voip: dict[tuple[Ends, int], VoipMetrics] = field(default_factory=dict)
    count: int = 0
    _stamps: dict[tuple[Ends, int], deque[tuple[int, int]]] = field(default_factory=dict)
    _last: dict[Ends, tuple[int, Report]] = field(default_factory=dict)

    def add(self, ends: Ends, time: int, report: Report) -> None:
        """Take what was said at `time` (ns) by the sender of the stream from `ends`' source to its destination."""
        before, same = self._last.get(ends, (0, None))
        if same == report and time - before < COPY_NS:
            return
        if ends in self._last or len(self._last) < MAX_FLOWS:
            self._last[ends] = time, report
        back = ends[1], ends[0]
        for sent in report.sent:
            self._note(ends, sent.ssrc, sent.stamp, time)
        for answer in report.answers:
            self._answered(back, answer.source, answer.stamp, time, answer.late)
        for reception in report.receptions:
            number = self.receptions.get((back, reception.source), (0, reception))[0]
            if number or len(self.receptions) < MAX_FLOWS:
                self.receptions[back, reception.source] = number + 1, reception
        for metrics in report.voip:
            if (back, metrics.source) in self.voip or len(self.voip) < MAX_FLOWS:
                self.voip[back, metrics.source] = metrics

    def _note(self, ends: Ends, ssrc: int, stamp: int, time: int) -> None:
        known = self._stamps.get((ends, ssrc))
        if known is None:
            if len(self._stamps) >= MAX_FLOWS:
                return
            known = self._stamps[ends, ssrc] = deque(maxlen=MAX_STAMPS)
        if all(stamp != other for other, _ in known):  # a mirror may show it twice
            known.append((stamp, time))

    def _answered(self, ends: Ends, ssrc: int, stamp: int, time: int, late: float) -> None:
        sent = next((when for other, when in self._stamps.get((ends, ssrc), ()) if other == stamp), None)
        if sent is None:
            return
        took = (time - sent) / 1e9 - late
        trips = self.trips.setdefault((ends, ssrc), Trips())
        if not -EARLY_S <= took <= LONGEST_S or (stamp, late) == trips.last or len(trips.ms) >= MAX_TRIPS:
            return
        trips.last = stamp, late
        trips.time.append(time)
        trips.ms.append(max(took, 0.0) * 1000)


class Reporting:
    """Finds the calls that RTCP is about. SDP may name other endpoints for it than the usual ones (RFC 3605)."""

    def __init__(self, bindings: Bindings) -> None:
        self._bindings = bindings
        self._elsewhere: OrderedDict[EndpointKey, EndpointKey] = OrderedDict()

    def told(self, media: Media) -> None:
        """Take what an m-line says of where RTCP goes."""
        if media.rtcp is None:
            return
        address, own = address_key(media.rtcp[0]), address_key(media.address)
        if address is None or own is None or (address, media.rtcp[1]) == (own, media.port):
            return
        self._elsewhere[address, media.rtcp[1]] = own, media.port
        self._elsewhere.move_to_end((address, media.rtcp[1]))
        if len(self._elsewhere) > MAX_ELSEWHERE:
            self._elsewhere.popitem(last=False)

    def heard(self, packet: SlowPacket) -> "list[Tracked]":
        """RTCP crosses the tap: on the media's own ports (RFC 5761), on those that SDP said, or on the next ones.
        Return the calls that it is about, if they have room for it.
        """
        source, destination = address_key(packet.source), address_key(packet.destination)
        report = parse(packet.payload)
        if source is None or destination is None or report is None:
            return []
        own = (source, packet.source_port), (destination, packet.destination_port)
        above = self._media_end(own[0]), self._media_end(own[1])
        found = [(match, ends) for ends in (own, above) for match in self._bindings.matches(*ends)]
        going = [entry for entry in found if entry[0].tracked.call.ended is None] or found
        best = max((match.score for match, _ in going), default=0)
        calls: list[Tracked] = []
        for match, ends in [entry for entry in going if entry[0].score == best][:MAX_SHARED]:
            reports = match.tracked.reports
            if reports.count < MAX_REPORTS:
                reports.count += 1
                reports.add(ends, packet.time, report)
                calls.append(match.tracked)
        return calls

    def _media_end(self, end: EndpointKey) -> EndpointKey:
        """Return the RTP endpoint of an RTCP endpoint that is not its own."""
        return self._elsewhere.get(end, (end[0], end[1] - 1))
