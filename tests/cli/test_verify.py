"""`tapdeck verify` on archives that were sealed by the real openssl, whole and damaged."""

import json
import os
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tapdeck.cli.main import cli
from tests.support import sealed
from tests.support.damage import DAMAGES, IDS, Damage, Scene, scene
from tests.support.sealed import ENDINGS, SIG, Box, by_hand, flip, part, remove

Said = dict[str, tuple[str, str]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene(tmp_path_factory.mktemp("sealed"))


@pytest.fixture
def copied(whole: Scene, tmp_path: Path) -> Scene:
    return whole.copy(tmp_path / "copy")


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["verify", *map(str, args)])


def said(result: Result) -> tuple[Said, dict[str, Any]]:
    """Return verdict and reason of each recording by its id, of the rest by its name, and the summary."""
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    found = {one["id"] or Path(one["path"]).name: (one["verdict"], one["reason"]) for one in lines[:-1]}
    return found, lines[-1]["summary"]


def verified(*args: object) -> tuple[Said, dict[str, Any]]:
    result = run("--json", *args)
    found, summary = said(result)
    assert result.exit_code == summary["exit_code"], result.stderr
    return found, summary


def bad(found: Said) -> Said:
    return {name: what for name, what in found.items() if what[0] != "intact"}


def test_what_was_not_touched_is_intact(whole: Scene) -> None:
    found, summary = verified(whole.root)
    assert bad(found) == {}
    assert set(found) == {*IDS, "tapdeck-day-2026-11-24.txt"}
    assert summary["recordings"] == {"intact": 6, "altered": 0, "missing": 0, "cannot be checked": 0}
    assert [(one["fingerprint"], one["signed"]) for one in summary["certificates"]] == [(whole.key.fingerprint, 6)]
    assert summary["exit_code"] == 0
    assert all(by_hand(stem, whole.key.certificate) for stem in whole.stems)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_damage_is_found_and_rightly_named(damage: Damage, copied: Scene) -> None:
    damage.do(copied)
    found, summary = verified(copied.root)
    assert summary["exit_code"] == 1
    assert {name: verdict for name, (verdict, _) in bad(found).items() if name in IDS or name == "inserted00"} == {
        name: verdict for name, (verdict, _) in damage.expected.items()
    }
    for name, (_, words) in damage.expected.items():
        assert words in found[name][1]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_openssl_and_sha256sum_say_so_too(damage: Damage, copied: Scene) -> None:
    damage.do(copied)
    for identity, (verdict, _) in damage.expected.items():
        stem = next((one for one in copied.stems if one.name.endswith(identity)), None)
        if verdict == "altered" and stem is not None:
            assert by_hand(stem, copied.key.certificate) == damage.by_hand


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_single_bit_anywhere_is_found(ending: str, copied: Scene) -> None:
    path = part(copied.stems[2], ending)
    size = 8 * path.stat().st_size
    places = {0, size - 1, *random.Random(ending).sample(range(size), 60)}
    for bit in places:
        flip(path, bit)
        found, summary = verified(part(copied.stems[2], ".wav"))
        assert (summary["exit_code"], found.popitem()[1][0]) == (1, "altered"), bit
        assert path.name in json.loads(run("--json", path).stdout.splitlines()[0])["file"]
        assert not by_hand(copied.stems[2], copied.key.certificate)
        flip(path, bit)
    assert verified(copied.root)[1]["exit_code"] == 0


@pytest.mark.parametrize("name", ["tapdeck-day-2026-11-24.txt", "tapdeck-day-2026-11-24.SHA256withRSA.sig"])
def test_a_changed_checkpoint_is_named(name: str, copied: Scene) -> None:
    flip(copied.folder / name, 99)
    found, summary = verified(copied.root)
    assert bad(found).keys() == {"tapdeck-day-2026-11-24.txt"}
    assert name in found["tapdeck-day-2026-11-24.txt"][1]
    assert summary["exit_code"] == 1


