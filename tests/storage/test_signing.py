"""Sealed recordings: OpenSSL and sha256sum say so; the chain goes on across kills at any step, and over keys."""

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from tapdeck.cli.seal_stage import SealStage
from tapdeck.storage import state
from tapdeck.storage.keys import KeyStore
from tapdeck.storage.ledger import Ledger, LedgerInUse
from tapdeck.storage.ledger_entry import Entry
from tapdeck.storage.parcel import folders_in, parcels_in
from tapdeck.storage.signing import STEPS
from tests.support import ledgers
from tests.support.record import REPOSITORY
from tests.support.sealed import SIG, by_hand, openssl
from tests.support.spooled import hand_over, seal_all, settings, stage

NOW = datetime(2026, 11, 24, 12, 0).astimezone()
CERTIFICATE = "tapdeck-certificate.pem"
HAPPENING = [step for step in STEPS if step != "published .pcapng"]
"""The steps of a call whose sound needs no packets beside it."""


def stems(folder: Path) -> list[Path]:
    """The recordings in the order in which they were sealed."""
    found = [path.with_name(path.name.removesuffix("_info.txt")) for path in folder.rglob("*_info.txt")]
    return sorted(found, key=lambda stem: info(stem)["SealedAt"])


def info(stem: Path) -> dict[str, str]:
    text = stem.with_name(f"{stem.name}_info.txt").read_text()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def signature(stem: Path) -> bytes:
    return stem.with_name(stem.name + SIG).read_bytes()


def entries(folder: Path, kind: str = "") -> list[Entry]:
    ledger = Ledger(folder / "state/ledger.sqlite")
    try:
        assert ledgers.problems(ledger.path) == []
        assert ledger.pending() is None
        return [entry for entry in ledger.entries() if kind in ("", entry.kind)]
    finally:
        ledger.close()


def assert_chain(folder: Path, calls: int) -> None:
    """Every call is sealed once, by OpenSSL's word; each names the one before; the log says the same."""
    found = stems(folder / "recordings")
    assert len(found) == calls
    ids, before = [], ("", b"")
    for stem in found:
        assert by_hand(stem, stem.with_name(CERTIFICATE))
        said = info(stem)
        assert (said["PreviousRecording"], base64.b64decode(said["PreviousSignature"])) == before
        before = said["RecordingId"], signature(stem)
        ids.append(said["RecordingId"])
    logged = entries(folder, "recording")
    assert [entry.id for entry in logged] == ids
    for entry, stem in zip(logged, found, strict=True):
        content = stem.with_name(f"{stem.name}_hash.txt").read_bytes()
        assert (entry.hash, entry.signature) == (hashlib.sha256(content).hexdigest(), signature(stem))
    handed = {json.loads(path.read_text())["id"] for path in (folder / "state/handover").glob("*.json")}
    assert handed == set(ids)
    assert not list((folder / "spool/done").iterdir())
    assert not list((folder / "recordings").rglob(".*.part"))


def test_a_sealed_recording_is_as_the_formats_have_it(tmp_path: Path) -> None:
    hand_over(tmp_path, 2)
    steps: list[str] = []
    seal_all(settings(tmp_path, keep_packets=True), steps.append)
    assert steps == HAPPENING * 2
    assert_chain(tmp_path, 2)
    first, second = stems(tmp_path / "recordings")
    names = sorted(path.name.removeprefix(first.name) for path in first.parent.glob(f"{first.name}*"))
    assert names == sorted([".wav", "_packets.pcapng", "_info.txt", "_hash.txt", SIG])
    listed = first.with_name(f"{first.name}_hash.txt").read_text().splitlines()
    assert [line[64:] for line in listed] == [
        f"  {first.name}{end}" for end in (".wav", "_info.txt", "_packets.pcapng")
    ]
    keys = list(info(second))
    assert keys[-5:] == ["PreviousRecording", "PreviousDay", "PreviousSignature", "SealedBy", "Recorder"]
    shown = openssl("x509", "-in", first.with_name(CERTIFICATE), "-noout", "-fingerprint", "-sha256").decode()
    assert info(second)["SealedBy"] == shown.strip().partition("=")[2].replace(":", "").lower()
    assert abs(datetime.fromisoformat(info(second)["SealedAt"]).timestamp() - datetime.now().timestamp()) < 60
    assert info(second)["SealedAt"].endswith("+01:00")
    assert stat_mode(first.with_name("verify.sh")) == 0o700


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_scripts_in_the_day_folder_verify_it(tmp_path: Path) -> None:
    hand_over(tmp_path, 2)
    seal_all(settings(tmp_path))
    day = stems(tmp_path / "recordings")[0].parent
    done = subprocess.run(["./verify.sh"], cwd=day, capture_output=True, text=True)
    assert (done.returncode, "2 intact, 0 altered, 0 missing" in done.stdout) == (0, True), done.stdout


