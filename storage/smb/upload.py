"""A file on its way into a share, under a temporary name.

A small one goes in two messages: open and write; rename and flush. A long one goes in pieces, several of them under
way at a time, and what is behind it is made durable as it goes on, so that a later attempt can tell what it may keep.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from ..targets import NameTaken, TargetError
from . import errors, packets
from .errors import explained
from .share import CHUNK, WINDOW, Share
from .wire import Reply, Wire

_STEP = 4 << 20
"""Bytes after which a long file is flushed to the server's disk."""
_DOUBT = (2 * WINDOW + 2) * CHUNK
"""Bytes before the end of a broken-off file that may not have arrived, or not have been flushed.

A step is flushed as soon as the answers to all its writes are there, and at most WINDOW requests are ever under way. So
when a write is sent, the last answers are at most a window behind it, and the last finished flush at most another one
and a step; a step is what the file is cut to.
"""
_ORDERLY = 126_227_808_000_000_000
"""The time of last write, 2001-01-01, that says of a broken-off file that all of it has been flushed."""
_EPOCH, _TICKS = 116_444_736_000_000_000, 10_000_000
_ACCESS = (
    packets.READ_DATA
    | packets.WRITE_DATA
    | packets.READ_ATTRIBUTES
    | packets.WRITE_ATTRIBUTES
    | packets.DELETE
    | packets.SYNCHRONIZE
)


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
        self._wire: Wire = share.wire()
        self._handle = b""
        self._held = bytearray()  # what a small file has so far
        self._chunk = CHUNK
        self._under_way: deque[tuple[int, int]] = deque()
        self._sent = self._acked = 0
        self._flushed = True
        if goes_on or size > CHUNK:
            self._begin()

    def write(self, block: bytes) -> None:
        """Add bytes."""
        if not self._handle:
            self._held += block
            if len(self._held) <= self._wire.affords(CHUNK, self._wire.ends.max_write):
                return
            block, self._held = bytes(self._held), bytearray()
            self._begin()
        rest = memoryview(block)
        while rest:
            while len(self._under_way) >= WINDOW:
                self._settle()
            piece, rest = rest[: self._chunk], rest[self._chunk :]
            self._under_way.append((self._send(packets.write(self._sent, piece, self._handle)), len(piece)))
            self._sent += len(piece)
            self._flushed = False

    def read_back(self) -> Iterator[bytes]:
        """Make durable what was written, and yield it as the server has it."""
        if not self._handle:
            yield self._put_small(packets.read(0, len(self._held) + 1))
            return
        self._make_durable()
        yield from self._share.blocks(self._part, self._wire, self._handle, self._sent)

    def discard(self) -> None:
        """Remove what is there."""
        self._goes_on = False
        handle, self._handle = self._handle, b""
        if handle and not self._wire.broken:
            removed, _ = self._call(packets.remove(handle), packets.close(handle))
            self._share.expect(removed, self._part)
        else:
            self._share.remove(self._part)

    def finish(self) -> None:
        """Make it durable and give it its name. Raises NameTaken, with nothing left; TargetError."""
        if not self._handle:
            self._put_small()
        self._make_durable()
        handle = self._handle
        named, flushed = self._call(packets.rename(self._path, handle), packets.flush(handle))
        if named.status == errors.NAME_COLLISION:
            self._compare()
            return
        self._share.expect(named, self._path)
        self._share.expect(flushed, self._path)
        self._share.let_go(self._wire, packets.close(handle))
        self._handle = b""

    def break_off(self) -> None:
        """Leave nothing, or what the next attempt can go on from. Raises nothing."""
        if self._wire.broken or not self._handle:
            return
        if not self._goes_on:
            self._share.let_go(self._wire, packets.remove(self._handle), packets.close(self._handle))
            return
        with suppress(TargetError):
            self._make_durable()
            self._call(packets.set_written(_ORDERLY, self._handle))
        self._share.let_go(self._wire, packets.close(self._handle))

    def _begin(self) -> None:
        """Open the temporary file. Raises TargetError where there is no room for the whole."""
        file, room = self._open(packets.OPEN_OR_MAKE if self._goes_on else packets.EMPTY_OR_MAKE)
        if self._goes_on and file.size > self._size:
            self._share.let_go(self._wire, packets.close(file.handle))
            file, room = self._open(packets.EMPTY_OR_MAKE)
        self._handle = file.handle
        self._chunk = self._wire.affords(CHUNK, self._wire.ends.max_write)
        if room < self._size - file.size:
            raise explained(errors.DISK_FULL, self._share.where(self._path))
        if self._goes_on and file.size:
            self._go_on(file)

    def _open(self, disposition: int) -> tuple[packets.Opened, int]:
        """Return the file, and the room on the disk."""
        request = packets.create(self._part, _ACCESS, disposition, packets.FILE, packets.SHARE_READ)
        first, second = self._call(request, packets.room())
        if first.status == errors.PATH_NOT_FOUND:
            self._make_folder()
            first, second = self._call(request, packets.room())
        file = packets.opened(self._share.expect(first, self._part))
        room = self._size if second.status else packets.free(second.packet)  # not every server tells
        return file, room

    def _go_on(self, file: packets.Opened) -> None:
        """Find out how much there is to rely on."""
        self.kept = file.size if file.written == _ORDERLY else max(0, file.size - _DOUBT) // _STEP * _STEP
        now = _EPOCH + int(time.time() * _TICKS)
        self._share.expect(self._call(packets.set_written(now, self._handle))[0], self._part)
        self._sent = self._acked = self.kept

    def _put_small(self, *then: packets.Request) -> bytes:
        """Open and write a small file, durably, in one message, with another request after it. Return what that one
        has read.
        """
        data, self._held = bytes(self._held), bytearray()
        create = packets.create(self._part, _ACCESS, packets.EMPTY_OR_MAKE, packets.FILE, packets.SHARE_READ)
        writes = [packets.write(0, data, through=True)] if data else []
        replies = self._call(create, *writes, *then)
        if replies[0].status == errors.PATH_NOT_FOUND:
            self._make_folder()
            replies = self._call(create, *writes, *then)
        self._handle = packets.opened(self._share.expect(replies[0], self._part)).handle
        self._sent = self._acked = len(data)
        if writes:
            self._check_written(replies[1], len(data))
        if not then or replies[-1].status == errors.END_OF_FILE:
            return b""
        return bytes(packets.content(self._share.expect(replies[-1], self._part)))

    def _settle(self) -> None:
        """Wait for the oldest answer; flush what is complete."""
        number, size = self._under_way.popleft()
        reply = self._share.reply(self._part, number, self._wire)
        if not size:
            self._share.expect(reply, self._part)
            return
        self._check_written(reply, size)
        before, self._acked = self._acked, self._acked + size
        if self._goes_on and before // _STEP != self._acked // _STEP:
            self._under_way.append((self._send(packets.flush(self._handle)), 0))

    def _check_written(self, reply: Reply, size: int) -> None:
        if packets.count(self._share.expect(reply, self._part)) != size:
            raise explained(errors.DISK_FULL, self._share.where(self._part))

    def _make_durable(self) -> None:
        while self._under_way:
            self._settle()
        if not self._flushed:
            self._share.expect(self._call(packets.flush(self._handle))[0], self._part)
            self._flushed = True

    def _compare(self) -> None:
        """Somebody has given the name to a file. That is as good as ours if it is the same. Raises NameTaken."""
        ours = self._share.blocks(self._part, self._wire, self._handle, self._sent)
        theirs = self._share.read(self._path)
        same = _digest(ours) == _digest(theirs)
        self._goes_on = False
        self.break_off()
        self._handle = b""
        if not same:
            raise NameTaken(f"{self._share.where(self._path)} has other content")

    def _call(self, *requests: packets.Request) -> list[Reply]:
        return self._share.call(self._part, *requests, wire=self._wire)

    def _send(self, request: packets.Request) -> int:
        return self._share.send(self._part, self._wire, request)[0]


def _digest(blocks: Iterator[bytes]) -> bytes:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.digest()
