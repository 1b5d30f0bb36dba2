"""Fuzz SIP over WebSocket: `python tests/fuzz/fuzz_websocket.py [seconds [seed]]`.

The law: whatever comes, in whatever pieces, gives messages and errors and raises nothing; nothing is kept beyond a
message and a frame. Where frames are whole after a gap, their messages come out.
"""

import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tapdeck.sip.framing import framer_for, may_begin  # noqa: E402
from tapdeck.sip.message import MAX_MESSAGE, Message, SipError  # noqa: E402
from tapdeck.sip.websocket import MAX_HEAD, WebSocketFramer  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402
from tests.support import websocket  # noqa: E402
from tests.support.scene import plain_call  # noqa: E402

TEXTS = [signal.text for signal in plain_call(1).signals]
MOST = 2 * MAX_MESSAGE + MAX_HEAD + 65_536


def stream(rng: random.Random) -> bytes:
    """An upgrade perhaps, then messages in frames."""
    data = rng.choice([websocket.REQUEST, websocket.RESPONSE, b""])
    deflate = websocket.Deflater()
    compressed = rng.random() < 0.3
    for _ in range(rng.randint(1, 6)):
        text = rng.choice(TEXTS)
        words = deflate(text) if compressed else text
        key = rng.choice([b"", rng.randbytes(4)])
        data += websocket.message(words, rng, key=key, pieces=rng.randint(1, 4), compressed=compressed)
    return data


def check(rng: random.Random) -> None:
    """One stream, damaged or not, with gaps."""
    data = stream(rng)
    data = mutate(data, rng, [stream(rng)]) if rng.random() < 0.8 else data
    framer = framer_for(data) if rng.random() < 0.5 else WebSocketFramer()
    may_begin(data)
    at = 0
    while at < len(data):
        size = rng.choice([1, 7, 60, 1460, len(data)])
        if rng.random() < 0.1:
            framer.reset()
        found = framer.feed(data[at : at + size])
        assert all(isinstance(one, Message | SipError) for one in found)
        at += size
        if isinstance(framer, WebSocketFramer):
            assert len(framer._buffer) + len(framer._message) <= MOST, "too much is kept"
    if isinstance(framer, WebSocketFramer):
        framer.reset()
        text = rng.choice(TEXTS)
        (last,) = framer.feed(websocket.frame(text, key=rng.choice([b"", rng.randbytes(4)])))
        assert isinstance(last, Message), "a whole frame behind a gap was not read"
        assert last.raw == text


if __name__ == "__main__":
    sys.exit(main(check))
