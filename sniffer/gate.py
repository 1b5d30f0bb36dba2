"""A flood of SIP must not keep running calls from being heard: beyond a rate strangers' messages are turned away.

Buckets of tokens, filled by the packets' time. Messages of calls in progress always pass: they are told by their
Call-ID, whatever addresses the flood makes up. Answers to INVITEs have a bucket of their own, so that a call whose
INVITE drowned is joined by its answer.
"""

import re
from collections.abc import Callable

from ..sip.headers import decode

SECOND = 1_000_000_000
_CALL_ID = re.compile(rb"\n(?:call-id|i)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_TO_INVITE = re.compile(rb"\ncseq[ \t]*:[ \t]*[0-9]+[ \t]+INVITE", re.IGNORECASE)
_LOOKED_AT = 4096
_KEEP_ALIVE = b"\r\n\0"
OTHERS = 10
"""So many times as many messages that begin no call (registrations, say) are read as new calls."""
FLOOD = 10 * SECOND
"""A flood is over when nothing had to be refused for so long, in ns."""


class _Bucket:
    """Lets a rate pass, and twice as many at once."""

    def __init__(self) -> None:
        self._used = 0.0
        self._time = 0

    def takes(self, rate: int, time: int) -> bool:
        """Tell whether one more may pass at `time` (ns), at so many a second."""
        if time > self._time:
            self._used = max(self._used - (time - self._time) * rate / SECOND, 0.0)
            self._time = time
        if self._used + 1 > 2 * rate:
            return False
        self._used += 1
        return True


class Gate:
    """Lets `rate` new calls a second pass, and twice as many at once. `known(call_id)` tells the calls in progress.
    `refused` counts messages.
    """

    def __init__(self, rate: int, known: Callable[[str], bool]) -> None:
        self.rate = rate
        self.refused = 0
        self.last_refused = -FLOOD
        self._known = known
        self._begun, self._joined, self._others = _Bucket(), _Bucket(), _Bucket()

    def admits(self, data: bytes, time: int) -> bool:
        """Tell whether a message (at `time`, ns) may be read."""
        found = _CALL_ID.search(data, 0, _LOOKED_AT)
        if found is not None and self._known(decode(found[1].strip())):
            return True
        bucket, rate = self._bucket(data.lstrip(_KEEP_ALIVE))
        if bucket.takes(rate, time):
            return True
        self.refused += 1
        self.last_refused = time
        return False

    def _bucket(self, data: bytes) -> tuple[_Bucket, int]:
        """Return what counts messages of this kind, and how many may pass a second."""
        if data.startswith(b"INVITE "):
            return self._begun, self.rate
        if data.startswith((b"ACK ", b"UPDATE ")) or _is_answer(data):
            return self._joined, self.rate
        return self._others, OTHERS * self.rate

    def flooded(self, now: int) -> bool:
        """Tell whether there is a flood at `now` (ns)."""
        return now - self.last_refused < FLOOD


def _is_answer(data: bytes) -> bool:
    return data[:4].upper() == b"SIP/" and _TO_INVITE.search(data, 0, _LOOKED_AT) is not None
