"""Fuzz what finds keys, and what hides them: `python tests/fuzz/fuzz_keys.py [seconds [seed]]`.

The law: RTP events give no more keys than packets; a SIP body keeps its length when it is masked, and tells no key
then; sound gives keys that lie within it, the same ones however it is cut; a hidden event changes nothing but itself
and the checksum.
"""

import random
import sys
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import numpy as np  # noqa: E402

from tapdeck.rtp.ear import Ear  # noqa: E402
from tapdeck.rtp.events import MASKED, digits  # noqa: E402
from tapdeck.rtp.g711 import Law  # noqa: E402
from tapdeck.sip.keys import HIDDEN, digit_of, masked  # noqa: E402
from tapdeck.sip.message import SipError, parse  # noqa: E402
from tapdeck.sniffer.hiding import hidden  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402
from tests.support.keys import KEYS, encoded, quiet, with_keys  # noqa: E402

HEAD = (
    b"INFO sip:7@a SIP/2.0\r\nFrom: <sip:1@a>;tag=1\r\nTo: <sip:7@a>;tag=2\r\nCall-ID: x\r\nCSeq: 7 INFO\r\n"
    b"Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\n"
)
SAID = [
    HEAD + b"Content-Type: application/dtmf-relay\r\n\r\nSignal=5\r\nDuration=160\r\n",
    HEAD + b"c: application/dtmf\r\n\r\n#",
    HEAD + b'Content-Type: application/kpml-response+xml\r\n\r\n<kpml-response digits="4929"/>',
    HEAD + b"Content-Type: multipart/mixed;boundary=q\r\n\r\n--q\r\n\r\nSignal=12\r\n--q--",
]
EVENTS = [b"\x05\x0a\x00\xa0", b"\x05\x8a\x01\xe0", b"\x10\x0a\xff\xff", b"\xff\x0a\x00\xa0"]
SOUND = [encoded(with_keys(quiet(2, -50, seed), KEYS, at_s=0.1), pt) for seed in range(3) for pt in (0, 8)]


def check_events(rng: random.Random) -> None:
    stamps = [rng.choice([0, 160, 0xFFFF, 2 * 0xFFFF, rng.getrandbits(32)]) for _ in range(4)]
    packets = [
        (rng.getrandbits(62), rng.choice(stamps), mutate(rng.choice(EVENTS), rng, EVENTS)[:40]) for _ in range(30)
    ]
    found = list(digits(packets))
    assert len(found) <= len({stamp for _, stamp, _ in packets})
    assert all(one.duration >= 0 for one in found)


def check_sip(rng: random.Random) -> None:
    message = mutate(rng.choice(SAID), rng, SAID, [b"\r\n", b"Signal=", b"5", b"="])
    hid = masked(message)
    assert len(hid) == len(message)
    assert masked(hid) == hid
    try:
        digit = digit_of(parse(hid))
    except SipError:
        return
    assert digit in ("", HIDDEN), digit


def check_sound(rng: random.Random) -> None:
    data = np.frombuffer(mutate(rng.choice(SOUND), rng, SOUND)[:40_000], dtype=np.uint8)
    law, cut = rng.choice([Law.A, Law.MU]), rng.randrange(len(data) + 1)
    found = []
    for cuts in ([0, len(data)], [0, cut, len(data)]):
        ear = Ear(law, 8000)
        for start, stop in pairwise(cuts):
            ear.hear(data[start:stop], last=stop == len(data) and start == cuts[-2])
        found.append([(tone.digit, tone.start, tone.stop) for tone in ear.tones])
        assert all(0 <= tone.start < tone.stop <= len(data) + 128 for tone in ear.tones)
        ear.sound()
    assert found[0] == found[1]


def check_hiding(rng: random.Random) -> None:
    packet = rng.randbytes(rng.randint(30, 80))
    head = rng.choice([12, 16, 20])
    place = rng.randint(head + 2, len(packet) - 2)
    after = hidden(packet, place, head)
    assert len(after) == len(packet)
    apart = {n for n, (a, b) in enumerate(zip(packet, after, strict=True)) if a != b}
    assert apart <= {place, place - head - 2, place - head - 1}
    assert after[place] == (MASKED if packet[place] < 16 else packet[place])


def check(rng: random.Random) -> None:
    rng.choice([check_events, check_sip, check_sound, check_hiding])(rng)


if __name__ == "__main__":
    sys.exit(main(check))
