"""The generator itself, judged by Wireshark's dissectors: what it builds is what it says it builds."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import files, recipes
from tests.support.ip import Packet, fragments, version
from tests.support.media import PCMA, PCMU, delayed, lost, talk, with_digit, with_pauses
from tests.support.scene import Scene, each_packet, plain_call
from tests.support.wrap import WRAPPINGS

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

DIGITS_TO_CALLER = 3

SCENES: dict[str, Callable[[], Scene]] = {
    "plain": plain_call,
    "plain over IPv6": lambda: plain_call(six=True),
    "held": lambda: recipes.held(1),
    "moved": lambda: recipes.moved(1),
    "early media": lambda: recipes.early_media(1),
    "busy": lambda: recipes.failed(1, "486 Busy Here"),
    "cancelled": lambda: recipes.failed(1, "487 Request Terminated"),
    "authenticated": lambda: recipes.authenticated(1),
    "delayed offer": lambda: recipes.delayed_offer(1),
    "forked": lambda: recipes.forked(1),
    "relayed": lambda: recipes.relayed(1),
    "with RTCP": lambda: recipes.with_rtcp(plain_call(), muxed=False),
    "with RTCP muxed": lambda: recipes.with_rtcp(plain_call(), muxed=True),
}


def tshark(capture: Path, *fields: str, read_filter: str = "") -> list[tuple[str, ...]]:
    """The fields of each packet that passes the filter."""
    command = ["tshark", "-n", "-r", str(capture), "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]
    command += ["-o", "tcp.check_checksum:TRUE"]
    command += ["-Y", read_filter] if read_filter else []
    command += ["-T", "fields", *(part for field in fields for part in ("-e", field))]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return [tuple(line.split("\t")) for line in run.stdout.splitlines()]


def complaints(capture: Path) -> list[tuple[str, ...]]:
    bad = "_ws.malformed || ip.checksum.status == 0 || udp.checksum.status == 0 || tcp.checksum.status == 0"
    return tshark(capture, "frame.number", "_ws.col.info", read_filter=bad)


@pytest.mark.parametrize("name", SCENES)
def test_wireshark_sees_the_messages_and_streams_of_a_scene(name: str, tmp_path: Path) -> None:
    scene = SCENES[name]()
    capture = files.write(tmp_path, files.pcap(scene.packets()))
    assert complaints(capture) == []
    messages = tshark(capture, "sip.Call-ID", read_filter="sip")
    assert messages == [(scene.call_id,)] * len(scene.signals)
    rtp = Counter(port for (port,) in tshark(capture, "udp.srcport", read_filter="rtp"))
    assert all(rtp[str(packet.source.port)] for packet in (*scene.left, *scene.right))


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wireshark_finds_the_rtp_within_every_wrapping(wrapping: str, tmp_path: Path) -> None:
    scene = plain_call(duration_ms=200, six=wrapping == "ipv6_extensions")
    capture = files.write(tmp_path, files.pcap(scene.packets(), wrapping))
    assert complaints(capture) == []
    found = sorted(payload for (payload,) in tshark(capture, "rtp.payload", read_filter="rtp"))
    assert found == sorted(packet.payload.hex() for packet in (*scene.left, *scene.right))


@pytest.mark.parametrize("six", [False, True])
def test_wireshark_reassembles_the_fragments(six: bool, tmp_path: Path) -> None:
    scene = plain_call(six=six)
    pieces = each_packet(scene.packets(), lambda packet: fragments(packet, ident=len(packet), size=200))
    capture = files.write(tmp_path, files.pcap(pieces))
    assert len(pieces) > len(scene.packets())
    assert complaints(capture) == []
    assert len(tshark(capture, "sip.Call-ID", read_filter="sip")) == len(scene.signals)


@pytest.mark.parametrize("swap", [False, True])
def test_wireshark_reassembles_the_tcp_connection(swap: bool, tmp_path: Path) -> None:
    scene = plain_call()
    capture = files.write(tmp_path, files.pcap(scene.packets_over_tcp(seed=5, swap=swap)))
    assert complaints(capture) == []
    option = "tcp.reassemble_out_of_order:TRUE"
    command = ["tshark", "-n", "-r", str(capture), "-o", option, "-Y", "sip", "-T", "fields", "-e", "sip.CSeq.method"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    methods = [method for line in run.stdout.split() for method in line.split(",")]
    assert methods == ["INVITE"] * 4 + ["ACK"] + ["BYE"] * 2


def test_every_file_dialect_has_the_same_packets_and_times(tmp_path: Path) -> None:
    packets = plain_call(duration_ms=200).packets()
    writers: dict[str, Callable[[list[Packet]], bytes]] = {
        "little.pcap": files.pcap,
        "big.pcap": lambda packets: files.pcap(packets, order=">"),
        "nano.pcap": lambda packets: files.pcap(packets, nano=True),
        "big_nano.pcap": lambda packets: files.pcap(packets, nano=True, order=">"),
        "one.pcapng": files.pcapng,
        "big.pcapng": lambda packets: files.pcapng(packets, order=">"),
        "several.pcapng": lambda packets: files.pcapng(packets, (("ethernet", 6), ("vlan", 9), ("linux_cooked_v1", 4))),
    }
    expected = [(f"{packet.time_ns / 1e9:.4f}", str(version(packet.ip))) for packet in packets]
    for name, writer in writers.items():
        capture = files.write(tmp_path, writer(packets), name)
        seen = tshark(capture, "frame.time_epoch", "ip.version")
        assert [(f"{float(time):.4f}", ip) for time, ip in seen] == expected, name


def test_loss_and_digits_are_as_wireshark_counts_them(tmp_path: Path) -> None:
    scene = plain_call()
    left = with_digit(lost(delayed(scene.left, {20}, 50), {3, 4, 30}), 10, "7")
    changed = Scene(scene.dialog, scene.signals, left, scene.right)
    capture = files.write(tmp_path, files.pcap(changed.packets()))
    events = tshark(capture, "rtpevent.event_id", read_filter="rtpevent")
    assert events == [("7",)] * 5
    run = subprocess.run(
        ["tshark", "-r", str(capture), "-q", "-z", "rtp,streams"], capture_output=True, text=True, check=True
    )
    line = next(line for line in run.stdout.splitlines() if f"0x{scene.left[0].ssrc:08X}" in line)
    assert "3 (6.0%)" in line


def test_no_sample_of_a_voice_is_silence() -> None:
    caller, callee = plain_call().dialog.caller.media, plain_call().dialog.callee.media
    for pt in (PCMA, PCMU):
        sound = b"".join(packet.payload for packet in talk(caller, callee, 0, 1000, seed=3, pt=pt))
        assert len(sound) == 8000
        assert not {0xD5, 0xFF} & set(sound)


def test_silence_suppression_leaves_the_rtp_clock_running_and_the_sequence_whole() -> None:
    quiet = with_pauses(plain_call().left, range(10, 20))
    assert [packet.seq for packet in quiet] == list(range(1000, 1041))
    assert all((packet.ts - 160_000) * 125_000 == packet.place_ns - quiet[0].place_ns for packet in quiet)
    assert [packet.marker for packet in quiet[9:13]] == [False, False, True, False]
