"""What is known of one party's media: where its sound lies, and its figures. Values."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..sniffer.rows import Rows

Ints = npt.NDArray[np.int64]
LOT, LOT_BYTES = 8192, 4 << 20
"""Packets, and bytes of them, whose payloads are fetched at one time."""
WINDOW_NS = 10_000_000_000
"""Quality is told for so long a stretch, in ns."""
RATE = 8000
"""Samples a second of G.711."""


def _none() -> Ints:
    return np.empty(0, dtype=np.int64)


class Fetch(Protocol):
    """What gives payloads, as `Payloads.fetch` does."""

    def __call__(self, position: Ints, size: Ints, /) -> list[bytes]:
        """Return the bytes at these positions."""
        ...


@dataclass(slots=True)
class Channel:
    """One party's sound, a row each packet placed.

    In the WAV: first `sample` and `length`, at the plan's rate. In the input: payload `position` and `size` in bytes.
    What it is: `law` (a `Kind`). To decode it: first sample `at` and `count` of samples at the codec's own rate, and
    the number of the `voice` that speaks: packets that one decoder takes one after the other. Of G.711 alone `sample`
    is `at`, and `length`, `size` and `count` are the same.
    """

    sample: Ints = field(default_factory=_none)
    length: Ints = field(default_factory=_none)
    position: Ints = field(default_factory=_none)
    size: Ints = field(default_factory=_none)
    law: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, dtype=np.uint8))
    at: Ints = field(default_factory=_none)
    count: Ints = field(default_factory=_none)
    voice: Ints = field(default_factory=_none)

    @property
    def end(self) -> int:
        """Samples up to the end of the last packet."""
        return int((self.sample + self.length).max()) if len(self.sample) else 0

    def take(self, rows: npt.NDArray[np.bool_] | Ints | slice) -> "Channel":
        """Return some of the packets."""
        return Channel(*(getattr(self, name)[rows] for name in Channel.__slots__))


def lots(size: Ints) -> Iterator[slice]:
    """Yield slices of packets of these sizes (bytes), none worth more than `LOT_BYTES` unless it is one packet."""
    ends, start = np.cumsum(size), 0
    while start < len(size):
        before = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, before + LOT_BYTES, side="right")), start + 1)
        stop = min(stop, start + LOT)
        yield slice(start, stop)
        start = stop


def joined(parts: list[Channel]) -> Channel:
    """Return the packets of several parts in the order of their place."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Channel()
    whole = Channel(*(np.concatenate([getattr(part, name) for part in parts]) for name in Channel.__slots__))
    return whole.take(np.argsort(whole.sample, kind="stable"))


@dataclass(slots=True)
class Figures:
    """A side's packets: counts, loss and jitter over all its sound tracks.

    `recovered` packets never came, but copies of their sound did. `bursts` of loss that no copy fills, the `longest` in
    packets; `came` and `missed` are packets by the 10 s of the axis, `touched` bursts of loss in these.
    """

    received: int = 0
    expected: int = 0
    lost: int = 0
    duplicate: int = 0
    mirrored: int = 0
    reordered: int = 0
    recovered: int = 0
    jitter_ms: float = 0.0
    jitter_most_ms: float = 0.0
    drift_ms: float = 0.0
    anchors: int = 0
    bursts: int = 0
    longest: int = 0
    came: Counter[int] = field(default_factory=Counter)
    missed: Counter[int] = field(default_factory=Counter)
    touched: Counter[int] = field(default_factory=Counter)

    @property
    def loss_percent(self) -> float:
        """Share of the expected packets that never came."""
        return 100.0 * self.lost / self.expected if self.expected else 0.0


@dataclass(slots=True)
class Side:
    """All about one party's media.

    `redundant`: packets with copies of others (RFC 2198); `fec`: packets of forward error correction; `lies`:
    what its sender does otherwise than its SDP says, in words; `undecoded`:
    packets that their decoder could not make sense of, and `mixed` whether two channels became one, both known when the
    sound has been rendered.
    """

    channel: Channel = field(default_factory=Channel)
    figures: Figures = field(default_factory=Figures)
    codecs: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    unknown: Counter[int] = field(default_factory=Counter)
    events: list[tuple[Rows, int]] = field(default_factory=list)
    hidden: int = 0
    sealed: int = 0
    redundant: int = 0
    fec: Counter[str] = field(default_factory=Counter)
    lies: list[str] = field(default_factory=list)
    undecoded: int = 0
    mixed: bool = False
