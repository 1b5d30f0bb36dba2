"""Reports and events of the stages: whole or not at all, safe to print, kept up on a full disk."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tapdeck.storage import state
from tests.support.users import needs_root

HOSTILE = "Eve\x1b[2J\x9b\u2028\u202etxt\nnext"
SAFE = "Eve\ufffd[2J\ufffd txt next"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def log_lines(folder: Path) -> list[str]:
    (file,) = (folder / "log").iterdir()
    return file.read_text(encoding="utf-8").splitlines()


def test_a_report_comes_back_with_who_and_when(tmp_path: Path) -> None:
    before = datetime.now(UTC).timestamp()
    assert state.write(tmp_path / "state", "capture", {"packets": {"seen": 3}, "alarms": []})
    report = state.read(tmp_path / "state", "capture")
    assert report is not None
    assert report["packets"] == {"seen": 3}
    assert (report["stage"], report["pid"]) == ("capture", os.getpid())
    assert before <= report["updated"] <= datetime.now(UTC).timestamp()
    assert state.alive(report)


def test_the_last_report_counts_however_long_it_is(tmp_path: Path) -> None:
    for length in (10, 9000, 100, 5000, 1):
        assert state.write(tmp_path, "seal", {"text": ["x"] * length})
        assert (state.read(tmp_path, "seal") or {})["text"] == ["x"] * length


def test_no_report_and_a_broken_one_are_none(tmp_path: Path) -> None:
    assert state.read(tmp_path, "capture") is None
    for broken in (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 200_000):
        (tmp_path / "capture.json").write_bytes(broken)
        assert state.read(tmp_path, "capture") is None


def test_a_reader_that_is_at_it_sees_the_whole_old_report(tmp_path: Path) -> None:
    state.write(tmp_path, "capture", {"n": ["x"] * 3000})
    state.write(tmp_path, "capture", {"n": ["y"] * 3000})
    with (tmp_path / "capture.json").open("rb") as reader:
        state.write(tmp_path, "capture", {"n": 3})
        assert json.loads(reader.read())["n"] == ["y"] * 3000
    assert (state.read(tmp_path, "capture") or {})["n"] == 3


def test_an_old_report_and_one_of_a_dead_process_are_not_alive(tmp_path: Path) -> None:
    state.write(tmp_path, "seal", {})
    report = state.read(tmp_path, "seal") or {}
    assert not state.alive({**report, "updated": report["updated"] - 11})
    assert not state.alive({**report, "updated": "now"})
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not state.alive({**report, "pid": ended.pid})
    assert not state.alive({**report, "pid": 1 << 80})
    assert not state.alive(None)
    assert state.alive({**report, "pid": 1})


def test_hostile_text_is_made_safe(tmp_path: Path) -> None:
    state.write(tmp_path, "capture", {HOSTILE: [HOSTILE], "level": float("nan")})
    raw = (tmp_path / "capture.json").read_text(encoding="utf-8")
    assert raw.isprintable()
    assert state.read(tmp_path, "capture") is not None
    assert json.loads(raw)[SAFE] == [SAFE]
    assert json.loads(raw)["level"] is None
    state.append(tmp_path, "call", caller=HOSTILE)
    (line,) = log_lines(tmp_path)
    assert line.isprintable()
    assert json.loads(line)["caller"] == SAFE


def test_events_are_lines_with_a_time_in_the_file_of_their_day(tmp_path: Path) -> None:
    day = f"{datetime.now():%Y-%m-%d}"
    state.append(tmp_path, "started", stage="capture")
    state.append(tmp_path, "stopped", stage="capture", folder=Path("/x"))
    (file,) = (tmp_path / "log").iterdir()
    assert file.name in (f"{day}.jsonl", f"{datetime.now():%Y-%m-%d}.jsonl")
    first, second = state.events(tmp_path)
    assert (first["event"], second["event"], second["folder"]) == ("started", "stopped", "/x")
    assert datetime.fromisoformat(first["time"]).tzinfo is not None


def test_events_since(tmp_path: Path) -> None:
    state.append(tmp_path, "now")
    now = datetime.now(UTC)
    log = tmp_path / "log"
    for days in (1, 5, 30):
        then = now - timedelta(days=days)
        line = {"time": then.isoformat(), "event": f"{days} days ago"}
        (log / f"{then:%Y-%m-%d}.jsonl").write_text(json.dumps(line) + "\n")
    names = ["30 days ago", "5 days ago", "1 days ago", "now"]
    assert [event["event"] for event in state.events(tmp_path)] == names
    assert [event["event"] for event in state.events(tmp_path, now - timedelta(days=6))] == names[1:]
    assert [event["event"] for event in state.events(tmp_path, now - timedelta(minutes=5))] == names[3:]
    assert list(state.events(tmp_path / "none")) == []


def test_broken_lines_are_left_out(tmp_path: Path) -> None:
    state.append(tmp_path, "good")
    (file,) = (tmp_path / "log").iterdir()
    with file.open("ab") as log:
        log.write(
            b'{"time": "2026-11\n[]\n{"event": "no time"}\n{"time": "2026-11-24T10:00:00", "event": "no zone"}\n\xff\n'
        )
    state.append(tmp_path, "good too")
    assert [event["event"] for event in state.events(tmp_path)] == ["good", "good too"]


def test_alarms_become_events_when_they_change(tmp_path: Path) -> None:
    alarms = state.Alarms(tmp_path, "capture")
    alarms.raise_("CAPTURE_LOSS", "1 packet dropped")
    alarms.raise_("CAPTURE_LOSS", "2 packets dropped")
    (active,) = alarms.active
    assert (active["code"], active["severity"], active["text"]) == ("CAPTURE_LOSS", "warning", "2 packets dropped")
    since = active["since"]
    alarms.raise_("CAPTURE_LOSS", "many", "critical")
    assert alarms.active[0]["since"] == since
    assert alarms.active[0]["severity"] == "critical"
    alarms.clear("CAPTURE_LOSS")
    alarms.clear("NO_TRAFFIC")
    assert alarms.active == []
    told = [(event["event"], event["code"], event["stage"], event.get("severity")) for event in state.events(tmp_path)]
    assert told == [
        ("alarm", "CAPTURE_LOSS", "capture", "warning"),
        ("alarm", "CAPTURE_LOSS", "capture", "critical"),
        ("alarm over", "CAPTURE_LOSS", "capture", None),
    ]


def test_one_alarm_for_each_code_and_what_it_is_about(tmp_path: Path) -> None:
    alarms = state.Alarms(tmp_path, "deliver")
    alarms.raise_("DELIVER_FAILED", "no network", about="nas")
    alarms.raise_("DELIVER_FAILED", "no network", about="archive")
    alarms.clear("DELIVER_FAILED")  # about nothing: another one
    state.write(tmp_path, "deliver", {"alarms": alarms.active})
    again = state.Alarms(tmp_path, "deliver")
    again.take_over()
    again.clear("DELIVER_FAILED", "nas")
    assert [(one["code"], one["about"]) for one in again.active] == [("DELIVER_FAILED", "archive")]
    told = [(event["event"], event["about"]) for event in state.events(tmp_path)]
    assert told == [("alarm", "nas"), ("alarm", "archive"), ("alarm over", "nas")]


def test_an_older_version_s_alarm_is_about_nothing(tmp_path: Path) -> None:
    old = {"code": "NO_TRAFFIC", "since": "2026-11-24T09:00:00+01:00", "severity": "warning", "text": "silence"}
    state.write(tmp_path, "capture", {"alarms": [old]})
    alarms = state.Alarms(tmp_path, "capture")
    alarms.take_over()
    assert alarms.active == [{**old, "about": ""}]
    alarms.clear("NO_TRAFFIC")
    assert alarms.active == []


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_group_may_read_and_nobody_else(tmp_path: Path, umask: int) -> None:
    folder, old = tmp_path / "state", os.umask(umask)
    try:
        state.write(folder, "capture", {})
        state.append(folder, "started")
    finally:
        os.umask(old)
    assert mode(folder) == mode(folder / "log") == 0o750
    assert mode(folder / "capture.json") == mode(next((folder / "log").iterdir())) == 0o640


@needs_root
def test_stages_of_several_users_share_one_log(open_folder: Path) -> None:
    """As `tapdeck install` sets it up: set-group-ID and sticky, so that nobody replaces another's file."""
    folder = open_folder / "state"
    folder.mkdir()
    os.chown(folder, 0, 4242)
    folder.chmod(0o3770)
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from tapdeck.storage import state\n"
        "state.write(Path(sys.argv[2] + '-warm'), 'u', {})  # Python may lie where only root can import\n"
        "os.setgroups([]); os.setgid(4242); os.setuid(int(sys.argv[3]))\n"
        "folder = Path(sys.argv[2])\n"
        "own = state.write(folder, 'u' + sys.argv[3], {})\n"
        "print(own, state.append(folder, 'started'), state.write(folder, 'u5001', {}))"
    )
    source = str(Path(state.__file__).resolve().parents[1] / "src")
    told = []
    for user in ("5001", "5002"):
        command = [sys.executable, "-c", code, source, str(folder), user]
        told.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert told == [["True", "True", "True"], ["True", "True", "False"]]
    assert len(list(state.events(folder))) == 2
    assert mode(folder / "u5001.json") == 0o640
    assert mode(next((folder / "log").iterdir())) == 0o660


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@needs_root
def test_a_full_disk_does_not_silence_a_stage(small_disk: Path) -> None:
    folder = small_disk / "state"
    for n in range(2):
        state.write(folder, "capture", {"n": n})
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={small_disk / 'fill'}", "bs=4096"], check=False, stderr=subprocess.DEVNULL
    )
    assert os.statvfs(small_disk).f_bavail == 0
    for n in range(2, 6):
        assert state.write(folder, "capture", {"n": n})
        assert (state.read(folder, "capture") or {})["n"] == n
    assert not state.append(folder, "started")
    assert not state.write(folder, "seal", {})
    assert not state.write(folder, "capture", {"text": ["x"] * 5000})
    assert (state.read(folder, "capture") or {})["n"] == 5
    (small_disk / "fill").unlink()
    assert state.append(folder, "started")
    assert state.write(folder, "capture", {"text": ["x"] * 5000})
