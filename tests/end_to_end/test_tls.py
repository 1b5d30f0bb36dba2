"""Calls over TLS and DTLS-SRTP, from capture to files: with the keys as in the clear, without them nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from ssl import TLSVersion

import pytest

from tapdeck.cli.config import load
from tapdeck.cli.record import build_engine
from tapdeck.sniffer.sources.payloads import RowParking
from tapdeck.sniffer.tls.secrets import Secrets
from tapdeck.storage import tls_memory
from tapdeck.storage.sealing import Sealer
from tapdeck.storage.spool import DONE
from tests.support import files, hearing, ip, shark, websocket
from tests.support.ip import Packet
from tests.support.live import SECOND, Capture, sealer, without
from tests.support.media import MS
from tests.support.record import REPOSITORY, Result, read_wav, record, unbalanced
from tests.support.scene import START_NS, in_order, plain_call
from tests.support.srtp import Key, announced, lock
from tests.support.tls import Talk, captured, over_tls

V = TLSVersion
FIXTURES = REPOSITORY / "fixtures" / "tls"
LAB = REPOSITORY.parent / "shared" / "lab" / "captures"
KINDS = [
    (V.TLSv1_3, ""),
    (V.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256"),
    (V.TLSv1_2, "ECDHE-RSA-CHACHA20-POLY1305"),
    (V.TLSv1_2, "AES128-SHA"),
    (V.TLSv1, "AES256-SHA"),
]
OF_THE_RUN = ("Recorder", "Note")


def write(folder: Path, heard: Sequence[Packet], name: str = "capture.pcap") -> Path:
    return files.write(folder, files.pcap(heard, nano=True), name)


def run(folder: Path, capture: Path, *more: str, out: str = "out") -> Result:
    result = record(folder / out, capture, more=more)
    assert unbalanced(result.summary["packets"]) == unbalanced(result.summary["calls"]) == 0
    return result


def told(path: Path) -> Secrets:
    secrets = Secrets()
    secrets.feed(path.read_bytes())
    return secrets


def assert_same(one: Result, other: Result) -> None:
    """The same sound, and the same text about it."""
    assert one.only().wav.channels() == other.only().wav.channels()
    assert {key: value for key, value in one.only().info.items() if key not in OF_THE_RUN} == {
        key: value for key, value in other.only().info.items() if key not in OF_THE_RUN
    }


# -- the same call, over TLS and in the clear --------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "suite"), KINDS)
def test_a_call_over_tls_is_the_call_in_the_clear(version: TLSVersion, suite: str, tmp_path: Path) -> None:
    scene = plain_call(1)
    talk = Talk(tmp_path, version, version, suite)
    secret = run(tmp_path, write(tmp_path, over_tls(scene, talk, cuts=0)), "--key-log", str(talk.log))
    plain = run(tmp_path, write(tmp_path, scene.packets(), "plain.pcap"), out="plain")
    assert secret.only().wav.channels() == scene.channels()
    assert_same(secret, plain)
    assert secret.summary["warnings"] == []


def test_on_other_ports_it_is_found_by_what_it_is(tmp_path: Path) -> None:
    scene = plain_call(2)
    for port in (5060, 443, 34567):
        talk = Talk(tmp_path)
        capture = write(tmp_path, over_tls(scene, talk, port=port, cuts=4), f"{port}.pcap")
        result = run(tmp_path, capture, "--key-log", str(talk.log), out=str(port))
        assert result.only().wav.channels() == scene.channels()


def test_over_ipv6_and_through_a_tunnel(tmp_path: Path) -> None:
    scene, talk = plain_call(12, six=True), Talk(tmp_path)
    data = files.pcap(over_tls(scene, talk), "vxlan", nano=True)
    result = run(tmp_path, files.write(tmp_path, data), "--key-log", str(talk.log))
    assert result.only().wav.channels() == scene.channels()


@pytest.mark.parametrize("compressed", [False, True])
def test_websockets_in_tls(compressed: bool, tmp_path: Path) -> None:
    scene, talk = plain_call(2), Talk(tmp_path)
    wrapped = replace(scene, signals=tuple(websocket.framed(scene.signals, seed=2, pieces=2, compressed=compressed)))
    capture = write(tmp_path, over_tls(wrapped, talk, port=443, cuts=2))
    result = run(tmp_path, capture, "--key-log", str(talk.log))
    assert result.only().wav.channels() == scene.channels()


def test_by_the_servers_key(tmp_path: Path) -> None:
    scene = plain_call(3)
    talk = Talk(tmp_path, V.TLSv1_2, V.TLSv1_2, "AES256-GCM-SHA384")
    capture = write(tmp_path, over_tls(scene, talk))
    result = run(tmp_path, capture, "--server-key", str(tmp_path / "server-key.pem"))
    assert result.only().wav.channels() == scene.channels()


@pytest.mark.skipif(shutil.which("editcap") is None, reason="editcap is not installed")
def test_a_capture_that_brings_its_key_log_along(tmp_path: Path) -> None:
    scene = plain_call(4)
    talk = Talk(tmp_path)
    capture, whole = write(tmp_path, over_tls(scene, talk)), tmp_path / "whole.pcapng"
    subprocess.run(["editcap", "--inject-secrets", f"tls,{talk.log}", capture, whole], check=True, capture_output=True)
    assert run(tmp_path, whole).only().wav.channels() == scene.channels()
    assert not run(tmp_path, capture, out="bare").recordings


def test_without_the_keys_there_is_no_call_and_it_says_what_was_not_read(tmp_path: Path) -> None:
    scene, talk = plain_call(5), Talk(tmp_path)
    capture = write(tmp_path, over_tls(scene, talk))
    (tmp_path / "other.log").write_text("no key log\n")
    result = run(tmp_path, capture, "--key-log", str(tmp_path / "other.log"))
    assert not result.recordings
    assert "1 lines of the key log are no secrets that can be used" in result.summary["warnings"]
    assert any(text.startswith("SIP over TLS: records without a key: ") for text in result.summary["warnings"])


@pytest.mark.parametrize("option", ["--key-log", "--server-key"])
def test_keys_that_cannot_be_read_are_an_error_that_names_the_option(option: str, tmp_path: Path) -> None:
    result = record(tmp_path / "out", write(tmp_path, plain_call(6).packets()), more=(option, str(tmp_path / "none")))
    assert result.code != 0
    assert "No such file" in result.stderr
    assert "key" in result.stderr
    assert "Traceback" not in result.stderr


def test_what_the_mirror_lost_of_the_stream_costs_only_that(tmp_path: Path) -> None:
    """100 and 180, in one segment, are lost on the way to us; the call goes on with its answer."""
    scene, talk = plain_call(7), Talk(tmp_path)
    packets = over_tls(scene, talk, cuts=0)
    ringing = [packet for packet in packets if _is_at(packet, START_NS + 2 * MS)]
    assert len(ringing) == 1
    rest = [packet for packet in packets if packet is not ringing[0]]
    result = run(tmp_path, write(tmp_path, rest), "--key-log", str(talk.log))
    assert result.only().wav.channels() == scene.channels()
    assert "SIP over TLS: holes: 1" in result.summary["warnings"]


def _is_at(packet: Packet, time_ns: int) -> bool:
    """Whether a segment with content was sent at a time."""
    return packet.time_ns == time_ns and packet.ip[9] == 6 and len(packet.ip) > 60


def test_srtp_whose_keys_are_told_over_tls(tmp_path: Path) -> None:
    scene = plain_call(8)
    keys = Key(1), Key(2)
    told_in_sip = announced(scene, [keys[0]], [keys[1]])
    sound = [
        packet.packet() for side, key in ((scene.left, keys[0]), (scene.right, keys[1])) for packet in lock(side, key)
    ]
    talk = Talk(tmp_path)
    packets = in_order(
        over_tls(replace(told_in_sip, left=(), right=()), talk), sorted(sound, key=lambda one: one.time_ns)
    )
    result = run(tmp_path, write(tmp_path, packets), "--key-log", str(talk.log), "--keep-packets")
    assert result.only().wav.channels() == scene.channels()
    assert result.only().info["Encrypted"] == "SRTP AES_CM_128_HMAC_SHA1_80 (SDES)"
    assert_no_secret(tmp_path / "out", talk.log, *(key.text for key in keys))


def assert_no_secret(folder: Path, log: Path, *more: str) -> None:
    """No file below a folder holds a secret of the key log, or one of these texts."""
    words = [line.split()[2] for line in log.read_text().splitlines() if not line.startswith("#")]
    needles = [word.encode() for word in (*words, *more)] + [bytes.fromhex(word) for word in words]
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert found
    for path in found:
        data = path.read_bytes()
        assert not [needle for needle in needles if needle in data], path


# -- live --------------------------------------------------------------------------------------------------------------


def sealer_with(folder: Path, secrets: Secrets, keep: bool = False) -> Sealer:
    settings = load(None, {}, environ={})
    return replace(
        sealer(folder),
        engine=lambda payloads: build_engine(settings, payloads, RowParking(folder), secrets),
        keep_packets=keep,
    )


def seal_all(folder: Path, secrets: Secrets, keep: bool = False) -> dict[str, object]:
    """Seal what lies in the spool; see `made`."""
    maker = sealer_with(folder, secrets, keep)
    for path in sorted((folder / "spool" / DONE).iterdir()):
        for recording in maker.seal(path):
            assert not recording.error
    return made(folder / "sealed")


def as_recorded(folder: Path, capture: Path, *more: str) -> dict[str, object]:
    """What the command makes of a capture; see `made`."""
    run(folder, capture, *more)
    return made(folder / "out")


def made(root: Path) -> dict[str, object]:
    """The sound and the text of recordings, by name, without what is the run's own."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix == ".wav":
            found[path.name] = read_wav(path).channels()
        elif path.name.endswith("_info.txt"):
            found[path.name] = without(path.read_bytes(), OF_THE_RUN)
    assert any(name.endswith(".wav") for name in found)
    return found


