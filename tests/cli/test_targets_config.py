"""Targets in the configuration: what may be set, what is refused, and what is said of it."""

import json
import os
import pwd
import tomllib
import unicodedata
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.cli import config as config_module
from tapdeck.cli.config import load
from tapdeck.cli.config_file import as_file
from tapdeck.cli.exit_codes import ExitCode
from tapdeck.cli.main import cli
from tapdeck.cli.settings import ConfigError, Settings
from tapdeck.cli.show_config import toml_value
from tapdeck.cli.target_settings import KINDS, TargetSettings, target_keys
from tapdeck.cli.target_tables import read_targets
from tapdeck.cli.targets import all_targets, destinations, with_secrets
from tapdeck.storage.targets import WillPass

GUIDE = Path(__file__).parents[2] / "docs" / "configuration.md"
FINGERPRINT = "SHA256:" + "a" * 43
MINIMAL: dict[str, dict[str, Any]] = {
    "folder": {"name": "usb", "kind": "folder", "folder": "/mnt/usb"},
    "smb": {"name": "nas", "kind": "smb", "server": "nas.example.com", "share": "Voice", "user": "tapdeck"},
    "sftp": {"name": "office-2", "kind": "sftp", "host": "192.0.2.7", "user": "tapdeck", "folder": "in"},
}
OTHER_VALUES: dict[str, Any] = {
    "enabled": False,
    "folder": "/mnt/other",
    "folder_template": "%Y/{direction}",
    "name_template": "{caller}_{id}",
    "classes": ("business",),
    "directions": ("in", "unknown"),
    "numbers": ("+3120*", "2???"),
    "required": False,
    "hours": "22:00-06:00",
    "limit_kbit": 8000,
    "connections": 4,
    "read_back": False,
    "server": "192.0.2.8",
    "share": "Other Voice$",
    "host": "sftp.example.com",
    "port": 2222,
    "user": "somebody",
    "domain": "HOUSE",
    "require_encryption": False,
    "require_signing": False,
    "host_key": FINGERPRINT,
    "key_file": "/etc/tapdeck/key",
    "password_file": "/etc/tapdeck/password",
    "passphrase_file": "/etc/tapdeck/passphrase",
}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of the machine's and no variable of the tester's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config_module, "PLACES", ())
    for name in list(os.environ):
        if name.startswith("TAPDECK_"):
            monkeypatch.delenv(name)


