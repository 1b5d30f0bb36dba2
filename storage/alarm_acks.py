"""Acknowledging an alarm from another process: a small file is dropped, which the alarms stage takes into its book."""

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from .alarm_desk import FOLDER
from .atomic import replace_file

ACKS = "acks"

_MOST, _MAX_FILE = 100, 16 << 10


@dataclass(frozen=True, slots=True)
class Ack:
    """Who looks after which alarm. `about` None: whatever it is about."""

    code: str
    about: str | None
    by: str
    note: str


def drop(state: Path, ack: Ack) -> Path:
    """Leave an acknowledgement for the stage; return its file, which is gone once it is in the book. Raises OSError."""
    path = state / FOLDER / ACKS / f"{secrets.token_hex(8)}.json"
    replace_file(path, json.dumps(asdict(ack)).encode())
    return path


def waiting(state: Path) -> Iterator[tuple[Path, Ack | None]]:
    """Yield what was dropped, the oldest first; None for what is no acknowledgement."""
    paths = sorted((state / FOLDER / ACKS).glob("[!.]*.json"), key=_age)
    for path in paths[:_MOST]:
        yield path, _read(path)


def taken(path: Path) -> None:
    """An acknowledgement is in the book, durably."""
    with suppress(OSError):
        path.unlink()


def _age(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _read(path: Path) -> Ack | None:
    """Members of a group may write there: what is no plain file is not opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            content = json.loads(file.read(_MAX_FILE))
        about = content["about"]
        return Ack(
            str(content["code"]), None if about is None else str(about), str(content["by"]), str(content["note"])
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
