"""`tapdeck doctor --security`: each way in which an installation can stand open."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tapdeck.cli import security
from tapdeck.cli.main import cli
from tapdeck.cli.security_checks import NET_RAW, Account, Installation, Listener, Place, Process, judge
from tapdeck.cli.settings import Settings
from tapdeck.sniffer.finding import Colour, Finding
from tapdeck.sniffer.machine import Card
from tapdeck.storage import state

GREEN, AMBER, RED, OPEN = Colour.GREEN, Colour.AMBER, Colour.RED, Colour.OPEN
USERS = tuple(
    Account(stage, f"tapdeck-{stage}", uid, "/usr/sbin/nologin", "locked")
    for uid, stage in enumerate(("capture", "seal", "deliver"), 900)
)
GOOD = Installation(
    accounts=USERS,
    places=(Place("/recordings", 0o2770, "tapdeck-seal", "tapdeck-seal"), Place("/spool", 0o2770, "a", "a")),
    config=Place("/etc/tapdeck/tapdeck.toml", 0o640, "root", "root"),
    units={"tapdeck.service": 1.4},
    cards=(Card("eth1"),),
    processes=(Process("run", 1, 0, 0xFF), Process("capture", 2, 900, NET_RAW), Process("seal", 3, 901, 0)),
    listeners=(Listener("run", "tcp", "127.0.0.1", 9464),),
    allowed=frozenset({("127.0.0.1", 9464)}),
)


def of(found: Installation) -> dict[str, Finding]:
    return {one.check: one for one in judge(found)}


def user(**changes: object) -> Installation:
    return replace(GOOD, accounts=(replace(USERS[0], **changes), *USERS[1:]))  # type: ignore[arg-type]


def test_a_good_installation_is_all_green() -> None:
    assert {one.colour for one in of(GOOD).values()} == {GREEN}


@pytest.mark.parametrize(
    ("found", "check", "colour"),
    [
        (user(uid=None), "users", RED),
        (user(uid=901), "users", RED),
        (user(uid=0), "users", RED),
        (user(shell="/bin/bash"), "users", AMBER),
        (user(password="set"), "passwords", AMBER),
        (replace(GOOD, without_password=("guest",)), "passwords", RED),
        (replace(GOOD, is_root=False), "passwords", OPEN),
        (replace(GOOD, places=(Place("/r", 0o2775, "a", "a"),)), "folders", RED),
        (replace(GOOD, places=(Place("/r", 0o2770, "bob", "a"),)), "folders", AMBER),
        (replace(GOOD, places=(Place("/r", None),)), "folders", AMBER),
        (replace(GOOD, config=Place("/c", 0o666, "root", "root")), "config", RED),
        (replace(GOOD, config=Place("/c", 0o640, "bob", "root")), "config", RED),
        (replace(GOOD, config=Place("/c", 0o644, "root", "root")), "config", AMBER),
        (replace(GOOD, config=None), "config", OPEN),
        (replace(GOOD, units={}), "units", AMBER),
        (replace(GOOD, units={"tapdeck.service": 9.6}), "units", RED),
        (replace(GOOD, units={"tapdeck.service": None}), "units", OPEN),
        (replace(GOOD, processes=(Process("capture", 2, 0, NET_RAW),)), "processes", RED),
        (replace(GOOD, processes=(Process("seal", 2, 901, NET_RAW),)), "processes", RED),
        (replace(GOOD, processes=()), "processes", OPEN),
        (replace(GOOD, allowed=frozenset()), "listeners", RED),
        (replace(GOOD, card_count=1), "two-cards", RED),
        (replace(GOOD, other_way=False), "two-cards", AMBER),
        (replace(GOOD, cards=(Card("eth1", addresses=("192.0.2.1",)),)), "capture-card", AMBER),
        (replace(GOOD, cards=(Card("eth1", default_route=True),)), "capture-card", RED),
        (replace(GOOD, cards=()), "capture-card", OPEN),
    ],
)
def test_what_stands_open(found: Installation, check: str, colour: Colour) -> None:
    one = of(found)[check]
    assert one.colour is colour
    assert bool(one.todo) == (colour in (AMBER, RED))


@pytest.fixture
def listener() -> Iterator[tuple[subprocess.Popen[str], list[tuple[str, str, int]]]]:
    """A process with a TCP port of each family and a UDP port open, and one connection that is nobody's business."""
    script = (
        "import socket,sys\n"
        "a=socket.create_server(('127.0.0.1',0))\n"
        "b=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); b.bind(('0.0.0.0',0))\n"
        "c=socket.create_server(('::1',0),family=socket.AF_INET6)\n"
        "d=socket.create_connection(a.getsockname())\n"
        "print(a.getsockname()[1],b.getsockname()[1],c.getsockname()[1],flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        tcp, udp, six = map(int, child.stdout.readline().split())
        yield child, [("tcp", "127.0.0.1", tcp), ("tcp", "::1", six), ("udp", "0.0.0.0", udp)]
        child.communicate()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ports_that_a_process_has_open(listener: tuple[subprocess.Popen[str], list[tuple[str, str, int]]]) -> None:
    child, expected = listener
    found = [(one.protocol, one.address, one.port) for one in security.listeners("seal", child.pid)]
    assert sorted(found) == sorted(expected)


def test_a_running_stage_is_looked_at(tmp_path: Path) -> None:
    state.write(tmp_path, "seal", {})  # this very process says that it is the seal stage
    settings = Settings()
    found = security.look(replace(settings, storage=replace(settings.storage, state=str(tmp_path))))
    (process,) = found.processes
    assert (process.stage, process.pid, process.uid) == ("seal", os.getpid(), os.geteuid())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_units_are_scored(tmp_path: Path) -> None:
    weak = "[Service]\nExecStart=/bin/true\n"
    strong = weak + "".join(
        f"{line}\n"
        for line in (
            "DynamicUser=yes",
            "PrivateNetwork=yes",
            "CapabilityBoundingSet=",
            "SystemCallFilter=@system-service",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "PrivateDevices=yes",
            "NoNewPrivileges=yes",
            "RestrictAddressFamilies=none",
            "RestrictNamespaces=yes",
            "SystemCallArchitectures=native",
            "MemoryDenyWriteExecute=yes",
            "PrivateUsers=yes",
            "ProtectKernelModules=yes",
            "ProtectKernelTunables=yes",
            "ProtectControlGroups=yes",
            "ProtectKernelLogs=yes",
            "ProtectClock=yes",
            "ProtectHostname=yes",
            "ProtectProc=invisible",
            "IPAddressDeny=any",
            "LockPersonality=yes",
            "RestrictRealtime=yes",
            "UMask=0077",
        )
    )
    (tmp_path / "tapdeck-weak.service").write_text(weak)
    (tmp_path / "tapdeck-strong.service").write_text(strong)
    found = dict(security.units((str(tmp_path),)))
    assert found["tapdeck-weak.service"] is not None
    assert found["tapdeck-weak.service"] > 9
    assert found["tapdeck-strong.service"] is not None
    assert found["tapdeck-strong.service"] < 2.5


def test_the_command(tmp_path: Path) -> None:
    config = tmp_path / "tapdeck.toml"
    folders = "".join(f'{name} = "{tmp_path / name}"\n' for name in ("recordings", "spool", "state"))
    config.write_text(f'[capture]\ninterfaces = ["lo"]\n[storage]\n{folders}')
    config.chmod(0o666)
    done = CliRunner().invoke(cli, ["doctor", "--security", "--json", "--config", str(config)])
    report = json.loads(done.stdout)
    checks = {one["check"]: one["colour"] for one in report["checks"]}
    assert (done.exit_code, report["colour"], checks["config"]) == (2, "red", "red")
    plain = CliRunner().invoke(cli, ["doctor", "--security", "--config", str(config)])
    assert "chmod go-w" in plain.stdout
