"""What can be set: sections of plain dataclasses, with defaults, help and limits in one place.

The configuration file, the environment, the command line's options and every help text are made from these. Nothing
heavy is imported here: most runs have no configuration file and should not pay for reading one.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, time
from typing import Any, cast

from ..sip.link_headers import LINK_HEADERS
from ..storage.localtime import Zone, ZoneError
from ..storage.names import DEFAULT_FOLDER, DEFAULT_NAME, Naming, TemplateError, naming
from ..storage.retention import RetentionError, keep_local
from ..storage.secret import Secret
from . import alarm_checks
from .target_settings import TargetSettings

LEGS = ("both", "inner", "outer")
LOG_LEVELS = ("debug", "info", "warning", "error")

Value = bool | int | float | str | tuple[str, ...] | tuple[int, ...]


class ConfigError(ValueError):
    """A setting that cannot be used; the message says which, where it was set, and why."""


def _setting(
    default: Any, text: str, least: float | None = None, most: float | None = None, option: str = "", short: str = ""
) -> Any:
    about = {"help": text, "least": least, "most": most, "option": option, "short": short}
    return field(default=default, metadata=about)


@dataclass(frozen=True, slots=True)
class RecordingSettings:
    """How recordings are named."""

    folder_template: str = _setting(DEFAULT_FOLDER, "folder below the root, from date fields and {variables}")
    name_template: str = _setting(DEFAULT_NAME, "file name without its ending, from date fields and {variables}")
    utc: bool = _setting(False, "write names and times in UTC")
    timezone: str = _setting("", "time zone of names and times, like Europe/Amsterdam; empty: the machine's own")
    instance: str = _setting("", "name of this recorder in the info file; empty: the host's name")
    inband_digits: bool = _setting(True, "find keys by their tones in the sound, where no packet tells them")
    mask_digits: bool = _setting(False, "keys that are pressed (card numbers) are kept in no text, sound or packet")
    legs: str = _setting("both", "which leg of a call that crosses a PBX on two is recorded: both, inner or outer")


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """What belongs to the house: tells incoming from outgoing calls."""

    numbers: tuple[str, ...] = _setting(
        (), "own numbers; * and ? stand for other digits, as in +3120123*, 2???", option="own-numbers"
    )
    networks: tuple[str, ...] = _setting((), "own networks, as in 192.168.0.0/16", option="own-networks")
    country_code: str = _setting("", "own country code without a plus, as in 31, to compare 020... with +3120...")
    extensions: tuple[str, ...] = _setting(
        (), "all extensions that should be heard, for the report of coverage", option="own-extensions"
    )


@dataclass(frozen=True, slots=True)
class SipSettings:
    """Where signalling is looked for."""

    ports: tuple[int, ...] = _setting(
        (5060,), "ports of SIP over UDP and TCP; on others it is found by its content", 1, 65535, option="sip-ports"
    )
    link_headers: tuple[str, ...] = _setting(
        LINK_HEADERS, "headers in which the legs of a call across a PBX bear the same value"
    )


@dataclass(frozen=True, slots=True)
class CallSettings:
    """When a call begins to own its media, and when it is over."""

    media_silence_s: float = _setting(300.0, "seconds without media after which an answered call is over", 1)
    held_silence_s: float = _setting(14400.0, "seconds without media after which a held call is over", 1)
    unclaimed_hold_s: float = _setting(30.0, "seconds that media without a call waits for its signalling", 0, 600)
    bye_linger_s: float = _setting(5.0, "seconds after the BYE in which media still belongs to the call", 0, 60)


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Bounds of every table: hostile input must not fill the memory."""

    max_calls: int = _setting(20_000, "calls at one time; further ones are refused and counted", 1)
    max_streams: int = _setting(65_536, "media streams at one time; further ones are refused and counted", 2)
    unclaimed_memory_mb: int = _setting(
        48, "memory for the index of packets, and for media that waits for its signalling, in MiB", 1
    )


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Keys that let SIP over TLS and DTLS-SRTP be read."""

    key_log: str = _setting("", "NSS key log file of TLS and DTLS sessions, which may be growing; empty: none")
    server_keys: tuple[str, ...] = _setting(
        (), "PEM files with servers' RSA keys, for connections with RSA key exchange", option="server-key"
    )
    ports: tuple[int, ...] = _setting((5061,), "ports of SIP over TLS; others are found too", 1, 65535, "tls-ports")


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """How the mirror port is listened to."""

    interfaces: tuple[str, ...] = _setting((), "interfaces of the mirror port", option="interface", short="-i")
    filter: str = _setting("", "capture filter in tcpdump's syntax; empty: everything")
    ring_mb: int = _setting(256, "memory of an interface's receive ring, in MiB", 4, 16384)
    block_kb: int = _setting(1024, "size of a block of the ring, in KiB: a power of two", 64, 16384)
    block_timeout_ms: int = _setting(50, "time after which the kernel hands over a block that is not full", 1, 500)
    promiscuous: bool = _setting(True, "hear what is not addressed to this machine")
    hardware_stamps: bool = _setting(False, "the card's own time stamps, where its clock is disciplined")
    cycle_ms: int = _setting(200, "time between two visits to the ring; what a kill may lose", 10, 500)
    sync_s: float = _setting(
        1.0, "seconds between two syncs of the spool's file system; what a power cut may lose", 0.1, 60
    )
    memory_mb: int = _setting(512, "memory for packets that wait for a slow or full disk, in MiB", 16)
    new_calls_per_s: int = _setting(500, "new calls taken a second; a flood of INVITEs beyond it is dropped", 1)


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """Where everything lies on this machine's disk."""

    recordings: str = _setting("/var/lib/tapdeck/recordings", "folder of the recordings", option="out")
    spool: str = _setting("/var/lib/tapdeck/spool", "folder of running calls")
    state: str = _setting("/var/lib/tapdeck/state", "folder of status and event log")
    keep_packets: bool = _setting(False, "keep each call's packets beside its recording")
    warn_days: float = _setting(14.0, "days until the disk is full from which on there is an alarm", 0)
    reserve_mb: int = _setting(2048, "free space, in MiB, below which delivered recordings are removed", 1)
    keep_local: str = _setting(
        "", "how long delivered recordings stay here, as in 30d, 6 months, 1 year or 0; empty: while there is room"
    )


