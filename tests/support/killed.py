"""A process that is killed before one of its changes of files, whichever: they are counted by Python's audit events, so
that none can be forgotten.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.chmod", "os.chown", "os.truncate", "os.link")
"""Audit events of what changes a folder; `open` does if it creates."""


def killed_before(number: int, do: Callable[[], object], folder: Path) -> bool:
    """Do it in a process that is killed before its change of this number; return whether it was."""
    pid = os.fork()
    if pid == 0:
        left = [number]

        def watch(event: str, args: tuple[Any, ...]) -> None:
            changes = event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & os.O_CREAT)
            if changes and str(args[0]).startswith(str(folder)):
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1

        sys.addaudithook(watch)
        try:
            do()
        except BaseException:  # noqa: BLE001 - the child must end here, whatever happens
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), "it failed by itself"
    return status != 0
