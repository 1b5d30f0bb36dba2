"""DTLS-SRTP: openssl's client and server agree on SRTP, and print the keying material that we have to find."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sniffer.addresses import address_key
from tapdeck.sniffer.bindings import EndpointKey
from tapdeck.sniffer.datagrams import Fate, SlowPacket
from tapdeck.sniffer.dtls import MAX_AGREEMENTS, MAX_TALKS, Handshakes, masters
from tapdeck.sniffer.tls.secrets import Secrets
from tests.support.tls import server_pem

LOOPBACK = "127.0.0.1"
LABEL = "EXTRACTOR-dtls_srtp"
ENDS = (("192.0.2.1", 20_000), ("192.0.2.2", 30_000))
PROFILES = {
    "SRTP_AES128_CM_SHA1_80": ("AES_CM_128_HMAC_SHA1_80", 16, 14),
    "SRTP_AES128_CM_SHA1_32": ("AES_CM_128_HMAC_SHA1_32", 16, 14),
    "SRTP_AEAD_AES_128_GCM": ("AEAD_AES_128_GCM", 16, 12),
    "SRTP_AEAD_AES_256_GCM": ("AEAD_AES_256_GCM", 32, 12),
}
Datagrams = list[tuple[int, bytes]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dtls")


def handshake(folder: Path, log: Path, size: int, *more: str, version: str = "-dtls") -> tuple[Datagrams, bytes]:
    """Return what crossed the wire (side and datagram), and the keying material of `size` bytes."""
    port = _free_port()
    command = ["openssl", "s_server", version, "-accept", str(port), "-cert", str(server_pem(folder)), *more]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.PIPE
    ) as server:
        time.sleep(0.3)
        relay = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        relay.bind((LOOPBACK, 0))
        crossed: Datagrams = []
        threading.Thread(target=_carry, args=(relay, port, crossed), daemon=True).start()
        export = ("-keymatexport", LABEL, "-keymatexportlen", str(size))
        connect = ["openssl", "s_client", version, "-connect", f"{LOOPBACK}:{relay.getsockname()[1]}"]
        client = [*connect, "-keylogfile", str(log), *export, *more]
        said = subprocess.run(client, input=b"Q\n", capture_output=True, timeout=20, check=False).stdout.decode()
        server.terminate()
        relay.close()
    found = re.search(r"Keying material: ([0-9A-F]+)", said)
    assert found, said
    return crossed, bytes.fromhex(found[1])


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _carry(relay: socket.socket, port: int, crossed: Datagrams) -> None:
    client = None
    while True:
        try:
            data, source = relay.recvfrom(65_535)
        except OSError:
            return
        client = client or source
        side = int(source != client)
        crossed.append((side, data))
        relay.sendto(data, client if side else (LOOPBACK, port))


def packets(crossed: Sequence[tuple[int, bytes]]) -> list[SlowPacket]:
    return [
        SlowPacket(number, Fate.DTLS, ENDS[side][0], ENDS[1 - side][0], ENDS[side][1], ENDS[1 - side][1], data)
        for number, (side, data) in enumerate(crossed)
    ]


def key(side: int) -> EndpointKey:
    number = address_key(ENDS[side][0])
    assert number is not None
    return number, ENDS[side][1]


def told(log: Path) -> Secrets:
    secrets = Secrets()
    secrets.feed(log.read_bytes())
    return secrets


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_gives_the_keys_that_openssl_exports(profile: str, folder: Path, tmp_path: Path) -> None:
    name, size, salt = PROFILES[profile]
    log = tmp_path / "log"
    crossed, material = handshake(folder, log, 2 * (size + salt), "-use_srtp", profile)
    table = Handshakes()
    agreed = [one for packet in packets(crossed) if (one := table.add(packet))]
    assert len(agreed) == 1
    keys, salts = material[: 2 * size], material[2 * size :]
    for side in (0, 1):
        first = masters(agreed, key(side), told(log))[0]
        assert (first.suite.name, first.how) == (name, "DTLS")
        assert first.key == keys[side * size :][:size]
        assert first.salt == salts[side * salt :][:salt]
    assert masters(agreed, key(0), Secrets()) == []


@pytest.mark.parametrize("cipher", ["ECDHE-RSA-AES256-GCM-SHA384", "AES128-SHA", "ECDHE-RSA-CHACHA20-POLY1305"])
@pytest.mark.parametrize("version", ["-dtls1_2", "-dtls1"])
def test_the_suite_decides_how_keys_are_made(cipher: str, version: str, folder: Path, tmp_path: Path) -> None:
    if version == "-dtls1" and cipher != "AES128-SHA":
        pytest.skip("a suite of DTLS 1.2")
    log = tmp_path / "log"
    more = ("-use_srtp", "SRTP_AES128_CM_SHA1_80", "-cipher", f"{cipher}:@SECLEVEL=0")
    crossed, material = handshake(folder, log, 60, *more, version=version)
    table = Handshakes()
    agreed = [one for packet in packets(crossed) if (one := table.add(packet))]
    assert masters(agreed, key(0), told(log))[0].key == material[:16]


def test_small_datagrams_cut_hellos_into_pieces(folder: Path, tmp_path: Path) -> None:
    """A ClientHello that is longer than the path's MTU comes in pieces, and they may come in any order."""
    log = tmp_path / "log"
    more = ("-use_srtp", "SRTP_AES128_CM_SHA1_80", "-mtu", "260")
    crossed, material = handshake(folder, log, 60, *more)
    pieces = [data for side, data in crossed if side == 0 and data[13] == 1]
    for order in (crossed, sorted(crossed, key=lambda one: one[0] == 1)):
        table = Handshakes()
        agreed = [one for packet in packets(order) if (one := table.add(packet))]
        assert [one.key for one in masters(agreed, key(0), told(log))[:1]] == [material[:16]], len(pieces)


