"""Reading captures: every dialect, cut anywhere, and what only a hostile or broken writer makes."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
from pathlib import Path

import dpkt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapdeck.sniffer.records import MAX_RECORD
from tapdeck.sniffer.sources.capture_file import CaptureError, CaptureFile, first_time, open_capture
from tapdeck.sniffer.sources.payloads import Payloads
from tests.sniffer.captures import PCAP_MAGICS, Frame, Section, pcap, read

T0 = 1_772_445_600_000_000_000
NEW_SECTION = 0x0A0D0D0A


def frames(count: int, *, size: int = 60) -> list[Frame]:
    """Frames of two lengths, a millisecond apart, one of them longer on the wire than captured."""
    return [
        Frame(T0 + k * 1_000_000, bytes([k % 256]) * (size + k % 3), wire=500 if k == 1 else -1) for k in range(count)
    ]


def plain(found: list[Frame]) -> list[tuple[int, bytes, int, int]]:
    return [(frame.time, frame.data, frame.length, frame.link) for frame in found]


# -- pcap --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", sorted(PCAP_MAGICS))
@pytest.mark.parametrize("window", [4096, 4 << 20])
def test_pcap_dialects(kind: str, order: str, window: int) -> None:
    sent = frames(300)
    found, capture = read(pcap(sent, kind=kind, order=order), window)
    assert plain(found) == plain(sent)
    assert (capture.damage, capture.first_time) == ("", T0)


def test_dpkt_reads_the_same() -> None:
    content = pcap(frames(20), kind="nanoseconds")
    theirs = [(round(time * 1_000_000), data) for time, data in dpkt.pcap.Reader(io.BytesIO(content))]
    assert [(frame.time // 1000, frame.data) for frame in read(content)[0]] == theirs


def test_the_bits_above_the_link_type_are_no_part_of_it() -> None:
    """The draft puts the length of an FCS into the top bits and leaves others reserved."""
    for upper in (0x5000_0000, 0x0400_0000, 0x0001_0000, 0xFFFF_0000):
        found, _ = read(pcap(frames(2), link=upper | 113))
        assert [frame.link for frame in found] == [113, 113]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", sorted(PCAP_MAGICS))
def test_a_pcap_cut_at_every_byte(kind: str, order: str) -> None:
    sent = frames(5, size=20)
    whole = pcap(sent, kind=kind, order=order)
    ends = [len(pcap(sent[:count], kind=kind, order=order)) for count in range(len(sent) + 1)]
    for cut in range(4, len(whole) + 1):
        found, capture = read(whole[:cut], 4096)
        assert plain(found) == plain(sent[: sum(end <= cut for end in ends[1:])])
        assert bool(capture.damage) == (cut not in ends), cut


@pytest.mark.parametrize("content", [b"", b"\xd4", b"\xd4\xc3\xb2", b"GIF89a" * 10, bytes(100)])
def test_what_is_no_capture_is_an_error(content: bytes) -> None:
    with pytest.raises(CaptureError, match="capture"):
        read(content)


def test_a_record_of_an_impossible_length_ends_the_reading_there() -> None:
    sent = frames(10)
    content = bytearray(pcap(sent))
    place = len(pcap(sent[:6]))
    content[place + 8 : place + 12] = struct.pack("<I", MAX_RECORD)
    found, capture = read(bytes(content))
    assert plain(found) == plain(sent[:6])
    assert f"at byte {place:,}" in capture.damage


# -- pcapng ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("window", [4096, 4 << 20])
def test_several_interfaces_of_different_clocks(order: str, window: int) -> None:
    """Powers of ten and of two, and an interface that counts from another epoch."""
    section = (
        Section(order).interface(1, 9).interface(113, 6).interface(101, 0x80 | 20).interface(1, 3, offset=1_000_000_000)
    )
    sent = []
    for k in range(200):
        time = T0 + k * 125_000_000
        ticks = [time, time // 1000, (time << 20) // 10**9, time // 10**6 - 10**12][k % 4]
        sent.append(Frame(time, bytes([k]) * (40 + k % 2), link=(1, 113, 101, 1)[k % 4]))
        section.enhanced(k % 4, ticks, sent[-1].data)
    found, capture = read(bytes(section), window)
    assert plain(found) == plain(sent)
    assert capture.damage == ""


@given(
    resolution=st.integers(0, 255), ticks=st.integers(0, 2**64 - 1), offset=st.none() | st.integers(-(2**63), 2**63 - 1)
)
def test_any_resolution_and_offset(resolution: int, ticks: int, offset: int | None) -> None:
    """Exact to a nanosecond where the time lies in this age; elsewhere a time, and no crash."""
    power = resolution & 0x7F
    found, _ = read(bytes(Section().interface(1, resolution, offset).enhanced(0, ticks, b"x" * 20)), 4096)
    assert len(found) == 1
    units = 2**power if resolution & 0x80 else 10**power
    exact = ticks * 10**9 // units + (offset or 0) * 10**9
    known = power <= (63 if resolution & 0x80 else 18)
    if known and 0 <= exact < 9 * 10**18 and ticks // units < 9 * 10**9 and abs(offset or 0) < 9 * 10**9:
        assert abs(found[0].time - exact) <= 1


def test_sections_of_either_byte_order_with_interfaces_of_their_own() -> None:
    one = Section("<").interface(1, 9).enhanced(0, T0, b"first ")
    two = Section(">").interface(101, 6).enhanced(0, T0 // 1000 + 1, b"second")
    three = Section("<").interface(113, 9).enhanced(0, T0 + 2000, b"third")
    found, capture = read(bytes(one) + bytes(two) + bytes(three) + bytes(one))
    assert plain(found) == plain(
        [
            Frame(T0, b"first "),
            Frame(T0 + 1000, b"second", link=101),
            Frame(T0 + 2000, b"third", link=113),
            Frame(T0, b"first "),
        ]
    )
    assert capture.damage == ""


def test_old_and_simple_packet_blocks_and_blocks_of_unknown_kind() -> None:
    section = (
        Section().interface(1, 6).interface(101, 6).block(0xABCD, b"whatever").enhanced(1, T0 // 1000, b"ten bytes.")
    )
    section.obsolete(0, T0 // 1000 + 5, b"old one").block(4, bytes(40)).simple(b"no time").block(5, bytes(20))
    section.enhanced(0, T0 // 1000 + 9, b"last")
    found, capture = read(bytes(section))
    expected = [
        Frame(T0, b"ten bytes.", link=101),
        Frame(T0 + 5000, b"old one"),
        Frame(0, b"no time"),
        Frame(T0 + 9000, b"last"),
    ]
    assert plain(found) == plain(expected)
    assert capture.damage == ""


@pytest.mark.parametrize("order", "<>")
def test_a_pcapng_cut_at_every_byte(order: str) -> None:
    section = Section(order).interface(1, 9)
    ends, sent = [len(bytes(section))], []
    for k in range(4):
        sent.append(Frame(T0 + k, b"frame" * (k + 1)))
        ends.append(len(bytes(section.enhanced(0, T0 + k, sent[-1].data))))
    whole = bytes(section)
    for cut in range(4, len(whole) + 1):
        found, capture = read(whole[:cut], 4096)
        assert plain(found) == plain(sent[: sum(end <= cut for end in ends[1:])])
        assert bool(capture.damage) == (cut not in [28, *ends]), cut


def test_blocks_longer_than_the_window() -> None:
    """The window grows to what it needs: a custom block and a packet of 40 KB in a window of 4 KiB."""
    section = (
        Section().interface(1, 9).block(0x0BAD, bytes(40_000)).enhanced(0, T0, b"j" * 40_000).enhanced(0, T0, b"k")
    )
    found, capture = read(bytes(section), 4096)
    assert plain(found) == plain([Frame(T0, b"j" * 40_000), Frame(T0, b"k")])
    assert capture.damage == ""


def test_a_block_of_another_kind_may_be_longer_than_any_packet() -> None:
    """Key logs and name tables grow; nothing in them is a packet."""
    section = Section().interface(1, 9).enhanced(0, T0, b"i").block(10, bytes(5 << 20)).enhanced(0, T0 + 1, b"k")
    found, capture = read(bytes(section))
    assert [frame.data for frame in found] == [b"i", b"k"]
    assert capture.damage == ""


class Endless(io.RawIOBase):
    """A file whose first bytes are given and that then goes on with zeroes for `size` bytes."""

    def __init__(self, first: bytes, size: int) -> None:
        self.first, self.left, self.given = first, size, 0

    def read(self, size: int = -1) -> bytes:
        data = (self.first[:size], b"")[not self.first]
        self.first = self.first[len(data) :]
        if not data:
            data = bytes(min(size, self.left))
            self.left -= len(data)
        self.given += len(data)
        return data


@pytest.mark.parametrize("kind", [NEW_SECTION, 6, 1, 0xABCD])
def test_a_block_that_says_it_is_gigabytes_long_is_not_waited_for(kind: int) -> None:
    """A damaged length must not pull a whole capture into memory."""
    wrong = struct.pack("<III", kind, 0xFFFF_FFF0, 0x1A2B3C4D)
    stream = Endless(bytes(Section().interface(1, 9).enhanced(0, T0, b"x" * 40)) + wrong, 256 << 20)
    found, capture = read(stream, 1 << 20)  # type: ignore[arg-type]
    assert len(found) == 1
    assert capture.damage
    assert stream.given <= 64 << 20


def test_options_that_end_too_early() -> None:
    """An if_tsoffset of eight bytes in a block that has room for none."""
    body = struct.pack("<HHI", 1, 0, 0) + struct.pack("<HH", 14, 8)
    found, _ = read(bytes(Section().block(1, body).enhanced(0, 5, b"frame")))
    assert [frame.data for frame in found] == [b"frame"]


def test_damage_in_pcapng_is_said() -> None:
    early = Section().enhanced(0, T0, b"before any interface")
    longer = Section().interface().block(6, struct.pack("<IIIII", 0, 0, 0, 500, 500) + b"short")
    headless = bytes(Section().interface()) + struct.pack("<III", NEW_SECTION, 28, 0) + bytes(16)
    for content in (bytes(early), bytes(longer), headless):
        found, capture = read(content)
        assert found == []
        assert "damaged" in capture.damage


def test_a_simple_packet_is_cut_at_the_interface_s_snap_length() -> None:
    """What fills its block up to four bytes is no part of the packet (draft section 4.4)."""
    found, _ = read(bytes(Section().interface(1, 9, snap=5).simple(b"five!", wire=1500)))
    assert plain(found) == [(0, b"five!", 1500, 1)]


@settings(max_examples=200)
@given(
    noise=st.binary(max_size=300),
    magic=st.sampled_from([b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x0a\x0d\x0d\x0a"]),
)
def test_noise(noise: bytes, magic: bytes) -> None:
    """Whatever follows the first four bytes: frames within the file, or damage; never an exception."""
    found, _ = read(magic + noise, 4096)
    assert all(frame.data in noise for frame in found)


@settings(max_examples=200)
@given(
    wrongs=st.lists(st.tuples(st.integers(4, 10_000), st.integers(0, 255)), min_size=1, max_size=5),
    order=st.sampled_from("<>"),
)
def test_a_pcapng_with_wrong_bytes(wrongs: list[tuple[int, int]], order: str) -> None:
    section = Section(order).interface(1, 9, offset=3).interface(113, 0x8A)
    section.enhanced(0, 5, b"frame" * 9).simple(b"six").obsolete(1, 9, b"seven").block(77, b"else").enhanced(
        1, 6, b"abc"
    )
    content = bytearray(bytes(section) + bytes(Section(order).interface().enhanced(0, 1, b"ddd")))
    for place, value in wrongs:
        content[4 + (place - 4) % (len(content) - 4)] = value
    found, _ = read(bytes(content), 4096)
    assert all(len(frame.data) <= len(content) for frame in found)


# -- against Wireshark -------------------------------------------------------------------------------------------------


def tshark(path: Path) -> list[tuple[int, int]]:
    """(time in ns, captured length) of every frame."""
    command = ["tshark", "-r", str(path), "-T", "fields", "-e", "frame.time_epoch", "-e", "frame.cap_len"]
    out = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    rows = [line.split("\t") for line in out.splitlines() if line.strip()]
    return [(_nanoseconds(time), int(length)) for time, length in rows]


def _nanoseconds(text: str) -> int:
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])


def test_tshark_finds_the_same_frames_at_the_same_times(tmp_path: Path) -> None:
    one = Section("<").interface(1, 9).interface(113, 0x80 | 30).interface(101, 6, offset=-3600)
    two = Section(">").interface(101, 3).interface(1)
    for k in range(12):
        one.enhanced(k % 3, [T0, (T0 << 30) // 10**9, T0 // 1000][k % 3] + k, bytes(20 + k))
        two.enhanced(k % 2, [T0 // 10**6, T0 // 1000][k % 2] + k, bytes(30 + k))
        one.block(0xABCD, b"of no known kind")
    path = tmp_path / "capture.pcapng"
    path.write_bytes(bytes(one) + bytes(two))
    found, _ = read(path.read_bytes())
    theirs = tshark(path)
    assert [len(frame.data) for frame in found] == [length for _, length in theirs]
    assert all(abs(frame.time - time) <= 1 for frame, (time, _) in zip(found, theirs, strict=True))


# -- files, gzip and pipes ---------------------------------------------------------------------------------------------


def opened(path: Path, folder: Path) -> tuple[list[bytes], CaptureFile, Payloads]:
    payloads = Payloads(folder)
    capture = open_capture(str(path), payloads)
    data = []
    for records in capture.blocks():
        data += payloads.fetch(records.offset + records.position, records.length)
    return data, capture, payloads


@pytest.mark.parametrize("packed", [False, True])
def test_payloads_are_fetched_back_from_where_the_records_say(packed: bool, tmp_path: Path) -> None:
    sent = frames(2000)
    path = tmp_path / "capture"
    path.write_bytes(gzip.compress(pcap(sent)) if packed else pcap(sent))
    data, capture, _ = opened(path, tmp_path)
    assert data == [frame.data for frame in sent]
    assert capture.damage == ""
    assert first_time(str(path)) == T0


def test_gzip_cut_short_gives_what_came_before(tmp_path: Path) -> None:
    sent = frames(2000)
    packed = gzip.compress(pcap(sent))
    path = tmp_path / "capture.pcap.gz"
    path.write_bytes(packed[: len(packed) // 2])
    data, capture, _ = opened(path, tmp_path)
    assert 0 < len(data) < len(sent)
    assert data == [frame.data for frame in sent[: len(data)]]
    assert "cannot be read further" in capture.damage


def test_what_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(CaptureError):
            open_capture(str(path), Payloads(tmp_path))
    assert first_time("-") is None
    with pytest.raises(CaptureError):
        first_time(str(tmp_path / "nothing"))


def test_a_capture_without_packets_has_no_first_time(tmp_path: Path) -> None:
    path = tmp_path / "empty.pcap"
    path.write_bytes(pcap([]))
    assert first_time(str(path)) is None
    assert read(pcap([]))[0] == []


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_the_capture_says_it_dropped(order: str) -> None:
    """The last statistics of each interface count; they are totals."""
    section = Section(order).interface().interface().enhanced(0, T0, b"x" * 40)
    for interface, dropped in ((0, 3), (1, 5), (0, 7)):
        options = section.option(5, struct.pack(order + "Q", dropped)) + section.option(
            7, struct.pack(order + "Q", 100)
        )
        section.block(5, struct.pack(order + "III", interface, 0, 0) + options)
    _, capture = read(bytes(section))
    assert capture.drops == {0: 107, 1: 105}
