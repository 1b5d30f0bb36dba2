"""The daily self-test: when it is started, what becomes of it, and that the supervisor looks after it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from datetime import time as TimeOfDay
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from tapdeck.cli.config import load
from tapdeck.cli.daily import Daily
from tapdeck.cli.main import cli
from tapdeck.cli.run import self_test
from tapdeck.storage import state
from tests.support.netns import wait_for
from tests.support.users import environment

ROOT = Path(__file__).parents[2]
AMSTERDAM = ZoneInfo("Europe/Amsterdam")
RESULT = "import sys; from pathlib import Path; from tapdeck.storage import state; state.write(Path('.'), 'test', {})"


class Clock:
    """A local clock that is set by hand."""

    def __init__(self, text: str) -> None:
        self.now = datetime.fromisoformat(text).replace(tzinfo=AMSTERDAM)

    def __call__(self) -> datetime:
        return self.now

    def run(self, daily: Daily, hours: float, minutes: int = 10) -> list[str]:
        """Let time pass; return when the command was started."""
        started: list[str] = []

        def spawn(command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
            started.append(f"{self.now:%d %H:%M}")
            return subprocess.Popen(["true"])

        for _ in range(int(hours * 60) // minutes):
            # Real minutes, whatever the clock is set to in between.
            self.now = (self.now.astimezone(ZoneInfo("UTC")) + timedelta(minutes=minutes)).astimezone(AMSTERDAM)
            daily.look(spawn)
            daily.stop()
        return started


def daily(folder: Path, clock: Clock, at: str | None = "03:30", first_after_s: float = 1e9) -> Daily:
    moment = datetime.strptime(at, "%H:%M").time() if at else None
    return Daily("test", ("true",), folder, moment, clock, first_after_s)


@pytest.mark.parametrize(
    ("begun", "started"),
    [
        ("2026-06-10 00:00", ["10 03:30", "11 03:30", "12 03:30"]),
        ("2026-06-10 03:25", ["10 03:35", "11 03:35", "12 03:35"]),
        ("2026-06-10 03:40", ["11 03:30", "12 03:30", "13 03:30"]),
        ("2026-06-10 23:00", ["11 03:30", "12 03:30", "13 03:30"]),
        ("2026-06-29 12:00", ["30 03:30", "01 03:30", "02 03:30"]),
    ],
)
def test_it_is_started_once_a_day(tmp_path: Path, begun: str, started: list[str]) -> None:
    clock = Clock(begun)
    assert clock.run(daily(tmp_path, clock), 72) == started


def test_never_is_never(tmp_path: Path) -> None:
    clock = Clock("2026-06-10 00:00")
    assert clock.run(daily(tmp_path, clock, None, first_after_s=0), 72) == []


@pytest.mark.parametrize("at", ["02:00", "02:30", "03:00"])
@pytest.mark.parametrize("begun", ["2026-03-28 12:00", "2026-10-24 12:00"])
def test_where_the_clock_is_set_it_comes_once_all_the_same(tmp_path: Path, begun: str, at: str) -> None:
    """29 March 2026: 02:00 becomes 03:00; 25 October: 03:00 becomes 02:00."""
    clock = Clock(begun)
    started = clock.run(daily(tmp_path, clock, at), 47)
    days = [text.split()[0] for text in started]
    assert days == ["29", "30"] if "03-28" in begun else ["25", "26"]
    assert [text.split()[1] for text in started[1:]] == [at]
    assert started[0].split()[1] == ("03:00" if "03-28" in begun else at)


@pytest.mark.parametrize(
    ("age_h", "runs"), [(None, True), (1, False), (23, False), (25, True), (900, True), (-5, True)]
)
def test_after_a_night_off_it_is_made_up_for(tmp_path: Path, age_h: float | None, runs: bool) -> None:
    """Whoever switches the box on in the morning need not wait for the next night."""
    if age_h is not None:
        made_at(tmp_path, time.time() - age_h * 3600)
    clock = Clock("2026-06-10 09:00")
    assert bool(clock.run(daily(tmp_path, clock, first_after_s=0), 1)) is runs


def made_at(folder: Path, when: float) -> None:
    """Leave a result of another time."""
    (folder / "test.json").write_text(json.dumps({"stage": "test", "pid": 1, "updated": when}))


def test_it_is_made_up_for_only_once_and_not_at_the_very_start(tmp_path: Path) -> None:
    clock = Clock("2026-06-10 09:00")
    one = daily(tmp_path, clock, first_after_s=0.5)
    assert clock.run(one, 1) == []
    time.sleep(0.6)
    assert len(clock.run(one, 1)) == 1
    assert clock.run(one, 10) == []


def test_a_new_time_counts_from_now(tmp_path: Path) -> None:
    clock = Clock("2026-06-10 00:00")
    one = daily(tmp_path, clock)
    assert clock.run(one, 10) == ["10 03:30"]
    one.at = TimeOfDay(12, 0)
    assert clock.run(one, 10) == ["10 12:00"]
    one.at = TimeOfDay(12, 30)
    assert clock.run(one, 10) == []
    one.at = None
    assert clock.run(one, 48) == []


def look(one: Daily, folder: Path, code: str, more: Callable[[], object] = lambda: None) -> "subprocess.Popen[bytes]":
    """Have the command started, and looked at until it has ended."""
    started: list[subprocess.Popen[bytes]] = []

    def spawn(command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment()))
        return started[-1]

    one.look(spawn)
    more()
    started[0].wait(30)
    one.look(spawn)
    assert len(started) == 1
    return started[0]


@pytest.mark.parametrize(
    ("code", "trouble"),
    [
        (RESULT, ""),
        (RESULT + "; sys.exit(1)", ""),
        ("raise SystemExit(78)", "exit code 78 and no result"),
        ("pass", "exit code 0 and no result"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
    ],
)
def test_no_result_is_a_trouble(tmp_path: Path, code: str, trouble: str) -> None:
    """A result that says what has failed raises its own alarm; one that is not there can raise none."""
    made_at(tmp_path, time.time() - 1e6)
    one = daily(tmp_path, Clock("2026-06-10 09:00"), first_after_s=0)
    look(one, tmp_path, code)
    assert trouble in one.trouble
    assert bool(one.trouble) is bool(trouble)


def test_the_trouble_is_over_when_somebody_has_run_it_by_hand(tmp_path: Path) -> None:
    one = daily(tmp_path, Clock("2026-06-10 09:00"), first_after_s=0)
    look(one, tmp_path, "raise SystemExit(75)")
    assert "run `tapdeck test` by hand" in one.trouble
    state.write(tmp_path, "test", {})
    one.look(lambda command: pytest.fail("it was started again"))
    assert one.trouble == ""


def test_a_command_that_cannot_be_started(tmp_path: Path) -> None:
    def spawn(command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
        raise OSError(2, "No such file or directory")

    one = daily(tmp_path, Clock("2026-06-10 09:00"), first_after_s=0)
    one.look(spawn)
    assert "cannot be started" in one.trouble


def test_what_run_starts_is_the_self_test_with_its_settings(tmp_path: Path) -> None:
    """The supervisor hands the options on as variables; here the command gets them the same way."""
    folders = {name: tmp_path / name for name in ("recordings", "spool", "state")}
    for folder in folders.values():
        folder.mkdir()
    options: dict[str, Any] = {f"storage__{name}": str(folder) for name, folder in folders.items()}
    settings = load(None, {**options, "monitoring__selftest_at": "23:05", "recording__timezone": "Asia/Tokyo"})
    made = self_test(settings, as_json=True)
    assert made.at == TimeOfDay(23, 5)
    assert made.now().utcoffset() == timedelta(hours=9)
    assert abs(made.now().timestamp() - time.time()) < 60
    variables = {f"TAPDECK_STORAGE_{name.upper()}": str(folder) for name, folder in folders.items()}
    nobody = {f"TAPDECK_USERS_{name}": "" for name in ("CAPTURE", "SEAL", "DELIVER", "METRICS", "GROUP")}
    done = subprocess.run(made.command, env={**environment(), **variables, **nobody}, capture_output=True, text=True)
    assert (done.returncode, json.loads(done.stdout)["passed"]) == (0, True), done.stderr
    assert (state.read(made.folder, made.name) or {})["passed"] is True


@pytest.mark.parametrize("text", ["3:30pm", "24:00", "03:60", "0330", "soon"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    done = CliRunner().invoke(cli, ["run", "-i", "lo", f"--selftest-at={text}"])
    assert done.exit_code == 78
    assert "monitoring.selftest_at" in done.stderr


SUPERVISOR = """
import json, sys
from datetime import datetime
from pathlib import Path
from tapdeck.cli.daily import Daily
from tapdeck.cli.logs import set_up
from tapdeck.cli.supervisor import Pace, Stage, Supervisor
folder, stage, command = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
daily = Daily("test", tuple(command), folder, datetime.now().time(), datetime.now, first_after_s=0)
stages = [Stage("capture", tuple(stage))]
sys.exit(Supervisor(stages, folder, set_up(as_json=True), pace=Pace(tick=0.05), daily=daily).run())
"""


@contextmanager
def supervised(folder: Path, code: str) -> Iterator["subprocess.Popen[bytes]"]:
    stage = [sys.executable, "-m", "tests.support.stages", str(folder), "capture"]
    words = [sys.executable, "-c", SUPERVISOR, str(folder), json.dumps(stage)]
    with subprocess.Popen(
        [*words, json.dumps([sys.executable, "-c", code])],
        env={**environment(), "PYTHONPATH": f"{environment()['PYTHONPATH']}:{ROOT}"},
        cwd=folder,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def alarms(folder: Path) -> list[str]:
    return [alarm["text"] for alarm in (state.read(folder, "run") or {}).get("alarms", [])]


def test_the_supervisor_starts_it_beside_the_stages(tmp_path: Path) -> None:
    with supervised(tmp_path, RESULT) as process:
        wait_for("the result", lambda: state.read(tmp_path, "test"))
        wait_for("the stage", lambda: (state.read(tmp_path, "run") or {}).get("ready"))
        assert alarms(tmp_path) == []
        process.terminate()
        assert process.wait(30) == 0


def test_a_supervisor_says_that_it_gave_no_result(tmp_path: Path) -> None:
    with supervised(tmp_path, "raise SystemExit(78)"):
        wait_for("the alarm", lambda: any("exit code 78 and no result" in text for text in alarms(tmp_path)))
        assert (state.read(tmp_path, "run") or {})["alarms"][0]["code"] == "SELFTEST_FAILED"
        state.write(tmp_path, "test", {})
        wait_for("the end of the alarm", lambda: not alarms(tmp_path))


WAITS = """
import signal, sys, time; from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), Path("tidy").touch(), sys.exit(130)))
Path("began").touch(); time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_supervisor_and_may_tidy_up(tmp_path: Path, number: signal.Signals) -> None:
    with supervised(tmp_path, WAITS) as process:
        wait_for("the command", (tmp_path / "began").exists)
        os.kill(process.pid, number)
        process.wait(30)
    wait_for("tidying up", (tmp_path / "tidy").exists)
