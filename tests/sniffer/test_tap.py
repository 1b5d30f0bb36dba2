"""Several rings as one source: the order of time, whatever each visit showed, and nothing lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sniffer.records import Records
from tapdeck.sniffer.tap import Interleave, merged_records
from tests.support.live import block

PATIENCE = 100
FAR = 1 << 60


def named(name: str, times: list[int], link: int = 1) -> Records:
    """Frames that say whose they are and when they came, of different lengths."""
    return block([(time, f"{name}{time}".encode() + bytes(time % 7)) for time in times], link)


def told(records: Records | None) -> list[tuple[int, str]]:
    if records is None:
        return []
    frames = zip(records.time.tolist(), records.offset.tolist(), records.length.tolist(), strict=True)
    return [
        (time, records.data[offset : offset + length].tobytes().rstrip(b"\0").decode())
        for time, offset, length in frames
    ]


def test_frames_go_out_once_every_interface_has_shown_what_it_had() -> None:
    tap = Interleave(PATIENCE)
    assert told(tap.take([named("a", [1, 5]), named("b", [2, 9])], now=10)) == [(1, "a1"), (2, "b2"), (5, "a5")]
    assert told(tap.take([named("a", [7, 12]), named("b", [11])], now=13)) == [(7, "a7"), (9, "b9"), (11, "b11")]


def test_a_quiet_interface_is_waited_for_only_so_long() -> None:
    tap = Interleave(PATIENCE)
    assert tap.take([named("a", [1000, 1050]), None], now=1060) is None
    assert told(tap.take([None, None], now=1110)) == [(1000, "a1000")]
    assert told(tap.take([None, named("b", [1040])], now=1150)) == [(1040, "b1040"), (1050, "a1050")]
    assert tap.take([None, None], now=FAR) is None


def test_frames_of_one_time_stay_in_the_order_of_the_interfaces() -> None:
    tap = Interleave(PATIENCE)
    assert [name for _, name in told(tap.take([named("a", [5, 5]), named("b", [5])], now=FAR))] == ["a5", "a5", "b5"]


def test_memory_of_the_rings_is_not_needed_any_more_afterwards() -> None:
    tap = Interleave(PATIENCE)
    first = named("a", [10, 20])
    tap.take([first, None], now=30)
    first.data[:] = 0xEE
    assert told(tap.take([None, None], now=FAR)) == [(10, "a10"), (20, "a20")]


def test_lengths_links_and_padding_are_kept() -> None:
    one, two = named("a", [1, 4], link=1), named("b", [2, 3], link=113)
    one.wire[1] = 1500
    merged = merged_records([one, two])
    assert told(merged) == [(1, "a1"), (2, "b2"), (3, "b3"), (4, "a4")]
    assert merged.link.tolist() == [1, 113, 113, 1]
    assert merged.wire.tolist() == [one.length[0], two.length[0], two.length[1], 1500]
    assert (np.diff(merged.offset) >= 0).all()
    end = int(merged.offset[-1] + merged.length[-1])
    assert len(merged.data) - end >= 256
    assert not merged.data[end:].any()


VISIT = st.lists(st.integers(0, 40), max_size=6)


@given(visits=st.lists(st.tuples(VISIT, VISIT, VISIT), max_size=8))
def test_every_frame_goes_out_once_and_in_order_while_rings_keep_their_promise(
    visits: list[tuple[list[int], list[int], list[int]]],
) -> None:
    """A ring that is asked at a time has shown everything older than the patience by then."""
    tap, now = Interleave(PATIENCE), 0
    sent: list[tuple[int, str]] = []
    got: list[tuple[int, str]] = []
    for visit in visits:
        now += 50
        read = []
        for name, offsets in zip("abc", visit, strict=True):
            times = sorted(now - 50 + offset for offset in offsets)
            sent += [(time, f"{name}{time}") for time in times]
            read.append(named(name, times) if times else None)
        got += told(tap.take(read, now))
    got += told(tap.take([None, None, None], FAR))
    assert sorted(got) == sorted(sent)
    assert [time for time, _ in got] == sorted(time for time, _ in sent)
