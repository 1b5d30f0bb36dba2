"""Checkpoints of days, made of entries of a real recording log, with a real key; OpenSSL checks the signatures."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tapdeck.storage import handover
from tapdeck.storage.day_close import CATCH_UP, DayClose, Folders
from tapdeck.storage.day_counts import Run
from tapdeck.storage.day_watch import DayWatch
from tapdeck.storage.keys import KeyStore
from tapdeck.storage.ledger import Ledger, New, Pending
from tapdeck.storage.localtime import NS, Zone
from tapdeck.storage.signing import Signing
from tapdeck.storage.verify import verify
from tests.support.killed import killed_before

AMSTERDAM = "Europe/Amsterdam"
DAY = date(2026, 11, 24)
HASHES = b"the hash file of a recording"
HASH = hashlib.sha256(HASHES).hexdigest()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    store = KeyStore(tmp_path_factory.mktemp("keys") / "keys", name="mains street")
    store.open()
    return store


class Box:
    """A recorder without calls: what its log says is written by hand."""

    def __init__(self, folder: Path, keys: KeyStore, zone: str = AMSTERDAM, template: str = "%Y/%m/%d") -> None:
        self.root, self.state = folder / "recordings", folder / "state"
        for place in (self.root, self.state):
            place.mkdir(exist_ok=True)
        self.zone = zone
        self.now = ""
        self.ledger = Ledger(self.state / "ledger.sqlite", lambda: self.now)
        signing = Signing(keys, self.ledger, Zone(zone))
        self.watch = DayWatch(self.ledger, self.state, Zone(zone))
        self.close = DayClose(signing, self.watch, self.root, self.state, Folders(template), "mains street")

    def log(self, kind: str, when: str, identity: str = "", **facts: object) -> None:
        """Add an entry of a local time. The first entry of all is the key's."""
        self.now = self.iso(when)
        signature = self.close.signing.ready().sign(HASHES) if identity else b""
        self.ledger.append(New(kind, identity, HASH if identity else "", signature, facts, self.iso(when)))

    def iso(self, when: str) -> str:
        return datetime.fromisoformat(when).replace(tzinfo=ZoneInfo(self.zone)).isoformat(timespec="milliseconds")

    def ns(self, when: str) -> int:
        return int(datetime.fromisoformat(self.iso(when)).timestamp()) * NS

    def close_all(self, now: str) -> list[Path]:
        """Close what is over at a local time, as often as there is something."""
        made = []
        self.now = self.iso(now)
        while (day := self.close.due(self.ns(now))) is not None:
            made.append(self.close.close(day))
        return made


@pytest.fixture
def box(tmp_path: Path, keys: KeyStore) -> Iterator[Box]:
    made = Box(tmp_path, keys)
    yield made
    made.ledger.close()


def values(path: Path, key: str) -> list[str]:
    """Return the values of a key, read without our code."""
    lines = path.read_text().splitlines()
    return [line.partition(":")[2].strip() for line in lines if line.partition(":")[0] == key]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_a_checkpoint_says(box: Box) -> None:
    box.log("recording", "2026-11-24 10:00", "aaaa")
    box.log("downtime", "2026-11-24 12:05", **{"from": box.iso("2026-11-24 12:00"), "to": box.iso("2026-11-24 12:05")})
    box.log("tombstone", "2026-11-24 13:00", "aaaa")
    box.log("refusal", "2026-11-24 14:00", "bbbb", outcome="encrypted")
    box.log("refusal", "2026-11-24 14:01", "bbbb", outcome="encrypted")  # after a kill once more
    box.log("recording", "2026-11-24 23:59:59", "cccc")
    box.log("recording", "2026-11-25 00:00:00", "dddd")
    seen = {"seen": 10, "in_calls": 8, "kernel_dropped": 2, "calls seen": 3}
    box.watch.counts.look(DAY, Run("capture", "x", seen, box.iso("2026-11-24 23:59:59")))
    box.watch.counts.look(DAY, Run("seal", "y", {"kept": 7, "duplicate": 1}, box.iso("2026-11-24 23:59:59")))
    box.watch.counts.gap(DAY, "seal", "then", "now")
    (path,) = box.close_all("2026-11-25 00:00:01")
    sealed = values(path, "SealedAt")[0]
    assert datetime.fromisoformat(sealed).utcoffset() is not None
    link = list(box.ledger.entries())[6].link
    certificate = box.close.signing.ready().fingerprint
    assert path == box.root / "2026/11/24/tapdeck-day-2026-11-24.txt"
    assert (
        path.read_text()
        == f"""Day: 2026-11-24
From: 2026-11-24T00:00:00.000+01:00
Until: 2026-11-25T00:00:00.000+01:00
Recorder: mains street
SealedAt: {sealed}
CertificateFingerprint: {certificate}
LedgerFrom: 1
LedgerTo: 7
LedgerLink: {link}
Packets-Seen: 10
Packets-InCalls: 8
Packets-KernelDropped: 2
InCalls-Kept: 7
InCalls-Duplicate: 1
Calls-Seen: 3
Calls-Encrypted: 1
Calls-Recorded: 2
KernelDrops: 2
Downtime: from 2026-11-24T12:00:00.000+01:00 to 2026-11-24T12:05:00.000+01:00
Uncounted: seal from then to now
PreviousCheckpoint:
Recording: 2 aaaa {HASH}
Tombstone: 4 aaaa {HASH}
Recording: 7 cccc {HASH}
"""
    )


