"""SMB2 requests for files, and what is read from the answers ([MS-SMB2] 2.2). Just those that a target needs.

Sections of the specification are given where the layout comes from. Requests of one compound use the file that the
first of them opens: that is what CHAINED stands for.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

CHAINED = b"\xff" * 16
"""The file that an earlier request of the same compound has opened (3.2.4.1.4)."""

HEADER = struct.Struct("<4sHHIHHIIQIIQ16s")
"""2.2.1: protocol, size, credit charge, status, command, credits, flags, next, message, process, tree, session,
signature."""

CREATE, CLOSE, FLUSH, READ, WRITE, QUERY_DIRECTORY, QUERY_INFO, SET_INFO = 5, 6, 7, 8, 9, 14, 16, 17

READ_DATA, WRITE_DATA, READ_ATTRIBUTES, WRITE_ATTRIBUTES, DELETE, SYNCHRONIZE = 1, 2, 0x80, 0x100, 1 << 16, 1 << 20
SHARE_NONE, SHARE_READ, SHARE_ALL = 0, 1, 7
OPEN, MAKE, OPEN_OR_MAKE, EMPTY_OR_MAKE = 1, 2, 3, 5
FOLDER, FILE, DELETE_ON_CLOSE, WRITE_THROUGH, THE_LINK_ITSELF = 1, 0x40, 0x1000, 2, 0x200000
ATTRIBUTE_FOLDER, ATTRIBUTE_LINK, ATTRIBUTE_NORMAL = 0x10, 0x400, 0x80

_CREATE = struct.Struct("<HBBIQQIIIIIHHII")
_READ = struct.Struct("<HBBIQ16sIIIHHB")
_WRITE = struct.Struct("<HHIQ16sIIHHI")
_QUERY_INFO = struct.Struct("<HBBIHHIII16sB")
_SET_INFO = struct.Struct("<HBBIHHI16s")
_QUERY_DIRECTORY = struct.Struct("<HBBI16sHHI")
_CREATED = struct.Struct("<HBBIQQQQQQII16s")
_ENTRY = struct.Struct("<IIQQQQQQII")
_FILE_RENAME, _FILE_BASIC, _FILE_DISPOSITION, _FS_FULL_SIZE, _DIRECTORY = 10, 4, 13, 7, 1
UNIT = 65536
"""Bytes that a credit pays for."""


class Request(NamedTuple):
    """One request: `head` and `data` after it, and what it costs in credits (3.2.4.1.5)."""

    command: int
    head: bytes
    data: bytes | memoryview = b""
    charge: int = 1


class Opened(NamedTuple):
    """What the server says of a file that it has opened. Times are Windows file times."""

    handle: bytes
    size: int
    attributes: int
    written: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a folder."""

    name: str
    is_folder: bool


def create(
    path: str, access: int, disposition: int = OPEN, options: int = 0, share: int = SHARE_ALL, attributes: int = 0
) -> Request:
    """Open or make a file or folder, without leave to cache anything of it (2.2.13)."""
    name = path.encode("utf-16-le")
    head = _CREATE.pack(
        57, 0, 0, 2, 0, 0, access, attributes, share, disposition, options, 64 + _CREATE.size, len(name), 0, 0
    )
    return Request(CREATE, head + (name or b"\0"))


def close(handle: bytes = CHAINED) -> Request:
    """2.2.15."""
    return Request(CLOSE, struct.pack("<HHI16s", 24, 0, 0, handle))


def flush(handle: bytes = CHAINED) -> Request:
    """2.2.17."""
    return Request(FLUSH, struct.pack("<HHI16s", 24, 0, 0, handle))


def read(offset: int, size: int, handle: bytes = CHAINED, unbuffered: bool = False) -> Request:
    """2.2.19. `unbuffered` asks the server to read from the disk; for 3.0.2 and newer."""
    head = _READ.pack(49, 80, int(unbuffered), size, offset, handle, 0, 0, 0, 0, 0, 0)
    return Request(READ, head, charge=_charge(size))


