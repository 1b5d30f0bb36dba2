"""The book of alarms: from events and reports to what people are told."""

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tapdeck.storage.alarm_book import MOST_ACTIVE, MOST_PAST, Book, Change, Seen

NOW = 1_700_000_000.0
HOLD_S = 600.0


def event(kind: str, at: float, code: str = "NO_TRAFFIC", about: str = "", **more: str) -> dict[str, Any]:
    when = datetime.fromtimestamp(at, UTC).isoformat()
    return {"time": when, "event": kind, "stage": "capture", "code": code, "about": about, "text": "why", **more}


def report(at: float, *codes: str, severity: str = "warning", stage: str = "capture") -> dict[str, Seen]:
    alarms = tuple({"code": code, "about": "", "severity": severity, "text": f"at {at:.0f}"} for code in codes)
    return {stage: Seen(at, alarms)}


def kinds(changes: list[Change]) -> list[tuple[str, str]]:
    return [(one.kind, one.entry.code) for one in changes]


def test_an_event_raises_and_ends_an_alarm() -> None:
    book = Book(HOLD_S)
    [raised] = book.event(event("alarm", NOW, severity="critical"))
    assert (raised.kind, raised.at, raised.entry.severity, raised.entry.state) == ("raised", NOW, "critical", "active")
    assert not book.event(event("alarm over", NOW + 60)), "it may come again"
    assert not book.settle(NOW + 60 + HOLD_S - 1)
    [over] = book.settle(NOW + 60 + HOLD_S)
    assert (over.kind, over.entry.over, over.entry.state) == ("over", NOW + 60, "cleared")
    assert over.entry.id == raised.entry.id
    assert not book.active
    assert book.past == [over.entry]


def test_report_and_event_of_the_same_alarm_are_one() -> None:
    book = Book(HOLD_S)
    assert kinds(book.event(event("alarm", NOW))) == [("raised", "NO_TRAFFIC")]
    assert not book.reports(report(NOW + 1)), "a report that was made before the event"
    assert not book.event(event("alarm", NOW)), "a log that is read again"
    for second in range(2, 9):
        assert not book.reports(report(NOW + second, "NO_TRAFFIC"))
    [entry] = book.active.values()
    assert entry.over is None
    assert entry.times == 1
    assert entry.text == f"at {NOW + 8:.0f}", "its newest words"


def test_an_alarm_that_flaps_is_one_alarm() -> None:
    book, changes = Book(HOLD_S), list[Change]()
    for minute in range(60):
        changes += book.reports(report(NOW + minute * 60, *(["NO_TRAFFIC"] if minute % 2 else [])))
        changes += book.settle(NOW + minute * 60)
    assert kinds(changes) == [("raised", "NO_TRAFFIC")]
    changes = book.reports(report(NOW + 3600)) + book.settle(NOW + 3600 + HOLD_S)
    assert kinds(changes) == [("over", "NO_TRAFFIC")]
    assert changes[0].entry.times == 30


def test_after_it_has_rested_it_is_a_new_one() -> None:
    book = Book(HOLD_S)
    book.event(event("alarm", NOW))
    book.event(event("alarm over", NOW + 10))
    changes = book.event(event("alarm", NOW + 10 + HOLD_S))
    assert kinds(changes) == [("over", "NO_TRAFFIC"), ("raised", "NO_TRAFFIC")]
    assert changes[0].entry.id != changes[1].entry.id


def test_another_severity_is_told_once() -> None:
    book = Book(HOLD_S)
    book.reports(report(NOW, "DISK_LOW"))
    changes = book.reports(report(NOW + 5, "DISK_LOW", severity="critical"))
    assert kinds(changes) == [("changed", "DISK_LOW")]
    assert changes[0].entry.severity == "critical"
    assert not book.reports(report(NOW + 10, "DISK_LOW", severity="critical"))


def test_a_stage_that_says_nothing_keeps_its_alarms() -> None:
    book = Book(HOLD_S)
    book.reports(report(NOW, "NO_TRAFFIC"))
    book.reports(report(NOW + 9999, "DISK_LOW", stage="deliver"))
    assert not book.settle(NOW + 9999)
    assert {one.code for one in book.active.values() if one.over is None} == {"NO_TRAFFIC", "DISK_LOW"}


