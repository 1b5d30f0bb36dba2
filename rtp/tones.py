"""Keys in the sound itself: DTMF tones, found by Goertzel's sums (ITU-T Q.23, Q.24). Pure.

Two steps. A coarse one looks at 13 ms of each 26 ms, so that no tone of 40 ms can pass between: nothing but one matrix
product for each block of sound. Only around what it finds is there a fine one: windows of 16 ms, 5 ms apart, by which
the frequencies, the twist, the length and the purity of a tone are judged.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.integer[Any]]

RATE = 8000
LOW, HIGH = (697.0, 770.0, 852.0, 941.0), (1209.0, 1336.0, 1477.0, 1633.0)
"""The two groups of frequencies in Hz (Q.23): a key is one of each."""
KEYS = ("123A", "456B", "789C", "*0#D")
FULL_SCALE_DBM0 = 3.14
"""Level of the loudest sine that A-law can hold (G.711)."""
FLOOR_DBM0 = -42.0
"""Fainter ones of a key's two tones are not listened to: at such a level they are an echo."""
MAX_TONES = 4096

PERIOD, LOOK = 208, 104
"""The coarse step's samples: `LOOK` of each `PERIOD`."""
_LOT = 2048
_COARSE_SHARE = 0.5
WINDOW, HOP = 128, 40
_AROUND = 480
TAIL = LOOK + 2 * _AROUND + 2 * WINDOW
"""Samples before the last block that was looked at, which the next piece has to begin with."""
_EDGE_SHARE, _SHARE = 0.42, 0.8
"""How much of a window's power the two tones make: at the edges of a key, and on average of its inner windows, where
what the window takes from a tone off its frequency is made good. With noise 10 dB below it is 0.91."""
_LIKELY = 0.55
"""What is less on average of all its windows is not looked at any further: that is most of what voices give."""
_SHORTEST = 7
"""Windows of the shortest key: one of 40 ms has these at least, one of 24 ms has fewer (Q.24)."""
_APART = 5
"""Windows without a tone that part two keys; a break of 10 ms does not."""
_LONGEST = 6000
"""Windows of a tone that are judged at one time."""
_OFF = 0.025
"""How far a frequency may lie off: 1.5 % must be taken, 3.5 % must not (Q.24)."""
_TWIST_DB = (-10.5, 6.5)
"""The high tone's level against the low one's: -8 to +4 dB must be taken."""
_SECOND = 0.05
"""Power of second harmonics against the tone's: a voice has them, a key does not."""
_UNSTEADY = 0.35
"""How much a key's level may vary, as a share of its mean."""


@dataclass(frozen=True, slots=True)
class Tone:
    """A key heard: from sample `start` to `stop` (8,000 Hz), which, and the level of its fainter tone in dBm0."""

    start: int
    stop: int
    digit: str
    level: float


def _waves(size: int, frequencies: tuple[float, ...], window: npt.NDArray[np.float64]) -> Floats:
    """Return cosines and then sines under a window, a column each, scaled so that a sine of amplitude 1 gives 1."""
    angle = 2 * np.pi / RATE * np.outer(np.arange(size), frequencies)
    both = np.concatenate((np.cos(angle), -np.sin(angle)), axis=1) * (2.0 / window.sum()) * window[:, None]
    waves: Floats = both.astype(np.float32)
    return waves


_FLAT = np.ones(LOOK)
_COARSE = np.vstack((_waves(LOOK, LOW + HIGH, _FLAT).T, np.full((1, LOOK), 1 / LOOK, dtype=np.float32)))
_HANN = np.hanning(WINDOW + 2)[1:-1]
_TWICE = tuple(2 * one for one in LOW + HIGH)
_FINE = np.concatenate((_waves(WINDOW, LOW + HIGH, _HANN), _waves(WINDOW, _TWICE, _HANN)), axis=1)
_POWER = (_HANN**2).astype(np.float32)
_CLEAR = (np.abs(np.subtract.outer(2 * np.array(LOW), np.array(HIGH))) > 2 * RATE / WINDOW).astype(np.float32)
"""For which keys the low tone's second harmonic can be told from the high tone."""


def amplitude(dbm0: float) -> float:
    """Return the amplitude, of 16-bit samples, of a sine at this level."""
    return float(32768.0 * 10 ** ((dbm0 - FULL_SCALE_DBM0) / 20))


def _dbm0(size: float) -> float:
    return float(20 * np.log10(max(size, 1e-3) / 32768.0) + FULL_SCALE_DBM0)


