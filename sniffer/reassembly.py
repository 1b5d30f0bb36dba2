"""IP fragments and TCP streams put together again: the slow path, bounded in memory, no I/O."""

import ipaddress
import struct
from collections import OrderedDict
from dataclasses import dataclass, field

MAX_DATAGRAM = 65_535
MAX_FRAGMENTS = 255
COPY_NS = 1_000_000_000
"""Fragments of a datagram that was whole so shortly before are copies that a mirror made."""
FRAGMENT_TIMEOUT = 30_000_000_000
"""How long an unfinished datagram is waited for, in ns (RFC 791 suggests 15 s, RFC 8200 60 s)."""


@dataclass(frozen=True, slots=True)
class Whole:
    """An IP packet joined from `frames` captured fragments: a plain header and the payload."""

    packet: bytes
    frames: int


@dataclass(slots=True)
class _Pieces:
    first_seen: int
    pieces: list[tuple[int, bytes]] = field(default_factory=list)  # in order, none over another
    frames: int = 0
    total: int = -1

    def add(self, offset: int, data: bytes) -> None:
        """Keep the bytes that are new."""
        end = offset + len(data)
        fresh: list[tuple[int, bytes]] = []
        for start, piece in self.pieces:
            if offset < min(start, end):
                fresh.append((offset, data[: min(start, end) - offset]))
            covered = min(max(start + len(piece), offset), end)
            data, offset = data[covered - offset :], covered
        if data:
            fresh.append((offset, data))
        if fresh:
            self.pieces = sorted(self.pieces + fresh)


class Fragments:
    """Joins IPv4 and IPv6 fragments (RFC 791, RFC 8200 section 4.5).

    Copies and overlaps keep the bytes that came first. `dropped` counts frames whose datagram never became whole,
    `copies`
    those of one that had just become so.
    """

    def __init__(self, *, limit: int = 4096) -> None:
        self.dropped = 0
        self.copies = 0
        self._limit = limit
        self._table: OrderedDict[tuple[str, str, int, int], _Pieces] = OrderedDict()
        self._done: OrderedDict[tuple[str, str, int, int], int] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Frames that wait for the rest of their datagram."""
        return sum(pieces.frames for pieces in self._table.values())

    def add(self, packet: bytes, time: int) -> Whole | None:
        """Take one fragment, from its IP header on; return the datagram if it is whole now."""
        parsed = _fragment(packet)
        if parsed is None:
            self.dropped += 1
            return None
        key, offset, more, data = parsed
        self._forget(time)
        if time - self._done.get(key, -COPY_NS) < COPY_NS:
            self.copies += 1
            return None
        entry = self._table.get(key)
        if entry is None:
            if len(self._table) >= self._limit:
                self.dropped += self._table.popitem(last=False)[1].frames
            entry = self._table[key] = _Pieces(first_seen=time)
        entry.frames += 1
        if offset + len(data) > MAX_DATAGRAM or entry.frames > MAX_FRAGMENTS:
            self.dropped += self._table.pop(key).frames
            return None
        entry.add(offset, data)
        if not more:
            entry.total = offset + len(data)
        payload = _joined(entry)
        if payload is None:
            return None
        del self._table[key]
        self._done[key] = time
        if len(self._done) > self._limit:
            self._done.popitem(last=False)
        return Whole(_plain_packet(key, payload), entry.frames)

    def finish(self) -> int:
        """Forget all that waits; return how many frames that was."""
        waiting = self.waiting
        self._table.clear()
        return waiting

    def _forget(self, now: int) -> None:
        while self._table:
            key, entry = next(iter(self._table.items()))
            if now - entry.first_seen < FRAGMENT_TIMEOUT:
                return
            self.dropped += entry.frames
            del self._table[key]


def _fragment(packet: bytes) -> tuple[tuple[str, str, int, int], int, bool, bytes] | None:
    """Split a fragment into its key, offset in bytes, whether more follow, and data. None if it makes no sense."""
    if len(packet) < 20:
        return None
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        size, number, flags = struct.unpack_from(">HHH", packet, 2)
        data = packet[header : max(size, header)]
        key = (str(ipaddress.IPv4Address(packet[12:16])), str(ipaddress.IPv4Address(packet[16:20])), packet[9], number)
        return key, (flags & 0x1FFF) * 8, bool(flags & 0x2000), data
    if len(packet) < 48:
        return None
    following, place = packet[6], 40
    while following in (0, 43, 60, 135):
        if place + 8 > len(packet):
            return None
        following, place = packet[place], place + (packet[place + 1] + 1) * 8
    if following != 44 or place + 8 > len(packet):
        return None
    flags, number = struct.unpack_from(">HI", packet, place + 2)
    source, destination = ipaddress.IPv6Address(packet[8:24]), ipaddress.IPv6Address(packet[24:40])
    key = (str(source), str(destination), packet[place], number)
    return key, flags & 0xFFF8, bool(flags & 1), packet[place + 8 :]


def _plain_packet(key: tuple[str, str, int, int], payload: bytes) -> bytes:
    """Return an unfragmented packet; its length field is 0, which readers take as "as long as it is"."""
    source, destination, protocol, _ = key
    first, second = ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed
    if len(first) == 4:
        return struct.pack(">BBHHHBBH", 0x45, 0, 0, 0, 0, 64, protocol, 0) + first + second + payload
    return struct.pack(">IHBB", 0x60000000, 0, protocol, 64) + first + second + payload


def _joined(entry: _Pieces) -> bytes | None:
    if entry.total < 0:
        return None
    whole = bytearray()
    for offset, piece in entry.pieces:
        if offset > len(whole):
            return None
        whole += piece
    return bytes(whole[: entry.total]) if len(whole) >= entry.total else None


Connection = tuple[str, int, str, int]
MAX_AHEAD = 1 << 18
"""Bytes that may wait behind a hole of one direction."""
MAX_WAITING = 1 << 25
"""Bytes that may wait behind holes in all."""
_FAR = 1 << 24


@dataclass(slots=True)
class _Direction:
    expected: int | None = None
    ahead: dict[int, bytes] = field(default_factory=dict)
    ahead_size: int = 0


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes of one direction of a connection, in order; `gap` says that bytes before them were never captured."""

    data: bytes
    gap: bool


