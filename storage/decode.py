"""The sound of a call that has to be decoded: 16-bit samples of both channels, minute by minute, so that memory stays
flat.

Each channel is put together at every rate its codecs have, then brought to the WAV's. Where no packet's sound lies it
is silence, to the sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..rtp.decoder import Decoder
from ..rtp.resample import resampler
from ..sip.dialog import Party
from ..sniffer.sources.payloads import Payloads
from .kinds import Codecs
from .plan import Plan
from .side import Channel, Side, lots

Bytes = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.int16]
PIECE_S = 60
"""Seconds of sound made at one time."""
MAX_VOICES = 16
"""Decoders of one channel that wait for more; beyond it the oldest is given up."""


def sound(plan: Plan, payloads: Payloads) -> Iterator[Bytes]:
    """Yield the interleaved bytes of a call's WAV; count in its sides the packets that could not be decoded."""
    voices = [_Voices(plan.sides[party], plan, payloads) for party in (Party.CALLER, Party.CALLEE)]
    step = PIECE_S * plan.rate
    for start in range(0, plan.frames, step):
        stop = min(start + step, plan.frames)
        stereo = np.zeros((stop - start, 2), dtype="<i2")
        for number, one in enumerate(voices):
            one.speak(start, stop, stereo[:, number])
        yield stereo.reshape(-1).view(np.uint8)


class _Voices:
    """One party's channel."""

    def __init__(self, side: Side, plan: Plan, payloads: Payloads) -> None:
        rates = plan.codecs.tables()[1][side.channel.law]
        self._rate = plan.rate
        self._parts = [
            _Part(side.channel.take(rates == rate), rate, plan.codecs, payloads, side)
            for rate in np.unique(rates).tolist()
        ]

    def speak(self, start: int, stop: int, out: Samples) -> None:
        """Write samples `start` to `stop` of the channel to `out`, which is silent."""
        for part in self._parts:
            if part.rate == self._rate and len(self._parts) == 1:
                out[:] = part.samples(start, stop)
                return
            covered = part.covered(start, stop)
            if part.rate == self._rate:
                out[covered] = part.samples(start, stop)[covered]
            else:
                filter_ = resampler(part.rate, self._rate)
                out[covered] = filter_.apply(part.samples(*filter_.span(start, stop)), start, stop)[covered]


@dataclass(slots=True)
class _Part:
    """The packets of a channel whose codecs have one rate, decoded in order, as far as they are asked for."""

    channel: Channel
    rate: int
    codecs: Codecs
    payloads: Payloads
    side: Side
    _next: int = field(init=False, default=0)
    _base: int | None = field(init=False, default=None)
    _heard: Samples = field(init=False, default_factory=lambda: np.empty(0, dtype=np.int16))
    _decoders: dict[int, Decoder] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.channel = self.channel.take(np.argsort(self.channel.at, kind="stable"))

    def covered(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Tell which samples of the WAV, of those from `start` to `stop`, a packet's sound lies on."""
        begin = np.clip(self.channel.sample - start, 0, stop - start)
        end = np.clip(self.channel.sample + self.channel.length - start, 0, stop - start)
        edges = np.bincount(begin, minlength=stop - start + 1) - np.bincount(end, minlength=stop - start + 1)
        covered: npt.NDArray[np.bool_] = np.cumsum(edges[:-1]) > 0
        return covered

    def samples(self, start: int, stop: int) -> Samples:
        """Return samples `start` to `stop` at this part's rate. Each call begins about where the last one ended."""
        base = start if self._base is None else self._base
        self._heard, self._base = self._heard[start - base :], start
        self._reach(stop - start)
        last = int(np.searchsorted(self.channel.at, stop))
        due = self.channel.take(np.arange(self._next, last))
        for lot in lots(due.size):
            self._decode(due.take(lot), start)
        return self._heard[: stop - start]

    def _reach(self, size: int) -> None:
        if size > len(self._heard):
            self._heard = np.concatenate((self._heard, np.zeros(size - len(self._heard), dtype=np.int16)))

    def _decode(self, packets: Channel, base: int) -> None:
        """Decode a lot of packets, and put each where it belongs."""
        self._next += len(packets.at)
        self._reach(int((packets.at + packets.count).max()) - base)
        place = np.concatenate(([0], np.cumsum(packets.size))).astype(np.int64)
        data = np.empty(int(place[-1]) + 65_535, dtype=np.uint8)
        self.payloads.copy(packets.position.copy(), packets.size, data, place[:-1])
        edges = [0, *(np.nonzero(np.diff(packets.voice))[0] + 1).tolist(), len(packets.at)]
        for first, last in pairwise(edges):
            decoder = self._decoder(int(packets.voice[first]), int(packets.law[first]))
            before = decoder.failed
            count, at = packets.count[first:last], packets.at[first:last] - base
            heard = decoder.decode(data[place[first] : place[last]], packets.size[first:last], count)
            self.side.undecoded += decoder.failed - before
            self.side.mixed |= decoder.mixed
            self._put(heard, count, at)

    def _put(self, heard: Samples, count: npt.NDArray[np.int64], at: npt.NDArray[np.int64]) -> None:
        """Copy decoded samples to their places, those of packets that follow each other at once."""
        ends = np.cumsum(count)
        cuts = [0, *(np.nonzero(at[1:] != at[:-1] + count[:-1])[0] + 1).tolist(), len(at)]
        for first, last in pairwise(cuts):
            part = heard[int(ends[first] - count[first]) : int(ends[last - 1])]
            self._heard[int(at[first]) : int(at[first]) + len(part)] = part

    def _decoder(self, voice: int, kind: int) -> Decoder:
        if voice not in self._decoders:
            if len(self._decoders) == MAX_VOICES:
                del self._decoders[next(iter(self._decoders))]
            self._decoders[voice] = Decoder(self.codecs.of(kind))
        return self._decoders[voice]
