"""TLS records cut out of a stream of bytes (RFC 5246 section 6.2, RFC 8446 section 5.1), also after bytes were lost."""

import re
from dataclasses import dataclass, field

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION, HEARTBEAT = range(20, 25)
CLIENT_HELLO, SERVER_HELLO = 1, 2
HEAD = 5
MAX_BODY = (1 << 14) + 2048
MAX_MESSAGE = 1 << 16
"""Bytes of a handshake message that is read: chains of certificates are long."""
_BEGINNING = re.compile(rb"[\x14-\x18]\x03[\x00-\x04]")


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it crossed the wire; `gap`: something before it is missing."""

    kind: int
    version: int
    body: bytes = field(repr=False)
    gap: bool = False


def begins_session(data: bytes) -> bool:
    """Tell whether a stream that begins so begins with a ClientHello."""
    return (
        len(data) >= 6 and data[0] == HANDSHAKE and data[1] == 3 and data[2] <= 4 and data[5] == CLIENT_HELLO
    ) and 4 <= int.from_bytes(data[3:5], "big") <= MAX_BODY


class Cutter:
    """Cuts one direction of a connection into records, however it was cut into segments.

    `skipped` counts the bytes that are no records: after a loss, up to where the next record begins.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._buffer = bytearray()
        self._lost = False
        self._gap = False

    @property
    def waiting(self) -> int:
        """Bytes of a record that is not whole yet."""
        return len(self._buffer)

    def reset(self) -> None:
        """Bytes are missing from the stream: what is there of a record is of no use, and where one begins is unsure."""
        self.skipped += len(self._buffer)
        self._buffer.clear()
        self._lost = self._gap = True

    def feed(self, data: bytes) -> list[Record]:
        """Take what follows; return the records that are whole now."""
        self._buffer += data
        found: list[Record] = []
        while True:
            if self._lost and not self._find():
                return found
            record = self._next()
            if record is None and not self._lost:
                return found
            if record is not None:
                found.append(record)

    def _next(self) -> Record | None:
        """Take the record at the head of the buffer, if it is whole; mark the stream as lost if there is none."""
        buffer = self._buffer
        if len(buffer) < HEAD:
            return None
        size = int.from_bytes(buffer[3:5], "big")
        if not _BEGINNING.match(buffer) or size > MAX_BODY:
            self._lost = self._gap = True
            self._skip(1)
            return None
        if len(buffer) < HEAD + size:
            return None
        gap, self._gap = self._gap, False
        record = Record(buffer[0], int.from_bytes(buffer[1:3], "big"), bytes(buffer[HEAD : HEAD + size]), gap)
        del buffer[: HEAD + size]
        return record

    def _find(self) -> bool:
        """Look for what may begin a record, and is followed by another or nothing; drop what comes before."""
        place = 0
        while True:
            found = _BEGINNING.search(self._buffer, place)
            if found is None:
                self._skip(max(len(self._buffer) - 2, 0))
                return False
            start = found.start()
            head = self._buffer[start : start + HEAD]
            size = int.from_bytes(head[3:5], "big")
            after = self._buffer[start + HEAD + size : start + 2 * HEAD + size]
            if len(head) == HEAD and 0 < size <= MAX_BODY and (len(after) < 3 or _BEGINNING.match(after)):
                self._skip(start)
                self._lost = False
                return True
            if len(head) < HEAD:
                self._skip(start)
                return False
            place = start + 1

    def _skip(self, count: int) -> None:
        self.skipped += count
        del self._buffer[:count]


class Messages:
    """Puts the handshake messages of one direction together: several may share a record, one may take several."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def waiting(self) -> int:
        """Bytes of a message that is not whole yet."""
        return len(self._buffer)

    def reset(self) -> None:
        """Something is missing: forget the message under way."""
        self._buffer.clear()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that are whole now, each with its head of four bytes. What is too long is dropped."""
        self._buffer += data
        found = []
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[1:4], "big")
            if end > MAX_MESSAGE:
                self._buffer.clear()
                break
            if len(self._buffer) < end:
                break
            found.append(bytes(self._buffer[:end]))
            del self._buffer[:end]
        return found
