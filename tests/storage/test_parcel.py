"""Recordings found in their folder, and lists of files that are none."""

import os
from pathlib import Path, PurePosixPath

import pytest

from tapdeck.storage.parcel import BadParcel, Parcel, folders_in, parcel, parcels_in
from tests.support.parcels import ALL_ENDINGS, DAY, record

NOW = 1_795_000_100.0
STEM = "2026/11/24/20261124_a_b_abcdefghij"


def found(root: Path, now: float = NOW) -> list[Parcel]:
    return [parcel for folder in folders_in(root) for parcel in parcels_in(root, folder, now)]


def test_what_vouches_for_others_travels_after_them() -> None:
    files = [STEM + ending for ending in reversed(ALL_ENDINGS)]
    made = parcel("abcdefghij", files, 7, 1.5)
    assert made == Parcel("abcdefghij", STEM, tuple(STEM + ending for ending in ALL_ENDINGS), 7, 1.5)


@pytest.mark.parametrize(
    "files",
    [
        [],
        [f"{STEM}.wav"],
        [f"/etc/passwd{'_info.txt'}"],
        [f"../{STEM}_info.txt"],
        [f"2026/../../{STEM}_info.txt"],
        [f"./{STEM}_info.txt"],
        [f"{STEM}_info.txt", "2026/11/24/another.wav"],
        [f"{STEM}_info.txt", f"{STEM}/../x.wav"],
        [f"{STEM}_info.txt", f"{STEM}.exe"],
        [f"{STEM}\0_info.txt"],
    ],
)
def test_other_lists_of_files_are_no_recording(files: list[str]) -> None:
    with pytest.raises(BadParcel):
        parcel("abcdefghij", files, 0, 0)


def test_whole_recordings_are_found_as_they_were_handed_over(tmp_path: Path) -> None:
    made = [
        record(tmp_path, "abcdefghij", endings=ALL_ENDINGS),
        record(tmp_path, "bbcdefghij", folder="2026/11/25"),
        record(tmp_path, "cbcdefghij", endings=(".pcapng", "_info.txt"), folder="."),
    ]
    assert sorted(found(tmp_path), key=lambda parcel: parcel.id) == made


def test_half_a_recording_and_other_files_are_not_found(tmp_path: Path) -> None:
    (tmp_path / record(tmp_path, "abcdefghij").files[1]).unlink()
    (tmp_path / DAY / "notes.txt").write_text("mine")
    (tmp_path / ".trash").mkdir()
    record(tmp_path, "bbcdefghij", folder=".trash")
    assert found(tmp_path) == []


@pytest.mark.parametrize("ending", ["_caller", "_info"])
def test_names_that_look_like_endings_stay_whole(tmp_path: Path, ending: str) -> None:
    made = record(tmp_path, f"abcdefghij{ending}", ended=NOW - 100)
    assert [parcel.files for parcel in found(tmp_path)] == [made.files]


def test_a_recording_that_is_being_published_waits(tmp_path: Path) -> None:
    made = record(tmp_path, "abcdefghij")
    part = tmp_path / DAY / f".{PurePosixPath(made.stem).name}_hash.txt.part"
    part.touch()
    os.utime(part, (NOW, NOW))
    assert found(tmp_path, NOW + 59) == []
    assert found(tmp_path, NOW + 61) == [made]


def test_an_info_file_without_an_id_gives_the_name(tmp_path: Path) -> None:
    made = record(tmp_path, "abcdefghij")
    for text in (b"Caller: 2001\n", b"\xff", b"cut"):
        (tmp_path / made.files[1]).write_bytes(text)
        assert [parcel.id for parcel in found(tmp_path)] == [PurePosixPath(made.stem).name]


def test_folders_come_in_the_order_of_their_days(tmp_path: Path) -> None:
    for day in ("2026/11/25", "2026/11/24", "2025/12/31", ".hidden/x"):
        (tmp_path / day).mkdir(parents=True)
    days = [str(folder) for folder in folders_in(tmp_path) if len(folder.parts) == 3]
    assert days == ["2025/12/31", "2026/11/24", "2026/11/25"]
    assert list(folders_in(tmp_path / "missing")) == []
