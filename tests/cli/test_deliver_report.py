"""What the deliver stage says, and its threads: a target that hangs or is mistaken keeps no other waiting."""

import json
import queue as queues
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tapdeck.cli import deliver_report as words
from tapdeck.cli.deliver_report import TargetView
from tapdeck.cli.deliver_worker import Worker
from tapdeck.storage.courier import Courier, Report
from tapdeck.storage.queue import Queue, QueueError, TargetState, Totals
from tests.support.faulty import FaultyTarget, MemoryTarget
from tests.support.parcels import everything, record

SINCE = 1_795_000_000.0
DAY = 86_400.0
WELL = TargetView("/mnt/a", TargetState(known=True), Totals(confirmed=7))
OUT = TargetView(
    "/mnt/b", TargetState(True, 3, SINCE + 60, SINCE, "the disk is not there"), Totals(waiting=12, oldest=SINCE - 5)
)
REFUSING = TargetView(
    "/mnt/c", TargetState(), Totals(waiting=3, failing=2, failing_since=SINCE + 9, error="name too long", oldest=SINCE)
)
HUNG = TargetView("/mnt/d", TargetState(), Totals(waiting=1, oldest=SINCE), silent=words.STALLED_S + 1)


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def test_all_is_well() -> None:
    assert words.failure([WELL], SINCE) is None
    assert words.name_taken([WELL]) is None
    assert WELL.as_dict() == {
        "name": "/mnt/a",
        "waiting": 0,
        "confirmed": 7,
        "failing_since": None,
        "error": None,
        "refused": 0,
        "beside": 0,
        "oldest_waiting": None,
        "next_try": None,
    }


def test_an_outage_says_what_since_when_what_waits_and_becomes_critical() -> None:
    found = words.failure([WELL, OUT], SINCE + 3600)
    assert found is not None
    text, severity = found
    assert severity == "warning"
    assert text == (
        f"/mnt/b takes nothing since {iso(SINCE)}: the disk is not there. "
        f"12 recordings wait, safe on this machine, the oldest of {iso(SINCE - 5)}"
    )
    late = words.failure([WELL, OUT], SINCE + DAY + 1)
    assert late is not None
    assert late[1] == "critical"


def test_several_targets_are_all_told() -> None:
    found = words.failure([OUT, REFUSING, HUNG], SINCE + 60)
    assert found is not None
    assert "/mnt/b takes nothing" in found[0]
    assert f"/mnt/c refuses 2 recordings since {iso(SINCE + 9)}: name too long" in found[0]
    assert "/mnt/d takes nothing: no byte has moved for 121 s" in found[0]
    assert REFUSING.failing_since == SINCE + 9


def test_a_slow_target_is_not_hung() -> None:
    assert TargetView("/mnt/d", TargetState(), Totals(waiting=1), silent=words.STALLED_S).error == ""


@pytest.mark.parametrize("write", [words.line, words.json_line])
def test_what_strangers_named_cannot_steer_a_terminal(write: Callable[[Report], str]) -> None:
    hostile = "/mnt/x\x1b[2J\u202e\nnext"
    for outcome in ("delivered", "refused", "outage"):
        report = Report(outcome, hostile, "abcdefghij", hostile, hostile, beside=True, error=hostile)
        assert write(report).isprintable()
    assert json.loads(words.json_line(report))["event"] == "outage"


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
        self.workers = [Worker(Courier(target, queue, root), self.reports, once) for target in targets]

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
    real = Queue.next

    def failing(self: Queue, target: str, now: float) -> object:
        if errors:
            raise errors[0]
        return real(self, target, now)

    monkeypatch.setattr(Queue, "next", failing)
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
