"""SIP over WebSocket as a browser and a server write it: upgrade, frames, masks, pieces, compression."""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Sequence
from dataclasses import replace

from . import tcp
from .ip import Endpoint, Packet
from .scene import Scene, in_order
from .signalling import Signal

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: pbx.example.invalid\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: sip\r\n\r\n"
)
MASK = b"\x37\xfa\x21\x3d"


def frame(
    payload: bytes, *, opcode: int = TEXT, key: bytes = b"", final: bool = True, compressed: bool = False
) -> bytes:
    """One frame (RFC 6455, 5.2), masked if there is a key."""
    first = (0x80 if final else 0) | (0x40 if compressed else 0) | opcode
    size, mask = len(payload), 0x80 if key else 0
    if size < 126:
        head = bytes((first, mask | size))
    elif size < 1 << 16:
        head = bytes((first, mask | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, mask | 127)) + size.to_bytes(8, "big")
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload)) if key else head + payload


def message(text: bytes, where: random.Random, *, key: bytes = b"", pieces: int = 1, compressed: bool = False) -> bytes:
    """A message in so many frames, a ping between any two of them."""
    cuts = sorted(where.randrange(len(text) + 1) for _ in range(pieces - 1))
    edges = [0, *cuts, len(text)]
    found = b""
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        last = number == len(edges) - 2
        opcode = 0 if number else where.choice((TEXT, BINARY))
        found += frame(text[start:stop], opcode=opcode, key=key, final=last, compressed=compressed and not number)
        if not last:
            found += frame(b"hi", opcode=where.choice((PING, PONG)), key=key)
    return found


class Deflater:
    """Compresses messages one after the other, with what came before in mind (RFC 7692, 7.2.1)."""

    def __init__(self) -> None:
        self._state = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)

    def __call__(self, text: bytes) -> bytes:
        return (self._state.compress(text) + self._state.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


def framed(
    signals: Sequence[Signal], *, seed: int, port: int = 8088, pieces: int = 1, compressed: bool = False
) -> list[Signal]:
    """What crosses the wire in place of SIP: the upgrade, then each message in frames, the client's masked."""
    where = random.Random(seed)
    client = signals[0].source
    server = Endpoint(signals[0].target.address, port)
    ways = {True: Deflater(), False: Deflater()}
    begun = signals[0].time_ns
    out = [
        Signal(begun - 30_000_000, client, server, REQUEST),
        Signal(begun - 20_000_000, server, client, RESPONSE),
    ]
    for signal in signals:
        up = signal.source == client
        text = ways[up](signal.text) if compressed else signal.text
        data = message(text, where, key=where.randbytes(4) if up else b"", pieces=pieces, compressed=compressed)
        source, target = (client, server) if up else (server, client)
        out.append(replace(signal, source=source, target=target, text=data))
    return out


def packets(scene: Scene, *, seed: int, cuts: int = 2, skip: int = 0, **how: bool | int) -> list[Packet]:
    """The scene with its SIP over WebSocket, and without the first `skip` packets of that connection."""
    signals = framed(scene.signals, seed=seed, **how)  # type: ignore[arg-type]
    return in_order(tcp.connection(signals, seed=seed, cuts=cuts)[skip:], scene.media_packets())
