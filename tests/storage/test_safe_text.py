"""Whatever strangers put into names and numbers, file names stay legal and lines stay lines."""

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tapdeck.storage.safe_text import for_file_name, for_line, for_terminal

# Any code points, lone surrogates too, with the troublesome ones made frequent.
TROUBLE = '\\/:*?"<>|#%._~- \n\r\t\x00\x1b\x85\x9b\u2028\u2029\u202e\u2066\u200b\u200d\ufeff\ud800\u0301é'
TEXTS = st.text(st.one_of(st.sampled_from(TROUBLE), st.characters(exclude_categories=())), max_size=120)

# "Naming Files, Paths, and Namespaces" (Microsoft), and "Restrictions and limitations in OneDrive and SharePoint".
WINDOWS_RESERVED = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    device + digit for device in ("COM", "LPT") for digit in "0123456789¹²³"
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+31201234567", "+31201234567"),
        ("2002", "2002"),
        ("*21*0612", "star-21-star-0612"),
        ("*21*0612#", "star-21-star-0612-hash"),
        ("#31#", "hash-31-hash"),
        ("O'Brien & Søn", "O'Brien & Søn"),
        ("Zoë", "Zoë"),
        ("Zoe\u0308", "Zo\u00eb"),
        ("a/b\\c:d", "a-b-c-d"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "unknown"),
        ("", "unknown"),
        (" \u202e\u200b ", "unknown"),
        ("CON", "x-CON"),
        ("com1.txt", "x-com1.txt"),
        ("Aux .log", "x-Aux .log"),
        ("vti", "x-vti"),
        ("desktop.ini", "x-desktop.ini"),
        ("console", "console"),
        ("~$draft", "$draft"),
        ("with_bar", "with-bar"),
        ("one\r\ntwo", "onetwo"),
        ("name. ", "name"),
        ("\u202egpj.exe", "gpj.exe"),
        ("電話", "電話"),
    ],
)
def test_file_name_examples(text: str, expected: str) -> None:
    assert for_file_name(text) == expected


@given(TEXTS, st.integers(16, 80))
@example("CON .......... x", 16)
@example("é" * 40, 17)
def test_any_text_makes_a_legal_file_name(text: str, limit: int) -> None:
    name = for_file_name(text, limit)
    assert 1 <= len(name.encode("utf-8")) <= limit
    assert not set(name) & set('\\/:*?"<>|#%_')
    assert name[0] not in " .~-"
    assert name[-1] not in " .~-"
    assert name.partition(".")[0].rstrip().upper() not in WINDOWS_RESERVED
    assert not any(unicodedata.category(char)[0] == "C" for char in name)
    assert unicodedata.is_normalized("NFC", name)


@given(TEXTS)
def test_a_file_name_made_safe_stays_as_it_is(text: str) -> None:
    once = for_file_name(text)
    assert for_file_name(once) == once


@given(TEXTS)
def test_the_file_system_takes_it_and_keeps_it_in_its_folder(text: str) -> None:
    root = Path("/root")
    assert (root / for_file_name(text)).resolve().parent == root


def test_a_limit_too_small_for_any_name_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="less than 16"):
        for_file_name("x", 8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Alice", "Alice"),
        ("  Alice ", "Alice"),
        ("Alice\r\nCallee: 112", "Alice  Callee: 112"),
        ("one\u2028two\u2029three\u0085four", "one two three four"),
        ("\x1b[31mred\x07", "\ufffd[31mred\ufffd"),
        ("\x9b2J", "\ufffd2J"),
        ("abc\u202edef\u2069", "abcdef"),
        ("\ud83d", "\ufffd"),
        ("Z\u00fcrich", "Zürich"),
    ],
)
def test_line_examples(text: str, expected: str) -> None:
    assert for_line(text) == expected


@given(TEXTS, st.sampled_from([for_line, for_terminal]))
def test_any_text_makes_one_line_without_controls(text: str, make_safe: "type[str]") -> None:
    line = make_safe(text)
    assert len(line.splitlines()) <= 1
    assert line == line.strip()
    assert not re.search("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", line)
    line.encode("utf-8")
    assert make_safe(line) == line


@given(st.integers(1, 50), st.integers(0, 200))
def test_a_long_line_is_cut_and_shows_it(limit: int, length: int) -> None:
    line = for_line("x" * length, limit)
    assert len(line) == min(length, limit)
    assert line.endswith("…") == (length > limit)
