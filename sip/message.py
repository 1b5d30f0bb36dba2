"""SIP messages: bytes to values (RFC 3261 sections 7, 18.3 and 25), tolerant of what real phones send.

A message is parsed as far as a listener needs it: the start line, the headers in their order and the body. What does
not say which dialog it belongs to (no Call-ID, CSeq, From or To) is a `SipError`; all else that is odd is passed on.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from .headers import (
    LONG_NAMES,
    MAX_VALUES,
    TOKEN,
    Address,
    CSeq,
    Via,
    decode,
    parse_address,
    parse_cseq,
    parse_via,
    split_values,
)

MAX_MESSAGE = 65_535  # no longer than a UDP datagram, on streams too
MAX_HEADERS = 512
MAX_LINE = 16_384
MAX_IDENTIFIER = 4_096  # of a Call-ID, a From or a To

_BEGINNING = re.compile(rb"SIP/2|[A-Z]+ (?:sips?|tel|urn):", re.IGNORECASE)
BLANK_LINE = re.compile(rb"\n\r?\n")
_KEEP_ALIVE_BYTES = (b"\r", b"\n", b"\0")
KEEP_ALIVE = b"".join(_KEEP_ALIVE_BYTES)  # RFC 5626 section 3.5.1, and what some phones send in its place


class SipError(ValueError):
    """Bytes that are no SIP message; `kind` is a short stable reason to count by."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True)
class Message:
    """A request (`status` 0) or a response (`method` ""). Header names are long and lower-case, in the order sent.

    `raw` is the message as it came. Neither it nor the body, which may hold keys, shows in a `repr`.
    """

    method: str
    uri: str
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)
    raw: bytes = field(default=b"", repr=False, compare=False)

    def get(self, name: str) -> str:
        """The first header of that name, "" if there is none."""
        return self._first.get(name, "")

    @cached_property
    def _first(self) -> dict[str, str]:
        return dict(reversed(self.headers))

    def get_all(self, name: str) -> list[str]:
        """Every header of that name as written, from the top."""
        return [value for key, value in self.headers if key == name]

    def values(self, name: str) -> list[str]:
        """The first members of a comma-separated header, over all its lines (RFC 3261 section 7.3.1)."""
        return [member for value in self.get_all(name) for member in split_values(value)][:MAX_VALUES]

    @cached_property
    def call_id(self) -> str:
        """The Call-ID, compared byte by byte (RFC 3261 section 20.8)."""
        return self.get("call-id")

    @cached_property
    def cseq(self) -> CSeq:
        """Sequence number and method; `parse` has made sure that there is one."""
        return parse_cseq(self.get("cseq")) or CSeq(0, self.method)

    @cached_property
    def from_(self) -> Address:
        """Who sent the request (in a response: the request that it answers)."""
        return parse_address(self.get("from"))

    @cached_property
    def to(self) -> Address:
        """Whom the request was meant for."""
        return parse_address(self.get("to"))

    @cached_property
    def vias(self) -> list[Via]:
        """The hops, newest first."""
        return [parse_via(value) for value in self.values("via")]

    @cached_property
    def content_type(self) -> str:
        """The body's media type in lower case, without parameters."""
        return self.get("content-type").partition(";")[0].strip().lower()


def looks_like_sip(data: bytes) -> bool:
    """Whether the first line could be a SIP start line; cheap, and no promise that `parse` will succeed."""
    line = data[:MAX_LINE].lstrip(KEEP_ALIVE).partition(b"\n")[0].rstrip()
    if line[:4].upper() == b"SIP/":
        return True
    return line[-7:-3].upper() == b"SIP/" and b" " in line and line[:1].isascii() and line[:1] > b" "


def may_begin_sip(data: bytes) -> bool:
    """Whether a stream that begins so may carry SIP: the first segment may end within the start line."""
    return bool(_BEGINNING.match(data.lstrip(KEEP_ALIVE))) or looks_like_sip(data)


