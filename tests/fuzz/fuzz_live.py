"""Fuzz live capture: `python tests/fuzz/fuzz_live.py [seconds [seed]]`.

The law: whatever frames come, in whatever visits, none is unaccounted for, no call's file is left behind, and all files
can be sealed.
"""

import random
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tapdeck.sniffer.engine import Limits  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402
from tests.support import ip, recipes  # noqa: E402
from tests.support.ip import Packet  # noqa: E402
from tests.support.live import Capture, seal  # noqa: E402
from tests.support.media import MS  # noqa: E402
from tests.support.scene import each_packet, in_order, plain_call  # noqa: E402

CALLS = [
    plain_call(1, duration_ms=300).packets(),
    plain_call(1, six=True, duration_ms=300).packets(),
    plain_call(2, duration_ms=300).packets_over_tcp(seed=3, swap=True),
    recipes.behind_nat(1).packets(),
    recipes.relayed(1).packets(),
    recipes.forked(1).packets(),
    recipes.held(1).packets(),
    in_order(*(leg.packets() for leg in recipes.two_legs(1))),
    each_packet(plain_call(3, duration_ms=300).packets(), lambda packet: ip.fragments(packet, len(packet), 200)),
]
BYTES = [packet.ip for call in CALLS for packet in call]
TOKENS = [
    b"\0",
    b"\xff",
    b"\r\n",
    b":",
    b";tag=",
    b"10.0.1.12",
    b"10000",
    b"INVITE",
    b"BYE",
    b"SIP/2.0 200 OK",
    b"\x80\x08",
]


def traffic(rng: random.Random) -> list[Packet]:
    """A few calls with frames lost, doubled, late and changed."""
    packets = []
    for call in rng.sample(CALLS, rng.randint(1, 3)):
        shift, worn = rng.randint(0, 4000) * MS, rng.choice([0.0, 0.02, 0.3])
        for packet in call:
            for _ in range(0 if rng.random() < worn else 2 if rng.random() < worn else 1):
                late = rng.randint(0, 3000) * MS if rng.random() < worn else 0
                data = mutate(packet.ip, rng, BYTES, TOKENS)[:3000] or b"\0" if rng.random() < worn else packet.ip
                packets.append(replace(packet, time_ns=packet.time_ns + shift + late, ip=data))
    return sorted(packets, key=lambda packet: packet.time_ns)


def check(rng: random.Random) -> None:
    """One capture, with tables so small that they fill now and then."""
    packets = traffic(rng)
    small = Limits(
        max_calls=rng.choice([1, 3, 100]), max_streams=rng.choice([3, 100]), memory=rng.choice([3000, 1 << 20])
    )
    folder = Path(tempfile.mkdtemp(prefix="tapdeck-fuzz-"))
    try:
        with Capture(folder, limits=small, new_calls_per_s=rng.choice([1, 100])) as capture:
            while packets:
                count = rng.choice([1, 3, 50])
                capture.hear(packets[:count], wrapping=rng.choice(["ethernet", "raw_ip", "vlan"]))
                del packets[:count]
                if rng.random() < 0.05:
                    capture.rest(rng.choice([1, 6, 40]))
        seal(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main(check))
