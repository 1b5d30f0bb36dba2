"""Placement on the time axis against a sender who knows when each sample was spoken, and laws for any columns.

A stream is a list of `Sent`, a network a list of arrivals (time, which packet). Expected places follow from the
sender's clock, never from the code under test.
"""

from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tapdeck.rtp.timeline import (
    BREAK_S,
    JUMP_S,
    OVERLAP_S,
    TOLERANCE_S,
    Sequence,
    Timeline,
    overlay,
    place,
    sort_packets,
)

MS = 1_000_000
PTIME = 20 * MS
SIZE = 160
SAMPLES_A_MS = 8


@dataclass(frozen=True)
class Sent:
    """A packet as its sender made it: numbers without wraps, samples, and when it was spoken (ns)."""

    number: int
    stamp: int
    size: int
    spoken: int


Arrivals = list[tuple[int, int]]
"""(time in ns, index into the sent packets), in any order."""

SEQUENCES = st.integers(0, 0xFFFF)
STAMPS = st.integers(0, 0xFFFF_FFFF)


def sorted_by_number(numbers: list[int]) -> Sequence:
    """Sort packets whose time stamps follow their numbers."""
    sequence = np.array([number & 0xFFFF for number in numbers], dtype=np.uint16)
    return sort_packets(sequence, np.array([number * 160 & 0xFFFFFFFF for number in numbers], dtype=np.uint32))


def steady(count: int, *, first: int = 7, stamp: int = 1000) -> list[Sent]:
    return [Sent(first + k, stamp + k * SIZE, SIZE, k * PTIME) for k in range(count)]


def at_once(sent: Many[Sent]) -> Arrivals:
    """A network without delay."""
    return [(packet.spoken, index) for index, packet in enumerate(sent)]


def lay(sent: Many[Sent], arrivals: Arrivals, reference: int = 0) -> tuple[dict[int, int], Timeline]:
    """Place what arrived; give the first sample of each sent packet that was placed."""
    rows = sorted(arrivals, key=lambda arrival: arrival[0])
    packets = [sent[index] for _, index in rows]
    line = place(
        np.array([time for time, _ in rows], dtype=np.int64),
        np.array([packet.stamp & 0xFFFF_FFFF for packet in packets], dtype=np.uint32),
        np.array([packet.size for packet in packets], dtype=np.int64),
        sort_packets(
            np.array([packet.number & 0xFFFF for packet in packets], dtype=np.uint16),
            np.array([packet.stamp & 0xFFFFFFFF for packet in packets], dtype=np.uint32),
        ),
        reference=reference,
    )
    assert len(set(line.row.tolist())) == len(line.row)
    places = {rows[row][1]: start for row, start in zip(line.row.tolist(), line.start.tolist(), strict=True)}
    return places, line


