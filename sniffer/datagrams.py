"""What the columnar path gives out: columns of RTP, packets for the slow path, and what became of each frame."""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from .records import Ints

Mask = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.uint64]


class Fate(IntEnum):
    """What became of a frame in the columnar path."""

    UNSEEN = 0
    RTP = 1
    RTCP = 2
    TEXT = 3
    FRAGMENT = 4
    TCP = 5
    STUN = 6
    DTLS = 7
    ZRTP = 8
    OTHER_UDP = 9
    OTHER_TCP = 10
    OTHER_IP = 11
    ENCRYPTED_TUNNEL = 12
    NOT_IP = 13
    UNKNOWN_LINK = 14
    TRUNCATED_LINK = 15
    TRUNCATED_IP = 16
    TRUNCATED_UDP = 17
    TRUNCATED_TCP = 18
    TRUNCATED_TUNNEL = 19
    BAD_IP = 20
    BAD_UDP = 21
    TOO_DEEP = 22


@dataclass(frozen=True, slots=True)
class RtpColumns:
    """Datagrams that look like RTP (RFC 3550 section 5.1), one row each, in time order.

    `time` ns (int64); `source` and `destination` address keys (uint64, see `addresses`); `ports` source << 16 |
    destination (uint32); `position` of the payload in the input (int64) and its `size` in bytes (int32); `sequence`
    (uint16), `stamp` (uint32), `ssrc` (uint32), `kind` marker bit and payload type (uint8); `frames`: captured frames
    it took (uint8); `head`: bytes of its RTP header, which lies before the payload (uint16); `prints`: what its payload
    was, in a number (uint32, see `prints`).
    """

    time: Ints
    source: Keys
    destination: Keys
    ports: npt.NDArray[np.uint32]
    position: Ints
    size: npt.NDArray[np.int32]
    sequence: npt.NDArray[np.uint16]
    stamp: npt.NDArray[np.uint32]
    ssrc: npt.NDArray[np.uint32]
    kind: npt.NDArray[np.uint8]
    frames: npt.NDArray[np.uint8]
    head: npt.NDArray[np.uint16]
    prints: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: Ints | slice | Mask) -> "RtpColumns":
        """Return these rows only."""
        return RtpColumns(*(getattr(self, name)[rows] for name in RTP_FIELDS))


NOT_RTP = 0x54333800
"""What stands for the SSRC of packets that have none: those of a fax by T.38."""
RTP_FIELDS = tuple(RtpColumns.__dataclass_fields__)
_TYPES = (
    np.int64,
    np.uint64,
    np.uint64,
    np.uint32,
    np.int64,
    np.int32,
    np.uint16,
    np.uint32,
    np.uint32,
    np.uint8,
    np.uint8,
    np.uint16,
    np.uint32,
)
NO_RTP = RtpColumns(*(np.empty(0, dtype=code) for code in _TYPES))  # type: ignore[arg-type]


def join(parts: list[RtpColumns]) -> RtpColumns:
    """Put columns behind each other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return NO_RTP
    return RtpColumns(*(np.concatenate([getattr(part, name) for part in parts]) for name in RTP_FIELDS))


def in_time(rows: RtpColumns) -> RtpColumns:
    """Put rows in the order of time."""
    if len(rows) > 1 and (np.diff(rows.time) < 0).any():
        return rows.take(np.argsort(rows.time, kind="stable"))
    return rows


def without_headers(rtp: RtpColumns) -> RtpColumns:
    """Return datagrams that were taken for RTP as what they are without its header: a payload from its first byte on.

    What was taken for padding is still missing at their end.
    """
    count = len(rtp)
    return replace(
        rtp,
        position=rtp.position - rtp.head,
        size=rtp.size + rtp.head.astype(np.int32),
        sequence=rtp.kind.astype(np.uint16) | np.uint16(0x8000),
        stamp=np.zeros(count, dtype=np.uint32),
        ssrc=np.full(count, NOT_RTP, dtype=np.uint32),
        kind=np.zeros(count, dtype=np.uint8),
        head=np.zeros(count, dtype=np.uint16),
    )


@dataclass(frozen=True, slots=True)
class SlowPacket:
    """One packet for the slow path: an object, because it is rare.

    `time` ns; IP addresses as text; `payload` is the UDP payload (`Fate.TEXT`, `Fate.ZRTP`, `Fate.RTCP`), the TCP
    segment with its header (`Fate.TCP`) or the IP packet from its header on (`Fate.FRAGMENT`); `cut` says that bytes
    were not captured.
    """

    time: int
    fate: Fate
    source: str
    destination: str
    source_port: int
    destination_port: int
    payload: bytes
    cut: bool = False


@dataclass(slots=True)
class Datagrams:
    """What one block held: columns, slow packets and how many frames met which fate.

    `first` and `last` are times in ns; `cut` counts the RTP packets whose payload was captured only in part. `other`
    are datagrams of no known kind, which only SDP can tell (a fax by T.38): the whole payload, no header, sequence
    number of their first two bytes.
    """

    rtp: RtpColumns
    slow: list[SlowPacket]
    fates: npt.NDArray[np.int64]
    first: int
    last: int
    frames: int
    cut: int = 0
    other: RtpColumns = NO_RTP

    @property
    def settled(self) -> npt.NDArray[np.int64]:
        """The fates without those of `other`, which somebody has yet to tell."""
        fates = self.fates.copy()
        fates[Fate.OTHER_UDP] -= int(self.other.frames.sum(dtype=np.int64))
        return fates


def tcp_flow_keys(source: Keys, destination: Keys, ports: npt.NDArray[np.uint32]) -> Keys:
    """Return a direction-free key (uint64) of each TCP connection."""
    swapped = (ports >> np.uint32(16)) | (ports << np.uint32(16))
    return (
        (source ^ destination) * np.uint64(0x9E3779B97F4A7C15)
        + (ports.astype(np.uint64) ^ swapped.astype(np.uint64))
        + (ports.astype(np.uint64) * swapped.astype(np.uint64))
    )
