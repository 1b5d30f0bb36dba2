"""Calls that go on as other calls, through the command: what is said of them, and what Wireshark reads in the same."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tapdeck.cli.main import cli
from tests.support import files, live, recipes, shapes, shark, tcp, websocket
from tests.support.ip import Endpoint
from tests.support.record import REPOSITORY, Recording, Result, assert_sound, record, unbalanced
from tests.support.scene import START_NS, Scene, in_order, plain_call
from tests.support.shapes import Shape

SHAPES: dict[str, Callable[[], Shape]] = {
    "blind transfer": lambda: shapes.blind_transfer(1),
    "attended transfer": lambda: shapes.attended_transfer(2),
    "forwarded": lambda: shapes.forwarded(3),
    "forwarded in the same dialog": lambda: shapes.forwarded(4, anew=False),
    "picked up": lambda: shapes.picked_up(5),
    "through a PBX": lambda: shapes.through_pbx(6),
    "through a PBX to another number": lambda: shapes.through_pbx(7, number="77777"),
}


def repeated(recording: Recording, key: str) -> list[str]:
    """All lines of one key."""
    text = recording.path.with_name(recording.path.stem + "_info.txt").read_text(encoding="utf-8")
    pairs = [line.partition(": ") for line in text.splitlines()]
    return [value for name, _, value in pairs if name == key]


def recorded(folder: Path, shape: Shape, *more: str) -> Result:
    capture = files.write(folder, files.pcap(shapes.packets(shape)))
    result = record(folder / "out", capture, more=more)
    assert unbalanced(result.summary["packets"]) == unbalanced(result.summary["calls"]) == 0
    return result


def sealed_one_by_one(folder: Path, shape: Shape) -> dict[str, Recording]:
    """The recordings that capture and seal make of it, each from its own spool file."""
    with live.Capture(folder) as capture:
        capture.hear(shapes.packets(shape), size=7)
    live.seal(folder)
    return {one.info["CallId"]: one for one in live.recordings(folder)}


def relations(found: dict[str, Recording], shape: Shape) -> dict[tuple[str, str], str]:
    """What the calls of a shape are to each other, by their names in it; each must be in RelatedCalls too."""
    names = {found[scene.call_id].info["RecordingId"]: name for name, scene in shape.items() if scene.call_id in found}
    told = {}
    for name, scene in shape.items():
        if scene.call_id not in found:
            continue
        for line in repeated(found[scene.call_id], "Relation"):
            other, _, how = line.partition(" ")
            assert other in found[scene.call_id].info["RelatedCalls"]
            told[name, names.get(other, "?")] = how
    return told


BOTH_WAYS = {
    "blind transfer": {
        ("first", "second"): "transferred to (by 2002)",
        ("second", "first"): "transferred from (by 2002)",
    },
    "attended transfer": {
        ("first", "asked"): "consultation (by 2002)",
        ("first", "last"): "transferred to (by 2002)",
        ("asked", "first"): "consultation for (by 2002)",
        ("asked", "last"): "replaced by",
        ("last", "asked"): "replaced",
        ("last", "first"): "transferred from (by 2002)",
    },
    "forwarded": {("second", "?"): "forwarded from (by 2002)"},
    "forwarded in the same dialog": {},
    "picked up": {("rings", "takes"): "picked up by", ("takes", "rings"): "picked up"},
    "through a PBX": {("outer", "inner"): "inner leg", ("inner", "outer"): "outer leg"},
    "through a PBX to another number": {("outer", "inner"): "inner leg", ("inner", "outer"): "outer leg"},
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_call_says_what_the_others_are_to_it(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name]()
    found = recorded(tmp_path, shape).by_call_id()
    assert relations(found, shape) == BOTH_WAYS[name]
    for scene in shape.values():
        if scene.call_id in found:
            assert_sound(found[scene.call_id], *scene.channels())


@pytest.mark.parametrize("name", SHAPES)
def test_so_it_is_where_each_call_is_sealed_by_itself(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name]()
    found = sealed_one_by_one(tmp_path, shape)
    assert relations(found, shape) == BOTH_WAYS[name]
    offline = recorded(tmp_path, shape).by_call_id()
    for call_id, recording in found.items():
        for key in ("Transfer", "Forwarded", "Replaces", "ReferredBy", "RelatedCalls"):
            assert repeated(recording, key) == repeated(offline[call_id], key)


@shark.needs_wireshark
def test_a_transfer_is_told_as_wireshark_reads_it(tmp_path: Path) -> None:
    shape = shapes.attended_transfer(2)
    found = recorded(tmp_path, shape).by_call_id()
    (line,) = repeated(found[shape["first"].call_id], "Transfer")
    capture = tmp_path / "capture.pcap"
    fields = ("sip.Refer-To", "sip.from.user")
    ((refer_to, by),) = read(capture, 'sip.Method == "REFER"', *fields)
    outcomes = read(capture, "sipfrag", "sipfrag.line")
    assert outcomes[-1][0].startswith("SIP/2.0 200 OK")
    assert (by, shape["asked"].call_id.replace("@", "%40") in refer_to) == ("2002", True)
    assert line.startswith("attended by callee to 2003 at 2026-03-02T10:00:0")
    assert line.endswith(f"answer=202 outcome=200 replaces={shape['asked'].call_id}")
    last = found[shape["last"].call_id].info
    ((replaces, referred),) = read(capture, "sip.Replaces", "sip.Replaces", "sip.Referred-by")
    assert replaces.startswith(last["Replaces"] + ";")
    assert f"sip:{last['ReferredBy']}@" in referred


def read(capture: Path, which: str, *fields: str) -> list[tuple[str, ...]]:
    """Fields of the messages that pass a filter, the last of each in a packet."""
    columns = [word for name in fields for word in ("-e", name)]
    out = shark.run("tshark", "-n", "-r", capture, "-Y", which, "-T", "fields", "-E", "occurrence=l", *columns)
    return [tuple(line.split("\t")) for line in out.splitlines()]


def test_a_transfer_that_came_to_nothing(tmp_path: Path) -> None:
    shape = shapes.blind_transfer(1, "486 Busy Here")
    found = recorded(tmp_path, {"first": shape["first"]}).only()
    (line,) = repeated(found, "Transfer")
    assert line.startswith("blind by callee to 2003 at ")
    assert line.endswith("answer=202 outcome=486")


def test_a_redirection_is_told_by_the_call_that_went_on(tmp_path: Path) -> None:
    found = recorded(tmp_path, shapes.forwarded(4, anew=False)).only()
    (line,) = repeated(found, "Forwarded")
    assert line.startswith("302 by 2002 to 2003 at 2026-03-02T10:00:00.030+00:00 (")


def test_phones_that_rang_are_told_apart(tmp_path: Path) -> None:
    scene = recipes.forked(7)
    found = recorded(tmp_path, {"forked": scene}).only()
    early, late = repeated(found, "Fork")
    assert early.startswith("did not answer status=183 from ")
    assert early.endswith("packets=28 in the WAV tag=fork1")
    assert late.startswith("answered status=200 from ")
    assert late.endswith("packets=25 in the WAV, 25 not in the WAV tag=fork2")
    assert_sound(found, *scene.channels())
    assert found.path.with_suffix(".pcapng").is_file()


def test_phones_that_ring_one_after_the_other_are_all_heard(tmp_path: Path) -> None:
    scene = shapes.rung_in_turn(8)
    found = recorded(tmp_path, {"forked": scene}).only()
    assert [line.rpartition(" packets=")[2] for line in repeated(found, "Fork")] == [
        "20 in the WAV tag=turn1",
        "40 in the WAV tag=turn2",
    ]
    assert_sound(found, *scene.channels())


def test_a_phone_that_answers_too_late_is_not_heard(tmp_path: Path) -> None:
    scene = shapes.answered_twice(9)
    found = recorded(tmp_path, {"forked": scene}).only()
    assert_sound(found, *scene.channels())
    assert [line.partition(" status=")[0] for line in repeated(found, "Fork")] == ["answered", "answered too late"]
    assert repeated(found, "Fork")[1].endswith("packets=10 not in the WAV tag=late")


@pytest.mark.parametrize("over_web", [False, True], ids=["on another port", "over WebSocket"])
def test_what_is_found_by_content_is_sealed_from_its_own_file_too(over_web: bool, tmp_path: Path) -> None:
    scene = on_ports(plain_call(1), 40123, 17070)
    with live.Capture(tmp_path) as capture:
        capture.hear(websocket.packets(plain_call(1), seed=3) if over_web else scene.packets(), size=7)
    live.seal(tmp_path)
    (found,) = live.recordings(tmp_path)
    assert_sound(found, *scene.channels())


@pytest.mark.parametrize("legs", ["both", "outer", "inner"])
def test_a_leg_gives_way_where_each_is_sealed_by_itself(legs: str, tmp_path: Path) -> None:
    shape = shapes.through_pbx(6)
    with live.Capture(tmp_path) as capture:
        capture.hear(shapes.packets(shape), size=7)
    maker = replace(live.sealer(tmp_path), legs=legs)
    outcomes = {}
    for path in sorted((tmp_path / "spool" / "done").iterdir()):
        (recording,) = maker.seal(path)
        outcomes[recording.call.call_id] = recording.outcome
    kept = {"both": ["outer", "inner"]}.get(legs, [legs])
    assert outcomes == {scene.call_id: "recorded" if name in kept else "refused" for name, scene in shape.items()}
    assert maker.account.calls["seen"] == 2
    assert maker.account.calls["refused"] == 2 - len(kept)


def test_legs_between_the_same_numbers_are_paired_by_their_sound(tmp_path: Path) -> None:
    """Two callers with one number ring one phone at the same time, over a PBX that makes RTP of its own."""
    ann, bob, _ = shapes.people(3)
    net = ann.sip.address.rpartition(".")[0]
    pbx = f"{net}.1"
    shape: dict[str, Scene] = {}
    for n in range(2):
        near, far = f"{net}.{31 + n}", f"{net}.{41 + n}"
        caller = replace(ann, sip=Endpoint(near, 5060), media=Endpoint(near, 10000), tag=f"near{n}")
        callee = replace(bob, sip=Endpoint(far, 5060), media=Endpoint(far, 10000), tag=f"far{n}")
        inward = replace(bob, sip=Endpoint(pbx, 5060), media=Endpoint(pbx, 30000 + 10 * n), tag=f"in{n}")
        outward = replace(ann, sip=Endpoint(pbx, 5060), media=Endpoint(pbx, 30002 + 10 * n), tag=f"out{n}")
        outer = shapes.call(f"outer{n}@a", caller, inward, START_NS + n * 2_000_000, 40 + n)
        inner = shapes.call(f"inner{n}@b", outward, callee, START_NS + 6_000_000 + n * 2_000_000, 50 + n)
        left, right = (
            tuple(replace(after, payload=before.payload) for before, after in zip(one, other, strict=True))
            for one, other in ((outer.left, inner.left), (outer.right, inner.right))
        )
        shape |= {f"outer{n}": outer, f"inner{n}": replace(inner, left=left, right=right)}
    assert relations(recorded(tmp_path, shape).by_call_id(), shape) == {
        pair: how
        for n in range(2)
        for pair, how in (
            ((f"outer{n}", f"inner{n}"), "inner leg"),
            ((f"inner{n}", f"outer{n}"), "outer leg"),
        )
    }


def test_music_on_hold_is_heard(tmp_path: Path) -> None:
    scene = shapes.held_with_music(5)
    found = recorded(tmp_path, {"held": scene}).only()
    assert [line.partition(" at ")[0] for line in repeated(found, "Hold")] == ["held by callee", "resumed by callee"]
    assert len(repeated(found, "Callee-Media")) == 2
    assert_sound(found, *scene.channels())


def test_a_phone_that_holds_one_call_and_begins_another(tmp_path: Path) -> None:
    first = recipes.held(1, pause_ms=3000)
    ann = first.dialog.caller
    asking = replace(ann, media=Endpoint(ann.media.address, ann.media.port + 20), tag="other")
    begun = next(signal.time_ns for signal in first.signals if b"a=sendonly" in signal.text) + 100_000_000
    second = shapes.call("other@example.invalid", asking, shapes.people(9)[2], begun, 9)
    shape = {"held": first, "asked": second}
    assert relations(recorded(tmp_path, shape).by_call_id(), shape) == {
        ("held", "asked"): "begun while held",
        ("asked", "held"): "held meanwhile",
    }


@pytest.mark.parametrize("header", ["X-Call-ID: {}", "Cisco-Guid: {}", 'P-Charging-Vector: icid-value="{}";orig-ioi=a'])
def test_legs_are_joined_by_what_a_pbx_writes_into_headers(header: str, tmp_path: Path) -> None:
    """Nothing else shows it: other numbers, other hosts, sound of its own."""
    word = header.format("7fa3b1c2-0001-4d5e")
    shape = {"outer": shapes.call("one@a", *shapes.people(1)[:2], START_NS, 1, (word,))}
    shape["inner"] = shapes.call("two@b", *shapes.people(300)[1:], START_NS + 6_000_000, 2, (word,))
    found = recorded(tmp_path, shape).by_call_id()
    assert relations(found, shape) == BOTH_WAYS["through a PBX"]
    (tmp_path / "without").mkdir()
    without = recorded(tmp_path / "without", shape, "--link-headers", "x-none").by_call_id()
    assert "P-Charging" in header or relations(without, shape) == {}


def test_a_value_that_all_calls_bear_joins_none(tmp_path: Path) -> None:
    word = ("X-Session-ID: same-for-the-whole-site",)
    people = [shapes.people(seed) for seed in range(1, 40)]
    shape = {
        str(seed): shapes.call(f"{seed}@a", *one[:2], START_NS + seed * 1_000_000, seed, word, 100)
        for seed, one in enumerate(people)
    }
    found = recorded(tmp_path, shape).by_call_id()
    assert len(relations(found, shape)) < 200
    assert max(len(repeated(one, "Relation")) for one in found.values()) <= 16


@pytest.mark.parametrize("legs", ["both", "outer", "inner"])
def test_a_conversation_on_two_legs_is_recorded_once(legs: str, tmp_path: Path) -> None:
    shape = shapes.through_pbx(6)
    result = recorded(tmp_path, shape, "--legs", legs)
    found = result.by_call_id()
    kept = {"both": ["outer", "inner"]}.get(legs, [legs])
    assert set(found) == {shape[name].call_id for name in kept}
    for name in kept:
        assert_sound(found[shape[name].call_id], *shape[name].channels())
    refused = [line for line in result.lines if line.get("outcome") == "refused"]
    assert [line["notes"][0].startswith(f"recorded on the {legs} leg: ") for line in refused] == [True] * (
        2 - len(kept)
    )


def without_sound(scene: Scene) -> Scene:
    return replace(scene, left=(), right=())


@pytest.mark.parametrize(
    "change",
    [
        lambda shape: {**shape, "outer": without_sound(shape["outer"])},
        lambda shape: {**shape, "outer": replace(shape["outer"], right=())},
        lambda shape: {**shape, "outer": replace(shape["outer"], left=shape["outer"].left[:5])},
    ],
    ids=["none", "one side", "a little"],
)
def test_a_leg_gives_way_only_to_all_of_its_sound(change: Callable[[Shape], Shape], tmp_path: Path) -> None:
    shape = change(shapes.through_pbx(6, talk_ms=4000))
    found = recorded(tmp_path, shape, "--legs", "outer").by_call_id()
    inner = shape["inner"]
    assert_sound(found[inner.call_id], *inner.channels())


@pytest.mark.parametrize("legs", ["outer", "inner"])
def test_a_leg_does_not_give_way_to_other_sound(legs: str, tmp_path: Path) -> None:
    """Anyone may call between the same numbers as long, and say something else: the real call must not be lost."""
    shape = shapes.through_pbx(6, relays=False, talk_ms=4000)
    found = recorded(tmp_path, shape, "--legs", legs).by_call_id()
    assert relations(found, shape) == BOTH_WAYS["through a PBX"]
    for scene in shape.values():
        assert_sound(found[scene.call_id], *scene.channels())


def test_a_leg_gives_way_to_the_same_sound_under_other_numbers(tmp_path: Path) -> None:
    """As a PBX hands it on that numbers its streams itself."""
    shape = shapes.through_pbx(6, talk_ms=4000)
    inner = shape["inner"]
    left, right = (
        tuple(replace(one, ssrc=one.ssrc ^ 0x55AA, seq=one.seq + 999 & 0xFFFF) for one in side)
        for side in (inner.left, inner.right)
    )
    shape = {**shape, "inner": replace(inner, left=left, right=right)}
    assert set(recorded(tmp_path, shape, "--legs", "outer").by_call_id()) == {shape["outer"].call_id}


def test_a_recording_session_says_whom_it_holds(tmp_path: Path) -> None:
    found = recorded(tmp_path, shapes.recording_session(3)).only()
    assert repeated(found, "RecordingSession") == ["Ann & Co 2001", "2002"]


# -- where SIP is found ------------------------------------------------------------------------------------------------


def on_ports(scene: Scene, caller: int, callee: int) -> Scene:
    """The scene with its SIP between other ports."""
    ends = {
        scene.dialog.caller.sip: Endpoint(scene.dialog.caller.sip.address, caller),
        scene.dialog.callee.sip: Endpoint(scene.dialog.callee.sip.address, callee),
    }
    signals = tuple(replace(one, source=ends[one.source], target=ends[one.target]) for one in scene.signals)
    return replace(scene, signals=signals)


@pytest.mark.parametrize("over_tcp", [False, True], ids=["UDP", "TCP"])
def test_sip_is_found_on_any_port(over_tcp: bool, tmp_path: Path) -> None:
    scene = on_ports(plain_call(1), 40123, 17070)
    packets = scene.packets_over_tcp(seed=5) if over_tcp else scene.packets()
    result = record(tmp_path / "out", files.write(tmp_path, files.pcap(packets)))
    assert_sound(result.only(), *scene.channels())
    assert result.summary["packets"]["malformed"] == 0


@pytest.mark.parametrize(
    ("skip", "compressed"),
    [(0, False), (3, False), (9, False), (0, True)],
    ids=["whole", "without its begin", "from its middle", "compressed"],
)
def test_sip_over_websocket(skip: int, compressed: bool, tmp_path: Path) -> None:
    scene = plain_call(1)
    cuts = 0 if skip or compressed else 3
    packets = websocket.packets(scene, seed=3, cuts=cuts, skip=skip, pieces=2, compressed=compressed)
    capture = files.write(tmp_path, files.pcap(packets))
    assert_sound(record(tmp_path / "out", capture).only(), *scene.channels())


@shark.needs_wireshark
def test_wireshark_reads_the_same_frames(tmp_path: Path) -> None:
    scene = plain_call(1)
    capture = files.write(tmp_path, files.pcap(websocket.packets(scene, seed=3, port=80)))
    read_out = shark.run(
        *("tshark", "-n", "-r", capture, "-d", "tcp.port==80,http", "-Y", "sip", "-T", "fields", "-e", "sip.CSeq"),
    )
    assert read_out.split("\n")[:-1] == [cseq(signal.text) for signal in scene.signals]
    result = record(tmp_path / "out", capture)
    assert_sound(result.only(), *scene.channels())


def cseq(text: bytes) -> str:
    return next(line for line in text.decode().split("\r\n") if line.startswith("CSeq: "))[6:]


def test_two_connections_at_once_are_kept_apart(tmp_path: Path) -> None:
    """One over WebSocket, one as it is, on the same ports of other hosts; and web pages that are neither."""
    one, two = plain_call(1), plain_call(2)
    noise = random.Random(1)
    pages = [
        replace(signal, text=b"GET /index.html HTTP/1.1\r\nHost: x\r\n\r\n" + noise.randbytes(200))
        for signal in on_ports(plain_call(3), 50123, 80).signals
    ]
    packets = in_order(
        websocket.packets(one, seed=3, port=5060),
        two.packets_over_tcp(seed=4),
        tcp.connection(pages, seed=5),
    )
    found = record(tmp_path / "out", files.write(tmp_path, files.pcap(packets))).by_call_id()
    for scene in (one, two):
        assert_sound(found[scene.call_id], *scene.channels())


# -- real calls of others ----------------------------------------------------------------------------------------------

PUBLIC = Path(os.environ.get("TAPDECK_CAPTURES", REPOSITORY.parent / "shared" / "captures"))
TRANSFERRED = (
    "magum_call_transfer.pcapng",
    "misosviso_reroute_call_refer.pcapng",
    "plugin23_presmerovanie_refer_frag.pcap",
)


@shark.needs_wireshark
@pytest.mark.parametrize("name", TRANSFERRED)
def test_transfers_of_others_are_told_as_wireshark_reads_them(name: str, tmp_path: Path) -> None:
    capture = PUBLIC / name
    if not capture.is_file():
        pytest.skip("no public captures: set TAPDECK_CAPTURES to their folder")
    first_id, refer_to, by = read(capture, "sip.Method == REFER", "sip.Call-ID", "sip.Refer-To", "sip.from.user")[0]
    frags = [line.split()[1] for (line,) in read(capture, f'sipfrag and sip.Call-ID == "{first_id}"', "sipfrag.line")]
    ((second_id,),) = set(read(capture, "sip.Method == INVITE and sip.Referred-by", "sip.Call-ID"))
    to = refer_to.partition("sip:")[2].partition("@")[0]
    done = CliRunner().invoke(cli, ["story", first_id, str(capture), "--json"])
    assert done.exit_code == 0
    first, second = json.loads(done.stdout)["calls"]
    assert (first["call_id"], second["call_id"], second["callee"]) == (first_id, second_id, to)
    (transfer,) = first["transfers"]
    assert transfer.startswith(f"blind by callee to {to} at ")
    assert transfer.endswith(f"outcome={max(frags, default='none')}")
    assert first["related"] == [{"call": 2, "is": "transferred to", "by": by}]
    assert second["related"] == [{"call": 1, "is": "transferred from", "by": by}]


@shark.needs_wireshark
@pytest.mark.parametrize("skip", [0, 7], ids=["whole", "from its middle"])
def test_a_browser_s_call_over_websocket(skip: int, tmp_path: Path) -> None:
    capture = PUBLIC / "websocket-sip.pcapng"
    if not capture.is_file():
        pytest.skip("no public captures: set TAPDECK_CAPTURES to their folder")
    whole = read(capture, "sip", "sip.Method", "sip.Status-Code", "sip.Call-ID")
    cut = tmp_path / "cut.pcapng"
    shark.run("editcap", capture, cut, *([f"1-{skip}"] if skip else []))
    done = CliRunner().invoke(cli, ["inspect", str(cut), "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    (call,) = found["calls"]
    assert {arrow["transport"] for arrow in call["messages"]} == {"WS"}
    expected = [(method, status) for method, status, call_id in whole if call_id == call["call_id"]]
    assert len(call["messages"]) == len(expected)