@dataclass(slots=True)
class _Windows:
    """Windows in which two tones stand out, a row each: number, key (4 * low + high), and the two tones (complex)."""

    number: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    key: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    low: npt.NDArray[np.complex64] = field(default_factory=lambda: np.empty(0, dtype=np.complex64))
    high: npt.NDArray[np.complex64] = field(default_factory=lambda: np.empty(0, dtype=np.complex64))
    share: Floats = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    second: Floats = field(default_factory=lambda: np.empty(0, dtype=np.float32))

    def take(self, rows: Ints | Bools | slice) -> "_Windows":
        return _Windows(*(getattr(self, name)[rows] for name in _Windows.__slots__))

    def behind(self, before: "_Windows") -> "_Windows":
        return _Windows(*(np.concatenate((getattr(before, n), getattr(self, n))) for n in _Windows.__slots__))


def coarse(blocks: Floats, power: Floats, floor: float) -> Bools:
    """Tell which blocks of `LOOK` samples may hold a key; `power` is the sum of squares of each."""
    found: Bools = power > LOOK * floor * floor  # two sines of that amplitude
    rows = np.nonzero(found)[0]
    if len(rows) == 0:
        return found
    sums = _COARSE @ (blocks if len(rows) == len(blocks) else blocks[rows]).T
    sums *= sums
    tones = sums[:8] + sums[8:16]
    both = tones[:4].max(axis=0) + tones[4:].max(axis=0)
    found[rows] = both * (LOOK / 2) > _COARSE_SHARE * (power[rows] - LOOK * sums[16])
    return found


def _windows_around(at: Ints) -> Ints:
    """Return the windows of the fine step around coarse blocks."""
    first = np.maximum(at * PERIOD - _AROUND, 0) // HOP
    count = (LOOK + 2 * _AROUND) // HOP
    return np.unique((first[:, None] + np.arange(count)).reshape(-1))


def _fine(samples: Floats, numbers: Ints, floor: float) -> _Windows:
    """Return those of the windows (rows of `WINDOW` samples) in which two tones stand out."""
    samples = samples - samples.mean(axis=1, keepdims=True)
    sums = samples @ _FINE
    power = np.maximum((samples * samples) @ _POWER, 1e-3)
    tones = sums[:, :8] + 1j * sums[:, 8:16]
    size = np.abs(tones) ** 2
    rows = np.arange(len(samples))
    low, high = size[:, :4].argmax(axis=1), 4 + size[:, 4:].argmax(axis=1)
    lows, highs = size[rows, low], size[rows, high]
    share = (lows + highs) * np.float32(0.5 * _POWER.sum()) / power
    twice = sums[:, 16:24] ** 2 + sums[:, 24:32] ** 2
    second = (twice[rows, low] * _CLEAR[low, high - 4] + twice[rows, high]) / np.maximum(lows + highs, 1e-9)
    good = (share > _EDGE_SHARE) & (lows > (floor / 2) ** 2) & (highs > (floor / 2) ** 2)
    key = low * 4 + high - 4
    return _Windows(
        numbers[good],
        key[good],
        tones[rows, low][good].astype(np.complex64),
        tones[rows, high][good].astype(np.complex64),
        share[good].astype(np.float32),
        second[good].astype(np.float32),
    )


def _off(tone: npt.NDArray[np.complex64], number: Ints, nominal: float) -> float:
    """Return by how many Hz a tone differs from its nominal frequency: how fast its phase runs away from that one's."""
    turned = tone * np.exp(-2j * np.pi * nominal / RATE * HOP * (number - number[0]))
    rate = 0.0
    for lag in (1, 4):
        pairs = number[lag:] - number[:-lag] == lag
        if pairs.any():
            step = (turned[lag:] * np.conj(turned[:-lag]))[pairs].sum()
            step *= np.exp(-2j * np.pi * rate * lag * HOP / RATE)
            rate += float(np.angle(step)) / (2 * np.pi * lag * HOP / RATE)
    return rate


def _response(off: float) -> float:
    """Return how much power the window leaves of a tone that is so many Hz off."""
    bins = off * WINDOW / RATE
    return float((np.sinc(bins) / (1 - bins * bins)) ** 2)


