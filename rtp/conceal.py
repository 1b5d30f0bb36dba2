"""Packet loss concealed in decoded sound: for copies to listen to, never for what is kept. Pure.

After the idea of ITU-T G.711 appendix I. What was said last goes on for a moment: its pitch is found, and its last
period, after 10 ms its last two and then three, are repeated, softer and softer, until after 60 ms there is silence.
Where the sound begins again, the two are blended. A quarter of a period before the loss is blended into the repetition
as well, so that there is no click.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Samples = npt.NDArray[np.int16]

HISTORY_S = 0.04875
"""How much of what was heard before a loss is looked at."""
LONGEST_S = 0.060
"""From then on there is silence."""
BLEND_S = 0.010
"""How much sound behind a loss is blended, at most."""
_STEP_S = 0.010
_SOFTER = 0.2
_SHORTEST_PITCH_S, _LONGEST_PITCH_S = 0.005, 0.015
_COMPARED_S = 0.020


def conceal(sound: Samples, start: int, length: int, rate: int) -> None:
    """Fill `length` lost samples from `start` on in a channel (16 bits, `rate` a second), and blend their edges.

    Nothing is done where there is too little before the loss to go on from.
    """
    period = _pitch(sound[max(0, start - round(HISTORY_S * rate)) : start].astype(np.float64), rate)
    stop = min(start + length, len(sound))
    if period == 0 or stop <= start:
        return
    quarter = period // 4
    limit = round(LONGEST_S * rate)
    blend = min(_blend(length, rate), len(sound) - stop) if length < limit else 0
    going = _going_on(sound, start, period, quarter, min(stop - start, limit) + blend, rate)
    sound[start - quarter : start] = _rounded(_edge(sound, start, period, quarter))
    filled = min(stop - start, limit)
    sound[start : start + filled] = _rounded(going[:filled])
    if blend:
        up = np.arange(1, blend + 1) / (blend + 1)
        sound[stop : stop + blend] = _rounded(sound[stop : stop + blend] * up + going[filled:] * (1 - up))


def _pitch(before: Floats, rate: int) -> int:
    """Return the period of the end of a stretch of sound in samples, 0 if it is too short or silent."""
    low, high = round(_SHORTEST_PITCH_S * rate), round(_LONGEST_PITCH_S * rate)
    compared = round(_COMPARED_S * rate)
    if len(before) < 3 * high or not before[-compared:].any():
        return 0
    end = before[-compared:]
    windows = np.lib.stride_tricks.sliding_window_view(before, compared)
    lags = np.arange(low, high + 1)
    earlier = windows[len(before) - compared - lags]
    size = np.sqrt((earlier * earlier).sum(axis=1))
    alike = (earlier @ end) / np.maximum(size, 1.0)
    return int(lags[int(alike.argmax())])


def _blend(length: int, rate: int) -> int:
    """Return over how many samples the end is blended: 4 ms for each 10 ms of loss."""
    return round(min(BLEND_S, 0.4 * length / rate) * rate)


def _edge(sound: Samples, start: int, period: int, quarter: int) -> Floats:
    """Return the last quarter of a period before the loss, blended with what came a period before."""
    up = np.arange(1, quarter + 1) / (quarter + 1)
    last = sound[start - quarter : start].astype(np.float64)
    earlier = sound[start - period - quarter : start - period].astype(np.float64)
    return last * (1 - up) + earlier * up


def _going_on(sound: Samples, start: int, period: int, quarter: int, size: int, rate: int) -> Floats:
    """Return `size` samples that go on as the sound before `start` did, softer and softer."""
    step = round(_STEP_S * rate)
    at = np.arange(size)
    out = _repeated(sound, start, period, quarter, 1, at)
    for periods in (2, 3):
        begin = (periods - 1) * step
        if begin < size:
            more = _repeated(sound, start, period, quarter, periods, at[begin:])
            up = np.minimum(np.arange(1, len(more) + 1) / (quarter + 1), 1.0)
            out[begin:] = out[begin:] * (1 - up) + more * up
    softer: Floats = out * np.clip(1.0 - _SOFTER * (at - step) / step, 0.0, 1.0)
    return softer


def _repeated(sound: Samples, start: int, period: int, quarter: int, periods: int, at: npt.NDArray[np.int64]) -> Floats:
    """Return the last periods before the loss over and over, the end of each turn blended into the next one."""
    whole = periods * period
    turn = sound[start - whole : start].astype(np.float64)
    up = np.arange(1, quarter + 1) / (quarter + 1)
    earlier = sound[start - whole - quarter : start - whole].astype(np.float64)
    if len(earlier) == quarter:
        turn[-quarter:] = turn[-quarter:] * (1 - up) + earlier * up
    again: Floats = turn[at % whole]
    return again


def _rounded(sound: Floats) -> Samples:
    whole: Samples = np.clip(np.rint(sound), -32768, 32767).astype(np.int16)
    return whole
