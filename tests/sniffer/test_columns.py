"""Columns against frames that scapy built: addresses, ports, RTP fields and payload must be those that went in."""

from __future__ import annotations

import struct

import dpkt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from tapdeck.sniffer.addresses import AddressBook, address_key
from tapdeck.sniffer.columns import Columns
from tapdeck.sniffer.datagrams import Datagrams, Fate, RtpColumns, tcp_flow_keys
from tapdeck.sniffer.peeling import MAX_LAYERS
from tests.sniffer.frames import (
    LINK_ETHERNET,
    LINK_IPV4,
    LINK_IPV6,
    LINK_LAYERS,
    LINK_RAW,
    LINKS,
    MAC,
    POSITION,
    TUNNELS,
    Media,
    block,
    media,
    stacks,
)

SIP = b"OPTIONS sip:a@b SIP/2.0\r\n\r\n"


def fates(found: Datagrams) -> dict[Fate, int]:
    return {Fate(number): int(count) for number, count in enumerate(found.fates) if count}


def read(*frames: bytes, links: int | list[int] = LINK_ETHERNET, columns: Columns | None = None) -> Datagrams:
    found = (columns or Columns()).read(block(frames, links))
    assert int(found.fates.sum()) == found.frames == len(frames)
    assert found.fates[Fate.UNSEEN] == 0
    return found


def payload_of(rtp: RtpColumns, row: int, data: np.ndarray) -> bytes:
    start = int(rtp.position[row]) - POSITION
    return bytes(data[start : start + int(rtp.size[row])])


def assert_row(rtp: RtpColumns, row: int, data: np.ndarray, book: AddressBook, sent: Media) -> None:
    assert int(rtp.source[row]) == address_key(sent.source)
    assert int(rtp.destination[row]) == address_key(sent.destination)
    assert book.text(int(rtp.source[row])) == sent.source
    assert int(rtp.ports[row]) == sent.source_port << 16 | sent.destination_port
    assert (int(rtp.sequence[row]), int(rtp.stamp[row])) == (sent.sequence, sent.stamp)
    assert (int(rtp.ssrc[row]), int(rtp.kind[row]), int(rtp.frames[row])) == (sent.ssrc, sent.kind, 1)
    assert payload_of(rtp, row, data) == sent.payload


# -- every layer, any stack of layers ----------------------------------------------------------------------------------


def udp4(sent: Media) -> Packet:
    ports = UDP(sport=sent.source_port, dport=sent.destination_port)
    return IP(src=sent.source, dst=sent.destination) / ports / Raw(sent.wire)


def udp6(sent: Media) -> Packet:
    ports = UDP(sport=sent.source_port, dport=sent.destination_port)
    return IPv6(src=sent.source, dst=sent.destination) / ports / Raw(sent.wire)


FOUR, SIX = media("192.0.2.1", "192.0.2.2"), media("2001:db8::a", "2001:db8::b")


@pytest.mark.parametrize("name", sorted(LINK_LAYERS))
@pytest.mark.parametrize("sent", [FOUR, SIX], ids=["ipv4", "ipv6"])
def test_each_link_layer(name: str, sent: Media) -> None:
    link, show = LINK_LAYERS[name]
    packets = block([show(udp4(sent) if sent is FOUR else udp6(sent))], link)
    columns = Columns()
    found = columns.read(packets)
    assert fates(found) == {Fate.RTP: 1}
    assert_row(found.rtp, 0, packets.data, columns.book, sent)


@pytest.mark.parametrize("name", sorted(TUNNELS))
@pytest.mark.parametrize("sent", [FOUR, SIX], ids=["ipv4", "ipv6"])
def test_each_tunnel(name: str, sent: Media) -> None:
    packets = block([bytes(TUNNELS[name](udp4(sent) if sent is FOUR else udp6(sent)))], LINK_RAW)
    columns = Columns()
    found = columns.read(packets)
    assert fates(found) == {Fate.RTP: 1}
    assert_row(found.rtp, 0, packets.data, columns.book, sent)


def test_link_types_that_are_one_ip_version() -> None:
    found = read(bytes(udp4(FOUR)), bytes(udp6(SIX)), links=[LINK_IPV4, LINK_IPV6])
    assert fates(found) == {Fate.RTP: 2}


