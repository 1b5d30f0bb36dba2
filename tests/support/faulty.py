"""Targets in memory: an honest one, and one that fails in every way that targets fail in."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from tapdeck.storage.targets import NameTaken, WillPass, part_name


class MemoryTarget:
    """Keeps files in a dictionary, and every rule."""

    def __init__(self, name: str = "memory", content: dict[str, bytes] | None = None) -> None:
        self._name = name
        self.content: dict[str, bytes] = {} if content is None else content
        self.order: list[str] = []

    @property
    def name(self) -> str:
        return self._name

    def another(self) -> "MemoryTarget":
        """A second instance of the same target."""
        return MemoryTarget(self._name, self.content)

    def check(self, known: bool) -> None:
        """Always well."""

    def size(self, path: PurePosixPath) -> int | None:
        content = self.content.get(str(path))
        return None if content is None else len(content)

    def read(self, path: PurePosixPath) -> Iterator[bytes]:
        yield self.content[str(path)]

    @contextmanager
    def upload(self, path: PurePosixPath, size: int, digest: str = "") -> Iterator["_MemoryUpload"]:
        part = str(path.with_name(part_name(path.name, digest)))
        kept = b""
        if digest:
            stem = str(path.with_name(f".{path.name}."))
            left = {name: self.content.pop(name) for name in list(self.content) if name.startswith(stem)}
            kept = left.get(part, b"")
        upload = _MemoryUpload(kept if len(kept) <= size else b"")
        try:
            yield upload
        except BaseException:
            if digest and upload.blocks:
                self.content[part] = b"".join(upload.blocks)
            raise
        written = b"".join(upload.blocks)
        if self.content.get(str(path), written) != written:
            raise NameTaken(str(path))
        self.content[str(path)] = written
        self.order.append(str(path))

    @contextmanager
    def trial(self, folder: str, known: bool) -> Iterator["MemoryTarget"]:
        yield MemoryTarget(self._name)

    def about(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        """There is no connection."""

    def files(self) -> dict[str, bytes]:
        return dict(self.content)

    def put(self, path: str, content: bytes) -> None:
        self.content[path] = content


class _MemoryUpload:
    def __init__(self, kept: bytes = b"") -> None:
        self.blocks: list[bytes] = [kept] if kept else []
        self.kept = len(kept)

    def write(self, block: bytes) -> None:
        self.blocks.append(block)

    def read_back(self) -> Iterator[bytes]:
        yield from self.blocks

    def discard(self) -> None:
        self.blocks.clear()


class FaultyTarget(MemoryTarget):
    """Does what `fault` says with each step that it is told of: the name of the step, and the bytes it is about. What
    it returns takes the bytes' place; None makes the step pretend that it was done.
    """

    def __init__(
        self,
        fault: Callable[[str, bytes], bytes | None],
        name: str = "faulty",
        content: dict[str, bytes] | None = None,
        order: list[str] | None = None,
    ) -> None:
        super().__init__(name, content)
        self.order = [] if order is None else order
        self.fault = fault

    def another(self) -> "FaultyTarget":
        return FaultyTarget(self.fault, self.name, self.content, self.order)

    def check(self, known: bool) -> None:
        self.fault("check", b"")

    def size(self, path: PurePosixPath) -> int | None:
        self.fault("size", b"")
        return super().size(path)

    def read(self, path: PurePosixPath) -> Iterator[bytes]:
        for block in super().read(path):
            yield self.fault("read", block) or b""

    @contextmanager
    def upload(self, path: PurePosixPath, size: int, digest: str = "") -> Iterator[_MemoryUpload]:
        self.fault("upload", b"")
        with super().upload(path, size, digest) as inner:
            yield _FaultyUpload(inner, self.fault)
            told = self.fault("publish", b"name")
            before = self.content.get(str(path))
        if told is None and before is None:
            del self.content[str(path)]
            self.order.pop()

    @contextmanager
    def trial(self, folder: str, known: bool) -> Iterator[MemoryTarget]:
        yield FaultyTarget(self.fault, self.name)


class _FaultyUpload(_MemoryUpload):
    def __init__(self, inner: _MemoryUpload, fault: Callable[[str, bytes], bytes | None]) -> None:
        self.blocks, self.kept, self._fault = inner.blocks, inner.kept, fault

    def write(self, block: bytes) -> None:
        self.blocks.append(self._fault("write", block) or b"")

    def read_back(self) -> Iterator[bytes]:
        for block in self.blocks:
            yield self._fault("read_back", block) or b""


class FailsNow:
    """Every step fails at its first, third, sixth ... time, with growing distance."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._next: dict[str, int] = {}

    def __call__(self, step: str, content: bytes) -> bytes:
        self._seen[step] = seen = self._seen.get(step, 0) + 1
        if seen >= self._next.get(step, 1):
            self._next[step] = 2 * seen + 1
            raise WillPass(f"{step} failed")
        return content


class Lies:
    """One kind of step is not done, or done wrongly, and said to be done: the first `times` times."""

    def __init__(self, step: str, times: int = 3, how: Callable[[bytes], bytes | None] = lambda content: None) -> None:
        self._step, self._left, self._how = step, times, how

    def __call__(self, step: str, content: bytes) -> bytes | None:
        if step != self._step or not self._left:
            return content
        self._left -= 1
        return self._how(content)


class FillsUp:
    """Takes so many bytes, then none until it has refused `patience` times and somebody has made room."""

    def __init__(self, room: int, patience: int = 3) -> None:
        self._room, self._patience = room, patience

    def __call__(self, step: str, content: bytes) -> bytes:
        if step == "write":
            self._room -= len(content)
            if self._room < 0:
                self._patience -= 1
                self._room = 0 if self._patience else 1 << 40
                raise WillPass("no room")
        return content


class Stalls:
    """Hangs for a moment and then gives up, as a target with a time limit does: the first `times` times at one step."""

    def __init__(self, step: str, times: int = 2, seconds: float = 0.02) -> None:
        self._step, self._left, self._seconds = step, times, seconds

    def __call__(self, step: str, content: bytes) -> bytes:
        if step == self._step and self._left:
            self._left -= 1
            time.sleep(self._seconds)
            raise WillPass("time out")
        return content
