"""Where each packet's sound lies on the time axis. Pure functions on columns.

Theory of operation. A stream runs by its sender's clock, the RTP time stamp; it is fixed to the common axis by arrival
times. Arrivals are late by the network's mood but never early, so a stretch of packets is anchored by its least delayed
one. From there on the time stamp alone places the sound: jitter, bursts and reordering leave no trace. The anchor is
looked at again only where there is silence anyway (loss, silence suppression, hold), or where time stamp and arrival
part for good (a jump of the time stamp, a sender that stood still). Nothing is resampled and nothing is invented: what
is not there is a gap.

For the anchor the k-th arrival is held against the k-th packet in sequence, not against the packet that arrived: a set
of packets then gives the same timeline in whatever order it came.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

MAX_DROPOUT = 3000
"""A forward step in sequence numbers that is still loss (RFC 3550 appendix A.1)."""
MAX_MISORDER = 1000
"""A backward step in sequence numbers that is still reordering.

RFC 3550 takes 100; a recorder need not be that quick.
"""

LASTING = 50
"""So many packets tell a restart of the numbers from packets that are late."""
MAX_RUNS = 256

WINDOW_S = 1.0
"""How much arrival time is looked at for the least delayed packet: a burst after a stall lies within it as a whole."""
MAX_WINDOW = 1024
"""The same in packets at most: hostile streams must not cost more than long ones."""
NEXT = 32
"""Packets looked at first, for all places at once."""
CHUNK = 4096
FEW = 10
"""So few packets say little about how late the least delayed one is."""
TOLERANCE_S = 0.040
"""How far arrival and time stamp may part, in silence, before the anchor is moved."""
FEW_TOLERANCE_S = 0.200
"""The same where only `FEW` packets follow."""
JUMP_S = 0.120
"""How far a time stamp must leap ahead of its arrival, over a gap, to be a jump and not a late packet before it."""
BREAK_S = 0.5
"""How far they may part between packets that follow each other without a gap."""
CLOCK_ERROR = 20
"""Where they part by more than one in so many of the time between, the time stamps leapt: no clock is so wrong."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """A stream's packets in the order of their sequence numbers.

    `order`: row of each distinct packet (int64); `number`: its sequence number without wraps (int64), `runs`: where in
    `order` a new run begins, because the sender started its numbers anew (int64). Counts are packets.
    """

    order: Ints
    number: Ints
    runs: Ints
    received: int
    expected: int
    duplicate: int
    reordered: int

    @property
    def lost(self) -> int:
        """Packets that never came."""
        return self.expected - len(self.order)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Where a stream's packets lie: `row` and its first sample `start` (int64 each), in the order of `start`.

    Samples are counted at `rate` from the reference time given to `place`. `anchors`: how often the stream was
    anchored; `drift`: how far arrival and time stamps part at the end of each stretch, in samples, summed, without
    leaps of the time stamps.
    """

    row: Ints
    start: Ints
    anchors: int
    drift: int

    @property
    def empty(self) -> bool:
        """Whether there is no sound at all."""
        return len(self.row) == 0


def steps(numbers: npt.NDArray[np.unsignedinteger[Any]], bits: int) -> Ints:
    """Return the signed differences (int64) of counters that wrap at `bits` bits."""
    wide = numbers.astype(np.int64)
    difference: Ints = wide[1:] - wide[:-1]
    half, mask = 1 << bits - 1, (1 << bits) - 1
    return ((difference + half) & mask) - half


def sort_packets(sequence: npt.NDArray[np.uint16], stamp: npt.NDArray[np.uint32]) -> Sequence:
    """Order packets (columns in order of arrival) by sequence number, across wraps and restarts, each once.

    Two packets are one if sequence number and time stamp agree.
    """
    count = len(sequence)
    if count == 0:
        nothing = np.empty(0, dtype=np.int64)
        return Sequence(nothing, nothing, nothing, 0, 0, 0, 0)
    step = steps(sequence, 16)
    if (step == 1).all():  # as it mostly is
        every = np.arange(count, dtype=np.int64)
        return Sequence(every, every + int(sequence[0]), np.zeros(1, dtype=np.int64), count, count, 0, 0)
    number = np.concatenate(([0], np.cumsum(step))) + int(sequence[0])
    restarts = _restarts(number, step)
    order: list[Ints] = []
    numbers: list[Ints] = []
    runs: list[int] = []
    expected = reordered = total = 0
    for start, stop in pairwise([0, *restarts, count]):
        here, stamps = number[start:stop], stamp[start:stop]
        by_number = np.lexsort((stamps, here)) if (here[1:] == here[:-1]).any() else np.argsort(here, kind="stable")
        ordered = here[by_number]
        first = np.concatenate(([True], (np.diff(ordered) != 0) | (np.diff(stamps[by_number]) != 0)))
        kept = by_number[first] + start
        arrived = number[np.sort(kept)]
        reordered += int(np.count_nonzero(arrived < np.maximum.accumulate(arrived)))
        expected += max(int(ordered[-1] - ordered[0]) + 1, len(kept))
        order.append(kept)
        numbers.append(ordered[first])
        runs.append(total)
        total += len(kept)
    return Sequence(
        np.concatenate(order),
        np.concatenate(numbers),
        np.array(runs, dtype=np.int64),
        received=count,
        expected=expected,
        duplicate=count - total,
        reordered=reordered,
    )


