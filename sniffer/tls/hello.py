"""What ClientHello and ServerHello say (RFC 5246 section 7.4.1, RFC 8446 section 4.1), of TLS and of DTLS.

Tolerant: what breaks off in the middle says what it has said so far; None only where there is no random.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from .suites import TLS13

RANDOM = 32
_USE_SRTP, _ETM, _EMS, _TICKET, _EARLY_DATA, _VERSIONS = 14, 22, 23, 35, 42, 43
MAX_EXTENSIONS = 64
MAX_PROFILES = 16
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random of a ServerHello that asks for another ClientHello (RFC 8446 section 4.1.3)."""
DTLS13 = 0xFEFC


@dataclass(frozen=True, slots=True)
class Hello:
    """One party's hello. Of a server's, `version` and `suite` are those in use (0: not said); `profiles` are the SRTP
    protection profiles that are offered or taken (RFC 5764), with `mki`; `extended`: the master secret is bound to the
    handshake (RFC 7627); `mac_last`: encrypt-then-MAC (RFC 7366).
    """

    random: bytes
    version: int
    session: bytes = b""
    suite: int = 0
    compressed: bool = False
    extended: bool = False
    mac_last: bool = False
    early: bool = False
    ticket: bytes = b""
    profiles: tuple[int, ...] = ()
    mki: bytes = b""
    raw: bytes = field(default=b"", repr=False, compare=False)
    """The message as it came, without its head."""

    @property
    def is_13(self) -> bool:
        """Whether TLS or DTLS 1.3 is in use (of a server's hello)."""
        return self.version in (TLS13, DTLS13)


def client_hello(body: bytes, datagram: bool = False) -> Hello | None:
    """Read a ClientHello without its head. `datagram`: of DTLS, which has a cookie (RFC 6347 section 4.2.1)."""
    read = _Reader(body)
    version, random, session = read.number(2), read.take(RANDOM), read.vector(1)
    if len(random) < RANDOM:
        return None
    if datagram:
        read.vector(1)
    read.vector(2)
    read.vector(1)
    return _with_extensions(Hello(random, version, session, raw=body), read, server=False)


def server_hello(body: bytes) -> Hello | None:
    """Read a ServerHello without its head."""
    read = _Reader(body)
    version, random, session = read.number(2), read.take(RANDOM), read.vector(1)
    if len(random) < RANDOM:
        return None
    suite, compression = read.number(2), read.number(1)
    hello = Hello(random, version, session, suite, compression != 0, raw=body)
    return _with_extensions(hello, read, server=True)


def _with_extensions(hello: Hello, read: "_Reader", server: bool) -> Hello:
    version, ticket, mki = hello.version, b"", b""
    profiles: tuple[int, ...] = ()
    seen: set[int] = set()
    for kind, value in _extensions(read.vector(2)):
        seen.add(kind)
        if kind == _VERSIONS and server and len(value) == 2:
            version = int.from_bytes(value, "big")
        elif kind == _TICKET:
            ticket = value
        elif kind == _USE_SRTP:
            profiles, mki = _use_srtp(value)
    return Hello(
        random=hello.random,
        version=version,
        session=hello.session,
        suite=hello.suite,
        compressed=hello.compressed,
        extended=_EMS in seen,
        mac_last=_ETM in seen,
        early=_EARLY_DATA in seen,
        ticket=ticket,
        profiles=profiles,
        mki=mki,
        raw=hello.raw,
    )


def _extensions(data: bytes) -> Iterator[tuple[int, bytes]]:
    read = _Reader(data)
    for _ in range(MAX_EXTENSIONS):
        if read.left < 4:
            return
        kind = read.number(2)
        yield kind, read.vector(2)


def _use_srtp(value: bytes) -> tuple[tuple[int, ...], bytes]:
    """Read SRTP protection profiles and the key identifier (RFC 5764 section 4.1.1)."""
    read = _Reader(value)
    listed = _Reader(read.vector(2)[: 2 * MAX_PROFILES])
    profiles = []
    while listed.left >= 2:
        profiles.append(listed.number(2))
    return tuple(profiles), read.vector(1)


class _Reader:
    """Takes fields off the front of bytes; behind their end there is nothing, and zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at = min(self._at + count, len(self._data))
        return taken

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def vector(self, count: int) -> bytes:
        """A vector whose length stands before it in `count` bytes."""
        return self.take(self.number(count))