def text(*tables: dict[str, Any]) -> str:
    """Write tables as a configuration file."""
    lines = []
    for table in tables:
        lines += ["[[targets]]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def file_of(*tables: dict[str, Any]) -> Path:
    Path("t.toml").write_text(text(*tables), encoding="utf-8")
    return Path("t.toml")


def refusal(*tables: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as raised:
        load(file_of(*tables))
    return str(raised.value)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_needs_little(kind: str) -> None:
    (target,) = load(file_of(MINIMAL[kind])).targets
    assert target == TargetSettings(**MINIMAL[kind])
    assert (target.enabled, target.required, target.read_back, target.connections) == (True, True, True, 2)
    assert target.require_encryption
    assert target.require_signing
    assert target.port_number == {"folder": 0, "smb": 445, "sftp": 22}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_can_be_set(kind: str) -> None:
    own = {key.name for key in target_keys() if kind in key.kinds} - {"name", "kind"}
    table = MINIMAL[kind] | {key: OTHER_VALUES[key] for key in own}
    if kind == "smb":
        table["folder"] = "calls/of us"
    (target,) = load(file_of(table)).targets
    assert {key: getattr(target, key) for key in table} == table
    assert own <= set(OTHER_VALUES)
    for key in own - {"folder"}:
        assert getattr(target, key) != getattr(TargetSettings(), key)


def test_every_key_is_one_of_some_kind() -> None:
    assert {key.name for key in target_keys()} == {one.name for one in fields(TargetSettings)}
    assert {kind for key in target_keys() for kind in key.kinds} == set(KINDS)


def test_any_number_at_once_in_their_order() -> None:
    names = [f"usb-{number}" for number in range(20)]
    settings = load(file_of(*(MINIMAL["folder"] | {"name": name, "folder": f"/mnt/{name}"} for name in names)))
    assert [target.name for target in settings.targets] == names
    assert [one.name for one in destinations(settings)] == names


def test_other_sections_stand_beside_them() -> None:
    Path("t.toml").write_text("[sip]\nports = [1]\n" + text(MINIMAL["folder"]), encoding="utf-8")
    settings = load(Path("t.toml"), options={"deliver__folder": "/mnt/old"})
    assert settings.sip.ports == (1,)
    assert [(one.name, one.kind) for one in all_targets(settings)] == [("/mnt/old", "folder"), ("usb", "folder")]


def test_a_disabled_one_is_no_destination() -> None:
    settings = load(file_of(MINIMAL["folder"] | {"enabled": False}))
    assert [target.name for target in settings.targets] == ["usb"]
    assert destinations(settings) == []


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("folder", {"name": ""}, "t.toml: target 1: name: every target needs one"),
        ("folder", {"name": "na/s"}, "t.toml: target na/s: name: ASCII letters"),
        ("folder", {"name": "näs"}, "name: ASCII letters"),
        ("folder", {"name": "-nas"}, "name: ASCII letters"),
        ("folder", {"name": "x" * 33}, "name: ASCII letters"),
        ("folder", {"name": "Mail"}, "target Mail: name: this one is taken"),
        ("folder", {"name": 7}, "target 1: name: every"),
        ("folder", {"kind": ""}, "t.toml: target usb: kind: every target has one of folder, smb, sftp"),
        ("folder", {"kind": "samba"}, "kind: unknown kind samba; did you mean smb?"),
        ("folder", {"kind": "tape"}, "kind: unknown kind tape"),
        ("folder", {"foldr": "/x"}, "t.toml: target usb: unknown key foldr; did you mean folder?"),
        (
            "smb",
            {"require_encription": False},
            "target nas: unknown key require_encription; did you mean require_encryp",
        ),
        ("folder", {"share": "x"}, "target usb: share: belongs to targets of the kind smb, not to folder"),
        ("smb", {"host_key": FINGERPRINT}, "host_key: belongs to targets of the kind sftp, not to smb"),
        ("folder", {"password_file": "/x"}, "password_file: belongs to targets of the kind smb or sftp, not to folder"),
        ("folder", {"folder": ""}, "target usb: folder: a target of the kind folder needs it"),
        ("folder", {"folder": "mnt/usb"}, "folder: the whole path is needed"),
        ("folder", {"folder": "/mnt/../etc"}, "folder: no .. in it"),
        ("smb", {"server": ""}, "server: a target of the kind smb needs it"),
        ("smb", {"server": "//nas/voice"}, "server: the name or the address"),
        ("smb", {"server": "smb://me:hunter2@nas"}, "server: the name or the address"),
        ("smb", {"share": "voice/2026"}, "share: the name of the share alone"),
        ("smb", {"folder": "/calls"}, "folder: it is within the share"),
        ("smb", {"folder": "a\\..\\b"}, "folder: no .. in it"),
        ("smb", {"user": ""}, "user: a target of the kind smb needs it"),
        ("sftp", {"host": "me@host"}, "host: the name or the address"),
        ("sftp", {"folder": ""}, "folder: a target of the kind sftp needs it"),
        ("sftp", {"port": 65536}, "port: 65536 is more than 65535"),
        ("sftp", {"port": "ssh"}, "target office-2: port: "),
        ("sftp", {"connections": 0}, "connections: 0 is less than 1"),
        ("sftp", {"connections": 9}, "connections: 9 is more than 8"),
        ("sftp", {"limit_kbit": -1}, "limit_kbit: -1 is less than 0"),
        (
            "sftp",
            {"host_key": "16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48"},
            "host_key: it is neither a fingerprint",
        ),
        ("sftp", {"key_file": "id_ed25519"}, "key_file: the whole path is needed"),
        ("sftp", {"hours": "22-6"}, "hours: '22-6' is no part of a day"),
        ("sftp", {"hours": "22:00-22:00"}, "hours: "),
        ("sftp", {"hours": "24:30-06:00"}, "hours: "),
        ("sftp", {"directions": ["incoming"]}, "directions: unknown direction 'incoming'"),
        ("sftp", {"directions": ["inn"]}, "did you mean in?"),
        ("sftp", {"numbers": [""]}, "numbers: an empty text"),
        ("sftp", {"numbers": ["2[0-9"]}, "numbers: '2[0-9': a bracket"),
        ("sftp", {"classes": ["a\nb"]}, "classes: there are blanks"),
        ("sftp", {"user": " tapdeck"}, "user: there are blanks"),
        ("sftp", {"enabled": "perhaps"}, "target office-2: enabled: "),
        ("sftp", {"name_template": "{caller}"}, "name_template: the name template lacks {id}"),
        ("sftp", {"name_template": "{id}/{caller}"}, "name_template: "),
        ("sftp", {"folder_template": "/abs"}, "folder_template: the folder template has an empty part"),
        ("sftp", {"folder_template": "../%Y"}, "folder_template: "),
        ("sftp", {"folder_template": "%Q"}, "folder_template: the folder template has an unknown date field %Q"),
        ("sftp", {"folder_template": "{colour}"}, "unknown variable {colour}"),
    ],
)
def test_what_is_refused_and_how_it_is_said(kind: str, change: dict[str, Any], says: str) -> None:
    said = refusal(MINIMAL[kind] | change)
    assert says in said
    assert said.startswith("t.toml: target ")
    assert "hunter2" not in said


