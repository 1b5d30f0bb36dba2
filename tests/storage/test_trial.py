"""A folder that is lent for a self-test: nothing beside it changes, and nothing of it stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tapdeck.storage.delivery import deliver
from tapdeck.storage.folder_target import MARK, FolderTarget
from tapdeck.storage.targets import ForGood, TargetError, WillPass
from tests.support.parcels import everything, record

NAME = ".lent"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "recordings"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    (folder / "others").write_bytes(b"their own")
    return folder


def attempt(root: Path, disk: Path, known: bool = False) -> dict[str, bytes]:
    """Deliver a recording to a lent folder; return what lay in it then."""
    recording = record(root, "abcdefghij")
    with FolderTarget(disk, root).trial(NAME, known) as inner:
        inner.check(known=False)
        deliver(recording, root, inner, lambda size: None)
        return everything(disk / NAME)


@pytest.mark.parametrize("left", [False, True])
def test_nothing_stays_and_the_disk_is_not_marked(root: Path, disk: Path, left: bool) -> None:
    """A mark would tell deliver that this is the disk, when it is an empty mount point perhaps."""
    if left:
        (disk / NAME / "2026").mkdir(parents=True)
        (disk / NAME / "2026" / "x.wav").write_bytes(b"of a killed one")
    there = attempt(root, disk)
    there.pop(MARK)
    assert there == everything(root)
    assert everything(disk) == {"others": b"their own"}
    assert not (disk / NAME).exists()


def test_a_known_disk_has_to_be_the_same(root: Path, disk: Path) -> None:
    with pytest.raises(WillPass, match="is not what it was"):
        attempt(root, disk, known=True)
    assert everything(disk) == {"others": b"their own"}
    (disk / MARK).touch()
    assert len(attempt(root, disk, known=True)) == 3
    assert set(everything(disk)) == {"others", MARK}


def test_what_is_no_place_for_copies_is_none_for_this_either(root: Path, disk: Path) -> None:
    with pytest.raises(WillPass, match="is the disk mounted"):
        attempt(root, disk / "none")
    with pytest.raises(ForGood, match="in one another"):
        attempt(root, root)
    assert not (root / NAME).exists()
    assert not (disk / "none").exists()


def test_a_link_in_its_place_is_not_followed(root: Path, disk: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "letter").write_bytes(b"dear")
    (disk / NAME).symlink_to(precious)
    with pytest.raises(TargetError):
        attempt(root, disk)
    assert everything(precious) == {"letter": b"dear"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_one_that_is_ended_leaves_nothing_or_the_next_one_removes_it(root: Path, disk: Path, number: int) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tapdeck.storage.delivery import deliver; from tapdeck.storage.folder_target import FolderTarget\n"
        "from tapdeck.storage.parcel import parcel\n"
        f"with FolderTarget(Path(sys.argv[2]), Path(sys.argv[1])).trial({NAME!r}, False) as inner:\n"
        "    inner.check(False)\n"
        f"    beat = lambda size: os.kill(os.getpid(), {int(number)})\n"
        "    deliver(parcel('abcdefghij', sys.argv[3:], 0, 0), Path(sys.argv[1]), inner, beat)"
    )
    recording = record(root, "abcdefghij")
    ended = subprocess.run([sys.executable, "-c", code, root, disk, *recording.files], stderr=subprocess.DEVNULL)
    assert ended.returncode == -number
    assert (disk / NAME).exists() is (number == signal.SIGKILL)
    assert len(attempt(root, disk)) == 3
    assert os.listdir(disk) == ["others"]
