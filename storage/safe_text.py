"""The one place that makes text from the wire safe to use in file names, text files and terminals.

Names, numbers, Call-IDs and user agents are chosen by strangers. Whatever they hold, a result of this module has no
control characters, no line breaks, no bidirectional or invisible formatting, and nothing that UTF-8 cannot encode.
"""

import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any

UNKNOWN = "unknown"
"""What stands in a file name for a text of which nothing is left."""

REPLACEMENT = "\ufffd"
"""What stands in a line for a character that was refused, so that a reader sees that something was there."""

_ILLEGAL_IN_FILE_NAMES = frozenset('\\/:*?"<>|#%')
# Windows reserves these names with any extension, in any case; the superscript digits count as digits there. SharePoint
# refuses `desktop.ini` and any name with `_vti_` in it.
_RESERVED = re.compile(
    r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9\u00b9\u00b2\u00b3])\s*(?:\.|\Z)|(?:DESKTOP\.INI|VTI)\Z",
    re.IGNORECASE,
)
_DIAL_STRING = re.compile(r"[+0-9*#]+\Z")
_EDGES = " .-~"
# Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties) outside category Cf: they take no room and hide a
# difference.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]")
_SMALLEST_LIMIT = 16


def for_file_name(text: str, max_bytes: int = 48) -> str:
    """Return `text` as a part of a file name that Linux, SMB, Windows, OneDrive and SharePoint all accept.

    The result is NFC, at most `max_bytes` of UTF-8 (at least 16), never empty, and holds no `_`, which parts the
    fields of our names. `+31201234567` stays as it is; a dialled `*21*0612#` becomes `star-21-star-0612-hash`.
    """
    if max_bytes < _SMALLEST_LIMIT:
        raise ValueError(f"a part of a file name may not be limited to less than {_SMALLEST_LIMIT} bytes")
    if _DIAL_STRING.match(text):
        text = re.sub(r"-+", "-", text.replace("*", "-star-").replace("#", "-hash-"))
    # Only so much as could ever fit is looked at: a display name of 60 kB is nobody's name.
    clean = _cleaned(text[: 8 * max_bytes], _file_name_character).strip(_EDGES)
    clean = _cut(clean, max_bytes).strip(_EDGES)
    if _RESERVED.match(clean):
        clean = _cut("x-" + clean, max_bytes).strip(_EDGES)
    return clean or UNKNOWN


def for_line(text: str, max_length: int = 2000) -> str:
    """Return `text` as one line of at most `max_length` characters, without blanks at its ends.

    Line breaks of any kind (U+2028, U+2029 and U+0085 too) and tabs become a space, other control characters U+FFFD;
    bidirectional and invisible characters go. A text that was cut ends in an ellipsis.
    """
    if len(text) <= max_length and text.isascii() and text.isprintable():
        return text.strip()
    clean = _cleaned(text[: 2 * max_length], _line_character).strip()
    if len(clean) > max_length or len(text) > 2 * max_length:
        clean = clean[: max_length - 1].rstrip() + "…"
    return clean


def for_terminal(text: str, max_length: int = 200) -> str:
    """Return `text` as something that a terminal can only print: one line, no escape sequences, at most `max_length`
    characters.
    """
    return for_line(text, max_length)


def for_json(value: Any) -> Any:
    """Return `value` with every text in it, keys too, made one safe line, numbers that JSON lacks made null, and what
    is no JSON at all, as a path, made text.

    `json.dumps` alone escapes C0, but neither C1 control characters nor line separators.
    """
    if isinstance(value, str):
        return for_line(value)
    if isinstance(value, dict):
        return {for_line(str(key)): for_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [for_json(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, int) else for_line(str(value))


def _cleaned(text: str, replace: Callable[[str], str]) -> str:
    """Normalise to NFC, replace character by character, and normalise what has thereby become neighbours."""
    visible = _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    if not (visible.isascii() and visible.isalnum()):
        visible = "".join(map(replace, visible))
    return unicodedata.normalize("NFC", visible)


def _file_name_character(char: str) -> str:
    if char in _ILLEGAL_IN_FILE_NAMES or char == "_":
        return "-"
    category = unicodedata.category(char)
    if category[0] == "Z":
        return " "
    return "" if category[0] == "C" else char


def _line_character(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Zl", "Zp") or char in "\t\n\v\f\r\x85":
        return " "
    if category == "Cf":
        return ""
    return REPLACEMENT if category in ("Cc", "Cs") else char


def _cut(text: str, max_bytes: int) -> str:
    """Cut to `max_bytes` of UTF-8 without breaking a character."""
    return text.encode()[:max_bytes].decode(errors="ignore")
