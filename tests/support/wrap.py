"""The wrappings in which a mirror port, a tunnel or a capture tool shows an IP packet.

`WRAPPINGS` maps a name to a `Wrapping`: the capture file's link type and what is put around each packet.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from . import ip
from .ip import Endpoint

ETHERNET, NULL, RAW_IP, LINUX_SLL, LOOP, LINUX_SLL2 = 1, 0, 101, 113, 108, 276

MIRROR_SOURCE, MIRROR_TARGET = "198.51.100.1", "198.51.100.2"
GRE = 47


@dataclass(frozen=True)
class Wrapping:
    """A link type (as in a pcap header) and the function that turns an IP packet into a frame."""

    link_type: int
    frame: Callable[[bytes], bytes]


def ethernet(packet: bytes, *, mac: int = 1, tags: bytes = b"") -> bytes:
    """An Ethernet frame, padded to the 60 bytes a card delivers; `tags` stand before the EtherType."""
    macs = bytes([2, 0, 0, 0, 0, mac]) + bytes([2, 0, 0, 0, 1, mac])
    return (macs + tags + _ethertype(packet) + packet).ljust(60, b"\0")


def vlan(packet: bytes, *, mac: int = 1, vid: int = 42) -> bytes:
    """802.1Q."""
    return ethernet(packet, mac=mac, tags=struct.pack("!HH", 0x8100, vid))


def _qinq(packet: bytes) -> bytes:
    return ethernet(packet, tags=struct.pack("!HHHH", 0x88A8, 100, 0x8100, 42))


def _mpls(packet: bytes) -> bytes:
    """Two labels, the second with the bottom-of-stack bit (RFC 3032)."""
    labels = struct.pack("!II", 1000 << 12 | 64, 2000 << 12 | 0x100 | 64)
    return (bytes(range(12)) + b"\x88\x47" + labels + packet).ljust(60, b"\0")


def _pppoe(packet: bytes) -> bytes:
    """A PPPoE session (RFC 2516) with a two-byte PPP protocol."""
    protocol = 0x0057 if ip.version(packet) == 6 else 0x0021
    head = struct.pack("!BBHHH", 0x11, 0, 0x1234, len(packet) + 2, protocol)
    return (bytes(range(12)) + b"\x88\x64" + head + packet).ljust(60, b"\0")


def _sll(packet: bytes) -> bytes:
    return struct.pack("!HHH8s", 0, 1, 6, b"\2\0\0\0\0\1") + _ethertype(packet) + packet


def _sll2(packet: bytes) -> bytes:
    return _ethertype(packet) + struct.pack("!HIHBB8s", 0, 3, 1, 0, 6, b"\2\0\0\0\0\1") + packet


def _null(packet: bytes) -> bytes:
    """The address family in the byte order of the machine that captured; 30 is IPv6 on macOS."""
    return struct.pack("<I", 30 if ip.version(packet) == 6 else 2) + packet


def _loop(packet: bytes) -> bytes:
    return struct.pack("!I", 24 if ip.version(packet) == 6 else 2) + packet


def _gre(packet: bytes) -> bytes:
    return _outer(GRE, struct.pack("!H", 0) + _ethertype(packet) + packet)


def _gre_ethernet(packet: bytes) -> bytes:
    """GRE with checksum, key and sequence number (RFC 2890) around an Ethernet frame."""
    return _outer(GRE, struct.pack("!HHHHII", 0xB000, 0x6558, 0, 0, 7, 9) + vlan(packet))


def _erspan2(packet: bytes) -> bytes:
    head = struct.pack("!HHI", 0x1000, 0x88BE, 1) + struct.pack("!HHI", 0x1000 | 42, 5, 0x11)
    return _outer(GRE, head + ethernet(packet))


def _erspan3(packet: bytes, *, platform: bool = False) -> bytes:
    """ERSPAN III; its O bit announces an eight-byte platform sub-header (draft-foschiano-erspan)."""
    head = struct.pack("!HHI", 0x1000, 0x22EB, 1) + struct.pack("!HHIHH", 0x2000 | 42, 5, 1234, 0, int(platform))
    return _outer(GRE, head + (bytes(8) if platform else b"") + ethernet(packet))


def _vxlan(packet: bytes) -> bytes:
    return _outer_udp(4789, struct.pack("!II", 0x08000000, 77 << 8) + ethernet(packet))


def _tzsp(packet: bytes) -> bytes:
    """TZSP: version 1, received packet, Ethernet; a padding and an end tag."""
    return _outer_udp(37008, bytes([1, 0, 0, 1, 0, 1]) + ethernet(packet))


def _outer(protocol: int, payload: bytes) -> bytes:
    return ethernet(ip.packet(MIRROR_SOURCE, MIRROR_TARGET, protocol, payload), mac=9)


def _outer_udp(port: int, payload: bytes) -> bytes:
    return ethernet(ip.udp(Endpoint(MIRROR_SOURCE, 50000), Endpoint(MIRROR_TARGET, port), payload), mac=9)


def _ethertype(packet: bytes) -> bytes:
    return b"\x86\xdd" if ip.version(packet) == 6 else b"\x08\x00"


WRAPPINGS = {
    "ethernet": Wrapping(ETHERNET, ethernet),
    "vlan": Wrapping(ETHERNET, vlan),
    "qinq": Wrapping(ETHERNET, _qinq),
    "mpls": Wrapping(ETHERNET, _mpls),
    "pppoe": Wrapping(ETHERNET, _pppoe),
    "linux_cooked_v1": Wrapping(LINUX_SLL, _sll),
    "linux_cooked_v2": Wrapping(LINUX_SLL2, _sll2),
    "raw_ip": Wrapping(RAW_IP, bytes),
    "bsd_null": Wrapping(NULL, _null),
    "bsd_loop": Wrapping(LOOP, _loop),
    "gre": Wrapping(ETHERNET, _gre),
    "gre_ethernet": Wrapping(ETHERNET, _gre_ethernet),
    "erspan2": Wrapping(ETHERNET, _erspan2),
    "erspan3": Wrapping(ETHERNET, _erspan3),
    "erspan3_platform": Wrapping(ETHERNET, lambda packet: _erspan3(packet, platform=True)),
    "vxlan": Wrapping(ETHERNET, _vxlan),
    "tzsp": Wrapping(ETHERNET, _tzsp),
    "ipv4_options": Wrapping(ETHERNET, lambda packet: ethernet(ip.with_options(packet))),
    "ipv6_extensions": Wrapping(ETHERNET, lambda packet: ethernet(ip.with_extensions(packet))),
}
