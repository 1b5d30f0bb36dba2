"""`tapdeck run`: the whole box in a namespace, each stage as a user of its own."""

import json
import os
import pwd
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tapdeck.cli.config import load
from tapdeck.cli.main import cli
from tapdeck.cli.run import environment, stages
from tapdeck.cli.settings import Settings
from tapdeck.storage import state
from tests.support import files
from tests.support.netns import Namespaces, Wire, needs_namespaces, sh, wait_for, within
from tests.support.replay import replay
from tests.support.scene import plain_call
from tests.support.users import environment as clean_environment
from tests.support.users import needs_root, python_for_all

STAGES = ("capture", "seal", "deliver")
USERS = {"capture": "daemon", "seal": "bin", "deliver": "sys"}
GROUP = "games"
"""Users and a group that every Debian has, in place of those that `tapdeck install` makes."""


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Namespaces() as spaces:
        yield Wire.between(spaces)


class Running:
    """A box whose stages are other users."""

    def __init__(self, wire: Wire, folder: Path, *more: str) -> None:
        self.folder, self.state = folder, folder / "state"
        self.log = folder / "log.txt"
        places = (("out", "recordings"), ("spool", "spool"), ("keys", "keys"))
        folders = [f"--{name}={folder / value}" for name, value in places]
        users = [f"--{stage}-user={user}" for stage, user in USERS.items()]
        words = [
            "run",
            "-i",
            wire.tap_interface,
            "--ring-mb=8",
            "--bye-linger-s=1",
            *folders,
            f"--state={self.state}",
            *users,
        ]
        (folder / "click.py").write_text("raise SystemExit('imported from the folder that somebody happened to be in')")
        command = [
            python_for_all(),
            "-P",
            "-m",
            "tapdeck.cli",
            *words,
            f"--group={GROUP}",
            "--metrics-user=nobody",
            *more,
        ]
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                within(wire.tap, *command), env=clean_environment(), stdout=sink, stderr=sink, cwd=folder
            )

    def child(self, name: str) -> dict[str, Any]:
        found = (state.read(self.state, "run") or {}).get("children", {}).get(name, {})
        assert isinstance(found, dict)
        return found

    def wait_until_well(self, stages: tuple[str, ...] = STAGES) -> None:
        def well() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            of_this_run = (state.read(self.state, "run") or {}).get("pid") == self.process.pid
            return of_this_run and all(self.child(name).get("healthy") for name in stages)

        wait_for("the stages", well, 30)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def box(wire: Wire, open_folder: Path) -> Iterator[Running]:
    running = Running(wire, open_folder)
    try:
        running.wait_until_well()
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        pids = [pid for name in STAGES if (pid := running.child(name).get("pid"))]
        wait_for("the end of the stages", lambda: not any(map(state.process_runs, pids)))


def status_of(pid: int) -> dict[str, list[str]]:
    lines = (line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.split() for name, value in lines}


@needs_namespaces()
def test_each_stage_is_a_user_without_rights_and_the_call_gets_through(
    box: Running, wire: Wire, open_folder: Path
) -> None:
    for name, user in USERS.items():
        status = status_of(box.child(name)["pid"])
        assert set(status["Uid"]) == {str(pwd.getpwnam(user).pw_uid)}
        sets = {key: int(status[key][0], 16) for key in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")}
        assert set(sets.values()) == {0}, name
        assert status["NoNewPrivs"] == ["1"]
    scene = plain_call(seed=7, duration_ms=600)
    replay(wire.sender, wire.interface, files.write(open_folder, files.pcap(scene.packets())))
    recordings = open_folder / "recordings"
    wait_for("the recording", lambda: list(recordings.rglob("*.wav")), 30)
    wait_for("an empty spool", lambda: not list((open_folder / "spool").rglob("*.pcapng")), 30)
    wait_for("the hand-over", lambda: not list((box.state / "handover").iterdir()), 30)
    assert box.stop() == 0, box.log.read_text()

    # Sound is seal's and, to read, deliver's; nobody else's.
    paths = [recordings, *recordings.rglob("*")]
    assert {path.stat().st_uid for path in paths} == {pwd.getpwnam("bin").pw_uid}
    assert {path.stat().st_gid for path in paths} == {pwd.getpwnam("sys").pw_gid}
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in paths}
    assert modes == {(True, 0o2770), (False, 0o640), (False, 0o750)}  # the last one is the script that verifies
    assert not [path for path in (box.state, *box.state.rglob("*")) if path.stat().st_mode & 0o007]
    assert not [path for path in (open_folder / "spool").rglob("*") if path.stat().st_mode & 0o007]
    assert [alarm for stage in (*STAGES, "run") for alarm in (state.read(box.state, stage) or {})["alarms"]] == []


@needs_namespaces()
def test_kill_9_of_the_supervisor_stops_all_stages_cleanly_and_the_next_run_goes_on(
    box: Running, wire: Wire, open_folder: Path
) -> None:
    pids = [box.child(name)["pid"] for name in STAGES]
    box.process.kill()
    wait_for("the end of the stages", lambda: not any(map(state.process_runs, pids)))
    assert (state.read(box.state, "capture") or {})["clean"] is True
    again = Running(wire, open_folder)
    try:
        again.wait_until_well()
        assert not set(pids) & {again.child(name)["pid"] for name in STAGES}
        assert again.stop() == 0
    finally:
        again.process.kill()


