"""Files appear whole or not at all, also when we are killed, when two of us write, and when the name is taken."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tapdeck.storage import atomic
from tapdeck.storage.atomic import AtomicFiles, BeingWritten, DifferentFileExists, make_folder


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def write_files(folder: Path, contents: list[tuple[str, bytes]]) -> None:
    with AtomicFiles(folder) as files:
        for name, content in contents:
            files.open(name).write(content)


def test_a_file_appears_at_the_end_with_its_modes(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "2026" / "11")
    with AtomicFiles(folder) as files:
        file = files.open("a.wav")
        file.write(b"sound")
        file.flush()
        assert names(folder) == [".a.wav.part"]
    assert names(folder) == ["a.wav"]
    assert (folder / "a.wav").read_bytes() == b"sound"
    assert (folder / "a.wav").stat().st_mode & 0o777 == 0o600
    assert (folder / "a.wav").stat().st_nlink == 1
    assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), AtomicFiles(tmp_path) as files:  # noqa: PT012 - the block is what is tested
        files.open("a.wav").write(b"sound")
        files.open("a_info.txt").write(b"text")
        raise RuntimeError
    assert names(tmp_path) == []


def test_a_second_run_with_the_same_content_changes_nothing(tmp_path: Path) -> None:
    files = [("a.wav", b"sound"), ("a_info.txt", b"text")]
    write_files(tmp_path, files)
    before = [(tmp_path / name).stat() for name, _ in files]
    write_files(tmp_path, files)
    after = [(tmp_path / name).stat() for name, _ in files]
    assert [(stat.st_ino, stat.st_mtime_ns) for stat in after] == [(stat.st_ino, stat.st_mtime_ns) for stat in before]
    assert names(tmp_path) == ["a.wav", "a_info.txt"]


@pytest.mark.parametrize("other", [b"soun", b"Sound", b"sound" * 500_000])
def test_other_content_is_never_overwritten_and_nothing_else_appears(tmp_path: Path, other: bytes) -> None:
    (tmp_path / "a_info.txt").write_bytes(other)
    with pytest.raises(DifferentFileExists, match=r"a_info\.txt"):
        write_files(tmp_path, [("a.wav", b"sound"), ("a_info.txt", b"sound")])
    assert names(tmp_path) == ["a_info.txt"]
    assert (tmp_path / "a_info.txt").read_bytes() == other


def test_an_empty_file_is_a_name_that_was_left_behind(tmp_path: Path) -> None:
    """Where there are no hard links a kill can leave one; it must not bar the way for ever."""
    (tmp_path / "a.wav").touch()
    write_files(tmp_path, [("a.wav", b"sound")])
    assert (tmp_path / "a.wav").read_bytes() == b"sound"


def test_a_follower_with_other_words_is_left_where_the_others_are_there(tmp_path: Path) -> None:
    for text in (b"text", b"other words"):
        with AtomicFiles(tmp_path) as files:
            files.open("a.wav").write(b"sound")
            files.open("a_info.txt", follows=True).write(text)
    assert (tmp_path / "a_info.txt").read_bytes() == b"text"


def test_half_a_recording_is_completed(tmp_path: Path) -> None:
    write_files(tmp_path, [("a.wav", b"sound")])
    write_files(tmp_path, [("a.wav", b"sound"), ("a_info.txt", b"text")])
    assert names(tmp_path) == ["a.wav", "a_info.txt"]


def test_a_name_taken_while_we_wrote_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError), AtomicFiles(tmp_path) as files:  # noqa: PT012 - the block is what is tested
        files.open("a.wav").write(b"ours")
        os.symlink("/nowhere", tmp_path / "a.wav")  # looks absent to a look, yet the name is taken
    assert names(tmp_path) == ["a.wav"]
    assert os.readlink(tmp_path / "a.wav") == "/nowhere"


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **settings: object) -> None:
        raise PermissionError(1, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    write_files(tmp_path, [("a.wav", b"sound")])
    assert (tmp_path / "a.wav").read_bytes() == b"sound"
    (tmp_path / "b.wav").symlink_to("/nowhere")
    with pytest.raises(FileExistsError):
        write_files(tmp_path, [("b.wav", b"sound")])
    assert names(tmp_path) == ["a.wav", "b.wav"]


def test_two_writers_of_one_name(tmp_path: Path) -> None:
    with AtomicFiles(tmp_path) as first:
        first.open("a.wav").write(b"one")
        with pytest.raises(BeingWritten), AtomicFiles(tmp_path) as second:
            second.open("a.wav")
        assert names(tmp_path) == [".a.wav.part"]
    assert (tmp_path / "a.wav").read_bytes() == b"one"


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    code = """
        import os, sys, signal
        from pathlib import Path
        from tapdeck.storage.atomic import AtomicFiles
        with AtomicFiles(Path(sys.argv[1])) as files:
            files.open("a.wav").write(b"half" * 100_000)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    source = Path(atomic.__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path], env={**os.environ, "PYTHONPATH": str(source)}
    )
    assert ended.returncode == -signal.SIGKILL
    assert names(tmp_path) == [".a.wav.part"]
    write_files(tmp_path, [("a.wav", b"whole")])
    assert names(tmp_path) == ["a.wav"]
    assert (tmp_path / "a.wav").read_bytes() == b"whole"


def test_a_crash_between_two_names_is_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the machine stopped after the WAV had its name: the next run finds it and adds the rest."""
    files = [("a.wav", b"sound"), ("a_info.txt", b"text")]
    rename, calls = atomic._rename_noreplace, 0

    def stop_at_second(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(5, "Input/output error")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_rename_noreplace", stop_at_second)
        with pytest.raises(OSError, match="Input/output"):
            write_files(tmp_path, files)
    assert names(tmp_path) == ["a.wav"]
    write_files(tmp_path, files)
    assert names(tmp_path) == ["a.wav", "a_info.txt"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b"])
def test_only_names_within_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a file name"), AtomicFiles(tmp_path) as files:
        files.open(name)


def test_a_folder_where_a_file_stands(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "a")


@pytest.mark.parametrize(
    ("mode", "folder_mode", "file_mode"), [(0o2770, 0o2770, 0o640), (0o2777, 0o2770, 0o640), (0o775, 0o700, 0o600)]
)
def test_a_folder_shared_with_a_group_hands_that_on(
    tmp_path: Path, mode: int, folder_mode: int, file_mode: int
) -> None:
    tmp_path.chmod(mode)
    old = os.umask(0o007)
    try:
        folder = make_folder(tmp_path / "2026" / "11")
        write_files(folder, [("a.wav", b"sound")])
    finally:
        os.umask(old)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder)] == [folder_mode] * 2
    assert stat.S_IMODE((folder / "a.wav").stat().st_mode) == file_mode


@pytest.mark.skipif(os.getuid() != 0, reason="changes its user: needs root")
def test_sharing_with_a_group_that_the_writer_is_not_in(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    os.chown(folder, 5001, 4242)
    folder.chmod(0o2770)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.umask(0o007)
            os.setgroups([])
            os.setgid(5001)
            os.chdir(folder)  # the folders above are root's alone
            os.setuid(5001)
            write_files(make_folder(Path("2026")), [("a.wav", b"sound")])
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    made = (folder / "2026").stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (5001, 4242, 0o2770)
    file = (folder / "2026" / "a.wav").stat()
    assert (file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode)) == (5001, 4242, 0o640)
