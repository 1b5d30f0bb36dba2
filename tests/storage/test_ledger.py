"""The recording log: append only, linked, one writer, and one sealing under way."""

import base64
import hashlib
import sqlite3
from pathlib import Path

import pytest

from tapdeck.storage.ledger import Ledger, LedgerError, LedgerInUse, New, Pending
from tests.support import ledgers


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def _rows(path: Path) -> list[tuple[object, ...]]:
    base = sqlite3.connect(path)
    try:
        return base.execute("SELECT seq, time, kind, id, hash, signature, body, link FROM entries").fetchall()
    finally:
        base.close()


def test_each_entry_carries_the_hash_that_the_format_asks_for(path: Path) -> None:
    ledger = Ledger(path)
    ledger.append(
        New("downtime", facts={"from": "a", "to": "b"}), New("refusal", "id1", facts={"outcome": "encrypted"})
    )
    ledger.append(New("recording", "id2", "ab" * 32, b"\1\2", time="2026-11-24T12:00:00.000+01:00"))
    ledger.close()
    before = ""
    rows = _rows(path)
    assert [row[0] for row in rows] == [1, 2, 3]
    for seq, time, kind, identity, digest, signature, body, link in rows:
        assert isinstance(signature, bytes)
        text = f"{before}\n{seq}\n{time}\n{kind}\n{identity}\n{digest}\n{base64.b64encode(signature).decode()}\n{body}"
        before = hashlib.sha256(text.encode()).hexdigest()
        assert link == before


def test_entries_cannot_be_changed_or_removed(path: Path) -> None:
    ledger = Ledger(path)
    ledger.append(New("stop"))
    base = sqlite3.connect(path)
    for statement in ("UPDATE entries SET time = ''", "DELETE FROM entries"):
        with pytest.raises(sqlite3.IntegrityError, match="append only"):
            base.execute(statement)
    base.close()
    ledger.close()
    assert len(_rows(path)) == 1


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE entries SET body = '{}' WHERE seq = 2", ["entry 2 (stop, noon) was changed"]),
        ("DELETE FROM entries WHERE seq = 2", ["entry 2 is not there: it was deleted"]),
        (
            "UPDATE entries SET link = 'x' WHERE seq = 2",
            ["entry 2 (stop, noon) was changed", "entry 3 (stop, noon) was changed"],
        ),
    ],
)
def test_what_was_changed_behind_its_back_shows(path: Path, statement: str, said: list[str]) -> None:
    ledger = Ledger(path, lambda: "noon")
    for number in range(4):
        ledger.append(New("stop", facts={"number": number}))
    ledger.close()
    assert ledgers.problems(path) == []
    base = sqlite3.connect(path)
    base.executescript("DROP TRIGGER no_update; DROP TRIGGER no_delete;")
    base.execute(statement)
    base.commit()
    base.close()
    assert ledgers.problems(path) == said


def test_only_one_writes(path: Path) -> None:
    ledger = Ledger(path)
    with pytest.raises(LedgerInUse, match="another process"):
        Ledger(path)
    ledger.close()
    Ledger(path).close()


def test_a_sealing_is_under_way_until_it_is_finished(path: Path) -> None:
    ledger = Ledger(path)
    pending = Pending("one", "2026-11-24T12:00:00.000+01:00", "", b"", "since x: y", "one.pcapng")
    ledger.begin(pending)
    ledger.close()
    ledger = Ledger(path)
    assert ledger.pending() == pending
    ledger.finish(pending, "ab" * 32, b"signature", "2026-11-24")
    assert ledger.pending() is None
    assert ledger.previous() == ("one", b"signature")
    entry = ledger.recording("one")
    assert entry is not None
    assert (entry.hash, entry.time) == ("ab" * 32, pending.sealed_at)
    ledger.close()


def test_a_recording_is_sealed_once(path: Path) -> None:
    ledger = Ledger(path)
    pending = Pending("one", "2026-11-24T12:00:00.000+01:00", "", b"")
    ledger.begin(pending)
    ledger.finish(pending, "ab" * 32, b"signature", "2026-11-24")
    ledger.begin(pending)
    with pytest.raises(LedgerError):
        ledger.finish(pending, "cd" * 32, b"signature", "2026-11-24")
    assert ledger.pending() == pending
    ledger.close()


def test_a_sealing_that_nobody_can_finish_is_written_down(path: Path) -> None:
    ledger = Ledger(path)
    ledger.begin(Pending("one", "2026-11-24T12:00:00.000+01:00", "", b""))
    ledger.begin(Pending("two", "2026-11-24T12:00:01.000+01:00", "", b""))
    ledger.abandon("its spool file is gone")
    assert [(entry.kind, entry.id) for entry in ledger.entries()] == [("abandoned", "one"), ("abandoned", "two")]
    assert ledger.pending() is None
    assert ledger.previous() == ("", b"")
    ledger.close()


def test_entries_and_how_far_was_read_are_one(path: Path) -> None:
    ledger = Ledger(path)
    assert ledger.mark("events") == ""
    ledger.append(New("stop"), mark=("events", "12"))
    ledger.append(mark=("events", "13"))
    with pytest.raises(ValueError, match="nonsense"):
        ledger.append(New("stop"), New("nonsense"), mark=("events", "14"))
    ledger.close()
    ledger = Ledger(path)
    assert ledger.mark("events") == "13"
    assert len(list(ledger.entries())) == 1
    ledger.close()


def test_a_tombstone_is_signed(path: Path) -> None:
    ledger = Ledger(path)
    signed: list[bytes] = []

    def sign(content: bytes) -> bytes:
        signed.append(content)
        return b"signature"

    ledger.tombstone("one", "ab" * 32, "30 days are over", "retention", sign)
    entry = ledger.last("tombstone")
    assert entry is not None
    assert (entry.id, entry.hash, entry.signature) == ("one", "ab" * 32, b"signature")
    assert entry.facts == {"reason": "30 days are over", "by": "retention"}
    assert b"one " + b"ab" * 32 in signed[0]
    ledger.close()


def test_a_log_that_is_none_says_what_to_do(path: Path) -> None:
    path.write_bytes(b"this is no database, and long enough to be seen as none" * 10)
    with pytest.raises(LedgerError, match="move it aside"):
        Ledger(path)
    path.unlink()
    Ledger(path).close()