@needs_namespaces()
def test_a_reload_is_taken_by_all_stages(box: Running) -> None:
    pids = [box.child(name)["pid"] for name in STAGES]
    box.process.send_signal(signal.SIGHUP)
    wait_for("the reload", lambda: "configuration reloaded" in [event["event"] for event in state.events(box.state)])
    time.sleep(1.5)
    assert [box.child(name)["pid"] for name in STAGES] == pids
    assert all(box.child(name)["healthy"] for name in STAGES)


@needs_namespaces()
def test_a_second_run_is_refused(box: Running, wire: Wire, open_folder: Path) -> None:
    second = Running(wire, open_folder)
    assert second.process.wait(30) == 75
    assert "already runs with the state folder" in box.log.read_text()
    assert all(box.child(name)["healthy"] for name in STAGES)


@needs_namespaces()
def test_the_output_is_json_where_that_is_wanted(wire: Wire, open_folder: Path) -> None:
    running = Running(wire, open_folder, "--json")
    running.wait_until_well()
    assert running.stop() == 0
    lines = [json.loads(line) for line in running.log.read_text().splitlines()]
    assert "ready" in [line.get("event") for line in lines]


@needs_namespaces("ss")
@pytest.mark.parametrize("listen", ["", "127.0.0.1:9464"])
def test_nothing_listens_but_what_is_configured(wire: Wire, open_folder: Path, listen: str) -> None:
    sh("ip", "-n", wire.tap, "link", "set", "lo", "up")
    running = Running(wire, open_folder, *([f"--prometheus-listen={listen}"] if listen else []))
    try:
        running.wait_until_well((*STAGES, "metrics") if listen else STAGES)
        found = [line.split()[4] for line in sh(*within(wire.tap, "ss", "-Hltunp")).splitlines()]
        assert found == ([listen] if listen else [])
        if listen:
            status = status_of(running.child("metrics")["pid"])
            assert set(status["Uid"]) == {str(pwd.getpwnam("nobody").pw_uid)}
            assert int(status["CapEff"][0], 16) == 0
            fetch = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
            text = sh(*within(wire.tap, sys.executable, "-c", fetch, f"http://{listen}/metrics"))
            assert "tapdeck_up 1.0" in text
            assert 'tapdeck_stage_up{stage="deliver"} 1.0' in text
        assert running.stop() == 0
    finally:
        running.process.kill()


def test_what_needs_no_box_to_be_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["run"]).exit_code == 64
    (tmp_path / "bad.toml").write_text("[capture]\nring_mb = 1\n")
    assert CliRunner().invoke(cli, ["run", "-i", "lo", "--config", "bad.toml"]).exit_code == 78


@needs_root
@pytest.mark.parametrize("name", ["capture", "seal", "deliver", "metrics"])
def test_a_missing_user_is_said_before_anything_starts(tmp_path: Path, name: str) -> None:
    state_folder = tmp_path / "state"
    done = CliRunner().invoke(cli, ["run", "-i", "lo", "--state", str(state_folder), f"--{name}-user=no-such-user"])
    assert done.exit_code == 78
    assert "`tapdeck install` makes it" in done.stderr
    assert not state_folder.exists()


def test_a_folder_that_is_another_s_is_not_taken(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("owners are changed by root alone")
    home = tmp_path / "home"
    home.mkdir(mode=0o750)
    (home / "letter").write_text("dear")
    words = ["--out", str(home), *(f"--{name}={tmp_path / name}" for name in ("spool", "state", "keys"))]
    users = ["--group=games", *(f"--{stage}-user={user}" for stage, user in USERS.items()), "--metrics-user=nobody"]
    done = CliRunner().invoke(cli, ["run", "-i", "lo", *words, *users])
    assert done.exit_code == 78
    assert "is not empty and belongs to root, not to bin" in done.stderr
    assert (home.stat().st_uid, stat.S_IMODE(home.stat().st_mode)) == (0, 0o750)


def test_options_reach_the_stages_as_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TAPDECK_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "box.toml"
    file.write_text('[recording]\nutc = true\n[capture]\nring_mb = 16\ninterfaces = ["eth7"]\n')
    options = {
        "capture__interfaces": ("eth0", "eth1"),
        "capture__promiscuous": False,
        "capture__sync_s": 0.5,
        "capture__filter": "udp and not host 10.0.0.1",
        "sip__ports": (5060, 5080),
        "users__capture": "",
        "storage__recordings": None,
    }
    settings = load(file, options)
    given = environment(settings, options, {"PATH": "/usr/bin"})
    assert given["PATH"] == "/usr/bin"
    code = "from tapdeck.cli.config import load; print(repr(load()))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean_environment(), **given}, capture_output=True, text=True, cwd="/"
    )
    assert done.stdout.strip() == repr(settings), done.stderr


def test_the_stages_that_reach_targets_and_mail_servers_get_secrets_and_no_other() -> None:
    everything = replace(
        Settings(),
        alarms=replace(Settings().alarms, server="mail.example.com"),
        monitoring=replace(Settings().monitoring, prometheus_file="/srv/tapdeck.prom"),
    )
    found = stages(everything, as_json=False)
    assert [one.name for one in found] == ["capture", "seal", "deliver", "metrics", "alarms"]
    assert [one.name for one in found if one.secrets] == ["deliver", "alarms"]
