"""What the deliver stage says, and its threads: a target that hangs or is mistaken keeps no other waiting."""

import json
import queue as queues
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tapdeck.cli import deliver_report as words
from tapdeck.cli.deliver_report import TargetView
from tapdeck.cli.deliver_worker import Crew, Worker
from tapdeck.storage.courier import Courier, Report
from tapdeck.storage.dispatch import Dispatch
from tapdeck.storage.jobs import Job, TargetState, Totals
from tapdeck.storage.parcel import Parcel
from tapdeck.storage.queue import Queue, QueueError
from tests.support.faulty import FaultyTarget, MemoryTarget
from tests.support.parcels import everything, record

SINCE = 1_795_000_000.0
DAY = 86_400.0
WELL = TargetView("/mnt/a", TargetState(known=True), Totals(confirmed=7))
OUT = TargetView(
    "/mnt/b",
    TargetState(True, 3, SINCE + 60, SINCE, "the disk is not there"),
    Totals(waiting=12, oldest=SINCE - 5, bytes=5_000_000),
)
REFUSING = TargetView(
    "/mnt/c", TargetState(), Totals(waiting=3, failing=2, failing_since=SINCE + 9, error="name too long", oldest=SINCE)
)
HUNG = TargetView("/mnt/d", TargetState(), Totals(waiting=1, oldest=SINCE), silent=words.STALLED_S + 1)


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def test_all_is_well() -> None:
    assert words.failure(WELL, SINCE) is None
    assert words.name_taken(WELL) is None
    assert words.lost([]) is None
    assert WELL.as_dict() == {
        "name": "/mnt/a",
        "waiting": 0,
        "bytes": 0,
        "rate": 0,
        "confirmed": 7,
        "failing_since": None,
        "error": None,
        "refused": 0,
        "lost": 0,
        "beside": 0,
        "oldest_waiting": None,
        "next_try": None,
        "outside_hours": False,
        "opens": None,
    }


def test_an_outage_says_what_since_when_what_is_safe_what_to_do_and_becomes_critical() -> None:
    found = words.failure(OUT, SINCE + 3600)
    assert found is not None
    text, severity = found
    assert severity == "warning"
    assert text == (
        f"/mnt/b takes nothing since {iso(SINCE)}: the disk is not there. "
        f"12 recordings (5.0 MB) wait, safe on this machine, the oldest of {iso(SINCE - 5)}. "
        f"It is tried again at {iso(SINCE + 60)} by itself; at once with `tapdeck queue retry`"
    )
    late = words.failure(OUT, SINCE + DAY + 1)
    assert late is not None
    assert late[1] == "critical"


def test_what_refuses_and_what_hangs() -> None:
    refusing, hung = words.failure(REFUSING, SINCE + 60), words.failure(HUNG, SINCE + 60)
    assert refusing is not None
    assert hung is not None
    assert f"/mnt/c refuses 2 recordings since {iso(SINCE + 9)}, and takes others: name too long. " in refusing[0]
    assert "/mnt/d takes nothing: no byte has moved for 121 s" in hung[0]
    assert "1 recording (0 bytes) waits, safe" in hung[0]
    assert REFUSING.failing_since == SINCE + 9


def test_outside_its_hours_a_target_is_tried_when_they_begin() -> None:
    closed = replace(OUT, opens=SINCE + 7200)
    assert closed.as_dict()["outside_hours"]
    assert closed.as_dict()["next_try"] == closed.as_dict()["opens"] == iso(SINCE + 7200)


def test_what_was_lost_is_named() -> None:
    parcels = [Parcel(f"id{n}", f"2026/11/24/r{n}", (f"2026/11/24/r{n}_info.txt",), 5, SINCE) for n in range(7)]
    jobs = [Job(n, "nas", parcel, 1) for n, parcel in enumerate(parcels)]
    found = words.lost([*jobs, Job(0, "usb", parcels[0], 1)])
    assert found is not None
    assert found[1] == "critical"
    assert found[0].startswith("files of 7 recordings have vanished from this machine before they were delivered: ")
    assert "id0 (2026/11/24/r0, not on nas); " in found[0]
    assert "; and 3 more. " in found[0]
    assert "tapdeck queue drop" in found[0]


def test_a_slow_target_is_not_hung() -> None:
    assert TargetView("/mnt/d", TargetState(), Totals(waiting=1), silent=words.STALLED_S).error == ""


