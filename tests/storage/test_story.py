"""Stories put together from info files: what one call knew and the other did not, and files that are none of ours."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sniffer.ties import How
from tapdeck.storage import info
from tapdeck.storage.story import MAX_CALLS, Told, archived, story_of, told
from tapdeck.storage.talks import talks

START = datetime(2026, 3, 2, 10, tzinfo=UTC)
KEYS = (
    "Datetime",
    "End",
    "Answered",
    "RecordingId",
    "CallId",
    "RelatedCalls",
    "Relation",
    "Transfer",
    "Hold",
    "Forwarded",
)
WORDS = st.sampled_from(
    [
        "no",
        "2026-03-02T10:00:00.000+00:00",
        "2026-03-02T10:00:00",
        "abc",
        "held by caller at 2026-03-02T10:00:01+00:00",
        "",
    ]
)


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def call(name: str, begin: float, end: float, *more: tuple[str, str], parties: tuple[str, str] = ("1", "2")) -> Told:
    lines = [("Datetime", at(begin)), ("End", at(end)), ("RecordingId", name), ("CallId", f"{name}@x")]
    lines += [("Caller", parties[0]), ("Callee", parties[1]), ("Answered", at(begin + 1)), *more]
    made = told(lines)
    assert made is not None
    return made


def test_what_only_the_later_call_says_holds_for_both() -> None:
    first, second = (
        call("a", 0, 10),
        call("b", 9, 20, ("RelatedCalls", "a (a@x)"), ("Relation", "a transferred from (by 2)")),
    )
    stranger = call("c", 0, 10)
    for which in ("a", "a@x", "b", "b@x"):
        story = story_of(which, [second, stranger, first])
        assert story is not None
        assert [one.id for one in story.calls] == ["a", "b"]
        assert story.calls[0].related == {"b": ("transferred to", "2")}
        assert story.calls[1].related == {"a": ("transferred from", "2")}
    assert story_of("nobody", [first]) is None


def test_calls_that_name_each_other_by_call_id_only() -> None:
    first = call(
        "a", 0, 10, ("Transfer", f"attended by callee to 3 at {at(8)} (+7.0s) answer=202 outcome=200 replaces=b@x")
    )
    asked, last = call("b", 3, 10), call("c", 9, 20, ("Replaces", "b@x (early only)"))
    years = call("b", 9e6, 9e6 + 5)
    years.id = "z"
    story = story_of("a", [first, asked, last, years])
    assert story is not None
    assert [one.id for one in story.calls] == ["a", "b", "c"]
    assert story.calls[1].related == {"a": ("consultation for", ""), "c": ("replaced by", "")}


def test_parts_of_one_recording_belong_together() -> None:
    parts = [call("a", 0, 10), call("b", 10, 20, ("ContinuationOf", "a"))]
    story = story_of("b", parts)
    assert story is not None
    assert [one.id for one in story.calls] == ["a", "b"]


def test_who_spoke_when_leaves_out_holds() -> None:
    holds = [
        ("Hold", f"{what} by {who} at {at(when)} (+0.000s)")
        for what, who, when in (
            ("held", "caller", 3),
            ("held", "callee", 4),
            ("resumed", "caller", 5),
            ("resumed", "callee", 6),
        )
    ]
    story = story_of("a", [call("a", 0, 10, *holds)])
    assert story is not None
    assert [(talk.begin, talk.end) for talk in talks(story.calls)] == [
        (START + timedelta(seconds=1), START + timedelta(seconds=3)),
        (START + timedelta(seconds=6), START + timedelta(seconds=10)),
    ]


def test_legs_are_one_talk_between_the_outer_ends() -> None:
    outer = call("a", 0, 10, ("Relation", "b inner leg"), parties=("caller", "pbx"))
    middle = call("b", 0.1, 10, ("Relation", "c inner leg"), parties=("pbx", "gateway"))
    inner = call("c", 0.2, 10, parties=("gateway", "callee"))
    story = story_of("b", [outer, middle, inner])
    assert story is not None
    assert [(talk.caller, talk.callee, talk.at) for talk in talks(story.calls)] == [("caller", "callee", 2)]


def test_what_is_named_and_not_there_is_said() -> None:
    story = story_of("a", [call("a", 0, 10, ("RelatedCalls", "gone (x@y), b (b@x)")), call("b", 0, 10)])
    assert story is not None
    assert story.missing == ["gone"]


def test_a_story_has_an_end() -> None:
    chain = [
        call(name, n, n + 1, ("Relation", f"{names(n + 1)} same call")) for n, name in enumerate(map(names, range(700)))
    ]
    random.Random(1).shuffle(chain)
    story = story_of(names(0), chain)
    assert story is not None
    assert len(story.calls) == MAX_CALLS


def names(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in f"{number:04d}")


def test_every_relation_has_its_other_way() -> None:
    for how in How:
        assert how.other_way.other_way is how


@given(st.lists(st.tuples(st.sampled_from(KEYS), WORDS | st.text(max_size=40)), max_size=12))
def test_lines_of_all_kinds_raise_nothing(lines: list[tuple[str, str]]) -> None:
    one = told(lines)
    if one is not None:
        story = story_of(one.id, [one, call("a", 0, 1)])
        assert story is not None
        assert all(talk.begin < talk.end for talk in talks(story.calls))


def test_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    whole = info.render([("Datetime", at(0)), ("End", at(1)), ("RecordingId", "a"), ("CallId", "x")])
    for name, content in (("a", whole), ("b", whole[:-4]), ("c", b"\xff\n"), ("d", b"Datetime: yesterday\n")):
        (tmp_path / f"{name}_info.txt").write_bytes(content)
    (tmp_path / "a.wav").write_bytes(b"")
    found = list(archived([tmp_path]))
    assert found.count(None) == 3
    (one,) = [each for each in found if each is not None]
    assert [path.name for path in one.files] == ["a.wav", "a_info.txt"]


# -- transfers at a PBX ------------------------------------------------------------------------------------------------


def spoken(*calls: Told) -> list[tuple[str, str, float, float]]:
    story = story_of(calls[0].id, calls)
    assert story is not None
    return [
        (talk.caller, talk.callee, (talk.begin - START).total_seconds(), (talk.end - START).total_seconds())
        for talk in talks(story.calls)
    ]


def refer(when: float, kind: str = "blind", by: str = "callee") -> tuple[str, str]:
    return "Transfer", f"{kind} by {by} to cid at {at(when)} (+0.000s) answer=202 outcome=200"


def test_a_pbx_joins_the_legs_of_two_calls() -> None:
    """Bob speaks with Ann, then with Cid, each through the PBX, and joins them: no further call begins."""
    outer = call("a", 0, 30, ("Relation", "b inner leg"), parties=("ann", "bob"))
    inner = call("b", 0.1, 10, refer(9, "attended"), ("Relation", "c consultation (by bob)"), parties=("ann", "bob"))
    asks = call("c", 5, 9.5, ("Relation", "d inner leg"), parties=("bob", "cid"))
    asked = call("d", 5.1, 29, parties=("bob", "cid"))
    assert spoken(outer, inner, asks, asked) == [
        ("ann", "bob", 1.1, 10.0),
        ("bob", "cid", 6.1, 9.5),
        ("ann", "cid", 9.5, 29.0),
    ]


def test_a_pbx_calls_on_for_who_stays() -> None:
    outer = call("a", 0, 30, ("Relation", "b inner leg"), parties=("ann", "bob"))
    inner = call("b", 0.1, 10, refer(9), parties=("ann", "bob"))
    third = call("c", 9.1, 29, ("Relation", "b transferred from (by bob)"), parties=("pbx", "cid"))
    assert spoken(outer, inner, third) == [("ann", "bob", 1.1, 10.0), ("ann", "cid", 10.1, 29.0)]


def test_who_called_may_send_on_who_was_called() -> None:
    outer = call("a", 0, 10, refer(9, by="caller"), ("Relation", "b inner leg"), parties=("ann", "bob"))
    inner = call("b", 0.1, 30, parties=("ann", "bob"))
    third = call("c", 9.1, 29, ("Relation", "a transferred from (by ann)"), parties=("pbx", "cid"))
    assert spoken(outer, inner, third) == [("ann", "bob", 1.1, 10.0), ("bob", "cid", 10.1, 29.0)]
