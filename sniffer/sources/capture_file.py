"""Read capture files: pcap and pcapng, plain, gzip or from a pipe, block by block.

Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. A capture cut in the middle of a record is read up to
there and says so in `damage`.
"""

import gzip
import io
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from ..records import MAX_RECORD, PADDING, Bytes, Ints, Records, Walk, gather
from .payloads import Payloads

BLOCK = 4 << 20
MAX_COMMENTS = 100_000
_SECOND = 1_000_000_000

_PCAP_RECORD = {
    little: np.dtype([(name, code) for name in ("seconds", "fraction", "captured", "wire")])
    for little, code in ((True, "<u4"), (False, ">u4"))
}
_PCAPNG_PACKET = {
    little: np.dtype([(name, code) for name in ("type", "size", "interface", "high", "low", "captured", "wire")])
    for little, code in ((True, "<u4"), (False, ">u4"))
}
_ENHANCED, _STATISTICS, _SIMPLE, _OBSOLETE, _INTERFACE, _SECTION = 6, 5, 3, 2, 1, 0x0A0D0D0A
_SECRETS, _TLS_KEY_LOG = 10, 0x544C534B
_PCAPNG_MAGIC = 0x1A2B3C4D


class CaptureError(Exception):
    """The input cannot be read as a capture at all; the text says why and what to do."""


@dataclass(slots=True)
class _Interface:
    link: int
    units: int = 1_000_000  # time stamp units a second
    shift: int = 0  # seconds to add
    snap: int = 0  # bytes captured of a packet at most, 0: all


