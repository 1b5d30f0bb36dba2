"""`tapdeck targets`: what is said of targets, and what is found of the copies on them."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from tapdeck.cli.exit_codes import ExitCode
from tapdeck.storage import state
from tests.support import parcels, samba, sealed
from tests.support.openssh import FOLDER, OpenSsh, openssh
from tests.support.samba import Samba, needs_samba

IDS = ("abcdefghij", "bbcdefghij", "cbcdefghij")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A box with two folders as targets, one of them disabled, and three recordings."""
    (tmp_path / "usb").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "t.toml").write_text(
        f"""
[storage]
recordings = "{tmp_path}/recordings"
state = "{tmp_path}/state"
spool = "{tmp_path}/spool"
[signing]
keys = "{tmp_path}/keys"
[users]
group = ""
capture = ""
seal = ""
deliver = ""
metrics = ""
alarms = ""
[[targets]]
name = "usb"
kind = "folder"
folder = "{tmp_path}/usb"
[[targets]]
name = "off"
kind = "folder"
folder = "{tmp_path}/off"
enabled = false
""",
        encoding="utf-8",
    )
    for identity in IDS:
        parcels.record(tmp_path / "recordings", identity)
    return tmp_path


def run(box: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: it gives up rights for good."""
    command = [sys.executable, "-m", "tapdeck.cli", *words, "--config", str(box / "t.toml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def told(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    return dict(json.loads(done.stdout))


@pytest.fixture
def delivered(box: Path) -> Path:
    """The same box after delivery."""
    done = run(box, "deliver", "--once")
    assert done.returncode == 0, done.stderr
    assert len(list((box / "usb").rglob("*_info.txt"))) == len(IDS)
    return box


def test_a_test_tells_speeds_and_leaves_nothing(box: Path) -> None:
    done = run(box, "targets", "test", "--size", "1", "--json")
    assert done.returncode == 0, done.stderr
    usb, off = told(done)["targets"]
    assert usb["passed"]
    assert usb["up_bytes_per_s"] > 0
    assert usb["down_bytes_per_s"] > 0
    assert off == {"name": "off", "kind": "folder", "place": f"{box}/off", "skipped": True}
    assert list((box / "usb").iterdir()) == []


def test_a_target_that_fails_says_what_to_do(box: Path) -> None:
    (box / "usb").rmdir()
    done = run(box, "targets", "test")
    assert done.returncode == 1
    assert "failed   usb: folder" in done.stdout
    assert "is the disk mounted?" in done.stdout
    assert "skipped  off" in done.stdout


def test_an_unknown_target(box: Path) -> None:
    done = run(box, "targets", "test", "ush")
    assert done.returncode == ExitCode.USAGE
    assert "did you mean usb?" in done.stderr


# -- test, with real servers -------------------------------------------------------------------------------------------


def add(box: Path, **table: Any) -> None:
    """Add a target to the configuration, in place of those that are there."""
    path = box / "t.toml"
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    path.write_text(f"{path.read_text().partition('[[targets]]')[0]}[[targets]]\n{lines}", encoding="utf-8")


def trial_of(box: Path, name: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code of a test, and what it says of the target. What is printed is the same, and no secret."""
    done = run(box, "targets", "test", name, "--size", "2", "--json")
    for secret in SECRETS:
        assert secret not in done.stdout + done.stderr
    (one,) = told(done)["targets"]
    return done.returncode, one


SECRETS = (samba.PASSWORD, "wrong-horse-8")


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Samba]:
    server = Samba(tmp_path / "share")
    yield server
    server.close()


def smb(server: Samba, **more: Any) -> dict[str, Any]:
    place = {"server": "127.0.0.1", "port": server.port, "share": samba.SHARE, "user": samba.USER}
    return {"name": "nas", "kind": "smb", **place, **more}


def secret_file(box: Path, secret: str) -> str:
    path = box / "password"
    path.write_text(f"{secret}\n", encoding="utf-8")
    path.chmod(0o600)
    return str(path)


