"""What a run prints of its calls and packets."""

import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

import tapdeck
from tapdeck.cli.report import MAX_TABLE, CallLine, Reporter, Summary, call_json, call_line

START = datetime(2026, 11, 22, 14, 3, 5, 123456, tzinfo=timezone(timedelta(hours=1)))
CALL = CallLine("abcdefghij", START, "+31201234567", "2002", "in", 133.4, "PCMA", "recorded", "BYE by caller")
SUMMARY = Summary(
    packets={"seen": 1094, "kept": 1055, "signalling": 39, "refused": 0},
    packet_kinds={"signalling": {"SIP": 9, "RTCP": 30}},
    calls={"seen": 2, "recorded": 1, "without_media": 1},
    damaged=["a.pcap: cut in a record"],
    warnings=["the clock steps back"],
)
TEXTS = st.text(st.one_of(st.sampled_from("\x1b\x9b\n\r\u2028\u202e[]電\u0301"), st.characters(exclude_categories=())))
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def test_a_line_of_a_call() -> None:
    line = call_line(CALL)
    assert re.split(" {2,}", line) == [
        "14:03:05",
        "+31201234567",
        "-> 2002",
        "in",
        "0:02:13",
        "PCMA",
        "BYE by caller",
        "ok",
    ]


@given(TEXTS, TEXTS, TEXTS, st.floats(0, 1e6))
def test_no_text_breaks_the_line_or_the_terminal(caller: str, reason: str, note: str, duration: float) -> None:
    call = CallLine("a", START, caller, caller, reason, duration, caller, reason, reason, notes=(note,))
    for width in (None, 60, 120):
        assert not CONTROLS.search(call_line(call, width))


@given(st.text("ab +電話\u0301", max_size=40), st.text("ab 電", max_size=40), st.integers(60, 200))
def test_a_line_fits_the_terminal(caller: str, note: str, width: int) -> None:
    call = CallLine("a", START, caller, caller, note, 1.0, caller, note, note, notes=(note,))
    assert cell_len(call_line(call, width)) <= width


@given(TEXTS, TEXTS)
def test_json_is_one_safe_line(caller: str, note: str) -> None:
    line = call_json(CallLine("a", START, caller, "2002", notes=(note, note)))
    assert not CONTROLS.search(line)
    assert json.loads(line)["callee"] == "2002"


def test_json_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(as_json=True)
    reporter.call(CALL)
    reporter.finish(SUMMARY)
    call, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert call["start"] == "2026-11-22T14:03:05.123+01:00"
    assert (call["id"], call["caller"], call["duration_s"], call["files"]) == ("abcdefghij", "+31201234567", 133.4, [])
    assert summary["summary"]["packets"]["kept"] == 1055
    assert summary["summary"]["packet_kinds"] == {"signalling": {"SIP": 9, "RTCP": 30}}
    assert summary["summary"]["unaccounted"] == {"packets": 0, "calls": 0}
    assert summary["summary"]["damaged"] == ["a.pcap: cut in a record"]


def test_the_tables_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    reporter.call(CALL)
    reporter.finish(SUMMARY)
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["kept", "1,055"] in rows
    assert ["signalling", "39", "SIP", "9,", "RTCP", "30"] in rows
    assert ["seen", "1,094"] in rows
    assert ["without", "media", "1"] in rows
    assert "refused" not in out
    assert "UNACCOUNTED" not in out
    assert "damaged: a.pcap: cut in a record" in out
    assert "warning: the clock steps back" in out
    assert out.count("+31201234567") == 2


def test_a_gap_in_the_books_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter().finish(Summary(packets={"seen": 10, "kept": 7}, calls={"seen": 1, "recorded": 2}))
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert ["UNACCOUNTED", "3"] in rows
    assert ["UNACCOUNTED", "-1"] in rows


def test_a_long_run_keeps_a_bounded_table(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    for _ in range(MAX_TABLE + 5):
        reporter.call(CALL)
    reporter.finish(SUMMARY)
    out = capsys.readouterr().out
    assert "and 5 more calls" in out
    assert out.count("+31201234567") == 2 * MAX_TABLE + 5


TERMINAL_CODE = """
import sys
from datetime import UTC, datetime
from tapdeck.cli.progress import ProgressBar
from tapdeck.cli.report import CallLine, Reporter, Summary
reporter = Reporter()
with ProgressBar(100) as bar:
    bar.update(50, 1234, 1)
    reporter.call(CallLine("abcdefghij", datetime(2026, 11, 22, tzinfo=UTC), "[red]Eve\\x1b[5m", "2002"))
reporter.finish(Summary(packets={"seen": 1, "kept": 1}, calls={"seen": 1, "recorded": 1}))
print("rich" in sys.modules)
"""


def run_code(terminal: bool) -> str:
    """Run it with a terminal of 100 columns for its output, or with a pipe."""
    source = str(Path(tapdeck.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
    command = [sys.executable, "-c", TERMINAL_CODE]
    if not terminal:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        output = b""
        while True:
            try:
                block = os.read(ours, 4096)
            except OSError:  # the other side has closed
                break
            output += block
        assert process.wait() == 0
    os.close(ours)
    return output.decode("utf-8")


def test_a_terminal_gets_a_bar_and_tables() -> None:
    shown = run_code(terminal=True)
    assert "1,234 packets" in shown
    assert "[red]Eve\ufffd[5m" in shown
    assert "\x1b[5m" not in shown
    assert "─────" in shown
    assert shown.rstrip().endswith("True")


def test_without_a_terminal_there_is_plain_text_and_no_rich() -> None:
    shown = run_code(terminal=False)
    assert shown.startswith("00:00:00  [red]Eve\ufffd[5m")
    assert "\x1b" not in shown
    assert "packets " not in shown.splitlines()[0]
    assert shown.rstrip().endswith("False")


def test_start_times_show_their_own_zone() -> None:
    assert call_line(CallLine("a", START.astimezone(UTC), "1", "2")).startswith("13:03:05")
