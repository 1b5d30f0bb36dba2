"""All TLS connections that may carry SIP: streams of TCP in, what was said in them out. Pure, and bounded.

On the ports of SIP over TLS a connection is followed for as long as it lasts. On others it is followed until it shows
what it is: what cannot be read soon, or is read and is not SIP, is left alone from then on.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ..reassembly import Connection, Stretch
from .handshake import CLIENT, SERVER, Earlier
from .memory import recalled, remembered
from .records import begins_session
from .secrets import Secrets
from .session import Plain, Session

SECOND = 1_000_000_000
MAX_SESSIONS = 8192
MAX_STRANGERS = 1024
PATIENCE, SHORT_PATIENCE = 30 * SECOND, 10 * SECOND
"""How long records wait for their secret, in ns, on the ports of SIP and on others."""
MAX_WAITING, MAX_SHORT_WAITING = 1 << 18, 1 << 15
"""Bytes of a connection that wait, likewise."""
MAX_TOTAL = 1 << 25
MAX_BEGUN = 1000
"""Connections that may begin within a second; beyond it they are left alone: a flood of them must not cost without end.
"""
MAX_UNSURE = 1 << 14
"""Bytes that are read before a connection must have shown that it is one of SIP."""

IsOurs = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Said:
    """What one party said at `time` (ns)."""

    connection: Connection
    stretch: Stretch
    time: int


@dataclass(slots=True)
class _Kept:
    """A connection: `connection` is the client's direction. `ours`: SIP was heard in it; `on_port`: it should be.

    `former` is the one that was read before this one began on the same ports. Anyone may send a hello: until a record
    of the new one has been read, the former goes on as well.
    """

    connection: Connection
    session: Session
    on_port: bool
    ours: bool = False
    unsure: int = 0
    waiting: int = 0
    blind: bool = False
    former: "_Kept | None" = field(default=None, repr=False)
    counted: tuple[int, int, int] = (0, 0, 0)

    @property
    def stays(self) -> bool:
        return self.ours or self.on_port

    def feed(self, connection: Connection, stretch: Stretch, time: int) -> list[Plain]:
        """Take what comes next of a direction; return what could be read by it."""
        side = CLIENT if connection == self.connection else SERVER
        return self.session.feed(side, stretch.data, stretch.gap, time)


@dataclass(slots=True)
class TlsStreams:
    """Decrypts connections. `is_ours` tells whether something said may begin SIP; `ports` are those of SIP over TLS.

    `counts` says what could not be read, by kind, for people; `flows_changed`: other connections are followed now.
    """

    secrets: Secrets
    ports: frozenset[int]
    is_ours: IsOurs
    counts: Counter[str] = field(default_factory=Counter)
    flows_changed: bool = False
    _kept: OrderedDict[Connection, _Kept] = field(default_factory=OrderedDict, repr=False)
    _unproven: OrderedDict[Connection, _Kept] = field(default_factory=OrderedDict, repr=False)
    _strangers: OrderedDict[Connection, _Kept] = field(default_factory=OrderedDict, repr=False)
    _waiting: OrderedDict[Connection, _Kept] = field(default_factory=OrderedDict, repr=False)
    _total: int = 0
    _earlier: Earlier = field(default_factory=Earlier)
    _revision: int = -1
    _next_look: int = 0
    _second: int = 0
    _begun: int = 0

    def flows(self) -> Iterator[Connection]:
        """Yield the connections that are followed."""
        for table in (self._kept, self._unproven, self._strangers):
            yield from table

    def knows(self, connection: Connection) -> bool:
        """Tell whether this is a direction of a connection that is followed."""
        return self._find(connection) is not None

    def is_signalling(self, connection: Connection) -> bool:
        """Tell whether a connection that is followed carries SIP, or should."""
        kept = self._find(connection)
        return kept is not None and kept.stays

    def begins(self, stretch: Stretch) -> bool:
        """Tell whether a connection of TLS begins so, and is to be followed."""
        return bool(self.secrets) and begins_session(stretch.data)

    def take(self, connection: Connection, stretch: Stretch, time: int) -> Iterator[Said]:
        """Take what comes next of a direction; yield what could be read by it."""
        kept = self._find(connection)
        if begins_session(stretch.data) and (kept is None or kept.session.established):
            kept = self._begin(connection, time)
        if kept is None:
            return
        plains, former = kept.feed(connection, stretch, time), kept.former
        if former is not None and not kept.session.opened and not begins_session(stretch.data):
            known = former.feed(connection, stretch, time)
            if known:
                self._drop(kept)
                kept, plains = former, known
        self._touch(kept)
        yield from self._said(kept, plains)
        self._bound(kept, time)

    def catch_up(self, now: int) -> Iterator[Said]:
        """Read what waited, if secrets came since; give up what has waited for too long."""
        if self._waiting and self._revision != self.secrets.revision:
            for kept in list(self._waiting.values()):
                yield from self._said(kept, kept.session.catch_up())
        self._revision = self.secrets.revision
        if not 0 <= self._next_look - now <= SECOND:
            self._next_look = now + SECOND
            for kept in list(self._waiting.values()):
                self._bound(kept, now)

    def remember(self) -> list[dict[str, Any]]:
        """Return what another run has to know to go on with the connections that carry SIP: JSON, without secrets."""
        found = []
        for connection, kept in (*self._unproven.items(), *self._kept.items()):
            told = remembered(kept.session)
            if told is not None:
                found.append({"connection": list(connection), "ours": kept.ours, **told})
        return found

    def recall(self, told: Iterable[Mapping[str, Any]]) -> int:
        """Take connections that an earlier run has followed; return how many that are."""
        for one in islice(told, MAX_SESSIONS):
            session = recalled(one, self.secrets, self._earlier)
            match one.get("connection"):
                case [str(source), int(sport), str(target), int(port)] if session is not None:
                    connection = source, sport, target, port
                    self._kept[connection] = _Kept(connection, session, True, ours=one.get("ours") is True)
                    self.flows_changed = True
        return len(self._kept)

    def finish(self) -> None:
        """The input is over: what still waits is given up."""
        for kept in list(self._waiting.values()):
            self._give_up(kept)
        for kept in (*self._kept.values(), *self._unproven.values(), *self._strangers.values()):
            self._count(kept)

    # -- the table -----------------------------------------------------------------------------------------------------

    def _find(self, connection: Connection) -> _Kept | None:
        other = (connection[2], connection[3], connection[0], connection[1])
        for name in (connection, other):
            kept = self._kept.get(name) or self._unproven.get(name) or self._strangers.get(name)
            if kept is not None:
                return kept
        return None

    def _begin(self, connection: Connection, time: int) -> _Kept | None:
        if not 0 <= time - self._second < SECOND:
            self._second, self._begun = time, 0
        self._begun += 1
        if self._begun > MAX_BEGUN:
            self.counts["connections that are too many at once"] += 1
            return None
        before = self._find(connection)
        former = None
        if before is not None:
            self._drop(before)
            former, before.former = before if before.session.opened else before.former, None
        on_port = connection[1] in self.ports or connection[3] in self.ports
        kept = _Kept(connection, Session.of(self.secrets, self._earlier), on_port, former=former)
        kept.ours = former is not None and former.ours
        self._touch(kept)
        return kept

    def _touch(self, kept: _Kept) -> None:
        """Put a connection behind all others. Those of which something was read are not pushed out by others."""
        if kept.session.opened and kept.stays:
            kept.former = None
            table, limit = self._kept, MAX_SESSIONS
        else:
            table, limit = (self._unproven, MAX_SESSIONS) if kept.stays else (self._strangers, MAX_STRANGERS)
        if kept.connection not in table:
            self._remove(kept)
            if len(table) >= limit:
                self._drop(next(iter(table.values())))
            table[kept.connection] = kept
            self.flows_changed = True
        table.move_to_end(kept.connection)

    def _remove(self, kept: _Kept) -> None:
        for table in (self._kept, self._unproven, self._strangers):
            table.pop(kept.connection, None)

    def _drop(self, kept: _Kept) -> None:
        self._give_up(kept)
        self._count(kept)
        self._remove(kept)
        self._waiting.pop(kept.connection, None)
        self._total -= kept.waiting
        kept.waiting = 0
        self.flows_changed = True

    # -- what was said -------------------------------------------------------------------------------------------------

    def _said(self, kept: _Kept, plains: Iterable[Plain]) -> Iterator[Said]:
        other = (kept.connection[2], kept.connection[3], kept.connection[0], kept.connection[1])
        for plain in plains:
            if not kept.ours:
                self._judge(kept, plain.data)
            if kept.stays:
                stretch = Stretch(plain.data, plain.gap)
                yield Said(kept.connection if plain.side == CLIENT else other, stretch, plain.time)
        self._weigh(kept)

    def _judge(self, kept: _Kept, data: bytes) -> None:
        """Learn whether a connection carries SIP."""
        if self.is_ours(data):
            kept.ours = True
            self._touch(kept)
        else:
            kept.unsure += len(data.strip())

    def _weigh(self, kept: _Kept) -> None:
        """Note how much of a connection waits."""
        waiting = kept.session.waiting
        self._total += waiting - kept.waiting
        kept.waiting = waiting
        if waiting:
            self._waiting.setdefault(kept.connection, kept)
        else:
            self._waiting.pop(kept.connection, None)

    def _bound(self, kept: _Kept, now: int) -> None:
        """Give up what has waited for too long or is too much; leave a connection alone that is not of SIP."""
        since, stays = kept.session.since, kept.stays
        patience, most = (PATIENCE, MAX_WAITING) if stays else (SHORT_PATIENCE, MAX_SHORT_WAITING)
        late = since is not None and now - since > patience
        if late or kept.waiting > most:
            self._give_up(kept)
            if not stays:
                self._drop(kept)
        elif _is_other(kept):
            self._drop(kept)
        while self._total > MAX_TOTAL and self._waiting:
            oldest = next(iter(self._waiting.values()))
            if oldest.session.waiting_records:
                self._give_up(oldest)
            else:
                self._drop(oldest)

    def _give_up(self, kept: _Kept) -> None:
        if kept.session.waiting_records:
            kept.session.give_up()
        self._weigh(kept)
        self._count(kept)

    def _count(self, kept: _Kept) -> None:
        """Add up what could not be read of a connection that should carry SIP."""
        session = kept.session
        if not kept.stays:
            return
        now = session.unread, session.failed, session.holes
        kinds = "records without a key", "records that failed authentication", "holes"
        for kind, before, count in zip(kinds, kept.counted, now, strict=True):
            if count > before:
                self.counts[kind] += count - before
        kept.counted = now
        if session.handshake.unreadable and not kept.blind:
            kept.blind = True
            self.counts[f"connections with {session.handshake.unreadable}, which cannot be read"] += 1


def _is_other(kept: _Kept) -> bool:
    """Tell whether a connection has shown that it does not carry SIP, or never will show."""
    if kept.stays:
        return not kept.ours and kept.unsure > MAX_UNSURE
    return kept.unsure > 0 or bool(kept.session.handshake.unreadable)