@settings(max_examples=150)
@given(shown=st.lists(stacks(), min_size=1, max_size=5))
def test_any_stack_of_layers(shown: list[tuple[Media, int, bytes]]) -> None:
    """Frames of any links, tunnels, options and extensions in one block: each comes out as it went in, in order."""
    packets = block([frame for _, _, frame in shown], [link for _, link, _ in shown])
    columns = Columns()
    found = columns.read(packets)
    assert fates(found) == {Fate.RTP: len(shown)}
    assert found.rtp.time.tolist() == packets.time.tolist()
    for row, (sent, _, _) in enumerate(shown):
        assert_row(found.rtp, row, packets.data, columns.book, sent)


def test_rows_are_in_order_of_time_whatever_the_order_of_the_frames() -> None:
    frames = [bytes(udp4(media("192.0.2.1", "192.0.2.2", sequence=n))) for n in range(6)]
    packets = block(frames, LINK_RAW)
    packets.time[:] = [50, 10, 40, 10, 30, 20]
    found = Columns().read(packets)
    assert found.rtp.sequence.tolist() == [1, 3, 5, 4, 2, 0]
    assert (found.first, found.last) == (10, 50)


def test_dpkt_reads_the_same_out_of_an_ordinary_frame() -> None:
    """A second opinion, so that scapy's and our understanding of a header cannot be wrong together."""
    frame = bytes(Ether(**MAC) / udp4(media("192.0.2.1", "192.0.2.2", kind=0x88, sources=2, extension=bytes(8))))
    ip = dpkt.ethernet.Ethernet(frame).data
    theirs = dpkt.rtp.RTP(ip.data.data)
    found = read(frame)
    rtp = found.rtp
    assert int(rtp.source[0]) == int.from_bytes(ip.src, "big")
    assert int(rtp.ports[0]) == ip.data.sport << 16 | ip.data.dport
    assert (int(rtp.sequence[0]), int(rtp.stamp[0]), int(rtp.ssrc[0])) == (theirs.seq, theirs.ts, theirs.ssrc)
    assert int(rtp.kind[0]) == theirs.m << 7 | theirs.pt


# -- what is not RTP ---------------------------------------------------------------------------------------------------


def udp(payload: bytes, *, ports: tuple[int, int] = (10_000, 20_000)) -> bytes:
    return bytes(
        Ether(**MAC) / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=ports[0], dport=ports[1]) / Raw(payload)
    )


def tcp(payload: bytes, *, ports: tuple[int, int] = (40_000, 443)) -> bytes:
    return bytes(
        Ether(**MAC) / IP(src="192.0.2.1", dst="192.0.2.2") / TCP(sport=ports[0], dport=ports[1]) / Raw(payload)
    )


RTCP = struct.pack("!BBHIIIII", 0x80, 200, 6, 7, 0, 0, 0, 0)
STUN = b"\0\1\0\0" + b"\x21\x12\xa4\x42" + bytes(12)
DTLS = b"\x16\xfe\xfd" + bytes(20)
ZRTP = b"\x10\0\0\1ZRTP" + bytes(20)


@pytest.mark.parametrize(
    ("frame", "fate"),
    [
        (udp(RTCP), Fate.RTCP),
        (udp(STUN), Fate.STUN),
        (udp(DTLS), Fate.DTLS),
        (udp(ZRTP), Fate.ZRTP),
        (udp(SIP), Fate.TEXT),
        (udp(b"\r\n\r\n", ports=(5060, 5060)), Fate.TEXT),
        (udp(b"", ports=(5060, 9)), Fate.TEXT),
        (udp(b"\0\0\0\0"), Fate.OTHER_UDP),
        (udp(b""), Fate.OTHER_UDP),
        (udp(b"\x80" * 11), Fate.OTHER_UDP),
        (udp(media("1.1.1.1", "1.1.1.2", sources=15).header[:40]), Fate.OTHER_UDP),
        (udp(b"\xb0\0\0\1" + bytes(8) + b"\0\0\xff\xff"), Fate.OTHER_UDP),
        (udp(b"\xa0\0\0\1" + bytes(8) + b"\x05"), Fate.RTP),  # SRTP, perhaps: its padding count is encrypted
        (tcp(SIP), Fate.TCP),
        (tcp(b"", ports=(5060, 1)), Fate.TCP),
        (tcp(b"GET /index.html HTTP/1.1\r\n\r\n"), Fate.OTHER_TCP),
        (tcp(bytes(40)), Fate.OTHER_TCP),
        (bytes(Ether(**MAC) / IP() / ICMP()), Fate.OTHER_IP),
        (bytes(Ether(**MAC) / IP(proto=50) / ESP(spi=1)), Fate.ENCRYPTED_TUNNEL),
        (bytes(Ether(**MAC) / ARP()), Fate.NOT_IP),
        (bytes(Ether(**MAC) / IP(flags="MF") / Raw(bytes(16))), Fate.FRAGMENT),
        (bytes(Ether(**MAC) / IP(frag=5) / Raw(bytes(16))), Fate.FRAGMENT),
        (bytes(Ether(**MAC) / IPv6() / IPv6ExtHdrFragment(offset=0, m=1) / Raw(bytes(16))), Fate.FRAGMENT),
        (bytes(Ether(**MAC) / IP(version=5) / Raw(bytes(16))), Fate.BAD_IP),
        (bytes(Ether(**MAC) / IP(ihl=4) / Raw(bytes(16))), Fate.BAD_IP),
        (bytes(Ether(**MAC) / IP(len=19) / Raw(bytes(16))), Fate.BAD_IP),
        (bytes(Ether(**MAC) / IP() / UDP(len=7) / Raw(bytes(16))), Fate.BAD_UDP),
    ],
)
def test_fates(frame: bytes, fate: Fate) -> None:
    assert fates(read(frame)) == {fate: 1}


