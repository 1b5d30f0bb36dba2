"""What crosses the port beside sound: faxes by T.38, in UDPTL and in RTP, and video. Counted, kept if that is wanted,
never decoded; and the sound around it is whole.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tapdeck.cli.main import cli
from tapdeck.sniffer.account import Account
from tests.support import fax, files, shark
from tests.support.box import Box
from tests.support.fax import Ifp
from tests.support.ip import Endpoint, Packet, fragments, udp
from tests.support.live import Capture, content, offline, offline_file, recordings, sealed, sealer
from tests.support.media import MS, Rtp, talk
from tests.support.netns import Namespaces, Wire, needs_namespaces
from tests.support.record import Recording, Result, record, unbalanced
from tests.support.replay import replay
from tests.support.scene import START_NS, Scene, answered_ns, each_packet, hang_up, in_order, plain_call, set_up
from tests.support.shapes import people
from tests.support.signalling import Dialog, sdp
from tests.support.srtp import Key, announced, lock
from tests.support.srtp import packets as locked_packets

KEEP = ("--keep-packets",)
OTHER_UDP = "other UDP"
BESIDE = "media of a call other than sound"


def run(folder: Path, heard: list[Packet], *more: str) -> Result:
    result = record(folder / "out", files.write(folder, files.pcap(heard, nano=True)), more=more)
    assert unbalanced(result.summary["packets"]) == unbalanced(result.summary["calls"]) == 0
    return result


def kinds(result: Result, fate: str) -> dict[str, int]:
    found: dict[str, int] = result.summary["packet_kinds"].get(fate, {})
    return found


def lines(path: Path, key: str) -> list[str]:
    """The values of a key in an info file, in order."""
    text = path.read_text(encoding="utf-8")
    return [line.partition(": ")[2] for line in text.splitlines() if line.startswith(f"{key}:")]


def notes(recording: Recording) -> list[str]:
    return lines(recording.path.with_name(recording.path.stem + "_info.txt"), "Note")


def sent(*streams: list[Ifp] | tuple[Rtp, ...]) -> list[str]:
    return sorted(packet.wire().hex() for stream in streams for packet in stream)


# -- a fax in mid-call -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refused_sound", [False, True])
@pytest.mark.parametrize("six", [False, True])
def test_a_call_that_becomes_a_fax_on_the_same_ports(refused_sound: bool, six: bool, tmp_path: Path) -> None:
    scene, there, back = fax.switched(plain_call(1, six=six), 50, refused_sound=refused_sound)
    result = run(tmp_path, fax.packets(scene, there, back))
    assert result.only().wav.channels() == scene.channels()
    assert kinds(result, "not_a_call") == {BESIDE: 100}
    assert notes(result.only()) == [
        f"50 packets of {party} are a fax by T.38, not kept (storage.keep_packets) and not decoded"
        for party in ("caller", "callee")
    ]
    other = lines(result.only().path.with_name(result.only().path.stem + "_info.txt"), "OtherMedia")
    assert [line.partition(" at ")[0] for line in other] == ["image UDPTL of callee", "image UDPTL of caller"]


def test_a_fax_on_ports_of_its_own_and_sound_after_it(tmp_path: Path) -> None:
    """The fax is over, a second re-INVITE brings the sound back, with a new SSRC."""
    first = plain_call(2)
    shape = first.dialog
    ends = Endpoint(shape.caller.media.address, 12_000), Endpoint(shape.callee.media.address, 23_000)
    scene, there, back = fax.switched(first, 30, ends=ends)
    again = max(one.time_ns for one in (*there, *back)) + 30 * MS
    signals = [one for one in scene.signals if b" BYE\r\n" not in one.text]
    signals += [
        shape.request(again, "INVITE", sdp(shape.callee.media, session=3), cseq=4, backward=True),
        shape.reply(again + 5 * MS, "200 OK", sdp(shape.caller.media, session=3), cseq=4, backward=True),
        shape.request(again + 9 * MS, "ACK", cseq=4, backward=True),
    ]
    more = talk(shape.caller.media, shape.callee.media, again + 25 * MS, 1000, seed=9, ssrc=0xAB)
    signals += hang_up(shape, more[-1].time_ns + 200 * MS)
    scene = replace(scene, signals=tuple(signals), left=(*scene.left, *more))
    result = run(tmp_path, fax.packets(scene, there, back))
    assert result.only().wav.channels() == scene.channels()
    assert kinds(result, "not_a_call") == {BESIDE: 60}


def test_a_fax_that_is_refused_and_sound_that_goes_on(tmp_path: Path) -> None:
    """The callee asks for T.38, the caller answers 488; both go on in G.711 with new streams on the same ports."""
    scene, _, _ = fax.switched(plain_call(3), 1)
    shape = scene.dialog
    asked = max(packet.time_ns for packet in (*scene.left, *scene.right)) + 50 * MS
    signals = [one for one in scene.signals if one.time_ns <= asked]
    signals += [
        shape.reply(asked + 10 * MS, "488 Not Acceptable Here", cseq=3, backward=True),
        shape.request(asked + 20 * MS, "ACK", cseq=3, backward=True),
    ]
    ends = shape.caller.media, shape.callee.media
    left = talk(*ends, asked + 100 * MS, 2000, seed=5, ssrc=0x11)
    right = talk(*ends[::-1], asked + 100 * MS, 2000, seed=6, ssrc=0x22)
    signals += hang_up(shape, right[-1].time_ns + 200 * MS)
    scene = replace(scene, signals=tuple(signals), left=(*scene.left, *left), right=(*scene.right, *right))
    assert run(tmp_path, scene.packets()).only().wav.channels() == scene.channels()


def test_a_long_fax_is_no_silence_that_ends_a_call(tmp_path: Path) -> None:
    """Packets 20 s apart for 20 minutes, in a capture of one block: without them the call would be taken for dead."""
    scene, there, back = fax.switched(plain_call(4), 60)
    shape = scene.dialog
    slow = [replace(one, time_ns=there[0].time_ns + n * 20_000 * MS) for n, one in enumerate(there)]
    signals = [one for one in scene.signals if b" BYE\r\n" not in one.text and b"CSeq: 9 BYE" not in one.text]
    scene = replace(scene, signals=(*signals, *hang_up(shape, slow[-1].time_ns + 1000 * MS)))
    result = run(tmp_path, fax.packets(scene, slow, back[:1]))
    assert result.only().info["EndReason"] == "BYE by caller"
    assert kinds(result, "not_a_call") == {BESIDE: 61}


@shark.needs_wireshark
def test_all_packets_are_kept_if_that_is_wanted(tmp_path: Path) -> None:
    scene, there, back = fax.switched(plain_call(5), 50)
    result = run(tmp_path, fax.packets(scene, there, back), *KEEP)
    recording = result.only()
    [kept] = (tmp_path / "out").rglob("*.pcapng")
    assert recording.wav.channels() == scene.channels()
    assert sorted(shark.udp_payloads(kept)) == sent(scene.left, scene.right, there, back)
    assert notes(recording)[0] == f"50 packets of caller are a fax by T.38, kept in {kept.name} and not decoded"
    assert result.summary["packets"]["not_a_call"] == 0
    assert kinds(result, "kept") == {"sound": 100, BESIDE: 100}
    again = CliRunner().invoke(cli, ["redecode", str(recording.path)])
    assert (again.exit_code, "the same, byte for byte" in again.output) == (0, True), again.output


def pages_alone(proto: str = "udptl") -> tuple[Scene, list[Ifp], list[Ifp]]:
    """A call that is a fax from its INVITE on."""
    scene = plain_call(6)
    shape = scene.dialog
    texts = [fax.image(party.media, session=1, proto=proto) for party in (shape.caller, shape.callee)]
    start = answered_ns() + 20 * MS
    there = fax.pages(shape.caller.media, shape.callee.media, start, 40)
    back = fax.pages(shape.callee.media, shape.caller.media, start + 9 * MS, 40, seed=2)
    signals = (*set_up(shape, START_NS, *texts), *hang_up(shape, back[-1].time_ns + 200 * MS))
    return replace(scene, signals=signals, left=(), right=()), there, back


@shark.needs_wireshark
def test_a_call_that_is_nothing_but_a_fax(tmp_path: Path) -> None:
    scene, there, back = pages_alone()
    heard = fax.packets(scene, there, back)
    result = run(tmp_path, heard)
    assert result.lines[0]["outcome"] == "without_media"
    assert result.lines[0]["notes"][0].startswith("40 packets of caller are a fax by T.38, not kept")
    assert not list((tmp_path / "out").rglob("*_info.txt"))
    (tmp_path / "kept").mkdir()
    result = run(tmp_path / "kept", heard, *KEEP)
    assert result.summary["calls"]["recorded"] == 1
    [kept] = (tmp_path / "kept").rglob("*.pcapng")
    assert sorted(shark.udp_payloads(kept)) == sent(there, back)
    assert not list((tmp_path / "kept").rglob("*.wav"))
    [info] = (tmp_path / "kept").rglob("*_info.txt")
    assert lines(info, "Note")[0] == f"40 packets of caller are a fax by T.38, kept in {kept.name} and not decoded"


def in_rtp(stream: list[Ifp], ssrc: int) -> tuple[Rtp, ...]:
    """The same fax in RTP (RFC 4612)."""
    zero = stream[0].time_ns
    return tuple(
        Rtp(
            one.time_ns,
            one.time_ns,
            one.source,
            one.target,
            one.seq,
            (one.time_ns - zero) // 125_000,
            ssrc,
            98,
            one.primary,
        )
        for one in stream
    )


@pytest.mark.parametrize("line", ["m=audio {port} RTP/AVP 98", "m=image {port} RTP/AVP 98"])
def test_a_fax_in_rtp(line: str, tmp_path: Path) -> None:
    """As a codec among those of sound it is kept in any case, as one that nobody decodes; else as other media."""
    scene, there, back = pages_alone()
    shape = scene.dialog
    texts = [
        sdp(one.media, pts=(8,)).partition("m=audio")[0]
        + f"{line.format(port=one.media.port)}\r\na=rtpmap:98 t38/8000\r\n"
        for one in (shape.caller, shape.callee)
    ]
    scene = replace(scene, signals=(*set_up(shape, START_NS, *texts), *scene.signals[-2:]))
    left, right = in_rtp(there, 1), in_rtp(back, 2)
    result = run(tmp_path, replace(scene, left=left, right=right).packets(), *KEEP)
    [kept] = (tmp_path / "out").rglob("*.pcapng")
    [info] = (tmp_path / "out").rglob("*_info.txt")
    assert sorted(shark.udp_payloads(kept)) == sent(left, right)
    assert not result.recordings
    if "image" in line:
        assert lines(info, "Note")[0] == f"40 packets of caller are a fax by T.38, kept in {kept.name} and not decoded"
        assert lines(info, "OtherMedia")[0].startswith("image T38 of caller")
    else:
        assert lines(info, "Note")[0] == f"caller's packets of T.38 are a fax, not sound: they are kept in {kept.name}"


# -- what else ---------------------------------------------------------------------------------------------------------


def with_video(scene: Scene) -> tuple[Scene, tuple[Rtp, ...]]:
    """The call, in which the caller shows pictures too."""
    shape = scene.dialog
    ends = Endpoint(shape.caller.media.address, 12_000), Endpoint(shape.callee.media.address, 23_000)
    texts = [
        sdp(party.media) + f"m=video {end.port} RTP/AVP 100\r\na=rtpmap:100 VP8/90000\r\n"
        for party, end in zip((shape.caller, shape.callee), ends, strict=True)
    ]
    said = replace(scene, signals=(*set_up(shape, START_NS, *texts), *scene.signals[-2:]))
    pictures = talk(*ends, answered_ns() + 30 * MS, 800, seed=3, pt=100, ssrc=0xCAFE)
    return said, pictures


@shark.needs_wireshark
def test_video_is_kept_if_that_is_wanted(tmp_path: Path) -> None:
    scene, pictures = with_video(plain_call(7))
    heard = in_order(scene.packets(), [one.packet() for one in pictures])
    result = run(tmp_path, heard, *KEEP)
    [kept] = (tmp_path / "out").rglob("*.pcapng")
    assert result.only().wav.channels() == scene.channels()
    assert sorted(shark.udp_payloads(kept)) == sent(scene.left, scene.right, pictures)
    assert notes(result.only()) == [f"40 packets of caller are video, kept in {kept.name} and not decoded"]


def strangers(scene: Scene, many: int) -> list[Packet]:
    """UDP that is no call's: names asked for, and what passes between other ports of the same phones."""
    shape = scene.dialog
    ends = [
        (Endpoint(shape.caller.media.address, 40_000), Endpoint("192.0.2.53", 53)),
        (Endpoint(shape.caller.media.address, 40_000), Endpoint(shape.callee.media.address, 40_002)),
    ]
    start = answered_ns()
    return [Packet(start + n * 40 * MS, udp(*ends[n % 2], struct.pack("!HB", n, 40) + bytes(40))) for n in range(many)]


