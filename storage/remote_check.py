"""Are recordings that were delivered still there, and as they were? Each is read from the target and compared.

What a file was is told by the copy on this machine; where that is gone, by the recording's own hash file on the target,
if its signature is by a key of this recorder. Nothing is written, save what a target's own check writes.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

from .about import read_about
from .parcel import Parcel
from .route import Route
from .targets import NameTaken, Target, TargetError, WillPass
from .trust import CERTIFICATE, BadCertificate, read_certificates
from .verify_files import HASH, MAX_SMALL, NO_KEY, SIGNATURE, listed_in, open_seal

Verdict = Literal["intact", "missing", "altered", "cannot be read"]
VERDICTS: tuple[Verdict, ...] = ("intact", "missing", "altered", "cannot be read")

_BLOCK = 1 << 20
_QUERY = """
SELECT id, stem, files, recordings.bytes, recordings.ended, place, beside
FROM jobs JOIN recordings ON recordings.number = jobs.recording
WHERE target = ? AND state = 'confirmed' ORDER BY random() LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A recording that a target has confirmed: the folder on it, and whether it lies beside its place."""

    parcel: Parcel
    folder: str
    beside: bool


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of one recording, and why that is not `intact`."""

    id: str
    folder: str
    verdict: Verdict
    reason: str = ""


class _Differs(Exception):
    """Something is not as it was."""

    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict, self.reason = verdict, reason


def sample(queue: Path, target: str, number: int) -> list[Delivered]:
    """Return so many recordings at random that a target has confirmed. Raises OSError where the delivery queue cannot
    be read.
    """
    os.close(os.open(queue, os.O_RDONLY))  # what is wrong with the path is said by the system, not by SQLite
    try:
        connection = sqlite3.connect(f"file:{quote(str(queue))}?mode=ro", uri=True, timeout=10)
        try:
            rows = connection.execute(_QUERY, (target, number)).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise OSError(0, f"the delivery queue cannot be read: {error}", str(queue)) from None
    return [
        Delivered(Parcel(identity, stem, tuple(json.loads(files)), size, ended), place or "", bool(beside))
        for identity, stem, files, size, ended, place, beside in rows
    ]


@dataclass(slots=True)
class RemoteCheck:
    """Checks recordings on one target. `beat` is told of bytes that were read from it."""

    target: Target
    route: Route
    root: Path
    beat: Callable[[int], None] = lambda size: None
    _down: str = field(init=False, default="")

    def begin(self) -> None:
        """See that the target is there at all: of an empty mount point everything would be missing."""
        self._find()

    def check(self, one: Delivered) -> Checked:
        """Check one recording. What goes wrong is part of the result."""
        found = partial(Checked, one.parcel.id, one.folder)
        if self._down:
            return found("cannot be read", self._down)
        try:
            self._compare(one)
        except _Differs as differs:
            return found(differs.verdict, differs.reason)
        except NameTaken as error:
            return found("altered", str(error))
        except WillPass as error:
            self._find()
            return found("cannot be read", str(error))
        except (TargetError, OSError) as error:
            return found("cannot be read", str(error))
        return found("intact")

    def _find(self) -> None:
        self.target.close()
        try:
            self.target.check(known=True)
        except TargetError as error:
            self._down = str(error)

    def _compare(self, one: Delivered) -> None:
        """Raises _Differs, TargetError, OSError for what is wrong on this machine."""
        if all((self.root / file).is_file() for file in one.parcel.files):
            places = self._places(one)
            for file in one.parcel.files:
                self._compare_file(places[file], _digest(_blocks(self.root / file)), "than here")
            return
        folder = PurePosixPath(one.folder)
        for name, digest in self._vouched(one, folder).items():
            self._compare_file(folder / name, digest, "than its hash file says")

    def _places(self, one: Delivered) -> Mapping[str, PurePosixPath]:
        """Return where each file lies. The folder is what was written down when it was delivered: templates may have
        changed since.
        """
        places = self.route.places(one.parcel, read_about(self.root, one.parcel))
        if one.beside or not self.route.file:
            return {file: PurePosixPath(one.folder, PurePosixPath(file).name) for file in places}
        return {file: PurePosixPath(one.folder, place.name) for file, place in places.items()}

    def _compare_file(self, place: PurePosixPath, digest: str, other: str) -> None:
        size = self.target.size(place)
        if size is None:
            raise _Differs("missing", f"{place} is not there")
        if _digest(self._read(place)) != digest:
            raise _Differs("altered", f"{place} has another content {other}")

    def _vouched(self, one: Delivered, folder: PurePosixPath) -> dict[str, str]:
        """Return name and digest of the files that the hash file on the target names, if it was signed here."""
        names = [PurePosixPath(file).name for file in one.parcel.files]
        hashes = next((name for name in names if name.endswith(HASH)), None)
        signature = next((name for name in names if name.endswith(SIGNATURE)), None)
        if hashes is None or signature is None:
            raise OSError("it is gone from this machine and was not sealed: nothing tells what it was")
        keys = _keys(self.root, PurePosixPath(one.parcel.stem))
        if not keys:
            raise OSError(f"it is gone from this machine, and so is {CERTIFICATE}, by which its seal could be checked")
        content, signed = self._small(folder / hashes), self._small(folder / signature)
        seal = open_seal(signed, keys)
        if seal.digest != hashlib.sha256(content).hexdigest():
            which = f"{hashes} is not the hash file that was signed" if seal.key else f"{signature} {NO_KEY}"
            raise _Differs("altered", which)
        listed = listed_in(content) or {}
        if unnamed := [name for name in names if name not in (hashes, signature, *listed)]:
            raise _Differs("altered", f"{hashes} does not name {', '.join(unnamed)}")
        return listed

    def _small(self, place: PurePosixPath) -> bytes:
        size = self.target.size(place)
        if size is None:
            raise _Differs("missing", f"{place} is not there")
        if size > MAX_SMALL:
            raise _Differs("altered", f"{place} has {size:,} bytes")
        return b"".join(self._read(place))

    def _read(self, place: PurePosixPath) -> Iterator[bytes]:
        for block in self.target.read(place):
            self.beat(len(block))
            yield block


def _digest(blocks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            yield block


def _keys(root: Path, stem: PurePosixPath) -> dict[str, bytes]:
    """Return the keys of the certificates that lie nearest to where the recording was on this machine."""
    for folder in stem.parents:
        try:
            return {one.key: one.public for one in read_certificates(root / folder / CERTIFICATE)}
        except (FileNotFoundError, NotADirectoryError):
            continue
        except BadCertificate as error:
            raise OSError(str(error)) from None
    return {}