def test_unknown_link_types() -> None:
    assert fates(read(udp(SIP), links=147)) == {Fate.UNKNOWN_LINK: 1}


def test_slow_packets_hold_the_payload_from_where_it_is_said() -> None:
    fragment = bytes(IP(src="192.0.2.1", dst="192.0.2.2", frag=5, proto=17) / Raw(b"rest of it"))
    frames = [udp(SIP), tcp(SIP, ports=(40_000, 5060)), bytes(Ether(**MAC))[:12] + b"\x08\0" + fragment + b"pad"]
    text, segment, piece = read(*frames).slow
    assert (text.fate, text.payload, text.source, text.source_port) == (Fate.TEXT, SIP, "192.0.2.1", 10_000)
    assert (segment.fate, segment.payload[20:], segment.destination_port) == (Fate.TCP, SIP, 5060)
    assert (piece.fate, piece.payload, piece.destination) == (Fate.FRAGMENT, fragment, "192.0.2.2")
    assert [packet.cut for packet in (text, segment, piece)] == [False] * 3


def test_bytes_that_were_not_captured_are_said_to_be_missing() -> None:
    frame, voice = udp(SIP), bytes(Ether(**MAC) / udp4(FOUR))
    found = Columns().read(block([frame[:-3], voice[:-2], voice], wire=[len(frame), len(voice), len(voice)]))
    assert [packet.cut for packet in found.slow] == [True]
    assert (found.cut, len(found.rtp)) == (1, 2)


def test_a_connection_known_to_carry_sip_is_followed() -> None:
    """A segment in the middle of a message looks like nothing; its connection is known."""
    columns = Columns()
    first = read(tcp(SIP, ports=(40_000, 9999)), columns=columns)
    assert first.fates[Fate.TCP] == 1
    middle = tcp(bytes(40), ports=(40_000, 9999))
    assert fates(read(middle, columns=columns)) == {Fate.OTHER_TCP: 1}
    here, there = (np.array([address_key(text)], dtype=np.uint64) for text in ("192.0.2.1", "192.0.2.2"))
    columns.tcp_flows = tcp_flow_keys(there, here, np.array([9999 << 16 | 40_000], dtype=np.uint32))
    assert fates(read(middle, columns=columns)) == {Fate.TCP: 1}
    other = tcp(bytes(40), ports=(40_001, 9999))
    assert fates(read(other, columns=columns)) == {Fate.OTHER_TCP: 1}


def test_nesting_without_end_is_stopped() -> None:
    packet = udp4(FOUR)
    for _ in range(MAX_LAYERS + 4):
        packet = IP(proto=4) / packet
    assert fates(read(bytes(packet), links=LINK_RAW)) == {Fate.TOO_DEEP: 1}


def test_a_udp_length_shorter_than_the_frame_ends_the_payload() -> None:
    """Ethernet pads short frames; what lies behind the datagram is not sound."""
    sent = media("192.0.2.1", "192.0.2.2", payload=b"ab")
    frame = bytes(Ether(**MAC) / udp4(sent)) + b"garbage behind it"
    packets = block([frame])
    found = Columns().read(packets)
    assert payload_of(found.rtp, 0, packets.data) == b"ab"


