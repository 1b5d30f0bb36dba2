"""From spool files to recordings: what capture noted counts, and no file, however damaged, does more than fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tapdeck.sniffer import blocks
from tapdeck.storage.spool import DONE
from tapdeck.storage.spool_file import APPLICATION, FORMAT, SpoolError, note_block, read_spool
from tests.support.live import Capture, content, recordings, seal, sealer
from tests.support.media import MS, SECOND
from tests.support.record import assert_sound
from tests.support.scene import START_NS, Scene, plain_call

HEAD: dict[str, Any] = {"id": "abcdefghij", "call_id": "x", "caller_tag": "y", "started": START_NS, "begun": START_NS}


def spooled(folder: Path, scene: Scene) -> Path:
    """The spool file of one call."""
    with Capture(folder) as capture:
        capture.hear(scene.packets(), size=10)
    (path,) = capture.files_of(DONE)
    return path


def noted(path: Path, *notes: dict[str, Any], time: int = START_NS) -> Path:
    """The file with more notes, before its end."""
    data = path.read_bytes()
    path.write_bytes(data + b"".join(note_block(note, time) for note in notes))
    return path


def flow(scene: Scene, side: str = "left") -> list[Any]:
    packet = getattr(scene, side)[0]
    return [packet.source.address, packet.source.port, packet.target.address, packet.target.port, packet.ssrc]


def info_of(folder: Path) -> dict[str, str]:
    (recording,) = recordings(folder)
    return recording.info


def test_a_second_sealing_changes_nothing(tmp_path: Path) -> None:
    path = spooled(tmp_path, plain_call(1))
    maker = sealer(tmp_path)
    (first,) = maker.seal(path)
    before = content(tmp_path / "sealed")
    (second,) = maker.seal(path)
    assert content(tmp_path / "sealed") == before
    assert (first.files, first.id) == (second.files, second.id) == (second.files, path.stem)


def test_what_another_call_took_is_left_out(tmp_path: Path) -> None:
    scene = plain_call(1)
    path = spooled(tmp_path, scene)
    since, until = scene.left[10].time_ns, scene.left[20].time_ns
    noted(path, {"note": "ignore", "flow": flow(scene), "since": since, "until": until})
    account = seal(tmp_path)
    left = tuple(packet for packet in scene.left if not since <= packet.time_ns < until)
    (recording,) = recordings(tmp_path)
    assert_sound(recording, *replace(scene, left=left).channels())
    assert sum(account.packets.values()) == account.packets["kept", "sound"] == 90


def test_what_another_call_counts_is_heard_but_not_counted(tmp_path: Path) -> None:
    scene = plain_call(1)
    path = spooled(tmp_path, scene)
    since, until = scene.left[10].time_ns, scene.left[30].time_ns
    about = {"flow": flow(scene)}
    noted(path, {"note": "shared", **about, "since": since}, {"note": "alone", **about, "since": until})
    account = seal(tmp_path)
    (recording,) = recordings(tmp_path)
    assert_sound(recording, *scene.channels())
    assert account.packets["kept", "sound"] == 100 - 20


def test_the_clock_that_was_set_is_told_and_sound_does_not_follow_it(tmp_path: Path) -> None:
    scene = plain_call(1)
    path = spooled(tmp_path, scene)
    when = scene.left[20].time_ns
    noted(path, {"note": "clock", "since": when, "ahead": 3600 * SECOND}, {"note": "clock", "since": "x", "ahead": []})
    seal(tmp_path)
    (recording,) = recordings(tmp_path)
    assert_sound(recording, *scene.channels())
    assert recording.info["ClockStep"].startswith("+3600.000s at 2026-03-02T11:00:00")
    assert recording.info["Datetime"].startswith("2026-03-02T10:00:00")
    assert recording.info["End"].startswith("2026-03-02T11:00:01")


def test_what_was_lost_is_told(tmp_path: Path) -> None:
    scene = plain_call(1)
    end = scene.packets()[-1].time_ns + 9 * SECOND
    noted(spooled(tmp_path, scene), {"note": "over", "time": end, "frames": 100, "kernel_drops": 7, "lost": 3})
    seal(tmp_path)
    (path,) = (tmp_path / "sealed").rglob("*_info.txt")
    lines = [line for line in path.read_text().splitlines() if line.startswith("CaptureLoss")]
    assert ["dropped 7 packets" in lines[0], "3 packets of this call" in lines[1]] == [True, True]


def test_a_file_that_was_never_ended_is_a_recording_that_breaks_off(tmp_path: Path) -> None:
    scene = plain_call(1)
    capture = Capture(tmp_path)
    capture.hear(scene.packets()[:70])
    (path,) = capture.files_of("live")
    path.rename(tmp_path / "spool" / DONE / path.name)
    seal(tmp_path)
    info = info_of(tmp_path)
    last = f"2026-03-02T10:00:00.{(scene.packets()[69].time_ns - START_NS) // MS:03}+00:00"
    assert (info["EndReason"], info["End"]) == ("recorder broke off", last)
    assert info["Truncated"] == f"yes, at {last}: the recorder broke off"


def test_two_calls_in_one_file_are_two_recordings(tmp_path: Path) -> None:
    """It cannot come from one capture; still each call keeps its own name, and no sound is lost."""
    scenes = plain_call(1), plain_call(2, start_ns=START_NS + 400 * MS)
    made = []
    for scene in scenes:
        (tmp_path / scene.call_id).mkdir()
        made.append(spooled(tmp_path / scene.call_id, scene))
    (tmp_path / "spool" / DONE).mkdir(parents=True)
    (tmp_path / "spool" / "live").mkdir()
    both = tmp_path / "spool" / DONE / made[0].name
    both.write_bytes(made[0].read_bytes() + made[1].read_bytes())
    seal(tmp_path)
    found = recordings(tmp_path)
    assert [one.info["RecordingId"] for one in found] == [path.stem for path in made]
    for recording, scene in zip(found, scenes, strict=True):
        assert_sound(recording, *scene.channels())


def test_a_file_without_a_call(tmp_path: Path) -> None:
    path = tmp_path / "abcdefghij.pcapng"
    path.write_bytes(blocks.section(json.dumps({"tapdeck": FORMAT, **HEAD}), APPLICATION) + blocks.interface(101, ""))
    assert sealer(tmp_path).seal(path) == []


def test_the_packets_are_kept_beside_where_that_is_wanted(tmp_path: Path) -> None:
    path = spooled(tmp_path, plain_call(1))
    maker = sealer(tmp_path)
    maker.keep_packets = True
    (recording,) = maker.seal(path)
    (kept,) = (tmp_path / "sealed").rglob("*_packets.pcapng")
    assert kept.read_bytes() == path.read_bytes()
    assert [file.name for file in recording.files][1] == kept.name


def test_a_folder_that_cannot_be_written_counts_nothing(tmp_path: Path) -> None:
    path = spooled(tmp_path, plain_call(1))
    maker = sealer(tmp_path)
    (tmp_path / "sealed" / "2026").write_text("in the way")
    for _ in range(2):
        (recording,) = maker.seal(path)
        assert recording.outcome == "failed"
        assert "2026" in recording.error
    assert (maker.account.calls, maker.account.packets) == ({}, {})
    (tmp_path / "sealed" / "2026").unlink()
    (recording,) = maker.seal(path)
    assert (recording.outcome, dict(maker.account.calls)) == ("recorded", {"seen": 1, "recorded": 1})


def test_no_file_stays_open(tmp_path: Path) -> None:
    path = spooled(tmp_path, plain_call(1))
    broken = tmp_path / "broken.pcapng"
    broken.write_bytes(b"\x0a\x0d\x0d\x0a" * 9)
    maker = sealer(tmp_path)
    maker.seal(path)

    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    for _ in range(5):
        maker.seal(path)
        with pytest.raises(SpoolError):
            maker.seal(broken)
    assert opened() <= before


# -- damaged, and made up ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_a_file_cut_anywhere_gives_what_is_left_of_it(share: float, tmp_path: Path) -> None:
    scene = plain_call(1)
    path = spooled(tmp_path, scene)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    account = seal(tmp_path)
    heard = account.packets["kept", "sound"]
    assert 100 * (share - 0.15) < heard <= 100
    (recording,) = recordings(tmp_path)
    left, right = (b"".join(packet.payload for packet in side) for side in (scene.left, scene.right))
    for found, whole in zip(recording.wav.channels(), (left, right), strict=True):
        assert found.replace(b"\xd5", b"") in whole
    assert ("Truncated" in recording.info) == (share < 0.99)


def no_head() -> bytes:
    return blocks.section("", APPLICATION) + blocks.interface(101, "")


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"text",
        lambda: bytes(4096),
        no_head,
        lambda: blocks.section("[1]", APPLICATION),
        lambda: blocks.section('{"tapdeck": 2}', APPLICATION),
        lambda: blocks.section('{"tapdeck": 1}', APPLICATION),
        lambda: blocks.section("[" * 50_000, APPLICATION),
    ],
)
def test_what_is_no_spool_file(make: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(make())
    with pytest.raises(SpoolError, match=r"a\.pcapng"):
        read_spool(path)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../../../etc/cron.d/x"},
        {"id": "12345"},
        {"id": ""},
        {"id": 7},
        {"continues": "../x"},
        {"continues": None},
        {"started": "now"},
        {"begun": 1 << 80},
        {"begun": -1},
        {"call_id": ["x"]},
        {"clock": 5},
        {"related": "x"},
        {"interfaces": {}},
    ],
)
def test_a_head_that_makes_no_sense_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    """The file comes from the process that reads what strangers send; its id becomes part of a file's name."""
    path = tmp_path / "a.pcapng"
    path.write_bytes(blocks.section(json.dumps({"tapdeck": FORMAT, **HEAD, **change}), APPLICATION))
    with pytest.raises(SpoolError, match=r"a\.pcapng"):
        read_spool(path)


