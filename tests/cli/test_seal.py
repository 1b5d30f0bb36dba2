"""`tapdeck seal` as a process: good files, bad files, folders that cannot be written, kills."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tapdeck.cli.call_events import EventPrinter
from tapdeck.cli.config import load
from tapdeck.cli.encrypted import CODE, EncryptedPeers
from tapdeck.cli.exit_codes import ExitCode
from tapdeck.cli.seal_stage import AGAIN_S, SealStage
from tapdeck.storage import handover, state
from tapdeck.storage.spool import DONE
from tests.support import srtp
from tests.support.live import Capture, content, recordings, seal
from tests.support.media import lost
from tests.support.record import Wav, assert_sound, read_wav
from tests.support.scene import START_NS, Scene, in_order, plain_call
from tests.support.users import environment

USERS = ("group", "capture-user", "seal-user", "deliver-user", "metrics-user")
PATIENCE_S = 60.0


def command(folder: Path, *more: str) -> list[str]:
    places = ("--out", folder / "sealed", "--spool", folder / "spool", "--state", folder / "state")
    mine = [word for user in USERS for word in (f"--{user}", "")]
    return [sys.executable, "-m", "tapdeck.cli", "seal", "--json", *map(str, places), *mine, "--utc", *more]


def once(folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """Seal what is there; the exit code, and what was printed."""
    run = subprocess.run(
        command(folder, "--once"), env=environment(), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert "Traceback" not in run.stderr, run.stderr
    return run.returncode, [json.loads(line) for line in run.stdout.splitlines()]


def spooled(folder: Path, *scenes: Scene) -> list[str]:
    """Hand calls over; the ids of their files."""
    with Capture(folder) as capture:
        capture.hear(in_order(*(scene.packets() for scene in scenes)), size=50)
    return sorted(path.stem for path in capture.files_of(DONE))


def calls(count: int, duration_ms: int = 200) -> list[Scene]:
    return [plain_call(n, start_ns=START_NS + n * 1_000_000, duration_ms=duration_ms) for n in range(1, count + 1)]


def waiting(folder: Path, name: str = DONE) -> list[str]:
    return sorted(path.name for path in (folder / "spool" / name).glob("*.pcapng"))


def alarms(folder: Path) -> dict[str, str]:
    report = state.read(folder / "state", "seal")
    assert report is not None
    return {alarm["code"]: alarm["text"] for alarm in report["alarms"]}


def sounds(folder: Path) -> dict[str, Wav]:
    """The sound of each recording, without what its file says of the recorder."""
    return {str(path.relative_to(folder)): read_wav(path) for path in folder.rglob("*.wav")}


def test_calls_are_sealed_once_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    scenes = calls(3)
    ids = spooled(tmp_path, *scenes)
    spooled(tmp_path / "other", *scenes)
    code, told = once(tmp_path)
    assert code == ExitCode.OK
    assert sorted(line["id"] for line in told) == ids
    assert {line["event"] for line in told} == {"recorded"}
    assert waiting(tmp_path) == []
    seal(tmp_path / "other")
    assert sounds(tmp_path / "sealed") == sounds(tmp_path / "other" / "sealed")
    for recording, scene in zip(recordings(tmp_path), scenes, strict=True):
        assert_sound(recording, *scene.channels())
    parcels, _ = handover.waiting(tmp_path / "state")
    assert sorted(parcel.id for parcel in parcels) == ids
    assert alarms(tmp_path) == {}
    before = content(tmp_path / "sealed")
    assert once(tmp_path) == (ExitCode.OK, [])
    assert content(tmp_path / "sealed") == before


def test_a_file_that_is_none_is_set_aside_and_the_others_are_sealed(tmp_path: Path) -> None:
    spooled(tmp_path, *calls(2))
    (tmp_path / "spool" / DONE / "aaaaaaaaaa.pcapng").write_bytes(b"nothing of ours")
    (tmp_path / "spool" / DONE / "bbbbbbbbbb.pcapng").touch()
    code, told = once(tmp_path)
    assert code == ExitCode.CANNOT_WRITE
    assert [line["event"] for line in told] == ["recorded"] * 2
    assert waiting(tmp_path) == []
    assert waiting(tmp_path, "failed") == ["aaaaaaaaaa.pcapng", "bbbbbbbbbb.pcapng"]
    events = [event for event in state.events(tmp_path / "state") if event["event"] == "not sealed"]
    assert sorted(event["file"] for event in events) == ["aaaaaaaaaa.pcapng", "bbbbbbbbbb.pcapng"]
    assert "2 spool files" in alarms(tmp_path)["SEAL_FAILED"]
    assert once(tmp_path) == (ExitCode.OK, [])
    assert "SEAL_FAILED" in alarms(tmp_path), "nobody has looked at them yet"
    for path in (tmp_path / "spool" / "failed").iterdir():
        path.unlink()
    once(tmp_path)
    assert alarms(tmp_path) == {}


def test_a_file_damaged_in_its_middle_is_sealed_as_far_as_it_goes_and_kept(tmp_path: Path) -> None:
    scene = plain_call(1)
    (name,) = spooled(tmp_path, scene)
    path = tmp_path / "spool" / DONE / f"{name}.pcapng"
    data = bytearray(path.read_bytes())
    middle = data.index(scene.left[25].payload)
    data[middle - 100 : middle] = b"\xff" * 100
    path.write_bytes(data)
    code, _ = once(tmp_path)
    assert code == ExitCode.CANNOT_WRITE
    assert waiting(tmp_path, "failed") == [path.name]
    (recording,) = recordings(tmp_path)
    assert "is set aside" in recording.info["Note"]
    assert scene.left[20].payload in recording.wav.channels()[0]


def test_a_folder_that_cannot_be_written_keeps_the_call_in_the_spool(tmp_path: Path) -> None:
    scene = plain_call(1)
    (name,) = spooled(tmp_path, scene)
    (tmp_path / "sealed").mkdir()
    (tmp_path / "sealed" / "2026").write_text("in the way")
    for _ in range(2):
        assert once(tmp_path) == (ExitCode.CANNOT_WRITE, [])
        assert waiting(tmp_path) == [f"{name}.pcapng"]
        assert "1 calls cannot be sealed yet" in alarms(tmp_path)["SEAL_FAILED"]
    report = state.read(tmp_path / "state", "seal")
    assert report is not None
    assert (report["waiting"], report["calls"]["seen"]) == (1, 0)
    (tmp_path / "sealed" / "2026").unlink()
    code, told = once(tmp_path)
    assert (code, [line["id"] for line in told]) == (ExitCode.OK, [name])
    assert waiting(tmp_path) == []
    assert alarms(tmp_path) == {}
    assert_sound(recordings(tmp_path)[0], *scene.channels())


def test_a_call_without_sound_leaves_no_file_but_a_line_in_the_log(tmp_path: Path) -> None:
    scene = plain_call(1)
    (name,) = spooled(tmp_path, Scene(scene.dialog, scene.signals, scene.left[:1], ()))
    path = tmp_path / "spool" / DONE / f"{name}.pcapng"
    data = path.read_bytes()
    place = data.index(scene.left[0].payload) - 12 - 8 - 20 - 14 - 28
    size = int.from_bytes(data[place + 4 : place + 8], "little")
    path.write_bytes(data[:place] + data[place + size :])
    code, told = once(tmp_path)
    assert (code, [line["event"] for line in told]) == (ExitCode.OK, ["not recorded"])
    assert content(tmp_path / "sealed") == {}
    (event,) = (event for event in state.events(tmp_path / "state") if event["event"] == "call")
    assert (event["id"], event["outcome"], event["call_id"]) == (name, "without_media", scene.call_id)


# -- as a service ------------------------------------------------------------------------------------------------------


def test_loss_over_three_per_cent_is_an_event_and_counted(tmp_path: Path) -> None:
    """The log has the quality of each call; 4 of 100 packets are too many, 3 are not."""
    good, bad = calls(2, duration_ms=2000)
    scenes = replace(good, left=lost(good.left, {10, 20, 30})), replace(bad, right=lost(bad.right, {10, 20, 30, 40}))
    spooled(tmp_path, *scenes)
    assert once(tmp_path)[0] == 0
    events = list(state.events(tmp_path / "state"))
    told = {event["call_id"]: event["quality"] for event in events if event["event"] == "call"}
    assert told[good.call_id]["caller"] == {"loss_percent": 3.0, "jitter_ms": 0.0, "mos": 4.13}
    assert told[good.call_id]["callee"]["loss_percent"] == 0.0
    (poor,) = (event for event in events if event["event"] == "poor quality")
    assert (poor["call_id"], poor["side"], poor["loss_percent"]) == (bad.call_id, "callee", 4.0)
    report = state.read(tmp_path / "state", "seal")
    assert report is not None
    assert report["poor_quality"] == 1


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_seals_what_comes_and_ends_at_sigterm(tmp_path: Path) -> None:
    process = subprocess.Popen(command(tmp_path), env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: (state.read(tmp_path / "state", "seal") or {}).get("pid") == process.pid)
        scene = plain_call(1)
        spooled(tmp_path, scene)
        wait_for(lambda: waiting(tmp_path) == [])
        process.send_signal(signal.SIGHUP)
        spooled(tmp_path, plain_call(2))
        wait_for(lambda: waiting(tmp_path) == [])
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == ExitCode.OK
        assert process.stdout is not None
        assert process.stdout.read().count('"recorded"') >= 2
    finally:
        process.kill()
        process.wait()
    assert_sound(recordings(tmp_path)[0], *scene.channels())
    report = state.read(tmp_path / "state", "seal")
    assert report is not None
    assert report["calls"] == {"seen": 2, "recorded": 2, "refused": 0, "without_media": 0, "encrypted": 0, "failed": 0}


def test_killed_in_the_midst_of_it_every_call_is_there_once(tmp_path: Path) -> None:
    scenes = calls(80)
    ids = spooled(tmp_path, *scenes)
    with subprocess.Popen(command(tmp_path, "--once"), env=environment(), stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: len(list((tmp_path / "sealed").rglob("*_info.txt"))) > 3)
        process.kill()
    assert waiting(tmp_path), "it was over before it could be killed"
    code, _ = once(tmp_path)
    assert code == ExitCode.OK
    assert sorted(recording.info["RecordingId"] for recording in recordings(tmp_path)) == ids
    assert waiting(tmp_path) == []
    parcels, _ = handover.waiting(tmp_path / "state")
    assert sorted(parcel.id for parcel in parcels) == ids
    assert not list((tmp_path / "sealed").rglob(".*"))
    for recording, scene in zip(recordings(tmp_path), scenes, strict=True):
        assert_sound(recording, *scene.channels())


def test_a_folder_that_is_away_for_weeks_is_still_tried_every_few_minutes(tmp_path: Path) -> None:
    (name,) = spooled(tmp_path, plain_call(1))
    (tmp_path / "state").mkdir()
    (tmp_path / "sealed").write_text("in the way")
    places = {"storage__recordings": tmp_path / "sealed", "storage__spool": tmp_path / "spool"}
    settings = load(
        None, {key: str(path) for key, path in {**places, "storage__state": tmp_path / "state"}.items()}, {}
    )
    stage = SealStage(settings, EventPrinter(as_json=True))
    stage._again[f"{name}.pcapng"] = 0.0, 5000
    before = time.monotonic()
    assert not stage.tick()
    when, tries = stage._again[f"{name}.pcapng"]
    assert (tries, stage.conclude()) == (5001, ExitCode.CANNOT_WRITE)
    assert before < when <= time.monotonic() + AGAIN_S[1]


# -- encrypted calls ---------------------------------------------------------------------------------------------------


def test_an_encrypted_call_without_a_key_is_an_alarm_for_its_peer(tmp_path: Path) -> None:
    """Two calls with the same peer are one alarm; a decrypted one is none; and no key is in anything that is left."""
    keys = [srtp.Key(seed) for seed in range(1, 7)]
    scenes = [plain_call(number, start_ns=START_NS + 20_000_000_000 * number) for number in range(3)]
    shape = scenes[1].dialog
    scenes[2] = plain_call(2, start_ns=START_NS + 40_000_000_000, shape=replace(shape, call_id="again@example.invalid"))
    heard = []
    for number, scene in enumerate(scenes):
        told = srtp.announced(scene, keys[:1], keys[1:2], start_ns=START_NS + 20_000_000_000 * number)
        used = keys[:2] if number == 0 else keys[2:4]
        heard.append(srtp.packets(told, srtp.lock(scene.left, used[0]), srtp.lock(scene.right, used[1])))
    with Capture(tmp_path) as capture:
        capture.hear(in_order(*heard), size=50)
    code, told_lines = once(tmp_path)
    assert code == ExitCode.OK
    assert [line["event"] for line in told_lines] == ["recorded", "not recorded", "not recorded"]
    peer = f"{shape.caller.sip.address} and {shape.callee.sip.address}"
    assert alarms(tmp_path).keys() == {"ENCRYPTED_CALL"}
    assert alarms(tmp_path)["ENCRYPTED_CALL"].startswith("2 encrypted calls with ")
    raised = [
        (event["code"], event["about"]) for event in state.events(tmp_path / "state") if event["event"] == "alarm"
    ]
    assert raised == [("ENCRYPTED_CALL", peer)]
    left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()) + repr(told_lines).encode()
    assert not [key for key in keys if key.text.encode() in left or key.raw[:16] in left]


def test_the_alarm_ends_with_its_day(tmp_path: Path) -> None:
    raised = state.Alarms(tmp_path, "seal")
    peers = EncryptedPeers(raised)
    day = datetime(2026, 11, 24, 23, 59, tzinfo=UTC)
    peers.look(day)
    raised.raise_(CODE, "1 encrypted call", about="192.0.2.1")
    peers.look(day)
    assert len(raised.active) == 1
    peers.look(day + timedelta(minutes=2))
    assert raised.active == []
