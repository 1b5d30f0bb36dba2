"""Where a sender does otherwise than its SDP says, and its packets show it. Pure but for `Fetch`.

At what rate time stamps count (of G722/16000: 8,000 Hz), which way round the samples of G.726 are packed, and in which
payload mode AMR is.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..rtp.codecs import Codec, Framing, other_mode, packed_otherwise
from ..rtp.frames import fills
from ..rtp.packing import CHUNK_S, true_packing
from ..rtp.timeline import Sequence, steps
from ..sniffer.rows import Rows
from .kinds import Codecs, Kind, add
from .side import Fetch, Ints, Side

KNOWN = (8000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 90_000)
"""Clocks that a sender may have, in Hz."""
LEAST = 10
"""So many packets that follow each other must tell it."""
MOST = 0.9
"""And so many of them must agree."""
LISTENED = 500
"""Packets of AMR that are looked at."""
CHUNKS = 12
"""Pieces of sound that are listened to in order to tell how it is packed."""


def true_clocks(
    rows: Rows, kinds: npt.NDArray[np.uint8], packets: Sequence, count: Ints, codecs: Codecs, side: Side
) -> tuple[npt.NDArray[np.uint8], dict[int, int]]:
    """Return what each packet is, codecs by the clock that their packets show, and what each clock that was told is in
    truth (Hz).

    Two packets that follow each other show it: the time stamp moves on by the sound of the first one. `count` is that
    sound, in samples at the codec's rate.
    """
    lies: dict[int, int] = {}
    order = packets.order
    if len(order) <= LEAST or not codecs.known:
        return kinds, lies
    step = steps(rows["stamp"][order], 32)
    size, follows = count[order][:-1], (np.diff(packets.number) == 1) & (step > 0) & (count[order][:-1] > 0)
    for kind in np.unique(kinds[kinds >= Kind.CODEC]).tolist():
        codec = codecs.of(kind)
        mine = follows & (kinds[order][:-1] == kind) & (kinds[order][1:] == kind)
        clock = _shown(step[mine] * codec.rate, size[mine], codec.clock)
        if clock == codec.clock:
            continue
        true = codecs.kind(replace(codec, clock=clock))
        if true == Kind.FOREIGN:
            continue
        lies[codec.clock] = clock
        kinds = np.where(kinds == kind, np.uint8(true), kinds)
        add(
            side.lies,
            f"{codec.name} counts time at {clock} Hz, not at {codec.clock} as its SDP has it: it is placed so",
        )
    return kinds, lies


def _shown(step: Ints, size: Ints, told: int) -> int:
    """Return the clock that these steps (times the codec's rate) over so many samples show, the told one in doubt."""
    if len(step) < LEAST or np.count_nonzero(step == size * told) * 2 >= len(step):
        return told
    votes = {clock: int(np.count_nonzero(step == size * clock)) for clock in KNOWN}
    best = max(KNOWN, key=lambda clock: votes[clock])
    return best if votes[best] >= MOST * len(step) else told


def true_packings(
    rows: Rows, kinds: npt.NDArray[np.uint8], packets: Sequence, codecs: Codecs, side: Side, fetch: Fetch
) -> npt.NDArray[np.uint8]:
    """Return what each packet is, G.726 by the way round in which it sounds."""
    for kind in np.unique(kinds[kinds >= Kind.CODEC]).tolist() if codecs.known else ():
        codec = codecs.of(kind)
        if packed_otherwise(codec) is None:
            continue
        order = packets.order[kinds[packets.order] == kind]
        true = true_packing(codec, _payloads(rows, order, codec, fetch))
        number = codecs.kind(true)
        if true == codec or number == Kind.FOREIGN:
            continue
        kinds = np.where(kinds == kind, np.uint8(number), kinds)
        if true.name != codec.name:
            add(side.lies, f"{codec.name} is packed as {true.name} is, and is decoded so")
    return kinds


def true_modes(
    rows: Rows, kinds: npt.NDArray[np.uint8], packets: Sequence, codecs: Codecs, side: Side, fetch: Fetch
) -> npt.NDArray[np.uint8]:
    """Return what each packet is, AMR in the payload mode that its packets are filled by."""
    for kind in np.unique(kinds[kinds >= Kind.CODEC]).tolist() if codecs.known else ():
        codec = codecs.of(kind)
        other = other_mode(codec)
        if other is None:
            continue
        order = packets.order[kinds[packets.order] == kind][:LISTENED]
        payloads = fetch(rows["position"][order].copy(), rows["size"][order].astype(np.int64))
        told, turned = (sum(fills(one, payload) for payload in payloads) for one in (codec, other))
        number = codecs.kind(other) if turned >= MOST * len(payloads) and 2 * told < turned else kind
        if number not in (kind, Kind.FOREIGN):
            kinds = np.where(kinds == kind, np.uint8(number), kinds)
            way = "octet-aligned" if other.framing is Framing.AMR_OCTETS else "bandwidth-efficient"
            add(side.lies, f"{codec.name} is {way}, not as its SDP has it, and is decoded so")
    return kinds


def _payloads(rows: Rows, order: Ints, codec: Codec, fetch: Fetch) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the payload of some packets after the other, whole samples of each, 10 s at a time, for two minutes."""
    size = rows["size"][order].astype(np.int64) // codec.unit * codec.unit
    limit = CHUNK_S * codec.rate * codec.bits // 8
    part = np.cumsum(size) // limit
    for number in range(CHUNKS):
        here = order[part == number]
        if len(here):
            payloads = fetch(rows["position"][here].copy(), size[part == number])
            yield np.frombuffer(b"".join(payloads), dtype=np.uint8)
