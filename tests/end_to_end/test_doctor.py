"""`tapdeck doctor` in namespaces set up wrong in every way: what is on the wire, and what it says of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import files
from tests.support.ip import Packet
from tests.support.media import MS, SECOND
from tests.support.netns import Namespaces, Wire, needs_namespaces, sh, wait_for, within
from tests.support.record import REPOSITORY
from tests.support.replay import command as replaying
from tests.support.scene import START_NS, in_order, plain_call

pytestmark = needs_namespaces()

LAB = REPOSITORY / "fixtures" / "lab"
SECONDS = 4
SPEED = 8
"""Captures of ten seconds are replayed in little more than one."""
TRAFFIC = ("traffic", "mirror", "sip", "rtp", "sip-both-ways", "sound-both-ways", "signalling")


@dataclass
class Doctor:
    """The doctor at a tap, and somebody who sends to it."""

    wire: Wire
    spaces: Namespaces
    folder: Path

    def command(self, *more: str, seconds: float = SECONDS, json_: bool = True) -> list[str]:
        arguments = [
            "doctor",
            "-i",
            self.wire.tap_interface,
            "--seconds",
            str(seconds),
            *more,
            *(["--json"] if json_ else []),
        ]
        return within(self.wire.tap, sys.executable, "-m", "tapdeck.cli", *arguments)

    @property
    def environment(self) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("TAPDECK_")}
        mine = {f"TAPDECK_STORAGE_{name}": str(self.folder) for name in ("SPOOL", "STATE", "RECORDINGS")}
        return plain | mine | {"PYTHONPATH": str(REPOSITORY / "src"), "TAPDECK_CAPTURE_RING_MB": "16"}

    def send(self, capture: Path, speed: float = SPEED) -> None:
        """Send a capture once somebody listens, in the background."""
        replay = replaying(self.wire.interface, capture, speed=speed)
        look = f"ip -n {self.wire.tap} -d link show dev {self.wire.tap_interface}"
        script = f'for i in $(seq 400); do {look} | grep -q "promiscuity 1" && exec "$@"; sleep 0.05; done; exit 1'
        command = ["sh", "-c", script, "send", *replay]
        self.spaces.start(self.wire.sender, *command, env={"PYTHONPATH": str(REPOSITORY)})

    def visit(
        self, capture: Path | None = None, *more: str, seconds: float = SECONDS, speed: float = SPEED
    ) -> tuple[int, dict[str, dict[str, Any]]]:
        """The exit code, and each check, of a visit while this capture is sent."""
        if capture is not None:
            self.send(capture, speed)
        done = subprocess.run(
            self.command(*more, seconds=seconds),
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=REPOSITORY,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        report = json.loads(done.stdout)
        assert report["colour"] == ["green", "amber", "red"][done.returncode]
        return done.returncode, {one["check"]: one for one in report["checks"]}


@pytest.fixture
def doctor(tmp_path: Path) -> Iterator[Doctor]:
    with Namespaces() as spaces:
        wire = Wire.between(spaces)
        sh(*within(wire.tap, "ethtool", "-K", wire.tap_interface, "gro", "off"))
        yield Doctor(wire, spaces, tmp_path)


def colours(found: dict[str, dict[str, Any]], *checks: str) -> list[str]:
    return [found[check]["colour"] for check in checks]


def written(folder: Path, packets: Sequence[Packet], wrapping: str = "ethernet") -> Path:
    return files.write(folder, files.pcap(packets, wrapping, nano=True), "sent.pcap")


def some_calls(count: int = 2) -> list[Packet]:
    return in_order(*(plain_call(seed, start_ns=START_NS, duration_ms=8000).packets() for seed in range(1, count + 1)))


# -- right, and wrong in each way --------------------------------------------------------------------------------------


def test_a_good_mirror(doctor: Doctor) -> None:
    code, found = doctor.visit(LAB / "k1_proxy.pcap")
    assert set(colours(found, *TRAFFIC, "copies", "loss", "truncated", "merged", "ring", "link", "offloads")) == {
        "green"
    }
    assert colours(found, "separate-card", "promiscuous", "virtual-card", "disk-speed") == ["green"] * 4
    assert "21 SIP messages" in found["sip"]["seen"]
    assert "2,182 packets" in found["ring"]["seen"]
    assert code <= 1  # the clock of the machine that runs the tests may well be amber


def test_no_mirror_at_all(doctor: Doctor) -> None:
    code, found = doctor.visit(seconds=1)
    assert (code, found["traffic"]["colour"]) == (2, "red")


def test_only_broadcasts(doctor: Doctor) -> None:
    arp = b"\xff" * 6 + b"\2\0\0\0\0\1\x08\x06" + bytes(46)
    records = [files.pcap_record(START_NS + n * 50 * MS, arp) for n in range(100)]
    code, found = doctor.visit(files.write(doctor.folder, files.pcap_header(1) + b"".join(records)))
    assert (code, *colours(found, "traffic", "mirror")) == (2, "green", "red")
    assert "100 broadcasts" in found["mirror"]["seen"]


def test_span_set_to_rx_only(doctor: Doctor) -> None:
    """What one phone sends, and nothing of what it gets: a real call, filtered as such a switch would."""
    one_way = doctor.folder / "rx.pcap"
    sh("tcpdump", "-r", LAB / "a_alaw.pcap", "-w", one_way, "src host 10.9.0.11")
    code, found = doctor.visit(one_way)
    assert (code, *colours(found, "sip-both-ways", "sound-both-ways")) == (2, "red", "red")
    assert "rx and tx" in found["sound-both-ways"]["todo"]


def test_every_packet_twice(doctor: Doctor) -> None:
    twice = files.write(doctor.folder, files.twice(some_calls(), "vlan"))
    _, found = doctor.visit(twice)
    assert colours(found, "copies", "sound-both-ways", "rtp") == ["amber", "green", "green"]
    assert "(100%)" in found["copies"]["seen"]
    assert "VLAN 42 (50%)" in found["wrapping"]["seen"]


@pytest.mark.parametrize(
    ("wrapping", "words"),
    [
        ("vlan", "VLAN 42 (100%)"),
        ("qinq", "QinQ"),
        ("gre", "GRE"),
        ("erspan2", "ERSPAN type II"),
        ("erspan3", "ERSPAN type III"),
        ("vxlan", "VXLAN"),
    ],
)
def test_tags_and_tunnels(doctor: Doctor, wrapping: str, words: str) -> None:
    _, found = doctor.visit(written(doctor.folder, some_calls(), wrapping))
    assert words in found["wrapping"]["seen"]
    assert set(colours(found, *TRAFFIC, "wrapping", "copies")) == {"green"}


def test_sound_without_signalling(doctor: Doctor) -> None:
    media = plain_call(start_ns=START_NS + 4 * SECOND, duration_ms=8000).media_packets()
    first = plain_call(9, duration_ms=14_000).left  # running already
    packets = in_order(media, [one.packet() for one in first])
    _, found = doctor.visit(written(doctor.folder, packets), speed=2)
    assert colours(found, "sip", "rtp") == ["amber", "green"]


def test_signalling_without_sound(doctor: Doctor) -> None:
    silent = replace(plain_call(duration_ms=8000), left=(), right=())
    code, found = doctor.visit(written(doctor.folder, silent.packets()), seconds=5.5, speed=1)
    assert (code, *colours(found, "sip", "rtp")) == (2, "green", "red")


def test_packets_lost_on_the_way(doctor: Doctor) -> None:
    packets = [
        packet
        for packet in some_calls(3)
        if (packet.time_ns - START_NS) // MS % 2000 > 150 or packet.time_ns < START_NS + SECOND
    ]
    _, found = doctor.visit(written(doctor.folder, packets), speed=4)
    assert found["loss"]["colour"] == "red"
    assert "moments at which all streams miss packets" in found["loss"]["seen"]


# -- the machine -------------------------------------------------------------------------------------------------------


def test_a_card_for_everything(doctor: Doctor) -> None:
    sh("ip", "-n", doctor.wire.tap, "address", "add", "192.0.2.7/24", "dev", doctor.wire.tap_interface)
    code, found = doctor.visit(LAB / "a_alaw.pcap")
    assert (code, found["separate-card"]["colour"]) == (2, "red")
    assert "192.0.2.7" in found["separate-card"]["seen"]


def test_a_cable_that_is_out(doctor: Doctor) -> None:
    sh("ip", "-n", doctor.wire.sender, "link", "set", doctor.wire.interface, "down")
    code, found = doctor.visit(seconds=1)
    assert (code, *colours(found, "link", "traffic")) == (2, "red", "red")


def test_an_interface_that_vanishes_ends_nothing(doctor: Doctor) -> None:
    watch = subprocess.Popen(
        doctor.command(seconds=3), stdout=subprocess.PIPE, text=True, env=doctor.environment, cwd=REPOSITORY
    )
    wait_for("the doctor to listen", lambda: "promiscuity 1" in _details(doctor))
    doctor.wire.unplug()
    out, _ = watch.communicate(timeout=30)
    found = {one["check"]: one for one in json.loads(out)["checks"]}
    assert (watch.returncode, found["link"]["colour"]) == (2, "red")


def _details(doctor: Doctor) -> str:
    return sh("ip", "-n", doctor.wire.tap, "-d", "link", "show", "dev", doctor.wire.tap_interface)


def test_fix_turns_off_what_joins_packets(doctor: Doctor) -> None:
    tap, interface = doctor.wire.tap, doctor.wire.tap_interface
    sh(*within(tap, "ethtool", "-K", interface, "gro", "on"))
    _, found = doctor.visit(seconds=1)
    assert found["offloads"]["colour"] == "amber"
    assert f"ethtool -K {interface} gro off" in found["offloads"]["todo"]
    _, found = doctor.visit(None, "--fix", seconds=1)
    assert found["offloads"]["colour"] == "green"
    assert "generic-receive-offload: off" in sh(*within(tap, "ethtool", "-k", interface))


def test_expected_calls_and_the_disk(doctor: Doctor) -> None:
    free = os.statvfs(doctor.folder)
    minutes = free.f_bavail * free.f_frsize // 960_000 // 3
    _, found = doctor.visit(None, "--minutes-per-day", str(minutes), seconds=1)
    assert found["disk-space"]["colour"] == "red"
    assert "3 days" in found["disk-space"]["seen"] or "2 days" in found["disk-space"]["seen"]


# -- how it is used ----------------------------------------------------------------------------------------------------


def test_plain_lines_and_ctrl_c(doctor: Doctor) -> None:
    doctor.send(LAB / "a_alaw.pcap")
    watch = subprocess.Popen(
        doctor.command(seconds=60, json_=False),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=doctor.environment | {"PYTHONUNBUFFERED": "1"},
        cwd=REPOSITORY,
    )
    assert watch.stdout is not None
    lines = []
    for line in watch.stdout:
        lines.append(line.rstrip())
        if "green  sound both ways" in line:
            break
    watch.send_signal(signal.SIGINT)
    rest, errors = watch.communicate(timeout=30)
    assert errors == ""
    assert watch.returncode in (0, 1)
    assert any("green  SIP seen" in line for line in lines)
    assert "this is how things stand so far" in rest
    assert "Verdict: " in rest.splitlines()[-1]
    assert "\x1b" not in rest


def test_nothing_is_sent_and_no_address_is_needed(doctor: Doctor) -> None:
    before = doctor.wire.counters()["tx_packets"]
    doctor.visit(LAB / "a_alaw.pcap")
    assert doctor.wire.counters()["tx_packets"] == before
    assert "inet" not in sh("ip", "-n", doctor.wire.tap, "address", "show", "dev", doctor.wire.tap_interface)


def test_two_interfaces_of_a_tap(doctor: Doctor) -> None:
    """Each direction on a card of its own: whole only together."""
    second = replace(doctor.wire, interface="tx1", tap_interface="mon1")
    second.plug()
    halves = []
    for name, host in (("one", "10.9.0.11"), ("two", "10.9.0.12")):
        halves.append(doctor.folder / f"{name}.pcap")
        sh("tcpdump", "-r", LAB / "a_alaw.pcap", "-w", halves[-1], f"src host {host}")
    doctor.send(halves[0])
    Doctor(second, doctor.spaces, doctor.folder).send(halves[1])
    _, found = doctor.visit(None, "-i", "mon1")
    assert colours(found, "sip-both-ways", "sound-both-ways", "signalling") == ["green"] * 3
    assert "mon0: " in found["ring"]["seen"]
    assert "mon1: " in found["ring"]["seen"]
