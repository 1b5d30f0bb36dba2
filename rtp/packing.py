"""Which way round the samples of G.726 lie in their bytes, when a sender's description is wrong about it.

RFC 3551 section 4.5.4 puts the first sample into the low bits, ITU-T I.366.2 (AAL2-G726) into the high ones; phones
take one for the other. Decoded the wrong way, sound turns into something like noise: its spectrum is flatter. Noise
itself tells nothing, and is taken as it was told.
"""

from collections.abc import Iterable

import numpy as np

from .codecs import Codec, packed_otherwise
from .decoder import Bytes, Decoder, Samples

CHUNK_S = 10
"""Seconds of sound that are decoded both ways at one time."""
_WINDOW = 256
_LOUD = 100.0
"""Mean square from which on a window of sound says anything."""
ENOUGH = 50
"""Windows (of 32 ms) that are needed."""
APART = 0.35
"""How much less flat, in nepers, the other way must be. Of white noise both ways are within 0.3."""


def true_packing(codec: Codec, parts: Iterable[Bytes]) -> Codec:
    """Return the codec, or the one that is packed the other way. `parts` are pieces of the stream's payload, whole
    samples each; no more of them are asked for than are needed.
    """
    other = packed_otherwise(codec)
    if other is None:
        return codec
    ways = [[0.0, 0], [0.0, 0]]
    for data in parts:
        for way, one in zip(ways, (codec, other), strict=True):
            depth, windows = _depth(_decoded(one, data))
            way[0] += depth
            way[1] += windows
        if min(windows for _, windows in ways) >= ENOUGH:
            told, turned = (depth / windows for depth, windows in ways)
            return other if turned - told > APART else codec
    return codec


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
