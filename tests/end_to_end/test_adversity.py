"""What a box lives through in years: a full disk, a card pulled out, a configuration changed while calls run."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import compare, sender
from bench.traffic import Plan, call_id
from tests.support.box import Box
from tests.support.netns import Namespaces, Wire, needs_namespaces, sh, wait_for

pytestmark = needs_namespaces("mkfs.ext4")

RING = ("--ring-mb", "32")


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Namespaces() as spaces:
        yield Wire.between(spaces)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own, on a file, mounted at `folder`."""
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    sh("mkfs.ext4", "-q", image)
    folder.mkdir()
    sh("mount", "-o", "loop", image, folder)
    try:
        yield folder
    finally:
        sh("umount", "--lazy", folder)


def fill(folder: Path, leave_kb: int) -> Path:
    """Fill a disk but for `leave_kb`; return the file to remove to make room again."""
    ballast = folder / "ballast"
    space = os.statvfs(folder)
    os.posix_fallocate(
        descriptor := os.open(ballast, os.O_CREAT | os.O_WRONLY), 0, space.f_bavail * space.f_frsize - (leave_kb << 10)
    )
    os.close(descriptor)
    return ballast


def alarms(box: Box) -> set[str]:
    return {alarm["code"] for alarm in box.report("capture").get("alarms", ())}


def wrong(plan: Plan, box: Box) -> list[str]:
    found = compare.by_call(box.recordings())
    texts = [compare.whole(plan, call, found.get(call_id(plan.first + call), [])) for call in range(plan.calls)]
    return [text for text in texts if text]


def test_a_full_disk_costs_nothing_while_there_is_memory(wire: Wire, tmp_path: Path) -> None:
    plan = Plan(calls=20, seconds=6, spread=1)
    with small_disk(tmp_path / "spool", 24) as spool, Box(wire.tap, [wire.tap_interface], tmp_path, more=RING) as box:
        ballast = fill(spool, leave_kb=512)
        sending = sender.start(wire.sender, wire.interface, [plan])
        wait_for("the alarm", lambda: "DISK_FULL" in alarms(box))
        assert box.report("capture")["spool"]["error"]
        sending.wait()
        ballast.unlink()
        wait_for("the end of the alarm", lambda: "DISK_FULL" not in alarms(box))
        box.wait_until_sealed()
        report = box.report("capture")
        assert report["packets"]["overload_dropped"] == 0
        assert report["packets"]["unaccounted"] == 0
        assert wrong(plan, box) == []


def test_what_finds_no_room_in_memory_either_is_counted_call_by_call(wire: Wire, tmp_path: Path) -> None:
    plan = Plan(calls=100, seconds=9, spread=1)
    more = (*RING, "--memory-mb", "16")
    with small_disk(tmp_path / "spool", 48) as spool, Box(wire.tap, [wire.tap_interface], tmp_path, more=more) as box:
        ballast = fill(spool, leave_kb=512)
        sender.start(wire.sender, wire.interface, [plan]).wait()
        time.sleep(1.5)  # a last report before there is room again
        dropped = box.report("capture")["packets"]["overload_dropped"]
        assert dropped > 1000
        assert "OVERLOAD" in alarms(box)
        ballast.unlink()
        box.wait_until_sealed()
        report = box.report("capture")["packets"]
        assert (report["unaccounted"], report["overload_dropped"]) == (0, dropped)
        recordings = box.recordings()
        assert {one.info["CallId"] for one in recordings} == {call_id(call) for call in range(plan.calls)}
        said = [
            re.match(r"(\d+) packets of this call were lost", one.info.get("CaptureLoss", "")) for one in recordings
        ]
        assert sum(int(found[1]) for found in said if found) == dropped


