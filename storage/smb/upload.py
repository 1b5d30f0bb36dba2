"""A file on its way into a share, under a temporary name.

A small one goes in two messages: open and write; rename and flush. A long one goes in pieces, several of them under
way at a time.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from smbprotocol.file_info import FileEndOfFileInformation
from smbprotocol.open import CreateDisposition, CreateOptions, FilePipePrinterAccessMask, Open, ShareAccess

from ..targets import NameTaken, TargetError
from . import errors
from .errors import explained
from .share import CHUNK, DELETE, READ, WINDOW, WRITE, Answer, Ask, Share, opening, removing, renaming, room, setting

_STEP = 1 << 20
"""What a file that was broken off is cut to. What is kept is read back in the end, like all the rest."""
_FLUSH = 64 << 20
"""Bytes after which a long file is flushed: a flush of very much at the end could take longer than a call may."""
_ACCESS = READ | WRITE | DELETE | FilePipePrinterAccessMask.SYNCHRONIZE


class SmbUpload:
    """See targets.Upload. At the end `finish` or `break_off` has to be called.

    `make_folder` is called when the folder of `part` is not there. With `goes_on` what an earlier attempt has left of
    `part` is used, and stays for the next one.
    """

    def __init__(
        self, share: Share, path: str, part: str, size: int, make_folder: Callable[[], None], goes_on: bool
    ) -> None:
        self.kept = 0
        self._share, self._path, self._part, self._size = share, path, part, size
        self._make_folder, self._goes_on = make_folder, goes_on
        self._line = share.line()
        self._chunk, self._depth = self._line.pieces(self._line.max_write_size, CHUNK, WINDOW)
        self._file: Open | None = None
        self._held = bytearray()  # what a small file has so far
        self._under_way: deque[tuple[Ask, int]] = deque()
        self._sent = 0
        self._flushed = True
        if goes_on or size > self._chunk:
            self._begin()

    def write(self, block: bytes) -> None:
        """Add bytes."""
        if self._file is None:
            self._held += block
            if len(self._held) <= self._chunk:
                return
            block, self._held = bytes(self._held), bytearray()
            self._begin()
        for start in range(0, len(block), self._chunk):
            while len(self._under_way) >= self._depth:
                self._settle()
            piece = block[start : start + self._chunk]
            write = self._opened.write(piece, self._sent, send=False)
            self._under_way += [(sent, len(piece)) for sent in self._send(write)]
            before, self._sent, self._flushed = self._sent, self._sent + len(piece), False
            if before // _FLUSH != self._sent // _FLUSH:
                self._under_way += [(sent, 0) for sent in self._send(self._opened.flush(send=False))]

    def read_back(self) -> Iterator[bytes]:
        """Make durable what was written, and yield it as the server has it."""
        if self._file is None:
            yield self._put_small(read=True)
            return
        self._make_durable()
        yield from self._share.blocks(self._part, self._line, self._opened, self._sent)

    def discard(self) -> None:
        """Remove what is there."""
        self._goes_on = False
        if self._file is None or not self._share.holds(self._line):
            self._share.remove(self._part)
            return
        removed, _ = self._call(removing(self._opened), self._opened.close(send=False))
        self._file = None
        self._share.expect(removed, self._part)

    def finish(self) -> None:
        """Make it durable and give it its name. Raises NameTaken, with nothing left; TargetError."""
        if self._file is None:
            self._put_small()
        self._make_durable()
        named, flushed = self._call(renaming(self._opened, self._path), self._opened.flush(send=False))
        if named.status == errors.NAME_COLLISION:
            self._compare()
            return
        self._share.expect(named, self._path)
        self._share.expect(flushed, self._path)
        self._share.let_go(self._path, self._line, self._opened.close(send=False))
        self._file = None

    def break_off(self) -> None:
        """Leave nothing, or what the next attempt can go on from. Raises nothing."""
        if self._file is None or not self._share.holds(self._line):
            return
        with suppress(TargetError):
            while self._under_way:
                self._share.answer(self._part, self._under_way.popleft()[0])
        asks = [] if self._goes_on else [removing(self._opened)]
        self._share.let_go(self._part, self._line, *asks, self._opened.close(send=False))
        self._file = None

    @property
    def _opened(self) -> Open:
        assert self._file is not None
        return self._file

    def _begin(self) -> None:
        """Open the temporary file. Raises TargetError where there is no room for the whole, with nothing left."""
        how = CreateDisposition.FILE_OPEN_IF if self._goes_on else CreateDisposition.FILE_OVERWRITE_IF
        (told,) = self._open(how, lambda file: [room(file)])
        try:
            there = self._opened.end_of_file if self._goes_on else 0
            if there > self._size:
                info = FileEndOfFileInformation()
                info["end_of_file"] = there = 0
                self._share.expect(self._call(setting(self._opened, info))[0], self._part)
            if not told.status and told.value < self._size - there:  # not every server tells
                raise self._full()
            self.kept = self._sent = there // _STEP * _STEP
        except BaseException:
            self.break_off()
            raise

    def _put_small(self, read: bool = False) -> bytes:
        """Open and write a small file, in one message, and durably where the dialect allows; return what the server
        has then, if that is to be read.
        """
        data, self._held = bytes(self._held), bytearray()
        through = self._line.writes_through

        def asks(file: Open) -> list[Ask]:
            writes = [file.write(data, 0, write_through=through, send=False)] if data else []
            return [*writes, *([file.read(0, len(data) + 1, send=False)] if read else [])]

        answers = self._open(CreateDisposition.FILE_OVERWRITE_IF, asks)
        self._sent, self._flushed = len(data), through
        if data:
            self._check_written(answers[0], len(data))
        if not read or answers[-1].status == errors.END_OF_FILE:
            return b""
        content: bytes = self._share.expect(answers[-1], self._part)
        return content

    def _open(self, how: int, asks: Callable[[Open], list[Ask]]) -> list[Answer]:
        """Open the temporary file, and make its folder if need be; return the answers to what is asked with that."""
        for attempt in range(2):
            options = CreateOptions.FILE_NON_DIRECTORY_FILE
            file, create = opening(self._line, self._part, _ACCESS, how, options, ShareAccess.FILE_SHARE_READ)
            first, *rest = self._call(create, *asks(file))
            if first.status != errors.PATH_NOT_FOUND or attempt:
                break
            self._make_folder()
        self._share.expect(first, self._part)
        self._file = file
        return rest

    def _settle(self) -> None:
        """Wait for the oldest answer."""
        sent, size = self._under_way.popleft()
        answer = self._share.answer(self._part, sent)
        if size:
            self._check_written(answer, size)
        else:
            self._share.expect(answer, self._part)

    def _check_written(self, answer: Answer, size: int) -> None:
        if answer.status in errors.FULL or (not answer.status and answer.value != size):
            raise self._full(answer.status)
        self._share.expect(answer, self._part)

    def _full(self, status: int = 0) -> TargetError:
        """Return the error of a full disk. Nothing stays: others may need less room."""
        self._goes_on = False
        return explained(status or errors.DISK_FULL, self._share.where(self._path))

    def _make_durable(self) -> None:
        while self._under_way:
            self._settle()
        if not self._flushed:
            self._share.expect(self._call(self._opened.flush(send=False))[0], self._part)
            self._flushed = True

    def _compare(self) -> None:
        """Somebody has given the name to a file. That is as good as ours if it is the same. Raises NameTaken."""
        ours = _digest(self._share.blocks(self._part, self._line, self._opened, self._sent))
        same = ours == _digest(self._share.read(self._path))
        self._goes_on = False
        self.break_off()
        if not same:
            raise NameTaken(f"{self._share.where(self._path)} has other content")

    def _send(self, ask: Ask) -> list[Ask]:
        return self._share.send(self._part, self._line, ask)

    def _call(self, *asks: Ask) -> list[Answer]:
        return self._share.call(self._part, self._line, *asks)


def _digest(blocks: Iterator[bytes]) -> bytes:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.digest()