@pytest.mark.parametrize("write", [words.line, words.json_line])
def test_what_strangers_named_cannot_steer_a_terminal(write: Callable[[Report], str]) -> None:
    hostile = "/mnt/x\x1b[2J\u202e\nnext"
    for outcome in ("delivered", "refused", "outage", "lost"):
        report = Report(outcome, hostile, "abcdefghij", hostile, hostile, beside=True, error=hostile)
        assert write(report).isprintable()
    assert json.loads(words.json_line(report))["event"] == "lost"


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    made = Queue(tmp_path / "queue.sqlite")
    yield made
    made.close()


class Office:
    """Couriers with threads of their own, and what they report."""

    def __init__(self, root: Path, queue: Queue, *targets: MemoryTarget, once: bool = False) -> None:
        self.reports: queues.SimpleQueue[Report] = queues.SimpleQueue()
        names = [target.name for target in targets]
        queue.want(names, again=False)
        self.parcels = [record(root, f"{letter}bcdefghij") for letter in "abc"]
        queue.add(self.parcels, names)
        self.workers = [
            Worker(Courier(target, Dispatch(target.name, queue, root)), self.reports, once) for target in targets
        ]

    def delivered(self, count: int) -> list[Report]:
        return [self.reports.get(timeout=30) for _ in range(count)]

    def end(self) -> None:
        for worker in self.workers:
            worker.stop()
        for worker in self.workers:
            worker.join(30)
            assert not worker.busy


def test_a_target_that_hangs_keeps_no_other_waiting(tmp_path: Path, queue: Queue) -> None:
    hangs, go_on = threading.Event(), threading.Event()

    def hang(step: str, content: bytes) -> bytes:
        hangs.set()
        assert go_on.wait(30)
        return content

    hung, well = FaultyTarget(hang, "hung"), MemoryTarget("well")
    office = Office(tmp_path / "recordings", queue, hung, well)
    assert hangs.wait(30)
    assert {report.target for report in office.delivered(3)} == {"well"}
    assert well.files() == everything(tmp_path / "recordings")
    time.sleep(0.02)
    assert office.workers[0].courier.silent_for() > 0.01
    office.workers[0].stop()
    office.workers[0].join(0.01)  # it cannot be ended, and nobody waits for it
    assert office.workers[0].busy
    go_on.set()
    office.end()


def test_a_single_run_ends_when_nothing_is_due(tmp_path: Path, queue: Queue) -> None:
    office = Office(tmp_path / "recordings", queue, MemoryTarget("one"), MemoryTarget("two"), once=True)
    office.delivered(6)
    for worker in office.workers:
        worker.join(30)
        assert not worker.busy


def test_a_mistake_and_a_queue_that_fails_are_told_and_pass(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tapdeck.cli.deliver_worker._RETRY_S", 0.01)
    errors: list[Exception] = [QueueError("the disk is full"), RuntimeError("a mistake")]
    seen: list[str] = []
    real = Queue.due

    def failing(self: Queue, *arguments: Any) -> list[Job]:
        if errors:
            raise errors[0]
        return real(self, *arguments)

    monkeypatch.setattr(Queue, "due", failing)
    office = Office(tmp_path / "recordings", queue, MemoryTarget("one"))
    deadline = time.monotonic() + 30
    while errors and time.monotonic() < deadline:
        trouble = office.workers[0].trouble
        if str(errors[0]) in trouble:
            seen.append(trouble)
            errors.pop(0)
    assert len(seen) == 2
    assert "RuntimeError" in seen[1]
    office.delivered(3)
    while office.workers[0].trouble and time.monotonic() < deadline:
        time.sleep(0.01)
    assert office.workers[0].trouble == ""
    office.end()


def test_several_connections_to_one_target_deliver_each_recording_once(tmp_path: Path, queue: Queue) -> None:
    root, reports = tmp_path / "recordings", queues.SimpleQueue[Report]()
    first = MemoryTarget("nas")
    queue.want(["nas"], again=False)
    parcels = [record(root, f"{chr(97 + n)}bcdefghij", ended=SINCE + n) for n in range(26)]
    dispatch = Dispatch("nas", queue, root)
    couriers = [Courier(target, dispatch) for target in (first, first.another(), first.another())]
    now = [0.0]
    crew = Crew(dispatch, couriers, reports, once=False, clock=lambda: now[0])
    queue.add(parcels, ["nas"])
    crew.wake()
    told = [reports.get(timeout=30) for _ in parcels]
    assert sorted(report.id for report in told) == [parcel.id for parcel in parcels]
    assert {report.outcome for report in told} == {"delivered"}
    assert first.files() == everything(root)
    assert (crew.silent_for, crew.trouble) == (0, "")
    now[0] = 10.0
    assert crew.rate() == dispatch.moved / 10 > 0
    crew.stop()
    crew.join(time.monotonic() + 30)
    assert not crew.busy
    assert reports.empty()