def test_what_is_no_call_s_is_left_alone(tmp_path: Path) -> None:
    scene, there, back = fax.switched(plain_call(8), 50)
    result = run(tmp_path, in_order(fax.packets(scene, there, back), strangers(scene, 60)), *KEEP)
    assert kinds(result, "not_a_call") == {OTHER_UDP: 60}
    assert kinds(result, "kept")[BESIDE] == 100


def cut(packets: list[Packet]) -> list[Packet]:
    """The packets in fragments of 24 bytes."""
    number = count(1)
    return each_packet(packets, lambda packet: fragments(packet, next(number), 24))


def test_a_fax_in_fragments(tmp_path: Path) -> None:
    scene, there, back = fax.switched(plain_call(9), 30)
    heard = in_order(scene.packets(), cut([one.packet() for one in there]), [one.packet() for one in back])
    result = run(tmp_path, heard, *KEEP)
    [kept] = (tmp_path / "out").rglob("*.pcapng")
    assert sorted(shark.udp_payloads(kept)) == sent(scene.left, scene.right, there, back)
    assert result.summary["packets"]["not_a_call"] == 0


def ended_at(scene: Scene, time_ns: int) -> Scene:
    """The scene hung up then."""
    rest = [one for one in scene.signals if b" BYE\r\n" not in one.text]
    return replace(scene, signals=(*rest, *hang_up(scene.dialog, time_ns)))


