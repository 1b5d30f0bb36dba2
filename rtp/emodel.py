"""How good a call sounds by its losses and its delay: the E-model (ITU-T G.107, narrow band), else at its defaults.
Pure.

Only what a recorder can know goes in: the codec, its losses up to the recorder, and the delay as far as RTCP tells it.
A figure is the best that the ear at the far end can have had.

The formulas and defaults are those of G.107 (06/2015), Ie and Bpl those of G.113 appendix I, both as other publications
quote them. Wide-band codecs (G.722, AMR-WB, Opus) are on another scale, with which this one must not be compared; for
iLBC, Speex and the rates of AMR that appendix has nothing.
"""

import math
from collections.abc import Iterable

BEST = 93.2
"""The rating with all parameters at their defaults, no delay and no loss (G.107 7.7)."""
MOST_BURSTY = 2.0
"""The model was checked up to this burst ratio (G.107 annex A): longer bursts count as such, unless little is lost."""
LITTLE_LOSS = 2.0
"""Up to such a loss, in per cent, any burst ratio holds."""
_RO = 94.7688
"""Signal to noise (G.107 7.2) with the default loudness ratings and noise: Ro, and Roe of the talker's echo."""
_TELR, _WEPL = 65.0, 110.0
"""Loudness of the talker's echo, and loss of the echo path of listeners, in dB (defaults)."""

_IMPAIRMENT: dict[str, tuple[float, float | None]] = {
    "PCMA": (0.0, 25.1),  # with the concealment of G.711 appendix I
    "PCMU": (0.0, 25.1),
    "G729": (11.0, 19.0),  # annex A with silence suppression
    "G723": (15.0, 16.1),  # 6.3 kbit/s with silence suppression
    "GSM-EFR": (5.0, 10.0),
    "G726-40": (2.0, None),
    "G726-32": (7.0, None),
    "G726-24": (25.0, None),
    "G726-16": (50.0, None),
    "AAL2-G726-40": (2.0, None),
    "AAL2-G726-32": (7.0, None),
    "AAL2-G726-24": (25.0, None),
    "AAL2-G726-16": (50.0, None),
    "G728": (7.0, None),
    "GSM": (20.0, None),
}
"""Equipment impairment Ie and robustness to loss Bpl by codec (G.113 appendix I); None where Bpl is not published: such
a codec has a score only where nothing was lost."""


def equipment(ie: float, bpl: float, loss: float, burst: float = 1.0) -> float:
    """Return Ie,eff for an impairment, a robustness, `loss` in per cent and the burst ratio (G.107 7.5)."""
    burst = max(burst, 1.0) if loss <= LITTLE_LOSS else min(max(burst, 1.0), MOST_BURSTY)
    return ie + (95.0 - ie) * loss / (loss / burst + bpl)


def delay_impairment(one_way_ms: float) -> float:
    """Return Id, less what of it is in `BEST`, for a delay from mouth to ear in ms (G.107 7.4): the talker's echo, the
    listener's echo, and the delay itself.
    """
    late = max(one_way_ms, 0.0)
    return _talker_echo(late) + _listener_echo(2 * late) - _listener_echo(0.0) + _pure_delay(late)


def _talker_echo(late: float) -> float:
    echo = _TELR - 40 * math.log10((1 + late / 10) / (1 + late / 150)) + 6 * math.exp(-0.3 * late * late)
    apart = (_RO - (80 + 2.5 * (echo - 14))) / 2
    return (apart + math.sqrt(apart * apart + 100) - 1) * (1 - math.exp(-late))


def _listener_echo(round_trip: float) -> float:
    apart = (_RO - 10.5 * (_WEPL + 7) / math.pow(round_trip + 1, 0.25)) / 2
    return apart + math.sqrt(apart * apart + 169)


def _pure_delay(late: float) -> float:
    if late <= 100.0:
        return 0.0
    x = math.log2(late / 100.0)
    return 25.0 * (math.pow(1 + x**6, 1 / 6) - 3 * math.pow(1 + (x / 3) ** 6, 1 / 6) + 2)


def mos(rating: float) -> float:
    """Return the mean opinion score, 1 to 4.5, for a rating R (G.107 annex B)."""
    if rating <= 0.0:
        return 1.0
    if rating >= 100.0:
        return 4.5
    return max(1.0, 1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6)


def score(codecs: Iterable[str], loss: float, burst: float = 1.0, delay_ms: float = 0.0) -> float | None:
    """Return the lowest score of these codecs at that loss (per cent), burst ratio and delay (one way, ms).

    None if there are none, or one has no published values.
    """
    scores = []
    for name in codecs:
        ie, bpl = _IMPAIRMENT.get(name, (None, None))
        if ie is None or (bpl is None and loss > 0):
            return None
        impaired = ie if bpl is None else equipment(ie, bpl, loss, burst)
        scores.append(mos(BEST - delay_impairment(delay_ms) - impaired))
    return min(scores, default=None)


def burst_ratio(lost: int, bursts: int, expected: int) -> float:
    """Return how long bursts of loss are on average, against those of as much random loss (G.107 7.5)."""
    if not bursts or lost >= expected:
        return 1.0
    return lost / bursts * (1.0 - lost / expected)
