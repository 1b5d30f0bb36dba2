"""The supervisor with small real stages: it starts them, again if need be, and stops them in their order."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tapdeck
from tapdeck.storage import state

ROOT = Path(__file__).parents[2]
SOURCE = Path(tapdeck.__file__).parents[1]

CODE = """
import json, sys
from pathlib import Path
from tapdeck.cli.lock import hold
from tapdeck.cli.logs import set_up
from tapdeck.cli.supervisor import Pace, Stage, Supervisor
folder, stages, pace, reload = json.loads(sys.argv[1])
stages = [Stage(name, tuple(command), **more) for name, command, more in stages]
lock = hold(Path(folder), "run", 10)
log = set_up(as_json=True)
sys.exit(Supervisor(stages, Path(folder), log, lambda: reload, pace=Pace(*pace), keep_open=(lock,)).run())
"""


class Run:
    """A supervisor in a process of its own."""

    def __init__(self, folder: Path, process: "subprocess.Popen[str]") -> None:
        self.folder = folder
        self.process = process

    def report(self) -> dict[str, Any]:
        return state.read(self.folder, "run") or {}

    def child(self, name: str) -> dict[str, Any]:
        found = self.report().get("children", {}).get(name, {})
        assert isinstance(found, dict)
        return found

    def alarm(self) -> dict[str, Any]:
        return next(iter(self.report().get("alarms", [])), {})

    def told(self, name: str) -> list[tuple[int, int, str]]:
        path = self.folder / f"{name}.told"
        lines = [line.split(" ", 2) for line in path.read_text().splitlines()] if path.exists() else []
        return [(int(when), int(pid), what) for when, pid, what in lines]

    def healthy(self, *names: str) -> bool:
        return all(self.child(name).get("healthy") for name in names)

    def end(self) -> tuple[int, list[dict[str, Any]]]:
        """Stop it; return its exit code and what it logged."""
        self.process.send_signal(signal.SIGTERM)
        return self.outcome()

    def outcome(self) -> tuple[int, list[dict[str, Any]]]:
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, [json.loads(line) for line in errors.splitlines()]


def until(what: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def stage(folder: Path, name: str, *behaviour: str, **more: float) -> tuple[str, list[str], dict[str, float]]:
    return name, [sys.executable, "-m", "tests.support.stages", str(folder), name, *behaviour], more


@contextmanager
def running(
    folder: Path,
    *stages: tuple[str, list[str], dict[str, float]],
    pace: tuple[float, ...] = (0.1, 1, 60, 0.1),
    reload: bool = True,
) -> Iterator[Run]:
    environ = {**os.environ, "PYTHONPATH": f"{SOURCE}:{ROOT}"}
    command = [sys.executable, "-c", CODE, json.dumps([str(folder), stages, pace, reload])]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Run(folder, process)
        finally:
            process.terminate()


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def events(folder: Path) -> list[str]:
    return [event["event"] for event in state.events(folder)]


def test_stages_are_started_and_stopped_in_their_order(tmp_path: Path) -> None:
    names = ["capture", "seal", "deliver"]
    with running(tmp_path, *(stage(tmp_path, name, "slow=0.2") for name in names)) as run:
        until(lambda: run.healthy(*names))
        pids = [run.child(name)["pid"] for name in names]
        assert run.report()["ready"] is True
        assert run.report()["alarms"] == []
        code, _ = run.end()
    assert code == 0
    assert all(map(gone, pids))
    stops = [[when for when, _, what in run.told(name) if what == "stopped"] for name in names]
    assert sorted(stops) == stops
    assert stops[1][0] - stops[0][0] >= 0.2e9
    assert events(tmp_path) == ["run started", *["stage started"] * 3, "run stopped"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_ends_it(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, stage(tmp_path, "capture")) as run:
        until(lambda: run.healthy("capture"))
        run.process.send_signal(number)
        assert run.outcome()[0] == 0


def test_stages_speak_for_themselves_on_the_same_output(tmp_path: Path) -> None:
    with running(tmp_path, stage(tmp_path, "capture"), stage(tmp_path, "seal")) as run:
        until(lambda: run.healthy("capture", "seal"))
        run.process.send_signal(signal.SIGTERM)
        out, _ = run.process.communicate(timeout=30)
    assert sorted(out.splitlines()) == ["capture speaks", "seal speaks"]


def test_a_stage_that_was_killed_is_started_again_and_the_others_are_left(tmp_path: Path) -> None:
    with running(tmp_path, stage(tmp_path, "capture"), stage(tmp_path, "seal")) as run:
        until(lambda: run.healthy("capture", "seal"))
        capture, seal = run.child("capture")["pid"], run.child("seal")["pid"]
        os.kill(seal, signal.SIGKILL)
        until(lambda: run.child("seal").get("restarts") == 1 and run.healthy("seal"))
        assert run.child("seal")["pid"] != seal
        assert run.child("seal")["last_exit"] == "killed by SIGKILL"
        assert run.child("capture")["pid"] == capture
        until(lambda: not run.report()["alarms"])
        _, log = run.end()
    died = next(line for line in log if line["event"] == "stage died")
    assert (died["stage"], died["exit"], died["level"]) == ("seal", "killed by SIGKILL", "error")
    alarms = [(event["event"], event.get("severity")) for event in state.events(tmp_path) if "alarm" in event["event"]]
    assert alarms == [("alarm", "warning"), ("alarm over", None)]
    assert "stage died" in events(tmp_path)


def test_a_stage_that_keeps_dying_is_started_later_each_time(tmp_path: Path) -> None:
    with running(
        tmp_path, stage(tmp_path, "capture"), stage(tmp_path, "deliver", "exit=3"), pace=(0.1, 0.4, 60, 0.05)
    ) as run:
        until(lambda: run.child("deliver").get("restarts", 0) >= 5)
        assert run.healthy("capture")
        assert run.alarm()["code"] == "STAGE_DOWN"
        assert run.alarm()["severity"] == "warning"
        assert "deliver: exit code 3" in run.alarm()["text"]
        code, log = run.end()
    assert code == 0
    delays = [line["again_in_s"] for line in log if line["event"] == "stage died"]
    assert delays[:5] == [0.1, 0.2, 0.4, 0.4, 0.4]


def test_a_stage_that_lived_for_long_is_started_again_at_once(tmp_path: Path) -> None:
    with running(tmp_path, stage(tmp_path, "capture"), pace=(0.1, 5, 0.3, 0.05)) as run:
        for restarts in range(4):
            until(lambda n=restarts: run.healthy("capture") and run.child("capture")["restarts"] == n)  # type: ignore[misc]
            time.sleep(0.3)
            os.kill(run.child("capture")["pid"], signal.SIGKILL)
        until(lambda: run.child("capture")["restarts"] == 4)
        _, log = run.end()
    assert [line["again_in_s"] for line in log if line["event"] == "stage died"] == [0.1] * 4


def test_the_loss_of_capture_is_critical(tmp_path: Path) -> None:
    with running(
        tmp_path, stage(tmp_path, "capture", "once=1"), stage(tmp_path, "seal"), pace=(1.0, 1, 60, 0.05)
    ) as run:
        until(lambda: run.alarm().get("severity") == "critical")
        until(lambda: run.healthy("capture") and not run.alarm())


def test_a_command_that_cannot_be_started_is_a_stage_that_dies(tmp_path: Path) -> None:
    with running(tmp_path, stage(tmp_path, "capture"), ("seal", [str(tmp_path / "none")], {})) as run:
        until(lambda: "cannot be started" in run.alarm().get("text", ""))
        assert run.end()[0] == 0


@pytest.mark.parametrize("code", [64, 78])
def test_a_wrong_configuration_ends_the_run(tmp_path: Path, code: int) -> None:
    with running(tmp_path, stage(tmp_path, "capture", f"exit={code}"), stage(tmp_path, "seal")) as run:
        assert run.outcome()[0] == code
    pids = [event["process"] for event in state.events(tmp_path) if event["event"] == "stage started"]
    assert len(pids) == 2
    assert all(map(gone, pids))


def test_a_stage_that_will_not_end_is_killed(tmp_path: Path) -> None:
    with running(tmp_path, stage(tmp_path, "capture", "stubborn", grace_s=0.3), stage(tmp_path, "seal")) as run:
        until(lambda: run.healthy("capture", "seal"))
        pid = run.child("capture")["pid"]
        code, log = run.end()
    assert code == 0
    assert gone(pid)
    assert "stage does not end and is killed" in [line["event"] for line in log]
    assert run.told("seal")[-1][2] == "stopped"


@pytest.mark.parametrize(("patience", "again", "left"), [(20, False, 0), (0.3, False, None), (20, True, None)])
def test_what_was_handed_over_last_is_still_done(
    tmp_path: Path, patience: float, again: bool, left: int | None
) -> None:
    """Within its time, and unless Ctrl-C is pressed again."""
    more = 5 if left == 0 else 10_000
    seal = stage(tmp_path, "seal", f"waiting={more}", drain_s=patience)
    with running(tmp_path, stage(tmp_path, "capture"), seal) as run:
        until(lambda: run.healthy("capture", "seal"))
        run.process.send_signal(signal.SIGINT)
        until(lambda: any("did one" in what for _, _, what in run.told("seal")))
        if again:
            run.process.send_signal(signal.SIGINT)
        assert run.outcome()[0] == 0
    *_, before, last = [what for _, _, what in run.told("seal")]
    assert last == "stopped"
    assert (before == "did one, 0 wait") is (left == 0)


def test_a_stage_that_says_nothing_is_killed_and_started_again(tmp_path: Path) -> None:
    with running(tmp_path, stage(tmp_path, "capture"), stage(tmp_path, "seal", "mute", hung_s=0.5)) as run:
        until(lambda: run.child("seal").get("restarts", 0) >= 1)
        assert run.child("seal")["last_exit"] == "killed by SIGKILL"
        assert run.healthy("capture")


def test_a_report_of_an_earlier_process_is_no_sign_of_life(tmp_path: Path) -> None:
    state.write(tmp_path, "capture", {})
    with running(tmp_path, stage(tmp_path, "capture", "mute")) as run:
        until(lambda: run.report().get("children"))
        time.sleep(0.5)
        assert not run.healthy("capture")
        assert run.report()["ready"] is False


def test_a_reload_reaches_all_stages_unless_the_configuration_is_wrong(tmp_path: Path) -> None:
    for reload in (True, False):
        folder = tmp_path / str(reload)
        folder.mkdir()
        with running(folder, stage(folder, "capture"), stage(folder, "seal"), reload=reload) as run:
            until(lambda run=run: run.healthy("capture", "seal"))  # type: ignore[misc]
            run.process.send_signal(signal.SIGHUP)
            run.process.send_signal(signal.SIGHUP)
            if reload:
                until(lambda run=run: all(run.told(name)[-1][2] == "reload" for name in ("capture", "seal")))  # type: ignore[misc]
            time.sleep(0.3)
            assert run.healthy("capture", "seal")
            assert run.child("capture")["restarts"] == 0
            run.end()
        assert ("reload" in events(folder)) is reload
        assert ("reload" in [what for _, _, what in run.told("seal")]) is reload


def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path) -> None:
    names = ["capture", "seal", "deliver"]
    with running(tmp_path, *(stage(tmp_path, name) for name in names)) as run:
        until(lambda: run.healthy(*names))
        pids = [run.child(name)["pid"] for name in names]
        run.process.kill()
        until(lambda: all(map(gone, pids)))
    assert [run.told(name)[-1][2] for name in names] == ["stopped"] * 3


def test_a_second_run_is_refused_while_the_first_or_its_stages_last(tmp_path: Path) -> None:
    with running(tmp_path, stage(tmp_path, "capture", "slow=1")) as run:
        until(lambda: run.healthy("capture"))
        with running(tmp_path, stage(tmp_path, "capture")) as second:
            _, errors = second.process.communicate(timeout=30)
            assert second.process.returncode != 0
            assert f"(process {run.process.pid}) already runs with the state folder {tmp_path}" in errors
        run.process.kill()
        run.process.wait()
        with running(tmp_path, stage(tmp_path, "capture")) as third:
            until(lambda: third.process.pid == third.report().get("pid") and third.healthy("capture"))
    told = [(pid, what) for _, pid, what in run.told("capture")]
    first_stop = next(n for n, (_, what) in enumerate(told) if what == "stopped")
    assert len({pid for pid, _ in told[: first_stop + 1]}) == 1  # two captures at once never were


def test_systemd_hears_when_it_is_ready_well_reloading_and_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        with running(tmp_path, stage(tmp_path, "capture"), stage(tmp_path, "seal"), pace=(1, 1, 60, 0.1)) as run:

            def heard(wanted: str) -> list[str]:
                said: list[str] = []
                while not said or not said[-1].startswith(wanted):
                    said.append(receiver.recv(4096).decode())
                return said

            assert "WATCHDOG=1" not in heard("READY=1")
            heard("WATCHDOG=1")
            heard("WATCHDOG=1")
            run.process.send_signal(signal.SIGHUP)
            heard("RELOADING=1\nMONOTONIC_USEC=")
            heard("READY=1")
            os.kill(run.child("capture")["pid"], signal.SIGKILL)
            heard("STATUS=capture down")
            assert "WATCHDOG=1" not in heard("STATUS=capture up")
            heard("WATCHDOG=1")
            run.process.send_signal(signal.SIGTERM)
            heard("STOPPING=1")
    assert all("notify=None" in what for _, _, what in run.told("capture") if what.startswith("started"))


def test_secrets_are_handed_only_to_the_stages_that_need_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPDECK_SECRET_NAS_PASSWORD", "hunter2")
    monkeypatch.setenv("TAPDECK_SIP_PORTS", "5080")
    names = ("capture", "deliver")
    with running(tmp_path, stage(tmp_path, "capture"), stage(tmp_path, "deliver", secrets=True)) as run:
        until(lambda: run.healthy(*names))
        seen = {name: Path(f"/proc/{run.child(name)['pid']}/environ").read_bytes().split(b"\0") for name in names}
    assert b"TAPDECK_SECRET_NAS_PASSWORD=hunter2" in seen["deliver"]
    assert not [one for one in seen["capture"] if b"TAPDECK_SECRET" in one or b"hunter2" in one]
    assert all(b"TAPDECK_SIP_PORTS=5080" in one for one in seen.values())
