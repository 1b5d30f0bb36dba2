"""Recordings beside what the generator sent: which sound is there, which is not, and whether anything else is.

The generator's voices never hold the code of silence, so what is not silence in a channel is payload, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from bench.traffic import SAMPLES, Plan, call_id
from tests.support.record import Recording

SILENT = 0xD5


class Damage(Exception):
    """A recording holds what was never sent, or the same sound twice."""


@dataclass(frozen=True, order=True)
class Part:
    """Samples of a voice, `begin` to before `end`, found in the recording with this id."""

    begin: int
    end: int
    recording: str = field(compare=False)


@dataclass(frozen=True)
class Voice:
    """What of one side of a call was recorded."""

    call: int
    side: int
    length: int
    parts: tuple[Part, ...]

    @property
    def kept(self) -> int:
        return sum(part.end - part.begin for part in self.parts)

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """What is missing, as samples from and to."""
        edges = [0, *(edge for part in self.parts for edge in (part.begin, part.end)), self.length]
        return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a != b]


def by_call(recordings: Iterable[Recording]) -> dict[str, list[Recording]]:
    """The recordings of each Call-ID, in the order in which their sound begins."""
    found: dict[str, list[Recording]] = {}
    for recording in sorted(recordings, key=lambda one: one.info["AudioStart"]):
        found.setdefault(recording.info["CallId"], []).append(recording)
    return found


def voices(plan: Plan, call: int, recordings: Sequence[Recording]) -> list[Voice]:
    """Both sides of a plan's call in its recordings. Raises Damage."""
    channels = [recording.wav.channels() for recording in recordings]
    ids = [recording.info["RecordingId"] for recording in recordings]
    return [
        _voice(plan, call, side, [(one[side], name) for one, name in zip(channels, ids, strict=True)])
        for side in (0, 1)
    ]


def whole(plan: Plan, call: int, recordings: Sequence[Recording]) -> str:
    """What is wrong with the one recording that there must be of a call; empty if it is complete."""
    if len(recordings) != 1:
        return f"{call_id(plan.first + call)}: {len(recordings)} recordings"
    try:
        found = voices(plan, call, recordings)
    except Damage as error:
        return str(error)
    lost = {side: found[side].gaps for side in (0, 1) if found[side].gaps}
    return f"{call_id(plan.first + call)}: missing {lost}" if lost else ""


def _voice(plan: Plan, call: int, side: int, channels: Sequence[tuple[bytes, str]]) -> Voice:
    name = f"{call_id(plan.first + call)}, {('caller', 'callee')[side]}"
    sent, parts = plan.voice(2 * call + side).tobytes(), []
    for channel, recording in channels:
        for begin, end in _sounding(channel):
            at = _find(sent, channel[begin:end])
            if at < 0:
                raise Damage(f"{name}: {recording} holds {end - begin} samples at {begin} that were not sent")
            parts.append(Part(at, at + end - begin, recording))
    parts.sort()
    for one, other in pairwise(parts):
        if other.begin < one.end:
            raise Damage(f"{name}: samples {other.begin} to {one.end} are there twice")
    return Voice(plan.first + call, side, len(sent), tuple(parts))


def _find(sent: bytes, run: bytes) -> int:
    """Where the run begins in what was sent: at the beginning of a packet. Below 0: nowhere."""
    at = sent.find(run)
    while at > 0 and at % SAMPLES:
        at = sent.find(run, at + 1)
    return at


def _sounding(channel: bytes) -> list[tuple[int, int]]:
    """The runs of a channel that are not silence."""
    sound = np.frombuffer(channel, np.uint8) != SILENT
    edges = np.flatnonzero(np.diff(sound, prepend=False, append=False))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
