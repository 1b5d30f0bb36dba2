"""`tapdeck log`: the recording log shown, and verified after it was edited; made by a real seal stage."""

import base64
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tapdeck.cli.main import cli
from tapdeck.storage.ledger import Ledger
from tests.support import spooled
from tests.support.sealed import SIG, openssl
from tests.support.users import environment


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("box")
    spooled.hand_over(folder, 3)
    spooled.seal_all(spooled.settings(folder))
    return folder


@pytest.fixture
def box(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "box"))


def log(box: Path, command: str, *args: object) -> Result:
    return CliRunner().invoke(cli, ["log", command, "--ledger", str(box / "state" / "ledger.sqlite"), *map(str, args)])


def stems(box: Path) -> list[Path]:
    return sorted(path.with_name(path.name[: -len("_info.txt")]) for path in box.rglob("*_info.txt"))


def test_a_recording_s_hash_and_signature_are_those_of_its_files(sealed: Path) -> None:
    for stem in stems(sealed):
        names = [stem.name.rpartition("_")[2], stem, f"{stem}.wav", f"{stem}_hash.txt", f"{stem}{SIG}"]
        shown = {log(sealed, "show", "--json", name).stdout for name in names}
        assert len(shown) == 1
        entry = json.loads(shown.pop())
        hashes = Path(f"{stem}_hash.txt").read_bytes()
        assert entry["hash"] == hashlib.sha256(hashes).hexdigest()
        assert base64.b64decode(entry["signature"]) == Path(f"{stem}{SIG}").read_bytes()
        said = log(sealed, "show", stem).stdout
        assert entry["hash"] in said
        assert entry["signature"] in said


def test_all_entries_and_one_that_is_not_there(sealed: Path) -> None:
    entries = [json.loads(line) for line in log(sealed, "show", "--json").stdout.splitlines()]
    assert [one["entry"] for one in entries] == list(range(1, len(entries) + 1))
    assert [one["kind"] for one in entries].count("recording") == 3
    assert len(log(sealed, "show").stdout.splitlines()) == len(entries)
    result = log(sealed, "show", "nosuchone")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "does not name nosuchone" in result.stderr


def test_a_log_that_nobody_has_touched(sealed: Path) -> None:
    result = log(sealed, "verify", sealed / "recordings")
    assert (result.exit_code, result.stdout.startswith("INTACT")) == (0, True)
    certificate = next(sealed.rglob("tapdeck-certificate.pem"))
    assert log(sealed, "verify", "--certificate", certificate).exit_code == 0
    assert log(sealed, "verify").exit_code == 2, "without a certificate signatures prove nothing"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET hash = '00' WHERE seq = 3",
        "UPDATE entries SET body = '{}' WHERE kind = 'recording'",
        "DELETE FROM entries WHERE seq = 3",
        "UPDATE entries SET signature = 7 WHERE seq = 3",
    ],
)
def test_an_edit_shows(statement: str, box: Path) -> None:
    with sqlite3.connect(box / "state" / "ledger.sqlite") as base:
        base.executescript(f"DROP TRIGGER no_update; DROP TRIGGER no_delete; {statement}")
    base.close()
    result = log(box, "verify", "--json", box / "recordings")
    assert result.exit_code == 1
    assert {json.loads(line)["verdict"] for line in result.stdout.splitlines()} <= {"altered", "missing"}


def test_a_stranger_s_certificate_helps_nobody(sealed: Path, tmp_path: Path) -> None:
    new: list[str | Path] = ["-newkey", "rsa:3072", "-nodes", "-keyout", tmp_path / "key", "-subj", "/CN=Tapdeck"]
    openssl("req", "-x509", *new, "-out", tmp_path / "stranger.pem")
    assert log(sealed, "verify", "--certificate", tmp_path / "stranger.pem").exit_code == 1


def test_what_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but long enough to be looked at")
    for command, code in (("show", 66), ("verify", 2)):
        result = CliRunner().invoke(cli, ["log", command, "--ledger", str(tmp_path / "text")])
        assert result.exit_code == code


def test_the_log_of_this_machine(sealed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TAPDECK_STORAGE_RECORDINGS", str(sealed / "recordings"))
    monkeypatch.setenv("TAPDECK_STORAGE_STATE", str(sealed / "state"))
    assert CliRunner().invoke(cli, ["log", "verify"]).exit_code == 0
    monkeypatch.setenv("TAPDECK_STORAGE_STATE", str(tmp_path))
    assert CliRunner().invoke(cli, ["log", "verify"]).exit_code == 64


def entomb(box: Path, identity: str) -> "subprocess.CompletedProcess[str]":
    """Run `tapdeck log tombstone` as a process: it gives up what root may do."""
    places = ("--out", box / "recordings", "--state", box / "state", "--spool", box / "spool", "--keys", box / "keys")
    users = [word for user in ("group", "seal-user") for word in (f"--{user}", "")]
    words = ["log", "tombstone", identity, "--reason", "retention is over", "--by", "compliance"]
    command = [sys.executable, "-m", "tapdeck.cli", *words, *map(str, places), *users]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)


def against_log(box: Path) -> Result:
    ledger = box / "state" / "ledger.sqlite"
    return CliRunner().invoke(cli, ["verify", "--ledger", str(ledger), str(box / "recordings")])


def test_a_deletion_is_written_down_when_the_files_are_gone(box: Path) -> None:
    stem = stems(box)[1]
    identity = stem.name.rpartition("_")[2]
    refused = entomb(box, identity)
    assert refused.returncode == 73
    assert "is still there" in refused.stderr
    for path in stem.parent.glob(f"{stem.name}*"):
        path.unlink()
    missing = against_log(box)
    assert (missing.exit_code, identity in missing.stdout) == (1, True)
    done = entomb(box, identity)
    assert done.returncode == 0, done.stderr
    explained = against_log(box)
    assert explained.exit_code == 0, explained.stdout
    shown = [json.loads(line) for line in log(box, "show", "--json", identity).stdout.splitlines()]
    assert [one["kind"] for one in shown] == ["recording", "tombstone"]
    assert shown[1]["facts"] == {"reason": "retention is over", "by": "compliance"}
    again = entomb(box, identity)
    assert (again.returncode, "before" in again.stdout) == (0, True)
    assert len(log(box, "show", "--json", identity).stdout.splitlines()) == 2
    unknown = entomb(box, "nosuchone")
    assert unknown.returncode == 1
    assert "names no recording nosuchone" in unknown.stderr


def test_a_deletion_is_not_written_down_while_the_stage_seals(box: Path) -> None:
    ledger = Ledger(box / "state" / "ledger.sqlite")
    try:
        refused = entomb(box, "nosuchone")
    finally:
        ledger.close()
    assert refused.returncode == 73, refused.stderr
    assert "stop it first" in refused.stderr