def test_what_a_later_version_says_more_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(blocks.section(json.dumps({"tapdeck": FORMAT, **HEAD, "mood": "good"}), APPLICATION))
    assert read_spool(path).head.id == HEAD["id"]


@pytest.mark.parametrize(
    "note",
    [
        {"note": "over", "time": "soon", "related": 5, "lost": "many", "kernel_drops": None},
        {"note": "over", "time": 1 << 90},
        {"note": "over", "time": -5, "running": "perhaps"},
        {"note": "over", "related": [[1, 2, 3], ["x"], "abc", None]},
        {"note": "ignore", "flow": ["10.0.0.1", 1, "10.0.0.2", 2, 3], "since": "a", "until": {}},
        {"note": "ignore", "flow": ["10.0.0.1", 70_000, "10.0.0.2", -2, 1 << 70], "since": 1, "until": 2},
        {"note": "ignore", "flow": ["nowhere", 1, "::", 2, 3]},
        {"note": "ignore", "flow": "flow"},
        {"note": "shared"},
        {"note": "clock", "since": 1 << 70, "ahead": 1},
        {"note": ["list"]},
        {},
    ],
)
def test_notes_that_make_no_sense_are_passed_over(note: dict[str, Any], tmp_path: Path) -> None:
    scene = plain_call(1)
    noted(spooled(tmp_path, scene), note)
    seal(tmp_path)
    (recording,) = recordings(tmp_path)
    assert_sound(recording, *scene.channels())