def parse(data: bytes, *, stream: bool = False) -> Message:
    """One message of a datagram, or of a stream that a `Framer` has cut.

    On UDP the body ends where Content-Length or the datagram does, whichever is first (RFC 3261 section 18.3); with
    `stream` Content-Length must be readable and all of the body there.

    Raises:
        SipError: of kind "too long", "start line", "version", "status", "too many headers", "content length", or
            "call-id", "cseq", "from", "to" where that header is missing, unreadable or absurdly long.

    """
    data = data.lstrip(KEEP_ALIVE)
    if len(data) > MAX_MESSAGE:
        raise SipError("too long")
    head, body = _split(data)
    lines = _unfold(head)
    method, uri, status, reason = _start_line(next(lines, ""))
    headers = _headers(lines)
    message = Message(method, uri, status, reason, headers, _cut_body(body, headers, stream), data)
    _check(message)
    return message


def _split(data: bytes) -> tuple[bytes, bytes]:
    blank = BLANK_LINE.search(data)
    return (data[: blank.start()], data[blank.end() :]) if blank else (data, b"")


def _unfold(head: bytes) -> Iterator[str]:
    """Logical lines: one that begins with white space continues the one before (RFC 3261 section 7.3.1)."""
    if b"\n " not in head and b"\n\t" not in head and head.isascii():  # as it mostly is
        yield from (line.rstrip("\r").rstrip(" \t") for line in head.decode("ascii").split("\n"))
        return
    parts: list[str] = []
    for raw in head.split(b"\n"):
        line = decode(raw.rstrip(b"\r"))
        if line[:1] in (" ", "\t") and parts:
            parts.append(line.strip(" \t"))
            continue
        if parts:
            yield " ".join(parts)
        parts = [line.rstrip(" \t")]
    if parts:
        yield " ".join(parts)


def _start_line(line: str) -> tuple[str, str, int, str]:
    """Method, URI, status and reason of a Request-Line or Status-Line (RFC 3261 sections 7.1 and 7.2)."""
    if line[:4].upper() == "SIP/":
        version, _, rest = line.partition(" ")
        code, _, reason = rest.strip().partition(" ")
        _check_version(version)
        if not re.fullmatch("[1-6][0-9][0-9]", code):
            raise SipError("status")
        return "", "", int(code), reason.strip()
    method, _, rest = line.partition(" ")
    uri, _, version = rest.rstrip().rpartition(" ")
    if not TOKEN.match(method) or not uri.strip() or version[:4].upper() != "SIP/":
        raise SipError("start line")
    _check_version(version)
    # Section 7.1 forbids the brackets, yet some send them (RFC 4475 section 3.1.2.7).
    return method, uri.strip().removeprefix("<").removesuffix(">"), 0, ""


def _check_version(version: str) -> None:
    if version.upper() != "SIP/2.0":
        raise SipError("version")


def _headers(lines: Iterator[str]) -> tuple[tuple[str, str], ...]:
    """Name and value of each line; a line that is no header is left out, as phones leave it out."""
    headers: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.strip(" \t").lower()
        if not colon or not TOKEN.match(name):
            continue
        if len(headers) == MAX_HEADERS:
            raise SipError("too many headers")
        headers.append((LONG_NAMES.get(name, name), value.strip(" \t")))
    return tuple(headers)


def content_length(headers: tuple[tuple[str, str], ...]) -> int | None:
    """Octets of body as stated, None where nothing is stated.

    Raises:
        SipError: of kind "content length" for what is no number from 0 to `MAX_MESSAGE`.

    """
    text = next((value for name, value in headers if name == "content-length"), None)
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > MAX_MESSAGE:
        raise SipError("content length")
    return int(text)


def _cut_body(body: bytes, headers: tuple[tuple[str, str], ...], stream: bool) -> bytes:
    try:
        length = content_length(headers)
    except SipError:
        if stream:
            raise
        length = None
    if length is None:
        return body
    if stream and length > len(body):
        raise SipError("content length")
    return body[:length]


