"""Which recordings a target gets, and where on it each of their files lies. Pure.

A sealed recording keeps its files' names wherever it goes, for the signed hash file names them: a name template then
names a folder of its own for each recording. Without a seal the files themselves are renamed.
"""

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ..sniffer.direction import Own
from . import checkpoint
from .about import About
from .localtime import Zone
from .names import DEFAULT_FOLDER, DEFAULT_NAME, NameFields, Naming, day_folder, naming
from .parcel import Parcel, is_day

DIRECTIONS = ("in", "out", "internal", "unknown")
"""What a recording's direction may be."""

_HASH = "_hash.txt"


@dataclass(frozen=True, slots=True)
class Selection:
    """What a target wants; what is empty asks nothing. `numbers` are those of either party."""

    classes: frozenset[str] = frozenset()
    directions: frozenset[str] = frozenset()
    numbers: Own = field(default_factory=Own)

    def wants(self, about: About) -> bool:
        """Whether a recording is one of these."""
        return (
            (not self.classes or about.kind in self.classes)
            and (not self.directions or about.direction in self.directions)
            and (not self.numbers.numbers or any(map(self.numbers.number, (about.caller, about.callee))))
        )


@dataclass(frozen=True, slots=True)
class Route:
    """The way to one target. `folder` and `file` are templates, empty for what they are on this machine. Make one with
    `route()`.
    """

    name: str
    selection: Selection
    folder: str
    file: str
    naming: Naming

    def wants(self, about: About) -> bool:
        """Whether the target gets a recording. The checkpoints of days go to every target."""
        return about.of_a_day or self.selection.wants(about)

    def places(self, parcel: Parcel, about: About) -> dict[str, PurePosixPath]:
        """Return where on the target each file of a parcel lies."""
        if is_day(parcel):
            return self._in(self._day_folder(parcel), parcel)
        if not self.folder and not self.file:
            return {file: PurePosixPath(file) for file in parcel.files}
        named = self.naming.path(_fields(about))
        folder = named.parent if self.folder else PurePosixPath(parcel.stem).parent
        if not self.file:
            return self._in(folder, parcel)
        if any(file.endswith(_HASH) for file in parcel.files):
            return self._in(folder / named.name, parcel)
        return {file: folder / (named.name + file.removeprefix(parcel.stem)) for file in parcel.files}

    def _day_folder(self, parcel: Parcel) -> PurePosixPath:
        day = checkpoint.day_of(parcel.id)
        if not self.folder or day is None:
            return PurePosixPath(parcel.stem).parent
        return day_folder(self.folder, day)

    @staticmethod
    def _in(folder: PurePosixPath, parcel: Parcel) -> dict[str, PurePosixPath]:
        return {file: folder / PurePosixPath(file).name for file in parcel.files}


def route(
    name: str, selection: Selection | None = None, folder: str = "", file: str = "", zone: Zone | None = None
) -> Route:
    """Check the templates. Raises TemplateError, whose message is meant for the person who wrote the template."""
    checked = naming(folder or DEFAULT_FOLDER, file or DEFAULT_NAME, zone)
    return Route(name, selection or Selection(), folder, file, checked)


def _fields(about: About) -> NameFields:
    return NameFields(
        start=about.started,
        id=about.id,
        caller=about.caller,
        callee=about.callee,
        caller_name=about.caller_name,
        callee_name=about.callee_name,
        direction=about.direction,
        call_id=about.call_id,
        instance=about.instance,
    )
