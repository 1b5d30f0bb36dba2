"""A share on a Windows server or a NAS as a target: SMB 3, encrypted, without a mount and without root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import PurePosixPath

from .smb import errors, packets
from .smb.errors import explained
from .smb.place import SmbPlace
from .smb.share import Share
from .smb.upload import SmbUpload
from .targets import NameTaken, TargetError, WillPass, part_name

MARK = ".tapdeck-target"
"""A file in a folder that recordings have been delivered to. Without it an empty share looks like the right one."""

_MARK_TEXT = b"""Tapdeck copies recordings to this folder, and knows by this file that it is the right one.
To use another folder or disk in its place, put a file of this name there; it may be empty.
"""
_PROBE = b"Tapdeck tries whether this folder takes files. This one can be deleted.\n"


class SmbTarget:
    """Keeps copies in a folder of a share, which has to exist. Each instance has a connection of its own, made when it
    is needed. `time_limit` is how many seconds the server may be silent.
    """

    def __init__(self, place: SmbPlace, time_limit: float = 30.0) -> None:
        self._place = place
        self._limit = time_limit
        self._share = Share(place, time_limit)
        self._root = "\\".join(part for part in place.folder.replace("\\", "/").split("/") if part)

    def __repr__(self) -> str:
        return f"SmbTarget({self._place!r})"

    @property
    def name(self) -> str:
        """The name from the configuration."""
        return self._place.name

    def check(self, known: bool) -> None:
        """Write, read back, rename and remove a few bytes; mark the folder at the first time. Raises TargetError."""
        self._find_folder(known)
        for left in self._share.entries(self._root, f"{MARK}.*.part"):
            with suppress(TargetError):  # another connection of this target is using it
                self._share.remove(self._below(left.name))
        self._probe()
        if not known:
            self._mark()

    def size(self, path: PurePosixPath) -> int | None:
        """Return a file's size. Raises TargetError."""
        place = self._path(path)
        found = self._share.find(place)
        if found is None:
            return None
        if found.attributes & (packets.ATTRIBUTE_FOLDER | packets.ATTRIBUTE_LINK):
            raise NameTaken(f"{self._share.where(place)} is no file")
        return found.size

    def read(self, path: PurePosixPath) -> Iterator[bytes]:
        """Yield a file's content from the server. Raises TargetError."""
        yield from self._share.read(self._path(path))

    @contextmanager
    def upload(self, path: PurePosixPath, size: int, digest: str = "") -> Iterator[SmbUpload]:
        """Take in a file. Raises TargetError, with nothing written where there is no room for it."""
        place, part = self._path(path), self._path(path.with_name(part_name(path.name, digest)))
        folder = place.rpartition("\\")[0]
        if digest:
            self._remove_others(folder, path.name, part)

        def make_folder() -> None:
            self._find_mark()
            self._share.make_folder(folder, self._root)

        upload = SmbUpload(self._share, place, part, size, make_folder, bool(digest))
        try:
            yield upload
            upload.finish()
        except BaseException:
            upload.break_off()
            raise

    @contextmanager
    def trial(self, folder: str, known: bool) -> Iterator["SmbTarget"]:
        """Lend a target in a folder below this one. Raises TargetError."""
        self._find_folder(known)
        place = self._below(folder)
        self._share.remove_tree(place)
        self._share.make_folder(place, self._root)
        inner = SmbTarget(replace(self._place, folder=place), self._limit)
        try:
            yield inner
        finally:
            inner.close()
            self._share.remove_tree(place)

    def about(self) -> dict[str, str]:
        """Return the server, the dialect, and how the connection that is in use is protected."""
        return self._share.about()

    def close(self) -> None:
        """Drop the connection."""
        self._share.close()

    def _find_folder(self, known: bool) -> None:
        """Raises WillPass if the folder is not there, or is not the one that is known."""
        found = self._share.find(self._root)
        if found is None or not found.attributes & packets.ATTRIBUTE_FOLDER:
            raise self._share.no_root(self._root)
        if known:
            self._find_mark()

    def _find_mark(self) -> None:
        if self._share.find(self._below(MARK)) is None:
            raise WillPass(
                f"{self._share.where(self._root)} is not what it was: {MARK} is missing. Is its disk in the server? "
                "If it is a new one, put an empty file of this name there"
            )

    def _probe(self) -> None:
        """Nothing is left, whatever happens: the server removes the file when it is closed, or the connection ends."""
        path, other = (self._below(f"{MARK}.{os.urandom(4).hex()}.part") for _ in range(2))
        share, wire = self._share, self._share.wire()
        access = packets.READ_DATA | packets.WRITE_DATA | packets.READ_ATTRIBUTES | packets.DELETE
        options = packets.FILE | packets.DELETE_ON_CLOSE
        create = packets.create(path, access, packets.MAKE, options, packets.SHARE_NONE)
        write = packets.write(0, _PROBE, through=True)
        made, written, got = share.call(path, create, write, packets.read(0, len(_PROBE)), wire=wire)
        handle = packets.opened(share.expect(made, path)).handle
        try:
            whole = packets.count(share.expect(written, path)) == len(_PROBE)
            if not whole or packets.content(share.expect(got, path)) != _PROBE:
                raise WillPass(f"{share.where(self._root)} does not return what was written: its disk fails")
            share.expect(share.call(path, packets.rename(other, handle), wire=wire)[0], path)
        finally:
            share.let_go(wire, packets.close(handle))

    def _mark(self) -> None:
        path = self._below(MARK)
        create = packets.create(path, packets.WRITE_DATA, packets.MAKE, packets.FILE)
        made, *_ = self._share.call(path, create, packets.write(0, _MARK_TEXT, through=True), packets.close())
        if made.status != errors.NAME_COLLISION:  # somebody's own mark is a mark
            self._share.expect(made, path)

    def _remove_others(self, folder: str, name: str, part: str) -> None:
        """Remove what attempts at a file have left that cannot be gone on from."""
        plain = part_name(name)
        for entry in self._share.entries(folder, f".{name}.*"):
            path = f"{folder}\\{entry.name}" if folder else entry.name
            digits = entry.name.removeprefix(f".{name}.").removesuffix(".part")
            is_part = entry.name == plain or entry.name == part_name(name, digits)
            if is_part and path != part and not entry.is_folder:
                self._share.remove(path)

    def _path(self, path: PurePosixPath) -> str:
        """Return a path in the share. Raises ForGood if it cannot be one."""
        if path.is_absolute():
            raise explained(errors.NAME_INVALID, str(path))
        for part in path.parts:
            self._share.check_name(part)
        return self._below("\\".join(path.parts))

    def _below(self, path: str) -> str:
        return f"{self._root}\\{path}" if self._root else path


__all__ = ["MARK", "SmbPlace", "SmbTarget"]
