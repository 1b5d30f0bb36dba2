"""`tapdeck story`: from recordings, sealed one by one or together, and from a capture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tapdeck.cli.exit_codes import ExitCode
from tapdeck.cli.main import cli
from tests.support import files, live, shapes
from tests.support.shapes import Shape


def run(*words: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["story", *map(str, words), "--timezone", "UTC"])
    return done.exit_code, done.stdout, done.stderr


def told(*words: str | Path) -> dict[str, Any]:
    code, out, _ = run(*words, "--json")
    assert code == ExitCode.OK
    story: dict[str, Any] = json.loads(out)
    return story


def capture_of(folder: Path, shape: Shape) -> Path:
    return files.write(folder, files.pcap(shapes.packets(shape)))


def check_attended(story: dict[str, Any], shape: Shape) -> None:
    calls = {one["call_id"]: one for one in story["calls"]}
    assert list(calls) == [shape[name].call_id for name in ("first", "asked", "last")]
    first, asked, last = calls.values()
    assert {one["call"]: one["is"] for one in first["related"]} == {2: "consultation", 3: "transferred to"}
    assert {one["call"]: one["is"] for one in last["related"]} == {1: "transferred from", 2: "replaced"}
    assert {one["call"]: one["is"] for one in asked["related"]} == {1: "consultation for", 3: "replaced by"}
    assert [talk["between"] for talk in story["talks"]] == [
        ["Ann (2001)", "Bob (2002)"],
        ["Bob (2002)", "Cid (2003)"],
        ["Ann (2001)", "Cid (2003)"],
    ]
    for talk, call in zip(story["talks"], story["calls"], strict=True):
        assert (talk["from"], talk["to"], talk["call"]) == (call["answered"], call["end"], call["number"])
    assert story["missing"] == []


@pytest.mark.parametrize("name", ["first", "asked", "last"])
def test_from_recordings_of_a_capture(name: str, tmp_path: Path) -> None:
    shape = shapes.attended_transfer(2)
    capture = capture_of(tmp_path, shape)
    assert CliRunner().invoke(cli, ["record", str(capture), "--out", str(tmp_path / "out")]).exit_code == 0
    story = told(shape[name].call_id, tmp_path / "out")
    check_attended(story, shape)
    for call in story["calls"]:
        assert [Path(path).suffix for path in call["files"]] == [".wav", ".txt"]
        assert all(Path(path).is_file() and call["id"] in path for path in call["files"])


def test_from_recordings_that_were_sealed_one_by_one(tmp_path: Path) -> None:
    shape = shapes.attended_transfer(2)
    with live.Capture(tmp_path) as capture:
        capture.hear(shapes.packets(shape), size=7)
    live.seal(tmp_path)
    check_attended(told(shape["asked"].call_id, tmp_path / "sealed"), shape)


def test_from_a_capture_with_calls_that_have_no_recording(tmp_path: Path) -> None:
    shape = shapes.forwarded(3)
    story = told(shape["second"].call_id, capture_of(tmp_path, shape))
    first, second = story["calls"]
    assert (first["call_id"], second["call_id"]) == (shape["first"].call_id, shape["second"].call_id)
    assert first["forwards"][0].startswith("302 by 2002 to 2003 at ")
    assert second["related"] == [{"call": 1, "is": "forwarded from", "by": "2002"}]
    assert [talk["between"] for talk in story["talks"]] == [["Ann (2001)", "Cid (2003)"]]
    assert list(tmp_path.iterdir()) == [tmp_path / "capture.pcap"]


def test_recordings_and_capture_together(tmp_path: Path) -> None:
    """The capture adds the call without sound, the recording its files; nothing is told twice."""
    shape = shapes.forwarded(3)
    capture = capture_of(tmp_path, shape)
    CliRunner().invoke(cli, ["record", str(capture), "--out", str(tmp_path / "out")])
    alone = told(shape["second"].call_id, tmp_path / "out")
    assert len(alone["calls"]) == len(alone["missing"]) == 1
    both = told(shape["second"].call_id, tmp_path / "out", capture)
    assert [len(call["files"]) for call in both["calls"]] == [0, 2]
    assert both["missing"] == []


def test_the_legs_of_a_pbx_are_one_talk(tmp_path: Path) -> None:
    shape = shapes.through_pbx(7, number="77777")
    story = told(shape["outer"].call_id, capture_of(tmp_path, shape))
    assert [talk["between"] for talk in story["talks"]] == [["Ann (2001)", "77777"]]


@pytest.mark.parametrize("one_by_one", [False, True], ids=["from a capture", "sealed one by one"])
def test_a_transfer_at_a_pbx_that_needs_no_further_call(one_by_one: bool, tmp_path: Path) -> None:
    shape = shapes.joined_by_pbx(8)
    if one_by_one:
        with live.Capture(tmp_path) as capture:
            capture.hear(shapes.packets(shape), size=7)
        live.seal(tmp_path)
    place = tmp_path / "sealed" if one_by_one else capture_of(tmp_path, shape)
    story = told(shape["asked"].call_id, place)
    assert [call["call_id"] for call in story["calls"]] == [scene.call_id for scene in shape.values()]
    talks = [(*talk["between"], talk["call"]) for talk in story["talks"]]
    assert talks == [
        ("Ann (2001)", "Bob (2002)", 2),
        ("Bob (2002)", "Cid (2003)", 4),
        ("Ann (2001)", "Cid (2003)", 4),
    ]
    assert story["talks"][2]["from"] == story["calls"][1]["end"]


def test_as_text(tmp_path: Path) -> None:
    shape = shapes.blind_transfer(1)
    code, out, err = run(shape["second"].call_id, capture_of(tmp_path, shape))
    assert (code, err) == (ExitCode.OK, "")
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0] == "2 calls, 2026-03-02 10:00:00 to 10:00:02"
    assert "10:00:00.000  [1] Ann (2001) calls Bob (2002)" in lines
    assert "10:00:01.150  [1] transfer, blind by Bob (2002) to 2003 (answer=202 outcome=200)" in lines
    assert "[2] transferred to, by 2002" in lines
    assert lines.index("Who spoke with whom") < lines.index("Calls")


def test_no_such_call(tmp_path: Path) -> None:
    code, out, err = run("nobody@nowhere", tmp_path)
    assert (code, out) == (ExitCode.NO_CALL, "")
    assert "no call nobody@nowhere in" in err


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    capture = capture_of(tmp_path, shapes.blind_transfer(1))
    CliRunner().invoke(cli, ["record", str(capture), "--out", str(tmp_path / "out")])
    (tmp_path / "out" / "x_info.txt").write_bytes(b"\xff\xfe")
    code, _, err = run(shapes.blind_transfer(1)["first"].call_id, tmp_path / "out")
    assert (code, err) == (ExitCode.OK, "1 info files cannot be read\n")
