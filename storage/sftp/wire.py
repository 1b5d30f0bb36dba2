"""SFTP version 3 as bytes: requests packed, replies matched. draft-ietf-secsh-filexfer-02, OpenSSH's PROTOCOL.

Many requests go out together and are answered in any order. A server has to carry out those of one file as if it took
them one by one (section 6 of the draft), so that write, fsync and close may be sent in one go.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE, UNSUPPORTED = 0, 1, 2, 3, 4, 5, 8
READING, WRITING, CREATING, EXCLUSIVE = 0x01, 0x02, 0x08, 0x20

_VERSION, _STATUS, _HANDLE, _DATA, _NAME, _ATTRS, _EXTENDED_REPLY = 2, 101, 102, 103, 104, 105, 201
_HEAD = struct.Struct(">IBI")
_WORD = struct.Struct(">I")
_LONGEST = 1 << 20
"""No reply may be longer: what asks for more memory is no SFTP server."""


class Garbled(Exception):
    """What came is no SFTP."""


class Request(NamedTuple):
    """A request without its number."""

    kind: int
    parts: tuple[bytes | memoryview, ...]


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a server tells of a file; None where it does not."""

    size: int | None = None
    mode: int | None = None

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file, as far as is known."""
        return self.mode is None or S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, as far as is known."""
        return self.mode is None or S_ISDIR(self.mode)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `data` is a handle, content, or what an extension gives back."""

    code: int = OK
    text: str = ""
    data: bytes = b""
    attributes: Attributes = Attributes()
    names: tuple[tuple[bytes, Attributes], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.code == OK


class Ticket:
    """Stands for the reply that is to come."""

    __slots__ = ("reply",)

    def __init__(self) -> None:
        self.reply: Reply | None = None


def _text(value: bytes) -> bytes:
    return _WORD.pack(len(value)) + value


def open_file(path: bytes, flags: int, mode: int = 0) -> Request:
    """Open or make a file, with these permission bits."""
    attributes = struct.pack(">II", 4, mode) if flags & CREATING else _WORD.pack(0)
    return Request(3, (_text(path), _WORD.pack(flags), attributes))


def close(handle: bytes) -> Request:
    """Give a handle back."""
    return Request(4, (_text(handle),))


def read(handle: bytes, offset: int, length: int) -> Request:
    """Read bytes."""
    return Request(5, (_text(handle), struct.pack(">QI", offset, length)))


def write(handle: bytes, offset: int, data: bytes | memoryview) -> Request:
    """Write bytes."""
    return Request(6, (_text(handle), struct.pack(">QI", offset, len(data)), data))


def lstat(path: bytes) -> Request:
    """Ask for a file's attributes; of a link itself."""
    return Request(7, (_text(path),))


def fstat(handle: bytes) -> Request:
    """Ask for an open file's attributes."""
    return Request(8, (_text(handle),))


def open_folder(path: bytes) -> Request:
    """Begin to list a folder."""
    return Request(11, (_text(path),))


def list_more(handle: bytes) -> Request:
    """Ask for more names of a folder."""
    return Request(12, (_text(handle),))


def remove(path: bytes) -> Request:
    """Remove a file."""
    return Request(13, (_text(path),))


def make_folder(path: bytes, mode: int) -> Request:
    """Make a folder with these permission bits."""
    return Request(14, (_text(path), struct.pack(">II", 4, mode)))


def remove_folder(path: bytes) -> Request:
    """Remove an empty folder."""
    return Request(15, (_text(path),))


def stat(path: bytes) -> Request:
    """Ask for a file's attributes; of what a link leads to."""
    return Request(17, (_text(path),))


def rename(old: bytes, new: bytes) -> Request:
    """Rename; many servers refuse where the new name exists, some replace it."""
    return Request(18, (_text(old), _text(new)))


def extended(name: str, *values: bytes) -> Request:
    """Ask for what is beyond version 3."""
    return Request(200, (_text(name.encode()), *map(_text, values)))


def hello() -> bytes:
    """Return the first packet of a session."""
    return struct.pack(">IBI", 5, 1, 3)