def spoken_at(sent: Many[Sent], arrivals: Arrivals) -> dict[int, int]:
    """Where the sender's own clock puts the packets that arrived."""
    return {index: sent[index].spoken * SAMPLES_A_MS // MS for _, index in arrivals}


# -- a sender with a good clock ----------------------------------------------------------------------------------------


@given(
    first=SEQUENCES,
    stamp=STAMPS,
    fates=st.lists(st.lists(st.integers(0, int(TOLERANCE_S * 1000)), max_size=3), min_size=1, max_size=150),
)
def test_delay_loss_and_copies_move_nothing(first: int, stamp: int, fates: list[list[int]]) -> None:
    """Every packet arrives any number of times, each time up to 40 ms late: all lie where they were spoken."""
    sent = steady(len(fates) + 1, first=first, stamp=stamp)
    arrivals = [(0, 0)]
    arrivals += [(sent[k].spoken + ms * MS, k) for k, delays in enumerate(fates, 1) for ms in delays]
    places, line = lay(sent, arrivals)
    assert places == spoken_at(sent, arrivals)
    assert line.anchors == 1


@given(
    first=SEQUENCES, stamp=STAMPS, delays=st.lists(st.integers(0, int(BREAK_S * 1000) - 10), min_size=1, max_size=150)
)
def test_without_loss_any_delay_short_of_a_break_moves_nothing(first: int, stamp: int, delays: list[int]) -> None:
    sent = steady(len(delays) + 1, first=first, stamp=stamp)
    arrivals = [(0, 0)] + [(sent[k].spoken + ms * MS, k) for k, ms in enumerate(delays, 1)]
    assert lay(sent, arrivals)[0] == spoken_at(sent, arrivals)


@given(first=SEQUENCES, stamp=STAMPS, before=st.integers(1, 60), gone=st.integers(1, 900), after=st.integers(1, 60))
def test_loss_leaves_a_gap_of_its_own_length(first: int, stamp: int, before: int, gone: int, after: int) -> None:
    sent = steady(before + gone + after, first=first, stamp=stamp)
    arrivals = [arrival for arrival in at_once(sent) if not before <= arrival[1] < before + gone]
    places, _ = lay(sent, arrivals)
    assert places == spoken_at(sent, arrivals)
    assert places[before + gone] - (places[before - 1] + SIZE) == gone * SIZE


def test_silence_suppression_is_silence_of_the_same_length() -> None:
    """RFC 3550 section 5.1: the sequence goes on by one, the time stamp by the silence."""
    sent = steady(100)
    pause = [replace(packet, number=packet.number - 200, spoken=packet.spoken) for packet in steady(300)[200:]]
    pause = [replace(packet, number=107 + k) for k, packet in enumerate(pause)]
    stream = [*sent, *pause]
    assert lay(stream, at_once(stream))[0] == spoken_at(stream, at_once(stream))


def test_packets_without_sound_take_no_place_and_shift_nothing() -> None:
    """Comfort noise and key presses: their own numbers, no samples."""
    sent = [replace(packet, size=0) if k in (0, 3, 4, 9) else packet for k, packet in enumerate(steady(12))]
    places, _ = lay(sent, at_once(sent))
    assert places == {k: k * SIZE for k in range(12) if k not in (0, 3, 4, 9)}


def test_a_stream_without_sound_is_empty() -> None:
    sent = [replace(packet, size=0) for packet in steady(5)]
    places, line = lay(sent, at_once(sent))
    assert (places, line.empty, line.anchors) == ({}, True, 0)


def test_the_reference_is_sample_zero() -> None:
    sent = steady(3)
    arrivals = [(time + 1_772_445_600_000_000_000 + 5 * MS, index) for time, index in at_once(sent)]
    assert lay(sent, arrivals, reference=1_772_445_600_000_000_000)[0] == {0: 40, 1: 200, 2: 360}


def test_the_least_delayed_of_the_first_packets_anchors() -> None:
    """The line is congested at first, by 60 ms, 40 ms, 20 ms: no sound may be moved by the first delay."""
    sent = steady(20)
    arrivals = [(packet.spoken + max(0, 60 - 20 * k) * MS, k) for k, packet in enumerate(sent)]
    assert lay(sent, arrivals)[0] == spoken_at(sent, arrivals)


# -- the sender's clock or the sender breaks ---------------------------------------------------------------------------

WIDE = int(BREAK_S * 8000) + 1
WIDE_JUMPS = st.one_of(st.integers(WIDE, 2**31 - SIZE - 1), st.integers(-(2**31) + SIZE + 1, -WIDE))


def assert_anchored_on_arrival(first: int, stamp: int, before: int, jump: int, after: int) -> None:
    sent = steady(before + after, first=first, stamp=stamp)
    jumped = [replace(packet, stamp=packet.stamp + jump * (k >= before)) for k, packet in enumerate(sent)]
    places, line = lay(jumped, at_once(jumped))
    assert places == spoken_at(sent, at_once(sent))
    assert line.anchors == 2


@given(first=SEQUENCES, stamp=STAMPS, before=st.integers(1, 70), jump=WIDE_JUMPS, after=st.integers(1, 70))
@example(first=65_535, stamp=2**32 - 1, before=1, jump=2**31 - SIZE - 1, after=1)
def test_a_jump_of_the_time_stamp_is_anchored_on_arrival(
    first: int, stamp: int, before: int, jump: int, after: int
) -> None:
    assert_anchored_on_arrival(first, stamp, before, jump, after)


@given(before=st.integers(51, 120), jump=st.integers(int(TOLERANCE_S * 8000) + 1, WIDE), after=st.integers(11, 70))
def test_a_small_jump_is_anchored_on_arrival_too(before: int, jump: int, after: int) -> None:
    assert_anchored_on_arrival(7, 1000, before, jump, after)


@given(before=st.integers(1, 50), jump=st.integers(int(JUMP_S * 8000) + 1, WIDE), after=st.integers(11, 70))
@example(before=1, jump=4000, after=60)
def test_a_small_jump_in_the_first_second_does_not_move_what_was_before_it(before: int, jump: int, after: int) -> None:
    assert_anchored_on_arrival(7, 1000, before, jump, after)


@given(before=st.integers(2, 70), back=st.integers(2 * SIZE + 1, WIDE - SIZE), after=st.integers(0, 70))
@example(before=3, back=1000, after=20)
def test_one_packet_with_a_time_stamp_of_the_past_lies_behind_the_one_before_it(
    before: int, back: int, after: int
) -> None:
    """Its sequence number says that it comes next: it may not be written over what was heard already."""
    sent = steady(before + 1 + after)
    sent[before] = replace(sent[before], stamp=sent[before].stamp - back)
    places, _ = lay(sent, at_once(sent))
    assert all(places[k] < places[k + 1] for k in range(before + after))
    assert places[before] >= before * SIZE


@given(before=st.integers(1, 70), pause_ms=st.integers(int(BREAK_S * 1000) + 1, 400_000), after=st.integers(1, 70))
def test_a_pause_in_which_the_clock_stood_still_is_a_pause(before: int, pause_ms: int, after: int) -> None:
    """Hold as some phones do it: the time stamp goes on as if nothing had been."""
    sent = steady(before + after)
    sent = [replace(packet, spoken=packet.spoken + pause_ms * MS * (k >= before)) for k, packet in enumerate(sent)]
    assert lay(sent, at_once(sent))[0] == spoken_at(sent, at_once(sent))


def stalled(sent: Many[Sent], begin: int, packets: int) -> Arrivals:
    """The network keeps some packets back and then lets them all through at once."""
    release = sent[begin + packets].spoken
    return [(release if begin <= k < begin + packets else time, k) for time, k in at_once(sent)]


@given(begin=st.integers(1, 60), packets=st.integers(1, 95))
def test_a_stall_and_its_burst_move_nothing(begin: int, packets: int) -> None:
    sent = steady(begin + packets + 60)
    assert lay(sent, stalled(sent, begin, packets))[0] == spoken_at(sent, at_once(sent))


@pytest.mark.parametrize("seconds", [3, 10])
def test_a_long_stall_and_its_burst_move_nothing(seconds: int) -> None:
    sent = steady(30 + seconds * 50 + 100)
    assert lay(sent, stalled(sent, 30, seconds * 50))[0] == spoken_at(sent, at_once(sent))


@pytest.mark.parametrize("percent", [-1.0, -0.1, 0.1, 1.0])
def test_drift_is_corrected_only_in_silence(percent: float) -> None:
    """A clock that runs wrong: speech stays whole however far it parts from arrival, the next silence takes it up."""
    count, pause = 3000, 8000
    sent = [
        Sent(
            k, k * SIZE + pause * (k >= count), SIZE, int((k * PTIME + 1000 * MS * (k >= count)) * (1 + percent / 100))
        )
        for k in range(2 * count)
    ]
    places, line = lay(sent, at_once(sent))
    assert [places[k] for k in range(count)] == [k * SIZE + places[0] for k in range(count)]
    assert [places[k] - places[count] for k in range(count, 2 * count)] == [k * SIZE for k in range(count)]
    drifted = abs(percent) / 100 * 50 * SIZE
    assert abs(places[0]) <= drifted + 1
    assert abs(places[count] - sent[count].spoken * SAMPLES_A_MS // MS) <= drifted + 1
    assert line.anchors == 2


def test_a_little_drift_is_left_alone_even_in_silence() -> None:
    """39 ms is jitter, 41 ms is not."""
    for ms, anchors in ((39, 1), (41, 2)):
        sent = steady(100) + [replace(p, number=p.number - 50, spoken=p.spoken + ms * MS) for p in steady(250)[150:]]
        places, line = lay(sent, at_once(sent))
        assert line.anchors == anchors
        assert places[100] == 150 * SIZE + (ms * 8 if anchors == 2 else 0)


def test_the_drift_that_is_left_is_stated() -> None:
    """2000 packets at 0.1 % late: 40 ms or 320 samples at the end, less the window's own."""
    sent = [replace(packet, spoken=int(packet.spoken * 1.001)) for packet in steady(2000)]
    _, line = lay(sent, at_once(sent))
    assert line.drift == pytest.approx(320, abs=9)


def test_the_drift_of_all_stretches_is_summed() -> None:
    """Two stretches of 50 s at 0.1 %: 400 samples each, and 8 for the silence of a second between them."""
    count, pause = 2500, 8000
    sent = [
        Sent(k, k * SIZE + pause * (k >= count), SIZE, int((k * PTIME + 1000 * MS * (k >= count)) * 1.001))
        for k in range(2 * count)
    ]
    _, line = lay(sent, at_once(sent))
    assert line.anchors == 2
    assert line.drift == pytest.approx(808, abs=18)


# -- laws for any columns ----------------------------------------------------------------------------------------------

ANY_PACKET = st.tuples(st.integers(0, 10**10), STAMPS, st.integers(1, 1500))
NEARBY = st.lists(ANY_PACKET, min_size=1, max_size=60)


@given(packets=NEARBY, first=SEQUENCES, data=st.data())
def test_the_order_of_arrival_does_not_matter(
    packets: list[tuple[int, int, int]], first: int, data: st.DataObject
) -> None:
    """The same packets at the same set of times, whoever came when: the same timeline, for any time stamps at all."""
    sent = [Sent(first + k, stamp, size, 0) for k, (_, stamp, size) in enumerate(packets)]
    times = sorted(time for time, _, _ in packets)
    in_order = [(time, k) for k, time in enumerate(times)]
    shuffled = data.draw(st.permutations(range(len(packets))))
    # Equal times keep the order of the list: `lay` sorts stably, so any order within them occurs too.
    assert lay(sent, [(time, k) for time, k in zip(times, shuffled, strict=True)])[0] == lay(sent, in_order)[0]


@given(packets=NEARBY, first=SEQUENCES, copies=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 10**9))))
def test_copies_do_not_matter(packets: list[tuple[int, int, int]], first: int, copies: list[tuple[int, int]]) -> None:
    sent = [Sent(first + k, stamp, size, time) for k, (time, stamp, size) in enumerate(packets)]
    once = at_once(sent)
    again = [(sent[k].spoken + later, k) for k, later in copies if k < len(sent)]
    assert lay(sent, once + again)[0] == lay(sent, once)[0]


