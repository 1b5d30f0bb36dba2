"""Capture files built by hand from the two drafts, for the reader's tests."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field

import numpy as np

from tapdeck.sniffer.sources.capture_file import CaptureFile

SECOND = 1_000_000_000

PCAP_MAGICS = {
    "microseconds": (0xA1B2C3D4, 1000, 16),
    "nanoseconds": (0xA1B23C4D, 1, 16),
    "modified": (0xA1B2CD34, 1000, 24),
}


@dataclass(frozen=True)
class Frame:
    """What a reader must find: time in ns, bytes, length on the wire, link type."""

    time: int
    data: bytes
    wire: int = -1
    link: int = 1

    @property
    def length(self) -> int:
        return self.wire if self.wire >= 0 else len(self.data)


def pcap(frames: list[Frame], *, kind: str = "microseconds", order: str = "<", link: int = 1) -> bytes:
    """A pcap file; the modified kind (Kuznetzov's) has 8 more bytes a record."""
    magic, unit, head = PCAP_MAGICS[kind]
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262_144, link)
    for frame in frames:
        seconds, fraction = divmod(frame.time, SECOND)
        out += struct.pack(order + "IIII", seconds, fraction // unit, len(frame.data), frame.length)
        out += b"\1\2\3\4\5\6\7\x08"[: head - 16] + frame.data
    return out


@dataclass
class Section:
    """One section of a pcapng file, block by block."""

    order: str = "<"
    blocks: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.block(0x0A0D0D0A, struct.pack(self.order + "IHHq", 0x1A2B3C4D, 1, 0, -1))

    def block(self, kind: int, body: bytes) -> Section:
        body += bytes(-len(body) % 4)
        size = struct.pack(self.order + "I", len(body) + 12)
        self.blocks.append(struct.pack(self.order + "I", kind) + size + body + size)
        return self

    def interface(
        self, link: int = 1, resolution: int | None = None, offset: int | None = None, snap: int = 0
    ) -> Section:
        options = b""
        if resolution is not None:
            options += self.option(9, bytes([resolution]))
        if offset is not None:
            options += self.option(14, struct.pack(self.order + "q", offset))
        return self.block(1, struct.pack(self.order + "HHI", link, 0, snap) + options)

    def option(self, code: int, value: bytes) -> bytes:
        return struct.pack(self.order + "HH", code, len(value)) + value + bytes(-len(value) % 4)

    def enhanced(self, number: int, ticks: int, data: bytes, wire: int | None = None) -> Section:
        head = (number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data) if wire is None else wire)
        return self.block(6, struct.pack(self.order + "IIIII", *head) + data)

    def obsolete(self, number: int, ticks: int, data: bytes) -> Section:
        head = (number, 0xFFFF, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
        return self.block(2, struct.pack(self.order + "HHIIII", *head) + data)

    def simple(self, data: bytes, wire: int | None = None) -> Section:
        return self.block(3, struct.pack(self.order + "I", len(data) if wire is None else wire) + data)

    def __bytes__(self) -> bytes:
        return b"".join(self.blocks)


def read(content: bytes | io.BufferedIOBase, window: int = 4 << 20) -> tuple[list[Frame], CaptureFile]:
    """All frames of a capture and the reader, for its damage."""
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    capture = CaptureFile(name="capture", stream=stream, window=window)  # type: ignore[arg-type]
    found: list[Frame] = []
    for records in capture.blocks():
        data = records.data.tobytes()
        columns = (records.time, records.offset, records.length, records.wire, records.link)
        for time, offset, length, wire, link in np.transpose([column.astype(np.int64) for column in columns]).tolist():
            found.append(Frame(time, data[offset : offset + length], wire, link))
            assert 0 <= offset <= offset + length <= len(data)
    return found, capture
