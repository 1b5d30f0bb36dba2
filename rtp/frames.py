"""A payload taken apart into the frames that a decoder takes, one after the other. Pure.

Whatever the bytes are, there are at most `MAX_FRAMES` of them, and none is longer than the payload. What a sender says
of silence (a silence description, no data, a frame it knows to be damaged) is a frame without data: it has its length,
and is heard as silence. A payload of nothing else has no frames: it is a pause.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from .codecs import Codec, Framing

MAX_FRAMES = 200
"""Frames of one packet: two seconds of the shortest ones. More are left out."""


class Frame(NamedTuple):
    """What a decoder takes at one time, and the samples it gives for it. Without data it is silence."""

    data: bytes
    samples: int


def frames(codec: Codec, payload: bytes) -> list[Frame]:
    """Return the frames of a payload, none if it holds no sound."""
    found: list[Frame] = []
    for frame in _SPLIT[codec.framing](codec, payload):
        if len(found) == MAX_FRAMES:
            break
        found.append(frame)
    return found if any(frame.data for frame in found) else []


def samples(codec: Codec, payload: bytes) -> int:
    """Return how many samples a payload holds, 0 if no sound."""
    return sum(frame.samples for frame in frames(codec, payload))


def broken(codec: Codec, payload: bytes) -> bool:
    """Tell whether a payload is neither sound nor its sender's word of silence: cut short, or of another codec."""
    if not payload or (codec.framing is Framing.G729 and len(payload) == 2):
        return False
    return not any(frame.samples for frame in islice(_SPLIT[codec.framing](codec, payload), MAX_FRAMES))