def test_without_a_certificate_nothing_is_proved(copied: Scene) -> None:
    (copied.folder / "tapdeck-certificate.pem").unlink()
    found, summary = verified(copied.root)
    assert {verdict for verdict, _ in found.values()} == {"cannot be checked"}
    assert summary["exit_code"] == 2
    assert verified(copied.root, "--certificate", copied.key.certificate)[1]["exit_code"] == 0
    assert verified(copied.root, "--certificate", copied.stranger.certificate)[1]["exit_code"] == 1


def test_a_certificate_that_was_replaced_helps_nobody(copied: Scene) -> None:
    (copied.folder / "tapdeck-certificate.pem").write_bytes(copied.stranger.certificate.read_bytes())
    DAMAGES[-2].do(copied)
    assert verified(copied.root, "--certificate", copied.key.certificate)[0][IDS[2]][0] == "altered"


def test_what_is_altered_goes_before_what_cannot_be_checked(copied: Scene) -> None:
    (copied.folder / "unsealed.wav").write_bytes(b"RIFF")
    found, summary = verified(copied.root)
    assert (found["unsealed"][0], summary["exit_code"]) == ("cannot be checked", 2)
    flip(part(copied.stems[2], ".wav"), 99)
    assert verified(copied.root)[1]["exit_code"] == 1


def test_a_renamed_sound_is_found_again(copied: Scene) -> None:
    os.rename(part(copied.stems[2], ".wav"), copied.folder / "renamed.wav")
    found, _ = verified(copied.root)
    assert "renamed.wav has the content of" in found[IDS[2]][1]
    assert found["renamed"] == ("altered", f"renamed.wav is {copied.stems[2].name}.wav, renamed")


def test_files_of_one_recording_are_no_gap(whole: Scene) -> None:
    for path in (part(whole.stems[3], ".wav"), part(whole.stems[3], SIG), whole.stems[3]):
        found, summary = verified(path)
        assert (found, summary["exit_code"]) == ({IDS[3]: ("intact", "")}, 0)


def test_copies_are_counted(copied: Scene, whole: Scene) -> None:
    _, summary = verified(copied.root, whole.root)
    assert (summary["copies"], summary["exit_code"], summary["recordings"]["intact"]) == (6, 0, 12)


def test_a_table_for_people(copied: Scene) -> None:
    assert run(copied.root).exit_code == 0
    remove(copied.stems[2])
    result = run(copied.root)
    assert result.exit_code == 1
    assert f"MISSING: {IDS[2]}: " in result.stdout
    assert "        5  intact\n" in result.stdout
    assert copied.key.fingerprint in result.stdout


@pytest.mark.parametrize("args", [[], ["/nonexistent/x"], [__file__], ["--certificate", __file__, "."]], ids=str)
def test_wrong_use(args: list[str]) -> None:
    assert run(*args).exit_code == 64


def test_an_empty_folder_proves_nothing(tmp_path: Path) -> None:
    assert run(tmp_path).exit_code == 2


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[sealed.Key]:
    folder = tmp_path_factory.mktemp("keys")
    old = sealed.key(folder, "old")
    return [old, sealed.key(folder, "new", old)]


def test_the_chain_goes_on_across_days_and_a_new_key(keys: list[sealed.Key], tmp_path: Path) -> None:
    box = Box(tmp_path / "archive", keys[0])
    box.seal("aaaaaaaa00")
    box.seal("aaaaaaaa01")
    box.checkpoint(0)
    box.rotate(keys[1])
    lost = box.seal("aaaaaaaa02", day=1)
    box.seal("aaaaaaaa03", day=1, folder_day=0)
    box.seal("aaaaaaaa04", day=1)
    box.checkpoint(1)
    assert verified(box.root)[1]["exit_code"] == 0
    assert verified(box.root, "--certificate", keys[0].certificate)[1]["exit_code"] == 0
    found, summary = verified(box.root, "--certificate", keys[1].certificate)
    assert (found["aaaaaaaa00"][0], found["aaaaaaaa04"][0], summary["exit_code"]) == ("altered", "intact", 1)
    assert verified(box.root / "2026/11/24")[1]["exit_code"] == 0, "one lies in the folder of the next day"
    assert verified(box.root / "2026/11/25")[1]["exit_code"] == 0
    remove(lost)
    assert bad(verified(box.root)[0]).keys() == {"aaaaaaaa02"}