def test_live_keys_that_come_after_the_handshake(tmp_path: Path) -> None:
    """The key log is three seconds late: the call is answered by then, and runs."""
    scene, talk = plain_call(9, duration_ms=6000), Talk(tmp_path)
    packets = over_tls(scene, talk)
    early = [packet for packet in packets if packet.time_ns < START_NS + 3 * SECOND]
    with Capture(tmp_path) as capture:
        capture.engine.secrets.wanted = True
        capture.hear(early, size=50)
        assert not capture.engine.correlator.open
        capture.engine.secrets.feed(talk.log.read_bytes())
        capture.hear(packets[len(early) :], size=50)
        assert len(capture.engine.correlator.open) == 1
    expected = as_recorded(tmp_path, write(tmp_path, packets), "--key-log", str(talk.log))
    assert seal_all(tmp_path, Secrets()) == expected
    assert_no_secret(tmp_path / "spool", talk.log)


def test_live_keys_that_come_when_all_is_quiet(tmp_path: Path) -> None:
    scene, talk = plain_call(10), Talk(tmp_path)
    packets = over_tls(scene, talk)
    with Capture(tmp_path) as capture:
        capture.engine.secrets.wanted = True
        capture.hear(packets, size=50)
        capture.rest(5)
        capture.engine.secrets.feed(talk.log.read_bytes())
    expected = as_recorded(tmp_path, write(tmp_path, packets), "--key-log", str(talk.log))
    assert seal_all(tmp_path, Secrets()) == expected


