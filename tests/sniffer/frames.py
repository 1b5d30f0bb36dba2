"""Frames for the columns' tests: what scapy builds around an RTP packet, layer upon layer, and blocks of them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III, ERSPAN_PlatformSpecific
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.contrib.mpls import MPLS
from scapy.contrib.tzsp import TZSP, TZSPTagEnd, TZSPTagPadding
from scapy.layers.inet import IP, UDP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import GRE, LLC, SNAP, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from tapdeck.sniffer.records import PADDING, Records

POSITION = 5000
"""Where the blocks of these tests lie in their source."""

LINK_NULL, LINK_ETHERNET, LINK_PPP, LINK_RAW, LINK_LOOP, LINK_SLL = 0, 1, 9, 101, 108, 113
LINK_PPPOE, LINK_ERF, LINK_IPV4, LINK_IPV6, LINK_SLL2 = 51, 197, 228, 229, 276
LINKS = (
    LINK_NULL,
    LINK_ETHERNET,
    LINK_PPP,
    12,
    14,
    50,
    LINK_PPPOE,
    LINK_RAW,
    LINK_LOOP,
    LINK_SLL,
    LINK_ERF,
    LINK_IPV4,
    LINK_IPV6,
    LINK_SLL2,
    147,
)

MAC: dict[str, Any] = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}


def block(
    frames: Sequence[bytes], links: Sequence[int] | int = LINK_ETHERNET, wire: Sequence[int] | None = None
) -> Records:
    """A block that holds these frames one behind the other, 16 bytes of something between them, a millisecond apart."""
    gap = b"\x80\x08" * 8
    lengths = [len(frame) for frame in frames]
    starts = np.cumsum([0] + [length + len(gap) for length in lengths])[:-1] + len(gap)
    codes = [links] * len(frames) if isinstance(links, int) else links
    return Records(
        data=np.frombuffer(gap + gap.join(frames) + bytes(PADDING), dtype=np.uint8),
        offset=starts.astype(np.int64),
        length=np.array(lengths, dtype=np.int64),
        wire=np.array(wire if wire is not None else lengths, dtype=np.int64),
        time=np.arange(len(frames), dtype=np.int64) * 1_000_000,
        link=np.array(codes, dtype=np.uint16),
        position=POSITION,
    )


@dataclass(frozen=True)
class Media:
    """One RTP datagram: `header` is all before the payload, `tail` the padding behind it."""

    source: str
    destination: str
    source_port: int
    destination_port: int
    kind: int
    sequence: int
    stamp: int
    ssrc: int
    header: bytes
    payload: bytes
    tail: bytes

    @property
    def wire(self) -> bytes:
        return self.header + self.payload + self.tail


def media(
    source: str,
    destination: str,
    *,
    ports: tuple[int, int] = (10_000, 20_000),
    kind: int = 8,
    sequence: int = 1,
    stamp: int = 160,
    ssrc: int = 7,
    sources: int = 0,
    extension: bytes | None = None,
    payload: bytes = b"voice",
    padding: int = 0,
) -> Media:
    """RFC 3550 section 5.1; `extension` is a multiple of 4 bytes, `padding` counts the padding bytes."""
    first = 0x80 | (0x20 if padding else 0) | (0x10 if extension is not None else 0) | sources
    head = struct.pack("!BBHII", first, kind, sequence, stamp, ssrc) + bytes(4 * sources)
    if extension is not None:
        head += struct.pack("!HH", 0xBEDE, len(extension) // 4) + extension
    tail = bytes(padding - 1) + bytes([padding]) if padding else b""
    return Media(source, destination, *ports, kind, sequence, stamp, ssrc, head, payload, tail)


V4 = st.integers(1, 2**32 - 1).map(lambda number: ".".join(str(octet) for octet in number.to_bytes(4, "big")))
V6 = st.ip_addresses(v=6).map(str)
FREE_PORTS = st.integers(1, 0xFFFF).filter(lambda port: port not in (5060, 4789, 8472, 6081, 37008))


@st.composite
def medias(draw: st.DrawFn, six: bool) -> Media:
    """Any RTP datagram; payload types that RTCP would be taken for (RFC 5761 section 4) left out."""
    address = V6 if six else V4
    kind = draw(st.integers(0, 255).filter(lambda value: not 192 <= value <= 223))
    return media(
        draw(address),
        draw(address),
        ports=(draw(FREE_PORTS), draw(FREE_PORTS)),
        kind=kind,
        sequence=draw(st.integers(0, 0xFFFF)),
        stamp=draw(st.integers(0, 0xFFFF_FFFF)),
        ssrc=draw(st.integers(0, 0xFFFF_FFFF)),
        sources=draw(st.integers(0, 15)),
        extension=draw(st.none() | st.integers(0, 5).map(lambda words: bytes(4 * words))),
        payload=draw(st.binary(max_size=200)),
        padding=draw(st.sampled_from([0, 0, 1, 4, 255])),
    )


# -- IP ----------------------------------------------------------------------------------------------------------------

V4_OPTIONS = st.lists(st.sampled_from([IPOption_NOP(), IPOption_Router_Alert()]), max_size=5)
_PAD = [PadN(optdata=b"\0" * 4)]
V6_HEADERS: list[Callable[[], Packet]] = [
    lambda: IPv6ExtHdrHopByHop(options=_PAD),
    lambda: IPv6ExtHdrDestOpt(options=_PAD * 3),
    lambda: IPv6ExtHdrRouting(addresses=["2001:db8::1"]),
    lambda: IPv6ExtHdrFragment(offset=0, m=0, id=9),
]


@st.composite
def datagrams(draw: st.DrawFn) -> tuple[Media, Packet]:
    """An RTP datagram in IP: options and extension headers at random."""
    six = draw(st.booleans())
    inner = draw(medias(six))
    udp = UDP(sport=inner.source_port, dport=inner.destination_port) / Raw(inner.wire)
    if not six:
        return inner, IP(src=inner.source, dst=inner.destination, options=draw(V4_OPTIONS)) / udp
    packet = IPv6(src=inner.source, dst=inner.destination)
    for build in draw(st.lists(st.sampled_from(V6_HEADERS), max_size=4)):
        packet = packet / build()
    if draw(st.booleans()):
        packet = packet / AH(nh=17, spi=1, icv=bytes(12), payloadlen=4)
    return inner, packet / udp


# -- tunnels: an IP packet in, an IP packet out ------------------------------------------------------------------------


def _outer(protocol: int | None = None) -> Packet:
    packet = IP(src="198.51.100.1", dst="198.51.100.2")
    if protocol is not None:
        packet.proto = protocol
    return packet


def _outer6() -> Packet:
    return IPv6(src="2001:db8::1", dst="2001:db8::2")


def _type(packet: Packet) -> int:
    return 0x86DD if isinstance(packet, IPv6) else 0x0800


def _framed(packet: Packet) -> Packet:
    return Ether(**MAC, type=_type(packet)) / packet


TUNNELS: dict[str, Callable[[Packet], Packet]] = {
    "ip in ip": lambda packet: _outer(41 if isinstance(packet, IPv6) else 4) / packet,
    "ip in ipv6": lambda packet: _outer6() / packet,
    "gre": lambda packet: _outer() / GRE(proto=_type(packet)) / packet,
    "gre with key and sum": lambda packet: (
        _outer() / GRE(proto=_type(packet), key_present=1, key=3, chksum_present=1, seqnum_present=1) / packet
    ),
    "gre ethernet": lambda packet: _outer6() / GRE(proto=0x6558, key_present=1) / Ether(**MAC) / Dot1Q(vlan=3) / packet,
    "erspan 1": lambda packet: _outer() / GRE(proto=0x88BE) / _framed(packet),
    "erspan 2": lambda packet: (
        _outer() / GRE(proto=0x88BE, seqnum_present=1) / ERSPAN_II(session_id=4) / _framed(packet)
    ),
    "erspan 3": lambda packet: _outer() / GRE(proto=0x22EB, seqnum_present=1) / ERSPAN_III(o=0) / _framed(packet),
    "erspan 3, platform": lambda packet: (
        _outer() / GRE(proto=0x22EB, seqnum_present=1) / ERSPAN_III(o=1) / ERSPAN_PlatformSpecific() / _framed(packet)
    ),
    "vxlan": lambda packet: _outer() / UDP(sport=999, dport=4789) / VXLAN(flags="Instance", vni=5) / _framed(packet),
    "vxlan in ipv6": lambda packet: _outer6() / UDP(sport=999, dport=8472) / VXLAN(flags=8, vni=5) / _framed(packet),
    "geneve": lambda packet: _outer() / UDP(sport=999, dport=6081) / GENEVE(proto=0x6558) / _framed(packet),
    "geneve with options": lambda packet: (
        _outer()
        / UDP(sport=999, dport=6081)
        / GENEVE(proto=0x6558, options=[GeneveOptions(data=b"\0" * 8)])
        / _framed(packet)
    ),
    "tzsp": lambda packet: (
        _outer()
        / UDP(sport=999, dport=37008)
        / TZSP(encapsulated_protocol=1)
        / TZSPTagPadding()
        / TZSPTagEnd()
        / _framed(packet)
    ),
}

# -- links: an IP packet in, a frame out -------------------------------------------------------------------------------


def _sll2(packet: Packet) -> bytes:
    return bytes(CookedLinuxV2(proto=_type(packet), ifindex=2, lladdrtype=1, pkttype=0) / packet)


LINK_LAYERS: dict[str, tuple[int, Callable[[Packet], bytes]]] = {
    "ethernet": (LINK_ETHERNET, lambda packet: bytes(_framed(packet))),
    "ethernet, padded": (LINK_ETHERNET, lambda packet: bytes(_framed(packet)) + b"\x80" * 20),
    "802.1q": (LINK_ETHERNET, lambda packet: bytes(Ether(**MAC) / Dot1Q(vlan=42) / packet)),
    "802.1ad": (LINK_ETHERNET, lambda packet: bytes(Ether(**MAC) / Dot1AD(vlan=7) / Dot1Q(vlan=42) / packet)),
    "three tags": (LINK_ETHERNET, lambda packet: bytes(Ether(**MAC) / Dot1Q() / Dot1Q(vlan=3) / Dot1Q() / packet)),
    "mpls": (LINK_ETHERNET, lambda packet: bytes(Ether(**MAC) / MPLS(label=5, s=0) / MPLS(label=6, s=1) / packet)),
    "pseudowire": (
        LINK_ETHERNET,
        lambda packet: bytes(Ether(**MAC) / MPLS(label=6, s=1) / Raw(bytes(4)) / _framed(packet)),
    ),
    "pppoe": (
        LINK_ETHERNET,
        lambda packet: bytes(Ether(**MAC, type=0x8864) / PPPoE(sessionid=1) / PPP(proto=_ppp(packet)) / packet),
    ),
    "llc": (
        LINK_ETHERNET,
        lambda packet: bytes(Dot3(**MAC) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=_type(packet)) / packet),
    ),
    "cooked": (LINK_SLL, lambda packet: bytes(CookedLinux(proto=_type(packet)) / packet)),
    "cooked, tagged": (LINK_SLL, lambda packet: bytes(CookedLinux(proto=0x8100) / Dot1Q(type=_type(packet)) / packet)),
    "cooked 2": (LINK_SLL2, _sll2),
    "raw": (LINK_RAW, bytes),
    "null": (LINK_NULL, lambda packet: struct.pack("<I", 30 if isinstance(packet, IPv6) else 2) + bytes(packet)),
    "null of the other byte order": (LINK_NULL, lambda packet: struct.pack(">I", 2) + bytes(packet)),
    "loop": (LINK_LOOP, lambda packet: struct.pack(">I", 24 if isinstance(packet, IPv6) else 2) + bytes(packet)),
    "ppp": (LINK_PPP, lambda packet: struct.pack(">H", _ppp(packet)) + bytes(packet)),
    "ppp, hdlc": (LINK_PPP, lambda packet: struct.pack(">HH", 0xFF03, _ppp(packet)) + bytes(packet)),
    "pppoe link": (LINK_PPPOE, lambda packet: bytes(PPPoE(sessionid=1) / PPP(proto=_ppp(packet)) / packet)),
    "erf": (
        LINK_ERF,
        lambda packet: bytes(8) + struct.pack(">BBHHH", 2, 4, 200, 0, 200) + bytes(2) + bytes(_framed(packet)),
    ),
    "erf with an extension": (
        LINK_ERF,
        lambda packet: (
            bytes(8) + struct.pack(">BBHHH", 0x82, 4, 200, 0, 200) + bytes(8) + bytes(2) + bytes(_framed(packet))
        ),
    ),
}


def _ppp(packet: Packet) -> int:
    return 0x0057 if isinstance(packet, IPv6) else 0x0021


@st.composite
def stacks(draw: st.DrawFn) -> tuple[Media, int, bytes]:
    """An RTP datagram, and the link type and frame in which it is shown through up to three tunnels."""
    inner, packet = draw(datagrams())
    for name in draw(st.lists(st.sampled_from(sorted(TUNNELS)), max_size=3)):
        packet = TUNNELS[name](packet)
    link, show = LINK_LAYERS[draw(st.sampled_from(sorted(LINK_LAYERS)))]
    return inner, link, show(packet)