@pytest.mark.parametrize("seq", [0x14F0, 0x7FF0, 0x80C0, 0x9FF0, 0xBFF0, 0xFFF0])
def test_a_long_fax_looks_like_other_things(seq: int, tmp_path: Path) -> None:
    """Its sequence numbers make it look like DTLS, RTP, RTCP, RTP with padding, until they begin anew; in any case it
    is the fax, to the byte, live too, and nothing is heard of it.
    """
    scene, there, back = fax.switched(plain_call(15), 400)
    there, back = (
        [
            replace(one, seq=n + seq * (n >= 40), time_ns=one.time_ns + min(n, 40) * 400 * MS)
            for n, one in enumerate(ifps)
        ]
        for ifps in (there, back)
    )
    scene = ended_at(scene, max(one.time_ns for one in (*there, *back)) + 200 * MS)
    heard = fax.packets(scene, there, back)
    result = run(tmp_path, heard, *KEEP)
    [kept] = (tmp_path / "out").rglob("*.pcapng")
    assert result.only().wav.channels() == scene.channels()
    assert sorted(shark.udp_payloads(kept)) == sent(scene.left, scene.right, there, back)
    assert kinds(result, "kept") == {"sound": 100, BESIDE: 800}
    with Capture(tmp_path) as capture:
        capture.hear(heard, size=100)
    [spool] = capture.files_of("done")
    data = spool.read_bytes()
    assert all(one.wire() in data for one in (*there, *back))
    assert sealed(tmp_path) == offline(tmp_path, heard)


