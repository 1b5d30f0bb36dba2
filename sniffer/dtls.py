"""DTLS-SRTP (RFC 5764): which sessions were agreed on between media endpoints, and the SRTP keys that follow from them.

Only the two hellos are looked at; they are in the clear. With the session's secret from a key log they give the keys
(RFC 5764 section 4.2). Pure, and bounded.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..rtp.srtp import SUITES as SRTP_SUITES
from ..rtp.srtp import Master
from .addresses import address_key
from .bindings import EndpointKey
from .datagrams import SlowPacket
from .tls.derive import exported, exported13
from .tls.hello import RETRY, Hello, client_hello, server_hello
from .tls.records import CLIENT_HELLO, HANDSHAKE, SERVER_HELLO
from .tls.secrets import CLIENT_RANDOM, EXPORTER, Secrets
from .tls.suites import SUITES

PROFILES = {
    1: "AES_CM_128_HMAC_SHA1_80",
    2: "AES_CM_128_HMAC_SHA1_32",
    7: "AEAD_AES_128_GCM",
    8: "AEAD_AES_256_GCM",
}
"""SRTP protection profiles (RFC 5764 section 4.1.2, RFC 7714 section 14.2) that packets can be read with."""
LABEL = b"EXTRACTOR-dtls_srtp"
DTLS10 = 0xFEFF
HOW = "DTLS"
MAX_TALKS = 8192
MAX_AGREEMENTS = 16
"""Of two endpoints; and of a call 256 at most are of use (`MAX_OF_CALL`)."""
MAX_OF_CALL = 256
MAX_HELLO = 1 << 14
MAX_PIECES = 32
_RECORD, _MESSAGE = 13, 12


@dataclass(frozen=True, slots=True)
class Agreement:
    """A DTLS session between two endpoints since `time` (ns). `packets` are the hellos as they came."""

    time: int
    client: EndpointKey
    server: EndpointKey
    asked: Hello
    taken: Hello
    packets: tuple[SlowPacket, ...] = ()

    @property
    def profiles(self) -> tuple[int, ...]:
        """The SRTP profiles that may be in use: the server's choice, or in DTLS 1.3, which hides it, all offered."""
        return self.taken.profiles or (self.asked.profiles if self.taken.is_13 else ())


@dataclass(slots=True)
class _Talk:
    """What was heard between two endpoints: the client's hello or its pieces, and what was agreed on."""

    client: EndpointKey | None = None
    hello: Hello | None = None
    said: list[SlowPacket] = field(default_factory=list)
    pieces: dict[int, bytes] = field(default_factory=dict)
    number: int = -1
    agreements: list[Agreement] = field(default_factory=list)


@dataclass(slots=True)
class Handshakes:
    """The DTLS sessions of all media endpoints: feed it the datagrams that hold hellos."""

    _talks: OrderedDict[tuple[EndpointKey, EndpointKey], _Talk] = field(default_factory=OrderedDict)

    def add(self, packet: SlowPacket) -> Agreement | None:
        """Take a datagram; return the session that was agreed on with it, if one was."""
        keys = address_key(packet.source), address_key(packet.destination)
        if keys[0] is None or keys[1] is None:
            return None
        source, destination = (keys[0], packet.source_port), (keys[1], packet.destination_port)
        found = None
        for kind, number, size, offset, data in _messages(packet.payload):
            if kind == CLIENT_HELLO:
                self._asked(source, destination, packet, (number, size, offset, data))
            elif kind == SERVER_HELLO and offset == 0 and len(data) == size:
                found = self._taken(source, destination, packet, data) or found
        return found

    def between(self, one: EndpointKey, other: EndpointKey) -> list[Agreement]:
        """Return the sessions of two endpoints, the oldest first."""
        talk = self._talks.get(_pair(one, other))
        return list(talk.agreements) if talk is not None else []

    def of(self, ends: Iterable[tuple[EndpointKey, EndpointKey]]) -> list[Agreement]:
        """Return the sessions of these pairs of endpoints, the newest first, at most `MAX_OF_CALL`."""
        pairs = dict.fromkeys(_pair(*both) for both in ends)
        found = [agreement for pair in pairs for agreement in self.between(*pair)]
        return sorted(found, key=lambda agreement: -agreement.time)[:MAX_OF_CALL]

    def _asked(
        self, source: EndpointKey, destination: EndpointKey, packet: SlowPacket, piece: tuple[int, int, int, bytes]
    ) -> None:
        pair = _pair(source, destination)
        talk = self._talks.setdefault(pair, _Talk())
        self._talks.move_to_end(pair)
        if len(self._talks) > MAX_TALKS:
            self._talks.popitem(last=False)
        number, size, offset, data = piece
        if talk.number != number or talk.client != source or talk.hello is not None:
            talk.number, talk.client, talk.hello, talk.pieces, talk.said = number, source, None, {}, []
        if size > MAX_HELLO or len(talk.pieces) >= MAX_PIECES:
            return
        talk.pieces[offset] = data
        talk.said.append(packet)
        body = _joined(talk.pieces, size)
        talk.hello = client_hello(body, datagram=True) if body is not None else None

    def _taken(
        self, source: EndpointKey, destination: EndpointKey, packet: SlowPacket, data: bytes
    ) -> Agreement | None:
        talk = self._talks.get(_pair(source, destination))
        hello = server_hello(data)
        if talk is None or talk.hello is None or talk.client != destination or hello is None or hello.random == RETRY:
            return None
        if any(one.taken.random == hello.random for one in talk.agreements):
            return None
        packets = *talk.said[:MAX_PIECES], packet
        agreement = Agreement(packet.time, destination, source, talk.hello, hello, packets)
        talk.agreements = [*talk.agreements[1 - MAX_AGREEMENTS :], agreement]
        return agreement


