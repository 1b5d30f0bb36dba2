"""Fuzz the SIP room: `python tests/fuzz/fuzz_sip.py [seconds [seed]]`.

The law: whatever the bytes, each parser gives a value or its one documented error; the framer and the dialog table
raise nothing; a stream gives the same messages however it is cut.
"""

import random
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tapdeck.sip.dialog import Dialogs  # noqa: E402
from tapdeck.sip.message import Framer, Message, SipError, parse  # noqa: E402
from tapdeck.sip.sdp import SdpError, session_description  # noqa: E402
from tapdeck.sip.sdp import parse as parse_sdp  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402

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
    b"REFER sip:a@x SIP/2.0\r\nf: <sip:b@x>;tag=b\r\nt: <sip:a@x>;tag=a\r\ni: c\r\nCSeq: 5 REFER\r\n"
    b"Refer-To: <sip:d@x?Replaces=c%40h%3Bto-tag%3Db%3Bfrom-tag%3Da&Require=replaces>\r\n\r\n",
    b"NOTIFY sip:b@x SIP/2.0\r\nf: <sip:a@x>;tag=a\r\nt: <sip:b@x>;tag=b\r\ni: c\r\nCSeq: 6 NOTIFY\r\n"
    b"Event: refer;id=5\r\nc: message/sipfrag;version=2.0\r\n\r\nSIP/2.0 200 OK\r\n",
    b"SIP/2.0 302 Moved\r\nf: <sip:a@x>;tag=a\r\nt: <sip:b@x>;tag=b\r\ni: c\r\nCSeq: 1 INVITE\r\n"
    b"Contact: <sip:d@x>;q=0.5, <tel:+31-20>\r\n\r\n",
    b"INVITE sip:d@x SIP/2.0\r\nf: <sip:a@x>;tag=q\r\nt: <sip:d@x>\r\ni: e\r\nCSeq: 1 INVITE\r\n"
    b"Replaces: c;early-only\r\nJoin: c\r\nReferred-By: <sip:b@x>\r\n"
    b"History-Info: <sip:b@x?Reason=SIP%3Bcause%3D302>;index=1,"
    b'<sip:d@x;cause=302>;index=1.1;mp=1\r\nP-Charging-Vector: icid-value="abcdefgh"\r\nX-Call-ID: cccccccc\r\n'
    b"Require: siprec\r\nc: multipart/mixed;boundary=q\r\n\r\n--q\r\n\r\n<rec:recording xmlns:rec='x'>"
    b"<participant><nameID aor='sip:1@x'><name>A &amp; B</name></nameID></participant></rec:recording>\r\n--q--\r\n",
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


def check(rng: random.Random) -> None:
    """A dialog's worth of damaged messages, and now and then a stream of them."""
    dialogs = Dialogs(limit=rng.choice([1, 200]))
    for step in range(1, 25):
        data = mutate(rng.choice(SEEDS), rng, SEEDS, TOKENS)
        check_message(data, dialogs, step * 10_000_000)
        with suppress(SdpError):
            parse_sdp(data)
    dialogs.finish()
    pieces = [rng.choice(SEEDS), mutate(rng.choice(SEEDS), rng, SEEDS, TOKENS), rng.choice(SEEDS)]
    check_stream(b"".join(pieces), rng)


if __name__ == "__main__":
    sys.exit(main(check))
