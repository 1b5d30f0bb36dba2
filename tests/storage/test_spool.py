"""Spool files: what a call's file says, and that no failing disk leaves it other than whole."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tapdeck.storage.spool import DONE, LIVE, RESUME, Job, SpoolFiles, Vanished
from tapdeck.storage.spool_file import SpoolError, note_block, read_spool
from tests.support import recipes
from tests.support.disk import Disk
from tests.support.ip import Packet
from tests.support.live import Capture
from tests.support.media import MS
from tests.support.scene import START_NS, Scene, in_order, plain_call
from tests.support.shark import needs_wireshark, udp_payloads

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def two_calls() -> list[Packet]:
    """One with media, and one that is busy."""
    busy = recipes.failed(2, "486 Busy Here")
    return in_order(plain_call(1, duration_ms=300).packets(), busy.packets())


def jobs(folder: Path, packets: list[Packet], size: int = 12) -> list[Job]:
    """What capture has done about packets, visit by visit."""
    capture = Capture(folder)
    found: list[Job] = []
    capture.do = found.append
    capture.hear(packets, size=size)
    capture.rest()
    capture.stop()
    return found


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_file_of_a_call_grows_in_live_and_is_handed_over(tmp_path: Path) -> None:
    scene = plain_call(1)
    capture = Capture(tmp_path)
    capture.hear(scene.packets()[:1])
    (path,) = capture.files_of(LIVE)
    (resume,) = capture.files_of(RESUME)
    assert path.read_bytes() == resume.read_bytes()
    assert (path.stat().st_mode & 0o777, len(capture.files)) == (0o640, 1)
    sizes = [path.stat().st_size]
    for start in range(1, len(scene.packets()), 20):
        capture.hear(scene.packets()[start : start + 20])
        sizes.append(path.stat().st_size)
    assert sizes == sorted(set(sizes))
    assert not capture.files_of(DONE)
    capture.rest()
    assert [one.name for one in capture.files_of(DONE)] == [path.name]
    assert not capture.files_of(LIVE)
    assert not capture.files_of(RESUME)
    assert len(capture.files) == 0


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    first, second = recipes.two_legs(1)
    with Capture(tmp_path) as capture:
        capture.book.steps += [(START_NS - 5, 7), (START_NS, 9)]
        capture.hear(in_order(first.packets(), second.packets()), size=10)
    spools = {spool.head.call_id: spool for spool in map(read_spool, capture.files_of(DONE))}
    head = spools[second.call_id].head
    assert head.id == spools[second.call_id].path.stem
    assert (head.caller_tag, head.started, head.begun) == (
        second.dialog.caller.tag,
        START_NS + 6 * MS,
        START_NS + 6 * MS,
    )
    assert (head.instance, head.host, head.interfaces, head.continues) == ("box", "box", "mon0", "")
    assert head.clock == [[START_NS - 5, 7], [START_NS, 9]]
    assert head.related == [[first.call_id, first.dialog.caller.tag, START_NS, "outer leg", False, ""]]
    over = spools[first.call_id].over
    assert over is not None
    assert (over["running"], over["frames"], over["lost"]) == (False, 100, 0)
    assert over["related"] == [[second.call_id, second.dialog.caller.tag, START_NS + 6 * MS, "inner leg", True, ""]]


@needs_wireshark
def test_wireshark_sees_the_call_and_nothing_else(tmp_path: Path) -> None:
    scene, other = plain_call(1), plain_call(2, start_ns=START_NS + MS)
    with Capture(tmp_path) as capture:
        capture.hear(in_order(scene.packets(), other.packets()), size=9)
    (path,) = (spool.path for spool in map(read_spool, capture.files_of(DONE)) if spool.head.call_id == scene.call_id)
    sent = [signal.text.hex() for signal in scene.signals] + [one.wire().hex() for one in (*scene.left, *scene.right)]
    assert sorted(udp_payloads(path)) == sorted(sent)


def test_a_call_without_media_leaves_nothing(tmp_path: Path) -> None:
    with Capture(tmp_path) as capture:
        capture.hear(recipes.failed(1, "486 Busy Here").packets(), size=1)
        assert [len(capture.files_of(name)) for name in (LIVE, RESUME)] == [1, 1]
    assert tree(tmp_path / "spool") == {}
    assert [item.frames for item in capture.over] == [0]


def test_more_calls_than_files_may_be_open(tmp_path: Path) -> None:
    scenes = [plain_call(n, start_ns=START_NS + n * MS, duration_ms=100) for n in range(1, 9)]
    with Capture(tmp_path, files=SpoolFiles(tmp_path / "spool", most=3)) as capture:
        before = len(os.listdir("/proc/self/fd"))
        capture.hear(in_order(*(scene.packets() for scene in scenes)), size=4)
        assert len(os.listdir("/proc/self/fd")) <= before + 3
    with Capture(tmp_path / "other") as other:
        other.hear(in_order(*(scene.packets() for scene in scenes)), size=4)
    assert tree(tmp_path / "spool") == tree(tmp_path / "other" / "spool")


# -- a failing disk ----------------------------------------------------------------------------------------------------


def calls_needed(folder: Path, work: list[Job]) -> tuple[int, dict[str, bytes]]:
    """How many system calls change files while jobs are done, and what they leave."""
    with pytest.MonkeyPatch.context() as patch:
        files, disk = SpoolFiles(folder / "spool"), Disk(patch)
        for job in work:
            files.do(job)
    return disk.calls, tree(folder / "spool")


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_whatever_fails_a_job_is_done_once_when_it_is_tried_again(share: float, tmp_path: Path) -> None:
    work = jobs(tmp_path / "made", two_calls())
    count, expected = calls_needed(tmp_path / "good", work)
    assert count > 20
    for at in range(1, count + 1):
        folder = tmp_path / str(at)
        with pytest.MonkeyPatch.context() as patch:
            files = SpoolFiles(folder)
            Disk(patch, at=at, error=FULL, share=share, times=2)
            failures = 0
            for job in work:
                while failures < 10:
                    try:
                        files.do(job)
                        break
                    except OSError:
                        failures += 1
                        assert_whole(folder)
        assert failures == 2, f"call {at}"
        assert tree(folder) == expected, f"call {at}"


def assert_whole(folder: Path) -> None:
    """Every file of the spool is a capture that does not break off; a name alone may be there already."""
    for path in [*(folder / LIVE).iterdir(), *(folder / RESUME).glob("*.pcapng")]:
        try:
            assert read_spool(path).damage == ""
        except SpoolError:
            assert path.stat().st_size == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_leaves_files_whole_and_goes_on_when_there_is_room(small: Path, tmp_path: Path) -> None:
    packets = two_calls()
    work = jobs(tmp_path / "made", packets, size=4)
    _, expected = calls_needed(tmp_path / "good", work)
    files = SpoolFiles(small / "spool")
    ballast = small / "ballast"
    with ballast.open("wb", buffering=0) as file:
        left = os.statvfs(small)
        file.write(bytes(left.f_bavail * left.f_frsize - 12_288))
    failed = []
    for job in work:
        try:
            files.do(job)
        except OSError as error:
            failed.append(error.errno)
            assert_whole(small / "spool")
            ballast.unlink(missing_ok=True)
            files.do(job)
    assert failed == [errno.ENOSPC]
    assert tree(small / "spool") == expected


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_file_that_was_taken_away_is_told_from_a_full_disk(tmp_path: Path) -> None:
    scenes = [plain_call(n, start_ns=START_NS + n * MS, duration_ms=200) for n in (1, 2)]
    files = SpoolFiles(tmp_path / "spool", most=1)
    work = jobs(tmp_path / "made", in_order(*(scene.packets() for scene in scenes)), size=4)
    victim, gone = work[0].id, 0
    for number, job in enumerate(work):
        if number == 10:
            (tmp_path / "spool" / LIVE / f"{victim}.pcapng").unlink()
        try:
            files.do(job)
        except Vanished:
            gone += 1
            assert job.id == victim
    assert gone
    (left,) = (tmp_path / "spool" / DONE).iterdir()
    assert read_spool(left).over is not None
    assert len(files) == 0


def test_a_spool_that_is_not_mounted_is_waited_for(tmp_path: Path) -> None:
    files = SpoolFiles(tmp_path / "spool")
    work = jobs(tmp_path / "made", two_calls())
    (tmp_path / "spool").rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        files.do(work[0])
    (tmp_path / "away").rename(tmp_path / "spool")
    for job in work:
        files.do(job)
    assert len(list((tmp_path / "spool" / DONE).iterdir())) == 1


# -- what strangers may put into it ------------------------------------------------------------------------------------


def test_related_calls_with_endless_names_do_not_cost_the_note(tmp_path: Path) -> None:
    note = {"note": "over", "running": False, "related": [["x" * 4096, "y" * 512, n] for n in range(16)]}
    path = tmp_path / "a.pcapng"
    with Capture(tmp_path) as capture:
        capture.hear(plain_call(1, duration_ms=100).packets())
    (made,) = capture.files_of(DONE)
    path.write_bytes(made.read_bytes() + note_block(note, 5))
    over = read_spool(path).over
    assert over is not None
    assert (over["time"], over["related"]) == (5, [])


def test_a_call_with_an_endless_name_is_kept_like_any_other(tmp_path: Path) -> None:
    scene = plain_call(1, duration_ms=100)
    name = "ü" * 2000 + "@x"
    names = scene.call_id.encode(), name.encode()
    signals = tuple(replace(signal, text=signal.text.replace(*names)) for signal in scene.signals)
    with Capture(tmp_path) as capture:
        capture.hear(Scene(scene.dialog, signals, scene.left, scene.right).packets())
    (path,) = capture.files_of(DONE)
    assert read_spool(path).head.call_id == name
