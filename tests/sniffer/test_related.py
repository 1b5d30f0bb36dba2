"""Which calls are related, and that what is remembered of them is bounded."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest

from tapdeck.sniffer import related
from tapdeck.sniffer.correlator import CallSettings
from tapdeck.sniffer.engine import Engine
from tapdeck.sniffer.related import MAX_RELATED, MAX_SAME_KEY
from tapdeck.sniffer.ties import How
from tapdeck.sniffer.tracked import Tracked
from tests.sniffer.listening import Wire, listen
from tests.support import shapes
from tests.support.ip import Endpoint
from tests.support.media import MS, SECOND, Rtp
from tests.support.recipes import failed
from tests.support.scene import START_NS, Scene, in_order, plain_call
from tests.support.shapes import Shape


def ties(shape: Shape) -> dict[tuple[str, str], How]:
    """What the calls of a shape are to each other, by their names in it."""
    result = listen(shapes.packets(shape))
    names = {scene.call_id: name for name, scene in shape.items()}
    return {
        (names[found.ended.call.call_id], names[leg.call_id]): tie.how
        for found in result.found
        for leg, tie in found.ended.tracked.related.items()
    }


def moved(scene: Scene, start_ns: int) -> Scene:
    """The scene at another time."""
    by = start_ns - scene.signals[0].time_ns
    return replace(
        scene,
        signals=tuple(replace(one, time_ns=one.time_ns + by) for one in scene.signals),
        left=tuple(replace(one, time_ns=one.time_ns + by, place_ns=one.place_ns + by) for one in scene.left),
        right=tuple(replace(one, time_ns=one.time_ns + by, place_ns=one.place_ns + by) for one in scene.right),
    )


def test_a_transfer_that_nobody_followed_relates_no_later_call() -> None:
    shape = dict(shapes.blind_transfer(1))
    shape["second"] = moved(shape["second"], START_NS + 70 * SECOND)
    assert ties(shape) == {}


def test_a_redirection_relates_the_same_caller_s_call_only() -> None:
    shape = dict(shapes.forwarded(1))
    assert ties(shape) == {("second", "first"): How.FORWARDED, ("first", "second"): How.FORWARDS}
    other = plain_call(9, start_ns=START_NS + 50 * MS)
    cid = shapes.people(1)[2]
    shape["second"] = plain_call(
        9, start_ns=START_NS + 50 * MS, shape=replace(other.dialog, callee=replace(cid, tag="x"))
    )
    assert ties(shape) == {}


def test_the_same_sound_shows_legs_whatever_their_numbers() -> None:
    assert ties(shapes.through_pbx(1, number="77777")) == {
        ("outer", "inner"): How.INNER,
        ("inner", "outer"): How.OUTER,
    }


LEGS = {("outer", "inner"): How.INNER, ("inner", "outer"): How.OUTER}


@pytest.mark.parametrize("number", ["", "77777"], ids=["the same numbers", "another number"])
def test_a_border_controller_has_an_address_on_each_side(number: str) -> None:
    assert ties(shapes.through_pbx(1, far="192.0.2.77", number=number)) == LEGS


def test_numbers_and_time_show_legs_whose_sound_is_made_anew() -> None:
    shape = own_sound(shapes.through_pbx(1, far="192.0.2.77"))
    assert ties(shape) == LEGS
    shape["inner"] = moved(shape["inner"], START_NS + 11 * SECOND)
    assert ties(shape) == {}


def test_calls_of_one_host_to_one_number_are_not_taken_for_legs() -> None:
    """As a load generator makes them: all from one host to another, ringing at once."""
    ann, bob, _ = shapes.people(1)
    shape = {
        str(n): shapes.call(f"{n}@x", replace(ann, tag=f"t{n}"), replace(bob, tag=f"u{n}"), START_NS + n * 20 * MS, n)
        for n in range(1, 6)
    }
    assert ties(shape) == {}


def test_of_several_calls_with_the_same_numbers_none_is_taken() -> None:
    shape = own_sound(shapes.through_pbx(1, far="192.0.2.77"))
    ann, bob, _ = shapes.people(1)
    there = replace(ann, sip=Endpoint("198.51.100.9", 5060), media=Endpoint("198.51.100.9", 9000), tag="else")
    where = replace(bob, sip=Endpoint("198.51.100.8", 5060), media=Endpoint("198.51.100.8", 9000), tag="where")
    shape["else"] = shapes.call("else@x", there, where, START_NS + MS, 30)
    assert ("outer", "inner") not in ties(shape)


def own_sound(shape: Shape) -> dict[str, Scene]:
    """The shape with other SSRCs in each call."""
    return {
        name: replace(
            scene,
            left=tuple(replace(one, ssrc=one.ssrc ^ number << 4) for one in scene.left),
            right=tuple(replace(one, ssrc=one.ssrc ^ number << 4) for one in scene.right),
        )
        for number, (name, scene) in enumerate(shape.items())
    }


def test_a_call_that_was_answered_before_another_began_is_no_outer_leg() -> None:
    """A PBX that connects a second call to one that goes on: the same sound, but nobody made the one for the other."""
    shape = shapes.through_pbx(1, number="77777", later_ms=300)
    assert ties(shape) == {("outer", "inner"): How.SAME_SOUND, ("inner", "outer"): How.SAME_SOUND}


def test_sound_of_its_own_and_other_numbers_show_nothing() -> None:
    assert ties(own_sound(shapes.through_pbx(1, number="77777"))) == {}


def test_a_load_generator_s_calls_through_a_pbx_are_not_taken_for_each_other() -> None:
    """sipp gives all calls one SSRC and the same numbers: then the sound tells nothing, the numbers do."""
    shape: dict[str, Scene] = {}
    for seed in range(1, 7):
        for name, scene in shapes.through_pbx(seed, number=f"7{seed}{seed}{seed}{seed}").items():
            pbx = Endpoint("10.1.1.1", 30000 + 10 * seed + (name == "inner") * 2)
            inside = name == "inner"
            shape[f"{name}{seed}"] = same_stream(scene, pbx, seed, inside)
    found = ties(shape)
    assert all(one[-1] == other[-1] for one, other in found), found


def same_stream(scene: Scene, pbx: Endpoint, seed: int, inside: bool) -> Scene:
    """The scene with its media at a PBX's address, with the SSRC and numbers that all of a generator's calls have."""
    own = scene.dialog.caller.media if inside else scene.dialog.callee.media

    def change(packets: tuple[Rtp, ...]) -> tuple[Rtp, ...]:
        first = packets[0]
        return tuple(
            replace(
                one,
                source=pbx if one.source == own else one.source,
                target=pbx if one.target == own else one.target,
                ssrc=0xDEADBEEF,
                seq=one.seq - first.seq,
                ts=one.ts - first.ts,
            )
            for one in packets
        )

    text = f"{own.address}".encode(), f"m=audio {own.port} ".encode()
    new = pbx.address.encode(), f"m=audio {pbx.port} ".encode()
    signals = []
    for signal in scene.signals:
        head, blank, body = signal.text.partition(b"\r\n\r\n")
        if text[1] in body:
            changed = body.replace(text[1], new[1]).replace(text[0], new[0])
            head = head.replace(b"Content-Length: %d" % len(body), b"Content-Length: %d" % len(changed))
            body = changed
        signals.append(replace(signal, text=(head + blank + body).replace(b"2001", b"2%d01" % seed)))
    return replace(scene, signals=tuple(signals), left=change(scene.left), right=change(scene.right))


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many calls of one host to one number: each names a few, none keeps the others in memory."""
    recent, count = 200, 600
    monkeypatch.setattr(related, "MAX_RECENT", recent)
    base = failed(1, "486 Busy Here")
    packets = []
    for number in range(count):
        call = moved(base, START_NS + number * 20 * MS)
        for signal in call.signals:
            text = signal.text.replace(b"synth-1@", b"synth-1-%d@" % number).replace(b"tag=a1", b"tag=a1-%d" % number)
            text = text.replace(b"Max-Forwards", b"Session-ID: 7fa3b1c2;remote=0\r\nMax-Forwards")
            packets.append(replace(call, signals=(replace(signal, text=text),)))
    wire = Wire(in_order(*(one.packets() for one in packets)))
    engine = Engine(stash=wire.stash, settings=CallSettings())
    most = 0
    for block in wire.blocks(2000):
        for ended in engine.feed(engine.columns.read(block)):
            most = max(most, len(ended.tracked.related))
    for ended in engine.finish():
        most = max(most, len(ended.tracked.related))
    assert 0 < most <= MAX_RELATED
    relations = engine.correlator._relations
    assert len(relations._recent) <= recent
    assert max(map(len, relations._index.values())) <= MAX_SAME_KEY
    del ended
    gc.collect()
    alive = sum(isinstance(one, Tracked) for one in gc.get_objects())
    assert alive <= recent + 10
