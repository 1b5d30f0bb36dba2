"""A target that lacks something on this machine, as its password: it stands for the real one until that is there."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import PurePosixPath
from typing import NoReturn

from .targets import Target, Upload, WillPass


class UnusableTarget:
    """Refuses everything, and says `why`: what is missing, and what to do. The other targets work on."""

    def __init__(self, name: str, why: str) -> None:
        self._name, self._why = name, why

    @property
    def name(self) -> str:
        """The name of the target that it stands for."""
        return self._name

    def check(self, known: bool) -> None:
        """Raises WillPass."""
        self._refuse()

    def size(self, path: PurePosixPath) -> int | None:
        """Raises WillPass."""
        self._refuse()

    def read(self, path: PurePosixPath) -> Iterator[bytes]:
        """Raises WillPass."""
        self._refuse()

    def upload(self, path: PurePosixPath, size: int, digest: str = "") -> AbstractContextManager[Upload]:
        """Raises WillPass."""
        self._refuse()

    def trial(self, folder: str, known: bool) -> AbstractContextManager[Target]:
        """Raises WillPass."""
        self._refuse()

    def about(self) -> dict[str, str]:
        """Nothing: there is no connection."""
        return {}

    def close(self) -> None:
        """Nothing to do."""

    def _refuse(self) -> NoReturn:
        raise WillPass(self._why)
