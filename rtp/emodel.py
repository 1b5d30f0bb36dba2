"""How good a call sounds by its losses: the E-model (ITU-T G.107, narrow band) with its default values. Pure.

Only what a recorder can know goes in: the codec and its losses. Delay and echo are taken as none, so that a figure is
the best that the ear at the far end can have had.
"""

from collections.abc import Iterable

BEST = 93.2
"""The rating with all parameters at their defaults (G.107 table 2)."""

_IMPAIRMENT: dict[str, tuple[float, float]] = {
    "PCMA": (0.0, 25.1),  # with the concealment of G.711 appendix I
    "PCMU": (0.0, 25.1),
    "G729": (11.0, 19.0),  # as published for annex A with silence suppression
    "G723": (15.0, 16.1),  # 6.3 kbit/s with silence suppression
}
"""Equipment impairment Ie and robustness to loss Bpl by codec (G.113 appendix I)."""


def rating(ie: float, bpl: float, loss: float, burst: float = 1.0) -> float:
    """Return the rating R for an impairment, a robustness, `loss` in per cent and the burst ratio (G.107 7.5)."""
    effective = ie + (95.0 - ie) * loss / (loss / max(burst, 1.0) + bpl)
    return BEST - effective


def mos(rating: float) -> float:
    """Return the mean opinion score, 1 to 4.5, for a rating R (G.107 annex B)."""
    if rating <= 0.0:
        return 1.0
    if rating >= 100.0:
        return 4.5
    return max(1.0, 1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6)


def score(codecs: Iterable[str], loss: float, burst: float = 1.0) -> float | None:
    """Return the lowest score of these codecs at that loss (per cent) and burst ratio.

    None if there are none, or one has no published values.
    """
    known = [_IMPAIRMENT.get(name) for name in codecs]
    scores = [mos(rating(*values, loss, burst)) for values in known if values is not None]
    return min(scores) if scores and len(scores) == len(known) else None


def burst_ratio(lost: int, bursts: int, expected: int) -> float:
    """Return how long bursts of loss are on average, against those of as much random loss (G.107 7.5)."""
    if not bursts or lost >= expected:
        return 1.0
    return lost / bursts * (1.0 - lost / expected)
