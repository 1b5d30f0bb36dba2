"""Fuzz the way of SRTP: `python tests/fuzz/fuzz_srtp.py [seconds [seed]]`.

The law: whatever headers, sizes and tags packets have, whatever keys there are, opening them raises nothing, opens no
packet twice and none that was changed; blanking a spool file leaves no key and moves nothing.
"""

import io
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tapdeck.rtp.rollover import Opener, Tries  # noqa: E402
from tapdeck.rtp.srtp import SUITES, Master  # noqa: E402
from tapdeck.sniffer import blocks  # noqa: E402
from tapdeck.storage.blanked import blanked  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402
from tests.rtp.test_srtp import batch, protect, rtp  # noqa: E402

COUNTER = [name for name, suite in SUITES.items() if not suite.aead]
SECRET = b"d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
SAID = b"INVITE sip:a@b SIP/2.0\r\n\r\nv=0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + SECRET + b"|2^20|1:4\r\n"


def check(rng: random.Random) -> None:
    """Packets good, bad and ugly in one stream; then a spool file."""
    packets(rng)
    spool(rng)


def packets(rng: random.Random) -> None:
    name = rng.choice(COUNTER)
    suite = SUITES[name]
    mki = rng.randbytes(rng.choice((0, 0, 1, 4)))
    key = Master(suite, rng.randbytes(suite.key), rng.randbytes(suite.salt), mki, rng.choice((0, 0, 1, 24)))
    others = [
        Master(one, rng.randbytes(one.key), rng.randbytes(one.salt)) for one in rng.sample(list(SUITES.values()), 3)
    ]
    first = rng.randrange(1 << 17)
    sent = [protect(key, rtp(first + n, rng.randbytes(rng.randrange(200))), 12, first + n) for n in range(30)]
    spoiled = {
        n: mutate(sent[n], rng, sent, [b"\xff"]).ljust(12, b"\0") for n in rng.sample(range(30), rng.randrange(8))
    }
    shown = [spoiled.get(n, one) for n, one in enumerate(sent)]
    found = [row for part in Opener([*others, key], Tries(20_000)).open(batch(shown)) for row in part.rows.tolist()]
    assert len(found) == len(set(found)), "a packet was opened twice"
    assert {n for n in range(30) if shown[n] == sent[n]} <= set(found), "a good packet was not opened"
    assert all(shown[row] in sent for row in found), "a packet that was changed was opened"


def spool(rng: random.Random) -> None:
    six = rng.random() < 0.5
    ends = (("2001:db8::1", 5060), ("2001:db8::2", 5060)) if six else (("192.0.2.1", 5060), ("192.0.2.2", 5060))
    whole = blocks.section("{}", "fuzz") + blocks.interface(101, "signalling")
    whole += b"".join(blocks.packet(rng.choice((0, 0, 1)), n, blocks.datagram(*ends, SAID)) for n in range(3))
    kept = b"".join(blanked(io.BytesIO(whole), encrypted=False))
    assert len(kept) == len(whole), "blanking moved something"
    said = b"".join(blanked(io.BytesIO(whole), encrypted=True))
    assert SECRET not in said, "a key was left"
    b"".join(blanked(io.BytesIO(mutate(whole, rng, [whole], [b"inline:"])), encrypted=rng.random() < 0.5))


if __name__ == "__main__":
    sys.exit(main(check))
