"""What a target is: a place that gets a copy of every recording. Adding one is adding one file beside folder_target.py.

A target keeps bytes under paths and knows nothing of recordings. What is checked, in which order, and what follows from
an error is the same for all targets: delivery.py and courier.py.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import PurePosixPath
from typing import Protocol


class TargetError(Exception):
    """Something could not be delivered. The message is for the person who looks after the target: what, and what to
    do.
    """


class WillPass(TargetError):
    """The target cannot take anything now, or not this file: gone, full, read-only, cut off. Worth another try soon."""


class ForGood(TargetError):
    """The target will never take this file under this name, unless somebody changes something."""


class NameTaken(ForGood):
    """The name belongs to something else, which is left as it is."""


class Upload(Protocol):
    """A file on its way into a target, under a temporary name."""

    def write(self, block: bytes) -> None:
        """Add bytes. Raises TargetError."""

    def read_back(self) -> Iterator[bytes]:
        """Make durable what was written, and yield it as the target has it now: from the medium, not from memory.
        Raises TargetError.
        """


class Target(Protocol):
    """A place for copies. All paths are relative to the place that the configuration names. A call may take long, but
    not for ever: what can be cut off has a time limit, and ends in WillPass.
    """

    @property
    def name(self) -> str:
        """Return the name that tells it from the others, in the queue and to people. It never changes."""

    def check(self, known: bool) -> None:
        """Find out whether the target works, by writing a little and reading it. It is `known` when recordings have
        been delivered to it before: then it has to be the same place. Called before the first upload and after each
        that has failed. Raises TargetError.
        """

    def size(self, path: PurePosixPath) -> int | None:
        """Return a file's size in bytes, None if there is none. Raises NameTaken where something else has the name,
        TargetError.
        """

    def read(self, path: PurePosixPath) -> Iterator[bytes]:
        """Yield a file's content, from the medium. Raises TargetError."""

    def upload(self, path: PurePosixPath, size: int) -> AbstractContextManager[Upload]:
        """Take in a file of `size` bytes, and the folders above it.

        At the end of the block it gets its name, durably, and never in place of another file. If the block raises,
        nothing is left; what a killed upload has left goes with the next one of the same path. Raises NameTaken where
        the name belongs to other content, TargetError.
        """

    def trial(self, folder: str, known: bool) -> AbstractContextManager["Target"]:
        """Lend a target of the same kind that keeps its copies in `folder`, one of its own, for a self-test.

        At the end of the block all that is in it is removed again; what a killed self-test has left goes at its
        beginning. Nothing is written beside it, not even where the target is not `known` (see `check`). Raises
        TargetError.
        """
