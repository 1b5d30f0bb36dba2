"""The text file beside a recording, `..._info.txt`: UTF-8, one `Key: value` a line, LF. docs/info-file.md lists the
keys.

A key may come several times (`Gap`, `RelatedCalls`); the order is kept. Values come from the wire and are made safe
here.
"""

import re
from collections.abc import Iterable

from .safe_text import for_line

Pairs = list[tuple[str, str]]

MAX_SIZE = 4 << 20
"""The longest info file read or written, in bytes."""

_KEY = re.compile(r"[A-Z][A-Za-z0-9]*(?:-[A-Z][A-Za-z0-9]*)*")


class InfoError(ValueError):
    """The bytes are not an info file; the message says which line and why."""


def render(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Return the file's bytes. Raises ValueError for a key of a wrong form or for more than 4 MiB: that is a mistake
    of ours.
    """
    lines: list[str] = []
    for key, value in pairs:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a key of an info file: {key!r}")
        lines.append(f"{key}: {for_line(value)}".rstrip() + "\n")
    content = "".join(lines).encode()
    if len(content) > MAX_SIZE:
        raise ValueError(f"an info file of {len(content)} bytes")
    return content


def parse(content: bytes) -> Pairs:
    """Return the pairs of an info file in their order. Raises InfoError."""
    if len(content) > MAX_SIZE:
        raise InfoError(f"{len(content)} bytes are too many for an info file")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InfoError(f"not UTF-8 at byte {error.start}") from None
    if text and not text.endswith("\n"):
        raise InfoError("the last line is cut")
    return [_pair(number, line) for number, line in enumerate(text.split("\n")[:-1], 1)]


def _pair(number: int, line: str) -> tuple[str, str]:
    key, colon, value = line.partition(":")
    if not colon or not _KEY.fullmatch(key):
        raise InfoError(f"line {number} is not `Key: value`")
    return key, value.removeprefix(" ")
