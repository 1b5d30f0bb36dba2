"""One channel listened to, piece by piece as it is written: its levels, and the keys in its sound. Pure."""

import numpy as np
import numpy.typing as npt

from .g711 import PCM, Law
from .levels import Levels, Sound
from .tones import FLOOR_DBM0, LOOK, PERIOD, RATE, TAIL, Codes, Tone, ToneFinder

LOT = 2048
"""Blocks that are looked at together: their samples fit into a processor's cache."""
_SPARSE = 8
_FULL_PCM = 32_760.0
_TABLES = {law: table.astype(np.float32) for law, table in PCM.items()}
Ints = npt.NDArray[np.int64]


class Ear:
    """Listens to one channel: codes of a `law`, or samples of 16 bits at `rate` Hz if that is `Law.NONE`.

    Of each 26 ms, 13 are looked at; of each 208 ms, where no keys are wanted. Keys are found if `keys` says so and the
    rate is a multiple of 8,000; those fainter than `floor` (dBm0) are passed over.
    """

    def __init__(self, law: Law, rate: int, *, keys: bool = True, floor: float = FLOOR_DBM0) -> None:
        table = _TABLES.get(law)
        self._over = max(rate // RATE, 1)
        self._keys = keys and rate % RATE == 0
        self._finder = ToneFinder(table, self._over, floor)
        full = float(table.max()) if table is not None else _FULL_PCM * (1.0 if self._over == 1 else 0.98)
        self._step = PERIOD if self._keys else _SPARSE * PERIOD
        self._levels = Levels(full, self._step * self._over / rate, self._step // LOOK)
        self._before: Codes = np.empty(0, dtype=np.uint8 if table is not None else np.int16)
        self._heard = 0  # samples of 8,000 a second, before the piece that comes
        self._looked = 0  # blocks
        self._recent: Ints = np.empty(0, dtype=np.int64)

    @property
    def tones(self) -> list[Tone]:
        """The keys found, in order of time."""
        return self._finder.tones

    def sound(self) -> Sound:
        """Return the channel's levels."""
        return self._levels.sound()

    def hear(self, piece: Codes, last: bool) -> None:
        """Take the next codes; `last`: there are no more."""
        held = len(self._before) // self._over
        codes = np.concatenate((self._before, piece)) if held else piece
        base = self._heard - held
        end = base + len(codes) // self._over
        found = [self._recent]
        step = self._step
        while self._looked < end // step:
            count = min(LOT, end // step - self._looked)
            found.append(self._look(codes, self._looked * step - base, count) + self._looked)
            self._looked += count
        if self._keys:
            at = np.concatenate(found)
            self._finder.fine(codes, base, at, self._looked * PERIOD, last)
            keep = max(self._looked * PERIOD - TAIL, base)
            self._recent = at[at * PERIOD >= keep]
        else:
            keep = self._looked * step
        self._before = codes[(keep - base) * self._over :].copy() if not last else self._before[:0]
        self._heard = end

    def _look(self, codes: Codes, start: int, count: int) -> Ints:
        """Look at blocks of a piece from sample `start` on; return which of them may hold a key."""
        over, step = self._over, self._step
        part = codes[start * over : (start + count * step) * over]
        blocks = self._finder.samples(part.reshape(count, step * over)[:, : LOOK * over])
        power = np.einsum("ij,ij->i", blocks, blocks)
        self._levels.hear(blocks, power)
        return self._finder.coarse(blocks, power) if self._keys else np.empty(0, dtype=np.int64)
