"""`tapdeck status`: what it says and with which exit code it ends, for each state of the box."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tapdeck.cli.main import cli
from tests.support.reports import alarm, make_old, supervised, write_all
from tests.support.users import environment, needs_root, python_for_all

HOSTILE = "Eve\x1b[2J\x9b\u2028\u202ex"


def status(folder: Path, *more: str) -> Result:
    return CliRunner().invoke(cli, ["status", "--state", str(folder), *more])


def as_json(folder: Path) -> dict[str, Any]:
    found = json.loads(status(folder, "--json").stdout)
    assert isinstance(found, dict)
    return found


def test_calls_that_wait_for_the_key_are_said_to_be_unsigned(tmp_path: Path) -> None:
    write_all(tmp_path, seal={"waiting": 6, "unsigned": 6})
    lines = dict(line.split(": ", 1) for line in status(tmp_path).stdout.splitlines())
    assert lines["spool"].endswith("6 to be sealed, Signed: no (the key is locked), 4.1 kB in memory")
    assert json.loads(status(tmp_path, "--json").stdout)["spool"]["unsigned"] == 6


def test_recordings_that_lost_too_much_are_counted(tmp_path: Path) -> None:
    write_all(tmp_path, seal={"poor_quality": 2})
    lines = dict(line.split(": ", 1) for line in status(tmp_path).stdout.splitlines())
    assert lines["recordings"].endswith("; 2 of them lost over 3 % of a side")
    assert as_json(tmp_path)["poor_quality"] == 2


def test_a_healthy_box(tmp_path: Path) -> None:
    write_all(tmp_path)
    done = status(tmp_path)
    assert done.exit_code == 0
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert lines["tapdeck"].startswith("healthy, recording since 2026-11-24 ")
    assert lines["interface eth1"] == "1,000 packets, 3 dropped, 0 sent by this machine"
    assert lines["packets"] == (
        "1,050 seen: in calls 900, duplicate 10, signalling 33, not a call 100, kernel dropped 7; 123 a second"
    )
    assert lines["kernel drops"] == "[warning] 7"
    assert lines["mirror loss"].startswith("[warning] 12 packets")
    assert lines["calls"] == "2 running, 5 over"
    assert lines["spool"] == "2 running, 6 to be sealed, 4.1 kB in memory"
    assert lines["recordings"] == "5 seen: recorded 3, without media 2"
    assert lines["target nas"] == "8 waiting, 77 delivered"
    assert lines["disk"] == "5.0 GB of 20.0 GB free, full in 17 days"
    assert lines["stage capture"].startswith(f"process {os.getpid()}, report ")
    assert lines["down"].startswith("from 2026-11-2")
    assert lines["remote access"] == "none; nothing listens"


def test_the_keys_that_monitoring_reads(tmp_path: Path) -> None:
    write_all(tmp_path, run=supervised(capture={"restarts": 2, "last_exit": "killed by SIGKILL"}, seal={}, deliver={}))
    found = as_json(tmp_path)
    assert found["kernel_drops"] == 7
    assert found["mirror_loss"] == 12
    assert found["days_until_full"] == 17.4
    assert found["health"] == "healthy"
    assert found["exit_code"] == 0
    assert found["running"] is True
    assert found["queue"][0]["waiting"] == 8
    assert found["spool"]["waiting_to_be_sealed"] == 6
    assert found["remote_access"] == "none"
    capture = found["stages"]["capture"]
    assert (capture["running"], capture["pid"], capture["restarts"]) == (True, os.getpid(), 2)
    assert capture["report_age_s"] < 10


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"capture": {"alarms": [alarm("MIRROR_LOSS")]}}, 1),
        ({"capture": {"alarms": [alarm("CAPTURE_LOSS", "critical")]}}, 2),
        ({"seal": {"alarms": [alarm("SEAL_FAILED", "critical")]}}, 2),
        ({"deliver": {"alarms": [alarm("DELIVER_FAILED"), alarm("DISK_LOW")]}}, 1),
        ({"selftest": {"alarms": [alarm("SELFTEST_FAILED", "critical")]}}, 2),
        ({"run": {**supervised(), "alarms": [alarm("STAGE_DOWN")]}}, 1),
    ],
)
def test_alarms_of_all_stages_decide(tmp_path: Path, changes: dict[str, Any], code: int) -> None:
    write_all(tmp_path, **changes)
    done = status(tmp_path)
    assert done.exit_code == code
    for report in changes.values():
        for one in report["alarms"]:
            mark = "[critical]" if one["severity"] == "critical" else "[warning]"
            assert f"alarm {one['code']}: {mark} something (since 2026-11-24 " in done.stdout
    [stage] = changes
    assert {one["stage"] for one in as_json(tmp_path)["alarms"]} == {stage}


def test_an_alarm_of_a_self_test_outlives_its_process(tmp_path: Path) -> None:
    write_all(tmp_path, selftest={"alarms": [alarm("SELFTEST_FAILED")]})
    make_old(tmp_path, "selftest", 5 * 3600)
    assert status(tmp_path).exit_code == 1


def test_the_last_self_test(tmp_path: Path) -> None:
    write_all(tmp_path)
    assert as_json(tmp_path)["selftest"] is None
    for passed, shown in ((True, "self-test: passed 2026-11-24 "), (False, "self-test: [warning] failed 2026-11-24 ")):
        write_all(tmp_path, selftest={"passed": passed, "ended": "2026-11-24T09:30:00+00:00", "alarms": []})
        assert shown in status(tmp_path).stdout
        assert as_json(tmp_path)["selftest"]["passed"] is passed


def test_no_capture_is_critical_whatever_else_runs(tmp_path: Path) -> None:
    write_all(tmp_path, run=supervised(capture={}, seal={}, deliver={}))
    make_old(tmp_path, "capture")
    done = status(tmp_path)
    assert done.exit_code == 2
    assert "tapdeck: [critical] capture is not running, no call is recorded" in done.stdout
    assert "stage capture: [warning] not running, last heard of 60 s ago" in done.stdout
    assert as_json(tmp_path)["running"] is False


@pytest.mark.parametrize("stage", ["seal", "deliver"])
def test_another_stage_that_does_not_run_is_a_warning(tmp_path: Path, stage: str) -> None:
    write_all(tmp_path)
    make_old(tmp_path, stage, 7300)
    done = status(tmp_path)
    assert done.exit_code == 1
    assert f"stage {stage}: [warning] not running, last heard of 2 hours ago" in done.stdout


def test_a_stage_of_an_earlier_run_is_not_missed(tmp_path: Path) -> None:
    """`tapdeck capture --out` runs two stages; metrics may have been switched off."""
    write_all(tmp_path, run=supervised(capture={}, seal={}), metrics={"alarms": []})
    make_old(tmp_path, "deliver")
    make_old(tmp_path, "metrics")
    done = status(tmp_path)
    assert done.exit_code == 0
    assert "stage deliver" not in done.stdout


def test_a_target_that_fails_and_an_interface_that_is_gone(tmp_path: Path) -> None:
    target = {"name": "nas", "waiting": 9, "confirmed": 1, "failing_since": "2026-11-24T09:00:00+01:00", "error": "no"}
    gone = {"name": "eth1", "packets": 1, "drops": 0, "present": False, "tx_packets": None}
    write_all(tmp_path, deliver={"targets": [target]}, capture={"interfaces": [gone]})
    out = status(tmp_path).stdout
    assert re.search(r"target nas: \[warning\] 9 waiting, 1 delivered; failing since 2026-11-24 \S+: no", out)
    assert "interface eth1: [critical] gone; 1 packets, 0 dropped" in out


def test_a_box_that_never_ran(tmp_path: Path) -> None:
    done = status(tmp_path / "none")
    assert done.exit_code == 2
    assert "not running" in done.stderr
    assert status(tmp_path).exit_code == 2


def test_reports_of_another_version_or_a_vandal_are_no_reason_to_fail(tmp_path: Path) -> None:
    for stage in ("capture", "seal", "deliver", "run", "other"):
        path = tmp_path / f"{stage}.json"
        for broken in ("{", "[]", '{"alarms": 3, "interfaces": {}, "packets": [], "updated": "x", "children": []}'):
            path.write_text(broken)
            for more in ([], ["--json"]):
                assert status(tmp_path, *more).exit_code == 2
    odd = ("started", "packets", "calls", "spool", "mirror_loss", "downtime", "interfaces")
    write_all(tmp_path, capture=dict.fromkeys(odd, "x"))
    assert status(tmp_path).exit_code == 0


def test_hostile_text_only_prints(tmp_path: Path) -> None:
    write_all(tmp_path, capture={"alarms": [alarm("X\x1b[2J", text=HOSTILE)]}, deliver={"targets": [{"name": HOSTILE}]})
    # As a reader has it who does not rely on the writer's care.
    raw = (tmp_path / "deliver.json").read_text().replace("Eve", "\\u001b[31mEve")
    (tmp_path / "deliver.json").write_text(raw)
    for more in ([], ["--json"]):
        out = status(tmp_path, *more).stdout
        assert all(line.isprintable() for line in out.splitlines())
        assert "Eve" in out


def test_a_terminal_gets_colours_and_a_pipe_does_not(tmp_path: Path) -> None:
    write_all(tmp_path, capture={"alarms": [alarm("CAPTURE_LOSS", "critical", "[red]not markup[/red]")]})
    assert "\x1b" not in status(tmp_path).stdout
    main, other = pty.openpty()
    command = [sys.executable, "-m", "tapdeck.cli", "status", "--state", str(tmp_path)]
    environ = {**environment(), "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(command, stdout=other, env=environ)
    os.close(other)
    shown = b""
    while True:
        try:
            chunk = os.read(main, 4096)
        except OSError:  # the other end has been closed: all is read
            break
        shown += chunk
    os.close(main)
    assert process.wait() == 2
    assert b"\x1b[1;31m" in shown
    assert b"[red]not markup[/red]" in shown


def test_what_listens_is_said(tmp_path: Path) -> None:
    write_all(tmp_path)
    done = status(tmp_path, "--prometheus-listen", "127.0.0.1:9464")
    assert "remote access: none; Prometheus may read figures at 127.0.0.1:9464" in done.stdout


@needs_root
def test_who_may_not_look_is_told_who_may(open_folder: Path) -> None:
    folder = open_folder / "state"
    write_all(folder)
    command = [python_for_all(), "-m", "tapdeck.cli", "status", "--state", str(folder)]
    who: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, cwd="/", **who)
    assert done.returncode == 2
    assert "permission denied: run it as root, or as a member of the group tapdeck" in done.stderr


def test_the_exit_codes_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    assert "`tapdeck status`" in text
    assert "0 healthy, 1 warning, 2 critical" in " ".join(CliRunner().invoke(cli, ["status", "--help"]).stdout.split())
