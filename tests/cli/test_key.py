"""`tapdeck key`, as an administrator uses it, beside a stage that runs."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tapdeck.cli.main import cli
from tests.support.netns import wait_for
from tests.support.record import REPOSITORY, record
from tests.support.sealed import by_hand, openssl
from tests.support.spooled import hand_over, settings
from tests.support.users import environment

WORDS = "correct horse battery"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The folder of a key that was made."""
    assert record_nothing(tmp_path).returncode == 0
    return tmp_path / "keys"


def record_nothing(folder: Path) -> "subprocess.CompletedProcess[str]":
    """A seal stage that finds nothing to do: it makes the key."""
    hand_over(folder, 0)
    return subprocess.run(command(folder, "--once"), env=environment(), capture_output=True, text=True, timeout=60)


def command(folder: Path, *more: str) -> list[str]:
    made = settings(folder)
    places = [f"--out={made.storage.recordings}", f"--spool={made.storage.spool}", f"--state={made.storage.state}"]
    users = ["--group=", *(f"--{name}-user=" for name in ("capture", "seal", "deliver", "metrics"))]
    return [sys.executable, "-m", "tapdeck.cli", "seal", *places, f"--keys={folder / 'keys'}", *users, *more]


def run(keys: Path, *words: str, given: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["key", *words, f"--keys={keys}"], input=given, env={"TAPDECK_CONFIG": None})


def fingerprint(certificate: Path) -> str:
    shown = openssl("x509", "-in", certificate, "-noout", "-fingerprint", "-sha256").decode()
    return shown.strip().partition("=")[2].replace(":", "").lower()


def test_show(keys: Path) -> None:
    done = run(keys, "show")
    assert done.exit_code == 0
    assert fingerprint(keys / "certificate.pem") in done.stdout
    facts = json.loads(run(keys, "show", "--json").stdout)
    assert facts["fingerprint"] == fingerprint(keys / "certificate.pem")
    assert (facts["opens"], facts["certificates"]) == ("yes", 1)
    assert facts["key"] == "RSA, 3072 bits, made"


def test_show_says_what_is_wrong_and_what_to_do(keys: Path, tmp_path: Path) -> None:
    (keys / "passphrase").write_text("wrong\n")
    done = run(keys, "show")
    assert done.exit_code == 1
    assert "the passphrase is wrong" in done.stdout
    assert str(keys / "passphrase") in done.stdout
    none = run(tmp_path / "nothing", "show")
    assert (none.exit_code, "when the recorder starts" in none.stdout) == (1, True)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("words", [("rotate",), ("export-cert",), ("backup", "file"), ("replace", "--lost")])
def test_without_a_key_none_is_made(words: tuple[str, ...], tmp_path: Path) -> None:
    done = run(tmp_path / "nothing", *words)
    assert done.exit_code == 78
    assert "it is made when the recorder starts" in done.stderr
    assert not (tmp_path / "nothing").exists()


def test_certificates_are_handed_out(keys: Path, tmp_path: Path) -> None:
    assert run(keys, "rotate").exit_code == 0
    printed = run(keys, "export-cert").stdout
    assert printed.count("BEGIN CERTIFICATE") == 3
    assert "PRIVATE" not in printed
    file = tmp_path / "box.pem"
    assert run(keys, "export-cert", str(file)).exit_code == 0
    assert file.read_text() == printed
    again = run(keys, "export-cert", str(file))
    assert (again.exit_code, "not overwritten" in again.stderr) == (78, True)


def test_backup_and_restore(keys: Path, tmp_path: Path) -> None:
    file, before = tmp_path / "key.p12", fingerprint(keys / "certificate.pem")
    short = run(keys, "backup", str(file), given="short\nshort\n")
    assert (short.exit_code, "12 characters" in short.stderr) == (78, True)
    differing = run(keys, "backup", str(file), given=f"{WORDS}\nanother one\n{WORDS}\n{WORDS}\n")
    assert differing.exit_code == 0
    assert WORDS not in differing.output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert run(keys, "backup", str(file), given=f"{WORDS}\n{WORDS}\n").exit_code == 78
    words = tmp_path / "words"
    words.write_text(f"{WORDS}\n")
    there = run(keys, "restore", str(file), "--words", str(words), *places(tmp_path))
    assert (there.exit_code, "nothing to restore" in there.stderr) == (78, True)
    (keys / "key.pem").unlink()
    wrong = run(keys, "restore", str(file), *places(tmp_path), given="something else\n")
    assert (wrong.exit_code, "the passphrase is wrong" in wrong.stderr) == (78, True)
    back = run(keys, "restore", str(file), "--words", str(words), *places(tmp_path))
    assert back.exit_code == 0, back.stderr
    assert before in back.stdout
    assert run(keys, "show").exit_code == 0