def test_openssl_takes_its_signature_and_the_folder_has_what_that_takes(box: Box, tmp_path: Path) -> None:
    box.log("recording", "2026-11-24 10:00", "aaaa")
    (path,) = box.close_all("2026-11-25 09:00")
    folder, public = path.parent, tmp_path / "key.pem"
    public.write_bytes(
        subprocess.run(
            ["openssl", "x509", "-in", folder / "tapdeck-certificate.pem", "-pubkey", "-noout"],
            capture_output=True,
            check=True,
        ).stdout
    )
    signature = folder / "tapdeck-day-2026-11-24.SHA256withRSA.sig"
    command: list[str | Path] = ["openssl", "dgst", "-sha256", "-verify", public, "-signature", signature, path]
    assert subprocess.run(command, capture_output=True).returncode == 0
    path.write_bytes(path.read_bytes().replace(b"aaaa", b"aaab"))
    assert subprocess.run(command, capture_output=True).returncode == 1
    assert (folder / "verify.sh").exists()


def test_once_a_day_and_each_names_the_one_before(box: Box) -> None:
    for day in (24, 25, 26):
        box.log("recording", f"2026-11-{day} 10:00", f"id{'abc'[day - 24]}")
        assert box.close.due(box.ns(f"2026-11-{day} 23:59:59")) is None
        assert len(box.close_all(f"2026-11-{day + 1} 00:00:00")) == 1
        assert box.close_all(f"2026-11-{day + 1} 00:00:00") == []
    paths = [box.root / f"2026/11/{day}/tapdeck-day-2026-11-{day}.txt" for day in (24, 25, 26)]
    assert [values(path, "PreviousCheckpoint")[0] for path in paths] == ["", digest(paths[0]), digest(paths[1])]
    covered = [(values(path, "LedgerFrom")[0], values(path, "LedgerTo")[0]) for path in paths]
    assert covered == [("1", "2"), ("3", "4"), ("5", "6")]  # the entries of the checkpoints themselves too
    entries = list(box.ledger.of_kind("checkpoint"))
    assert [entry.hash for entry in entries] == [digest(path) for path in paths]
    again = DayClose(box.close.signing, box.watch, box.root, box.state, Folders("%Y/%m/%d"), "mains street")
    assert again.due(box.ns("2026-11-27 00:00:00")) is None


def test_days_without_calls_and_days_on_which_the_box_was_down(box: Box) -> None:
    box.log("recording", "2026-11-24 10:00", "aaaa")
    down, up = box.iso("2026-11-24 18:00"), box.iso("2026-11-27 09:00")
    box.log("downtime", "2026-11-27 09:00", **{"from": down, "to": up})
    paths = box.close_all("2026-11-29 00:00")
    assert [path.name[12:22] for path in paths] == [f"2026-11-{day}" for day in (24, 25, 26, 27, 28)]
    assert [values(path, "Downtime") for path in paths] == [*[[f"from {down} to {up}"]] * 4, []]
    assert [values(path, "LedgerFrom")[0] for path in paths[:3]] == ["1", "3", "3"]
    assert [values(path, "LedgerTo")[0] for path in paths[:3]] == ["2", "2", "2"]
    assert len({values(path, "LedgerLink")[0] for path in paths[:3]}) == 1
    report = verify([box.root], ledger=box.state / "ledger.sqlite")
    assert {finding.verdict for finding in report.each(intact=True) if finding.kind != "recording"} == {"intact"}
    report.findings.close()


