"""An office's calls as one capture file, made by NumPy: G.711 both ways, SIP set-up and BYE, streams interleaved.

Every frame's place, time and payload follow from the plan, so any channel of any call can be worked out again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

START_US = 1_772_445_600_000_000
SAMPLE_US = 125
PTIME_US = 20_000
SAMPLES = 160
HEAD = 16 + 14 + 20 + 8 + 12
RECORD = HEAD + SAMPLES
"""One record: pcap header, Ethernet, IPv4, UDP, RTP, payload: 230 bytes."""

POOL = 1 << 22
ROWS_AT_ONCE = 1 << 16
SIP_PORT, CALLER_PORT, CALLEE_PORT = 5060, 10_000, 20_000
RING_US, HANG_UP_US = 400_000, 40_000


@dataclass(frozen=True)
class Plan:
    """`calls` calls of `seconds` seconds, begun at random within `spread` seconds from the second `begin` on.

    Calls are numbered from `first`: plans whose numbers differ can run one beside the other.
    """

    calls: int = 200
    seconds: int = 60
    spread: int = 10
    seed: int = 1
    first: int = 0
    begin: int = 0

    @property
    def packets_a_stream(self) -> int:
        return self.seconds * 1_000_000 // PTIME_US

    @property
    def packets(self) -> int:
        """RTP packets of all calls."""
        return 2 * self.calls * self.packets_a_stream

    @cached_property
    def pool(self) -> Bytes:
        """The bytes that voices are made of; never the silence code of A-law."""
        pool = np.random.default_rng(self.seed).integers(0, 256, POOL + SAMPLES, dtype=np.uint8)
        pool[pool == 0xD5] = 0x2A
        return pool

    @cached_property
    def invites_us(self) -> Numbers:
        """When each call's INVITE is sent, on the grid of samples."""
        chance = np.random.default_rng(self.seed + 1)
        begin_us = START_US + self.begin * 1_000_000
        return begin_us + chance.integers(0, self.spread * 1_000_000 // SAMPLE_US, self.calls) * SAMPLE_US

    @cached_property
    def starts_us(self) -> Numbers:
        """When each stream begins: two of a call, the caller's first, within 100 ms of the answer."""
        chance = np.random.default_rng(self.seed + 2)
        return np.repeat(self.invites_us + RING_US, 2) + chance.integers(40, 800, 2 * self.calls) * SAMPLE_US

    @cached_property
    def heads(self) -> Bytes:
        """The first 70 bytes of each stream's records; time, sequence and time stamp are filled in later."""
        heads = [_head(2 * self.first + stream) for stream in range(2 * self.calls)]
        return np.frombuffer(b"".join(heads), np.uint8).reshape(-1, HEAD)

    def voice(self, stream: int) -> Bytes:
        """All payload of a stream in order."""
        count = np.arange(self.packets_a_stream)
        rows = np.lib.stride_tricks.sliding_window_view(self.pool, SAMPLES)[
            self._voice_at(np.full_like(count, stream), count)
        ]
        return rows.reshape(-1)

    def channel(self, call: int, side: int) -> Bytes:
        """What must stand in one channel of a call's recording: `side` 0 is the caller, 1 the callee."""
        starts = self.starts_us[2 * call : 2 * call + 2]
        begin, size = (starts - starts.min()) // SAMPLE_US, self.packets_a_stream * SAMPLES
        channel = np.full(int(begin.max()) + size, 0xD5, np.uint8)
        channel[begin[side] : begin[side] + size] = self.voice(2 * call + side)
        return channel

    def _voice_at(self, stream: Numbers, count: Numbers) -> Numbers:
        return ((stream + 2 * self.first) * 1_000_003 + count * 7919) % POOL


def write_capture(plan: Plan, path: Path, *later: Plan) -> None:
    """Write plans, one after the other in time, as a pcap file in microseconds; about 230 bytes a packet."""
    with path.open("wb") as file:
        write_records(plan, file)
        for one in later:
            _write_packets(one, file)


def write_records(plan: Plan, file: BinaryIO) -> None:
    """Write the plan's capture into an open file."""
    file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
    _write_packets(plan, file)


def _write_packets(plan: Plan, file: BinaryIO) -> None:
    stream, count, time_us = _schedule(plan)
    signals = sorted(signal for call in range(plan.calls) for signal in _signals(plan, call))
    edges = np.searchsorted(time_us, [time for time, _ in signals])
    done = 0
    for edge, (_, record) in zip(edges.tolist(), signals, strict=True):
        _write_media(file, plan, stream[done:edge], count[done:edge], time_us[done:edge])
        file.write(record)
        done = edge
    _write_media(file, plan, stream[done:], count[done:], time_us[done:])


def _schedule(plan: Plan) -> tuple[Numbers, Numbers, Numbers]:
    """Stream, place in it and time of every RTP packet, by time; all but a stream's first jitter by up to 2 ms."""
    chance = np.random.default_rng(plan.seed + 3)
    shape = (2 * plan.calls, plan.packets_a_stream)
    jitter = chance.integers(0, 2000, shape)
    jitter[:, 0] = 0
    time_us = (plan.starts_us[:, None] + np.arange(shape[1]) * PTIME_US + jitter).reshape(-1)
    order = np.argsort(time_us, kind="stable")
    return order // shape[1], order % shape[1], time_us[order]


def _write_media(file: BinaryIO, plan: Plan, stream: Numbers, count: Numbers, time_us: Numbers) -> None:
    for begin in range(0, len(stream), ROWS_AT_ONCE):
        part = slice(begin, begin + ROWS_AT_ONCE)
        file.write(_records(plan, stream[part], count[part], time_us[part]).tobytes())


def _records(plan: Plan, stream: Numbers, count: Numbers, time_us: Numbers) -> Bytes:
    rows = plan.heads[stream]
    rows[:, 0:8] = np.column_stack((time_us // 1_000_000, time_us % 1_000_000)).astype("<u4").view(np.uint8)
    rows[:, 60:62] = (count + stream).astype(">u2")[:, None].view(np.uint8)
    rows[:, 62:66] = (count * SAMPLES + stream * 7777).astype(">u4")[:, None].view(np.uint8)
    voices = np.lib.stride_tricks.sliding_window_view(plan.pool, SAMPLES)
    return np.concatenate((rows, voices[plan._voice_at(stream, count)]), axis=1)


def _head(stream: int) -> bytes:
    call, side = divmod(stream, 2)
    ports = (CALLER_PORT, CALLEE_PORT) if side == 0 else (CALLEE_PORT, CALLER_PORT)
    rtp = struct.pack("!BBHII", 0x80, 8, 0, 0, 0x10000000 + stream)
    whole = frame(_address(call, side), _address(call, 1 - side), ports, rtp, SAMPLES)
    return struct.pack("<IIII", 0, 0, RECORD - 16, RECORD - 16) + whole


def frame(source: bytes, target: bytes, ports: tuple[int, int], payload: bytes, more: int = 0) -> bytes:
    """Ethernet, IPv4 and UDP around a payload of which `more` bytes follow later."""
    size = len(payload) + more
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28 + size, 0, 0x4000, 64, 17, 0) + source + target
    total = sum(struct.unpack("!10H", head)) % 0xFFFF
    head = head[:10] + struct.pack("!H", 0xFFFF - total) + head[12:]
    udp = struct.pack("!HHHH", *ports, 8 + size, 0)
    return b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\0" + head + udp + payload


def _address(call: int, side: int) -> bytes:
    return bytes([10, 1 + side + 2 * (call // 50_000), call // 250 % 200, call % 250 + 1])


def _signals(plan: Plan, call: int) -> Iterator[tuple[int, bytes]]:
    """The time and record of each SIP message of a call."""
    invite = int(plan.invites_us[call])
    end = int(plan.starts_us[2 * call : 2 * call + 2].max()) + plan.seconds * 1_000_000 + HANG_UP_US
    number = plan.first + call
    steps = (
        (invite, 0, "INVITE", "INVITE", 1, True),
        (invite + 3_000, 1, "100 Trying", "INVITE", 1, False),
        (invite + 20_000, 1, "180 Ringing", "INVITE", 1, False),
        (invite + RING_US, 1, "200 OK", "INVITE", 1, True),
        (invite + RING_US + 4_000, 0, "ACK", "ACK", 1, False),
        (end, 0, "BYE", "BYE", 2, False),
        (end + 3_000, 1, "200 OK", "BYE", 2, False),
    )
    for time_us, side, what, method, cseq, body in steps:
        text = _message(number, side, what, method, cseq, body)
        whole = frame(_address(number, side), _address(number, 1 - side), (SIP_PORT, SIP_PORT), text)
        head = struct.pack("<IIII", time_us // 1_000_000, time_us % 1_000_000, len(whole), len(whole))
        yield time_us, head + whole


def _message(call: int, side: int, what: str, method: str, cseq: int, body: bool) -> bytes:
    hosts = [".".join(map(str, _address(call, end))) for end in (0, 1)]
    port = (CALLER_PORT, CALLEE_PORT)[side]
    sdp = (
        f"v=0\r\no=- 1 1 IN IP4 {hosts[side]}\r\ns=-\r\nc=IN IP4 {hosts[side]}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n"
    )
    content = sdp if body else ""
    to_tag = "" if what in ("INVITE", "100 Trying") else f";tag=b{call}"
    first = f"SIP/2.0 {what}" if what[0].isdigit() else f"{what} sip:{callee(call)}@{hosts[1]} SIP/2.0"
    lines = (
        first,
        f"Via: SIP/2.0/UDP {hosts[0]}:5060;branch=z9hG4bK{call}.{cseq}",
        f"From: <sip:{caller(call)}@{hosts[0]}>;tag=a{call}",
        f"To: <sip:{callee(call)}@{hosts[1]}>{to_tag}",
        f"Call-ID: {call_id(call)}",
        f"CSeq: {cseq} {method}",
        f"Contact: <sip:{hosts[side]}:5060>",
        *(["Content-Type: application/sdp"] if content else []),
        f"Content-Length: {len(content)}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n" + content).encode()


def call_id(call: int) -> str:
    """The Call-ID, by the call's number."""
    return f"{call}@bench.invalid"


def caller(call: int) -> int:
    """The caller's number."""
    return 100_000 + call


def callee(call: int) -> int:
    """The callee's number."""
    return 900_000 + call
