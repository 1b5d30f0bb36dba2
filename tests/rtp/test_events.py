"""Key presses as RFC 4733 sends them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.rtp.events import DIGITS, HIDDEN, MASKED, Digit, digits

Event = tuple[int, int, bytes]


def event(time: int, stamp: int, code: int, duration: int, *, end: bool = False, volume: int = 10) -> Event:
    """One telephone-event packet: section 2.3."""
    return time, stamp & 0xFFFF_FFFF, struct.pack("!BBH", code, (0x80 if end else 0) | volume, duration)


def press(time: int, stamp: int, code: int, packets: int = 3) -> list[Event]:
    """A key held for `packets` updates of 20 ms, its end sent three times."""
    updates = [event(time + k, stamp, code, 160 * (k + 1)) for k in range(packets)]
    return updates + [event(time + packets + k, stamp, code, 160 * (packets + 1), end=True) for k in range(3)]


@pytest.mark.parametrize(("code", "digit"), list(enumerate(DIGITS)))
def test_each_digit_once_though_sent_six_times(code: int, digit: str) -> None:
    """Table 3 of the RFC: 0-9 are 0 to 9, * is 10, # is 11, A-D are 12 to 15."""
    assert digit == "0123456789*#ABCD"[code]
    assert list(digits(press(1000, 8000, code))) == [Digit(1000, digit, 640)]


def test_the_hook_flash_has_a_name() -> None:
    assert [digit.digit for digit in digits(press(0, 0, 16))] == ["flash"]


def test_the_same_key_twice_is_two_digits() -> None:
    assert "".join(one.digit for one in digits(press(0, 8000, 5) + press(50, 12_000, 5))) == "55"


def test_a_lost_beginning_and_a_lost_end() -> None:
    """What is left of an event tells the digit, and the longest duration heard is its own."""
    packets = press(0, 8000, 5)
    assert list(digits(packets[4:5])) == [Digit(4, "5", 640)]
    assert list(digits(packets[:2])) == [Digit(0, "5", 320)]


def test_overtaken_packets_shorten_nothing() -> None:
    packets = press(0, 8000, 5)
    assert list(digits([packets[3], packets[0], packets[2]])) == [Digit(3, "5", 640)]


@given(start=st.integers(0, 0xFFFF_FFFF), segments=st.integers(2, 5), others=st.booleans())
def test_a_long_event_is_one_digit(start: int, segments: int, others: bool) -> None:
    """Section 2.5.1.3: at 0xFFFF the event goes on under a new time stamp, without marker, and stays one."""
    packets: list[Event] = []
    for segment in range(segments):
        stamp = start + segment * 0xFFFF
        packets += [event(segment * 100 + k, stamp, 7, duration) for k, duration in enumerate((160, 0x8000, 0xFFFF))]
    packets.append(event(1000, start + segments * 0xFFFF, 7, 400, end=True))
    packets += press(2000, start + segments * 0xFFFF + 8000, 7) if others else []
    found = list(digits(packets))
    assert [one.digit for one in found] == ["7", "7"][: 1 + others]
    assert found[0].time == 0


def test_a_long_event_lasts_as_long_as_all_its_segments() -> None:
    packets = [event(0, 1000, 7, 0xFFFF), event(1, 1000 + 0xFFFF, 7, 0xFFFF), event(2, 1000 + 2 * 0xFFFF, 7, 400)]
    assert [one.duration for one in digits(packets)] == [2 * 0xFFFF + 400]


@pytest.mark.parametrize("lost", [{1}, {1, 2}, {2}, {3}, {1, 2, 3}, {0, 1, 2}, {4, 5, 6}])
def test_a_long_event_is_one_digit_whichever_packets_of_a_segment_are_lost(lost: set[int]) -> None:
    """The second segment begins at 0xFFFF, though nobody heard the first one get that far."""
    packets = [event(k, 1000, 7, min(0x4000 * (k + 1), 0xFFFF)) for k in range(4)]
    packets += [event(4 + k, 1000 + 0xFFFF, 7, 160 * (k + 1)) for k in range(3)]
    packets += [event(9 + k, 1000 + 0xFFFF, 7, 640, end=True) for k in range(3)]
    heard = [packet for number, packet in enumerate(packets) if number not in lost]
    found = list(digits(heard))
    assert [(one.digit, one.time) for one in found] == [("7", heard[0][0])]
    assert found[0].duration == 0xFFFF + 640


