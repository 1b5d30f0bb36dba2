"""A running box listens nowhere, connects to nobody and sends nothing: by /proc, by strace, by the card's counters."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import files
from tests.support.box import Box
from tests.support.netns import Namespaces, Wire, entered, needs_namespaces, sh, statistics, wait_for, within
from tests.support.replay import replay
from tests.support.scene import Scene, plain_call
from tests.support.sockets import foreign_sockets, internet_calls, names, ports_of_namespace, run_traced, traced

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="not installed: strace (scripts/setup --test)")
pytestmark = needs_namespaces()

PORT = 19464
METRICS = ("--prometheus-listen", f"127.0.0.1:{PORT}")


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Namespaces() as spaces:
        yield Wire.between(spaces)


class Watched(Box):
    """A whole box that delivers to a folder; with `trace`, its network calls are written down."""

    def __init__(self, wire: Wire, folder: Path, *more: str, trace: Path | None = None) -> None:
        self.target = folder / "target"
        self.target.mkdir()
        self.trace = trace
        options = ["--ring-mb=8", "--bye-linger-s=0.2", f"--deliver-to={self.target}", *more]
        super().__init__(wire.tap, [wire.tap_interface], folder, "run", options)

    def __enter__(self) -> "Watched":
        self.start()
        return self

    def _command(self) -> list[str]:
        return [*(traced(self.trace) if self.trace is not None else []), *super()._command()]

    def everyone(self) -> dict[str, int]:
        """All processes by their command: the supervisor, its stages, and whatever else they have started."""
        assert self.process is not None
        found: dict[str, int] = {}
        for pid in (self.process.pid, *_below(self.process.pid)):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if "tapdeck.cli" in words and "strace" not in words[0]:
                found[words[words.index("tapdeck.cli") + 1]] = pid
        return found

    def end(self) -> None:
        """Stop it as a service manager does, also where a tracer stands between."""
        assert self.process is not None
        os.kill(self.everyone()["run"], signal.SIGTERM)
        assert self.process.wait(60) == 0, self.said()

    def record(self, wire: Wire, scene: Scene, folder: Path) -> None:
        """Have a call recorded and delivered."""
        replay(wire.sender, wire.interface, files.write(folder, files.pcap(scene.packets())))
        self.wait_until_sealed()
        wait_for("the copy", lambda: list(self.target.rglob("*.wav")), 30)
        [recording] = self.recordings()
        for heard, sent in zip(recording.wav.channels(), (scene.left, scene.right), strict=True):
            assert b"".join(packet.payload for packet in sent) in heard
        [copy] = self.target.rglob("*.wav")
        assert copy.read_bytes() == recording.path.read_bytes()


def _below(pid: int) -> list[int]:
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [found for child in children for found in (child, *_below(child))]


def listens() -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", PORT)) == 0


def inside(wire: Wire, ask: Callable[[], object]) -> Callable[[], object]:
    """Ask from within the namespace of the box."""

    def asked() -> object:
        with entered(wire.tap):
            return ask()

    return asked


def test_nothing_listens_and_nothing_is_sent(wire: Wire, tmp_path: Path) -> None:
    """R-000-22: no port is open. The capture interface needs no address, and nothing ever goes out of it."""
    with Watched(wire, tmp_path) as box:
        assert set(box.everyone()) == {"run", "capture", "seal", "deliver"}
        for _ in range(2):
            for pid in box.everyone().values():
                assert ports_of_namespace(pid) == []
                assert foreign_sockets(pid) == []
            if not box.recordings():
                box.record(wire, plain_call(seed=3), tmp_path)
        [card] = json.loads(sh("ip", "-n", wire.tap, "-j", "address", "show", "dev", wire.tap_interface))
        assert card["addr_info"] == []
        counted = statistics(wire.tap, wire.tap_interface)
        assert (counted["rx_packets"] > 100, counted["tx_packets"]) == (True, 0)
        told = box.report("capture")["interfaces"][0]
        assert (told["name"], told["tx_packets"]) == (wire.tap_interface, 0)
        box.end()
    assert statistics(wire.tap, wire.tap_interface)["tx_packets"] == 0


def test_the_endpoint_that_is_configured_is_the_only_one(wire: Wire, tmp_path: Path) -> None:
    with Watched(wire, tmp_path, *METRICS) as box:
        wait_for("the endpoint", inside(wire, listens))
        everyone = box.everyone()
        open_to_others = {one for pid in everyone.values() for one in ports_of_namespace(pid) if one.listening}
        assert [(one.table, one.address, one.port) for one in open_to_others] == [("tcp", "127.0.0.1", PORT)]
        assert [name for name, pid in everyone.items() if foreign_sockets(pid)] == ["metrics"]
        with entered(wire.tap), urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=10) as answer:
            assert b"tapdeck" in answer.read()
        box.end()


@needs_strace
def test_no_connection_is_made_and_no_datagram_sent(wire: Wire, tmp_path: Path) -> None:
    """R-000-25: from start to stop, with a call recorded and delivered, by every process of the box."""
    trace = tmp_path / "trace"
    with Watched(wire, tmp_path, trace=trace) as box:
        box.record(wire, plain_call(seed=4), tmp_path)
        box.end()
    assert internet_calls(trace) == []
    # The capture stage binds its packet socket: the tracer has seen what the stages do, not only the supervisor.
    bound = [line for line in trace.read_text().splitlines() if "bind(" in line and "AF_PACKET" in line]
    assert bound


@needs_strace
def test_with_the_endpoint_only_its_own_address_is_bound(wire: Wire, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with Watched(wire, tmp_path, *METRICS, trace=trace) as box:
        wait_for("the endpoint", inside(wire, listens))
        box.record(wire, plain_call(seed=5), tmp_path)
        box.end()
    calls = internet_calls(trace)
    assert names(calls) <= {"bind", "listen", "accept", "accept4"}
    [bound] = [words for name, words in calls if name == "bind"]
    assert f"htons({PORT})" in bound
    assert '"127.0.0.1"' in bound


@needs_strace
def test_the_self_test_connects_to_nobody_either(tmp_path: Path) -> None:
    for name in ("recordings", "spool", "state", "target"):
        (tmp_path / name).mkdir()
    places = [f"--out={tmp_path}/recordings", f"--spool={tmp_path}/spool", f"--state={tmp_path}/state"]
    users = ["--group=", *(f"--{stage}-user=" for stage in ("capture", "seal", "deliver"))]
    command = [sys.executable, "-m", "tapdeck.cli", "selftest", *places, *users, f"--deliver-to={tmp_path}/target"]
    run_traced(command, tmp_path / "trace")
    assert internet_calls(tmp_path / "trace") == []


@needs_strace
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("s = socket.socket(); s.connect_ex(('127.0.0.1', 9))", {"connect"}),
        ("s = socket.socket(type=2); s.sendto(b'x', ('127.0.0.1', 9))", {"sendto"}),
        ("s = socket.socket(socket.AF_INET6, 2); s.connect_ex(('::1', 9))", {"connect"}),
        ("s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()", {"bind", "listen"}),
        ("os.fork() or socket.socket(type=2).sendmsg([b'x'], [], 0, ('127.0.0.1', 9))", {"sendmsg"}),
        ("s = socket.socket(socket.AF_UNIX); s.connect_ex('/nowhere')", set()),
    ],
)
def test_the_trace_would_show_it(tmp_path: Path, code: str, expected: set[str]) -> None:
    run_traced([sys.executable, "-c", f"import os, socket; {code}"], tmp_path / "trace")
    assert names(internet_calls(tmp_path / "trace")) == expected


OPENS = """
import socket, sys
made = [socket.socket(family, kind) for family in (socket.AF_INET, socket.AF_INET6) for kind in (1, 2)]
for one in made:
    one.bind(("127.0.0.1" if one.family == socket.AF_INET else "::", 0))
    one.type == socket.SOCK_STREAM and one.listen()
print(*(one.getsockname()[1] for one in made), flush=True)
sys.stdin.read()
"""


def test_the_tables_would_show_it(wire: Wire) -> None:
    command = within(wire.tap, sys.executable, "-c", OPENS)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        numbers = {int(word) for word in other.stdout.readline().split()}
        found = ports_of_namespace(other.pid)
        assert {(one.port, one.listening) for one in found} == {(number, True) for number in numbers}
        assert {one.table for one in found} == {"tcp", "tcp6", "udp", "udp6"}
        assert {one.address for one in found} == {"127.0.0.1", "::"}
        assert len(foreign_sockets(other.pid)) == 4
        assert other.stdin is not None
        other.stdin.close()
