"""A call's spool file as it may be kept: without the keys that its SIP tells, and decrypted if it was SRTP.

Keys give way to as many `x`, so that nothing else moves. The sound of an encrypted call follows in a second section
(draft-ietf-opsawg-pcapng section 3.1), decrypted, in place of its frames.
"""

import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

from ..sniffer import blocks

_KEYS = re.compile(
    rb"(?<=inline:)[ \t]*[A-Za-z0-9+/=]+"  # RFC 4568
    rb"|(?<=mikey )[ \t]*[A-Za-z0-9+/=]+"  # RFC 4567
    rb"|(?:(?<=k=clear:)|(?<=k=base64:))[^\r\n]+",  # RFC 4566 section 5.12
    re.IGNORECASE,
)
_PACKET = 6
_HEAD, _TAIL = 28, 4
_MOST = 1 << 24
"""No block of a spool file is longer, in bytes."""
PART = 1 << 20


def blanked(file: BinaryIO, encrypted: bool) -> Iterator[bytes]:
    """Yield the file's bytes. Of an `encrypted` call only what is said is left. A file that breaks off ends early."""
    held: list[bytes] = []
    size = 0
    while True:
        block = _next(file)
        if block is not None:
            block = _cleaned(block, encrypted)
            held.append(block)
            size += len(block)
        if block is None or size >= PART:
            yield b"".join(held)
            held, size = [], 0
        if block is None:
            return


def _next(file: BinaryIO) -> bytes | None:
    head = file.read(8)
    if len(head) < 8:
        return None
    (size,) = struct.unpack_from("<I", head, 4)
    if size < 12 or size > _MOST:
        return None
    rest = file.read(size - 8)
    return head + rest if len(rest) == size - 8 else None


def _cleaned(block: bytes, encrypted: bool) -> bytes:
    """Return a block as it may be kept, nothing if it may not."""
    kind, _, interface = struct.unpack_from("<III", block)
    if kind != _PACKET or len(block) < _HEAD + _TAIL:
        return block
    if interface:
        return b"" if encrypted else block
    (length,) = struct.unpack_from("<I", block, 20)
    packet, rest = block[_HEAD : _HEAD + length], block[_HEAD + length :]
    at = _payload(packet)
    if encrypted and b"SIP/2.0" not in packet[at:].partition(b"\n")[0].upper():
        return b""  # media that came in fragments
    return block[:_HEAD] + _without_keys(packet, at) + rest


def _payload(packet: bytes) -> int:
    """Return where the payload of a UDP datagram in a plain IP packet begins (`sniffer.blocks.datagram`)."""
    return 48 if packet[:1] >= b"\x60" else 28


def _without_keys(packet: bytes, at: int) -> bytes:
    payload = _KEYS.sub(lambda found: b"x" * len(found[0]), packet[at:])
    if payload == packet[at:]:
        return packet
    head = packet[:at]
    if at == 48:  # UDP over IPv6 must have a checksum (RFC 8200 section 8.1)
        pseudo = head[8:40] + struct.pack(">II", len(payload) + 8, 17)
        total = blocks.checksum(pseudo + head[40:46] + bytes(2) + payload) or 0xFFFF
        head = head[:46] + struct.pack(">H", total)
    return head + payload
