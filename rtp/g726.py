"""G.726 at 40 kbit/s as ITU-T has it (Recommendation G.726, 12/1990), sample after sample.

FFmpeg's decoder lets the zero predictor forget twice as fast at this rate (2^-8 in place of 2^-9, block UPB of the
Recommendation), so that it drifts off what phones encode. All other rates are FFmpeg's.
"""

import numpy as np
import numpy.typing as npt

_LEVELS = (-2048, -66, 28, 104, 169, 224, 274, 318, 358, 395, 429, 459, 488, 514, 539, 566)
"""What each magnitude stands for, as a logarithm (table 7)."""
_SCALES = (14, 14, 24, 39, 40, 41, 58, 100, 141, 179, 219, 280, 358, 440, 529, 696)
"""W(I), by which the step size follows, times 16."""
_SPEEDS = (0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 6)
"""F(I), by which it is told whether the signal is steady."""
_SLOWEST, _FASTEST = 544, 5120
_ZERO = (0, 32, False)
_HALF = 48
"""What is added to a product before it is cut (FMULT)."""


def _product(factor: int, number: tuple[int, int, bool]) -> int:
    """Multiply a coefficient with a number of few bits: exponent, mantissa, and whether it is negative (FMULT)."""
    exponent, mantissa, negative = number
    factor >>= 2
    size = factor if factor > 0 else -factor & 0x1FFF
    bits = size.bit_length() - 6
    whole = (size >> bits if bits >= 0 else size << -bits) if size else 32
    shift = bits + exponent - 13
    made = (whole * mantissa + _HALF) >> 4
    made = made << shift & 0x7FFF if shift >= 0 else made >> -shift
    return -made if (factor < 0) != negative else made


def _few_bits(value: int, negative: bool) -> tuple[int, int, bool]:
    """Return a magnitude as exponent, mantissa of 6 bits, and sign (FLOATA, FLOATB)."""
    if value == 0:
        return 0, 32, negative
    exponent = value.bit_length()
    return exponent, (value << 6) >> exponent, negative


class Itu40:
    """One stream's decoder."""

    def __init__(self) -> None:
        self._quick, self._slow = _SLOWEST, 34_816  # yu, yl
        self._short, self._long, self._control = 0, 0, 0  # dms, dml, ap
        self._tone = False
        self._poles, self._zeros = [0, 0], [0] * 6
        self._signs = [False, False]
        self._steps, self._signals = [_ZERO] * 6, [_ZERO] * 2

    def decode(self, codes: list[int]) -> npt.NDArray[np.int16]:
        """Return the samples of codes of 5 bits."""
        found = np.array([self._sample(code) for code in codes], dtype=np.int64)
        return np.clip(found, -32768, 32767).astype(np.int16)

    def _sample(self, code: int) -> int:
        zeros, poles = self._zeros, self._poles
        partly = sum(map(_product, zeros, self._steps))
        guess = (partly + _product(poles[1], self._signals[1]) + _product(poles[0], self._signals[0])) >> 1
        scale = self._scale()
        negative = code > 15
        index = 31 - code if negative else code
        level = _LEVELS[index] + (scale >> 2)
        size = 0 if level < 0 else ((128 + (level & 127)) << 7) >> (14 - (level >> 7 & 15))
        signal = guess - size if negative else guess + size
        jumped = self._tone and size > self._threshold()
        self._follow(scale, index)
        self._learn(signal - guess + (partly >> 1), size, negative, jumped)
        self._steps = [_few_bits(size, negative), *self._steps[:5]]
        self._signals = [_few_bits(abs(signal) & 0x7FFF, signal < 0), self._signals[0]]
        self._tone = not jumped and poles[1] < -11_776
        self._settle(scale, index, jumped)
        return signal << 2

    def _scale(self) -> int:
        """The step size, between that of speech and that of steady signals (MIX)."""
        if self._control >= 256:
            return self._quick
        slow = self._slow >> 6
        apart = (self._quick - slow) * (self._control >> 2)
        return slow + (apart >> 6 if apart >= 0 else (apart + 63) >> 6)

    def _threshold(self) -> int:
        """How large a step is that ends a tone (TRANS)."""
        whole, part = self._slow >> 15, self._slow >> 10 & 31
        limit = 31 << 10 if whole > 9 else (32 + part) << whole
        return (limit + (limit >> 1)) >> 1

    def _follow(self, scale: int, index: int) -> None:
        """Have the step sizes follow the signal (FILTD, LIMB, FILTE)."""
        self._quick = min(max(scale + (((_SCALES[index] << 5) - scale) >> 5), _SLOWEST), _FASTEST)
        self._slow += self._quick + (-self._slow >> 6)

    def _learn(self, moved: int, size: int, negative: bool, jumped: bool) -> None:
        """Have both predictors learn (UPA1, UPA2, UPB and their limits)."""
        sign, signs, poles, zeros = moved < 0, self._signs, self._poles, self._zeros
        self._signs = [sign, signs[0]]
        if jumped:
            poles[:], zeros[:] = [0, 0], [0] * 6
            return
        turned = sign != signs[0]
        second = poles[1] - (poles[1] >> 7)
        if moved:
            toward = poles[0] if turned else -poles[0]
            second += -256 if toward < -8191 else 255 if toward > 8191 else toward >> 5
            second += -128 if sign != signs[1] else 128
            second = min(max(second, -12_288), 12_288)
        poles[1] = second
        first = poles[0] - (poles[0] >> 8)
        first += (-192 if turned else 192) if moved else 0
        poles[0] = min(max(first, second - 15_360), 15_360 - second)
        for number, (_, _, before) in enumerate(self._steps):
            zeros[number] -= zeros[number] >> 9
            if size:
                zeros[number] += 128 if negative == before else -128

    def _settle(self, scale: int, index: int, jumped: bool) -> None:
        """Tell speech from steady signals (FILTA, FILTB, FILTC, TRIGA)."""
        speed = _SPEEDS[index] << 9
        self._short += (speed - self._short) >> 5
        self._long += ((speed << 2) - self._long) >> 7
        apart = abs((self._short << 2) - self._long) >= self._long >> 3
        if jumped:
            self._control = 256
        elif scale < 1536 or self._tone or apart:
            self._control += (512 - self._control) >> 4
        else:
            self._control += -self._control >> 4


def codes(data: npt.NDArray[np.uint8], *, first_high: bool) -> list[int]:
    """Return the codes of 5 bits that lie in bytes, the first one in the high bits or in the low ones."""
    bits = np.unpackbits(data, bitorder="big" if first_high else "little")
    rows = bits[: len(bits) // 5 * 5].reshape(-1, 5)
    weights = 1 << np.arange(5)
    found: list[int] = (rows @ (weights[::-1] if first_high else weights)).tolist()
    return found
