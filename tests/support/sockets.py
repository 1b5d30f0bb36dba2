"""What processes do with the network, by the kernel's account: the sockets they have open, the calls they make."""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

INTERNET = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6")
LOCAL = {"unix": 6, "netlink": 9, "packet": 8}
"""Tables of sockets that lead to nobody else, and the column of the inode."""
LISTENING = "0A"
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_CALL = re.compile(r"(?P<name>\w+)\((?P<words>.*)")


@dataclass(frozen=True)
class Port:
    """A socket of the Internet protocols: table, own end, whether others can reach it without being asked."""

    table: str
    address: str
    port: int
    listening: bool


def ports_of_namespace(pid: int) -> list[Port]:
    """All Internet sockets in the network namespace of a process, whoever's they are."""
    found = []
    for table in INTERNET:
        with suppress(FileNotFoundError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                address, _, port = words[1].partition(":")
                unconnected = words[2].endswith(":0000")
                listening = words[3] == LISTENING if table.startswith("tcp") else unconnected
                found.append(Port(table, _address(address), int(port, 16), listening))
    return found


def foreign_sockets(pid: int) -> list[str]:
    """The sockets that a process holds and that are neither local ones nor packet sockets."""
    known: set[str] = set()
    for table, column in LOCAL.items():
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            known.add(line.split()[column])
    held = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
    return [name for name in held if (found := _SOCKET.fullmatch(name)) and found[1] not in known]


def traced(output: Path) -> list[str]:
    """The command line in front of a program that has its network calls written down, those of its children too."""
    calls = "connect,bind,listen,accept,accept4,sendto,sendmsg,sendmmsg"
    return ["strace", "-f", "--seccomp-bpf", "-qq", "-s", "0", "-e", f"trace={calls}", "-o", str(output)]


def internet_calls(output: Path) -> list[tuple[str, str]]:
    """The calls with an Internet address, and all of `listen` and `accept`, as (name, arguments)."""
    found = []
    for line in output.read_text(errors="replace").splitlines():
        call = _CALL.search(line)
        if call is not None and ("AF_INET" in call["words"] or call["name"].startswith(("listen", "accept"))):
            found.append((call["name"], call["words"]))
    return found


def run_traced(command: Sequence[str], output: Path) -> None:
    """Run a program to its end under the trace."""
    subprocess.run([*traced(output), *command], check=True, capture_output=True, timeout=60)


def names(calls: Iterable[tuple[str, str]]) -> set[str]:
    """The names of calls."""
    return {name for name, _ in calls}


def _address(text: str) -> str:
    """/proc has 32 bits at a time, in the machine's byte order."""
    raw = b"".join(struct.pack("=I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