@given(
    steps=st.lists(st.tuples(st.integers(1, 1500), st.integers(0, 2**31 - 3000), st.integers(0, 2**40)), max_size=60),
    first=SEQUENCES,
    stamp=STAMPS,
)
def test_packets_never_overlap(steps: list[tuple[int, int, int]], first: int, stamp: int) -> None:
    """Where time stamps leave room for the samples, so do the places, whatever the arrival times."""
    sent, arrivals = [Sent(first, stamp, 160, 0)], [(0, 0)]
    for size, silence, time in steps:
        last = sent[-1]
        sent.append(Sent(last.number + 1, last.stamp + last.size + silence, size, 0))
        arrivals.append((time, len(sent) - 1))
    places, _ = lay(sent, arrivals)
    starts = [places[k] for k in range(len(sent))]
    assert all(starts[k] + sent[k].size <= starts[k + 1] for k in range(len(sent) - 1))


HOSTILE = st.lists(
    st.tuples(st.integers(0, 9 * 10**18), SEQUENCES, STAMPS, st.integers(0, 65_535)), min_size=1, max_size=120
)


@given(columns=HOSTILE, ordered=st.booleans())
def test_hostile_columns(columns: list[tuple[int, int, int, int]], ordered: bool) -> None:
    """Any columns give a timeline: each packet at most once, in the order of its places; times need not be sorted."""
    rows = sorted(columns) if ordered else columns
    sequence = np.array([row[1] for row in rows], dtype=np.uint16)
    samples = np.array([row[3] for row in rows], dtype=np.int64)
    stamp = np.array([row[2] for row in rows], dtype=np.uint32)
    packets = sort_packets(sequence, stamp)
    line = place(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.uint32),
        samples,
        packets,
        reference=min(row[0] for row in rows),
    )
    assert len(line.row) == len(line.start) == np.count_nonzero(samples[packets.order] > 0)
    assert len(set(line.row.tolist())) == len(line.row)
    assert (samples[line.row] > 0).all()
    assert (np.diff(line.start) >= 0).all()