@dataclass(slots=True)
class CaptureFile:
    """One capture as a stream of `Records`.

    `name` is what people call it; `stream` gives its (decompressed) bytes; `copy`, if given, is written with every byte
    read, so that payloads can be fetched from it later; `base` is the position of its first byte (see `payloads`),
    `window` the size of a block; `damage` says where and how the capture breaks off, or is empty. `comments` are those
    of section headers and interface statistics, in their order. `key_log` is given the TLS key logs in the capture.
    """

    name: str
    stream: IO[bytes]
    copy: BinaryIO | None = None
    size: int | None = None
    base: int = 0
    window: int = BLOCK
    damage: str = ""
    consumed: int = 0
    first_time: int | None = None
    drops: dict[int, int] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)
    key_log: Callable[[bytes], object] | None = None
    _buffer: Bytes = field(default_factory=lambda: np.empty(0, dtype=np.uint8))
    _filled: int = 0
    _position: int = 0
    _ended: bool = False

    def blocks(self) -> Iterator[Records]:
        """Yield the capture block by block.

        Raises `CaptureError` if this is no capture, before the first block.
        """
        self._buffer = np.zeros(self.window + PADDING, dtype=np.uint8)
        self._fill()
        head = bytes(self._buffer[:24])
        if self._filled == 0:
            raise CaptureError(f"{self.name}: empty: there is no capture in it")
        magic = int.from_bytes(head[:4], "little")
        if magic in _PCAP_MAGIC:
            yield from self._pcap(magic, head)
        elif magic == _SECTION:
            yield from self._pcapng()
        else:
            raise CaptureError(
                f"{self.name}: not a pcap or pcapng capture (it begins with {head[:4].hex(' ')}); "
                "save it as pcap or pcapng in the program that made it"
            )

    # -- the moving window over the input ------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Read until the window is full or the input ends."""
        room = len(self._buffer) - PADDING
        while self._filled < room and not self._ended:
            place = self._buffer[self._filled : room]
            try:
                count = self._read_into(place)
            except (EOFError, zlib.error, OSError, ValueError) as error:
                self._ended = True
                bytes_read = self._position + self._filled
                self.damage = f"{self.name}: cannot be read further after {bytes_read:,} bytes: {error}"
                break
            if not count:
                self._ended = True
                break
            self._filled += count
            if self.copy is not None:
                self.copy.write(place[:count].data)
        self._buffer[self._filled : self._filled + PADDING] = 0

    def _read_into(self, place: Bytes) -> int:
        """Read up to a window's room, straight into it from a file. Return how many bytes came, 0 at the end."""
        if isinstance(self.stream, io.FileIO):
            return self.stream.readinto(place.data)
        data = self.stream.read(len(place))
        place[: len(data)] = np.frombuffer(data, dtype=np.uint8)
        return len(data)

    def _advance(self, used: int) -> bool:
        """Drop the first `used` bytes and read on; False when nothing new came."""
        rest = self._filled - used
        if used:
            self._buffer[:rest] = self._buffer[used : self._filled].copy()
        elif self._filled == len(self._buffer) - PADDING:  # one record is longer than the window
            self._buffer = np.concatenate((self._buffer, np.zeros(len(self._buffer), dtype=np.uint8)))
        self._filled = rest
        self._position += used
        self.consumed = self._position
        self._fill()
        return self._filled > rest

    def _cut(self, place: int, what: str) -> None:
        if not self.damage:
            self.damage = f"{self.name}: {what} at byte {self._position + place:,}; processed up to there"

    # -- pcap ----------------------------------------------------------------------------------------------------------

    def _pcap(self, magic: int, head: bytes) -> Iterator[Records]:
        little, nanoseconds, header = _PCAP_MAGIC[magic]
        if self._filled < 24:
            self._cut(self._filled, "cut short in the file header")
            return
        link = (
            struct.unpack_from("<I" if little else ">I", head, 20)[0] & 0xFFFF
        )  # above it: reserved, and the FCS length
        walk = Walk(head=header, field=8, base=header, little=little)
        start, unit = 24, 1 if nanoseconds else 1000
        while True:
            offsets, stop, damaged = walk.find(self._buffer, start, self._filled)
            if len(offsets):
                rows = gather(self._buffer, offsets, _PCAP_RECORD[little])
                time = rows["seconds"].astype(np.int64) * _SECOND + rows["fraction"].astype(np.int64) * unit
                yield self._records(offsets + header, rows, time, np.full(len(offsets), link, dtype=np.uint16))
            if damaged:
                self._cut(stop, "damaged: a record's length makes no sense")
                return
            if not self._advance(stop):
                break
            start = 0
        if self._filled:
            self._cut(0, "cut short in the middle of a record")

    def _records(self, offset: Ints, rows: np.ndarray, time: Ints, link: np.ndarray) -> Records:
        if self.first_time is None and len(time):
            self.first_time = int(time[0])
        return Records(
            data=self._buffer[: self._filled + PADDING],
            offset=offset,
            length=rows["captured"].astype(np.int64),
            wire=rows["wire"].astype(np.int64),
            time=time,
            link=link,
            position=self.base + self._position,
        )

    # -- pcapng --------------------------------------------------------------------------------------------------------

    def _pcapng(self) -> Iterator[Records]:
        interfaces: list[_Interface] = []
        little = True
        while True:
            place = 0
            while place + 12 <= self._filled:
                if int.from_bytes(self._buffer[place : place + 4].tobytes(), "little") == _SECTION:
                    order = self._section(place)
                    if order is None:
                        self._cut(place, "damaged: a section header without byte order")
                        return
                    size = self._block_size(place, order)
                    if size > MAX_RECORD:
                        self._cut(place, "damaged: a section header's length makes no sense")
                        return
                    if place + size > self._filled:
                        break
                    little, interfaces = order, []
                    self._note_comment(self._buffer[place : place + size].tobytes(), 24, "<" if order else ">")
                    place += size
                    continue
                walk = Walk(head=12, field=4, base=0, little=little)
                offsets, stop, damaged = walk.find(self._buffer, place, self._filled)
                offsets, stop = self._until_section(offsets, stop)
                yield from self._pcapng_blocks(offsets, interfaces, little)
                progress = stop > place
                place = stop
                if damaged and not self._is_section(stop):
                    self._cut(stop, "damaged: a block's length makes no sense")
                    return
                if not progress:
                    break
            if not self._advance(place):
                break
        if self._filled:
            self._cut(0, "cut short in the middle of a block")

    def _is_section(self, place: int) -> bool:
        return place + 4 <= self._filled and bytes(self._buffer[place : place + 4]) == b"\x0a\x0d\x0d\x0a"

    def _section(self, place: int) -> bool | None:
        """Byte order of the section that begins here: True for little-endian, None if it has none."""
        magic = self._buffer[place + 8 : place + 12].tobytes()
        if int.from_bytes(magic, "little") == _PCAPNG_MAGIC:
            return True
        return False if int.from_bytes(magic, "big") == _PCAPNG_MAGIC else None

    def _block_size(self, place: int, little: bool) -> int:
        size = int.from_bytes(self._buffer[place + 4 : place + 8].tobytes(), "little" if little else "big")
        return max(size, 12)

    def _until_section(self, offsets: Ints, stop: int) -> tuple[Ints, int]:
        """Cut a walk at the next section header: its byte order may differ."""
        if len(offsets) == 0:
            return offsets, stop
        kinds = gather(self._buffer, offsets, np.dtype([("type", "<u4")]))["type"]
        found = np.nonzero(kinds == _SECTION)[0]
        return (offsets[: found[0]], int(offsets[found[0]])) if len(found) else (offsets, stop)

    def _pcapng_blocks(self, offsets: Ints, interfaces: list[_Interface], little: bool) -> Iterator[Records]:
        if len(offsets) == 0:
            return
        rows = gather(self._buffer, offsets, _PCAPNG_PACKET[little])
        kinds = rows["type"].astype(np.int64)
        plain = kinds == _ENHANCED
        start = 0
        for other in [*np.nonzero(~plain)[0].tolist(), len(offsets)]:
            if other > start:
                yield from self._enhanced(offsets[start:other], rows[start:other], interfaces)
            if other < len(offsets):
                yield from self._other(int(offsets[other]), int(kinds[other]), interfaces, little)
            start = other + 1

    def _enhanced(self, offsets: Ints, rows: np.ndarray, interfaces: list[_Interface]) -> Iterator[Records]:
        if not interfaces:
            self._cut(int(offsets[0]), "damaged: a packet before any interface")
            return
        number = np.minimum(rows["interface"].astype(np.int64), len(interfaces) - 1)
        sizes = rows["size"].astype(np.int64)
        fits = rows["captured"].astype(np.int64) + 32 <= sizes
        if not fits.all():
            self._cut(int(offsets[int(fits.argmin())]), "damaged: a packet longer than its block")
            offsets, rows, number = offsets[fits], rows[fits], number[fits]
        stamps = (rows["high"].astype(np.uint64) << np.uint64(32)) | rows["low"].astype(np.uint64)
        time = np.empty(len(offsets), dtype=np.int64)
        link = np.empty(len(offsets), dtype=np.uint16)
        for index in np.unique(number).tolist():
            here = number == index
            time[here] = _nanoseconds(stamps[here], interfaces[index])
            link[here] = interfaces[index].link
        yield self._records(offsets + 28, rows, time, link)

    def _other(self, place: int, kind: int, interfaces: list[_Interface], little: bool) -> Iterator[Records]:
        order = "<" if little else ">"
        block = self._buffer[place : place + self._block_size(place, little)].tobytes()
        if kind == _INTERFACE and len(block) >= 20:
            interfaces.append(_interface(block, order))
        elif kind == _STATISTICS and len(block) >= 24:
            self._note_drops(block, order)
            self._note_comment(block, 20, order)
        elif kind == _SECRETS and len(block) >= 24:
            self._note_secrets(block, order)
        elif kind == _OBSOLETE and len(block) >= 32 and interfaces:
            index, _, high, low, captured, wire = struct.unpack_from(order + "HHIIII", block, 8)
            interface = interfaces[min(index, len(interfaces) - 1)]
            stamp = np.array([high << 32 | low], dtype=np.uint64)
            yield self._single(
                place + 28, min(captured, len(block) - 32), wire, _nanoseconds(stamp, interface), interface
            )
        elif kind == _SIMPLE and interfaces and len(block) >= 16:  # carries no time: it is given none
            wire = struct.unpack_from(order + "I", block, 8)[0]
            captured = min(wire, interfaces[0].snap or wire, len(block) - 16)
            yield self._single(place + 12, captured, wire, np.zeros(1, dtype=np.int64), interfaces[0])

    def _note_drops(self, block: bytes, order: str) -> None:
        """Read interface statistics: what the interface (isb_ifdrop, 5) and the system (isb_osdrop, 7) dropped."""
        number = struct.unpack_from(order + "I", block, 8)[0]
        dropped = [value for code, value in _options(block, 20, order) if code in (5, 7) and len(value) == 8]
        if dropped and len(self.drops) < 4096:
            self.drops[number] = sum(struct.unpack(order + "Q", value)[0] for value in dropped)

    def _note_secrets(self, block: bytes, order: str) -> None:
        """Pass on a decryption secrets block (section 4.7 of the format)."""
        kind, size = struct.unpack_from(order + "II", block, 8)
        if kind == _TLS_KEY_LOG and self.key_log is not None:
            self.key_log(block[16 : min(16 + size, len(block) - 4)])

    def _note_comment(self, block: bytes, place: int, order: str) -> None:
        """Keep the comments (opt_comment, 1) of a block."""
        for code, value in _options(block, place, order):
            if code == 1 and len(self.comments) < MAX_COMMENTS:
                self.comments.append(value.decode(errors="replace"))

    def _single(self, offset: int, captured: int, wire: int, time: Ints, interface: _Interface) -> Records:
        rows = np.array([(captured, wire)], dtype=[("captured", "u4"), ("wire", "u4")])
        return self._records(np.array([offset]), rows, time, np.array([interface.link], dtype=np.uint16))