class TcpStreams:
    """Puts the segments of TCP connections in order (RFC 9293 section 3.4), one direction at a time.

    Retransmissions and mirrored copies are dropped. A hole is given up when its receiver acknowledges bytes behind it
    (the mirror missed them, nobody will send them again), or when too much waits; the stream then goes on with `gap`
    set. `lost` counts such holes.
    """

    def __init__(self, *, limit: int = 8192) -> None:
        self.lost = 0
        self._limit = limit
        self._waiting = 0
        self._table: OrderedDict[Connection, _Direction] = OrderedDict()

    def add(self, connection: Connection, segment: bytes, time: int) -> list[tuple[Connection, Stretch]]:
        """Take one segment, from the TCP header on; return what is in order now, perhaps of the other direction too."""
        sequence, acknowledged, header, flags = struct.unpack_from(">IIBB", segment, 4)
        data = segment[(header >> 4) * 4 :]
        other = (connection[2], connection[3], connection[0], connection[1])
        found = [(other, stretch) for stretch in self._acknowledge(other, acknowledged)] if flags & 0x10 else []
        return found + [(connection, stretch) for stretch in self._take(connection, sequence, flags, data)]

    def _acknowledge(self, connection: Connection, number: int) -> list[Stretch]:
        state = self._table.get(connection)
        if state is None or not state.ahead or state.expected is None:
            return []
        first = min(state.ahead, key=lambda one: _distance(state.expected or 0, one))
        return self._skip_hole(state) if _distance(first, number) > 0 else []

    def _take(self, connection: Connection, sequence: int, flags: int, data: bytes) -> list[Stretch]:
        state = self._table.get(connection)
        if state is None or flags & 0x02:  # SYN: a new connection, perhaps on the ports of an old one
            state = self._start(connection)
        self._table.move_to_end(connection)
        if flags & 0x02:
            state.expected = (sequence + 1) & 0xFFFFFFFF
            return []
        if flags & 0x04:
            self._forget(connection)
            return []
        return self._place(state, sequence, data) if data else []

    def _start(self, connection: Connection) -> _Direction:
        self._forget(connection)
        if len(self._table) >= self._limit:
            self._forget(next(iter(self._table)))
        state = self._table[connection] = _Direction()
        return state

    def _forget(self, connection: Connection) -> None:
        state = self._table.pop(connection, None)
        if state is not None:
            self._waiting -= state.ahead_size

    def _place(self, state: _Direction, sequence: int, data: bytes) -> list[Stretch]:
        gap = state.expected is None
        if state.expected is None:
            state.expected = sequence
        ahead = _distance(state.expected, sequence)
        if abs(ahead) > _FAR:  # not this stream's future or past: its ports were used again
            self._waiting -= state.ahead_size
            state.expected, state.ahead, state.ahead_size, gap, ahead = sequence, {}, 0, True, 0
        if ahead > 0:
            known = len(state.ahead.get(sequence, b""))
            if len(data) > known:
                state.ahead[sequence] = data
                state.ahead_size += len(data) - known
                self._waiting += len(data) - known
            too_much = state.ahead_size > MAX_AHEAD or len(state.ahead) > 512 or self._waiting > MAX_WAITING
            return self._skip_hole(state) if too_much else []
        fresh = data[-ahead:] if -ahead < len(data) else b""
        if not fresh:
            return []
        state.expected = (state.expected + len(fresh)) & 0xFFFFFFFF
        return [Stretch(fresh, gap), *self._follow(state)]

    def _follow(self, state: _Direction) -> list[Stretch]:
        """Take what waited and now fits."""
        out: list[Stretch] = []
        while state.ahead and state.expected is not None:
            sequence = min(state.ahead, key=lambda number: _distance(state.expected or 0, number))
            ahead = _distance(state.expected, sequence)
            if ahead > 0:
                break
            data = state.ahead.pop(sequence)
            state.ahead_size -= len(data)
            self._waiting -= len(data)
            fresh = data[-ahead:] if ahead else data
            if fresh and -ahead < len(data):
                state.expected = (state.expected + len(fresh)) & 0xFFFFFFFF
                out.append(Stretch(fresh, False))
        return out

    def _skip_hole(self, state: _Direction) -> list[Stretch]:
        self.lost += 1
        state.expected = min(state.ahead, key=lambda number: _distance(state.expected or 0, number))
        first, *rest = self._follow(state)
        return [Stretch(first.data, True), *rest]

    def finish(self) -> list[tuple[Connection, Stretch]]:
        """Give out what still waits behind holes, at the end of the input."""
        out = []
        for connection, state in self._table.items():
            while state.ahead:
                out += [(connection, stretch) for stretch in self._skip_hole(state)]
        return out


def _distance(start: int, end: int) -> int:
    """Return end - start of 32-bit sequence numbers, signed."""
    return ((end - start + 0x80000000) & 0xFFFFFFFF) - 0x80000000
