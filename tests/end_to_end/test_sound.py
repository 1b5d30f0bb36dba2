"""Every byte that was sent is in its channel at its sample, whatever the network and the phones did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import files, recipes
from tests.support.ip import Endpoint
from tests.support.media import (
    FORMS,
    MS,
    PCMA,
    PCMU,
    Rtp,
    changed,
    delayed,
    follow,
    lost,
    repeated,
    talk,
    with_digit,
    with_pauses,
)
from tests.support.record import A_LAW, MU_LAW, assert_sound, record
from tests.support.scene import START_NS, Scene, ended, plain_call, set_up
from tests.support.signalling import sdp


def both(change: Callable[[tuple[Rtp, ...]], tuple[Rtp, ...]], scene: Scene | None = None) -> Scene:
    """A plain call with the same thing done to both sides."""
    scene = scene or plain_call()
    return ended(replace(scene, left=change(scene.left), right=change(scene.right)))


def silence_after(stream: tuple[Rtp, ...], pause_ms: int) -> tuple[Rtp, ...]:
    """The stream stops for a while without a word and goes on: its sequence whole, its clock running."""
    return stream + follow(stream, stream[-1].place_ns + (20 + pause_ms) * MS, 300, seed=77)


def another_ssrc(packet: Rtp) -> Rtp:
    return replace(packet, ssrc=packet.ssrc ^ 0xABCDEF, seq=packet.seq + 20_000, ts=packet.ts + 3_000_000_000)


def jumped(packet: Rtp) -> Rtp:
    return replace(packet, ts=packet.ts + 1_000_000)


def other_pt(stream: tuple[Rtp, ...]) -> tuple[Rtp, ...]:
    return changed(stream, 25, lambda packet: replace(packet, pt=98))


def payload_type_change() -> Scene:
    scene = both(other_pt)
    pts = (PCMA, 98, 101)
    caller, callee = scene.dialog.caller.media, scene.dialog.callee.media
    return ended(replace(scene, signals=set_up(scene.dialog, START_NS, sdp(caller, pts=pts), sdp(callee, pts=pts))))


def two_sizes() -> Scene:
    scene = plain_call()
    longer = talk(*_way(scene.right), scene.right[0].time_ns, 990, seed=8, ssrc=0xB1, ptime_ms=30)
    return replace(scene, right=longer)


def one_way() -> Scene:
    return replace(plain_call(), right=())


def _way(stream: tuple[Rtp, ...]) -> tuple[Endpoint, Endpoint]:
    return stream[0].source, stream[0].target


SCENES: dict[str, Callable[[], Scene]] = {
    "clean": plain_call,
    "clean over IPv6": lambda: plain_call(six=True),
    "10 ms packets": lambda: plain_call(ptime_ms=10),
    "30 ms packets": lambda: plain_call(ptime_ms=30),
    "60 ms packets": lambda: plain_call(ptime_ms=60, duration_ms=1200),
    "20 ms one way, 30 ms the other": two_sizes,
    "one way only": one_way,
    "callee far later than caller": lambda: plain_call(right_later_ms=900),
    "callee speaks first": lambda: plain_call(left_later_ms=300, right_later_ms=20),
    "single packets lost": lambda: both(lambda stream: lost(stream, {1, 7, 30})),
    "a burst lost": lambda: both(lambda stream: lost(stream, range(12, 31))),
    "the last packets of one side lost": lambda: replace(plain_call(), right=plain_call().right[:30]),
    "neighbours swapped": lambda: both(lambda stream: delayed(stream, {5, 17, 41}, 25)),
    "far behind": lambda: both(lambda stream: delayed(stream, {9, 33}, 210)),
    "jitter": lambda: both(lambda stream: delayed(delayed(stream, range(2, 50, 3), 7), range(3, 50, 5), 15)),
    "repeated at once": lambda: both(lambda stream: repeated(stream, range(0, 50, 4), 1)),
    "repeated later": lambda: both(lambda stream: repeated(stream, range(1, 50, 6), 70)),
    "lost, late and repeated": lambda: recipes.impaired(plain_call(duration_ms=2000), 4),
    "sequence wraps": lambda: plain_call(seq=65_520),
    "time stamp wraps": lambda: plain_call(ts=2**32 - 3000),
    "both wrap, with loss and reordering": lambda: recipes.impaired(plain_call(seq=65_510, ts=2**32 - 3200), 5),
    "time stamp passes half its range": lambda: plain_call(ts=2**31 - 3000),
    "new SSRC": lambda: both(lambda stream: changed(stream, 25, another_ssrc)),
    "time stamp jumps": lambda: both(lambda stream: changed(stream, 25, jumped)),
    "time stamp jumps back": lambda: both(
        lambda stream: changed(stream, 25, lambda packet: replace(packet, ts=packet.ts - 1_000_000)),
        plain_call(ts=900_000_000),
    ),
    "sequence jumps": lambda: both(
        lambda stream: changed(stream, 25, lambda packet: replace(packet, seq=packet.seq + 9000))
    ),
    "payload type changes, law stays": payload_type_change,
    "silence suppression with comfort noise": lambda: both(
        lambda stream: with_pauses(stream, {*range(9, 20), *range(30, 41)})
    ),
    "silence without a word": lambda: both(lambda stream: silence_after(stream, 600)),
    "held": lambda: recipes.held(1),
    "held, both silent": lambda: recipes.held(1, offer="inactive"),
    "held by address": lambda: recipes.held(1, offer="0.0.0.0"),
    "held, RTP clock standing still": lambda: recipes.held(1, clock_runs=False, pause_ms=1500),
    "new port by re-INVITE": lambda: recipes.moved(1),
    "new port and SSRC by re-INVITE": lambda: recipes.moved(1, new_ssrc=True),
    "new address by re-INVITE": lambda: recipes.moved(1, address="10.0.77.7"),
    "early media": lambda: recipes.early_media(1),
    "early media, never answered": lambda: recipes.early_media(1, answered=False),
    "media before the answer": lambda: plain_call(left_later_ms=-60, right_later_ms=-35),
    "delayed offer": lambda: recipes.delayed_offer(1),
    "authentication retried": lambda: recipes.authenticated(1),
    "authentication of the registrar's kind": lambda: recipes.authenticated(1, "401 Unauthorized"),
    "forked": lambda: recipes.forked(1),
    "behind NAT": lambda: recipes.behind_nat(1),
    "relayed by a proxy": lambda: recipes.relayed(1),
    "RTCP on the next port": lambda: recipes.with_rtcp(plain_call(), muxed=False),
    "RTCP on the same port": lambda: recipes.with_rtcp(plain_call(), muxed=True),
    "keep-alives among all": lambda: recipes.with_keep_alives(plain_call()),
    "signalling repeated": lambda: recipes.signalling_repeated(plain_call()),
    "no BYE": lambda: replace(plain_call(), signals=plain_call().signals[:-2]),
}


@pytest.mark.parametrize("name", SCENES)
def test_the_channels_hold_what_was_sent(name: str, tmp_path: Path) -> None:
    scene = SCENES[name]()
    capture = files.write(tmp_path, files.pcap(scene.packets(), nano=True))
    result = record(tmp_path / "out", capture)
    assert result.code == 0, result.stderr
    assert_sound(result.only(), *scene.channels())
    assert result.only().info["CallId"] == scene.call_id


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_rtp_header(form: str, tmp_path: Path) -> None:
    """Every third packet of the caller, and all of the callee, have more in them than header and payload."""
    scene = plain_call()
    left = tuple(replace(one, form=FORMS[form]) if n % 3 == 0 else one for n, one in enumerate(scene.left))
    scene = replace(scene, left=left, right=tuple(replace(one, form=FORMS[form]) for one in scene.right))
    result = record(tmp_path / "out", files.write(tmp_path, files.pcap(scene.packets())))
    assert_sound(result.only(), *scene.channels())


@pytest.mark.parametrize(("pt", "tag"), [(PCMA, A_LAW), (PCMU, MU_LAW)])
def test_the_law_on_the_wire_is_the_law_in_the_file(pt: int, tag: int, tmp_path: Path) -> None:
    scene = recipes.impaired(plain_call(pts=(pt, pt)), 6)
    result = record(tmp_path / "out", files.write(tmp_path, files.pcap(scene.packets())))
    assert_sound(result.only(), *scene.channels(), tag=tag)


def test_key_presses_are_written_down_and_not_heard(tmp_path: Path) -> None:
    scene = plain_call()
    pressed = with_digit(with_digit(with_digit(scene.left, 5, "4"), 15, "#"), 30, "0")
    scene = replace(scene, left=pressed)
    result = record(tmp_path / "out", files.write(tmp_path, files.pcap(scene.packets())))
    assert_sound(result.only(), *scene.channels())
    assert "4#0" in result.only().info["Digits"].replace(" ", "")
