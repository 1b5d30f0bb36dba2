"""Which key and which rollover counter open the packets of an SRTP stream, when nobody says so. Pure.

A listener knows the keys that the parties told each other, not which of them is in use when; and it may come to a call
whose sequence numbers have wrapped before. So it asks the packets: a key and a rollover counter are right if the
authentication tag is. What has been found holds for all that follows (RFC 3711 section 3.3.1) until packets fail.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .srtp import Ints, Master, Opened, Packets, Session
from .timeline import steps

MAX_COUNTER = 256
"""Rollover counters that are tried: with 50 packets a second, calls that are under way for four days."""
PROBES = 32
"""Packets of which one must open, or nothing is known of the key."""
DEEP_PROBES = 2
"""Of these so many are tried with all rollover counters."""
MAX_LOCKS = 64
KEPT_LOCKS = 4


@dataclass(slots=True)
class Tries:
    """How many guesses are left: a call of many streams and keys must not cost without end."""

    left: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Lock:
    """A key, and what is to be added to a stream's own count of wraps."""

    session: Session
    wraps: int


@dataclass(slots=True)
class Opener:
    """Opens the packets of one stream, batch after batch. `masters` are the keys it may have been made with, the
    likeliest first.
    """

    masters: Iterable[Master]
    tries: Tries = field(default_factory=Tries)
    used: list[Master] = field(init=False, default_factory=list)
    """The keys that opened something, in the order of first use."""
    _sessions: list[Session] = field(init=False)
    _locks: list[Lock] = field(init=False, default_factory=list)
    _last: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._sessions = [Session(master) for master in self.masters]

    def open(self, packets: Packets) -> list[Opened]:
        """Open what can be authenticated of a batch in order of arrival. No row is opened twice."""
        number = self._unwrapped(packets.sequence)
        left = np.arange(len(packets))
        opened: list[Opened] = []
        for lock in list(self._locks):
            left = self._apply(lock, packets, number, left, opened)
        for _ in range(MAX_LOCKS):
            before = len(left)
            left = self._search(packets, number, left, opened)
            if len(left) in (0, before):
                break
        return opened

    def _unwrapped(self, sequence: Ints) -> Ints:
        """Return the sequence numbers without wraps, the stream's first wrap being number 0."""
        if len(sequence) == 0:
            return sequence
        first = int(sequence[0]) if self._last is None else self._last
        step = steps(np.concatenate(([first & 0xFFFF], sequence)).astype(np.uint16), 16)
        number: Ints = first + np.cumsum(step)
        self._last = int(number[-1])
        return number

    def _apply(self, lock: Lock, packets: Packets, number: Ints, left: Ints, opened: list[Opened]) -> Ints:
        """Open with a lock what it opens; return the rows that are left."""
        if len(left) == 0:
            return left
        found = lock.session.open(packets.take(left), number[left] + (lock.wraps << 16))
        if len(found.rows) == 0:
            return left
        self._locks = [lock, *(other for other in self._locks if other is not lock)][:KEPT_LOCKS]
        if lock.session.master not in self.used:
            self.used.append(lock.session.master)
        rest = np.ones(len(left), dtype=bool)
        rest[found.rows] = False
        opened.append(Opened(left[found.rows], found.data, found.place, found.size))
        return left[rest]

    def _search(self, packets: Packets, number: Ints, left: Ints, opened: list[Opened]) -> Ints:
        """Look for a lock that opens some of the rows that are left, and open them."""
        for row, session, counters in self._guesses(number, left):
            self.tries.left -= len(counters)
            if self.tries.left < 0:
                break
            counter = session.finds(packets, row, counters)
            if counter is None:
                continue
            lock = Lock(session, counter - int(number[row] >> 16))
            if len(counters) == MAX_COUNTER and len(left) > 1 and not self._confirmed(lock, packets, number, left):
                continue
            return self._apply(lock, packets, number, left, opened)
        return left

    def _confirmed(self, lock: Lock, packets: Packets, number: Ints, left: Ints) -> bool:
        """Whether a find among many guesses is no accident, which a tag of 32 bits makes possible: two packets open."""
        if lock.session.master.suite.tag > 4:
            return True
        return len(lock.session.open(packets.take(left), number[left] + (lock.wraps << 16)).rows) > 1

    def _guesses(self, number: Ints, left: Ints) -> Iterator[tuple[int, Session, range]]:
        """Yield what to try, the likeliest first: a packet, a key, and rollover counters."""
        if len(left) == 0:
            return
        spread = np.linspace(0, len(left) - 1, min(PROBES, len(left))).astype(np.int64)
        probes = left[np.unique(spread)].tolist()
        for row in probes:
            wraps = int(number[row] >> 16) + self._locks[0].wraps if self._locks else 0
            near = range(max(wraps - 1, 0), max(wraps, 0) + 2)
            for session in self._sessions:
                yield row, session, near
        for row in probes[:DEEP_PROBES]:
            for session in self._sessions:
                yield row, session, range(MAX_COUNTER)
