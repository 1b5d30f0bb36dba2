"""`tapdeck interfaces`: the mirror port comes first, the way to the machine last."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tapdeck.cli.candidates import Candidate, ranked
from tapdeck.cli.interfaces import table
from tapdeck.sniffer.traffic import StreamFact, Traffic
from tests.cli.test_setup import interface
from tests.support.netns import Namespaces, Wire, needs_namespaces, sh, within
from tests.support.record import REPOSITORY
from tests.support.replay import command as replaying

STREAM = StreamFact(("10.0.0.1", 4000), ("10.0.0.2", 4000), 100, 0, 0, 1, True, False)
QUIET = Traffic(frames=3, group=3)
CANDIDATES = {
    "calls": Candidate(interface("calls"), 100, Traffic(frames=9, foreign=9, streams=(STREAM,))),
    "others": Candidate(interface("others"), 900, Traffic(frames=9, foreign=9)),
    "quiet": Candidate(interface("quiet"), 1, QUIET),
    "silent": Candidate(interface("silent"), 0, Traffic()),
    "addressed": Candidate(interface("addressed", addresses=("192.0.2.1",)), 1, QUIET),
    "unplugged": Candidate(interface("unplugged", link_up=False)),
    "off": Candidate(interface("off", up=False, link_up=False)),
    "management": Candidate(
        interface("management", addresses=("192.0.2.1",), default_route=True), 999, Traffic(frames=9, foreign=1)
    ),
}


def test_the_likeliest_comes_first() -> None:
    assert [one.name for one in ranked(list(CANDIDATES.values())[::-1])] == list(CANDIDATES)
    assert [name for name, one in CANDIDATES.items() if one.likely] == ["calls", "others"]


def test_every_hint_says_what_to_make_of_it() -> None:
    hints = {name: one.hint for name, one in CANDIDATES.items()}
    assert len(set(hints.values())) == len(hints) - 1  # quiet and addressed differ in their address only
    assert "ip link set off up" in hints["off"]
    assert "management" in hints["management"]


def test_without_the_right_to_listen_counters_are_shown() -> None:
    deaf = Candidate(interface("deaf"), 7, None, "listening needs the right to open raw sockets")
    assert "raw sockets" in table([deaf])[1]
    assert deaf.as_dict()["heard"] is None


@dataclass
class Tap:
    wire: Wire
    spaces: Namespaces

    def interfaces(self) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "tapdeck.cli", "interfaces", "--seconds", "2.5", "--json"]
        done = subprocess.run(
            within(self.wire.tap, *command),
            capture_output=True,
            text=True,
            check=True,
            cwd=REPOSITORY,
            env={"PYTHONPATH": "src", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        )
        found: list[dict[str, Any]] = json.loads(done.stdout)["interfaces"]
        return found


@pytest.fixture
def tap() -> Iterator[Tap]:
    """A tap with a mirror port, a management card, a port without a cable, and one that is off."""
    with Namespaces() as spaces:
        wire = Wire.between(spaces)
        for name in ("mgmt", "dead", "off"):
            pair = ("type", "veth", "peer", "name", f"{name}-far", "netns", wire.sender)
            sh("ip", "-n", wire.tap, "link", "add", name, *pair)
        for name in ("mgmt", "dead"):
            sh("ip", "-n", wire.tap, "link", "set", name, "up")
        sh("ip", "-n", wire.sender, "link", "set", "mgmt-far", "up")
        sh("ip", "-n", wire.tap, "address", "add", "192.0.2.7/24", "dev", "mgmt")
        sh("ip", "-n", wire.tap, "route", "add", "default", "via", "192.0.2.1")
        yield Tap(wire, spaces)


@needs_namespaces()
def test_interfaces_of_a_machine(tap: Tap) -> None:
    capture = REPOSITORY / "fixtures" / "lab" / "a_alaw.pcap"
    sender = replaying(tap.wire.interface, capture, speed=4)
    tap.spaces.start(tap.wire.sender, *sender, env={"PYTHONPATH": str(REPOSITORY)})
    found = tap.interfaces()
    assert [one["name"] for one in found] == ["mon0", "dead", "off", "mgmt"]
    mirror = found[0]
    assert (mirror["likely"], mirror["link_up"], mirror["addresses"]) == (True, True, [])
    assert mirror["packets_per_second"] > 50
    assert mirror["heard"]["rtp_streams"] == 2
    assert mirror["heard"]["between_others"] > 200
    assert [one["link_up"] for one in found[1:]] == [False, False, True]
    assert (found[3]["default_route"], found[3]["addresses"]) == (True, ["192.0.2.7"])
    assert not any(one["likely"] for one in found[1:])
