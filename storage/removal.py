"""Removing recordings from this machine's disk: written to the event log first, and able to begin on a disk without a
byte left.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from . import state
from .atomic import sync_folder
from .queue import Queue, QueueError
from .space import Disk, Local

BALLAST_PIECES, BALLAST_BYTES = 8, 256 << 10
DISK_LOW = "disk low"


class Ballast:
    """Some room that is held by files without content, to be given up piece by piece when a full disk would not even
    take the words that a recording is removed.
    """

    def __init__(self, folder: Path) -> None:
        self._pieces = [folder / f".ballast.{number}" for number in range(BALLAST_PIECES)]

    def fill(self) -> None:
        """Make the pieces that are missing. A disk that is full takes none, and that is no error."""
        for piece in self._pieces:
            if not piece.exists():
                try:
                    descriptor = os.open(piece, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                except OSError:
                    return
                try:
                    os.posix_fallocate(descriptor, 0, BALLAST_BYTES)
                except OSError:
                    piece.unlink()
                    return
                finally:
                    os.close(descriptor)

    def give(self) -> bool:
        """Give up a piece. False if there is none left."""
        piece = next((piece for piece in self._pieces if piece.exists()), None)
        if piece is None:
            return False
        piece.unlink()
        return True


def disk_of(folder: Path) -> Disk:
    """Return the file system that a folder lies on. Raises OSError."""
    found = os.statvfs(folder)
    return Disk(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def remove(
    chosen: Sequence[Local],
    root: Path,
    folder: Path,
    queue: Queue,
    ballast: Ballast,
    now: float,
    reason: str = DISK_LOW,
) -> list[Local]:
    """Remove these recordings below `root`, and return those that went. `folder` is where the event log lies.

    In this order, each step durable before the next: event log, queue, files, queue. Where the first two cannot be
    written, nothing goes. Raises QueueError, OSError.
    """
    written = _announced(chosen, folder, ballast, reason)
    if not written:
        return []
    numbers = [local.number for local in written]
    while True:
        try:
            queue.going(numbers, now)
            break
        except QueueError:
            if not ballast.give():
                raise
    finish(written, root, queue, now)
    return written


def finish(chosen: Sequence[Local], root: Path, queue: Queue, now: float) -> None:
    """Remove the files of recordings whose removal has been announced. Raises QueueError, OSError."""
    folders = set()
    for local in chosen:
        for file in reversed(local.parcel.files):  # what vouches for the others goes first
            path = root / file
            path.unlink(missing_ok=True)
            folders.add(path.parent)
    for folder in folders:
        if folder.is_dir():
            sync_folder(folder)
    queue.gone([local.number for local in chosen], now)


def _announced(chosen: Sequence[Local], folder: Path, ballast: Ballast, reason: str) -> list[Local]:
    """Write to the event log what is about to go, and return that of which it is certain to stand there."""
    written: list[Local] = []
    for local in chosen:
        facts = {
            "id": local.parcel.id,
            "files": local.parcel.files,
            "bytes": local.parcel.bytes,
            "confirmed_by": sorted(local.confirmed),
            "reason": reason,
        }
        while not state.append(folder, "recording removed", **facts):
            if not ballast.give():
                return written if written and _synced(folder) else []
        written.append(local)
    return written if _synced(folder) else []


def _synced(folder: Path) -> bool:
    """Make today's event log durable; yesterday's too, if midnight has come in between."""
    for path in sorted((folder / "log").glob("*.jsonl"))[-2:]:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError:
            return False
        finally:
            os.close(descriptor)
    sync_folder(folder / "log")
    return True