@dataclass(frozen=True, slots=True)
class DeliverSettings:
    """Where recordings are copied to."""

    folder: str = _setting("", "folder that gets a copy of every recording; empty: none", option="deliver-to")
    first_pause_s: float = _setting(2.0, "seconds until what failed is tried again; then twice that, and so on", 0.1)
    longest_pause_s: float = _setting(3600.0, "longest time between two attempts, in seconds", 1)


@dataclass(frozen=True, slots=True)
class SigningSettings:
    """How recordings are sealed."""

    enabled: bool = _setting(True, "sign every recording, and chain it to the one before", option="sign")
    keys: str = _setting("/var/lib/tapdeck/keys", "folder of the key that signs, and of its certificates")
    passphrase_file: str = _setting(
        "", "file with the key's passphrase; empty: a systemd credential, or one that is made in the folder of the key"
    )
    bits: int = _setting(3072, "length of a new RSA key", 3072, 8192, option="key-bits")
    timestamp_url: str = _setting("", "RFC 3161 authority that time-stamps the checkpoint of each day; empty: none")


@dataclass(frozen=True, slots=True)
class UserSettings:
    """System users of the stages, when started as root. An empty name: the stage keeps the user it was started as."""

    group: str = _setting("tapdeck", "group that may read status and running calls", option="group")
    capture: str = _setting("tapdeck-capture", "user of the capture stage", option="capture-user")
    seal: str = _setting("tapdeck-seal", "user of the seal stage", option="seal-user")
    deliver: str = _setting("tapdeck-deliver", "user of the deliver stage", option="deliver-user")
    metrics: str = _setting("tapdeck-metrics", "user of the Prometheus endpoint", option="metrics-user")
    alarms: str = _setting("tapdeck-alarms", "user of the stage that tells of alarms", option="alarms-user")


@dataclass(frozen=True, slots=True)
class MonitoringSettings:
    """What others may watch."""

    prometheus_listen: str = _setting(
        "", "address and port of a Prometheus endpoint, as in 127.0.0.1:9464; empty: none"
    )
    prometheus_file: str = _setting("", "file for the node exporter's textfile collector; empty: none")
    selftest_at: str = _setting("03:30", "local time of the daily self-test; empty: none")
    log_level: str = _setting("info", "least weight of what is logged: debug, info, warning or error")