@pytest.mark.parametrize("step", HAPPENING)
def test_a_kill_at_any_step_leaves_a_chain_and_every_call_sealed_once(tmp_path: Path, step: str) -> None:
    """The second of three calls is killed at each step in turn, in a process of its own, then sealing goes on."""
    hand_over(tmp_path, 3)
    command = [sys.executable, "-m", "tests.support.spooled", str(tmp_path), step, "2"]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"}
    killed = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = {
        stem.name: signature(stem)
        for stem in stems(tmp_path / "recordings")
        if stem.with_name(stem.name + SIG).exists()
    }
    seal_all(settings(tmp_path, keep_packets=True))
    assert_chain(tmp_path, 3)
    after = {stem.name: signature(stem) for stem in stems(tmp_path / "recordings")}
    assert before.items() <= after.items(), "what was sealed before the kill is not sealed again"
    assert not entries(tmp_path, "abandoned")


@pytest.mark.parametrize("step", ["pending", "published _info.txt", f"published {SIG}"])
def test_a_kill_and_then_another_key(tmp_path: Path, step: str) -> None:
    """What is half done is done anew; what is whole counts, with the key it was sealed with."""
    hand_over(tmp_path, 3)
    made = settings(tmp_path)

    class Killed(BaseException):
        pass

    count = [0]

    def at(done: str) -> None:
        count[0] += done == step
        if count[0] == 2 and done == step:
            raise Killed

    one = stage(made, at)
    one.begin()
    with pytest.raises(Killed):
        drain(one)
    one.end()
    first = KeyStore(tmp_path / "keys").open().fingerprint
    second = KeyStore(tmp_path / "keys").rotate(NOW).fingerprint
    seal_all(made)
    assert_chain_of_keys(tmp_path, 3, [first, first if step == f"published {SIG}" else second, second])


def drain(one: SealStage) -> None:
    while one.tick():
        pass