@pytest.mark.parametrize("name", ["udp_dtls", "tls13_dtls", "tls12_sdes"])
def test_live_as_from_the_capture(name: str, tmp_path: Path) -> None:
    capture, log = FIXTURES / f"{name}.pcap", FIXTURES / f"{name}.keys"
    heard = captured(capture)
    with Capture(tmp_path) as live:
        live.engine.secrets.feed(log.read_bytes())
        live.hear(heard, size=20)
    assert seal_all(tmp_path, told(log), keep=True) == as_recorded(tmp_path, capture, "--key-log", str(log))
    assert_no_secret(tmp_path / "spool", log)
    assert_no_secret(tmp_path / "sealed", log)


def test_live_a_connection_outlives_a_restart(tmp_path: Path) -> None:
    """A phone's connection carries two calls; capture is started anew between them, and misses some of it."""
    first, talk = plain_call(11), Talk(tmp_path)
    other = replace(first.dialog, call_id="another@example.invalid")
    second = plain_call(11, start_ns=START_NS + 60 * SECOND, shape=other, ssrc=(7, 8))
    both = replace(first, signals=first.signals + second.signals, unheard=tuple(second.media_packets()))
    packets = over_tls(both, talk)
    end = START_NS + 30 * SECOND
    kept: list[dict[str, object]] = []
    for part in ([one for one in packets if one.time_ns < end], [one for one in packets if one.time_ns >= end]):
        with Capture(tmp_path) as capture:
            capture.engine.secrets.feed(talk.log.read_bytes())
            capture.take_over()
            assert capture.engine.recall_tls(tls_memory.load(tmp_path / "spool")) == len(kept)
            capture.hear(part, size=30)
        kept = capture.engine.remember_tls()
        assert tls_memory.save(tmp_path / "spool", kept)
    found = seal_all(tmp_path, Secrets())
    assert [data for name, data in found.items() if name.endswith(".wav")] == [first.channels(), second.channels()]
    assert_no_secret(tmp_path / "spool", talk.log)


