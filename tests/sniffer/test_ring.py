"""The receive ring on a veth pair: what its other end sends is what is read, and the books are the kernel's."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tapdeck.sniffer.records import PADDING, Records
from tapdeck.sniffer.sources.capture_file import CaptureError
from tapdeck.sniffer.sources.ring import Ring
from tests.support.netns import Namespaces, Wire, entered, needs_namespaces, sh, stop, wait_for, within

pytestmark = needs_namespaces()

MACS = bytes.fromhex("020000000002 020000000001")
TAGS = {"plain": b"", "802.1Q": bytes.fromhex("81000064"), "QinQ": bytes.fromhex("88a8a00781000064")}
ACCEPT_ALL = [(0x06, 0, 0, 0x40000)]
ONLY_IP = [(0x28, 0, 0, 12), (0x15, 0, 1, 0x0800), (0x06, 0, 0, 0x40000), (0x06, 0, 0, 0)]


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Namespaces() as spaces:
        yield Wire.between(spaces)


def listening(wire: Wire, *, blocks: int = 64, block: int = 1 << 16, **options: object) -> Ring:
    with entered(wire.tap):
        return Ring(wire.tap_interface, size=blocks * block, block=block, timeout_ms=5, **options)  # type: ignore[arg-type]


def sender(wire: Wire) -> socket.socket:
    """A socket at the other end, as soon as the kernel sends there."""
    wait_until_up(wire)
    with entered(wire.sender):
        door = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        door.bind((wire.interface, 0))
        return door


def wait_until_up(wire: Wire) -> None:
    """A moment passes between the carrier and the first frame that gets through."""

    def up() -> bool:
        return "state UP" in sh("ip", "-n", wire.sender, "link", "show", "dev", wire.interface)

    wait_for("the wire", up)
    assert up()  # asked again, the kernel is done with what it had begun


def frame(size: int, tag: str = "plain", fill: int = 0) -> bytes:
    """A frame of `size` bytes without its tags."""
    return MACS + TAGS[tag] + b"\x08\x00" + bytes([fill % 256]) * (size - 14)


def contents(records: Records) -> list[bytes]:
    rows = zip(records.offset.tolist(), records.length.tolist(), strict=True)
    return [records.data[at : at + size].tobytes() for at, size in rows]


@dataclass(frozen=True)
class Frame:
    time: int
    wire: int
    data: bytes


def collect_frames(ring: Ring, count: int) -> list[Frame]:
    """Read until `count` frames came; give all blocks back."""
    found: list[Frame] = []

    def enough() -> bool:
        while captured := ring.read():
            records = captured.records
            assert int((records.offset + records.length).max()) + PADDING <= len(records.data)
            found.extend(map(Frame, records.time.tolist(), records.wire.tolist(), contents(records)))
            ring.release(captured.blocks)
        return len(found) >= count

    wait_for(f"{count} frames", enough)
    return found


def collect(ring: Ring, count: int) -> list[bytes]:
    """The same, only their bytes."""
    return [one.data for one in collect_frames(ring, count)]


def fill_a_block(ring: Ring, door: socket.socket, one: bytes) -> None:
    """Send a frame that gets a block of its own."""
    ready = ring.ready
    door.send(one)
    wait_for("a block", lambda: ring.ready == ready + 1)


def test_frames_of_all_sizes_with_and_without_tags_come_back_as_sent_and_in_order(wire: Wire) -> None:
    """More than the ring holds, so that it is gone round several times."""
    draw = random.Random(5)
    sent = [frame(draw.randint(60, 9000), draw.choice(list(TAGS)), number) for number in range(900)]
    found: list[Frame] = []
    with listening(wire, blocks=16) as ring, sender(wire) as door:
        assert ring.link == 1
        before = time.time_ns()
        for start in range(0, len(sent), 60):
            for one in sent[start : start + 60]:
                door.send(one)
            found += collect_frames(ring, 60)
        after = time.time_ns()
        assert [one.data for one in found] == sent
        assert [one.wire for one in found] == list(map(len, sent))
        times = [one.time for one in found]
        assert times == sorted(times)
        assert before <= times[0] <= times[-1] <= after
        statistics = ring.statistics()
        assert (statistics.packets, statistics.drops, ring.gone) == (len(sent), 0, False)
    assert sum(map(len, sent)) > 2 * 16 * (1 << 16)
    assert wire.counters()["tx_packets"] == 0


@needs_namespaces("tcpdump")
def test_the_same_bytes_and_stamps_as_tcpdump(wire: Wire, tmp_path: Path) -> None:
    log, file = tmp_path / "log", tmp_path / "dump.pcap"
    options = ("-n", "-i", wire.tap_interface, "-U", "-Z", "root", "--time-stamp-precision=nano", "-w", file)
    with listening(wire) as ring, sender(wire) as door, log.open("wb") as said:
        dump = subprocess.Popen(within(wire.tap, "tcpdump", *options), stderr=said, start_new_session=True)
        try:
            wait_for("tcpdump", lambda: b"listening on" in log.read_bytes())
            for number in range(300):
                door.send(frame(60 + 3 * number, list(TAGS)[number % 3], number))
            ours = [(one.time, one.data) for one in collect_frames(ring, 300)]
            wait_for("tcpdump's file", lambda: len(dumped(file)) == 300)
        finally:
            stop(dump)
        assert ours == dumped(file)


def dumped(file: Path) -> list[tuple[int, bytes]]:
    """Times in ns and frames of a pcap file of this machine's byte order."""
    data, at, found = file.read_bytes(), 24, []
    while at + 16 <= len(data):
        seconds, nanoseconds, size, _ = struct.unpack_from("=4I", data, at)
        found.append((seconds * 10**9 + nanoseconds, data[at + 16 : at + 16 + size]))
        at += 16 + size
    return found


