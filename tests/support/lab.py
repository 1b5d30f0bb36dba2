"""A small office in network namespaces: phones on a bridge, whose ports are mirrored to a tap.

      phone a 10.9.0.11 --.                            .-- mon0, in the tap's namespace
      phone b 10.9.0.12 --|  br0, in the switch's      |
      phone c 10.9.0.13 --'  tc u32 + mirred  -- span -'

with Lab(mirror=Mirror(vlans=(100,))) as lab:
    with phones.Baresip(lab, "a") as caller, phones.Baresip(lab, "b") as callee: ...

Everything is sent and heard inside the namespaces.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from .netns import Namespaces, sh

HOSTS = {"a": 11, "b": 12, "c": 13}
TAP_INTERFACE = "mon0"
NETWORK = "10.9.0.0/24"
MTU = 9000

BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}
BPF_PROG_LOAD, BPF_OBJ_PIN = 5, 6
BPF_PROG_TYPE_SCHED_CLS = 3
SKB_VLAN_PUSH = 18
C_TAG, S_TAG = 0x8100, 0x88A8


@dataclass(frozen=True)
class Mirror:
    """How the switch was set up.

    `ports`: the phones whose ports are mirrored. `ways`: what a port receives (`ingress`), what it sends (`egress`).
    With all ports and both ways each frame is seen twice; with one port and `ingress` only, one half of each call.
    `vlans`: tags pushed on the span port, the outer one first; of two the outer one is an S-tag (802.1ad).
    """

    ports: tuple[str, ...] = tuple(HOSTS)
    ways: tuple[str, ...] = ("ingress",)
    vlans: tuple[int, ...] = ()


ONCE = Mirror()
DOUBLED = Mirror(ways=("ingress", "egress"))
RX_ONLY = Mirror(ports=("a",))
ONE_PORT = Mirror(ports=("a",), ways=("ingress", "egress"))


def address(host: str) -> str:
    """The IPv4 address of a phone."""
    return f"10.9.0.{HOSTS[host]}"


class Lab:
    """The network; whatever is started in it ends with it."""

    def __init__(self, mirror: Mirror = ONCE, hosts: Sequence[str] = ("a", "b")) -> None:
        self.mirror, self.hosts = mirror, tuple(hosts)
        self.spaces = Namespaces()
        self.of: dict[str, str] = {}

    @property
    def tap(self) -> str:
        """The namespace with the tap, whose interface is `mon0`."""
        return self.of["tap"]

    def __enter__(self) -> Lab:
        self.spaces.__enter__()
        try:
            self._build()
        except BaseException:
            self.spaces.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.spaces.close()

    def _build(self) -> None:
        for role in ("switch", "tap", *self.hosts):
            self.of[role] = self.spaces.add(role)
        switch = self.of["switch"]
        sh("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        sh("ip", "-n", switch, "link", "set", "br0", "up")
        sh("ip", "-n", switch, *_pair("span", TAP_INTERFACE, self.tap))
        sh("ip", "-n", switch, "link", "set", "span", "mtu", MTU, "up")
        sh("ip", "-n", self.tap, "link", "set", TAP_INTERFACE, "mtu", MTU, "up")
        for host in self.hosts:
            self._plug(host)
        if self.mirror.vlans:
            _push_tags(switch, self.mirror.vlans)

    def _plug(self, host: str) -> None:
        """A phone on its port, and the port mirrored."""
        switch, space, port = self.of["switch"], self.of[host], f"port-{host}"
        sh("ip", "-n", space, *_pair("eth0", port, switch))
        # The mirror must see the checksums and sizes that a cable would.
        sh("nsenter", f"--net=/run/netns/{space}", "ethtool", "-K", "eth0", "tx", "off", "gso", "off", "tso", "off")
        sh("ip", "-n", space, "link", "set", "eth0", "address", f"02:00:00:00:09:{HOSTS[host]:02x}", "up")
        sh("ip", "-n", space, "addr", "add", f"{address(host)}/24", "dev", "eth0")
        sh("ip", "-n", switch, "link", "set", port, "master", "br0", "up")
        if host in self.mirror.ports:
            sh("tc", "-n", switch, "qdisc", "add", "dev", port, "clsact")
            for way in self.mirror.ways:
                everything = ("protocol", "all", "u32", "match", "u32", 0, 0)
                copy = ("action", "mirred", "egress", "mirror", "dev", "span")
                sh("tc", "-n", switch, "filter", "add", "dev", port, way, *everything, *copy)


def _pair(name: str, peer: str, space: str) -> tuple[str, ...]:
    return ("link", "add", name, "type", "veth", "peer", "name", peer, "netns", space)


def _push_tags(switch: str, vlans: tuple[int, ...]) -> None:
    """Have tags pushed on what leaves the span port."""
    sh("tc", "-n", switch, "qdisc", "add", "dev", "span", "clsact")
    with _pinned(_tagging(vlans)) as program:
        sh("tc", "-n", switch, "filter", "add", "dev", "span", "egress", "bpf", "da", "object-pinned", program)


def _tagging(vlans: tuple[int, ...]) -> bytes:
    """A tc program that pushes the tags by bpf_skb_vlan_push: many kernels lack act_vlan, none lacks this."""
    code = [_instruction(0xBF, 6, source=1)]  # r6 = the packet
    for depth, vlan in reversed(list(enumerate(vlans))):  # the inner one first
        kind = S_TAG if depth == 0 and len(vlans) > 1 else C_TAG
        code += [
            _instruction(0xBF, 1, source=6),
            _instruction(0xB7, 2, value=int.from_bytes(kind.to_bytes(2, "little"), "big")),
            _instruction(0xB7, 3, value=vlan),
            _instruction(0x85, 0, value=SKB_VLAN_PUSH),
        ]
    code += [_instruction(0xB7, 0), _instruction(0x95, 0)]  # return TC_ACT_OK
    return b"".join(code)


def _instruction(code: int, target: int, *, source: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, target | source << 4, 0, value)


@contextmanager
def _pinned(program: bytes) -> Iterator[Path]:
    """The program, loaded and to be found under a path, as long as the block lasts."""
    with TemporaryDirectory(prefix="tapdeck-bpf") as folder:
        sh("mount", "-t", "bpf", "bpf", folder)
        try:
            path = Path(folder, "program")
            descriptor = _load(program)
            name = ctypes.create_string_buffer(str(path).encode())
            _bpf(BPF_OBJ_PIN, struct.pack("<QI", ctypes.addressof(name), descriptor))
            os.close(descriptor)
            yield path
        finally:
            sh("umount", folder)


def _load(program: bytes) -> int:
    code, licence = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
    places = (ctypes.addressof(code), ctypes.addressof(licence))
    return _bpf(BPF_PROG_LOAD, struct.pack("<IIQQ", BPF_PROG_TYPE_SCHED_CLS, len(program) // 8, *places))


def _bpf(command: int, attributes: bytes) -> int:
    """bpf(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    space = ctypes.create_string_buffer(attributes.ljust(128, b"\0"))
    done: int = libc.syscall(BPF_SYSCALL[platform.machine()], command, space, len(space))
    if done < 0:
        raise OSError(ctypes.get_errno(), f"bpf: {os.strerror(ctypes.get_errno())}")
    return done
