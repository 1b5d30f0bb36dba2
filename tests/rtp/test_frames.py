"""Payloads taken apart, against the figures of their RFCs; and whatever the bytes are, within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.rtp.codecs import Codec, codec
from tapdeck.rtp.frames import MAX_FRAMES, Frame, broken, fills, frames, samples

FORMATS = {
    "G722": ("G722", 8000, 1, ""),
    "G729": ("G729", 8000, 1, "annexb=yes"),
    "GSM": ("GSM", 8000, 1, ""),
    "G723": ("G723", 8000, 1, ""),
    "G726-24": ("G726-24", 8000, 1, ""),
    "AAL2-G726-40": ("AAL2-G726-40", 8000, 1, ""),
    "OPUS": ("OPUS", 48000, 2, ""),
    "AMR": ("AMR", 8000, 1, ""),
    "AMR octets": ("AMR", 8000, 1, "mode-set=0,7; octet-align=1"),
    "AMR-WB": ("AMR-WB", 16000, 1, ""),
    "ILBC": ("ILBC", 8000, 1, ""),
    "ILBC 20": ("ILBC", 8000, 1, "mode=20"),
    "SPEEX": ("SPEEX", 16000, 1, ""),
    "L16": ("L16", 44100, 2, ""),
}


def known(name: str) -> Codec:
    found = codec(*FORMATS[name])
    assert found is not None
    return found


@pytest.mark.parametrize("name", FORMATS)
@given(payload=st.binary(max_size=400))
def test_any_payload_is_within_bounds(name: str, payload: bytes) -> None:
    one = known(name)
    found = frames(one, payload)
    assert len(found) <= MAX_FRAMES
    assert all(len(frame.data) <= len(payload) + 1 for frame in found)
    assert samples(one, payload) == sum(frame.samples for frame in found)
    assert any(frame.data for frame in found) or not found
    if one.sized:
        assert samples(one, payload) == samples(one, bytes(len(payload)))


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("G722", 160, 320),  # RFC 3551 section 4.5.2: 64 kbit/s at 16 kHz
        ("G729", 20, 160),  # 4.5.6: 10 ms are 10 bytes
        ("G729", 22, 160),
        ("G729", 2, 0),
        ("GSM", 33, 160),  # 4.5.8
        ("GSM", 65, 160),
        ("G726-24", 60, 160),  # 4.5.4: eight samples in three bytes
        ("G726-24", 61, 160),
        ("AAL2-G726-40", 100, 160),
        ("ILBC", 50, 240),  # RFC 3952 section 3: 30 ms in 50 bytes, 20 ms in 38
        ("ILBC", 38, 160),
        ("ILBC 20", 76, 320),
        ("L16", 1764, 441),
    ],
)
def test_the_size_tells_the_length(name: str, size: int, expected: int) -> None:
    assert samples(known(name), bytes([0x55]) * size) == expected


@pytest.mark.parametrize(
    ("first", "size", "expected"),
    [(0, 24, 240), (1, 20, 240), (0, 23, 0), (2, 4, 0), (3, 1, 0)],  # RFC 3551 section 4.5.3
)
def test_g723_frames_tell_their_size(first: int, size: int, expected: int) -> None:
    assert samples(known("G723"), bytes([first]) + bytes(size - 1)) == expected


def test_silence_between_g723_frames_keeps_its_length() -> None:
    voice = bytes([1]) + bytes(19)
    found = frames(known("G723"), voice + bytes([2, 0, 0, 0]) + voice)
    assert found == [Frame(voice, 240), Frame(b"", 240), Frame(voice, 240)]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [  # RFC 6716 table 2 and section 3.1: configuration, code
        (bytes([16 << 3]) + bytes(40), 120),
        (bytes([1 << 3]) + bytes(40), 960),
        (bytes([3 << 3 | 1]) + bytes(40), 5760),
        (bytes([31 << 3 | 3, 3]) + bytes(40), 2880),
        (bytes([3 << 3 | 3, 3]) + bytes(40), 0),  # 180 ms: no packet is longer than 120
        (bytes([31 << 3 | 3, 0]) + bytes(40), 0),
        (bytes([1 << 3]), 0),
        (b"", 0),
    ],
)
def test_opus_packets_tell_their_length(payload: bytes, expected: int) -> None:
    assert samples(known("OPUS"), payload) == expected


def test_amr_frames_of_the_bandwidth_efficient_example() -> None:
    """RFC 4867 section 4.3.5.1: one frame of AMR 7.4; mode 4, 148 bits, request for mode 6, two bits to fill up."""
    bits = "0110" + "0" + "0100" + "1" + "10" * 74 + "00"
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    [frame] = frames(known("AMR"), payload)
    assert frame == Frame(bytes([4 << 3 | 4]) + b"\xaa" * 18 + b"\xa0", 160)


def test_amr_frames_in_whole_octets() -> None:
    """RFC 4867 section 4.4: two frames of AMR, 7.95 and 10.2 kbit/s: 159 and 204 bits, in 20 and 26 bytes."""
    payload = bytes([0xF0, 0x80 | 5 << 3 | 4, 6 << 3 | 4]) + b"\x11" * 19 + b"\x10" + b"\x22" * 25 + b"\x20"
    found = frames(known("AMR octets"), payload)
    assert found == [
        Frame(bytes([5 << 3 | 4]) + b"\x11" * 19 + b"\x10", 160),
        Frame(bytes([6 << 3 | 4]) + b"\x22" * 25 + b"\x20", 160),
    ]


@pytest.mark.parametrize("payload", [b"\xf0", b"\xf0\xbc", b"\xf0\x3c" + bytes(30), b"\xf0\x64" + bytes(31)])
def test_amr_that_is_cut_or_not_known_holds_nothing(payload: bytes) -> None:
    assert frames(known("AMR octets"), payload) == []


def test_a_damaged_amr_frame_is_silence() -> None:
    payload = bytes([0xF0, 0x80 | 7 << 3 | 4, 7 << 3]) + bytes([0x55]) * 62
    assert [bool(frame.data) for frame in frames(known("AMR octets"), payload)] == [True, False]


@pytest.mark.parametrize(
    "form",
    [
        ("AMR", 8000, 1, "octet-align=1; crc=1"),
        ("AMR", 8000, 1, "interleaving=4"),
        ("AMR-WB", 16000, 2, ""),
        ("L16", 96000, 1, ""),
        ("L16", 44100, 6, ""),
        ("SPEEX", 11025, 1, ""),
        ("EVS", 16000, 1, ""),
        ("G7221", 16000, 1, ""),
        ("GSM", 8000, 2, ""),
    ],
)
def test_what_is_not_decoded(form: tuple[str, int, int, str]) -> None:
    assert codec(*form) is None


def test_the_clock_of_g722_is_half_its_rate() -> None:
    one = known("G722")
    assert (one.clock, one.rate) == (8000, 16000)


@pytest.mark.parametrize("name", FORMATS)
@given(payload=st.binary(max_size=400))
def test_what_is_broken_has_no_sound_and_no_silence(name: str, payload: bytes) -> None:
    one = known(name)
    if broken(one, payload):
        assert payload
        assert not samples(one, payload)


@pytest.mark.parametrize(
    ("name", "payload", "expected"),
    [
        ("GSM", b"\xd0" + bytes(31), True),
        ("GSM", b"", False),
        ("G729", bytes(9), True),
        ("G729", bytes(2), False),  # a silence description (Annex B)
        ("G723", bytes([2, 1, 2, 3]), False),  # the same of G.723.1
        ("G723", bytes([2, 1, 2]), True),
        ("G726-24", bytes(2), True),
        ("AMR octets", b"\xf0\x7c", False),  # no data
        ("AMR octets", b"\xf0\x3c" + bytes(5), True),
        ("OPUS", b"\x08", False),  # a packet without frames: DTX
        ("OPUS", b"\x03", True),
        ("ILBC", bytes(37), True),
    ],
)
def test_what_is_cut_short_is_told_from_a_pause(name: str, payload: bytes, expected: bool) -> None:
    assert broken(known(name), payload) is expected


@pytest.mark.parametrize("name", ["AMR", "AMR octets", "AMR-WB"])
@given(payload=st.binary(max_size=300))
def test_what_fills_a_payload_is_all_of_it(name: str, payload: bytes) -> None:
    if fills(known(name), payload):
        assert payload
        assert not broken(known(name), payload)
