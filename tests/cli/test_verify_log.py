"""`tapdeck verify --against-log` and a log that somebody has edited who knows how its entries are linked."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tapdeck.cli.main import cli
from tapdeck.storage.verify import verify
from tests.support import sealed
from tests.support.sealed import Box, remove


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> sealed.Key:
    return sealed.key(tmp_path_factory.mktemp("keys"), "edited")


@pytest.fixture
def box(key: sealed.Key, tmp_path: Path) -> Box:
    made = Box(tmp_path / "archive", key)
    for number in range(4):
        made.seal(f"aaaaaaaa{number:02d}")
    return made


def against(box: Box, ledger: Path) -> tuple[dict[str, tuple[str, str]], int]:
    """Return what is not intact, by id or name: verdict and reason; and the exit code."""
    result = CliRunner().invoke(cli, ["verify", "--json", "--ledger", str(ledger), str(box.root)])
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    found = {one["id"] or Path(one["path"]).name: (one["verdict"], one["reason"]) for one in lines[:-1]}
    assert result.exit_code == lines[-1]["summary"]["exit_code"], result.stderr
    return {name: said for name, said in found.items() if said[0] != "intact"}, result.exit_code


def linked(box: Box, kind: str, identity: str, digest: str, signature: bytes, body: str) -> None:
    """Add an entry whose link is right."""
    box._log(kind, identity, digest, signature, sealed.START, body)


@pytest.mark.parametrize("forged", ["", "of the recording", "of other words", "of another key"])
def test_a_deletion_is_believed_only_if_the_recorder_has_signed_it(forged: str, box: Box, tmp_path: Path) -> None:
    path, digest = box.sealed["aaaaaaaa01"]
    words = f"Tombstone: aaaaaaaa01 {digest}\nTime: 2026-11-24T09:00:00.000+01:00\nReason: r\nBy: b\n"
    other = sealed.key(tmp_path, "other")
    signature = {
        "": b"",
        "of the recording": sealed.part(path, sealed.SIG).read_bytes(),
        "of other words": box.key.sign(words.replace("aaaaaaaa01", "aaaaaaaa02").encode()),
        "of another key": other.sign(words.encode()),
    }[forged]
    remove(path)
    linked(box, "tombstone", "aaaaaaaa01", digest, signature, '{"reason": "r", "by": "b"}')
    found, code = against(box, box.ledger(tmp_path / "ledger.sqlite"))
    assert code == 1
    assert found["aaaaaaaa01"][0] == "missing"
    assert "entry 5 (tombstone" in found["ledger.sqlite"][1]


def test_a_deletion_that_the_recorder_has_signed_is_believed(box: Box, tmp_path: Path) -> None:
    box.tombstone("aaaaaaaa01")
    assert against(box, box.ledger(tmp_path / "ledger.sqlite")) == ({}, 0)


@pytest.mark.parametrize("kind", ["recording", "key", "checkpoint"])
def test_an_entry_that_needs_a_signature_and_has_none_is_named(kind: str, box: Box, tmp_path: Path) -> None:
    body = '{"what": "rotated", "fingerprint": "a", "before": "b"}' if kind == "key" else "{}"
    linked(box, kind, "zzzzzzzzzz" if kind == "recording" else "", "0" * 64, b"", body)
    found, code = against(box, box.ledger(tmp_path / "ledger.sqlite"))
    assert code == 1
    assert f"entry 5 ({kind}" in found["ledger.sqlite"][1]


@pytest.mark.parametrize(
    "change",
    [
        "signature = 'text'",
        "body = x'ff00'",
        "kind = 5",
        "time = CAST(x'ff' AS TEXT)",
        "id = CAST(x'ff' AS TEXT)",
        "link = NULL",
        "hash = 1.5",
    ],
)
def test_whatever_stands_in_an_entry_it_is_named_as_changed(change: str, box: Box, tmp_path: Path) -> None:
    ledger = box.ledger(tmp_path / "ledger.sqlite")
    with sqlite3.connect(ledger) as base:
        base.execute(f"UPDATE entries SET {change} WHERE seq = 3")
    base.close()
    found, code = against(box, ledger)
    assert code == 1
    assert found["ledger.sqlite"][0] == "altered"


def test_a_checkpoint_that_was_deleted_is_named_by_the_log(box: Box, tmp_path: Path) -> None:
    path = box.checkpoint(0)
    content, body = path.read_bytes(), '{"day": "2026-11-24", "to": 4}'
    linked(box, "checkpoint", "", hashlib.sha256(content).hexdigest(), box.key.sign(content), body)
    ledger = box.ledger(tmp_path / "ledger.sqlite")
    assert against(box, ledger) == ({}, 0)
    path.unlink()
    path.with_suffix(".SHA256withRSA.sig").unlink()
    found, code = against(box, ledger)
    assert code == 1
    assert found == {path.name: ("missing", f"{path.name} is not there: the log (entry 5) names it")}


def test_what_is_sealed_while_it_verifies_is_no_finding(box: Box, tmp_path: Path) -> None:
    ledger = box.ledger(tmp_path / "ledger.sqlite")

    def meanwhile(*_: Any) -> None:
        if "aaaaaaaa04" not in box.sealed:
            box.seal("aaaaaaaa04")
            ledger.unlink()
            box.ledger(ledger)

    report = verify([box.root], ledger=ledger, progress=meanwhile)
    assert (report.counts, report.worst) == (
        {"intact": 4, "altered": 0, "missing": 0, "cannot be checked": 0},
        "intact",
    )
    report.findings.close()


def test_what_made_room_on_the_recorder_is_not_called_missing(box: Box, tmp_path: Path) -> None:
    remove(box.sealed["aaaaaaaa00"][0])
    linked(box, "removal", "aaaaaaaa00", "", b"", '{"reason": "disk low"}')
    found, code = against(box, box.ledger(tmp_path / "ledger.sqlite"))
    assert code == 2
    assert list(found) == ["ledger.sqlite"]
    assert "1 recordings were removed here to make room" in found["ledger.sqlite"][1]