def _judged(run: _Windows, floor: float) -> Tone | None:
    """Return the key that windows one behind the other are, None if they are none."""
    key = int(run.key[0])
    low, high = np.abs(run.low), np.abs(run.high)
    size = np.sqrt(low * low + high * high)
    inner = run.take(size >= 0.8 * float(np.quantile(size, 0.8)))
    if len(inner.number) < 3 or float(np.median(inner.second)) > _SECOND:
        return None
    lows, highs = float(np.abs(inner.low).mean()), float(np.abs(inner.high).mean())
    twist = 20 * np.log10(highs / lows)
    if min(lows, highs) < floor or not _TWIST_DB[0] <= twist <= _TWIST_DB[1]:
        return None
    middle = size[1:-1]
    if float(middle.std()) > _UNSTEADY * float(middle.mean()):
        return None
    share, both = 0.0, lows * lows + highs * highs
    for tone, own, nominal in ((inner.low, lows, LOW[key // 4]), (inner.high, highs, HIGH[key % 4])):
        off = _off(tone, inner.number, nominal)
        if abs(off) > _OFF * nominal:
            return None
        share += float(inner.share.mean()) * own * own / both / _response(off)
    if share < _SHARE:
        return None
    start, stop = int(run.number[0]) * HOP + WINDOW // 2 - HOP // 2, int(run.number[-1]) * HOP + (WINDOW + HOP) // 2
    return Tone(max(start, 0), stop, KEYS[key // 4][key % 4], round(_dbm0(min(lows, highs)), 1))


class ToneFinder:
    """Finds the keys in one channel, which it is given piece by piece.

    `table` gives the sample (float32) of each code, None for samples of 16 bits; `over` is how many samples there are
    for each of 8,000 a second. Tones fainter than `floor` (dBm0) are passed over.
    """

    def __init__(self, table: Floats | None, over: int = 1, floor: float = FLOOR_DBM0) -> None:
        self.tones: list[Tone] = []
        self._table = table
        self._over = over
        self._floor = amplitude(floor)
        self._begun = _Windows()
        self._next = 0

    def samples(self, codes: Codes) -> Floats:
        """Return samples at 8,000 Hz; codes lie along the last axis."""
        found: Floats
        if self._table is not None:
            found = np.take(self._table, codes, mode="clip")  # the fastest by far: no index is checked
        elif self._over == 1:
            found = codes.astype(np.float32)
        else:
            found = codes[..., :: self._over].astype(np.float32)
            for place in range(1, self._over):  # five times as fast as a mean along so short an axis
                found += codes[..., place :: self._over]
            found /= self._over
        return found

    def coarse(self, blocks: Floats, power: Floats) -> Ints:
        """Return which blocks of `LOOK` samples may hold a key; `power` is the sum of squares of each."""
        if len(self.tones) >= MAX_TONES:
            return np.empty(0, dtype=np.int64)
        return np.nonzero(coarse(blocks, power, self._floor))[0]

    def fine(self, codes: Codes, base: int, at: Ints, looked: int, last: bool) -> None:
        """Look closely at a piece, which begins at sample `base`, around the coarse blocks `at`.

        All blocks were looked at up to sample `looked`. Windows that later ones may ask for too wait for the next
        piece, which has to begin `TAIL` samples before `looked`; its `at` has to name the blocks there again. `last`:
        there is none.
        """
        found = self._begun
        end = base + len(codes) // self._over if last else looked - _AROUND
        if len(at) and len(self.tones) < MAX_TONES:
            numbers = _windows_around(at)
            numbers = numbers[(numbers >= self._next) & (numbers * HOP >= base) & (numbers * HOP + WINDOW <= end)]
            first = numbers * HOP - base
            views = np.lib.stride_tricks.sliding_window_view(codes, WINDOW * self._over)
            for start in range(0, len(numbers), _LOT):
                rows = first[start : start + _LOT] * self._over
                more = _fine(self.samples(views[rows]), numbers[start : start + _LOT], self._floor)
                found = more.behind(found)
        self._next = max(self._next, (end - WINDOW) // HOP + 1)
        self._begun = self._settle(found, end // HOP, last)

    def _settle(self, found: _Windows, end: int, last: bool) -> _Windows:
        """Judge the runs that are over; return the windows of one that may go on."""
        if len(found.number) == 0:
            return found
        cuts = (np.diff(found.number) > _APART) | (np.diff(found.key) != 0)
        edges = [0, *(np.nonzero(cuts)[0] + 1).tolist(), len(found.number)]
        goes_on = not last and end - int(found.number[-1]) <= 2 * _APART + WINDOW // HOP
        keep = edges[-2] if goes_on and edges[-1] - edges[-2] < _LONGEST else edges[-1]
        for start, stop in pairwise(edges):
            if start < keep and stop - start >= _SHORTEST:
                self._judge(found.take(slice(start, stop)))
        return found.take(slice(keep, None))

    def _judge(self, run: _Windows) -> None:
        """Split a run where its level drops, and keep what is a key."""
        if float(run.share.mean()) < _LIKELY:
            return
        size = np.sqrt(np.abs(run.low) ** 2 + np.abs(run.high) ** 2)
        run = run.take(size >= 0.5 * np.quantile(size, 0.8))
        edges = [0, *(np.nonzero(np.diff(run.number) > _APART)[0] + 1).tolist(), len(run.number)]
        for start, stop in pairwise(edges):
            part = run.take(slice(start, stop))
            if len(part.number) and int(part.number[-1] - part.number[0]) + 1 >= _SHORTEST:
                self._keep(_judged(part, self._floor))

    def _keep(self, tone: Tone | None) -> None:
        if tone is None or len(self.tones) >= MAX_TONES:
            return
        before = self.tones[-1] if self.tones else None
        if before is not None and before.digit == tone.digit and tone.start - before.stop <= _APART * HOP:
            self.tones[-1] = Tone(before.start, tone.stop, tone.digit, max(before.level, tone.level))
        else:
            self.tones.append(tone)
