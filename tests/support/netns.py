"""Network namespaces for tests: made under names of their own, removed with all that runs in them.

with Namespaces() as spaces:
    wire = Wire.between(spaces)
    subprocess.run(spaces.command(wire.tap, "tcpdump", "-i", wire.tap_interface))
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import pytest

PREFIX = "tapdeck"
FOLDER = Path("/run/netns")
CLONE_NEWNET = 0x40000000

_NAME = re.compile(rf"{PREFIX}-(?P<pid>\d+)-[0-9a-f]+-.+")


def missing(*tools: str) -> str:
    """Why tests in namespaces cannot run here; empty if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    lacking = [tool for tool in ("ip", "tc", "ethtool", *tools) if shutil.which(tool) is None]
    return f"not installed: {', '.join(lacking)} (scripts/setup --test)" if lacking else ""


def needs_namespaces(*tools: str) -> pytest.MarkDecorator:
    """Skip where there is no root, or where a tool is missing."""
    reason = missing(*tools)
    return pytest.mark.skipif(bool(reason), reason=reason or "all is there")


class NetworkError(RuntimeError):
    """A command that sets up the network failed; the message holds it and what it said."""


def sh(*command: str | Path | float) -> str:
    """Run a command to its end and return what it printed. Raises NetworkError."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclass
class Namespaces:
    """Namespaces of one test. Their names hold this process's id, so that the next run can sweep what a crash left."""

    made: list[str] = field(default_factory=list)
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _tag: str = field(default_factory=lambda: f"{PREFIX}-{os.getpid()}-{secrets.token_hex(3)}")

    def __enter__(self) -> Namespaces:
        _sweep()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def add(self, role: str, *, six: bool = False) -> str:
        """Make a namespace with its loopback up; without `six` nothing in it speaks IPv6."""
        name = f"{self._tag}-{role}"
        sh("ip", "netns", "add", name)
        self.made.append(name)
        if not six:
            sh("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
            sh("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        sh("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def start(
        self, name: str, *command: str | Path | int, log: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in a namespace, in a session of its own; its output goes to `log`."""
        with (log or Path(os.devnull)).open("ab") as sink:
            child = subprocess.Popen(
                within(name, *command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=os.environ | (env or {}),
                start_new_session=True,
            )
        self.children.append(child)
        return child

    def close(self) -> None:
        """End what was started, then remove the namespaces."""
        for child in self.children:
            stop(child)
        for name in self.made:
            remove(name)
        self.children.clear()
        self.made.clear()


def end_in_order() -> None:
    """From now on SIGTERM ends this process as Ctrl-C does: with all that it started."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def within(name: str, *command: str | Path | int) -> list[str]:
    """The command line that runs a command in a namespace."""
    # nsenter execs in place: the process id is the command's own, and /sys stays as it is.
    return ["nsenter", f"--net={FOLDER / name}", "--", *map(str, command)]


def stop(child: subprocess.Popen[bytes], how: int = signal.SIGTERM, patience_s: float = 5) -> int:
    """End a process with its group, gently first; return its exit code."""
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, how)
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    return child.wait(5)


def remove(name: str) -> None:
    """Remove a namespace after killing what still runs in it."""
    if not (FOLDER / name).exists():
        return
    for pid in map(int, sh("ip", "netns", "pids", name).split()):
        if pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    sh("ip", "netns", "delete", name)


def _sweep() -> None:
    """Remove what processes left that are no more."""
    for path in FOLDER.glob(f"{PREFIX}-*"):
        found = _NAME.fullmatch(path.name)
        if found and not Path("/proc", found["pid"]).exists():
            # Another worker may sweep at the same time.
            with suppress(NetworkError, OSError):
                remove(path.name)


@contextmanager
def entered(name: str) -> Iterator[None]:
    """This thread is in the namespace: sockets it opens belong there, for as long as they live."""
    libc = ctypes.CDLL(None, use_errno=True)
    home, there = (os.open(path, os.O_RDONLY) for path in ("/proc/thread-self/ns/net", FOLDER / name))
    try:
        _setns(libc, there)
        yield
    finally:
        _setns(libc, home)
        os.close(home)
        os.close(there)


def _setns(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@dataclass(frozen=True)
class Wire:
    """A veth pair: what is sent through `interface` in `sender` arrives at `tap_interface` in `tap`."""

    sender: str
    interface: str
    tap: str
    tap_interface: str

    @classmethod
    def between(cls, spaces: Namespaces, interface: str = "tx0", tap_interface: str = "mon0") -> Wire:
        """Make both namespaces and the pair, up and silent."""
        wire = cls(spaces.add("sender"), interface, spaces.add("tap"), tap_interface)
        wire.plug()
        return wire

    def plug(self) -> None:
        """Make the pair (again, after `unplug`)."""
        pair = ("link", "add", self.interface, "type", "veth", "peer", "name", self.tap_interface, "netns", self.tap)
        sh("ip", "-n", self.sender, *pair)
        for name, interface in ((self.sender, self.interface), (self.tap, self.tap_interface)):
            sh("ip", "-n", name, "link", "set", interface, "mtu", "9000", "up")

    def unplug(self) -> None:
        """Remove the pair, as when a card is pulled out."""
        sh("ip", "-n", self.tap, "link", "delete", self.tap_interface)

    def counters(self) -> dict[str, int]:
        """The kernel's own count at the tap: rx_packets, rx_dropped, tx_packets, and the sender's tx_dropped."""
        tap = statistics(self.tap, self.tap_interface)
        lost = statistics(self.sender, self.interface)["tx_dropped"]
        return {name: tap[name] for name in ("rx_packets", "rx_dropped", "tx_packets")} | {"tx_dropped": lost}


def statistics(name: str, interface: str) -> dict[str, int]:
    """The counters of an interface, as `ip` shows them."""
    [found] = json.loads(sh("ip", "-n", name, "-s", "-j", "link", "show", "dev", interface))
    counts = found["stats64"]
    return {f"{way}_{what}": counts[way][what] for way in ("rx", "tx") for what in ("packets", "dropped", "errors")}


def wait_for(what: str, ready: Callable[[], object], patience_s: float = 20.0) -> None:
    """Wait until `ready` returns something true. Raises TimeoutError naming `what`."""
    end = time.monotonic() + patience_s
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {patience_s:g} s")
        time.sleep(0.02)
