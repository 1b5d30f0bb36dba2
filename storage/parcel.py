"""A recording as delivery sees it: its files, in the order in which they travel."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from . import info

INFO = "_info.txt"
"""The ending of the file without which there is no recording: it is published after sound and packets."""

_ENDINGS = (
    ".wav",
    "_caller.wav",
    "_callee.wav",
    ".pcapng",
    "_packets.pcapng",
    INFO,
    "_hash.txt",
    "_hash.SHA256withRSA.sig",
)
"""What a recording may consist of, in the order of travel: what vouches for others comes after them."""

PUBLISHING_S = 60.0
"""A file that has been on its way to its name for longer was left behind by a kill."""


class BadParcel(ValueError):
    """These are not the files of one recording; the message says why."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A recording's files, as paths relative to the folder of the recordings. `bytes` is their size; `ended` is when
    the call was over, in seconds since the epoch. `stem` is what their names have in common, with the folder.
    """

    id: str
    stem: str
    files: tuple[str, ...]
    bytes: int
    ended: float


def parcel(identity: str, files: Iterable[str], size: int, ended: float) -> Parcel:
    """Check that these are the files of one recording, and return them in order. Raises BadParcel."""
    names = list(files)
    stem = next((name.removesuffix(INFO) for name in names if name.endswith(INFO)), None)
    if stem is None or not identity:
        raise BadParcel("a recording has an id and an info file")
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or str(path) != name:
            raise BadParcel(f"not a path within the recordings: {name!r}")
        if not name.startswith(stem) or name[len(stem) :] not in _ENDINGS:
            raise BadParcel(f"{name!r} is no part of the recording {stem!r}")
    return Parcel(identity, stem, tuple(sorted(names, key=lambda name: _ENDINGS.index(name[len(stem) :]))), size, ended)


def parcels_in(root: Path, folder: PurePosixPath, now: float) -> Iterator[Parcel]:
    """Yield the whole recordings that lie in one folder below `root`, save those that are being published at this
    moment. Raises OSError.
    """
    names = {entry.name for entry in (root / folder).iterdir()}
    for text in sorted(name for name in names if name.endswith(INFO) and not name.startswith(".")):
        stem = text.removesuffix(INFO)
        unfinished = [f".{stem}{ending}.part" for ending in _ENDINGS if f".{stem}{ending}.part" in names]
        if any(now - _stat(root / folder / part).st_mtime < PUBLISHING_S for part in unfinished):
            continue
        files = [f"{stem}{ending}" for ending in _ENDINGS if f"{stem}{ending}" in names]
        stats = [_stat(root / folder / file) for file in files]
        size, ended = sum(stat.st_size for stat in stats), max(stat.st_mtime for stat in stats)
        yield parcel(_identity(root / folder / text) or stem, [str(folder / file) for file in files], size, ended)


def folders_in(root: Path) -> Iterator[PurePosixPath]:
    """Yield the folders below `root`, itself first, in the order of their names; hidden ones are left out. What cannot
    be listed is left out too: listing its content raises.
    """
    for path, below, _ in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield PurePosixPath(os.path.relpath(path, root))


def _stat(path: Path) -> os.stat_result:
    return path.stat(follow_symlinks=False)


def _identity(text: Path) -> str:
    """Return the recording's id from its info file, an empty text if there is none."""
    with text.open("rb") as file:
        content = file.read(info.MAX_SIZE)
    try:
        return next((value for key, value in info.parse(content) if key == "RecordingId"), "")
    except info.InfoError:
        return ""