def test_copies_and_another_handshake(folder: Path, tmp_path: Path) -> None:
    """Copies by the mirror add nothing; a second session between the same ends is the first to be tried."""
    log = tmp_path / "log"
    first, _ = handshake(folder, log, 60, "-use_srtp", "SRTP_AES128_CM_SHA1_80")
    second, material = handshake(folder, log, 60, "-use_srtp", "SRTP_AES128_CM_SHA1_80")
    table = Handshakes()
    for packet in packets([one for pair in zip(first, first, strict=True) for one in pair] + second):
        table.add(packet)
    found = table.of([(key(0), key(1)), (key(1), key(0))])
    assert len(found) == 2
    assert masters(found, key(0), told(log))[0].key == material[:16]


def test_tables_are_bounded(folder: Path, tmp_path: Path) -> None:
    crossed, _ = handshake(folder, tmp_path / "log", 60, "-use_srtp", "SRTP_AES128_CM_SHA1_80")
    hellos = [(side, data) for side, data in crossed if data[0] == 22 and data[13] in (1, 2)]
    table = Handshakes()
    for number in range(3 * MAX_AGREEMENTS):
        for packet in packets(hellos):
            changed = bytearray(packet.payload)
            if changed[13] == 2:
                changed[13 + 12 + 2] = number
            table.add(SlowPacket(number, Fate.DTLS, *_ends(packet), bytes(changed)))
    assert len(table.between(key(0), key(1))) == MAX_AGREEMENTS
    for number in range(MAX_TALKS + 10):
        packet = packets(hellos[:1])[0]
        source, target, _, port = _ends(packet)
        table.add(SlowPacket(0, Fate.DTLS, source, target, number, port, packet.payload))
    assert len(table._talks) == MAX_TALKS


def _ends(packet: SlowPacket) -> tuple[str, str, int, int]:
    return packet.source, packet.destination, packet.source_port, packet.destination_port


@given(data=st.lists(st.tuples(st.integers(0, 1), st.binary(max_size=200)), max_size=20))
def test_noise_agrees_on_nothing(data: Datagrams) -> None:
    table = Handshakes()
    shaped = [(side, b"\x16\xfe\xfd\0\0\0\0\0\0\0\0" + len(noise).to_bytes(2, "big") + noise) for side, noise in data]
    for packet in packets([*data, *shaped]):
        table.add(packet)
    assert masters(table.of([(key(0), key(1))]), key(0), Secrets()) == []
