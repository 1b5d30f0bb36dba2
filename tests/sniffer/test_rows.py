"""The row store against a list: what is taken is what was added, however it lies in segments, memory or parking."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapdeck.sniffer.records import Ints
from tapdeck.sniffer.rows import ROW, Rows, RowStore
from tapdeck.sniffer.sources import payloads
from tapdeck.sniffer.sources.payloads import RowParking


class Shelf:
    """A parking that says when something is asked for that it does not hold."""

    def __init__(self) -> None:
        self.held: dict[int, Rows] = {}
        self.parked = 0

    def park(self, rows: Rows) -> int:
        self.parked += 1
        self.held[self.parked] = rows.copy()
        return self.parked

    def fetch(self, ticket: int, start: int, stop: int) -> Rows:
        return self.held[ticket][start:stop].copy()

    def drop(self, ticket: int) -> None:
        del self.held[ticket]


def ints(numbers: Iterable[int]) -> Ints:
    return np.array(sorted(numbers), dtype=np.int64)


def rows(entries: list[tuple[int, int, int]]) -> Rows:
    """(time, stream, position) as rows; the position tells the rows apart, each took 1 to 3 frames."""
    out = np.zeros(len(entries), dtype=ROW)
    for place, (time, stream, position) in enumerate(entries):
        out[place]["time"], out[place]["stream"], out[place]["position"] = time, stream, position
        out[place]["frames"] = position % 3 + 1
    return out


class Model:
    """A list of what was added."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, int]] = []
        self.taken: set[int] = set()

    def take(self, stream: int, since: int, until: int) -> tuple[list[int], list[bool]]:
        found = [position for time, number, position in self.entries if number == stream and since <= time < until]
        fresh = [position not in self.taken for position in found]
        self.taken |= set(found)
        return found, fresh

    def frames_untaken(self, entries: list[tuple[int, int, int]]) -> int:
        return sum(position % 3 + 1 for _, _, position in entries if position not in self.taken)


def take(store: RowStore, stream: int, since: int, until: int) -> tuple[list[int], list[bool]]:
    found, fresh = store.take(stream, since, until)
    return found["position"].tolist(), fresh.tolist()


BLOCK = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=12)
TAKES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100), st.integers(0, 100)), max_size=6)


@settings(max_examples=150)
@given(
    blocks=st.lists(st.tuples(BLOCK, st.booleans(), TAKES), max_size=8),
    memory=st.sampled_from([0, 200, 10**6]),
    high=st.sampled_from([0, 1 << 20]),
)
def test_against_a_list(
    blocks: list[tuple[list[tuple[int, int]], bool, list[tuple[int, int, int]]]], memory: int, high: int
) -> None:
    """Blocks in order of time; rolls, parking and takes between them; every row out once as fresh, in order of time."""
    shelf, model = Shelf(), Model()
    store = RowStore(memory=memory, parking=shelf)
    position = 0
    for turn, (block, rolled, takes) in enumerate(blocks):
        entries = []
        for time, stream in sorted(block):
            entries.append((turn * 10 + time, stream * (1 + high), position))
            position += 1
        store.add(rows(entries))
        model.entries += entries
        if rolled or takes:
            store.roll()
        for stream, since, until in takes:
            assert take(store, stream * (1 + high), since, until) == model.take(stream * (1 + high), since, until)
    assert store.finish() == model.frames_untaken(model.entries)


@settings(max_examples=150)
@given(
    blocks=st.lists(BLOCK, min_size=1, max_size=6),
    keep=st.sets(st.integers(0, 4)),
    before=st.integers(0, 70),
    taken=TAKES,
    memory=st.sampled_from([0, 200, 10**6]),
)
def test_release_forgets_only_what_is_old_and_not_kept(
    blocks: list[list[tuple[int, int]]],
    keep: set[int],
    before: int,
    taken: list[tuple[int, int, int]],
    memory: int,
) -> None:
    """Kept streams and young rows stay; what nobody took is counted once, at release or at the end."""
    shelf, model = Shelf(), Model()
    store = RowStore(memory=memory, parking=shelf)
    position = 0
    for turn, block in enumerate(blocks):
        entries = []
        for time, stream in sorted(block):
            entries.append((turn * 10 + time, stream, position))
            position += 1
        store.add(rows(entries))
        store.roll()
        model.entries += entries
    for stream, since, until in taken:
        assert take(store, stream, since, until) == model.take(stream, since, until)
    untaken = model.frames_untaken(model.entries)
    released = store.release(ints(keep), before, ints(()))
    for stream in range(5):
        found, _ = take(store, stream, 0, 1000)
        wanted, _ = model.take(stream, 0, 1000)
        if stream in keep:
            assert found == wanted
        young = {where for time, number, where in model.entries if number == stream and time >= before}
        assert young <= set(found)
        untaken -= sum(where % 3 + 1 for where in found if where not in already(taken, model))
    assert store.finish() == 0 or keep != set(range(5))
    assert released >= 0