def places(folder: Path) -> list[str]:
    users = ["--group=", *(f"--{name}-user=" for name in ("capture", "seal", "deliver", "metrics"))]
    return [f"--out={folder}/recordings", f"--spool={folder}/spool", f"--state={folder}/state", *users]


def test_a_key_is_replaced_only_when_it_is_said_to_be_lost_and_is(keys: Path) -> None:
    before = fingerprint(keys / "certificate.pem")
    assert run(keys, "replace").exit_code == 64
    opens = run(keys, "replace", "--lost")
    assert (opens.exit_code, "the key opens" in opens.stderr) == (78, True)
    assert fingerprint(keys / "certificate.pem") == before
    (keys / "key.pem").unlink()
    assert run(keys, "replace", "--lost").exit_code == 0
    assert fingerprint(keys / "certificate.pem") != before
    assert fingerprint(keys / "old/001-certificate.pem") == before


@pytest.mark.skipif(os.geteuid() != 0, reason="owners are changed by root alone")
def test_what_root_changes_stays_the_stage_s(keys: Path) -> None:
    for path in (keys, *keys.iterdir()):
        os.chown(path, 4242, 4243)
    assert run(keys, "rotate").exit_code == 0
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (keys, *keys.rglob("*"))}
    assert owners == {(4242, 4243)}


def test_a_running_stage_takes_a_new_key(tmp_path: Path) -> None:
    hand_over(tmp_path, 1)
    recordings, keys = tmp_path / "recordings", tmp_path / "keys"
    with subprocess.Popen(command(tmp_path), env=environment(), stdout=subprocess.DEVNULL) as process:
        try:
            wait_for("a recording", lambda: len(list(recordings.rglob("*.sig"))) == 1, 30)
            assert run(keys, "rotate").exit_code == 0
            hand_over(tmp_path, 1, first=1)
            wait_for("another", lambda: len(list(recordings.rglob("*.sig"))) == 2, 30)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
    by = {}
    for text in recordings.rglob("*_info.txt"):
        said = dict(line.partition(": ")[::2] for line in text.read_text().splitlines())
        by[said["Datetime"]] = said["SealedBy"]
    expected = [fingerprint(keys / "old/001-certificate.pem"), fingerprint(keys / "certificate.pem")]
    assert [by[time] for time in sorted(by)] == expected


def test_record_signs_when_it_is_told_to(tmp_path: Path) -> None:
    """The key is the one of the configuration; a second run changes nothing."""
    config = tmp_path / "tapdeck.toml"
    config.write_text(f'[signing]\nkeys = "{tmp_path / "keys"}"\n')
    capture = REPOSITORY / "fixtures/lab/h_hold.pcap"
    out = tmp_path / "out"
    done = record(out, capture, more=["--sign", "--config", str(config)])
    assert done.code == 0, done.stderr
    assert done.recordings
    for one in done.recordings:
        assert by_hand(one.path.with_suffix(""), one.path.with_name("tapdeck-certificate.pem"))
    before = {path: path.read_bytes() for path in out.rglob("2*") if path.is_file()}
    again = record(out, capture, more=["--sign", "--config", str(config)])
    assert again.code == 0, again.stderr
    assert again.summary["calls"] == done.summary["calls"]
    assert {path: path.read_bytes() for path in out.rglob("2*") if path.is_file()} == before
    log = out / ".tapdeck/ledger.sqlite"
    verify = [sys.executable, "-m", "tapdeck.cli", "verify", str(out), "--against-log", "--ledger", str(log)]
    assert subprocess.run(verify, env=environment(), capture_output=True).returncode == 0
    plain = record(tmp_path / "plain", capture)
    assert not list((tmp_path / "plain").rglob("*.sig"))
    assert plain.code == 0


def test_record_does_not_go_on_without_the_key(tmp_path: Path, keys: Path) -> None:
    (keys / "passphrase").write_text("wrong\n")
    config = tmp_path / "tapdeck.toml"
    config.write_text(f'[signing]\nkeys = "{keys}"\n')
    capture = REPOSITORY / "fixtures/lab/h_hold.pcap"
    done = record(tmp_path / "out", capture, more=["--sign", "--config", str(config)])
    assert done.code == 78
    assert "the passphrase is wrong" in done.stderr
    assert not list((tmp_path / "out").rglob("*.wav"))
