"""What is shown of running calls, read from the spool of a call in its middle."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tapdeck.sip.dialog import Party
from tapdeck.sniffer.engine import CallSettings, Limits
from tapdeck.sniffer.live import LiveEngine
from tapdeck.sniffer.tls.secrets import Secrets
from tapdeck.storage.running import Running
from tapdeck.storage.spool import Origin, SpoolBook, SpoolFiles
from tests.sniffer.listening import RAW_IP, Wire
from tests.support import srtp
from tests.support.ip import Packet
from tests.support.media import lost
from tests.support.record import REPOSITORY
from tests.support.scene import Scene, plain_call
from tests.support.tls import captured

PORTS = frozenset({5060})
TLS = REPOSITORY / "fixtures" / "tls"


def listen_until(scene: Scene, folder: Path, time_ns: int) -> SpoolFiles:
    """Capture a call up to a moment, and leave it running."""
    return listen(scene.until(time_ns).packets(), folder)


def listen(packets: list[Packet], folder: Path) -> SpoolFiles:
    """Capture packets, and stop there."""
    engine = LiveEngine(settings=CallSettings(), limits=Limits(), links=(RAW_IP,))
    book = SpoolBook(Origin("box", "host", "1", "eth1", engine.links), [])
    files = SpoolFiles(folder)
    for block in Wire(packets).blocks(40):
        for job in book.jobs(engine.listen(block).items):
            files.do(job)
    return files


def middle(scene: Scene) -> int:
    return scene.left[len(scene.left) * 3 // 4].time_ns


@pytest.fixture
def scene() -> Scene:
    return plain_call(seed=3, duration_ms=4000)


def test_a_running_call_is_shown_with_its_parties(scene: Scene, tmp_path: Path) -> None:
    listen_until(scene, tmp_path, middle(scene))
    running = Running(tmp_path, PORTS)
    [name] = running.ids()
    now = running.look(name)
    assert now is not None
    assert (now.id, now.call.call_id, now.continues) == (name, scene.call_id, "")
    assert now.call.answered is not None
    assert {side.codec for side in now.sides.values()} == {"PCMA"}
    assert [side.loss for side in now.sides.values()] == [0.0, 0.0]


def test_level_is_that_of_the_last_seconds(scene: Scene, tmp_path: Path) -> None:
    listen_until(scene, tmp_path, middle(scene))
    running = Running(tmp_path, PORTS)
    now = running.look(running.ids()[0])
    assert now is not None
    heard = b"".join(packet.payload for packet in scene.until(middle(scene)).left)
    raw = tmp_path / "left.raw"
    raw.write_bytes(heard)
    samples, _ = soundfile.read(raw, format="RAW", subtype="ALAW", channels=1, samplerate=8000)
    expected = 20 * math.log10(float(np.sqrt(np.mean(samples**2))))
    assert now.sides[Party.CALLER].level == pytest.approx(expected, abs=0.5)


def test_an_encrypted_call_has_its_level(scene: Scene, tmp_path: Path) -> None:
    keys = srtp.Key(1), srtp.Key(2)
    told = srtp.announced(scene, keys[:1], keys[1:])
    heard = srtp.packets(told, srtp.lock(scene.left, keys[0]), srtp.lock(scene.right, keys[1]))
    listen([packet for packet in heard if packet.time_ns < middle(scene)], tmp_path / "secret")
    listen_until(scene, tmp_path / "clear", middle(scene))
    looks = [Running(tmp_path / name, PORTS) for name in ("secret", "clear")]
    secret, clear = (look.look(look.ids()[0]) for look in looks)
    assert secret is not None
    assert clear is not None
    assert secret.sides == clear.sides
    assert secret.sides[Party.CALLER].level is not None


def test_a_call_over_dtls_has_its_level_where_its_keys_are_known(tmp_path: Path) -> None:
    heard = captured(TLS / "udp_dtls.pcap")
    listen([packet for packet in heard if b"BYE " not in packet.ip[:60]][:-4], tmp_path)
    secrets = Secrets()
    secrets.feed((TLS / "udp_dtls.keys").read_bytes())
    known, unknown = (
        running.look(running.ids()[0])
        for running in (Running(tmp_path, PORTS, lambda: secrets), Running(tmp_path, PORTS))
    )
    assert known is not None
    assert unknown is not None
    assert known.sides[Party.CALLER].level is not None
    assert known.sides[Party.CALLER].loss == 0
    assert unknown.sides[Party.CALLER].level is None


def test_loss_is_counted(scene: Scene, tmp_path: Path) -> None:
    numbers = set(range(60, 120, 4))
    thinned = replace(scene, left=lost(scene.left, numbers))
    listen_until(thinned, tmp_path, middle(scene))
    running = Running(tmp_path, PORTS)
    now = running.look(running.ids()[0])
    assert now is not None
    sent = len(scene.until(middle(scene)).left)
    assert now.sides[Party.CALLER].loss == pytest.approx(100 * len(numbers) / sent, abs=0.2)
    assert now.sides[Party.CALLEE].loss == 0.0


def test_a_file_in_the_middle_of_a_write_is_read_up_to_there(scene: Scene, tmp_path: Path) -> None:
    listen_until(scene, tmp_path, middle(scene))
    [live] = (tmp_path / "live").glob("*.pcapng")
    for cut in (1, 50, 101, 333):
        live.write_bytes(live.read_bytes()[:-cut])
        running = Running(tmp_path, PORTS)
        now = running.look(running.ids()[0])
        assert now is not None
        assert now.sides[Party.CALLEE].codec == "PCMA"


def test_a_ringing_call_has_no_sound_yet(scene: Scene, tmp_path: Path) -> None:
    listen_until(scene, tmp_path, scene.left[0].time_ns - 50_000_000)
    running = Running(tmp_path, PORTS)
    now = running.look(running.ids()[0])
    assert now is not None
    assert now.call.answered is None
    assert [side.level for side in now.sides.values()] == [None, None]


def test_a_call_that_is_over_is_not_shown(scene: Scene, tmp_path: Path) -> None:
    listen_until(scene, tmp_path, middle(scene))
    running = Running(tmp_path, PORTS)
    [name] = running.ids()
    for folder in ("live", "resume"):
        (tmp_path / folder / f"{name}.pcapng").unlink()
    assert running.ids() == []
    assert running.look(name) is None