@dataclass(frozen=True, slots=True)
class AlarmSettings:
    """Who is told when something is wrong, and how."""

    installer: tuple[str, ...] = _setting((), "mail addresses of the installer", option="alarm-installer")
    admin: tuple[str, ...] = _setting((), "mail addresses of the admin", option="alarm-admin")
    it: tuple[str, ...] = _setting((), "mail addresses of the IT department", option="alarm-it")
    routes: tuple[str, ...] = _setting(
        (), "which roles an alarm goes to, as in DELIVER_FAILED=it+admin, where not as usual", option="alarm-routes"
    )
    server: str = _setting("", "mail server; empty: no mail", option="mail-server")
    port: int = _setting(0, "its port; 0: 587, 465 for smtps, 25 for none", 0, 65535, option="mail-port")
    security: str = _setting("starttls", "how mail is kept secret: starttls, smtps or none", option="mail-security")
    ca_file: str = _setting(
        "", "certificates that the mail server's is checked by; empty: the system's", option="mail-ca-file"
    )
    user: str = _setting("", "account at the mail server; empty: none is needed", option="mail-user")
    password_file: str = _setting(
        "", "file with its password, mode 0600; empty: a systemd credential or a variable", option="mail-password-file"
    )
    sender: str = _setting("", "address that mails come from; empty: tapdeck@ and the host's name", option="mail-from")
    gather_s: float = _setting(
        10.0, "seconds that a mail waits for other alarms to go with it", 0, 600, option="alarm-gather-s"
    )
    hold_s: float = _setting(
        600.0, "seconds after which an alarm that has not come again is over", 0, 86400, option="alarm-hold-s"
    )
    mails_an_hour: int = _setting(
        12, "mails of alarms an hour that somebody gets; further alarms wait for the next one", 1, 1000
    )
    alive_at: str = _setting("", "local time of a daily mail that all is well, as in 06:00; empty: none")
    hook: tuple[str, ...] = _setting(
        (), "program, with arguments, that is given each change of an alarm; empty: none", option="alarm-hook"
    )
    recording_hook: tuple[str, ...] = _setting(
        (), "program, with arguments, that is given each recording that is finished; empty: none"
    )
    hook_limit_s: float = _setting(30.0, "seconds that these programs may run", 0.1, 3600)
    hook_tries: int = _setting(3, "how often such a program is tried for one event", 1, 100)


@dataclass(frozen=True, slots=True)
class HeartbeatSettings:
    """Signs of life, whose silence is an alarm elsewhere. Sent while the box is healthy."""

    file: str = _setting("", "file that is written anew, as on a share; empty: none", option="heartbeat-file")
    url: str = _setting("", "http:// or https:// address that is called; empty: none", option="heartbeat-url")
    method: str = _setting("POST", "how it is called: POST, with the state as JSON, or GET", option="heartbeat-method")
    mail: str = _setting("", "address that gets a mail; empty: none", option="heartbeat-mail")
    every_s: float = _setting(300.0, "seconds between two signs of life", 1, 86400, option="heartbeat-every-s")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a run. `source` names the file they were read from, or is empty. `secrets` are those that were
    read while that was still allowed, by target and what they are.
    """

    recording: RecordingSettings = field(default_factory=RecordingSettings)
    own: OwnSettings = field(default_factory=OwnSettings)
    sip: SipSettings = field(default_factory=SipSettings)
    calls: CallSettings = field(default_factory=CallSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    tls: TlsSettings = field(default_factory=TlsSettings)
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    deliver: DeliverSettings = field(default_factory=DeliverSettings)
    signing: SigningSettings = field(default_factory=SigningSettings)
    users: UserSettings = field(default_factory=UserSettings)
    monitoring: MonitoringSettings = field(default_factory=MonitoringSettings)
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    heartbeat: HeartbeatSettings = field(default_factory=HeartbeatSettings)
    targets: tuple[TargetSettings, ...] = ()
    secrets: Mapping[tuple[str, str], Secret] = field(default_factory=dict, repr=False, compare=False)
    source: str = ""

    def zone(self) -> Zone:
        """Return the zone of all names and times. Raises ConfigError."""
        try:
            return Zone("UTC" if self.recording.utc else self.recording.timezone)
        except ZoneError as error:
            raise ConfigError(f"recording.timezone: {error}") from None

    def naming(self) -> Naming:
        """Return the checked templates. Raises ConfigError."""
        try:
            return naming(self.recording.folder_template, self.recording.name_template, self.zone())
        except TemplateError as error:
            raise ConfigError(f"recording: {error}") from None


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting's place, type and limits, for whoever has to list, read or explain it."""

    section: str
    key: str
    default: Value
    help: str
    least: float | None
    most: float | None
    option: str
    short: str

    @property
    def name(self) -> str:
        """As in messages: `calls.bye_linger_s`."""
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"TAPDECK_{self.section}_{self.key}".upper()

    def of(self, settings: Settings) -> Value:
        """Return its value in `settings`."""
        return cast(Value, getattr(getattr(settings, self.section), self.key))


