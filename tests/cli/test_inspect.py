"""`tapdeck inspect`: what it says of captures whose every packet is known."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.cli.exit_codes import ExitCode
from tapdeck.cli.main import cli
from tapdeck.sniffer.addresses import AddressBook
from tapdeck.sniffer.datagrams import NO_RTP, RtpColumns
from tapdeck.sniffer.streams import Lookup
from tapdeck.sniffer.watch import Figures, StreamWatch
from tests.support import files, ip, recipes
from tests.support.ip import Endpoint, Packet
from tests.support.media import MS, lost, repeated, talk
from tests.support.record import REPOSITORY
from tests.support.scene import START_NS, Scene, end_ns, in_order, plain_call

CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
LAB = REPOSITORY / "fixtures" / "lab"
STRANGERS = Endpoint("198.51.100.1", 4000), Endpoint("198.51.100.2", 4002)


def inspect(*args: Path | str, width: int = 100) -> Result:
    return CliRunner(env={"COLUMNS": str(width), "TZ": "UTC"}).invoke(cli, ["inspect", *map(str, args)])


def capture(folder: Path, *packets: Iterable[Packet], name: str = "capture.pcap") -> Path:
    return files.write(folder, files.pcap(in_order(*packets)), name)


def report(*args: Path | str) -> dict[str, Any]:
    done = inspect("--json", *args)
    assert done.exit_code in (ExitCode.OK, ExitCode.NO_CALL), done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rungs(text: str) -> list[str]:
    """The arrows of all ladders, without their times: `|--- INVITE -->|`."""
    return [match[0] for line in text.splitlines() if (match := re.search(r"\|[-<].*[->]\|", line))]


# -- ladders -----------------------------------------------------------------------------------------------------------


def test_a_ladder_tells_the_call(tmp_path: Path) -> None:
    scene = plain_call()
    done = inspect(capture(tmp_path, scene.packets()))
    assert done.exit_code == 0
    found = [(re.sub(r"[-|<>]{2,}", "", rung).strip(" -|<>"), rung.endswith(">|")) for rung in rungs(done.stdout)]
    assert found == [
        ("INVITE", True),
        ("100 Trying", False),
        ("180 Ringing", False),
        ("200 OK", False),
        ("ACK", True),
        ("BYE", True),
        ("200 OK (BYE)", False),
    ]
    assert "offer audio 10.0.1.12:10000 PCMA telephone-event" in done.stdout
    assert "answer audio 10.0.1.22:20000 PCMA telephone-event" in done.stdout
    assert re.search(r"\n +caller +callee\n", done.stdout)
    times = [float(match[1]) for match in re.finditer(r"\n +(\d+\.\d{3})  \|", done.stdout)]
    assert times == [round((signal.time_ns - START_NS) / 1e9, 3) for signal in scene.signals]


def test_every_message_stands_in_the_json(tmp_path: Path) -> None:
    scene = plain_call()
    call = report(capture(tmp_path, scene.packets()))["calls"][0]
    assert call["call_id"] == scene.call_id
    assert (call["caller"]["number"], call["callee"]["number"]) == ("101", "2001")
    ends = [(one["source"], one["destination"]) for one in call["messages"]]
    assert ends == [
        (f"{signal.source.address}:{signal.source.port}", f"{signal.target.address}:{signal.target.port}")
        for signal in scene.signals
    ]
    assert call["end_reason"] == "BYE by caller"


def test_hold_and_resume(tmp_path: Path) -> None:
    messages = report(capture(tmp_path, recipes.held(1).packets()))["calls"][0]["messages"]
    again = [one["note"] for one in messages if one["message"] == "re-INVITE"]
    assert [note.rpartition(", ")[2] for note in again] == ["hold", "resume"]


def test_a_message_sent_again_is_a_retransmission_and_a_mirrored_one_is_not(tmp_path: Path) -> None:
    scene = plain_call()
    invite = scene.packets()[0]
    again = Packet(invite.time_ns + 500 * MS, invite.ip)
    text = inspect(capture(tmp_path, scene.packets(), [again])).stdout
    assert len(re.findall("retransmission", text)) == 1
    copy = Packet(invite.time_ns + MS, ip.with_other_ttl(invite.ip, 63))
    text = inspect(capture(tmp_path, scene.packets(), [copy])).stdout
    assert "retransmission" not in text
    assert text.count("(seen twice)") == 1
    assert len(rungs(text)) == len(scene.signals)


def test_a_proxy_stands_between_the_parties(tmp_path: Path) -> None:
    call = report(LAB / "k1_proxy.pcap")["calls"][0]
    known = json.loads((LAB / "k1_proxy.json").read_text())["calls"][0]
    hosts = {one["role"]: one["host"].partition(":")[0] for one in call["hosts"]}
    media = known["media"]
    assert hosts == {"caller": media["caller"]["ip"], "callee": media["callee"]["ip"], "proxy": known["pbx"]}
    text = inspect(LAB / "k1_proxy.pcap").stdout
    heads = next(line for line in text.splitlines() if line.split() == ["caller", "proxy", "callee"])
    assert heads


@pytest.mark.parametrize("width", [80, 100, 200])
def test_ladders_fit_the_terminal(width: int, tmp_path: Path) -> None:
    scenes = [recipes.relayed(1), recipes.authenticated(2), plain_call(3, six=True)]
    text = inspect(capture(tmp_path, *(scene.packets() for scene in scenes)), width=width).stdout
    assert len(rungs(text)) == sum(len(scene.signals) for scene in scenes)
    assert not [line for line in text.splitlines() if "|" in line and len(line) > width]


def test_ladders_and_their_messages_are_bounded(tmp_path: Path) -> None:
    path = capture(tmp_path, *(plain_call(seed).packets() for seed in range(1, 6)))
    text = inspect("--calls", "2", "--messages", "3", path).stdout
    assert len(rungs(text)) == 6
    assert text.count("... and 4 more messages") == 2
    assert "... and 3 more calls" in text
    assert inspect("--calls", "0", path).stdout.count("Call-ID") == 0


def test_calls_are_chosen_by_call_id_and_number(tmp_path: Path) -> None:
    path = capture(tmp_path, *(plain_call(seed).packets() for seed in (1, 2, 3)))
    chosen = report("--call-id", "synth-2@", path)
    assert [call["call_id"] for call in chosen["calls"]] == ["synth-2@example.invalid"]
    assert {use["call"] for stream in chosen["streams"] for use in stream["calls"]} == {chosen["calls"][0]["number"]}
    assert len(chosen["streams"]) == 2
    assert [call["caller"]["number"] for call in report("--number", "103", path)["calls"]] == ["103"]
    none = inspect("--number", "nobody", path)
    assert (none.exit_code, "No call matches" in none.stdout) == (ExitCode.NO_CALL, True)


# -- streams -----------------------------------------------------------------------------------------------------------


def streams(*args: Path | str) -> dict[int, dict[str, Any]]:
    return {int(stream["ssrc"], 16): stream for stream in report(*args)["streams"]}


def test_streams_have_their_figures_and_their_call(tmp_path: Path) -> None:
    scene = plain_call(duration_ms=2000)
    scene = replace(scene, left=repeated(lost(scene.left, {10, 11, 40}), {20}, 60))
    found = streams(capture(tmp_path, scene.packets()))
    left, right = found[0xA0000001], found[0xB0000001]
    assert (left["packets"], left["lost"], left["repeated"]) == (98, 3, 1)
    assert (right["packets"], right["lost"], right["repeated"]) == (100, 0, 0)
    assert left["payload_types"] == [{"type": 8, "name": "PCMA", "packets": 98}]
    assert left["calls"] == [{"call": 1, "party": "caller", "use": "sound", "packets": 98}]
    assert right["calls"][0]["party"] == "callee"
    assert right["duration_s"] == pytest.approx(1.98)
    assert right["jitter_ms"] == pytest.approx(0, abs=0.01)


def test_loss_that_is_more_than_a_call_bears_is_flagged(tmp_path: Path) -> None:
    scene = plain_call(duration_ms=2000)
    scene = replace(scene, left=lost(scene.left, {10, 11, 40}), right=lost(scene.right, {10, 11, 40, 41}))
    shown = inspect(capture(tmp_path, scene.packets())).stdout
    assert "97 packets, 3 lost (3.0%)," in shown
    assert "96 packets, 4 lost (4.0%, over 3%)," in shown


def test_copies_behind_a_relay_are_told_apart(tmp_path: Path) -> None:
    uses = [
        use["use"] for one in report(capture(tmp_path, recipes.relayed(1).packets()))["streams"] for use in one["calls"]
    ]
    assert sorted(uses) == ["relayed copy", "relayed copy", "sound", "sound"]


def test_encrypted_media_is_named_so(tmp_path: Path) -> None:
    scene = plain_call()
    keyed = tuple(
        replace(signal, text=signal.text.replace(b"RTP/AVP", b"RTP/SAVP").replace(b"Content-Length", b"X-Length"))
        for signal in scene.signals
    )
    found = report(capture(tmp_path, replace(scene, signals=keyed).packets()))
    assert {use["use"] for one in found["streams"] for use in one["calls"]} == {"encrypted"}
    assert found["calls"][0]["encrypted"]
    assert found["calls"][0]["outcome"] == "encrypted"
    assert found["packets"]["kept"] == 0


def strangers(duration_ms: int = 400, start_ns: int = START_NS) -> list[Packet]:
    stream = talk(*STRANGERS, start_ns, duration_ms, seed=1, pt=8, ssrc=0xC0FFEE, seq=1, ts=1, ptime_ms=20)
    return [packet.packet() for packet in stream]


def noise() -> list[Packet]:
    """Datagrams that begin as RTP does, with anything for a sequence number."""
    chance = random.Random(1)
    heads = [struct.pack("!BBHII", 0x80, 8, chance.randrange(1 << 16), 0, 0xC0FFEE) + bytes(20) for _ in range(30)]
    return [Packet(START_NS + n * 20 * MS, ip.udp(*STRANGERS, head, ident=n)) for n, head in enumerate(heads)]


def after_the_call(scene: Scene) -> list[Packet]:
    stream = [replace(one, time_ns=one.time_ns + 60_000 * MS, ssrc=0xC0FFEE) for one in scene.left]
    return [one.packet() for one in stream]


def tls(_: Scene) -> list[Packet]:
    hello = bytes.fromhex("160301000501000001")
    hosts = Endpoint(STRANGERS[0].address, 33000), Endpoint(STRANGERS[1].address, 5061)
    segment = ip.packet(hosts[0].address, hosts[1].address, ip.TCP, ip.tcp(*hosts, 1, 1, ip.ACK, hello)[20:])
    return [*strangers(), Packet(START_NS, segment)]


def unseen_beginning(_: Scene) -> list[Packet]:
    bye = plain_call(9).signals[-2]
    gone = ip.udp(STRANGERS[0], STRANGERS[1], bye.text)
    return [*strangers(), Packet(START_NS + MS, gone)]


@pytest.mark.parametrize(
    ("packets", "words"),
    [
        (lambda _: strangers(), "no SDP of any call names its source or destination"),
        (lambda _: noise(), "looks like RTP by accident"),
        (lambda _: strangers(20), "a single packet that no SDP explains"),
        (after_the_call, "call 1 was over 5"),
        (tls, "SIP over TLS, which cannot be read"),
        (unseen_beginning, "the beginning was not seen"),
    ],
    ids=["unknown", "accident", "single", "late", "TLS", "no beginning"],
)
def test_a_stream_of_no_call_has_a_reason(
    packets: Callable[[Scene], Sequence[Packet]], words: str, tmp_path: Path
) -> None:
    scene = plain_call()
    path = capture(tmp_path, scene.packets(), packets(scene))
    stream = streams(path)[0xC0FFEE]
    assert stream["calls"] == []
    assert words in stream["why_no_call"]
    text = inspect(path).stdout
    assert "Streams: 2 of calls, 1 of none" in text
    assert words in text or "streams of a single packet: 1" in text


def test_without_any_sip_that_is_the_reason(tmp_path: Path) -> None:
    path = capture(tmp_path, strangers())
    assert inspect(path).exit_code == ExitCode.NO_CALL
    assert "the capture holds no SIP" in streams(path)[0xC0FFEE]["why_no_call"]


# -- figures, whatever way the packets come ----------------------------------------------------------------------------


def columns(numbers: Sequence[int], ssrc: int = 1) -> RtpColumns:
    size = len(numbers)
    fields = {name: np.zeros(size, dtype=getattr(NO_RTP, name).dtype) for name in RtpColumns.__dataclass_fields__}
    fields["sequence"] = np.array(numbers, dtype=np.int64).astype(np.uint16)
    fields["time"] = np.arange(size, dtype=np.int64) * 20_000_000
    fields["ssrc"] += np.uint32(ssrc)
    return RtpColumns(**fields)


def figures() -> Figures:
    return Figures(("192.0.2.1", 1), ("192.0.2.2", 2), 1, 0, 0)


@given(
    st.integers(0, 0xFFFF),
    st.lists(st.integers(-40, 40), min_size=1, max_size=300),
    st.lists(st.integers(1, 60), max_size=12),
)
def test_loss_is_what_the_numbers_lack(first: int, steps: list[int], cuts: list[int]) -> None:
    numbers = [first]
    for step in steps:
        numbers.append(numbers[-1] + step)
    one = figures()
    left = list(numbers)
    for cut in [*cuts, len(numbers)]:
        if left:
            one.add(columns(left[:cut]))
            left = left[cut:]
    assert one.packets == len(numbers)
    assert one.distinct == len(set(numbers))
    assert one.expected == max(numbers) - min(numbers) + 1
    assert one.lost == one.expected - len(set(numbers))


def test_numbers_begun_anew_are_no_loss() -> None:
    one = figures()
    one.add(columns([*range(100, 150), *range(40_000, 40_050)]))
    one.add(columns(range(7, 57)))
    assert (one.packets, one.lost, one.runs) == (150, 0, 3)


def test_the_table_of_streams_is_bounded() -> None:
    watch = StreamWatch(AddressBook(), limit=2)
    for number in range(5):
        watch.take(columns([1, 2, 3], ssrc=number), Lookup(np.full(3, number, dtype=np.int32), [number]))
    assert len(watch.all) == 2
    assert (watch.more["streams"], watch.more["packets"]) == (3, 9)


def test_a_stream_the_engine_forgot_goes_on() -> None:
    watch = StreamWatch(AddressBook())
    for numbers in ([1, 2, 3], [4, 6]):
        watch.take(columns(numbers), Lookup(np.zeros(len(numbers), dtype=np.int32), [0]))
    assert [(one.packets, one.lost) for one in watch.all] == [(5, 1)]


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_the_packet_account_adds_up() -> None:
    for path in sorted(LAB.glob("*.pcap")):
        packets = report(path)["packets"]
        assert packets["seen"] == sum(count for fate, count in packets.items() if fate != "seen"), path.name


def test_what_a_capture_holds(tmp_path: Path) -> None:
    scene = plain_call()
    bad = ip.udp(
        Endpoint("192.0.2.1", 5060), Endpoint("192.0.2.2", 5060), b"INVITE sip:a@b SIP/2.0\r\nTo: <sip:a@b>\r\n\r\n"
    )
    found = report(capture(tmp_path, scene.packets(), [Packet(START_NS, bad)]))
    assert found["capture"]["link_types"] == {"Ethernet": len(scene.packets()) + 1}
    assert found["capture"]["last"] - found["capture"]["first"] == pytest.approx((end_ns(scene) - START_NS) / 1e9)
    assert found["sip"]["messages"] == {"INVITE": 1, "response": 4, "ACK": 1, "BYE": 1}
    assert found["sip"]["not_parsed"] == {"call-id": 1}


def test_nothing_from_the_wire_reaches_the_terminal_raw(tmp_path: Path) -> None:
    scene = plain_call()
    evil = '"\x1b]0;x\x07\u202e\x9b2J"'.encode()
    signals = tuple(
        replace(signal, text=signal.text.replace(b'"Caller 1"', evil).replace(b" OK\r\n", b" OK \x1b[2J\r\n"))
        for signal in scene.signals
    )
    assert signals != scene.signals
    path = capture(tmp_path, replace(scene, signals=signals).packets())
    for args in ((), ("--json",)):
        done = inspect(*args, path)
        assert done.exit_code == 0
        assert not CONTROLS.search(done.stdout)


def test_it_writes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "temporary").mkdir()
    path = capture(tmp_path, plain_call().packets())
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert inspect(path).exit_code == 0
    assert list((tmp_path / "work").iterdir()) == list((tmp_path / "temporary").iterdir()) == []


def test_exit_codes(tmp_path: Path) -> None:
    whole = capture(tmp_path, plain_call().packets())
    cut = files.write(tmp_path, whole.read_bytes()[:-7], "cut.pcap")
    other = files.write(tmp_path, b"no capture at all, whatever its name", "other.pcap")
    assert inspect(whole).exit_code == ExitCode.OK
    done = inspect(cut)
    assert done.exit_code == ExitCode.DAMAGED_CAPTURE
    assert "damaged: " in done.stdout
    assert inspect(other).exit_code == inspect(tmp_path / "nothing").exit_code == ExitCode.UNREADABLE_INPUT


# -- the second opinion ------------------------------------------------------------------------------------------------


def test_without_tshark_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = capture(tmp_path, plain_call().packets())
    monkeypatch.setenv("PATH", str(tmp_path))
    done = inspect("--second-opinion", path)
    assert done.exit_code == ExitCode.USAGE
    assert "apt install tshark" in done.stderr
    assert not done.stdout


def test_standard_input_cannot_be_asked_twice() -> None:
    assert inspect("--second-opinion", "-").exit_code == ExitCode.USAGE


needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


@needs_tshark
@pytest.mark.parametrize("name", ["a_alaw.pcap", "h_hold.pcap", "k1_proxy.pcap"])
def test_wireshark_agrees_on_our_captures(name: str) -> None:
    opinion = report("--second-opinion", LAB / name)["second_opinion"]
    assert opinion["call_ids"] == {"tapdeck": 1, "wireshark": 1, "agree": 1}
    assert opinion["stream_differences"] == 0
    assert opinion["streams"]
    assert all(row["wireshark"] == row["tapdeck"] for row in opinion["streams"])


@needs_tshark
def test_a_difference_is_shown_with_its_reason() -> None:
    text = inspect("--second-opinion", LAB / "n_impaired.pcap").stdout
    assert "of which 1 differ" in text
    assert re.search(r"lost: tshark takes the \d+ repeated packets off the loss", text)


@needs_tshark
def test_several_captures_are_one_for_wireshark_too(tmp_path: Path) -> None:
    packets = plain_call(duration_ms=2000).packets()
    halves = [capture(tmp_path, packets[:60], name="1.pcap"), capture(tmp_path, packets[60:], name="2.pcap")]
    opinion = report("--second-opinion", *halves)["second_opinion"]
    assert [row["wireshark"] for row in opinion["streams"]] == [{"packets": 100, "lost": 0}] * 2
    assert opinion["call_ids"]["agree"] == 1
    assert sorted(os.listdir(tmp_path)) == ["1.pcap", "2.pcap"]


# -- a clock that is set ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leap_s", [-3600, 2 * 86_400])
def test_a_capture_whose_clock_is_set_shows_the_clock_and_counts_steadily(tmp_path: Path, leap_s: int) -> None:
    """The clock is set between two calls: times are as the clock showed them, spans are as long as they were."""
    first = plain_call(1)
    second = plain_call(2, start_ns=end_ns(first) + 1000 * MS)
    leap = leap_s * 1000 * MS
    shown = [replace(packet, time_ns=packet.time_ns + leap) for packet in in_order(second.packets())]
    path = files.write(tmp_path, files.pcap([*in_order(first.packets()), *shown]), "set.pcap")
    found = report(path)
    starts = [START_NS / 1e9, shown[0].time_ns / 1e9]
    ends = [end_ns(first) / 1e9, shown[-1].time_ns / 1e9]
    assert [call["start"] for call in found["calls"]] == pytest.approx(starts, rel=0, abs=1e-6)
    said = [[message["time"] for message in call["messages"]] for call in found["calls"]]
    assert [times[0] for times in said] == pytest.approx(starts, rel=0, abs=1e-6)
    assert [times[-1] for times in said] == pytest.approx(ends, rel=0, abs=1e-6)
    assert (found["capture"]["first"], found["capture"]["last"]) == pytest.approx((starts[0], ends[1]), rel=0, abs=1e-6)
    assert [stream["packets"] for stream in found["streams"]] == [50] * 4
    assert [stream["duration_s"] for stream in found["streams"]] == pytest.approx([0.98] * 4)
    assert [use["use"] for stream in found["streams"] for use in stream["calls"]] == ["sound"] * 4
    text = inspect(path).stdout
    for start in starts:
        assert re.search(rf"^Call \d .*{datetime.fromtimestamp(start, UTC):%Y-%m-%d %H:%M:%S}", text, re.MULTILINE)
