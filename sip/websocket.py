"""SIP over WebSocket (RFC 7118): the frames of one direction of a connection, behind its HTTP upgrade (RFC 6455).

A message is a WebSocket message, in one frame or several, masked by the client, perhaps compressed (RFC 7692). A
listener may come in the middle, and may miss bytes: then it goes on where a frame begins that holds the begin of SIP.
"""

import re
import zlib
from dataclasses import dataclass
from typing import Any

from .message import MAX_MESSAGE, Message, SipError, may_begin_sip, parse

MAX_HEAD = 16_384
"""Bytes of an HTTP request or response before its frames."""
_UPGRADE = re.compile(rb"(?:GET [^\r\n]* HTTP/1|HTTP/1\.[01] 101\b)", re.IGNORECASE)
_HTTP = (bytearray(b"G"), bytearray(b"H"))
_PROTOCOL = re.compile(rb"\n[ \t]*sec-websocket-protocol[ \t]*:[^\r\n]*\bsip\b", re.IGNORECASE)
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CONTINUED, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_MOST_HEADER = 14
_INFLATER = 40 << 10
"""What zlib takes to decompress, in bytes."""
_SHORTEST = 16
"""Bytes by which the begin of a message can be told."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame's header (RFC 6455 section 5.2): `start` is where its payload begins, `size` how long that is."""

    final: bool
    compressed: bool
    opcode: int
    start: int
    size: int
    key: bytes


def may_begin_websocket(data: bytes) -> bool:
    """Whether a stream that begins so may carry SIP over WebSocket: its upgrade, or a frame with the begin of SIP."""
    if _UPGRADE.match(data):
        return bool(_PROTOCOL.search(data[:MAX_HEAD]))
    return _begins_message(data)


def _begins_message(data: bytes) -> bool:
    try:
        frame = frame_of(data)
    except SipError:
        return False
    if frame is None or frame.opcode not in (_TEXT, _BINARY) or frame.compressed or frame.size > MAX_MESSAGE:
        return False
    begin = data[frame.start : frame.start + min(frame.size, 1500)]
    return len(begin) >= _SHORTEST and may_begin_sip(unmasked(begin, frame.key))


def frame_of(data: bytes | bytearray) -> Frame | None:
    """The header of the frame that `data` begins with, None while that is not whole.

    Raises:
        SipError: of kind "websocket frame", for what cannot be one.

    """
    if len(data) < 2:
        return None
    first, second = data[0], data[1]
    opcode, size, start = first & 0x0F, second & 0x7F, 2
    control = opcode >= _CLOSE
    known = opcode in (_CONTINUED, _TEXT, _BINARY, _CLOSE, _PING, _PONG)
    if not known or first & 0x30 or (control and (size > 125 or not first & 0x80 or first & 0x40)):
        raise SipError("websocket frame")
    if size >= 126:
        start += 2 if size == 126 else 8
        size = int.from_bytes(data[2:start])
    masked = second & 0x80 != 0
    end = start + 4 * masked
    if len(data) < end:
        return None
    return Frame(first & 0x80 != 0, first & 0x40 != 0, opcode, end, size, bytes(data[start:end]))


def unmasked(data: bytes, key: bytes) -> bytes:
    """A payload without its mask (RFC 6455 section 5.3); `key` is empty for none."""
    if not key:
        return data
    mask = (key * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(mask)).to_bytes(len(data))


class WebSocketFramer:
    """Cuts one direction of a connection into SIP messages, as `message.Framer` does for TCP."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._message = bytearray()
        self._under_way: Frame | None = None  # the first frame of the message under way
        self._begun = False
        self._lost = False
        self._skip = 0
        self._inflater: Any = None  # most connections do not compress

    @property
    def waiting(self) -> int:
        """Octets that are kept."""
        return len(self._buffer) + len(self._message) + (_INFLATER if self._inflater is not None else 0)

    def reset(self) -> None:
        """Bytes are missing from the stream: forget what is under way, and look for the next message."""
        self._buffer.clear()
        self._drop()
        self._skip = 0
        self._lost = True
        self._inflater = None

    def feed(self, data: bytes) -> list[Message | SipError]:
        """Messages that `data` completes, with the errors between them, in the order of the stream."""
        self._buffer += data
        found: list[Message | SipError] = []
        while True:
            try:
                going, item = self._next()
            except SipError as error:
                going, item = False, error
                self._lost = True
                self._buffer.clear()
                self._drop()
            if item is not None:
                found.append(item)
            if not going:
                return found

    def _next(self) -> tuple[bool, Message | SipError | None]:
        """Take one step: whether there may be more, and what it gave."""
        if self._skip:
            skipped = min(self._skip, len(self._buffer))
            del self._buffer[:skipped]
            self._skip -= skipped
        if not self._buffer or not self._is_placed():
            return False, None
        frame = frame_of(self._buffer)
        if frame is None:
            return False, None
        if frame.size > MAX_MESSAGE:
            del self._buffer[: frame.start]
            self._skip = frame.size
            self._drop()
            return True, SipError("too long")
        end = frame.start + frame.size
        if len(self._buffer) < end:
            return False, None
        payload = unmasked(bytes(self._buffer[frame.start : end]), frame.key)
        del self._buffer[:end]
        return True, self._take(frame, payload)

    def _is_placed(self) -> bool:
        """Whether the buffer begins with a frame, as far as can be told; an HTTP head before it is passed over."""
        if self._lost:
            self._begun = not _UPGRADE.match(self._buffer)
            if self._begun and not _begins_message(bytes(self._buffer[: _MOST_HEADER + 1500])):
                self._buffer.clear()
                return False
            self._lost = False
        if not self._begun:
            if self._buffer[:1].upper() in _HTTP:
                end = _HEAD_END.search(self._buffer, 0, MAX_HEAD)
                if end is None:
                    if len(self._buffer) >= MAX_HEAD:
                        raise SipError("too long")
                    return False
                del self._buffer[: end.end()]
            self._begun = True
        return bool(self._buffer)

    def _take(self, frame: Frame, payload: bytes) -> Message | SipError | None:
        if frame.opcode >= _CLOSE:
            return None
        if frame.opcode != _CONTINUED:
            self._drop()
            self._under_way = frame
        if self._under_way is None:
            return SipError("websocket frame")  # the rest of a message whose begin was missed
        if len(self._message) + len(payload) > MAX_MESSAGE:
            self._drop()
            return SipError("too long")
        self._message += payload
        if not frame.final:
            return None
        text, compressed = bytes(self._message), self._under_way.compressed
        self._drop()
        try:
            text = self._inflated(text) if compressed else text
            return parse(text) if text.strip(b"\r\n\0 ") else None
        except SipError as error:
            return error

    def _inflated(self, data: bytes) -> bytes:
        """A message as it was before it was compressed (RFC 7692 section 7.2.2)."""
        inflater = self._inflater or zlib.decompressobj(-zlib.MAX_WBITS)
        self._inflater = None
        try:
            text: bytes = inflater.decompress(data + b"\0\0\xff\xff", MAX_MESSAGE + 1)
        except zlib.error:
            raise SipError("websocket compression") from None
        if not (inflater.eof or inflater.unconsumed_tail):
            self._inflater = inflater
        if len(text) > MAX_MESSAGE:
            raise SipError("too long")
        return text

    def _drop(self) -> None:
        self._message.clear()
        self._under_way = None
