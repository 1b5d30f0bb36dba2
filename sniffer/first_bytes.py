"""What payloads may be by their first bytes, for all rows of a block at once: SIP, and SIP in WebSocket frames."""

import numpy as np

from .datagrams import Mask
from .records import Bytes, Ints, gather

_TEXT = np.dtype([("text", "u1", (16,))])
_KEY = np.dtype([("key", "u1", (4,))])
LOOKED_AT = 16
"""Bytes of text that are looked at."""
_FRAME = 8 + LOOKED_AT
"""With the longest header of a frame that a SIP message fits into."""


def begins_text(data: Bytes, at: Ints) -> Mask:
    """Tell which payloads may begin a SIP message: three capitals, printable, a blank or slash among 16 bytes."""
    if len(at) == 0:
        return np.zeros(0, dtype=bool)
    start = data[np.minimum(at, len(data) - LOOKED_AT)]
    maybe = (start >= 65) & (start <= 90)
    if not maybe.any():
        return maybe
    rows = np.nonzero(maybe)[0]
    maybe[rows] = _is_text(gather(data, np.minimum(at[rows], len(data) - LOOKED_AT), _TEXT)["text"])
    return maybe


def begins_frame(data: Bytes, at: Ints) -> Mask:
    """Tell which payloads may begin a SIP message in a frame of a WebSocket (RFC 6455 section 5.2), masked or not."""
    if len(at) == 0:
        return np.zeros(0, dtype=bool)
    at = np.minimum(at, len(data) - _FRAME)
    first, second = data[at], data[at + 1]
    size = second & 0x7F
    maybe: Mask = (first & 0x70 == 0) & ((first & 0x0F == 1) | (first & 0x0F == 2)) & (size >= LOOKED_AT) & (size < 127)
    if not maybe.any():
        return maybe
    rows = np.nonzero(maybe)[0]
    key_at = at[rows] + 2 + 2 * (size[rows] == 126)
    masked = second[rows] & 0x80 != 0
    text = gather(data, key_at + 4 * masked, _TEXT)["text"]
    key = np.where(masked[:, None], gather(data, key_at, _KEY)["key"], 0).astype(np.uint8)
    maybe[rows] = _is_text(text ^ np.tile(key, LOOKED_AT // 4))
    return maybe


def _is_text(text: np.ndarray) -> Mask:
    capitals = ((text[:, :3] >= 65) & (text[:, :3] <= 90)).all(axis=1)
    printable = ((text >= 32) | (text == 13) | (text == 10) | (text == 9)).all(axis=1)  # "SIP/2.0 200 OK" + CRLF
    parted = ((text == 32) | (text == 47)).any(axis=1)
    found: Mask = capitals & printable & parted
    return found
