"""Fuzz the SIP room: `python tests/fuzz/fuzz_sip.py [seconds [seed]]` mutates seeds until the time is over.

The law: whatever the bytes, each parser gives a value or its one documented error; the framer and the dialog table
raise nothing; a stream gives the same messages however it is cut. On a breach it prints the bytes and the seed and
exits with 1.
"""

import random
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from tapdeck.sip.dialog import Dialogs  # noqa: E402
from tapdeck.sip.message import Framer, Message, SipError, parse  # noqa: E402
from tapdeck.sip.sdp import SdpError, session_description  # noqa: E402
from tapdeck.sip.sdp import parse as parse_sdp  # noqa: E402

CALL = [
    b"INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=1\r\nFrom: <sip:a@x>;tag=a\r\nTo: <sip:b@x>\r\nCall-ID: c\r\n"
    b"CSeq: 1 INVITE\r\nContent-Type: application/sdp\r\n\r\nv=0\r\no=- 1 1 IN IP4 h\r\nc=IN IP6 ::1\r\n"
    b"m=audio 4000 RTP/AVP 0 96\r\na=rtpmap:96 opus/48000/2\r\na=candidate:1 1 UDP 1 192.0.2.1 5000 typ host\r\n",
    b"SIP/2.0 183 Progress\r\nVia: SIP/2.0/UDP h;branch=1\r\nf: <sip:a@x>;tag=a\r\nt: <sip:b@x>;tag=b\r\ni: c\r\n"
    b"CSeq: 1 INVITE\r\nc: multipart/mixed;boundary=q\r\n\r\n--q\r\nContent-Type: application/sdp\r\n\r\n"
    b"v=0\r\nm=audio 2 RTP/SAVP 8\r\na=crypto:1\r\na=rtcp:3 IN IP4 192.0.2.9\r\n--q--\r\n",
    b"SIP/2.0 407 Auth\r\nf: <sip:a@x>;tag=a\r\nt: <sip:b@x>;tag=b\r\ni: c\r\nCSeq: 1 INVITE\r\n\r\n",
    b"SIP/2.0 200 OK\r\nf: <sip:a@x>;tag=a\r\nt: <sip:b@x>;tag=b\r\ni: c\r\nCSeq: 1 INVITE\r\nx: 90\r\n\r\n",
    b"INFO sip:b@x SIP/2.0\r\nf: <sip:a@x>;tag=a\r\nt: <sip:b@x>;tag=b\r\ni: c\r\nCSeq: 2 INFO\r\n"
    b"c: application/dtmf-relay\r\n\r\nSignal=5\r\nDuration=160",
    b"REFER sip:a@x SIP/2.0\r\nf: <sip:b@x>;tag=b\r\nt: <sip:a@x>;tag=a\r\ni: c\r\nCSeq: 3 REFER\r\nr: <tel:+1-2>\r\n"
    b"\r\n",
    b"BYE sip:a@x SIP/2.0\r\nf: <sip:b@x>;tag=b\r\nt: <sip:a@x>;tag=a\r\ni: c\r\nCSeq: 4 BYE\r\n\r\n",
]
SEEDS = CALL + [path.read_bytes() for path in sorted((ROOT / "fixtures" / "rfc4475").glob("*.dat"))]
TOKENS = [
    b"\r\n",
    b"\n",
    b" ",
    b"\t",
    b"\0",
    b'"',
    b"<",
    b">",
    b";",
    b",",
    b"%",
    b"@",
    b":",
    b"=",
    b"\\",
    b"[",
    b"\xff",
]
TOKENS += [
    b"Content-Length: ",
    b"-1",
    b"9" * 30,
    b"SIP/2.0 ",
    b"\r\n\r\n",
    b"m=audio ",
    b"a=rtpmap:",
    b"--q\r\n",
    b"tag=a",
]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change, cut, double, insert or cross over, a few times."""
    raw = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(raw) + 1)
        to = min(len(raw), at + rng.choice([1, 1, 4, 40, 400]))
        choice = rng.randrange(6)
        if choice == 0:
            raw[at:to] = rng.randbytes(to - at)
        elif choice == 1:
            del raw[at:to]
        elif choice == 2:
            raw[at:at] = raw[at:to] * rng.choice([1, 2, 50])
        elif choice == 3:
            raw[at:to] = rng.choice(TOKENS)
        elif choice == 4:
            raw[at:at] = rng.choice(TOKENS) * rng.choice([1, 1, 3, 600])
        else:
            other = rng.choice(SEEDS)
            raw[at:] = other[rng.randrange(len(other)) :]
    return bytes(raw[:100_000])


def check_message(data: bytes, dialogs: Dialogs, clock: int) -> None:
    """A datagram, through the parser, its lazy parts, the description and the dialog table."""
    try:
        message = parse(data)
    except SipError:
        return
    _ = message.vias, message.from_.tag, message.to.tag, message.content_type, message.values("contact")
    with suppress(SdpError):
        session_description(message)
    dialogs.handle(message, clock, ("192.0.2.1", clock % 3), ("192.0.2.2", 5060))


def check_stream(data: bytes, rng: random.Random) -> None:
    """A stream, whole and in pieces."""

    def names(items: list[Message | SipError]) -> list[object]:
        return [item if isinstance(item, Message) else item.kind for item in items]

    whole, cut = Framer(), Framer()
    pieces: list[Message | SipError] = []
    at = 0
    while at < len(data):
        step = rng.choice([1, 2, 7, 100, 1400])
        pieces += cut.feed(data[at : at + step])
        at += step
    assert names(pieces) == names(whole.feed(data)), "the cut changes the messages"


def main(seconds: float, seed: int) -> int:
    """Run for so long; the exit code."""
    rng = random.Random(seed)
    dialogs = Dialogs(limit=200)
    rounds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutate(rng.choice(SEEDS), rng)
        rounds += 1
        try:
            check_message(data, dialogs, rounds * 10_000_000)
            with suppress(SdpError):
                parse_sdp(data)
            if rounds % 10 == 0:
                check_stream(data + rng.choice(SEEDS) + mutate(rng.choice(SEEDS), rng), rng)
        except Exception:  # noqa: BLE001 - whatever it is, it is the finding
            traceback.print_exc()
            sys.stderr.write(f"seed {seed}, round {rounds}: {data!r}\n")
            return 1
    dialogs.finish()
    sys.stdout.write(f"{rounds} rounds, {dialogs.refused_calls} calls refused by the full table, no breach\n")
    return 0


if __name__ == "__main__":
    arguments = [float(word) for word in sys.argv[1:]]
    sys.exit(
        main(arguments[0] if arguments else 10, int(arguments[1]) if len(arguments) > 1 else random.randrange(2**32))
    )
