"""Fuzz fragments and TCP segments: `python tests/fuzz/fuzz_reassembly.py [seconds [seed]]`.

The law: fragments are joined, wait or are counted as dropped, each once; a joined datagram has only bytes that came.
A stream gives each byte at most once, in order, whatever the segments; nothing raises.
"""

import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tapdeck.sniffer.reassembly import Fragments, TcpStreams  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402
from tests.support import ip  # noqa: E402
from tests.support.ip import Endpoint  # noqa: E402

HERE, THERE = Endpoint("192.0.2.1", 40_000), Endpoint("192.0.2.2", 5060)
SIX = Endpoint("2001:db8::1", 1), Endpoint("2001:db8::2", 2)
PIECES = [
    *ip.fragments(ip.udp(HERE, THERE, bytes(range(256)) * 4), 7, 128),
    *ip.fragments(ip.udp(*SIX, bytes(range(256)) * 4), 7, 128),
]
FORWARD = (HERE.address, HERE.port, THERE.address, THERE.port)
BACKWARD = (THERE.address, THERE.port, HERE.address, HERE.port)


def check_fragments(rng: random.Random) -> None:
    """Fragments, whole and damaged, in any order."""
    table = Fragments(limit=rng.choice([1, 3, 100]))
    joined = count = 0
    for _ in range(rng.randint(1, 60)):
        piece = rng.choice(PIECES)
        piece = mutate(piece, rng, PIECES) if rng.random() < 0.3 else piece
        count += 1
        whole = table.add(piece, rng.randrange(40_000_000_000))
        joined += 0 if whole is None else whole.frames
        assert whole is None or len(whole.packet) <= 65_535 + 40
    assert table.waiting + table.dropped + table.copies + joined == count, "a fragment is not accounted for"


def check_stream(rng: random.Random) -> None:
    """Segments of one true stream in any order, with holes: its words come out once each, in order, gaps where said.

    The stream is made of words of four bytes that say where they stand.
    """
    words, first = rng.randint(1, 1500), rng.randrange(2**32)
    content = b"".join(number.to_bytes(4, "big") for number in range(words))
    streams = TcpStreams()
    if rng.random() < 0.8:
        streams.add(FORWARD, ip.tcp(HERE, THERE, first - 1, 0, ip.SYN)[20:], 0)
    out = []
    for _ in range(rng.randint(1, 80)):
        start = 4 * rng.randrange(words)
        part = content[start : start + rng.choice([4, 32, 1460])]
        out += streams.add(FORWARD, ip.tcp(HERE, THERE, first + start, 1, ip.ACK, part)[20:], 0)
        if rng.random() < 0.2:
            seen = first + 4 * rng.randrange(words + 1)
            out += streams.add(BACKWARD, ip.tcp(THERE, HERE, 1, seen, ip.ACK)[20:], 0)
    out += streams.finish()
    place = 0
    for connection, stretch in out:
        assert connection == FORWARD
        begin = int.from_bytes(stretch.data[:4], "big")
        assert begin >= place, "bytes given out twice"
        assert stretch.gap or begin == place, "a gap that is not said"
        assert content.startswith(stretch.data, 4 * begin)
        place = begin + len(stretch.data) // 4


def check_noise(rng: random.Random) -> None:
    """Segments of no stream at all."""
    streams = TcpStreams(limit=rng.choice([1, 5]))
    for _ in range(rng.randint(1, 60)):
        segment = bytearray(rng.randbytes(rng.randint(20, 90)))
        segment[12] = rng.choice([0x50, 0x50, 0x60, segment[12]])
        streams.add(("192.0.2.1", rng.randrange(3), "192.0.2.2", 5060), bytes(segment), 0)
    streams.finish()


def check(rng: random.Random) -> None:
    """All three."""
    check_fragments(rng)
    check_stream(rng)
    check_noise(rng)


if __name__ == "__main__":
    sys.exit(main(check))
