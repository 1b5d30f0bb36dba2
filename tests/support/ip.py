"""IPv4 and IPv6 packets with UDP and TCP, built by hand from the RFCs, with right checksums.

Nothing of the recorder is used here: what the tests expect must come from elsewhere.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import pairwise

UDP = 17
TCP = 6
IPV6_FRAGMENT = 44

FIN, SYN, PSH, ACK = 0x01, 0x02, 0x08, 0x10


@dataclass(frozen=True, order=True)
class Endpoint:
    """An address and a port."""

    address: str
    port: int


@dataclass(frozen=True)
class Packet:
    """One IP packet (no link header) at a capture time in nanoseconds since 1970."""

    time_ns: int
    ip: bytes


def checksum(data: bytes) -> int:
    """The Internet checksum of `data` (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    rest = int.from_bytes(padded, "big") % 0xFFFF
    return 0xFFFF - rest if rest or not any(padded) else 0


def packet(source: str, target: str, protocol: int, payload: bytes, *, ttl: int = 64, ident: int = 0) -> bytes:
    """An IPv4 or IPv6 packet around `payload`; the version follows from the addresses."""
    from_, to = ip_address(source), ip_address(target)
    if from_.version == 6:
        return struct.pack("!IHBB", 0x60000000, len(payload), protocol, ttl) + from_.packed + to.packed + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), ident & 0xFFFF, 0x4000, ttl, protocol, 0)
    return _sealed(head + from_.packed + to.packed) + payload


def udp(source: Endpoint, target: Endpoint, payload: bytes, *, ttl: int = 64, ident: int = 0) -> bytes:
    """A UDP datagram in an IP packet."""
    length = 8 + len(payload)
    head = struct.pack("!HHHH", source.port, target.port, length, 0)
    check = checksum(_pseudo(source.address, target.address, UDP, length) + head + payload) or 0xFFFF
    datagram = head[:6] + struct.pack("!H", check) + payload
    return packet(source.address, target.address, UDP, datagram, ttl=ttl, ident=ident)


def tcp(source: Endpoint, target: Endpoint, seq: int, ack: int, flags: int, payload: bytes = b"") -> bytes:
    """A TCP segment in an IP packet."""
    numbers = (source.port, target.port, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF)
    head = struct.pack("!HHIIBBHHH", *numbers, 0x50, flags, 65535, 0, 0)
    check = checksum(_pseudo(source.address, target.address, TCP, len(head) + len(payload)) + head + payload)
    segment = head[:16] + struct.pack("!HH", check, 0) + payload
    return packet(source.address, target.address, TCP, segment)


def version(ip: bytes) -> int:
    """4 or 6."""
    return ip[0] >> 4


def with_other_ttl(ip: bytes, ttl: int) -> bytes:
    """The same packet as it looks one router further (TTL or hop limit changed)."""
    if version(ip) == 6:
        return ip[:7] + bytes([ttl]) + ip[8:]
    size = (ip[0] & 15) * 4
    return _sealed(ip[:8] + bytes([ttl]) + ip[9:size]) + ip[size:]


def with_options(ip: bytes) -> bytes:
    """The IPv4 packet with a router alert (RFC 2113) and padding, eight bytes of options in all."""
    total = struct.unpack_from("!H", ip, 2)[0] + 8
    options = bytes([0x94, 4, 0, 0, 1, 1, 1, 0])
    return _sealed(bytes([0x47, ip[1]]) + struct.pack("!H", total) + ip[4:20] + options) + ip[20:]


def with_extensions(ip: bytes) -> bytes:
    """The IPv6 packet with a hop-by-hop and a destination options header (RFC 8200, 4.3 and 4.6)."""
    upper = ip[6]
    extensions = bytes([60, 0, 1, 4, 0, 0, 0, 0]) + bytes([upper, 1, 1, 12]) + bytes(12)
    length = struct.pack("!H", len(ip) - 40 + len(extensions))
    return ip[:4] + length + b"\0" + ip[7:40] + extensions + ip[40:]


def fragments(ip: bytes, ident: int, size: int = 512) -> list[bytes]:
    """The packet in fragments with `size` payload bytes each (a multiple of 8); a small one stays whole."""
    head = 40 if version(ip) == 6 else (ip[0] & 15) * 4
    body = ip[head:]
    if len(body) <= size:
        return [ip]
    edges = [*range(0, len(body), size), len(body)]
    cut = _fragment6 if version(ip) == 6 else _fragment4
    return [cut(ip[:head], body[a:b], a, b < len(body), ident) for a, b in pairwise(edges)]


def _fragment4(head: bytes, part: bytes, offset: int, more: bool, ident: int) -> bytes:
    where = offset // 8 | (0x2000 if more else 0)
    changed = struct.pack("!HHH", len(head) + len(part), ident & 0xFFFF, where)
    return _sealed(head[:2] + changed + head[8:]) + part


def _fragment6(head: bytes, part: bytes, offset: int, more: bool, ident: int) -> bytes:
    extension = struct.pack("!BBHI", head[6], 0, offset | more, ident)
    return head[:4] + struct.pack("!HB", 8 + len(part), IPV6_FRAGMENT) + head[7:] + extension + part


def _sealed(head: bytes) -> bytes:
    blank = head[:10] + b"\0\0" + head[12:]
    return head[:10] + struct.pack("!H", checksum(blank)) + head[12:]


def _pseudo(source: str, target: str, protocol: int, length: int) -> bytes:
    from_, to = ip_address(source), ip_address(target)
    tail = struct.pack("!I3xB", length, protocol) if from_.version == 6 else struct.pack("!xBH", protocol, length)
    return from_.packed + to.packed + tail
