"""One process of a kind for a state folder, held by flock(2): it ends with the process, however that ends."""

import fcntl
import os
import time
from pathlib import Path

import click

from ..storage.state import process_runs
from .exit_codes import ExitCode

_PAUSE_S = 0.1


class AlreadyRunning(click.ClickException):
    """Another process holds the lock."""

    exit_code = ExitCode.ALREADY_RUNNING


def hold(folder: Path, name: str, patience_s: float = 0.0) -> int:
    """Take the lock `name` of a state folder; return its descriptor, which holds it until it is closed.

    A child that inherits the descriptor holds the lock too: while only children are left of the process that took it,
    and they are ending, this waits up to `patience_s`. Raises AlreadyRunning, or OSError where the folder cannot be
    written to.
    """
    descriptor = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + patience_s
    while not _take(descriptor):
        holder = os.pread(descriptor, 20, 0).decode(errors="replace")
        if process_runs(int(holder) if holder.isdecimal() else 0) or time.monotonic() >= deadline:
            os.close(descriptor)
            raise AlreadyRunning(
                f"`tapdeck {name}` (process {holder}) already runs with the state folder {folder}: stop it first, "
                "or give this one folders of its own"
            )
        time.sleep(_PAUSE_S)
    if os.geteuid() == 0:
        os.fchown(descriptor, folder.stat().st_uid, -1)  # the next one may be started without root
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
