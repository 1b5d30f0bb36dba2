"""RTCP taken apart: packets by hand from RFC 3550 and RFC 3611, and bytes that are none."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.rtp.rtcp import Answer, Reception, Report, Sent, parse
from tests.support import rtcp

SECOND = 1_000_000_000
NOW = 1_772_445_600 * SECOND


def test_a_sender_report() -> None:
    block = rtcp.block(7, 3, 80, 0x12345678, 1.5, fraction=9, highest=70_000)
    report = parse(rtcp.sender(5, NOW, block) + rtcp.description(5))
    assert report is not None
    assert report.sent == [Sent(5, rtcp.middle(NOW))]
    assert report.answers == [Answer(5, 7, 0x12345678, 1.5)]
    assert report.receptions == [Reception(5, 7, 3, 70_000, 80)]


def test_more_packets_came_than_were_due() -> None:
    report = parse(rtcp.receiver(5, rtcp.block(7, -2, 0, 0, 0)))
    assert report is not None
    assert report.receptions[0].lost == -2
    assert report.answers == [], "no stamp had reached it yet"


def test_extended_reports_of_who_sends_no_sound() -> None:
    asked = parse(rtcp.receiver(9) + rtcp.extended(9, rtcp.reference_time(NOW)))
    answered = parse(rtcp.receiver(5) + rtcp.extended(5, rtcp.late_answer(9, rtcp.middle(NOW), 0.25)))
    assert asked is not None
    assert answered is not None
    assert asked.sent == [Sent(9, rtcp.middle(NOW))]
    assert answered.answers == [Answer(5, 9, rtcp.middle(NOW), 0.25)]


def test_voip_metrics() -> None:
    told = rtcp.voip_metrics(7, loss=64, discard=1, round_trip=40, end_system=60, rating=92, mos=41, buffer=30)
    report = parse(rtcp.receiver(5) + rtcp.extended(5, told))
    assert report is not None
    (one,) = report.voip
    assert (one.reporter, one.source, one.loss, one.discard) == (5, 7, 25.0, 100 / 256)
    assert (one.round_trip, one.end_system, one.buffer, one.rating, one.mos) == (40, 60, 30, 92, 4.1)
    unknown = parse(rtcp.extended(5, rtcp.voip_metrics(7)))
    assert unknown is not None
    (none,) = unknown.voip
    assert (none.round_trip, none.end_system, none.buffer, none.rating, none.mos) == (None,) * 5


def test_padding_is_left_out() -> None:
    whole = bytearray(rtcp.sender(5, NOW) + rtcp.receiver(5, rtcp.block(7, 1, 0, 0, 0)))
    place = len(rtcp.sender(5, NOW))
    padded = bytes(whole[:place]) + struct.pack("!BBH", 0xA1, 201, 8) + bytes(whole[place + 4 :]) + b"\0\0\0\4"
    report = parse(padded)
    assert report is not None
    assert len(report.receptions) == 1


SENT = rtcp.sender(5, NOW) + rtcp.description(5)
TRAILERS = {"AES-CM": b"\0\0\0\1" + bytes(range(10)), "AEAD": b"\x8a" * 16 + b"\0\0\0\1"}


@pytest.mark.parametrize("trailer", TRAILERS.values(), ids=TRAILERS)
def test_srtcp_that_is_authenticated_only(trailer: bytes) -> None:
    report = parse(SENT + trailer)
    assert report is not None
    assert report.sent == [Sent(5, rtcp.middle(NOW))]


@pytest.mark.parametrize("end", [b"\x80\0\0\1" + bytes(10), bytes(16) + b"\x80\0\0\1"], ids=["AES-CM", "AEAD"])
@pytest.mark.parametrize("clear", [SENT, rtcp.sender(5, NOW)], ids=["two packets", "one packet"])
def test_srtcp_that_is_encrypted_tells_nothing(clear: bytes, end: bytes) -> None:
    cipher = bytes(byte ^ 0x5C for byte in clear[8:])
    assert parse(clear[:8] + cipher + end) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        SENT[:-1],
        SENT + b"\0",
        SENT + b"\0" * 4,
        b"\x40" + SENT[1:],
        struct.pack("!BBH", 0x80, 200, 0) + bytes(4),
        struct.pack("!BBHI", 0xA0, 201, 1, 0xFFFFFFFF),
    ],
)
def test_what_is_no_rtcp(payload: bytes) -> None:
    assert parse(payload) is None


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: SENT[:-12] + tail))
def test_any_bytes(payload: bytes) -> None:
    found = parse(payload)
    assert found is None or isinstance(found, Report)


@given(kind=st.sampled_from([200, 201, 207]), count=st.integers(0, 31), words=st.integers(1, 40), data=st.data())
def test_counts_that_promise_more_than_there_is(kind: int, count: int, words: int, data: st.DataObject) -> None:
    body = data.draw(st.binary(min_size=4 * words, max_size=4 * words))
    report = parse(rtcp.packet(kind, count, body))
    assert report is not None
    assert len(report.receptions) <= len(body) // 24
    assert all(-(1 << 23) <= one.lost < 1 << 23 for one in report.receptions)