def _pair(one: EndpointKey, other: EndpointKey) -> tuple[EndpointKey, EndpointKey]:
    return (one, other) if one <= other else (other, one)


def _messages(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """Yield the handshake messages in the clear, or pieces of them, of a datagram (RFC 6347 sections 4.1, 4.2.2): kind,
    number, size, offset and bytes.
    """
    place = 0
    while place + _RECORD <= len(data) and data[place] == HANDSHAKE and not any(data[place + 3 : place + 5]):
        end = min(place + _RECORD + int.from_bytes(data[place + 11 : place + 13], "big"), len(data))
        at = place + _RECORD
        while at + _MESSAGE <= end:
            size, number = int.from_bytes(data[at + 1 : at + 4], "big"), int.from_bytes(data[at + 4 : at + 6], "big")
            offset, length = (int.from_bytes(data[at + step : at + step + 3], "big") for step in (6, 9))
            body = data[at + _MESSAGE : min(at + _MESSAGE + length, end)]
            if len(body) < length or offset + length > size:
                return
            yield data[at], number, size, offset, body
            at += _MESSAGE + length
        place = end


def _joined(pieces: dict[int, bytes], size: int) -> bytes | None:
    whole = bytearray()
    for offset, piece in sorted(pieces.items()):
        if offset > len(whole):
            return None
        whole[offset:] = piece if offset + len(piece) >= len(whole) else whole[offset:]
    return bytes(whole) if len(whole) >= size else None


# -- keys --------------------------------------------------------------------------------------------------------------


def masters(agreements: Iterable[Agreement], source: EndpointKey, secrets: Secrets | None) -> list[Master]:
    """Return the keys with which packets from `source` may have been made, the likeliest first."""
    likely: list[Master] = []
    others: list[Master] = []
    for agreement in agreements if secrets is not None else ():
        for by_client, by_server in _of(agreement, secrets):
            first, second = (by_server, by_client) if source == agreement.server else (by_client, by_server)
            (likely if source in (agreement.client, agreement.server) else others).append(first)
            others.append(second)
    return list(dict.fromkeys((*likely, *others)))


def _of(agreement: Agreement, secrets: Secrets | None) -> Iterator[tuple[Master, Master]]:
    """Yield the client's and the server's key for each profile, with and without the key identifier."""
    for number in agreement.profiles:
        profile = SRTP_SUITES.get(PROFILES.get(number, ""))
        if profile is None or secrets is None:
            continue
        material = _material(agreement, 2 * (profile.key + profile.salt), secrets)
        if material is None:
            return
        keys, salts = material[: 2 * profile.key], material[2 * profile.key :]
        for mki in dict.fromkeys((agreement.taken.mki, b"")):
            yield (
                Master(profile, keys[: profile.key], salts[: profile.salt], mki, how=HOW),
                Master(profile, keys[profile.key :], salts[profile.salt :], mki, how=HOW),
            )


def _material(agreement: Agreement, size: int, secrets: Secrets) -> bytes | None:
    suite, name = SUITES.get(agreement.taken.suite), agreement.asked.random
    if suite is None:
        return None
    if agreement.taken.is_13:
        secret = secrets.get(EXPORTER, name)
        return None if secret is None else exported13(suite.hash, secret, LABEL, size, b"dtls13")
    secret = secrets.get(CLIENT_RANDOM, name)
    prf = "md5sha1" if agreement.taken.version == DTLS10 else suite.hash
    return None if secret is None else exported(prf, secret, LABEL, name + agreement.taken.random, size)
