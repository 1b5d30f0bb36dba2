"""For any mix of loss, reordering and doubling: the sound that arrived is where it belongs, whatever else happened."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import files
from tests.support.ip import Packet
from tests.support.media import MS, Rtp, in_time
from tests.support.recipes import SPARED
from tests.support.record import assert_sound, record
from tests.support.scene import START_NS, Scene, in_order, plain_call

CALLS_A_RUN = 12
PACKETS = 50

FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Network:
    """What happens to each packet of a side: its delay in milliseconds for every copy that arrives."""

    arrivals: tuple[tuple[int, ...], ...]

    def carry(self, side: tuple[Rtp, ...]) -> tuple[Rtp, ...]:
        """The side's packets as they arrive; the first and the last as they are: fixed points."""
        rest = zip(side[1:-SPARED], self.arrivals, strict=False)
        copies = (replace(packet, time_ns=packet.time_ns + delay * MS) for packet, delays in rest for delay in delays)
        return in_time((side[0], *copies, *side[-SPARED:]))


FATES = st.one_of(
    st.just((0,)),
    st.just(()),
    st.tuples(st.integers(1, 90)),
    st.tuples(st.integers(0, 90), st.integers(0, 90)),
)
NETWORKS = st.lists(FATES, min_size=PACKETS, max_size=PACKETS).map(tuple).map(Network)
STARTS = st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1))


def calls(networks: list[Network], starts: list[tuple[int, int]]) -> list[Scene]:
    scenes = []
    for seed, (seq, ts) in enumerate(starts, start=1):
        scene = plain_call(seed, start_ns=START_NS + seed * 3 * MS, seq=seq, ts=ts)
        left, right = networks[2 * seed - 2].carry(scene.left), networks[2 * seed - 1].carry(scene.right)
        scenes.append(replace(scene, left=left, right=right))
    return scenes


def assert_recorded(packets: list[Packet], scenes: list[Scene]) -> None:
    with TemporaryDirectory() as folder:
        result = record(Path(folder) / "out", files.write(Path(folder), files.pcap(packets, nano=True)))
        assert result.code == 0, result.stderr
        found = result.by_call_id()
        for scene in scenes:
            assert_sound(found[scene.call_id], *scene.channels())


@given(
    networks=st.lists(NETWORKS, min_size=2 * CALLS_A_RUN, max_size=2 * CALLS_A_RUN),
    starts=st.lists(STARTS, min_size=CALLS_A_RUN, max_size=CALLS_A_RUN),
)
@FEW
def test_any_network(networks: list[Network], starts: list[tuple[int, int]]) -> None:
    scenes = calls(networks, starts)
    assert_recorded(in_order(*(scene.packets() for scene in scenes)), scenes)


@given(seed=st.integers(0, 2**32), window=st.integers(2, 40), doubled=st.booleans())
@FEW
def test_records_shuffled_or_doubled_in_the_file(seed: int, window: int, doubled: bool) -> None:
    """The order of the file's records says nothing: their times do. A record may stand there twice."""
    scenes = [plain_call(number, start_ns=START_NS + number * 3 * MS) for number in range(1, 5)]
    packets = in_order(*(scene.packets() for scene in scenes))
    packets = [packet for packet in packets for _ in range(1 + doubled)]
    shuffle = random.Random(seed)
    order = sorted(range(len(packets)), key=lambda n: n + shuffle.uniform(0, window))
    assert_recorded([packets[n] for n in order], scenes)
