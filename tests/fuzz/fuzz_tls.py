"""Fuzz TLS and DTLS: `python tests/fuzz/fuzz_tls.py [seconds [seed]]`.

The law: whatever bytes cross the wire, in whatever pieces, with holes, late keys and changed bytes, nothing raises,
what waits is bounded, and nothing is said that was not said. An untouched stream says all of it.
"""

import random
import sys
import tempfile
from functools import cache
from pathlib import Path
from ssl import TLSVersion

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tapdeck.sip.message import may_begin_sip  # noqa: E402
from tapdeck.sniffer.datagrams import Fate, SlowPacket  # noqa: E402
from tapdeck.sniffer.dtls import Handshakes, masters  # noqa: E402
from tapdeck.sniffer.reassembly import Stretch  # noqa: E402
from tapdeck.sniffer.tls.hello import client_hello, server_hello  # noqa: E402
from tapdeck.sniffer.tls.records import Cutter  # noqa: E402
from tapdeck.sniffer.tls.secrets import Secrets  # noqa: E402
from tapdeck.sniffer.tls.streams import MAX_TOTAL, SECOND, TlsStreams  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402
from tests.support.tls import CLIENT, SERVER, Flight, Talk  # noqa: E402

ENDS = (("192.0.2.1", 40_000, "192.0.2.2", 5061), ("192.0.2.2", 5061, "192.0.2.1", 40_000))
KINDS = [
    (TLSVersion.TLSv1_3, ""),
    (TLSVersion.TLSv1_2, "AES128-GCM-SHA256"),
    (TLSVersion.TLSv1_2, "AES256-SHA"),
    (TLSVersion.TLSv1_2, "ECDHE-RSA-CHACHA20-POLY1305"),
]
TOKENS = [b"\x16\x03\x03", b"\x17\x03\x03\0\x20", b"\x14\x03\x03\0\x01\x01", b"\0", b"\xff"]
CLIENT_HELLO = bytes.fromhex("16feff0000000000000000004d0100004100000000000000") + bytes(60)


@cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="tapdeck-fuzz-"))


@cache
def talked(kind: int) -> tuple[tuple[Flight, ...], bytes]:
    """A session with a few words, and the key log."""
    version, suite = KINDS[kind]
    talk = Talk(folder(), version, version, suite)
    flights = talk.shake_hands()
    for number in range(6):
        flights += talk.say(CLIENT, b"INVITE sip:%d SIP/2.0\r\n\r\n" % number)
        flights += talk.say(SERVER, b"SIP/2.0 20%d OK\r\n\r\n" % number)
    return tuple(flights), talk.log.read_bytes()


def check(rng: random.Random) -> None:
    """Connections, then hellos, records and lines on their own."""
    connection(rng)
    parts(rng)


def connection(rng: random.Random) -> None:
    flights, log = talked(rng.randrange(len(KINDS)))
    secrets = Secrets(wanted=True)
    tls = TlsStreams(secrets, frozenset({5061}), may_begin_sip)
    late, harm = rng.random() < 0.4, rng.random() < 0.7
    if not late:
        secrets.feed(log)
    heard, time = {CLIENT: b"", SERVER: b""}, 0
    everything = [data for _, data in flights]
    for number, (side, data) in enumerate(flights):
        gap = False
        if harm and rng.random() < 0.15:
            data, gap = mutate(data, rng, everything, TOKENS), rng.random() < 0.5
        if late and rng.random() < 0.1:
            secrets.feed(log)
        time += rng.choice((0, 1_000_000, SECOND if harm else 0))
        while data:
            size = rng.choice((1, 5, 40, 2000))
            stretch, data = Stretch(data[:size], gap), data[size:]
            if tls.knows(ENDS[side]) or tls.begins(Stretch(stretch.data + data, gap)):
                if number == 0 and not tls.knows(ENDS[side]):
                    stretch, data = Stretch(stretch.data + data, gap), b""
                for one in tls.take(ENDS[side], stretch, time):
                    heard[ENDS.index(one.connection)] += one.stretch.data
            gap = False
        for one in tls.catch_up(time):
            heard[ENDS.index(one.connection)] += one.stretch.data
    secrets.feed(log)
    for one in tls.catch_up(time):
        heard[ENDS.index(one.connection)] += one.stretch.data
    tls.finish()
    words = {
        CLIENT: [b"INVITE sip:%d SIP/2.0\r\n\r\n" % n for n in range(6)],
        SERVER: [b"SIP/2.0 20%d OK\r\n\r\n" % n for n in range(6)],
    }
    assert tls._total <= MAX_TOTAL
    for side, said in words.items():
        assert set(heard[side].split(b"\r\n\r\n")) <= {word[:-4] for word in said} | {b""}, "something nobody said"
        assert harm or heard[side] == b"".join(said), "an untouched stream lost something"


def parts(rng: random.Random) -> None:
    flights, log = talked(rng.randrange(len(KINDS)))
    data = mutate(rng.choice(flights)[1], rng, [one for _, one in flights], TOKENS)
    cutter = Cutter()
    size = sum(len(record.body) + 5 for record in cutter.feed(data))
    assert size + cutter.waiting + cutter.skipped == len(data), "a byte is not accounted for"
    client_hello(data, datagram=rng.random() < 0.5)
    server_hello(data)
    secrets = Secrets(limit=rng.choice((1, 100)))
    secrets.feed(mutate(log, rng, [log], [b"\n", b" "]))
    table = Handshakes()
    for number in range(6):
        side = rng.randrange(2)
        payload = mutate(CLIENT_HELLO, rng, [flights[0][1], CLIENT_HELLO], TOKENS)
        source, sport, target, port = ENDS[side]
        table.add(SlowPacket(number, Fate.DTLS, source, target, sport, port, payload))
    masters(table.of([((1, 2), (3, 4))]), (1, 2), secrets)


if __name__ == "__main__":
    sys.exit(main(check))
