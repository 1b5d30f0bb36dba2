"""Fragments and segments in any order against a byte map; memory under floods."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, fragment6
from scapy.packet import Raw

from tapdeck.sniffer.reassembly import FRAGMENT_TIMEOUT, MAX_AHEAD, Fragments, Stretch, TcpStreams, Whole

HEAD4, HEAD6 = 20, 40
PIECE = 8


def fragment4(offset: int, data: bytes, *, more: bool, number: int = 7, source: str = "192.0.2.1") -> bytes:
    where = offset // 8 | (0x2000 if more else 0)
    ends = ip_address(source).packed + ip_address("192.0.2.2").packed
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), number, where, 64, 17, 0) + ends + data


def body(whole: Whole | None) -> bytes | None:
    if whole is None:
        return None
    return whole.packet[HEAD6 if whole.packet[0] >> 4 == 6 else HEAD4 :]


# -- fragments ---------------------------------------------------------------------------------------------------------


@given(data=st.data(), size=st.integers(600, 3000), six=st.booleans())
def test_fragments_in_any_order_and_doubled(data: st.DataObject, size: int, six: bool) -> None:
    """scapy cuts a datagram; its pieces come in any order, some of them twice: it is whole with the last of them."""
    payload = bytes(number % 251 for number in range(size))
    udp = UDP(sport=1, dport=2) / Raw(payload)
    if six:
        packet = IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrFragment(id=99) / udp
        pieces = [bytes(piece) for piece in fragment6(packet, 600)]  # type: ignore[no-untyped-call]
    else:
        datagram = IP(src="192.0.2.1", dst="192.0.2.2", id=9) / udp
        pieces = [bytes(piece) for piece in fragment(datagram, 300)]  # type: ignore[no-untyped-call]
    order = data.draw(st.permutations(range(len(pieces))))
    copies = data.draw(st.lists(st.integers(0, len(pieces) - 2), max_size=3)) if len(pieces) > 1 else []
    arrivals = [*(order[number] for number in copies), *order]
    table = Fragments()
    found = [table.add(pieces[number], when) for when, number in enumerate(arrivals)]
    assert found[:-1] == [None] * (len(arrivals) - 1)
    whole = found[-1]
    assert whole is not None
    assert whole.frames == len(arrivals)
    read = (IPv6 if six else IP)(whole.packet)
    assert (read.src, read.dst) == (("2001:db8::1", "2001:db8::2") if six else ("192.0.2.1", "192.0.2.2"))
    assert bytes(body(whole) or b"")[8:] == payload
    assert (table.waiting, table.dropped) == (0, 0)


def test_an_extension_header_before_the_fragment_header_is_no_part_of_the_datagram() -> None:
    whole = bytes(UDP(sport=1, dport=2) / Raw(bytes(24)))
    table = Fragments()
    pieces = [
        bytes(
            IPv6(src="::1", dst="::2")
            / IPv6ExtHdrHopByHop()
            / IPv6ExtHdrFragment(nh=17, offset=at // 8, m=int(at == 0), id=5)
            / Raw(whole[at : at + 16])
        )
        for at in (0, 16)
    ]
    assert [body(table.add(piece, 0)) for piece in pieces] == [None, whole]


SPANS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 10)), min_size=1, max_size=14)


@given(spans=SPANS, total=st.integers(1, 10))
def test_overlaps_of_one_datagram_against_a_byte_map(spans: list[tuple[int, int]], total: int) -> None:
    """Whole as soon as every byte was seen and the end is known, however the pieces overlap (all of one content)."""
    content = bytes(range(total * PIECE))
    seen: set[int] = set()
    ended = False
    table = Fragments()
    for first, count in spans:
        start, stop = min(first, total - 1) * PIECE, min(first + count, total) * PIECE
        if stop <= start:
            continue
        ended |= stop == total * PIECE
        seen |= set(range(start, stop))
        found = table.add(fragment4(start, content[start:stop], more=stop < total * PIECE), 0)
        complete = ended and len(seen) == total * PIECE
        assert body(found) == (content if complete else None)
        if complete:
            return


@given(order=st.permutations(range(3)))
def test_of_bytes_that_differ_the_first_to_come_are_kept(order: list[int]) -> None:
    spans = [(0, b"A" * 16), (8, b"B" * 16), (16, b"C" * 16)]
    table = Fragments()
    expected: dict[int, int] = {}
    for which in order:
        start, data = spans[which]
        for place in range(start, start + 16):
            expected.setdefault(place, data[0])
        found = table.add(fragment4(start, data, more=which != 2), 0)
        if len(expected) == 32 and 2 in order[: order.index(which) + 1]:
            assert body(found) == bytes(expected[place] for place in range(32))
            return


def test_datagrams_of_other_numbers_and_senders_stay_apart() -> None:
    table = Fragments()
    keys = list(itertools.product((1, 2), ("192.0.2.1", "192.0.2.9")))
    for number, source in keys:
        assert (
            table.add(fragment4(0, f"{number}{source[-1]}".encode() * 4, more=True, number=number, source=source), 0)
            is None
        )
    for number, source in keys:
        tail = fragment4(8, b"tail", more=False, number=number, source=source)
        assert body(table.add(tail, 1)) == f"{number}{source[-1]}".encode() * 4 + b"tail"


def test_what_never_becomes_whole_is_counted_frame_by_frame() -> None:
    table = Fragments()
    table.add(fragment4(0, bytes(8), more=True, number=1), 0)
    table.add(fragment4(8, bytes(8), more=True, number=1), 1)
    assert (table.waiting, table.dropped) == (2, 0)
    table.add(fragment4(0, bytes(8), more=True, number=2), FRAGMENT_TIMEOUT + 5)
    assert (table.waiting, table.dropped) == (1, 2)


@given(packets=st.lists(st.binary(max_size=80), max_size=40))
def test_noise_for_fragments(packets: list[bytes]) -> None:
    """Each packet is waiting, dropped, or part of a datagram."""
    table = Fragments(limit=4)
    whole = [table.add(packet, when) for when, packet in enumerate(packets)]
    joined = sum(one.frames for one in whole if one is not None)
    assert table.waiting + table.dropped + joined == len(packets)


def test_a_flood_of_beginnings_stays_within_the_limit() -> None:
    table = Fragments(limit=100)
    for number in range(5000):
        table.add(fragment4(0, bytes(64), more=True, number=number % 65_536, source=f"10.0.{number >> 16}.1"), 0)
    assert (table.waiting, table.dropped) == (100, 4900)


def test_a_flood_of_overlapping_pieces_takes_no_more_than_a_datagram_is_long() -> None:
    """A datagram has at most 64 KiB: a thousand long pieces of it may not be kept a thousand times."""
    pieces = [fragment4(8 * shift, bytes(60_000), more=True) for shift in range(400)]
    table = Fragments()
    tracemalloc.start()
    for piece in pieces:
        table.add(piece, 0)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1 << 20


def test_pieces_beyond_the_longest_datagram_are_dropped() -> None:
    table = Fragments()
    assert table.add(fragment4(65_528, bytes(16), more=False), 0) is None
    assert (table.waiting, table.dropped) == (0, 1)


# -- TCP ---------------------------------------------------------------------------------------------------------------

CONNECTION = ("192.0.2.1", 40_000, "192.0.2.2", 5060)
SYN, RST, ACK = 0x02, 0x04, 0x10


def segment(sequence: int, data: bytes = b"", flags: int = ACK, *, options: int = 0) -> bytes:
    head = struct.pack("!HHIIBBHHH", 40_000, 5060, sequence & 0xFFFF_FFFF, 0, 5 + options << 4, flags, 0, 0, 0)
    return head + bytes(4 * options) + data


def play(streams: TcpStreams, segments: list[bytes]) -> list[Stretch]:
    found = [pair for one in segments for pair in streams.add(CONNECTION, one, 0)]
    assert {connection for connection, _ in found} <= {CONNECTION}
    return [stretch for _, stretch in found]


@given(
    first=st.integers(0, 0xFFFF_FFFF),
    spans=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), max_size=40),
    size=st.integers(1, 60),
)
def test_segments_against_a_byte_map(first: int, spans: list[tuple[int, int]], size: int) -> None:
    """Any segments of a stream, overlapping and repeated: at each step exactly the bytes without a hole before them."""
    content = bytes(range(size))
    streams = TcpStreams()
    assert streams.add(CONNECTION, segment(first - 1, flags=SYN), 0) == []
    seen: set[int] = set()
    out = b""
    for start, count in spans:
        start = min(start, size - 1)
        piece = content[start : start + count]
        seen |= set(range(start, start + len(piece)))
        for stretch in play(streams, [segment(first + start, piece)]):
            assert not stretch.gap
            out += stretch.data
        whole = next((place for place in range(size) if place not in seen), size)
        assert out == content[:whole]
    assert streams.lost == 0


@given(data=st.data(), first=st.integers(0, 0xFFFF_FFFF), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_segments_in_any_order(data: st.DataObject, first: int, sizes: list[int]) -> None:
    starts = list(itertools.accumulate(sizes, initial=0))
    content = bytes(number % 256 for number in range(starts[-1]))
    pieces = [segment(first + a, content[a:b], options=2) for a, b in itertools.pairwise(starts)]
    streams = TcpStreams()
    streams.add(CONNECTION, segment(first - 1, flags=SYN), 0)
    shuffled = [pieces[number] for number in data.draw(st.permutations(range(len(pieces))))]
    assert b"".join(stretch.data for stretch in play(streams, shuffled)) == content
    assert streams.finish() == []


def test_a_stream_joined_in_the_middle_begins_with_a_gap() -> None:
    streams = TcpStreams()
    assert play(streams, [segment(1000, b"abc"), segment(1003, b"def")]) == [
        Stretch(b"abc", True),
        Stretch(b"def", False),
    ]


def test_syn_on_the_same_ports_begins_anew() -> None:
    streams = TcpStreams()
    play(streams, [segment(99, flags=SYN), segment(100, b"old"), segment(500, b"ahead")])
    again = [segment(99, flags=SYN), segment(100, b"new"), segment(103, b"er")]
    assert play(streams, again) == [Stretch(b"new", False), Stretch(b"er", False)]


def test_a_reset_forgets_the_connection() -> None:
    streams = TcpStreams()
    play(streams, [segment(99, flags=SYN), segment(100, b"old"), segment(103, flags=RST)])
    assert play(streams, [segment(7, b"new")]) == [Stretch(b"new", True)]


def test_a_sequence_far_away_is_another_connection_on_these_ports() -> None:
    streams = TcpStreams()
    play(streams, [segment(99, flags=SYN), segment(100, b"old")])
    assert play(streams, [segment(1 << 30, b"new"), segment((1 << 30) + 3, b"er")]) == [
        Stretch(b"new", True),
        Stretch(b"er", False),
    ]


def test_a_hole_is_given_up_when_too_much_waits_behind_it() -> None:
    streams = TcpStreams()
    play(streams, [segment(99, flags=SYN), segment(100, b"start")])
    piece = bytes(1460)
    count = MAX_AHEAD // len(piece) + 1
    found = play(streams, [segment(1000 + 1460 * k, piece) for k in range(count)])
    assert streams.lost == 1
    assert found[0].gap
    assert sum(len(stretch.data) for stretch in found) == count * len(piece)
    assert not any(stretch.gap for stretch in found[1:])


def test_many_small_segments_behind_a_hole_are_given_up_too() -> None:
    streams = TcpStreams()
    play(streams, [segment(99, flags=SYN)])
    found = play(streams, [segment(1000 + k, b"x") for k in range(600)])
    assert streams.lost == 1
    assert b"".join(stretch.data for stretch in found) == b"x" * 600


BACK = (*CONNECTION[2:], *CONNECTION[:2])


def acknowledgement(number: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 5060, 40_000, 1, number & 0xFFFF_FFFF, 0x50, ACK, 0, 0, 0)


@given(first=st.integers(0, 0xFFFF_FFFF))
def test_a_hole_that_the_receiver_does_not_have_is_given_up_when_it_says_so(first: int) -> None:
    """The mirror missed a segment that arrived: nobody will send it again."""
    streams = TcpStreams()
    play(streams, [segment(first - 1, flags=SYN), segment(first, b"start"), segment(first + 50, b"behind it")])
    assert streams.add(BACK, acknowledgement(first + 5), 0) == []
    assert streams.add(BACK, acknowledgement(first + 50), 0) == []
    assert streams.add(BACK, acknowledgement(first + 59), 0) == [(CONNECTION, Stretch(b"behind it", True))]
    assert streams.lost == 1


def test_the_end_gives_out_what_waits_behind_holes() -> None:
    streams = TcpStreams()
    play(streams, [segment(99, flags=SYN), segment(200, b"one"), segment(300, b"two"), segment(203, b"more")])
    assert streams.finish() == [
        (CONNECTION, Stretch(b"one", True)),
        (CONNECTION, Stretch(b"more", False)),
        (CONNECTION, Stretch(b"two", True)),
    ]
    assert streams.lost == 2


def test_a_flood_of_connections_stays_within_the_limit() -> None:
    streams = TcpStreams(limit=50)
    tracemalloc.start()
    for port in range(20_000):
        streams.add(("192.0.2.1", port, "192.0.2.2", 5060), segment(99, flags=SYN), 0)
        streams.add(("192.0.2.1", port, "192.0.2.2", 5060), segment(500, bytes(1000)), 0)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 50 * 4000


@given(
    segments=st.lists(
        st.tuples(st.integers(0, 0xFFFF_FFFF), st.binary(max_size=40), st.integers(0, 255), st.integers(0, 15)),
        max_size=40,
    )
)
def test_noise_for_tcp(segments: list[tuple[int, bytes, int, int]]) -> None:
    """Any segments: never more bytes out than went in."""
    streams = TcpStreams()
    given_out = 0
    for sequence, data, flags, header in segments:
        raw = bytearray(segment(sequence, data, flags))
        raw[12] = header << 4
        given_out += sum(len(stretch.data) for _, stretch in streams.add(CONNECTION, bytes(raw), 0))
    given_out += sum(len(stretch.data) for _, stretch in streams.finish())
    assert given_out <= sum(len(data) + 20 for _, data, _, _ in segments)


@pytest.mark.parametrize("wait", [1, 10])
def test_a_later_longer_repeat_of_a_waiting_segment_counts(wait: int) -> None:
    """A sender that repeats joins small segments (RFC 9293 section 3.8.1): the longer one has new bytes."""
    streams = TcpStreams()
    play(streams, [segment(99, flags=SYN), segment(110, b"x" * wait), segment(110, b"x" * 20)])
    assert b"".join(stretch.data for stretch in play(streams, [segment(100, b"y" * 10)])) == b"y" * 10 + b"x" * 20
