"""The delivery queue: durable, oldest first, the same after a kill, made anew when it is lost."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tapdeck.storage.parcel import Parcel
from tapdeck.storage.queue import Queue, QueueError, TargetState
from tests.support.parcels import fill, record, small_disk
from tests.support.users import needs_root

NOW = 1_795_000_000.0


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    made = Queue(tmp_path / "queue.sqlite")
    yield made
    made.close()


def some(root: Path, count: int, start: float = NOW) -> list[Parcel]:
    return [record(root, f"{chr(97 + n // 26)}{chr(97 + n % 26)}cdefghij", ended=start + n) for n in range(count)]


def order(queue: Queue, target: str, now: float = NOW) -> list[str]:
    """Take everything that is due, and return the ids in their order."""
    taken = []
    while job := queue.next(target, now):
        taken.append(job.parcel.id)
        queue.confirm(job, now, "2026", False)
    return taken


def test_oldest_first_whatever_the_order_of_arrival(queue: Queue, tmp_path: Path) -> None:
    parcels = some(tmp_path, 9)
    queue.want(["disk"], again=False)
    queue.add(parcels[5:], ["disk"])
    queue.add(parcels[:5], ["disk"])
    assert order(queue, "disk") == [parcel.id for parcel in parcels]
    assert queue.next("disk", NOW) is None


def test_a_job_holds_what_was_handed_over(queue: Queue, tmp_path: Path) -> None:
    parcel = record(tmp_path, "abcdefghij", ended=NOW + 0.25)
    queue.add([parcel], ["disk"])
    job = queue.next("disk", NOW)
    assert job is not None
    assert (job.parcel, job.target, job.attempts) == (parcel, "disk", 0)


def test_each_target_has_its_own_jobs(queue: Queue, tmp_path: Path) -> None:
    parcels = some(tmp_path, 3)
    queue.add(parcels, ["disk", "nas"])
    assert len(order(queue, "disk")) == 3
    assert (queue.totals("disk", NOW).confirmed, queue.totals("nas", NOW).waiting) == (3, 3)
    assert queue.next("other", NOW) is None


def test_adding_again_changes_nothing(queue: Queue, tmp_path: Path) -> None:
    parcels = some(tmp_path, 3)
    for _ in range(2):
        queue.add(parcels, ["disk"])
    assert queue.totals("disk", NOW).waiting == 3
    order(queue, "disk")
    queue.add(parcels, ["disk"])
    queue.want(["disk"], again=True)
    assert (queue.totals("disk", NOW).waiting, queue.totals("disk", NOW).confirmed) == (0, 3)


def test_a_recording_that_has_got_a_signature_is_delivered_again(queue: Queue, tmp_path: Path) -> None:
    queue.add([record(tmp_path, "abcdefghij")], ["disk"])
    order(queue, "disk")
    more = record(tmp_path, "abcdefghij", endings=(".wav", "_info.txt", "_hash.txt"))
    queue.add([more], ["disk"])
    job = queue.next("disk", NOW)
    assert job is not None
    assert job.parcel == more


def test_a_new_target_gets_what_is_here(queue: Queue, tmp_path: Path) -> None:
    parcels = some(tmp_path, 4)
    queue.add(parcels, ["disk"])
    order(queue, "disk")
    gone = next(iter(queue.local()))
    queue.gone([gone.number], NOW)
    queue.want(["disk", "nas"], again=False)
    assert order(queue, "nas") == [parcel.id for parcel in parcels[1:]]
    assert order(queue, "disk") == []


def test_one_that_is_refused_waits_and_the_others_go_on(queue: Queue, tmp_path: Path) -> None:
    parcels = some(tmp_path, 3)
    queue.add(parcels, ["disk"])
    bad = queue.next("disk", NOW)
    assert bad is not None
    queue.fail(bad, NOW, "name too long", 3600)
    assert order(queue, "disk") == [parcel.id for parcel in parcels[1:]]
    assert queue.next("disk", NOW + 3599) is None
    again = queue.next("disk", NOW + 3600)
    assert again is not None
    assert (again.parcel.id, again.attempts) == (parcels[0].id, 1)
    queue.fail(again, NOW + 3600, "still too long", 3600)
    totals = queue.totals("disk", NOW)
    assert (totals.waiting, totals.failing, totals.failing_since, totals.error) == (1, 1, NOW, "still too long")
    queue.want(["disk"], again=True)
    last = queue.next("disk", NOW + 3601)
    assert last is not None
    queue.confirm(last, NOW, "2026", False)
    totals = queue.totals("disk", NOW)
    assert (totals.waiting, totals.confirmed, totals.failing, totals.failing_since) == (0, 3, 0, None)


def test_a_clock_that_was_set_back_stops_nothing(queue: Queue, tmp_path: Path) -> None:
    queue.add(some(tmp_path, 1), ["disk"])
    job = queue.next("disk", NOW)
    assert job is not None
    queue.fail(job, NOW, "gone", 3600)
    assert queue.next("disk", NOW - 86400 * 365) is not None


def test_how_a_target_does_is_kept(queue: Queue, tmp_path: Path) -> None:
    queue.add(some(tmp_path, 1), ["disk"])
    assert queue.target("disk") == TargetState()
    queue.want(["disk"], again=False)
    queue.outage("disk", NOW, "gone", 2)
    queue.outage("disk", NOW + 2, "still gone", 4)
    assert queue.target("disk") == TargetState(False, 2, NOW + 6, NOW, "still gone")
    queue.close()
    queue = Queue(tmp_path / "queue.sqlite")
    assert queue.target("disk").failing_since == NOW
    order(queue, "disk")
    assert queue.target("disk").known
    queue.works("disk")
    assert queue.target("disk") == TargetState(known=True)


def test_what_may_be_looked_at_for_room(queue: Queue, tmp_path: Path) -> None:
    parcels = some(tmp_path, 4)
    queue.add(parcels, ["a, \"b'", "nas"])
    order(queue, "a, \"b'")
    job = queue.next("nas", NOW)
    assert job is not None
    queue.confirm(job, NOW, "2026", False)
    local = list(queue.local())
    assert [one.parcel for one in local] == parcels
    assert [one.confirmed for one in local] == [frozenset({"a, \"b'", "nas"})] + [frozenset({"a, \"b'"})] * 3
    queue.going([local[0].number, local[1].number], NOW)
    assert [one.parcel for one in queue.half_gone()] == parcels[:2]
    queue.gone([local[0].number], NOW)
    assert [one.parcel for one in queue.half_gone()] == parcels[1:2]
    assert [one.parcel for one in queue.local()] == parcels[1:]


def test_one_that_nobody_has_confirmed_is_not_even_looked_at(queue: Queue, tmp_path: Path) -> None:
    queue.add(some(tmp_path, 2), ["disk"])
    assert list(queue.local()) == []


def test_one_that_is_here_again_is_delivered_again(queue: Queue, tmp_path: Path) -> None:
    parcels = some(tmp_path, 1)
    queue.add(parcels, ["disk"])
    order(queue, "disk")
    queue.gone([next(iter(queue.local())).number], NOW)
    assert queue.stems("2026/11/24") == set()
    queue.add(parcels, ["disk"])
    assert queue.stems("2026/11/24") == {parcels[0].stem}
    assert order(queue, "disk") == [parcels[0].id]


def test_which_recordings_of_a_folder_are_known(queue: Queue, tmp_path: Path) -> None:
    here = {
        day: record(tmp_path, "abcdefghij", folder=day) for day in (".", "2026/11", "2026/11/2", "2026/11/24", "2026/1")
    }
    queue.add(here.values(), ["disk"])
    assert queue.stems(".") == {here["."].stem}
    assert queue.stems("2026/11/2") == {here["2026/11/2"].stem}
    assert queue.stems("2026/11/24") == {here["2026/11/24"].stem}
    assert queue.stems("2027") == set()
    assert here["2026/11"].stem in queue.stems("2026/11")


def test_the_bytes_that_are_here(queue: Queue, tmp_path: Path) -> None:
    assert queue.here(NOW) == (0, 0, None)
    parcels = some(tmp_path, 4)
    size = parcels[0].bytes
    queue.add(parcels, ["disk"])
    order(queue, "disk")
    assert queue.here(NOW + 1.5) == (4 * size, 2 * size, NOW)
    queue.gone([one.number for one in queue.local()][:3], NOW)
    assert queue.here(NOW + 1.5) == (size, 2 * size, NOW)


def test_names_taken_count_for_a_day(queue: Queue, tmp_path: Path) -> None:
    queue.add(some(tmp_path, 1), ["disk"])
    job = queue.next("disk", NOW)
    assert job is not None
    queue.confirm(job, NOW, "2026/x_other-12345678", True)
    assert queue.totals("disk", NOW + 86_000).beside == 1
    assert queue.totals("disk", NOW + 87_000).beside == 0


def test_it_is_for_its_owner_only_and_keeps_nothing_that_was_deleted(queue: Queue, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "queue.sqlite").stat().st_mode) == 0o600
    number = "+3169999999"
    queue.add([record(tmp_path, "abcdefghij", name=f"20261124_{number}_2002")], ["disk"])
    queue.close()
    with sqlite3.connect(tmp_path / "queue.sqlite") as base:
        assert base.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        base.execute("PRAGMA secure_delete=ON")
        base.execute("DELETE FROM jobs")
        base.execute("DELETE FROM recordings")
        base.commit()
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    base.close()
    assert number.encode() not in (tmp_path / "queue.sqlite").read_bytes()


def test_what_was_confirmed_before_a_kill_is_confirmed(tmp_path: Path) -> None:
    parcels = some(tmp_path, 40)
    Queue(tmp_path / "queue.sqlite").close()
    code = (
        "import sys; from pathlib import Path; from tapdeck.storage.queue import Queue\n"
        "queue = Queue(Path(sys.argv[1]))\n"
        "while job := queue.next('disk', 2e9):\n"
        "    queue.confirm(job, 2e9, '2026', False); print(job.parcel.id, flush=True)"
    )
    queue = Queue(tmp_path / "queue.sqlite")
    queue.add(parcels, ["disk"])
    queue.close()
    told: list[str] = []
    for _ in range(3):
        worker = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "queue.sqlite"], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        told += [worker.stdout.readline().strip() for _ in range(7)]
        worker.kill()
        told += worker.stdout.read().split()
        worker.wait()
        worker.stdout.close()
        queue = Queue(tmp_path / "queue.sqlite")
        assert not queue.damaged
        confirmed = queue.totals("disk", NOW).confirmed
        queue.close()
        assert len(told) <= confirmed <= len(told) + 3  # confirmed, and killed before it could say so
        assert len(set(told)) == len(told)


@pytest.mark.parametrize("damage", ["no database", "torn pages"])
def test_a_damaged_queue_is_set_aside_and_made_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "queue.sqlite"
    queue = Queue(path)
    queue.add(some(tmp_path, 60), ["disk"])
    queue.close()
    whole = bytearray(path.read_bytes())
    if damage == "no database":
        whole = bytearray(os.urandom(50_000))
    else:
        whole[8192:20480] = os.urandom(20480 - 8192)
    path.write_bytes(whole)
    queue = Queue(path)
    assert queue.damaged
    assert queue.totals("disk", NOW).waiting == 0
    assert path.with_name("queue.sqlite.damaged").read_bytes() == whole
    queue.add(some(tmp_path, 3), ["disk"])
    assert queue.totals("disk", NOW).waiting == 3
    queue.close()


def test_threads_share_it(queue: Queue, tmp_path: Path) -> None:
    targets = ["a", "b", "c"]
    parcels = some(tmp_path, 30)
    taken: dict[str, list[str]] = {}
    threads = [
        threading.Thread(target=lambda name=target: taken.update({name: order(queue, name)})) for target in targets
    ]
    queue.add(parcels[:10], targets)
    for thread in threads:
        thread.start()
    for parcel in parcels[10:]:
        queue.add([parcel], targets)
    for thread in threads:
        thread.join()
    for target in targets:
        rest = order(queue, target)
        assert sorted(taken[target] + rest) == sorted(parcel.id for parcel in parcels)


@needs_root
def test_a_full_disk_is_an_error_and_no_loss(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 8) as disk:
        queue = Queue(disk / "queue.sqlite")
        first, second = some(tmp_path, 30), some(tmp_path, 600)
        queue.add(first, ["disk"])
        filler = fill(disk)
        with pytest.raises(QueueError, match="full"):
            queue.add(second, ["disk"])
        filler.unlink()
        assert queue.totals("disk", NOW).waiting == 30
        queue.add(second, ["disk"])
        assert queue.totals("disk", NOW).waiting == 600
        queue.close()


OLD = """
CREATE TABLE recordings (number INTEGER NOT NULL PRIMARY KEY, stem TEXT NOT NULL UNIQUE, id TEXT NOT NULL,
    files TEXT NOT NULL, bytes INTEGER NOT NULL, ended FLOAT NOT NULL, going FLOAT, removed FLOAT);
