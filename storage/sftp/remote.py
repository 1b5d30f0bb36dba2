"""The folder on the server: paths, folders below it, and what an error there means. Its methods run in the loop."""

import asyncio
import re
import stat
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from pathlib import PurePosixPath
from typing import Any, cast

import asyncssh
from asyncssh import SFTPAttrs, SFTPError

from ..safe_text import for_line
from ..targets import PART_DIGITS, ForGood, NameTaken, TargetError, WillPass, part_name
from . import MARK
from .session import Session

WINDOW = 4 << 20
"""Bytes that may be under way: enough for 1 Gbit/s at 30 ms."""

_MAY_BE_LONG = 1 << 20
"""Size from which on a file may have been gone on with, under a temporary name that only a listing tells."""
_NAMES = 1000
_READ_ONLY = 1
_LITTLE_ROOM = 1 << 16

Blocks = AsyncGenerator[bytes, None]


class Full(WillPass):
    """There is no room."""


class Remote:
    """One place, over one session. What its server can do is `tried` by probe.py, and known after it."""

    def __init__(self, session: Session, root: str, user: str) -> None:
        self.session, self.client, self.ask = session, session.line.client, session.ask
        self.depth = max(1, WINDOW // session.piece)
        self.tried = self.replaces = self.fsync = self.folder_sync = False
        self._root, self._user = root or ".", user
        self._shared = 0
        self._last: tuple[PurePosixPath, asyncssh.SFTPClientFile] | None = None

    def about(self) -> dict[str, str]:
        """Return what was found out by trying, for people."""
        durable = "yes" if self.folder_sync else "files, not folders"
        if not self.fsync:
            durable = "no: the server has no fsync@openssh.com, and a power cut there may cost what was just delivered"
        refuses = "rename, which this server refuses where the name exists"
        return {"durable": durable, "naming": "claims the name, then renames" if self.replaces else refuses}

    def path(self, path: PurePosixPath | str = "") -> bytes:
        """Return a path as the server takes it. Raises ForGood."""
        text = str(PurePosixPath(self._root, path))
        if "\0" in text:
            raise ForGood(f"{for_line(text)}: a name cannot hold a NUL")
        return text.encode(errors="surrogateescape")

    def shown(self, path: PurePosixPath | str = "") -> str:
        """Return a path as people know it."""
        return for_line(str(PurePosixPath(self._root, path)))

    async def find(self, known: bool) -> None:
        """Look at the place itself, and for the mark if it is a known one. Raises WillPass."""
        (found,) = await self.ask(self.client.stat(self.path()))
        if isinstance(found, asyncssh.SFTPNoSuchFile):
            raise WillPass(
                f"the folder {self.shown()} is not on the server: is the disk mounted there? If it is new, make it, "
                f"and give it to the user {self._user}"
            )
        if isinstance(found, SFTPError):
            raise await self.trouble("", found)
        if not is_folder(found):
            raise WillPass(f"{self.shown()} on the server is no folder: check `folder`")
        mode = found.permissions or 0
        self._shared = mode if mode & stat.S_ISGID else 0
        if known:
            await self.find_mark()

    async def find_mark(self) -> None:
        """Raises WillPass if the place is not what it was."""
        if await self.look(MARK) is None:
            raise WillPass(
                f"{self.shown()} on the server is not what it was: {MARK} is missing. Is the disk mounted there? If it "
                f"is a new one, make an empty file of that name in it"
            )

    async def look(self, path: PurePosixPath) -> SFTPAttrs | None:
        """Return what there is to say of a file or folder, or a link itself. Raises TargetError."""
        (found,) = await self.ask(self.client.lstat(self.path(path)))
        if isinstance(found, asyncssh.SFTPNoSuchFile):
            return None
        if isinstance(found, SFTPError):
            raise await self.trouble(path, found)
        assert isinstance(found, SFTPAttrs)
        return found

    async def size(self, path: PurePosixPath) -> int | None:
        """Return a file's size; None if there is none, or only its name. Raises NameTaken, TargetError."""
        found = await self.look(path)
        if found is not None and not is_file(found):
            raise NameTaken(f"{self.shown(path)} on the server is no file")
        return None if found is None or (self.replaces and not found.size) else found.size

    async def need(self, path: PurePosixPath | str, *requests: Awaitable[Any]) -> list[Any]:
        """As ask, for what must not be refused. Raises TargetError."""
        answers = await self.ask(*requests)
        for answer in answers:
            if isinstance(answer, SFTPError):
                raise await self.trouble(path, answer)
        return answers

    def open(self, path: PurePosixPath, mode: str) -> Any:
        """Return the request that opens a file; each of its reads and writes is one request. A new one is for its
        owner, and for whom the folder is shared with.
        """
        attributes = SFTPAttrs(permissions=0o600 | self._shared & stat.S_IRGRP)
        return self.client.open(self.path(path), mode, attributes, block_size=0)

    def open_folder(self, path: PurePosixPath) -> Any:
        """Return the request that opens a folder, to fsync it. Linux can do that."""
        return self.client.open(self.path(path), "rb", block_size=0)

    async def open_in_folder(self, path: PurePosixPath, mode: str) -> Any:
        """Open a file, and its folder unless that was the last one. Returns the file, or why it cannot be opened."""
        folder, opening = path.parent, self.open(path, mode)
        if not self.folder_sync or (self._last and self._last[0] == folder):
            (opened,) = await self.ask(opening)
        else:
            opened, other = await self.ask(opening, self.open_folder(folder))
            await self.forget_folder()
            self._last = None if isinstance(other, SFTPError) else (folder, other)
        return opened

    def syncing(self, path: PurePosixPath) -> list[Any]:
        """Return the request that makes the names in the folder of that file durable, if that can be."""
        return [self._last[1].fsync()] if self._last and self._last[0] == path.parent else []

    async def forget_folder(self) -> None:
        """Close it; it may not be the one that has its name now."""
        last, self._last = self._last, None
        if last:
            await self.close(last[1])

    async def make_folder(self, path: PurePosixPath) -> None:
        """Make a folder and those above it, durably. Raises NameTaken, TargetError."""
        await self.forget_folder()
        chain = [folder for folder in reversed((path, *path.parents)) if folder != PurePosixPath(".")]
        attributes = SFTPAttrs(permissions=0o700 | self._shared & stat.S_IRWXG)
        made = [self.client.mkdir(self.path(folder), attributes) for folder in chain]
        *answers, found = await self.ask(*made, self.client.stat(self.path(path)))
        if isinstance(found, SFTPError) or not is_folder(found):
            raise await self._no_folder(chain, answers, found)
        for folder, answer in zip(chain, answers, strict=True):
            if not isinstance(answer, SFTPError):
                await self.sync_folder(folder.parent)

    async def sync_folder(self, path: PurePosixPath) -> None:
        """Make the names in a folder durable, where the server can. Raises TargetError."""
        if self.folder_sync:
            (opened,) = await self.ask(self.open_folder(path))
            if not isinstance(opened, SFTPError):
                await self.ask(opened.fsync(), opened.close())

    async def _no_folder(self, chain: Sequence[PurePosixPath], answers: Sequence[Any], found: Any) -> TargetError:
        """Say which folder it is that cannot be made."""
        for folder, answer in zip(chain, answers, strict=True):
            (there,) = await self.ask(self.client.stat(self.path(folder)))
            if isinstance(there, SFTPError):
                return await self.trouble(folder, answer if isinstance(answer, SFTPError) else there)
            if not is_folder(there):
                return NameTaken(f"{self.shown(folder)} on the server is a file, where a folder is needed")
        return await self.trouble(chain[-1] if chain else "", found)

    async def parts(self, path: PurePosixPath) -> list[PurePosixPath]:
        """Return what broken-off attempts at a file have left. Raises TargetError."""
        own = re.escape(f".{path.name}.".encode(errors="surrogateescape"))
        pattern = re.compile(own + b"([0-9a-f]{%d}\\.)?part" % PART_DIGITS)
        entries, found = self.client.scandir(self.path(path.parent)), list[bytes]()
        while True:
            (some,) = await self.ask(_some(entries))
            if isinstance(some, asyncssh.SFTPNoSuchFile) or not some:
                return [path.with_name(name.decode(errors="surrogateescape")) for name in found]
            if isinstance(some, SFTPError):
                raise await self.trouble(path.parent, some)
            found += filter(pattern.fullmatch, some)

    async def remove(self, *paths: PurePosixPath) -> None:
        """Remove files, if they are there. Raises TargetError."""
        answers = await self.ask(*(self.client.remove(self.path(path)) for path in paths))
        for path, answer in zip(paths, answers, strict=True):
            if isinstance(answer, SFTPError) and not isinstance(answer, asyncssh.SFTPNoSuchFile):
                raise await self.trouble(path, answer)

    async def remove_tree(self, path: PurePosixPath) -> None:
        """Remove a folder with all that is in it, if there is one. Raises TargetError."""
        (answer,) = await self.ask(self.client.rmtree(self.path(path)))
        if isinstance(answer, asyncssh.SFTPNoSuchFile):
            await self.remove(path)  # it may be a file
        elif isinstance(answer, SFTPError):
            raise await self.trouble(path, answer)

    async def read(self, path: PurePosixPath) -> Blocks:
        """Yield a file's content. What attempts at it have left goes. Raises NameTaken, TargetError."""
        (opened,) = await self.ask(self.open(path, "rb"))
        try:
            size = await self.size(path) or 0
            if isinstance(opened, SFTPError):
                raise await self.trouble(path, opened)
            left = await self.parts(path) if size >= _MAY_BE_LONG else [path.with_name(part_name(path.name))]
            await self.remove(*left)
            async for block in self.content(path, opened, size):
                yield block
        finally:
            await self.close(opened)

    async def close(self, *files: Any) -> None:
        """Close what is open of these, if that can still be said. Raises WillPass."""
        if not self.session.broken:
            await self.ask(*(file.close() for file in files if isinstance(file, asyncssh.SFTPClientFile)))

    async def content(self, path: PurePosixPath, file: asyncssh.SFTPClientFile, size: int) -> Blocks:
        """Yield the first `size` bytes of an open file, or as much as there is. Raises TargetError."""
        piece, asked = self.session.piece, 0
        waiting: deque[tuple[int, asyncio.Task[Any]]] = deque()
        while waiting or asked < size:
            while asked < size and len(waiting) < self.depth:
                length = min(piece, size - asked)
                waiting.append((length, asyncio.create_task(_read(file, asked, length))))
                asked += length
            length, task = waiting.popleft()
            (data,) = await self.need(path, task)
            if len(data) > length:
                raise WillPass(f"{self.shown(path)} on the server: it sends more than was asked for; look there why")
            if data:
                yield data
            if len(data) < length:
                await self.ask(*(task for _, task in waiting))
                return

    async def room(self) -> tuple[int, bool] | None:
        """Return the bytes that are free, and whether the disk is read-only; None if the server does not tell."""
        (told,) = await self.ask(self.client.statvfs(self.path()))
        if isinstance(told, SFTPError):
            return None
        return told.bavail * told.frsize, bool(told.flags & _READ_ONLY)

    async def trouble(self, path: PurePosixPath | str, error: SFTPError, size: int = 0) -> TargetError:
        """Return an error of the server in words, with what to do. Raises WillPass if it is gone meanwhile."""
        shown = f"{self.shown(path)} on the server"
        said = f"(it says: {for_line(error.reason, 100)})" if error.reason else ""
        free = await self.room()
        match error:
            case asyncssh.SFTPNoSuchFile():
                return WillPass(f"{shown} is not there: was it moved or removed, or is the disk not mounted?")
            case asyncssh.SFTPPermissionDenied():
                return WillPass(f"no right to {shown}: give the user {self._user} the right to write there")
            case asyncssh.SFTPBadMessage():
                return ForGood(
                    f"{shown}: it refuses the name, as too long or with characters that it cannot take {said}"
                )
            case asyncssh.SFTPOpUnsupported():
                return ForGood(f"{shown}: it cannot do what is needed {said}; see docs/delivery.md for what that is")
        if free and free[1]:
            return WillPass(f"{shown}: the disk is read-only: look there why, and mount it again for writing")
        if free and free[0] < max(size, _LITTLE_ROOM):
            return Full(f"{shown}: the disk is full ({free[0] >> 20} MiB free): make room there, or use a larger disk")
        return WillPass(f"{shown}: it fails there {said}: is a quota used up, or the disk broken? See the server's log")


def is_file(found: SFTPAttrs) -> bool:
    """Whether it is a regular file, as far as the server tells."""
    return found.permissions is None or stat.S_ISREG(found.permissions)


def is_folder(found: SFTPAttrs) -> bool:
    """Whether it is a folder, as far as the server tells."""
    return found.permissions is None or stat.S_ISDIR(found.permissions)


async def _some(entries: AsyncIterator[asyncssh.SFTPName]) -> list[bytes]:
    """Return the next names, not more than are well waited for at a time."""
    found: list[bytes] = []
    async for entry in entries:
        found.append(cast(bytes, entry.filename))
        if len(found) == _NAMES:
            break
    return found


async def _read(file: asyncssh.SFTPClientFile, offset: int, length: int) -> bytes:
    """Read bytes: fewer only at the end of the file, though servers may give less at a time."""
    data: Any = await file.read(length, offset)
    while 0 < len(data) < length and (more := await file.read(length - len(data), offset + len(data))):
        data += more
    return bytes(data)
