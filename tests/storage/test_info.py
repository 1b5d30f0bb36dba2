"""The text file beside a recording: nothing that a stranger wrote can make a second line or another key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.storage.info import MAX_SIZE, InfoError, parse, render
from tapdeck.storage.safe_text import for_line

KEYS = st.from_regex(r"[A-Z][A-Za-z0-9]{0,8}(-[A-Z][a-z]{0,6})?", fullmatch=True)
TRICKY = st.sampled_from("\n\r\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e: \x00\x1b\ud800")
VALUES = st.text(st.one_of(TRICKY, st.characters(exclude_categories=())), max_size=80)


def test_the_format_is_as_documented() -> None:
    pairs = [("CallId", "a@b"), ("CallerName", "Zoë"), ("Gap", "caller 1.0"), ("Gap", "callee 2.0"), ("Note", "")]
    assert render(pairs) == "CallId: a@b\nCallerName: Zoë\nGap: caller 1.0\nGap: callee 2.0\nNote:\n".encode()


def test_a_name_cannot_forge_a_key() -> None:
    content = render([("CallerName", "Eve\r\nCaller: +31201234567"), ("Caller", "2001")])
    assert content == b"CallerName: Eve  Caller: +31201234567\nCaller: 2001\n"
    assert [value for key, value in parse(content) if key == "Caller"] == ["2001"]


@given(st.lists(st.tuples(KEYS, VALUES), max_size=8))
def test_one_line_a_pair_whatever_the_values(pairs: list[tuple[str, str]]) -> None:
    content = render(pairs)
    lines = content.decode("utf-8").splitlines()  # by every line break that Unicode knows
    assert [line.partition(":")[0] for line in lines] == [key for key, _ in pairs]
    assert parse(content) == [(key, for_line(value)) for key, value in pairs]


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(content: bytes) -> None:
    try:
        pairs = parse(content)
    except InfoError:
        return
    assert len(pairs) == content.count(b"\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Key: value", "last line is cut"),
        (b"Good: 1\nno colon\n", "line 2"),
        (b"lower: 1\n", "line 1"),
        (b"Good: \xff\n", "not UTF-8 at byte 6"),
        (b"\n", "line 1"),
        (b"A: 1\n" * MAX_SIZE, "too many"),
    ],
)
def test_damage_is_named(content: bytes, message: str) -> None:
    with pytest.raises(InfoError, match=message):
        parse(content)


@pytest.mark.parametrize("key", ["", "lower", "With space", "Colon:", "New\nline", "Dash-", "Dash-lower"])
def test_a_wrong_key_is_our_mistake(key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        render([(key, "x")])
