"""A recording's WAV read again: its sound in pieces, so that hours of it take no more memory than minutes."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..rtp.g711 import PCM, Law
from .markers import PART_S, SIDES, Markers
from .wav import Encoding

Samples = npt.NDArray[np.int16]
Gap = tuple[int, int]
"""First sample and number of samples."""
PIECE = 1 << 20
"""Frames read at one time."""
_HEAD = 1 << 20
SHORTEST_S, LONGEST_GAP_S = 0.010, 0.2
"""How long silence is that may be a loss that the info file does not list."""
_SILENCE = {Encoding.ALAW: 8, Encoding.MULAW: 0, Encoding.PCM16: 0}
_LAWS = {Encoding.ALAW: Law.A, Encoding.MULAW: Law.MU}


class WaveError(ValueError):
    """This is no WAV of a recording; the message says why."""


@dataclass(frozen=True, slots=True)
class Wave:
    """A stereo WAV as a recording has it: where its sound begins in the file, how it is stored, and `frames` of it."""

    path: Path
    encoding: Encoding
    rate: int
    start: int
    frames: int

    def pieces(self) -> Iterator[Samples]:
        """Yield the sound, a row a frame: left, right. Raises OSError, WaveError if the file ends early."""
        size = 2 * self.encoding.sample_size
        with self.path.open("rb") as file:
            file.seek(self.start)
            for at in range(0, self.frames, PIECE):
                wanted = min(PIECE, self.frames - at) * size
                data = file.read(wanted)
                if len(data) < wanted:
                    raise WaveError("it is shorter than its header says")
                yield _decoded(data, self.encoding).reshape(-1, 2)


def open_wave(path: Path) -> Wave:
    """Read a WAV's header. Raises OSError, WaveError."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        raise WaveError("it is no WAV")
    place, form = 12, b""
    while place + 8 <= len(head):
        name, size = struct.unpack_from("<4sI", head, place)
        if name == b"fmt ":
            form = head[place + 8 : place + 8 + size]
        if name == b"data":
            return _wave(path, form, place + 8, size)
        place += 8 + size + size % 2
    raise WaveError("there is no sound in it")


def _wave(path: Path, form: bytes, start: int, size: int) -> Wave:
    if len(form) < 16:
        raise WaveError("it does not say how its sound is stored")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", form)
    if tag not in set(Encoding) or channels != 2 or bits != 8 * Encoding(tag).sample_size or not rate:
        raise WaveError(f"it is not as recordings are: format {tag}, {channels} channels, {bits} bits, {rate} Hz")
    return Wave(path, Encoding(tag), rate, start, size // (2 * Encoding(tag).sample_size))


def _decoded(data: bytes, encoding: Encoding) -> Samples:
    if encoding in _LAWS:
        return PCM[_LAWS[encoding]][np.frombuffer(data, dtype=np.uint8)]
    return np.frombuffer(data, dtype="<i2").astype(np.int16)


def envelope(wave: Wave, columns: int) -> tuple[Samples, Samples]:
    """Return the lowest and the highest sample of each of so many stretches of equal length, a column each channel.

    Of a recording with fewer frames than `columns` each frame is a stretch. Raises OSError, WaveError.
    """
    if not wave.frames:
        return np.zeros((1, 2), dtype=np.int16), np.zeros((1, 2), dtype=np.int16)
    count = min(columns, wave.frames)
    low, high = np.full((count, 2), 32767, dtype=np.int16), np.full((count, 2), -32768, dtype=np.int16)
    edges = np.arange(count, dtype=np.int64) * wave.frames // count
    at = 0
    for piece in wave.pieces():
        stop = at + len(piece)
        first = int(np.searchsorted(edges, at, side="right")) - 1
        last = int(np.searchsorted(edges, stop, side="left"))
        starts = np.maximum(edges[first:last] - at, 0)
        low[first:last] = np.minimum(low[first:last], np.minimum.reduceat(piece, starts, axis=0))
        high[first:last] = np.maximum(high[first:last], np.maximum.reduceat(piece, starts, axis=0))
        at = stop
    return low, np.maximum(high, low)


def unlisted(wave: Wave, markers: Markers, side: str) -> Iterator[Gap]:
    """Yield the gaps that an info file only counts: silence as recordings have it, behind the last gap that is listed,
    in a time in which packets were lost.
    """
    if not markers.unlisted[side]:
        return
    channel, silence = SIDES.index(side), _SILENCE[wave.encoding]
    listed = [gap.end for gap in (*markers.losses[side], *markers.pauses[side])]
    behind = round(max(listed, default=0.0) * wave.rate)
    shortest, longest = round(SHORTEST_S * wave.rate), round(LONGEST_GAP_S * wave.rate)
    at, begun = 0, -1
    for piece in wave.pieces():
        still = np.concatenate(([begun >= 0], piece[:, channel] == silence)).astype(np.int8)
        for edge in np.nonzero(np.diff(still))[0].tolist():
            here = at + edge
            if begun < 0:
                begun = here
                continue
            length = here - begun
            lossy = any(part.start <= begun / wave.rate < part.start + PART_S for part in markers.lossy[side])
            if begun >= behind and shortest <= length <= longest and lossy:
                yield begun, length
            begun = -1
        at += len(piece)
