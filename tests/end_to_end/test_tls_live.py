"""A running box on the mirror port, real phones that speak TLS, and their key log as it grows."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import hearing
from tests.support.box import Box
from tests.support.lab import TAP_INTERFACE, Lab
from tests.support.netns import wait_for
from tests.support.phones import needs_phones
from tests.support.record import REPOSITORY
from tests.support.secure_phones import SecurePhone
from tests.support.speech import speech

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed: phones get no key log")
RING = ("--ring-mb", "16", "--bye-linger-s", "1")


@needs_phones
@pytest.mark.parametrize(("transport", "media"), [("tls", "dtls_srtp"), ("tls", "srtp-mand"), ("udp", "dtls_srtp")])
def test_a_box_with_a_key_log_that_grows(transport: str, media: str, tmp_path: Path) -> None:
    log = tmp_path / "sslkeys.log"
    more = (*RING, "--key-log", str(log))
    spoken = {host: speech(tmp_path, host) for host in ("a", "b")}
    with Lab() as lab, Box(lab.tap, [TAP_INTERFACE], tmp_path, more=more) as box:
        wait_for("an alarm", lambda: "KEY_LOG" in alarms(box))
        ends = [
            SecurePhone(lab, host, spoken[host], tmp_path, transport=transport, media=media, log=log)
            for host in ("a", "b")
        ]
        with ends[0] as caller, ends[1] as callee:
            caller.dial(callee)
            callee.answer()
            time.sleep(4)
            caller.hang_up()
            time.sleep(0.5)
        wait_for("no alarm", lambda: "KEY_LOG" not in alarms(box))
        box.wait_until_recorded(1)
        box.wait_until_sealed()
        assert box.report("capture")["tls"]["not_read"] == {}
        said = box.said()
    recording = box.recordings()[0]
    how = "SDES" if media == "srtp-mand" else "DTLS"
    assert recording.info["Encrypted"] == f"SRTP AES_CM_128_HMAC_SHA1_80 ({how})"
    for channel, host in zip(hearing.sound(recording.path), ("a", "b"), strict=True):
        assert hearing.match(channel, spoken[host].samples).likeness > 0.98
    secrets = [line.split()[2] for line in log.read_text().splitlines()]
    kept = [path for folder in (box.out, box.spool, box.state) for path in folder.rglob("*") if path.is_file()]
    for word in secrets:
        assert word not in said
        assert not [
            path for path in kept if word.encode() in path.read_bytes() or bytes.fromhex(word) in path.read_bytes()
        ]


def alarms(box: Box) -> list[str]:
    return [alarm["code"] for alarm in box.report("capture").get("alarms", ())]


@needs_phones
def test_keys_that_come_when_the_call_is_over(tmp_path: Path) -> None:
    """A key log that is copied from the PBX now and then: the call waits for it."""
    log, late = tmp_path / "sslkeys.log", tmp_path / "copied.log"
    late.touch(0o600)
    spoken = {host: speech(tmp_path, host) for host in ("a", "b")}
    with Lab() as lab, Box(lab.tap, [TAP_INTERFACE], tmp_path, more=(*RING, "--key-log", str(late))) as box:
        ends = [
            SecurePhone(lab, host, spoken[host], tmp_path, transport="udp", media="dtls_srtp", log=log)
            for host in ("a", "b")
        ]
        with ends[0] as caller, ends[1] as callee:
            caller.dial(callee)
            callee.answer()
            time.sleep(1)
            caller.hang_up()
        wait_for("the end of the call", lambda: box.spooled("done"))
        time.sleep(3)
        assert box.spooled("done")
        assert not [event for event in box.events() if event["event"] == "call"]
        with late.open("ab") as file:
            file.write(log.read_bytes())
        box.wait_until_recorded(1)
        box.wait_until_sealed()
    assert box.recordings()[0].info["Encrypted"] == "SRTP AES_CM_128_HMAC_SHA1_80 (DTLS)"


@needs_phones
def test_a_restart_in_mid_call(tmp_path: Path) -> None:
    """The connection began before the box was stopped; the BYE that comes behind its new start is read all the same."""
    log = tmp_path / "sslkeys.log"
    log.touch(0o600)
    spoken = {host: speech(tmp_path, host) for host in ("a", "b")}
    with Lab() as lab, Box(lab.tap, [TAP_INTERFACE], tmp_path, more=(*RING, "--key-log", str(log))) as box:
        ends = [SecurePhone(lab, host, spoken[host], tmp_path, media="dtls_srtp", log=log) for host in ("a", "b")]
        with ends[0] as caller, ends[1] as callee:
            caller.dial(callee)
            callee.answer()
            time.sleep(2)
            assert box.stop() == 0
            box.start()
            time.sleep(2)
            caller.hang_up()
            time.sleep(0.5)
        box.wait_until_recorded(2)
        box.wait_until_sealed()
        assert "TLS connections of an earlier run are known" in box.said()
    first, rest = box.recordings()
    assert first.info["EndReason"] == "recorder stopped"
    assert rest.info["EndReason"] == "BYE by caller"
    assert rest.info["ContinuationOf"] == first.info["RecordingId"]
    assert {one.info["Encrypted"] for one in (first, rest)} == {"SRTP AES_CM_128_HMAC_SHA1_80 (DTLS)"}


@needs_phones
def test_status_says_what_could_not_be_read(tmp_path: Path) -> None:
    log = tmp_path / "empty.log"
    log.touch(0o600)
    with Lab() as lab, Box(lab.tap, [TAP_INTERFACE], tmp_path, more=(*RING, "--key-log", str(log))) as box:
        ends = [SecurePhone(lab, host, speech(tmp_path, host), tmp_path) for host in ("a", "b")]
        with ends[0] as caller, ends[1] as callee:
            caller.dial(callee)
            callee.answer()
            caller.hang_up()
        time.sleep(1)
        box.stop()
        command = [sys.executable, "-m", "tapdeck.cli", "status", "--state", str(box.state)]
        environment = {"PYTHONPATH": str(REPOSITORY / "src"), "PATH": "/usr/bin:/bin"}
        told, shown = (
            subprocess.run(
                [*command, *more], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
            )
            for more in (["--json"], [])
        )
    assert not box.recordings()
    assert json.loads(told.stdout)["tls"]["not_read"]["records without a key"] >= 4
    assert "records without a key" in shown.stdout
