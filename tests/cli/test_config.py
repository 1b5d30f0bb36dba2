"""Settings: defaults, file, environment, command line; the last one wins, and nothing unknown passes."""

import dataclasses
import ipaddress
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from tapdeck.cli import config as config_module
from tapdeck.cli.config import load
from tapdeck.cli.exit_codes import ExitCode
from tapdeck.cli.main import cli
from tapdeck.cli.settings import SECTIONS, ConfigError, Settings, all_settings
from tapdeck.cli.show_config import as_toml, toml_value

OTHER_VALUES: dict[str, object] = {
    "recording.folder_template": "%Y",
    "recording.name_template": "{id}",
    "recording.utc": True,
    "recording.timezone": "Europe/Amsterdam",
    "recording.instance": "tap-1",
    "recording.inband_digits": False,
    "recording.mask_digits": True,
    "recording.legs": "outer",
    "own.numbers": ("+3120123*", "2???"),
    "own.networks": ("10.0.0.0/8", "2001:db8::/32"),
    "own.country_code": "31",
    "sip.ports": (5060, 5080),
    "sip.link_headers": ("x-our-call",),
    "calls.media_silence_s": 60.5,
    "calls.held_silence_s": 600.0,
    "calls.unclaimed_hold_s": 5.0,
    "calls.bye_linger_s": 0.5,
    "limits.max_calls": 7,
    "limits.max_streams": 8,
    "limits.unclaimed_memory_mb": 9,
    "own.extensions": ("101", "2??"),
    "capture.interfaces": ("eth1", "eth2"),
    "capture.filter": "udp or vlan",
    "capture.ring_mb": 512,
    "capture.block_kb": 2048,
    "capture.block_timeout_ms": 100,
    "capture.promiscuous": False,
    "capture.hardware_stamps": True,
    "capture.cycle_ms": 400,
    "capture.sync_s": 1.5,
    "capture.memory_mb": 1024,
    "capture.new_calls_per_s": 1000,
    "storage.recordings": "/srv/recordings",
    "storage.spool": "/srv/spool",
    "storage.state": "/srv/state",
    "storage.keep_packets": True,
    "storage.warn_days": 14.5,
    "storage.reserve_mb": 4096,
    "storage.keep_local": "6 months",
    "deliver.folder": "/srv/folder",
    "deliver.first_pause_s": 5.0,
    "deliver.longest_pause_s": 600.0,
    "signing.enabled": False,
    "signing.keys": "/srv/keys",
    "signing.passphrase_file": "/srv/passphrase",
    "signing.bits": 4096,
    "signing.timestamp_url": "http://localhost/tsr",
    "users.group": "other",
    "users.capture": "other",
    "users.seal": "other",
    "users.deliver": "other",
    "users.metrics": "other",
    "monitoring.prometheus_listen": "127.0.0.1:9464",
    "monitoring.prometheus_file": "/srv/prometheus_file",
    "monitoring.selftest_at": "04:15",
    "monitoring.log_level": "debug",
    "users.alarms": "other",
    "alarms.installer": ("a@example.com", "b@example.com"),
    "alarms.admin": ("c@example.com",),
    "alarms.it": ("d@example.com",),
    "alarms.routes": ("DELIVER_FAILED=it", "NO_TRAFFIC="),
    "alarms.server": "mail.example.com",
    "alarms.port": 2525,
    "alarms.security": "smtps",
    "alarms.ca_file": "/srv/ca.pem",
    "alarms.user": "box",
    "alarms.password_file": "/srv/password",
    "alarms.sender": "box@example.com",
    "alarms.gather_s": 1.5,
    "alarms.hold_s": 60.0,
    "alarms.mails_an_hour": 3,
    "alarms.alive_at": "06:00",
    "alarms.hook": ("/usr/local/bin/alarm", "--now"),
    "alarms.recording_hook": ("/usr/local/bin/recording",),
    "alarms.hook_limit_s": 5.0,
    "alarms.hook_tries": 4,
    "heartbeat.file": "/srv/alive.json",
    "heartbeat.url": "https://example.com/alive",
    "heartbeat.method": "GET",
    "heartbeat.mail": "e@example.com",
    "heartbeat.every_s": 60.0,
    "tls.key_log": "/var/lib/keys/sslkeys.log",
    "tls.server_keys": ("/etc/pbx/key.pem",),
    "tls.ports": (5061, 5081),
}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of the machine's and no variable of the tester's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config_module, "PLACES", (Path("tapdeck.toml"), tmp_path / "etc" / "tapdeck.toml"))
    for name in list(os.environ):
        if name.startswith("TAPDECK_"):
            monkeypatch.delenv(name)


