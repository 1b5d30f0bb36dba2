"""What is written as pcapng is pcapng: as Wireshark and dpkt read it, and as we do."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from ipaddress import ip_address
from pathlib import Path

import dpkt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sniffer import blocks
from tapdeck.sniffer.sources.capture_file import CaptureFile
from tests.support import ip
from tests.support.ip import Endpoint
from tests.support.live import block
from tests.support.shark import needs_wireshark

HEAD = blocks.section("hello", "Tapdeck") + blocks.interface(101, "signalling") + blocks.interface(1, "mon0")
TIME = 1_772_445_600_123_456_789

FRAMES = st.lists(st.tuples(st.integers(0, (1 << 62) - 1), st.binary(max_size=200), st.integers(0, 1)), max_size=40)


def read(data: bytes) -> tuple[list[tuple[int, bytes, int, int]], CaptureFile]:
    """Time, bytes, link type and length on the wire of each frame."""
    capture = CaptureFile("test", io.BytesIO(data))
    found = [
        (int(time), records.data[offset : offset + length].tobytes(), int(link), int(wire))
        for records in capture.blocks()
        for time, offset, length, link, wire in zip(
            records.time, records.offset, records.length, records.link, records.wire, strict=True
        )
    ]
    return found, capture


def written(frames: list[tuple[int, bytes, int]]) -> blocks.PacketBlocks:
    records = block([(time, data) for time, data, _ in frames])
    return blocks.packets(
        records, np.arange(len(frames)), np.array([number for _, _, number in frames], dtype=np.uint32)
    )


def tshark(folder: Path, data: bytes, *fields: str, show: str = "") -> list[list[str]]:
    path = folder / "written.pcapng"
    path.write_bytes(data)
    checks = ("-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE")
    wanted = [word for name in fields for word in ("-e", name)]
    command = ["tshark", "-n", "-r", str(path), *checks, "-T", "fields", *wanted, *(("-Y", show) if show else ())]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in run.stdout.splitlines()]


@given(FRAMES)
def test_any_frames_read_back_as_they_were(frames: list[tuple[int, bytes, int]]) -> None:
    made = written(frames)
    assert len(made) == len(frames)
    found, capture = read(HEAD + made.data[: made.start[-1]].tobytes())
    assert found == [(time, data, (101, 1)[number], len(data)) for time, data, number in frames]
    assert (capture.damage, capture.comments) == ("", ["hello"])


@given(FRAMES, st.data())
def test_any_choice_of_blocks_in_any_order(frames: list[tuple[int, bytes, int]], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(frames) - 1), max_size=20)) if frames else []
    made = blocks.take(written(frames), np.array(rows, dtype=np.int64))
    singly = [blocks.packet(frames[row][2], frames[row][0], frames[row][1]) for row in rows]
    assert [made.data[a:b].tobytes() for a, b in zip(made.start[:-1], made.start[1:], strict=True)] == singly


def test_a_frame_that_was_cut_keeps_its_length_on_the_wire() -> None:
    records = block([(TIME, bytes(60))])
    records.wire[0] = 1500
    made = blocks.packets(records, np.array([0]), np.zeros(1, dtype=np.uint32))
    assert [wire for *_, wire in read(HEAD + made.data.tobytes()[: made.start[-1]])[0]] == [1500]


@given(st.text(max_size=300), st.integers(0, (1 << 62) - 1))
def test_comments_read_back(text: str, time: int) -> None:
    text = text.encode(errors="replace").decode()
    _, capture = read(blocks.section(text, "Tapdeck") + blocks.interface(101, text) + blocks.comment(text, 0, time))
    assert capture.comments == [text, text]
    assert not capture.damage


def test_a_comment_too_long_for_its_field_is_cut_and_harms_nothing() -> None:
    data = blocks.section("x" * 100_000, "Tapdeck") + blocks.interface(101, "y" * 1000)
    found, capture = read(data + blocks.comment("z" * 100_000, 0, TIME) + blocks.packet(0, TIME, b"frame"))
    assert [len(text) for text in capture.comments] == [blocks.MAX_COMMENT] * 2
    assert [frame for _, frame, *_ in found] == [b"frame"]


@needs_wireshark
def test_wireshark_reads_sections_interfaces_comments_and_frames(tmp_path: Path) -> None:
    call = ip.udp(Endpoint("10.0.0.1", 5060), Endpoint("10.0.0.2", 5060), b"OPTIONS sip:x SIP/2.0\r\n\r\n")
    note = json.dumps({"note": "over", "text": "ünï \x1b[2J"})
    data = HEAD + blocks.comment(note, 0, TIME) + blocks.packet(0, TIME, call) + blocks.packet(1, TIME + 1, bytes(60))
    rows = tshark(tmp_path, data, "frame.time_epoch", "frame.interface_name", "frame.protocols")
    assert [row[:2] for row in rows] == [["1772445600.123456789", "signalling"], ["1772445600.123456790", "mon0"]]
    assert rows[0][2] == "raw:ip:udp:sip"
    if shutil.which("capinfos"):
        said = subprocess.run(
            ["capinfos", tmp_path / "written.pcapng"], capture_output=True, text=True, check=True
        ).stdout
        assert "hello" in said
        assert "Capture application: Tapdeck" in said
        assert "Number of interfaces in file: 2" in said


def test_dpkt_reads_it_too() -> None:
    frames = [(TIME + n * 1000, bytes([n]) * (60 + n), 1) for n in range(20)]
    made = written(frames)
    reader = dpkt.pcapng.Reader(io.BytesIO(HEAD + made.data[: made.start[-1]].tobytes()))
    assert [data for _, data in reader] == [data for _, data, _ in frames]


ENDS = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)), st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))
)
PORTS = st.tuples(st.integers(0, 65535), st.integers(0, 65535))


@given(ends=ENDS, ports=PORTS, payload=st.binary(max_size=100))
def test_datagrams_are_as_the_rfcs_have_them(
    ends: tuple[object, object], ports: tuple[int, int], payload: bytes
) -> None:
    here, there = (Endpoint(str(end), port) for end, port in zip(ends, ports, strict=True))
    made = blocks.datagram((here.address, here.port), (there.address, there.port), payload)
    expected = ip.udp(here, there, payload)
    if ip_address(here.address).version == 4:  # RFC 768 lets a checksum be left out over IPv4
        assert made[26:28] == b"\0\0"
        made = made[:26] + expected[26:28] + made[28:]
    assert made == expected


@pytest.mark.parametrize("size", [65_507, 65_527, 70_000])
@pytest.mark.parametrize("address", ["10.0.0.1", "2001:db8::1"])
def test_what_is_too_long_for_a_datagram_is_cut(size: int, address: str) -> None:
    made = blocks.datagram((address, 5060), (address, 5060), b"x" * size)
    head = 20 if "." in address else 40
    assert len(made) == head + 8 + min(size, 65_527)
    assert int.from_bytes(made[head + 4 : head + 6], "big") == len(made) - head


@needs_wireshark
@pytest.mark.parametrize("address", ["10.0.0.%d", "2001:db8::%d"])
def test_wireshark_finds_no_fault_with_our_datagrams(address: str, tmp_path: Path) -> None:
    ends = (address % 1, 40_001), (address % 2, 40_002)
    sent = [blocks.datagram(*ends, b"a" * n) for n in range(30)]
    data = HEAD + b"".join(blocks.packet(0, TIME + n, packet) for n, packet in enumerate(sent))
    bad = "_ws.malformed || ip.checksum.status == 0 || udp.checksum.status == 0"
    assert tshark(tmp_path, data, "frame.number", show=bad) == []
    rows = tshark(tmp_path, data, "udp.srcport", "udp.dstport", "udp.checksum.status")
    assert [row[:2] for row in rows] == [["40001", "40002"]] * 30
    if ":" in address:
        assert {row[2] for row in rows} == {"1"}
