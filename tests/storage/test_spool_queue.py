"""The queue before the disk: what a slow, full or broken disk does to it, and what it does to memory."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tapdeck.storage import spool_queue
from tapdeck.storage.spool import DONE, Job, SpoolFiles, Vanished
from tapdeck.storage.spool_file import read_spool
from tapdeck.storage.spool_queue import Files, SpoolQueue
from tests.support.live import Capture, recordings, seal
from tests.support.record import assert_sound
from tests.support.scene import Scene, plain_call

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
LIMIT = 1000


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_queue, "RETRY_S", 0.002)


class Record:
    """Files that note what was done, and that fail as they are told."""

    def __init__(self, fault: Callable[[Job], BaseException | None] = lambda job: None) -> None:
        self.done: list[Job] = []
        self.tried = 0
        self.synced: list[int] = []
        self.sync_fails = 0
        self.fault = fault
        self.free = threading.Event()
        self.free.set()

    def do(self, job: Job) -> None:
        self.tried += 1
        self.free.wait()
        error = self.fault(job)
        if error is not None:
            raise error
        self.done.append(job)

    def sync(self) -> None:
        if self.sync_fails:
            self.sync_fails -= 1
            raise FULL
        self.synced.append(len(self.done))


@contextmanager
def running(files: Files, limit: int = LIMIT, sync_s: float = 0.01) -> Iterator[SpoolQueue]:
    queue = SpoolQueue(files, limit, sync_s)
    queue.start()
    try:
        yield queue
    finally:
        queue.stop(5)


def media(name: str, size: int, frames: int = 1, said: bytes = b"") -> Job:
    pieces = [*([said] if said else []), memoryview(bytes(size))]
    return Job(name, pieces, size + len(said), frames, first=True, said=[said] if said else [])


def words(name: str, size: int) -> Job:
    return Job(name, [bytes(size)], size, said=[bytes(size)])


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_jobs_are_done_in_their_order_and_synced() -> None:
    files = Record()
    work = [media(str(n), 10) for n in range(50)]
    with running(files) as queue:
        assert queue.put(work) == []
        wait_for(lambda: files.synced[-1:] == [50])
        assert queue.backlog.waiting == 0
    assert files.done == work


def test_what_waits_is_written_and_synced_at_the_end() -> None:
    files = Record()
    files.free.clear()
    queue = SpoolQueue(files, LIMIT, 60)
    queue.start()
    queue.put([media("a", 10), media("b", 10)])
    threading.Timer(0.05, files.free.set).start()
    assert queue.stop(5) == 0
    assert (len(files.done), files.synced) == (2, [2])


def test_what_fails_is_tried_until_it_is_done_and_the_reason_is_told() -> None:
    failures = iter([FULL] * 7)
    files = Record(lambda job: next(failures, None) if job.id == "b" else None)
    files.free.clear()
    with running(files) as queue:
        queue.put([media("a", 10), media("b", 10), media("c", 10)])
        files.fault = lambda job: FULL if job.id == "b" else None
        files.free.set()
        wait_for(lambda: queue.backlog.error != "")
        assert queue.backlog.error == "spool: No space left on device"
        assert [job.id for job in files.done] == ["a"]
        assert queue.backlog.waiting == 20
        files.fault = lambda job: next(failures, None)
        wait_for(lambda: len(files.done) == 3)
        wait_for(lambda: queue.backlog.error == "")
    assert [job.id for job in files.done] == ["a", "b", "c"]


def test_a_sync_that_fails_is_tried_again() -> None:
    files = Record()
    files.sync_fails = 3
    with running(files) as queue:
        queue.put([media("a", 10)])
        wait_for(lambda: bool(files.synced))
    assert files.sync_fails == 0


def test_media_that_finds_no_room_is_given_up_and_told_and_words_are_kept() -> None:
    files = Record()
    files.free.clear()
    with running(files) as queue:
        assert queue.put([media("a", 600)]) == []
        wait_for(lambda: files.tried == 1)
        given_up = media("b", 500, frames=3, said=b"BYE")
        assert queue.put([given_up, words("c", 100), media("d", 200)]) == [given_up]
        assert queue.backlog.waiting == 600 + 3 + 100 + 200
        files.free.set()
        wait_for(lambda: len(files.done) == 4)
    stripped = files.done[1]
    assert stripped == Job("b", [b"BYE"], 3, said=[b"BYE"])


def test_memory_is_bounded_whatever_is_said() -> None:
    files = Record()
    files.free.clear()
    with running(files) as queue:
        for number in range(1000):
            queue.put([words(str(number), 30), media(str(number), 30)])
            assert queue.backlog.waiting <= 2 * LIMIT
        files.free.set()
        wait_for(lambda: queue.backlog.waiting == 0)
    assert sum(job.size for job in files.done) <= 2 * LIMIT


def test_a_file_taken_away_costs_its_call_and_no_other() -> None:
    files = Record(lambda job: Vanished("gone") if job.id == "b" else None)
    with running(files) as queue:
        gone = media("b", 10, frames=4)
        queue.put([media("a", 10), gone, words("b", 10), media("c", 10)])
        wait_for(lambda: len(files.done) == 2)
        assert queue.put([]) == [gone]
        assert queue.put([]) == []
        assert (queue.backlog.waiting, queue.backlog.error) == (0, "")


def test_a_stop_does_not_wait_for_ever_for_a_broken_disk() -> None:
    files = Record(lambda job: FULL)
    queue = SpoolQueue(files, LIMIT, 0.01)
    queue.start()
    queue.put([media("a", 70)])
    assert queue.stop(0.05) == 70
    files.fault = lambda job: None


def test_a_stop_while_syncing_fails_spares_the_processor() -> None:
    files = Record()
    files.sync_fails = 1 << 60
    queue = SpoolQueue(files, LIMIT, 60)
    queue.start()
    queue.put([media("a", 70)])
    wait_for(lambda: len(files.done) == 1)
    queue.stop(0.2)
    assert (1 << 60) - files.sync_fails <= 0.2 / spool_queue.RETRY_S + 2
    files.sync_fails = 0


def test_a_mistake_in_the_writing_thread_is_raised_where_jobs_come_from() -> None:
    queue = SpoolQueue(Record(lambda job: ZeroDivisionError("a mistake")), LIMIT, 0.01)
    queue.start()
    queue.put([media("a", 10)])
    wait_for(lambda: not queue._thread.is_alive())
    with pytest.raises(ZeroDivisionError):
        queue.put([])
    with pytest.raises(ZeroDivisionError):
        queue.stop(1)


def test_what_was_lost_is_told_beside_the_recording_and_the_rest_is_whole(tmp_path: Path) -> None:
    """A disk that is full for a part of a call: its packets of that time are missing, and counted, and no others."""
    scene = plain_call(1, duration_ms=2000)
    files, gate = SpoolFiles(tmp_path / "spool"), threading.Event()
    gate.set()
    write = files.do

    def do(job: Job) -> None:
        if not gate.is_set():
            raise FULL
        write(job)

    files.do = do  # type: ignore[method-assign]
    capture = Capture(tmp_path, files=files)
    lost = 0
    packets = scene.packets()
    with running(files, limit=8000, sync_s=0.01) as queue:
        for start in range(0, len(packets), 4):
            made: list[Job] = []
            capture.do = made.append
            if start == 80:
                wait_for(lambda: queue.backlog.waiting == 0)
                gate.clear()
            if start == 160:
                gate.set()
                wait_for(lambda: queue.backlog.waiting == 0)
            capture.hear(packets[start : start + 4])
            for job in queue.put(made):
                capture.book.lost(job)
                lost += job.frames
            if not 80 <= start < 160:
                wait_for(lambda: queue.backlog.waiting == 0)
        capture.do = lambda job: _nothing(queue.put([job]))
        capture.rest()
        capture.stop()
    (path,) = (tmp_path / "spool" / DONE).iterdir()
    over = read_spool(path).over
    assert over is not None
    assert 0 < lost < 80
    assert (over["lost"], over["frames"]) == (lost, 200)
    account = seal(tmp_path)
    assert account.packets["kept", "sound"] == 200 - lost
    (recording,) = recordings(tmp_path)
    assert recording.info["CaptureLoss"].startswith(f"{lost} packets of this call were lost")
    heard = b"".join(recording.wav.channels())
    left, right = (tuple(one for one in side if one.payload in heard) for side in (scene.left, scene.right))
    assert len(left) + len(right) == 200 - lost
    assert_sound(recording, *Scene(scene.dialog, scene.signals, left, right).channels())


def _nothing(lost: list[Job]) -> None:
    assert not lost
