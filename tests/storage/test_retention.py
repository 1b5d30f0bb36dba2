"""How long recordings stay here, as people write it."""

import pytest

from tapdeck.storage.retention import DAY_S, RetentionError, keep_local


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("0", 0),
        ("30d", 30),
        ("1 day", 1),
        ("2 weeks", 14),
        ("6 months", 186),
        ("1 year", 366),
        ("10y", 3660),
        ("12 h", 0.5),
        (" 90 days ", 90),
    ],
)
def test_a_time(text: str, days: float) -> None:
    assert keep_local(text) == days * DAY_S


def test_while_there_is_room() -> None:
    assert keep_local("") is None


@pytest.mark.parametrize("text", ["30", "d", "1.5d", "-1d", "forever", "30 m", "1 month 2 days", "30D"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(RetentionError, match="30d"):
        keep_local(text)
