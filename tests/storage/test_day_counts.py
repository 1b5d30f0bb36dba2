from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.storage.day_counts import DayCounts, Run, from_text, to_text

DAYS = [date(2026, 11, day) for day in (22, 23, 24, 25)]


def run(began: str, seen: int, stage: str = "capture") -> Run:
    return Run(stage, began, {"seen": seen}, "2026-11-24T12:00:00+01:00")


def test_a_run_over_midnight_counts_for_each_day_what_it_counted_on_it() -> None:
    counts = DayCounts()
    for day, seen in zip(DAYS, (100, 250, 250, 400), strict=True):
        counts.look(day, run("a", seen))
    assert [counts.sums(day, "capture")["seen"] for day in DAYS] == [100, 150, 0, 150]


def test_each_run_begins_at_nought() -> None:
    counts = DayCounts()
    counts.look(DAYS[0], run("a", 100))
    counts.look(DAYS[1], run("a", 130))
    counts.look(DAYS[1], run("b", 7))
    counts.look(DAYS[1], run("c", 5, stage="seal"))
    assert counts.sums(DAYS[1], "capture") == {"seen": 37}
    assert counts.sums(DAYS[1], "seal") == {"seen": 5}


def test_a_day_without_a_look_moves_its_counts_to_the_next_and_loses_none() -> None:
    counts = DayCounts()
    counts.look(DAYS[0], run("a", 100))
    counts.forget(DAYS[2])
    counts.look(DAYS[3], run("a", 175))
    assert counts.sums(DAYS[2], "capture") == {}
    assert counts.sums(DAYS[3], "capture") == {"seen": 75}


def test_what_is_forgotten_changes_no_later_day() -> None:
    counts = DayCounts()
    for day, seen in zip(DAYS, (100, 250, 300, 400), strict=True):
        counts.look(day, run("a", seen))
        counts.look(day, run(f"seal {day}", 1, stage="seal"))
        counts.gap(day, "seal", "x", "y")
    counts.forget(DAYS[2])
    assert DAYS[0].isoformat() not in counts.runs
    assert counts.gaps_of(DAYS[1]) == []
    assert counts.gaps_of(DAYS[2]) == [("seal", "x", "y")]
    assert counts.sums(DAYS[3], "capture") == {"seen": 100}


@given(st.lists(st.tuples(st.sampled_from(DAYS), st.integers(0, 50), st.booleans(), st.booleans()), max_size=60))
def test_the_days_add_up_to_what_was_counted(steps: list[tuple[date, int, bool, bool]]) -> None:
    """However often it is looked at, and wherever a process ends and another reads back what it kept."""
    counts, total, runs, seen = DayCounts(), 0, 0, 0
    for day, more, restart, reread in sorted(steps, key=lambda step: step[0]):
        if restart:
            runs, seen = runs + 1, 0
        total, seen = total + more, seen + more
        counts.look(day, run(str(runs), seen))
        if reread:
            counts = from_text(to_text(counts))
    assert sum(counts.sums(day, "capture").get("seen", 0) for day in DAYS) == total


@pytest.mark.parametrize(
    "text", ["x", "[]", "{}", '{"runs": {"2026-11-24": [[1]]}, "gaps": {}}', '{"runs": 1, "gaps": 2}']
)
def test_no_counts(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any: the text is ours
        from_text(text)
