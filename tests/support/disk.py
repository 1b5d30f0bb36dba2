"""A disk that fails, or a machine that dies, at a chosen one of the calls that change files."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


class Crash(BaseException):
    """The process is no more."""


class Disk:
    """Counts the system calls by which the spool changes files; the one with number `at` (from 1) fails with `error`.

    A write that fails has written `share` of its bytes before. With `times` the next ones fail too.
    """

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        *,
        at: int = 0,
        error: BaseException | None = None,
        share: float = 0.0,
        times: int = 1,
    ) -> None:
        self.calls = 0
        self._fails = range(at, at + times) if at else range(0)
        self._error = error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._share = share
        self._writev, self._open, self._replace, self._unlink = os.writev, os.open, Path.replace, Path.unlink
        patch.setattr(os, "writev", self._write)
        patch.setattr(os, "open", self._opened)
        patch.setattr(Path, "replace", lambda path, target: self._moved(path, target))
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: self._removed(path, missing_ok))

    def _write(self, descriptor: int, pieces: Sequence[Any]) -> int:
        whole = b"".join(bytes(piece) for piece in pieces)
        if not self._fails_now():
            return self._writev(descriptor, [whole])
        part = whole[: int(len(whole) * self._share)]
        if part:
            self._writev(descriptor, [part])
        raise self._error

    def _opened(self, path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_WRONLY and self._fails_now():
            raise self._error
        return self._open(path, flags, *more, **named)

    def _moved(self, path: Path, target: Path) -> Path:
        if self._fails_now():
            raise self._error
        return self._replace(path, target)

    def _removed(self, path: Path, missing_ok: bool) -> None:
        if self._fails_now():
            raise self._error
        self._unlink(path, missing_ok)

    def _fails_now(self) -> bool:
        self.calls += 1
        return self.calls in self._fails