def _restarts(number: Ints, step: Ints) -> list[int]:
    """Return where the sender began its numbers anew: a leap too wide for loss, or a step back that lasts.

    A late packet is followed by the next one in time; after a restart (a player that loops, a gateway that counts anew)
    the numbers go on from there, in order.
    """
    leaps = np.nonzero((step > MAX_DROPOUT) | (step < -MAX_MISORDER))[0] + 1
    forward = np.concatenate(([0], np.cumsum((step > 0) & (step <= 3)), np.full(LASTING, 0)))
    forward[len(step) + 1 :] = forward[len(step)]
    in_order = forward[LASTING - 1 : LASTING - 1 + len(number)] - forward[: len(number)] >= LASTING - 5
    found: list[int] = []
    for start, stop in pairwise([0, *leaps.tolist(), len(number)]):
        found += [start] if start else []
        place = start
        while place < stop and len(found) < MAX_RUNS:
            here = number[place:stop]
            highest = np.maximum.accumulate(here)
            soon = -_least_of_next(-here, LASTING)
            back = np.nonzero(soon[1:] < highest[:-1])[0] + 1
            back = back[(stop - place - back >= LASTING) & in_order[place + back]]
            if len(back) == 0:
                break
            place += int(back[0])
            found.append(place)
    return found


def place(
    time: Ints,
    stamp: npt.NDArray[np.uint32],
    samples: Ints,
    packets: Sequence,
    *,
    reference: int,
    rate: int = 8000,
) -> Timeline:
    """Place the packets of one stream.

    `time` (ns), `stamp` and `samples` (how many each packet holds, 0: no sound, not placed) are columns in order of
    arrival, `packets` their order; `reference` is the time of sample 0 in ns.
    """
    sound = samples[packets.order] > 0
    row = packets.order[sound]
    if len(row) == 0:
        return Timeline(row, row, 0, 0)
    length = samples[row]
    step = steps(stamp[row], 32)
    media = np.concatenate(([0], np.cumsum(step)))
    arrival = time[row]
    if (np.diff(arrival) < 0).any():
        arrival = np.sort(arrival)
    arrival = _samples(arrival - reference, rate)
    late = arrival - media
    gap = step - length[:-1]
    change = np.diff(late)
    parted = (np.abs(change) > BREAK_S * rate) | ((gap != 0) & (change < -JUMP_S * rate))
    suspects = np.nonzero((gap != 0) | parted)[0] + 1
    breaks = np.nonzero(parted)[0] + 1
    ends = np.searchsorted(arrival, arrival[suspects] + round(WINDOW_S * rate), side="right")
    ends = np.minimum(ends, suspects + MAX_WINDOW)
    limits = np.append(breaks, len(row))
    ends = np.minimum(ends, limits[np.searchsorted(breaks, suspects, side="right")])
    begin = int(min(limits[0], MAX_WINDOW, np.searchsorted(arrival, arrival[0] + round(WINDOW_S * rate), side="right")))
    first = int(late[: max(begin, 1)].min())
    return _anchor(row, media, late, length, gap, first, suspects, ends, rate)


_SHORT = 10**14  # ns, more than a day: times 48,000 it still fits into 63 bits


def _samples(nanoseconds: Ints, rate: int) -> Ints:
    """Turn ns into samples, rounded, without overflow over a century."""
    if len(nanoseconds) and nanoseconds[0] >= 0 and nanoseconds[-1] < _SHORT:  # in order, as they are
        return (nanoseconds * rate + 500_000_000) // 1_000_000_000
    seconds: Ints = nanoseconds // 1_000_000_000
    rest: Ints = nanoseconds % 1_000_000_000
    return seconds * rate + (rest * rate + 500_000_000) // 1_000_000_000


