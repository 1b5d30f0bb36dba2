"""A folder as a target: another disk, or what the system has mounted there."""

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from .atomic import AtomicFiles, BeingWritten, DifferentFileExists, make_folder
from .targets import ForGood, NameTaken, WillPass, part_name
from .unfinished import UnfinishedFile, parts_of

MARK = ".tapdeck-target"
"""A file in a folder that recordings have been delivered to. Without it an empty mount point looks like the disk."""

_MARK_TEXT = b"""Tapdeck copies recordings to this folder, and knows by this file that the right disk is mounted here.
To use another disk in its place, put a file of this name on it; it may be empty.
"""
_BLOCK = 1 << 20
_SYNC_EVERY = 32 << 20
"""Bytes after which what was written goes to the disk: one fsync of a long file would look like a stall."""
_TURNS, _TURN_S = 100, 0.05
_FOR_GOOD = (
    errno.ENAMETOOLONG,
    errno.EILSEQ,
    errno.EINVAL,
    errno.EFBIG,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
)
_ADVICE = {
    errno.EACCES: "give the user of tapdeck deliver the right to write there",
    errno.EPERM: "give the user of tapdeck deliver the right to write there",
    errno.EROFS: "the disk is read-only: look at the system's log for why, and mount it again for writing",
    errno.ENOSPC: "make room there, or use a larger disk",
    errno.EDQUOT: "make room there, or raise the quota",
    errno.EIO: "the disk or its connection fails: look at the system's log",
    errno.EFBIG: "the file system there takes no files that large; exFAT, ext4 or NTFS do",
}