def test_a_ring_that_overflows_says_how_much_it_lost(wire: Wire) -> None:
    with listening(wire, blocks=4) as ring, sender(wire) as door:
        assert ring.fill == 0
        for number in range(3000):
            door.send(frame(300, fill=number))
        wait_for("the ring is full", lambda: ring.fill == 1)
        found = collect(ring, 1)
        statistics = ring.statistics()
        assert statistics.drops > 0
        assert statistics.freezes > 0
        assert statistics.packets == wire.counters()["rx_packets"] == 3000
        assert len(found) + statistics.drops == 3000
        assert found == [frame(300, fill=number) for number in range(len(found))]
        door.send(frame(60))
        collect(ring, 1)
        again = ring.statistics()
        assert (again.packets, again.drops) == (3001, statistics.drops)


def test_blocks_are_given_back_oldest_first_and_only_once(wire: Wire) -> None:
    with listening(wire, blocks=8) as ring, sender(wire) as door:
        for number in range(6):
            fill_a_block(ring, door, frame(9000, fill=number))
        first, second = ring.read(2), ring.read(3)
        assert first is not None
        assert second is not None
        assert (first.blocks, second.blocks, ring.ready, ring.fill) == (2, 3, 1, 6 / 8)
        assert contents(first.records) + contents(second.records) == [frame(9000, fill=n) for n in range(5)]
        with pytest.raises(ValueError, match="6 blocks to release, 5 were read"):
            ring.release(6)
        ring.release(2)
        assert contents(second.records) == [frame(9000, fill=n) for n in range(2, 5)]
        ring.release(3)
        assert (ring.ready, ring.fill) == (1, 1 / 8)
        assert collect(ring, 1) == [frame(9000, fill=5)]
        assert ring.read() is None


def test_an_interface_that_vanishes_and_comes_back(wire: Wire) -> None:
    with listening(wire) as ring:
        with sender(wire) as door:
            door.send(frame(100, fill=1))
        assert collect(ring, 1) == [frame(100, fill=1)]
        wire.unplug()
        assert ring.gone
        assert not ring.reopen()
        assert ring.gone
        wire.plug()
        assert ring.gone
        assert ring.reopen()
        assert not ring.gone
        assert "promiscuity 1 " in sh("ip", "-n", wire.tap, "-d", "link", "show", "dev", wire.tap_interface)
        with sender(wire) as door:
            door.send(frame(100, fill=2))
        assert collect(ring, 1) == [frame(100, fill=2)]
        assert ring.statistics().packets == 2


