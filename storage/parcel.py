"""A recording as delivery sees it: its files, in the order in which they travel."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from . import checkpoint, info
from .trust import CERTIFICATE

INFO = "_info.txt"
"""The ending of the file without which there is no recording: it is published after sound and packets."""

ENDINGS = (
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

_DAY_ENDINGS = (checkpoint.TEXT, checkpoint.SIGNATURE, checkpoint.STAMP)
_DAY_COMPANIONS = (CERTIFICATE, "verify.sh", "verify.ps1")
"""What travels with the checkpoint of a day, so that its folder can be verified where it arrives."""

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
    """Check that these are the files of one recording, or the checkpoint of a day and what is needed to verify, and
    return them in order. Raises BadParcel.
    """
    names = list(files)
    if checkpoint.day_of(identity) is not None:
        return _of_a_day(identity, names, size, ended)
    stem = next((name.removesuffix(INFO) for name in names if name.endswith(INFO)), None)
    if stem is None or not identity:
        raise BadParcel("a recording has an id and an info file")
    for name in names:
        _check_path(name)
        if not name.startswith(stem) or name[len(stem) :] not in ENDINGS:
            raise BadParcel(f"{name!r} is no part of the recording {stem!r}")
    return Parcel(identity, stem, tuple(sorted(names, key=lambda name: ENDINGS.index(name[len(stem) :]))), size, ended)


def parcel_of_day(root: Path, folder: PurePosixPath, identity: str, ended: float) -> Parcel:
    """Return what there is of the checkpoint of a day. Raises BadParcel, OSError."""
    names = [*(f"{identity}{ending}" for ending in _DAY_ENDINGS), *_DAY_COMPANIONS]
    there = [name for name in names if (root / folder / name).is_file()]
    size = sum(_stat(root / folder / name).st_size for name in there)
    return parcel(identity, [str(folder / name) for name in there], size, ended)


def is_day(parcel: Parcel) -> bool:
    """Whether this is the checkpoint of a day, and no recording."""
    return checkpoint.day_of(parcel.id) is not None


def _of_a_day(identity: str, names: list[str], size: int, ended: float) -> Parcel:
    known = [*_DAY_COMPANIONS, *(f"{identity}{ending}" for ending in _DAY_ENDINGS)]
    own = next((name for name in names if PurePosixPath(name).name == f"{identity}{checkpoint.TEXT}"), None)
    if own is None:
        raise BadParcel(f"{identity} has no checkpoint in it")
    for name in names:
        _check_path(name)
        if PurePosixPath(name).parent != PurePosixPath(own).parent or PurePosixPath(name).name not in known:
            raise BadParcel(f"{name!r} is no part of the checkpoint {own!r}")
    files = tuple(sorted(names, key=lambda name: known.index(PurePosixPath(name).name)))
    return Parcel(identity, own.removesuffix(checkpoint.TEXT), files, size, ended)


def _check_path(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or str(path) != name:
        raise BadParcel(f"not a path within the recordings: {name!r}")


def parcels_in(root: Path, folder: PurePosixPath, now: float) -> Iterator[Parcel]:
    """Yield the whole recordings that lie in one folder below `root`, save those that are being published at this
    moment, and those whose seal is still to come; and the checkpoints of days. Raises OSError.
    """
    names = {entry.name for entry in (root / folder).iterdir()}
    for signature in sorted(name for name in names if name.endswith(checkpoint.SIGNATURE)):
        identity = signature.removesuffix(checkpoint.SIGNATURE)
        if checkpoint.day_of(identity) is not None and f"{identity}{checkpoint.TEXT}" in names:
            yield parcel_of_day(root, folder, identity, _stat(root / folder / signature).st_mtime)
    for text in sorted(name for name in names if name.endswith(INFO) and not name.startswith(".")):
        stem = text.removesuffix(INFO)
        unfinished = [f".{stem}{ending}.part" for ending in ENDINGS if f".{stem}{ending}.part" in names]
        if any(now - _stat(root / folder / part).st_mtime < PUBLISHING_S for part in unfinished):
            continue
        files = [f"{stem}{ending}" for ending in ENDINGS if f"{stem}{ending}" in names]
        stats = [_stat(root / folder / file) for file in files]
        said = _said(root / folder / text)
        if "SealedAt" in said and f"{stem}{ENDINGS[-1]}" not in names:
            continue
        size, ended = sum(stat.st_size for stat in stats), max(stat.st_mtime for stat in stats)
        yield parcel(said.get("RecordingId") or stem, [str(folder / file) for file in files], size, ended)


def folders_in(root: Path) -> Iterator[PurePosixPath]:
    """Yield the folders below `root`, itself first, in the order of their names; hidden ones are left out. What cannot
    be listed is left out too: listing its content raises.
    """
    for path, below, _ in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield PurePosixPath(os.path.relpath(path, root))


def _stat(path: Path) -> os.stat_result:
    return path.stat(follow_symlinks=False)


def _said(text: Path) -> dict[str, str]:
    """Return what an info file says, nothing if it is none."""
    with text.open("rb") as file:
        content = file.read(info.MAX_SIZE)
    try:
        return dict(reversed(info.parse(content)))
    except info.InfoError:
        return {}
