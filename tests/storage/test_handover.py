"""Hand-overs from seal to deliver: whole or not at all, once, and nothing that is none gets in the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tapdeck.storage import handover
from tapdeck.storage.parcel import BadParcel, Parcel
from tests.support.parcels import record


def names(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "handover").iterdir())


def test_what_is_handed_over_comes_back_and_goes(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert handover.waiting(state) == ([], [])
    made = [record(tmp_path, f"{letter}bcdefghij") for letter in "abc"]
    for parcel in made:
        handover.write(state, parcel)
    good, bad = handover.waiting(state)
    assert sorted(good, key=lambda parcel: parcel.id) == made
    assert bad == []
    for parcel in good:
        handover.taken(state, parcel)
        handover.taken(state, parcel)
    assert handover.waiting(state) == ([], [])
    assert names(state) == []


def test_the_file_says_what_the_documentation_says(tmp_path: Path) -> None:
    parcel = record(tmp_path, "abcdefghij", ended=1_795_000_000.5)
    handover.write(tmp_path, parcel)
    path = tmp_path / "handover" / "abcdefghij.json"
    size = sum((tmp_path / file).stat().st_size for file in parcel.files)
    assert json.loads(path.read_text()) == {
        "id": "abcdefghij",
        "files": list(parcel.files),
        "bytes": size,
        "ended": 1_795_000_000.5,
    }
    assert path.stat().st_mode & 0o777 == 0o640


def test_twice_is_once(tmp_path: Path) -> None:
    parcel = record(tmp_path, "abcdefghij")
    handover.write(tmp_path, parcel)
    handover.write(tmp_path, parcel)
    assert handover.waiting(tmp_path) == ([parcel], [])
    assert names(tmp_path) == ["abcdefghij.json"]


def test_they_are_taken_in_portions(tmp_path: Path) -> None:
    for letter in "abcde":
        handover.write(tmp_path, record(tmp_path, f"{letter}bcdefghij"))
    assert len(handover.waiting(tmp_path, limit=3)[0]) == 3


GOOD = {"id": "abcdefghij", "files": ["2026/a_info.txt"], "bytes": 1, "ended": 2.0}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[1]",
        b"null",
        b"[" * 100_000,
        json.dumps({"id": "abcdefghij"}).encode(),
        json.dumps({**GOOD, "files": ["../../etc/shadow_info.txt"]}).encode(),
        json.dumps({**GOOD, "files": None}).encode(),
        json.dumps({**GOOD, "id": "bbcdefghij"}).encode(),
        json.dumps({**GOOD, "bytes": "many"}).encode(),
        json.dumps({**GOOD, "ended": []}).encode(),
    ],
)
def test_what_is_no_hand_over_is_told_and_set_aside(tmp_path: Path, content: bytes) -> None:
    parcel = record(tmp_path, "cbcdefghij")
    handover.write(tmp_path, parcel)
    path = tmp_path / "handover" / "abcdefghij.json"
    path.write_bytes(content)
    good, bad = handover.waiting(tmp_path)
    assert good == [parcel]
    assert [where for where, _ in bad] == [path]
    handover.set_aside(path)
    assert handover.waiting(tmp_path) == ([parcel], [])
    assert names(tmp_path) == ["abcdefghij.json.bad", "cbcdefghij.json"]


@pytest.mark.parametrize("identity", ["../x", "a/b", ".hidden", "a\0b"])
def test_an_id_is_no_path(tmp_path: Path, identity: str) -> None:
    with pytest.raises(BadParcel):
        handover.write(tmp_path, Parcel(identity, "s", ("s_info.txt",), 0, 0.0))


def test_within_a_shared_folder_it_is_shared(tmp_path: Path) -> None:
    """Deliver has another user than seal, the same group, and has to remove what seal wrote."""
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o3770)
    handover.write(state, record(tmp_path, "abcdefghij"))
    assert (state / "handover").stat().st_mode & 0o7777 == 0o2770


def test_a_kill_at_any_moment_leaves_it_whole_or_not_there(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tapdeck.storage import handover; from tapdeck.storage.parcel import Parcel\n"
        "for n in range(10**9):\n"
        "    files = tuple(f'2026/{k}/s_info.txt' for k in range(1)) \n"
        "    handover.write(Path(sys.argv[1]), Parcel(f'x{n % 50}', '2026/0/s', files, n, 0.0)); print(n, flush=True)"
    )
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(int.from_bytes(os.urandom(1)) + 1):
            writer.stdout.readline()
        writer.kill()
        writer.wait()
        writer.stdout.close()
        good, bad = handover.waiting(tmp_path)
        assert good
        assert bad == []
    handover.write(tmp_path, record(tmp_path, "abcdefghij"))
