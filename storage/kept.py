"""A call's RTP kept as packets: a pcapng file beside the recording, for what a WAV cannot hold unchanged.

Each packet is written as raw IP with its arrival time, addresses, ports, RTP header and payload; link headers, options
and RTP header extensions are not kept. pcapng: draft-ietf-opsawg-pcapng.

Each stream is an interface of its own. Comments in JSON say what was known of it, so that the sound can be made again
from this file alone (`kept_file.py`): whose it is, and what its payload types meant when; and by how much the times
shown differ from the steady ones by which the sound was placed.
"""

import json
import struct
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ..sniffer.addresses import AddressBook
from ..sniffer.records import Ints
from ..sniffer.selection import Track
from ..sniffer.sources.payloads import Payloads
from .safe_text import for_line

PART = 32_768
"""Packets built at one time."""
_RAW_IP = 101
_NANOSECONDS = struct.pack("<HHB3x", 9, 1, 9)
_COMMENT, _NAME = 1, 2
MAX_COMMENT = 65_000
MAX_FMTP = 2_000
"""Characters of a format's parameters that are kept."""
FORMAT = "tapdeck-kept-1"


def pcapng(
    tracks: list[Track], payloads: Payloads, book: AddressBook, wall: Callable[[Ints], Ints] = np.asarray
) -> Iterator[bytes]:
    """Yield the bytes of the file, packets in order of arrival. `wall` turns their times (ns) into the clock's."""
    heads = [_headers(track, book) for track in tracks]
    owner = np.repeat(np.arange(len(tracks)), [len(track.rows) for track in tracks])
    rows = np.concatenate([track.rows for track in tracks]) if tracks else np.empty(0, dtype=[("time", "i8")])
    order = np.argsort(rows["time"], kind="stable")
    about = {"format": FORMAT, "ahead": _ahead(rows["time"][order], wall)}
    yield _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _comments(about) + bytes(4))
    for track in tracks:
        yield _interface(track)
    if not tracks:
        yield _block(1, struct.pack("<HHI", _RAW_IP, 0, 0) + _NANOSECONDS + bytes(4))
    for start in range(0, len(order), PART):
        here = order[start : start + PART]
        yield _packets(rows[here], wall(rows["time"][here]), owner[here], heads, payloads)


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _comments(about: object) -> bytes:
    """Return a value as comments, several if it is long: they belong together."""
    text = json.dumps(about, separators=(",", ":")).encode()
    return b"".join(_option(_COMMENT, text[at : at + MAX_COMMENT]) for at in range(0, len(text), MAX_COMMENT))


def _ahead(time: Ints, wall: Callable[[Ints], Ints]) -> list[list[int]]:
    """Return from which packet on the clock that is shown was how far (ns) ahead of steady time."""
    ahead = np.asarray(wall(time)) - time
    changes = np.concatenate(([True], np.diff(ahead) != 0)).nonzero()[0] if len(ahead) else np.empty(0, dtype=np.int64)
    return [[int(index), int(ahead[index])] for index in changes.tolist()]


def _interface(track: Track) -> bytes:
    """Describe a stream: its times are in ns."""
    types = np.unique(track.rows["kind"] & 0x7F).tolist()
    formats: list[tuple[int, dict[str, list[object]]]] = []
    for since, known in track.formats:
        inner = any(one.name == "RED" for one in known.values())  # its packets bear types that no header shows
        mine = {
            str(number): [for_line(one.name, 100), one.rate, one.channels, for_line(one.fmtp, MAX_FMTP)]
            for number, one in known.items()
            if inner or number in types
        }
        if not formats or formats[-1][1] != mine:
            formats.append((since, mine))
    about = {
        "party": track.sender.value,
        "use": track.use.value,
        "sure": track.claim.match.consistent,
        "formats": formats,
    }
    name = f"{track.sender.value} 0x{track.ssrc:08x}".encode()
    options = _option(_NAME, name) + _comments(about) + _NANOSECONDS + bytes(4)
    return _block(1, struct.pack("<HHI", _RAW_IP, 0, 0) + options)