def write(path: str, text: str) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def values(settings: Settings) -> dict[str, object]:
    return {setting.name: setting.of(settings) for setting in all_settings()}


def test_without_anything_the_defaults_hold() -> None:
    assert load() == Settings()
    assert set(values(Settings())) == set(OTHER_VALUES)  # a new setting is to be added to these tests


def test_every_setting_can_be_set_in_the_file(tmp_path: Path) -> None:
    changed = Settings()
    for setting in all_settings():
        section = dataclasses.replace(getattr(changed, setting.section), **{setting.key: OTHER_VALUES[setting.name]})
        changed = dataclasses.replace(changed, **{setting.section: section})
    path = write("other.toml", as_toml(changed))
    assert values(load(path)) == OTHER_VALUES
    assert load(path).source == "other.toml"


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_every_setting_has_a_variable_and_an_option(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = next(setting for setting in all_settings() if setting.name == name)
    value = OTHER_VALUES[name]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    options = [setting.option, text]
    if isinstance(value, bool):
        options = [setting.option if value else f"--no-{setting.option.removeprefix('--')}"]
    shown = json.loads(CliRunner().invoke(cli, ["config", "show", "--json", *options]).stdout)
    assert shown[setting.section][setting.key] == (list(value) if isinstance(value, tuple) else value)
    monkeypatch.setenv(setting.variable, text)
    assert setting.of(load()) == value


def test_the_last_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    write("tapdeck.toml", "[calls]\nmedia_silence_s = 10\nheld_silence_s = 20\nbye_linger_s = 3\n")
    monkeypatch.setenv("TAPDECK_CALLS_HELD_SILENCE_S", "21")
    monkeypatch.setenv("TAPDECK_CALLS_BYE_LINGER_S", "4")
    calls = load(options={"calls__bye_linger_s": 5.0, "calls__media_silence_s": None}).calls
    assert (calls.media_silence_s, calls.held_silence_s, calls.bye_linger_s) == (10, 21, 5)
    assert calls.unclaimed_hold_s == Settings().calls.unclaimed_hold_s


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("etc/tapdeck.toml", "[sip]\nports = [1]")
    assert load().sip.ports == (1,)
    write("tapdeck.toml", "[sip]\nports = [2]")
    assert load().sip.ports == (2,)
    monkeypatch.setenv("TAPDECK_CONFIG", str(write("third.toml", "[sip]\nports = [3]")))
    assert load().sip.ports == (3,)
    assert load(write("fourth.toml", "[sip]\nports = [4]")).sip.ports == (4,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "[calls]\nmedia_silense_s = 1",
            r"t\.toml: unknown key calls\.media_silense_s; did you mean media_silence_s\?",
        ),
        ("[call]\nx = 1", r"t\.toml: unknown section \[call\]; did you mean calls\?"),
        ("zzz = 1", r"t\.toml: unknown section \[zzz\]; known are recording, own"),
        ("calls = 1", "has to be a section"),
        ("[calls", "not TOML"),
        ("\xff", "not TOML"),
        ("[sip]\nports = ['x']", r"t\.toml: sip\.ports\.0"),
        ("[sip]\nports = [0]", r"sip\.ports: 0 is less than 1"),
        ("[sip]\nports = [65536]", r"sip\.ports: 65536 is more than 65535"),
        ("[calls]\nmedia_silence_s = nan", r"calls\.media_silence_s: nan is less"),
        ("[calls]\nmedia_silence_s = 'soon'", r"t\.toml: calls\.media_silence_s: .*'soon'"),
        ("[limits]\nmax_calls = 0", r"limits\.max_calls: 0 is less than 1"),
        ("[limits]\nmax_calls = 1.5", r"limits\.max_calls"),
        ("[recording]\ntimezone = 'Mars/Olympus'", r"recording\.timezone: no time zone"),
        ("[recording]\nname_template = '{time}'", "recording: the name template lacks"),
        ("[own]\nnetworks = ['10.0.0.1/8']", r"own\.networks: .*host bits"),
        ("[own]\ncountry_code = '+31'", r"own\.country_code"),
    ],
)
def test_what_is_refused_and_how_it_is_said(content: str, message: str) -> None:
    Path("t.toml").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        load(Path("t.toml"))


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPDECK_SIP_PORT", "1")
    with pytest.raises(ConfigError, match="did you mean TAPDECK_SIP_PORTS"):
        load()


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPDECK_LIMITS_MAX_CALLS", "many")
    with pytest.raises(ConfigError, match=r"^TAPDECK_LIMITS_MAX_CALLS: .*'many'"):
        load()


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: No such file"):
        load(Path("gone.toml"))


