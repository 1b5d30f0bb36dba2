"""Files that appear whole or not at all, and never in place of another.

A file is written as `.NAME.part` in its own folder, locked while it is written; then flushed, fsynced, and given its
name with link(2), which refuses an existing one. The folder is fsynced last. What a killed run left behind is
unlocked and is cleared away by the next one that wants the same name.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, BinaryIO, Self

if TYPE_CHECKING:
    import ctypes

FILE_MODE = 0o600
FOLDER_MODE = 0o700

_MANY = 16  # files from which on one syncfs is cheaper, although it waits for others' data too
_COMPARE_BLOCK = 1 << 20
_NO_LINKS_HERE = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class DifferentFileExists(FileExistsError):
    """The name is taken by a file with other content, which is left as it is."""


class BeingWritten(OSError):
    """Another process is writing a file of this name at this moment."""


class AtomicFiles:
    """The files of one recording: `with AtomicFiles(folder) as files: files.open("a.wav").write(...)`.

    At the end of the block they all get their names, in the order in which they were opened, and the folder is
    fsynced once. A file that already exists with the same content is left and counts as done. If the block raises, or
    a name is taken by other content (DifferentFileExists), none of them appears. Raises OSError as the file system
    does.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: list[tuple[str, BinaryIO]] = []
        self._followers: set[str] = set()

    def open(self, name: str, follows: bool = False) -> BinaryIO:
        """Return a new file to write to. Raises BeingWritten if another process is at it.

        A file that `follows` the others only describes them: where all of them exist with the same content, it may
        exist with other words, and is left.
        """
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"not a file name: {name!r}")
        part = _create_part(self._part(name))
        self._parts.append((name, part))
        if follows:
            self._followers.add(name)
        return part

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            self._discard()

    def _publish(self) -> None:
        missing = self._unpublished()
        for name, part in self._parts:
            if name in missing:
                os.fsync(part.fileno())
        self._give_names(missing)
        if missing:
            sync_folder(self._folder)

    def _unpublished(self) -> list[str]:
        """Flush all files, and return the names that do not exist yet."""
        missing: list[str] = []
        for name, part in self._parts:
            part.flush()
            if name in self._followers and len(self._parts) > 1 and not missing and (self._folder / name).exists():
                continue
            if not self._is_there(name, part):
                missing.append(name)
        return missing

    def _give_names(self, missing: list[str], named: Callable[[str], None] = lambda name: None) -> None:
        for name in missing:
            _rename_noreplace(self._part(name), self._folder / name)
            named(name)

    def _is_there(self, name: str, part: BinaryIO) -> bool:
        """Whether the file exists with the same content. Raises DifferentFileExists."""
        try:
            existing = (self._folder / name).open("rb")
        except FileNotFoundError:
            return False
        if os.fstat(existing.fileno()).st_size == 0 and os.fstat(part.fileno()).st_size:
            existing.close()  # a name without its file, left behind by a kill where there are no hard links
            (self._folder / name).unlink()
            return False
        with existing, self._part(name).open("rb") as written:
            if not _same_content(existing, written):
                raise DifferentFileExists(errno.EEXIST, "exists with other content", str(self._folder / name))
        return True

    def _discard(self) -> None:
        for name, part in self._parts:
            # Removed before it is closed: from then on the lock is gone and the name may be another's.
            self._part(name).unlink(missing_ok=True)
            part.close()
        self._parts = []

    def _part(self, name: str) -> Path:
        return self._folder / f".{name}.part"


class AtomicBatch:
    """Many recordings made durable together: one syncfs for all their data costs less than an fsync for each file.

    `add` gives the files of one recording, `publish` gives them all their names, recording by recording. What is not
    published when the block ends does not appear.
    """

    def __init__(self) -> None:
        self._members: list[AtomicFiles] = []

    def add(self, folder: Path) -> AtomicFiles:
        """Return the files of one more recording. Do not use them as a context manager."""
        self._members.append(AtomicFiles(folder))
        return self._members[-1]

    def drop(self, member: AtomicFiles) -> None:
        """Take a recording out that could not be written."""
        self._members.remove(member)
        member._discard()

    def publish(self, named: Callable[[str], None] = lambda name: None) -> dict[AtomicFiles, OSError]:
        """Publish all recordings; return what went wrong with which. The others are published and durable. `named` is
        told of each file that has got its name.
        """
        failed: dict[AtomicFiles, OSError] = {}
        missing: dict[AtomicFiles, list[str]] = {}
        for member in self._members:
            try:
                missing[member] = member._unpublished()
            except OSError as error:
                failed[member] = error
        folders: dict[Path, None] = {}
        try:
            self._sync([member for member, names in missing.items() if names])
        except OSError as error:
            return failed | dict.fromkeys(missing, error)
        for member, names in missing.items():
            try:
                member._give_names(names, named)
            except OSError as error:
                failed[member] = error
            if names:
                folders[member._folder] = None
        for folder in folders:
            sync_folder(folder)
        return failed

    @staticmethod
    def _sync(members: list[AtomicFiles]) -> None:
        files = [part for member in members for _, part in member._parts]
        if len(files) < _MANY:
            for part in files:
                os.fsync(part.fileno())
            return
        for part in {os.fstat(part.fileno()).st_dev: part for part in files}.values():
            _syncfs(part.fileno())

    def __enter__(self) -> "AtomicBatch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members:
            member._discard()