# -- sequence numbers --------------------------------------------------------------------------------------------------


def model(numbers: list[int]) -> tuple[list[int], int, int]:
    """The rows of one run in order of number, each number once, first come; packets that came late; expected."""
    rows: dict[int, int] = {}
    late, highest = 0, -1
    for row, number in enumerate(numbers):
        if number in rows:
            continue
        late += number < highest
        highest = max(highest, number)
        rows[number] = row
    return [rows[number] for number in sorted(rows)], late, max(rows) - min(rows) + 1


@given(first=SEQUENCES, spread=st.lists(st.integers(0, 400), min_size=1, max_size=200))
def test_sorting_is_that_of_a_plain_loop(first: int, spread: list[int]) -> None:
    """Numbers within 400 of each other, across the wrap or not, in any order and any number of times."""
    order, late, expected = model(spread)
    found = sorted_by_number([first + number for number in spread])
    assert found.order.tolist() == order
    assert (found.received, found.expected, found.reordered) == (len(spread), expected, late)
    assert found.duplicate == len(spread) - len(order)
    assert found.lost == expected - len(order)
    assert found.runs.tolist() == [0]
    assert np.diff(found.number).tolist() == [after - before for before, after in pairwise(sorted(set(spread)))]


@given(steps=st.lists(st.integers(1, 3000), max_size=80), first=SEQUENCES)
def test_any_number_of_wraps(steps: list[int], first: int) -> None:
    numbers = [first]
    for step in steps:
        numbers.append(numbers[-1] + step)
    found = sorted_by_number(numbers)
    assert found.order.tolist() == list(range(len(numbers)))
    assert found.expected == sum(steps) + 1
    assert (found.lost, found.duplicate, found.reordered) == (sum(step - 1 for step in steps), 0, 0)


