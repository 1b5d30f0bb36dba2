"""What the handshakes of a connection say, and the master secrets that follow: told, or made of a premaster secret."""

from collections import OrderedDict
from dataclasses import dataclass, field

from . import records
from .derive import master_secret, prf_hash, session_hash
from .hello import RETRY, Hello, client_hello, server_hello
from .secrets import CLIENT_RANDOM, PREMASTER, RSA, Secrets
from .suites import SUITES, TLS13, CipherSuite

CLIENT, SERVER = 0, 1
MAX_SAID = 1 << 15
"""Bytes of a handshake that are kept for a master secret that depends on them."""
_KEY_EXCHANGE, _NEW_TICKET, _HELLO_DONE = 16, 4, 14


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
class Agreed:
    """What the two hellos agreed on."""

    client: Hello
    server: Hello
    suite: CipherSuite


@dataclass(slots=True)
class Handshake:
    """The handshake of a connection, the last one if there were several. `unreadable` is why none of it can be read,
    whatever the keys, in words; empty if that is not so.
    """

    secrets: Secrets
    earlier: Earlier
    client: Hello | None = None
    server: Hello | None = None
    premaster: bytes = b""
    """The client's key exchange: of RSA the encrypted premaster secret, behind its length."""
    digest: bytes = b""
    """The hash of what was said up to there."""
    unreadable: str = ""
    _said: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()), repr=False)
    _complete: bool = False
    _ticket: bytes = b""
    _masters: dict[bytes, bytes] = field(default_factory=dict, repr=False)
    _asked: tuple[int, bytes] = (-1, b"")

    @property
    def is_13(self) -> bool:
        """Whether TLS 1.3 was agreed on."""
        return self.server is not None and self.server.version == TLS13

    @property
    def begun_early(self) -> bool:
        """Whether the client may speak before the server's hello (RFC 8446 section 2.3)."""
        return self.server is None and self.client is not None and self.client.early

    def agreed(self) -> Agreed | None:
        """Return what was agreed on, None if that is not known, or cannot be read."""
        if self.client is None or self.server is None or self.unreadable:
            return None
        return Agreed(self.client, self.server, SUITES[self.server.suite])

    def hear(self, side: int, message: bytes, clear: bool) -> None:
        """Take a message with its head; `clear`: it was not encrypted."""
        kind, body = message[0], message[4:]
        if kind == records.CLIENT_HELLO and side == CLIENT:
            self._begin(client_hello(body), clear)
        elif kind == records.SERVER_HELLO and side == SERVER:
            self._answer(server_hello(body))
        elif self.is_13:
            return
        elif kind == _KEY_EXCHANGE and side == CLIENT:
            self._say(side, message)
            self.premaster, self._complete = body, True
            self.digest = self._transcript()
            self._forget_words()
            return
        elif kind == _NEW_TICKET and side == SERVER:
            self._ticket = body[6 : 6 + int.from_bytes(body[4:6], "big")]
            if self.client is not None and self.client.random in self._masters:
                self.earlier.keep(self._ticket, self._masters[self.client.random])
        self._say(side, message)

    def assume(self, suite: int) -> None:
        """TLS 1.3 was agreed on, and this suite, though nobody has heard that."""
        self.server = Hello(b"", TLS13, suite=suite)

    def recall(self, client: Hello, server: Hello, premaster: bytes, digest: bytes) -> None:
        """Take what is remembered of a handshake."""
        self.client, self.premaster, self.digest = client, premaster, digest
        self._complete = bool(premaster)
        self._answer(server)

    @property
    def waiting(self) -> int:
        """Bytes that are kept until the key exchange is heard."""
        return sum(map(len, self._said))

    def _transcript(self) -> bytes:
        """Return the hash of the handshake up to the key exchange (RFC 7627 section 3): of the client's first message,
        all of the server's, the client's others.
        """
        agreed = self.agreed()
        if agreed is None:
            return b""
        client, server = (bytes(said) for said in self._said)
        first = 4 + int.from_bytes(client[1:4], "big")
        words = client[:first] + _until_done(server) + client[first:]
        return session_hash(prf_hash(agreed.server.version, agreed.suite.hash), words)

    def _begin(self, hello: Hello | None, clear: bool) -> None:
        if hello is None or (self.is_13 and not clear):
            return
        self.client, self.server = hello, None
        self._complete, self.premaster, self.digest, self._ticket = False, b"", b"", b""
        self._forget_words()

    def _answer(self, hello: Hello | None) -> None:
        if hello is None or hello.random == RETRY or self.is_13:
            return
        self.server = hello
        if hello.suite not in SUITES:
            self.unreadable = f"cipher suite 0x{hello.suite:04x}"
        else:
            self.unreadable = "compression" if hello.compressed else ""

    def _say(self, side: int, message: bytes) -> None:
        """Keep what is said up to the key exchange."""
        said = self._said[side]
        wanted = self.secrets.wants_words and not self._complete and not self.is_13
        if wanted and len(said) + len(message) <= MAX_SAID:
            said += message

    def _forget_words(self) -> None:
        for said in self._said:
            said.clear()

    # -- master secrets ------------------------------------------------------------------------------------------------

    def master(self, agreed: Agreed) -> bytes | None:
        """Return the master secret of a session up to TLS 1.2, if it is known by now."""
        random = agreed.client.random
        found = self._masters.get(random)
        state = self.secrets.revision, random + self.premaster[:10]
        if found is not None or self._asked == state:
            return found
        self._asked = state
        found = self.secrets.get(CLIENT_RANDOM, random) or self._from_premaster(agreed) or self._resumed(agreed)
        if found is not None:
            self._masters = {random: found}
            self.earlier.keep(agreed.server.session, found)
            self.earlier.keep(self._ticket, found)
        return found

    def _resumed(self, agreed: Agreed) -> bytes | None:
        """Return the master secret of the session that is taken up again."""
        client, server = agreed.client, agreed.server
        if self._complete:
            return None
        return self.earlier.get(client.ticket) or (
            self.earlier.get(server.session) if server.session == client.session else None
        )

    def _from_premaster(self, agreed: Agreed) -> bytes | None:
        """Make the master secret of a premaster secret: told, or decrypted with the server's key."""
        if agreed.client is not self.client or not self._complete:
            return None
        told = self.secrets.get(PREMASTER, agreed.client.random)
        if told is None and agreed.suite.rsa:
            cipher = self.premaster[2:]
            told = self.secrets.get(RSA, cipher[:8]) or self._decrypted(cipher)
        if told is None:
            return None
        name = prf_hash(agreed.server.version, agreed.suite.hash)
        extended = agreed.client.extended and agreed.server.extended
        session = self.digest if extended else None
        return master_secret(name, told, agreed.client.random + agreed.server.random, session)

    def _decrypted(self, cipher: bytes) -> bytes | None:
        """Ask the servers' keys: the right one gives 48 bytes that begin with a version (RFC 5246 section 7.4.7.1)."""
        for decrypt in self.secrets.servers:
            found = decrypt(cipher)
            if found is not None and len(found) == 48 and found[0] == 3 and found[1] <= 4:
                return found
        return None


def _until_done(server: bytes) -> bytes:
    """Return the server's messages up to ServerHelloDone: what follows is behind the key exchange."""
    place = 0
    while place + 4 <= len(server):
        end = place + 4 + int.from_bytes(server[place + 1 : place + 4], "big")
        if server[place] == _HELLO_DONE:
            return server[:end]
        place = end
    return server
