"""The list of interfaces against what `ip` and `ethtool` say of the same ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tapdeck.sniffer.sources import interfaces
from tapdeck.sniffer.sources.capture_file import CaptureError
from tests.support.netns import Namespaces, Wire, entered, needs_namespaces, sh, wait_for, within

ETHTOOL_NAMES = {
    "gro": "generic-receive-offload",
    "gro-hw": "rx-gro-hw",
    "gro-list": "rx-gro-list",
    "gro-udp": "rx-udp-gro-forwarding",
    "lro": "large-receive-offload",
    "gso": "generic-segmentation-offload",
    "tso": "tx-tcp-segmentation",
}


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Namespaces() as spaces:
        wire = Wire.between(spaces)
        sh("ip", "-n", wire.tap, "link", "add", "br7", "type", "bridge")
        sh("ip", "-n", wire.tap, "tuntap", "add", "dev", "tun3", "mode", "tun")
        sh("ip", "-n", wire.tap, "link", "set", "br7", "address", "02:00:00:00:00:07", "up")
        sh("ip", "-n", wire.tap, "addr", "add", "10.1.2.3/24", "dev", "br7")
        sh("ip", "-n", wire.tap, "addr", "add", "10.1.2.4/24", "dev", "br7", "label", "br7:mgmt")
        sh("ip", "-n", wire.tap, "route", "add", "default", "via", "10.1.2.1", "dev", "br7")
        settled(wire.sender, wire.interface, "UP")
        settled(wire.tap, wire.tap_interface, "UP")
        settled(wire.tap, "br7", "DOWN")  # no ports, no carrier
        yield wire


def settled(namespace: str, interface: str, state: str) -> None:
    """Wait until the kernel knows about the carrier."""
    for _ in range(2):  # asked again, it is done with what it had begun
        wait_for(state, lambda: f"state {state}" in sh("ip", "-n", namespace, "link", "show", interface))


def ethtool(wire: Wire, *options: str) -> str:
    return sh(*within(wire.tap, "ethtool", *options))


@needs_namespaces()
def test_interfaces_are_what_ip_says(wire: Wire) -> None:
    with entered(wire.tap):
        found = {one.name: one for one in interfaces.interfaces()}
    said = json.loads(sh("ip", "-n", wire.tap, "-d", "-s", "-j", "addr"))
    assert list(found) == [one["ifname"] for one in said]
    for one in said:
        ours = found[one["ifname"]]
        assert (ours.index, ours.mtu, ours.up) == (one["ifindex"], one["mtu"], "UP" in one["flags"])
        assert ours.addresses == tuple(address["local"] for address in one["addr_info"])
        assert ours.link_up == ("LOWER_UP" in one["flags"] and one["operstate"] in ("UP", "UNKNOWN"))
        if one["link_type"] == "ether":
            assert ours.mac == one["address"]
        rx, tx = one["stats64"]["rx"], one["stats64"]["tx"]
        assert (ours.counters.rx_packets, ours.counters.tx_packets) == (rx["packets"], tx["packets"])
    assert {name: one.kind for name, one in found.items()} == {
        "lo": "loopback", "br7": "bridge", "tun3": "tun", wire.tap_interface: "veth"
    }  # fmt: skip
    assert [name for name, one in found.items() if one.default_route] == ["br7"]
    assert found["br7"].addresses == ("10.1.2.3", "10.1.2.4")
    assert all(one.virtual for one in found.values())


@needs_namespaces()
def test_drivers_and_offloads_are_what_ethtool_says(wire: Wire) -> None:
    with entered(wire.tap):
        found = {one.name: one for one in interfaces.interfaces()}
    for name in (wire.tap_interface, "br7", "tun3"):
        assert found[name].driver == re.findall("^driver: (.*)$", ethtool(wire, "-i", name), re.MULTILINE)[0]
        lines = re.findall(r"^\s*([\w-]+): (on|off)( \[fixed\])?", ethtool(wire, "-k", name), re.MULTILINE)
        said = {key: (state == "on", bool(fixed)) for key, state, fixed in lines}
        ours = {short: (one.on, one.fixed) for short, one in found[name].offloads.items()}
        assert ours == {short: said[long] for short, long in ETHTOOL_NAMES.items()}


@needs_namespaces()
def test_offloads_are_switched_and_what_cannot_be_is_explained(wire: Wire) -> None:
    name = wire.tap_interface

    def gro() -> str:
        return ethtool(wire, "-k", name).partition("generic-receive-offload: ")[2].split()[0]

    with entered(wire.tap):
        for on in (True, True, False, False):
            interfaces.set_offload(name, "gro", on)
            assert gro() == ("on" if on else "off")
        interfaces.set_offload(name, "lro", False)  # fixed, and as wanted
        with pytest.raises(CaptureError, match="does not let lro be switched on"):
            interfaces.set_offload(name, "lro", True)
        with pytest.raises(CaptureError, match="it is one of gro,"):
            interfaces.set_offload(name, "rx-checksumming", False)
        with pytest.raises(CaptureError, match="no such interface"):
            interfaces.set_offload("nothere0", "gro", False)


@needs_namespaces("setpriv")
def test_switching_needs_root_and_says_so(wire: Wire) -> None:
    script = (
        "from tapdeck.sniffer.sources import interfaces\n"
        f"print(interfaces.interface({wire.tap_interface!r}).offloads['gro'].on)\n"
        f"interfaces.set_offload({wire.tap_interface!r}, 'gro', True)"
    )
    command = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", script)
    done = subprocess.run(within(wire.tap, *command), capture_output=True, text=True, check=False)
    assert done.stdout == "False\n"
    assert "run this with sudo" in done.stderr


@needs_namespaces()
def test_counters_of_what_came_and_went(wire: Wire) -> None:
    with entered(wire.tap):
        sh(*within(wire.sender, "ip", "addr", "add", "10.5.0.1/24", "dev", wire.interface))
        sh(*within(wire.sender, "ip", "neigh", "add", "10.5.0.2", "lladdr", "02:00:00:00:00:01", "dev", wire.interface))
        before = interfaces.counters(wire.tap_interface)
        sh(*within(wire.sender, "bash", "-c", "for n in 1 2 3; do echo -n Tapdeck > /dev/udp/10.5.0.2/9; done"))
        after = interfaces.counters(wire.tap_interface)
    assert (after.rx_packets - before.rx_packets, after.tx_packets) == (3, before.tx_packets)
    assert after.rx_bytes - before.rx_bytes == 3 * (14 + 20 + 8 + len("Tapdeck"))


@pytest.mark.parametrize("name", ["nothere0", "longer-than-any-name", ""])
def test_no_such_interface(name: str) -> None:
    for ask in (
        interfaces.interface,
        interfaces.counters,
        interfaces.index,
        interfaces.flags,
        interfaces.hardware_type,
    ):
        with pytest.raises(CaptureError, match="no such interface; `tapdeck interfaces` lists"):
            ask(name)
    assert not interfaces.is_up(name)


def test_cards_of_virtual_machines_are_known() -> None:
    lo = interfaces.interface("lo")
    assert lo.machine == ""
    assert replace(lo, driver="vmxnet3").machine == "VMware"
    assert replace(lo, driver="hv_netvsc").machine.startswith("Hyper-V")
    assert replace(lo, driver="igb").machine == ""
