"""A flood of INVITEs must not keep running calls from being heard: new calls beyond a rate are turned away unread.

A bucket of tokens, filled by the packets' time. Messages of calls in progress always pass: they are told by their
Call-ID, whatever addresses the flood makes up.
"""

import re
from collections.abc import Callable

from ..sip.headers import decode

SECOND = 1_000_000_000
_CALL_ID = re.compile(rb"\n(?:call-id|i)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
_LOOKED_AT = 4096
FLOOD = 10 * SECOND
"""A flood is over when nothing had to be refused for so long, in ns."""


class Gate:
    """Lets `rate` new calls a second pass, and twice as many at once. `known(call_id)` tells the calls in progress."""

    def __init__(self, rate: int, known: Callable[[str], bool]) -> None:
        self.rate = rate
        self.refused = 0
        self.last_refused = -FLOOD
        self._known = known
        self._tokens = 2.0 * rate
        self._filled = 0

    def admits(self, data: bytes, time: int) -> bool:
        """Tell whether a datagram (at `time`, ns) may be read. Only INVITEs of unknown calls are ever refused."""
        if data[:7] != b"INVITE ":
            return True
        found = _CALL_ID.search(data, 0, _LOOKED_AT)
        if found is not None and self._known(decode(found[1].strip())):
            return True
        if time > self._filled:
            self._tokens = min(self._tokens + (time - self._filled) * self.rate / SECOND, 2.0 * self.rate)
            self._filled = time
        if self._tokens < 1:
            self.refused += 1
            self.last_refused = time
            return False
        self._tokens -= 1
        return True

    def flooded(self, now: int) -> bool:
        """Tell whether there is a flood at `now` (ns)."""
        return now - self.last_refused < FLOOD
