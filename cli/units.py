"""The systemd units of a box, as text made of its settings: nothing here touches the system.

`tapdeck.service` runs the whole box under its own supervisor. `tapdeck-capture.service` and its kin run one stage each
under systemd, as its own user from the start; whoever uses them leaves the first one off.
"""

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from .secret_places import secret_places
from .settings import ConfigError, Settings, endpoint
from .target_settings import TargetSettings
from .targets import all_targets

BOX = "tapdeck.service"
STAGES = ("capture", "seal", "deliver", "metrics", "alarms")
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
    paths = [storage.spool, storage.recordings, storage.state, *_keys(settings)]
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
            *([] if _stamps(settings) or _network_targets(settings) or _tells(settings) else _network(settings)),
            *_credentials(settings, files=False),
            *_mail_password(settings, files=False),
            *_paths(paths, _outside(settings, "deliver", "metrics", "alarms"), _read_only(settings, *STAGES)),
        ],
    )


def _stage(settings: Settings, stage: str, python: str, config: Path) -> str:
    user = getattr(settings.users, stage)
    storage = settings.storage
    own = {
        "capture": [storage.spool, storage.state],
        "seal": [storage.spool, storage.recordings, storage.state, *_keys(settings)],
        "deliver": [storage.recordings, storage.state],
        "metrics": [storage.state],
        "alarms": [storage.state],
    }[stage]
    more = {"capture": ["--alone"], "alarms": ["run"]}.get(stage, [])
    return _unit(
        f"Tapdeck, recorder of telephone calls: {stage}",
        f"Conflicts={BOX}",
        [
            "Type=notify",
            f"ExecStart={_command(python, stage, config, *more)}",
            "ExecReload=/bin/kill -HUP $MAINPID",
            "TimeoutStopSec=90",
            f"WatchdogSec={900 if stage in ('seal', 'deliver') else 120}",  # a long recording takes its time
            "UMask=0007",
            *([f"User={user}"] if user else []),
            *([f"SupplementaryGroups={settings.users.group}"] if settings.users.group else []),
            *_rights(settings, stage),
            *_paths(own, _outside(settings, stage), _read_only(settings, stage)),
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
    if stage == "alarms" and _tells(settings):
        internet = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
        return [*nothing, internet, *_mail_password(settings, files=True)]
    if stage == "seal" and _stamps(settings):
        return [*nothing, "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"]  # it asks for time stamps
    if stage == "deliver" and (targets := _network_targets(settings)):
        internet = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
        return [*nothing, internet, *_servers(targets), *_credentials(settings, files=True)]
    return [*nothing, "RestrictAddressFamilies=AF_UNIX", "PrivateNetwork=yes", "IPAddressDeny=any"]


def _stamps(settings: Settings) -> bool:
    """Whether an authority is asked for time stamps: the seal stage then needs the network."""
    return settings.signing.enabled and bool(settings.signing.timestamp_url)


def _network_targets(settings: Settings) -> list[TargetSettings]:
    return [target for target in settings.targets if target.enabled and target.network]


def _servers(targets: Sequence[TargetSettings]) -> list[str]:
    """Only their addresses, where all are known; to find a name's address others have to be asked."""
    servers = {(target.server or target.host).strip("[]") for target in targets}
    try:
        addresses = sorted(str(ipaddress.ip_address(server)) for server in servers)
    except ValueError:
        return []
    return ["IPAddressDeny=any", f"IPAddressAllow={' '.join(addresses)}"]


def _credentials(settings: Settings, files: bool) -> list[str]:
    """Secrets that systemd hands over: from its own store, if they are there, and from `files` that only root may read.
    Without a file the service starts all the same, with an empty one: that target says what it lacks.
    """
    lines = []
    for target in _network_targets(settings):
        for place in secret_places(target).values():
            if not place.file:
                lines.append(f"LoadCredential={place.credential}")
            elif files:
                path = place.file.replace("%", "%%")  # the rest of the line, whatever is in it
                lines += [f"LoadCredential={place.credential}:{path}", rf"SetCredential={place.credential}:\n"]
    return lines


def _tells(settings: Settings) -> bool:
    """Whether anybody is told of alarms over the network: by us, or by a hook, of which we do not know."""
    alarms = settings.alarms
    return bool(alarms.server or alarms.hook or alarms.recording_hook or settings.heartbeat.url)


def _mail_password(settings: Settings, files: bool) -> list[str]:
    """The password of the mail server, as those of targets."""
    alarms = settings.alarms
    if not (alarms.server and alarms.user):
        return []
    if not alarms.password_file:
        return ["LoadCredential=tapdeck-mail-password"]
    path = alarms.password_file.replace("%", "%%")
    return [f"LoadCredential=tapdeck-mail-password:{path}", "SetCredential=tapdeck-mail-password:"] if files else []


def _read_only(settings: Settings, *stages: str) -> list[str]:
    """Files that these stages read: the deliver stage for its targets, the others to decrypt."""
    found: list[str] = []
    if "deliver" in stages:
        found += [target.key_file for target in _network_targets(settings)]
        found += [place.file for target in _network_targets(settings) for place in secret_places(target).values()]
    if "capture" in stages or "seal" in stages:
        found += [settings.tls.key_log, *settings.tls.server_keys]
    return [path for path in found if path]


def _keys(settings: Settings) -> list[str]:
    """The folder of the key, which the seal stage alone can look into."""
    return [settings.signing.keys] if settings.signing.enabled else []


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
    targets = [target.folder for target in all_targets(settings) if target.enabled and target.kind == "folder"]
    beat = settings.heartbeat.file
    by_stage = {
        "deliver": targets,
        "metrics": [str(Path(file).parent)] if file else [],
        "alarms": [str(Path(beat).parent)] if beat else [],
    }
    return [path for stage in stages for path in by_stage.get(stage, [])]


def _paths(own: Sequence[str], outside: Sequence[str], read_only: Sequence[str] = ()) -> list[str]:
    absolute = [str(Path(path).absolute()) for path in (*own, *outside)]
    at_home = any(Path(path).is_relative_to(home) for path in (*absolute, *read_only) for home in _HOMES)
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
