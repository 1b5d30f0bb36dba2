"""Capture filters: what libpcap says of them, and that the kernel lets through what tcpdump's manual promises."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tapdeck.sniffer.sources import bpf
from tapdeck.sniffer.sources.capture_file import CaptureError
from tapdeck.sniffer.sources.ring import Ring
from tests.support.netns import Namespaces, Wire, entered, needs_namespaces, sh, wait_for, within

ETHERNET, RAW_IP = 1, 101
TAG, OTHER_TAG = bytes.fromhex("81000064"), bytes.fromhex("81000065")


def datagram(port: int, source: str = "10.0.0.1", tag: bytes = b"") -> bytes:
    """A UDP datagram in an Ethernet frame."""
    udp = struct.pack(">HHHH", port, port, 8 + 20, 0) + bytes(20)
    addresses = socket.inet_aton(source) + socket.inet_aton("10.0.0.2")
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + addresses
    return bytes.fromhex("020000000002 020000000001") + tag + b"\x08\x00" + ip + udp


FRAMES = {
    "sip": datagram(5060),
    "media": datagram(20_000),
    "neighbour": datagram(5060, "10.0.0.9"),
    "tagged sip": datagram(5060, tag=TAG),
    "tagged media": datagram(20_000, tag=TAG),
    "sip of vlan 101": datagram(5060, tag=OTHER_TAG),
    "twice tagged": datagram(5060, tag=bytes.fromhex("88a80007") + TAG),
    "arp": bytes.fromhex("ffffffffffff 020000000001 0806") + bytes(46),
}
EVERYWHERE = {"sip", "neighbour", "tagged sip", "sip of vlan 101"}


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Namespaces() as spaces:
        wire = Wire.between(spaces)
        for _ in range(2):  # asked again, the kernel is done with what it had begun
            wait_for("the wire", lambda: "state UP" in sh("ip", "-n", wire.sender, "link", "show", wire.interface))
        yield wire


@needs_namespaces()
@pytest.mark.parametrize(
    ("expression", "passed"),
    [
        ("", set(FRAMES)),
        ("udp port 5060", EVERYWHERE),
        ("udp port sip", EVERYWHERE),
        ("not (host 10.0.0.9 or arp)", set(FRAMES) - {"neighbour", "arp"}),
        ("udp portrange 10000-30000", {"media", "tagged media"}),
        ("vlan", {"tagged sip", "tagged media", "sip of vlan 101", "twice tagged"}),
        ("vlan 100", {"tagged sip", "tagged media"}),
        ("vlan 100 and udp port 5060", {"tagged sip"}),
        ("vlan 7 and vlan 100 and udp port 5060", {"twice tagged"}),
        ("udp port 5060 or (vlan and udp port 5060)", EVERYWHERE),
        ("ether broadcast", {"arp"}),
        ("inbound", set(FRAMES)),
    ],
)
def test_the_kernel_lets_through_what_the_expression_says(wire: Wire, expression: str, passed: set[str]) -> None:
    with entered(wire.tap):
        program = bpf.compile(expression, ETHERNET)
        ring = Ring(wire.tap_interface, size=1 << 18, block=1 << 16, timeout_ms=5, instructions=program)
    with entered(wire.sender):
        door = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        door.bind((wire.interface, 0))
    with ring, door:
        for one in FRAMES.values():
            door.send(one)
        found: set[bytes] = set()

        def enough() -> bool:
            while captured := ring.read():
                records = captured.records
                for at, size in zip(records.offset.tolist(), records.length.tolist(), strict=True):
                    found.add(records.data[at : at + size].tobytes())
                ring.release(captured.blocks)
            return len(found) >= len(passed)

        wait_for("frames", enough)
        assert {name for name, one in FRAMES.items() if one in found} == passed
        assert ring.statistics().packets == len(passed)


@pytest.mark.parametrize(
    ("expression", "link", "text"),
    [
        ("udp port 5060 and", ETHERNET, "syntax error"),
        ("port 70000", ETHERNET, "illegal port number"),
        ("ether host 02:00:00:00:00:01", RAW_IP, "ethernet addresses supported only on ethernet"),
        ("udp prot 5060", ETHERNET, "'prot' is no word of a filter"),
        ("host pbx.example.com", ETHERNET, "'pbx.example.com'.*not looked up"),
        ("host abc.de or fd.be", ETHERNET, "'abc.de'.*not looked up"),
        ("src 3com.example or port 5060", ETHERNET, "'com.example'.*not looked up"),
        ("host 10.0.0.1 or büro", ETHERNET, "only plain ASCII"),
        ("udp\0", ETHERNET, "only plain ASCII"),
    ],
)
def test_a_wrong_expression_is_explained(expression: str, link: int, text: str) -> None:
    with pytest.raises(CaptureError, match=f"capture filter .*{text}"):
        bpf.compile(expression, link)


@pytest.mark.parametrize(
    "expression",
    [
        "host fd00::2 or net 2001:db8::/32",
        "ether host 0a:bb:cc:dd:ee:ff",
        "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
        "udp[8:4] = 0xabcd1234 && len <= 0x100",
        "ip proto \\udp and portrange sip-6000",
        "mpls and udp",
    ],
)
def test_what_looks_like_names_and_is_none(expression: str) -> None:
    program = bpf.compile(expression, ETHERNET)
    assert len(program) > 2
    assert all(0 <= operand < 1 << 32 for *_, operand in program)


def test_raw_ip_has_no_ethernet_header() -> None:
    """The program is another one: ports lie 14 bytes further ahead."""
    operands = [{step[3] for step in bpf.compile("udp dst port 5060", link)} for link in (ETHERNET, RAW_IP)]
    assert 5060 in operands[0] & operands[1]
    assert (23 in operands[0], 9 in operands[1]) == (True, True)  # where IPv4 keeps its protocol


@needs_namespaces("setpriv")
def test_vlan_needs_the_right_to_listen_and_says_so(wire: Wire) -> None:
    script = "from tapdeck.sniffer.sources import bpf\nbpf.compile('vlan 100', 1)"
    command = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", sys.executable, "-c", script)
    done = subprocess.run(within(wire.tap, *command), capture_output=True, text=True, check=False)
    assert "compiling it needs root and the interface lo" in done.stderr