def write_files(folder: Path, files: Sequence[tuple[str, bytes]]) -> None:
    """Publish several small files together, in this order. See AtomicFiles."""
    with AtomicFiles(folder) as atomic:
        for name, content in files:
            atomic.open(name).write(content)


def replace_file(path: Path, content: bytes, mode: int | None = None, *, executable: bool = False) -> None:
    """Give a file this content in one step, durably, whether it exists or not. Without a `mode` it is read, or
    executed, by those whom its folder is shared with. Raises OSError.
    """
    if mode is None:
        mode = FILE_MODE | _shared(path.parent, stat.S_IRGRP)
        mode |= (mode & 0o440) >> 2 if executable else 0
    part = path.with_name(f".{path.name}.new")
    part.unlink(missing_ok=True)
    with open(part, "xb", opener=part_opener) as file:
        try:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    part.replace(path)
    sync_folder(path.parent)


def make_folder(folder: Path) -> Path:
    """Make the folder and those above it that are missing, with mode 0700, durably. Raises OSError.

    Within a folder that is shared with a group (set-group-ID, as `tapdeck install` makes them) they are shared in the
    same way, as far as the umask lets them.
    """
    if folder.is_dir():
        return folder
    if folder.parent != folder:
        make_folder(folder.parent)
    try:
        # By mkdir's mode alone: chmod would take the bit that hands the group on from who is not of that group.
        folder.mkdir(mode=FOLDER_MODE | _shared(folder.parent, stat.S_IRWXG))
    except FileExistsError:
        if not folder.is_dir():
            raise
    sync_folder(folder.parent)
    return folder


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(first: Path, second: Path) -> None:
    """Let two files of one folder swap names in one step. Where there is no second, or the file system cannot, the
    first replaces it. Raises OSError.
    """
    import ctypes

    libc, here, swap = _libc(), -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if hasattr(libc, "renameat2") and libc.renameat2(here, os.fsencode(first), here, os.fsencode(second), swap) == 0:
        return
    if (number := ctypes.get_errno()) not in (errno.ENOENT, errno.EINVAL, errno.ENOSYS):
        raise OSError(number, os.strerror(number), str(second))
    os.replace(first, second)


@cache
def _libc() -> "ctypes.CDLL":
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _syncfs(descriptor: int) -> None:
    """Make everything on a file system durable (syncfs(2)). Raises OSError."""
    import ctypes

    if _libc().syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sync_filesystem(folder: Path) -> None:
    """Make everything durable that lies on a folder's file system: one syncfs(2). Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _syncfs(descriptor)
    finally:
        os.close(descriptor)


def _create_part(path: Path) -> BinaryIO:
    """Create the locked file to write to; clear away one whose writer has died."""
    for _ in range(10):
        try:
            part = open(path, "xb", opener=part_opener)  # noqa: SIM115 - closed by _discard()
        except FileExistsError:
            clear_stale(path)
            continue
        fcntl.flock(part, fcntl.LOCK_EX)
        if still_there(path, part):
            share(part)
            return part
        part.close()
    raise BeingWritten(errno.EBUSY, "another process is writing this file", str(path))


def share(file: IO[bytes]) -> None:
    """Let those read a new file whom its folder is shared with."""
    if readers := _shared(Path(file.name).parent, stat.S_IRGRP):
        os.fchmod(file.fileno(), FILE_MODE | readers)


def _shared(folder: Path, bits: int) -> int:
    """Which of a folder's group bits count for what is made in it: those of a set-group-ID folder."""
    mode = folder.stat().st_mode
    return mode & bits if mode & stat.S_ISGID else 0


def part_opener(path: str, flags: int) -> int:
    """Open a file for nobody but its owner, and never what a symbolic link points to."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)


def clear_stale(path: Path) -> None:
    """Remove a file whose writer has died. Raises BeingWritten."""
    try:
        left = open(path, "r+b", opener=part_opener)  # noqa: SIM115
    except FileNotFoundError:
        return
    with left:
        try:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BeingWritten(errno.EBUSY, "another process is writing this file", str(path)) from None
        if still_there(path, left):
            path.unlink(missing_ok=True)


def still_there(path: Path, file: IO[bytes]) -> bool:
    """Whether the name still belongs to the open file: between opening and locking another process may have cleared
    it away.
    """
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _rename_noreplace(source: Path, target: Path) -> None:
    """Give a finished file its name. Raises FileExistsError rather than replace another."""
    if _renameat2_noreplace(source, target):
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS_HERE:
            raise
        # No hard links here (exFAT, some network mounts): hold the name with an empty file and rename over that.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        os.rename(source, target)


def _renameat2_noreplace(source: Path, target: Path) -> bool:
    """Rename by renameat2(2), which needs no hard links. False where the system or the file system lacks it."""
    import ctypes

    libc = _libc()
    if not hasattr(libc, "renameat2"):
        return False
    here, no_replace = -100, 1  # AT_FDCWD, RENAME_NOREPLACE
    if libc.renameat2(here, os.fsencode(source), here, os.fsencode(target), no_replace) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.EEXIST:
        raise FileExistsError(number, os.strerror(number), str(target))
    return False


def _same_content(first: BinaryIO, second: BinaryIO) -> bool:
    if os.fstat(first.fileno()).st_size != os.fstat(second.fileno()).st_size:
        return False
    while True:
        block = first.read(_COMPARE_BLOCK)
        if block != second.read(_COMPARE_BLOCK):
            return False
        if not block:
            return True
