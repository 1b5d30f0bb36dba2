"""Gaps that come together, found in sequence numbers that wrap, repeat, overtake each other and begin anew."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tapdeck.sniffer.datagrams import RTP_FIELDS, RtpColumns
from tapdeck.sniffer.gaps import Gaps
from tapdeck.sniffer.streams import StreamTable

SECOND, PTIME = 1_000_000_000, 20_000_000
Row = tuple[int, int, int]
"""Time in ns, stream, sequence number."""


def stream(number: int, count: int = 300, first: int = 65_400, start: int = 0) -> list[Row]:
    return [(start + n * PTIME + number * 1_000_000, number, (first + 91 * number + n) & 0xFFFF) for n in range(count)]


def without(rows: Sequence[Row], start: int, count: int) -> list[Row]:
    return [row for place, row in enumerate(rows) if not start <= place < start + count]


def watch(*streams: Sequence[Row], size: int = 1 << 20) -> Gaps:
    rows = sorted(row for one in streams for row in one)
    gaps, table = Gaps(), StreamTable()
    for at in range(0, len(rows), size):
        time, source, sequence = (
            np.array(column, dtype=np.int64) for column in zip(*rows[at : at + size], strict=True)
        )
        zero = {name: np.zeros(len(time), dtype=np.uint32) for name in RTP_FIELDS}
        rtp = RtpColumns(**zero)  # type: ignore[arg-type]
        rtp = replace(
            rtp,
            time=time,
            source=source.astype(np.uint64),
            destination=np.zeros(len(time), dtype=np.uint64),
            sequence=sequence.astype(np.uint16),
        )
        found = table.look_up(rtp)
        gaps.take(rtp, found)
        table.note(rtp, found.numbers)
    gaps.finish()
    return gaps


def doubled(rows: Sequence[Row], after: int) -> list[Row]:
    return [*rows, *((time + after, number, sequence) for time, number, sequence in rows)]


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
def test_a_moment_is_found_however_the_blocks_are_cut(size: int) -> None:
    gaps = watch(*(without(stream(n), 150, 4) for n in range(5)), size=size)
    assert [(moment.streams, moment.running, moment.packets) for moment in gaps.moments] == [(5, 5, 20)]
    assert gaps.moments[0].time == 154 * PTIME
    assert gaps.packets == 20


def test_numbers_that_follow_each_other_have_no_gaps() -> None:
    assert watch(*(stream(n) for n in range(6))).moments == []


def test_packets_that_were_overtaken_are_not_missing() -> None:
    late = []
    for n in range(6):
        rows = stream(n)
        rows[150] = (rows[153][0] + 1000, rows[150][1], rows[150][2])
        late.append(rows)
    assert watch(*late).moments == []


def test_copies_hide_no_gap_and_make_none() -> None:
    assert watch(*(doubled(stream(n), 21_000_000) for n in range(5))).moments == []
    assert watch(*(doubled(without(stream(n), 150, 4), 50_000) for n in range(5))).packets == 20


def test_a_sender_that_begins_anew_misses_nothing() -> None:
    begun = [stream(n, 150) + stream(n, 150, first=9_000, start=150 * PTIME) for n in range(5)]
    assert watch(*begun).moments == []


def test_a_pause_is_no_gap() -> None:
    paused = [stream(n, 100) + stream(n, 100, first=65_502, start=300 * PTIME) for n in range(5)]
    assert watch(*paused).moments == []


def test_most_streams_have_to_miss() -> None:
    rows = [without(stream(n), 150, 4) if n < 4 else stream(n) for n in range(8)]
    assert watch(*rows).moments == []
    rows = [without(stream(n), 150, 4) if n < 7 else stream(n) for n in range(8)]
    assert watch(*rows).packets == 28


def test_two_streams_have_to_miss_more() -> None:
    assert watch(without(stream(0), 150, 2), without(stream(1), 150, 2)).moments == []
    assert watch(without(stream(0), 150, 3), without(stream(1), 150, 3)).packets == 6


def test_chance_makes_no_moments() -> None:
    dice = random.Random(7)
    losing = [[row for row in stream(n, 1000) if dice.random() > 0.01] for n in range(10)]
    assert watch(*losing).moments == []
