"""What decryption costs: packets a second of each SRTP suite, and what it adds to `tapdeck record`.

    python bench/srtp.py
    python bench/srtp.py --packets 500000

Packets are of 160 bytes of sound. The first figure is that of the decryption alone, in batches as a recording has them;
pylibsrtp, one packet at a time, is measured beside it in the same run for the suites that it has. The second is the CPU
of `tapdeck record` on a capture of calls, in the clear and encrypted. Everything is single-threaded, CPU time.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "src")]

import numpy as np  # noqa: E402
from pylibsrtp import Policy, Session  # noqa: E402

from bench.throughput import best, compiled, record  # noqa: E402
from tapdeck.rtp.rollover import Opener  # noqa: E402
from tapdeck.rtp.srtp import SUITES, Master, Packets  # noqa: E402
from tapdeck.storage.unlock import BATCH  # noqa: E402
from tests.rtp.test_srtp import protect  # noqa: E402
from tests.support import files, srtp  # noqa: E402
from tests.support.scene import in_order, plain_call  # noqa: E402

SSRC = 0xCAFE
RUNS = 3
CALLS, SECONDS = 20, 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packets", type=int, default=200_000)
    count = parser.parse_args().packets
    print(f"{'suite':<28} {'packets/s':>12} {'pylibsrtp':>12}")
    for name in SUITES:
        sent, key = encrypted(name, count)
        theirs = f"{rate(theirs_of, sent, key):,.0f}" if name in srtp.PROFILES else "-"
        print(f"{name:<28} {rate(ours_of, sent, key):>12,.0f} {theirs:>12}")
    recorded()
    return 0


def rate(work: Callable[[list[bytes], Master], None], sent: list[bytes], key: Master) -> float:
    """Packets a CPU-second, the best of some runs."""
    return max(_rate(work, sent, key) for _ in range(RUNS))


def _rate(work: Callable[[list[bytes], Master], None], sent: list[bytes], key: Master) -> float:
    begin = time.process_time()
    work(sent, key)
    return len(sent) / (time.process_time() - begin)


def encrypted(name: str, count: int) -> tuple[list[bytes], Master]:
    suite, rng = SUITES[name], random.Random(1)
    key = Master(suite, rng.randbytes(suite.key), rng.randbytes(suite.salt))
    plain = [
        struct.pack(">BBHII", 0x80, 8, n & 0xFFFF, n * 160 & 0xFFFFFFFF, SSRC) + rng.randbytes(160)
        for n in range(count)
    ]
    if name not in srtp.PROFILES:
        return [protect(key, packet, 12, n) for n, packet in enumerate(plain)], key
    session = Session(policy(key, Policy.SSRC_ANY_OUTBOUND))
    return [session.protect(packet) for packet in plain], key


def policy(key: Master, way: int) -> Policy:
    return Policy(key=key.key + key.salt, ssrc_type=way, srtp_profile=srtp.PROFILES[key.suite.name][0])


def ours_of(sent: list[bytes], key: Master) -> None:
    opener, found = Opener([key]), 0
    for start in range(0, len(sent), BATCH):
        part = sent[start : start + BATCH]
        size = np.array([len(packet) for packet in part], dtype=np.int64)
        sequence = (np.arange(len(part)) + start) & 0xFFFF
        packets = Packets(b"".join(part), np.cumsum(size) - size, np.full(len(part), 12), size, sequence, SSRC)
        found += sum(len(opened.rows) for opened in opener.open(packets))
    assert found == len(sent)


def theirs_of(sent: list[bytes], key: Master) -> None:
    session = Session(policy(key, Policy.SSRC_ANY_INBOUND))
    for packet in sent:
        session.unprotect(packet)


def recorded() -> None:
    """The whole way, in the clear and encrypted."""
    scenes = [plain_call(number, duration_ms=SECONDS * 1000) for number in range(1, CALLS + 1)]
    keys = srtp.Key(1), srtp.Key(2)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clear = files.write(
            folder, files.pcap(in_order(*(scene.packets() for scene in scenes)), nano=True), "clear.pcap"
        )
        locked = [
            srtp.packets(
                srtp.announced(scene, keys[:1], keys[1:]),
                srtp.lock(scene.left, keys[0]),
                srtp.lock(scene.right, keys[1]),
            )
            for scene in scenes
        ]
        secret = files.write(folder, files.pcap(in_order(*locked), nano=True), "secret.pcap")
        compiled()
        for path in (clear, secret):
            runs = [record(path, folder / f"{path.stem}{number}") for number in range(RUNS)]
            run = best(path.stem, runs, folder / "log")
            found = len(list((folder / f"{path.stem}0").rglob("*.wav")))
            print(f"tapdeck record, {path.stem}: {run.cpu:.2f} CPU-seconds, {found} recordings of {SECONDS} s")


if __name__ == "__main__":
    sys.exit(main())
