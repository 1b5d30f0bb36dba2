"""How loud a channel is, whether anybody speaks, and whether it is overdriven. Pure.

Levels are dBm0 (ITU-T G.711: the loudest sine that fits is +3.14), peaks dBFS. What is looked at are blocks of some ms.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

FULL_SCALE_DBM0 = 3.14
SILENT_DBM0 = -62.0
"""Below this is nothing but the codes of silence: A-law's smallest steps are -66 dBm0."""
QUIET_DBM0 = -48.0
"""Nobody speaks below this: noise of the line, or what is made for comfort."""
_SPEECH_DB = 30
"""Blocks so far below the loudest are pauses."""
_BINS, _LEAST = 104, -96
_TO_DBM0 = FULL_SCALE_DBM0 - 20 * np.log10(32768.0 / np.sqrt(2))
_FLAT = 3
"""Samples at full scale, one behind the other, that make a flat top: one alone may be a peak that just fits."""
CLIPPED_SHARE, CLIPPED_RUNS = 0.003, 10
"""From so many samples at full scale on, of those with sound, and so many flat tops, a channel is overdriven."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A channel's sound: mean `level` (dBm0) of the blocks in which there is any, `peak` (dBFS), the share of `active`
    blocks and their seconds; `clipped`: the share of their samples at full scale, and about how many `runs` these make.
    """

    level: float | None = None
    peak: float | None = None
    active: float = 0.0
    active_s: float = 0.0
    loudest: float = -96.0
    clipped: float = 0.0
    runs: int = 0

    @property
    def silent(self) -> bool:
        """Whether there is no sound at all."""
        return self.loudest < SILENT_DBM0

    @property
    def quiet(self) -> bool:
        """Whether there is nothing louder than the noise of a line."""
        return self.loudest < QUIET_DBM0

    @property
    def overdriven(self) -> bool:
        """Whether so much is clipped that it is heard."""
        return self.clipped >= CLIPPED_SHARE and self.runs >= CLIPPED_RUNS


@dataclass(slots=True)
class Levels:
    """Collects the levels of a channel. `full` is the largest sample that its codec has, `block_s` what a block stands
    for, in seconds: `times` as much as it is long.
    """

    full: float
    block_s: float
    times: int = 1
    peak: float = 0.0
    at_full: int = 0
    runs: int = 0
    size: int = 0
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, dtype=np.int64))
    powers: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(_BINS))

    def hear(self, blocks: Floats, power: Floats) -> None:
        """Take blocks of 16-bit samples; `power` is the sum of squares of each."""
        if len(blocks) == 0:
            return
        self.size = blocks.shape[1]
        mean = power.astype(np.float64) / self.size
        bins = np.clip(np.floor(dbm0(mean)).astype(np.int64) - _LEAST, 0, _BINS - 1)
        self.counts += np.bincount(bins, minlength=_BINS)
        self.powers += np.bincount(bins, weights=mean, minlength=_BINS)
        top = max(float(blocks.max()), -float(blocks.min()))
        self.peak = max(self.peak, top)
        if top >= self.full:
            hits = np.abs(blocks) >= self.full
            self.at_full += int(np.count_nonzero(hits))
            flat = hits[:, 2:] & hits[:, 1:-1] & hits[:, :-2]
            self.runs += int(np.count_nonzero(flat[:, 0]) + np.count_nonzero(flat[:, 1:] & ~flat[:, :-1]))

    def sound(self) -> Sound:
        """Return what has been heard."""
        above = np.cumsum(self.counts[::-1])[::-1]  # blocks in this bin and all louder ones
        heard = int(above[int(QUIET_DBM0) - _LEAST])
        few = max(2, heard // 100)
        loudest = int(np.nonzero(above >= few)[0].max(initial=0)) + _LEAST
        peak = 20 * float(np.log10(self.peak / 32768.0)) if self.peak > 0 else None
        if loudest < QUIET_DBM0:
            return Sound(peak=peak, loudest=loudest)
        least = max(int(QUIET_DBM0), loudest - _SPEECH_DB) - _LEAST
        count = int(self.counts[least:].sum())
        return Sound(
            level=float(dbm0(self.powers[least:].sum() / count)),
            peak=peak,
            active=count / int(self.counts.sum()),
            active_s=count * self.block_s,
            loudest=loudest,
            clipped=self.at_full / (count * self.size),
            runs=self.runs * self.times,
        )


def dbm0(mean: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the level of a mean of squares of 16-bit samples."""
    levels: npt.NDArray[np.float64] = 10 * np.log10(np.maximum(mean, 1e-2)) + _TO_DBM0
    return levels
