"""Media that nobody has claimed yet: what is fetched, what is forgotten, what fits."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sniffer.blocks import packets
from tapdeck.sniffer.hold import NEVER, Found, Hold, Waiting
from tests.support.live import block

SIZE = 100
ROOM = 1 << 20


def chunk(rows: list[tuple[int, int]], taken: set[int] = frozenset(), frames: int = 1) -> Waiting:  # type: ignore[assignment]
    """Rows of (time, stream); each frame says which row it was: time, then stream."""
    records = block([(time, b"%04d %04d" % (time, stream) + bytes(SIZE)) for time, stream in rows])
    count = len(rows)
    blocks = packets(records, np.arange(count), np.zeros(count, dtype=np.uint32))
    return Waiting(
        blocks,
        np.array([stream for _, stream in rows], dtype=np.int32),
        np.array([time for time, _ in rows], dtype=np.int64),
        np.full(count, frames, dtype=np.uint8),
        np.array([n in taken for n in range(count)], dtype=bool),
    )


def times(found: list[Found]) -> list[int]:
    return [int(bytes(one.blocks.data[start + 28 : start + 32])) for one in found for start in one.blocks.start[:-1]]


def test_a_stream_is_fetched_from_a_time_to_another() -> None:
    hold = Hold(ROOM)
    hold.add(chunk([(1, 7), (2, 8), (3, 7)]))
    hold.add(chunk([(4, 7), (5, 8), (6, 7)]))
    found = hold.fetch(7, 3, 6)
    assert times(found) == [3, 4]
    assert [(one.first, one.frames, one.fresh, one.regained) for one in found] == [(3, 1, 1, NEVER), (4, 1, 1, NEVER)]
    assert hold.frames == 4


def test_what_a_call_has_already_can_be_fetched_by_another_but_is_not_counted_again() -> None:
    hold = Hold(ROOM)
    hold.add(chunk([(1, 7), (2, 7), (3, 7)], taken={1}, frames=3))
    assert hold.frames == 6
    (found,) = hold.fetch(7, 0, 10)
    assert (found.first, found.frames, found.fresh, found.regained) == (1, 9, 6, 2)
    assert hold.frames == 0
    (again,) = hold.fetch(7, 0, 10)
    assert (again.frames, again.fresh, again.regained) == (9, 0, 1)


def test_chunks_are_forgotten_when_all_of_them_is_too_old() -> None:
    hold = Hold(ROOM)
    hold.add(chunk([(1, 7), (5, 8)], taken={0}))
    hold.add(chunk([(6, 7), (9, 8)], frames=2))
    assert hold.expire(5) == 0
    assert hold.expire(6) == 1
    assert times(hold.fetch(7, 0, 10)) == [6]
    assert hold.finish() == 2
    assert (hold.size, hold.frames) == (0, 0)


def test_nothing_is_held_of_a_chunk_without_rows() -> None:
    hold = Hold(ROOM)
    hold.add(chunk([]))
    assert (hold.size, hold.frames, hold.expire(10)) == (0, 0, 0)


def test_what_a_call_has_already_gives_way_to_what_nobody_has() -> None:
    full = chunk([(n, n % 3) for n in range(30)], taken=set(range(20)))
    hold = Hold(full.size)
    hold.add(full)
    assert hold.room(full.size // 2)
    assert hold.frames == 10
    assert hold.size <= full.size // 2
    assert not hold.room(full.size)
    assert times(hold.fetch(0, 0, 30)) == [21, 24, 27]


CHUNKS = st.lists(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), max_size=8).map(sorted), max_size=8)


@given(chunks=CHUNKS, wanted=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(0, 50)), max_size=5))
def test_every_frame_is_fetched_or_forgotten_once(
    chunks: list[list[tuple[int, int]]], wanted: list[tuple[int, int, int]]
) -> None:
    hold = Hold(ROOM)
    for rows in chunks:
        hold.add(chunk(rows))
    everything = [row for rows in chunks for row in rows]
    fresh = 0
    for stream, since, until in wanted:
        found = hold.fetch(stream, since, until)
        assert times(found) == [time for time, other in everything if other == stream and since <= time < until]
        fresh += sum(one.fresh for one in found)
    assert fresh + hold.frames == len(everything)
    assert fresh + hold.expire(25) + hold.finish() == len(everything)
    assert hold.size == 0
