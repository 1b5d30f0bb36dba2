"""A run of capture that is killed anywhere, or stopped, and the next that goes on: nothing is lost, nothing twice."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tapdeck.sniffer.columns import Columns
from tapdeck.sniffer.items import Past
from tapdeck.sniffer.sources.capture_file import CaptureError, CaptureFile
from tapdeck.storage.resume import take_over
from tapdeck.storage.spool import DONE, LIVE, RESUME
from tapdeck.storage.spool_file import read_spool, signalling
from tests.sniffer.test_correlator import zrtp
from tests.support import recipes
from tests.support.disk import Crash, Disk
from tests.support.ip import Packet
from tests.support.live import SIP_PORTS, Capture, recordings, seal
from tests.support.media import MS, SECOND
from tests.support.record import assert_sound
from tests.support.scene import START_NS, Scene, answered_ns, in_order, plain_call

VISIT = 10


def media_in(path: Path) -> Counter[tuple[int, int]]:
    """The RTP packets of a spool file by SSRC and sequence number; it may break off anywhere."""
    columns = Columns(sip_ports=SIP_PORTS)
    found: Counter[tuple[int, int]] = Counter()
    with path.open("rb", buffering=0) as stream, suppress(CaptureError):
        for records in CaptureFile(str(path), stream).blocks():
            rtp = columns.read(records).rtp
            found.update(zip(rtp.ssrc.tolist(), rtp.sequence.tolist(), strict=True))
    return found


def all_media(folder: Path) -> Counter[tuple[int, int]]:
    return sum((media_in(path) for path in (folder / "spool" / DONE).iterdir()), Counter())


def sent(*scenes: Scene) -> Counter[tuple[int, int]]:
    return Counter((packet.ssrc, packet.seq & 0xFFFF) for scene in scenes for packet in (*scene.left, *scene.right))


def files(folder: Path) -> dict[str, list[str]]:
    return {name: sorted(path.name for path in (folder / "spool" / name).iterdir()) for name in (LIVE, DONE, RESUME)}


def killed(folder: Path, packets: Sequence[Packet]) -> Capture:
    """A run that hears these packets and is then no more: all it wrote is there."""
    capture = Capture(folder)
    capture.hear(packets, size=VISIT)
    return capture


def gone_on(folder: Path, packets: Sequence[Packet]) -> Capture:
    """The next run, to the end of the calls, and of what it has to believe are some."""
    with Capture(folder) as capture:
        capture.take_over()
        capture.hear(packets, size=VISIT)
        capture.rest()
        for _ in range(5):
            capture.take(capture.engine.idle(capture.engine.now + 3600 * SECOND))
    return capture


# -- kill -9 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heard", [0, 1, 2, 5, 6, 7, 8, 30, 60, 99, 104, 105, 106, 107])
def test_killed_between_two_visits(heard: int, tmp_path: Path) -> None:
    scene = plain_call(1)
    packets = scene.packets()
    killed(tmp_path, packets[:heard])
    gone_on(tmp_path, packets[heard:])
    assert all_media(tmp_path) == sent(scene)
    assert (files(tmp_path)[LIVE], files(tmp_path)[RESUME]) == ([], [])
    seal(tmp_path)
    found = recordings(tmp_path)
    payload = b"".join(packet.payload for packet in scene.left)
    assert b"".join(one.wav.channels()[0] for one in found).replace(b"\xd5", b"") == payload
    if len(found) == 1:
        assert_sound(found[0], *scene.channels())
        assert "ContinuationOf" not in found[0].info
        assert ("Truncated" in found[0].info) == (heard == 105), "the BYE was seen by nobody who knew the call's media"
    else:
        first, second = found
        assert first.info["Truncated"].endswith("the recorder broke off")
        assert second.info["ContinuationOf"] == first.info["RecordingId"] != second.info["RecordingId"]
        assert second.info["EndReason"] == "BYE by caller"
        assert "Truncated" not in second.info
        assert (first.info["CallId"], first.info["Caller"]) == (second.info["CallId"], second.info["Caller"])
    assert (len(found) == 1) == (heard <= 5 or heard >= 105)


def visits(packets: Sequence[Packet]) -> list[Sequence[Packet]]:
    """What sets a call up comes one message a visit."""
    edges = [*range(10), *range(10, len(packets), VISIT), len(packets)]
    return [packets[start:stop] for start, stop in pairwise(edges)]


def run(folder: Path, seen: Sequence[Sequence[Packet]]) -> Iterator[int]:
    """A run to its end; yields how many packets it has taken before each step."""
    capture = Capture(folder)
    taken = 0
    for packets in seen:
        taken += len(packets)
        yield taken
        capture.hear(packets)
    yield taken
    capture.rest()
    capture.stop()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.97, 1.0])
def test_killed_at_any_system_call(share: float, tmp_path: Path) -> None:
    """What was written before the kill is kept; of the visit at hand only what had not been written is lost."""
    scenes = plain_call(1, duration_ms=200), recipes.failed(2, "486 Busy Here")
    packets = in_order(*(scene.packets() for scene in scenes))
    seen = visits(packets)
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        deque(run(tmp_path / "whole", seen), maxlen=0)
    for at in range(1, disk.calls + 1):
        folder = tmp_path / str(at)
        taken, on_disk = crashed(folder, seen, at, share)
        gone_on(folder, packets[taken:])
        before = sent_by(scenes[0], packets[taken].time_ns) if taken < len(packets) else sent(scenes[0])
        assert all_media(folder) == on_disk + sent(scenes[0]) - before, f"call {at}"
        assert sum((before - on_disk).values()) <= VISIT, f"call {at}"
        assert (files(folder)[LIVE], files(folder)[RESUME]) == ([], []), f"call {at}"
        seal(folder)
        chain = [one.info for one in recordings(folder)]
        assert 1 <= len(chain) <= 2, f"call {at}"
        assert [info.get("ContinuationOf") for info in chain] == [None, *(info["RecordingId"] for info in chain[:-1])]


def crashed(
    folder: Path, seen: Sequence[Sequence[Packet]], at: int, share: float
) -> tuple[int, Counter[tuple[int, int]]]:
    """A run that is killed at system call `at`; how many packets it had taken, and the media that is on disk."""
    taken = 0
    with pytest.MonkeyPatch.context() as patch, suppress(Crash):
        Disk(patch, at=at, error=Crash(), share=share)
        for so_far in run(folder, seen):
            taken = so_far
    paths = (path for name in (LIVE, DONE) for path in (folder / "spool" / name).iterdir())
    return taken, sum((media_in(path) for path in paths), Counter())


def test_killed_again_and_again(tmp_path: Path) -> None:
    scene = plain_call(1)
    packets = scene.packets()
    edges = [0, 3, 20, 21, 47, 47, 80]
    for start, stop in pairwise(edges):
        capture = Capture(tmp_path)
        capture.take_over()
        capture.hear(packets[start:stop], size=3)
    gone_on(tmp_path, packets[80:])
    assert all_media(tmp_path) == sent(scene)
    seal(tmp_path)
    chain = [one.info for one in recordings(tmp_path)]
    assert [info.get("ContinuationOf") for info in chain] == [None, *(info["RecordingId"] for info in chain[:-1])]
    assert len({info["RecordingId"] for info in chain}) == len(chain) == 5
    assert [("Truncated" in info) for info in chain] == [True, True, True, True, False]


@pytest.mark.parametrize("cut", [0, 1, 100, 0.3, 0.9])
def test_a_file_cut_by_a_power_loss(cut: float, tmp_path: Path) -> None:
    """What of a running call had not reached the disk is missing; the rest is there, and the call goes on."""
    scene = plain_call(1)
    packets = scene.packets()
    killed(tmp_path, packets[:60])
    (live,) = (tmp_path / "spool" / LIVE).iterdir()
    content = live.read_bytes()
    live.write_bytes(content[: int(len(content) * cut) if isinstance(cut, float) else cut])
    kept = media_in(live)
    gone_on(tmp_path, packets[60:])
    later = Counter({key: 1 for key in sent(scene) if key not in sent_by(scene, packets[60].time_ns)})
    assert all_media(tmp_path) == kept + later


def sent_by(scene: Scene, time_ns: int) -> Counter[tuple[int, int]]:
    return sent(scene.until(time_ns))


# -- SIGTERM -----------------------------------------------------------------------------------------------------------


def stopped(folder: Path, packets: Sequence[Packet]) -> None:
    capture = Capture(folder)
    capture.hear(packets, size=VISIT)
    capture.stop()


def test_stopped_in_the_middle_of_a_call(tmp_path: Path) -> None:
    scene = plain_call(1)
    packets = scene.packets()
    stopped(tmp_path, packets[:50])
    (name,) = files(tmp_path)[DONE]
    assert files(tmp_path) == {LIVE: [], DONE: [name], RESUME: [name]}
    gone_on(tmp_path, packets[50:])
    assert all_media(tmp_path) == sent(scene)
    seal(tmp_path)
    first, second = recordings(tmp_path)
    assert first.info["Truncated"].endswith("the recorder was stopped")
    assert second.info["ContinuationOf"] == first.info["RecordingId"]
    assert not files(tmp_path)[RESUME]


@pytest.mark.parametrize("end", [stopped, killed])
def test_a_call_without_media_yet_begins_anew_under_the_same_id(end: object, tmp_path: Path) -> None:
    scene = plain_call(1)
    packets = scene.packets()
    assert callable(end)
    end(tmp_path, packets[:3])
    (name,) = files(tmp_path)[RESUME]
    assert files(tmp_path)[DONE] == []
    gone_on(tmp_path, packets[3:])
    assert files(tmp_path) == {LIVE: [], DONE: [name], RESUME: []}
    account = seal(tmp_path)
    assert (account.calls["seen"], account.calls["recorded"]) == (1, 1)
    (recording,) = recordings(tmp_path)
    assert_sound(recording, *scene.channels())
    assert not {"Truncated", "ContinuationOf"} & set(recording.info)


def test_a_call_that_ended_while_nobody_listened_leaves_nothing(tmp_path: Path) -> None:
    scene = plain_call(1)
    stopped(tmp_path, scene.packets()[:50])
    with Capture(tmp_path) as capture:
        capture.take_over()
        capture.hear([scene.packets()[-2]])  # nothing of it but the BYE
        assert len(capture.files_of(RESUME)) == 1
    assert (files(tmp_path)[LIVE], files(tmp_path)[RESUME]) == ([], [])
    assert len(files(tmp_path)[DONE]) == 1


def test_a_call_of_which_nothing_more_comes_is_forgotten(tmp_path: Path) -> None:
    scene = plain_call(1)
    stopped(tmp_path, scene.packets()[:50])
    capture = Capture(tmp_path)
    capture.take_over()
    start = scene.packets()[50].time_ns
    for minutes in range(1, 250):
        capture.take(capture.engine.idle(start + minutes * 60 * SECOND))
    assert not capture.engine.correlator.open
    assert not files(tmp_path)[RESUME]


# -- more of what a later run has to know ------------------------------------------------------------------------------


def test_hold_and_moves_before_the_kill_are_known_after_it(tmp_path: Path) -> None:
    scene = recipes.moved(1, address="10.0.1.99", new_ssrc=True)
    packets = scene.packets()
    place = next(n for n, packet in enumerate(packets) if packet.time_ns > scene.left[40].time_ns)
    killed(tmp_path, packets[:place])
    gone_on(tmp_path, packets[place:])
    assert all_media(tmp_path) == sent(scene)


def test_the_end_of_a_call_with_many_messages_is_in_its_continuation(tmp_path: Path) -> None:
    """However much was said before, what is said then is kept too."""
    scene = plain_call(1)
    noise = [
        scene.dialog.request(answered_ns() + 300 * MS + n * MS, "INFO", f"Signal={n % 10}\r\n", cseq=100 + n)
        for n in range(120)
    ]
    signals = tuple(sorted((*scene.signals, *noise), key=lambda signal: signal.time_ns))
    scene = replace(scene, signals=signals)
    packets = scene.packets()
    killed(tmp_path, packets[:180])
    gone_on(tmp_path, packets[180:])
    seal(tmp_path)
    *_, last = recordings(tmp_path)
    assert last.info["EndReason"] == "BYE by caller"
    assert "Truncated" not in last.info
    path = tmp_path / "spool" / DONE / f"{last.info['RecordingId']}.pcapng"
    assert sum(len(records) for records in signalling(path)) == len(signals)


def test_what_was_encrypted_before_the_kill_is_after_it(tmp_path: Path) -> None:
    scene = plain_call(1)
    here, there = scene.dialog.caller.media, scene.dialog.callee.media
    shake = [zrtp(scene.left[10].time_ns + MS, here, there, b"Confirm2")]
    packets = in_order(scene.packets(), shake)
    killed(tmp_path, packets[:60])
    gone_on(tmp_path, packets[60:])
    account = seal(tmp_path)
    clear = sum(packet.time_ns <= shake[0].time_ns for packet in (*scene.left, *scene.right))
    assert account.packets["kept", "sound"] == clear
    assert account.packets["refused", "encrypted, no key"] == 100 - clear


def test_two_calls_and_a_third_that_begins_later(tmp_path: Path) -> None:
    scenes = [plain_call(n, start_ns=START_NS + n * 400 * MS) for n in (1, 2, 3)]
    packets = in_order(*(scene.packets() for scene in scenes))
    killed(tmp_path, packets[:120])
    gone_on(tmp_path, packets[120:])
    assert all_media(tmp_path) == sent(*scenes)
    seal(tmp_path)
    by_call: dict[str, list[str]] = {}
    for one in recordings(tmp_path):
        by_call.setdefault(one.info["CallId"], []).append(one.info.get("ContinuationOf", ""))
    assert {name: len(parts) for name, parts in by_call.items()} == {
        scenes[0].call_id: 2,
        scenes[1].call_id: 2,
        scenes[2].call_id: 1,
    }


# -- what is found in the folder ---------------------------------------------------------------------------------------


def test_the_files_of_an_earlier_run(tmp_path: Path) -> None:
    scene = plain_call(1)
    capture = killed(tmp_path, scene.packets()[:50])
    (resume,) = capture.files_of(RESUME)
    spool = resume.parent.parent
    (spool / RESUME / "broken.pcapng").write_bytes(b"no capture at all")
    (spool / RESUME / "empty.pcapng").touch()
    (spool / RESUME / "half.part").write_bytes(b"half")
    (spool / LIVE / "stray.pcapng").write_bytes(b"what is this")
    left = take_over(spool, SIP_PORTS, 0)
    assert {past for past, _ in left.history} == {Past(resume.stem, resume.stem)}
    assert [one.time for _, one in left.history] == [signal.time_ns for signal in scene.signals[:5]]
    assert left.handed_over == 2
    assert sorted(path.name for path in left.unreadable) == ["broken.pcapng", "empty.pcapng"]
    assert files(tmp_path) == {LIVE: [], DONE: sorted([resume.name, "stray.pcapng"]), RESUME: [resume.name]}


def test_a_call_of_long_ago_is_not_gone_on_with(tmp_path: Path) -> None:
    scene = plain_call(1)
    killed(tmp_path, scene.packets()[:50])
    left = take_over(tmp_path / "spool", SIP_PORTS, answered_ns() + SECOND)
    assert (left.history, left.handed_over) == ([], 1)
    assert not files(tmp_path)[RESUME]


def test_killed_when_one_resume_file_had_taken_the_place_of_another(tmp_path: Path) -> None:
    scene = plain_call(1)
    capture = killed(tmp_path, scene.packets()[:50])
    (older,) = capture.files_of(RESUME)
    content = older.read_bytes()
    second = Capture(tmp_path)
    second.take_over()
    second.hear(scene.packets()[50:70], size=VISIT)
    (newer,) = second.files_of(RESUME)
    older.write_bytes(content)
    left = take_over(tmp_path / "spool", SIP_PORTS, 0)
    assert {past for past, _ in left.history} == {Past(newer.stem, newer.stem)}
    assert not older.exists()


def test_a_continuation_that_had_no_media_yet_is_not_named_by_the_next(tmp_path: Path) -> None:
    scene = recipes.held(1)
    packets = scene.packets()
    place = next(n for n, packet in enumerate(packets) if packet.time_ns > scene.left[29].time_ns + 100 * MS)
    resumed = next(n for n, packet in enumerate(packets) if n > place and b"INVITE" in packet.ip)
    first = killed(tmp_path, packets[:place])
    (one,) = first.files_of(LIVE)
    second = Capture(tmp_path)
    second.take_over()
    second.hear(packets[place : resumed + 1])
    (empty,) = second.files_of(LIVE)
    assert read_spool(empty).head.continues == one.stem
    gone_on(tmp_path, packets[resumed + 1 :])
    assert all_media(tmp_path) == sent(scene)
    seal(tmp_path)
    assert [info.info.get("ContinuationOf") for info in recordings(tmp_path)] == [None, one.stem]
    assert empty.name not in files(tmp_path)[DONE]