def test_a_forged_fax_does_not_take_the_sound_of_a_call(tmp_path: Path) -> None:
    """Somebody has said beforehand that its ends are those of a fax, and sends one between them all the while."""
    scene = plain_call(15, duration_ms=4000)
    caller, callee = scene.dialog.caller.media, scene.dialog.callee.media
    forged = Dialog("forged@example.invalid", *people(77)[:2])
    begun = scene.signals[0].time_ns - 500 * MS
    signals = (
        forged.request(begun, "INVITE", fax.image(callee), inside=False),
        forged.reply(begun + MS, "200 OK", fax.image(caller)),
        forged.request(begun + 2 * MS, "ACK"),
    )
    ifps = [fax.pages(*ends, begun + 5 * MS, 120) for ends in ((caller, callee), (callee, caller))]
    said = replace(scene, signals=signals, left=(), right=())
    with Capture(tmp_path) as capture:
        capture.hear(
            in_order(scene.packets(), said.packets(), *([one.packet() for one in ifp] for ifp in ifps)), size=30
        )
    spools = sorted((tmp_path / "spool" / "done").iterdir())
    made = {one.call.call_id: one for path in spools for one in sealer(tmp_path).seal(path)}
    assert made[scene.call_id].outcome == "recorded"
    [found] = [one for one in recordings(tmp_path) if one.info["CallId"] == scene.call_id]
    for heard, spoken in zip(found.wav.channels(), scene.channels(), strict=True):
        assert heard[-3 * 8000 :] == spoken[-3 * 8000 :]  # what came before its SDP was heard is anybody's


