"""The engine gives the same calls however its input is cut, and every packet is accounted for."""

from __future__ import annotations

import random

import pytest

from tapdeck.sip.dialog import Party
from tests.sniffer.listening import Result, listen
from tests.support import ip, recipes
from tests.support.ip import Packet
from tests.support.media import MS
from tests.support.scene import START_NS, each_packet, in_order, plain_call


def traffic() -> list[Packet]:
    """A bit of everything: forks, relays, NAT, hold, bad networks, keep-alives, TCP, fragments, port reuse."""
    scenes = [
        recipes.forked(1),
        recipes.relayed(2),
        recipes.behind_nat(3),
        recipes.held(4),
        recipes.with_keep_alives(plain_call(5)),
        recipes.with_rtcp(plain_call(6), muxed=True),
        recipes.impaired(plain_call(7), 7),
        recipes.failed(8, "486 Busy Here"),
        *recipes.two_legs(9),
    ]
    over_tcp = plain_call(20, start_ns=START_NS + 5 * MS).packets_over_tcp(seed=3, swap=True)
    cut = each_packet(plain_call(21).packets(), lambda packet: ip.fragments(packet, 77, 256))
    return in_order(*(scene.packets() for scene in scenes), over_tcp, cut)


def summary(result: Result) -> list[object]:
    return [
        (
            found.ended.call.call_id,
            found.reason,
            found.ended.call.answered,
            sorted(found.related),
            [
                (
                    track.sender.value,
                    track.use.value,
                    track.ssrc,
                    track.source[1],
                    sorted(track.rows["sequence"].tolist()),
                )
                for track in sorted(
                    found.ended.tracks, key=lambda one: (one.sender.value, one.use.value, one.ssrc, one.source)
                )
            ],
            [found.payloads(party) for party in Party],
        )
        for found in result.found
    ]


WHOLE = listen(traffic())


@pytest.mark.parametrize("size", [1, 2, 13, 100, 1000])
def test_blocks_of_any_size_give_the_same_calls(size: int) -> None:
    found = listen(traffic(), size=size)
    assert summary(found) == summary(WHOLE)
    assert found.engine.account.packets == WHOLE.engine.account.packets
    assert found.engine.account.seen == WHOLE.engine.account.seen


def test_records_out_of_order_within_a_block_give_the_same_calls() -> None:
    packets = traffic()
    random.Random(5).shuffle(packets)
    assert summary(listen(packets)) == summary(WHOLE)


def test_the_traffic_is_what_it_is_said_to_be() -> None:
    """So that equal summaries mean something: calls with sound, of both sides, and all that was sent is seen."""
    assert len(WHOLE.found) == 12
    assert sum(bool(found.left and found.right) for found in WHOLE.found) == 11
    assert WHOLE.engine.account.seen == len(traffic())


def test_a_block_that_spans_hours_is_as_good_as_many() -> None:
    """Calls years apart in one block; their ports are the same."""
    media = (ip.Endpoint("10.9.9.1", 6000), ip.Endpoint("10.9.9.2", 7000))
    scenes = [
        plain_call(number, start_ns=START_NS + number * 86_400_000 * MS, media=media, ssrc=(1, 2))
        for number in range(1, 5)
    ]
    packets = in_order(*(scene.packets() for scene in scenes))
    whole, single = listen(packets), listen(packets, size=1)
    assert summary(whole) == summary(single)
    for scene in scenes:
        assert whole[scene.call_id].left == [packet.payload for packet in scene.left]


def test_an_empty_input() -> None:
    result = listen([])
    assert result.found == []
    assert result.engine.account.packet_totals()["seen"] == 0