def write(offset: int, data: bytes | memoryview, handle: bytes = CHAINED, through: bool = False) -> Request:
    """2.2.21. `through`: it is on the disk when the answer comes; for 2.1 and newer."""
    head = _WRITE.pack(49, 64 + _WRITE.size, len(data), offset, handle, 0, 0, 0, 0, int(through))
    return Request(WRITE, head, data, _charge(len(data)))


def rename(path: str, handle: bytes = CHAINED) -> Request:
    """Give the file another name, unless that one exists (2.2.39, [MS-FSCC] 2.4.42.2)."""
    name = path.encode("utf-16-le")
    return _set_info(_FILE_RENAME, struct.pack("<B7xQI", 0, 0, len(name)) + name, handle)


def remove(handle: bytes = CHAINED) -> Request:
    """Have the file go when it is closed ([MS-FSCC] 2.4.11)."""
    return _set_info(_FILE_DISPOSITION, b"\1", handle)


def set_written(time: int, handle: bytes = CHAINED) -> Request:
    """Set the time of the last write, and leave all else ([MS-FSCC] 2.4.7)."""
    return _set_info(_FILE_BASIC, struct.pack("<QQQQI4x", 0, 0, time, 0, 0), handle)


def room(handle: bytes = CHAINED) -> Request:
    """Ask for the space on the disk (2.2.37, [MS-FSCC] 2.5.4)."""
    return Request(QUERY_INFO, _QUERY_INFO.pack(41, 2, _FS_FULL_SIZE, 32, 104, 0, 0, 0, 0, handle, 0))


def entries(pattern: str, size: int, handle: bytes = CHAINED) -> Request:
    """List a folder, or go on with that (2.2.33, [MS-FSCC] 2.4.10)."""
    name = pattern.encode("utf-16-le")
    head = _QUERY_DIRECTORY.pack(33, _DIRECTORY, 0, 0, handle, 64 + _QUERY_DIRECTORY.size, len(name), size)
    return Request(QUERY_DIRECTORY, head + name, charge=_charge(size))


def opened(packet: memoryview) -> Opened:
    """Read the answer to `create` (2.2.14)."""
    *_, written, _, _, size, attributes, _, handle = _CREATED.unpack_from(packet, 64)
    return Opened(handle, size, attributes, written)


def count(packet: memoryview) -> int:
    """Read the answer to `write`: the bytes that were (2.2.22)."""
    return int(struct.unpack_from("<I", packet, 68)[0])


def content(packet: memoryview) -> memoryview:
    """Read the answer to `read` (2.2.20)."""
    offset, size = struct.unpack_from("<BxI", packet, 66)
    return packet[offset : offset + size]


def free(packet: memoryview) -> int:
    """Read the answer to `room`: the bytes that this user may still write."""
    units, sectors, size = struct.unpack_from("<8xQ8xII", _output(packet))
    return int(units * sectors * size)


def listed(packet: memoryview) -> list[Entry]:
    """Read the answer to `entries`, without the folder itself and the one above it."""
    found, rest = [], _output(packet)
    while rest:
        after, *_, attributes, length = _ENTRY.unpack_from(rest)
        name = bytes(rest[_ENTRY.size : _ENTRY.size + length]).decode("utf-16-le", "surrogatepass")
        if name not in (".", ".."):
            found.append(Entry(name, bool(attributes & ATTRIBUTE_FOLDER) and not attributes & ATTRIBUTE_LINK))
        rest = rest[after:] if after else rest[:0]
    return found


def _set_info(kind: int, value: bytes, handle: bytes) -> Request:
    head = _SET_INFO.pack(33, 1, kind, len(value), 64 + _SET_INFO.size, 0, 0, handle)
    return Request(SET_INFO, head + value)


def _output(packet: memoryview) -> memoryview:
    """2.2.34, 2.2.38."""
    offset, size = struct.unpack_from("<HI", packet, 66)
    return packet[offset : offset + size]


def _charge(size: int) -> int:
    return max(0, size - 1) // UNIT + 1
