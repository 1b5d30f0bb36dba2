"""From datagrams to ended calls: the loop that joins all parts. No I/O, no clock: time is the packets' time."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..sip.link_headers import LINK_HEADERS
from ..sip.sdp import Format, Media
from .account import Account
from .addresses import AddressBook
from .columns import Columns
from .correlator import CallSettings, Correlator
from .datagrams import Datagrams, Fate, RtpColumns, SlowPacket, in_time, join, without_headers
from .dtls import Agreement, Handshakes
from .records import Ints
from .rows import Parking, RowStore, rows_of
from .selection import FAX, EndedCall, Track, select
from .signalling import Heard, Joiner, Signalling, Stash
from .streams import Lookup, StreamTable
from .tls.secrets import Secrets
from .tracked import FOREVER, SECOND, Tracked

SLICE = 10 * SECOND
"""The longest span of time handled in one step, in ns: a block of a quiet link may span hours."""


MAX_BESIDE = 500_000
"""Packets of a stream that is no RTP, in one direction, that a call may have: hours of fax."""
MAX_CLOSED = 1024
"""Calls that may wait to be given out."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the tables. `memory` is what the packet index may take, in bytes."""

    max_calls: int = 20_000
    max_streams: int = 65_536
    memory: int = 48 << 20


@dataclass(slots=True)
class Engine:
    """Feed it blocks of datagrams in the order of time; it gives back the calls that are over.

    `stash` keeps bytes that lie nowhere in the input in one piece, `parking` index rows that do not fit into memory;
    both are the caller's, because they do I/O. `layers` takes frames apart; a subclass may look on.
    `link_headers` (lower case) bear the same value on all legs of a call. With `secrets`, which the caller may add to
    at any time, SIP over TLS is read too; on `tls_ports` it is to be expected.
    """

    stash: Stash
    parking: Parking | None = None
    settings: CallSettings = field(default_factory=CallSettings)
    limits: Limits = field(default_factory=Limits)
    sip_ports: frozenset[int] = frozenset({5060})
    link_headers: tuple[str, ...] = LINK_HEADERS
    secrets: Secrets = field(default_factory=Secrets, repr=False)
    tls_ports: frozenset[int] = frozenset({5061})
    listener: "Listener | None" = None
    layers: type[Columns] = Columns
    account: Account = field(init=False, default_factory=Account)
    book: AddressBook = field(init=False, default_factory=AddressBook)
    columns: Columns = field(init=False)
    streams: StreamTable = field(init=False)
    correlator: Correlator = field(init=False)
    cut: int = field(init=False, default=0)
    _rows: RowStore = field(init=False)
    _joiner: Joiner = field(init=False)
    _signalling: Signalling = field(init=False)
    _handshakes: Handshakes = field(init=False, default_factory=Handshakes)
    _now: int = field(init=False, default=0)
    _slice: tuple[Ints, npt.NDArray[np.int32]] = field(init=False)
    _resumed: dict[int, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.columns = self.layers(sip_ports=self.sip_ports, book=self.book)
        self.streams = StreamTable(limit=self.limits.max_streams, admit=self._is_bound)
        self.correlator = Correlator(
            self.streams,
            self.settings,
            link_headers=self.link_headers,
            last_before=self._last_before,
            claimed=self._claimed,
            max_calls=self.limits.max_calls,
        )
        self._rows = RowStore(memory=self.limits.memory, parking=self.parking)
        self._joiner = Joiner(self.columns, self.account, self.stash)
        self._signalling = Signalling(self.columns, self.account, self.sip_ports)
        self._signalling.decrypt(self.secrets, self.tls_ports)

    def feed(self, block: Datagrams) -> Iterator[EndedCall]:
        """Take a block; yield the calls that ended, now and then, with all their packets."""
        self.account.frames(block.frames, block.settled)
        self.cut += block.cut
        block = self._joiner.expand(block)
        self._catch_up()
        for piece in _slices(block):
            self._step(piece)
        self._signalling.tell_columns()
        if block.last > self._now:
            self._now = block.last
            self.correlator.advance(block.last)
        if self._is_due():
            yield from self._harvest()

    def _catch_up(self) -> None:
        """Hear what was said over TLS before its keys came."""
        self._hear_all(self._signalling.catch_up(self._now), self._now)

    def _is_due(self) -> bool:
        """Tell whether it is time to give out calls."""
        crowded = self.streams.live * 4 >= self.limits.max_streams * 3 or len(self.correlator.closed) >= MAX_CLOSED
        return self._rows.full or crowded

    def finish(self, reason: str = "end of input") -> Iterator[EndedCall]:
        """The input is over: yield all calls that are left, and close the books. `reason` is why open calls end."""
        self._joiner.finish()
        for heard in self._signalling.finish(self._now):
            self._hear(heard)
        self.correlator.finish(self._now, reason)
        yield from self._harvest()
        self.account.packet("not_a_call", "RTP of no call", self._rows.finish())

    def _step(self, block: Datagrams) -> None:
        """Handle one slice: streams and messages in the order of time, then the clock."""
        self.correlator.advance(block.first)
        block = self._unmasked(block)
        found = self.streams.look_up(block.rtp)
        if self.listener is not None:
            self.listener.streamed(block.rtp, found)
        self._slice = block.rtp.time, found.numbers
        waiting = self._begun(block, found)
        waiting.sort(reverse=True)  # the earliest is the last
        for packet in block.slow:
            while waiting and waiting[-1][0] <= packet.time:
                self._start(waiting.pop())
            self._slow(packet)
        while waiting:
            self._start(waiting.pop())
        self._seen(block.rtp, found)
        self._store(block, found.numbers)
        if len(block.other):
            self._beside(block)
        self._now = block.last
        self.correlator.advance(block.last)

    def _unmasked(self, block: Datagrams) -> Datagrams:
        """Tell a long fax from RTP, which it looks like when its sequence numbers have come to 0x8000.

        It is one if the same ends have just exchanged packets of a fax, SDP says so, and no RTP stream runs there that
        it could be of.
        """
        rows = np.nonzero(self.correlator.disguised(block.rtp))[0]
        if len(rows) == 0:
            return block
        seen = block.rtp.take(rows)
        fax = without_headers(seen)
        known = self.streams.known(fax, other=True)
        sure = (known >= 0) & (self.streams.known(seen) < 0)
        sure[sure] = fax.time[sure] - self.streams.rows["last"][known[sure]] <= SLICE
        rest = np.ones(len(block.rtp), dtype=bool)
        rest[rows[sure]] = False
        other = in_time(join([block.other, fax.take(sure)]))
        return replace(block, rtp=block.rtp.take(rest), other=other)

    def _beside(self, block: Datagrams) -> None:
        """Take the datagrams that are no RTP and yet a call's: SDP named an end of theirs for something else."""
        mine = self.correlator.beside(block.other)
        self.account.packet("not_a_call", "other UDP", int(block.other.frames[~mine].sum(dtype=np.int64)))
        if not mine.any():
            return
        block = replace(block, rtp=block.other.take(mine))
        found = self.streams.look_up(block.rtp, other=True)
        self._slice = block.rtp.time, found.numbers
        for begun in sorted(self._begun(block, found)):
            self._start(begun)
        known = found.numbers >= 0
        full = np.zeros(len(known), dtype=bool)
        full[known] = self.streams.rows["packets"][found.numbers[known]] >= MAX_BESIDE
        self._seen(block.rtp, found)
        self.account.packet("overload_dropped", "fax without end", int(block.rtp.frames[full].sum(dtype=np.int64)))
        self._store(replace(block, rtp=block.rtp.take(~full)), found.numbers[~full])

    def _begun(self, block: Datagrams, found: Lookup) -> list[tuple[int, int]]:
        """Return (time, stream) of the streams that begin in this slice, or resume after longer than media is held."""
        rows, numbers = self.streams.rows, found.numbers
        begun = list(zip(rows["first"][found.new].tolist(), found.new, strict=True)) if found.new else []
        known = numbers >= 0
        self._resumed = {}
        resumed = known & (block.rtp.time - rows["last"][numbers] > self.settings.hold)
        if resumed.any():
            streams, first = np.unique(numbers[resumed], return_index=True)
            times = block.rtp.time[resumed][first]
            self._resumed = dict(zip(streams.tolist(), rows["last"][streams].tolist(), strict=True))
            rows["last"][streams] = times
            begun += zip(times.tolist(), streams.tolist(), strict=True)
        return begun

    def _seen(self, rtp: RtpColumns, found: Lookup) -> None:
        """Note of streams what came."""
        self.streams.note(rtp, found.numbers)
        self.correlator.prints.note(rtp.prints, found.numbers, found.new, len(self.streams.rows))

    def _start(self, begun: tuple[int, int]) -> None:
        self.correlator.stream_started(begun[1], begun[0])

    def _claimed(self, stream: int) -> None:
        """Remember the addresses of a stream that a call holds, whatever else is forgotten."""
        row = self.streams.rows[stream]
        self.book.keep(int(row["source"]))
        self.book.keep(int(row["destination"]))

    def _is_bound(self, source: int, destination: int, ports: int) -> bool:
        """Tell whether an open call knows one of these ends."""
        return self.correlator.knows((source, ports >> 16), (destination, ports & 0xFFFF))

    def _last_before(self, stream: int, time: int) -> int:
        """Return when a stream's last packet before `time` came, in ns."""
        times, numbers = self._slice
        mine = times[numbers == stream]
        earlier = int(np.searchsorted(mine, time))
        if earlier:
            return int(mine[earlier - 1])
        return self._resumed.get(stream, int(self.streams.rows["last"][stream]))

    def _store(self, block: Datagrams, numbers: npt.NDArray[np.int32]) -> None:
        rtp, numbers = self._admitted(block.rtp, numbers)
        if len(rtp):
            self._rows.add(rows_of(rtp, numbers))

    def _admitted(self, rtp: RtpColumns, numbers: npt.NDArray[np.int32]) -> tuple[RtpColumns, npt.NDArray[np.int32]]:
        """Return the rows whose stream found room in the table, and their numbers."""
        refused = numbers < 0
        if not refused.any():
            return rtp, numbers
        self.account.packet("overload_dropped", "stream table full", int(rtp.frames[refused].sum(dtype=np.int64)))
        return rtp.take(~refused), numbers[~refused]

    def _slow(self, packet: SlowPacket) -> None:
        if packet.fate is Fate.ZRTP:
            if packet.payload[16:24] in (b"Conf2ACK", b"Confirm2"):
                self._secured(packet)
            return
        if packet.fate is Fate.RTCP:
            self._reported(packet)
            return
        if packet.fate is Fate.DTLS:
            self._shook_hands(packet)
            return
        self._hear_all(self._signalling.messages(packet), packet.time)

    def _hear_all(self, said: Iterable[Heard], now: int) -> None:
        """Hear messages at `now` (ns). Some may have crossed the wire before, when nobody could read them yet."""
        for heard in said:
            self.correlator.present = now
            self._hear(heard)
            self.correlator.present = 0

    def _shook_hands(self, packet: SlowPacket) -> Agreement | None:
        return self._handshakes.add(packet)

    def _reported(self, packet: SlowPacket) -> list[Tracked]:
        return self.correlator.reporting.heard(packet)

    def _secured(self, packet: SlowPacket) -> list[Tracked]:
        source, destination = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
        return self.correlator.secured(source, destination, packet.time)

    def _hear(self, heard: Heard) -> None:
        if self.listener is not None:
            self.listener.heard(heard)
        events = self.correlator.dialogs.handle(heard.message, heard.time, heard.source, heard.destination)
        self.correlator.happened(events)

    def _harvest(self) -> Iterator[EndedCall]:
        """Give out the closed calls, and forget what nobody can want any more."""
        self._rows.roll()
        for tracked in self.correlator.give_out():
            yield self._collect(tracked)
            tracked.forget()
        held = np.array(sorted(self.correlator.claimed_streams()), dtype=np.int64)
        before = self._now - self.settings.hold - SLICE
        gone = np.setdiff1d(self.streams.idle(before), held, assume_unique=True)
        self.account.packet("not_a_call", "RTP of no call", self._rows.release(held, before, gone))
        self.streams.forget(gone)

    def _collect(self, tracked: Tracked) -> EndedCall:
        tracks = []
        for claim in sorted(tracked.claims, key=lambda one: (one.since, one.stream)):
            rows, fresh = self._rows.take(claim.stream, claim.since, claim.until)
            if len(rows) == 0:
                continue
            stream = self.streams.rows[claim.stream]
            ports = int(stream["ports"])
            source, destination = (int(stream["source"]), ports >> 16), (int(stream["destination"]), ports & 0xFFFF)
            media = claim.match.media
            tracks.append(
                Track(
                    claim,
                    claim.sender,
                    source,
                    destination,
                    int(stream["ssrc"]),
                    rows,
                    fresh,
                    claim.match.kind if rows["head"].any() else FAX,
                    [(time, {**_formats_of(media), **known}) for time, known in tracked.formats(claim.sender)],
                    tracked.secured.get((source, destination)),
                )
            )
        agreements = self._handshakes.of((track.source, track.destination) for track in tracks)
        ended = EndedCall(
            tracked, tracks, keys=tracked.keys, agreements=agreements, secrets=self.secrets, reports=tracked.reports
        )
        select(ended)
        return ended


def _formats_of(media: Media | None) -> Mapping[int, Format]:
    """What the stream's own m-line says of payload types: a call may have several with sound."""
    return media.formats if media is not None else {}


class Listener:
    """Somebody who wants to know what the engine hears; the base class wants nothing."""

    def heard(self, heard: Heard) -> None:
        """A SIP message."""

    def streamed(self, rtp: RtpColumns, found: Lookup) -> None:
        """Media packets in the order of time, and their streams' numbers; those in `found.new` begin new streams."""


def _slices(block: Datagrams) -> Iterator[Datagrams]:
    """Cut a block into spans of at most `SLICE`, leaving out the empty ones."""
    if block.last - block.first <= SLICE:
        yield block
        return
    columns = block.rtp, block.other
    edges = [edge for rows in columns for edge in np.unique((rows.time - block.first) // SLICE).tolist()]
    edges = sorted({*edges, *((packet.time - block.first) // SLICE for packet in block.slow)})
    nothing = np.zeros_like(block.fates)
    at = 0
    for edge in edges:
        begin, end = block.first + edge * SLICE, block.first + (edge + 1) * SLICE
        slow = []
        while at < len(block.slow) and block.slow[at].time < end:
            slow.append(block.slow[at])
            at += 1
        rtp, other = (rows.take(slice(*np.searchsorted(rows.time, (begin, end)).tolist())) for rows in columns)
        yield Datagrams(rtp, slow, nothing, begin, min(end, block.last), 0, other=other)


__all__ = ["FOREVER", "CallSettings", "Engine", "Limits", "Listener"]
