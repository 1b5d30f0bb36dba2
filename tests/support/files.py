"""Capture files in every dialect: pcap (byte order, resolution), pcapng (several interfaces), gzip."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from .ip import Packet, with_other_ttl
from .wrap import WRAPPINGS, Wrapping

SECOND = 1_000_000_000
SNAP_LENGTH = 262144
PCAPNG_BINARY = 0x80


def pcap(
    packets: Iterable[Packet],
    wrapping: str = "ethernet",
    *,
    order: str = "<",
    nano: bool = False,
    snap: int = SNAP_LENGTH,
) -> bytes:
    """A pcap file: `order` is the byte order of its headers (`<` or `>`), `nano` its resolution."""
    shape = WRAPPINGS[wrapping]
    return pcap_header(shape.link_type, order=order, nano=nano, snap=snap) + b"".join(
        pcap_record(packet.time_ns, shape.frame(packet.ip), order=order, nano=nano, snap=snap) for packet in packets
    )


def pcap_header(link_type: int, *, order: str = "<", nano: bool = False, snap: int = SNAP_LENGTH) -> bytes:
    """The 24 bytes a pcap file begins with."""
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    return struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snap, link_type)


def pcap_record(time_ns: int, frame: bytes, *, order: str = "<", nano: bool = False, snap: int = SNAP_LENGTH) -> bytes:
    """One record: time, kept and original length, bytes."""
    fraction = time_ns % SECOND // (1 if nano else 1000)
    kept = frame[:snap]
    return struct.pack(order + "IIII", time_ns // SECOND, fraction, len(kept), len(frame)) + kept


def pcapng(
    packets: Sequence[Packet], interfaces: Sequence[tuple[str, int]] = (("ethernet", 9),), order: str = "<"
) -> bytes:
    """A pcapng file whose packets go to `interfaces` in turn.

    Each interface is a wrapping's name and its if_tsresol octet: a power of ten, or of two with the top bit set.
    """
    shapes = [WRAPPINGS[name] for name, _ in interfaces]
    blocks = [_block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)]
    blocks += [_interface(shape, resolution, order) for shape, (_, resolution) in zip(shapes, interfaces, strict=True)]
    for count, packet in enumerate(packets):
        number = count % len(interfaces)
        ticks = _ticks(packet.time_ns, interfaces[number][1])
        blocks.append(_enhanced_packet(number, ticks, shapes[number].frame(packet.ip), order))
    return b"".join(blocks)


def twice(
    packets: Iterable[Packet],
    second: str = "vlan",
    *,
    after_ns: int = 50_000,
    hop: bool = False,
    first: str = "ethernet",
) -> bytes:
    """A pcap (nanoseconds) of a mirror that shows each packet twice: again in another wrapping, or one router on."""
    shown = []
    for packet in packets:
        again = with_other_ttl(packet.ip, 63) if hop else packet.ip
        shown.append((packet.time_ns, WRAPPINGS[first].frame(packet.ip)))
        shown.append((packet.time_ns + after_ns, WRAPPINGS[second].frame(again)))
    shown.sort(key=lambda record: record[0])
    header = pcap_header(WRAPPINGS[first].link_type, nano=True)
    return header + b"".join(pcap_record(time_ns, frame, nano=True) for time_ns, frame in shown)


def write(folder: Path, content: bytes, name: str = "capture.pcap", *, packed: bool = False) -> Path:
    """Put `content` into `folder` and give its path; `packed` compresses it."""
    path = folder / (name + (".gz" if packed else ""))
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    return path


def _interface(shape: Wrapping, resolution: int, order: str) -> bytes:
    option = struct.pack(order + "HHB3x", 9, 1, resolution) + struct.pack(order + "HH", 0, 0)
    return _block(1, struct.pack(order + "HHI", shape.link_type, 0, SNAP_LENGTH) + option, order)


def _enhanced_packet(number: int, ticks: int, frame: bytes, order: str) -> bytes:
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return _block(6, head + frame + b"\0" * (-len(frame) % 4), order)


def _block(kind: int, body: bytes, order: str) -> bytes:
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def _ticks(time_ns: int, resolution: int) -> int:
    if resolution & PCAPNG_BINARY:
        return (time_ns << (resolution & 0x7F)) // SECOND
    return int(time_ns * 10**resolution // SECOND)
