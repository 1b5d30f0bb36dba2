"""The folder on the server: paths, folders below it, and what an error there means."""

import re
import stat
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..safe_text import for_line
from ..targets import PART_DIGITS, ForGood, NameTaken, TargetError, WillPass, part_name
from . import wire
from .session import Session
from .wire import Attributes, Reply

FSYNC, HARDLINK, POSIX_RENAME, STATVFS = (
    f"{name}@openssh.com" for name in ("fsync", "hardlink", "posix-rename", "statvfs")
)
WINDOW = 4 << 20
"""Bytes that may be under way: enough for 1 Gbit/s at 30 ms."""

_OPEN_FOLDERS, _FRESH = 32, 64
_LISTING_S, _MISSES = 10.0, 16
_LISTS_AT_ONCE = 4
_READ_ONLY = 1
_LITTLE_ROOM = 1 << 16


class Full(WillPass):
    """There is no room."""


@dataclass(slots=True)
class Nature:
    """What was found out about a server's folder, by trying: see probe.py."""

    way: str = ""
    folder_sync: bool = False


@dataclass(frozen=True, slots=True)
class _Listing:
    """What was in a folder."""

    at: float
    names: set[str]
    parts: list[str]

    @property
    def recent(self) -> bool:
        return time.monotonic() - self.at < _LISTING_S