def test_after_a_year_of_rest_the_last_month_is_made_up_for(box: Box) -> None:
    box.log("recording", "2025-11-24 10:00", "aaaa")
    paths = box.close_all("2026-11-24 08:00")
    assert len(paths) == CATCH_UP
    assert values(paths[0], "Recording") == [f"2 aaaa {HASH}"]


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_the_nights_when_the_clock_is_set(box: Box, day: str, hours: int) -> None:
    which = date.fromisoformat(day)
    start = box.ns(day)
    box.log("recording", f"{day} 00:00", "aaaa")
    box.log("recording", f"{day} 23:59:59.999", "bbbb")
    box.log("recording", f"{which + timedelta(1)} 00:00", "cccc")
    assert box.close.due(start + hours * 3600 * NS - 1) is None
    assert box.close.due(start + hours * 3600 * NS) == which
    path = box.close.close(which)
    assert values(path, "Recording") == [f"2 aaaa {HASH}", f"3 bbbb {HASH}"]
    since, until = (datetime.fromisoformat(values(path, key)[0]) for key in ("From", "Until"))
    assert until - since == timedelta(hours=hours)


def test_what_is_being_sealed_comes_first(box: Box) -> None:
    box.log("recording", "2026-11-24 10:00", "aaaa")
    pending = Pending("bbbb", box.iso("2026-11-24 23:59:59"), "aaaa", b"")
    box.ledger.begin(pending)
    assert box.close_all("2026-11-25 00:00:10") == []
    box.ledger.finish(pending, HASH, b"", "2026-11-24")
    (path,) = box.close_all("2026-11-25 00:00:10")
    assert [line.split()[1] for line in values(path, "Recording")] == ["aaaa", "bbbb"]


def test_an_empty_log_closes_nothing(box: Box) -> None:
    assert box.close_all("2026-11-25 00:00:10") == []
    assert list(box.root.iterdir()) == []


def test_entries_that_a_wrong_clock_has_dated(box: Box) -> None:
    """They keep their place; days to come that are closed too early do not keep those of today from being closed."""
    box.log("recording", "2026-11-24 10:00", "aaaa")
    box.log("recording", "2031-01-01 00:00", "bbbb")
    box.log("recording", "2026-11-24 11:00", "cccc")
    (path,) = box.close_all("2026-11-25 00:00:10")
    assert [line.split()[1] for line in values(path, "Recording")] == ["aaaa", "bbbb", "cccc"]
    assert len(box.close_all("2026-12-04 00:00:10")) == 9


def test_days_that_were_closed_while_the_clock_was_ahead(box: Box) -> None:
    """What is sealed then is named by the next checkpoint."""
    box.log("recording", "2026-11-24 10:00", "aaaa")
    assert box.close_all("2026-11-27 01:00")[-1].name == "tapdeck-day-2026-11-26.txt"
    box.log("recording", "2026-11-25 12:00", "bbbb")
    again = DayClose(box.close.signing, box.watch, box.root, box.state, Folders("%Y/%m/%d"), "mains street")
    assert again.due(box.ns("2026-11-26 00:10")) is None
    assert again.due(box.ns("2026-11-28 00:10")) == date(2026, 11, 27)
    assert values(again.close(date(2026, 11, 27)), "Recording") == [f"6 bbbb {HASH}"]


def test_a_kill_before_the_signature_is_made_good(box: Box) -> None:
    box.log("recording", "2026-11-24 10:00", "aaaa")
    folder = box.root / "2026/11/24"
    folder.mkdir(parents=True)
    (folder / "tapdeck-day-2026-11-24.txt").write_text("Day: 2026-11-24\nRecording: 1 planted 0\n")
    (path,) = box.close_all("2026-11-25 00:00:10")
    assert values(path, "Recording") == [f"2 aaaa {HASH}"]


