"""Where secrets come from, in which order, and which files are not trusted with one."""

import os
from pathlib import Path

import pytest

from tapdeck.cli.secret_places import NoSecret, SecretPlace, needed, secret_places
from tapdeck.cli.target_settings import TargetSettings
from tapdeck.storage.secret import Secret
from tests.support.users import needs_root

SMB = TargetSettings(name="nas-1", kind="smb")


def place(file: Path | str = "") -> SecretPlace:
    return SecretPlace("password_file", str(file), "tapdeck-nas-1-password", "TAPDECK_SECRET_NAS_1_PASSWORD")


def make(path: Path, content: bytes = b"hunter2\n", mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def credentials(tmp_path: Path, content: bytes = b"by systemd") -> dict[str, str]:
    folder = tmp_path / "credentials"
    folder.mkdir()
    make(folder / "tapdeck-nas-1-password", content, 0o440)
    return {"CREDENTIALS_DIRECTORY": str(folder)}


def test_the_names_of_a_targets_places() -> None:
    assert secret_places(SMB) == {"password": place()}
    assert secret_places(TargetSettings(name="usb", kind="folder")) == {}
    with_key = TargetSettings(name="x", kind="sftp", key_file="/key")
    assert list(secret_places(with_key)) == ["password", "passphrase"]
    assert secret_places(with_key)["passphrase"].variable == "TAPDECK_SECRET_X_PASSPHRASE"
    assert needed(SMB, "password")
    assert not needed(with_key, "password")
    assert not needed(with_key, "passphrase")


def test_a_file_goes_before_a_credential_and_that_before_a_variable(tmp_path: Path) -> None:
    variable = {"TAPDECK_SECRET_NAS_1_PASSWORD": "by variable"}
    both = variable | credentials(tmp_path)
    file = make(tmp_path / "secret", b"by file\n")
    assert place(file).read(both) == Secret("by file")
    assert place(file).source(both) == f"file {file}"
    assert place().read(both) == Secret("by systemd")
    assert place().source(both) == "systemd credential tapdeck-nas-1-password"
    assert place().read(variable) == Secret("by variable")
    assert place().source(variable) == "variable TAPDECK_SECRET_NAS_1_PASSWORD"
    for nothing in ({}, {"TAPDECK_SECRET_NAS_1_PASSWORD": ""}):
        assert place().read(nothing) is None
        assert place().source(nothing) == ""


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"hunter2", "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b" two words \n", " two words "),
        (b"two\nlines\n\n", "two\nlines\n"),
        ("pässwörd\n".encode(), "pässwörd"),
    ],
)
def test_one_line_end_at_most_is_not_of_the_secret(tmp_path: Path, content: bytes, secret: str) -> None:
    assert place(make(tmp_path / "secret", content)).read({}) == Secret(secret)


@pytest.mark.parametrize("content", [b"", b"\n", b"hunter2\xff\n", b"hunter2" * 10000])
def test_what_is_no_secret(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(NoSecret, match=r"is empty|is not UTF-8|is too large") as raised:
        place(make(tmp_path / "secret", content)).read({})
    assert "hunter2" not in str(raised.value).replace(str(tmp_path), "")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o700, 0o666, 0o610])
def test_a_file_that_others_might_read_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    path = make(tmp_path / "secret", mode=mode)
    with pytest.raises(NoSecret, match=rf"has mode 0{mode:o}: run `chmod 600 {path}`"):
        place(path).read({})
    path.chmod(0o600)  # what the message says
    assert place(path).read({}) == Secret("hunter2")


def test_a_file_that_is_only_readable_is_good(tmp_path: Path) -> None:
    assert place(make(tmp_path / "secret", mode=0o400)).read({}) == Secret("hunter2")


def test_a_link_leads_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(make(tmp_path / "secret"))
    assert place(tmp_path / "link").read({}) == Secret("hunter2")


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "secret"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(NoSecret, match=str(path)):
        place(path).read({})


@needs_root
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "secret")
    os.chown(path, 65534, -1)
    with pytest.raises(NoSecret, match=rf"belongs to user 65534.*chown root {path}"):
        place(path).read({})
    assert place(path).read({}, owners=[65534]) == Secret("hunter2")


def test_a_credential_stands_for_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    assert place(tmp_path / "closed").read(credentials(tmp_path)) == Secret("by systemd")


def test_a_credential_that_systemd_had_no_file_for_says_which(tmp_path: Path) -> None:
    with pytest.raises(NoSecret, match=rf"{tmp_path}/gone: No such file"):
        place(tmp_path / "gone").read(credentials(tmp_path, b"\n"))


def test_where_it_belongs_is_said_in_full() -> None:
    advice = place().advice
    for word in ("mode 0600", "password_file", "tapdeck-nas-1-password", "TAPDECK_SECRET_NAS_1_PASSWORD"):
        assert word in advice