def test_a_fax_without_end_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is on each direction, looked at slice by slice (10 s)."""
    monkeypatch.setattr("tapdeck.sniffer.engine.MAX_BESIDE", 300)
    scene, there, back = fax.switched(plain_call(10), 1000)
    heard, account = fax.packets(scene, there, back), Account()
    offline_file(tmp_path, files.write(tmp_path, files.pcap(heard, nano=True)), account)
    with Capture(tmp_path) as capture:
        capture.hear(heard, size=50)
    dropped = capture.count("overload_dropped", "fax without end")
    assert 2 * (1000 - 300 - 50) <= dropped <= 2 * (1000 - 300)


# -- live --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("form", ["same ports", "alone", "fragments"])
def test_live_brings_the_fax_into_the_spool(size: int, form: str, tmp_path: Path) -> None:
    scene, there, back = pages_alone() if form == "alone" else fax.switched(plain_call(11), 50)
    heard = fax.packets(scene, there, back)
    if form == "fragments":
        heard = in_order(scene.packets(), cut([one.packet() for one in there]), [one.packet() for one in back])
    heard = in_order(heard, strangers(scene, 10))
    with Capture(tmp_path) as capture:
        capture.hear(heard, size=size)
    [spool] = capture.files_of("done")
    data = spool.read_bytes()
    assert capture.count("not_a_call") == 10
    if form != "fragments":
        assert all(one.wire() in data for one in (*there, *back))
    assert sealed(tmp_path) == offline(tmp_path, heard)


@shark.needs_wireshark
@pytest.mark.parametrize("form", ["same ports", "alone"])
def test_live_keeps_the_fax_if_that_is_wanted(form: str, tmp_path: Path) -> None:
    scene, there, back = pages_alone() if form == "alone" else fax.switched(plain_call(12), 50)
    with Capture(tmp_path) as capture:
        capture.hear(fax.packets(scene, there, back), size=9)
    maker = sealer(tmp_path)
    maker.keep_packets = True
    for path in capture.files_of("done"):
        maker.seal(path)
    [kept] = (tmp_path / "sealed").rglob("*_packets.pcapng")
    payloads = shark.udp_payloads(kept)
    assert set(sent(there, back)) <= set(payloads)
    assert len(list((tmp_path / "sealed").rglob("*.pcapng"))) == 1
    [info] = (tmp_path / "sealed").rglob("*_info.txt")
    assert f"packets of caller are a fax by T.38, kept in {kept.name} and not decoded" in lines(info, "Note")[0]
    assert maker.account.packets["kept", BESIDE] == len(there) + len(back)
    if form == "same ports":
        assert recordings(tmp_path)[0].wav.channels() == scene.channels()


@shark.needs_wireshark
def test_the_fax_of_an_encrypted_call_is_kept_in_the_clear(tmp_path: Path) -> None:
    """T.38 is never SRTP: the fax stays, the sound's cipher text gives way to what it says."""
    scene, there, back = fax.switched(plain_call(13), 20)
    keys = Key(1), Key(2)
    told = announced(scene, [keys[0]], [keys[1]])
    again = [one for one in scene.signals if b"CSeq: 3 " in one.text]
    told = replace(told, signals=tuple(sorted({*told.signals, *again}, key=lambda one: one.time_ns)))
    heard = locked_packets(told, lock(scene.left, keys[0]), lock(scene.right, keys[1]))
    heard = in_order(heard, [one.packet() for one in (*there, *back)])
    with Capture(tmp_path) as capture:
        capture.hear(sorted(heard, key=lambda packet: packet.time_ns))
    maker = sealer(tmp_path)
    maker.keep_packets = True
    for path in capture.files_of("done"):
        maker.seal(path)
    [kept] = (tmp_path / "sealed").rglob("*_packets.pcapng")
    payloads = shark.udp_payloads(kept)
    assert set(sent(scene.left, scene.right, there, back)) <= set(payloads)
    assert recordings(tmp_path)[0].wav.channels() == scene.channels()


