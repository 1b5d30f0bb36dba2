"""`tapdeck report coverage`: who was never heard."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tapdeck.cli.coverage import Parties, covered
from tapdeck.cli.exit_codes import ExitCode, Health
from tapdeck.cli.main import cli
from tapdeck.storage import state
from tests.support.record import REPOSITORY

LAB = REPOSITORY / "fixtures" / "lab"


def coverage(*args: str | Path, folder: Path, extensions: str = "2001,2002") -> Result:
    env = {"TAPDECK_STORAGE_STATE": str(folder), "TAPDECK_OWN_EXTENSIONS": extensions}
    return CliRunner(env=env).invoke(cli, ["report", "coverage", *map(str, args)])


def log(folder: Path, caller: str, callee: str, started: str = "2026-11-24T09:00:00+01:00", **more: Any) -> None:
    assert state.append(
        folder, "call", id="x", outcome="recorded", caller=caller, callee=callee, started=started, **more
    )


def test_an_extension_that_was_never_seen(tmp_path: Path) -> None:
    log(tmp_path, "2001", "+31201234567")
    log(tmp_path, "+31201234567", "2001", "2026-11-25T10:00:00+01:00")
    state.append(tmp_path, "alarm", code="X", caller="2002")
    done = coverage(folder=tmp_path)
    assert done.exit_code == Health.AMBER
    assert "2 calls; 1 of 2 known extensions seen" in done.stdout
    assert "2001  2 calls, last 2026-11-25" in done.stdout
    assert "2002  NEVER SEEN" in done.stdout


def test_all_were_seen(tmp_path: Path) -> None:
    log(tmp_path, "2001", "2002")
    done = coverage("--json", folder=tmp_path)
    found = json.loads(done.stdout)
    assert (done.exit_code, found["calls"], found["never_seen"]) == (Health.GREEN, 1, [])
    assert found["extensions"][0] == {
        "extension": "2001",
        "calls": 1,
        "last": "2026-11-24T09:00:00+01:00",
        "numbers": ["2001"],
    }


def test_patterns_and_ways_to_write_a_number(tmp_path: Path) -> None:
    calls = [
        Parties("0201234001", "0031201234002", "2026-01-02"),
        Parties("+31201234001", "x", "2026-01-03"),
        Parties("9", "2117", "2026-01-01"),
    ]
    found, total = covered(["+3120123*", "21??", "22??", "21??"], "31", calls)
    assert total == 3
    assert [(one.pattern, one.calls, one.last) for one in found] == [
        ("+3120123*", 2, "2026-01-03"),
        ("21??", 1, "2026-01-01"),
        ("22??", 0, ""),
    ]
    assert list(found[0].numbers or ()) == ["0201234001", "0031201234002", "+31201234001"]


def test_only_lately(tmp_path: Path) -> None:
    log(tmp_path, "2001", "2002")
    tomorrow = datetime.now() + timedelta(days=1)
    done = coverage("--since", f"{tomorrow:%Y-%m-%d}", "--json", folder=tmp_path)
    assert (done.exit_code, json.loads(done.stdout)["calls"]) == (Health.AMBER, 0)
    yesterday = datetime.now() - timedelta(days=1)
    assert json.loads(coverage("--since", f"{yesterday:%Y-%m-%d}", "--json", folder=tmp_path).stdout)["calls"] == 1


def test_a_capture_in_place_of_the_log(tmp_path: Path) -> None:
    done = coverage("--capture", LAB / "a_alaw.pcap", "--json", folder=tmp_path, extensions="2001,2002,2003")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["never_seen"]) == (Health.AMBER, ["2003"])


def test_numbers_from_the_wire_are_made_safe(tmp_path: Path) -> None:
    log(tmp_path, "20\x1b[2J01", "x")
    for args in ((), ("--json",)):
        done = coverage(*args, folder=tmp_path, extensions="*01")
        assert "\x1b" not in done.stdout


def test_nothing_to_compare_with(tmp_path: Path) -> None:
    done = coverage(folder=tmp_path, extensions="")
    assert done.exit_code == ExitCode.CONFIG
    assert "own.extensions" in done.stderr