def test_a_whole_segment_of_a_long_event_may_be_lost() -> None:
    packets = [event(0, 5, 7, 160), event(1, 5 + 2 * 0xFFFF, 7, 160), event(2, 5 + 2 * 0xFFFF, 7, 320, end=True)]
    assert list(digits(packets)) == [Digit(0, "7", 2 * 0xFFFF + 320)]


def test_late_packets_of_an_earlier_segment_are_no_new_digit() -> None:
    first = [event(0, 1000, 7, 0x8000), event(1, 1000, 7, 0xFFFF)]
    rest = [event(2, 1000 + 0xFFFF, 7, 160), event(3, 1000 + 0xFFFF, 7, 320, end=True)]
    assert list(digits([first[0], rest[0], first[1], rest[1]])) == [Digit(0, "7", 0xFFFF + 320)]


def test_the_same_key_twice_with_all_ends_lost_is_two_digits() -> None:
    """Between them the key was up: the second time stamp lies behind the longest duration of the first."""
    first, second = press(0, 8000, 5)[:3], press(50, 9000, 5)[:3]
    assert list(digits(first + second)) == [Digit(0, "5", 480), Digit(50, "5", 480)]


def test_a_sender_that_moves_its_time_stamp_along_presses_once() -> None:
    """Some send each update under its own time stamp, with the duration since then or since the start."""
    moved = [event(k, 8000 + 160 * k, 5, 160) for k in range(5)] + [event(5, 8000 + 800, 5, 160, end=True)]
    grown = [event(k, 8000 + 160 * k, 5, 160 * (k + 1)) for k in range(5)]
    assert [(one.digit, one.duration) for one in digits(moved)] == [("5", 960)]
    assert [one.digit for one in digits(grown)] == ["5"]


def test_a_masked_event_is_a_key_without_a_name() -> None:
    assert [one.digit for one in digits(press(0, 8000, MASKED) + press(50, 12_000, MASKED))] == [HIDDEN, HIDDEN]


def test_another_key_behind_a_long_event_is_another_digit() -> None:
    packets = [event(0, 1000, 7, 0xFFFF), event(1, 1000 + 0xFFFF, 8, 400)]
    assert "".join(one.digit for one in digits(packets)) == "78"


def test_tones_that_are_no_keys_and_short_payloads_are_left_out() -> None:
    """Fax and modem tones are events from 32 on (RFC 4734); a payload has four bytes."""
    assert list(digits([event(0, 0, 32, 160), (1, 1, b""), (2, 2, b"\x05\x0a\x00"), event(3, 3, 17, 160)])) == []


def test_more_than_one_event_in_a_packet_counts_the_first() -> None:
    """Section 2.3 has one event a packet; what stands behind it is ignored."""
    assert "".join(one.digit for one in digits([(0, 0, b"\x01\x8a\x00\xa0" + b"\x02\x8a\x00\xa0")])) == "1"


PACKETS = st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 0xFFFF_FFFF), st.binary(max_size=8)), max_size=40)


@given(packets=PACKETS)
def test_any_payloads(packets: list[Event]) -> None:
    """Never more digits than time stamps, and no digit that no payload named."""
    found = list(digits(packets))
    assert len(found) <= len({stamp for _, stamp, _ in packets})
    codes = {payload[0] for _, _, payload in packets if len(payload) >= 4}
    names = dict(enumerate([*DIGITS, "flash"])) | {MASKED: HIDDEN}
    assert {one.digit for one in found} <= {names[code] for code in codes if code in names}
