"""What a target is: a place that gets a copy of every recording. Adding one is adding one file beside folder_target.py.

A target keeps bytes under paths and knows nothing of recordings. What is checked, in which order, and what follows from
an error is the same for all targets: delivery.py and courier.py.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import PurePosixPath
from typing import Protocol

PART_DIGITS = 8
"""How much of a digest is in the name of a file that may be gone on with."""


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


def part_name(name: str, digest: str = "") -> str:
    """Return the temporary name of a file."""
    return f".{name}.{digest[:PART_DIGITS]}.part" if digest else f".{name}.part"


class Upload(Protocol):
    """A file on its way into a target, under a temporary name."""

    @property
    def kept(self) -> int:
        """Return how many bytes are there already, of an attempt that was broken off: the next one belongs behind
        them. They are not verified. 0 where the file was begun without a digest.
        """

    def write(self, block: bytes) -> None:
        """Add bytes. Raises TargetError."""

    def read_back(self) -> Iterator[bytes]:
        """Make durable what was written, and yield the whole file, with what was `kept`, as the target has it now:
        from the medium, not from memory. Raises TargetError.
        """

    def discard(self) -> None:
        """Take note that what is there is wrong: nothing of it may be used again. The block has to raise after it.
        Raises TargetError.
        """


class Target(Protocol):
    """A place for copies. All paths are relative to the place that the configuration names. An instance belongs to one
    thread; several of the same target work side by side, and share nothing. Making one touches no network.

    A call may take long, but not for ever: what can be cut off has a time limit (30 s without progress), and ends in
    WillPass. No message ever holds a secret.
    """

    @property
    def name(self) -> str:
        """Return the name that tells it from the others, in the queue and to people. It never changes."""

    def check(self, known: bool) -> None:
        """Find out whether the target works, by writing a little and reading it. It is `known` when recordings have
        been delivered to it before: then it has to be the same place, which a mark in it tells (`.tapdeck-target`).
        Called before the first upload and after each that has failed. Raises TargetError.
        """

    def size(self, path: PurePosixPath) -> int | None:
        """Return a file's size in bytes, None if there is none. Raises NameTaken where something else has the name,
        TargetError.
        """

    def read(self, path: PurePosixPath) -> Iterator[bytes]:
        """Yield a file's content, from the medium. Raises TargetError."""

    def upload(self, path: PurePosixPath, size: int, digest: str = "") -> AbstractContextManager[Upload]:
        """Take in a file of `size` bytes, and the folders above it.

        It is written as `.<name>.part` beside its place. At the end of the block it is made durable and gets its name,
        and never in place of another file. If the block raises, nothing is left; what a killed upload has left goes
        with the next one of the same path.

        With a `digest`, its SHA-256 in hex, it is written as `.<name>.<first 8 of the digest>.part`, and if the block
        raises, or is killed, that stays, for the next attempt with the same digest to go on from; unless it was
        discarded, the name is taken, or the target is full: others may need less room. Parts of the same path with
        other digests go.

        Raises NameTaken where the name belongs to other content, TargetError.
        """

    def trial(self, folder: str, known: bool) -> AbstractContextManager["Target"]:
        """Lend a target of the same kind that keeps its copies in `folder`, one of its own, for a self-test.

        At the end of the block all that is in it is removed again; what a killed self-test has left goes at its
        beginning. Nothing is written beside it, not even where the target is not `known` (see `check`). Raises
        TargetError.
        """

    def about(self) -> dict[str, str]:
        """Return what there is to say of the connection, for people: after `check`."""

    def close(self) -> None:
        """Drop connections. The target may be used again; it connects anew. Raises nothing."""
