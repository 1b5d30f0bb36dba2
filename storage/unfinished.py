"""A long file whose writing may be broken off and gone on with, and that has its name only when it is whole."""

import errno
import fcntl
import glob
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from .atomic import AtomicFiles, BeingWritten, DifferentFileExists, clear_stale, part_opener, share, still_there
from .targets import PART_DIGITS, part_name

_TURNS = 10


class UnfinishedFile(AtomicFiles):
    """One file: `with UnfinishedFile(folder, "a.wav", digest, size) as file: file.part.write(content[file.kept:])`.

    At the end of the block it gets its name, as AtomicFiles gives it. If the block raises, what is written stays under
    a name with `digest` in it, unless it was discarded, the name is taken, or the disk is full. Raises BeingWritten,
    DifferentFileExists, OSError.
    """

    def __init__(self, folder: Path, name: str, digest: str, size: int) -> None:
        super().__init__(folder)
        self._digest = digest
        self._stays = True
        for other in (folder / part_name(name), *parts_of(folder / name)):
            if other != self._part(name):
                clear_stale(other)
        self.part = _take(self._part(name))
        self._parts.append((name, self.part))
        self.kept = os.fstat(self.part.fileno()).st_size
        if self.kept > size:
            self.part.truncate(0)
            self.kept = 0
        self.part.seek(self.kept)

    def discard(self) -> None:
        """Leave nothing of it when the block ends."""
        self._stays = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._publish()
        except OSError as failed:
            error = failed
            raise
        finally:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if self._stays and error and not full and not isinstance(error, DifferentFileExists):
            with suppress(OSError):  # what does not reach the disk is sent again
                self.part.close()
        else:
            self._discard()

    def _part(self, name: str) -> Path:
        return self._folder / part_name(name, self._digest)


def parts_of(place: Path) -> list[Path]:
    """Return what broken-off attempts at a file have left."""
    return list(place.parent.glob(f".{glob.escape(place.name)}.{'?' * PART_DIGITS}.part"))


def _take(path: Path) -> BinaryIO:
    """Open the file to go on with, locked; make it if there is none. Raises BeingWritten, OSError."""
    for _ in range(_TURNS):
        with suppress(FileExistsError):
            open(path, "xb", opener=part_opener).close()
        try:
            part = open(path, "r+b", opener=part_opener)  # noqa: SIM115 - closed at the end of the block
        except FileNotFoundError:
            continue
        with suppress(BlockingIOError):
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if still_there(path, part):
                share(part)
                return part
        part.close()
    raise BeingWritten(errno.EBUSY, "another process is writing this file", str(path))