SECTIONS: dict[str, type] = {
    "recording": RecordingSettings,
    "own": OwnSettings,
    "sip": SipSettings,
    "calls": CallSettings,
    "limits": LimitSettings,
    "tls": TlsSettings,
    "capture": CaptureSettings,
    "storage": StorageSettings,
    "deliver": DeliverSettings,
    "signing": SigningSettings,
    "users": UserSettings,
    "monitoring": MonitoringSettings,
    "alarms": AlarmSettings,
    "heartbeat": HeartbeatSettings,
}
OFFLINE = ("recording", "own", "sip", "calls", "limits", "tls")
"""The sections that matter to a run over capture files."""


def all_settings() -> Iterator[Setting]:
    """Yield every setting, in the order of the sections."""
    for section, kind in SECTIONS.items():
        for one in fields(kind):
            about = one.metadata
            option = about["option"] or one.name.replace("_", "-")
            default, limits = cast(Value, one.default), (about["least"], about["most"])
            yield Setting(section, one.name, default, about["help"], *limits, f"--{option}", about["short"])


def check(settings: Settings) -> None:
    """Check what types alone do not say: ranges, templates, zone, networks. Raises ConfigError."""
    for setting in all_settings():
        value = setting.of(settings)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                _check_range(setting, number)
    for network in settings.own.networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(f"own.networks: {error}") from None
    if settings.recording.legs not in LEGS:
        raise ConfigError(f"recording.legs: {settings.recording.legs!r} is none of {', '.join(LEGS)}")
    if settings.capture.block_kb & (settings.capture.block_kb - 1):
        raise ConfigError(f"capture.block_kb: {settings.capture.block_kb} is not a power of two")
    if settings.own.country_code and not settings.own.country_code.isdecimal():
        raise ConfigError(f"own.country_code: {settings.own.country_code!r} is not a number like 31")
    if settings.monitoring.log_level not in LOG_LEVELS:
        raise ConfigError(f"monitoring.log_level: {settings.monitoring.log_level!r} is none of {', '.join(LOG_LEVELS)}")
    if settings.monitoring.prometheus_listen:
        endpoint(settings.monitoring.prometheus_listen)
    time_of_day(settings.monitoring.selftest_at)
    if wrong := alarm_checks.trouble(settings.alarms, settings.heartbeat):
        raise ConfigError(wrong)
    time_of_day(settings.alarms.alive_at, "alarms.alive_at")
    settings.naming()
    try:
        keep_local(settings.storage.keep_local)
    except RetentionError as error:
        raise ConfigError(f"storage.keep_local: {error}") from None


def endpoint(text: str) -> tuple[str, int]:
    """Return address and port of `127.0.0.1:9464` or `[::1]:9464`. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
    except ValueError:
        number = 0
    if not 0 < number < 65536:
        raise ConfigError(f"monitoring.prometheus_listen: {text!r} is no address and port like 127.0.0.1:9464")
    return str(address), number


def time_of_day(text: str, name: str = "monitoring.selftest_at") -> time | None:
    """Return the time that `03:30` is, None for an empty text. Raises ConfigError, which names the setting."""
    if not text:
        return None
    try:
        return datetime.strptime(text, "%H:%M").time()
    except ValueError:
        raise ConfigError(f"{name}: {text!r} is no time of day like 03:30") from None


def _check_range(setting: Setting, number: float) -> None:
    if setting.least is not None and not number >= setting.least:
        raise ConfigError(f"{setting.name}: {number} is less than {setting.least:g}")
    if setting.most is not None and not number <= setting.most:
        raise ConfigError(f"{setting.name}: {number} is more than {setting.most:g}")
