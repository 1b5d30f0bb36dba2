"""SIP over WebSocket (RFC 7118): whatever the frames and segments, the same messages; what is none harms nothing."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sip.framing import framer_for, may_begin
from tapdeck.sip.message import MAX_MESSAGE, Framer, Message, SipError
from tapdeck.sip.websocket import WebSocketFramer, may_begin_websocket
from tests.support import websocket
from tests.support.scene import plain_call
from tests.support.websocket import CLOSE, MASK, REQUEST, RESPONSE, Deflater, frame

SIGNALS = [signal.text for signal in plain_call(1).signals]


def texts(found: list[Message | SipError]) -> list[bytes]:
    assert not [one for one in found if isinstance(one, SipError)]
    return [one.raw for one in found if isinstance(one, Message)]


def fed(data: bytes, cuts: list[int]) -> list[Message | SipError]:
    framer = WebSocketFramer()
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [one for a, b in itertools.pairwise(edges) for one in framer.feed(data[a:b])]


@given(
    st.integers(0, 1 << 30),
    st.lists(st.integers(1, 4), min_size=len(SIGNALS), max_size=len(SIGNALS)),
    st.lists(st.integers(0, 1 << 20), max_size=40),
    st.booleans(),
    st.booleans(),
)
def test_frames_masks_and_segments_make_no_difference(
    seed: int, pieces: list[int], cuts: list[int], masked: bool, compressed: bool
) -> None:
    where, deflate = random.Random(seed), Deflater()
    data = REQUEST if masked else RESPONSE
    for text, count in zip(SIGNALS, pieces, strict=True):
        words = deflate(text) if compressed else text
        key = where.randbytes(4) if masked else b""
        data += websocket.message(words, where, key=key, pieces=count, compressed=compressed)
    assert texts(fed(data, cuts)) == SIGNALS


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_noise_raises_nothing(data: bytes, cuts: list[int]) -> None:
    for one in fed(data, cuts) + fed(REQUEST + data, cuts):
        assert isinstance(one, Message | SipError)
    may_begin(data)


@pytest.mark.parametrize("key", [b"", MASK])
def test_a_stream_is_joined_in_its_middle(key: bytes) -> None:
    framer = WebSocketFramer()
    framer.reset()
    whole = [frame(text, key=key) for text in SIGNALS]
    assert framer.feed(whole[0][40:]) == []
    assert texts(framer.feed(whole[1] + whole[2])) == SIGNALS[1:3]
    framer.reset()
    assert framer.feed(whole[3][100:]) == []
    assert texts(framer.feed(whole[4])) == SIGNALS[4:5]


def test_what_may_begin_one() -> None:
    assert may_begin_websocket(REQUEST)
    assert may_begin_websocket(RESPONSE)
    assert may_begin_websocket(frame(SIGNALS[0], key=MASK))
    assert may_begin_websocket(frame(SIGNALS[0][:40], final=False))
    other = REQUEST.replace(b"Protocol: sip", b"Protocol: chat, gossip")
    for data in (
        other,
        b"GET /sip HTTP/1.1\r\n\r\n",
        frame(b"hello, how are you today?"),
        frame(b"", opcode=CLOSE),
        b"",
    ):
        assert not may_begin_websocket(data)


def test_both_directions_are_cut_alike() -> None:
    up = framer_for(REQUEST)
    assert isinstance(up, WebSocketFramer)
    assert isinstance(framer_for(b"\x81", up), WebSocketFramer)
    assert isinstance(framer_for(SIGNALS[0]), Framer)
    assert isinstance(framer_for(frame(SIGNALS[0]), Framer()), Framer)


def test_what_is_too_long_is_passed_over() -> None:
    framer = WebSocketFramer()
    long = frame(b"A" * (MAX_MESSAGE + 1))
    found = framer.feed(long[:1000]) + framer.feed(long[1000:] + frame(SIGNALS[0]))
    assert [one.kind for one in found if isinstance(one, SipError)] == ["too long"]
    assert [one.raw for one in found if isinstance(one, Message)] == SIGNALS[:1]
    pieces = frame(b"B" * 40_000, final=False) + frame(b"B" * 40_000, opcode=0) + frame(SIGNALS[1])
    found = framer.feed(pieces)
    assert [one.kind for one in found if isinstance(one, SipError)] == ["too long"]
    assert [one.raw for one in found if isinstance(one, Message)] == SIGNALS[1:2]


def test_a_bomb_goes_off_in_a_small_room() -> None:
    bomb = Deflater()(bytes(50 << 20))
    assert len(bomb) < MAX_MESSAGE
    found = WebSocketFramer().feed(frame(bomb, compressed=True) + frame(SIGNALS[0]))
    assert [one.kind for one in found if isinstance(one, SipError)] == ["too long"]
    assert [one.raw for one in found if isinstance(one, Message)] == SIGNALS[:1]


@pytest.mark.parametrize("bad", [b"\x83\x05hello", b"\x91\x05hello", b"\x09\x01a", b"\x89\x7e\x00\x80", b"\xc9\x01a"])
def test_what_is_no_frame_is_one_error(bad: bytes) -> None:
    framer = WebSocketFramer()
    (error,) = framer.feed(bad + bytes(20))
    assert isinstance(error, SipError)
    assert error.kind == "websocket frame"
    assert texts(framer.feed(frame(SIGNALS[0]))) == SIGNALS[:1]


def test_keep_alives_and_control_frames_are_no_messages() -> None:
    data = frame(b"\r\n\r\n") + frame(b"", opcode=websocket.PING) + frame(b"\x03\xe8bye", opcode=CLOSE)
    assert WebSocketFramer().feed(data) == []