def already(taken: list[tuple[int, int, int]], model: Model) -> set[int]:
    """Positions that the takes before the release had."""
    return {
        where
        for time, number, where in model.entries
        for stream, since, until in taken
        if number == stream and since <= time < until
    }


@settings(max_examples=100)
@given(
    blocks=st.lists(BLOCK, min_size=1, max_size=6),
    releases=st.lists(
        st.tuples(st.sets(st.integers(0, 4)), st.integers(0, 70), st.sets(st.integers(0, 4))), max_size=4
    ),
    memory=st.sampled_from([0, 200, 10**6]),
)
def test_every_frame_is_counted_once(
    blocks: list[list[tuple[int, int]]], releases: list[tuple[set[int], int, set[int]]], memory: int
) -> None:
    """Whatever is kept and released in whatever order, with nothing taken: the counts add up to all frames."""
    shelf = Shelf()
    store = RowStore(memory=memory, parking=shelf)
    total = position = counted = 0
    for turn, block in enumerate(blocks):
        entries = []
        for time, stream in sorted(block):
            entries.append((turn * 10 + time, stream, position))
            total += position % 3 + 1
            position += 1
        store.add(rows(entries))
        store.roll()
        for keep, before, gone in releases[turn : turn + 1]:
            counted += store.release(ints(keep), before, ints(gone - keep))
    assert counted + store.finish() == total


def test_a_number_that_is_used_again_does_not_find_the_rows_of_its_forerunner() -> None:
    """Whether their segment lies in memory or is parked, and how much of it is left."""
    for memory, others in itertools.product((0, 10**6), (0, 1, 9)):
        store = RowStore(memory=memory, parking=Shelf())
        store.add(rows([(time, stream, time * 100 + stream) for time in range(5) for stream in range(others + 1)]))
        store.roll()
        store.release(ints(range(others + 1)), 0, ints([0]))
        store.add(rows([(7, 0, 700)]))
        store.roll()
        assert take(store, 0, 0, 100) == ([700], [True])
        for stream in range(1, others + 1):
            assert take(store, stream, 0, 100)[0] == [time * 100 + stream for time in range(5)]


def test_the_parking_lots_of_dropped_rows_are_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file does not grow although it is never empty."""
    file = (tmp_path / "parked").open("w+b")
    monkeypatch.setattr(payloads, "nameless_file", lambda folder: file)
    parking = RowParking(tmp_path)
    lot = rows([(time, 1, time) for time in range(1000)])
    tickets = [parking.park(lot)]
    for turn in range(1, 20):
        newer = lot.copy()
        newer["position"] += turn
        tickets.append(parking.park(newer[: 1000 - turn]))
        parking.drop(tickets[-2])
        assert parking.fetch(tickets[-1], 10, 20)["position"].tolist() == list(range(10 + turn, 20 + turn))
    assert (tmp_path / "parked").stat().st_size <= 4 << 20
    parking.drop(tickets[-1])
    assert (tmp_path / "parked").stat().st_size == 0


def test_nothing_is_left_in_parking_when_all_is_released() -> None:
    shelf = Shelf()
    store = RowStore(memory=0, parking=shelf)
    for turn in range(5):
        store.add(rows([(turn, stream, turn * 10 + stream) for stream in range(4)]))
        store.roll()
    assert len(shelf.held) == 5
    store.release(ints([2]), 100, ints(()))
    assert take(store, 2, 0, 100)[0] == [2, 12, 22, 32, 42]
    assert sum(len(held) for held in shelf.held.values()) <= 4 * 5
    store.release(ints(()), 100, ints(()))
    assert shelf.held == {}


def test_parked_rows_in_a_file(tmp_path: Path) -> None:
    """The parking that is used outside of tests gives the same rows back, and empties its file."""
    parking = RowParking(tmp_path)
    store = RowStore(memory=0, parking=parking)
    for turn in range(3):
        store.add(rows([(turn, stream, turn * 10 + stream) for stream in range(4)]))
        store.roll()
    assert take(store, 1, 0, 100) == ([1, 11, 21], [True] * 3)
    assert take(store, 1, 1, 100) == ([11, 21], [False] * 2)
    store.release(ints(()), 100, ints(()))
    assert list(tmp_path.iterdir()) == []
