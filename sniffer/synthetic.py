"""A call made of nothing, for the self-test: SIP and RTP both ways as Ethernet frames, every byte of sound known. Pure.

Nobody can take it for a customer's: both parties are called `tapdeck-selftest`, and all addresses are those that are
kept for documentation (RFC 5737; MAC addresses: RFC 7042, 2.1.1).
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..rtp.g711 import SILENCE, Law
from ..sip.dialog import Party
from . import blocks
from .records import PADDING, Records

NAME = "tapdeck-selftest"
DOMAIN = "selftest.invalid"
PACKETS = 100
"""RTP packets of each side, 20 ms of sound each."""
LATER = 2
"""The callee begins to speak so many packets later."""

_ETHERNET = 1
_MS = 1_000_000
_SAMPLES = 160
_PACKET_NS = 20 * _MS
_TALK_NS = 120 * _MS
_VISIT_NS = 200 * _MS
_ADDRESS = {Party.CALLER: "192.0.2.1", Party.CALLEE: "198.51.100.1"}
_MAC = {Party.CALLER: bytes.fromhex("00005e005301"), Party.CALLEE: bytes.fromhex("00005e005302")}
_RTP_PORT = {Party.CALLER: 20_000, Party.CALLEE: 30_000}
_SSRC = {Party.CALLER: 0x5E1F7E57, Party.CALLEE: 0x7E575E1F}
_FIRST_SEQUENCE, _FIRST_STAMP = 65_480, (1 << 32) - 4_000
"""Both wrap within the call."""

Frame = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class SyntheticCall:
    """A call that begins at `started` (ns); frames in the order of time, and the bytes of both channels of its WAV."""

    call_id: str
    started: int
    frames: tuple[Frame, ...]
    sound: dict[Party, bytes]
    sip_messages: int

    @property
    def ended(self) -> int:
        """When its last frame crosses the wire, in ns."""
        return self.frames[-1][0]

    def visits(self) -> Iterator[Records]:
        """Yield the frames as a capture meets them, a fifth of a second at a time."""
        waiting = list(self.frames)
        while waiting:
            until = waiting[0][0] + _VISIT_NS
            count = next((n for n, (time, _) in enumerate(waiting) if time >= until), len(waiting))
            yield _records(waiting[:count])
            waiting = waiting[count:]


def synthetic_call(token: str, started: int, sip_port: int = 5060) -> SyntheticCall:
    """Return a call whose Call-ID and sound follow from `token`, a few letters; another token gives another call."""
    call_id = f"{NAME}-{token}@{DOMAIN}"
    sip = list(_signalling(call_id, started, sip_port))
    voice = {party: _voice(f"{call_id} {party.value}") for party in Party}
    media = [frame for party in Party for frame in _media(party, voice[party], started + _TALK_NS)]
    quiet = bytes([SILENCE[Law.A]]) * (LATER * _SAMPLES)
    sound = {Party.CALLER: voice[Party.CALLER] + quiet, Party.CALLEE: quiet + voice[Party.CALLEE]}
    return SyntheticCall(call_id, started, tuple(sorted(sip + media)), sound, len(sip))


def _voice(seed: str) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(PACKETS * _SAMPLES)


def _signalling(call_id: str, started: int, port: int) -> Iterator[Frame]:
    bye = started + _TALK_NS + (PACKETS + LATER + 5) * _PACKET_NS
    for after, sender, first, number, method, media in (
        (0, Party.CALLER, f"INVITE {_uri(Party.CALLEE)} SIP/2.0", 1, "INVITE", True),
        (5, Party.CALLEE, "SIP/2.0 100 Trying", 1, "INVITE", False),
        (20, Party.CALLEE, "SIP/2.0 180 Ringing", 1, "INVITE", False),
        (100, Party.CALLEE, "SIP/2.0 200 OK", 1, "INVITE", True),
        (105, Party.CALLER, f"ACK {_uri(Party.CALLEE)} SIP/2.0", 1, "ACK", False),
        (0, Party.CALLER, f"BYE {_uri(Party.CALLEE)} SIP/2.0", 2, "BYE", False),
        (5, Party.CALLEE, "SIP/2.0 200 OK", 2, "BYE", False),
    ):
        text = _message(call_id, first, number, method, sender, _sdp(sender) if media else "")
        time = (bye if method == "BYE" else started) + after * _MS
        yield time, _frame(sender, port, port, text.encode())


def _message(call_id: str, first: str, number: int, method: str, sender: Party, body: str) -> str:
    """Return a SIP message (RFC 3261); all requests are the caller's."""
    answered = "" if first.startswith("INVITE") or "100" in first else ";tag=callee"
    lines = [
        first,
        f"Via: SIP/2.0/UDP {_ADDRESS[Party.CALLER]};branch=z9hG4bK-{NAME}-{number}{method}",
        f'From: "{NAME} caller" <{_uri(Party.CALLER)}>;tag=caller',
        f'To: "{NAME} callee" <{_uri(Party.CALLEE)}>{answered}',
        f"Call-ID: {call_id}",
        f"CSeq: {number} {method}",
        f"Contact: <sip:{NAME}@{_ADDRESS[sender]}>",
        f"User-Agent: {NAME}",
        "Max-Forwards: 70",
        *(["Content-Type: application/sdp"] if body else []),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", body])


def _sdp(party: Party) -> str:
    address = _ADDRESS[party]
    lines = [
        "v=0",
        f"o=- 1 1 IN IP4 {address}",
        f"s={NAME}",
        f"c=IN IP4 {address}",
        "t=0 0",
        f"m=audio {_RTP_PORT[party]} RTP/AVP 8",
        "a=rtpmap:8 PCMA/8000",
    ]
    return "\r\n".join(lines) + "\r\n"


def _uri(party: Party) -> str:
    return f"sip:{NAME}@{party.value}.{DOMAIN}"


def _media(party: Party, voice: bytes, start: int) -> Iterator[Frame]:
    """Yield a side's RTP (RFC 3550, 5.1), payload type 8."""
    start += LATER * _PACKET_NS if party is Party.CALLEE else 0
    for count in range(PACKETS):
        sequence, stamp = _FIRST_SEQUENCE + count & 0xFFFF, _FIRST_STAMP + count * _SAMPLES & 0xFFFFFFFF
        head = struct.pack(">BBHII", 0x80, 0x88 if count == 0 else 8, sequence, stamp, _SSRC[party])
        payload = voice[count * _SAMPLES : (count + 1) * _SAMPLES]
        yield start + count * _PACKET_NS, _frame(party, _RTP_PORT[party], _RTP_PORT[_other(party)], head + payload)


def _frame(sender: Party, port: int, other_port: int, payload: bytes) -> bytes:
    receiver = _other(sender)
    ethernet = _MAC[receiver] + _MAC[sender] + b"\x08\x00"
    return ethernet + blocks.datagram((_ADDRESS[sender], port), (_ADDRESS[receiver], other_port), payload)


def _other(party: Party) -> Party:
    return Party.CALLEE if party is Party.CALLER else Party.CALLER


def _records(frames: list[Frame]) -> Records:
    length = np.array([len(frame) for _, frame in frames], dtype=np.int64)
    offset = np.concatenate(([0], np.cumsum(length)))[:-1]
    data = np.frombuffer(b"".join(frame for _, frame in frames) + bytes(PADDING), dtype=np.uint8)
    times = np.array([time for time, _ in frames], dtype=np.int64)
    return Records(data, offset, length, length, times, np.full(len(frames), _ETHERNET, dtype=np.uint16), 0)
