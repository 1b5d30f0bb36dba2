"""Payloads fetched back from where they were captured, many at a time, in the order in which they lie there."""

import mmap
import os
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ..records import Bytes, Ints
from ..rows import ROW, Rows

FILE_BITS = 44
"""A position is file number << 44 | offset: 16 TiB a file."""
_OFFSET = (1 << FILE_BITS) - 1
WINDOW = 16 << 20
"""Bytes of a file that are mapped into memory at one time while payloads are copied."""
_LOT = 1 << 20


class Payloads:
    """The files that payload positions point into. File 0 is a scratch file for bytes put together in memory."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._files: list[BinaryIO | None] = [None]
        self._maps: dict[int, tuple[mmap.mmap, Bytes]] = {}
        self._lent = 0

    def add(self, file: BinaryIO) -> int:
        """Add a file; return the position of its first byte."""
        self._files.append(file)
        return (len(self._files) - 1) << FILE_BITS

    def offset(self, position: int, path: Path) -> int | None:
        """Return where in a file a position lies, None if it is of another one."""
        number = position >> FILE_BITS
        file = self._files[number] if number < len(self._files) else None
        return position & _OFFSET if file is not None and getattr(file, "name", None) == str(path) else None

    def spool(self) -> tuple[BinaryIO, int]:
        """Add a nameless file to copy an input to that can be read only once; it is gone when the process is."""
        file = nameless_file(self._scratch)
        return file, self.add(file)

    def stash(self, data: bytes) -> int:
        """Keep bytes that lie nowhere in one piece; return their position."""
        file = self._files[0] or nameless_file(self._scratch)
        self._files[0] = file
        place = file.seek(0, os.SEEK_END)
        file.write(data)
        return place

    def lend(self, data: bytes | memoryview) -> int:
        """Keep bytes that were made of others until `give_back`; return their position."""
        if not self._lent:
            self._lent = self.add(nameless_file(self._scratch)) >> FILE_BITS
        file = self._files[self._lent]
        assert file is not None
        place = file.seek(0, os.SEEK_END)
        file.write(data)
        return self._lent << FILE_BITS | place

    def give_back(self) -> None:
        """Forget all that was lent: nobody will fetch it any more."""
        file = self._files[self._lent]
        if self._lent and file is not None and file.seek(0, os.SEEK_END):
            self._maps.pop(self._lent, None)
            file.truncate(0)

    def copy(self, position: Ints, size: Ints, target: Bytes, place: Ints) -> None:
        """Copy payloads (positions, sizes in bytes) to their places (byte offsets, int64) in `target`."""
        if len(position) == 0:
            return
        order = _roughly_in_order(position)
        position, size, place = position[order], size[order], place[order]
        windows = position // WINDOW  # files lie on multiples of it
        edges = [0, *(np.nonzero(np.diff(windows))[0] + 1).tolist(), len(position)]
        for start, stop in pairwise(edges):
            self._copy_window(position[start:stop], size[start:stop], target, place[start:stop])

    def _copy_window(self, position: Ints, size: Ints, target: Bytes, place: Ints) -> None:
        number = int(position[0]) >> FILE_BITS
        offset = position & _OFFSET
        first, last = int(offset.min()), int(offset.max() + size.max())
        memory, data = self._map(number, last)
        usual = int(size[0])
        for length in [usual] if (size == usual).all() else np.unique(size).tolist():
            if length == 0:
                continue
            rows = slice(None) if length == usual and (size == usual).all() else np.nonzero(size == length)[0]
            there = np.ndarray((len(data) - length + 1,), dtype=f"V{length}", buffer=data, strides=(1,))
            here = np.ndarray((len(target) - length + 1,), dtype=f"V{length}", buffer=target, strides=(1,))
            here[place[rows]] = there[offset[rows]]
        begin = first & ~(mmap.PAGESIZE - 1)
        memory.madvise(mmap.MADV_DONTNEED, begin, min(len(memory), last) - begin)

    def _map(self, number: int, end: int) -> tuple[mmap.mmap, Bytes]:
        known = self._maps.get(number)
        if known is not None and len(known[1]) >= end:
            return known
        file = self._files[number]
        assert file is not None
        if file.writable():
            file.flush()
        size = os.fstat(file.fileno()).st_size
        memory = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
        self._maps[number] = memory, np.frombuffer(memory, dtype=np.uint8)
        return self._maps[number]

    def holds(self, position: Ints, size: Ints) -> npt.NDArray[np.bool_]:
        """Tell of which payloads (positions, sizes in bytes) the files hold every byte."""
        number, ends = position >> FILE_BITS, np.zeros(len(self._files), dtype=np.int64)
        for one in np.unique(number).tolist():
            file = self._files[one]
            assert file is not None
            if file.writable():
                file.flush()
            ends[one] = os.fstat(file.fileno()).st_size
        there: npt.NDArray[np.bool_] = (position & _OFFSET) + size <= ends[number]
        return there

    def fetch(self, position: Ints, size: Ints) -> list[bytes]:
        """Return a few payloads as bytes objects."""
        place = np.concatenate(([0], np.cumsum(size)))
        target = np.empty(int(place[-1]), dtype=np.uint8)
        self.copy(position, size, target, place[:-1])
        whole = target.tobytes()
        return [whole[start:stop] for start, stop in zip(place[:-1].tolist(), place[1:].tolist(), strict=True)]

    def close(self) -> None:
        """Let go of all files; nothing can be fetched any more."""
        self._maps.clear()
        for file in self._files:
            if file is not None:
                file.close()
        self._files, self._lent = [None], 0


def _roughly_in_order(position: Ints) -> Ints:
    """Return an order of positions in which those of one window come together, and neighbours nearly so.

    That is all that is wanted, and a key of 16 bits sorts ten times as fast as the positions.
    """
    low = int(position.min())
    shift = max((int(position.max()) - low).bit_length() - 15, 0)
    if 1 << shift > WINDOW:
        return np.argsort(position, kind="stable")
    return np.argsort(((position >> shift) - (low >> shift)).astype(np.uint16), kind="stable")


class RowParking:
    """Parks index rows in a nameless file (`sniffer.rows.Parking`), in lots of some MiB that are used again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._tickets: dict[int, tuple[int, int]] = {}
        self._free: list[tuple[int, int]] = []
        self._end = 0
        self._next = 0

    def park(self, rows: Rows) -> int:
        """Store rows; return a ticket."""
        if self._file is None:
            self._file = nameless_file(self._folder)
        place, size = self._lot(-(-rows.nbytes // _LOT) * _LOT)
        self._file.seek(place)
        self._file.write(rows.view(np.uint8).data)
        self._file.flush()
        self._next += 1
        self._tickets[self._next] = place, size
        return self._next

    def _lot(self, size: int) -> tuple[int, int]:
        """Return the place and size of a free lot of at least so many bytes."""
        for index, (_, room) in enumerate(self._free):
            if room >= size:
                return self._free.pop(index)
        place, self._end = self._end, self._end + size
        return place, size

    def fetch(self, ticket: int, start: int, stop: int) -> Rows:
        """Return rows start to stop of a stored segment."""
        assert self._file is not None
        place = self._tickets[ticket][0] + start * ROW.itemsize
        data = os.pread(self._file.fileno(), (stop - start) * ROW.itemsize, place)
        return np.frombuffer(data, dtype=ROW)

    def drop(self, ticket: int) -> None:
        """Forget a stored segment; the file is emptied when nothing is left in it."""
        self._free.append(self._tickets.pop(ticket))
        if not self._tickets and self._file is not None:
            self._free, self._end = [], 0
            self._file.truncate(0)


def nameless_file(folder: Path | None) -> BinaryIO:
    """Return a file without a name: nothing is left of it when the process ends, however that happens."""
    return tempfile.TemporaryFile(dir=folder)
