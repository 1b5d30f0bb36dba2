"""`tapdeck deliver` as a process: killed, stopped, reloaded, on full disks, with targets that go and come back."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tapdeck.cli.exit_codes import ExitCode
from tapdeck.storage import handover, state
from tapdeck.storage.folder_target import MARK
from tests.support.parcels import DAY, everything, fill, noise, record, small_disk, visible
from tests.support.users import environment, needs_root, python_for_all

MB = 1 << 20
PATIENCE_S = 60.0
USERS = ("capture-user", "seal-user", "deliver-user", "metrics-user")


class Deliver:
    """The stage, with folders of its own."""

    def __init__(self, folder: Path, target: Path | None, *more: str, python: str = sys.executable) -> None:
        self.root, self.state, self.spool = folder / "recordings", folder / "state", folder / "spool"
        self.target = target
        self.python = python
        self.more = list(more)
        self.environ = environment()
        self.log = folder / "deliver.out"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *more: str) -> list[str]:
        places = ["--out", self.root, "--state", self.state, "--spool", self.spool]
        places += ["--keys", self.state.with_name("keys")]
        target = ["--deliver-to", self.target] if self.target else []
        mine = [word for user in ("group", *USERS) for word in (f"--{user}", "")]
        return [
            self.python,
            "-m",
            "tapdeck.cli",
            "deliver",
            "--json",
            *map(str, [*places, *target]),
            *mine,
            *self.more,
            *more,
        ]

    def once(self) -> tuple[int, list[dict[str, Any]]]:
        """Run it to its end; return the exit code and what it printed."""
        done = subprocess.run(
            self.command("--once"), env=self.environ, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(), env=self.environ, stdout=log, stderr=log)

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait for something that does not take long, and only as long as the stage runs."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        self.process = None
        return code

    def reload(self) -> None:
        """Have it read its configuration, and look at everything again."""
        before = len(self.events("deliver reloaded"))
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        self.until(lambda report: len(self.events("deliver reloaded")) > before)
        seen = self.report()["updated"]
        self.until(lambda report: report["updated"] > seen)

    def kill(self) -> None:
        if self.process is not None:
            self.stop(signal.SIGKILL)

    def report(self) -> dict[str, Any]:
        """What the running process says of itself."""
        report = state.read(self.state, "deliver")
        return report if report and self.process and report["pid"] == self.process.pid else {}

    def until(self, condition: Callable[[dict[str, Any]], Any], poll: float = 0.05) -> dict[str, Any]:
        """Wait until the report is as it should be."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert self.process is None or self.process.poll() is None, self.log.read_text()
            report = self.report()
            if report and condition(report):
                return report
            time.sleep(poll)
        raise AssertionError(f"it did not happen: {self.report()} {self.log.read_text()}")

    def confirmed(self, count: int) -> dict[str, Any]:
        """Wait until so many are confirmed and none waits."""
        return self.until(lambda report: _counts(report) == (count, 0))

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in state.events(self.state) if event["event"] == kind]


def _counts(report: dict[str, Any]) -> tuple[int, int]:
    return sum(one["confirmed"] for one in report["targets"]), sum(one["waiting"] for one in report["targets"])


