"""The same call, seen through every wrapping, file dialect and way of handing files over, gives the same sound."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from tests.support import files
from tests.support.ip import Packet, fragments
from tests.support.media import MS
from tests.support.record import DAMAGED, Result, assert_sound, record
from tests.support.scene import Scene, each_packet, in_order, plain_call
from tests.support.wrap import WRAPPINGS

SIX = (
    "ethernet",
    "vlan",
    "qinq",
    "pppoe",
    "linux_cooked_v1",
    "linux_cooked_v2",
    "raw_ip",
    "bsd_null",
    "bsd_loop",
    "vxlan",
)


def recorded(folder: Path, content: bytes, name: str = "capture.pcap", *, packed: bool = False) -> Result:
    result = record(folder / "out", files.write(folder, content, name, packed=packed))
    assert result.code == 0, result.stderr
    return result


@pytest.mark.parametrize("wrapping", [name for name in WRAPPINGS if name != "ipv6_extensions"])
def test_every_wrapping(wrapping: str, tmp_path: Path) -> None:
    scene = plain_call()
    result = recorded(tmp_path, files.pcap(scene.packets(), wrapping))
    assert_sound(result.only(), *scene.channels())


@pytest.mark.parametrize("wrapping", [*SIX, "ipv6_extensions"])
def test_every_wrapping_of_ipv6(wrapping: str, tmp_path: Path) -> None:
    scene = plain_call(six=True)
    result = recorded(tmp_path, files.pcap(scene.packets(), wrapping))
    assert_sound(result.only(), *scene.channels())


def test_plain_and_tagged_packets_in_turn(tmp_path: Path) -> None:
    scene = plain_call()
    wrappings = ("ethernet", "vlan", "ipv4_options", "qinq", "vxlan", "gre", "erspan2")
    records = [
        files.pcap_record(packet.time_ns, WRAPPINGS[wrappings[count % len(wrappings)]].frame(packet.ip))
        for count, packet in enumerate(scene.packets())
    ]
    result = recorded(tmp_path, files.pcap_header(1) + b"".join(records))
    assert_sound(result.only(), *scene.channels())


DIALECTS: dict[str, Callable[[list[Packet]], bytes]] = {
    "little-endian microseconds": files.pcap,
    "big-endian microseconds": lambda packets: files.pcap(packets, order=">"),
    "little-endian nanoseconds": lambda packets: files.pcap(packets, nano=True),
    "big-endian nanoseconds": lambda packets: files.pcap(packets, order=">", nano=True),
    "pcapng": files.pcapng,
    "pcapng big-endian": lambda packets: files.pcapng(packets, order=">"),
    "pcapng interfaces of several links and clocks": lambda packets: files.pcapng(
        packets, (("ethernet", 6), ("linux_cooked_v1", 9), ("raw_ip", 7))
    ),
    "pcapng with a binary clock": lambda packets: files.pcapng(packets, (("ethernet", 0x80 | 30),)),
    "pcapng of two sections": lambda packets: files.pcapng(packets[:40]) + files.pcapng(packets[40:], order=">"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_file_dialect(dialect: str, packed: bool, tmp_path: Path) -> None:
    scene = plain_call()
    result = recorded(tmp_path, DIALECTS[dialect](scene.packets()), packed=packed)
    assert_sound(result.only(), *scene.channels())


@pytest.mark.parametrize("form", ["pcap", "pcapng", "gzip"])
def test_standard_input(form: str, tmp_path: Path) -> None:
    scene = plain_call()
    content = files.pcapng(scene.packets()) if form == "pcapng" else files.pcap(scene.packets())
    piped = files.write(tmp_path, gzip.compress(content) if form == "gzip" else content)
    result = record(tmp_path / "out", "-", stdin=piped)
    assert result.code == 0, result.stderr
    assert_sound(result.only(), *scene.channels())


@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("backward", [False, True], ids=["in order", "last first"])
def test_fragments(six: bool, backward: bool, tmp_path: Path) -> None:
    scene = plain_call(six=six)

    def cut(packet: bytes) -> list[bytes]:
        pieces = fragments(packet, ident=crc32(packet), size=200)
        return pieces[::-1] if backward else pieces

    result = recorded(tmp_path, files.pcap(each_packet(scene.packets(), cut)))
    assert_sound(result.only(), *scene.channels())


def test_fragmented_sound(tmp_path: Path) -> None:
    """Even RTP may be cut (a tunnel's small MTU): each packet in two."""
    scene = plain_call()
    pieces = each_packet(scene.packets(), lambda packet: fragments(packet, ident=crc32(packet), size=96))
    result = recorded(tmp_path, files.pcap(pieces))
    assert_sound(result.only(), *scene.channels())


@pytest.mark.parametrize("cuts", [0, 1, 3, 40])
@pytest.mark.parametrize("swap", [False, True], ids=["in order", "swapped and repeated"])
def test_sip_over_tcp(cuts: int, swap: bool, tmp_path: Path) -> None:
    scene = plain_call()
    result = recorded(tmp_path, files.pcap(scene.packets_over_tcp(seed=cuts, cuts=cuts, swap=swap)))
    assert_sound(result.only(), *scene.channels())


def test_sip_over_tcp_over_ipv6(tmp_path: Path) -> None:
    scene = plain_call(six=True)
    result = recorded(tmp_path, files.pcap(scene.packets_over_tcp(seed=1)))
    assert_sound(result.only(), *scene.channels())


def test_several_files_in_time_order(tmp_path: Path) -> None:
    scene = plain_call(duration_ms=1500)
    packets = scene.packets()
    parts = [packets[:5], packets[5:70], packets[70:]]
    captures = [files.write(tmp_path, files.pcap(part), f"{count}.pcap") for count, part in enumerate(parts)]
    result = record(tmp_path / "out", *captures)
    assert result.code == 0, result.stderr
    assert_sound(result.only(), *scene.channels())


def test_a_tap_with_one_file_for_each_direction(tmp_path: Path) -> None:
    scene = plain_call()
    caller = {scene.dialog.caller.sip, scene.dialog.caller.media}
    sent = Scene(scene.dialog, tuple(s for s in scene.signals if s.source in caller), scene.left)
    got = Scene(scene.dialog, tuple(s for s in scene.signals if s.source not in caller), (), scene.right)
    captures = [
        files.write(tmp_path, files.pcap(sent.packets()), "rx.pcap"),
        files.write(tmp_path, files.pcapng(got.packets()), "tx.pcapng"),
    ]
    for count, order in enumerate((captures, captures[::-1])):
        result = record(tmp_path / f"out{count}", *order)
        assert result.code == 0, result.stderr
        assert_sound(result.only(), *scene.channels())


def test_two_taps_that_see_the_same(tmp_path: Path) -> None:
    scene = plain_call()
    later = [Packet(packet.time_ns + 100_000, packet.ip) for packet in scene.packets()]
    one = files.write(tmp_path, files.pcap(scene.packets()), "one.pcap")
    two = files.write(tmp_path, files.pcap(later, "vlan"), "two.pcap")
    result = record(tmp_path / "out", one, two)
    assert_sound(result.only(), *scene.channels())
    assert result.summary["packets"]["duplicate"] >= len(scene.left) + len(scene.right)


@pytest.mark.parametrize(("second", "hop"), [("ethernet", False), ("ethernet", True), ("vlan", False), ("vlan", True)])
@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
def test_a_mirror_that_shows_every_packet_twice(second: str, hop: bool, six: bool, tmp_path: Path) -> None:
    scene = plain_call(six=six)
    result = recorded(tmp_path, files.twice(scene.packets(), second, hop=hop))
    assert_sound(result.only(), *scene.channels())
    packets = result.summary["packets"]
    assert packets["kept"] == len(scene.left) + len(scene.right)
    assert packets["duplicate"] + packets["signalling"] == packets["kept"] + 2 * len(scene.signals)


@pytest.mark.parametrize("form", ["pcap", "pcapng", "gzip"])
def test_a_file_cut_in_the_middle_of_a_packet(form: str, tmp_path: Path) -> None:
    scene = plain_call()
    packets = scene.packets()
    dialect = files.pcapng if form == "pcapng" else files.pcap
    whole, cut = len(dialect(packets[:60])), len(dialect(packets[:61])) - 30
    content = dialect(packets)[:cut]
    assert len(content) > whole
    content = gzip.compress(content) if form == "gzip" else content
    result = record(tmp_path / "out", files.write(tmp_path, content))
    assert result.code == DAMAGED
    assert_sound(result.only(), *scene.until(packets[60].time_ns).channels())
    assert len(result.summary["damaged"]) == 1, "it says so"


def test_a_gzip_stream_without_its_end(tmp_path: Path) -> None:
    scene = plain_call()
    packed = gzip.compress(files.pcap(scene.packets()))
    result = record(tmp_path / "out", files.write(tmp_path, packed[: len(packed) * 3 // 4], "cut.pcap.gz"))
    assert result.code == DAMAGED
    left, right = result.only().wav.channels()
    assert left
    assert scene.channels()[0].startswith(left.rstrip(b"\xd5"))
    assert scene.channels()[1].startswith(right.rstrip(b"\xd5"))


def test_records_out_of_order_in_the_file(tmp_path: Path) -> None:
    """Two cards' queues are merged badly: the records' times go back and forth by up to 5 ms."""
    scene = plain_call()
    packets = in_order(scene.packets())
    slots = sorted(range(len(packets)), key=lambda n: packets[n].time_ns + n * 7 % 3 * 5 * MS)
    result = recorded(tmp_path, files.pcap([packets[n] for n in slots]))
    assert [packets[n] for n in slots] != packets
    assert_sound(result.only(), *scene.channels())