@needs_samba
def test_a_share_tells_how_it_is_protected(box: Path, share: Samba) -> None:
    add(box, **smb(share, password_file=secret_file(box, samba.PASSWORD)))
    code, nas = trial_of(box, "nas")
    assert (code, nas["passed"]) == (0, True), nas
    assert nas["facts"]["dialect"] == "SMB 3.1.1"
    assert nas["facts"]["encryption"].startswith("AES-")
    assert nas["facts"]["signing"]
    assert nas["up_bytes_per_s"] > 0
    assert nas["down_bytes_per_s"] > 0
    assert list(share.folder.iterdir()) == []
    printed = run(box, "targets", "test", "nas", "--size", "1").stdout
    assert all(f"{what}: {fact}" in printed for what, fact in nas["facts"].items())
    assert "MB/s" in printed


@needs_samba
def test_a_share_with_a_wrong_password_by_variable(box: Path, share: Samba, monkeypatch: pytest.MonkeyPatch) -> None:
    add(box, **smb(share))
    monkeypatch.setenv("TAPDECK_SECRET_NAS_PASSWORD", "wrong-horse-8")
    code, nas = trial_of(box, "nas")
    assert code == 1
    assert "password" in nas["error"]
    monkeypatch.setenv("TAPDECK_SECRET_NAS_PASSWORD", samba.PASSWORD)
    assert trial_of(box, "nas")[0] == 0


def sftp(server: OpenSsh, **more: Any) -> dict[str, Any]:
    place = {"host": server.host, "port": server.port, "user": server.user, "folder": FOLDER}
    return {"name": "office", "kind": "sftp", **place, "key_file": str(server.key_file), **more}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OpenSsh]:
    with openssh(tmp_path / "sshd") as found:
        yield found


def test_a_server_with_sftp_tells_its_key_and_cipher(box: Path, server: OpenSsh) -> None:
    add(box, **sftp(server, host_key=server.fingerprint))
    code, office = trial_of(box, "office")
    assert (code, office["passed"]) == (0, True), office
    assert server.fingerprint in office["facts"]["host key"]
    assert office["facts"]["cipher"].startswith(("aes", "chacha20"))
    assert office["facts"]["user"] == server.user
    assert office["up_bytes_per_s"] > 0
    assert list(server.files.iterdir()) == []


@pytest.mark.parametrize("pinned", ["SHA256:" + "a" * 43, ""], ids=["another", "none"])
def test_nothing_is_sent_to_a_server_with_another_host_key(box: Path, server: OpenSsh, pinned: str) -> None:
    """Its key is shown, to be compared with what the server's owner says."""
    add(box, **sftp(server, host_key=pinned))
    code, office = trial_of(box, "office")
    assert (code, office["passed"]) == (1, False)
    assert server.fingerprint in office["error"]
    assert "Accepted" not in server.log.read_text()
    assert list(server.files.iterdir()) == []


