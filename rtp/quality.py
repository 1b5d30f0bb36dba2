"""Figures of a stream's quality. Pure."""

import numpy as np
import numpy.typing as npt

from .timeline import Sequence, steps

Ints = npt.NDArray[np.int64]


def jitter_ms(time: Ints, stamp: npt.NDArray[np.uint32], rate: int) -> float:
    """Return the mean interarrival jitter (RFC 3550 section 6.4.1) in ms.

    `time` (ns) and `stamp` are columns in order of arrival, `rate` the RTP clock in Hz. The RFC's running estimate is a
    weighted mean of |D|; over a whole stream its mean is the mean of |D|.
    """
    if len(time) < 2 or rate <= 0:
        return 0.0
    step = steps(stamp, 32)
    difference = np.abs(np.diff(time) * 1e-6 - step * (1000.0 / rate))
    steady = difference < 1000.0  # a jump of the time stamp or a pause is no jitter
    return float(difference[steady].mean()) if steady.any() else 0.0


def bursts(packets: Sequence) -> tuple[Ints, Ints]:
    """Return the bursts of loss in a stream: the place in `packets.order` of the packet behind each, and its length."""
    missing = np.diff(packets.number) - 1
    missing[packets.runs[packets.runs > 0] - 1] = 0  # there the sender began its numbers anew
    behind = np.nonzero(missing > 0)[0]
    return behind + 1, missing[behind]
