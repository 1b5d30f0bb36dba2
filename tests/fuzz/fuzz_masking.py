"""Fuzz the masking of keys: `python tests/fuzz/fuzz_masking.py [seconds [seed]]`.

The law: whatever is pressed, said and sent, a call whose keys are masked is sealed; no event in what is kept has the
number of a key, no SIP body in it tells one, and what is kept is as long as what was captured.
"""

import random
import re
import shutil
import struct
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tapdeck.storage.hearing import Hearing  # noqa: E402
from tapdeck.storage.spool import DONE  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402
from tests.support.keys import KEYS, info, pressed, quiet, talking, with_keys  # noqa: E402
from tests.support.live import Capture, sealer  # noqa: E402
from tests.support.media import EVENT, MS, PCMA, PCMU, Rtp  # noqa: E402
from tests.support.scene import Scene, answered_ns, dialog, ended  # noqa: E402

RED = b"a=rtpmap:121 red/8000\r\na=rtpmap:96 telephone-event/8000\r\na=rtpmap:9 G722/8000\r\n"
FRAME = 14 + 20 + 8 + 12 + 4
"""Bytes of an Ethernet frame with four bytes of RTP payload."""


def events(data: bytes) -> list[int]:
    """The numbers of the events in a pcapng file."""
    found, place = [], 0
    while place < len(data):
        kind, size = struct.unpack_from("<II", data, place)
        if kind == 6 and struct.unpack_from("<I", data, place + 20)[0] == FRAME:
            rtp = data[place + 28 + FRAME - 16 : place + 28 + FRAME]
            found += [rtp[12]] if rtp[0] == 0x80 and rtp[1] & 0x7F in (96, EVENT) else []
        place += size
    return found


def told(text: bytes) -> bytes:
    """The session description with RED, another event and G.722 beside what it has."""
    head, gap, body = text.partition(b"\r\n\r\n")
    if b"m=audio" not in body:
        return text
    body = body.replace(b" 101\r\n", b" 101 121 96 9\r\n") + RED
    return re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head) + gap + body


def scene(rng: random.Random) -> Scene:
    keys = "".join(rng.choice(KEYS) for _ in range(4))
    sound, other = (
        with_keys(quiet(1.5, -50, rng.randrange(99)), keys[: rng.randint(0, 4)], at_s=rng.uniform(0.1, 0.6), ms=50)
        for _ in range(2)
    )
    said = [
        info(dialog(1), answered_ns() + rng.randint(0, 1400) * MS, f"Signal={key}\r\n", cseq=2 + n)
        for n, key in enumerate(keys[:2])
    ]
    made = talking(sound, other, 1, (rng.choice([PCMA, PCMU]), rng.choice([PCMA, PCMU])), said)
    left = pressed(made.left, rng.randint(5, 60), keys[0], pt=rng.choice([EVENT, 96]))
    return ended(
        replace(
            made,
            signals=tuple(replace(one, text=told(one.text)) for one in made.signals),
            left=tuple(worn(one, rng, left) for one in left),
            right=tuple(worn(one, rng, left) for one in made.right),
        )
    )


def worn(packet: Rtp, rng: random.Random, others: tuple[Rtp, ...]) -> Rtp:
    """The packet, now and then of another type, changed, late, or within RED."""
    choice = rng.random()
    if choice < 0.9:
        return packet
    if choice < 0.92:
        return replace(packet, pt=rng.choice([0, 8, 9, 13, 96, 101, 121]))
    if choice < 0.94:
        return replace(packet, payload=mutate(packet.payload, rng, [b"\x05\x0a\x00\xa0"])[:800])
    if choice < 0.96:
        return replace(packet, time_ns=packet.time_ns + rng.randint(0, 200) * MS, ts=rng.choice([packet.ts, 0]))
    other = rng.choice(others)
    head = ((0x80 | other.pt) << 24 | 160 << 10 | min(len(other.payload), 1023)).to_bytes(4, "big")
    return replace(packet, pt=121, payload=head + bytes([packet.pt]) + other.payload[:1023] + packet.payload)


def check(rng: random.Random) -> None:
    folder = Path(tempfile.mkdtemp(prefix="tapdeck-fuzz-"))
    try:
        with Capture(folder) as capture:
            capture.engine.mask_digits = rng.random() < 0.5
            capture.hear(scene(rng).packets(), size=rng.choice([10, 100]))
        maker = sealer(folder)
        maker.hearing, maker.keep_packets = Hearing(mask=True), True
        for path in capture.files_of(DONE):
            for recording in maker.seal(path):
                assert not recording.error, recording.error
                assert recording.plan.masked is not None
            for kept in (folder / "sealed").rglob("*_packets.pcapng"):
                data = kept.read_bytes()
                assert len(data) == path.stat().st_size
                assert not re.search(rb"Signal=[0-9A-D*#]", data)
                assert not [code for code in events(data) if code < 16], events(data)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main(check))
