"""What is found by its first bytes, for a whole block at once: the same as one by one, and nothing else."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sip.message import looks_like_sip
from tapdeck.sip.websocket import may_begin_websocket
from tapdeck.sniffer.first_bytes import begins_frame, begins_text
from tapdeck.sniffer.records import PADDING
from tests.support.scene import plain_call
from tests.support.websocket import BINARY, CLOSE, MASK, PING, TEXT, frame

TEXTS = [signal.text for signal in plain_call(1).signals]


def laid(pieces: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    data = np.frombuffer(b"".join(pieces) + bytes(PADDING), dtype=np.uint8)
    ends = np.cumsum([len(piece) for piece in pieces])
    return data, (ends - [len(piece) for piece in pieces]).astype(np.int64)


@pytest.mark.parametrize("key", [b"", MASK, b"\0\0\0\0", b"SIP/"])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_messages_in_frames(key: bytes, opcode: int) -> None:
    pieces = [frame(text, opcode=opcode, key=key) for text in TEXTS]
    pieces += [frame(text[:100], opcode=opcode, key=key, final=False) for text in TEXTS]
    assert begins_frame(*laid(pieces)).all()
    assert not begins_text(*laid(pieces)).any()


def test_what_is_no_begin_of_a_message() -> None:
    pieces = [
        frame(TEXTS[0], opcode=0),
        frame(TEXTS[0], compressed=True),
        *(frame(b"hello"[:n], opcode=opcode) for n in range(5) for opcode in (TEXT, PING, CLOSE)),
        frame(b'{"type": "INVITE sip:a@b SIP/2.0"}'),
        frame(TEXTS[0].lower(), key=MASK),
        TEXTS[0],
        b"\x16\x03\x01\x02\0" + bytes(40),
        b"",
    ]
    assert not begins_frame(*laid(pieces)).any()


def test_messages_as_they_are() -> None:
    assert begins_text(*laid(TEXTS)).all()
    assert not begins_text(*laid([b"\x80\0" * 20, b"invite sip:a SIP/2.0 aaaa", b"AB" + b"C" * 30, b""])).any()
    for empty in (begins_text, begins_frame):
        assert len(empty(np.zeros(300, np.uint8), np.zeros(0, np.int64))) == 0


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=12), st.integers(0, 1 << 30))
def test_all_at_once_is_one_by_one(pieces: list[bytes], seed: int) -> None:
    """Whatever else lies there: each piece is judged by its own bytes, and whole messages are always found."""
    where = random.Random(seed)
    mixed = [*pieces, *(frame(where.choice(TEXTS), key=where.randbytes(4)) for _ in range(3)), where.choice(TEXTS)]
    where.shuffle(mixed)
    framed, text = begins_frame(*laid(mixed)), begins_text(*laid(mixed))
    for number, piece in enumerate(mixed):
        assert framed[number] or not may_begin_websocket(piece)
        if len(piece) >= 30:
            assert framed[number] == begins_frame(*laid([piece]))[0]
            assert text[number] == begins_text(*laid([piece]))[0]
    assert all(text[number] for number, piece in enumerate(mixed) if looks_like_sip(piece) and piece in TEXTS)
