"""The hand-over from seal to deliver: a small file for each recording, `<state>/handover/ID.json`.

Seal writes it when the recording has been published and is durable. Deliver takes it into its queue in one transaction
and removes it then. A kill at any moment leaves it or repeats it, and repeating does no harm.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

from .atomic import sync_folder
from .parcel import BadParcel, Parcel, parcel

FOLDER = "handover"
MAX_SIZE = 1 << 20
_FOLDER_MODE, _FILE_MODE = 0o750, 0o640


def write(state: Path, parcel: Parcel) -> None:
    """Hand a recording over, durably; once more for one that was handed over before is once. Raises OSError."""
    folder = _made(state / FOLDER)
    content = {"id": parcel.id, "files": parcel.files, "bytes": parcel.bytes, "ended": parcel.ended}
    part, path = folder / f".{_name(parcel)}.part", folder / _name(parcel)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(json.dumps(content).encode())
        file.flush()
        os.fchmod(descriptor, _FILE_MODE)
        os.fsync(descriptor)
    part.replace(path)
    sync_folder(folder)


def waiting(state: Path, limit: int = 500) -> tuple[list[Parcel], list[tuple[Path, str]]]:
    """Return at most `limit` recordings that were handed over, and the files that say nothing usable, each with what is
    wrong with it. Raises OSError.
    """
    good: list[Parcel] = []
    bad: list[tuple[Path, str]] = []
    folder = state / FOLDER
    if not folder.is_dir():
        return good, bad
    with os.scandir(folder) as entries:
        for entry in entries:
            if len(good) + len(bad) >= limit:
                break
            if entry.name.startswith(".") or not entry.name.endswith(".json"):
                continue
            try:
                good.append(_read(Path(entry.path)))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                bad.append((Path(entry.path), str(error)))
    return good, bad


def taken(state: Path, parcel: Parcel) -> None:
    """Remove a hand-over whose recording is in the queue. Raises OSError."""
    (state / FOLDER / _name(parcel)).unlink(missing_ok=True)


def set_aside(path: Path) -> None:
    """Take a file out of the way that says nothing usable, and keep it. Raises OSError."""
    path.replace(path.with_name(f"{path.name}.bad"))


def _name(parcel: Parcel) -> str:
    if not parcel.id or "/" in parcel.id or "\0" in parcel.id or parcel.id.startswith("."):
        raise BadParcel(f"not the id of a recording: {parcel.id!r}")
    return f"{parcel.id}.json"


def _read(path: Path) -> Parcel:
    with path.open("rb") as file:
        content: dict[str, Any] = json.loads(file.read(MAX_SIZE))
    files = [str(file) for file in content["files"]]
    found = parcel(str(content["id"]), files, int(content["bytes"]), float(content["ended"]))
    if _name(found) != path.name:
        raise BadParcel(f"it is named {path.name} and speaks of {found.id}")
    return found


def _made(folder: Path) -> Path:
    """Make the folder. Within a shared one (set-group-ID) it is shared too, and never sticky: deliver has to remove
    what seal wrote.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    above = folder.parent.stat().st_mode
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(stat.S_IMODE(above) & ~stat.S_ISVTX if above & stat.S_ISGID else _FOLDER_MODE)
    sync_folder(folder.parent)
    return folder