def test_an_interface_may_go_and_come_back(wire: Wire, tmp_path: Path) -> None:
    first, second = Plan(calls=4, seconds=3, spread=1), Plan(calls=4, seconds=3, spread=1, first=10, seed=2)
    with Box(wire.tap, [wire.tap_interface], tmp_path, more=RING) as box:
        sender.start(wire.sender, wire.interface, [first]).wait()
        wire.unplug()
        wait_for("the alarm", lambda: "INTERFACE_GONE" in alarms(box))
        assert box.report("capture")["interfaces"][0]["present"] is False
        wire.plug()
        wait_for("its return", lambda: "INTERFACE_GONE" not in alarms(box))
        sender.start(wire.sender, wire.interface, [second]).wait()
        box.wait_until_sealed()
        assert wrong(first, box) == []
        assert wrong(second, box) == []
        assert box.report("capture")["packets"]["unaccounted"] == 0


def test_a_terminal_that_nobody_reads_holds_up_nothing(wire: Wire, tmp_path: Path) -> None:
    plan = Plan(calls=300, seconds=2, spread=2)
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    box = Box(wire.tap, [wire.tap_interface], tmp_path, alone=True, more=RING, output=write)
    with box:
        os.close(write)
        sender.start(wire.sender, wire.interface, [plan]).wait()
        wait_for("the last call", lambda: len(box.spooled("done")) == plan.calls)
        os.set_blocking(read, False)
        assert len(os.read(read, 1 << 20)) <= 4096  # it was full, and stays so
        assert box.stop() == 0
    os.close(read)


def test_a_changed_configuration_is_taken_without_losing_a_packet(wire: Wire, tmp_path: Path) -> None:
    plan = Plan(calls=30, seconds=5, spread=1)
    config = tmp_path / "tapdeck.toml"
    config.write_text("[calls]\nbye_linger_s = 5.0\n")
    with Box(wire.tap, [wire.tap_interface], tmp_path, more=(*RING, "--config", str(config))) as box:
        sending = sender.start(wire.sender, wire.interface, [plan])
        for number in range(5):
            config.write_text(f"[calls]\nbye_linger_s = {number}.5\n[capture]\nfilter = 'udp'\n")
            box.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
            time.sleep(1)
        assert sending.process.poll() is None
        sending.wait()
        box.wait_until_sealed()
        assert [one["event"] for one in box.events()].count("configuration reloaded") >= 4
        [port] = box.report("capture")["interfaces"]
        assert port["drops"] == 0
        assert wrong(plan, box) == []


def test_a_wrong_configuration_changes_nothing(wire: Wire, tmp_path: Path) -> None:
    plan = Plan(calls=2, seconds=3, spread=1)
    config = tmp_path / "tapdeck.toml"
    config.write_text("")
    with Box(wire.tap, [wire.tap_interface], tmp_path, alone=True, more=(*RING, "--config", str(config))) as box:
        sending = sender.start(wire.sender, wire.interface, [plan])
        config.write_text("[capture]\nno_such_setting = 1\n")
        box.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
        wait_for("the complaint", lambda: "the new configuration is not taken" in box.said())
        sending.wait()
        assert box.process.poll() is None  # type: ignore[union-attr]
        assert box.report("capture")["packets"]["unaccounted"] == 0


@pytest.mark.skipif(
    os.environ.get("TAPDECK_STEP_CLOCK") != "yes", reason="sets this machine's clock: TAPDECK_STEP_CLOCK=yes"
)
@pytest.mark.parametrize("step_s", [3600, -7200])
def test_a_real_step_of_the_clock_changes_no_sound(wire: Wire, tmp_path: Path, step_s: int) -> None:
    """To be run alone: everything on the machine sees the wrong time for some seconds."""
    plan = Plan(calls=4, seconds=6, spread=1)
    with Box(wire.tap, [wire.tap_interface], tmp_path, more=RING) as box:
        sending = sender.start(wire.sender, wire.interface, [plan])
        time.sleep(3)
        before = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns() + step_s * 1_000_000_000)
        try:
            sending.wait()
            time.sleep(8)
        finally:
            time.clock_settime_ns(time.CLOCK_REALTIME, time.clock_gettime_ns(time.CLOCK_MONOTONIC) + before)
        box.wait_until_sealed()
        assert wrong(plan, box) == []
        for recording in box.recordings():
            assert recording.info["ClockStep"].startswith(f"{step_s:+d}.")
            assert float(recording.info["Duration"]) == pytest.approx(plan.seconds, abs=0.2)