def _interface(block: bytes, order: str) -> _Interface:
    """Read an interface description block: link type, and the options if_tsresol (9) and if_tsoffset (14)."""
    link, snap = struct.unpack_from(order + "HxxI", block, 8)
    interface = _Interface(link=link, snap=snap)
    for code, value in _options(block, 16, order):
        if code == 9 and len(value) == 1:
            power = value[0] & 0x7F
            interface.units = 2 ** min(power, 63) if value[0] & 0x80 else 10 ** min(power, 18)
        elif code == 14 and len(value) == 8:
            interface.shift = struct.unpack(order + "q", value)[0]
    return interface


def _options(block: bytes, place: int, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield the options of a block, from `place` on."""
    while place + 4 <= len(block) - 4:
        code, size = struct.unpack_from(order + "HH", block, place)
        if code == 0:
            return
        yield code, block[place + 4 : place + 4 + size]
        place += 4 + (size + 3 & ~3)


def _nanoseconds(stamps: np.ndarray, interface: _Interface) -> Ints:
    """Turn 64-bit time stamps in the interface's units into ns since the epoch, without overflow."""
    units = np.uint64(interface.units)
    whole = (stamps // units).astype(np.int64)
    rest = stamps % units
    if interface.units <= _SECOND and _SECOND % interface.units == 0:
        fraction = (rest * np.uint64(_SECOND // interface.units)).astype(np.int64)
    else:
        fraction = np.floor(rest.astype(np.float64) * (_SECOND / interface.units)).astype(np.int64)
    limit = 9_000_000_000  # seconds: beyond the year 2255 int64 nanoseconds would wrap
    shift = max(-limit, min(limit, interface.shift))
    return np.clip(whole + shift, -limit, limit) * _SECOND + fraction


_PCAP_MAGIC = {  # little-endian reading of the first four bytes -> (little-endian, nanoseconds, record header bytes)
    0xA1B2C3D4: (True, False, 16),
    0xA1B23C4D: (True, True, 16),
    0xA1B2CD34: (True, False, 24),
    0xD4C3B2A1: (False, False, 16),
    0x4D3CB2A1: (False, True, 16),
    0x34CDB2A1: (False, False, 24),
}


def open_capture(path: str, payloads: Payloads) -> CaptureFile:
    """Open a capture: a path, or "-" for standard input; gzip is recognised by its first bytes.

    What cannot be mapped later (a pipe, gzip) is copied to a nameless file as it is read.
    Raises `CaptureError` when it cannot be opened.
    """
    if path == "-":
        spool, base = payloads.spool()
        return CaptureFile(name="standard input", stream=_maybe_gzip(sys.stdin.buffer), copy=spool, base=base)
    try:
        stream = open(path, "rb", buffering=0)  # noqa: SIM115  (closed with the process: one handle a capture)
        regular = Path(path).is_file()
        packed = regular and os.pread(stream.fileno(), 2, 0) == b"\x1f\x8b"
    except OSError as error:
        raise CaptureError(f"{path}: cannot be opened: {error.strerror or error}") from error
    if regular and not packed:
        base = payloads.add(stream)
        return CaptureFile(name=path, stream=stream, size=os.fstat(stream.fileno()).st_size, base=base)
    spool, base = payloads.spool()
    return CaptureFile(name=path, stream=_gunzip(stream) if packed else _maybe_gzip(stream), copy=spool, base=base)


def first_time(path: str) -> int | None:
    """Return the time of the first packet in ns; None for an input that can be read only once, or without packets.

    Raises `CaptureError` when the input cannot be opened or is no capture.
    """
    if path == "-" or (os.path.exists(path) and not os.path.isfile(path)):
        return None
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            capture = CaptureFile(name=path, stream=_gunzip(file) if packed else file, window=1 << 16)
            next(capture.blocks(), None)
    except OSError as error:
        raise CaptureError(f"{path}: cannot be opened: {error.strerror or error}") from error
    return capture.first_time


class _Gunzip:
    """What is behind gzip, as far as it goes: bytes before a broken end are given out before the error is raised."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._packed = gzip.GzipFile(fileobj=stream, mode="rb")

    def read(self, size: int = -1) -> bytes:
        return self._packed.read1(size)


def _gunzip(stream: IO[bytes]) -> IO[bytes]:
    return _Gunzip(stream)  # type: ignore[return-value]


class _Replay:
    """A stream with its first bytes put back."""

    def __init__(self, first: bytes, stream: IO[bytes]) -> None:
        self._first = first
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if self._first:
            data, self._first = self._first[:size], self._first[size:]
            return data
        return self._stream.read(size)


def _maybe_gzip(stream: IO[bytes]) -> IO[bytes]:
    first = b""
    while len(first) < 2:
        more = stream.read(2 - len(first))
        if not more:
            break
        first += more
    replay: IO[bytes] = _Replay(first, stream)  # type: ignore[assignment]
    return _gunzip(replay) if first == b"\x1f\x8b" else replay
