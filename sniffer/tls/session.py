"""One TLS connection: both directions' records opened as far as the secrets go. Pure.

Records for which no secret is known yet wait, each direction for itself; what is given up is counted, and the record
numbers go on, so that a secret that comes later still opens what follows. Which key is in use the records say
themselves: one is right if it authenticates them. So nothing depends on having seen the moment of a change.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from . import records
from .ciphers import KEPT_END, Aead13, Cipher, Sealed, writers
from .derive import master_secret, prf_hash, updated
from .hello import RETRY, Hello, client_hello, server_hello
from .records import Cutter, Messages, Record
from .secrets import CLIENT_RANDOM, EARLY, HANDSHAKE, PREMASTER, RSA, TRAFFIC, Secrets
from .suites import SUITES, TLS13, CipherSuite

CLIENT, SERVER = 0, 1
LOOK = 128
"""Records that may be missing where bytes are: so many numbers are tried."""
MAX_LOOK = 1024
TRIES = 200_000
"""Numbers that are tried beyond the first, for a connection as a whole: damage must not cost without end."""
MAX_SAID = 1 << 16
"""Bytes of a handshake that are kept for a master secret that depends on them."""
_KEY_EXCHANGE, _NEW_TICKET, _HELLO_DONE = 16, 4, 14


@dataclass(frozen=True, slots=True)
class Plain:
    """What one party said: at `time` (ns); `gap`: something before it is missing."""

    side: int
    time: int
    data: bytes = field(repr=False)
    gap: bool


@dataclass(slots=True)
class Earlier:
    """Master secrets by session and ticket: connections that take up an earlier one (RFC 5246, 5077). Bounded."""

    limit: int = 4096
    _known: OrderedDict[bytes, bytes] = field(default_factory=OrderedDict, repr=False)

    def keep(self, name: bytes, master: bytes) -> None:
        """Remember a session or ticket."""
        if name:
            self._known[name] = master
            if len(self._known) > self.limit:
                self._known.popitem(last=False)

    def get(self, name: bytes) -> bytes | None:
        """Return a master secret."""
        return self._known.get(name) if name else None


@dataclass(frozen=True, slots=True)
class _Agreed:
    """What the two hellos agreed on, up to TLS 1.2."""

    client: Hello
    server: Hello
    suite: CipherSuite


@dataclass(frozen=True, slots=True)
class _Epoch:
    """A key of TLS 1.3: the `label` of its secret, empty for what a KeyUpdate made; no cipher: not told yet."""

    label: str
    cipher: Cipher | None = None
    secret: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class _Side:
    """One direction: records that wait, and where its numbers stand."""

    cutter: Cutter = field(default_factory=Cutter)
    messages: Messages = field(default_factory=Messages)
    queue: deque[tuple[int, Record]] = field(default_factory=deque, repr=False)
    size: int = 0
    begun: bool = False
    sealed: bool = False
    agreed: _Agreed | None = None
    cipher: Cipher | None = None
    number: int = 0
    slack: int = 0
    before: bytes = field(default=b"", repr=False)
    gap: bool = False
    epochs: list["_Epoch"] = field(default_factory=list, repr=False)

    def loosen(self, count: int) -> None:
        """So many records may have been missed."""
        self.slack = min(self.slack + count, MAX_LOOK)
        self.gap = True

    def switch(self, agreed: _Agreed | None) -> None:
        """From here on the records are sealed with other keys (ChangeCipherSpec)."""
        self.sealed, self.agreed, self.cipher = True, agreed, None
        self.number, self.slack, self.before = 0, 0, b""


@dataclass(slots=True)
class Session:
    """Feed it what the parties send; it gives back what they say. `failed` counts records that no key opens, `unread`
    those given up because no key was known, `holes` places where records are missing.
    """

    secrets: Secrets
    earlier: Earlier
    sides: tuple[_Side, _Side] = field(default_factory=lambda: (_Side(), _Side()))
    failed: int = 0
    unread: int = 0
    holes: int = 0
    opened: int = 0
    unreadable: str = ""
    """Why none of it can be read, whatever the keys, in words; empty if that is not so."""
    _client: Hello | None = None
    _server: Hello | None = None
    _said: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()), repr=False)
    _complete: bool = False
    _premaster: bytes = field(default=b"", repr=False)
    _ticket: bytes = b""
    _masters: dict[bytes, bytes] = field(default_factory=dict, repr=False)
    _asked: tuple[int, bytes] = (-1, b"")
    _tries: int = TRIES

    # -- the caller's side ---------------------------------------------------------------------------------------------

    def feed(self, side: int, data: bytes, gap: bool, time: int) -> list[Plain]:
        """Take bytes of one direction, in order; return what can be read now, also of what waited."""
        own = self.sides[side]
        if gap and (own.begun or data[:1] != b"\x16"):
            self.holes += 1
            own.cutter.reset()
        own.begun = True
        for record in own.cutter.feed(data):
            own.queue.append((time, record))
            own.size += len(record.body)
        return self.catch_up()

    def catch_up(self) -> list[Plain]:
        """Read what waits as far as it can be read."""
        found: list[Plain] = []
        before = -1
        while before != self.waiting_records:
            before = self.waiting_records
            for side in (CLIENT, SERVER):
                found += self._drain(side)
        found.sort(key=lambda plain: plain.time)
        return found

    @property
    def waiting_records(self) -> int:
        """Records that wait for a secret."""
        return sum(len(side.queue) for side in self.sides)

    @property
    def waiting(self) -> int:
        """Bytes that wait."""
        return sum(side.size for side in self.sides)

    @property
    def since(self) -> int | None:
        """Since when something waits (ns), None if nothing does."""
        return min((side.queue[0][0] for side in self.sides if side.queue), default=None)

    @property
    def established(self) -> bool:
        """Whether either party sends sealed records."""
        return any(side.sealed for side in self.sides)

    def give_up(self) -> None:
        """Let go of what waits; later records can still be read if a secret comes."""
        for side in self.sides:
            if side.queue:
                side.loosen(len(side.queue))
                self.unread += len(side.queue)
                side.before = side.queue[-1][1].body[-KEPT_END:]
                side.queue.clear()
                side.size = 0

    # -- records -------------------------------------------------------------------------------------------------------

    def _drain(self, number: int) -> Iterator[Plain]:
        side = self.sides[number]
        while side.queue:
            time, record = side.queue[0]
            if record.gap:
                side.loosen(LOOK)
                side.messages.reset()
                record = replace(record, gap=False)
                side.queue[0] = time, record
            plain = self._take(number, record)
            if plain is None:
                return
            side.queue.popleft()
            side.size -= len(record.body)
            if plain:
                gap, side.gap = side.gap, False
                yield Plain(number, time, plain, gap)

    def _take(self, number: int, record: Record) -> bytes | None:
        """Return what a record says to the other party, perhaps nothing; None if it has to wait."""
        side = self.sides[number]
        if self._is_13:
            return self._sealed13(number, record) if record.kind == records.APPLICATION else self._open(number, record)
        if record.kind == records.CHANGE_CIPHER_SPEC:
            if self._server is not None:  # before it, TLS 1.3 says so to be taken for TLS 1.2
                side.switch(self._agreed())
            return b""
        if not side.sealed and record.kind == records.HANDSHAKE and side.gap and not _plain_handshake(record.body):
            side.switch(self._agreed())
            side.loosen(LOOK)
        if not side.sealed and record.kind == records.APPLICATION:
            if self._server is None and self._client is not None and self._client.early:
                return None  # what comes before the ServerHello of TLS 1.3
            side.switch(self._agreed())
            side.loosen(LOOK)
        return self._sealed12(number, record) if side.sealed else self._open(number, record)

    def _open(self, number: int, record: Record) -> bytes:
        """Read a record that is in the clear."""
        if record.kind == records.HANDSHAKE:
            self._handshake(number, record.body, clear=True)
        return b""

    def _handshake(self, number: int, data: bytes, clear: bool) -> None:
        for message in self.sides[number].messages.feed(data):
            self._message(number, message, clear)

    def _content(self, number: int, kind: int, data: bytes) -> bytes:
        if kind == records.HANDSHAKE:
            self._handshake(number, data, clear=False)
        return data if kind == records.APPLICATION else b""

    # -- the handshake -------------------------------------------------------------------------------------------------

    def _message(self, number: int, message: bytes, clear: bool) -> None:
        kind, body = message[0], message[4:]
        if kind == records.CLIENT_HELLO and number == CLIENT:
            hello = client_hello(body)
            if hello is not None and (clear or not self._is_13):
                self._client, self._server = hello, None
                self._complete, self._premaster, self._ticket = False, b"", b""
                for said in self._said:
                    said.clear()
        elif kind == records.SERVER_HELLO and number == SERVER:
            self._hear_server(server_hello(body), clear)
        elif kind == _KEY_EXCHANGE and number == CLIENT and not self._is_13:
            self._say(number, message)
            self._premaster, self._complete = body, True
            return
        elif kind == _NEW_TICKET and number == SERVER and not self._is_13:
            self._ticket = body[6 : 6 + int.from_bytes(body[4:6], "big")]
            if self._client is not None and self._client.random in self._masters:
                self.earlier.keep(self._ticket, self._masters[self._client.random])
        self._say(number, message)

    def _hear_server(self, hello: Hello | None, clear: bool) -> None:
        if hello is None or hello.random == RETRY or self._is_13:
            return
        self._server = hello
        if hello.suite not in SUITES:
            self.unreadable = f"cipher suite 0x{hello.suite:04x}"
        elif hello.compressed:
            self.unreadable = "compression"
        else:
            self.unreadable = ""

    def _say(self, number: int, message: bytes) -> None:
        """Keep what is said in a handshake up to the key exchange."""
        said = self._said[number]
        if not self._complete and not self._is_13 and len(said) + len(message) <= MAX_SAID:
            said += message

    @property
    def _is_13(self) -> bool:
        return self._server is not None and self._server.version == TLS13

    def _agreed(self) -> _Agreed | None:
        client, server = self._client, self._server
        if client is None or server is None or self.unreadable:
            return None
        return _Agreed(client, server, SUITES[server.suite])

    # -- TLS 1.2 and before --------------------------------------------------------------------------------------------

    def _sealed12(self, number: int, record: Record) -> bytes | None:
        side = self.sides[number]
        if side.agreed is None:
            return self._pass_over(side)
        if side.cipher is None:
            master = self._master(side.agreed)
            if master is None:
                return None
            agreed = side.agreed
            randoms = agreed.server.random + agreed.client.random
            both = writers(agreed.suite, agreed.server.version, master, randoms, agreed.server.mac_last)
            side.cipher = both[number]
        sealed = Sealed(record.kind, record.version, record.body, side.before)
        side.before = record.body[-KEPT_END:]
        found = side.cipher.open(sealed, self._numbers(side.number, side.slack))
        if found is None:
            self._fail(side)
            return b""
        side.number, side.slack = found.number + 1, 0
        self.opened += 1
        return self._content(number, found.kind, found.data)

    def _master(self, agreed: _Agreed) -> bytes | None:
        """Return the master secret of a session, if it is known by now."""
        random = agreed.client.random
        found = self._masters.get(random)
        state = self.secrets.revision, random + self._premaster[:8]
        if found is not None or self._asked == state:
            return found
        self._asked = state
        found = self.secrets.get(CLIENT_RANDOM, random) or self._from_premaster(agreed) or self._resumed(agreed)
        if found is not None:
            self._masters = {random: found}
            self.earlier.keep(agreed.server.session, found)
            self.earlier.keep(self._ticket, found)
        return found

    def _resumed(self, agreed: _Agreed) -> bytes | None:
        client, server = agreed.client, agreed.server
        if self._complete:
            return None
        return self.earlier.get(client.ticket) or (
            self.earlier.get(server.session) if server.session == client.session else None
        )

    def _from_premaster(self, agreed: _Agreed) -> bytes | None:
        """Make the master secret of a premaster secret: told, or decrypted with the server's key."""
        if agreed.client is not self._client or not self._complete:
            return None
        name = prf_hash(agreed.server.version, agreed.suite.hash)
        randoms = agreed.client.random + agreed.server.random
        session = self._transcript() if agreed.client.extended and agreed.server.extended else None
        told = self.secrets.get(PREMASTER, agreed.client.random)
        if told is None and agreed.suite.rsa:
            cipher = self._premaster[2:]
            told = self.secrets.get(RSA, cipher[:8]) or self._decrypted(cipher)
        return None if told is None else master_secret(name, told, randoms, session)

    def _decrypted(self, cipher: bytes) -> bytes | None:
        """Ask the servers' keys: the right one gives 48 bytes that begin with a version (RFC 5246 section 7.4.7.1)."""
        for decrypt in self.secrets.servers:
            found = decrypt(cipher)
            if found is not None and len(found) == 48 and found[0] == 3 and found[1] <= 4:
                return found
        return None

    def _transcript(self) -> bytes:
        """Return the handshake up to the key exchange in the order in which it is hashed (RFC 7627 section 3): the
        client's first message, all of the server's, the client's others.
        """
        client, server = (bytes(said) for said in self._said)
        first = 4 + int.from_bytes(client[1:4], "big")
        return client[:first] + _until_done(server) + client[first:]

    # -- TLS 1.3 -------------------------------------------------------------------------------------------------------

    def _sealed13(self, number: int, record: Record) -> bytes | None:
        side, agreed = self.sides[number], self._agreed()
        side.sealed = True
        if agreed is None:
            return self._pass_over(side)
        self._learn(number, agreed)
        sealed = Sealed(record.kind, record.version, record.body)
        for at, epoch in enumerate(side.epochs):
            numbers = self._numbers(0 if at else side.number, side.slack)
            found = epoch.cipher.open(sealed, numbers) if epoch.cipher is not None else None
            if found is not None:
                del side.epochs[:at]
                side.number, side.slack = found.number + 1, 0
                self.opened += 1
                return self._content(number, found.kind, found.data)
        if any(epoch.cipher is None and epoch.label == TRAFFIC[number] for epoch in side.epochs):
            return None
        if any(epoch.cipher is None for epoch in side.epochs):  # of the handshake, whose secret was not told
            side.loosen(1)
        else:
            self._fail(side)
        return b""

    def _learn(self, number: int, agreed: _Agreed) -> None:
        """Look for the secrets of a direction. The one that a KeyUpdate would bring (RFC 8446 section 7.2) is always
        ready behind the last.
        """
        side = self.sides[number]
        if not side.epochs:
            early = (EARLY,) if number == CLIENT and agreed.client.early else ()
            side.epochs = [_Epoch(label) for label in (*early, HANDSHAKE[number], TRAFFIC[number])]
        for at, epoch in enumerate(side.epochs):
            if epoch.cipher is None:
                secret = self.secrets.get(epoch.label, agreed.client.random)
                if secret is not None:
                    side.epochs[at] = _Epoch(epoch.label, Aead13(agreed.suite, secret), secret)
        last = side.epochs[-1]
        if last.cipher is not None and (last.label or len(side.epochs) == 1):
            fresh = updated(agreed.suite.hash, last.secret)
            side.epochs.append(_Epoch("", Aead13(agreed.suite, fresh), fresh))

    # -- what cannot be read -------------------------------------------------------------------------------------------

    def _numbers(self, first: int, slack: int) -> range:
        """Return the numbers that a record may have."""
        if slack and self._tries <= 0:
            slack = 0
        self._tries -= slack
        return range(first, first + slack + 1)

    def _pass_over(self, side: _Side) -> bytes:
        """A record that nobody can ever read."""
        self.unread += 1
        side.gap = True
        return b""

    def _fail(self, side: _Side) -> None:
        self.failed += 1
        side.loosen(1)


def _plain_handshake(body: bytes) -> bool:
    """Tell whether a record of the handshake is in the clear: it begins with a message, or is a part of a long one."""
    return len(body) >= 4 and body[0] <= 24 and int.from_bytes(body[1:4], "big") <= records.MAX_MESSAGE


def _until_done(server: bytes) -> bytes:
    """Return the server's messages up to ServerHelloDone: what follows is behind the key exchange."""
    place = 0
    while place + 4 <= len(server):
        end = place + 4 + int.from_bytes(server[place + 1 : place + 4], "big")
        if server[place] == _HELLO_DONE:
            return server[:end]
        place = end
    return server
