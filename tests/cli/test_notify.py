"""What systemd is told, heard by a real datagram socket."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tapdeck.cli import notify


@pytest.fixture(params=["path", "abstract"])
def receiver(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@tapdeck-{uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0", 1))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield sock


def test_what_is_said(receiver: socket.socket) -> None:
    assert notify.ready()
    assert receiver.recv(4096) == b"READY=1"
    assert notify.ready("listening on eth1")
    assert receiver.recv(4096) == b"READY=1\nSTATUS=listening on eth1"
    assert notify.status("3 calls")
    assert receiver.recv(4096) == b"STATUS=3 calls"
    assert notify.watchdog()
    assert receiver.recv(4096) == b"WATCHDOG=1"
    assert notify.stopping()
    assert receiver.recv(4096) == b"STOPPING=1"


def test_reloading_has_its_time(receiver: socket.socket) -> None:
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert notify.reloading()
    first, second = receiver.recv(4096).decode().splitlines()
    after = time.clock_gettime(time.CLOCK_MONOTONIC)
    name, _, value = second.partition("=")
    assert (first, name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert int(before * 1e6) <= int(value) <= int(after * 1e6)


def test_text_from_elsewhere_cannot_say_something_of_its_own(receiver: socket.socket) -> None:
    assert notify.status("call of Eve\nWATCHDOG=trigger\x1b[2J")
    (line,) = receiver.recv(4096).decode().splitlines()
    assert line == "STATUS=call of Eve WATCHDOG=trigger\ufffd[2J"


@pytest.mark.parametrize("value", [None, "", "relative", "/nowhere/notify", "@tapdeck-nobody"])
def test_without_a_listener_nothing_happens(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if value is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", value)
    said = [notify.ready(), notify.status("x"), notify.watchdog(), notify.reloading(), notify.stopping()]
    assert not any(said)


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_is_hungry(environ: dict[str, str], seconds: float | None) -> None:
    assert notify.watchdog_interval(environ) == seconds
