"""The stages of a running box, asked of the kernel: whose they are, what they may do, what others learn of them."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tapdeck.storage import state
from tests.support import files
from tests.support.machine import Machine, machine_in
from tests.support.netns import needs_namespaces, wait_for
from tests.support.replay import replay
from tests.support.scene import plain_call
from tests.support.users import environment, python_for_all

pytestmark = needs_namespaces("nsenter", "unshare", "useradd", "setpriv", "prlimit")

STAGES = ("capture", "seal", "deliver")


class Running:
    """`tapdeck run` as root on a machine on which it is installed, its users made by `tapdeck install`."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.state, self.target = machine, machine.folder / "state", machine.folder / "target"
        self.target.mkdir()
        with machine.config.open("a") as file:
            file.write(f'[deliver]\nfolder = "{self.target}"\n[monitoring]\nselftest_at = ""\n')
        done = machine.tapdeck("install")
        assert done.returncode == 0, done.stderr
        assert machine.run("chown", "tapdeck-deliver", str(self.target)).returncode == 0
        self.target.chmod(0o700)
        words = [python_for_all(), "-P", "-m", "tapdeck.cli", "run", "--config", str(machine.config)]
        with (machine.folder / "run.log").open("ab") as log:
            # Core dumps are allowed to begin with, as on a machine on which somebody looks for a fault.
            self.process = subprocess.Popen(
                machine.command("prlimit", "--core=unlimited", *words),
                env=environment(),
                stdout=log,
                stderr=log,
                cwd="/",
            )

    def pid(self, stage: str) -> int:
        report: dict[str, Any] = (state.read(self.state, "run") or {}).get("children", {}).get(stage, {})
        return report["pid"] if report.get("healthy") else 0

    def wait_until_well(self) -> None:
        def well() -> bool:
            assert self.process.poll() is None, self.machine.logs()
            return all(map(self.pid, STAGES))

        wait_for("the stages", well, 40)

    def as_stage(self, stage: str, *words: str) -> str:
        """What a program says that runs as the user of a stage, with all its groups."""
        user = f"tapdeck-{stage}"
        group = self.machine.run("id", "-g", user).stdout.strip()
        done = self.machine.run("setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups", *words)
        return done.stdout + done.stderr


@pytest.fixture
def machine(open_folder: Path) -> Iterator[Machine]:
    with machine_in(open_folder) as here:
        yield here


@pytest.fixture
def box(machine: Machine) -> Iterator[Running]:
    running = Running(machine)
    try:
        running.wait_until_well()
        yield running
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0, machine.logs()
    finally:
        running.process.kill()
        running.process.wait()


def status(pid: int) -> dict[str, list[str]]:
    lines = (line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.split() for name, value in lines}


def check_confined(box: Running, stage: str) -> str:
    """Check what the kernel says of a stage's process; return its user's number."""
    pid, user = box.pid(stage), f"tapdeck-{stage}"
    found = status(pid)
    number = box.machine.run("id", "-u", user).stdout.strip()
    assert found["Uid"] == [number] * 4
    assert found["Gid"] == [box.machine.run("id", "-g", user).stdout.strip()] * 4
    assert sorted(found["Groups"]) == sorted(box.machine.run("id", "-G", user).stdout.split())
    for kind in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
        assert int(found[kind][0], 16) == 0, (stage, kind)
    assert found["NoNewPrivs"] == ["1"]
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), limits
    # Not even its own user may look into its memory, or attach to it: the kernel gives its /proc entries to root.
    assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
    assert "Permission denied" in box.as_stage(stage, "cat", f"/proc/{pid}/environ", f"/proc/{pid}/maps")
    return number


def test_each_stage_is_its_own_user_and_may_do_nothing_else(box: Running) -> None:
    limits = Path(f"/proc/{box.process.pid}/limits").read_text()
    assert re.search(r"^Max core file size +unlimited +unlimited ", limits, re.MULTILINE)
    numbers = {check_confined(box, stage) for stage in STAGES}
    assert len(numbers) == len(STAGES)
    assert "0" not in numbers


def test_a_stage_that_is_started_again_is_no_less_confined(box: Running) -> None:
    before = {stage: box.pid(stage) for stage in STAGES}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    wait_for("new ones", lambda: all(box.pid(stage) not in (0, pid) for stage, pid in before.items()), 40)
    for stage in STAGES:
        check_confined(box, stage)


def test_a_call_gets_through_and_each_user_sees_his_part_of_it(box: Running) -> None:
    machine, scene = box.machine, plain_call(seed=11, duration_ms=500)
    replay(machine.wire.sender, machine.wire.interface, files.write(machine.folder, files.pcap(scene.packets())))
    wait_for("the copy", lambda: list(box.target.rglob("*.wav")), 40)
    [recording] = (machine.folder / "recordings").rglob("*.wav")
    [copy] = box.target.rglob("*.wav")
    assert copy.read_bytes() == recording.read_bytes()
    may_read = {
        stage: "Permission denied" not in box.as_stage(stage, "head", "-c4", str(recording)) for stage in STAGES
    }
    assert may_read == {"capture": False, "seal": True, "deliver": True}
    spool = str(machine.folder / "spool" / "done")
    may_look = {stage: "Permission denied" not in box.as_stage(stage, "ls", spool) for stage in STAGES}
    assert may_look == {"capture": True, "seal": True, "deliver": False}
    may_copy = {stage: "Permission denied" not in box.as_stage(stage, "ls", str(box.target)) for stage in STAGES}
    assert may_copy == {"capture": False, "seal": False, "deliver": True}


@pytest.mark.parametrize("spoilt", [False, True])
def test_the_self_test_runs_within_the_confinement_of_the_service(machine: Machine, spoilt: bool) -> None:
    target = machine.folder / "target"
    target.mkdir()
    with machine.config.open("a") as file:
        file.write(f'[deliver]\nfolder = "{target}"\n')
    assert machine.tapdeck("install").returncode == 0
    if not spoilt:
        machine.run("chown", "tapdeck-deliver", str(target))
    unit = machine.etc / "systemd/system/tapdeck.service"
    test = unit.with_name("probe.service")
    command = f"{python_for_all()} -P -m tapdeck.cli selftest --config {machine.config}"
    test.write_text(re.sub(r"ExecStart=.*", f"ExecStart={command}", unit.read_text()))
    assert machine.start("probe.service").wait(60) == int(spoilt), machine.logs()
    assert ("Permission denied" in machine.logs()) is spoilt
    report = state.read(machine.folder / "state", "selftest") or {}
    assert report["passed"] is not spoilt
    assert list(target.iterdir()) == []
    assert not list(machine.folder.glob("*/.tapdeck-selftest*"))
