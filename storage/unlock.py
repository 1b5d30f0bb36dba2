"""SRTP made RTP again, before a call is planned: its packets' rows then point to the plain payloads.

Everything behind this (timeline, WAV, kept packets) sees a call that was never encrypted. What cannot be authenticated
is taken out, and counted: its header may be as false as its payload.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..rtp.rollover import Opener, Tries
from ..rtp.srtp import Ints, Packets
from ..sniffer import dtls
from ..sniffer.account import Account
from ..sniffer.rows import Rows
from ..sniffer.selection import EndedCall, Srtp, Track, Use
from ..sniffer.sources.payloads import Payloads

BATCH = 8192
"""Packets that are opened at one time: some MB."""
_UDP = 8
NO_KEY, FAILED = "encrypted, no key", "SRTP that failed authentication"


@dataclass(slots=True)
class Unlocker:
    """Decrypts the calls whose parties agreed on SRTP. `account` is told of the packets that are refused."""

    payloads: Payloads
    account: Account
    _tries: Tries = field(init=False, default_factory=Tries)

    def unlock(self, ended: EndedCall) -> None:
        """Decrypt a call's sound, where that is possible; what is encrypted and cannot be read is taken out."""
        agreed = ended.tracked.secrecy()
        if not any(secret for _, secret in agreed):
            return
        self._tries = Tries()
        for track in ended.tracks:
            if track.use in (Use.SOUND, Use.OTHER_FORK):
                self._unlock_track(ended, track, agreed)
        ended.tracks = [track for track in ended.tracks if len(track.rows)]

    def _unlock_track(self, ended: EndedCall, track: Track, agreed: list[tuple[int, bool]]) -> None:
        masters = [*dtls.masters(ended.agreements, track.source, ended.secrets), *ended.keys.masters(track.sender)]
        opener = Opener(masters, self._tries)
        secret = _secret_at(track.rows["time"], agreed)
        readable = np.zeros(len(track.rows), dtype=bool)
        for start in range(0, len(track.rows) if masters else 0, BATCH):
            readable[start : start + BATCH] = self._open(track, start, opener)
        refused = secret & ~readable
        kind = FAILED if opener.used else NO_KEY
        self.account.packet("refused", kind, int(track.rows["frames"][refused & track.fresh].sum(dtype=np.int64)))
        if track.use is Use.SOUND:
            _note(ended, track, opener, int(np.count_nonzero(readable)), int(np.count_nonzero(refused)))
        track.rows, track.fresh = track.rows[~refused], track.fresh[~refused]

    def _open(self, track: Track, start: int, opener: Opener) -> npt.NDArray[np.bool_]:
        """Open a batch of a track's packets, and have the rows point to their payloads; return which could be."""
        rows = track.rows[start : start + BATCH]
        readable = np.zeros(len(rows), dtype=bool)
        packets = self._packets(rows, track.ssrc)
        for opened in opener.open(packets):
            size = opened.size - _padding(packets, opened.rows, opened.data, opened.place, opened.size)
            base = self.payloads.lend(opened.data.data)
            rows["position"][opened.rows] = opened.place + base
            rows["size"][opened.rows] = size
            readable[opened.rows] = True
        return readable

    def _packets(self, rows: Rows, ssrc: int) -> Packets:
        """Fetch whole packets, and their UDP headers, which say how long a packet is whose padding is encrypted."""
        head, size = rows["head"].astype(np.int64), rows["size"].astype(np.int64)
        data, start = self._fetch(rows, head, size)
        padded = data[start] & 0x20 != 0
        if padded.any():
            full = (data[start - 4].astype(np.int64) << 8 | data[start - 3]) - _UDP - head
            full = np.where(self.payloads.holds(rows["position"], np.maximum(full, 0)), full, size)
            size = np.where(padded & (full >= 0), full, size)
            data, start = self._fetch(rows, head, size)
        return Packets(data.tobytes(), start, head, head + size, rows["sequence"].astype(np.int64), ssrc)

    def _fetch(self, rows: Rows, head: Ints, size: Ints) -> tuple[npt.NDArray[np.uint8], Ints]:
        whole = _UDP + head + size
        place = np.cumsum(whole) - whole
        data = np.empty(int(whole.sum()), dtype=np.uint8)
        self.payloads.copy(rows["position"] - head - _UDP, whole, data, place)
        return data, place + _UDP


def keys_are_late(ended: EndedCall) -> bool:
    """Tell whether a call's parties agreed on SRTP by DTLS, and none of its secrets is known so far."""
    if not ended.agreements or not any(secret for _, secret in ended.tracked.secrecy()):
        return False
    return not any(dtls.masters([one], one.client, ended.secrets) for one in ended.agreements)


def _padding(packets: Packets, rows: Ints, data: npt.NDArray[np.uint8], place: Ints, size: Ints) -> Ints:
    """Return how many bytes at the end of each payload are padding (RFC 3550 section 5.1)."""
    first = np.frombuffer(packets.data, dtype=np.uint8)[packets.start[rows]]
    padded = np.nonzero((first & 0x20 != 0) & (size > 0))[0]
    padding = np.zeros(len(rows), dtype=np.int64)
    padding[padded] = data[place[padded] + size[padded] - 1]
    return np.minimum(padding, size)


def _secret_at(time: Ints, agreed: list[tuple[int, bool]]) -> npt.NDArray[np.bool_]:
    """Tell for each time whether the parties had agreed on SRTP by then."""
    since = np.array([when for when, _ in agreed[1:]], dtype=np.int64)
    states = np.array([secret for _, secret in agreed], dtype=bool)
    found: npt.NDArray[np.bool_] = states[np.searchsorted(since, time, side="right")]
    return found


def _note(ended: EndedCall, track: Track, opener: Opener, readable: int, refused: int) -> None:
    """Add what became of a track to its party's account."""
    if not readable and not refused:
        return
    srtp = ended.srtp.setdefault(track.sender, Srtp())
    srtp.authenticated += readable
    if opener.used:
        srtp.failed += refused
    else:
        srtp.no_key += refused
    for master in opener.used:
        suite = f"{master.suite.name} ({master.how})"
        if suite not in srtp.suites:
            srtp.suites.append(suite)