def test_a_kill_before_the_log_is_made_good_with_the_same_bytes(
    box: Box, keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.log("recording", "2026-11-24 10:00", "aaaa")

    def killed(*entries: New, mark: tuple[str, str] | None = None) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(box.ledger, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            box.close.close(DAY)
    box.ledger.close()
    path = box.root / "2026/11/24/tapdeck-day-2026-11-24.txt"
    before = path.read_bytes()
    again = Box(box.root.parent, keys)
    box.ledger = again.ledger  # to be closed
    again.log("recording", "2026-11-25 00:00:05", "bbbb")
    assert again.close_all("2026-11-25 00:00:10") == [path]
    assert path.read_bytes() == before
    entry = again.ledger.last("checkpoint")
    assert entry is not None
    assert (entry.hash, entry.facts["to"]) == (hashlib.sha256(before).hexdigest(), 2)
    (following,) = again.close_all("2026-11-26 00:00:10")
    assert values(following, "PreviousCheckpoint") == [digest(path)]
    assert values(following, "LedgerFrom") == ["3"]


def test_a_kill_before_any_change_of_a_file_is_made_good(keys: KeyStore, tmp_path: Path) -> None:
    begin = Box(made := _folder(tmp_path / "begin"), keys)
    begin.log("recording", "2026-11-24 10:00", "aaaa")
    begin.ledger.close()
    for number in range(200):
        shutil.rmtree(tmp_path / "work", ignore_errors=True)
        work = Path(shutil.copytree(made, tmp_path / "work"))
        killed = killed_before(number, lambda work=work: _close(work, keys), work)  # type: ignore[misc]
        again = Box(work, keys)
        again.close_all("2026-11-25 00:00:20")
        again.ledger.close()
        _closed_once(again)
        if not killed:
            assert number > 15, "nothing was watched"
            return
    raise AssertionError("it never ended")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _close(folder: Path, keys: KeyStore) -> None:
    Box(folder, keys).close_all("2026-11-25 00:00:10")


def _closed_once(box: Box) -> None:
    """The day has one checkpoint, which is good, in the log, and handed over; nothing half done lies about."""
    path = box.root / "2026/11/24/tapdeck-day-2026-11-24.txt"
    with closing(sqlite3.connect(box.state / "ledger.sqlite")) as base:
        assert base.execute("SELECT hash FROM entries WHERE kind = 'checkpoint'").fetchall() == [(digest(path),)]
    report = verify([box.root], ledger=box.state / "ledger.sqlite")
    kinds = {(one.kind, one.verdict) for one in report.each(intact=True) if one.kind != "recording"}
    report.findings.close()
    assert kinds == {("checkpoint", "intact"), ("log", "intact")}
    names = {one.name for one in path.parent.iterdir()}
    assert {"tapdeck-certificate.pem", "verify.sh", "verify.ps1", path.name, f"{path.stem}.SHA256withRSA.sig"} == names
    (parcel,), broken = handover.waiting(box.state)
    assert broken == []
    assert path.name in {Path(file).name for file in parcel.files}


def test_another_box_has_written_there(box: Box) -> None:
    box.log("recording", "2026-11-24 10:00", "aaaa")
    folder = box.root / "2026/11/24"
    folder.mkdir(parents=True)
    (folder / "tapdeck-day-2026-11-24.txt").write_text("Day: 2026-11-24\n")
    (folder / "tapdeck-day-2026-11-24.SHA256withRSA.sig").write_bytes(b"x" * 384)
    with pytest.raises(FileExistsError, match="not by this recorder"):
        box.close_all("2026-11-25 00:00:10")
    assert box.ledger.last("checkpoint") is None


def test_a_log_that_was_begun_anew_goes_on(box: Box, keys: KeyStore) -> None:
    """The day has its checkpoint, by the log that was moved aside; verification says that the log is another."""
    box.log("recording", "2026-11-24 10:00", "aaaa")
    (path,) = box.close_all("2026-11-25 00:00:10")
    box.ledger.close()
    for file in box.state.glob("*ledger*"):
        file.unlink()
    again = Box(box.root.parent, keys)
    box.ledger = again.ledger  # to be closed
    again.log("recording", "2026-11-24 11:00", "bbbb")
    before = path.read_bytes()
    assert again.close_all("2026-11-25 00:00:10") == [path]
    assert path.read_bytes() == before
    (following,) = again.close_all("2026-11-26 00:00:10")
    assert values(following, "Recording") == [f"2 bbbb {HASH}"]
    report = verify([box.root], ledger=box.state / "ledger.sqlite")
    said = [one.reason for one in report.each() if one.kind == "log"]
    assert said == ["entry 2 is not the one that tapdeck-day-2026-11-24.txt names: the log was written anew"]
    report.findings.close()


def test_it_is_handed_over_to_delivery(box: Box) -> None:
    box.log("recording", "2026-11-24 10:00", "aaaa")
    box.close_all("2026-11-25 00:00:10")
    good, bad = handover.waiting(box.state)
    assert bad == []
    (parcel,) = good
    folder = "2026/11/24"
    own = [f"{folder}/tapdeck-day-2026-11-24{end}" for end in (".txt", ".SHA256withRSA.sig")]
    assert parcel.files == (
        f"{folder}/tapdeck-certificate.pem", f"{folder}/verify.sh", f"{folder}/verify.ps1", *own,
    )  # fmt: skip
    assert parcel.bytes == sum((box.root / file).stat().st_size for file in parcel.files)


@pytest.mark.parametrize(
    ("template", "folder"),
    [("%Y/%m/%d", "2026/11/24"), ("%Y/{direction}/%d", "2026"), ("%Y-%m-%d/%H", "2026-11-24"), ("{caller}", ".")],
)
def test_it_lies_where_all_recordings_of_the_day_lie(
    tmp_path: Path, keys: KeyStore, template: str, folder: str
) -> None:
    box = Box(tmp_path, keys, template=template)
    box.log("recording", "2026-11-24 10:00", "aaaa")
    assert box.close_all("2026-11-25 00:00:10") == [box.root / folder / "tapdeck-day-2026-11-24.txt"]
    box.ledger.close()
