"""Keys taken out of packets as they are captured, so that no file ever has them: numbers of RTP events (RFC 4733)."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from ..rtp.events import DIGITS, MASKED
from ..sip.sdp import Format
from .datagrams import RtpColumns
from .records import Bytes, Ints

Formats = Callable[[int], Iterable[Mapping[int, Format]]]
"""What gives all that was said of a stream's payload types."""
_DYNAMIC = 96
_ONE, _MOST = 4, 16
"""Bytes of an event, and of the most that a packet bears."""


def events(rtp: RtpColumns, streams: npt.NDArray[np.int32], formats: Formats) -> Ints:
    """Return the rows that are events, by their shape (few bytes of a dynamic payload type) and what the session
    descriptions of their streams say, if they say anything yet.
    """
    fits = (rtp.size >= _ONE) & (rtp.size <= _MOST) & (rtp.size % _ONE == 0) & ((rtp.kind & 0x7F) >= _DYNAMIC)
    rows = np.nonzero(fits)[0]
    sorts = streams[rows].astype(np.int64) << 16 | (rtp.kind[rows] & 0x7F).astype(np.int64) << 8 | rtp.size[rows]
    which, place = np.unique(sorts, return_inverse=True)
    found = [is_event(one >> 8 & 0x7F, one & 0xFF, formats(one >> 16)) for one in which.tolist()]
    mine: Ints = rows[np.array(found, dtype=bool)[place]]
    return mine


def is_event(kind: int, size: int, formats: Iterable[Mapping[int, Format]]) -> bool:
    """Tell whether a packet of this payload type is an event, by what session descriptions say of it. Where they say
    nothing yet, one of four bytes is taken for one: no sound is as short.
    """
    names = [known[kind].name for known in formats if kind in known]
    return "TELEPHONE-EVENT" in names if names else size == _ONE


def hide(data: Bytes, place: Ints, head: Ints) -> None:
    """Take the number out of events whose payloads begin at these places, behind RTP headers of `head` bytes. The UDP
    checksum before them changes by as much (RFC 1624); none (0) stays none.
    """
    known = data[place]
    rows = known < len(DIGITS)
    place, known, sums = place[rows], known[rows].astype(np.int64), (place - head - 2)[rows]
    data[place] = MASKED
    before = data[sums].astype(np.int64) << 8 | data[sums + 1]
    after = (before - ((MASKED - known) << 8)) % 0xFFFF
    after[after == 0] = 0xFFFF
    after[before == 0] = 0
    data[sums], data[sums + 1] = after >> 8, after & 0xFF


def hidden(packet: bytes, place: int, head: int) -> bytes:
    """Return one packet with the event at `place` hidden."""
    data: npt.NDArray[np.uint8] = np.frombuffer(packet, dtype=np.uint8).copy()
    hide(data, np.array([place], dtype=np.int64), np.array([head], dtype=np.int64))
    return data.tobytes()