CREATE INDEX recordings_here ON recordings (removed, ended);
CREATE TABLE jobs (recording INTEGER NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL, ended FLOAT NOT NULL,
    attempts INTEGER NOT NULL, next_try FLOAT NOT NULL, failing_since FLOAT, error TEXT, place TEXT,
    beside BOOLEAN NOT NULL, confirmed FLOAT, PRIMARY KEY (recording, target),
    FOREIGN KEY(recording) REFERENCES recordings (number) ON DELETE CASCADE);
CREATE INDEX jobs_next ON jobs (target, state, ended, recording);
CREATE TABLE targets (name TEXT NOT NULL PRIMARY KEY, known BOOLEAN NOT NULL, failures INTEGER NOT NULL,
    next_try FLOAT NOT NULL, failing_since FLOAT, error TEXT);
"""
"""The queue as the first version made it."""


def test_a_queue_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    with sqlite3.connect(path) as old:
        old.executescript(OLD)
        old.execute("INSERT INTO targets VALUES ('disk', 1, 3, 5.0, 4.0, 'out')")
        for n, state in enumerate(("confirmed", "waiting", "waiting")):
            old.execute(
                "INSERT INTO recordings VALUES (?, ?, ?, ?, 7, ?, NULL, NULL)", (n, f"r{n}", f"id{n}", "[]", NOW + n)
            )
            done = NOW if state == "confirmed" else None
            row = (n, "disk", state, NOW + n, 0, 0.0, None, None, None, 0, done)
            old.execute(f"INSERT INTO jobs VALUES ({', '.join('?' * 11)})", row)
    old.close()
    for _ in range(2):
        queue = Queue(path)
        assert not queue.damaged
        totals = queue.totals("disk", NOW)
        assert (totals.waiting, totals.confirmed, totals.bytes) == (2, 1, 14)
        assert queue.target("disk") == TargetState(True, 3, 5.0, 4.0, "out")
        job = queue.next("disk", NOW)
        assert job is not None
        assert job.parcel.id == "id1"
        queue.close()
    with sqlite3.connect(path) as now:
        assert now.execute("PRAGMA user_version").fetchone() == (1,)
        indexes = {row[0] for row in now.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    now.close()
    assert {"jobs_open", "jobs_beside", "recordings_on_disk"} <= indexes
    assert not {"jobs_next", "recordings_here"} & indexes


def test_a_queue_of_a_newer_version_is_refused_and_left(tmp_path: Path) -> None:
    Queue(tmp_path / "queue.sqlite").close()
    with sqlite3.connect(tmp_path / "queue.sqlite") as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(QueueError, match="newer Tapdeck"):
        Queue(tmp_path / "queue.sqlite")
    assert not (tmp_path / "queue.sqlite.damaged").exists()


def test_what_a_target_does_not_want_is_no_job_and_keeps_nothing_here(queue: Queue, tmp_path: Path) -> None:
    parcels = some(tmp_path, 2)
    queue.add(parcels, ["disk", "nas"], lambda target, parcel: target == "disk" or parcel == parcels[0])
    assert order(queue, "nas") == [parcels[0].id]
    assert order(queue, "disk") == [parcel.id for parcel in parcels]
    local = list(queue.local(["disk", "nas"]))
    assert [one.parcel.id for one in local] == [parcel.id for parcel in parcels]
    assert [one.unwanted for one in local] == [frozenset(), frozenset({"nas"})]


def test_another_selection_decides_anew_what_is_not_done(queue: Queue, tmp_path: Path) -> None:
    parcels = some(tmp_path, 3)
    queue.want(["nas"], again=False, selections={"nas": "one"})
    queue.add(parcels, ["nas"], lambda target, parcel: parcel == parcels[0])
    assert order(queue, "nas") == [parcels[0].id]
    queue.want(["nas"], again=False, selections={"nas": "one"})
    assert queue.undecided("nas") == []
    queue.want(["nas"], again=False, selections={"nas": "another"})
    left = queue.undecided("nas")
    assert [parcel for _, parcel in left] == parcels[1:]
    queue.decide("nas", [(number, parcel, True) for number, parcel in left])
    assert order(queue, "nas") == [parcel.id for parcel in parcels[1:]]
    assert queue.totals("nas", NOW).confirmed == 3


def test_a_recording_that_changed_while_it_was_delivered_is_not_confirmed(queue: Queue, tmp_path: Path) -> None:
    queue.add([record(tmp_path, "abcdefghij")], ["disk"])
    job = queue.next("disk", NOW)
    assert job is not None
    queue.add([record(tmp_path, "abcdefghij", endings=(".wav", "_info.txt", "_hash.txt"))], ["disk"])
    queue.confirm(job, NOW, "2026", False)
    assert queue.totals("disk", NOW).confirmed == 0
    assert queue.next("disk", NOW) is not None
