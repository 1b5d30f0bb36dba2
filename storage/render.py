"""From a plan to the bytes of a WAV, many calls at once and long calls in pieces, so that memory stays flat.

Payloads are copied from the input in the order in which they lie there, into the channels of all calls of a batch. Then
the channels are interleaved: left the caller, right the callee.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..rtp.g711 import PCM, SILENCE, Law
from ..sip.dialog import Party
from ..sniffer.sources.payloads import Payloads
from .plan import Plan
from .side import Channel
from .wav import Encoding

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
PIECE = 4 << 20
"""Samples of each channel that are rendered at one time."""
LONGEST_PAYLOAD = 65_535


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples `start` to `stop` of a plan's channels."""

    plan: Plan
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Samples."""
        return self.stop - self.start


def encoding(plan: Plan) -> Encoding:
    """Return how the WAV is stored: the wire's own law where there is only one and nothing else, else 16-bit PCM."""
    laws = plan.laws
    if len(laws) > 1 or plan.decoded:
        return Encoding.PCM16
    return Encoding.MULAW if laws == {int(Law.MU)} else Encoding.ALAW


def pieces(plan: Plan) -> Iterator[Piece]:
    """Cut a plan into pieces of at most `PIECE` samples."""
    for start in range(0, plan.frames, PIECE):
        yield Piece(plan, start, min(start + PIECE, plan.frames))


class Renderer:
    """Renders batches of pieces; keeps its buffers from one batch to the next."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads
        self._channels = np.empty(0, dtype=np.uint8)
        self._stereo = np.empty(0, dtype=np.uint8)

    def render(self, batch: list[Piece]) -> Iterator[Bytes]:
        """Yield the interleaved bytes of each piece of a batch; they hold until the next piece is asked for."""
        plain = [piece for piece in batch if encoding(piece.plan) is not Encoding.PCM16]
        rendered = iter(self._plain(plain))
        for piece in batch:
            yield next(rendered) if encoding(piece.plan) is not Encoding.PCM16 else _pcm(piece, self._payloads)

    def _plain(self, batch: list[Piece]) -> Iterator[Bytes]:
        """Copy payload bytes straight into their channels."""
        sides = [(piece, piece.plan.sides[party].channel) for piece in batch for party in (Party.CALLER, Party.CALLEE)]
        starts = np.concatenate(([0], np.cumsum([piece.size for piece, _ in sides]))).astype(np.int64)
        self._channels = target = _room(self._channels, int(starts[-1]) + LONGEST_PAYLOAD)
        whole: list[tuple[Ints, Ints, Ints]] = []
        for (piece, channel), base in zip(sides, starts.tolist(), strict=False):
            law = Law.MU if encoding(piece.plan) is Encoding.MULAW else Law.A
            position, size, place = _inside(channel, piece, base)
            if not _covers(size, place, base, piece.size):
                target[base : base + piece.size] = SILENCE[law]
            whole.append((position, size, place))
        if whole:
            position, size, place = (np.concatenate(columns) for columns in zip(*whole, strict=True))
            self._payloads.copy(position, size, target, place)
        for index, piece in enumerate(batch):
            left, right = int(starts[2 * index]), int(starts[2 * index + 1])
            self._stereo = _room(self._stereo, 2 * piece.size)
            stereo = self._stereo[: 2 * piece.size]
            pairs = stereo.view("<u2")  # a pair of samples at a time: three times as fast as byte by byte
            np.multiply(target[right : right + piece.size], np.uint16(256), out=pairs, dtype=np.uint16)
            np.bitwise_or(pairs, target[left : left + piece.size], out=pairs)
            yield stereo


def _covers(size: Ints, place: Ints, base: int, length: int) -> bool:
    """Tell whether these packets, one behind the other, leave no gap."""
    if len(size) == 0 or place[0] != base or place[-1] + size[-1] != base + length:
        return False
    return bool((place[1:] == place[:-1] + size[:-1]).all())


def _room(buffer: Bytes, size: int) -> Bytes:
    """Return a buffer of at least `size` bytes, this one if it is long enough."""
    return buffer if len(buffer) >= size else np.empty(size, dtype=np.uint8)


def _inside(channel: Channel, piece: Piece, base: int) -> tuple[Ints, Ints, Ints]:
    """Return position, size and place of the packets in a piece; those that straddle its edges are cut there."""
    begin, end = channel.sample, channel.sample + channel.size
    rows = (end > piece.start) & (begin < piece.stop)
    begin, end, position = begin[rows], end[rows], channel.position[rows]
    first: Ints = np.maximum(begin, piece.start)
    last: Ints = np.minimum(end, piece.stop)
    return position + (first - begin), last - first, first - piece.start + base


def _pcm(piece: Piece, payloads: Payloads) -> Bytes:
    """Decode both channels to 16 bits: the rare call whose parties, or halves, differ in law."""
    stereo = np.zeros((piece.size, 2), dtype="<i2")
    codes = np.empty(piece.size + LONGEST_PAYLOAD, dtype=np.uint8)
    for side, party in enumerate((Party.CALLER, Party.CALLEE)):
        channel = piece.plan.sides[party].channel
        for law in (Law.A, Law.MU):
            mask = channel.law == law
            position, size, place = _inside(channel.take(mask), piece, 0)
            payloads.copy(position, size, codes, place)
            edges = np.zeros(piece.size + 1, dtype=np.int32)
            np.add.at(edges, place, 1)
            np.add.at(edges, place + size, -1)
            covered = np.cumsum(edges[:-1]) > 0
            stereo[covered, side] = PCM[law][codes[: piece.size][covered]]
    return stereo.reshape(-1).view(np.uint8)
