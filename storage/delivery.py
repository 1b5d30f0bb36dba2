"""One recording to one target: every file copied, read back, compared, named; what is there already is left.

No file on the target is ever replaced. Where a name belongs to other content, the whole recording goes into a folder
beside it, under its own names, so that its hash file still fits.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .parcel import Parcel
from .targets import ForGood, NameTaken, Target, WillPass

BLOCK = 1 << 20

LONG = 8 << 20
"""Size from which on an upload that was broken off is gone on with, and not begun anew."""

Beat = Callable[[int], None]
"""Told of the bytes that a step has moved to or from the target, 0 while it works here; may raise to break off."""

Places = Mapping[str, PurePosixPath]
"""Where on the target each of a parcel's files belongs."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How files are copied. Without `read_back` what was sent is compared in size only. Files of `long` bytes are gone
    on with after a break. `block` is what is sent at a time.
    """

    read_back: bool = True
    long: int = LONG
    block: int = BLOCK


@dataclass(frozen=True, slots=True)
class Delivered:
    """Where on the target a recording lies, and whether that is beside its place, which was taken. `sent` counts the
    bytes that had to be copied.
    """

    folder: str
    beside: bool
    sent: int


class Vanished(ForGood):
    """A file of the recording is no longer on this machine."""


@dataclass(frozen=True, slots=True)
class _Print:
    """What tells one content from another."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Errand:
    """What all steps of one delivery need to know."""

    target: Target
    beat: Beat
    manner: Manner


def deliver(
    parcel: Parcel, root: Path, target: Target, beat: Beat, places: Places | None = None, manner: Manner | None = None
) -> Delivered:
    """Copy a recording from `root` to its places on the target, by default those that it has here, unless it is there.
    Raises TargetError: WillPass or ForGood.
    """
    for file in parcel.files:
        _size(root / file)  # one that is no longer whole here is not begun
    errand = _Errand(target, beat, manner or Manner())
    wanted = {root / file: (places or {}).get(file, PurePosixPath(file)) for file in parcel.files}
    try:
        return Delivered(_folder(wanted), False, _copy_all(wanted, errand))
    except NameTaken:
        beside = _beside(parcel, root, wanted, beat)
        moved = {source: beside / place.name for source, place in wanted.items()}
        return Delivered(str(beside), True, _copy_all(moved, errand))


def _folder(wanted: Mapping[Path, PurePosixPath]) -> str:
    return str(next(iter(wanted.values())).parent)


def _copy_all(wanted: Mapping[Path, PurePosixPath], errand: _Errand) -> int:
    """Return the bytes that were sent. Raises NameTaken, mostly before anything is sent."""
    missing = [source for source, place in wanted.items() if not _is_there(source, place, errand)]
    sent = sum(_copy(source, wanted[source], errand) for source in missing)
    for source in missing:
        if (errand.target.size(wanted[source]) or 0) != _size(source):
            raise WillPass(f"{wanted[source]} was taken in and is not there: {errand.target.name} loses files")
    return sent


def _is_there(source: Path, place: PurePosixPath, errand: _Errand) -> bool:
    """Whether the target has the same content under the name. Raises NameTaken if it has another."""
    size = errand.target.size(place)
    if size is None:
        return False
    if size != _size(source) or _print(errand.target.read(place), errand.beat) != _local(source, errand.beat):
        raise NameTaken(f"{place} has other content")
    return True


def _copy(source: Path, place: PurePosixPath, errand: _Errand) -> int:
    """Return the bytes that were sent."""
    size = _size(source)
    before = _local(source, errand.beat) if size >= errand.manner.long else None
    with errand.target.upload(place, size, before.sha256 if before else "") as upload:

        def written() -> Iterator[bytes]:
            for block in _blocks(source, errand.manner.block, upload.kept):
                upload.write(block)
                yield block

        sent = _print(written(), errand.beat)
        if upload.kept + sent.size != size or (before and not upload.kept and sent != before):
            upload.discard()
            raise WillPass(f"{source.name} has changed while it was copied")
        want = before or sent
        if (errand.manner.read_back or upload.kept) and _print(upload.read_back(), errand.beat) != want:
            upload.discard()
            raise WillPass(f"{place} does not read back as it was written: the disk or the memory fails")
    return sent.size


def _beside(parcel: Parcel, root: Path, wanted: Mapping[Path, PurePosixPath], beat: Beat) -> PurePosixPath:
    """Return the folder for a recording whose name is taken; always the same one for the same content and names."""
    whole = hashlib.sha256()
    for source, place in wanted.items():
        whole.update(f"{_local(source, beat).sha256}  {place.name}\n".encode())
    first = next(file for file in parcel.files if file.startswith(parcel.stem))
    place = wanted[root / first]
    stem = place.name.removesuffix(first.removeprefix(parcel.stem))
    return place.parent / f"{stem}_other-{whole.hexdigest()[:8]}"


def _local(source: Path, beat: Beat) -> _Print:
    return _print(_blocks(source), lambda size: beat(0))


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


def _blocks(source: Path, size: int = BLOCK, start: int = 0) -> Iterator[bytes]:
    """Yield a local file from `start` on. Raises ForGood where it cannot be read: that is not the target's fault."""
    try:
        with source.open("rb", buffering=0) as file:
            file.seek(start)
            while block := file.read(size):
                yield block
    except OSError as error:
        raise _unreadable(source, error) from error


def _unreadable(source: Path, error: OSError) -> ForGood:
    if isinstance(error, FileNotFoundError):
        return Vanished(f"the recording itself is gone from this machine: {source}")
    return ForGood(f"the recording itself cannot be read: {source}: {error.strerror}")