def alarms(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {alarm["code"]: alarm for alarm in report["alarms"]}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


@pytest.fixture
def box(tmp_path: Path, disk: Path) -> Iterator[Deliver]:
    made = Deliver(tmp_path, disk, "--reserve-mb", "1")
    yield made
    made.kill()


def copies(folder: Path) -> dict[str, bytes]:
    """Everything on a target, temporary files too, save its mark."""
    return {path: content for path, content in everything(folder).items() if path != MARK}


def test_once_delivers_what_is_here_and_again_does_nothing(box: Deliver, disk: Path) -> None:
    made = [record(box.root, f"{letter}bcdefghij", ended=1_795_000_000.0 + n) for n, letter in enumerate("cab")]
    handover.write(box.state, made[1])
    code, lines = box.once()
    assert code == ExitCode.OK
    assert [(line["event"], line["id"], line["target"]) for line in lines] == [
        ("delivered", parcel.id, str(disk)) for parcel in made
    ]
    assert copies(disk) == everything(box.root)
    assert handover.waiting(box.state) == ([], [])
    assert [event["id"] for event in box.events("delivered")] == [parcel.id for parcel in made]
    assert box.once() == (ExitCode.OK, [])
    assert copies(disk) == everything(box.root)


def test_once_without_its_disk_says_what_to_do_and_fails(box: Deliver, disk: Path) -> None:
    made = record(box.root, "abcdefghij")
    disk.rmdir()
    code, lines = box.once()
    assert code == ExitCode.CANNOT_WRITE
    assert [line["event"] for line in lines] == ["outage"]
    assert "is the disk mounted" in lines[0]["error"]
    assert not disk.exists()
    report = state.read(box.state, "deliver")
    assert report is not None
    alarm = alarms(report)["DELIVER_FAILED"]
    assert "takes nothing since" in alarm["text"]
    assert "1 recording (" in alarm["text"]
    assert "waits, safe on this machine" in alarm["text"]
    assert alarm["about"] == str(disk)
    assert box.once()[0] == ExitCode.CANNOT_WRITE
    assert len(box.events("alarm")) == 1
    disk.mkdir()
    code, lines = box.once()
    assert (code, [(line["id"], line["recovered"]) for line in lines]) == (ExitCode.OK, [(made.id, True)])
    assert [event["since"] for event in box.events("alarm over")] == [alarm["since"]]


def test_without_targets_nothing_goes_anywhere(tmp_path: Path) -> None:
    box = Deliver(tmp_path, None)
    record(box.root, "abcdefghij")
    before = everything(box.root)
    assert box.once() == (ExitCode.OK, [])
    report = state.read(box.state, "deliver")
    assert report is not None
    assert report["targets"] == []
    assert report["disk"]["used_by_recordings"] == sum(map(len, before.values()))
    assert everything(box.root) == before


def test_text_for_the_terminal_is_a_line_a_recording(box: Deliver, disk: Path) -> None:
    record(box.root, "abcdefghij", noise(2_000_000))
    command = [word for word in box.command("--once") if word != "--json"]
    told = subprocess.run(command, env=box.environ, capture_output=True, text=True, check=True).stdout
    assert f"  abcdefghij  delivered to {disk}  2 files, 2.0 MB, " in told
    assert len(told.splitlines()) == 1


def test_a_running_stage_takes_what_is_handed_over(box: Deliver, disk: Path) -> None:
    first = record(box.root, "abcdefghij")  # published, and killed before it could be handed over
    box.start()
    box.confirmed(1)
    made = [record(box.root, f"b{letter}cdefghij", folder=f"2026/11/{n + 1:02}") for n, letter in enumerate("abcde")]
    for parcel in made:
        handover.write(box.state, parcel)
        handover.write(box.state, parcel)
    report = box.confirmed(6)
    assert copies(disk) == everything(box.root)
    assert list((box.state / "handover").iterdir()) == []
    (target,) = report["targets"]
    assert (target["name"], target["failing_since"], target["error"]) == (str(disk), None, None)
    used = sum(parcel.bytes for parcel in [first, *made])
    report = box.until(lambda report: report["disk"]["used_by_recordings"] == used)
    assert report["disk"]["total"] == os.statvfs(box.root).f_blocks * os.statvfs(box.root).f_frsize
    assert report["alarms"] == []
    assert box.stop() == ExitCode.OK
    assert sorted(line["id"] for line in box.lines()) == sorted(parcel.id for parcel in [first, *made])


def test_what_is_no_hand_over_stops_nothing(box: Deliver, disk: Path) -> None:
    made = record(box.root, "abcdefghij")
    handover.write(box.state, made)
    (box.state / "handover" / "bbcdefghij.json").write_bytes(b"{")
    assert box.once()[0] == ExitCode.OK
    assert copies(disk) == everything(box.root)
    assert [event["stage"] for event in box.events("complaint")] == ["deliver"]


def _part(disk: Path) -> int:
    """The size of a file on its way, 0 if there is none."""
    with suppress(FileNotFoundError):
        return max((path.stat().st_size for path in disk.rglob(".*.wav.*part")), default=0)
    return 0


def configure(box: Deliver, folder: Path, **keys: object) -> None:
    """Have the stage serve a target that the configuration file names."""
    table = {"name": "usb", "kind": "folder", "folder": str(folder), **keys}
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    config = folder.parent / "tapdeck.toml"
    config.write_text("\n".join(["[[targets]]", *lines, ""]))
    if "--config" not in box.more:
        box.target, box.more = None, [*box.more, "--config", str(config)]


@pytest.mark.parametrize("moment", ["copying", "reading back", "named"])
def test_a_kill_in_the_middle_of_a_long_recording(box: Deliver, disk: Path, moment: str) -> None:
    configure(box, disk, limit_kbit=240_000)  # 32 MB take a second each way
    size = 32 * MB
    made = record(box.root, "abcdefghij", noise(size))
    record(box.root, "bbcdefghij", ended=1_796_000_000.0)
    place = disk / made.files[0]

    def there(before: int) -> bool:
        if moment == "copying":
            return before < _part(disk) < size
        return _part(disk) == size if moment == "reading back" else place.exists()

    for _ in range(2):
        before = _part(disk)
        box.start()
        box.wait_for(partial(there, before))
        box.kill()
        assert moment == "named" or not place.exists()
        assert moment == "named" or _part(disk) > before or before == size
    box.start()
    box.confirmed(2)
    assert box.stop() == ExitCode.OK
    assert copies(disk) == everything(box.root)
    assert len(box.events("delivered")) <= 2


def test_kills_at_any_moment(box: Deliver, disk: Path) -> None:
    made = [record(box.root, f"{chr(97 + n)}bcdefghij", noise(2 * MB), ended=1_795_000_000.0 + n) for n in range(10)]
    for parcel in made[:5]:
        handover.write(box.state, parcel)
    for n in range(8):
        box.start()
        time.sleep(0.3 + n * 0.05)
        box.kill()
        assert {path: made for path, made in visible(disk).items() if everything(box.root)[path] != made} == {}
    box.start()
    box.confirmed(10)
    assert box.stop() == ExitCode.OK
    assert copies(disk) == everything(box.root)
    ids = [event["id"] for event in box.events("delivered")]
    assert len(set(ids)) == len(ids)


def test_a_stop_in_the_middle_names_nothing_half_and_the_rest_follows(box: Deliver, disk: Path) -> None:
    configure(box, disk, limit_kbit=80_000)
    made = record(box.root, "abcdefghij", noise(32 * MB))
    box.start()
    box.wait_for(lambda: _part(disk) > 4 * MB)
    assert box.stop() == ExitCode.OK
    assert visible(disk) == {}
    kept = _part(disk)
    configure(box, disk)
    code, (line,) = box.once()
    assert code == ExitCode.OK
    assert line["id"] == made.id
    assert copies(disk) == everything(box.root)
    assert kept > 4 * MB


def test_ctrl_c_ends_a_single_run_with_its_code(box: Deliver, disk: Path) -> None:
    configure(box, disk, limit_kbit=8_000)
    record(box.root, "abcdefghij", noise(4 * MB))
    box.more.append("--once")
    box.start()
    box.wait_for(lambda: _part(disk))
    assert box.stop(signal.SIGINT) == ExitCode.INTERRUPTED
    assert copies(disk) == {}


def test_an_outage_is_told_and_everything_follows_in_order(box: Deliver, disk: Path) -> None:
    first = record(box.root, "abcdefghij", ended=1_795_000_000.0)
    box.start()
    box.confirmed(1)
    away = disk.rename(disk.with_name("away"))
    disk.mkdir()  # the empty mount point
    made = [record(box.root, f"{letter}bcdefghij", ended=1_795_000_001.0 + n) for n, letter in enumerate("dcb")]
    for parcel in reversed(made):
        handover.write(box.state, parcel)
    report = box.until(lambda report: "DELIVER_FAILED" in alarms(report) and _counts(report)[1] == 3)
    (target,) = report["targets"]
    assert target["failing_since"] is not None
    assert MARK in target["error"]
    assert target["failing_since"] in alarms(report)["DELIVER_FAILED"]["text"]
    assert list(disk.iterdir()) == []
    disk.rmdir()
    away.rename(disk)
    report = box.confirmed(4)
    assert report["alarms"] == []
    assert [event["id"] for event in box.events("delivered")] == [parcel.id for parcel in [first, *made]]
    assert copies(disk) == everything(box.root)
    assert [event["code"] for event in box.events("alarm")] == ["DELIVER_FAILED"]
    assert [event["code"] for event in box.events("alarm over")] == ["DELIVER_FAILED"]


@needs_root
def test_a_poisonous_recording_is_told_and_the_others_arrive(box: Deliver, disk: Path) -> None:
    """It cannot be read: a folder has the place of one of its files."""
    bad = record(box.root, "abcdefghij", ended=1_795_000_000.0)
    handover.write(box.state, bad)
    (box.root / bad.files[0]).unlink()
    (box.root / bad.files[0]).mkdir()
    handover.write(box.state, record(box.root, "bbcdefghij", ended=1_795_000_001.0))
    box.start()
    report = box.until(lambda report: _counts(report) == (1, 1) and "DELIVER_FAILED" in alarms(report))
    assert report["targets"][0]["refused"] == 1
    assert "refuses 1 recording since" in alarms(report)["DELIVER_FAILED"]["text"]
    assert "cannot be read" in alarms(report)["DELIVER_FAILED"]["text"]
    assert set(copies(disk)) == {path for path in everything(box.root) if "bbcdefghij" in path}


def test_a_recording_that_has_vanished_is_told_until_it_is_back(box: Deliver, disk: Path) -> None:
    gone, other = record(box.root, "abcdefghij"), record(box.root, "bbcdefghij")
    handover.write(box.state, gone)
    content = (box.root / gone.files[0]).read_bytes()
    (box.root / gone.files[0]).unlink()
    code, lines = box.once()
    assert (code, sorted(line["event"] for line in lines)) == (ExitCode.CANNOT_WRITE, ["delivered", "lost"])
    report = state.read(box.state, "deliver")
    assert report is not None
    alarm = alarms(report)["RECORDING_LOST"]
    assert alarm["severity"] == "critical"
    assert gone.id in alarm["text"]
    assert gone.stem in alarm["text"]
    assert "DELIVER_FAILED" not in alarms(report)
    assert box.once() == (ExitCode.CANNOT_WRITE, [])  # it is not tried again
    assert [event["id"] for event in box.events("recording lost")] == [gone.id]
    (box.root / gone.files[0]).write_bytes(content)
    code, lines = box.once()
    assert (code, [line["event"] for line in lines]) == (ExitCode.OK, ["delivered"])
    assert copies(disk) == everything(box.root)
    assert [event["code"] for event in box.events("alarm over")] == ["RECORDING_LOST"]
    assert other.files[0] in copies(disk)


def test_a_taken_name_is_told(box: Deliver, disk: Path) -> None:
    made = record(box.root, "abcdefghij")
    (disk / DAY).mkdir(parents=True)
    (disk / made.files[0]).write_bytes(b"somebody else's")
    code, (line,) = box.once()
    assert (code, line["beside"]) == (ExitCode.OK, True)
    assert (disk / made.files[0]).read_bytes() == b"somebody else's"
    assert (disk / line["folder"] / PurePosixPath(made.files[0]).name).read_bytes() == (
        box.root / made.files[0]
    ).read_bytes()
    report = state.read(box.state, "deliver")
    assert report is not None
    assert "NAME_TAKEN" in alarms(report)


def test_a_reload_brings_another_target_and_a_wrong_one_changes_nothing(
    box: Deliver, disk: Path, tmp_path: Path
) -> None:
    other, config = tmp_path / "other", tmp_path / "tapdeck.toml"
    other.mkdir()
    record(box.root, "abcdefghij")
    config.write_text(f'[deliver]\nfolder = "{disk}"\n')
    box.target, box.more = None, [*box.more, "--config", str(config)]
    box.start()
    box.confirmed(1)
    config.write_text("[deliver]\nfolder = 7\n")
    assert box.process is not None
    box.process.send_signal(signal.SIGHUP)
    box.until(lambda report: box.events("complaint"))
    config.write_text(f'[deliver]\nfolder = "{other}"\n')
    box.process.send_signal(signal.SIGHUP)
    box.until(lambda report: report["targets"][0]["name"] == str(other) and _counts(report) == (1, 0))
    assert copies(other) == copies(disk) == everything(box.root)
    assert box.stop() == ExitCode.OK


def test_two_at_once_are_one_too_many(box: Deliver, disk: Path) -> None:
    box.start()
    box.until(bool)
    assert box.once()[0] == ExitCode.ALREADY_RUNNING


def test_a_damaged_queue_is_made_anew_and_nothing_arrives_twice(box: Deliver, disk: Path) -> None:
    for letter in "abc":
        record(box.root, f"{letter}bcdefghij")
    box.once()
    (box.state / "queue.sqlite").write_bytes(b"no database at all" * 1000)
    code, lines = box.once()
    assert code == ExitCode.OK
    assert [line["event"] for line in lines] == ["delivered"] * 3
    assert copies(disk) == everything(box.root)
    assert box.events("complaint")


def test_systemd_is_told(box: Deliver, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(PATIENCE_S)
        box.environ["NOTIFY_SOCKET"] = address
        box.start()
        told = [receiver.recv(1000) for _ in range(3)]
        assert told == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        assert box.process is not None
        box.process.terminate()
        while (last := receiver.recv(1000)) == b"WATCHDOG=1":
            pass
        assert last == b"STOPPING=1"
        box.stop()


@needs_root
def test_it_works_as_its_own_user(open_folder: Path) -> None:
    disk = open_folder / "disk"
    box = Deliver(open_folder, disk, "--deliver-user", "nobody", "--group", "nogroup", python=python_for_all())
    record(box.root, "abcdefghij")
    for folder in (disk, box.state):
        folder.mkdir()
        os.chown(folder, 65534, -1)
    assert box.once()[0] == ExitCode.OK
    assert copies(disk) == everything(box.root)
    assert {path.stat().st_uid for path in disk.rglob("*")} == {65534}


class Small:
    """A machine with a small disk, and a stage on it; the target is elsewhere."""

    def __init__(self, machine: Path, disk: Path, reserve: int) -> None:
        self.machine = machine
        self.box = Deliver(machine, disk, "--reserve-mb", str(reserve))
        self.box.log = disk.parent / "deliver.out"
        (machine / "spool" / "live").mkdir(parents=True)
        self.call = machine / "spool" / "live" / "running.pcapng"
        self.call.write_bytes(noise(MB))

    def free(self) -> int:
        room = os.statvfs(self.machine)
        return room.f_bavail * room.f_frsize

    def ids(self) -> list[str]:
        return sorted(path.name[-14:-4] for path in self.box.root.rglob("*.wav"))


@pytest.fixture
def small(tmp_path: Path, disk: Path) -> Iterator[Small]:
    with small_disk(tmp_path / "machine", 48) as machine:
        made = Small(machine, disk, 16)
        yield made
        made.box.kill()


def _twelve(root: Path) -> list[str]:
    return [record(root, f"{chr(97 + n)}bcdefghij", noise(2 * MB), ended=1_795_000_000.0 + n).id for n in range(12)]


@needs_root
def test_on_a_low_disk_the_oldest_delivered_make_room(small: Small, disk: Path) -> None:
    made = _twelve(small.box.root)
    small.box.start()
    small.box.confirmed(12)
    everywhere = copies(disk)
    assert small.ids() == made
    filler = fill(small.machine, leave=10 * MB)
    small.box.reload()
    report = small.box.until(lambda report: report["disk"]["free"] >= 16 * MB)
    left = small.ids()
    assert left == made[-len(left) :]
    assert 16 * MB <= small.free() < 19 * MB  # and not one more than needed
    removed = [event["id"] for event in small.box.events("recording removed")]
    assert removed == made[: len(removed)]
    assert len(removed) + len(left) == 12
    assert [line["id"] for line in small.box.lines() if line["event"] == "removed"] == removed
    assert copies(disk) == everywhere
    assert "DISK_LOW" in alarms(report)  # all of it came within a day
    assert small.call.stat().st_size == MB
    filler.unlink()
    assert small.box.stop() == ExitCode.OK
    assert small.box.once() == (ExitCode.OK, [])


@needs_root
@pytest.mark.parametrize("target", ["none", "gone"])
def test_on_a_low_disk_nothing_goes_that_is_nowhere_else(small: Small, disk: Path, target: str) -> None:
    made = _twelve(small.box.root)
    if target == "none":
        small.box.target = None
    else:
        disk.rmdir()
    fill(small.machine, leave=4 * MB)
    small.box.start()
    report = small.box.until(lambda report: "DISK_FULL" in alarms(report))
    assert alarms(report)["DISK_FULL"]["severity"] == "critical"
    assert ("without a target nothing may go" in alarms(report)["DISK_FULL"]["text"]) == (target == "none")
    small.box.reload()  # it looks again
    assert small.ids() == made
    assert small.box.events("recording removed") == []


@needs_root
def test_a_disk_without_a_byte_left_is_freed_by_a_stage_that_was_down(small: Small, disk: Path) -> None:
    made = _twelve(small.box.root)
    assert small.box.once()[0] == ExitCode.OK
    fill(small.machine)
    assert small.free() < 64 * 1024
    small.box.start()
    small.box.until(lambda report: small.free() >= 16 * MB)
    left = small.ids()
    assert left == made[-len(left) :]
    removed = [event["id"] for event in small.box.events("recording removed")]
    assert removed == made[: len(removed)]
    assert len(removed) + len(left) == 12


@needs_root
def test_a_full_target_loses_nothing_and_takes_the_rest_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "usb", 16) as usb:
        box = Deliver(tmp_path, usb, "--reserve-mb", "1")
        made = _twelve(box.root)
        box.start()
        try:
            report = box.until(lambda report: _counts(report)[0] and "DELIVER_FAILED" in alarms(report))
        finally:
            box.kill()
        assert "No space left" in report["targets"][0]["error"]
        there = copies(usb)
        assert set(there.items()) <= set(everything(box.root).items())
        assert {path for path in there if made[0] in path}  # the oldest came first
        assert box.events("recording removed") == []
        larger = tmp_path / "larger"
        subprocess.run(["cp", "-a", usb, larger], check=True)
        box.target = larger
        assert box.once()[0] == ExitCode.OK
        assert copies(larger) == everything(box.root)
