"""Alarms of how calls sound: not for one call, and over when calls are well again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tapdeck.cli.exit_codes import ExitCode
from tapdeck.cli.sound_alarms import MANY, WELL
from tapdeck.storage import state
from tests.cli.test_seal import alarms, once
from tests.end_to_end.test_sound_checks import spoken
from tests.support.keys import RATE, Samples, talking
from tests.support.live import Capture
from tests.support.media import MS
from tests.support.scene import Scene, in_order

EVERY_MS = 15_000
LEFT, RIGHT = spoken(11, 1), spoken(11, 2)
SILENCE = np.zeros(11 * RATE)


def later(scene: Scene, number: int) -> Scene:
    """The call as the number-th of a day, with phones of its own."""
    by = number * EVERY_MS * MS
    return replace(
        scene,
        signals=tuple(replace(one, time_ns=one.time_ns + by) for one in scene.signals),
        left=tuple(replace(one, time_ns=one.time_ns + by) for one in scene.left),
        right=tuple(replace(one, time_ns=one.time_ns + by) for one in scene.right),
    )


def call(number: int, left: Samples = LEFT, right: Samples = RIGHT) -> Scene:
    return later(talking(left, right, number + 1), number)


def sealed(folder: Path, *scenes: Scene) -> list[str]:
    """Capture and seal calls; what was raised and what was over, in order."""
    with Capture(folder) as capture:
        capture.hear(in_order(*(scene.packets() for scene in scenes)), size=500)
    assert once(folder)[0] == ExitCode.OK
    found = [event for event in state.events(folder / "state") if event["event"] in ("alarm", "alarm over")]
    return [f"{event['event']} {event['code']}" for event in found]


BAD = {
    "ONE_WAY_SOUND": (LEFT, SILENCE),
    "NO_SOUND": (SILENCE, SILENCE),
    "SAME_SOUND": (LEFT, LEFT),
}


@pytest.mark.parametrize("code", BAD)
def test_several_calls_with_a_fault_are_an_alarm_until_calls_are_well(tmp_path: Path, code: str) -> None:
    bad = [call(number, *BAD[code]) for number in range(MANY)]
    well = [call(number) for number in range(MANY, MANY + WELL)]
    assert sealed(tmp_path, *bad[:-1], well[0]) == []
    others = tmp_path / "others"
    others.mkdir()
    assert sealed(others, *bad) == [f"alarm {code}"]
    text = alarms(others)[code]
    assert text.startswith(f"{MANY} of the last {MANY} calls; ")
    called = [event for event in state.events(others / "state") if event["event"] == "call"]
    assert [event["faults"] for event in called] == [[code]] * MANY
    both = tmp_path / "both"
    both.mkdir()
    assert sealed(both, *bad, *well) == [f"alarm {code}", f"alarm over {code}"]
    assert alarms(both) == {}


def test_clipping_is_an_alarm_too(tmp_path: Path) -> None:
    loud = np.clip(LEFT * 10, -32768, 32767)
    others = tmp_path / "others"
    others.mkdir()
    assert sealed(others, *(call(number, loud) for number in range(MANY))) == ["alarm CLIPPING"]
    assert "caller is overdriven" in alarms(others)["CLIPPING"]
