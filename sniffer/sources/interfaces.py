"""The network interfaces of this machine: what each is, whether it is up, its addresses, counters and offloads.

All of it comes from ioctls and /proc/net, which speak of the network namespace one is in; /sys does not always.
"""

import ctypes
import errno
import fcntl
import ipaddress
import os
import socket
import struct
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass

from .capture_file import CaptureError
from .ethtool import OFFLOADS, Offload, driver, explained, offloads, padded, set_offload

__all__ = ["OFFLOADS", "Counters", "Interface", "Offload", "counters", "interface", "interfaces", "set_offload"]

ETHERNET, LOOPBACK = 1, 772
"""Hardware types (ARPHRD_*)."""
_IFCONF, _IFFLAGS, _IFMTU, _IFHWADDR, _IFINDEX = 0x8912, 0x8913, 0x8921, 0x8927, 0x8933
_UP, _RUNNING = 0x1, 0x40
_IFREQ = 40
_RTF_UP, _RTF_REJECT = 0x1, 0x200

_KINDS = {
    "bridge": "bridge",
    "openvswitch": "bridge",
    "veth": "veth",
    "tun": "tun",
    "bonding": "bond",
    "team": "bond",
    "802.1Q VLAN Support": "vlan",
    "vxlan": "tunnel",
    "geneve": "tunnel",
    "wireguard": "tunnel",
}
_VIRTUAL_MACHINES = {
    "virtio_net": "KVM, Proxmox or a cloud",
    "vmxnet3": "VMware",
    "hv_netvsc": "Hyper-V or Azure",
    "xen_netfront": "Xen",
    "vif": "Xen",
    "e1000": "VMware, VirtualBox or QEMU",
    "pcnet32": "VMware or VirtualBox",
    "8139cp": "QEMU",
    "ena": "Amazon",
    "gve": "Google",
    "iavf": "a pass-through function",
    "ixgbevf": "a pass-through function",
}


@dataclass(frozen=True, slots=True)
class Counters:
    """An interface's own counters since it came up."""

    rx_packets: int
    rx_bytes: int
    rx_errors: int
    rx_dropped: int
    tx_packets: int
    tx_bytes: int


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface. `hardware` is its ARPHRD_* type, `link_up` whether it has a carrier, `addresses` its IP addresses.

    `kind` is one of ethernet, wireless, loopback, bridge, bond, veth, vlan, tun, tunnel, virtual, other; `bus` is the
    place of its card, empty if it has none; `default_route` whether this machine's way out leads through it.
    """

    name: str
    index: int
    kind: str
    hardware: int
    driver: str
    bus: str
    up: bool
    link_up: bool
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    default_route: bool
    counters: Counters
    offloads: dict[str, Offload]

    @property
    def virtual(self) -> bool:
        """Whether there is no card behind it, real or a virtual machine's."""
        return not self.bus

    @property
    def machine(self) -> str:
        """What kind of virtual machine has such a card; empty for a real one."""
        return _VIRTUAL_MACHINES.get(self.driver, "")


def interfaces() -> list[Interface]:
    """Return all interfaces, in the kernel's order. One that vanishes meanwhile is left out."""
    found = []
    for _, name in socket.if_nameindex():
        try:
            found.append(interface(name))
        except CaptureError:
            if name in (known for _, known in socket.if_nameindex()):
                raise
    return found


def interface(name: str) -> Interface:
    """Return one interface. Raises CaptureError if there is none of this name."""
    kind, bus = driver(name)
    address = request(name, _IFHWADDR)
    hardware = struct.unpack_from("=H", address)[0]
    state = flags(name)
    return Interface(
        name=name,
        index=index(name),
        kind=_kind(name, hardware, kind, bus),
        hardware=hardware,
        driver=kind,
        bus=bus,
        up=bool(state & _UP),
        link_up=bool(state & _UP and state & _RUNNING),
        mac=address[2:8].hex(":") if hardware == ETHERNET else "",
        mtu=struct.unpack_from("=i", request(name, _IFMTU))[0],
        addresses=tuple(_addresses()[name]),
        default_route=name in _ways_out(),
        counters=counters(name),
        offloads=offloads(name),
    )


