"""TLS as OpenSSL speaks it, through Python's ssl module: what crosses the wire, what was said, and the key log.

talk = Talk(folder, minimum=TLSVersion.TLSv1_2, maximum=TLSVersion.TLSv1_2, ciphers="AES128-SHA")
wire = talk.shake_hands() + talk.say(CLIENT, b"INVITE ...")
"""

from __future__ import annotations

import ssl
import struct
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from ssl import TLSVersion

from . import tcp
from .ip import Endpoint, Packet
from .media import MS
from .netns import sh
from .scene import Scene, in_order
from .signalling import Signal

CLIENT, SERVER = 0, 1
Flight = tuple[int, bytes]
"""A side, and bytes that it sends."""


@cache
def server_pem(folder: Path) -> Path:
    """A file with a server's RSA key and certificate."""
    pem = folder / "server.pem"
    key, cert = folder / "server-key.pem", folder / "server-cert.pem"
    make = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 30, "-subj", "/CN=pbx.example")
    sh(*make, "-keyout", key, "-out", cert)
    pem.write_bytes(key.read_bytes() + cert.read_bytes())
    return pem


@cache
def group(folder: Path) -> Path:
    """A file with a group for Diffie-Hellman (RFC 7919)."""
    path = folder / "dh.pem"
    sh("openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048", "-out", path)
    return path


@dataclass
class Talk:
    """One connection between OpenSSL and itself. `before` is an earlier one that is taken up again."""

    folder: Path
    minimum: TLSVersion = TLSVersion.TLSv1_2
    maximum: TLSVersion = TLSVersion.TLSv1_3
    ciphers: str = ""
    before: Talk | None = None
    tickets: bool = True
    sides: list[ssl.SSLObject] = field(init=False)
    client: ssl.SSLContext = field(init=False)
    server: ssl.SSLContext = field(init=False)

    def __post_init__(self) -> None:
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        self.server = self.before.server if self.before else ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self.before is None:
            self.server.load_cert_chain(server_pem(self.folder))
            self.server.load_dh_params(str(group(self.folder)))
        else:
            client = self.before.client
        for context in (client, self.server):
            if self.ciphers:
                context.set_ciphers(f"{self.ciphers}:@SECLEVEL=0")
            if self.before is None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # of TLS 1.0, which phones still speak
                    context.minimum_version, context.maximum_version = self.minimum, self.maximum
            if not self.tickets:
                context.options |= ssl.OP_NO_TICKET
        client.keylog_filename = str(self.log)
        self.client = client
        self._in = [ssl.MemoryBIO(), ssl.MemoryBIO()]
        self._out = [ssl.MemoryBIO(), ssl.MemoryBIO()]
        session = self.before.sides[CLIENT].session if self.before else None
        self.sides = [
            client.wrap_bio(self._in[0], self._out[0], session=session),
            self.server.wrap_bio(self._in[1], self._out[1], server_side=True),
        ]

    @property
    def log(self) -> Path:
        return self.folder / "keys.log"

    @property
    def suite(self) -> str:
        """The suite in use, as OpenSSL names it."""
        named = self.sides[CLIENT].cipher()
        assert named
        return named[0]

    def shake_hands(self) -> list[Flight]:
        """Everything up to the end of the handshake, tickets included."""
        flights: list[Flight] = []
        for _ in range(10):
            for side in (CLIENT, SERVER):
                with suppress(ssl.SSLWantReadError):
                    self.sides[side].do_handshake()
                flights += self._sent(side)
        for side in (CLIENT, SERVER):
            assert self._heard(side) == b""
        return flights

    def say(self, side: int, data: bytes) -> list[Flight]:
        """Bytes that one side sends; the other hears them, in truth."""
        self.sides[side].write(data)
        flights = self._sent(side)
        assert self._heard(1 - side) == data
        return flights

    def _sent(self, side: int) -> list[Flight]:
        data = self._out[side].read()
        self._in[1 - side].write(data)
        return [(side, data)] if data else []

    def _heard(self, side: int) -> bytes:
        heard = b""
        try:
            while True:
                heard += self.sides[side].read(1 << 16)
        except ssl.SSLWantReadError:
            return heard


def over_tls(
    scene: Scene, talk: Talk, *, port: int = 5061, seed: int = 1, lead_ns: int = 50 * MS, cuts: int = 1
) -> list[Packet]:
    """The scene, its SIP in one TLS connection whose handshake begins `lead_ns` before."""
    media = replace(scene, signals=()).media_packets()
    return in_order(tcp.connection(_signals(scene, talk, port, lead_ns), seed=seed, cuts=cuts), media)


def _signals(scene: Scene, talk: Talk, port: int, lead_ns: int) -> Sequence[Signal]:
    first = scene.signals[0]
    caller, callee = first.source, Endpoint(first.target.address, port)
    ends = {CLIENT: (caller, callee), SERVER: (callee, caller)}
    flights = talk.shake_hands()
    sent = [
        Signal(first.time_ns - lead_ns + number * MS, *ends[side], data) for number, (side, data) in enumerate(flights)
    ]
    for signal in scene.signals:
        side = CLIENT if signal.source == caller else SERVER
        for _, data in talk.say(side, signal.text):
            sent.append(Signal(signal.time_ns, *ends[side], data))
    return sent


def text_of(flights: Iterable[Flight], side: int) -> bytes:
    """All that one side sent."""
    return b"".join(data for who, data in flights if who == side)


def captured(path: Path) -> list[Packet]:
    """The IP packets of a capture of the lab: pcap, ns, Ethernet."""
    data, place, found = path.read_bytes(), 24, []
    assert data[:4] == b"\x4d\x3c\xb2\xa1"
    while place < len(data):
        seconds, fraction, size, _ = struct.unpack_from("<IIII", data, place)
        frame = data[place + 16 : place + 16 + size]
        if frame[12:14] == b"\x08\0":
            found.append(Packet(seconds * 1_000_000_000 + fraction, frame[14:]))
        place += 16 + size
    return found
