"""SIP over TCP: the messages of a call as the segments of one connection, cut wherever a test likes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

from . import ip
from .ip import ACK, FIN, PSH, SYN, Endpoint, Packet
from .signalling import Signal

STEP_NS = 125_000
TOGETHER_NS = 5_000_000


def connection(signals: Sequence[Signal], *, seed: int, cuts: int = 3, swap: bool = False) -> list[Packet]:
    """One connection that carries `signals`; neighbours in one direction share segments.

    `cuts` is the number of arbitrary places where each piece is cut; `swap` sends the first two segments of each
    piece in the wrong order, and the first of them twice, as a path with loss would show them.
    """
    where = random.Random(seed)
    client, server = signals[0].source, signals[0].target
    ports = {client: Endpoint(client.address, 40000 + seed % 1000), server: server}
    numbers = {client: 0xFFFFFF00, server: 77}
    packets = _handshake(signals[0].time_ns - 10 * STEP_NS, ports[client], server, numbers[client], numbers[server])
    numbers = {side: number + 1 for side, number in numbers.items()}
    for time_ns, source, text in _pieces(signals):
        target = server if source == client else client
        segments = _segments(text, numbers[source], [where.randrange(1, len(text)) for _ in range(cuts)])
        if swap:
            segments[:2] = [*segments[1::-1], segments[0]]
        packets += [
            Packet(
                time_ns + count * STEP_NS, ip.tcp(ports[source], ports[target], seq, numbers[target], ACK | PSH, part)
            )
            for count, (seq, part) in enumerate(segments)
        ]
        numbers[source] += len(text)
        last = packets[-1].time_ns + STEP_NS
        packets.append(Packet(last, ip.tcp(ports[target], ports[source], numbers[target], numbers[source], ACK)))
    end = packets[-1].time_ns + STEP_NS
    packets.append(Packet(end, ip.tcp(ports[client], server, numbers[client], numbers[server], ACK | FIN)))
    return packets


def _handshake(time_ns: int, client: Endpoint, server: Endpoint, mine: int, theirs: int) -> list[Packet]:
    return [
        Packet(time_ns, ip.tcp(client, server, mine, 0, SYN)),
        Packet(time_ns + STEP_NS, ip.tcp(server, client, theirs, mine + 1, SYN | ACK)),
        Packet(time_ns + 2 * STEP_NS, ip.tcp(client, server, mine + 1, theirs + 1, ACK)),
    ]


def _pieces(signals: Sequence[Signal]) -> list[tuple[int, Endpoint, bytes]]:
    """What each side writes at a time: messages close together go out as one."""
    pieces: list[tuple[int, Endpoint, bytes]] = []
    for signal in signals:
        if pieces and pieces[-1][1] == signal.source and signal.time_ns - pieces[-1][0] < TOGETHER_NS:
            time_ns, source, text = pieces.pop()
            pieces.append((time_ns, source, text + signal.text))
        else:
            pieces.append((signal.time_ns, signal.source, signal.text))
    return pieces


def _segments(text: bytes, seq: int, cuts: Sequence[int]) -> list[tuple[int, bytes]]:
    edges = sorted({0, len(text), *cuts})
    return [(seq + a, text[a:b]) for a, b in pairwise(edges)]
