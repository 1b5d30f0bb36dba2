"""Calls beside, after and inside one another keep to themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import files, recipes
from tests.support.ip import Endpoint
from tests.support.media import MS, SECOND
from tests.support.record import Result, assert_sound, record
from tests.support.scene import START_NS, Scene, end_ns, in_order, plain_call


def recorded(folder: Path, *scenes: Scene) -> Result:
    packets = in_order(*(scene.packets() for scene in scenes))
    return record(folder / "out", files.write(folder, files.pcap(packets, nano=True)))


def assert_all(result: Result, *scenes: Scene) -> None:
    assert result.code == 0, result.stderr
    found = result.by_call_id()
    assert set(found) == {scene.call_id for scene in scenes}
    for scene in scenes:
        assert_sound(found[scene.call_id], *scene.channels())


def test_concurrent_calls(tmp_path: Path) -> None:
    scenes = [
        plain_call(seed, start_ns=START_NS + seed * 37 * MS, duration_ms=900 + 20 * seed) for seed in range(1, 31)
    ]
    assert_all(recorded(tmp_path, *scenes), *scenes)


def test_concurrent_calls_that_share_one_ssrc(tmp_path: Path) -> None:
    scenes = [plain_call(seed, start_ns=START_NS + seed * 11 * MS, ssrc=(0xCAFE, 0xCAFE)) for seed in range(1, 9)]
    assert_all(recorded(tmp_path, *scenes), *scenes)


def test_concurrent_calls_that_share_the_callee_s_port(tmp_path: Path) -> None:
    """A load generator sends and hears all its calls on one port, with one SSRC."""
    gateway = Endpoint("10.0.99.1", 6000)
    scenes = [
        plain_call(seed, start_ns=START_NS + seed * 13 * MS, ssrc=(0xCAFE, 0xCAFE), media=(None, gateway))
        for seed in range(1, 7)
    ]
    assert_all(recorded(tmp_path, *scenes), *scenes)


@pytest.mark.parametrize("same_ssrc", [False, True], ids=["new SSRC", "same SSRC"])
@pytest.mark.parametrize("pause_ms", [40, 3000])
def test_the_next_calls_use_the_same_ports(same_ssrc: bool, pause_ms: int, tmp_path: Path) -> None:
    """Three short calls on one pair of ports, all within one block of the file."""
    media = (Endpoint("10.0.99.1", 6000), Endpoint("10.0.99.2", 7000))
    scenes: list[Scene] = []
    start = START_NS
    for seed in (1, 2, 3):
        scenes.append(plain_call(seed, start_ns=start, media=media, ssrc=(0xCAFE, 0xBEEF) if same_ssrc else None))
        start = end_ns(scenes[-1]) + pause_ms * MS
    assert_all(recorded(tmp_path, *scenes), *scenes)


@pytest.mark.parametrize("pause_ms", [2000, 400_000])
def test_the_ports_of_a_call_whose_bye_was_not_seen_are_used_again(pause_ms: int, tmp_path: Path) -> None:
    media = (Endpoint("10.0.99.1", 6000), Endpoint("10.0.99.2", 7000))
    first = plain_call(1, media=media)
    first = replace(first, signals=first.signals[:-2])
    second = plain_call(2, start_ns=end_ns(first) + pause_ms * MS, media=media)
    assert_all(recorded(tmp_path, first, second), first, second)


def test_one_party_s_port_goes_to_another_call(tmp_path: Path) -> None:
    """A phone's next call, with somebody else, begins on its old port while the old peer still sends a little."""
    phone = Endpoint("10.0.99.1", 6000)
    first = plain_call(1, media=(phone, None))
    second = plain_call(2, start_ns=end_ns(first) + 20 * MS, media=(phone, None))
    assert_all(recorded(tmp_path, first, second), first, second)


def test_impaired_calls_each_in_its_own_way(tmp_path: Path) -> None:
    """Forty networks at once: loss, reordering and doubling at random."""
    scenes = [
        recipes.impaired(
            plain_call(seed, start_ns=START_NS + seed * 7 * MS, seq=65_000 + 20 * seed), seed, loss=seed % 7 / 20
        )
        for seed in range(1, 41)
    ]
    assert_all(recorded(tmp_path, *scenes), *scenes)


def test_the_two_legs_of_a_b2bua_are_two_recordings_that_name_each_other(tmp_path: Path) -> None:
    one, two = recipes.two_legs(1)
    result = recorded(tmp_path, one, two)
    assert_all(result, one, two)
    found = result.by_call_id()
    for leg, other in ((one, two), (two, one)):
        related = found[leg.call_id].info["RelatedCalls"]
        assert other.call_id in related or _id(found[other.call_id].path) in related


def test_a_relayed_call_is_one_recording_and_its_copies_are_counted(tmp_path: Path) -> None:
    scene = recipes.relayed(1)
    result = recorded(tmp_path, scene)
    assert_all(result, scene)
    packets = result.summary["packets"]
    assert packets["relayed"] == len(scene.unheard)
    assert packets["kept"] == len(scene.left) + len(scene.right)


def test_calls_years_apart_in_one_file(tmp_path: Path) -> None:
    later = START_NS + 3 * 365 * 86_400 * SECOND
    scenes = [plain_call(1), plain_call(2, start_ns=later)]
    result = recorded(tmp_path, *scenes)
    assert_all(result, *scenes)
    folders = {recording.path.parent.relative_to(result.out).as_posix() for recording in result.recordings}
    assert folders == {"2026/03/02", "2029/03/01"}


def test_failed_calls_leave_no_recording_beside_one_that_succeeds(tmp_path: Path) -> None:
    good = plain_call(5)
    bad = [
        recipes.failed(1, "486 Busy Here"),
        recipes.failed(2, "487 Request Terminated"),
        recipes.failed(3, "603 Decline"),
        replace(plain_call(4), left=(), right=()),
    ]
    result = recorded(tmp_path, good, *bad)
    assert_all(result, good)
    calls = result.summary["calls"]
    assert (calls["seen"], calls["recorded"], calls["without_media"]) == (5, 1, 4)


def _id(path: Path) -> str:
    return path.stem.rpartition("_")[2]
