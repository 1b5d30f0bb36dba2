"""The lines of the info file that say how good a call was: losses, delay, score. docs/info-file.md has them. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..rtp.emodel import burst_ratio, score
from ..rtp.rtcp import VoipMetrics
from ..sip.dialog import Party
from ..sniffer.selection import Track, Use
from .kinds import clock_of
from .plan import Plan
from .side import WINDOW_NS, Side

Pairs = list[tuple[str, str]]
Scores = dict[int, float | None]
"""The score of each 10 s of the axis in which packets came or are missing, None where none can be told."""
HOUR = 360
"""So many of them stand on a line."""
MAX_PARTS = 200
"""Stretches with losses that are written out, the worst; of others only their number is."""
MOST_LOSS = 3.0
"""Loss beyond this many per cent is flagged: so much a call bears."""
_SECOND = 1_000_000_000


def _none() -> npt.NDArray[np.float64]:
    return np.empty(0)


@dataclass(frozen=True, slots=True)
class Distance:
    """How long packets were on their way from the recorder to a party and back: times (ns from sample 0) and ms."""

    time: npt.NDArray[np.float64] = field(default_factory=_none)
    ms: npt.NDArray[np.float64] = field(default_factory=_none)
    means: dict[int | None, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.ms):
            self.means[None] = float(self.ms.mean())
            which, place = np.unique(self.time // WINDOW_NS, return_inverse=True)
            means = np.bincount(place, weights=self.ms) / np.bincount(place)
            self.means.update(zip(which.astype(int).tolist(), means.tolist(), strict=True))

    def at(self, window: int | None = None) -> float:
        """Return the mean in ms: in one stretch of the axis if anything was measured there, else over all; 0 if it is
        not known.
        """
        return self.means.get(window, self.means.get(None, 0.0))


def distance(plan: Plan, party: Party) -> Distance:
    """Return how far away a party is, as its answers to the other one's reports tell."""
    trips = plan.ended.reports.trips
    found = [trips[ends, ssrc] for ends, ssrc in _streams(plan, party.other) if (ends, ssrc) in trips]
    if not found:
        return Distance()
    time = np.concatenate([np.frombuffer(one.time, dtype=np.int64) for one in found])
    return Distance(
        (time - plan.reference).astype(np.float64), np.concatenate([np.frombuffer(one.ms) for one in found])
    )


def quality_lines(plan: Plan, party: Party) -> Pairs:
    """Return a side's lines: its losses and how they sound, and what RTCP said."""
    name, side = party.value.capitalize(), plan.sides[party]
    if not side.figures.came.total():
        return []
    away = {one: distance(plan, one) for one in Party}
    scores = {window: _score(plan, side, away, window) for window in side.figures.came | side.figures.missed}
    lines = [(f"{name}-Quality", _whole(plan, side, away, scores))]
    lines += [(f"{name}-LossPart", text) for text in _parts(plan, side, scores)]
    lines += [(f"{name}-Scores", text) for text in _hours(plan, scores)]
    ms = away[party].ms
    if len(ms):
        text = f"roundtrip={ms.mean():.1f}ms least={ms.min():.1f}ms most={ms.max():.1f}ms measured={len(ms)}"
        lines.append((f"{name}-Delay", text))
    lines += [(f"{name}-Reported", text) for text in _reported(plan, party)]
    return lines + [(f"{name}-VoipMetrics", _voip(one)) for one in _metrics(plan, party)]


def flagged(plan: Plan) -> dict[Party, float]:
    """Return the loss (per cent) of each side that lost more than a call bears."""
    losses = {party: side.figures.loss_percent for party, side in plan.sides.items()}
    return {party: loss for party, loss in losses.items() if loss > MOST_LOSS}


def flags(plan: Plan) -> Iterator[str]:
    """Yield a note for each such side."""
    for party, loss in flagged(plan).items():
        shown = f"{loss:.1f}" if f"{loss:.1f}" != f"{MOST_LOSS:.1f}" else f"{loss:.3f}"
        yield f"Quality: loss {shown}% > {MOST_LOSS:.0f}% from {party.value}"


def figures_of(plan: Plan) -> dict[str, dict[str, float | None]]:
    """Return what a log says of each side that sent anything: loss in per cent, jitter in ms, score."""
    away = {party: distance(plan, party) for party in Party}
    found: dict[str, dict[str, float | None]] = {}
    for party, side in plan.sides.items():
        if side.figures.received:
            mos = _score(plan, side, away)
            found[party.value] = {
                "loss_percent": round(side.figures.loss_percent, 3),
                "jitter_ms": round(side.figures.jitter_ms, 3),
                "mos": None if mos is None else round(mos, 2),
            }
    return found


def _streams(plan: Plan, party: Party) -> list[tuple[tuple[tuple[int, int], tuple[int, int]], int]]:
    return list(dict.fromkeys(((track.source, track.destination), track.ssrc) for track in _sound(plan, party)))


