"""A call's spool file as it may be kept: without the keys that its SIP tells, and decrypted if it was SRTP.

Keys give way to as many `x`, so that nothing else moves. The sound of an encrypted call follows in a second section
(draft-ietf-opsawg-pcapng section 3.1), decrypted, in place of its frames. Where the call's keys are masked, those that
SIP tells are hidden, and payloads give way to those that were masked (`masking.py`).
"""

import re
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from ..sip import keys
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


Patch = tuple[int, int, bytes]
"""Where in the file a payload lies, how many bytes of RTP header before it, and what is to be there."""


def blanked(file: BinaryIO, encrypted: bool, *, masked: bool = False, patches: Sequence[Patch] = ()) -> Iterator[bytes]:
    """Yield the file's bytes. Of an `encrypted` call only what is said is left. A file that breaks off ends early.

    `masked`: keys in SIP are hidden; `patches` are payloads that are to be written over.
    """
    held: list[bytes] = []
    size = place = 0
    rest = sorted(patches, reverse=True)
    while True:
        block = _next(file)
        if block is not None:
            start, place = place, place + len(block)
            block = _patched(block, start, rest)
            block = _cleaned(block, encrypted, masked)
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


def _patched(block: bytes, start: int, rest: list[Patch]) -> bytes:
    """Return a block, which begins at `start`, with those payloads that lie in it; `rest` are patches, the last first.

    What a payload adds to the UDP checksum changes by as much as its words do (RFC 1624).
    """
    if not rest or rest[-1][0] >= start + len(block):
        return block
    changed = bytearray(block)
    while rest and rest[-1][0] < start + len(block):
        place, head, payload = rest.pop()
        at = place - start
        if not _HEAD <= at <= len(block) - _TAIL - len(payload):
            continue
        before = bytes(changed[at : at + len(payload)])
        changed[at : at + len(payload)] = payload
        sum_at = at - head - 2
        if sum_at >= _HEAD:
            (known,) = struct.unpack_from(">H", changed, sum_at)
            new = (known + blocks.checksum(payload) - blocks.checksum(before)) % 0xFFFF or 0xFFFF
            struct.pack_into(">H", changed, sum_at, new if known else 0)
    return bytes(changed)


def _cleaned(block: bytes, encrypted: bool, masked: bool) -> bytes:
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
    return block[:_HEAD] + _without_keys(packet, at, masked) + rest


def _payload(packet: bytes) -> int:
    """Return where the payload of a UDP datagram in a plain IP packet begins (`sniffer.blocks.datagram`)."""
    return 48 if packet[:1] >= b"\x60" else 28


def _without_keys(packet: bytes, at: int, masked: bool) -> bytes:
    payload = _KEYS.sub(lambda found: b"x" * len(found[0]), packet[at:])
    payload = keys.masked(payload) if masked else payload
    if payload == packet[at:]:
        return packet
    head = packet[:at]
    if at == 48:  # UDP over IPv6 must have a checksum (RFC 8200 section 8.1)
        pseudo = head[8:40] + struct.pack(">II", len(payload) + 8, 17)
        total = blocks.checksum(pseudo + head[40:46] + bytes(2) + payload) or 0xFFFF
        head = head[:46] + struct.pack(">H", total)
    return head + payload
