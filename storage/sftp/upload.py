"""A file on its way to the server, under a temporary name.

A small one is kept here until all of it has come, and takes three round trips: open; write, fsync and read back; close,
rename and fsync of the folder. A long one goes in pieces, many of them under way at a time.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import asyncssh
from asyncssh import SFTPError

from ..targets import NameTaken, TargetError, part_name
from .probe import give_name
from .remote import Blocks, Full, Remote, is_file

SYNC_EVERY = 32 << 20
"""Bytes after which what was written goes to the disk there: one fsync of a long file would look like a stall."""

_TRIES = 3


class SftpUpload:
    """See targets.Upload. At the end `finish` or `abandon` has to be called."""

    def __init__(self, remote: Remote, path: PurePosixPath, size: int, digest: str) -> None:
        self.kept = 0
        self._remote, self._session, self._path, self._size = remote, remote.session, path, size
        self._part = path.with_name(part_name(path.name, digest))
        self._stays = bool(digest)
        self._file: asyncssh.SFTPClientFile | None = None
        self._held = bytearray()  # what a small file has so far
        self._under_way: deque[asyncio.Task[Any]] = deque()
        self._sent = self._unsynced = 0
        if digest or size > self._session.piece:
            self._session.run(self._begin())

    def write(self, block: bytes) -> None:  # noqa: D102 - see targets.Upload
        if self._file is not None:
            self._session.run(self._send(block))
            return
        self._held += block
        if len(self._held) > self._session.piece:
            self._session.run(self._send_held())

    def read_back(self) -> Iterator[bytes]:  # noqa: D102
        if self._file is None:
            yield from self._session.run(_all(self._content()))
        else:
            yield from self._session.iterate(self._content())

    def discard(self) -> None:  # noqa: D102
        self._stays = False

    def finish(self) -> None:
        """Make it durable and name it. Raises NameTaken, TargetError."""
        self._session.run(self._finish())

    def abandon(self, error: BaseException) -> None:
        """Leave nothing, or what the next attempt goes on from. Raises nothing."""
        if isinstance(error, (Full, NameTaken)):
            self._stays = False
        if self._file is not None and not self._session.broken:
            with suppress(TargetError):
                self._session.run(self._leave())

    # In the loop.

    @property
    def _opened(self) -> asyncssh.SFTPClientFile:
        assert self._file is not None
        return self._file

    async def _begin(self) -> None:
        """Open the file that is written to. Raises Full, before anything is sent; TargetError."""
        there = 0
        if self._stays:
            there = await self._clear()
            room = await self._remote.room()
            if room and room[0] < self._size - there:
                await self._remote.remove(self._part)
                raise await self._remote.trouble(self._path, asyncssh.SFTPFailure(""), self._size - there)
        await self._open("rb+" if there else "xb+")
        self.kept = self._sent = there  # holes in it, of what arrived in another order, are found when it is read back

    async def _clear(self) -> int:
        """Remove what other attempts have left; return how much there is of ours."""
        remote = self._remote
        found = await remote.look(self._part)
        there = (found.size or 0) if found else 0
        # A part may be another name of the whole file: writing to it would change that.
        if found and (there > self._size or not is_file(found) or await remote.look(self._path)):
            there = 0
        await remote.remove(*(part for part in await remote.parts(self._path) if part != self._part or not there))
        return there

    async def _open(self, mode: str) -> None:
        """Open it in its folder, which is made where it is missing. Raises TargetError."""
        remote, folder = self._remote, self._path.parent
        if folder == PurePosixPath("."):
            await remote.find_mark()
        for _ in range(_TRIES):
            opened = await remote.open_in_folder(self._part, mode)
            if not isinstance(opened, SFTPError):
                self._file = opened
                return
            if isinstance(opened, asyncssh.SFTPNoSuchFile):
                await remote.find_mark()  # a mount point without its disk gets no folder
                await remote.make_folder(folder)
            elif isinstance(opened, asyncssh.SFTPFailure):
                (removed,) = await remote.ask(remote.client.remove(remote.path(self._part)))
                if isinstance(removed, SFTPError):
                    break
            else:
                break
        raise await remote.trouble(self._path, opened, self._size)

    async def _send_held(self) -> None:
        """Open it and write what has come so far."""
        await self._begin()
        data, self._held = bytes(self._held), bytearray()
        await self._send(data)

    async def _send(self, block: bytes) -> None:
        piece = self._session.piece
        for start in range(0, len(block), piece):
            data = block[start : start + piece]
            self._start(self._opened.write(data, self._sent))
            self._sent += len(data)
            self._unsynced += len(data)
            if self._unsynced >= SYNC_EVERY:
                self._sync()
            await self._settle(self._remote.depth)

    def _sync(self) -> None:
        if self._remote.fsync and self._unsynced:
            self._start(self._opened.fsync())
        self._unsynced = 0

    def _start(self, request: Any) -> None:
        self._under_way.append(asyncio.create_task(request))

    async def _settle(self, most: int = 0) -> None:
        """Wait until at most so many answers are missing. Raises TargetError."""
        while len(self._under_way) > most or (self._under_way and self._under_way[0].done()):
            (answer,) = await self._remote.ask(self._under_way.popleft())
            if isinstance(answer, SFTPError):
                raise await self._remote.trouble(self._path, answer, self._size - self.kept)

    async def _content(self) -> Blocks:
        """Make durable what was written, and yield it: all of it is asked for in one go."""
        if self._file is None:
            await self._send_held()
        self._sync()
        async for block in self._remote.content(self._part, self._opened, self._sent):
            await self._settle()
            yield block
        await self._settle()

    async def _finish(self) -> None:
        if self._file is None:
            await self._send_held()
        self._sync()
        await self._settle()
        named, synced = await give_name(self._remote, self._part, self._path, self._file)
        if isinstance(named, SFTPError):
            await self._compare(named)
        if isinstance(synced, SFTPError):
            await self._remote.forget_folder()
            raise await self._remote.trouble(self._path.parent, synced)

    async def _compare(self, error: SFTPError) -> None:
        """The name belongs to a file, which is as good as ours if it is the same. Raises NameTaken, TargetError."""
        remote = self._remote
        found = await remote.look(self._path)
        if found is None:
            raise await remote.trouble(self._path, error)
        same = is_file(found) and found.size == self._sent
        if not same or await self._digest(self._part) != await self._digest(self._path):
            raise NameTaken(f"{remote.shown(self._path)} on the server has other content")
        await remote.remove(self._part)

    async def _digest(self, path: PurePosixPath) -> bytes:
        remote, digest = self._remote, hashlib.sha256()
        (file,) = await remote.need(path, remote.open(path, "rb"))
        try:
            async for block in remote.content(path, file, self._sent):
                digest.update(block)
        finally:
            await remote.close(file)
        return digest.digest()

    async def _leave(self) -> None:
        await self._remote.ask(*self._under_way)
        await self._remote.close(self._file)
        if not self._stays:
            await self._remote.remove(self._part)


async def _all(blocks: Blocks) -> list[bytes]:
    return [block async for block in blocks]
