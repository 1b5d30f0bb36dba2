"""Which way round the samples of G.726 lie in their bytes, when a sender's description is wrong about it.

RFC 3551 section 4.5.4 puts the first sample into the low bits, ITU-T I.366.2 (AAL2-G726) into the high ones; phones
take one for the other. Decoded the wrong way, sound turns into something like noise: its spectrum is flatter. Noise
itself tells nothing, and is taken as it was told.

At 40 kbit/s there are two kinds of senders too: those by the Recommendation, and FFmpeg (`g726.py`). A decoder of the
wrong kind drifts, and adds noise: it has more power in high frequencies, or of a tone a flatter spectrum.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .codecs import Codec, by_the_book, packed_otherwise
from .decoder import Bytes, Decoder, Samples

CHUNK_S = 10
"""Seconds of sound that are decoded both ways at one time."""
_WINDOW = 256
_LOUD = 100.0
"""Mean square from which on a window of sound says anything."""
ENOUGH = 50
"""Windows (of 32 ms) that are needed."""
FEW, TONE, CLEARLY = 5, 6.0, 0.995
"""Of who made it: the windows that are needed; depth from which on sound is tones; what is less than the same."""
APART = 0.35
"""How much less flat, in nepers, the other way must be. Of white noise both ways are within 0.3."""


def true_packing(codec: Codec, parts: Iterable[Bytes]) -> Codec:
    """Return the codec, or the one that is packed the other way. `parts` are pieces of the stream's payload, whole
    samples each; no more of them are asked for than are needed.
    """
    other = packed_otherwise(codec)
    if other is None:
        return codec
    told, turned, heard = _Way(codec), _Way(other), []
    for data in parts:
        heard.append(data)
        told.hear(data)
        turned.hear(data)
        if min(told.windows, turned.windows) >= ENOUGH:
            codec = other if turned.depth - told.depth > APART else codec
            break
    return _by_its_maker(codec, heard)


def _by_its_maker(codec: Codec, parts: list[Bytes]) -> Codec:
    """Return the codec by the book or as FFmpeg has it, whichever made these parts."""
    book = by_the_book(codec)
    if book is None:
        return codec
    here, there = _Way(codec), _Way(book)
    for data in parts:
        here.hear(data)
        there.hear(data)
    if min(here.windows, there.windows) < FEW:
        return codec
    if min(here.depth, there.depth) > TONE:
        return codec if here.depth > there.depth else book
    return codec if here.rough < CLEARLY * there.rough else book


@dataclass(slots=True)
class _Way:
    """What a codec makes of some payload: the depth of its spectrum in nepers, over so many loud windows, and how much
    power there is in high frequencies.
    """

    codec: Codec
    windows: int = 0
    rough: float = 0.0
    _depths: float = 0.0

    def hear(self, data: Bytes) -> None:
        """Decode some more."""
        sound = _decoded(self.codec, data)
        depth, windows = _depth(sound)
        self._depths += depth
        self.windows += windows
        self.rough += float((np.diff(sound.astype(np.float64), n=2) ** 2).sum())

    @property
    def depth(self) -> float:
        """The mean over the windows."""
        return self._depths / max(self.windows, 1)


def _decoded(codec: Codec, data: Bytes) -> Samples:
    size = np.array([len(data)], dtype=np.int64)
    return Decoder(codec).decode(data, size, size * 8 // codec.bits)


def _depth(sound: Samples) -> tuple[float, int]:
    """Return by how much the mean of each loud window's spectrum is above its geometric mean (nepers), summed, and the
    number of these windows.
    """
    windows = sound[: len(sound) // _WINDOW * _WINDOW].reshape(-1, _WINDOW).astype(np.float64)
    windows = windows[(windows**2).mean(axis=1) > _LOUD]
    power = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW), axis=1))[:, 2:-2] ** 2 + 1.0
    return float((np.log(power.mean(axis=1)) - np.log(power).mean(axis=1)).sum()), len(windows)
