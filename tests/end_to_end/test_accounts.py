"""Everything is accounted for: packets and calls, on our captures and on public ones."""

from __future__ import annotations

import os
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import files, ip, recipes
from tests.support.ip import Endpoint, Packet
from tests.support.media import MS
from tests.support.record import DAMAGED, NO_CALL, REPOSITORY, UNREADABLE, USAGE, Result, record, unbalanced
from tests.support.scene import START_NS, plain_call
from tests.support.wrap import WRAPPINGS

PACKETS = {
    "seen",
    "kept",
    "duplicate",
    "relayed",
    "signalling",
    "not_a_call",
    "refused",
    "malformed",
    "kernel_dropped",
    "overload_dropped",
}
CALLS = {"seen", "recorded", "refused", "without_media", "encrypted", "failed"}

CAPTURES = Path(os.environ.get("TAPDECK_CAPTURES", REPOSITORY.parent / "shared" / "captures"))
PUBLIC = sorted(path for path in CAPTURES.glob("*.pcap*") if path.is_file())


def assert_balanced(result: Result) -> None:
    packets, calls = result.summary["packets"], result.summary["calls"]
    assert set(packets) == PACKETS
    assert set(calls) == CALLS
    assert unbalanced(packets) == 0, packets
    assert unbalanced(calls) == 0, calls
    outcomes = Counter(line["outcome"] for line in result.lines[:-1])
    assert outcomes["recorded"] == calls["recorded"] == len(list(result.out.rglob("*_info.txt")))
    assert sum(outcomes.values()) == calls["seen"]


def record_count(capture: Path) -> int:
    """The packets of a classic little-endian pcap file."""
    content, offset, count = capture.read_bytes(), 24, 0
    while offset < len(content):
        offset += 16 + struct.unpack_from("<I", content, offset + 8)[0]
        count += 1
    return count


def test_a_plain_call_is_kept_and_nothing_else(tmp_path: Path) -> None:
    scene = plain_call()
    result = record(tmp_path / "out", files.write(tmp_path, files.pcap(scene.packets())))
    assert_balanced(result)
    expected = dict.fromkeys(PACKETS, 0) | {"seen": 107, "kept": 100, "signalling": 7}
    assert result.summary["packets"] == expected
    assert result.summary["calls"] == dict.fromkeys(CALLS, 0) | {"seen": 1, "recorded": 1}


def test_strangers_and_broken_packets_are_told_apart(tmp_path: Path) -> None:
    scene = plain_call()
    dns = ip.udp(Endpoint("10.0.0.1", 5353), Endpoint("10.0.0.2", 53), b"\x12\x34\x01\x00" + bytes(30))
    web = ip.tcp(
        Endpoint("10.0.0.1", 55555), Endpoint("10.0.0.2", 443), 1, 1, ip.ACK, b"\x17\x03\x03\0\x10" + bytes(16)
    )
    call = files.pcap([*scene.packets(), *(Packet(START_NS + 5 * MS, one) for one in (dns, web, web))])
    frame = WRAPPINGS["ethernet"].frame
    arp = b"\xff" * 6 + bytes(6) + b"\x08\x06" + bytes(46)
    short_ip = frame(dns)[:24]
    long_header = frame(b"\x4f" + dns[1:20])[:34]
    short_udp = frame(ip.packet("10.0.0.1", "10.0.0.2", ip.UDP, b"\0\1\0"))[:37]
    broken = [files.pcap_record(START_NS + 6 * MS, one) for one in (arp, short_ip, long_header, short_udp)]
    result = record(tmp_path / "out", files.write(tmp_path, call + b"".join(broken)))
    assert_balanced(result)
    packets = result.summary["packets"]
    assert (packets["seen"], packets["kept"], packets["signalling"]) == (114, 100, 7)
    assert (packets["not_a_call"], packets["malformed"]) == (4, 3)


def test_other_forks_packets_are_kept(tmp_path: Path) -> None:
    scene = recipes.forked(1)
    result = record(tmp_path / "out", files.write(tmp_path, files.pcap(scene.packets())))
    assert_balanced(result)
    assert result.summary["packets"]["kept"] == len(scene.left) + len(scene.right) + len(scene.unheard)


def test_a_snapped_capture_balances(tmp_path: Path) -> None:
    """Captured with a snap length of 96 bytes: signalling and sound are cut off."""
    result = record(tmp_path / "out", files.write(tmp_path, files.pcap(plain_call().packets(), snap=96)))
    assert_balanced(result)
    assert result.summary["packets"]["seen"] == 107


def test_rtp_without_a_call_is_not_a_call_s(tmp_path: Path) -> None:
    scene = replace(plain_call(), signals=())
    result = record(tmp_path / "out", files.write(tmp_path, files.pcap(scene.packets())))
    assert_balanced(result)
    assert result.recordings == []
    assert result.summary["packets"]["not_a_call"] == 100
    assert result.code == NO_CALL, result.stderr
    assert "Traceback" not in result.stderr


def test_an_empty_capture(tmp_path: Path) -> None:
    result = record(tmp_path / "out", files.write(tmp_path, files.pcap([])))
    assert_balanced(result)
    assert result.summary["packets"]["seen"] == 0


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    result = record(tmp_path / "out", files.write(tmp_path, b"RIFF, and no capture at all, though long enough"))
    assert result.code == UNREADABLE
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr


def test_a_wrong_option_is_a_usage_error(tmp_path: Path) -> None:
    result = record(tmp_path / "out", files.write(tmp_path, files.pcap([])), more=["--no-such-option"])
    assert result.code == USAGE


@pytest.mark.skipif(not PUBLIC, reason="the public captures are not here (TAPDECK_CAPTURES names their folder)")
@pytest.mark.parametrize("capture", PUBLIC, ids=lambda path: str(path.name))
def test_public_captures_balance(capture: Path, tmp_path: Path) -> None:
    result = record(tmp_path / "out", capture)
    assert "Traceback" not in result.stderr
    assert result.code in (0, NO_CALL, DAMAGED), result.stderr
    assert_balanced(result)
    if capture.read_bytes()[:4] == b"\xd4\xc3\xb2\xa1" and result.code == 0:
        assert result.summary["packets"]["seen"] == record_count(capture)
