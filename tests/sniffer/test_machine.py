"""The doctor's checks of the machine, with cards, clocks and disks that are not there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tapdeck.sniffer.finding import Colour, Finding
from tapdeck.sniffer.machine import RECEIVE_OFFLOADS, Card, Disk, Machine, SystemClock, judge
from tapdeck.sniffer.traffic import Traffic

GREEN, AMBER, RED, OPEN = Colour.GREEN, Colour.AMBER, Colour.RED, Colour.OPEN
CARD = Card("eth1", "igb", packets=1000)
DISK = Disk("/spool", 10**12, write_mb_s=200.0, sync_ms=5.0)
GOOD = Machine((CARD,), clock=SystemClock(True, 12.0), disk=DISK)
MIRROR = Traffic(frames=1000, foreign=990)
NOTHING = Traffic(frames=10, group=10)


def of(machine: Machine, traffic: Traffic = MIRROR) -> dict[str, Finding]:
    return {one.check: one for one in judge(machine, traffic)}


def with_card(**changes: object) -> Machine:
    return replace(GOOD, cards=(replace(CARD, **changes),))  # type: ignore[arg-type]


def test_a_good_machine_is_all_green() -> None:
    assert {one.colour for one in of(GOOD).values()} == {GREEN}


def test_no_cable() -> None:
    found = of(with_card(link_up=False))["link"]
    assert (found.colour, "eth1" in found.todo) == (RED, True)


@pytest.mark.parametrize("name", RECEIVE_OFFLOADS)
def test_offloads(name: str) -> None:
    joins_udp = name in ("gro-udp", "gro-list")
    found = of(with_card(offloads={name: True}))["offloads"]
    assert found.colour is (RED if joins_udp else AMBER)
    assert "ethtool -K eth1 gro off" in found.todo
    assert "another card" not in found.todo
    stuck = of(with_card(offloads={name: False}))["offloads"]
    assert stuck.colour is (RED if joins_udp else GREEN)
    assert ("another card" in stuck.todo) == joins_udp


@pytest.mark.parametrize(("drops", "colour"), [(0, GREEN), (1, AMBER), (100, RED)])
def test_ring_drops(drops: int, colour: Colour) -> None:
    assert of(with_card(packets=100_00, drops=drops))["ring"].colour is colour


@pytest.mark.parametrize("driver", ["vmxnet3", "hv_netvsc", "virtio_net", "e1000"])
def test_a_virtual_machines_card(driver: str) -> None:
    machine = with_card(driver=driver, machine="a hypervisor")
    assert of(machine)["virtual-card"].colour is GREEN
    found = of(machine, NOTHING)["virtual-card"]
    assert found.colour is AMBER
    assert "promiscuous" in found.todo.lower() or "mirror" in found.todo.lower()


def test_a_card_that_is_not_promiscuous() -> None:
    machine = with_card(promiscuous=False)
    assert of(machine)["promiscuous"].colour is AMBER
    assert of(machine, NOTHING)["promiscuous"].colour is RED


def test_one_card_for_everything() -> None:
    assert of(with_card(default_route=True, addresses=("192.0.2.7",)))["separate-card"].colour is RED
    assert of(with_card(addresses=("192.0.2.7",)))["separate-card"].colour is AMBER
    alone = replace(with_card(addresses=("192.0.2.7",)), other_way=False)
    assert of(alone)["separate-card"].colour is RED
    assert of(with_card(addresses=("fe80::1",)))["separate-card"].colour is GREEN
    assert of(with_card(sent=3, addresses=("fe80::1",)))["separate-card"].colour is AMBER


def test_the_clock() -> None:
    assert of(replace(GOOD, clock=SystemClock(False, 16_000.0)))["clock"].colour is AMBER
    assert of(replace(GOOD, clock=None))["clock"].colour is OPEN


@pytest.mark.parametrize(
    ("speed", "sync", "colour"), [(100.0, 10.0, GREEN), (15.0, 10.0, AMBER), (100.0, 900.0, AMBER), (2.0, 10.0, RED)]
)
def test_the_disks_speed(speed: float, sync: float, colour: Colour) -> None:
    assert of(replace(GOOD, disk=replace(DISK, write_mb_s=speed, sync_ms=sync)))["disk-speed"].colour is colour


def test_a_disk_that_cannot_be_measured() -> None:
    found = of(replace(GOOD, disk=replace(DISK, problem="may not be written")))
    assert (found["disk-speed"].colour, found["disk-speed"].seen) == (OPEN, "may not be written")
    assert found["disk-space"].colour is GREEN


def test_space_for_the_expected_calls() -> None:
    tight = replace(GOOD, disk=replace(DISK, free=20 * 288_000_000))
    found = of(tight)["disk-space"]
    assert (found.colour, found.seen) == (AMBER, "5.8 GB free: 20 days of 300 minutes of calls (288 MB a day)")
    assert of(replace(tight, minutes_per_day=600))["disk-space"].colour is RED
    assert of(replace(tight, minutes_per_day=30))["disk-space"].colour is GREEN


def test_two_cards_are_judged_together() -> None:
    second = replace(CARD, name="eth2", link_up=False)
    found = of(replace(GOOD, cards=(CARD, second)))["link"]
    assert (found.colour, found.seen) == (RED, "eth1: up; eth2: no link")
