"""The walk over records against a plain loop."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sniffer.records import MAX_RECORD, PADDING, Walk, gather

HEAD, FIELD = 16, 8


def laid_out(lengths: list[int], *, little: bool, base: int, tail: bytes = b"") -> tuple[np.ndarray, int]:
    """Records whose field says these sizes (with `base` taken off); give the data and its true end."""
    out = bytearray()
    for length in lengths:
        record = bytearray(b"\xee" * length)
        record[FIELD : FIELD + 4] = struct.pack("<I" if little else ">I", length - base)
        out += record
    out += tail
    return np.frombuffer(bytes(out) + bytes(PADDING), dtype=np.uint8), len(out)


def plain_loop(data: bytes, start: int, end: int, *, little: bool, base: int) -> tuple[list[int], int, bool]:
    found: list[int] = []
    place = start
    while place + HEAD <= end:
        size = base + int.from_bytes(data[place + FIELD : place + FIELD + 4], "little" if little else "big")
        if size < HEAD or size > MAX_RECORD:
            return found, place, True
        if place + size > end:
            break
        found.append(place)
        place += size
    return found, place, False


RUNS = st.lists(st.tuples(st.integers(HEAD, 60), st.integers(1, 300)), max_size=12)
"""Runs of equally long records: short ones that the walk gives up on, long ones that it jumps."""


@given(
    runs=RUNS, little=st.booleans(), base=st.sampled_from([0, 16]), tail=st.binary(max_size=40), cut=st.integers(0, 70)
)
def test_any_runs(runs: list[tuple[int, int]], little: bool, base: int, tail: bytes, cut: int) -> None:
    lengths = [length for length, count in runs for _ in range(count)]
    data, end = laid_out(lengths, little=little, base=base, tail=tail)
    end = max(end - cut, 0)
    offsets, stop, damaged = Walk(HEAD, FIELD, base, little).find(data, 0, end)
    assert (offsets.tolist(), stop, damaged) == plain_loop(data.tobytes(), 0, end, little=little, base=base)


@given(before=st.integers(0, 200), wrong=st.sampled_from([0, 15, MAX_RECORD + 1, 2**32 - 1]), after=st.integers(0, 40))
def test_a_length_that_makes_no_sense_ends_the_walk_there(before: int, wrong: int, after: int) -> None:
    """Also in the middle of a run, where the walk jumps many records at a time."""
    data, end = laid_out([20] * (before + 1 + after), little=True, base=0)
    broken = data.copy()
    broken[before * 20 + FIELD : before * 20 + FIELD + 4] = np.frombuffer(struct.pack("<I", wrong), dtype=np.uint8)
    offsets, stop, damaged = Walk(HEAD, FIELD, 0, True).find(broken, 0, end)
    assert (offsets.tolist(), stop, damaged) == ([20 * k for k in range(before)], before * 20, True)


def test_the_walk_begins_where_it_is_told() -> None:
    data, end = laid_out([24, 20, 20, 44], little=True, base=0)
    assert Walk(HEAD, FIELD, 0, True).find(data, 24, end)[0].tolist() == [24, 44, 64]


@given(data=st.binary(max_size=400), start=st.integers(0, 50), little=st.booleans())
def test_noise(data: bytes, start: int, little: bool) -> None:
    buffer = np.frombuffer(data + bytes(PADDING), dtype=np.uint8)
    offsets, stop, damaged = Walk(HEAD, FIELD, 0, little).find(buffer, min(start, len(data)), len(data))
    expected = plain_loop(data, min(start, len(data)), len(data), little=little, base=0)
    assert (offsets.tolist(), stop, damaged) == expected


@pytest.mark.parametrize("places", [[], [0], [3, 1, 8]])
def test_gather_reads_a_row_at_each_place(places: list[int]) -> None:
    data = np.arange(12, dtype=np.uint8)
    rows = gather(data, np.array(places, dtype=np.int64), np.dtype([("first", "u1"), ("rest", ">u2")]))
    assert [(int(row["first"]), int(row["rest"])) for row in rows] == [(k, (k + 1) << 8 | k + 2) for k in places]