@given(first=SEQUENCES, jump=st.integers(3001, 0x10000 - 1002), before=st.integers(1, 50), after=st.integers(1, 50))
def test_a_sender_that_starts_anew_has_lost_nothing(first: int, jump: int, before: int, after: int) -> None:
    numbers = [first + k + (jump if k >= before else 0) for k in range(before + after)]
    found = sorted_by_number(numbers)
    assert found.order.tolist() == list(range(before + after))
    assert found.runs.tolist() == [0, before]
    assert (found.lost, found.expected, found.duplicate) == (0, before + after, 0)


def test_no_packets_at_all() -> None:
    found = sorted_by_number([])
    assert (len(found.order), found.received, found.expected, found.lost) == (0, 0, 0, 0)


# -- several streams on one channel ------------------------------------------------------------------------------------


def heard_samples(
    streams: list[list[tuple[int, int]]], moves: list[int], heard: list[np.ndarray]
) -> list[tuple[int, int, int]]:
    return sorted(
        (start + moves[index], start + moves[index] + length, index)
        for index, stream in enumerate(streams)
        for (start, length), on in zip(stream, heard[index].tolist(), strict=True)
        if on
    )


def lay_over(*streams: list[tuple[int, int]]) -> tuple[list[int], list[list[bool]]]:
    moves, heard = overlay(
        [np.array([start for start, _ in stream], dtype=np.int64) for stream in streams],
        [np.array([length for _, length in stream], dtype=np.int64) for stream in streams],
    )
    return moves, [mask.tolist() for mask in heard]


