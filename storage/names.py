"""Where a recording lies: folder and file name from templates, and the recording's id.

A template holds date fields as strftime writes them (`%Y`), and variables (`{caller}`). It is checked when it is
read, so that no call can fail for its name: every result lies below the root, is bounded in length, and is legal on
Linux, SMB and OneDrive.
"""

import hashlib
import re
import secrets
import struct
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import PurePosixPath
from string import Formatter

from .localtime import Zone
from .safe_text import for_file_name

DEFAULT_FOLDER = "%Y/%m/%d"
DEFAULT_NAME = "{time}_{caller}_{callee}_{id}"

MAX_NAME = 180
"""Bytes of a name without its ending: with the longest ending, `_hash.SHA256withRSA.sig`, it stays well below 255."""
MAX_FOLDER = 120
"""Bytes of the folder below the root. Root, folder and name together stay below OneDrive's 400 with a root of 70."""

VARIABLES = {
    "time": "local time of the start, 20261122-140305.123",
    "id": "the recording's id, ten letters",
    "caller": "number or name of the calling party",
    "callee": "number or name of the called party",
    "caller_name": "display name of the calling party",
    "callee_name": "display name of the called party",
    "direction": "in, out, internal or unknown",
    "call_id": "the SIP Call-ID",
    "instance": "name of this recorder",
}
DATE_FIELDS = "YymdHMSjGVu"

_VALUE_LIMITS = (48, 32, 24, 16)
_ID_LETTERS = 10
_DATE_FIELD = re.compile("%(.?)", re.DOTALL)
_TIME_FIELD = re.compile("%[HMS]")


class TemplateError(ValueError):
    """A template that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class NameFields:
    """What a name may be made of. `start` is in ns since the epoch; texts are as they came from the wire."""

    start: int
    id: str
    caller: str = ""
    callee: str = ""
    caller_name: str = ""
    callee_name: str = ""
    direction: str = "unknown"
    call_id: str = ""
    instance: str = ""


@dataclass(frozen=True, slots=True)
class Naming:
    """Checked templates and the zone of their times. Make one with `naming()`."""

    folder: str
    name: str
    zone: Zone

    def path(self, fields: NameFields) -> PurePosixPath:
        """Return the recording's path below the root, without an ending: `<path>.wav`, `<path>_info.txt`."""
        stamp = self.zone.stamp(fields.start)
        seconds = self.zone.local(fields.start)
        moment = stamp.hour.replace(minute=seconds.minute, second=seconds.second)
        texts = {variable: getattr(fields, variable) for variable in VARIABLES if variable not in ("time", "id")}
        for limit in _VALUE_LIMITS:
            values = {variable: for_file_name(text, limit) for variable, text in texts.items()}
            values |= {"time": stamp, "id": fields.id}
            folder, name = _fill(self.folder, values, moment), _fill(self.name, values, moment)
            if len(folder.encode()) <= MAX_FOLDER and len(name.encode()) <= MAX_NAME:
                return PurePosixPath(folder, name)
        raise TemplateError(f"the name {name!r} is too long")  # not after naming(): it tried with the longest values


def day_folder(template: str, day: date) -> PurePosixPath:
    """Return the folder that all recordings of a day have in common: that of the template, as far as it is made of
    text and dates alone.
    """
    moment = datetime(day.year, day.month, day.day)
    parts = template.split("/")
    common = next((at for at, part in enumerate(parts) if "{" in part or _TIME_FIELD.search(part)), len(parts))
    return PurePosixPath(*(_fill(part, {}, moment) for part in parts[:common]))


def naming(folder: str = DEFAULT_FOLDER, name: str = DEFAULT_NAME, zone: Zone | None = None) -> Naming:
    """Check the templates. Raises TemplateError, whose message is meant for the person who wrote the template."""
    for part in folder.split("/"):
        _check(part, "folder")
    if "id" not in _check(name, "name"):
        raise TemplateError("the name template lacks {id}: two calls could get the same name")
    result = Naming(folder, name, zone or Zone("UTC"))
    # The longest result there can be: every value as long as it is at least left, and the letter of a repeated hour.
    long = "x" * _VALUE_LIMITS[-1]
    result.path(NameFields(0, "x" * (_ID_LETTERS + 1), long, long, long, long, long, long, long))
    return result


def recording_id(seed: bytes | None = None) -> str:
    """Return ten lower-case letters: random ones, or always the same ones for the same seed.

    There are no digits in it, so that it can neither hold nor be taken for a telephone number.
    """
    number = secrets.randbits(128) if seed is None else int.from_bytes(hashlib.sha256(seed).digest()[:16])
    letters = []
    for _ in range(_ID_LETTERS):
        number, letter = divmod(number, 26)
        letters.append(chr(ord("a") + letter))
    return "".join(letters)


def call_seed(call_id: str, caller_tag: str, start: int) -> bytes:
    """Return the seed that names one call of one capture, whichever run meets it. `start` is in ns since the epoch."""
    parts = [text.encode(errors="surrogateescape") for text in (call_id, caller_tag)]
    return b"".join(struct.pack(">I", len(part)) + part for part in parts) + struct.pack(">q", start)


def _check(template: str, what: str) -> set[str]:
    """Check one component and return its variables. Raises TemplateError."""
    if not template:
        raise TemplateError(f"the {what} template has an empty part; it must be relative, like {DEFAULT_FOLDER}")
    for letter in _DATE_FIELD.findall(template):
        if not letter or letter not in DATE_FIELDS:
            known = " ".join(f"%{known}" for known in DATE_FIELDS)
            raise TemplateError(f"the {what} template has an unknown date field %{letter}; known are {known}")
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise TemplateError(f"the {what} template {template!r} cannot be read: {error}") from None
    for _, variable, spec, conversion in parts:
        if variable is not None and (variable not in VARIABLES or spec or conversion):
            known = " ".join(f"{{{known}}}" for known in VARIABLES)
            raise TemplateError(f"the {what} template has an unknown variable {{{variable}}}; known are {known}")
    literal = _DATE_FIELD.sub(
        "0", "".join(text + ("0" if variable is not None else "") for text, variable, _, _ in parts)
    )
    # A field stands as a digit here; with the separator of fields as a letter the text must pass unchanged.
    plain = literal.replace("_", "a")
    if for_file_name(plain, 4 * len(plain) + 16) != plain:
        raise TemplateError(f"the {what} template {template!r} would make a name that Windows or OneDrive refuse")
    return {variable for _, variable, _, _ in parts if variable is not None}


def _fill(template: str, values: dict[str, str], moment: datetime) -> str:
    """Put in dates first: a value may hold a per cent sign only after them."""
    dated = _DATE_FIELD.sub(lambda field: _date_field(field[1], moment), template)
    return dated.format_map(values)


def _date_field(letter: str, moment: datetime) -> str:
    return f"{moment.year:04d}" if letter == "Y" else moment.strftime(f"%{letter}")
