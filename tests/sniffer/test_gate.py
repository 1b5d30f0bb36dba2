"""The gate turns strangers away beyond a rate, and never a call in progress."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tapdeck.sip.table import MAX_LEGS
from tapdeck.sniffer.engine import Limits
from tapdeck.sniffer.gate import FLOOD, OTHERS, SECOND, Gate
from tapdeck.sniffer.live import LiveEngine
from tests.support import ip
from tests.support.ip import Endpoint, Packet
from tests.support.live import Capture, frames, recordings, sealed
from tests.support.media import MS
from tests.support.record import assert_sound
from tests.support.scene import START_NS, in_order, plain_call
from tests.support.signalling import sdp

RATE = 100


def message(first: str, call_id: str, cseq: str = "1 INVITE", name: str = "Call-ID", before: str = "") -> bytes:
    lines = [first, "Via: SIP/2.0/UDP 10.0.0.1", f"{name}: {call_id}", f"CSeq: {cseq}", "From: <sip:1@x>;tag=1"]
    return (before + "\r\n".join([*lines, "To: <sip:2@x>", "", ""])).encode()


INVITE, ANSWER = "INVITE sip:2@x SIP/2.0", "SIP/2.0 200 OK"


def gate(*known: str) -> Gate:
    return Gate(RATE, set(known).__contains__)


def passed(watched: Gate, data: bytes, count: int, time: int = 0, step: int = 0) -> int:
    return sum(watched.admits(data, time + n * step) for n in range(count))


def test_twice_the_rate_passes_at_once_and_then_the_rate() -> None:
    watched, step = gate(), SECOND // (10 * RATE)
    assert passed(watched, message(INVITE, "new"), 10 * RATE) == 2 * RATE
    later = [passed(watched, message(INVITE, "new"), 10 * RATE, n * SECOND, step) for n in (1, 2)]
    assert later == [pytest.approx(2 * RATE, abs=1), pytest.approx(RATE, abs=1)]
    assert watched.refused == 30 * RATE - 2 * RATE - sum(later)


@pytest.mark.parametrize(
    "first", [INVITE, "BYE sip:2@x SIP/2.0", ANSWER, "ACK sip:2@x SIP/2.0", "INFO sip:2@x SIP/2.0"]
)
@pytest.mark.parametrize("name", ["Call-ID", "call-id", "CALL-ID ", "i"])
def test_messages_of_a_call_in_progress_always_pass(first: str, name: str) -> None:
    watched = gate("running@x")
    passed(watched, message(INVITE, "new"), 100 * RATE)
    passed(watched, message("OPTIONS sip:2@x SIP/2.0", "new"), 100 * RATE)
    assert passed(watched, message(first, "running@x", name=name), 1000) == 1000


@pytest.mark.parametrize(
    ("first", "cseq", "most"),
    [
        (INVITE, "1 INVITE", 2 * RATE),
        (ANSWER, "1 INVITE", 2 * RATE),
        ("sip/2.0 183 Session Progress", "1   INVITE", 2 * RATE),
        ("ACK sip:2@x SIP/2.0", "1 ACK", 2 * RATE),
        ("UPDATE sip:2@x SIP/2.0", "1 UPDATE", 2 * RATE),
        (ANSWER, "1 REGISTER", 2 * OTHERS * RATE),
        ("REGISTER sip:x SIP/2.0", "1 REGISTER", 2 * OTHERS * RATE),
        ("BYE sip:2@x SIP/2.0", "1 BYE", 2 * OTHERS * RATE),
    ],
)
@pytest.mark.parametrize("before", ["", "\r\n\r\n", "\0\n"])
def test_each_kind_of_stranger_has_a_rate(first: str, cseq: str, most: int, before: str) -> None:
    assert passed(gate(), message(first, "new", cseq, before=before), 4 * OTHERS * RATE) == most


def test_an_answer_passes_while_invites_drown() -> None:
    watched = gate()
    passed(watched, message(INVITE, "new"), 100 * RATE)
    assert watched.admits(message(ANSWER, "real"), 0)


def test_time_that_goes_back_gives_no_tokens() -> None:
    watched = gate()
    passed(watched, message(INVITE, "new"), 100 * RATE, 10 * SECOND)
    assert passed(watched, message(INVITE, "new"), 100, 5 * SECOND) == 0


def test_a_flood_is_over_when_nothing_was_refused_for_a_while() -> None:
    watched = gate()
    assert not watched.flooded(0)
    passed(watched, message(INVITE, "new"), 3 * RATE, SECOND)
    assert watched.flooded(SECOND)
    assert watched.flooded(SECOND + FLOOD - 1)
    assert not watched.flooded(SECOND + FLOOD)


@pytest.mark.parametrize(
    "text", [b"INVITE ", b"INVITE sip:x SIP/2.0\r\nCall-ID", b"\xff" * 70, b"SIP/2.0 200 OK\r\nCSeq: 1"]
)
def test_fragments_of_messages_count_as_strangers(text: bytes) -> None:
    assert passed(gate(""), text, 100) == 100


# -- within the engine -------------------------------------------------------------------------------------------------


def flood(kind: str, count: int, start_ns: int, step_ns: int) -> Iterator[Packet]:
    """Messages that seem to begin calls, each with names and addresses of its own."""
    rng = random.Random(7)
    for number in range(count):
        address = f"10.{rng.randrange(100, 200)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        call_id = "the-same@flood" if kind == "one Call-ID" else f"{rng.getrandbits(64):x}@flood"
        body = sdp(Endpoint(address, 2 * rng.randrange(5000, 30000)))
        first = ANSWER if kind == "answers" else f"INVITE sip:2001@{address} SIP/2.0"
        head = [
            first,
            f"Via: SIP/2.0/UDP {address};branch=z9hG4bK{number}",
            f"From: <sip:1@{address}>;tag={rng.getrandbits(32):x}",
            f"To: <sip:2001@x>{';tag=there' if kind == 'answers' else ''}",
            f"Call-ID: {call_id}",
            "CSeq: 1 INVITE",
            "Content-Type: application/sdp",
            f"Content-Length: {len(body)}",
            "",
            body,
        ]
        text = "\r\n".join(head).encode()
        here, there = Endpoint(address, rng.randrange(1024, 60000)), Endpoint("10.0.1.21", 5060)
        data = ip.tcp(here, there, number * 5000, 0, ip.ACK, text) if kind == "TCP" else ip.udp(here, there, text)
        yield Packet(start_ns + number * step_ns, data)


def calls(engine: LiveEngine) -> int:
    return len(engine.correlator.open)


@pytest.mark.parametrize("kind", ["INVITEs", "answers", "one Call-ID", "TCP"])
def test_a_running_call_stays_whole_in_a_flood(kind: str, tmp_path: Path) -> None:
    scene = plain_call(1)
    packets = in_order(scene.packets(), flood(kind, 4000, START_NS + 20 * MS, 250_000))
    with Capture(tmp_path, new_calls_per_s=50) as capture:
        for start in range(0, len(packets), 200):
            capture.hear(packets[start : start + 200])
            assert calls(capture.engine) <= 1 + 2 * 50 + 50 + MAX_LEGS
        assert capture.engine.gate.flooded(capture.engine.now)
        capture.rest(70)
    sealed(tmp_path)
    (recording,) = recordings(tmp_path)
    assert_sound(recording, *scene.channels())


def test_a_call_whose_invite_drowned_is_joined_by_its_answer(tmp_path: Path) -> None:
    scene = plain_call(1, start_ns=START_NS + 500 * MS)
    packets = in_order(scene.packets(), flood("INVITEs", 4000, START_NS, 250_000))
    with Capture(tmp_path, new_calls_per_s=10) as capture:
        capture.hear(packets, size=300)
    sealed(tmp_path)
    (recording,) = recordings(tmp_path)
    assert_sound(recording, *scene.channels())


@pytest.mark.parametrize("kind", ["INVITEs", "answers"])
def test_a_table_full_of_words_makes_room_for_a_real_call(kind: str, tmp_path: Path) -> None:
    """Calls of which nothing but one message was ever heard are given up; one with media is not."""
    early = plain_call(1, duration_ms=14_000)
    late = plain_call(2, start_ns=START_NS + 12 * SECOND)
    words = list(flood(kind, 300, START_NS + 6 * SECOND, 1 * MS))
    with Capture(tmp_path, limits=Limits(max_calls=100), new_calls_per_s=10_000) as capture:
        capture.hear(in_order(early.packets(), words, late.packets()), size=50)
    assert capture.engine.correlator.dialogs.refused_calls == 300 - 99
    sealed(tmp_path)
    for recording, scene in zip(recordings(tmp_path), (early, late), strict=True):
        assert_sound(recording, *scene.channels())


def test_one_call_that_keeps_talking_does_not_keep_the_others_in_a_full_table(tmp_path: Path) -> None:
    words = list(flood("INVITEs", 20, START_NS, 1 * MS))
    again = [replace(words[0], time_ns=START_NS + n * SECOND) for n in range(1, 12)]
    scene = plain_call(1, start_ns=START_NS + 10 * SECOND + 5 * MS)
    with Capture(tmp_path, limits=Limits(max_calls=20)) as capture:
        capture.hear(in_order(words, again, scene.packets()), size=10)
    assert capture.engine.correlator.dialogs.refused_calls == 0
    sealed(tmp_path)
    assert_sound(recordings(tmp_path)[0], *scene.channels())


def test_what_is_kept_for_spools_not_begun_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapdeck.sniffer.early.MEMORY", 5000)
    capture = Capture(tmp_path, new_calls_per_s=40)
    capture.visits(frames(list(flood("INVITEs", 500, START_NS, MS))), range(0, 500, 50))
    assert 4000 < capture.engine._early.size <= 5000
    capture.rest(70)
    assert not capture.engine._spools
    assert capture.engine._early.size == 0
    assert not capture.files_of("live")
