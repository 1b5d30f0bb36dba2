"""`tapdeck selftest` as a user runs it: what it says, what it leaves behind (its result), and how it ends."""

import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tapdeck.cli import box, layout
from tapdeck.cli.config import load
from tapdeck.storage import state
from tapdeck.storage.folder_target import MARK
from tests.support.parcels import everything, fill, small_disk
from tests.support.users import environment, needs_root, python_for_all

STEPS = ["capture", "spool", "seal", "sound", "info file", "target", "tidying up"]
RESULT = {"state/selftest.json", "state/.selftest.lock"}
LEFT_OVER = "*/.tapdeck-selftest*"


class Box:
    """Folders as an installed box has them, and a target."""

    def __init__(self, folder: Path, *more: str, python: str = sys.executable) -> None:
        self.folder, self.state, self.target = folder, folder / "state", folder / "target"
        for name in ("recordings", "spool", "state", "target"):
            (folder / name).mkdir()
        self.more, self.python = more, python

    def command(self, *more: str) -> list[str]:
        places = [f"--out={self.folder}/recordings", f"--spool={self.folder}/spool", f"--state={self.state}"]
        nobody = ["--group=", *(f"--{stage}-user=" for stage in ("capture", "seal", "deliver"))]
        words = [*places, f"--deliver-to={self.target}", *(self.more or nobody), *more]
        return [self.python, "-m", "tapdeck.cli", "selftest", *words]

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.command(*more), env=environment(), capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self) -> tuple[int, dict[str, Any]]:
        done = self.run("--json")
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def red(self) -> dict[str, dict[str, Any]]:
        """Run it where it must fail; return the steps that have failed. Those that follow were not tried."""
        code, report = self.json()
        steps = {step["check"]: step for step in report["steps"]}
        red = {check: step for check, step in steps.items() if step["colour"] == "red"}
        assert (code, report["passed"], bool(red)) == (1, False, True)
        assert all(step["todo"] for step in red.values())
        assert not list(self.folder.glob(LEFT_OVER))
        return red

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it in a session of its own, as a terminal does, so that Ctrl-C can be sent to all of it."""
        return subprocess.Popen(self.command(), env=environment(), stdout=subprocess.DEVNULL, start_new_session=True)

    def left(self) -> set[str]:
        """The files that are there, without the event log and the second file that its result takes turns with."""
        return {path for path in everything(self.folder) if not path.startswith(("state/log/", "state/.selftest.json"))}

    def events(self) -> list[dict[str, Any]]:
        return list(state.events(self.state))


@pytest.fixture
def own(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_call_comes_through(own: Box) -> None:
    done = own.run()
    assert done.returncode == 0, done.stdout
    *lines, empty, last = done.stdout.splitlines()
    checks = [line.split(" s  ", 1)[1].split(":")[0].split(" /")[0] for line in lines]
    assert checks == STEPS
    assert {line.split()[0] for line in lines} == {"green"}
    assert (empty, last.startswith("Passed: ")) == ("", True)
    # Not even a mark stays on the target: deliver would take an empty mount point for the disk.
    assert own.left() == RESULT
    assert not list(own.folder.glob(LEFT_OVER))
    [event] = own.events()
    assert (event["event"], event["passed"], event["failed"]) == ("selftest", True, [])


def test_the_report_is_kept_and_is_the_same_as_json(own: Box) -> None:
    code, report = own.json()
    assert (code, report["passed"], report["alarms"]) == (0, True, [])
    assert [step["check"].split(" /")[0] for step in report["steps"]] == STEPS
    assert all(step["seconds"] >= 0 for step in report["steps"])
    kept = state.read(own.state, "selftest") or {}
    assert {key: kept[key] for key in report} == report
    assert (kept["stage"], abs(time.time() - kept["updated"]) < 60) == ("selftest", True)


def test_an_alarm_lasts_until_the_test_passes_again(own: Box) -> None:
    own.target.rmdir()
    [failed] = own.red().values()
    assert "is the disk mounted" in failed["seen"]
    own.red()
    [alarm] = box.active_alarms(box.read(own.state))
    assert (alarm["code"], alarm["severity"], alarm["stage"]) == ("SELFTEST_FAILED", "warning", "selftest")
    assert f"target {own.target}" in alarm["text"]
    status = [sys.executable, "-m", "tapdeck.cli", "status", f"--state={own.state}"]
    said = subprocess.run(status, env=environment(), capture_output=True, text=True, check=False).stdout
    assert "alarm SELFTEST_FAILED" in said
    own.target.mkdir()
    assert own.run().returncode == 0
    assert box.active_alarms(box.read(own.state)) == []
    told = [event["event"] for event in own.events()]
    assert told == ["alarm", "selftest", "selftest", "alarm over", "selftest"]
    since = next(event["since"] for event in own.events() if event["event"] == "alarm over")
    assert since == alarm["since"]


def test_a_target_that_had_recordings_must_be_the_same(own: Box) -> None:
    targets = [{"name": str(own.target), "confirmed": 7}]
    state.write(own.state, "deliver", {"targets": targets})
    assert "is not what it was" in own.red()[f"target {own.target}"]["seen"]
    (own.target / MARK).touch()
    assert own.run().returncode == 0
    assert [path.name for path in own.target.iterdir()] == [MARK]


def test_a_box_without_a_target(own: Box) -> None:
    done = own.run("--deliver-to=", "--json")
    checks = [step["check"] for step in json.loads(done.stdout)["steps"]]
    assert (done.returncode, checks) == (0, [check for check in STEPS if check != "target"])


def test_what_is_missing_is_said_and_not_made(own: Box) -> None:
    for name in ("recordings", "spool", "state"):
        folder = own.folder / name
        folder.rmdir() if not list(folder.iterdir()) else folder.rename(own.folder / "away")
        done = own.run()
        assert done.returncode == 78
        assert f"storage.{name}: there is no folder {folder}" in done.stderr
        assert "`tapdeck install`" in done.stderr
        assert not folder.exists()
        folder.mkdir()
    assert own.left() == set()


def test_two_at_once_do_not_disturb_each_other(own: Box) -> None:
    runs = [own.start() for _ in range(3)]
    codes = sorted(run.wait(60) for run in runs)
    assert codes[0] == 0
    assert set(codes) <= {0, 75}
    assert own.left() == RESULT


def wait_for_left_over(own: Box, run: "subprocess.Popen[bytes]", folder: str) -> bool:
    """Whether the run was seen at work in a folder."""
    while run.poll() is None:
        if list((own.folder / folder).glob(".tapdeck-selftest*")):
            return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_stopped_leaves_nothing(own: Box, number: signal.Signals) -> None:
    stopped = 0
    for folder in ("spool", "recordings", "target") * 2:
        run = own.start()
        if wait_for_left_over(own, run, folder):
            os.killpg(run.pid, number)
        code = run.wait(60)
        assert code in (0, 130)
        stopped += code == 130
        assert own.left() <= RESULT
        assert not list(own.folder.glob(LEFT_OVER))
    assert stopped


def test_what_a_killed_one_leaves_goes_with_the_next(own: Box) -> None:
    left = 0
    for folder in ("spool", "recordings", "target"):
        run = own.start()
        if wait_for_left_over(own, run, folder):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait(60)
        left += bool(list(own.folder.glob(LEFT_OVER)))
        assert own.run().returncode == 0
        assert own.left() == RESULT
        assert not list(own.folder.glob(LEFT_OVER))
    assert left


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "mounted", 8) as folder:
        yield folder


@needs_root
@pytest.mark.parametrize(("name", "check"), [("spool", "spool"), ("recordings", "seal"), ("target", "target")])
def test_a_full_disk(own: Box, mounted: Path, name: str, check: str) -> None:
    place = mounted / name
    place.mkdir()
    fill(mounted)
    option = {"spool": "--spool", "recordings": "--out", "target": "--deliver-to"}[name]
    own.more = (*own.command()[7:], f"{option}={place}")
    [(found, step)] = own.red().items()
    assert found.split()[0] == check
    assert "No space left" in step["seen"]
    assert list(place.iterdir()) == []
    [alarm] = box.active_alarms(box.read(own.state))
    assert alarm["severity"] == ("warning" if name == "target" else "critical")


USERS = {"capture": "daemon", "seal": "bin", "deliver": "sys"}


@pytest.fixture
def installed(open_folder: Path) -> Box:
    """A box whose stages are other users, as `tapdeck install` sets it up."""
    users = [f"--{stage}-user={user}" for stage, user in USERS.items()]
    made = Box(open_folder, *users, "--group=games", python=python_for_all())
    options = {f"users__{stage}": user for stage, user in USERS.items()} | {"users__group": "games"}
    options |= {f"storage__{name}": str(open_folder / name) for name in ("recordings", "spool", "state")}
    layout.prepare(load(None, options))
    os.chown(made.target, pwd.getpwnam("sys").pw_uid, -1)
    return made


@needs_root
def test_each_step_is_done_as_the_user_of_its_stage(installed: Box) -> None:
    code, report = installed.json()
    assert code == 0, report
    assert not list(installed.folder.glob(LEFT_OVER))
    wrong = {
        "spool": (installed.folder / "spool", "the user daemon"),
        "seal": (installed.folder / "recordings", "the user bin"),
        "target": (installed.target, "the user of tapdeck deliver"),
    }
    for check, (folder, user) in wrong.items():
        owner, mode = folder.stat().st_uid, folder.stat().st_mode
        os.chown(folder, 0, -1)
        folder.chmod(0o755)
        [(found, step)] = installed.red().items()
        assert found.split()[0] == check
        assert "Permission denied" in step["seen"]
        assert user in step["seen"] + step["todo"]
        os.chown(folder, owner, -1)
        folder.chmod(mode)
    assert installed.run().returncode == 0


@needs_root
def test_the_result_is_for_the_group_that_may_read_the_state(installed: Box) -> None:
    assert installed.run().returncode == 0
    found = (installed.state / "selftest.json").stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o640, 0, 60)
    assert not [path for path in installed.state.rglob("*") if path.stat().st_mode & 0o007]


@needs_root
def test_who_may_not_write_there_is_told_so(installed: Box) -> None:
    command = ["setpriv", "--reuid=nobody", "--regid=games", "--clear-groups", *installed.command()]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, installed.left()) == (77, set()), done.stdout + done.stderr
    assert "run it as root" in done.stderr
