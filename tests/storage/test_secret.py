"""A secret shows itself to nobody who does not ask for it by name."""

import json
import logging
import traceback
from dataclasses import dataclass

import pytest

from tapdeck.storage.secret import Secret

TEXT = "correct horse: battery % {staple}"


@dataclass(frozen=True)
class Holder:
    secret: Secret


@pytest.mark.parametrize(
    "show", [str, repr, "{}".format, "{!r}".format, "%s".__mod__, lambda one: f"{[one]} {Holder(one)}"]
)
def test_whatever_shows_it_shows_nothing(show: object) -> None:
    assert callable(show)
    shown = show(Secret(TEXT))
    assert "***" in shown
    assert "horse" not in shown


def test_nor_does_a_log_or_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(TEXT)
    logging.getLogger("tapdeck").warning("with %s and %r", secret, secret)
    try:
        raise ValueError(secret)
    except ValueError:
        text = traceback.format_exc()
    assert "horse" not in caplog.text + text


def test_nor_json() -> None:
    with pytest.raises(TypeError):
        json.dumps({"secret": Secret(TEXT)})


def test_who_asks_gets_it() -> None:
    assert Secret(TEXT).reveal() == TEXT


def test_two_are_alike_by_what_they_hold() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
