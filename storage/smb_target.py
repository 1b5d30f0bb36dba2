"""A share on a Windows server or a NAS as a target: SMB 3, encrypted, without a mount and without root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from .smb import errors
from .smb.errors import explained
from .smb.place import SmbPlace
from .targets import ForGood, NameTaken, TargetError, WillPass, part_name

if TYPE_CHECKING:  # the library below these is slow to import
    from .smb.share import Share
    from .smb.upload import SmbUpload

MARK = ".tapdeck-target"
"""A file in a folder that recordings have been delivered to. Without it an empty share looks like the right one."""

_MARK_TEXT = b"""Tapdeck copies recordings to this folder, and knows by this file that it is the right one.
To use another folder or disk in its place, put a file of this name there; it may be empty.
"""
_FOLDER, _NO_FILE = 0x10, 0x410
"""Attributes of a folder; of a folder or a link ([MS-FSCC] 2.6)."""
_NOT_IN_A_NAME = frozenset('\\/:*?"<>|') | {chr(code) for code in range(32)}
_PROBE = b"Tapdeck tries whether this folder takes files. This one can be deleted.\n"


class SmbTarget:
    """Keeps copies in a folder of a share, which has to exist. Each instance has a connection of its own, made when it
    is needed. `time_limit` is how many seconds the server may be silent.
    """

    def __init__(self, place: SmbPlace, time_limit: float = 30.0) -> None:
        self._place = place
        self._limit = time_limit
        self._made: Share | None = None
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
        for left, _ in self._share.entries(self._root, f"{MARK}.*.part"):
            with suppress(TargetError):  # another connection of this target is using it
                self._share.remove(self._below(left))
        tried, renamed = (self._below(f"{MARK}.{os.urandom(4).hex()}.part") for _ in range(2))
        self._share.probe(tried, renamed, _PROBE)
        if not known:
            self._share.make_file(self._below(MARK), _MARK_TEXT)

    def size(self, path: PurePosixPath) -> int | None:
        """Return a file's size. Raises TargetError."""
        place = self._path(path)
        found = self._share.find(place)
        if found is None:
            return None
        if found.file_attributes & _NO_FILE:
            raise NameTaken(f"{self._share.where(place)} is no file")
        return int(found.end_of_file)

    def read(self, path: PurePosixPath) -> Iterator[bytes]:
        """Yield a file's content from the server. Raises TargetError."""
        yield from self._share.read(self._path(path))

    @contextmanager
    def upload(self, path: PurePosixPath, size: int, digest: str = "") -> "Iterator[SmbUpload]":
        """Take in a file. Raises TargetError, with nothing written where there is no room for it."""
        from .smb.upload import SmbUpload

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
        inner = SmbTarget(replace(self._place, folder=place), self._limit)
        try:
            self._share.make_folder(place, self._root)
            yield inner
        finally:
            inner.close()
            self._share.remove_tree(place)

    def about(self) -> dict[str, str]:
        """Return the server, the dialect, and how the connection that is in use is protected."""
        return self._share.line().about()

    def close(self) -> None:
        """Drop the connection."""
        if self._made is not None:
            self._made.close()

    @property
    def _share(self) -> "Share":
        from .smb.share import Share

        if self._made is None:
            self._made = Share(self._place, self._limit)
        return self._made

    def _find_folder(self, known: bool) -> None:
        """Raises WillPass if the folder is not there, or is not the one that is known."""
        found = self._share.find(self._root)
        if found is None or not found.file_attributes & _FOLDER:
            raise self._share.no_root(self._root)
        if known:
            self._find_mark()

    def _find_mark(self) -> None:
        if self._share.find(self._below(MARK)) is None:
            raise WillPass(
                f"{self._share.where(self._root)} is not what it was: {MARK} is missing. Is its disk in the server? "
                "If it is a new one, put an empty file of this name there"
            )

    def _remove_others(self, folder: str, name: str, part: str) -> None:
        """Remove what attempts at a file have left that cannot be gone on from."""
        plain = part_name(name)
        for found, is_folder in self._share.entries(folder, f".{name}.*"):
            path = f"{folder}\\{found}" if folder else found
            digits = found.removeprefix(f".{name}.").removesuffix(".part")
            if found in (plain, part_name(name, digits)) and path != part and not is_folder:
                self._share.remove(path)

    def _path(self, path: PurePosixPath) -> str:
        """Return a path in the share. Raises ForGood if it cannot be one."""
        if path.is_absolute():
            raise explained(errors.NAME_INVALID, str(path))
        for part in path.parts:
            self._check_name(part)
        return self._below("\\".join(path.parts))

    def _check_name(self, name: str) -> None:
        """Raises ForGood for what is no name in a share: some would even be taken for something else."""
        try:
            size = len(name.encode("utf-16-le")) // 2
        except UnicodeEncodeError:
            size = 0
        if not 0 < size <= 255 or name in (".", "..") or _NOT_IN_A_NAME & set(name):
            raise ForGood(
                f"{self._place.share_path} cannot keep the name {name!r}: choose a folder and name template without "
                r'\ / : * ? " < > | in it'
            )

    def _below(self, path: str) -> str:
        return f"{self._root}\\{path}" if self._root else path


__all__ = ["MARK", "SmbPlace", "SmbTarget"]
