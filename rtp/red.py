"""Redundant audio (RFC 2198): each packet bears its own block and copies of blocks sent before. Pure."""

from typing import NamedTuple

MAX_BLOCKS = 16
"""Blocks of one packet; those beyond are hostile. A sender repeats two or three."""
HEAD = 4 * MAX_BLOCKS
"""So many bytes of a payload hold all headers."""


class Block(NamedTuple):
    """A block: its payload type, how far its time stamp lies back, and where in the payload it is."""

    kind: int
    back: int
    start: int
    size: int


def blocks(head: bytes, size: int) -> list[Block]:
    """Return the blocks of a payload of `size` bytes that begins with `head`, the packet's own last; none if the
    headers and the size disagree.
    """
    found: list[tuple[int, int, int]] = []
    at = 0
    while at < len(head) and head[at] & 0x80:
        word = int.from_bytes(head[at : at + 4], "big")
        if at + 4 >= len(head) or len(found) == MAX_BLOCKS:
            return []
        found.append((word >> 24 & 0x7F, word >> 10 & 0x3FFF, word & 0x3FF))
        at += 4
    if at >= len(head):
        return []
    own, at = head[at], at + 1
    result: list[Block] = []
    for kind, back, length in found:
        result.append(Block(kind, back, at, length))
        at += length
    return [*result, Block(own, 0, at, size - at)] if at <= size else []
