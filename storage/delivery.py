"""One recording to one target: every file copied, read back, compared, named; what is there already is left.

No file on the target is ever replaced. Where a name belongs to other content, the whole recording goes into a folder
beside it, under its own names, so that its hash file still fits.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .parcel import Parcel
from .targets import ForGood, NameTaken, Target, WillPass

BLOCK = 1 << 20

Beat = Callable[[int], None]
"""Told of the bytes of each step; may raise to break off."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """Where on the target a recording lies, and whether that is beside its place, which was taken. `sent` counts the
    bytes that had to be copied.
    """

    folder: str
    beside: bool
    sent: int


@dataclass(frozen=True, slots=True)
class _Print:
    """What tells one content from another."""

    size: int
    sha256: str


def deliver(parcel: Parcel, root: Path, target: Target, beat: Beat) -> Delivered:
    """Copy a recording from `root` to the target, unless it is there. Raises TargetError: WillPass or ForGood."""
    paths = [PurePosixPath(file) for file in parcel.files]
    for path in paths:
        _size(root / path)  # one that is no longer whole here is not begun
    folder = PurePosixPath(parcel.stem).parent
    try:
        return Delivered(str(folder), False, _copy_all(paths, folder, root, target, beat))
    except NameTaken:
        beside = _beside(parcel, root, beat)
        return Delivered(str(beside), True, _copy_all(paths, beside, root, target, beat))


def _copy_all(paths: list[PurePosixPath], folder: PurePosixPath, root: Path, target: Target, beat: Beat) -> int:
    """Return the bytes that were sent. Raises NameTaken, mostly before anything is sent."""
    places = {path: folder / path.name for path in paths}
    missing = [path for path in paths if not _is_there(root / path, places[path], target, beat)]
    sent = sum(_copy(root / path, places[path], target, beat) for path in missing)
    for path in missing:
        if (target.size(places[path]) or 0) != _size(root / path):
            raise WillPass(f"{places[path]} was taken in and is not there: {target.name} loses files")
    return sent


def _is_there(source: Path, place: PurePosixPath, target: Target, beat: Beat) -> bool:
    """Whether the target has the same content under the name. Raises NameTaken if it has another."""
    size = target.size(place)
    if size is None:
        return False
    if size != _size(source) or _print(target.read(place), beat) != _print(_blocks(source), beat):
        raise NameTaken(f"{place} has other content")
    return True


def _copy(source: Path, place: PurePosixPath, target: Target, beat: Beat) -> int:
    size = _size(source)
    with target.upload(place, size) as upload:

        def written() -> Iterator[bytes]:
            for block in _blocks(source):
                upload.write(block)
                yield block

        want = _print(written(), beat)
        if want.size != size:
            raise WillPass(f"{source.name} has changed while it was copied")
        if _print(upload.read_back(), beat) != want:
            raise WillPass(f"{place} does not read back as it was written: the disk or the memory fails")
    return size


def _beside(parcel: Parcel, root: Path, beat: Beat) -> PurePosixPath:
    """Return the folder for a recording whose name is taken; always the same one for the same content."""
    whole = hashlib.sha256()
    for file in parcel.files:
        whole.update(f"{_print(_blocks(root / file), beat).sha256}  {PurePosixPath(file).name}\n".encode())
    stem = PurePosixPath(parcel.stem)
    return stem.parent / f"{stem.name}_other-{whole.hexdigest()[:8]}"


def _print(blocks: Iterable[bytes], beat: Beat) -> _Print:
    size, digest = 0, hashlib.sha256()
    for block in blocks:
        digest.update(block)
        size += len(block)
        beat(len(block))
    return _Print(size, digest.hexdigest())


def _size(source: Path) -> int:
    try:
        return source.stat(follow_symlinks=False).st_size
    except OSError as error:
        raise _unreadable(source, error) from error


def _blocks(source: Path) -> Iterator[bytes]:
    """Yield a local file. Raises ForGood where it cannot be read: that is not the target's fault."""
    try:
        with source.open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                yield block
    except OSError as error:
        raise _unreadable(source, error) from error


def _unreadable(source: Path, error: OSError) -> ForGood:
    return ForGood(f"the recording itself cannot be read: {source}: {error.strerror}")
