"""The systemd units of a box, as text made of its settings: nothing here touches the system.

`tapdeck.service` runs the whole box under its own supervisor. `tapdeck-capture.service` and its kin run one stage each
under systemd, as its own user from the start; whoever uses them leaves the first one off.
"""

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from .settings import ConfigError, Settings, endpoint

BOX = "tapdeck.service"
STAGES = ("capture", "seal", "deliver", "metrics")
CONFIG_FILE = Path("/etc/tapdeck/tapdeck.toml")

_HOMES = ("/home", "/root", "/run/user")
_HARDENING = """\
NoNewPrivileges=yes
ProtectSystem=strict
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
DevicePolicy=closed
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
KeyringMode=private
RemoveIPC=yes
LimitCORE=0"""
_ALWAYS = """\
Restart=always
RestartSec=2
RestartPreventExitStatus=64 78
LimitNOFILE=65536
StandardOutput=journal
StandardError=journal"""


def units(settings: Settings, python: str, config: Path = CONFIG_FILE) -> dict[str, str]:
    """Return name -> content of all units. `python` is the interpreter that has Tapdeck. Raises ConfigError for a path
    that no unit can hold.
    """
    found = {BOX: _box(settings, python, config)}
    for stage in STAGES:
        found[f"tapdeck-{stage}.service"] = _stage(settings, stage, python, config)
    return found


def _box(settings: Settings, python: str, config: Path) -> str:
    """Root starts the stages and each becomes its own user: the rights for that, and no others."""
    others = " ".join(f"tapdeck-{stage}.service" for stage in STAGES)
    storage = settings.storage
    paths = [storage.spool, storage.recordings, storage.state]
    return _unit(
        "Tapdeck, recorder of telephone calls",
        f"Conflicts={others}",
        [
            "Type=notify",
            f"ExecStart={_command(python, 'run', config)}",
            "ExecReload=/bin/kill -HUP $MAINPID",
            "KillMode=mixed",
            "TimeoutStartSec=infinity",  # an interface may be plugged in later: that is an alarm, not a failure
            "TimeoutStopSec=180",
            "WatchdogSec=120",  # a stage that hangs is killed by the supervisor before that
            "Nice=-5",
            "OOMScoreAdjust=-500",
            "LimitMEMLOCK=infinity",
            "UMask=0077",
            *([f"SupplementaryGroups={settings.users.group}"] if settings.users.group else []),
            "CapabilityBoundingSet=CAP_NET_RAW CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_KILL",
            "RestrictAddressFamilies=AF_PACKET AF_UNIX AF_INET AF_INET6",
            *_network(settings),
            *_paths(paths, _outside(settings, "deliver", "metrics")),
        ],
    )


def _stage(settings: Settings, stage: str, python: str, config: Path) -> str:
    user = getattr(settings.users, stage)
    storage = settings.storage
    own = {
        "capture": [storage.spool, storage.state],
        "seal": [storage.spool, storage.recordings, storage.state],
        "deliver": [storage.recordings, storage.state],
        "metrics": [storage.state],
    }[stage]
    return _unit(
        f"Tapdeck, recorder of telephone calls: {stage}",
        f"Conflicts={BOX}",
        [
            "Type=notify",
            f"ExecStart={_command(python, stage, config, *(['--alone'] if stage == 'capture' else []))}",
            "ExecReload=/bin/kill -HUP $MAINPID",
            "TimeoutStopSec=90",
            f"WatchdogSec={120 if stage in ('capture', 'metrics') else 900}",  # a long recording takes its time
            "UMask=0007",
            *([f"User={user}"] if user else []),
            *([f"SupplementaryGroups={settings.users.group}"] if settings.users.group else []),
            *_rights(settings, stage),
            *_paths(own, _outside(settings, stage)),
        ],
    )


def _rights(settings: Settings, stage: str) -> list[str]:
    """What a stage may do besides reading and writing its folders."""
    if stage == "capture":
        return [
            "Nice=-5",
            "OOMScoreAdjust=-500",
            "LimitMEMLOCK=infinity",
            "AmbientCapabilities=CAP_NET_RAW",
            "CapabilityBoundingSet=CAP_NET_RAW",
            "RestrictAddressFamilies=AF_PACKET AF_UNIX AF_INET",  # AF_INET only to ask for the cards' state
            "IPAddressDeny=any",
        ]
    nothing = ["CapabilityBoundingSet=", "ProcSubset=pid"]
    if stage == "metrics":
        return [*nothing, "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", *_network(settings)]
    return [*nothing, "RestrictAddressFamilies=AF_UNIX", "PrivateNetwork=yes", "IPAddressDeny=any"]


def _network(settings: Settings) -> list[str]:
    """No IP traffic but that of the Prometheus endpoint, where there is one."""
    listen = settings.monitoring.prometheus_listen
    if not listen:
        return ["IPAddressDeny=any"]
    if ipaddress.ip_address(endpoint(listen)[0]).is_loopback:
        return ["IPAddressDeny=any", "IPAddressAllow=localhost"]
    return []


def _outside(settings: Settings, *stages: str) -> list[str]:
    """Folders of others that these stages write to. They may be missing: a share that is not mounted, say."""
    file = settings.monitoring.prometheus_file
    by_stage = {"deliver": settings.deliver.folder, "metrics": str(Path(file).parent) if file else ""}
    return [path for stage in stages if (path := by_stage.get(stage, ""))]


def _paths(own: Sequence[str], outside: Sequence[str]) -> list[str]:
    absolute = [str(Path(path).absolute()) for path in (*own, *outside)]
    at_home = any(Path(path).is_relative_to(home) for path in absolute for home in _HOMES)
    words = [quoted(path) for path in absolute[: len(own)]] + [quoted(f"-{path}") for path in absolute[len(own) :]]
    return [f"ProtectHome={'read-only' if at_home else 'yes'}", f"ReadWritePaths={' '.join(words)}"]


def _unit(description: str, conflicts: str, service: Sequence[str]) -> str:
    lines = "\n".join(service)
    return f"""\
# Made by `tapdeck install`, which writes it anew from the settings: change it by `systemctl edit`.

[Unit]
Description={description}
{conflicts}
After=local-fs.target network.target
StartLimitIntervalSec=0

[Service]
{lines}
{_ALWAYS}
{_HARDENING}

[Install]
WantedBy=multi-user.target
"""


def _command(python: str, stage: str, config: Path, *more: str) -> str:
    words = [python, "-P", "-m", "tapdeck.cli", stage, *more, "--config", str(config)]
    return " ".join(map(quoted, words))


def quoted(text: str) -> str:
    """Return a word as systemd.syntax(7) has it."""
    if not text.isprintable():
        raise ConfigError(f"{text!r}: no path that systemd could be told")
    text = text.replace("%", "%%").replace("$", "$$")
    return text if set(text).isdisjoint(" \t\"'\\;") else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
