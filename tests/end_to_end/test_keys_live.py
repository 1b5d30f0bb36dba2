"""Keys on the live box, where they are masked: in no file that capture writes, nor in what seal keeps of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from tapdeck.storage.hearing import Hearing
from tapdeck.storage.spool import DONE, LIVE, RESUME
from tests.end_to_end.test_keys import NUMBER, assert_no_key_in, card_call, channels, rtp_of
from tests.support.ip import Packet, fragments
from tests.support.keys import keys_in, pressed, quiet, talking
from tests.support.live import Capture, recordings, sealer
from tests.support.media import EVENT, MS, PCMA
from tests.support.scene import START_NS, answered_ns, each_packet, ended
from tests.support.shark import run as shark
from tests.support.signalling import sdp


def captured(folder: Path, packets: list[Packet], *, mask: bool = True, size: int = 40) -> Path:
    """The spool file that capture leaves of a call."""
    with Capture(folder) as capture:
        capture.engine.mask_digits = mask
        capture.hear(packets, size=size)
        for name in (LIVE, RESUME):
            for path in capture.files_of(name):
                data = path.read_bytes()
                assert not mask or not any(f"Signal={key}".encode() in data for key in "0123456789")
    (path,) = capture.files_of(DONE)
    return path


def sealed(folder: Path, path: Path, *, mask: bool = True) -> Path:
    """The kept packets of the call that was sealed."""
    maker = sealer(folder)
    maker.hearing, maker.keep_packets = Hearing(mask=mask), True
    for recording in maker.seal(path):
        assert not recording.error
    (kept,) = (folder / "sealed").rglob("*_packets.pcapng")
    return kept


def test_capture_writes_no_number_of_an_event_and_no_key_of_sip(tmp_path: Path) -> None:
    """Whether session descriptions came before the media or not; sound stays as it was."""
    scene = card_call()
    spool = captured(tmp_path, scene.packets())
    events = [payload for _, payload, kind in rtp_of(spool) if kind == str(EVENT)]
    assert len(events) == 32
    assert {payload[0] for payload in events} == {0xFF}
    data = spool.read_bytes()
    assert data.count(b"Signal=X") == 3
    assert b"Signal=" + NUMBER[8].encode() not in data
    sound = [payload for _, payload, kind in rtp_of(spool) if kind == str(PCMA)]
    assert sorted(sound) == sorted(one.payload for one in (*scene.left, *scene.right) if one.pt == PCMA)
    assert good_checksums(spool)


def test_media_before_its_signalling_is_masked_too(tmp_path: Path) -> None:
    """Nobody has said yet what 101 is, or whose the stream is; four bytes of a dynamic payload type are no sound."""
    scene = talking(quiet(3), quiet(3))
    scene = replace(scene, left=pressed(pressed(scene.left, 5, "4"), 100, "2"))
    shape, offer = scene.dialog, sdp(scene.dialog.callee.media)
    late = answered_ns() + 1000 * MS
    acknowledged = shape.request(late + 5 * MS, "ACK", sdp(shape.caller.media))
    said = (shape.invite(START_NS), shape.reply(late, "200 OK", offer), acknowledged)
    spool = captured(tmp_path, ended(replace(scene, signals=said)).packets())
    events = [payload[0] for _, payload, kind in rtp_of(spool) if kind == str(EVENT)]
    assert events == [0xFF] * 16


def test_fragments_and_tags_hide_no_event(tmp_path: Path) -> None:
    scene = talking(quiet(2), quiet(2))
    scene = replace(scene, left=pressed(scene.left, 20, "4"))
    idents = count(7000)
    packets = each_packet(
        scene.packets(), lambda packet: fragments(packet, next(idents), 16) if len(packet) == 44 else [packet]
    )
    assert len(packets) > len(scene.packets())
    spool = captured(tmp_path, packets)
    events = [payload[0] for _, payload, kind in rtp_of(spool) if kind == str(EVENT)]
    assert events == [0xFF] * 8


@pytest.mark.parametrize("before", [True, False])
def test_what_seal_keeps_has_no_key(tmp_path: Path, before: bool) -> None:
    """Also of a call that was captured before keys were to be masked."""
    spool = captured(tmp_path, card_call().packets(), mask=before)
    kept = sealed(tmp_path, spool)
    assert assert_no_key_in(kept) == 32
    assert good_checksums(kept)
    (recording,) = recordings(tmp_path)
    assert recording.info["Digits"] == "*" * 16
    assert recording.info["DigitsMasked"].startswith("16: ")
    for sound in channels(recording, (PCMA, PCMA)):
        assert keys_in(sound) == ""
    assert kept.stat().st_size == spool.stat().st_size


def test_keys_that_capture_has_masked_are_counted_though_seal_does_not_mask(tmp_path: Path) -> None:
    spool = captured(tmp_path, card_call().packets())
    sealed(tmp_path, spool, mask=False)
    (recording,) = recordings(tmp_path)
    assert recording.info["Digits"] == NUMBER[:4] + "*" * 8 + NUMBER[12:]


def good_checksums(capture: Path) -> bool:
    """Whether Wireshark finds every UDP checksum right (1), or none (3)."""
    wanted = ("-o", "udp.check_checksum:TRUE", "-T", "fields", "-e", "udp.checksum.status")
    found = set(shark("tshark", "-r", capture, "-Y", "rtp or sip", *wanted).split())
    return bool(found) and found <= {"1", "3"}