def _headers(track: Track, book: AddressBook) -> bytes:
    """Return the IP, UDP and, if they have one, RTP header of a track's packets, lengths and checksums still empty."""
    from ipaddress import ip_address

    source, destination = (ip_address(book.text(end[0])).packed for end in (track.source, track.destination))
    ports = struct.pack(">HHHH", track.source[1], track.destination[1], 0, 0)
    if len(source) == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 0, 0, 0x4000, 64, 17, 0) + source + destination
    else:
        head = struct.pack(">IHBB", 0x60000000, 0, 17, 64) + source + destination
    return head + ports + (b"\x80" + bytes(7) + struct.pack(">I", track.ssrc) if track.is_rtp else b"")


def _packets(
    rows: np.ndarray, shown: Ints, owner: npt.NDArray[np.int64], heads: list[bytes], payloads: Payloads
) -> bytes:
    """Build the enhanced packet blocks of these rows."""
    head_size = np.array([len(head) for head in heads], dtype=np.int64)[owner]
    size = head_size + rows["size"]
    padded = size + 3 & ~3
    total = padded + 32
    start = np.concatenate(([0], np.cumsum(total))).astype(np.int64)
    out = np.zeros(int(start[-1]) + 65_535, dtype=np.uint8)
    start = start[:-1]
    time = shown.astype(np.uint64)
    for place, value in (
        (0, np.full(len(rows), 6)),
        (4, total),
        (8, owner),
        (12, time >> np.uint64(32)),
        (16, time & np.uint64(0xFFFFFFFF)),
        (20, size),
        (24, size),
    ):
        _put(out, start + place, value, "<u4")
    _put(out, start + total - 4, total, "<u4")
    for number, head in enumerate(heads):
        mine = np.nonzero(owner == number)[0]
        if len(mine):
            _put_headers(out, start[mine] + 28, head, rows[mine], size[mine])
    payloads.copy(rows["position"].copy(), rows["size"].astype(np.int64), out, start + 28 + head_size)
    for number, head in enumerate(heads):
        if head[0] >> 4 == 6:
            for index in np.nonzero(owner == number)[0].tolist():  # UDP over IPv6 must have a checksum (RFC 8200)
                begin = int(start[index]) + 28
                _checksum_v6(out[begin : begin + int(size[index])])
    return out[: int(start[-1] + total[-1])].tobytes()


def _put(out: npt.NDArray[np.uint8], place: npt.NDArray[np.int64], value: np.ndarray, code: str) -> None:
    width = int(code[-1])
    cells = np.ndarray((len(out) - width + 1,), dtype=f"V{width}", buffer=out, strides=(1,))
    cells[place] = np.ascontiguousarray(value.astype(code)).view(f"V{width}")


def _put_headers(
    out: npt.NDArray[np.uint8], place: npt.NDArray[np.int64], head: bytes, rows: np.ndarray, size: npt.NDArray[np.int64]
) -> None:
    cells = np.ndarray((len(out) - len(head) + 1,), dtype=f"V{len(head)}", buffer=out, strides=(1,))
    cells[place] = np.frombuffer(head, dtype=f"V{len(head)}")[0]
    ip = 20 if head[0] >> 4 == 4 else 40
    udp = size - ip
    if ip == 20:
        _put(out, place + 2, size, ">u2")
        words = sum(struct.unpack(">10H", head[:20])) + size
        words = (words & 0xFFFF) + (words >> 16)
        words = (words & 0xFFFF) + (words >> 16)
        _put(out, place + 10, ~words & 0xFFFF, ">u2")
    else:
        _put(out, place + 4, udp, ">u2")
    _put(out, place + ip + 4, udp, ">u2")
    if len(head) == ip + 8:
        return
    _put(out, place + ip + 9, rows["kind"], ">u1")
    _put(out, place + ip + 10, rows["sequence"], ">u2")
    _put(out, place + ip + 12, rows["stamp"], ">u4")


def _checksum_v6(packet: npt.NDArray[np.uint8]) -> None:
    """Fill in the UDP checksum of one packet (RFC 768, RFC 8200 section 8.1)."""
    data = packet[8:].tobytes() + (b"\0" if len(packet) % 2 else b"")
    words = int(np.frombuffer(data, dtype=">u2").sum(dtype=np.int64)) + len(packet) - 40 + 17
    words = (words & 0xFFFF) + (words >> 16)
    words = (words & 0xFFFF) + (words >> 16)
    value = (~words & 0xFFFF) or 0xFFFF
    packet[46], packet[47] = value >> 8, value & 0xFF