@pytest.mark.parametrize("kind", ["smb", "sftp"])
def test_a_disabled_target_is_not_connected_to(box: Path, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        place = {"port": listener.getsockname()[1], "user": "tapdeck", "folder": "x", "enabled": False}
        server = {"host": "127.0.0.1"} if kind == "sftp" else {"server": "127.0.0.1", "share": "x"}
        add(box, name="nas", kind=kind, **place, **server)
        assert trial_of(box, "nas") == (0, {"name": "nas", "kind": kind, "place": ANY, "skipped": True})
        for words in (("deliver", "--once"), ("targets", "check", "--sample", "1"), ("targets", "list")):
            run(box, *words)
        with pytest.raises(BlockingIOError):
            listener.accept()


# -- list, check -------------------------------------------------------------------------------------------------------


def test_the_list(delivered: Path) -> None:
    done = run(delivered, "targets", "list")
    assert f"usb: folder {delivered}/usb; required, 3 delivered, 0 waiting" in done.stdout
    assert "off: folder" in done.stdout
    assert [one["name"] for one in told(run(delivered, "targets", "list", "--json"))["targets"]] == ["usb", "off"]


def test_copies_that_are_intact(delivered: Path) -> None:
    done = run(delivered, "targets", "check", "--sample", "10", "--json")
    assert done.returncode == 0, done.stderr
    (usb,) = told(done)["targets"]
    assert (usb["intact"], usb["missing"], usb["altered"], usb["cannot_be_read"]) == (3, 0, 0, 0)
    assert {one["id"] for one in usb["recordings"]} == set(IDS)


def test_copies_that_are_missing_or_altered(delivered: Path) -> None:
    missing, altered = sorted((delivered / "usb").rglob("*.wav"))[:2]
    missing.unlink()
    altered.write_bytes(b"RIFF and the resT")
    done = run(delivered, "targets", "check", "--sample", "10")
    assert done.returncode == 1
    assert f"MISSING: {IDS[0]} on usb" in done.stdout
    assert f"ALTERED: {IDS[1]} on usb" in done.stdout
    assert "usb: 1 intact, 1 missing, 1 altered" in done.stdout
    events = {one["event"]: one for one in state.events(delivered / "state")}
    assert events["copy missing"]["id"] == IDS[0]
    assert events["copy altered"]["id"] == IDS[1]
    assert events["copies checked"]["intact"] == 1


def test_a_target_that_is_gone_has_not_lost_anything(delivered: Path) -> None:
    (delivered / "usb").rename(delivered / "elsewhere")
    done = run(delivered, "targets", "check", "--sample", "10", "--json")
    assert done.returncode == 2
    assert told(done)["targets"][0]["cannot_be_read"] == 3


def test_unsealed_copies_of_what_is_gone_here_cannot_be_checked(delivered: Path) -> None:
    for path in (delivered / "recordings").rglob("*.wav"):
        path.unlink()
    done = run(delivered, "targets", "check", "--sample", "10")
    assert done.returncode == 2
    assert "nothing tells what it was" in done.stdout


@pytest.fixture
def sealed_away(box: Path) -> Path:
    """The box with one sealed recording, which was delivered and then removed from this machine; the target's copy."""
    recordings = box / "recordings"
    for path in recordings.rglob("*_*"):
        path.unlink()
    (box / "openssl").mkdir()
    recorder = sealed.Box(recordings, sealed.key(box / "openssl", "one"))
    stem = recorder.seal("abcdefghij")
    for path in stem.parent.iterdir():
        os.utime(path, (1_795_000_000, 1_795_000_000))
    done = run(box, "deliver", "--once")
    assert done.returncode == 0, done.stderr
    sealed.remove(stem)
    return box / "usb" / stem.relative_to(recordings)


def checked(box: Path) -> tuple[int, dict[str, Any]]:
    """Return the exit code of a check, and what it says of the recording."""
    done = run(box, "targets", "check", "--sample", "10", "--json")
    (one,) = told(done)["targets"][0]["recordings"]
    return done.returncode, one


def test_what_is_gone_here_is_vouched_for_by_its_seal(box: Path, sealed_away: Path) -> None:
    code, one = checked(box)
    assert (code, one["verdict"], one["reason"]) == (0, "intact", "")


@pytest.mark.parametrize("ending", sealed.ENDINGS)
def test_no_bit_of_what_is_gone_here_may_change(box: Path, sealed_away: Path, ending: str) -> None:
    sealed.flip(sealed.part(sealed_away, ending), 77)
    code, one = checked(box)
    assert (code, one["verdict"]) == (1, "altered")
    assert sealed_away.name in one["reason"]


@pytest.mark.parametrize("ending", sealed.ENDINGS)
def test_no_file_of_what_is_gone_here_may_be_missing(box: Path, sealed_away: Path, ending: str) -> None:
    sealed.part(sealed_away, ending).unlink()
    code, one = checked(box)
    assert (code, one["verdict"]) == (1, "missing")
    assert f"{sealed_away.name}{ending} is not there" in one["reason"]


def test_a_seal_by_a_key_of_somebody_else_vouches_for_nothing(box: Path, sealed_away: Path) -> None:
    content = {one: sealed.part(sealed_away, one).read_bytes() for one in sealed.ENDINGS if "_hash" not in one}
    content[".wav"] = content[".wav"][:-1] + b"!"
    sealed.write(sealed_away.parent, sealed_away.name, content, sealed.key(box / "openssl", "other"))
    code, one = checked(box)
    assert (code, one["verdict"]) == (1, "altered")


def test_a_check_before_anything_was_delivered(box: Path) -> None:
    done = run(box, "targets", "check", "--sample", "1")
    assert done.returncode == ExitCode.UNREADABLE_INPUT
    assert "queue.sqlite is not there: `tapdeck deliver` makes it" in done.stderr
