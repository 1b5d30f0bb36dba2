"""For any mix of calls, and visits cut anywhere: live is offline, and all media is in exactly one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import ip, recipes
from tests.support.ip import Packet
from tests.support.live import Capture, frames, offline, seal, sealed
from tests.support.media import MS
from tests.support.scene import Scene, each_packet, in_order, plain_call

FEW = settings(max_examples=25, deadline=None)

KINDS: dict[str, Callable[[int], list[Packet]]] = {
    "plain": lambda seed: plain_call(seed).packets(),
    "six": lambda seed: plain_call(seed, six=True).packets(),
    "held": lambda seed: recipes.held(seed).packets(),
    "moved": lambda seed: recipes.moved(seed).packets(),
    "early": lambda seed: recipes.early_media(seed).packets(),
    "early, busy": lambda seed: recipes.early_media(seed, answered=False).packets(),
    "busy": lambda seed: recipes.failed(seed, "486 Busy Here").packets(),
    "again": lambda seed: recipes.authenticated(seed).packets(),
    "delayed": lambda seed: recipes.delayed_offer(seed).packets(),
    "forked": lambda seed: recipes.forked(seed).packets(),
    "NAT": lambda seed: recipes.behind_nat(seed).packets(),
    "relayed": lambda seed: recipes.relayed(seed).packets(),
    "legs": lambda seed: in_order(*(leg.packets() for leg in recipes.two_legs(seed))),
    "impaired": lambda seed: recipes.impaired(plain_call(seed), seed).packets(),
    "tcp": lambda seed: plain_call(seed).packets_over_tcp(seed=seed, swap=True),
    "fragments": lambda seed: each_packet(plain_call(seed).packets(), lambda one: ip.fragments(one, len(one), 200)),
}


def shifted(packets: list[Packet], by_ns: int) -> list[Packet]:
    return [replace(packet, time_ns=packet.time_ns + by_ns) for packet in packets]


@st.composite
def traffic(draw: st.DrawFn) -> list[Packet]:
    """Up to six calls of any kind, some seconds apart at most."""
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))
    starts = [draw(st.integers(0, 3000)) for _ in kinds]
    return in_order(
        *(
            shifted(KINDS[kind](10 * n + 1), start * MS + n)
            for n, (kind, start) in enumerate(zip(kinds, starts, strict=True))
        )
    )


@given(packets=traffic(), data=st.data())
@FEW
def test_any_calls_and_any_visits(packets: list[Packet], data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(packets)), max_size=30).map(sorted))
    with TemporaryDirectory() as name:
        folder = Path(name)
        with Capture(folder) as capture:
            capture.visits(frames(packets), cuts)
        assert sealed(folder) == offline(folder, packets)


@st.composite
def ports_in_turn(draw: st.DrawFn) -> list[Scene]:
    """Calls one after the other between the same phones on the same ports, with and without a BYE that is seen."""
    scenes: list[Scene] = []
    for number in range(draw(st.integers(2, 4))):
        start = (
            scenes[-1].left[-1].time_ns + draw(st.integers(250, 9000)) * MS
            if scenes
            else plain_call(1).signals[0].time_ns
        )
        ssrc = (1, 2) if draw(st.booleans()) else (10 + number, 20 + number)
        shape = replace(plain_call(1).dialog, call_id=f"turn-{number}")
        scene = plain_call(
            1,
            start_ns=start,
            duration_ms=draw(st.integers(1, 60)) * 20,
            shape=shape,
            ssrc=ssrc,
            seq=1000 * number,
            ts=160_000 + 800_000 * number,
        )
        scenes.append(scene if draw(st.booleans()) else replace(scene, signals=scene.signals[:-2]))
    return scenes


@given(scenes=ports_in_turn(), data=st.data())
@FEW
def test_ports_in_turn(scenes: list[Scene], data: st.DataObject) -> None:
    packets = in_order(*(scene.packets() for scene in scenes))
    cuts = data.draw(st.lists(st.integers(0, len(packets)), max_size=30).map(sorted))
    with TemporaryDirectory() as name:
        folder = Path(name)
        with Capture(folder) as capture:
            capture.visits(frames(packets), cuts)
        account = seal(folder)
        kept = sum(count for (fate, _), count in account.packets.items() if fate in ("kept", "duplicate"))
        assert kept == sum(len(scene.left) + len(scene.right) for scene in scenes)