def test_a_deletion_that_was_written_down_is_no_gap(keys: list[sealed.Key], tmp_path: Path) -> None:
    box = Box(tmp_path / "archive", keys[0])
    for number in range(4):
        box.seal(f"aaaaaaaa{number:02d}")
    box.checkpoint(0)
    box.tombstone("aaaaaaaa01")
    ledger = box.ledger(tmp_path / "ledger.sqlite")
    assert bad(verified(box.root)[0]).keys() == {"aaaaaaaa01"}
    assert verified(box.root, "--ledger", ledger)[1]["exit_code"] == 0
    box.seal("aaaaaaaa05", day=30)
    box.checkpoint(30)
    assert verified(box.root)[1]["exit_code"] == 0, "the later checkpoint has the tombstone"


def test_a_recording_that_the_checkpoint_should_name(keys: list[sealed.Key], tmp_path: Path) -> None:
    box = Box(tmp_path / "archive", keys[0])
    box.seal("aaaaaaaa00")
    box.checkpoint(0)
    box.seal("aaaaaaaa01", day=1)
    entries, last, previous = list(box.entries), box.last, box.previous_checkpoint
    box.seal("inserted00", day=1)
    box.entries, box.last, box.previous_checkpoint = entries, last, previous
    box.seal("aaaaaaaa02", day=1)
    box.checkpoint(1)
    found, _ = verified(box.root)
    assert bad(found).keys() == {"inserted00"}
    assert "was inserted" in found["inserted00"][1]


def test_a_checkpoint_that_is_gone(keys: list[sealed.Key], tmp_path: Path) -> None:
    box = Box(tmp_path / "archive", keys[0])
    for day in range(3):
        box.seal(f"aaaaaaaa{day:02d}", day=day)
        path = box.checkpoint(day)
        if day == 1:
            gone = path
    gone.unlink()
    found, summary = verified(box.root)
    assert summary["exit_code"] == 1
    assert any("tapdeck-day-2026-11-24.txt and tapdeck-day-2026-11-26.txt" in why for _, why in found.values())


def sealed_again(box: Box, key: sealed.Key, stem: Path) -> None:
    """What he can do who holds the key: change a recording, and seal it again."""
    content = {ending: part(stem, ending).read_bytes() for ending in ENDINGS[:3]}
    content[".wav"] = content[".wav"][:-1] + b"!"
    sealed.write(stem.parent, stem.name, content, key)


def test_sealed_again_with_the_right_key(copied: Scene) -> None:
    sealed_again(Box(copied.root, copied.key), copied.key, copied.stems[2])
    found, _ = verified(copied.root)
    assert bad(found).keys() == {IDS[2]}
    assert "sealed again later" in found[IDS[2]][1]
    assert by_hand(copied.stems[2], copied.key.certificate)


@pytest.fixture
def logged(keys: list[sealed.Key], tmp_path: Path) -> tuple[Box, Path, list[Path]]:
    box = Box(tmp_path / "archive", keys[0])
    stems = [box.seal(f"aaaaaaaa{number:02d}") for number in range(5)]
    box.checkpoint(0)
    return box, box.ledger(tmp_path / "ledger.sqlite"), stems


def edited(ledger: Path, *statements: str) -> None:
    with sqlite3.connect(ledger) as base:
        for statement in statements:
            base.execute(statement)
    base.close()