@pytest.mark.parametrize("wrong", ["targets = 1", "targets = 0", "targets = ['nas']", "[targets]\nname = 'nas'"])
def test_what_is_no_table_of_targets(wrong: str) -> None:
    Path("t.toml").write_text(wrong, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"t\.toml: targets: each target is a table of its own"):
        load(Path("t.toml"))


def test_a_section_that_was_meant_to_be_targets() -> None:
    Path("t.toml").write_text("[[target]]\nname = 'x'\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"unknown section \[target\]; did you mean targets\?"):
        load(Path("t.toml"))


def test_names_are_told_apart_in_capitals_too() -> None:
    said = refusal(MINIMAL["folder"], MINIMAL["folder"] | {"name": "USB", "folder": "/mnt/2"})
    assert said == "t.toml: target USB: name: another target has it already"


@pytest.mark.parametrize("key", ["password", "Password", "passwd", "passphrase", "secret", "key_passphrase"])
@pytest.mark.parametrize("value", ["hunter2", 7])
def test_a_secret_in_the_file_is_refused_and_not_shown(key: str, value: str | int) -> None:
    said = refusal(MINIMAL["sftp"] | {key: value})
    what = "passphrase" if "phrase" in key else "password"
    assert said.startswith(f"t.toml: target office-2: {key}: a secret does not belong into this file")
    assert f"a file of mode 0600 and name that file by {what}_file" in said
    assert f"tapdeck-office-2-{what}" in said
    assert f"TAPDECK_SECRET_OFFICE_2_{what.upper()}" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("value", ["hunter2", 41414141, ["hunter2"]])
def test_a_secret_in_the_place_of_its_file_is_not_shown(value: Any) -> None:
    said = refusal(MINIMAL["smb"] | {"password_file": value})
    assert said.startswith("t.toml: target nas: password_file: ")
    assert "hunter2" not in said
    assert "4141" not in said


def outcome(table: dict[str, Any]) -> TargetSettings | str:
    """Return the target that a table makes, or how it is refused."""
    try:
        return read_targets([table], "t.toml")[0]
    except ConfigError as error:
        return str(error)


CLOCK = st.from_regex(r"[0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}", fullmatch=True)


@given(st.text(max_size=12) | CLOCK)
def test_no_text_is_taken_for_hours_that_is_none(hours: str) -> None:
    """Whatever is accepted is two different times of day, or nothing."""
    found = outcome(MINIMAL["folder"] | {"hours": hours})
    if isinstance(found, str):
        assert found.startswith("t.toml: target usb: hours: ")
    elif hours:
        start, end = (int(one[:2]) * 60 + int(one[3:]) for one in hours.split("-"))
        assert 0 <= start < 1440
        assert 0 <= end <= 1440
        assert start != end % 1440


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12) | st.integers() | st.booleans(), max_size=4))
def test_no_table_does_harm(table: dict[str, Any]) -> None:
    """Anything is either a target or refused with a message of one line; nothing breaks."""
    found = outcome(MINIMAL["smb"] | table)
    if isinstance(found, str):
        assert found.startswith("t.toml: target ")
        assert not {unicodedata.category(char) for char in found} & {"Cc", "Zl", "Zp"}


def test_what_is_shown_can_be_read_back() -> None:
    path = file_of(MINIMAL["smb"], MINIMAL["sftp"] | {"numbers": ['"Ü"', "+31*"]}, MINIMAL["folder"])
    shown = run("config", "show", "--config", str(path))
    Path("again.toml").write_text(shown, encoding="utf-8")
    assert load(Path("again.toml")).targets == load(path).targets
    assert "share" not in tomllib.loads(shown)["targets"][1]


