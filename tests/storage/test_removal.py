"""Room on a real, small disk: what goes is written down before it goes, also when not a byte is left."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tapdeck.storage import state
from tapdeck.storage.parcel import Parcel
from tapdeck.storage.queue import Queue, QueueError
from tapdeck.storage.removal import BALLAST_BYTES, BALLAST_PIECES, Ballast, disk_of, finish, remove
from tapdeck.storage.space import Local
from tests.support.parcels import everything, fill, noise, record, small_disk
from tests.support.users import needs_root

NOW = 1_795_000_000.0
MB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", 32) as folder:
        yield folder


class Box:
    """Recordings, queue and event log in one folder."""

    def __init__(self, folder: Path) -> None:
        self.root, self.state = folder / "recordings", folder / "state"
        self.state.mkdir()
        self.queue = Queue(self.state / "queue.sqlite")
        self.ballast = Ballast(self.state)

    def add(self, count: int, size: int = MB) -> list[Parcel]:
        parcels = [record(self.root, f"{chr(97 + n)}bcdefghij", noise(size), ended=NOW + n) for n in range(count)]
        self.queue.add(parcels, ["disk"])
        while job := self.queue.next("disk", NOW):
            self.queue.confirm(job, NOW, "2026", False)
        return parcels

    def remove(self, chosen: list[Local]) -> list[Local]:
        return remove(chosen, self.root, self.state, self.queue, self.ballast, NOW)

    def removed(self) -> list[dict[str, Any]]:
        return [event for event in state.events(self.state) if event["event"] == "recording removed"]


def test_what_goes_stands_in_the_event_log_and_nothing_else_goes(tmp_path: Path) -> None:
    box = Box(tmp_path)
    parcels = box.add(4)
    chosen = list(box.queue.local())[:2]
    assert box.remove(chosen) == chosen
    assert set(everything(box.root)) == {file for parcel in parcels[2:] for file in parcel.files}
    events = box.removed()
    assert [event["id"] for event in events] == [parcel.id for parcel in parcels[:2]]
    assert events[0]["files"] == list(parcels[0].files)
    assert (events[0]["bytes"], events[0]["confirmed_by"]) == (parcels[0].bytes, ["disk"])
    assert [one.parcel for one in box.queue.local()] == parcels[2:]
    assert box.queue.half_gone() == []


def test_it_is_written_down_before_a_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(tmp_path)
    parcels = box.add(2)
    seen: list[tuple[bool, bool, bool]] = []
    synced: set[str] = set()
    real, real_fsync = Path.unlink, os.fsync

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        synced.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix)

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.is_relative_to(box.root):
            told = {file for event in box.removed() for file in event["files"]}
            seen.append((str(path.relative_to(box.root)) in told, ".jsonl" in synced, len(box.queue.half_gone()) == 2))
        real(path, missing_ok)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "unlink", unlink)
    box.remove(list(box.queue.local()))
    assert seen == [(True, True, True)] * sum(len(parcel.files) for parcel in parcels)


@pytest.mark.parametrize("kill", range(1, 5))
def test_a_kill_in_between_is_ended_by_the_next_start(tmp_path: Path, kill: int) -> None:
    box = Box(tmp_path)
    parcels = box.add(2)
    pid = os.fork()
    if not pid:
        count = 0
        real = Path.unlink

        def unlink(path: Path, missing_ok: bool = False) -> None:
            nonlocal count
            count += 1
            if count == kill:
                os._exit(9)
            real(path, missing_ok)

        pytest.MonkeyPatch().setattr(Path, "unlink", unlink)
        child = Queue(box.state / "queue.sqlite")
        remove(list(child.local()), box.root, box.state, child, box.ballast, NOW)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert len(everything(box.root)) == 4 - (kill - 1)
    left = box.queue.half_gone()
    assert [one.parcel for one in left] == parcels
    finish(left, box.root, box.queue, NOW)
    assert everything(box.root) == {}
    assert list(box.queue.local()) == []
    assert len(box.removed()) == 2


@needs_root
def test_where_it_cannot_be_written_down_nothing_goes(tmp_path: Path, disk: Path) -> None:
    box = Box(tmp_path)
    box.add(2)
    before = everything(box.root)
    box.state = disk
    fill(disk)
    assert box.remove(list(box.queue.local())) == []
    assert everything(box.root) == before


@needs_root
def test_a_disk_without_a_byte_left_is_helped_by_its_ballast(disk: Path) -> None:
    box = Box(disk)
    parcels = box.add(3)
    box.ballast.fill()
    state.append(box.state, "something", text="x" * 3000)
    filler = fill(disk)
    assert disk_of(disk).free < 4096
    while state.append(box.state, "something else"):
        pass  # until the log's last block is full too
    chosen = list(box.queue.local())[:2]
    assert box.remove(chosen) == chosen
    box.queue.close()
    assert disk_of(disk).free > 2 * MB
    assert not (box.state / ".ballast.0").exists()
    assert [event["id"] for event in box.removed()] == [parcel.id for parcel in parcels[:2]]
    assert set(everything(box.root)) == set(parcels[2].files)
    filler.unlink()


@needs_root
def test_an_event_that_a_full_disk_has_cut_does_not_count_as_written(disk: Path) -> None:
    folder = disk / "state"
    while os.path.getsize(next((folder / "log").iterdir(), "/dev/null") if folder.exists() else "/dev/null") < 3900:
        assert state.append(folder, "something")
    filler = fill(disk)
    assert not state.append(folder, "cut", text="x" * 1000)
    filler.unlink()
    assert state.append(folder, "afterwards")
    (log,) = (folder / "log").iterdir()
    events = [event["event"] for event in state.events(folder)]
    assert events[-1] == "afterwards"
    assert "cut" not in events
    assert json.loads(log.read_bytes().splitlines()[-1])["event"] == "afterwards"


@needs_root
def test_a_queue_that_cannot_be_written_keeps_everything(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Box(tmp_path)
    box.add(2)
    before = everything(box.root)

    def going(numbers: list[int], now: float) -> None:
        raise QueueError("disk full")

    monkeypatch.setattr(box.queue, "going", going)
    with pytest.raises(QueueError):
        box.remove(list(box.queue.local()))
    assert everything(box.root) == before


@needs_root
def test_ballast_is_real_room_and_takes_none_of_a_full_disk(disk: Path) -> None:
    ballast = Ballast(disk)
    before = disk_of(disk).free
    ballast.fill()
    ballast.fill()
    assert before - disk_of(disk).free >= BALLAST_PIECES * BALLAST_BYTES
    pieces = 0
    while ballast.give():
        pieces += 1
    assert pieces == BALLAST_PIECES
    assert disk_of(disk).free == before
    filler = fill(disk)
    ballast.fill()
    assert not ballast.give()
    filler.unlink()
    ballast.fill()
    assert ballast.give()