def counters(name: str) -> Counters:
    """Return what an interface has counted. `tx_packets` of a mirror port stays as it is: nothing is ever sent.

    Raises CaptureError if there is none of this name.
    """
    for line in _lines("dev")[2:]:
        key, _, rest = line.partition(":")
        if key.strip() == name:
            values = [int(word) for word in rest.split()]
            return Counters(values[1], values[0], values[2], values[3], values[9], values[8])
    raise explained(name, OSError(errno.ENODEV, ""))


def index(name: str, door: socket.socket | None = None) -> int:
    """Return an interface's number. Raises CaptureError if there is none of this name.

    Here and below `door` is a socket to ask through: its network namespace is meant.
    """
    return int(struct.unpack_from("=i", request(name, _IFINDEX, door))[0])


def flags(name: str, door: socket.socket | None = None) -> int:
    """Return an interface's flags (IFF_*). Raises CaptureError if there is none of this name."""
    return int(struct.unpack_from("=H", request(name, _IFFLAGS, door))[0])


def is_up(name: str, door: socket.socket | None = None) -> bool:
    """Tell whether there is an interface of this name and it is switched on."""
    try:
        return bool(flags(name, door) & _UP)
    except CaptureError:
        return False


def hardware_type(name: str, door: socket.socket | None = None) -> int:
    """Return an interface's type (ARPHRD_*). Raises CaptureError if there is none of this name."""
    return int(struct.unpack_from("=H", request(name, _IFHWADDR, door))[0])


def request(name: str, number: int, door: socket.socket | None = None) -> bytes:
    """Ask by ioctl; return what the kernel put behind the name. Raises CaptureError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) if door is None else nullcontext(door) as way:
        try:
            return fcntl.ioctl(way, number, padded(name) + bytes(24))[16:]
        except OSError as error:
            raise explained(name, error) from None


def _kind(name: str, hardware: int, driver_name: str, bus: str) -> str:
    if hardware == LOOPBACK:
        return "loopback"
    if any(os.path.exists(f"/sys/class/net/{name}/{mark}") for mark in ("phy80211", "wireless")):
        return "wireless"
    if driver_name in _KINDS:
        return _KINDS[driver_name]
    if bus:
        return "ethernet" if hardware == ETHERNET else "other"
    return "virtual" if hardware == ETHERNET else "tunnel"


def _addresses() -> dict[str, list[str]]:
    """Return the IP addresses of all interfaces."""
    found = defaultdict(list)
    space = bytearray(_IFREQ * 1024)
    holder = (ctypes.c_char * len(space)).from_buffer(space)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        answer = fcntl.ioctl(door, _IFCONF, struct.pack("iP", len(space), ctypes.addressof(holder)))
    for start in range(0, struct.unpack_from("i", answer)[0], _IFREQ):
        label = space[start : start + 16].split(b"\0")[0].decode()
        found[label.partition(":")[0]].append(str(ipaddress.IPv4Address(bytes(space[start + 20 : start + 24]))))
    for line in _lines("if_inet6"):
        words = line.split()
        found[words[5]].append(str(ipaddress.IPv6Address(int(words[0], 16))))
    return found


def _ways_out() -> set[str]:
    """Return the interfaces that a default route leads through."""
    out = set()
    for words in (line.split() for line in _lines("route")[1:]):
        if words[1] == words[7] == "00000000" and int(words[3], 16) & _RTF_UP:
            out.add(words[0])
    for words in (line.split() for line in _lines("ipv6_route")):
        state = int(words[8], 16)
        if int(words[0], 16) == 0 and words[1] == "00" and state & _RTF_UP and not state & _RTF_REJECT:
            out.add(words[9])
    return out


def _lines(table: str) -> list[str]:
    """Return the lines of a table in /proc/net: none if the kernel does not have it (IPv6 left out)."""
    try:
        with open(f"/proc/thread-self/net/{table}", encoding="ascii", errors="replace") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []
