"""Fuzz the session descriptions: `python tests/fuzz/fuzz_sdp.py [seconds [seed]]`.

The law: any body gives a description with ports, payload types and lists within their bounds, or `SdpError`; lines that
make no sense do not change what the others say.
"""

import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from contextlib import suppress  # noqa: E402

from tapdeck.sip.sdes import MAX_LINES, MAX_MKI  # noqa: E402
from tapdeck.sip.sdp import MAX_FORMATS, MAX_MEDIA, SdpError, parse  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402
from tests.support.ip import Endpoint  # noqa: E402
from tests.support.signalling import sdp  # noqa: E402

SEEDS = [
    sdp(Endpoint("192.0.2.1", 4000), pts=(8, 0, 101)).encode(),
    sdp(Endpoint("2001:db8::1", 4000), direction="inactive").encode(),
    b"v=0\r\no=- 1 1 IN IP4 h\r\ns=-\r\nc=IN IP4 192.0.2.1/127\r\nb=AS:64\r\nt=0 0\r\na=sendonly\r\na=ptime:30\r\n"
    b"m=audio 4000/2 RTP/SAVPF 96 0\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\n"
    b"a=rtcp:4001 IN IP4 192.0.2.9\r\na=rtcp-mux\r\na=fingerprint:sha-256 AA\r\na=crypto:1 AES inline:x\r\n"
    b"a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20|1:4 KDR=2 WSH=64\r\n"
    b"a=candidate:1 1 UDP 1 192.0.2.1 5000 typ host\r\nm=video 0 RTP/AVP 31\r\nm=image 5 udptl t38\r\n",
]
TOKENS = [
    b"\r\n",
    b"\n",
    b"=",
    b" ",
    b"/",
    b":",
    b"m=audio ",
    b"c=IN IP4 ",
    b"a=crypto:1 AEAD_AES_128_GCM inline:",
    b"|1:4;inline:",
    b"a=rtpmap:",
    b"9" * 30,
    b"-1",
    b"\xff",
    b"\0",
]
NONSENSE = [b"zzz\r\n", b"= \r\n", b"q\r\n", b"?=x\r\n", b"a=unheard-of:1\r\n"]


def check(rng: random.Random) -> None:
    """A damaged body, and a good one with nonsense between its lines."""
    with suppress(SdpError):
        found = parse(mutate(rng.choice(SEEDS), rng, SEEDS, TOKENS))
        assert len(found.media) <= MAX_MEDIA
        for media in found.media:
            assert 0 <= media.port <= 0xFFFF
            assert len(media.formats) <= MAX_FORMATS
            assert all(0 <= number <= 127 for number in media.formats)
            assert all(format.rate >= 0 and format.channels >= 0 for format in media.formats.values())
            assert all(0 <= port <= 0xFFFF for _, port in media.candidates)
            assert media.ptime >= 0
            assert len(media.crypto) <= MAX_LINES
            for key in (key for line in media.crypto for key in line.keys):
                assert (len(key.salt), len(key.mki) <= MAX_MKI) in ((14, True), (12, True))
    good = rng.choice(SEEDS)
    lines = good.splitlines(keepends=True)
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(NONSENSE))
    assert parse(b"".join(lines)) == parse(good), "a line that makes no sense changes the others"


if __name__ == "__main__":
    sys.exit(main(check))
