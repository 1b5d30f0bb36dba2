"""Blocks of a pcapng file (draft-ietf-opsawg-pcapng), written: values in, bytes out. Little-endian, times in ns.

What Tapdeck has to say itself stands in comments (opt_comment) of the section header and of interface statistics
blocks, which every reader of the format knows to pass over.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

import numpy as np
import numpy.typing as npt

from .records import Bytes, Ints, Records

RAW_IP = 101
MAX_COMMENT = 60_000
"""Bytes of a comment: an option's length has 16 bits."""
MAX_UDP = 65_535 - 8
_HEAD, _TAIL = 28, 4
MOST_BESIDE = _HEAD + _TAIL + 3
"""Bytes of a packet block beside the frame, at most."""
_PACKET = np.dtype([(name, "<u4") for name in ("type", "size", "interface", "high", "low", "captured", "wire")])


def section(comment: str, application: str) -> bytes:
    """Return a section header block with a comment and the program's name (shb_userappl)."""
    options = _option(1, comment.encode()[:MAX_COMMENT]) + _option(4, application.encode()) + _option(0, b"")
    return _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + options)


def interface(link: int, name: str) -> bytes:
    """Return an interface description block: link type (LINKTYPE_*), name, resolution of nanoseconds."""
    options = _option(2, name.encode()[:250]) + _option(9, b"\x09") + _option(0, b"")
    return _block(1, struct.pack("<HHI", link, 0, 0) + options)


def comment(text: str, number: int, time: int) -> bytes:
    """Return an interface statistics block of interface `number` that carries a comment made at `time` (ns)."""
    high, low = divmod(time, 1 << 32)
    return _block(5, struct.pack("<III", number, high, low) + _option(1, text.encode()[:MAX_COMMENT]) + _option(0, b""))


def packet(number: int, time: int, data: bytes) -> bytes:
    """Return an enhanced packet block."""
    high, low = divmod(time, 1 << 32)
    padded = data + bytes(-len(data) % 4)
    return _block(6, struct.pack("<IIIII", number, high, low, len(data), len(data)) + padded)


def datagram(source: tuple[str, int], destination: tuple[str, int], payload: bytes) -> bytes:
    """Return a UDP datagram in a plain IP packet (RFC 768, 791, 8200); what is too long for UDP is cut."""
    first, second = _packed(source[0]), _packed(destination[0])
    payload = payload[:MAX_UDP]
    size = 8 + len(payload)
    head = struct.pack(">HHHH", source[1], destination[1], size, 0)
    if len(first) == 4:
        total = 20 + size if 20 + size < 1 << 16 else 0
        ip = struct.pack(">BBHHHBBH", 0x45, 0, total, 0, 0x4000, 64, 17, 0) + first + second
        return ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:] + head + payload
    pseudo = first + second + struct.pack(">II", size, 17)
    sum_ = checksum(pseudo + head + payload) or 0xFFFF
    return (
        struct.pack(">IHBB", 0x60000000, size, 17, 64) + first + second + head[:6] + struct.pack(">H", sum_) + payload
    )


@lru_cache(maxsize=1 << 14)
def _packed(address: str) -> bytes:
    return ip_address(address).packed


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = int(np.frombuffer(data, dtype=">u2").sum(dtype=np.int64))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True, slots=True)
class PacketBlocks:
    """Enhanced packet blocks behind each other: block `i` is data[start[i] : start[i + 1]] (bytes, int64)."""

    data: Bytes
    start: Ints

    def __len__(self) -> int:
        return len(self.start) - 1


def packets(records: Records, rows: Ints, numbers: npt.NDArray[np.uint32]) -> PacketBlocks:
    """Return frames `rows` of a block as enhanced packet blocks, in that order; `numbers` are their interfaces'."""
    length = records.length[rows]
    size = (length + 3 & ~3) + (_HEAD + _TAIL)
    start = np.concatenate(([0], np.cumsum(size))).astype(np.int64)
    longest = int(length.max()) if len(length) else 0
    out = np.zeros(int(start[-1]) + max(longest, _HEAD), dtype=np.uint8)
    head = np.empty(len(rows), dtype=_PACKET)
    time = records.time[rows].astype(np.uint64)
    head["type"], head["size"], head["interface"] = 6, size, numbers
    head["high"], head["low"] = time >> np.uint64(32), time & np.uint64(0xFFFFFFFF)
    head["captured"], head["wire"] = length, np.maximum(records.wire[rows], length)
    scatter(out, start[:-1], head.view(f"V{_HEAD}"))
    scatter(out, start[1:] - _TAIL, np.ascontiguousarray(size.astype("<u4")).view(f"V{_TAIL}"))
    copy_pieces(records.data, records.offset[rows], length, out, start[:-1] + _HEAD)
    return PacketBlocks(out, start)


def scatter(out: Bytes, place: Ints, cells: npt.NDArray[np.void]) -> None:
    """Write cells of opaque bytes at these places."""
    if len(place):
        width = cells.dtype.itemsize
        np.ndarray((len(out) - width + 1,), dtype=f"V{width}", buffer=out, strides=(1,))[place] = cells


def copy_pieces(data: Bytes, offset: Ints, length: Ints, out: Bytes, place: Ints) -> None:
    """Copy pieces of `data` to their places in `out`; pieces of one length go in one step."""
    if len(offset) == 0:
        return
    for size in np.unique(length).tolist():
        if size == 0:
            continue
        rows = np.nonzero(length == size)[0]
        there = np.ndarray((len(data) - size + 1,), dtype=f"V{size}", buffer=data, strides=(1,))
        here = np.ndarray((len(out) - size + 1,), dtype=f"V{size}", buffer=out, strides=(1,))
        here[place[rows]] = there[offset[rows]]


def take(blocks: PacketBlocks, rows: Ints) -> PacketBlocks:
    """Return these blocks only, in this order."""
    size = np.diff(blocks.start)[rows]
    start = np.concatenate(([0], np.cumsum(size))).astype(np.int64)
    longest = int(size.max()) if len(size) else 0
    out = np.empty(int(start[-1]) + longest, dtype=np.uint8)
    copy_pieces(blocks.data, blocks.start[:-1][rows], size, out, start[:-1])
    return PacketBlocks(out, start)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + size + body + size
