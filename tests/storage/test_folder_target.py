"""A folder as a target: disks that are not there, are the wrong one, full, read-only; what kills leave behind."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from tapdeck.storage.delivery import deliver
from tapdeck.storage.folder_target import MARK, FolderTarget
from tapdeck.storage.parcel import Parcel
from tapdeck.storage.targets import ForGood, NameTaken, Target, TargetError, WillPass
from tests.support.parcels import everything, fill, noise, record, small_disk, visible
from tests.support.users import environment, needs_root, python_for_all


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "recordings"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "mounted", 16) as folder:
        yield folder


def send(recording: Parcel, root: Path, target: Target) -> None:
    deliver(recording, root, target, lambda size: None)


def test_what_arrives_is_for_its_owner_only(root: Path, disk: Path) -> None:
    target = FolderTarget(disk, root)
    target.check(known=False)
    recording = record(root, "abcdefghij")
    send(recording, root, target)
    assert {(disk / file).stat().st_mode & 0o777 for file in recording.files} == {0o600}
    assert (disk / "2026").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_missing_will_pass_and_is_not_made(root: Path, disk: Path) -> None:
    target = FolderTarget(disk / "usb", root)
    for known in (False, True):
        with pytest.raises(WillPass, match="is the disk mounted"):
            target.check(known)
    with pytest.raises(WillPass):
        send(record(root, "abcdefghij"), root, target)
    assert list(disk.iterdir()) == []


def test_a_mount_point_without_its_disk_takes_nothing(root: Path, disk: Path) -> None:
    """The folder is there, and writing to it would fill the system's own disk."""
    target = FolderTarget(disk, root)
    target.check(known=False)
    send(record(root, "abcdefghij"), root, target)
    away = disk.rename(disk.with_name("away"))
    disk.mkdir()
    with pytest.raises(WillPass, match=f"touch {disk / MARK}"):
        target.check(known=True)
    with pytest.raises(WillPass, match="Is the disk mounted"):
        send(record(root, "bbcdefghij"), root, target)
    assert list(disk.iterdir()) == []
    disk.rmdir()
    away.rename(disk)
    target.check(known=True)
    send(record(root, "bbcdefghij"), root, target)
    assert visible(disk) == everything(root)


@pytest.mark.parametrize("content", [b"", b"my own words\n"])
def test_a_new_disk_is_taken_when_somebody_has_marked_it(root: Path, disk: Path, content: bytes) -> None:
    (disk / MARK).write_bytes(content)
    target = FolderTarget(disk, root)
    target.check(known=True)
    send(record(root, "abcdefghij"), root, target)
    assert visible(disk) == everything(root)
    assert (disk / MARK).read_bytes().startswith(content)


@pytest.mark.parametrize("place", ["recordings", "recordings/2026", ".", "link"])
def test_the_recordings_themselves_are_no_copy(root: Path, place: str) -> None:
    record(root, "abcdefghij")
    (root.parent / "link").symlink_to(root)
    before = everything(root)
    with pytest.raises(ForGood, match="in one another"):
        FolderTarget(root.parent / place, root).check(known=False)
    assert everything(root) == before


@needs_root
def test_a_full_disk_will_pass_and_nothing_half_is_left(root: Path, mounted: Path) -> None:
    target = FolderTarget(mounted, root)
    target.check(known=False)
    small, large = record(root, "abcdefghij"), record(root, "bbcdefghij", noise(20 << 20))
    with pytest.raises(WillPass, match=r"No space left.*make room"):
        send(large, root, target)
    assert everything(mounted).keys() == {MARK}
    send(small, root, target)
    filler = fill(mounted)
    with pytest.raises(WillPass, match="No space left"):
        target.check(known=True)
    with pytest.raises(WillPass, match="No space left"):
        send(record(root, "cbcdefghij"), root, target)
    filler.unlink()
    target.check(known=True)
    assert visible(mounted).keys() == set(small.files)


