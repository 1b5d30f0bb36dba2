"""Redundant audio: the headers of RFC 2198 section 3."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tapdeck.rtp.red import HEAD, MAX_BLOCKS, Block, blocks


def header(kind: int, back: int, size: int) -> bytes:
    return ((0x80 | kind) << 24 | back << 10 | size).to_bytes(4, "big")


def test_the_blocks_of_a_packet() -> None:
    """The RFC's own example (section 6): a PCM block, 20 ms before it an LPC one of 14 bytes, then DVI4 of 84."""
    payload = header(7, 160, 14) + bytes([5]) + bytes(14) + bytes(84)
    assert blocks(payload[: HEAD + 1], len(payload)) == [Block(7, 160, 5, 14), Block(5, 0, 19, 84)]


def test_a_packet_without_copies() -> None:
    assert blocks(bytes([9]) + bytes(64), 161) == [Block(9, 0, 1, 160)]


def test_headers_that_claim_more_than_there_is() -> None:
    assert blocks(header(7, 160, 1000) + bytes([5]) + bytes(20), 25) == []
    assert blocks(header(7, 160, 10), 4) == []
    assert blocks(b"", 0) == []


def test_too_many_blocks_are_none() -> None:
    assert len(blocks((header(7, 160, 0) * MAX_BLOCKS + bytes([5]))[: HEAD + 1], 500)) == MAX_BLOCKS + 1
    assert blocks((header(7, 160, 0) * (MAX_BLOCKS + 1) + bytes([5]))[: HEAD + 1], 500) == []


@given(st.binary(max_size=200))
def test_no_block_lies_outside(payload: bytes) -> None:
    found = blocks(payload[: HEAD + 1], len(payload))
    assert all(block.size >= 0 and block.start + block.size <= len(payload) for block in found)