def test_lengths_of_zero_left_by_offload_mean_the_rest_of_the_frame() -> None:
    frame = bytes(Ether(**MAC) / IP(src="192.0.2.1", dst="192.0.2.2", len=0) / UDP(sport=1, dport=2) / Raw(FOUR.wire))
    six = bytes(Ether(**MAC) / IPv6(src="::1", dst="::2", plen=0) / UDP(sport=1, dport=2) / Raw(SIX.wire))
    packets = block([frame, six])
    found = Columns().read(packets)
    assert [payload_of(found.rtp, row, packets.data) for row in range(2)] == [FOUR.payload, SIX.payload]


# -- truncation and noise ----------------------------------------------------------------------------------------------

CUT = [
    (link, show(TUNNELS[tunnel](udp4(FOUR)) if tunnel else udp6(SIX)))
    for name, (link, show) in sorted(LINK_LAYERS.items())
    for tunnel in ("", "vxlan", "erspan 3, platform", "tzsp", "geneve with options")
    if name != "ethernet, padded"
]


@pytest.mark.parametrize(("link", "frame"), CUT)
def test_cut_at_every_byte(link: int, frame: bytes) -> None:
    """A frame is RTP exactly when its whole RTP header was captured; every cut has one fate."""
    lengths = list(range(len(frame) + 1))
    found = Columns().read(block([frame[:length] for length in lengths], link, [len(frame)] * len(lengths)))
    assert int(found.fates.sum()) == len(lengths)
    assert found.fates[Fate.UNSEEN] == 0
    header_ends = len(frame) - len(FOUR.payload)
    assert fates(found)[Fate.RTP] == len(lengths) - header_ends
    assert found.rtp.size.tolist() == list(range(len(FOUR.payload) + 1))


def assert_bounded(frames: list[bytes], links: list[int]) -> None:
    """Every frame has one fate, and what is called RTP lies within its frame behind IP, UDP and RTP headers."""
    packets = block(frames, links)
    found = Columns().read(packets)
    assert int(found.fates.sum()) == len(frames)
    assert found.fates[Fate.UNSEEN] == 0
    assert found.fates[Fate.RTP] == len(found.rtp)
    starts = packets.offset[np.searchsorted(packets.time, found.rtp.time)]
    ends = starts + packets.length[np.searchsorted(packets.time, found.rtp.time)]
    places = found.rtp.position - POSITION
    assert (places >= starts + 20 + 8 + 12).all()
    assert (places + found.rtp.size <= ends).all()
    assert (found.rtp.size >= 0).all()
    for packet in found.slow:
        assert any(packet.payload in frame for frame in frames)


@settings(max_examples=200)
@given(noise=st.lists(st.tuples(st.binary(max_size=120), st.sampled_from(LINKS)), min_size=1, max_size=12))
def test_noise(noise: list[tuple[bytes, int]]) -> None:
    assert_bounded([frame for frame, _ in noise], [link for _, link in noise])


@settings(max_examples=200)
@given(
    shown=stacks(),
    wrongs=st.lists(
        st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6), min_size=1, max_size=8
    ),
    cuts=st.lists(st.integers(0, 400), min_size=8, max_size=8),
)
def test_frames_with_wrong_bytes(
    shown: tuple[Media, int, bytes], wrongs: list[list[tuple[int, int]]], cuts: list[int]
) -> None:
    """A real frame with a few bytes changed, and cut: lengths that lie, types that are not so."""
    _, link, frame = shown
    frames = []
    for changes, cut in zip(wrongs, cuts, strict=False):
        wrong = bytearray(frame)
        for place, value in changes:
            wrong[place % len(wrong)] = value
        frames.append(bytes(wrong[: len(wrong) - cut % len(wrong) // 2]))
    assert_bounded(frames, [link] * len(frames))


@pytest.mark.parametrize("kind", [0, 43, 51, 60, 135])
def test_an_extension_header_that_says_it_is_longer_than_the_block(kind: int) -> None:
    """Beside a frame whose extension headers go on: nothing behind the block may be read."""
    ends = bytes(15) + b"\1" + bytes(15) + b"\2"
    liar = struct.pack("!IHBB", 6 << 28, 8, kind, 64) + ends + bytes([17, 255]) + bytes(6)
    honest = (
        struct.pack("!IHBB", 6 << 28, 24, kind, 64) + ends + bytes([kind, 0]) + bytes(6) + bytes([17, 0]) + bytes(14)
    )
    found = read(honest, liar, links=LINK_RAW)
    assert found.fates[Fate.TRUNCATED_IP] >= 1


def test_an_empty_block() -> None:
    found = Columns().read(block([]))
    assert (found.frames, len(found.rtp), len(found.slow), int(found.fates.sum())) == (0, 0, 0, 0)