def test_setup_keeps_them(tmp_path: Path) -> None:
    settings = load(file_of(MINIMAL["smb"], MINIMAL["folder"] | {"hours": "22:00-06:00"}))
    Path("made.toml").write_text(as_file(settings, set()), encoding="utf-8")
    assert load(Path("made.toml")).targets == settings.targets


def test_show_says_where_secrets_come_from_and_not_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Path("secret").absolute()
    secret.write_text("hunter2\n", encoding="utf-8")
    secret.chmod(0o600)
    with_file = MINIMAL["sftp"] | {"password_file": str(secret)}
    without = MINIMAL["smb"] | {"name": "lost"}
    path = str(file_of(MINIMAL["smb"], with_file, without))
    monkeypatch.setenv("TAPDECK_SECRET_NAS_PASSWORD", "hunter2")
    shown = run("config", "show", "--config", path)
    assert "# password: from variable TAPDECK_SECRET_NAS_PASSWORD, which is there" in shown
    assert f"# password: from file {secret}, which is there" in shown
    assert "# password: there is no password" in shown
    told = json.loads(run("config", "show", "--json", "--config", path))["targets"]
    assert [one["secrets"]["password"]["there"] for one in told] == [True, True, False]
    assert told[1]["secrets"]["password"]["source"] == f"file {secret}"
    checked = run("config", "check", "--config", path)
    for said in (shown, json.dumps(told), checked, run("config", "show", "--help")):
        assert "hunter2" not in said


@pytest.mark.parametrize(
    ("tables", "extra", "says"),
    [
        ([], "", "no target that is enabled: recordings stay on this machine"),
        ([MINIMAL["folder"] | {"enabled": False}], "", "no target that is enabled"),
        ([MINIMAL["folder"] | {"required": False}], "", "no target is required"),
        ([MINIMAL["smb"] | {"require_encryption": False}], "", "target nas: require_encryption is off"),
        ([MINIMAL["smb"] | {"require_signing": False}], "", "target nas: require_signing is off"),
        ([MINIMAL["sftp"]], "", "target office-2: host_key is missing"),
        ([MINIMAL["smb"]], "", "target nas: there is no password"),
        ([MINIMAL["folder"] | {"read_back": False}], "", "target usb: read_back is off"),
        ([MINIMAL["folder"] | {"directions": ["in"]}], "", "target usb: directions leaves out every recording"),
        ([MINIMAL["folder"] | {"classes": ["x"]}], "", "target usb: classes leaves out every recording that has no"),
        ([MINIMAL["folder"], MINIMAL["folder"] | {"name": "two"}], "", "targets usb, two are the same place"),
    ],
)
def test_check_warns(tables: list[dict[str, Any]], extra: str, says: str) -> None:
    said = run("config", "check", "--config", str(file_of(*tables)))
    assert [line for line in said.splitlines() if line.startswith("warning: ") and says in line]
    assert said.endswith("the configuration is good\n")


def test_check_has_nothing_against_a_good_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPDECK_SECRET_NAS_PASSWORD", "hunter2")
    monkeypatch.setenv("TAPDECK_SECRET_OFFICE_2_PASSWORD", "hunter2")
    monkeypatch.setenv("TAPDECK_OWN_NUMBERS", "2???")
    tables = (MINIMAL["folder"] | {"directions": ["in"]}, MINIMAL["smb"], MINIMAL["sftp"] | {"host_key": FINGERPRINT})
    said = run("config", "check", "--config", str(file_of(*tables)))
    assert "warning: " not in said
    assert "target: nas: smb //nas.example.com/Voice/ as tapdeck" in said


def said_of_key(path: Path, user: str) -> list[str]:
    """What `config check` says of a target's private key, where deliver is this user."""
    table = MINIMAL["sftp"] | {"host_key": FINGERPRINT, "key_file": str(path)}
    said = run("config", "check", "--config", str(file_of(table)), "--deliver-user", user)
    return [line for line in said.splitlines() if "key_file: " in line]


def test_check_sees_whether_deliver_may_read_the_key(tmp_path: Path) -> None:
    key = tmp_path / "key"
    (said,) = said_of_key(key, "")
    assert said == f"warning: target office-2: key_file: {key}: No such file or directory"
    key.touch()
    key.chmod(0o640)
    (said,) = said_of_key(key, "")
    assert said.endswith(f"others may read {key}, so it is not used: run `chmod 600 {key}`")
    key.chmod(0o600)
    assert said_of_key(key, "") == []
    assert said_of_key(key, "no-such-user") == []


