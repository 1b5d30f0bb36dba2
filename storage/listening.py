"""A copy of a recording to listen to, its losses concealed: a WAV of its own that says so. The recording stays.

Where a recording's packets are kept, their sequence numbers say what was lost. Of G.711 the WAV is all there is: the
info file lists the gaps in it, and says in which 10 s packets were lost.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..rtp.conceal import BLEND_S, HISTORY_S, LONGEST_S, conceal
from ..rtp.timeline import MAX_DROPOUT, sort_packets
from ..sip.dialog import Party
from ..sniffer.selection import Track
from .markers import SIDES, Markers
from .plan import Plan
from .wav import Encoding, header
from .waveform import Gap, Wave, unlisted

Samples = npt.NDArray[np.int16]
Ints = npt.NDArray[np.int64]
_APART = 1 << 40


@dataclass(frozen=True, slots=True)
class Copy:
    """The sound of a recording, in `pieces` (a row a frame: left, right), and the losses in it, each channel's."""

    pieces: Iterable[Samples]
    rate: int
    frames: int
    losses: tuple[list[Gap], list[Gap]]

    def wav(self, about: Mapping[str, str]) -> Iterator[bytes]:
        """Yield the bytes of the WAV. Raises WavTooLong."""
        yield header(Encoding.PCM16, 2, self.rate, self.frames, about)
        yield from (part.astype("<i2").tobytes() for part in concealed(self))


def concealed(copy: Copy) -> Iterator[Samples]:
    """Yield the sound with its losses concealed. What is held back of a piece is what a loss may still need."""
    keep, ahead = round((HISTORY_S + BLEND_S) * copy.rate), round((LONGEST_S + BLEND_S) * copy.rate)
    held, at = np.empty((0, 2), dtype=np.int16), 0
    waiting = [iter(sorted(gaps)) for gaps in copy.losses]
    due = [next(gaps, None) for gaps in waiting]
    for piece, last in _with_last(copy.pieces):
        held = np.concatenate((held, piece))
        end = at + len(held)
        for channel, gaps in enumerate(waiting):
            sound = np.ascontiguousarray(held[:, channel])
            while (gap := due[channel]) is not None and (last or gap[0] + min(gap[1], ahead) + ahead <= end):
                if gap[0] >= at:
                    conceal(sound, gap[0] - at, gap[1], copy.rate)
                due[channel] = next(gaps, None)
            held[:, channel] = sound
        first = min([gap[0] for gap in due if gap is not None and gap[0] < end], default=end)
        ready = len(held) if last else max(min(first, end) - keep - at, 0)
        yield held[:ready]
        held, at = held[ready:], at + ready


def _with_last(pieces: Iterable[Samples]) -> Iterator[tuple[Samples, bool]]:
    """Yield each piece, and whether it is the last."""
    before: Samples | None = None
    for piece in pieces:
        if before is not None:
            yield before, False
        before = piece
    if before is not None:
        yield before, True


def of_wave(wave: Wave, markers: Markers) -> Copy:
    """Return the copy of a recording without kept packets. Raises OSError, WaveError."""
    left, right = (
        [(round(gap.start * wave.rate), round((gap.end - gap.start) * wave.rate)) for gap in markers.losses[side]]
        + list(unlisted(wave, markers, side))
        for side in SIDES
    )
    return Copy(wave.pieces(), wave.rate, wave.frames, (left, right))


def of_plan(plan: Plan, pieces: Iterable[Samples]) -> Copy:
    """Return the copy of a recording whose packets are kept."""
    caller, callee = (list(_lost(plan, party)) for party in Party)
    return Copy(pieces, plan.rate, plan.frames, (caller, callee))


def _lost(plan: Plan, party: Party) -> Iterator[Gap]:
    """Yield the gaps on either side of which the sequence numbers say that packets are missing."""
    channel = plan.sides[party].channel
    if len(channel.sample) < 2:
        return
    place, missing = _missing([track for track in plan.ended.tracks if track.sender is party])
    row = np.maximum(np.searchsorted(place, channel.position, side="right") - 1, 0)
    ends = np.maximum.accumulate(channel.sample + channel.length)
    wide, lost = channel.sample[1:] - ends[:-1], np.diff(missing[row])
    for index in np.nonzero((wide > 0) & (lost > 0) & (lost < MAX_DROPOUT))[0].tolist():
        yield int(ends[index]), int(wide[index])


def _missing(tracks: list[Track]) -> tuple[Ints, Ints]:
    """Return where all packets lie in the input, in that order, and how many were missing up to each; the counts of
    different streams, and of a sender that began anew, lie far apart.
    """
    places, counts, base = [], [], 0
    for track in tracks:
        packets = sort_packets(track.rows["sequence"], track.rows["stamp"])
        rank = np.arange(len(packets.order))
        run = np.searchsorted(packets.runs, rank, side="right")
        places.append(track.rows["position"][packets.order].astype(np.int64))
        counts.append(packets.number - rank + (run + base) * _APART)
        base += len(packets.runs) + 1
    place, missing = np.concatenate(places), np.concatenate(counts)
    order = np.argsort(place, kind="stable")
    return place[order], missing[order]
