"""`tapdeck doctor --capture`, and what the doctor asks of the machine."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tapdeck.cli import machine
from tapdeck.cli.doctor_report import TITLES, verdict_of
from tapdeck.cli.exit_codes import ExitCode, Health
from tapdeck.cli.main import cli
from tapdeck.sniffer import diagnosis
from tapdeck.sniffer.finding import Colour, Finding
from tapdeck.sniffer.machine import Machine
from tapdeck.sniffer.machine import judge as judge_machine
from tapdeck.sniffer.traffic import Traffic
from tests.support import files
from tests.support.record import REPOSITORY
from tests.support.scene import plain_call

LAB = REPOSITORY / "fixtures" / "lab"
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def doctor(*args: Path | str) -> Result:
    return CliRunner(env={"TAPDECK_CONFIG": ""}).invoke(cli, ["doctor", *map(str, args)])


def test_a_good_capture() -> None:
    done = doctor("--capture", LAB / "a_alaw.pcap")
    assert done.exit_code == Health.GREEN
    assert done.stdout.splitlines()[-1] == "Verdict: green. This capture shows calls, whole and both ways"
    assert not CONTROLS.search(done.stdout)


def test_a_bad_capture_says_what_to_do(tmp_path: Path) -> None:
    one_way = tmp_path / "rx.pcap"
    scene = plain_call(duration_ms=5000)
    files.write(tmp_path, files.pcap([packet.packet() for packet in scene.left]), one_way.name)
    done = doctor("--capture", one_way)
    assert done.exit_code == Health.RED
    assert re.search(r"^red +sound both ways +1 of 1 call heard one way only", done.stdout, re.MULTILINE)
    assert "rx and tx" in done.stdout
    assert "Verdict: red. Not ready: sound both ways; look also at: SIP seen" in done.stdout


def test_json() -> None:
    done = doctor("--capture", LAB / "k1_proxy.pcap", "--json")
    report = json.loads(done.stdout)
    assert (report["colour"], done.exit_code) == ("green", Health.GREEN)
    assert [one["check"] for one in report["checks"]] == [one.check for one in diagnosis.judge(Traffic())]


def test_a_damaged_capture_is_judged_up_to_there(tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes((LAB / "a_alaw.pcap").read_bytes()[:-7])
    done = doctor("--capture", cut)
    assert done.exit_code == Health.AMBER
    assert "cut short" in " ".join(done.stdout.split())


def test_methods_from_the_wire_cannot_reach_the_terminal(tmp_path: Path) -> None:
    scene = plain_call(duration_ms=400)
    evil = files.pcap(scene.packets()).replace(b"INVITE sip", b"INV\x9b2J sip").replace(b" INVITE\r", b" INV\x9b2J\r")
    done = doctor("--capture", files.write(tmp_path, evil))
    assert done.exit_code in list(Health)
    assert not CONTROLS.search(done.stdout)


def test_what_cannot_be_judged(tmp_path: Path) -> None:
    assert doctor("--capture", tmp_path / "nothing").exit_code == ExitCode.UNREADABLE_INPUT
    assert doctor("-i", "nonesuch0").exit_code == ExitCode.UNREADABLE_INPUT
    nameless = doctor()
    assert nameless.exit_code == ExitCode.USAGE
    assert "-i" in nameless.stderr


def test_every_check_has_a_title() -> None:
    disk = machine.disk(Path("/"))
    found = [*diagnosis.judge(Traffic()), *judge_machine(Machine(disk=disk), Traffic())]
    assert {one.check for one in found} <= TITLES.keys()


def test_the_guide_explains_every_check() -> None:
    guide = (REPOSITORY / "docs" / "installer.md").read_text(encoding="utf-8")
    table = guide[guide.index("## What the doctor checks") :]
    assert [title for name, title in TITLES.items() if name != "capture" and title not in table] == []


@pytest.mark.parametrize(
    ("colours", "words"),
    [
        ("", "green. Good"),
        ("green open", "green. Good"),
        ("green amber", "amber. Usable, but look at: 1"),
        ("red amber", "red. Not ready: 0; look also at: 1"),
    ],
)
def test_verdicts(colours: str, words: str) -> None:
    found = [Finding(str(n), Colour(colour), "") for n, colour in enumerate(colours.split())]
    assert verdict_of(found, "Good") == words


# -- the machine -------------------------------------------------------------------------------------------------------


def test_the_kernel_says_how_its_clock_is() -> None:
    clock = machine.system_clock()
    assert clock is not None
    assert clock.error_ms >= 0
    told = (
        subprocess.run(["adjtimex", "--print"], capture_output=True, text=True, check=False)
        if _has("adjtimex")
        else None
    )
    if told is not None:
        status = re.search(r"status: (\d+)", told.stdout)
        assert status is not None
        assert clock.synchronised == (not int(status[1]) & 0x40)


def _has(tool: str) -> bool:
    import shutil

    return shutil.which(tool) is not None


def test_a_disk_is_measured(tmp_path: Path) -> None:
    found = machine.disk(tmp_path / "not" / "there" / "yet")
    assert (found.folder, found.problem) == (str(tmp_path), "")
    assert found.write_mb_s > 0
    assert found.sync_ms > 0
    df = subprocess.run(["df", "-B1", "--output=avail", tmp_path], capture_output=True, text=True, check=True)
    assert found.free == pytest.approx(int(df.stdout.split()[1]), rel=0.05)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_may_not_be_written_to() -> None:
    found = machine.disk(Path("/proc/self"))
    assert found.problem
