"""Keys made unreadable before a call is written: in its text, in its sound, and in whatever is kept of its packets.

Tones become silence of the same length. Of G.711 their codes give way to those of silence, so that every packet keeps
its length; a packet of another codec goes as a whole, for not all of them have silence. RTP events lose their number.
The plan is then made again of what is left, so that WAV and kept packets agree.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..rtp.events import DIGITS, MASKED
from ..rtp.g711 import SILENCE, Law
from ..rtp.red import HEAD, blocks
from ..rtp.tones import RATE
from ..sip.dialog import Party
from ..sniffer.account import Account
from ..sniffer.rows import Rows
from ..sniffer.selection import Track, Use
from ..sniffer.sources.payloads import Payloads
from .hearing import Listener
from .kinds import Codecs, Kind, kinds_of
from .plan import Plan, plan
from .presses import EVENT, Press, presses
from .side import Channel, Side

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Ranges = dict[int, list[tuple[int, int]]]
"""Payload position -> bytes of it that are to be blanked."""

FLOOR_DBM0 = -55.0
"""Tones down to here are masked: an echo of a key tells it too."""
_AROUND = 160
"""Samples (8,000 a second) that are masked before and behind a tone: its edges, and what a filter made of them."""
_BEFORE_NS, _BEHIND_NS = 100_000_000, 60_000_000
"""The same for RTP events: a gateway lets a bit of the tone pass before it knows it."""
_COPIES_NS = 400_000_000
"""Copies of packets, behind relays and of forks, are masked so long before and behind a tone."""


@dataclass(frozen=True, slots=True)
class Patch:
    """What is to be written over bytes of the input: at a `position`, the payload behind an RTP header of so many
    bytes (`head`).
    """

    position: int
    head: int
    payload: bytes


@dataclass(slots=True)
class Masked:
    """What was masked: the keys, and the packets that had to go (`dropped`); `patches` do the same to the input."""

    presses: list[Press]
    dropped: int = 0
    patches: list[Patch] = field(default_factory=list)

    def counts(self) -> Counter[str]:
        """Return how many keys came by which means."""
        return Counter(press.means for press in self.presses if press.masked)


def mask(planned: Plan, payloads: Payloads, sound: Callable[[Plan], Iterator[Bytes]]) -> None:
    """Mask the keys of a call that is planned; `sound` renders it. What was found is noted in the plan."""
    listener = Listener(planned, keys=True, floor=FLOOR_DBM0)
    if planned.has_sound:
        deque(listener.watch(sound(planned)), maxlen=0)
    for side in planned.sides.values():
        side.undecoded = 0  # it will be decoded again
    planned.listener = listener
    found = presses(planned, payloads)
    planned.masked = masked = Masked([_hidden(press) for press in found])
    spans = {party: _spans(planned, listener, party, found) for party in Party}
    ended = planned.ended
    ended.tracks = [_Mask(planned, payloads, masked, track, spans[track.sender]).track() for track in ended.tracks]
    ended.tracks = [track for track in ended.tracks if len(track.rows)]
    _plan_again(planned, payloads)


def _hidden(press: Press) -> Press:
    return replace(press, digit="*", masked=True) if len(press.digit) == 1 else press


def _plan_again(planned: Plan, payloads: Payloads) -> None:
    """Plan what is left; the figures stay those of what crossed the wire."""
    again = plan(planned.ended, Account(), payloads.fetch, keep=planned.keep)
    for party, side in planned.sides.items():
        side.channel = again.sides[party].channel
    if again.frames:
        planned.reference, planned.frames, planned.rate = again.reference, again.frames, again.rate
        planned.laws, planned.codecs, planned.decoded = again.laws, again.codecs, again.decoded


# -- where -------------------------------------------------------------------------------------------------------------


def _spans(planned: Plan, listener: Listener, party: Party, found: list[Press]) -> Ints:
    """Return the stretches of a party's channel to be masked, (first sample, end), in order and apart."""
    rate = planned.rate
    spans = [
        ((tone.start - _AROUND) * rate // RATE, (tone.stop + _AROUND) * rate // RATE) for tone in listener.tones(party)
    ]
    for press in found:
        if press.party is party and EVENT in press.means:
            begin, end = press.time - _BEFORE_NS - planned.reference, press.until + _BEHIND_NS - planned.reference
            spans.append((begin * rate // 1_000_000_000, end * rate // 1_000_000_000))
    joined: list[list[int]] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], stop)
        else:
            joined.append([start, stop])
    return np.array(joined, dtype=np.int64).reshape(-1, 2)


def _affected(channel: Channel, spans: Ints) -> tuple[Ranges, set[int]]:
    """Return which payload bytes lie in the stretches, of G.711; and the positions of other codecs' payloads there."""
    ranges: Ranges = {}
    whole: set[int] = set()
    if not len(spans) or not len(channel.sample):
        return ranges, whole
    begin, end = channel.sample, channel.sample + channel.length
    first = np.searchsorted(spans[:, 1], begin, side="right")
    hit = first < len(spans)
    hit[hit] = spans[first[hit], 0] < end[hit]
    for row in np.nonzero(hit)[0].tolist():
        position, sample, stop = int(channel.position[row]), int(begin[row]), int(end[row])
        if channel.law[row] not in (Kind.A, Kind.MU) or channel.size[row] != channel.length[row]:
            whole.add(position)
            continue
        mine = ranges.setdefault(position, [])
        for start, until in spans[first[row] :].tolist():
            if start >= stop:
                break
            mine.append((max(start, sample) - sample, min(until, stop) - sample))
    return ranges, whole


# -- what --------------------------------------------------------------------------------------------------------------


class _Mask:
    """One stream, with what is to be masked in it."""

    def __init__(self, planned: Plan, payloads: Payloads, masked: Masked, track: Track, spans: Ints) -> None:
        self._payloads, self._masked, self._track, self._spans = payloads, masked, track, spans
        self._planned = planned
        channel = planned.sides[track.sender].channel
        self._heard = channel.position
        self._ranges, self._whole = _affected(channel, spans)
        self._kinds = kinds_of(track.rows, track, Side(), Codecs()) if track.kind == "audio" else None
        self._rows: Rows = track.rows
        self._gone = np.zeros(len(track.rows), dtype=bool)

    def track(self) -> Track:
        """Return the stream without its keys."""
        if self._kinds is None or not len(self._track.rows):
            return self._track
        self._rows = self._track.rows.copy()
        self._events(np.nonzero(self._kinds == Kind.EVENT)[0])
        if len(self._spans):
            red = self._kinds == Kind.RED
            self._sound(~red & (self._kinds != Kind.EVENT) & (self._kinds != Kind.COMFORT))
            self._red(np.nonzero(red)[0])
        kept = ~self._gone
        self._masked.dropped += int(np.count_nonzero(self._gone)) if self._track.use is Use.SOUND else 0
        return replace(self._track, rows=self._rows[kept], fresh=self._track.fresh[kept])

    def _payload(self, row: int) -> bytearray:
        rows = self._track.rows[row : row + 1]
        return bytearray(self._payloads.fetch(rows["position"].copy(), rows["size"].astype(np.int64))[0])

    def _change(self, row: int, payload: bytes) -> None:
        """Put another payload in place of a row's, here and in the input."""
        known = self._track.rows[row]
        self._masked.patches.append(Patch(int(known["position"]), int(known["head"]), payload))
        self._rows["position"][row] = self._payloads.lend(payload)

    def _drop(self, row: int) -> None:
        self._change(row, bytes(int(self._track.rows["size"][row])))
        self._gone[row] = True

    def _events(self, rows: Ints) -> None:
        for row in rows.tolist():
            payload = self._payload(row)
            if _hide_events(payload, 0, len(payload)):
                self._change(row, bytes(payload))

    def _sound(self, sounding: npt.NDArray[np.bool_]) -> None:
        """Mask what lies in the channel, to the sample; and all copies of it that do not."""
        rows = self._track.rows
        there = np.array([*self._ranges, *self._whole], dtype=np.int64)
        exact = sounding & np.isin(rows["position"], there)
        for row in np.nonzero(exact)[0].tolist():
            position = int(rows["position"][row])
            if position in self._whole:
                self._drop(row)
            else:
                self._blank(row, self._ranges[position])
        near = np.zeros(len(rows), dtype=bool)
        for start, stop in self._spans.tolist():
            begin, end = (self._time(sample) for sample in (start, stop))
            near |= (rows["time"] >= begin - _COPIES_NS) & (rows["time"] <= end + _COPIES_NS)
        for row in np.nonzero(sounding & near & ~np.isin(rows["position"], self._heard))[0].tolist():
            self._blank(row, [(0, int(rows["size"][row]))])

    def _time(self, sample: int) -> int:
        return self._planned.reference + sample * 1_000_000_000 // self._planned.rate

    def _blank(self, row: int, ranges: list[tuple[int, int]]) -> None:
        assert self._kinds is not None
        kind = int(self._kinds[row])
        if kind not in (Kind.A, Kind.MU):
            self._drop(row)
            return
        payload = self._payload(row)
        for start, stop in ranges:
            payload[start:stop] = bytes([SILENCE[Law(kind)]]) * (stop - start)
        self._change(row, bytes(payload))

    # -- redundant audio -----------------------------------------------------------------------------------------------

    def _red(self, reds: Ints) -> None:
        """Mask blocks of redundant packets: those of the channel to the sample, other copies of the same time whole."""
        if not len(reds):
            return
        rows = self._track.rows
        heard = bool(self._ranges or self._whole)
        found = {row: self._payload(row) for row in reds.tolist() if self._is_near(row)}
        stamps: set[int] = set()
        for row, payload in found.items():
            place = int(rows["position"][row])
            for block in blocks(bytes(payload[: HEAD + 1]), len(payload)):
                if place + block.start in self._ranges or place + block.start in self._whole:
                    stamps.add(int(rows["stamp"][row]) - block.back & 0xFFFFFFFF)
        for row, payload in found.items():
            self._red_packet(row, payload, stamps, heard)

    def _is_near(self, row: int) -> bool:
        """Tell whether a packet may hold copies of what is masked: they come later, by a second or two."""
        rate = self._planned.rate
        sample = (int(self._track.rows["time"][row]) - self._planned.reference) * rate // 1_000_000_000
        return bool(((self._spans[:, 0] - rate <= sample) & (sample <= self._spans[:, 1] + 3 * rate)).any())

    def _red_packet(self, row: int, payload: bytearray, stamps: set[int], heard: bool) -> None:
        rows, before = self._track.rows, bytes(payload)
        place, stamp = int(rows["position"][row]), int(rows["stamp"][row])
        for block in blocks(before[: HEAD + 1], len(before)):
            inner = rows[row : row + 1].copy()
            inner["kind"] = block.kind
            kind = int(kinds_of(inner, self._track, Side(), Codecs())[0])
            begin, end = block.start, block.start + block.size
            ranges = self._ranges.get(place + block.start)
            if kind == Kind.EVENT:
                _hide_events(payload, begin, end)
            elif not heard or (ranges is None and stamp - block.back & 0xFFFFFFFF not in stamps):
                continue
            elif kind not in (Kind.A, Kind.MU):
                self._drop(row)
                return
            else:
                for start, stop in ranges or [(0, block.size)]:
                    payload[begin + start : begin + stop] = bytes([SILENCE[Law(kind)]]) * (stop - start)
        if payload != before:
            self._change(row, bytes(payload))


def _hide_events(payload: bytearray, start: int, stop: int) -> bool:
    """Take the numbers of keys out of a telephone-event payload; tell whether there were any."""
    hidden = False
    for place in range(start, stop, 4):  # a cut one tells its key too
        if payload[place] < len(DIGITS):
            payload[place] = MASKED
            hidden = True
    return hidden