@needs_root
def test_a_disk_that_fills_up_while_it_is_written_to(
    root: Path, mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others write there too: the room that was promised is gone."""
    target = FolderTarget(mounted, root)
    target.check(known=False)
    large = record(root, "bbcdefghij", noise(20 << 20))
    real = os.statvfs

    def roomy(path: Path) -> os.statvfs_result:
        values = list(real(path))
        values[4] = 1 << 40  # f_bavail
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", roomy)
    with pytest.raises(WillPass, match="No space left"):
        send(large, root, target)
    assert everything(mounted).keys() == {MARK}


@needs_root
def test_a_read_only_disk_will_pass(root: Path, mounted: Path) -> None:
    target = FolderTarget(mounted, root)
    target.check(known=False)
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    with pytest.raises(WillPass, match="read-only"):
        target.check(known=True)
    with pytest.raises(WillPass, match="read-only"):
        send(record(root, "abcdefghij"), root, target)
    subprocess.run(["mount", "-o", "remount,rw", mounted], check=True)
    target.check(known=True)


@needs_root
def test_a_folder_of_somebody_else_will_pass_and_says_what_to_do(open_folder: Path) -> None:
    code = (
        "import os, sys; os.setuid(65534)\n"
        "from pathlib import Path; from tapdeck.storage.folder_target import FolderTarget\n"
        "try: FolderTarget(Path(sys.argv[1]), Path('/nowhere')).check(False)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    told = subprocess.run(
        [python_for_all(), "-c", code, open_folder], env=environment(), capture_output=True, text=True, check=True
    ).stdout
    assert told.startswith("WillPass")
    assert "Permission denied" in told
    assert "give the user of tapdeck deliver the right" in told


def test_a_name_that_is_too_long_there_is_for_good(root: Path, disk: Path) -> None:
    target = FolderTarget(disk, root)
    target.check(known=False)
    with pytest.raises(ForGood), target.upload(PurePosixPath("x" * 300), 1):
        raise AssertionError("it was opened")


def test_what_is_no_file_has_the_name(root: Path, disk: Path) -> None:
    target = FolderTarget(disk, root)
    target.check(known=False)
    recording = record(root, "abcdefghij")
    (disk / recording.files[0]).mkdir(parents=True)
    (disk / "elsewhere").write_bytes(b"private")
    (disk / recording.files[1]).symlink_to(disk / "elsewhere")
    for file in recording.files:
        with pytest.raises(NameTaken):
            target.size(PurePosixPath(file))
    (disk / "elsewhere").unlink()
    done = deliver(recording, root, target, lambda size: None)
    assert done.beside
    assert set(visible(disk)) == {f"{done.folder}/{PurePosixPath(file).name}" for file in recording.files}


def test_a_file_in_the_place_of_a_folder_is_for_good(root: Path, disk: Path) -> None:
    target = FolderTarget(disk, root)
    target.check(known=False)
    (disk / "2026").write_bytes(b"a file")
    with pytest.raises(ForGood):
        send(record(root, "abcdefghij"), root, target)


def test_a_name_without_its_file_is_no_file(root: Path, disk: Path) -> None:
    """Where there are no hard links a kill can leave one."""
    target = FolderTarget(disk, root)
    target.check(known=False)
    recording = record(root, "abcdefghij")
    (disk / recording.files[0]).parent.mkdir(parents=True)
    (disk / recording.files[0]).touch()
    send(recording, root, target)
    assert visible(disk) == everything(root)


def test_a_killed_upload_goes_with_the_next_one(root: Path, disk: Path) -> None:
    recording = record(root, "abcdefghij", noise(3 << 20))
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tapdeck.storage.delivery import deliver; from tapdeck.storage.folder_target import FolderTarget\n"
        "from tapdeck.storage.parcel import parcel\n"
        "target = FolderTarget(Path(sys.argv[2]), Path(sys.argv[1])); target.check(False); moved = 0\n"
        "def beat(size):\n"
        "    global moved; moved += size\n"
        "    if moved >= 2 << 20: os.kill(os.getpid(), signal.SIGKILL)\n"
        "deliver(parcel('abcdefghij', sys.argv[3:], 0, 0), Path(sys.argv[1]), target, beat)"
    )
    killed = subprocess.run([sys.executable, "-c", code, root, disk, *recording.files], check=False)
    assert killed.returncode == -9
    assert visible(disk) == {}
    assert len(everything(disk)) == 2
    target = FolderTarget(disk, root)
    target.check(known=True)
    send(recording, root, target)
    assert {path: content for path, content in everything(disk).items() if path != MARK} == everything(root)


def test_a_second_name_that_a_kill_has_left_goes(root: Path, disk: Path) -> None:
    """Where the kernel cannot rename without replacing, the file has both names for a moment."""
    target = FolderTarget(disk, root)
    target.check(known=False)
    recording = record(root, "abcdefghij")
    send(recording, root, target)
    sound = disk / recording.files[0]
    os.link(sound, sound.with_name(f".{sound.name}.part"))
    send(recording, root, target)
    assert not sound.with_name(f".{sound.name}.part").exists()
    assert visible(disk) == everything(root)


def test_another_that_writes_the_same_file_at_this_moment_will_pass(root: Path, disk: Path) -> None:
    target = FolderTarget(disk, root)
    target.check(known=False)
    recording = record(root, "abcdefghij", b"sound")
    path = PurePosixPath(recording.files[0])
    with target.upload(path, 5) as upload:
        upload.write(b"sound")
        with pytest.raises(WillPass):
            send(recording, root, target)
    send(recording, root, target)
    assert visible(disk) == everything(root)


def test_a_name_that_is_taken_in_the_meantime_is_not_overwritten(root: Path, disk: Path) -> None:
    target = FolderTarget(disk, root)
    target.check(known=False)
    with pytest.raises(NameTaken), target.upload(PurePosixPath("a.wav"), 5) as upload:  # noqa: PT012
        upload.write(b"sound")
        (disk / "a.wav").write_bytes(b"other")
    assert everything(disk).keys() == {MARK, "a.wav"}
    assert (disk / "a.wav").read_bytes() == b"other"


def test_errors_are_of_two_kinds() -> None:
    assert issubclass(NameTaken, ForGood)
    assert issubclass(ForGood, TargetError)
    assert issubclass(WillPass, TargetError)
    assert not issubclass(WillPass, ForGood)
