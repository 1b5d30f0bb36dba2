"""The RIFF/WAVE header of a recording: A-law and µ-law as they crossed the wire, or 16-bit PCM.

Layout after Microsoft's "New Multimedia Data Types and Data Techniques" (1994): a format other than PCM has a `fmt `
chunk of 18 bytes and a `fact` chunk with the number of frames. What a player shows of the recording stands in a `LIST`
chunk of type `INFO` before the sound.
"""

import struct
from collections.abc import Mapping
from enum import IntEnum

from .safe_text import for_line

MAX_RIFF_SIZE = 0xFFFF_FFFF
MAX_TEXT = 200
"""Characters of a text that a player shows."""


class Encoding(IntEnum):
    """How samples are stored; the values are WAVE format tags."""

    PCM16 = 1
    ALAW = 6
    MULAW = 7

    @property
    def sample_size(self) -> int:
        """Bytes of one sample of one channel."""
        return 2 if self is Encoding.PCM16 else 1


class WavTooLong(ValueError):
    """The sound does not fit in a RIFF file, whose size field has 32 bits."""


def header(encoding: Encoding, channels: int, rate: int, frames: int, about: Mapping[str, str] | None = None) -> bytes:
    """Return all that precedes the sample data: `frames` frames of `channels` samples, at `rate` frames a second.

    `about` is what the file says of itself, by the keys of RIFF: `INAM` is its title. The data is to be followed by
    `padding()`. Raises WavTooLong from 4 GiB on (74 hours of two channels of G.711).
    """
    block = encoding.sample_size * channels
    data_size = frames * block
    tail = b""
    if encoding is not Encoding.PCM16:
        tail = struct.pack("<H4sII", 0, b"fact", 4, frames)
    tail += _list(about or {})
    fmt_size = 16 if encoding is Encoding.PCM16 else 18
    riff_size = 4 + 8 + 16 + len(tail) + 8 + data_size + data_size % 2
    if riff_size > MAX_RIFF_SIZE:
        raise WavTooLong(
            f"{frames} frames of {block} bytes make {data_size} bytes of sound; a WAV file holds less than 4 GiB"
        )
    fmt = struct.pack(
        "<4sIHHIIHH", b"fmt ", fmt_size, encoding, channels, rate, rate * block, block, 8 * encoding.sample_size
    )
    return struct.pack("<4sI4s", b"RIFF", riff_size, b"WAVE") + fmt + tail + struct.pack("<4sI", b"data", data_size)


def _list(about: Mapping[str, str]) -> bytes:
    """Return the LIST chunk of these texts, each with a zero at its end and an even length."""
    texts = [(key.encode(), for_line(text, MAX_TEXT).encode() + b"\0") for key, text in about.items()]
    parts = [struct.pack("<4sI", key, len(text)) + text + b"\0" * (len(text) % 2) for key, text in texts]
    content = b"INFO" + b"".join(parts)
    return struct.pack("<4sI", b"LIST", len(content)) + content if parts else b""


def padding(encoding: Encoding, channels: int, frames: int) -> bytes:
    """Return the zero byte that an odd amount of data is followed by, or nothing."""
    return b"\0" * (encoding.sample_size * channels * frames % 2)
