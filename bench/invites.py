"""A flood of INVITEs, made by NumPy: each has a Call-ID, a tag, a branch and a source address of its own."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from bench.traffic import START_US, frame

DIGITS = 9
MARK = b"0" * DIGITS
"""Where the number of each INVITE is put."""
SOURCE_AT = 16 + 14 + 12
SECOND_US = 1_000_000


@dataclass(frozen=True)
class Flood:
    """`rate` INVITEs within a second; the second is number `begin`."""

    rate: int
    begin: int = 0

    @classmethod
    def lasting(cls, rate: int, seconds: int) -> list[Flood]:
        """A flood of so many seconds."""
        return [cls(rate, second) for second in range(seconds)]


def write_flood(flood: Flood, file: BinaryIO) -> None:
    """Write the second's INVITEs as a pcap file."""
    record = np.frombuffer(_record(), np.uint8)
    rows = np.tile(record, (flood.rate, 1))
    number = np.arange(flood.rate) + flood.begin * flood.rate
    digits = (number[:, None] // 10 ** np.arange(DIGITS - 1, -1, -1) % 10 + ord("0")).astype(np.uint8)
    content = record.tobytes()
    at = content.find(MARK)
    while at >= 0:
        rows[:, at : at + DIGITS] = digits
        at = content.find(MARK, at + DIGITS)
    time_us = START_US + flood.begin * SECOND_US + np.arange(flood.rate) * SECOND_US // flood.rate
    rows[:, 0:8] = _words(time_us // SECOND_US, time_us % SECOND_US)
    # 172.16.0.0/12, another address each time; nobody checks the header's sum.
    rows[:, SOURCE_AT + 1 : SOURCE_AT + 4] = np.column_stack(
        (16 + (number >> 16) % 16, (number >> 8) % 256, number % 256)
    ).astype(np.uint8)
    file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
    file.write(rows.tobytes())


def _words(*columns: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    return np.column_stack(columns).astype("<u4").view(np.uint8)


def _record() -> bytes:
    number = MARK.decode()
    sdp = (
        "v=0\r\no=- 1 1 IN IP4 172.16.0.1\r\ns=-\r\nc=IN IP4 172.16.0.1\r\nt=0 0\r\n"
        "m=audio 4000 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n"
    )
    lines = (
        f"INVITE sip:{number}@10.250.0.1 SIP/2.0",
        f"Via: SIP/2.0/UDP 172.16.0.1:5060;branch=z9hG4bKf{number}",
        f"From: <sip:{number}@172.16.0.1>;tag=f{number}",
        f"To: <sip:{number}@10.250.0.1>",
        f"Call-ID: {number}@flood.invalid",
        "CSeq: 1 INVITE",
        "Contact: <sip:172.16.0.1:5060>",
        "Content-Type: application/sdp",
        f"Content-Length: {len(sdp)}",
    )
    whole = frame(
        bytes([172, 16, 0, 1]), bytes([10, 250, 0, 1]), (5060, 5060), ("\r\n".join(lines) + "\r\n\r\n" + sdp).encode()
    )
    return struct.pack("<IIII", 0, 0, len(whole), len(whole)) + whole
