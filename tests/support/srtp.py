"""Calls over SRTP as libsrtp encrypts them (through pylibsrtp): an encryptor that has no line of ours.

locked = encrypted(plain_call(1), CALLER, CALLEE)
"""

from __future__ import annotations

import base64
import hmac
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from pylibsrtp import Policy, Session

from .ip import Endpoint, Packet, udp
from .media import PLAIN, Form, Rtp
from .scene import START_NS, Scene, answered_ns, in_order, set_up
from .signalling import sdp

PROFILES = {
    "AES_CM_128_HMAC_SHA1_80": (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
    "AES_CM_128_HMAC_SHA1_32": (Policy.SRTP_PROFILE_AES128_CM_SHA1_32, 30),
    "AEAD_AES_128_GCM": (Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 28),
    "AEAD_AES_256_GCM": (Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 44),
}
BY_HAND = {f"AES_{bits}_CM_HMAC_SHA1_{tag}": (bits // 8, tag // 8) for bits in (192, 256) for tag in (80, 32)}
"""What pylibsrtp has no profile for: bytes of key and tag. Their packets are made by the text of RFC 3711 and 6188."""
SUITE = "AES_CM_128_HMAC_SHA1_80"


@dataclass(frozen=True)
class Key:
    """What one party encrypts with: a key made of `seed`, its suite, and the tag of its `a=crypto` line."""

    seed: int
    suite: str = SUITE
    tag: int = 1
    more: str = ""
    """What follows the key in the line: lifetime, MKI, parameters."""
    mki: bytes = b""

    @property
    def raw(self) -> bytes:
        """Master key and salt."""
        size = PROFILES[self.suite][1] if self.suite in PROFILES else BY_HAND[self.suite][0] + 14
        return random.Random(self.seed).randbytes(size)

    @property
    def text(self) -> str:
        """The key as SDP has it."""
        return base64.b64encode(self.raw).decode()

    @property
    def line(self) -> str:
        """The attribute."""
        return f"a=crypto:{self.tag} {self.suite} inline:{self.text}{self.more}"


@dataclass(frozen=True)
class Locked:
    """A datagram of SRTP."""

    time_ns: int
    source: Endpoint
    target: Endpoint
    data: bytes = field(repr=False)
    ident: int = 0

    def packet(self) -> Packet:
        return Packet(self.time_ns, udp(self.source, self.target, self.data, ident=self.ident & 0xFFFF))


def lock(stream: Iterable[Rtp], key: Key) -> list[Locked]:
    """Encrypt a stream in the order in which it is sent; libsrtp counts the wraps from 0."""
    if key.suite in BY_HAND:
        return [
            Locked(packet.time_ns, packet.source, packet.target, protected(packet, key), packet.seq)
            for packet in stream
        ]
    policy = Policy(key=key.raw, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=PROFILES[key.suite][0])
    policy.allow_repeat_tx = True
    session = Session(policy)
    locked = []
    for packet in stream:
        data = session.protect(packet.wire())
        if key.mki:  # it stands before the tag (RFC 3711 figure 1), in GCM behind it (RFC 7714)
            tag = 0 if "GCM" in key.suite else 4 if key.suite.endswith("_32") else 10
            data = data[: len(data) - tag] + key.mki + data[len(data) - tag :]
        locked.append(Locked(packet.time_ns, packet.source, packet.target, data, packet.seq))
    return locked


def protected(packet: Rtp, key: Key) -> bytes:
    """RFC 3711 sections 3.3, 4.1.1, 4.2 and 4.3.1 for one packet, with AES in counter mode as a library has it."""
    size, tag = BY_HAND[key.suite]
    master, salt = key.raw[:size], int.from_bytes(key.raw[size:], "big")

    def derived(label: int, length: int) -> bytes:
        first = ((label << 48) ^ salt).to_bytes(14, "big") + bytes(2)
        return _counter(master, first, bytes(length))

    wire, index = packet.wire(), packet.seq
    head = 12 + len(packet.form.between)
    first = (int.from_bytes(derived(2, 14), "big") << 16) ^ packet.ssrc << 64 ^ index << 16
    sealed = wire[:head] + _counter(derived(0, size), first.to_bytes(16, "big"), wire[head:])
    made = hmac.digest(derived(1, 20), sealed + (index >> 16).to_bytes(4, "big"), "sha1")[:tag]
    return sealed + key.mki + made


def _counter(key: bytes, first: bytes, data: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(first)).encryptor().update(data)


def secure(text: str, *keys: Key, profile: str = "RTP/SAVP") -> str:
    """A session description that tells these keys."""
    return text.replace("RTP/AVP", profile) + "".join(key.line + "\r\n" for key in keys)


def announced(
    scene: Scene, offer: Sequence[Key], answer: Sequence[Key], start_ns: int = START_NS, profile: str = "RTP/SAVP"
) -> Scene:
    """The scene with keys in offer and answer."""
    shape = scene.dialog
    texts = [
        secure(sdp(party.media, pts=(party.pt, 101)), *keys, profile=profile)
        for party, keys in ((shape.caller, offer), (shape.callee, answer))
    ]
    rest = [signal for signal in scene.signals if signal.time_ns > answered_ns(start_ns) + 5_000_000]
    return replace(scene, signals=(*set_up(shape, start_ns, *texts), *rest))


def packets(scene: Scene, left: Iterable[Locked], right: Iterable[Locked]) -> list[Packet]:
    """The scene's SIP, and this media."""
    return in_order(
        replace(scene, left=(), right=()).packets(), [one.packet() for one in left], [one.packet() for one in right]
    )


def shaped(stream: Iterable[Rtp], form: Form = PLAIN) -> tuple[Rtp, ...]:
    """The stream with this around each payload."""
    return tuple(replace(packet, form=form) for packet in stream)
