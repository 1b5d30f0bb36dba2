"""Fuzz payload formats and decoders: `python tests/fuzz/fuzz_codecs.py [seconds [seed]]`.

The law: whatever a payload is, it has a bounded number of frames, none longer than what it is made of; its decoder
gives exactly the samples that were foretold, and never raises; what is called broken has no sound; headers of redundant
audio name only what is there; listening for the packing of G.726 gives one of both ways.
"""

import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import numpy as np  # noqa: E402

from tapdeck.rtp.codecs import MAX_RATE, Codec, codec  # noqa: E402
from tapdeck.rtp.decoder import Decoder  # noqa: E402
from tapdeck.rtp.frames import MAX_FRAMES, broken, frames, samples  # noqa: E402
from tapdeck.rtp.packing import true_packing  # noqa: E402
from tapdeck.rtp.red import HEAD, blocks  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402

NAMES = [
    ("G722", 8000, 1, ""), ("G729", 8000, 1, "annexb=no"), ("GSM", 8000, 1, ""), ("G723", 8000, 1, ""),
    ("G726-16", 8000, 1, ""), ("G726-24", 8000, 1, ""), ("AAL2-G726-32", 8000, 1, ""), ("G726-40", 8000, 1, ""),
    ("OPUS", 48000, 2, "stereo=1"), ("AMR", 8000, 1, ""), ("AMR", 8000, 1, "octet-align=1"), ("AMR-WB", 16000, 1, ""),
    ("AMR-WB", 16000, 1, "octet-align=1"), ("ILBC", 8000, 1, "mode=20"), ("ILBC", 8000, 1, "mode=30"),
    ("SPEEX", 8000, 1, ""), ("SPEEX", 16000, 1, ""), ("SPEEX", 32000, 1, ""), ("L16", 44100, 2, ""),
    ("L16", 8000, 1, ""), ("PCMU", 16000, 1, ""),
]  # fmt: skip
SEEDS = [
    b"\xd0" + bytes(32),
    bytes(20),
    bytes(38),
    bytes(50),
    b"\xf0\x3c" + bytes(31),
    b"\x7e" + bytes(70),
    b"\x36" * 70,
]


def described(rng: random.Random) -> Codec | None:
    """A codec as SDP names it, or nearly so."""
    name, rate, channels, fmtp = rng.choice(NAMES)
    if rng.random() < 0.2:
        rate, channels = rng.choice([0, 1, 7999, 8000, 48000, 10**6]), rng.choice([0, 1, 2, 255])
        fmtp = mutate(fmtp.encode() + b";octet-align=1;crc=1", rng, [b"mode="]).decode("latin-1")
    return codec(name, rate, channels, fmtp)


def sizes(data: bytes, one: Codec) -> tuple[np.ndarray, np.ndarray]:
    """One packet of all of it: its size and how many samples it holds."""
    size = np.array([len(data)], dtype=np.int64)
    return size, size * 8 // one.bits


def check(rng: random.Random) -> None:
    """A few packets of one codec, one after the other."""
    one = described(rng)
    payload = mutate(rng.choice(SEEDS), rng, SEEDS)[:1500]
    found = blocks(payload[: HEAD + 1], len(payload))
    assert all(block.start + block.size <= len(payload) and block.size >= 0 for block in found)
    if one is None:
        return
    assert 0 < one.rate <= MAX_RATE
    assert one.rate % one.clock == 0
    payloads = [payload, *(mutate(payload, rng, SEEDS)[:1500] for _ in range(rng.randint(0, 4)))]
    for data in payloads:
        taken = frames(one, data)
        assert len(taken) <= MAX_FRAMES
        assert sum(len(frame.data) for frame in taken) <= 2 * len(data) + 2 * len(taken)
        assert not (broken(one, data) and samples(one, data))
        assert samples(one, data) <= max(16 * len(data), MAX_FRAMES * 1440, 5760)
    sounding = [data for data in payloads if samples(one, data)]
    count = np.array([samples(one, data) for data in sounding], dtype=np.int64)
    if sounding and "G726" in one.name:
        whole = b"".join(data[: len(data) // one.unit * one.unit] for data in sounding) * 50
        heard = true_packing(one, [np.frombuffer(whole, dtype=np.uint8)])
        assert len(Decoder(heard).decode(np.frombuffer(whole, dtype=np.uint8), *sizes(whole, heard))) > 0 or not whole
        assert (heard.bits, heard.unit, heard.clock) == (one.bits, one.unit, one.clock)
    if sounding:
        size = np.array([len(data) for data in sounding], dtype=np.int64)
        joined = np.frombuffer(b"".join(sounding), dtype=np.uint8)
        assert len(Decoder(one).decode(joined, size, count)) == count.sum()


if __name__ == "__main__":
    sys.exit(main(check))
