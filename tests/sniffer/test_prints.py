"""The same sound is told by its payloads, whatever carries them."""

import random

import numpy as np
import pytest

from tapdeck.sniffer.prints import SoundPrints, prints_of, same_sound
from tapdeck.sniffer.records import PADDING


def heard(*streams: list[bytes]) -> SoundPrints:
    """The prints of these streams, a block for all their n-th packets."""
    known = SoundPrints()
    for place in range(max(map(len, streams))):
        mine = [number for number, packets in enumerate(streams) if place < len(packets)]
        packets = [streams[number][place] for number in mine]
        size = np.array([len(packet) for packet in packets], dtype=np.int64)
        data = np.frombuffer(b"".join(packets) + bytes(PADDING), dtype=np.uint8)
        prints = prints_of(data, np.cumsum(size) - size, size)
        known.note(prints, np.array(mine, dtype=np.int32), mine if place == 0 else [], 1024)
    return known


def speech(seed: int, count: int = 500, size: int = 160) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(size) for _ in range(count)]


@pytest.mark.parametrize("size", [3, 6, 8, 10, 20, 24, 160, 1400])
def test_the_same_payloads_are_the_same_sound(size: int) -> None:
    one = speech(1, size=size)
    late = random.Random(3).sample(one, len(one) * 98 // 100)  # a few lost, and in another order
    known = heard(one, late, speech(2, size=size), [*one[:200], *speech(4, 300, size)])
    assert same_sound(known.of(0), known.of(1))
    assert not same_sound(known.of(0), known.of(2))
    assert not same_sound(known.of(0), known.of(3))  # the begin of it, and something else


def test_silence_is_in_every_sound_and_nothing_else_is_in_silence() -> None:
    known = heard([b"\xd5" * 160] * 50, speech(1), [b"\xff"] * 50, [])
    for silent in (0, 2, 3, 5000):
        assert same_sound(known.of(silent), known.of(1))
        assert not same_sound(known.of(1), known.of(silent))


def test_a_number_that_is_used_again_begins_anew() -> None:
    known = heard(speech(1), speech(2))
    before = known.of(0).copy()
    known.note(np.array([77], dtype=np.uint32), np.array([0], dtype=np.int32), [0], 1024)
    assert same_sound(known.of(1), known.of(1))
    assert not same_sound(before, known.of(0))


def test_packets_of_no_stream_are_passed_over() -> None:
    known = heard(speech(1))
    before = known.of(0).copy()
    known.note(np.array([1], dtype=np.uint32), np.array([-1], dtype=np.int32), [], 1024)
    assert (known.of(0) == before).all()