@pytest.mark.skipif(os.getuid() != 0, reason="gives a file to another user: needs root")
def test_check_sees_that_the_key_belongs_to_somebody_else_than_deliver(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch(0o600)
    (said,) = said_of_key(key, "daemon")
    assert said.endswith(f"{key} belongs to user 0, not to that of deliver: run `chown daemon {key}`")
    os.chown(key, pwd.getpwnam("daemon").pw_uid, -1)
    assert said_of_key(key, "daemon") == []


def test_a_variable_with_a_secret_is_no_unknown_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPDECK_SECRET_NAZ_PASSWORD", "hunter2")
    said = run("config", "check", "--config", str(file_of(MINIMAL["folder"])))
    assert "warning: variable TAPDECK_SECRET_NAZ_PASSWORD: there is no target that it belongs to" in said
    assert "hunter2" not in said


def test_a_wrong_target_has_the_exit_code_of_a_wrong_configuration() -> None:
    path = file_of(MINIMAL["folder"] | {"kind": "tape"})
    done = CliRunner().invoke(cli, ["config", "check", "--config", str(path)])
    assert (done.exit_code, done.stdout) == (ExitCode.CONFIG, "")


# -- the guide ---------------------------------------------------------------------------------------------------------


def guide() -> str:
    """The section of the guide on targets."""
    return GUIDE.read_text(encoding="utf-8").partition("\n## Targets\n")[2].partition("\n## ")[0]


def test_every_key_is_documented_with_its_default_and_no_other() -> None:
    rows = [line for line in guide().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [key.name for key in target_keys()]
    for row, key in zip(rows, target_keys(), strict=True):
        assert row.startswith(f"| `{key.name}` | `{toml_value(key.default)}` | {', '.join(key.kinds)} | ")
        assert row.replace("[see below](#where-secrets-come-from)", "see below").endswith(f" | {key.help} |")


def test_the_examples_of_the_guide_are_good() -> None:
    lines = [line[4:] for line in guide().splitlines() if line.startswith("    ")]
    Path("t.toml").write_text("\n".join(lines), encoding="utf-8")
    settings = load(Path("t.toml"))
    assert sorted(target.kind for target in settings.targets) == sorted(KINDS)
    assert [one.route.name for one in destinations(settings)] == [target.name for target in settings.targets]


# -- destinations ------------------------------------------------------------------------------------------------------


def test_the_shorthand_is_a_target_with_its_path_as_its_name(tmp_path: Path) -> None:
    (only,) = destinations(replace(Settings(), deliver=replace(Settings().deliver, folder=str(tmp_path / "usb"))))
    assert only.name == only.make().name == str(tmp_path / "usb")
    assert only.settings.required


def test_each_connection_is_a_target_of_its_own(tmp_path: Path) -> None:
    (usb,) = destinations(load(file_of(MINIMAL["folder"] | {"folder": str(tmp_path)})))
    one, other = usb.make(), usb.make()
    assert one is not other
    assert (one.name, other.name) == ("usb", "usb")


def test_a_target_without_its_secret_stands_alone(tmp_path: Path) -> None:
    """It fails with a text that says what to do, and the others work."""
    nas, usb = destinations(load(file_of(MINIMAL["smb"], MINIMAL["folder"] | {"folder": str(tmp_path)})))
    with pytest.raises(WillPass, match=r"there is no password: .*tapdeck-nas-password.*; then `systemctl reload"):
        nas.make().check(known=False)
    usb.make().check(known=False)


def test_a_secret_that_can_no_longer_be_read_is_kept(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n", encoding="utf-8")
    secret.chmod(0o600)
    path = file_of(MINIMAL["sftp"] | {"password_file": str(secret)})
    first = with_secrets(load(path))
    assert first.secrets["office-2", "password"].reveal() == "hunter2"
    secret.unlink()
    again = with_secrets(load(path), first)
    assert again.secrets == first.secrets
    moved = load(file_of(MINIMAL["sftp"] | {"password_file": f"{secret}.new"}))
    assert with_secrets(moved, first).secrets == {}
    assert "hunter2" not in repr(first)


def test_a_new_secret_takes_the_place_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_of(MINIMAL["smb"])
    monkeypatch.setenv("TAPDECK_SECRET_NAS_PASSWORD", "old")
    first = with_secrets(load(path))
    monkeypatch.setenv("TAPDECK_SECRET_NAS_PASSWORD", "new")
    assert with_secrets(load(path), first).secrets["nas", "password"].reveal() == "new"
