"""A tap with a plug for each direction: what goes up on one interface, what comes down on the other, one recording."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.box import Box
from tests.support.ip import Packet
from tests.support.netns import Namespaces, Wire, entered, needs_namespaces, sh
from tests.support.scene import Scene, in_order, plain_call
from tests.support.wrap import ethernet

pytestmark = needs_namespaces()

PORTS = ("up0", "down0")


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Two pairs between the same namespaces."""
    with Namespaces() as spaces:
        first = Wire.between(spaces, "tx0", PORTS[0])
        Wire(first.sender, "tx1", first.tap, PORTS[1]).plug()
        yield first


def from_caller(packet: Packet, scenes: list[Scene]) -> bool:
    ends = {
        socket.inet_aton(end.address)
        for scene in scenes
        for end in (scene.dialog.caller.media, scene.dialog.caller.sip)
    }
    return packet.ip[12:16] in ends


def play(wire: Wire, scenes: list[Scene]) -> None:
    """Send each packet in its time, through the interface of its direction."""
    packets = in_order(*(scene.packets() for scene in scenes))
    doors = []
    with entered(wire.sender):
        for name in ("tx0", "tx1"):
            doors.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            doors[-1].bind((name, 0))
    ways = [doors[0 if from_caller(packet, scenes) else 1] for packet in packets]
    begin = time.monotonic_ns() - packets[0].time_ns
    for packet, door in zip(packets, ways, strict=True):
        time.sleep(max(begin + packet.time_ns - time.monotonic_ns(), 0) / 1e9)
        door.send(ethernet(packet.ip))
    for door in doors:
        door.close()


def test_both_directions_are_one_call(wire: Wire, tmp_path: Path) -> None:
    scenes = [plain_call(seed, duration_ms=3000) for seed in (1, 2, 3)]
    with Box(wire.tap, PORTS, tmp_path, more=("--ring-mb", "16")) as box:
        play(wire, scenes)
        box.wait_until_sealed()
        report = box.report("capture")
        found = {recording.info["CallId"]: recording for recording in box.recordings()}
    assert [port["name"] for port in report["interfaces"]] == list(PORTS)
    assert all(port["packets"] > 400 and port["drops"] == 0 for port in report["interfaces"])
    assert report["packets"]["unaccounted"] == 0
    assert set(found) == {scene.call_id for scene in scenes}
    for scene in scenes:
        recording = found[scene.call_id]
        sent = [b"".join(packet.payload for packet in side) for side in (scene.left, scene.right)]
        assert [side in channel for side, channel in zip(sent, recording.wav.channels(), strict=True)] == [True, True]
        assert recording.info["EndReason"].startswith("BYE")
        assert f"source={', '.join(PORTS)}" in recording.info["Recorder"]


def test_nothing_is_transmitted_on_either(wire: Wire, tmp_path: Path) -> None:
    before = {port: sent(wire, port) for port in PORTS}
    with Box(wire.tap, PORTS, tmp_path, more=("--ring-mb", "16")):
        play(wire, [plain_call(7, duration_ms=500)])
    assert {port: sent(wire, port) for port in PORTS} == before


def sent(wire: Wire, port: str) -> int:
    return int(
        sh("nsenter", f"--net=/run/netns/{wire.tap}", "--", "cat", "/proc/net/dev").split(f"{port}:")[1].split()[9]
    )