def _sound(plan: Plan, party: Party) -> list[Track]:
    return [track for track in plan.ended.tracks if track.sender is party and track.use is Use.SOUND]


def _one_way(plan: Plan, side: Side, away: dict[Party, Distance], window: int | None = None) -> float:
    """Return the delay in ms as far as it is known: half of both ways there and back, and the time that a packet takes
    to fill; 0 if nothing was measured.
    """
    there_and_back = sum(one.at(window) for one in away.values())
    if not there_and_back:
        return 0.0
    length = side.channel.length
    return there_and_back / 2 + (float(np.median(length)) * 1000 / plan.rate if len(length) else 0.0)


def _score(plan: Plan, side: Side, away: dict[Party, Distance], window: int | None = None) -> float | None:
    """Return the score of a stretch, or of all."""
    figures = side.figures
    if window is None:
        lost, bursts, came = figures.missed.total(), figures.bursts, figures.came.total()
    else:
        lost, bursts, came = figures.missed[window], figures.touched[window], figures.came[window]
    if not lost + came:
        return None
    ratio = burst_ratio(lost, bursts, lost + came)
    return score(side.codecs, 100.0 * lost / (lost + came), ratio, _one_way(plan, side, away, window))


def _whole(plan: Plan, side: Side, away: dict[Party, Distance], scores: Scores) -> str:
    figures = side.figures
    missed = figures.missed.total()
    ratio = burst_ratio(missed, figures.bursts, missed + figures.came.total())
    text = f"bursts={figures.bursts} longest={figures.longest} burstratio={ratio:.2f}"
    text += f" jittermost={figures.jitter_most_ms:.2f}ms"
    late = _one_way(plan, side, away)
    if late:
        text += f" delay={late:.1f}ms"
    whole = _score(plan, side, away)
    known = [one for one in scores.values() if one is not None]
    if whole is not None:
        text += f" mos={whole:.2f}"
    if known and len(known) == len(scores):
        text += f" moslow={min(known):.2f}"
    return text


def _parts(plan: Plan, side: Side, scores: Scores) -> Iterator[str]:
    """Yield the 10 s in which packets were lost, in the order of time: the worst, where there are too many."""
    figures = side.figures
    first = min(int(track.rows["time"][0]) for one in Party for track in _sound(plan, one))
    begun = (first - plan.reference) / _SECOND  # sound may begin before the first arrival, if that was a burst
    worst = sorted(figures.missed, key=lambda window: (-figures.missed[window], window))
    for window in sorted(worst[:MAX_PARTS]):
        lost = figures.missed[window]
        start, loss = window * WINDOW_NS / _SECOND + begun, 100.0 * lost / (lost + figures.came[window])
        text = f"{start:+.3f}s lost={lost} loss={loss:.2f}%"
        found = scores[window]
        yield text + (f" mos={found:.2f}" if found is not None else "")
    if len(worst) > MAX_PARTS:
        yield f"and {len(worst) - MAX_PARTS} more, none of which lost more"


def _hours(plan: Plan, scores: Scores) -> Iterator[str]:
    """Yield the score of each 10 s, an hour a line."""
    if not any(score is not None for score in scores.values()):
        return
    count = -(-plan.frames * _SECOND // (plan.rate * WINDOW_NS))
    found = [scores.get(window) for window in range(count)]
    texts = ["-" if one is None else f"{one:.2f}" for one in found]
    for start in range(0, count, HOUR):
        yield " ".join(texts[start : start + HOUR])


def _reported(plan: Plan, party: Party) -> Iterator[str]:
    """Yield what the other party said of this one's packets as they reached it, a stream each."""
    clocks = {
        ((track.source, track.destination), track.ssrc): clock_of(track)
        for track in _sound(plan, party)
        if len(track.rows)
    }
    for key, clock in clocks.items():
        if key in plan.ended.reports.receptions:
            count, last = plan.ended.reports.receptions[key]
            yield f"reports={count} lost={last.lost} jitter={last.jitter * 1000 / max(clock, 1):.2f}ms"


def _metrics(plan: Plan, party: Party) -> Iterator[VoipMetrics]:
    for key in _streams(plan, party):
        if key in plan.ended.reports.voip:
            yield plan.ended.reports.voip[key]


def _voip(one: VoipMetrics) -> str:
    parts = [f"loss={one.loss:.2f}% discard={one.discard:.2f}%"]
    known = (("roundtrip", one.round_trip), ("endsystem", one.end_system), ("buffer", one.buffer))
    parts += [f"{name}={value}ms" for name, value in known if value is not None]
    parts += [f"rating={one.rating}"] if one.rating is not None else []
    parts += [f"mos={one.mos:.1f}"] if one.mos is not None else []
    return " ".join(parts)
