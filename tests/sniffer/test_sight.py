"""The columns that look on give what plain columns give, whatever comes, and survive it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sniffer.addresses import AddressBook
from tapdeck.sniffer.columns import Columns
from tapdeck.sniffer.datagrams import RTP_FIELDS, Datagrams
from tapdeck.sniffer.records import Records
from tapdeck.sniffer.sight import SightColumns
from tests.sniffer.frames import LINKS, block, stacks
from tests.support.ip import Endpoint, udp
from tests.support.wrap import WRAPPINGS, ethernet


def both(records: Records) -> tuple[Datagrams, Datagrams, SightColumns]:
    book = AddressBook()
    looking = SightColumns(book=book)
    return Columns(book=book).read(records), looking.read(records), looking


def assert_same(one: Datagrams, two: Datagrams) -> None:
    for name in RTP_FIELDS:
        assert np.array_equal(getattr(one.rtp, name), getattr(two.rtp, name))
    assert np.array_equal(one.fates, two.fates)
    assert one.slow == two.slow


@given(st.lists(stacks(), min_size=1, max_size=8))
def test_looking_on_changes_nothing(some: list[tuple[object, int, bytes]]) -> None:
    records = block([frame for _, _, frame in some], [link for _, link, _ in some])
    plain, looked, looking = both(records)
    assert_same(plain, looked)
    assert looking.sight.frames == len(some)
    assert sum(looking.sight.fates.values()) == len(some)


@given(st.lists(st.binary(max_size=120), min_size=1, max_size=20), st.sampled_from(LINKS))
def test_noise_harms_nobody(frames: list[bytes], link: int) -> None:
    plain, looked, looking = both(block(frames, link))
    assert_same(plain, looked)
    sight = looking.sight
    assert sight.group + sight.own + sight.foreign == sight.frames == len(frames)


@given(st.lists(stacks(), min_size=1, max_size=4), st.data())
def test_frames_cut_anywhere(some: list[tuple[object, int, bytes]], data: st.DataObject) -> None:
    frames = [frame[: data.draw(st.integers(0, len(frame)))] for _, _, frame in some]
    plain, looked, _ = both(block(frames, [link for _, link, _ in some]))
    assert_same(plain, looked)


@pytest.mark.parametrize("name", WRAPPINGS)
def test_a_copy_is_one_in_every_wrapping(name: str) -> None:
    six = name == "ipv6_extensions"
    ends = Endpoint("2001:db8::1" if six else "10.0.0.1", 4000), Endpoint("2001:db8::2" if six else "10.0.0.2", 4000)
    frames = [WRAPPINGS[name].frame(udp(*ends, bytes([n]) * 40)) for n in (1, 2, 2, 3)]
    _, _, looking = both(block(frames, WRAPPINGS[name].link_type))
    assert (looking.sight.copies.packets, looking.sight.copies.copies) == (4, 1)


def test_copies_across_blocks_and_windows() -> None:
    frame = ethernet(udp(Endpoint("10.0.0.1", 4000), Endpoint("10.0.0.2", 4000), bytes(40)))
    looking = SightColumns()
    for start, copies in ((0, 0), (19_000_000, 1), (200_000_000, 1), (219_000_000, 2)):
        records = block([frame])
        records.time[0] = start
        looking.read(records)
        assert looking.sight.copies.copies == copies
