"""Fuzz the columns: `python tests/fuzz/fuzz_columns.py [seconds [seed]]`.

The law: every frame has one fate; what is called RTP lies in its frame behind IP, UDP and RTP headers. A frame's fate
and fields do not depend on the frames beside it.
"""

import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop  # noqa: E402
from scapy.packet import Raw  # noqa: E402

from tapdeck.sniffer.columns import Columns  # noqa: E402
from tapdeck.sniffer.datagrams import RTP_FIELDS, Fate  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402
from tests.sniffer.frames import LINK_LAYERS, LINKS, POSITION, TUNNELS, block, media  # noqa: E402

_BODY = media("1.1.1.1", "1.1.1.2", sources=1, extension=bytes(4), padding=3, payload=bytes(40)).wire
_INNER = [
    IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=9, dport=8) / Raw(_BODY),
    IPv6(src="::1", dst="::2") / IPv6ExtHdrHopByHop() / UDP(sport=9, dport=8) / Raw(_BODY),
]
SEEDS = [(link, show(packet)) for link, show in LINK_LAYERS.values() for packet in _INNER]
SEEDS += [(101, bytes(tunnel(packet))) for tunnel in TUNNELS.values() for packet in _INNER]
FRAMES = [frame for _, frame in SEEDS]
TOKENS = [b"\0", b"\xff", b"\x45", b"\x60", b"\x81\0", b"\x88\x47", b"\x08\0", b"\x86\xdd", b"\x11", b"\x2f", b"\x2c"]


def check(rng: random.Random) -> None:
    """A block of damaged frames, together and one by one."""
    frames, links = [], []
    for _ in range(rng.randint(1, 12)):
        link, frame = rng.choice(SEEDS)
        frames.append(mutate(frame, rng, FRAMES, TOKENS))
        links.append(link if rng.random() < 0.9 else rng.choice(LINKS))
    packets = block(frames, links)
    found = Columns().read(packets)
    assert int(found.fates.sum()) == len(frames), "the fates do not add up"
    assert found.fates[Fate.UNSEEN] == 0
    alone = {name: [] for name in RTP_FIELDS}  # type: dict[str, list[object]]
    for frame, link, start in zip(frames, links, packets.offset.tolist(), strict=True):
        single = Columns().read(block([frame], link))
        for row in range(len(single.rtp)):
            place = int(single.rtp.position[row]) - POSITION - 16
            assert 40 <= place <= place + int(single.rtp.size[row]) <= len(frame), "a payload outside of its frame"
            alone["position"].append(start + place + POSITION)
            for name in set(RTP_FIELDS) - {"position", "time"}:
                alone[name].append(getattr(single.rtp, name)[row])
    for name in set(RTP_FIELDS) - {"time"}:
        assert getattr(found.rtp, name).tolist() == alone[name], f"neighbours change {name}"


if __name__ == "__main__":
    sys.exit(main(check))
