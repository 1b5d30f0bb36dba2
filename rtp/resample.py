"""From one sampling rate to another, the same samples on every machine. Pure.

A polyphase filter: a sinc under a Kaiser window, symmetric, so that nothing is moved in time. Its coefficients are
whole numbers; products and sums of 16-bit samples with them are exact in double precision, in whatever order a
processor adds them.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]
REACH = 16
"""Samples on either side that count towards one, at the lower of both rates."""
_BETA = 9.0
_PASS = 0.92  # of the band that both rates have in common
_BITS = 15
_BLOCK = 1 << 14


@dataclass(frozen=True, slots=True)
class Filter:
    """From rate `source` to `target` (Hz): sample m lies at m * down / up of the source, and `reach` of its samples on
    either side count. `weights`: one row each of the `up` places between two samples.
    """

    up: int
    down: int
    reach: int
    weights: npt.NDArray[np.float64]

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Return which samples of the source are needed for samples `start` to `stop`."""
        first, last = start * self.down // self.up, (stop - 1) * self.down // self.up
        return first - self.reach + 1, last + self.reach + 1

    def apply(self, source: Samples, start: int, stop: int) -> Samples:
        """Return samples `start` to `stop`, of the source samples that `span` names."""
        wide = source.astype(np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(wide, 2 * self.reach)
        out = np.empty(stop - start, dtype=np.int16)
        begin = start * self.down // self.up
        for at in range(start, stop, _BLOCK):
            number = np.arange(at, min(at + _BLOCK, stop), dtype=np.int64) * self.down
            weights = self.weights[number % self.up]
            sums = np.einsum("ij,ij->i", windows[number // self.up - begin], weights)
            rounded = np.floor((sums + (1 << _BITS - 1)) / (1 << _BITS))
            out[at - start : at - start + len(number)] = np.clip(rounded, -32768, 32767)
        return out


@lru_cache(maxsize=32)
def resampler(source: int, target: int) -> Filter:
    """Return the filter between two rates in Hz."""
    common = gcd(source, target)
    up, down = target // common, source // common
    wider = max(1.0, source / target)
    reach = int(np.ceil(REACH * wider))
    # distance of each source sample in the window from the place of each phase
    distance = np.arange(-reach + 1, reach + 1)[None, :] - np.arange(up)[:, None] / up
    scale = _PASS / wider
    window = np.i0(_BETA * np.sqrt(np.maximum(1 - (distance / reach) ** 2, 0))) / np.i0(_BETA)
    ideal = np.sinc(distance * scale) * window
    whole = np.rint(ideal / ideal.sum(axis=1, keepdims=True) * (1 << _BITS))
    whole[np.arange(up), np.argmax(whole, axis=1)] += (1 << _BITS) - whole.sum(axis=1)  # a constant stays what it is
    return Filter(up, down, reach, whole)
