"""Several captures as one against sorted()."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tapdeck.sniffer.datagrams import Datagrams, Fate, SlowPacket
from tapdeck.sniffer.merge import Input, merge
from tests.sniffer.test_streams import columns

Event = tuple[int, bool]
"""(time, whether it is a message)."""


def datagrams(events: list[Event], source: int) -> Datagrams:
    """A block; each packet says in its port which source it came from."""
    media = [time for time, message in events if not message]
    slow = [
        SlowPacket(time, Fate.TEXT, "192.0.2.1", "192.0.2.2", source, 5060, b"x") for time, message in events if message
    ]
    fates = np.zeros(len(Fate), dtype=np.int64)
    fates[Fate.RTP], fates[Fate.TEXT] = len(media), len(slow)
    times = [time for time, _ in events]
    rtp = columns([(time, (1, 2, source, 7)) for time in media])
    return Datagrams(rtp, slow, fates, min(times), max(times), len(events), cut=len(media))


SOURCES = st.lists(
    st.tuples(
        st.lists(st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=8), max_size=5),
        st.booleans(),
    ),
    max_size=4,
)


@settings(max_examples=200)
@given(sources=SOURCES)
def test_any_sources_come_out_in_the_order_of_time(
    sources: list[tuple[list[list[Event]], bool]],
) -> None:
    """Each source keeps order over its blocks; some do not say when they begin (a pipe)."""
    inputs, everything = [], []
    for number, (blocks, tells) in enumerate(sources, 1):
        flat = sorted(event for block in blocks for event in block)
        sizes = [len(block) for block in blocks]
        cut = [flat[sum(sizes[:k]) : sum(sizes[: k + 1])] for k in range(len(sizes))]
        everything += [(time, message, number) for time, message in flat]
        first = flat[0][0] if tells and flat else -(1 << 62)
        inputs.append(Input(first, lambda cut=cut, number=number: (datagrams(block, number) for block in cut)))  # type: ignore[misc]
    out = list(merge(inputs))
    media = [
        (int(time), int(ports)) for block in out for time, ports in zip(block.rtp.time, block.rtp.ports, strict=True)
    ]
    messages = [(packet.time, packet.source_port) for block in out for packet in block.slow]
    assert sorted(media) == sorted((time, number) for time, message, number in everything if not message)
    assert sorted(messages) == sorted((time, number) for time, message, number in everything if message)
    assert [time for time, _ in media] == sorted(time for time, _ in media)
    assert [time for time, _ in messages] == sorted(time for time, _ in messages)
    assert sum(block.frames for block in out) == sum(int(block.fates.sum()) for block in out) == len(everything)
    assert sum(block.cut for block in out) == len(media)
    reached = -1
    for block in out:
        times = [*block.rtp.time.tolist(), *(packet.time for packet in block.slow)]
        assert all(reached <= time <= block.last for time in times)
        assert all(block.first <= time for time in times)
        reached = max([reached, *times])


def test_captures_that_do_not_overlap_are_passed_on_unchanged() -> None:
    early, late = datagrams([(1, False), (5, True)], 1), datagrams([(6, False), (9, False)], 2)
    inputs = [Input(6, lambda: [late]), Input(1, lambda: [early])]
    assert list(map(id, merge(inputs))) == [id(early), id(late)]


def test_a_capture_is_not_opened_before_its_time_comes() -> None:
    """A hundred files of a day: at most the overlapping ones are open at once."""
    opened: list[int] = []

    def opening(number: int) -> list[Datagrams]:
        opened.append(number)
        return [datagrams([(number * 10, False), (number * 10 + 5, False)], number)]

    merged = merge([Input(number * 10, lambda number=number: opening(number)) for number in range(1, 5)])  # type: ignore[misc]
    next(merged)
    assert opened == [1]
    assert len(list(merged)) == 3
    assert opened == [1, 2, 3, 4]