def test_against_the_log(logged: tuple[Box, Path, list[Path]]) -> None:
    box, ledger, stems = logged
    before = ledger.read_bytes()
    assert verified(box.root, "--ledger", ledger)[1]["exit_code"] == 0
    assert ledger.read_bytes() == before
    (box.root / "2026/11/24/tapdeck-day-2026-11-24.txt").unlink()
    (box.root / "2026/11/24/tapdeck-day-2026-11-24.SHA256withRSA.sig").unlink()
    remove(stems[4])
    assert verified(box.root)[1]["exit_code"] == 0, "a cut tail shows only against the log or a checkpoint"
    found, _ = verified(box.root, "--ledger", ledger)
    assert {name: verdict for name, (verdict, _) in bad(found).items()} == {"aaaaaaaa04": "missing"}
    assert "the log (entry 5" in found["aaaaaaaa04"][1]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE entries SET time = '2020' WHERE seq = 3", "entry 3 (recording, 2020) was changed"),
        ("UPDATE entries SET body = 'x' WHERE seq = 3", "entry 3"),
        ("UPDATE entries SET signature = x'00' WHERE seq = 3", "entry 3"),
        ("UPDATE entries SET link = 'x' WHERE seq = 3", "entry 3"),
        ("DELETE FROM entries WHERE seq = 3", "entry 3 is not there"),
        ("DELETE FROM entries WHERE seq > 3", "it stops at entry 3"),
        ("UPDATE entries SET seq = 9 WHERE seq = 5", "entry 5 is not there"),
    ],
)
def test_an_edited_log(statement: str, words: str, logged: tuple[Box, Path, list[Path]]) -> None:
    box, ledger, _ = logged
    edited(ledger, statement)
    result = run("--json", "--ledger", ledger, box.root)
    logs = [json.loads(line) for line in result.stdout.splitlines() if '"kind": "log"' in line]
    assert result.exit_code == 1
    assert any(words in one["reason"] for one in logs)


def test_a_log_that_was_written_anew(logged: tuple[Box, Path, list[Path]], tmp_path: Path) -> None:
    box, _, _ = logged
    again = Box(tmp_path / "again", box.key)
    for identity in ("aaaaaaaa00", "bbbbbbbb01", "aaaaaaaa02", "aaaaaaaa03", "aaaaaaaa04"):
        again.seal(identity)
    found, summary = verified(box.root, "--ledger", again.ledger(tmp_path / "again.sqlite"))
    assert summary["exit_code"] == 1
    assert "the log was written anew" in found["again.sqlite"][1]
    assert "the log does not name it" in found["aaaaaaaa01"][1]


def test_what_is_no_log(logged: tuple[Box, Path, list[Path]], tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database, but long enough to be looked at")
    found, summary = verified(logged[0].root, "--ledger", tmp_path / "text.sqlite")
    assert found["text.sqlite"][0] == "cannot be checked"
    assert summary["exit_code"] == 2


def test_against_log_takes_the_places_from_the_settings(
    logged: tuple[Box, Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPDECK_STORAGE_RECORDINGS", str(logged[0].root))
    monkeypatch.setenv("TAPDECK_STORAGE_STATE", str(tmp_path))
    assert verified("--against-log")[1]["recordings"]["intact"] == 5
    monkeypatch.setenv("TAPDECK_STORAGE_STATE", str(tmp_path / "none"))
    assert run("--against-log").exit_code == 64


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_cannot_be_checked(copied: Scene) -> None:
    part(copied.stems[2], ".wav").chmod(0)
    found, summary = verified(copied.root)
    assert (found[IDS[2]][0], summary["exit_code"]) == ("cannot be checked", 2)


def test_a_pipe_in_place_of_a_file_does_not_hang(copied: Scene) -> None:
    path = part(copied.stems[2], ".wav")
    path.unlink()
    os.mkfifo(path)
    assert verified(copied.root)[0][IDS[2]][0] == "cannot be checked"