def _check(message: Message) -> None:
    """The headers without which no dialog can be told (RFC 3261 section 8.1.1)."""
    for name in ("call-id", "from", "to"):
        if not 0 < len(message.get(name)) <= MAX_IDENTIFIER:
            raise SipError(name)
    if parse_cseq(message.get("cseq")) is None:
        raise SipError("cseq")


class Framer:
    """Cuts one direction of a TCP connection into messages (RFC 3261 sections 7.5 and 18.3).

    How the bytes are cut into segments makes no difference to the messages. After bytes that are no message it gives
    one `SipError` and drops lines until one looks like a start line.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lost = False
        self._needed = 0  # octets of the message under way, once its head has told

    @property
    def waiting(self) -> int:
        """Octets that are kept."""
        return len(self._buffer)

    def reset(self) -> None:
        """Bytes are missing from the stream: forget the message under way and look for the next start line."""
        self._buffer.clear()
        self._needed = 0
        self._lost = True

    def feed(self, data: bytes) -> list[Message | SipError]:
        """Messages that `data` completes, with the errors between them, in the order of the stream."""
        self._buffer += data
        found: list[Message | SipError] = []
        while True:
            try:
                item = self._next()
            except SipError as error:
                item = error
                self._lose()
            if item is None:
                return found
            found.append(item)

    def _next(self) -> Message | SipError | None:
        """The message at the head of the buffer, None if more bytes are needed; raises where its end cannot be told."""
        if len(self._buffer) < self._needed:
            return None
        if self._lost:
            self._find_start()
        self._trim()
        end = self._line_end()
        if self._lost or end is None:
            return None
        if not looks_like_sip(bytes(self._buffer[:end])):
            raise SipError("start line")
        blank = BLANK_LINE.search(self._buffer, 0, MAX_MESSAGE)
        if blank is None:
            if len(self._buffer) >= MAX_MESSAGE:
                raise SipError("too long")
            return None
        return self._take(blank.start(), blank.end())

    def _take(self, head_end: int, body_start: int) -> Message | SipError | None:
        lines = _unfold(bytes(self._buffer[:head_end]))
        next(lines)
        length = content_length(_headers(lines)) or 0
        end = body_start + length
        if end > MAX_MESSAGE:
            raise SipError("too long")
        self._needed = end if len(self._buffer) < end else 0
        if self._needed:
            return None
        data = bytes(self._buffer[:end])
        del self._buffer[:end]
        try:
            return parse(data, stream=True)
        except SipError as error:
            return error

    def _trim(self) -> None:
        """Drop keep-alives before a start line (RFC 3261 section 7.5)."""
        if self._buffer[:1] in _KEEP_ALIVE_BYTES:
            del self._buffer[: len(self._buffer) - len(self._buffer.lstrip(KEEP_ALIVE))]

    def _line_end(self) -> int | None:
        """Where the first line ends, or that it is too long to be a start line; None while that is open."""
        end = self._buffer.find(b"\n", 0, MAX_LINE)
        if end >= 0:
            return end
        return MAX_LINE if len(self._buffer) >= MAX_LINE else None

    def _lose(self) -> None:
        """Give the line at the head of the buffer up as a start line."""
        self._lost = True
        self._drop_line()

    def _drop_line(self) -> bool:
        """Drop the first line; if it has no end yet, keep only as much as shows it to be too long."""
        end = self._buffer.find(b"\n")
        if end < 0:
            del self._buffer[MAX_LINE:]
            return False
        del self._buffer[: end + 1]
        return True

    def _find_start(self) -> None:
        while self._lost:
            self._trim()
            end = self._line_end()
            if end is None:
                return
            if end < MAX_LINE and looks_like_sip(bytes(self._buffer[:end])):
                self._lost = False
            elif not self._drop_line():
                return
