"""One TLS connection: both directions' records opened as far as the secrets go. Pure.

Records for which no secret is known yet wait, each direction for itself; what is given up is counted, and the record
numbers go on, so that a secret that comes later still opens what follows. Which key is in use the records say
themselves: one is right if it authenticates them. So nothing depends on having seen the moment of a change.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from . import records
from .ciphers import KEPT_END, Aead13, Cipher, Sealed, writers
from .derive import updated
from .handshake import CLIENT, SERVER, Agreed, Earlier, Handshake
from .records import Cutter, Messages, Record
from .secrets import EARLY, HANDSHAKE, TRAFFIC, Secrets
from .suites import HASH_SIZES, SUITES, SUITES_13, CipherSuite

LOOK = 128
"""Records that may be missing where bytes are: so many numbers are tried."""
MAX_LOOK = 1024
TRIES = 200_000
"""Numbers that are tried beyond the first, for a connection as a whole: damage must not cost without end."""


@dataclass(frozen=True, slots=True)
class Plain:
    """What one party said: at `time` (ns); `gap`: something before it is missing."""

    side: int
    time: int
    data: bytes = field(repr=False)
    gap: bool


@dataclass(frozen=True, slots=True)
class Epoch:
    """A key of TLS 1.3: the `label` of its secret, empty for what a KeyUpdate made; no cipher: not told yet."""

    label: str
    cipher: Cipher | None = None
    secret: bytes = field(default=b"", repr=False)
    updates: int = 0

    def told(self, secret: bytes, suite: CipherSuite) -> "Epoch":
        """Return it with the secret that its label was told to have, `updates` changes of key later."""
        for _ in range(self.updates):
            secret = updated(suite.hash, secret)
        return replace(self, cipher=Aead13(suite, secret), secret=secret)


@dataclass(slots=True)
class Side:
    """One direction: records that wait, and where its numbers stand."""

    cutter: Cutter = field(default_factory=Cutter)
    messages: Messages = field(default_factory=Messages)
    queue: deque[tuple[int, Record]] = field(default_factory=deque, repr=False)
    size: int = 0
    begun: bool = False
    sealed: bool = False
    agreed: Agreed | None = None
    cipher: Cipher | None = None
    number: int = 0
    slack: int = 0
    before: bytes = field(default=b"", repr=False)
    gap: bool = False
    epochs: list["Epoch"] = field(default_factory=list, repr=False)

    def loosen(self, count: int) -> None:
        """So many records may have been missed."""
        self.slack = min(self.slack + count, MAX_LOOK)
        self.gap = True

    def switch(self, agreed: Agreed | None) -> None:
        """From here on the records are sealed with other keys (ChangeCipherSpec)."""
        self.sealed, self.agreed, self.cipher = True, agreed, None
        self.number, self.slack, self.before = 0, 0, b""


@dataclass(slots=True)
class Session:
    """Feed it what the parties send; it gives back what they say. `failed` counts records that no key opens, `unread`
    those given up because no key was known, `holes` places where records are missing.
    """

    handshake: Handshake
    sides: tuple[Side, Side] = field(default_factory=lambda: (Side(), Side()))
    failed: int = 0
    unread: int = 0
    holes: int = 0
    opened: int = 0
    _tries: int = TRIES

    @classmethod
    def of(cls, secrets: Secrets, earlier: Earlier) -> "Session":
        """Return a session that begins."""
        return cls(Handshake(secrets, earlier))

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
        """Bytes that wait, for a secret or for the rest of a record or message."""
        parts = sum(side.size + side.cutter.waiting + side.messages.waiting for side in self.sides)
        return parts + self.handshake.waiting

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
        if self.handshake.is_13:
            if record.kind == records.APPLICATION:
                return self._sealed13(number, record)
            both = all(one.sealed for one in self.sides)  # whoever says something in the clear now is somebody else
            return b"" if both else self._open(number, record)
        if record.kind == records.CHANGE_CIPHER_SPEC:
            if self.handshake.server is not None:  # before it, TLS 1.3 says so to be taken for TLS 1.2
                side.switch(self.handshake.agreed())
            return b""
        if not side.sealed and record.kind == records.HANDSHAKE and side.gap and not _plain_handshake(record.body):
            side.switch(self.handshake.agreed())
            side.loosen(LOOK)
        if not side.sealed and record.kind == records.APPLICATION:
            if self.handshake.begun_early:
                return None
            if self._guess(number, record):
                return self._sealed13(number, record)
            side.switch(self.handshake.agreed())
            side.loosen(LOOK)
        return self._sealed12(number, record) if side.sealed else self._open(number, record)

    def _open(self, number: int, record: Record) -> bytes:
        """Read a record that is in the clear."""
        if record.kind == records.HANDSHAKE:
            self._handshake(number, record.body, clear=True)
        return b""

    def _handshake(self, number: int, data: bytes, clear: bool) -> None:
        for message in self.sides[number].messages.feed(data):
            self.handshake.hear(number, message, clear)

    def _content(self, number: int, kind: int, data: bytes) -> bytes:
        if kind == records.HANDSHAKE:
            self._handshake(number, data, clear=False)
        return data if kind == records.APPLICATION else b""

    # -- TLS 1.2 and before --------------------------------------------------------------------------------------------

    def _sealed12(self, number: int, record: Record) -> bytes | None:
        side = self.sides[number]
        side.agreed = side.agreed or self.handshake.agreed()
        if side.agreed is None:
            return self._sealed13(number, record) if self._guess(number, record) else self._pass_over(side)
        if side.cipher is None:
            master = self.handshake.master(side.agreed)
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

    # -- TLS 1.3 -------------------------------------------------------------------------------------------------------

    def _sealed13(self, number: int, record: Record) -> bytes | None:
        side, agreed = self.sides[number], self.handshake.agreed()
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

    def _learn(self, number: int, agreed: Agreed) -> None:
        """Look for the secrets of a direction. The one that a KeyUpdate would bring (RFC 8446 section 7.2) is always
        ready behind the last.
        """
        side = self.sides[number]
        if not side.epochs:
            early = (EARLY,) if number == CLIENT and agreed.client.early else ()
            side.epochs = [Epoch(label) for label in (*early, HANDSHAKE[number], TRAFFIC[number])]
        for at, epoch in enumerate(side.epochs):
            if epoch.cipher is None:
                secret = self.handshake.secrets.get(epoch.label, agreed.client.random)
                if secret is not None:
                    side.epochs[at] = epoch.told(secret, agreed.suite)
        last = side.epochs[-1]
        if last.cipher is not None and (last.label or len(side.epochs) == 1):
            fresh = updated(agreed.suite.hash, last.secret)
            side.epochs.append(Epoch("", Aead13(agreed.suite, fresh), fresh, last.updates + 1))

    def _guess(self, number: int, record: Record) -> bool:
        """The server's hello is missing: if the secrets of TLS 1.3 open a record, this is what it was about, and the
        suite is the one that does it.
        """
        client, side = self.handshake.client, self.sides[number]
        if client is None or self.handshake.server is not None:
            return False
        sealed = Sealed(record.kind, record.version, record.body)
        for label in (HANDSHAKE[number], TRAFFIC[number]):
            secret = self.handshake.secrets.get(label, client.random)
            for suite in SUITES_13 if secret is not None else ():
                fits = secret is not None and HASH_SIZES[SUITES[suite].hash] == len(secret)
                if fits and Aead13(SUITES[suite], secret or b"").open(sealed, self._numbers(0, side.slack)):
                    self.handshake.assume(suite)
                    return True
        return False

    # -- what cannot be read -------------------------------------------------------------------------------------------

    def _numbers(self, first: int, slack: int) -> range:
        """Return the numbers that a record may have."""
        if slack and self._tries <= 0:
            slack = 0
        self._tries -= slack
        return range(first, first + slack + 1)

    def _pass_over(self, side: Side) -> bytes:
        """A record that nobody can read."""
        self.unread += 1
        side.loosen(1)
        return b""

    def _fail(self, side: Side) -> None:
        self.failed += 1
        side.loosen(1)


def _plain_handshake(body: bytes) -> bool:
    """Tell whether a record of the handshake is in the clear: it begins with a message, or is a part of a long one."""
    return len(body) >= 4 and body[0] <= 24 and int.from_bytes(body[1:4], "big") <= records.MAX_MESSAGE