def test_an_interface_that_is_switched_off_and_on(wire: Wire) -> None:
    sh("ip", "-n", wire.tap, "link", "set", wire.tap_interface, "down")
    with listening(wire) as ring:
        assert ring.gone
        assert not ring.reopen()
        sh("ip", "-n", wire.tap, "link", "set", wire.tap_interface, "up")
        assert ring.reopen()
        assert ring.reopen()
        with sender(wire) as door:
            door.send(frame(100))
        assert collect(ring, 1) == [frame(100)]
        sh("ip", "-n", wire.tap, "link", "set", wire.tap_interface, "down")
        assert ring.gone


def test_it_all_goes_on_without_privileges(wire: Wire, tmp_path: Path) -> None:
    """Opened as root, then run as nobody: reading, new filters, and an interface that comes back."""
    script = tmp_path / "reader.py"
    script.write_text(
        "import os, sys, time\n"
        "from tapdeck.sniffer.sources.ring import Ring\n"
        f"ring = Ring({wire.tap_interface!r}, size=1 << 20, block=1 << 16, timeout_ms=5)\n"
        "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "for line in sys.stdin:\n"
        "    if line == 'filter\\n': ring.set_filter([(6, 0, 0, 1000)]); print('set', flush=True)\n"
        "    if line == 'gone\\n': print(ring.gone, ring.reopen(), flush=True)\n"
        "    if line == 'read\\n':\n"
        "        end = time.monotonic() + 10\n"
        "        while not (got := ring.read()) and time.monotonic() < end: time.sleep(0.01)\n"
        "        print(len(got.records), ring.statistics().packets, flush=True); ring.release(got.blocks)\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(within(wire.tap, sys.executable, script), stdin=pipe, stdout=pipe, text=True) as child:

        def ask(word: str) -> str:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(word + "\n")
            child.stdin.flush()
            return child.stdout.readline().strip()

        assert ask("filter") == "set"
        with sender(wire) as door:
            door.send(frame(100))
        assert ask("read") == "1 1"
        wire.unplug()
        assert ask("gone") == "True False"
        wire.plug()
        assert ask("gone") == "True True"
        with sender(wire) as door:
            door.send(frame(100))
        assert ask("read") == "1 2"
        child.stdin.close()  # type: ignore[union-attr]
        assert child.wait(5) == 0


def test_filters_are_exchanged_without_a_gap(wire: Wire) -> None:
    other = MACS + b"\x86\xdd" + bytes(50)
    with listening(wire, instructions=ONLY_IP) as ring, sender(wire) as door:
        door.send(other)
        sent = [frame(80, fill=number) for number in range(2000)]
        for number, one in enumerate(sent):
            door.send(one)
            if number % 20 == 0:
                ring.set_filter((ACCEPT_ALL, ONLY_IP, None)[number // 20 % 3])
        assert collect(ring, len(sent)) == sent
        ring.set_filter(ONLY_IP)
        door.send(other)
        assert ring.statistics().packets == len(sent)
        ring.set_filter(None)
        ring.set_filter(None)
        door.send(other)
        assert collect(ring, 1) == [other]


def test_frames_cut_short_say_how_long_they_were(wire: Wire) -> None:
    with listening(wire, instructions=[(0x06, 0, 0, 100)]) as ring, sender(wire) as door:
        door.send(frame(1000))
        door.send(frame(1000, "802.1Q"))
        found = collect_frames(ring, 2)
        assert [one.data for one in found] == [frame(1000)[:100], frame(1000, "802.1Q")[:104]]
        assert [one.wire for one in found] == [1000, 1004]


def test_promiscuous_only_when_asked_and_only_as_long_as_it_listens(wire: Wire) -> None:
    def promiscuity() -> str:
        return sh("ip", "-n", wire.tap, "-d", "link", "show", "dev", wire.tap_interface)

    with listening(wire, promiscuous=False):
        assert "promiscuity 0 " in promiscuity()
    with listening(wire) as ring, sender(wire) as door:
        assert "promiscuity 1 " in promiscuity()
        door.send(frame(9000))
        wait_for("a block", lambda: ring.ready)
        captured = ring.read()
        assert captured is not None
    assert "promiscuity 0 " in promiscuity()
    assert not captured.records.data.any()  # what is left of a closed ring is zeros, no crash


def test_on_the_loopback_each_packet_is_seen_once(wire: Wire) -> None:
    with entered(wire.tap):
        ring = Ring("lo", size=1 << 18, block=1 << 16, timeout_ms=5)
        door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with ring, door:
        for number in range(5):
            door.sendto(b"Tapdeck %d" % number, ("127.0.0.1", 9))
        found = [one[42:] for one in collect(ring, 5) if one[23:24] == b"\x11"]
        assert found == [b"Tapdeck %d" % number for number in range(5)]


# -- other links, and what cannot be listened on -----------------------------------------------------------------------


@pytest.fixture
def tunnel(wire: Wire) -> Iterator[int]:
    """A tun interface `tun0` in the tap's namespace, switched off; the descriptor is its other end."""
    with entered(wire.tap), open("/dev/net/tun", "r+b", buffering=0) as door:
        fcntl.ioctl(door, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
        yield door.fileno()


def of_type(door: int, hardware: int) -> None:
    fcntl.ioctl(door, 0x400454CD, hardware)  # TUNSETLINK


PACKET = struct.pack(">BBHHHBBHII", 0x45, 0, 28, 1, 0, 64, 17, 0, 0x0A010203, 0x0A010204) + b"\0\x09\0\x09\0\x08\0\0"


@pytest.mark.parametrize("hardware", [0xFFFE, 512, 768, 776, 778])
def test_packets_without_a_link_header(wire: Wire, tunnel: int, hardware: int) -> None:
    of_type(tunnel, hardware)
    sh("ip", "-n", wire.tap, "link", "set", "tun0", "up")
    with entered(wire.tap):
        ring = Ring("tun0", size=1 << 18, block=1 << 16, timeout_ms=5)
    with ring:
        os.write(tunnel, PACKET)
        assert ring.link == 101
        assert collect(ring, 1) == [PACKET]


@pytest.mark.parametrize("hardware", [803, 280, 32])
def test_links_that_nobody_can_read(wire: Wire, tunnel: int, hardware: int) -> None:
    of_type(tunnel, hardware)
    with entered(wire.tap), pytest.raises(CaptureError, match=rf"tun0.*hardware type {hardware}.*choose an Ethernet"):
        Ring("tun0", size=1 << 18, block=1 << 16)


def test_something_else_that_comes_back_under_the_same_name(wire: Wire, tunnel: int) -> None:
    sh("ip", "-n", wire.tap, "link", "set", "tun0", "up")
    with entered(wire.tap):
        ring = Ring("tun0", size=1 << 18, block=1 << 16)
    with ring:
        sh("ip", "-n", wire.tap, "link", "delete", "tun0")
        assert ring.gone
        sh("ip", "-n", wire.tap, "link", "add", "tun0", "type", "bridge")
        assert not ring.reopen()  # it is not up
        sh("ip", "-n", wire.tap, "link", "set", "tun0", "up")
        with pytest.raises(CaptureError, match="another kind of interface"):
            ring.reopen()


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("nothere0", {}, "no such interface; `tapdeck interfaces`"),
        ("longer-than-any-name", {}, "no such interface"),
        ("any", {}, "name the interface of the mirror port"),
        ("mon0", {"block": 5000}, "multiple of 4096 bytes, not 5000"),
        ("mon0", {"size": 1 << 16}, "raise capture.ring_mb"),
        ("mon0", {"size": 1 << 44, "block": 1 << 30}, "lower capture.ring_mb"),
        ("mon0", {"hardware_stamps": True}, "set capture.hardware_stamps to false"),
        ("mon0", {"instructions": [(0xFFFF, 0, 0, 0)]}, "refuses the capture filter"),
    ],
)
def test_what_cannot_be_is_explained(wire: Wire, name: str, options: dict[str, object], text: str) -> None:
    with entered(wire.tap), pytest.raises(CaptureError, match=text):
        Ring(name, **({"size": 1 << 18, "block": 1 << 16} | options))  # type: ignore[arg-type]


@needs_namespaces("setpriv")
def test_without_the_right_to_listen(wire: Wire) -> None:
    """Root without CAP_NET_RAW, as in many containers."""
    script = f"from tapdeck.sniffer.sources.ring import Ring\nRing({wire.tap_interface!r}, size=1 << 18, block=1 << 16)"
    command = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", sys.executable, "-c", script)
    done = subprocess.run(within(wire.tap, *command), capture_output=True, text=True, check=False)
    assert "start as root, or with CAP_NET_RAW" in done.stderr
