"""Several captures as one, in the order of time."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from .datagrams import Datagrams, in_time, join


@dataclass(slots=True)
class Input:
    """One capture: when it begins (ns) and how to read it."""

    first: int
    open: Callable[[], Iterable[Datagrams]]


def merge(inputs: list[Input]) -> Iterator[Datagrams]:
    """Yield the blocks of all inputs so that no later block holds anything earlier, as far as each input keeps order.

    Inputs that do not overlap are read one after the other, unchanged.
    """
    waiting = sorted(inputs, key=lambda one: one.first)
    active: list[_Head] = []
    while waiting or active:
        while waiting and (not active or waiting[0].first <= min(head.block.last for head in active)):
            head = _Head.start(waiting.pop(0))
            if head is not None:
                active.append(head)
        if not active:
            continue
        if len(active) == 1:
            yield active[0].block
            active = [head for head in active if head.step()]
            continue
        horizon = min(head.block.last for head in active)
        yield _combine([head.until(horizon) for head in active])
        active = [head for head in active if head.block.last > horizon or head.step()]


def in_order(blocks: Iterable[Datagrams], window: int) -> Iterator[Datagrams]:
    """Yield what one input holds in the order of time, where nothing is more than `window` ns out of it."""
    waiting: _Head | None = None
    for block in blocks:
        if waiting is not None:
            block = _combine([waiting.block, block])
        waiting = _Head(block, iter(()))
        yield waiting.until(block.last - window)
    if waiting is not None:
        yield waiting.block


@dataclass(slots=True)
class _Head:
    """The block at the front of one input."""

    block: Datagrams
    rest: Iterator[Datagrams]

    @classmethod
    def start(cls, source: Input) -> "_Head | None":
        rest = iter(source.open())
        block = next(rest, None)
        return None if block is None else cls(block, rest)

    def step(self) -> bool:
        block = next(self.rest, None)
        if block is not None:
            self.block = block
        return block is not None

    def until(self, horizon: int) -> Datagrams:
        """Cut off and return what is not later than the horizon. Frames are counted with the first piece."""
        block = self.block
        early, other_early = block.rtp.time <= horizon, block.other.time <= horizon
        slow = [packet for packet in block.slow if packet.time <= horizon]
        piece = Datagrams(
            block.rtp.take(early),
            slow,
            block.fates,
            block.first,
            min(block.last, horizon),
            block.frames,
            block.cut,
            block.other.take(other_early),
        )
        later = [packet for packet in block.slow if packet.time > horizon]
        nothing = np.zeros_like(block.fates)
        self.block = Datagrams(
            block.rtp.take(~early),
            later,
            nothing,
            min(horizon + 1, block.last),
            block.last,
            0,
            other=block.other.take(~other_early),
        )
        return piece


def _combine(pieces: list[Datagrams]) -> Datagrams:
    rtp = in_time(join([piece.rtp for piece in pieces if len(piece.rtp)]))
    other = in_time(join([piece.other for piece in pieces if len(piece.other)]))
    slow = sorted((packet for piece in pieces for packet in piece.slow), key=lambda packet: packet.time)
    fates = np.sum([piece.fates for piece in pieces], axis=0)
    first, last = min(piece.first for piece in pieces), max(piece.last for piece in pieces)
    frames, cut = sum(piece.frames for piece in pieces), sum(piece.cut for piece in pieces)
    return Datagrams(rtp, slow, fates, first, last, frames, cut, other)
