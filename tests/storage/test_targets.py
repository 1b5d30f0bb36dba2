"""The contract of targets, kept by each of them, and by a faulty one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tapdeck.storage.folder_target import MARK, FolderTarget
from tests.support.faulty import FailsNow, FaultyTarget, FillsUp, Lies, MemoryTarget, Stalls
from tests.support.parcels import everything
from tests.support.target_contract import Place, TargetContract


class _Itself:
    """A target in memory, which lets itself be looked into."""

    def __init__(self, target: MemoryTarget) -> None:
        self.target, self.files, self.put, self.another = target, target.files, target.put, target.another


class _Folder:
    def __init__(self, folder: Path, apart: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._apart = apart
        self.target = self.another()

    def another(self) -> FolderTarget:
        return FolderTarget(self.folder, self._apart)

    def files(self) -> dict[str, bytes]:
        return {path: content for path, content in everything(self.folder).items() if path != MARK}

    def put(self, path: str, content: bytes) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(content)


class TestFolder(TargetContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return _Folder(tmp_path / "disk", tmp_path / "recordings")


class TestMemory(TargetContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return _Itself(MemoryTarget())


FAULTS: dict[str, Callable[[], Callable[[str, bytes], bytes | None]]] = {
    "fails": FailsNow,
    "loses what is written": lambda: Lies("write"),
    "writes other bytes": lambda: Lies("write", how=lambda content: bytes([content[0] ^ 1]) + content[1:]),
    "cuts what is written": lambda: Lies("write", how=lambda content: content[:-1]),
    "reads back other bytes": lambda: Lies("read_back", how=lambda content: content[:-1] + bytes([content[-1] ^ 128])),
    "loses the name": lambda: Lies("publish"),
    "fills up": lambda: FillsUp(8),
    "stalls when asked": lambda: Stalls("size"),
    "stalls when written to": lambda: Stalls("write"),
    "stalls at the end": lambda: Stalls("publish"),
}


class TestFaulty(TargetContract):
    honest = False

    @pytest.fixture(params=FAULTS)
    def place(self, request: pytest.FixtureRequest) -> Place:
        return _Itself(FaultyTarget(FAULTS[request.param]()))
