"""The stream table against a dict, with collisions forced."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapdeck.sniffer import streams as module
from tapdeck.sniffer.datagrams import RtpColumns
from tapdeck.sniffer.streams import StreamTable

Key = tuple[int, int, int, int]
"""Source, destination, ports, SSRC."""


def columns(rows: list[tuple[int, Key]]) -> RtpColumns:
    """Datagrams of these (time, stream), in order of time."""
    rows = sorted(rows, key=lambda row: row[0])
    count = len(rows)
    keys = [key for _, key in rows]
    return RtpColumns(
        time=np.array([time for time, _ in rows], dtype=np.int64),
        source=np.array([key[0] for key in keys], dtype=np.uint64),
        destination=np.array([key[1] for key in keys], dtype=np.uint64),
        ports=np.array([key[2] for key in keys], dtype=np.uint32),
        position=np.arange(count, dtype=np.int64),
        size=np.full(count, 160, dtype=np.int32),
        sequence=np.zeros(count, dtype=np.uint16),
        stamp=np.zeros(count, dtype=np.uint32),
        ssrc=np.array([key[3] for key in keys], dtype=np.uint32),
        kind=np.full(count, 8, dtype=np.uint8),
        frames=np.ones(count, dtype=np.uint8),
        head=np.full(count, 12, dtype=np.uint16),
        prints=np.zeros(count, dtype=np.uint32),
    )


class Model:
    """What a plain dict would do."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.numbers: dict[Key, int] = {}
        self.packets: dict[int, int] = {}
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}

    def check(self, table: StreamTable, rows: list[tuple[int, Key]]) -> None:
        """Look a block up in both and compare; the table chooses the numbers."""
        rows = sorted(rows, key=lambda row: row[0])
        room = self.limit - len(self.numbers)
        fresh = [key for key in dict.fromkeys(key for _, key in rows) if key not in self.numbers]
        found = table.look_up(columns(rows))
        table.note(columns(rows), found.numbers)
        got = dict(zip([key for _, key in rows], found.numbers.tolist(), strict=True))
        for key in fresh[:room]:
            assert got[key] not in self.numbers.values(), "a number in use is given to another stream"
            assert got[key] >= 0
            self.numbers[key] = got[key]
            self.packets[got[key]] = 0
        assert found.new == [self.numbers[key] for key in fresh[:room]], "new streams in order of appearance"
        assert found.numbers.tolist() == [self.numbers.get(key, -1) for _, key in rows]
        for time, key in rows:
            number = self.numbers.get(key)
            if number is not None:
                self.packets[number] += 1
                self.first.setdefault(number, time)
                self.last[number] = time
        self.compare(table)

    def compare(self, table: StreamTable) -> None:
        assert table.live == len(self.numbers)
        for key, number in self.numbers.items():
            row = table.rows[number]
            assert tuple(int(row[name]) for name in ("source", "destination", "ports", "ssrc")) == key
            assert int(row["packets"]) == self.packets[number]
            assert (int(row["first"]), int(row["last"])) == (self.first[number], self.last[number])

    def forget(self, table: StreamTable, keys: list[Key]) -> None:
        numbers = [self.numbers.pop(key) for key in keys]
        for number in numbers:
            del self.packets[number], self.first[number], self.last[number]
        table.forget(np.array(numbers, dtype=np.int64))
        self.compare(table)


KEYS = st.tuples(
    st.integers(1, 3), st.integers(1, 3), st.sampled_from([0x10002, 0x20001, 0xFFFFFFFF]), st.integers(0, 2)
)
BLOCKS = st.lists(st.tuples(st.integers(0, 1000), KEYS), max_size=60)


@settings(max_examples=60)
@given(
    blocks=st.lists(st.tuples(BLOCKS, st.sets(st.integers(0, 80), max_size=20)), max_size=8), limit=st.integers(1, 90)
)
def test_any_blocks_against_a_dict(blocks: list[tuple[list[tuple[int, Key]], set[int]]], limit: int) -> None:
    """Streams come, go and come again on freed numbers; the table may be full."""
    table, model = StreamTable(limit=limit), Model(limit)
    for turn, (block, leaving) in enumerate(blocks):
        model.check(table, [(time + 1000 * turn, key) for time, key in block])
        known = sorted(model.numbers)
        model.forget(table, [key for place, key in enumerate(known) if place in leaving])


@settings(max_examples=40)
@given(blocks=st.lists(BLOCKS, max_size=5))
def test_streams_whose_hashes_share_a_slot(blocks: list[list[tuple[int, Key]]]) -> None:
    """All of them begin their search at one slot: only probing tells them apart."""
    plain = module._hashes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_hashes", lambda rtp: plain(rtp) & np.uint64(0xFFFFFFFFFFFF0000) | np.uint64(1))
        table, model = StreamTable(limit=1000), Model(1000)
        for turn, block in enumerate(blocks):
            model.check(table, [(time + 1000 * turn, key) for time, key in block])
            model.forget(table, sorted(model.numbers)[::3])


def test_it_grows_far_beyond_its_first_size() -> None:
    table, model = StreamTable(), Model(1 << 20)
    many = [(number, (number % 50 + 1, 7, 0x10002, number)) for number in range(9000)]
    model.check(table, many[:5000])
    model.check(table, many)
    assert table.count == 9000


def test_freed_numbers_are_used_again_and_memory_stays_flat() -> None:
    """A year of calls: a hundred streams at a time, many times over."""
    table = StreamTable(limit=200)
    for turn in range(50):
        found = table.look_up(columns([(turn, (1, 2, 3, turn * 100 + number)) for number in range(100)]))
        assert len(found.new) == 100
        table.forget(np.array(found.new, dtype=np.int64))
    assert table.count == 100
    assert table.live == 0


def test_a_full_table_refuses_the_new_and_knows_the_old() -> None:
    table = StreamTable(limit=2)
    one, two, three = ((1, 1, 1, number) for number in range(3))
    assert table.look_up(columns([(0, one), (1, two), (2, three), (3, one)])).numbers.tolist() == [0, 1, -1, 0]
    table.forget(np.array([0], dtype=np.int64))
    assert table.look_up(columns([(4, three), (5, two), (6, one)])).numbers.tolist() == [0, 1, -1]


def test_which_streams_touch_an_endpoint_and_which_are_idle() -> None:
    table = StreamTable()
    rtp = columns([(10, (1, 2, 5 << 16 | 6, 0)), (20, (2, 1, 6 << 16 | 5, 0)), (30, (1, 3, 7 << 16 | 6, 0))])
    table.note(rtp, table.look_up(rtp).numbers)
    assert table.touching(1, 5) == [0, 1]
    assert table.touching(2, 6) == [0, 1]
    assert table.touching(1, 6) == []
    assert table.touching(3, 6) == [2]
    assert table.idle(20).tolist() == [0]
    assert table.idle(31).tolist() == [0, 1, 2]
    table.forget(np.array([1], dtype=np.int64))
    assert table.touching(1, 5) == [0]
    assert table.idle(31).tolist() == [0, 2]


def test_an_empty_block() -> None:
    found = StreamTable().look_up(columns([]))
    assert (found.numbers.tolist(), found.new) == ([], [])