class Remote:
    """One place, over one session."""

    def __init__(self, session: Session, root: str, user: str, nature: Nature) -> None:
        self.session, self.nature = session, nature
        self.fsync = FSYNC in session.extensions
        self.shared = 0
        self._root, self._user = root or ".", user
        self._folders: OrderedDict[PurePosixPath, bytes] = OrderedDict()
        self._fresh: OrderedDict[PurePosixPath, int] = OrderedDict()
        self._listings: dict[PurePosixPath, _Listing] = {}
        self._misses: Counter[PurePosixPath] = Counter()

    def path(self, path: PurePosixPath | str = "") -> bytes:
        """Return a path as the server takes it. Raises ForGood."""
        text = str(PurePosixPath(self._root, path))
        if "\0" in text:
            raise ForGood(f"{for_line(text)}: a name cannot hold a NUL")
        return text.encode(errors="surrogateescape")

    def shown(self, path: PurePosixPath | str = "") -> str:
        """Return a path as people know it."""
        return for_line(str(PurePosixPath(self._root, path)))

    @property
    def file_mode(self) -> int:
        """Permission bits of a file: for its owner, and for whom the folder is shared with."""
        return 0o600 | self.shared & stat.S_IRGRP

    @property
    def folder_mode(self) -> int:
        """Permission bits of a folder."""
        return 0o700 | self.shared & stat.S_IRWXG

    def find(self) -> None:
        """Look at the place itself. Raises WillPass."""
        (found,) = self.session.call(wire.stat(self.path()))
        if found.code == wire.NO_SUCH_FILE:
            raise WillPass(
                f"the folder {self.shown()} is not on the server: is the disk mounted there? If it is new, make it, "
                f"and give it to the user {self._user}"
            )
        if not found.ok:
            raise self.trouble("", found)
        if not found.attributes.is_folder:
            raise WillPass(f"{self.shown()} on the server is no folder: check `folder`")
        mode = found.attributes.mode or 0
        self.shared = mode if mode & stat.S_ISGID else 0

    def folder_handle(self, path: PurePosixPath) -> bytes | None:
        """Return a handle that a folder is fsynced with, b"" where that cannot be; None if it is not remembered."""
        handle = self._folders.get(path)
        if handle is not None:
            self._folders.move_to_end(path)
        return handle

    def forget(self, path: PurePosixPath) -> None:
        """Remember a folder no longer."""
        if handle := self._folders.pop(path, b""):
            self.session.post(wire.close(handle))

    def make_folder(self, path: PurePosixPath) -> bytes:
        """Make a folder and those above it, durably, and remember it. Raises NameTaken, TargetError."""
        chain = [folder for folder in reversed((path, *path.parents)) if folder != PurePosixPath(".")]
        made = [wire.make_folder(self.path(folder), self.folder_mode) for folder in chain]
        *replies, found = self.session.call(*made, wire.stat(self.path(path)))
        if not found.ok or not found.attributes.is_folder:
            raise self._no_folder(chain, replies, found)
        for folder, reply in zip(chain, replies, strict=True):
            if reply.ok:
                self.sync_folder(folder.parent)
        handle = self._open_folder(path) if self.nature.folder_sync else b""
        self._folders[path] = handle
        if len(self._folders) > _OPEN_FOLDERS:
            self.forget(next(iter(self._folders)))
        return handle

    def sync_folder(self, path: PurePosixPath) -> None:
        """Make the names in a folder durable, where the server can. Raises TargetError."""
        if self.nature.folder_sync and (handle := self._open_folder(path)):
            self.session.call(wire.extended(FSYNC, handle), wire.close(handle))

    def _open_folder(self, path: PurePosixPath) -> bytes:
        (opened,) = self.session.call(wire.open_file(self.path(path), wire.READING))
        return opened.data

    def _no_folder(self, chain: Sequence[PurePosixPath], replies: Sequence[Reply], found: Reply) -> TargetError:
        """Say which folder it is that cannot be made."""
        for folder, reply in zip(chain, replies, strict=True):
            (there,) = self.session.call(wire.stat(self.path(folder)))
            if there.ok and not there.attributes.is_folder:
                return NameTaken(f"{self.shown(folder)} on the server is a file, where a folder is needed")
            if not there.ok:
                return self.trouble(folder, there if reply.ok else reply)
        return self.trouble(chain[-1] if chain else "", found)

    def arrived(self, path: PurePosixPath, size: int) -> None:
        """Take note of a size that the server has told after a file got its name: it is asked for next."""
        self.named(path)
        self._fresh[path] = size
        if len(self._fresh) > _FRESH:
            self._fresh.popitem(last=False)

    def named(self, path: PurePosixPath) -> None:
        """Take note that there is something of this name."""
        if path.parent in self._listings:
            self._listings[path.parent].names.add(path.name)

    def fresh(self, path: PurePosixPath) -> int | None:
        """Return that size, once."""
        return self._fresh.pop(path, None)

    def leftovers(self, path: PurePosixPath, fresh: bool = False) -> list[PurePosixPath]:
        """Return what broken-off attempts at a file have left. Raises TargetError."""
        known = self._listings.get(path.parent)
        if fresh or known is None or not known.recent:
            known = self._list_names(path.parent)
        own = re.escape(f".{path.name}.")
        pattern = re.compile(f"{own}([0-9a-f]{{{PART_DIGITS}}}\\.)?part")
        return [path.with_name(name) for name in known.parts if pattern.fullmatch(name)]

    def missing(self, path: PurePosixPath) -> bool:
        """Whether there is no file of this name, as far as is known without asking: for many files that are sent into
        one folder. What another has put there in the last seconds is found out when ours is to get the name.
        """
        known = self._listings.get(path.parent)
        if self._misses[path.parent] < _MISSES or known is None or not known.recent:
            return False
        return path.name not in known.names

    def missed(self, path: PurePosixPath) -> None:
        """Take note that there is no such file. After some, their folder is listed: that costs less than asking on."""
        self._misses[path.parent] += 1
        known = self._listings.get(path.parent)
        if self._misses[path.parent] % max(_MISSES, len(known.names) // _MISSES if known else 0) == 0:
            self._list_names(path.parent)

    def _list_names(self, folder: PurePosixPath) -> _Listing:
        names = {name for name, _ in self.list(folder)}
        parts = [name for name in names if name.startswith(".") and name.endswith(".part")]
        listing = self._listings[folder] = _Listing(time.monotonic(), names, parts)
        return listing

    def list(self, path: PurePosixPath | str) -> Iterator[tuple[str, Attributes]]:
        """Yield what is in a folder; nothing if there is none. Raises TargetError."""
        (opened,) = self.session.call(wire.open_folder(self.path(path)))
        if opened.code == wire.NO_SUCH_FILE:
            return
        if not opened.ok:
            raise self.trouble(path, opened)
        try:
            ended = False
            while not ended:
                for reply in self.session.call(*[wire.list_more(opened.data)] * _LISTS_AT_ONCE):
                    ended = ended or not reply.ok
                    if reply.code not in (wire.OK, wire.EOF):
                        raise self.trouble(path, reply)
                    for name, attributes in reply.names:
                        if name not in (b".", b".."):
                            yield name.decode(errors="surrogateescape"), attributes
        finally:
            self.session.post(wire.close(opened.data))

    def remove_tree(self, path: PurePosixPath) -> None:
        """Remove a folder with all that is in it, if there is one. Raises TargetError."""
        (found,) = self.session.call(wire.lstat(self.path(path)))
        if not found.ok:
            return
        if found.attributes.is_folder:
            for folder in [folder for folder in self._folders if folder == path or path in folder.parents]:
                self.forget(folder)
            for name, attributes in list(self.list(path)):
                if attributes.is_folder:
                    self.remove_tree(path / name)
                else:
                    self._done(path / name, self.session.call(wire.remove(self.path(path / name)))[0])
            self._done(path, self.session.call(wire.remove_folder(self.path(path)))[0])
        else:
            self._done(path, self.session.call(wire.remove(self.path(path)))[0])

    def _done(self, path: PurePosixPath, reply: Reply) -> None:
        if not reply.ok and reply.code != wire.NO_SUCH_FILE:
            raise self.trouble(path, reply)

    def room(self) -> tuple[int, bool] | None:
        """Return the bytes that are free, and whether the disk is read-only; None if the server does not tell."""
        if STATVFS not in self.session.extensions:
            return None
        (reply,) = self.session.call(wire.extended(STATVFS, self.path()))
        if not reply.ok or len(reply.data) < 88:
            return None
        fields = [int.from_bytes(reply.data[at : at + 8]) for at in range(0, 88, 8)]
        return fields[1] * fields[4], bool(fields[9] & _READ_ONLY)

    def trouble(self, path: PurePosixPath | str, reply: Reply, size: int = 0) -> TargetError:
        """Return an error of the server in words, with what to do. Raises WillPass if it is gone meanwhile."""
        shown = f"{self.shown(path)} on the server"
        said = f"(it says: {for_line(reply.text, 100)})" if reply.text else ""
        match reply.code:
            case wire.NO_SUCH_FILE:
                return WillPass(f"{shown} is not there: was it moved or removed, or is the disk not mounted?")
            case wire.PERMISSION_DENIED:
                return WillPass(f"no right to {shown}: give the user {self._user} the right to write there")
            case wire.BAD_MESSAGE:
                return ForGood(
                    f"{shown}: it refuses the name, as too long or with characters that it cannot take {said}"
                )
            case wire.UNSUPPORTED:
                return ForGood(f"{shown}: it cannot do what is needed {said}; see docs/delivery.md for what that is")
        free = self.room()
        if free and free[1]:
            return WillPass(f"{shown}: the disk is read-only: look there why, and mount it again for writing")
        if free and free[0] < max(size, _LITTLE_ROOM):
            return Full(f"{shown}: the disk is full ({free[0] >> 20} MiB free): make room there, or use a larger disk")
        return WillPass(f"{shown}: it fails there {said}: is a quota used up, or the disk broken? See the server's log")


def part_of(path: PurePosixPath, digest: str = "") -> PurePosixPath:
    """Return the temporary name of a file."""
    return path.with_name(part_name(path.name, digest))