def _anchor(
    row: Ints, media: Ints, late: Ints, length: Ints, gap: Ints, first: int, suspects: Ints, ends: Ints, rate: int
) -> Timeline:
    """Walk the places where the anchor may move; between them the time stamp rules.

    `first` is the first anchor; `ends` is where the window of each suspect ends, in which it looks for the least
    delayed
    packet. Only suspects that a look at the next few packets does not clear are walked one by one.
    """
    if len(suspects) == 0:
        return Timeline(row, media + first, 1, int(late[max(0, len(late) - 50) :].min()) - first)
    shift = np.empty(len(row), dtype=np.int64)
    anchor, begin, anchors, drift, place = first, 0, 1, 0, 0
    near, narrow = _least_of_next(late, NEXT)[suspects], _narrowest(gap[suspects - 1], length[suspects - 1], rate)
    narrow[ends - suspects < NEXT] = -1  # a break is near: what lies behind it does not count
    while place < len(suspects):
        unclear = np.abs(near[place : place + CHUNK] - anchor) > narrow[place : place + CHUNK]
        if not unclear.any():
            place += CHUNK
            continue
        place += int(unclear.argmax())
        index, end = int(suspects[place]), int(ends[place])
        place += 1
        lateness = int(late[index : max(end, index + 1)].min())
        parted = lateness - anchor
        if abs(parted) <= _allowed(int(gap[index - 1]), int(length[index - 1]), end - index) * rate:
            continue
        shift[begin:index] = anchor
        earliest = int(media[index - 1] + anchor + length[index - 1] - media[index])
        spent = int(media[index] + late[index] - media[begin] - late[begin])
        drift += parted if abs(parted) * CLOCK_ERROR <= abs(spent) else 0
        anchor, begin, anchors = max(lateness, earliest), index, anchors + 1
    shift[begin:] = anchor
    drift += int(late[max(begin, len(late) - 50) :].min()) - anchor
    return Timeline(row, media + shift, anchors, drift)


def _least_of_next(late: Ints, span: int) -> Ints:
    """Return for each packet the least lateness among it and the `span` - 1 packets behind it, all at once.

    Within blocks of `span` packets a running minimum from either side; a window covers the end of one and the start of
    the
    next.
    """
    count = len(late)
    blocks = -(-count // span) + 1
    padded = np.full(blocks * span, np.iinfo(np.int64).max, dtype=np.int64)
    padded[:count] = late
    square = padded.reshape(blocks, span)
    ahead = np.minimum.accumulate(square, axis=1).reshape(-1)
    behind = np.minimum.accumulate(square[:, ::-1], axis=1)[:, ::-1].reshape(-1)
    least: Ints = np.minimum(behind[:count], ahead[span - 1 : span - 1 + count])
    return least


def _narrowest(gap: Ints, length: Ints, rate: int) -> Ints:
    """Return what `_allowed` allows at least, in samples, for many packets."""
    contiguous = np.where(-gap <= length, round(BREAK_S * rate), -1)
    return np.where(gap > 0, round(TOLERANCE_S * rate), contiguous)


def _allowed(gap: int, length: int, packets: int) -> float:
    """Return how far (s) arrival and time stamp may part before a packet that `gap` samples of silence precede.

    Without silence, or where packets overlap a little (the sender's own doing), only a break counts; a time stamp that
    goes back is always one. `packets` is how many were looked at.
    """
    if gap > 0:
        return TOLERANCE_S if packets > FEW else FEW_TOLERANCE_S
    return BREAK_S if -gap <= length else -1.0


OVERLAP_S = 0.2
"""Streams of one party that overlap less than this follow each other; beyond it they sound at once."""


def overlay(
    starts: list[Ints], lengths: list[Ints], ranks: list[int] | None = None, rate: int = 8000
) -> tuple[list[int], list[npt.NDArray[np.bool_]]]:
    """Lay the streams of one party, which mostly follow each other, on one channel.

    Takes each stream's packet starts and lengths in samples, and its rank; returns how far each stream is moved back,
    in samples, and which of its packets are heard. A stream that begins shortly before its forerunner ends is moved
    behind it. Where two really sound at once, the one of higher rank is heard; of equals the one that began later, as a
    phone would play it. Either way the other one is heard again when it is over.
    """
    moves = [0] * len(starts)
    heard = [np.ones(len(start), dtype=bool) for start in starts]
    order = sorted((index for index, start in enumerate(starts) if len(start)), key=lambda index: int(starts[index][0]))
    laid: list[int] = []
    latest: int | None = None
    for index in order:
        begin, end = int(starts[index].min()), int((starts[index] + lengths[index]).max())
        if latest is not None and 0 < latest - begin <= OVERLAP_S * rate:
            moves[index] = latest - begin
            end = end + moves[index]
        for other in laid:
            upper, lower = (other, index) if ranks and ranks[other] > ranks[index] else (index, other)
            at, above = starts[lower] + moves[lower], starts[upper] + moves[upper]
            heard[lower] &= ~_covered(at, lengths[lower], above, lengths[upper])
        laid.append(index)
        latest = end if latest is None else max(latest, end)
    return moves, heard


def _covered(start: Ints, length: Ints, above: Ints, above_length: Ints) -> npt.NDArray[np.bool_]:
    """Tell which packets begin under a packet of another stream."""
    ends = np.maximum.accumulate(above + above_length)
    before = np.searchsorted(above, start, side="right")
    under: npt.NDArray[np.bool_] = (before > 0) & (ends[np.maximum(before - 1, 0)] > start)
    return under
