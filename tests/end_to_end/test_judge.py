"""The judge of the kill campaign (bench/losses.py) sees each kind of harm, and takes none for another."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.losses import Verdict, judge
from bench.traffic import SAMPLE_US, SAMPLES, START_US, Plan, call_id
from tests.support.box import Box
from tests.support.replay import Started

PLAN = Plan(calls=2, seconds=6, spread=1)
RATE = 8000
START = Started(zero_ns=START_US * 1000, wall_ns=0, monotonic_ns=5_000_000_000)
KILL_S = 4.0
"""Seconds after the start; both calls are running then."""


def sent_by(call: int, side: int, at_s: float) -> int:
    """Samples of a voice that were sent by then, in whole packets."""
    begin_us = int(PLAN.starts_us[2 * call + side])
    return int((START_US + at_s * 1e6 - begin_us) / SAMPLE_US) // SAMPLES * SAMPLES


def piece(call: int, from_s: float, to_s: float) -> tuple[bytes, bytes]:
    """What both channels hold if exactly this stretch was recorded."""
    edges = [[min(max(sent_by(call, side, at), 0), 6 * RATE) for at in (from_s, to_s)] for side in (0, 1)]
    parts = [PLAN.voice(2 * call + side)[a:b].tobytes() for side, (a, b) in enumerate(edges)]
    longest = max(map(len, parts))
    left, right = (part.ljust(longest, b"\xd5") for part in parts)
    return left, right


def write(box: Box, call: int, name: str, channels: tuple[bytes, bytes], **more: str) -> Path:
    """A recording as the product would leave it."""
    data = bytes(byte for both in zip(*channels, strict=True) for byte in both)
    form = struct.pack("<HHIIHH", 6, 2, RATE, 2 * RATE, 2, 8)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    box.out.mkdir(exist_ok=True)
    path = box.out / f"{name}.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    facts = {"RecordingId": name, "CallId": call_id(call), "AudioStart": name, "EndReason": "x"} | more
    path.with_name(f"{name}_info.txt").write_text("".join(f"{key}: {value}\n" for key, value in facts.items()))
    return path


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """A box with both calls in two pieces each, as a kill at 4 s leaves them if capture is back at 4.5 s."""
    box = Box("none", [], tmp_path)
    for call in (0, 1):
        write(box, call, f"{call}a", piece(call, 0, KILL_S - 0.1), Truncated="yes, at 4 s")
        write(box, call, f"{call}b", piece(call, KILL_S + 0.5, 99), ContinuationOf=f"{call}a")
    return box


def judged(box: Box, kills: Sequence[float] = (KILL_S,)) -> Verdict:
    at = [(START.monotonic_ns + int(kill * 1e9), ("capture",)) for kill in kills]
    return judge([PLAN], box, START, at, {"capture": 0})


def test_what_a_kill_may_do(box: Box) -> None:
    verdict = judged(box)
    assert verdict.good, verdict.findings
    assert (verdict.calls, verdict.recordings, verdict.continuations) == (2, 4, 2)
    assert verdict.worst_loss_s == pytest.approx(0.1, abs=0.03)
    assert verdict.worst_gap_s == pytest.approx(0.5, abs=0.05)


def test_a_lost_call(box: Box) -> None:
    for path in box.out.glob("0*"):
        path.unlink()
    assert judged(box).lost == [f"{call_id(0)}: no recording"]


def test_a_lost_continuation(box: Box) -> None:
    (box.out / "0b.wav").unlink()
    (box.out / "0b_info.txt").unlink()
    verdict = judged(box)
    assert len(verdict.overlong) == 2
    assert "after capture was back" in verdict.overlong[0]


def test_the_same_sound_twice(box: Box) -> None:
    write(box, 0, "0c", piece(0, 5, 6), ContinuationOf="0b")
    assert "twice" in judged(box).damaged[0]


def test_sound_that_was_never_sent(box: Box) -> None:
    path = box.out / "0a.wav"
    content = bytearray(path.read_bytes())
    content[-3001] ^= 1
    path.write_bytes(content)
    assert "not sent" in judged(box).damaged[0]


def test_more_than_a_second_before_a_kill(box: Box) -> None:
    write(box, 0, "0a", piece(0, 0, KILL_S - 1.3), Truncated="yes, at 3 s")
    verdict = judged(box)
    assert len(verdict.overlong) == 2
    assert not verdict.good


def test_sound_missing_without_a_kill(box: Box) -> None:
    verdict = judged(box, kills=())
    assert len(verdict.unexplained) == 4
    assert not verdict.good


def test_recordings_that_do_not_say_what_they_are(box: Box) -> None:
    write(box, 0, "0a", piece(0, 0, KILL_S - 0.1))
    write(box, 1, "1b", piece(1, KILL_S + 0.5, 99), ContinuationOf="elsewhere")
    assert len(judged(box).unmarked) == 2


def test_something_half_written(box: Box) -> None:
    shutil.copy(box.out / "0a.wav", box.out / ".0a.wav.tmp")
    (box.spool / "live").mkdir(parents=True)
    (box.spool / "live" / "x.pcapng").touch()
    assert len(judged(box).leftovers) == 2