def test_live_dtls_goes_on_after_a_restart(tmp_path: Path) -> None:
    """Capture is stopped in mid-call; what follows is a recording of its own, for which the hellos have to be kept."""
    log = FIXTURES / "udp_dtls.keys"
    heard = captured(FIXTURES / "udp_dtls.pcap")
    first = Capture(tmp_path)
    first.hear(heard[: len(heard) // 2])
    first.stop()
    with Capture(tmp_path) as second:
        second.take_over()
        second.hear(heard[len(heard) // 2 :])
    found = seal_all(tmp_path, told(log))
    infos = [data.decode() for data in found.values() if isinstance(data, bytes)]
    assert len([name for name in found if name.endswith(".wav")]) == 2
    assert all("Encrypted: SRTP AES_CM_128_HMAC_SHA1_80 (DTLS)" in info for info in infos)
    assert all("failed=0" in info for info in infos)


# -- real phones -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["udp_dtls", "tls13_dtls", "tls12_sdes"])
def test_phones_of_the_lab(name: str, tmp_path: Path) -> None:
    result = run(tmp_path, FIXTURES / f"{name}.pcap", "--key-log", str(FIXTURES / f"{name}.keys"))
    info = result.only().info
    how = "SDES" if name == "tls12_sdes" else "DTLS"
    assert info["Encrypted"] == f"SRTP AES_CM_128_HMAC_SHA1_80 ({how})"
    assert info["Caller-Srtp"].endswith("failed=0")
    assert info["Callee-Srtp"].endswith("failed=0")
    sound = hearing.sound(result.only().path)
    assert all(abs(channel).max() > 1000 for channel in sound), "noise or silence"
    assert all(abs(channel).mean() < 8000 for channel in sound), "cipher text is loud"


def test_dtls_without_its_keys_is_listed_and_not_recorded(tmp_path: Path) -> None:
    result = run(tmp_path, FIXTURES / "udp_dtls.pcap")
    assert not result.recordings
    assert result.summary["calls"]["encrypted"] == 1
    assert result.lines[0]["notes"] == ["Encrypted: yes, not recordable"]
    wrong = run(tmp_path, FIXTURES / "udp_dtls.pcap", "--key-log", str(FIXTURES / "tls13_dtls.keys"), out="wrong")
    assert not wrong.recordings


@shark.needs_wireshark
@pytest.mark.parametrize("name", ["tls13_dtls", "tls12_sdes"])
def test_wireshark_reads_the_same_messages(name: str, tmp_path: Path) -> None:
    capture, log = FIXTURES / f"{name}.pcap", FIXTURES / f"{name}.keys"
    fields = ("frame.time_epoch", "sip.Method", "sip.Status-Code", "sip.Call-ID")
    command = ["tshark", "-r", str(capture), "-o", f"tls.keylog_file:{log}", "-Y", "sip", "-T", "fields"]
    for field in fields:
        command += ["-e", field]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    theirs = [(float(time), method or status, call_id) for time, method, status, call_id in map(_cells, lines)]
    inspect = [sys.executable, "-m", "tapdeck.cli", "inspect", str(capture), "--key-log", str(log), "--json"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    said = subprocess.run(inspect, capture_output=True, text=True, check=True, env=environment).stdout
    call = json.loads(said)["calls"][0]
    ours = [(message["message"].split()[0], message["transport"]) for message in call["messages"]]
    assert ours == [(what, "TLS") for _, what, _ in theirs]
    assert {call_id for _, _, call_id in theirs} == {call["call_id"]}


def _cells(line: str) -> list[str]:
    return (line.split("\t") + [""] * 4)[:4]


@pytest.mark.skipif(not (LAB / "g1_tls_rsa.pcap").exists(), reason="the lab's captures are not here")
@pytest.mark.parametrize(
    ("name", "option", "ending"), [("g1_tls_rsa", "--server-key", "key"), ("g2_tls13_keylog", "--key-log", "keys")]
)
def test_the_shared_lab(name: str, option: str, ending: str, tmp_path: Path) -> None:
    """Speech that was played must be heard in its channel."""
    result = run(tmp_path, LAB / f"{name}.pcap", option, str(LAB / f"{name}.{ending}"))
    recording = result.only()
    assert float(recording.info["Duration"]) == pytest.approx(10.5, abs=0.1)
    spoken = [hearing.sound(LAB.parent / "audio" / f"{side}_8k.wav")[0] for side in ("a", "b")]
    left, right = hearing.sound(recording.path)
    for channel, text in ((left, spoken[0]), (right, spoken[1])):
        assert hearing.match(channel, text).likeness > 0.98


def test_a_dtls_handshake_in_ip_fragments(tmp_path: Path) -> None:
    capture, log = FIXTURES / "udp_dtls.pcap", FIXTURES / "udp_dtls.keys"
    cut: list[Packet] = []
    for number, packet in enumerate(captured(capture)):
        is_handshake = packet.ip[9] == 17 and packet.ip[28:30] == b"\x16\xfe"
        pieces = ip.fragments(packet.ip, number, 128) if is_handshake else [packet.ip]
        cut += [Packet(packet.time_ns + step * 1000, piece) for step, piece in enumerate(pieces)]
    result = run(tmp_path, write(tmp_path, cut), "--key-log", str(log))
    assert result.only().info["Caller-Srtp"].endswith("failed=0")
    assert result.only().info["Encrypted"] == "SRTP AES_CM_128_HMAC_SHA1_80 (DTLS)"
