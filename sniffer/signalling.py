"""The slow path: SIP messages out of datagrams, fragments and TCP streams. No I/O."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..sip.message import Framer, Message, SipError, looks_like_sip, may_begin_sip, parse
from .account import Account
from .addresses import address_key
from .columns import Columns
from .datagrams import Datagrams, Fate, RtpColumns, SlowPacket, in_time, join, tcp_flow_keys
from .gate import Gate
from .reassembly import Connection, Fragments, Stretch, TcpStreams, Whole
from .records import PADDING, Records

Endpoint = tuple[str, int]
Stash = Callable[[bytes], int]
"""Stores bytes that lie nowhere in the input in one piece; returns the position they can be fetched from."""

MAX_FRAMERS = 8192


@dataclass(frozen=True, slots=True)
class Heard:
    """One SIP message and how it crossed the wire."""

    message: Message
    time: int
    source: Endpoint
    destination: Endpoint
    transport: str


class Joiner:
    """Puts IP fragments together and runs the whole packets through the columns like any other."""

    def __init__(self, columns: Columns, account: Account, stash: Stash) -> None:
        self._columns = columns
        self._account = account
        self._stash = stash
        self._fragments = Fragments()

    def expand(self, block: Datagrams) -> Datagrams:
        """Return the block with what its fragments gave in their place."""
        if not any(packet.fate is Fate.FRAGMENT for packet in block.slow):
            return block
        slow: list[SlowPacket] = []
        rtp: list[RtpColumns] = [block.rtp]
        other: list[RtpColumns] = [block.other]
        for packet in block.slow:
            if packet.fate is not Fate.FRAGMENT:
                slow.append(packet)
                continue
            whole = self._fragments.add(packet.payload, packet.time) if not packet.cut else None
            if packet.cut:
                self._account.packet("malformed", "truncated fragment")
            elif whole is not None:
                inner = self._read(whole, packet.time)
                slow += inner.slow
                rtp.append(inner.rtp)
                other.append(inner.other)
        self._count()
        columns, others = (in_time(join([part for part in parts if len(part)])) for parts in (rtp, other))
        return Datagrams(columns, slow, block.fates, block.first, block.last, block.frames, block.cut, others)

    def _read(self, whole: Whole, time: int) -> Datagrams:
        data = np.frombuffer(whole.packet + bytes(PADDING), dtype=np.uint8)
        size = np.array([len(whole.packet)], dtype=np.int64)
        start, when = np.zeros(1, dtype=np.int64), np.array([time], dtype=np.int64)
        inner = self._columns.read(Records(data, start, size, size, when, np.array([101], dtype=np.uint16), 0))
        self._account.fates(inner.settled * whole.frames)
        for packet in inner.slow:
            if packet.fate is Fate.FRAGMENT:
                self._account.packet("malformed", "fragments in fragments", whole.frames)
            elif packet.fate not in (Fate.ZRTP, Fate.RTCP):  # the message counts for one frame, the rest count here
                self._account.packet("signalling", "fragments", whole.frames - 1)
        for columns in (inner.rtp, inner.other):
            if len(columns):
                columns.position[:] += self._stash(whole.packet)
                columns.frames[:] = min(whole.frames, 255)
        inner.slow = [packet for packet in inner.slow if packet.fate is not Fate.FRAGMENT]
        return inner

    def _count(self) -> None:
        """Count the fragments that were given up, and the mirrored ones."""
        fragments = self._fragments
        self._account.packet("duplicate", "mirrored fragments", fragments.copies)
        self._account.packet("malformed", "fragments without the rest", fragments.dropped)
        fragments.copies = fragments.dropped = 0

    @property
    def waiting(self) -> int:
        """Captured frames that wait for the rest of their datagram."""
        return self._fragments.waiting

    def finish(self) -> None:
        """Count the fragments whose datagram never became whole."""
        self._account.packet("malformed", "fragments without the rest", self._fragments.finish())


class Signalling:
    """Turns slow packets into SIP messages, and counts each packet by what it was. A `gate` may turn some away."""

    def __init__(self, columns: Columns, account: Account, sip_ports: frozenset[int]) -> None:
        self.gate: Gate | None = None
        self._columns = columns
        self._account = account
        self._sip_ports = sip_ports
        self._streams = TcpStreams()
        self._framers: OrderedDict[Connection, Framer] = OrderedDict()
        self._sip_connections: OrderedDict[int, None] = OrderedDict()
        self._told = True

    def listen_on(self, sip_ports: frozenset[int]) -> None:
        """Take these for the ports of SIP."""
        self._sip_ports = sip_ports

    def messages(self, packet: SlowPacket) -> Iterator[Heard]:
        """Yield the SIP messages that this packet completes."""
        if packet.fate is Fate.TEXT:
            yield from self._datagram(packet)
        elif packet.fate is Fate.TCP:
            yield from self._segment(packet)

    def _datagram(self, packet: SlowPacket) -> Iterator[Heard]:
        data = packet.payload
        if not data.strip(b"\r\n\0 "):
            self._account.packet("signalling", "SIP keep-alive")
            return
        if not looks_like_sip(data):
            self._account.packet("not_a_call", "other UDP")
            return
        if self.gate is not None and not self.gate.admits(data, packet.time):
            self._account.packet("overload_dropped", "flood of SIP")
            return
        try:
            message = parse(data)
        except SipError as error:
            self._account.packet("malformed", f"SIP: {error.kind}")
            return
        self._account.packet("signalling", "SIP")
        source, destination = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
        yield Heard(message, packet.time, source, destination, "UDP")

    def _segment(self, packet: SlowPacket) -> Iterator[Heard]:
        connection = (packet.source, packet.source_port, packet.destination, packet.destination_port)
        header = (packet.payload[12] >> 4) * 4
        if header < 20 or header > len(packet.payload):
            self._account.packet("malformed", "bad TCP header")
            return
        known = connection in self._framers
        stretches = self._streams.add(connection, packet.payload, packet.time)
        if not known and not any(may_begin_sip(stretch.data) for _, stretch in stretches):
            on_port = not self._sip_ports.isdisjoint((packet.source_port, packet.destination_port))
            self._account.packet(*(("signalling", "SIP over TCP") if on_port else ("not_a_call", "other TCP")))
            return
        self._account.packet("signalling", "SIP over TCP")
        yield from self._over_tcp(stretches, packet.time)

    def _over_tcp(self, stretches: list[tuple[Connection, Stretch]], time: int) -> Iterator[Heard]:
        for connection, stretch in stretches:
            for message in self._frame(connection, stretch):
                if self.gate is None or self.gate.admits(message.raw, time):
                    yield Heard(message, time, connection[:2], connection[2:], "TCP")
                else:
                    self._account.notes["SIP over TCP: flood"] += 1

    def _frame(self, connection: Connection, stretch: Stretch) -> Iterator[Message]:
        framer = self._framers.get(connection)
        if framer is None:
            if len(self._framers) >= MAX_FRAMERS:
                self._framers.popitem(last=False)
            framer = self._framers[connection] = Framer()
            self._remember(connection)
        self._framers.move_to_end(connection)
        if stretch.gap:
            framer.reset()
        for found in framer.feed(stretch.data):
            if isinstance(found, SipError):
                self._account.notes[f"SIP over TCP: {found.kind}"] += 1
            else:
                yield found

    def _remember(self, connection: Connection) -> None:
        """Note that this connection carries SIP, whatever its ports."""
        source, source_port, destination, destination_port = connection
        keys = address_key(source), address_key(destination)
        if None in keys:
            return
        ports = np.array([source_port << 16 | destination_port], dtype=np.uint32)
        flow = tcp_flow_keys(np.array([keys[0]], dtype=np.uint64), np.array([keys[1]], dtype=np.uint64), ports)
        if len(self._sip_connections) >= MAX_FRAMERS:
            self._sip_connections.popitem(last=False)
        self._sip_connections[int(flow[0])] = None
        self._told = False

    def tell_columns(self) -> None:
        """Have the columns know the connections that carry SIP, from the next block on."""
        if not self._told:
            self._told = True
            self._columns.tcp_flows = np.array(list(self._sip_connections), dtype=np.uint64)

    def finish(self, now: int) -> Iterator[Heard]:
        """Yield the messages that waited behind holes in TCP streams, and note the holes."""
        yield from self._over_tcp(self._streams.finish(), now)
        if self._streams.lost:
            self._account.notes["holes in SIP over TCP"] += self._streams.lost