class FolderTarget:
    """Keeps copies below `folder`, which has to exist. `apart` is the folder of the recordings themselves."""

    def __init__(self, folder: Path, apart: Path, name: str = "") -> None:
        self._folder = folder
        self._apart = apart
        self._name = name or str(folder)

    @property
    def name(self) -> str:
        """The folder's path, unless it was given another name."""
        return self._name

    def check(self, known: bool) -> None:
        """Write and read back a few bytes; mark the folder at the first time. Raises TargetError."""
        with self._explained():
            self._find_folder(known)
            self._probe()

    def size(self, path: PurePosixPath) -> int | None:
        """Return a file's size. An empty one is a name without its file (see atomic.py): None. Raises TargetError."""
        place = self._folder / path
        with self._explained():
            try:
                found = place.stat(follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                return None
            if not stat.S_ISREG(found.st_mode):
                raise NameTaken(f"{place} is no file")
            self._tidy(place, found)
            return found.st_size or None

    def read(self, path: PurePosixPath) -> Iterator[bytes]:
        """Yield a file's content from the disk. Raises TargetError."""
        with self._explained():
            yield from _from_disk(self._folder / path)

    @contextmanager
    def upload(self, path: PurePosixPath, size: int, digest: str = "") -> Iterator["_FolderUpload"]:
        """Take in a file. Raises TargetError, with nothing written where there is no room for it."""
        place = self._folder / path
        with self._explained():
            self._find_mark()
            self._find_room(size - _kept(place, digest))
            folder = make_folder(place.parent)
            try:
                if digest:
                    with UnfinishedFile(folder, place.name, digest, size) as long:
                        yield _FolderUpload(long.part, long.kept, long.discard)
                else:
                    with AtomicFiles(folder) as files:
                        yield _FolderUpload(files.open(place.name))
            except DifferentFileExists:
                raise NameTaken(f"{place} has other content") from None

    @contextmanager
    def trial(self, folder: str, known: bool) -> Iterator["FolderTarget"]:
        """Lend a target in a folder below this one. Raises TargetError."""
        place = self._folder / folder
        with self._explained():
            self._find_folder(known)
        try:
            with self._explained():
                _remove(place)
                place.mkdir(mode=0o700)
            yield FolderTarget(place, self._apart, self._name)
        finally:
            with self._explained():
                _remove(place)

    def about(self) -> dict[str, str]:
        """A folder has no connection to speak of."""
        return {}

    def close(self) -> None:
        """A folder has no connection to drop."""

    def _find_folder(self, known: bool) -> None:
        """Raises TargetError if the folder is not there, is no place for copies, or is not the one that is known."""
        if not self._folder.is_dir():
            raise WillPass(f"{self._folder} is not there: is the disk mounted? If it is new, make the folder")
        if _within(self._folder, self._apart) or _within(self._apart, self._folder):
            raise ForGood(f"{self._folder} and the recordings in {self._apart} lie in one another: no copy at all")
        if known:
            self._find_mark()

    def _find_mark(self) -> None:
        """Raises WillPass if the folder is not the one that it was: a mount point without its disk."""
        if not (self._folder / MARK).exists():
            raise WillPass(
                f"{self._folder} is not what it was: {MARK} is missing. Is the disk mounted? "
                f"If it is a new one, run: touch {self._folder / MARK}"
            )

    def _find_room(self, size: int) -> None:
        """Raises OSError if there is no room for so many bytes."""
        room = os.statvfs(self._folder)
        if room.f_bavail * room.f_frsize < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))

    def _probe(self) -> None:
        """Write the mark, read it back, and keep it unless there is one. What a kill leaves goes with the next one."""
        for _ in range(_TURNS):
            try:
                return self._write_mark()
            except BeingWritten:
                time.sleep(_TURN_S)  # another courier of this target is at it
        raise WillPass(f"{self._folder / part_name(MARK)} has been written to by another process for long: see which")

    def _write_mark(self) -> None:
        try:
            with AtomicFiles(self._folder) as files:
                upload = _FolderUpload(files.open(MARK))
                upload.write(_MARK_TEXT)
                if b"".join(upload.read_back()) != _MARK_TEXT:
                    raise WillPass(f"{self._folder} does not return what was written: the disk fails")
        except DifferentFileExists:
            pass  # somebody's own mark is a mark

    @staticmethod
    def _tidy(place: Path, found: os.stat_result) -> None:
        """Remove the second name of a file whose writer was killed between giving it the first and taking this one."""
        if found.st_nlink > 1:
            for part in (place.with_name(part_name(place.name)), *parts_of(place)):
                if os.path.lexists(part) and os.path.samestat(found, part.lstat()):
                    part.unlink()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the file system's errors into the target's."""
        try:
            yield
        except OSError as error:
            text = f"{error.filename or self._folder}: {error.strerror or error}"
            if error.errno in _ADVICE:
                text += f"; {_ADVICE[error.errno]}"
            raise (ForGood if error.errno in _FOR_GOOD else WillPass)(text) from error


class _FolderUpload:
    """See targets.Upload."""

    def __init__(self, part: BinaryIO, kept: int = 0, discard: Callable[[], None] = lambda: None) -> None:
        self._part = part
        self._unsynced = 0
        self.kept = kept
        self.discard = discard

    def write(self, block: bytes) -> None:
        self._part.write(block)
        self._unsynced += len(block)
        if self._unsynced >= _SYNC_EVERY:
            self._part.flush()
            os.fdatasync(self._part.fileno())
            self._unsynced = 0

    def read_back(self) -> Iterator[bytes]:
        self._part.flush()
        os.fsync(self._part.fileno())
        yield from _from_disk(Path(self._part.name))


def _from_disk(path: Path) -> Iterator[bytes]:
    """Yield a file's content after the kernel has dropped its own copy of it, where it can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(descriptor, "rb", buffering=0) as file:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(_BLOCK):
            yield block


def _kept(place: Path, digest: str) -> int:
    """Return the bytes that an attempt has left that was broken off."""
    part = place.with_name(part_name(place.name, digest))
    return part.stat().st_size if digest and part.exists() else 0


def _remove(folder: Path) -> None:
    """Remove a folder with all that is in it, if there is one."""
    if os.path.lexists(folder):
        shutil.rmtree(folder)


def _within(inner: Path, outer: Path) -> bool:
    """Whether a folder is another one or lies in it, by whatever path."""
    if not outer.exists():
        return False
    there = outer.stat()
    inner = inner.resolve()
    return any(os.path.samestat(there, above.stat()) for above in (inner, *inner.parents) if above.exists())
