"""Blocks of a receive ring, written as the kernel writes them (packet_mmap.rst), read as columns."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sniffer.records import PADDING, Records
from tapdeck.sniffer.sources import tpacket
from tapdeck.sniffer.sources.tpacket import ETHERNET, RAW_IP

BLOCK = 1 << 16
HEAD, MAC = 48, 86
START = 1_700_000_000
MACS = bytes(range(12))


@dataclass(frozen=True)
class Sent:
    """A frame: its bytes, its tag (kind, TCI) that the kernel takes out, or not; `cut` bytes of it are kept."""

    rest: bytes
    tag: tuple[int, int] | None = None
    kind_known: bool = True
    cut: int = 1 << 16

    @property
    def whole(self) -> bytes:
        tag = b"" if self.tag is None else struct.pack(">HH", self.tag[0] if self.kind_known else 0x8100, self.tag[1])
        return MACS + tag + self.rest


def ring(blocks: list[list[Sent]]) -> tuple[np.ndarray, np.ndarray]:
    """The memory of a ring with these frames in it, and the blocks' headers."""
    memory = bytearray(BLOCK * len(blocks) + PADDING)
    count = 0
    for number, frames in enumerate(blocks):
        begin = number * BLOCK
        at = last = begin + HEAD
        for sent in frames:
            bare = MACS + sent.rest
            kept = bare[: sent.cut]
            step = (MAC + len(kept) + 7) // 8 * 8
            status = 1 | (0x10 if sent.tag else 0) | (0x40 if sent.tag and sent.kind_known else 0)
            kind, tag = sent.tag or (0, 0)
            values = (step, START + count // 1000, count % 1000 * 7, len(kept), len(bare), status, MAC, MAC + 14)
            struct.pack_into("=6I2HII2H", memory, at, *values, 99, tag, kind, 0)
            memory[at + MAC : at + MAC + len(kept)] = kept
            last, at, count = at, at + step, count + 1
        assert at <= begin + BLOCK, "more than a block holds"
        struct.pack_into("=I", memory, last, 0)
        struct.pack_into("=6I", memory, begin, 1, HEAD, 1, len(frames), HEAD, at - begin)
    data = np.frombuffer(memory, dtype=np.uint8)
    return data, np.ndarray((len(blocks),), tpacket.BLOCK, data, strides=(BLOCK,))


def frames(found: Records) -> list[bytes]:
    rows = zip(found.offset.tolist(), found.length.tolist(), strict=True)
    return [found.data[at : at + size].tobytes() for at, size in rows]


fake_header = struct.pack("=6I2H", 64, START, 5, 60, 60, 1, MAC, MAC + 14)
"""What a frame's bytes may hold to be taken for a frame's header."""
rests = st.one_of(
    st.just(bytes(202)),
    st.binary(min_size=2, max_size=300),
    st.integers(0, 7).map(lambda shift: bytes(shift) + fake_header * 5),
)
tags = st.one_of(st.none(), st.none(), st.tuples(st.sampled_from([0x8100, 0x88A8]), st.integers(1, 0xFFFF)))
sent_frames = st.builds(Sent, rests, tags, st.booleans(), st.sampled_from([1 << 16, 1 << 16, 64, 5]))


@given(st.lists(st.lists(sent_frames, min_size=1, max_size=90), min_size=1, max_size=4), st.integers(0, 3))
def test_every_frame_is_found_and_whole(blocks: list[list[Sent]], spare: int) -> None:
    data, heads = ring([*([[]] * spare), *blocks])
    found = tpacket.frames(data, heads[spare:], BLOCK, spare, ETHERNET)
    sent = [one for block in blocks for one in block]
    assert len(found) == len(sent)
    for one, got, wire in zip(sent, frames(found), found.wire.tolist(), strict=True):
        if one.cut >= len(MACS):
            assert got == one.whole[: len(got)]
            assert len(got) == min(len(one.whole), one.cut + (4 if one.tag else 0))
            assert wire == len(one.whole)
        else:  # not even its addresses were kept: there is no place for a tag
            assert got == MACS[: one.cut]
    assert found.time.tolist() == [(START + n // 1000) * 10**9 + n % 1000 * 7 for n in range(len(sent))]
    assert set(found.link.tolist()) == {ETHERNET}
    assert int((found.offset + found.length).max()) + PADDING <= len(found.data)


@pytest.mark.parametrize("size", [60, 214, 1514])
def test_blocks_full_of_frames_of_one_size(size: int) -> None:
    sent = [Sent(bytes([n % 256]) * (size - 12)) for n in range(BLOCK // (size + 100))]
    data, heads = ring([sent, sent])
    assert frames(tpacket.frames(data, heads, BLOCK, 0, ETHERNET)) == [one.whole for one in sent] * 2


def test_empty_blocks_hold_nothing() -> None:
    data, heads = ring([[], []])
    assert len(tpacket.frames(data, heads, BLOCK, 0, ETHERNET)) == 0


def test_raw_ip_begins_where_the_kernel_says_that_the_packet_does() -> None:
    """A GRE tunnel's frames begin with its own headers; `tp_net` is where the packet inside begins."""
    data, heads = ring([[Sent(b"\0\0" + b"E" + bytes(19))]])
    found = tpacket.frames(data, heads, BLOCK, 0, RAW_IP)
    assert frames(found) == [b"E" + bytes(19)]
    assert found.wire.tolist() == [20]
