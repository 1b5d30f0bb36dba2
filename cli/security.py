"""`tapdeck doctor --security`: how this installation is secured (users, folders, services, ports, cards)."""

import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from ..sniffer.sources.capture_file import CaptureError
from ..sniffer.sources.interfaces import Interface, interface, interfaces
from ..storage import state
from . import alarm_checks
from . import machine as this_machine
from .doctor_report import exit_code, print_json, print_report, verdict_of
from .security_checks import Account, Installation, Listener, Place, Process, judge
from .settings import ConfigError, Settings, endpoint

UNIT_FOLDERS = (
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
STAGES = ("capture", "seal", "deliver")
_SCORE = re.compile(r"Overall exposure level.*?: *([0-9.]+)")
_LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
"""Socket states in /proc/net: TCP_LISTEN, and a UDP socket that is not connected."""
_SHADOW = Path("/etc/shadow")
_GOOD = "Nothing stands open that should not"


def run(settings: Settings, as_json: bool) -> int:
    """Check, report, and return the exit code."""
    findings = judge(look(settings))
    verdict = verdict_of(findings, _GOOD)
    if as_json:
        print_json(findings, verdict, {})
    else:
        print_report(findings, verdict, colourful=sys.stdout.isatty())
    return exit_code(findings)


def look(settings: Settings) -> Installation:
    """Gather what the checks need to know."""
    passwords, listen = shadow(), settings.monitoring.prometheus_listen
    stages = STAGES + (("metrics",) if listen or settings.monitoring.prometheus_file else ())
    stages += ("alarms",) if alarm_checks.wanted(settings.alarms, settings.heartbeat) else ()
    running = [(stage, pid) for stage in ("run", *stages) if (pid := _pid(settings, stage))]
    captured = settings.capture.interfaces
    return Installation(
        accounts=tuple(_account(stage, getattr(settings.users, stage), passwords) for stage in stages),
        without_password=tuple(name for name, word in passwords.items() if word == ""),
        places=tuple(_places(settings)),
        config=_place(Path(settings.source), "root") if settings.source else None,
        units=dict(units()),
        cards=tuple(this_machine.card(one, True) for one in _interfaces(captured)),
        card_count=sum(1 for one in interfaces() if not one.virtual),
        other_way=this_machine.other_way(captured),
        processes=tuple(process for stage, pid in running for process in _process(stage, pid)),
        listeners=tuple(one for stage, pid in running for one in listeners(stage, pid)),
        allowed=frozenset({endpoint(listen)} if listen else ()),
        is_root=os.geteuid() == 0,
    )


def _interfaces(names: tuple[str, ...]) -> Iterator[Interface]:
    for name in names:
        try:
            yield interface(name)
        except CaptureError:
            continue  # not there: the watch says so


# -- users and folders -------------------------------------------------------------------------------------------------


def shadow() -> dict[str, str]:
    """Return the password fields of all accounts; nothing without the right to read them."""
    try:
        lines = _SHADOW.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {words[0]: words[1] for line in lines if len(words := line.split(":")) > 1}


def _account(stage: str, name: str, passwords: dict[str, str]) -> Account:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return Account(stage, name, None)
    word = passwords.get(name)
    kind = "unknown" if word is None else "empty" if word == "" else "locked" if word[0] in "!*" else "set"
    return Account(stage, name, entry.pw_uid, entry.pw_shell, kind)


def _places(settings: Settings) -> Iterator[Place]:
    from .layout import folders

    try:
        for folder in folders(settings):
            yield _place(folder.path, folder.user or "root")
    except ConfigError:  # users or groups are missing, which is said elsewhere
        for path in (settings.storage.recordings, settings.storage.spool, settings.storage.state):
            yield _place(Path(path), "")


def _place(path: Path, expected: str) -> Place:
    try:
        found = path.stat()
    except OSError:
        return Place(str(path), None, expected=expected)
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    return Place(str(path), stat.S_IMODE(found.st_mode), owner, expected or owner)


# -- services, processes, ports ----------------------------------------------------------------------------------------


def units(folders: tuple[str, ...] = UNIT_FOLDERS) -> Iterator[tuple[str, float | None]]:
    """Yield Tapdeck's services and their exposure (0 to 10) by systemd-analyze; None where that cannot be had."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(Path(folder).glob("tapdeck*.service")):
            found.setdefault(path.name, path)
    for name, path in found.items():
        yield name, _exposure(path)


def _exposure(path: Path) -> float | None:
    if shutil.which("systemd-analyze") is None:
        return None
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    said = _SCORE.search(done.stdout)
    return float(said[1]) if said else None


def _pid(settings: Settings, stage: str) -> int | None:
    report = state.read(Path(settings.storage.state), stage)
    return report["pid"] if report is not None and state.alive(report) else None


def _process(stage: str, pid: int) -> Iterator[Process]:
    """Read a process's user and capabilities; nothing if it has ended meanwhile."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    values = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    yield Process(stage, pid, int(values["Uid"].split()[1]), int(values["CapEff"], 16))


def listeners(stage: str, pid: int) -> Iterator[Listener]:
    """Yield the ports that a process has open. Needs root for another user's process."""
    try:
        held = {os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")}
    except OSError:
        return
    for protocol, listening in _LISTENING.items():
        try:
            lines = Path(f"/proc/{pid}/net/{protocol}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for words in (line.split() for line in lines):
            if words[3] == listening and f"socket:[{words[9]}]" in held:
                address, _, port = words[1].partition(":")
                yield Listener(stage, protocol.rstrip("6"), _address(address), int(port, 16))


def _address(text: str) -> str:
    """Return an address that /proc writes as words of 32 bits in the machine's byte order."""
    raw = b"".join(int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8))
    return str(IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw))