def _stream(codec: Codec, payload: bytes) -> Iterator[Frame]:
    """Whole samples; what is left over at the end is none (RFC 3551 section 4.5.4)."""
    whole = len(payload) // codec.unit * codec.unit
    yield Frame(payload[:whole], whole * 8 // codec.bits)


def _gsm(codec: Codec, payload: bytes) -> Iterator[Frame]:
    """RFC 3551 section 4.5.8."""
    return (Frame(payload[at : at + 33], codec.frame) for at in range(0, len(payload) - 32, 33))


def _g729(codec: Codec, payload: bytes) -> Iterator[Frame]:
    """RFC 3551 section 4.5.6. A silence description at the end (Annex B) has no time of its own: a pause follows."""
    return (Frame(payload[at : at + 10], codec.frame) for at in range(0, len(payload) - 9, 10))


_G723 = {0: 24, 1: 20, 2: 4, 3: 1}


def _g723(codec: Codec, payload: bytes) -> Iterator[Frame]:
    """RFC 3551 section 4.5.3: 6.3 and 5.3 kbit/s, a silence description, nothing sent."""
    at = 0
    while at < len(payload):
        size = _G723[payload[at] & 3]
        data = payload[at : at + size]
        if len(data) < size:
            return
        yield Frame(data if size >= 20 else b"", codec.frame)
        at += size


_ILBC = {20: 38, 30: 50}


def _ilbc(codec: Codec, payload: bytes) -> Iterator[Frame]:
    """RFC 3952 section 3. The size tells the mode where it is not the agreed one."""
    mode = codec.mode
    if len(payload) % _ILBC[mode] and not len(payload) % _ILBC[50 - mode]:
        mode = 50 - mode
    size = _ILBC[mode]
    return (Frame(payload[at : at + size], mode * 8) for at in range(0, len(payload) - size + 1, size))


_AMR_BITS = (95, 103, 118, 134, 148, 159, 204, 244, 39, 43, 38, 37)
_AMR_WB_BITS = (132, 177, 253, 285, 317, 365, 397, 461, 477, 40)
_NO_SPEECH = 14  # speech lost; 15: no data


def _amr(codec: Codec, payload: bytes) -> Iterator[Frame]:
    """RFC 4867 section 4.3 and 4.4. Frames are given with the header of their storage format (section 5.3)."""
    aligned = codec.framing is Framing.AMR_OCTETS
    table, last = (_AMR_BITS, 7) if codec.frame == 160 else (_AMR_WB_BITS, 8)
    entries, at = _amr_contents(payload, aligned)
    bits = int.from_bytes(payload, "big")
    total = len(payload) * 8
    for entry in entries:
        kind, good = entry >> 1, entry & 1
        size = table[kind] if kind < len(table) else 0
        if (kind >= len(table) and kind < _NO_SPEECH) or (kind == _NO_SPEECH and codec.frame == 160):
            return  # kept for later standards: nobody knows how long it is
        if at + size > total:
            return
        whole = -(-size // 8)
        value = bits >> (total - at - size) & ((1 << size) - 1)
        data = bytes([kind << 3 | good << 2]) + (value << (whole * 8 - size)).to_bytes(whole, "big")
        yield Frame(data if good and kind <= last else b"", codec.frame)
        at += whole * 8 if aligned else size


def fills(codec: Codec, payload: bytes) -> bool:
    """Tell whether AMR frames fill a payload to its last byte, as they do if the payload mode is the right one."""
    aligned = codec.framing is Framing.AMR_OCTETS
    table = _AMR_BITS if codec.frame == 160 else _AMR_WB_BITS
    entries, at = _amr_contents(payload, aligned)
    sizes = [table[entry >> 1] if entry >> 1 < len(table) else 0 for entry in entries]
    rest = sum(-(-size // 8) * 8 if aligned else size for size in sizes)
    lowest = _NO_SPEECH + (codec.frame == 160)
    known = all(entry >> 1 < len(table) or entry >> 1 >= lowest for entry in entries)
    return bool(entries) and known and -(-(at + rest) // 8) == len(payload)


def _amr_contents(payload: bytes, aligned: bool) -> tuple[list[int], int]:
    """Return the table of contents (frame type and quality bit of each frame), and the bit at which speech begins."""
    bits = int.from_bytes(payload[: MAX_FRAMES + 1], "big")
    total = min(len(payload), MAX_FRAMES + 1) * 8
    at, step = (8, 8) if aligned else (4, 6)
    entries: list[int] = []
    more = 1
    while more and at + step <= total and len(entries) < MAX_FRAMES:
        entry = bits >> (total - at - 6) & 0x3F
        more = entry >> 5
        entries.append(entry & 0x1F)
        at += step
    return ([], at) if more else (entries, at)


_SPEEX = {0: 5, 1: 43, 2: 119, 3: 160, 4: 220, 5: 300, 6: 364, 7: 492, 8: 79}
_SPEEX_HIGH = {0: 4, 1: 36, 2: 112, 3: 192, 4: 352}


def _speex(codec: Codec, payload: bytes) -> Iterator[Frame]:
    """RFC 5574 section 3.3: frames without a mark between them, then a terminator and bits to fill the last byte."""
    bits, total = int.from_bytes(payload, "big"), len(payload) * 8

    def peek(at: int, count: int) -> int:
        return bits >> (total - at - count) & ((1 << count) - 1) if at + count <= total else -1

    begin = at = 0
    while (mode := peek(at, 5)) >= 0:
        if mode in (13, 14):  # a message in band, of its own or of the standard's
            code = peek(at + 5, 4)
            if code < 0:
                return
            at += 9 + (5 + 8 * code if mode == 13 else _speex_message(code))
            continue
        size = _SPEEX.get(mode)
        if size is None or at + size > total:
            return
        at += size
        silent = mode == 0
        for _ in range(2):  # the layers of wideband and ultra-wideband, which a narrowband decoder passes over
            high = peek(at, 4)
            if high < 8:
                break
            size = _SPEEX_HIGH.get(high & 7, total)
            if at + size > total:
                return
            at += size
            silent = silent and high == 8
        yield Frame(b"" if silent else _bytes_of(bits, total, begin, at), codec.frame)
        begin = at


def _speex_message(code: int) -> int:
    """Bits of a standard message in band."""
    return next(size for limit, size in ((2, 1), (8, 4), (10, 8), (12, 16), (14, 32), (16, 64)) if code < limit)


def _bytes_of(bits: int, total: int, begin: int, end: int) -> bytes:
    """Return bits as whole bytes, filled up as Speex does it: a zero, then ones."""
    size = end - begin
    fill = -size % 8
    value = (bits >> (total - end) & ((1 << size) - 1)) << fill | ((1 << fill) - 1) >> 1
    return value.to_bytes((size + fill) // 8, "big")


_OPUS = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4
"""Samples of a frame at 48 kHz by configuration (RFC 6716 table 2)."""
MAX_OPUS = 5760


def _opus(codec: Codec, payload: bytes) -> Iterator[Frame]:
    """RFC 7587 section 4.2, RFC 6716 section 3. A packet whose frames hold nothing is a pause of its sender (DTX)."""
    if not payload:
        return
    count = {0: 1, 1: 2, 2: 2}.get(payload[0] & 3) or (payload[1] & 0x3F if len(payload) > 1 else 0)
    length = count * _OPUS[payload[0] >> 3]
    if 0 < length <= MAX_OPUS:
        head = 1 if payload[0] & 3 < 2 else 2
        yield Frame(payload if len(payload) > head + count else b"", length)


_SPLIT: dict[Framing, Callable[[Codec, bytes], Iterator[Frame]]] = {
    Framing.STREAM: _stream,
    Framing.GSM: _gsm,
    Framing.G729: _g729,
    Framing.G723: _g723,
    Framing.ILBC: _ilbc,
    Framing.SPEEX: _speex,
    Framing.AMR_OCTETS: _amr,
    Framing.AMR_BITS: _amr,
    Framing.OPUS: _opus,
}
