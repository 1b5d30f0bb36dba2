"""Fuzz what becomes of RTCP: `python tests/fuzz/fuzz_rtcp.py [seconds [seed]]`.

The law: whatever a datagram holds, taking it apart raises nothing; whatever is reported, a call's tables stay within
their bounds, and no way there and back is negative or endless.
"""

import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tapdeck.rtp.rtcp import parse  # noqa: E402
from tapdeck.sniffer.reports import LONGEST_S, MAX_FLOWS, MAX_STAMPS, Ends, Reports  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402
from tests.support import rtcp  # noqa: E402

SECOND = 1_000_000_000
START = 1_772_445_600 * SECOND


def check(rng: random.Random) -> None:
    """Two hundred datagrams, most of them sound, between a few ends."""
    reports, now = Reports(), START
    ends: list[Ends] = [((1, 2), (3, 4)), ((3, 4), (1, 2)), ((1, 2), (5, 6))]
    sent: list[int] = [0]
    texts = [rtcp.sender(1, now)]
    for _ in range(200):
        now += rng.choice([1, SECOND // 50, SECOND, 100 * SECOND, -SECOND])
        ssrc = rng.choice([1, 2, rng.randrange(1 << 32)])
        block = rtcp.block(
            rng.choice([1, 2, rng.randrange(1 << 32)]),
            rng.randrange(-(1 << 23), 1 << 23),
            rng.randrange(1 << 32),
            rng.choice(sent),
            rng.choice([0.0, 0.5, 65_535.9]),
        )
        sent = [*sent[-50:], rtcp.middle(now)]
        text = rng.choice([rtcp.sender(ssrc, now, block), rtcp.receiver(ssrc, block)]) + rtcp.description(ssrc)
        text += rtcp.extended(ssrc, rtcp.voip_metrics(rng.randrange(4)), rtcp.reference_time(now))
        texts = [*texts[-20:], text]
        report = parse(mutate(text, rng, texts) if rng.random() < 0.4 else text)
        if report is not None:
            reports.add(rng.choice(ends), now, report)
    for table in (reports.trips, reports.receptions, reports.voip, reports._stamps):
        assert len(table) <= MAX_FLOWS, "a table has grown without bound"
    assert all(len(stamps) <= MAX_STAMPS for stamps in reports._stamps.values())
    assert all(0 <= ms <= LONGEST_S * 1000 for trips in reports.trips.values() for ms in trips.ms)


if __name__ == "__main__":
    sys.exit(main(check))
