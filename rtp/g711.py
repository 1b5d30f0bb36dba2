"""G.711: the two laws and their silence (ITU-T G.711, RFC 3551 section 4.5.14)."""

from enum import IntEnum

import numpy as np
import numpy.typing as npt


class Law(IntEnum):
    """What a payload byte means. `NONE`: no sound that is decoded here."""

    NONE = 0
    A = 1
    MU = 2


SILENCE = {Law.A: 0xD5, Law.MU: 0xFF}
"""The code of no signal: the smallest positive step of A-law, zero of µ-law."""


def _a_law() -> npt.NDArray[np.int16]:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, code & 15
    size = np.where(exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 0x108) << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, size, -size).astype(np.int16)


def _mu_law() -> npt.NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    size = (((code & 15) << 3) + 0x84 << ((code >> 4) & 7)) - 0x84
    return np.where(code & 0x80, -size, size).astype(np.int16)


PCM = {Law.A: _a_law(), Law.MU: _mu_law()}
"""For each law the 16-bit sample (int16) of every code."""


def decode(data: npt.NDArray[np.uint8], law: Law) -> npt.NDArray[np.int16]:
    """Return the 16-bit samples of these codes."""
    return PCM[law][data]