def assert_chain_of_keys(folder: Path, calls: int, fingerprints: list[str]) -> None:
    found = stems(folder / "recordings")
    assert [info(stem)["SealedBy"] for stem in found] == fingerprints
    before = ("", b"")
    for stem in found:
        said = info(stem)
        assert (said["PreviousRecording"], base64.b64decode(said["PreviousSignature"])) == before
        before = said["RecordingId"], signature(stem)
    assert len(entries(folder, "recording")) == calls
    log = folder / "state/ledger.sqlite"
    verified = subprocess.run(
        [sys.executable, "-m", "tapdeck.cli", "verify", folder / "recordings", "--against-log", "--ledger", log],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        capture_output=True,
        text=True,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_chain_goes_on_over_a_new_key_while_the_stage_runs(tmp_path: Path) -> None:
    hand_over(tmp_path, 2)
    made = settings(tmp_path)
    one = stage(made)
    one.begin()
    while one.tick():
        pass
    first = KeyStore(tmp_path / "keys").open().fingerprint
    second = KeyStore(tmp_path / "keys").rotate(NOW).fingerprint
    hand_over(tmp_path, 2, first=2)
    while one.tick():
        pass
    one.end()
    assert_chain_of_keys(tmp_path, 4, [first, first, second, second])
    day = stems(tmp_path / "recordings")[0].parent
    assert (day / CERTIFICATE).read_bytes().count(b"BEGIN CERTIFICATE") == 3
    assert [entry.facts["what"] for entry in entries(tmp_path, "key")] == ["made", "rotated"]
    done = subprocess.run(["./verify.sh"], cwd=day, capture_output=True, text=True)
    assert (done.returncode, "4 intact" in done.stdout) == (0, True), done.stdout


def test_a_lost_key_is_replaced_and_that_is_written_down(tmp_path: Path) -> None:
    hand_over(tmp_path, 1)
    made = settings(tmp_path)
    seal_all(made)
    first = KeyStore(tmp_path / "keys").open().fingerprint
    (tmp_path / "keys/key.pem").unlink()
    hand_over(tmp_path, 1, first=1)
    seal_all(made)
    assert len(stems(tmp_path / "recordings")) == 1
    second = KeyStore(tmp_path / "keys").replace_lost(NOW).fingerprint
    seal_all(made)
    assert_chain_of_keys(tmp_path, 2, [first, second])
    told = [entry.facts for entry in entries(tmp_path, "key")]
    assert [fact["what"] for fact in told] == ["made", "locked", "unlocked", "replaced"]
    assert (told[-1]["before"], told[-1]["fingerprint"]) == (first, second)


def test_a_locked_key_stops_nothing_but_sealing(tmp_path: Path) -> None:
    """Calls wait, nothing is delivered, the alarm says cause and cure; when the key is back they are sealed late."""
    hand_over(tmp_path, 1)
    made = settings(tmp_path)
    seal_all(made)
    words = (tmp_path / "keys/passphrase").read_text()
    (tmp_path / "keys/passphrase").write_text("wrong\n")
    waiting = hand_over(tmp_path, 2, first=1)
    for path in waiting:
        os.utime(path)
    one = stage(made)
    one.begin()
    assert one.tick() is False
    assert one.conclude() != 0
    one.end()
    report = state.read(tmp_path / "state", "seal") or {}
    assert (report["waiting"], report["unsigned"]) == (2, 2)
    [alarm] = report["alarms"]
    assert (alarm["code"], alarm["severity"]) == ("KEY_LOCKED", "critical")
    assert "the passphrase is wrong" in alarm["text"]
    assert f"correct it in {tmp_path / 'keys/passphrase'}" in alarm["text"]
    assert len(list(parcels_in_all(tmp_path / "recordings"))) == 1
    (tmp_path / "keys/passphrase").write_text(words)
    seal_all(made)
    assert_chain(tmp_path, 3)
    late = [info(stem).get("SealedLate") for stem in stems(tmp_path / "recordings")]
    assert late[0] is None
    locked = next(entry for entry in entries(tmp_path, "key") if entry.facts["what"] == "locked")
    since = datetime.fromisoformat(locked.time).isoformat(timespec="milliseconds")
    assert late[1:] == [f"since {since}: the passphrase is wrong"] * 2
    report = state.read(tmp_path / "state", "seal") or {}
    assert (report["unsigned"], report["alarms"]) == (0, [])
    hand_over(tmp_path, 1, first=3)
    os.utime(next((tmp_path / "spool/done").iterdir()))
    seal_all(made)
    assert "SealedLate" not in info(stems(tmp_path / "recordings")[-1])


def test_a_key_that_comes_back_while_the_stage_runs(tmp_path: Path) -> None:
    hand_over(tmp_path, 1)
    made = settings(tmp_path)
    KeyStore(tmp_path / "keys").open()
    away = (tmp_path / "keys/key.pem").rename(tmp_path / "away")
    one = stage(made)
    one.begin()
    assert not one.tick()
    assert not stems(tmp_path / "recordings")
    away.rename(tmp_path / "keys/key.pem")
    drain(one)
    assert one.conclude() == 0
    one.end()
    assert_chain(tmp_path, 1)


def parcels_in_all(root: Path) -> list[str]:
    return [parcel.id for folder in folders_in(root) for parcel in parcels_in(root, folder, 2e9)]


def test_a_recording_whose_seal_is_still_to_come_is_not_delivered(tmp_path: Path) -> None:
    hand_over(tmp_path, 1)
    seal_all(settings(tmp_path))
    (stem,) = stems(tmp_path / "recordings")
    assert parcels_in_all(tmp_path / "recordings") == [info(stem)["RecordingId"]]
    stem.with_name(stem.name + SIG).unlink()
    assert parcels_in_all(tmp_path / "recordings") == []


def test_what_travels_last_is_what_vouches(tmp_path: Path) -> None:
    hand_over(tmp_path, 1)
    seal_all(settings(tmp_path, keep_packets=True))
    (path,) = (tmp_path / "state/handover").glob("*.json")
    ends = [Path(name).name for name in json.loads(path.read_text())["files"]]
    (stem,) = stems(tmp_path / "recordings")
    assert [name.removeprefix(stem.name) for name in ends] == [".wav", "_packets.pcapng", "_info.txt", "_hash.txt", SIG]


def test_a_second_sealer_is_refused(tmp_path: Path) -> None:
    hand_over(tmp_path, 1)
    one = stage(settings(tmp_path))
    with pytest.raises(LedgerInUse):
        stage(settings(tmp_path))
    one.begin()
    one.tick()
    one.end()
    assert_chain(tmp_path, 1)


def test_without_signing_nothing_of_it_appears(tmp_path: Path) -> None:
    hand_over(tmp_path, 1)
    seal_all(settings(tmp_path, enabled=False))
    names = [path.name.rpartition("_")[2] for path in (tmp_path / "recordings").rglob("*.*")]
    assert len(names) == 2
    assert not (tmp_path / "keys").exists()
    assert not (tmp_path / "state/ledger.sqlite").exists()


def test_signing_that_is_turned_on_after_a_kill_seals_what_was_half_done(tmp_path: Path) -> None:
    """A recording was published without a seal, and the process killed before the spool file was removed."""
    (path,) = hand_over(tmp_path, 1)
    content = path.read_bytes()
    seal_all(settings(tmp_path, enabled=False))
    path.write_bytes(content)
    seal_all(settings(tmp_path))
    assert_chain(tmp_path, 1)


def test_a_recording_that_is_not_as_logged_is_not_overwritten(tmp_path: Path) -> None:
    (path,) = hand_over(tmp_path, 1)
    content = path.read_bytes()
    seal_all(settings(tmp_path))
    (stem,) = stems(tmp_path / "recordings")
    hashes = stem.with_name(f"{stem.name}_hash.txt")
    hashes.write_text("changed\n")
    path.write_bytes(content)
    one = seal_all(settings(tmp_path))
    assert one.conclude() != 0
    assert hashes.read_text() == "changed\n"
    assert path.exists()
    [alarm] = (state.read(tmp_path / "state", "seal") or {})["alarms"]
    assert "hash file is not the one that was" in alarm["text"]
    assert len(entries(tmp_path, "recording")) == 1


def test_a_sealing_whose_spool_file_is_gone_is_given_up(tmp_path: Path) -> None:
    first, second = hand_over(tmp_path, 2)
    command = [sys.executable, "-m", "tests.support.spooled", str(tmp_path), "pending", "1"]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"}
    assert subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True).returncode == -signal.SIGKILL
    first.unlink()
    seal_all(settings(tmp_path))
    assert_chain(tmp_path, 1)
    assert [entry.id for entry in entries(tmp_path, "abandoned")] == [first.stem]
    assert info(stems(tmp_path / "recordings")[0])["RecordingId"] == second.stem


