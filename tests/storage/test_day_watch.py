"""Counters of the stages, from reports as capture writes them, through restarts and kills."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from tapdeck.storage.day_watch import DayWatch
from tapdeck.storage.ledger import Ledger
from tapdeck.storage.localtime import Zone

DAY = date(2026, 11, 24)
ZONE = Zone("Europe/Amsterdam")


class Clock:
    """The wall clock of the seal stage."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("tapdeck.storage.day_watch.time.time_ns", lambda: int(self.now * 1e9))
        self.set("12:00:00")

    def set(self, time: str, day: str = "2026-11-24") -> float:
        self.now = datetime.fromisoformat(f"{day}T{time}+01:00").timestamp()
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def watch(tmp_path: Path) -> DayWatch:
    return DayWatch(Ledger(tmp_path / "ledger.sqlite"), tmp_path, ZONE)


def iso(time: float) -> str:
    return datetime.fromtimestamp(time).astimezone().isoformat(timespec="milliseconds")


def report(folder: Path, clock: Clock, began: float, seen: int, down_since: float | None = None, **more: Any) -> None:
    """Write what capture says of itself, at the time of the clock."""
    downtime = [{"from": iso(down_since), "to": iso(began), "clean": False}] if down_since is not None else []
    content = {
        "started": iso(began),
        "packets": {"seen": seen, "in_calls": seen, "waiting": 0},
        "calls": {"seen": seen // 10, "refused": 1, "open": 7},
        "downtime": downtime,
        **more,
    }
    (folder / "capture.json").write_text(json.dumps({**content, "updated": clock.now}))


def test_both_stages_are_counted_by_day(tmp_path: Path, clock: Clock) -> None:
    one = watch(tmp_path)
    began = clock.set("12:00:00")
    report(tmp_path, clock, began, 100)
    one.look({"seen": 9, "kept": 50, "duplicate": 0, "relayed": 1, "refused": 0})
    assert one.counts.sums(DAY, "capture") == {
        "seen": 100, "in_calls": 100, "waiting": 0, "calls seen": 10, "calls refused": 1,
    }  # fmt: skip
    assert one.counts.sums(DAY, "seal") == {"kept": 50, "duplicate": 0, "relayed": 1}
    one.ledger.close()


def test_a_report_of_before_midnight_counts_for_the_day_before(tmp_path: Path, clock: Clock) -> None:
    one = watch(tmp_path)
    began = clock.set("23:00:00")
    clock.set("23:59:59")
    report(tmp_path, clock, began, 100)
    clock.set("00:00:00", "2026-11-25")
    one.look({})
    clock.set("00:00:01", "2026-11-25")
    report(tmp_path, clock, began, 130)
    one.look({})
    days = DAY, date(2026, 11, 25)
    assert [one.counts.sums(day, "capture")["seen"] for day in days] == [100, 30]
    one.ledger.close()


@pytest.mark.parametrize(("end", "gap"), [("12:00:30", False), ("12:00:45", True)])
def test_what_a_run_counted_unseen_is_said(tmp_path: Path, clock: Clock, end: str, gap: bool) -> None:
    """Capture, restarted, says when the run before it counted last."""
    one = watch(tmp_path)
    began = clock.set("12:00:00")
    clock.set("12:00:30")
    report(tmp_path, clock, began, 100)
    one.look({})
    over = clock.set(end)
    began = clock.set("12:01:00")
    report(tmp_path, clock, began, 5, down_since=over)
    one.look({})
    said = [("capture", "2026-11-24T12:00:30.000+01:00", "2026-11-24T12:00:45.000+01:00")] if gap else []
    assert one.counts.gaps_of(DAY) == said
    assert one.counts.sums(DAY, "capture")["seen"] == 105
    one.ledger.close()


def test_a_capture_that_has_run_for_days_when_counting_begins(tmp_path: Path, clock: Clock) -> None:
    began = clock.set("08:00:00", "2026-11-20")
    clock.set("12:00:00")
    report(tmp_path, clock, began, 1000)
    one = watch(tmp_path)
    one.look({})
    clock.set("12:00:10")
    report(tmp_path, clock, began, 1010)
    one.look({})
    assert one.counts.sums(DAY, "capture")["seen"] == 10
    since = datetime.fromtimestamp(began).astimezone().isoformat(timespec="milliseconds")
    assert one.counts.gaps_of(DAY) == [("capture", since, "2026-11-24T12:00:00.000+01:00")]
    one.ledger.close()


@pytest.mark.parametrize("clean", [True, False])
def test_seal_killed_and_begun_again(tmp_path: Path, clock: Clock, clean: bool) -> None:
    one = watch(tmp_path)
    began = clock.set("12:00:00")
    report(tmp_path, clock, began, 100)
    one.look({"kept": 5})
    clock.set("12:00:05")
    one.look({"kept": 9}, ended=clean)
    one.ledger.close()
    clock.set("12:10:00")
    report(tmp_path, clock, began, 700)
    two = watch(tmp_path)
    two.look({"kept": 2})
    assert two.counts.sums(DAY, "capture")["seen"] == 700
    assert two.counts.sums(DAY, "seal")["kept"] == (11 if clean else 7)
    gap = ("seal", "2026-11-24T12:00:00.000+01:00", "2026-11-24T12:10:00.000+01:00")
    assert two.counts.gaps_of(DAY) == ([] if clean else [gap])
    two.ledger.close()


def test_what_is_kept_in_the_log_is_no_longer_readable(tmp_path: Path, clock: Clock) -> None:
    assert clock.now
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.append(mark=("day counts", "nonsense"))
    ledger.close()
    one = watch(tmp_path)
    one.look({"kept": 2})
    assert one.counts.sums(DAY, "seal") == {"kept": 2}
    one.ledger.close()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"started": 1, "updated": 2}', '{"started": "x", "updated": 5, "packets": 3}']
)
def test_a_report_that_says_nothing(tmp_path: Path, clock: Clock, content: str) -> None:
    (tmp_path / "capture.json").write_text(content)
    one = watch(tmp_path)
    one.look({"kept": 2})
    assert one.counts.sums(DAY, "capture") == {}
    one.ledger.close()
