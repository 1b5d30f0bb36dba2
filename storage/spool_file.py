"""One spool file: what its comments say, and how it is read again."""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..sniffer import blocks
from ..sniffer.records import Records
from ..sniffer.sources.capture_file import CaptureError, CaptureFile

FORMAT = 1
APPLICATION = "Tapdeck"
_ID = re.compile("[a-z]{1,16}")
_LATEST = 1 << 62


class SpoolError(ValueError):
    """This is no spool file, or of a format that is not known; the message says which."""


@dataclass(frozen=True, slots=True)
class Head:
    """Whose a spool file is. Times in steady ns; `clock` are steps of the clock before: (since, wall time ahead).

    `continues` is the id of the recording that this one goes on from, `related` are calls that were known as legs of
    the same conversation when it began.
    """

    id: str
    call_id: str
    caller_tag: str
    started: int
    begun: int
    continues: str = ""
    instance: str = ""
    host: str = ""
    version: str = ""
    interfaces: str = ""
    clock: list[Any] = field(default_factory=list)
    related: list[Any] = field(default_factory=list)

    def blocks(self, links: tuple[int, ...]) -> Iterator[bytes]:
        """Yield the blocks that begin the file: the section, raw IP as interface 0, then the links in their order."""
        yield blocks.section(_comment({"tapdeck": FORMAT, **asdict(self)}), APPLICATION)
        yield blocks.interface(blocks.RAW_IP, "signalling")
        for link in dict.fromkeys(links):
            if link != blocks.RAW_IP:
                yield blocks.interface(link, self.interfaces)


@dataclass(slots=True)
class SpoolFile:
    """A spool file as a whole: `notes` in their order, `last` the time of the last packet (steady ns, 0 for none),
    `damage` where it breaks off.
    """

    path: Path
    head: Head
    notes: list[dict[str, Any]]
    last: int
    damage: str

    @property
    def harm(self) -> str:
        """What is wrong with the file beyond that a kill or a power loss cut it short; more may be in it then."""
        damage = self.damage.removeprefix(f"{self.path}: ")
        return "" if damage.startswith("cut short") else damage

    @property
    def over(self) -> dict[str, Any] | None:
        """The note that ends a file that was handed over."""
        return next((note for note in reversed(self.notes) if note.get("note") == "over"), None)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Return the notes of one kind."""
        return [note for note in self.notes if note.get("note") == kind]


def note_block(note: dict[str, Any], time: int) -> bytes:
    """Return a note, made at `time` (steady ns), as a block."""
    return blocks.comment(_comment({"time": time, **note}), 0, time)


def read_spool(path: Path) -> SpoolFile:
    """Read what a spool file says of itself, without its packets. Raises SpoolError or OSError."""
    with path.open("rb", buffering=0) as stream:
        capture = CaptureFile(str(path), stream)
        last = 0
        try:
            for records in capture.blocks():
                if len(records):
                    last = max(last, int(records.time.max()))
        except CaptureError as error:
            raise SpoolError(str(error)) from None
    told = [_told(text) for text in capture.comments]
    if not told or told[0].get("tapdeck") != FORMAT:
        raise SpoolError(f"{path}: not a spool file of format {FORMAT}")
    return SpoolFile(path, _head(path, told[0]), [note for note in told[1:] if note], last, capture.damage)


def _head(path: Path, told: dict[str, Any]) -> Head:
    """Return what a file says of itself, every field of its type. Raises SpoolError.

    The id becomes part of a file's name: it is letters, and nothing else.
    """
    known = {one.name for one in fields(Head)}
    try:
        head = Head(**{key: value for key, value in told.items() if key in known})
    except TypeError as error:
        raise SpoolError(f"{path}: {error}") from None
    pattern = Head("", "", "", 0, 0)
    for one in fields(Head):
        if type(getattr(head, one.name)) is not type(getattr(pattern, one.name)):
            raise SpoolError(f"{path}: {one.name} makes no sense: {getattr(head, one.name)!r}")
    if not _ID.fullmatch(head.id) or not _ID.fullmatch(head.continues or head.id):
        raise SpoolError(f"{path}: not the id of a recording: {head.id!r}, {head.continues!r}")
    if not (0 <= head.started < _LATEST and 0 <= head.begun < _LATEST):
        raise SpoolError(f"{path}: begun at {head.begun} ns, which makes no sense")
    return head


def signalling(path: Path) -> Iterator[Records]:
    """Yield the blocks of a spool file with the call's SIP only: what stands on interface 0. Raises OSError."""
    with path.open("rb", buffering=0) as stream, contextlib.suppress(CaptureError):
        for records in CaptureFile(str(path), stream).blocks():
            raw = records.link == blocks.RAW_IP
            yield Records(
                records.data,
                records.offset[raw],
                records.length[raw],
                records.wire[raw],
                records.time[raw],
                records.link[raw],
                records.position,
            )


def _told(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _comment(told: dict[str, Any]) -> str:
    """Return the text of a comment: plain ASCII, so that no text from the wire can be more than text. Related calls,
    whose names are their senders' choice, are left out where there is no room for them.
    """
    text = json.dumps(told, ensure_ascii=True, separators=(",", ":"))
    if len(text) > blocks.MAX_COMMENT and told.get("related"):
        return _comment({**told, "related": []})
    return text
