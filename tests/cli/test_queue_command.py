"""`tapdeck queue`: beside the running stage and without one, for those who may look, and those who may not."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tapdeck.cli.exit_codes import ExitCode
from tests.cli.test_deliver import Deliver, _counts, configure
from tests.support.parcels import record
from tests.support.users import needs_root


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


@pytest.fixture
def box(tmp_path: Path, disk: Path) -> Iterator[Deliver]:
    made = Deliver(tmp_path, None, "--reserve-mb", "1")
    configure(made, disk)
    yield made
    made.kill()


def ask(box: Deliver, *words: str) -> tuple[int, str, str]:
    """Ask about the queue of a box."""
    config = box.more[box.more.index("--config") + 1]
    places = ["--config", config, "--state", str(box.state), "--out", str(box.root)]
    command = [box.python, "-m", "tapdeck.cli", "queue", *words[:1], *places, *words[1:]]
    done = subprocess.run(command, env=box.environ, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def told(box: Deliver, *words: str) -> dict[str, Any]:
    code, out, err = ask(box, *words)
    assert code == ExitCode.OK, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_before_the_first_start_there_is_none(box: Deliver) -> None:
    code, _, err = ask(box)
    assert code == ExitCode.CANNOT_WRITE
    assert "there is no delivery queue yet" in err


def test_what_waits_and_another_attempt_at_once(box: Deliver, disk: Path) -> None:
    made = [record(box.root, f"{letter}bcdefghij", ended=1_795_000_000.0 + n) for n, letter in enumerate("abc")]
    away = disk.rename(disk.with_name("away"))
    box.start()
    box.until(lambda report: _counts(report) == (0, 3) and report["targets"][0]["error"])
    (row,) = told(box, "--json")["targets"]
    assert (row["name"], row["waiting"], row["bytes"]) == ("usb", 3, sum(parcel.bytes for parcel in made))
    assert "is the disk mounted" in row["error"]
    assert row["next_try"] > row["failing_since"] > row["oldest"]
    text = ask(box)[1]
    assert "usb: 3 waiting" in text
    assert "failing since" in text
    for name in (made[0].id, Path(made[0].files[0]).name, str(box.root / made[0].files[0]), made[0].files[1]):
        (found,) = told(box, "why", name, "--json")["recordings"]
        assert found["id"] == made[0].id
        assert "takes nothing since" in found["targets"][0]["text"]
    away.rename(disk)
    assert "deliveries are tried now" in ask(box, "retry")[1]
    box.confirmed(3)
    assert "delivered" in ask(box, "why", made[0].id)[1]
    assert told(box, "--json")["targets"][0]["waiting"] == 0
    assert box.stop() == ExitCode.OK
    assert "it does not at this moment" in ask(box, "retry", made[0].id, "--target", "usb")[1]


def test_what_is_not_selected_says_which_selection_said_so(box: Deliver, disk: Path) -> None:
    made = record(box.root, "abcdefghij")
    box.more = []
    configure(box, disk, numbers=["2001"])
    assert box.once()[0] == ExitCode.OK
    assert "delivered" in ask(box, "why", made.id)[1]
    box.more = []
    configure(box, disk, name="other", classes=["emergency"])
    assert box.once() == (ExitCode.OK, [])
    (found,) = told(box, "why", made.id, "--json")["recordings"]
    states = {one["target"]: (one["state"], one["text"]) for one in found["targets"]}
    assert states["other"][0] == "unwanted"
    assert 'classes = ["emergency"], and the recording has none' in states["other"][1]
    assert "no longer configured" in states["usb"][1]


def test_a_disabled_target_keeps_its_jobs_and_causes_nothing(box: Deliver, disk: Path) -> None:
    record(box.root, "abcdefghij")
    away = disk.rename(disk.with_name("away"))
    assert box.once()[0] == ExitCode.CANNOT_WRITE
    box.more = []
    configure(box, disk, enabled=False)
    away.rename(disk)
    assert box.once() == (ExitCode.OK, [])
    assert list(disk.iterdir()) == []
    assert told(box, "--json") == {"targets": [], "other_targets": {"usb": 1}}
    assert "disabled or no longer configured" in ask(box)[1]


def test_a_lost_recording_is_taken_note_of(box: Deliver) -> None:
    made = record(box.root, "abcdefghij")
    code, _, err = ask(box, "drop", made.id)
    assert code == ExitCode.CANNOT_WRITE
    (box.root / "none").mkdir()
    (box.root / made.files[0]).rename(box.root / "none" / "kept.wav")
    from tapdeck.storage import handover

    handover.write(box.state, made)
    assert box.once()[0] == ExitCode.CANNOT_WRITE
    assert "lost since" in ask(box, "why", made.id)[1]
    assert "no longer expected" in ask(box, "drop", made.id)[1]
    assert box.once() == (ExitCode.OK, [])
    assert [event["code"] for event in box.events("alarm over")] == ["RECORDING_LOST"]
    code, _, err = ask(box, "drop", made.id)
    assert code == ExitCode.UNREADABLE_INPUT
    assert "is not lost" in err


def test_what_nobody_knows(box: Deliver) -> None:
    box.once()
    code, _, err = ask(box, "why", "nothing.wav")
    assert code == ExitCode.UNREADABLE_INPUT
    assert "knows no recording" in err
    code, _, err = ask(box, "retry", "--target", "cloud")
    assert code == ExitCode.UNREADABLE_INPUT
    assert "there is usb" in err


@needs_root
def test_root_looks_and_the_stage_s_own_user_can_still_write(open_folder: Path) -> None:
    from tests.support.users import python_for_all

    disk = open_folder / "disk"
    more = ("--deliver-user", "nobody", "--group", "nogroup")
    box = Deliver(open_folder, None, *more, python=python_for_all())
    disk.mkdir()
    configure(box, disk)
    record(box.root, "abcdefghij")
    box.state.mkdir()
    for folder in (disk, box.state):
        os.chown(folder, 65534, -1)
    assert box.once()[0] == ExitCode.OK
    assert told(box, "--json")["targets"][0]["confirmed"] == 1
    assert "are tried" in ask(box, "retry")[1]
    assert {path.stat().st_uid for path in box.state.glob("queue.sqlite*")} == {65534}
    assert box.once() == (ExitCode.OK, [])