class Wire:
    """One session's requests and replies; `send` takes bytes to the server. Belongs to one thread."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self.extensions: Mapping[str, bytes] = {}
        self.greeted = False
        self._send = send
        self._queued: list[bytes | memoryview] = []
        self._queued_bytes = 0
        self._number = 0
        self._unanswered: dict[int, Ticket] = {}
        self._received = bytearray()

    @property
    def unanswered(self) -> int:
        """Return how many requests wait for their reply, those that are not sent yet among them."""
        return len(self._unanswered)

    @property
    def queued_bytes(self) -> int:
        """Return how much waits for `flush`."""
        return self._queued_bytes

    def post(self, request: Request) -> Ticket:
        """Queue a request."""
        self._number = (self._number + 1) & 0xFFFFFFFF
        size = sum(map(len, request.parts)) + 5
        self._queued += (_HEAD.pack(size, request.kind, self._number), *request.parts)
        self._queued_bytes += size + 4
        ticket = self._unanswered[self._number] = Ticket()
        return ticket

    def flush(self) -> None:
        """Send what is queued, in one go."""
        if self._queued:
            data = b"".join(self._queued)
            self._queued, self._queued_bytes = [], 0
            self._send(data)

    def receive(self, data: bytes) -> None:
        """Take what the server sent. Raises Garbled."""
        self._received += data
        while len(self._received) >= 4:
            (size,) = _WORD.unpack_from(self._received)
            if not 5 <= size <= _LONGEST:
                raise Garbled(f"a packet of {size} bytes")
            if len(self._received) < 4 + size:
                return
            packet = bytes(memoryview(self._received)[4 : 4 + size])
            del self._received[: 4 + size]
            try:
                self._take(packet)
            except (struct.error, IndexError) as error:
                raise Garbled("a packet that ends too soon") from error

    def _take(self, packet: bytes) -> None:
        number = _WORD.unpack_from(packet, 1)[0]
        if packet[0] == _VERSION:
            if number < 3:
                raise Garbled(f"version {number}; at least 3 is needed")
            self.extensions, self.greeted = _extensions(packet), True
        elif (ticket := self._unanswered.pop(number, None)) is None:
            raise Garbled("an answer that nobody asked for")
        else:
            ticket.reply = _reply(packet)


class _Fields:
    """Reads a packet field by field."""

    def __init__(self, packet: bytes, position: int = 5) -> None:
        self.packet, self.position = packet, position

    def word(self) -> int:
        self.position += 4
        return int(_WORD.unpack_from(self.packet, self.position - 4)[0])

    def text(self) -> bytes:
        size = self.word()
        self.position += size
        if self.position > len(self.packet):
            raise IndexError
        return self.packet[self.position - size : self.position]

    def attributes(self) -> Attributes:
        flags = self.word()
        size = (self.word() << 32 | self.word()) if flags & 1 else None
        if flags & 2:
            self.position += 8
        mode = self.word() if flags & 4 else None
        if flags & 8:
            self.position += 8
        for _ in range(self.word() if flags & 0x80000000 else 0):
            self.text(), self.text()
        return Attributes(size, mode)


def _reply(packet: bytes) -> Reply:
    fields = _Fields(packet)
    if packet[0] == _STATUS:
        code = fields.word()
        return Reply(code, fields.text().decode(errors="replace") if len(packet) > 9 else "")
    if packet[0] in (_HANDLE, _DATA):
        return Reply(data=fields.text())
    if packet[0] == _ATTRS:
        return Reply(attributes=fields.attributes())
    if packet[0] == _NAME:
        names = []
        for _ in range(fields.word()):
            name, _longname = fields.text(), fields.text()
            names.append((name, fields.attributes()))
        return Reply(names=tuple(names))
    if packet[0] == _EXTENDED_REPLY:
        return Reply(data=packet[5:])
    raise Garbled(f"an answer of kind {packet[0]}")


def _extensions(packet: bytes) -> dict[str, bytes]:
    fields, found = _Fields(packet), {}
    while fields.position < len(packet):
        name = fields.text().decode(errors="replace")
        found[name] = fields.text()
    return found
