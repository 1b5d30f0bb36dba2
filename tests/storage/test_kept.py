"""The kept packets as Wireshark reads them."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tapdeck.storage import kept
from tapdeck.storage.kept import pcapng
from tests.sniffer.captures import read
from tests.storage.calls import heard
from tests.support.media import FORMS, Rtp
from tests.support.scene import Scene, ended, in_order, plain_call

FIELDS = [
    "frame.time_epoch",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "udp.srcport",
    "udp.dstport",
    "rtp.seq",
    "rtp.timestamp",
    "rtp.ssrc",
    "rtp.p_type",
    "rtp.marker",
    "rtp.payload",
    "ip.checksum.status",
    "udp.checksum.status",
]
GOOD, NOT_PRESENT = "1", "3"


def tshark(path: Path) -> list[dict[str, str]]:
    command = ["tshark", "-r", str(path), "--enable-heuristic", "rtp_udp", "-T", "fields"]
    command += ["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]
    for field in FIELDS:
        command += ["-e", field]
    out = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in out.splitlines()]


def expected(packet: Rtp) -> dict[str, str]:
    six = ":" in packet.source.address
    addresses = ("", "", packet.source.address, packet.target.address)
    if not six:
        addresses = (packet.source.address, packet.target.address, "", "")
    return dict(
        zip(
            FIELDS,
            [
                f"{packet.time_ns // 10**9}.{packet.time_ns % 10**9:09d}",
                *addresses,
                str(packet.source.port),
                str(packet.target.port),
                str(packet.seq & 0xFFFF),
                str(packet.ts & 0xFFFF_FFFF),
                f"0x{packet.ssrc:08x}",
                str(packet.pt),
                "True" if packet.marker else "False",
                packet.payload.hex(),
                "" if six else GOOD,
                GOOD if six else NOT_PRESENT,
            ],
            strict=True,
        )
    )


def written(folder: Path, scene: Scene) -> Path:
    found = heard(folder, scene.packets())
    path = folder / "kept.pcapng"
    path.write_bytes(b"".join(pcapng(found.only.tracks, found.payloads, found.engine.book)))
    return path


def normal(row: dict[str, str]) -> dict[str, str]:
    return row | {"rtp.marker": {"1": "True", "0": "False"}.get(row["rtp.marker"], row["rtp.marker"])}


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("part", [7, 32_768])
def test_wireshark_finds_what_was_sent(six: bool, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times, addresses, ports, RTP fields and payloads; every checksum that must be there is right; any part size."""
    monkeypatch.setattr(kept, "PART", part)
    scene = plain_call(1, six=six, seq=65_530, ts=2**32 - 500)
    left = tuple(replace(packet, payload=packet.payload[: 161 - k]) for k, packet in enumerate(scene.left))
    scene = replace(scene, left=left)
    rows = [normal(row) for row in tshark(written(tmp_path, scene))]
    sent = sorted((*scene.left, *scene.right), key=lambda packet: packet.time_ns)
    assert rows == [expected(packet) for packet in sent]


def test_header_extensions_and_padding_are_left_out_and_the_payload_stays(tmp_path: Path) -> None:
    scene = plain_call(1, six=True)
    forms = list(FORMS.values())
    left = tuple(replace(packet, form=forms[k % len(forms)]) for k, packet in enumerate(scene.left))
    rows = tshark(written(tmp_path, replace(scene, left=left)))
    sent = sorted((*left, *scene.right), key=lambda packet: packet.time_ns)
    assert [row["rtp.payload"] for row in rows] == [packet.payload.hex() for packet in sent]
    assert {row["udp.checksum.status"] for row in rows} == {GOOD}


def test_a_checksum_of_zero_is_sent_as_all_ones(tmp_path: Path) -> None:
    """RFC 8200 section 8.1: zero would say that there is none. A payload that is the checksum of the rest does it."""
    scene = plain_call(1, six=True)
    blank = [replace(packet, payload=bytes(2)) for packet in scene.left]
    left = tuple(replace(packet, payload=packet.packet().ip[46:48]) for packet in blank)
    assert {packet.packet().ip[46:48] for packet in left} == {b"\xff\xff"}
    rows = tshark(written(tmp_path, replace(scene, left=left)))
    assert len(rows) == len(left) + len(scene.right)
    assert {row["udp.checksum.status"] for row in rows} == {GOOD}


def test_no_tracks_make_an_empty_file_that_is_a_capture(tmp_path: Path) -> None:
    found = heard(tmp_path, plain_call(1).packets())
    path = tmp_path / "kept.pcapng"
    path.write_bytes(b"".join(pcapng([], found.payloads, found.engine.book)))
    assert tshark(path) == []


def test_what_is_kept_can_be_recorded_from_again(tmp_path: Path) -> None:
    """Our own reader finds the same media in it."""
    scene = ended(plain_call(1))
    found, capture = read(written(tmp_path, scene).read_bytes())
    media = in_order([packet.packet() for packet in (*scene.left, *scene.right)])
    assert capture.damage == ""
    assert [frame.time for frame in found] == [packet.time_ns for packet in media]
    assert [frame.data[28:] for frame in found] == [packet.ip[28:] for packet in media]
