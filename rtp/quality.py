"""Figures of a stream's quality. Pure."""

from collections import Counter

import numpy as np
import numpy.typing as npt

from .timeline import Sequence, steps

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_PAUSE_MS = 1000.0
_GAIN = 1 / 16
_PART, _REACH = 8192, 512
"""Packets whose estimates are made at one time, and how many before these still count: the rest weighs 10^-14."""
MAX_LONG = 1000
"""Bursts over the edges of windows whose packets are told apart, at most; of others all are in the last one."""


def jitter_ms(time: Ints, stamp: npt.NDArray[np.uint32], rate: int) -> tuple[float, float]:
    """Return the mean interarrival jitter and the highest (RFC 3550 section 6.4.1), in ms.

    `time` (ns) and `stamp` are columns in order of arrival, `rate` the RTP clock in Hz. The RFC's running estimate is a
    weighted mean of |D|; over a whole stream its mean is the mean of |D|. The highest is that of the running estimate.
    """
    if len(time) < 2 or rate <= 0:
        return 0.0, 0.0
    step = steps(stamp, 32)
    difference = np.abs(np.diff(time) * 1e-6 - step * (1000.0 / rate))
    steady = difference < _PAUSE_MS  # a jump of the time stamp or a pause is no jitter
    if not steady.all():
        difference = difference[steady]
    if len(difference) == 0:
        return 0.0, 0.0
    return float(difference.mean()), float(_running(difference).max())


def _running(difference: Floats) -> Floats:
    """Return the running estimate J += (|D| - J) / 16.

    It is a sum of all |D| so far, each weighing less the longer ago it was: the sums of 1, 2, 4 ... packets give those
    of twice as many, until the rest weighs nothing. A part at a time, so that it stays in the processor's cache.
    """
    parts = []
    for start in range(0, len(difference), _PART):
        before = min(start, _REACH)
        estimate = difference[start - before : start + _PART] * _GAIN
        back, weight = 1, 1 - _GAIN
        while back < min(_REACH, len(estimate)):
            longer = estimate.copy()
            longer[back:] += weight * estimate[:-back]
            estimate, back, weight = longer, 2 * back, weight * weight
        parts.append(estimate[before:])
    return np.concatenate(parts)


def bursts(packets: Sequence) -> tuple[Ints, Ints]:
    """Return the bursts of loss in a stream: the place in `packets.order` of the packet behind each, and its length."""
    missing = np.diff(packets.number) - 1
    missing[packets.runs[packets.runs > 0] - 1] = 0  # there the sender began its numbers anew
    behind = np.nonzero(missing > 0)[0]
    return behind + 1, missing[behind]


def counted(numbers: Ints) -> dict[int, int]:
    """Return how often each number occurs."""
    if len(numbers) == 0:
        return {}
    low, high = int(numbers.min()), int(numbers.max())
    if high - low > len(numbers) + 1000:
        which, count = np.unique(numbers, return_counts=True)
    else:  # as it mostly is; no sorting
        count = np.bincount(numbers - low)
        which = np.nonzero(count)[0]
        which, count = which + low, count[which]
    return dict(zip(which.tolist(), count.tolist(), strict=True))


def by_window(time: Ints, behind: Ints, length: Ints, width: int) -> tuple[Counter[int], Counter[int]]:
    """Return how many packets are missing in each stretch of `width` ns, and how many bursts of loss touch it.

    `time` (ns) is that of the packets in sequence. The packets of a burst are taken as sent evenly between the two that
    enclose it.
    """
    missed: Counter[int] = Counter()
    touched: Counter[int] = Counter()
    before, after = time[behind - 1] // width, time[behind] // width
    long = np.nonzero(after > before)[0][:MAX_LONG]
    short = np.ones(len(behind), dtype=bool)
    short[long] = False
    which, place = np.unique(after[short], return_inverse=True)
    sums = np.bincount(place, weights=length[short], minlength=len(which)).astype(np.int64)
    missed.update(dict(zip(which.tolist(), sums.tolist(), strict=True)))
    touched.update(dict(zip(which.tolist(), np.bincount(place, minlength=len(which)).tolist(), strict=True)))
    for index in long.tolist():
        first, last, count = int(time[behind[index] - 1]), int(time[behind[index]]), int(length[index])
        sent = first + (last - first) / (count + 1) * np.arange(1, count + 1)
        parts = counted((sent // width).astype(np.int64))
        missed.update(parts)
        touched.update(parts.keys())
    return missed, touched