def run(start: int, packets: int) -> list[tuple[int, int]]:
    return [(start + k * SIZE, SIZE) for k in range(packets)]


def test_streams_that_follow_each_other_stay_where_they_are() -> None:
    moves, heard = lay_over(run(5000, 3), run(0, 10), [], run(1600, 4))
    assert moves == [0, 0, 0, 0]
    assert all(all(mask) for mask in heard)


def test_a_stream_that_begins_a_little_early_moves_behind_its_forerunner() -> None:
    assert lay_over(run(0, 50), run(8000 - 1600, 50)) == ([0, 1600], [[True] * 50, [True] * 50])


def test_a_stream_that_begins_while_another_sounds_takes_over() -> None:
    begin = int(8000 - OVERLAP_S * 8000) - 1
    moves, heard = lay_over(run(0, 50), run(begin, 50))
    assert moves == [0, 0]
    assert heard[0] == [start < begin for start, _ in run(0, 50)]
    assert all(heard[1])


@given(streams=st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 40)).map(lambda args: run(*args)), max_size=6))
def test_overlay_keeps_what_came_last_and_moves_little(streams: list[list[tuple[int, int]]]) -> None:
    moves, heard = lay_over(*streams)
    assert all(0 <= move <= OVERLAP_S * 8000 for move in moves)
    if not streams:
        return
    newest = max(range(len(streams)), key=lambda index: (streams[index][0][0], index))
    assert all(heard[newest])
    sounding = heard_samples(streams, moves, [np.array(mask) for mask in heard])
    for (_, end, one), (start, _, other) in pairwise(sounding):
        if one != other:
            assert end - start <= SIZE, "two streams sound at once for longer than the packet that was playing"


def test_a_player_that_loops_begins_a_new_run() -> None:
    """Numbers and time stamps begin anew on the same SSRC: nothing of it is a duplicate."""
    numbers = [*range(150), *range(150)]
    found = sorted_by_number(numbers)
    assert (found.duplicate, found.lost, found.reordered) == (0, 0, 0)
    assert found.order.tolist() == list(range(300))
    assert found.runs.tolist() == [0, 150]


def test_a_gateway_that_steps_back_keeps_its_order() -> None:
    sequence = np.array([*range(1000, 1200), *range(500, 700)], dtype=np.uint16)
    found = sort_packets(sequence, np.arange(400, dtype=np.uint32) * 160)
    assert found.order.tolist() == list(range(400))
    assert (found.duplicate, found.reordered) == (0, 0)


def test_a_constant_sequence_number_is_no_duplicate() -> None:
    found = sort_packets(np.full(300, 7, dtype=np.uint16), np.arange(300, dtype=np.uint32) * 160)
    assert found.order.tolist() == list(range(300))
    assert found.duplicate == 0


def test_streams_that_take_turns_do_not_hide_each_other() -> None:
    """Two SSRCs alternate; each begins again after the other."""
    one = np.array([*range(0, 16000, 160), *range(32000, 48000, 160)], dtype=np.int64)
    two = one + 16000
    length = np.full(len(one), 160, dtype=np.int64)
    moves, heard = overlay([one, two], [length, length])
    assert moves == [0, 0]
    assert all(mask.all() for mask in heard)
