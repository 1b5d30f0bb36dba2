"""The slow path: SIP messages out of datagrams, fragments and TCP streams. No I/O."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..sip.framing import AnyFramer, framer_for, may_begin
from ..sip.message import Message, SipError, looks_like_sip, parse
from ..sip.websocket import WebSocketFramer
from .account import Account
from .addresses import address_key
from .columns import Columns
from .datagrams import Datagrams, Fate, RtpColumns, SlowPacket, in_time, join, tcp_flow_keys
from .gate import Gate
from .reassembly import Connection, Fragments, Stretch, TcpStreams, Whole
from .records import PADDING, Records
from .tls.secrets import Secrets
from .tls.streams import Said, TlsStreams

Endpoint = tuple[str, int]
Stash = Callable[[bytes], int]
"""Stores bytes that lie nowhere in the input in one piece; returns the position they can be fetched from."""

MAX_FRAMERS = 8192
MAX_FRAMED = 1 << 26
"""Bytes of messages that are not whole yet, in all; beyond it the connections that spoke longest ago are forgotten."""
_OVER_WEB = {"TCP": "WS", "TLS": "WSS"}
"""SIP over WebSocket (RFC 7118), by what carries that."""


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
            elif packet.fate not in (
                Fate.ZRTP,
                Fate.RTCP,
                Fate.DTLS,
            ):  # the message counts for one frame, the rest count here
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
        self.tls = TlsStreams(Secrets(), frozenset(), may_begin)
        self._tls_flows: dict[Connection, int] = {}
        self._streams = TcpStreams()
        self._framers: OrderedDict[Connection, AnyFramer] = OrderedDict()
        self._framed = 0
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
        known = connection in self._framers or isinstance(self._framers.get(_reverse(connection)), WebSocketFramer)
        stretches = self._streams.add(connection, packet.payload, packet.time)
        if self.tls.knows(connection) or any(self.tls.begins(stretch) for _, stretch in stretches):
            for way, stretch in stretches:
                yield from self._said(self.tls.take(way, stretch, packet.time))
            ours = self.tls.is_signalling(connection)
            self._account.packet(*(("signalling", "SIP over TLS") if ours else ("not_a_call", "TLS")))
            return
        if not known and not any(may_begin(stretch.data) for _, stretch in stretches):
            on_port = not self._sip_ports.isdisjoint((packet.source_port, packet.destination_port))
            self._account.packet(*(("signalling", "SIP over TCP") if on_port else ("not_a_call", "other TCP")))
            return
        self._account.packet("signalling", "SIP over TCP")
        yield from self._over_tcp(stretches, packet.time)

    def decrypt(self, secrets: Secrets, ports: frozenset[int]) -> None:
        """Read SIP over TLS too, as far as the secrets go. `ports` are those on which it is to be expected."""
        self.tls = TlsStreams(secrets, ports, may_begin)
        self._columns.follow_tls(secrets, ports)

    def recall_tls(self, told: Iterable[Mapping[str, Any]]) -> int:
        """Go on with TLS connections of an earlier run (`TlsStreams.remember`); return how many that are."""
        count = self.tls.recall(told)
        self.tell_columns()
        return count

    def _said(self, said: Iterable[Said]) -> Iterator[Heard]:
        """Yield the messages in what was decrypted."""
        for one in said:
            yield from self._over_tcp([(one.connection, one.stretch)], one.time, "TLS")

    def catch_up(self, now: int) -> Iterator[Heard]:
        """Yield the messages for which keys came since, each with the time (ns) at which it crossed the wire."""
        yield from self._said(self.tls.catch_up(now))
        self._note_tls()

    def _note_tls(self) -> None:
        for kind, count in self.tls.counts.items():
            self._account.notes[f"SIP over TLS: {kind}"] += count
        self.tls.counts.clear()

    def _over_tcp(
        self, stretches: list[tuple[Connection, Stretch]], time: int, transport: str = "TCP"
    ) -> Iterator[Heard]:
        for connection, stretch in stretches:
            for message in self._frame(connection, stretch):
                if self.gate is None or self.gate.admits(message.raw, time):
                    web = isinstance(self._framers[connection], WebSocketFramer)
                    over = _OVER_WEB[transport] if web else transport
                    yield Heard(message, time, connection[:2], connection[2:], over)
                else:
                    self._account.notes["SIP over TCP: flood"] += 1

    def _frame(self, connection: Connection, stretch: Stretch) -> Iterator[Message]:
        framer = self._framers.get(connection)
        if framer is None:
            if len(self._framers) >= MAX_FRAMERS:
                self._drop_framer()
            framer = self._framers[connection] = framer_for(stretch.data, self._framers.get(_reverse(connection)))
            self._remember(connection)
        self._framers.move_to_end(connection)
        before = framer.waiting
        if stretch.gap:
            framer.reset()
        messages = framer.feed(stretch.data)
        self._framed += framer.waiting - before
        while self._framed > MAX_FRAMED and len(self._framers) > 1:
            self._drop_framer()
        for found in messages:
            if isinstance(found, SipError):
                self._account.notes[f"SIP over TCP: {found.kind}"] += 1
            else:
                yield found

    def _drop_framer(self) -> None:
        self._framed -= self._framers.popitem(last=False)[1].waiting

    def _remember(self, connection: Connection) -> None:
        """Note that this connection carries SIP, whatever its ports."""
        flow = _flow(connection)
        if flow is None:
            return
        if len(self._sip_connections) >= MAX_FRAMERS:
            self._sip_connections.popitem(last=False)
        self._sip_connections[flow] = None
        self._told = False

    def tell_columns(self) -> None:
        """Have the columns know the connections that carry SIP, from the next block on."""
        if self._told and not self.tls.flows_changed:
            return
        if self.tls.flows_changed:
            known, self._tls_flows = self._tls_flows, {}
            for connection in self.tls.flows():
                self._tls_flows[connection] = known.get(connection) or _flow(connection) or 0
        self._told, self.tls.flows_changed = True, False
        self._columns.tcp_flows = np.array([*self._sip_connections, *self._tls_flows.values()], dtype=np.uint64)

    def finish(self, now: int) -> Iterator[Heard]:
        """Yield the messages that waited behind holes in TCP streams, and note the holes."""
        for connection, stretch in self._streams.finish():
            if self.tls.knows(connection):
                yield from self._said(self.tls.take(connection, stretch, now))
            else:
                yield from self._over_tcp([(connection, stretch)], now)
        self.tls.finish()
        self._note_tls()
        if self._streams.lost:
            self._account.notes["holes in SIP over TCP"] += self._streams.lost


def _reverse(connection: Connection) -> Connection:
    return connection[2], connection[3], connection[0], connection[1]


def _flow(connection: Connection) -> int | None:
    """Return what columns know a connection by, either direction; None if its addresses make no sense."""
    source, source_port, destination, destination_port = connection
    keys = address_key(source), address_key(destination)
    if None in keys:
        return None
    ports = np.array([source_port << 16 | destination_port], dtype=np.uint32)
    flow = tcp_flow_keys(np.array([keys[0]], dtype=np.uint64), np.array([keys[1]], dtype=np.uint64), ports)
    return int(flow[0])