def test_a_disk_that_refuses_leaves_no_trace_and_no_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two calls fails while it gets its names; another is sealed meanwhile."""
    hand_over(tmp_path, 2)
    real: Callable[[Path, Path], None] = __import__("tapdeck.storage.atomic", fromlist=["x"])._rename_noreplace
    broken = [True]

    def rename(source: Path, target: Path) -> None:
        if broken[0] and target.name.endswith("_info.txt"):
            broken[0] = False
            raise OSError(5, "Input/output error", str(target))
        real(source, target)

    monkeypatch.setattr("tapdeck.storage.atomic._rename_noreplace", rename)
    one = seal_all(settings(tmp_path))
    assert one.conclude() != 0
    assert len(stems(tmp_path / "recordings")) == 1
    assert len(list((tmp_path / "recordings").rglob("*.wav"))) == 1
    seal_all(settings(tmp_path))
    assert_chain(tmp_path, 2)
    assert not entries(tmp_path, "abandoned")


def test_what_happened_to_the_box_is_in_the_log_once(tmp_path: Path) -> None:
    hand_over(tmp_path, 1)
    folder = tmp_path / "state"
    times = {"from": "2026-11-24T10:00:00.000+01:00", "to": "2026-11-24T10:05:00.000+01:00"}
    state.append(folder, "downtime", **times, clean=False, unclaimed_lost=3)
    state.append(folder, "configuration reloaded", source="/etc/tapdeck/tapdeck.toml")
    state.append(folder, "call", id="abcdefghij", outcome="without_media", caller="+31201234567", call_id="x@y")
    state.append(folder, "call", id="+31201234567", outcome="encrypted")
    state.append(folder, "call", id="bbcdefghij", outcome="recorded")
    state.append(folder, "recording removed", id="bbcdefghij")
    seal_all(settings(tmp_path))
    seal_all(settings(tmp_path))
    told = [(entry.kind, entry.id, entry.facts) for entry in entries(tmp_path)]
    assert [one for one in told if one[0] == "downtime"] == [
        ("downtime", "", {**times, "clean": False, "unclaimed_lost": 3})
    ]
    assert [one for one in told if one[0] == "refusal"] == [
        ("refusal", "abcdefghij", {"outcome": "without_media"}),
        ("refusal", "", {"outcome": "encrypted"}),
    ]
    whats = [fact["what"] for kind, _, fact in told if kind == "configuration"]
    assert sorted(whats) == ["configuration reloaded", "settings of the seal stage"]
    content = (folder / "ledger.sqlite").read_bytes()
    for secret in (b"+31201234567", b"x@y", b"tapdeck.toml", b"selftest"):
        assert secret not in content


def test_a_new_configuration_is_in_the_log_as_a_hash(tmp_path: Path) -> None:
    hand_over(tmp_path, 1)
    seal_all(settings(tmp_path))
    seal_all(settings(tmp_path))
    seal_all(settings(tmp_path, keep_packets=True))
    hashes = [entry.hash for entry in entries(tmp_path, "configuration")]
    assert len(hashes) == len(set(hashes)) == 2