# -- anything ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(payloads=st.lists(st.binary(max_size=200), max_size=60), size=st.integers(1, 40))
def test_any_bytes_between_a_fax_s_ports(
    payloads: list[bytes], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever they look like: no stage falls over, every frame is counted, live and offline agree."""
    folder: Path = tmp_path_factory.mktemp("fax")
    scene, there, _ = fax.switched(plain_call(14, duration_ms=200), 60)
    ends = there[0].source, there[0].target
    wild = [Packet(there[n].time_ns, udp(*(ends if n % 2 else ends[::-1]), data)) for n, data in enumerate(payloads)]
    heard = in_order(scene.packets(), wild)
    with Capture(folder) as capture:
        capture.hear(heard, size=size)
    assert sealed(folder) == offline(folder, heard)
    assert content(folder / "sealed")


# -- the box -----------------------------------------------------------------------------------------------------------


@needs_namespaces()
@shark.needs_wireshark
def test_the_box_keeps_a_fax_from_the_mirror_port(tmp_path: Path) -> None:
    """`tapdeck capture` with seal, on a wire: a call that becomes a fax, and one that is nothing else."""
    scene, there, back = fax.switched(plain_call(16), 50)
    alone, first, second = pages_alone()
    heard = in_order(fax.packets(scene, there, back), fax.packets(alone, first, second))
    capture = files.write(tmp_path, files.pcap(heard, nano=True))
    with Namespaces() as spaces:
        wire = Wire.between(spaces)
        with Box(wire.tap, [wire.tap_interface], tmp_path, more=("--keep-packets", "--bye-linger-s=0.2")) as box:
            replay(wire.sender, wire.interface, capture)
            box.wait_until_sealed()
            assert box.stop() == 0
    kept = sorted((tmp_path / "recordings").rglob("*_packets.pcapng"))
    assert len(kept) == 2
    payloads = {payload for path in kept for payload in shark.udp_payloads(path)}
    assert set(sent(scene.left, scene.right, there, back, first, second)) <= payloads
    [recording] = box.recordings()
    for channel, side in zip(recording.wav.channels(), (scene.left, scene.right), strict=True):
        assert b"".join(packet.payload for packet in side) in channel
    assert box.report("seal")["packets"]["kept"] == 100 + 2 * 50 + 2 * 40
