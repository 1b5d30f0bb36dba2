"""Plans of calls whose every packet is known: places, figures, outcome, and the books."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tapdeck.rtp.g711 import Law
from tapdeck.sip.dialog import Party
from tapdeck.sniffer.account import Account
from tapdeck.storage.plan import Plan, gaps, plan
from tapdeck.storage.side import Channel
from tapdeck.storage.unlock import Unlocker
from tests.storage.calls import Heard, heard
from tests.support import recipes
from tests.support.ip import Packet
from tests.support.media import CN, MS, PCMA, PCMU, SAMPLE_NS, Rtp, changed, delayed, lost, repeated, with_digit
from tests.support.scene import START_NS, Scene, ended, in_order, plain_call, set_up
from tests.support.signalling import sdp


def planned(folder: Path, scene: Scene) -> tuple[Plan, Account, Heard]:
    found = heard(folder, scene.packets())
    account = Account()
    return plan(found.only, account), account, found


def places(side: tuple[Rtp, ...], reference: int) -> list[int]:
    return sorted({(packet.place_ns - reference) // SAMPLE_NS for packet in side if packet.sound})


def test_every_packet_of_a_plain_call_has_its_place(tmp_path: Path) -> None:
    scene = plain_call(1)
    made, account, _ = planned(tmp_path, scene)
    first = min(scene.left[0].time_ns, scene.right[0].time_ns)
    assert (made.outcome, made.reference, made.has_sound) == ("recorded", first, True)
    assert made.sides[Party.CALLER].channel.sample.tolist() == places(scene.left, first)
    assert made.sides[Party.CALLEE].channel.sample.tolist() == places(scene.right, first)
    assert made.frames == max(places(scene.left, first)[-1], places(scene.right, first)[-1]) + 160
    assert made.laws == {int(Law.A)}
    assert not made.keeps_packets
    assert account.packets == {("kept", "sound"): len(scene.left) + len(scene.right)}


def test_the_figures_say_what_the_network_did(tmp_path: Path) -> None:
    scene = plain_call(1)
    left = repeated(delayed(lost(scene.left, {5, 6, 30}), {10}, 50), {20, 21}, 300)
    made, account, _ = planned(tmp_path, ended(replace(scene, left=left)))
    figures = made.sides[Party.CALLER].figures
    assert (figures.expected, figures.lost, figures.duplicate, figures.reordered) == (50, 3, 2, 1)
    assert (figures.received, figures.mirrored) == (49, 0)
    assert figures.loss_percent == pytest.approx(6.0)
    assert made.sides[Party.CALLEE].figures.lost == 0
    assert account.packets["duplicate", "repeated by the sender or the network"] == 2


def test_a_mirror_that_shows_all_twice_is_no_sender_that_repeats(tmp_path: Path) -> None:
    scene = plain_call(1)
    both = in_order(scene.packets(), [Packet(packet.time_ns + 40_000, packet.ip) for packet in scene.media_packets()])
    account = Account()
    made = plan(heard(tmp_path, both).only, account)
    figures = made.sides[Party.CALLER].figures
    assert (figures.mirrored, figures.duplicate, figures.received, figures.expected) == (50, 0, 50, 50)
    assert account.packets["duplicate", "mirrored copies"] == 100


def test_what_is_no_sound_is_kept_by_kind_and_takes_no_place(tmp_path: Path) -> None:
    scene = plain_call(1)
    left = with_digit(scene.left, 10, "5")
    left = tuple(
        replace(packet, pt=CN, payload=b"\x30", sound=False) if k == 30 else packet for k, packet in enumerate(left)
    )
    made, account, _ = planned(tmp_path, replace(scene, left=left))
    assert len(made.sides[Party.CALLER].channel.sample) == 50 - 5 - 1
    assert account.packets["kept", "telephone-event"] == 5
    assert account.packets["kept", "comfort noise"] == 1
    assert account.packets["kept", "sound"] == 100 - 6


def test_two_laws_in_a_call_keep_the_packets(tmp_path: Path) -> None:
    made, _, _ = planned(tmp_path, plain_call(1, pts=(PCMA, PCMU)))
    assert made.laws == {int(Law.A), int(Law.MU)}
    assert made.keeps_packets


def test_a_codec_that_is_not_decoded_is_named_and_kept(tmp_path: Path) -> None:
    scene = plain_call(1)
    left = changed(scene.left, 25, lambda packet: replace(packet, pt=15, payload=bytes(20)))
    made, account, _ = planned(tmp_path, replace(scene, left=left))
    assert made.sides[Party.CALLER].foreign == ["G728"]
    assert made.keeps_packets
    assert account.packets["kept", "codec not decoded yet"] == 25


@pytest.mark.parametrize(("count", "foreign"), [(4, []), (5, ["payload type 99"])])
def test_a_few_packets_of_an_unknown_type_are_keep_alives(count: int, foreign: list[str], tmp_path: Path) -> None:
    scene = plain_call(1)
    left = tuple(replace(packet, pt=99) if k < count else packet for k, packet in enumerate(scene.left))
    made, account, _ = planned(tmp_path, replace(scene, left=left))
    assert made.sides[Party.CALLER].foreign == foreign
    assert made.sides[Party.CALLER].unknown == {99: count}
    assert account.packets["kept", "unknown payload type"] == count


def test_a_payload_type_means_what_the_newest_sdp_says(tmp_path: Path) -> None:
    """Type 98 is A-law by its rtpmap (RFC 3551 section 3: dynamic types)."""
    scene = plain_call(1)
    shape = scene.dialog
    offer, answer = sdp(shape.caller.media, pts=(98,)), sdp(shape.callee.media, pts=(98,))
    scene = replace(
        scene,
        signals=set_up(shape, START_NS, offer, answer) + scene.signals[-2:],
        left=changed(scene.left, 0, lambda packet: replace(packet, pt=98)),
    )
    made, _, _ = planned(tmp_path, scene)
    assert (made.sides[Party.CALLER].channel.law == int(Law.A)).all()
    assert len(made.sides[Party.CALLER].channel.sample) == 50


def test_srtp_by_sdp_is_refused_and_counted(tmp_path: Path) -> None:
    scene = plain_call(1)
    shape = scene.dialog
    secure = [
        sdp(party.media).replace("RTP/AVP", "RTP/SAVP") + "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:xyz\r\n"
        for party in (shape.caller, shape.callee)
    ]
    found = heard(tmp_path, replace(scene, signals=set_up(shape, START_NS, *secure) + scene.signals[-2:]).packets())
    account = Account()
    Unlocker(found.payloads, account).unlock(found.only)
    assert plan(found.only, account).outcome == "encrypted"
    assert account.calls == {"seen": 1, "encrypted": 1}
    assert account.packets == {("refused", "encrypted, no key"): 100}


def test_a_call_without_media(tmp_path: Path) -> None:
    made, account, _ = planned(tmp_path, recipes.failed(1, "486 Busy Here"))
    assert (made.outcome, made.has_sound, made.keeps_packets) == ("without_media", False, False)
    assert account.calls == {"seen": 1, "without_media": 1}


@pytest.mark.parametrize("seed", range(4))
def test_the_books_balance_whatever_happened(seed: int, tmp_path: Path) -> None:
    """Every frame of a call's tracks has one fate."""
    for number, scene in enumerate(
        (
            recipes.impaired(plain_call(1), seed),
            recipes.forked(2),
            recipes.relayed(3),
            recipes.held(4),
            recipes.behind_nat(5),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = heard(folder, scene.packets())
        account = Account()
        for one in found.ended:
            plan(one, account)
        frames = sum(int(track.rows["frames"].sum()) for one in found.ended for track in one.tracks)
        assert sum(account.packets.values()) == frames > 0


def test_the_axis_begins_with_the_earliest_sound_even_if_it_arrived_late(tmp_path: Path) -> None:
    """The caller's first packets come in a burst: they were spoken before the first of them arrived."""
    scene = plain_call(1, right_later_ms=400)
    left = tuple(replace(p, time_ns=scene.left[9].time_ns) if k < 9 else p for k, p in enumerate(scene.left))
    made, _, _ = planned(tmp_path, replace(scene, left=left))
    assert made.sides[Party.CALLER].channel.sample.tolist() == [160 * k for k in range(50)]
    assert made.sides[Party.CALLEE].channel.sample[0] == (390 * MS) // SAMPLE_NS
    assert made.reference == scene.left[0].place_ns


def test_gaps_are_the_silence_between_packets() -> None:
    def ints(*values: int) -> np.ndarray:
        return np.array(values, dtype=np.int64)

    channel = Channel(sample=ints(0, 160, 800, 900), length=ints(160, 160, 400, 10))
    assert list(gaps(channel)) == [(320, 480)]
    assert channel.end == 1200
    assert list(gaps(Channel())) == []
    assert Channel().end == 0
