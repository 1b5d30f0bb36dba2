"""Trying one target: everything that a delivery does, with a file of its own that is removed again."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..storage.targets import Target, TargetError

_BLOCK = 1 << 20
_FILE = PurePosixPath("probe.bin")


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it: `error` is empty if all went well. Speeds in bytes a second, up with what makes it durable."""

    seconds: float
    up: float = 0.0
    down: float = 0.0
    facts: dict[str, str] = field(default_factory=dict)
    error: str = ""


def try_target(target: Target, folder: str, known: bool, size: int) -> Trial:
    """Write `size` bytes to a target under a temporary name, rename, read back, compare and delete them, in `folder`,
    which is removed again whatever happens.
    """
    began = time.monotonic()
    facts: dict[str, str] = {}
    try:
        with target.trial(folder, known) as lent:
            lent.check(known=False)
            facts = lent.about()
            up, down = _there_and_back(lent, size)
        return Trial(time.monotonic() - began, up, down, facts)
    except TargetError as error:
        return Trial(time.monotonic() - began, facts=facts, error=str(error))
    finally:
        target.close()


def _there_and_back(target: Target, size: int) -> tuple[float, float]:
    """Return the speeds both ways. Raises TargetError."""
    sent, came = hashlib.sha256(), hashlib.sha256()
    began = time.monotonic()
    with target.upload(_FILE, size) as upload:
        for block in _noise(size):
            sent.update(block)
            upload.write(block)
    there = time.monotonic()
    for block in target.read(_FILE):
        came.update(block)
    back = time.monotonic()
    if came.digest() != sent.digest():
        raise TargetError("what was written does not read back as it was: the disk or the memory there fails")
    return size / max(there - began, 1e-9), size / max(back - there, 1e-9)


def _noise(size: int) -> Iterator[bytes]:
    """Yield bytes that nothing on the way can make smaller."""
    for start in range(0, size, _BLOCK):
        yield os.urandom(min(_BLOCK, size - start))


def trial_folder(state: Path) -> str:
    """Return the name of the folder for trials: always the same one, so that what a kill has left goes with the next
    trial. Several boxes may share a target.
    """
    with suppress(OSError):
        state = state.resolve()
    where = f"{os.uname().nodename}\0{state}"
    return f".tapdeck-test-{hashlib.sha256(where.encode()).hexdigest()[:8]}"