def test_every_setting_is_in_the_help() -> None:
    # Wrapped text is joined again: only the words matter here.
    text = " ".join(CliRunner().invoke(cli, ["config", "show", "--help"]).stdout.split())
    for setting in all_settings():
        assert setting.option in text
        assert setting.name in text.replace("- ", "-")


def test_what_is_shown_can_be_read_back() -> None:
    shown = CliRunner().invoke(cli, ["config", "show", "--own-numbers", '"Ü",+31*']).stdout
    assert tomllib.loads(shown)["own"]["numbers"] == ['"Ü"', "+31*"]
    assert set(tomllib.loads(shown)) == set(SECTIONS)
    assert load(write("again.toml", shown)).own.numbers == ('"Ü"', "+31*")


def test_check_says_what_is_open() -> None:
    done = CliRunner().invoke(cli, ["config", "check", "--own-numbers", "2???"])
    assert done.exit_code == 0
    assert 'set: own.numbers = ["2???"]' in done.stdout
    assert "open: own.networks" in done.stdout
    assert "open: own.numbers" not in done.stdout


@pytest.mark.parametrize("options", [["--timezone", "Mars/Olympus"], ["--config", "gone.toml"], ["--max-calls", "0"]])
def test_a_wrong_configuration_has_its_exit_code(options: list[str]) -> None:
    done = CliRunner().invoke(cli, ["config", "check", *options])
    assert done.exit_code == ExitCode.CONFIG
    assert done.stdout == ""


def test_pydantic_is_imported_only_when_there_is_something_to_validate() -> None:
    code = "import sys; from tapdeck.cli.config import load; load(); print('pydantic' in sys.modules)"
    source = str(Path(config_module.__file__).parents[2])
    plain = {"PATH": os.environ["PATH"], "PYTHONPATH": source}
    for extra, expected in (({}, "False\n"), ({"TAPDECK_RECORDING_UTC": "1"}, "True\n")):
        run = [sys.executable, "-c", code]
        assert subprocess.run(run, env=plain | extra, capture_output=True, text=True, check=True).stdout == expected


def test_the_zone_and_the_networks_are_usable() -> None:
    settings = load(options={"recording__timezone": "Europe/Amsterdam", "own__networks": ("fe80::/10",)})
    assert settings.zone().iso(0) == "1970-01-01T01:00:00.000+01:00"
    assert [ipaddress.ip_network(text).version for text in settings.own.networks] == [6]


def test_every_setting_is_documented_with_its_default() -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    for setting in all_settings():
        assert f"| `{setting.name}` | `{toml_value(setting.default)}` | `{setting.option}` |" in text