def test_acknowledged_until_it_is_over() -> None:
    book = Book(HOLD_S)
    for about in ("nas", "office"):
        book.event(event("alarm", NOW, "DELIVER_FAILED", about))
    changes = book.acknowledge("DELIVER_FAILED", "nas", "An\x1b[2Jna\n", "called IT", NOW + 5)
    assert [(one.kind, one.entry.about, one.entry.state) for one in changes] == [
        ("acknowledged", "nas", "acknowledged")
    ]
    assert "\x1b" not in changes[0].entry.by
    assert "\n" not in changes[0].entry.by
    assert not book.acknowledge("DELIVER_FAILED", "nas", "Bert", "", NOW + 6), "the first one has it"
    assert not book.acknowledge("NO_TRAFFIC", None, "Bert", "", NOW + 6)
    assert [one.entry.about for one in book.acknowledge("DELIVER_FAILED", None, "Bert", "", NOW + 6)] == ["office"]
    book.event(event("alarm over", NOW + 60, "DELIVER_FAILED", "nas"))
    [over] = book.settle(NOW + 60 + HOLD_S)
    assert (over.entry.state, over.entry.note) == ("cleared", "called IT")
    [raised] = book.event(event("alarm", NOW + 2000, "DELIVER_FAILED", "nas"))
    assert raised.entry.state == "active"


def test_what_is_shown_to_a_hook() -> None:
    [raised] = Book(HOLD_S).event(event("alarm", NOW, "DELIVER_FAILED", "nas", severity="critical"))
    shown = json.loads(json.dumps(raised.shown()))
    assert (shown["event"], shown["code"], shown["about"], shown["stage"]) == (
        "alarm raised",
        "DELIVER_FAILED",
        "nas",
        "capture",
    )
    assert datetime.fromisoformat(shown["since"]).timestamp() == NOW
    assert (shown["state"], shown["cleared"], shown["acknowledged"]) == ("active", None, None)


def test_what_is_no_event_of_an_alarm_changes_nothing() -> None:
    book = Book(HOLD_S)
    for bad in (
        {},
        {"event": "alarm"},
        {"event": "alarm", "time": 5},
        {"event": "call", "time": "2026-11-24T00:00:00Z"},
    ):
        assert not book.event(bad)
    assert not book.event(event("alarm over", NOW))
    assert book == Book(HOLD_S)


def test_there_is_room_for_so_many_and_no_more() -> None:
    book = Book(HOLD_S)
    for number in range(MOST_ACTIVE + 5):
        book.event(event("alarm", NOW, about=f"{number}"))
    assert (len(book.active), book.refused) == (MOST_ACTIVE, 5)


CODES = ("NO_TRAFFIC", "DISK_LOW", "DELIVER_FAILED")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("alarm", "alarm over", "report", "ack", "settle")),
        st.sets(st.sampled_from(CODES), max_size=3),
        st.sampled_from((0.0, 1.0, 3.0, 100.0, 601.0, -50.0, -4000.0)),
        st.sampled_from(("warning", "critical")),
    ),
    max_size=80,
)


@given(STEPS)
def test_any_sequence_gives_consistent_transitions(steps: list[tuple[str, set[str], float, str]]) -> None:
    """raised -> (changed | acknowledged)* -> over, for each alarm, whatever clocks do; and a file holds all of it."""
    book, now, told = Book(HOLD_S), NOW, dict[str, list[str]]()
    for what, codes, more, severity in [*steps, ("end", set(), 0.0, "")]:
        now += more
        changes: list[Change] = []
        if what in ("alarm", "alarm over"):
            for code in sorted(codes):
                changes += book.event(event(what, now, code, severity=severity))
        elif what == "report":
            changes += book.reports(report(now, *sorted(codes), severity=severity))
        elif what == "ack":
            for code in sorted(codes):
                changes += book.acknowledge(code, None, "Anna", "", now)
        elif what == "end":
            for after in range(0, 20_000, 100):  # all is quiet
                changes += book.reports(report(now + after)) + book.settle(now + after)
        changes += book.settle(now) if what == "settle" else []
        for one in changes:
            told.setdefault(one.entry.code, []).append(one.kind)
        again = Book.of(json.loads(json.dumps(book.as_json())))
        again.hold_s = HOLD_S
        assert again == book
        assert len(book.active) <= len(CODES)
        assert len(book.past) <= MOST_PAST
    assert not book.active, "in the end all is over"
    for found in told.values():
        open_ = acknowledged = False
        for kind in found:
            assert open_ == (kind != "raised"), found
            assert not (kind == "acknowledged" and acknowledged), found
            acknowledged = open_ and (acknowledged or kind == "acknowledged") and kind != "over"
            open_ = kind != "over"
        assert not open_, "who was told that it began is told that it is over"
