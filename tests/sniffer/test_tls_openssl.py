"""openssl's own client and server on the loopback, with a relay between them that notes what crosses it.

For what Python's ssl module cannot ask for: the suites of TLS 1.3, changes of keys, a handshake in mid-stream, early
data.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tapdeck.sniffer.sources.key_log import server_keys
from tapdeck.sniffer.tls.handshake import CLIENT, SERVER, Earlier
from tapdeck.sniffer.tls.secrets import Secrets
from tapdeck.sniffer.tls.session import Plain, Session
from tests.support.tls import Flight, server_pem

LOOPBACK = "127.0.0.1"
PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("openssl")


class Relay:
    """Takes one connection after the other to a port, and keeps what each side sent, in the order it came."""

    def __init__(self, port: int) -> None:
        self.flights: list[list[Flight]] = []
        self._to = port
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.flights.append([])
            with client, socket.create_connection((LOOPBACK, self._to)) as server:
                self._carry((client, server), self.flights[-1])

    def _carry(self, ends: tuple[socket.socket, socket.socket], flights: list[Flight]) -> None:
        with selectors.DefaultSelector() as ready:
            for side, end in enumerate(ends):
                ready.register(end, selectors.EVENT_READ, side)
            while True:
                for key, _ in ready.select(PATIENCE_S):
                    try:
                        data = ends[key.data].recv(1 << 16)
                    except ConnectionResetError:
                        return
                    if not data:
                        return
                    flights.append((key.data, data))
                    ends[1 - key.data].sendall(data)

    def close(self) -> None:
        self._listener.close()


@contextmanager
def server(folder: Path, *more: str, answers: bool = True, conf: str = "") -> Iterator[Relay]:
    """openssl's server, which `answers` each line with the same backwards; and a relay before it. `conf` is what its
    configuration sets.
    """
    command = ["openssl", "s_server", "-accept", f"{LOOPBACK}:0", "-cert", str(server_pem(folder)), *more]
    command += ["-rev"] if answers else []
    path = folder / "openssl.cnf"
    path.write_text(f"openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n{conf}\n")
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.PIPE,
        env=os.environ | ({"OPENSSL_CONF": str(path)} if conf else {}),
    )
    with process as child:
        assert child.stdout
        port = None
        while port is None:
            line = child.stdout.readline().decode()
            found = re.match(r"ACCEPT .*:(\d+)", line)
            port = int(found[1]) if found else None
            assert line, "the server did not start"
        drain = threading.Thread(target=child.stdout.read, daemon=True)
        drain.start()
        relay = Relay(port)
        try:
            yield relay
        finally:
            relay.close()
            child.terminate()


def client(relay: Relay, log: Path, words: Sequence[bytes], *more: str, answers: bool = True) -> None:
    """openssl's client says these lines one by one; "K" asks for other keys, "R" for another handshake."""
    command = ["openssl", "s_client", "-connect", f"{LOOPBACK}:{relay.port}", "-keylogfile", str(log), *more]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdin
        assert child.stdout
        heard = bytearray()
        taking = threading.Thread(target=_take, args=(child, heard), daemon=True)
        taking.start()
        for word in words:
            before = len(heard)
            child.stdin.write(word + b"\n")
            child.stdin.flush()
            if not answers:
                time.sleep(0.2)
                continue
            answer = word[::-1] if len(word) > 1 else b""
            end = time.monotonic() + PATIENCE_S
            while (answer not in heard[before:] if answer else len(heard) == before) and time.monotonic() < end:
                time.sleep(0.02)
        time.sleep(0.1)
        child.stdin.close()
        child.terminate()


def _take(child: subprocess.Popen[bytes], heard: bytearray) -> None:
    assert child.stdout
    while data := child.stdout.read1(65536):  # type: ignore[attr-defined]
        heard += data


def read(session: Session, flights: Sequence[Flight]) -> tuple[bytes, bytes]:
    plains: list[Plain] = []
    for time_, (side, data) in enumerate(flights):
        plains += session.feed(side, data, gap=False, time=time_)
    return tuple(b"".join(one.data for one in plains if one.side == side) for side in (CLIENT, SERVER))  # type: ignore[return-value]


def known(log: Path) -> Secrets:
    secrets = Secrets()
    secrets.feed(log.read_bytes())
    return secrets


def backwards(words: Sequence[bytes]) -> bytes:
    return b"".join(word[::-1] + b"\n" for word in words)


SUITES_13 = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
SUITES_13 += ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"]
WORDS = [b"INVITE sip:b@example.com SIP/2.0", b"a second line, then", b"a third"]


@pytest.mark.parametrize("suite", SUITES_13)
def test_suites_of_tls_13(suite: str, folder: Path, tmp_path: Path) -> None:
    suites = ("-ciphersuites", suite)
    with server(folder, "-tls1_3", *suites) as relay:
        client(relay, tmp_path / "log", WORDS, *suites)
    session = Session.of(known(tmp_path / "log"), Earlier())
    said, answered = read(session, relay.flights[0])
    assert said == b"\n".join(WORDS) + b"\n"
    assert answered == backwards(WORDS)
    assert (session.failed, session.unread) == (0, 0)


def test_changes_of_keys_in_tls_13(folder: Path, tmp_path: Path) -> None:
    """K: the client takes other keys and asks the server to."""
    words = [WORDS[0], b"K", WORDS[1], b"K", b"K", WORDS[2]]
    with server(folder, "-tls1_3") as relay:
        client(relay, tmp_path / "log", words)
    session = Session.of(known(tmp_path / "log"), Earlier())
    said, answered = read(session, relay.flights[0])
    assert said == b"\n".join(WORDS) + b"\n"
    assert answered == backwards(WORDS)
    assert session.failed == 0


def test_another_handshake_in_mid_stream(folder: Path, tmp_path: Path) -> None:
    """R: TLS 1.2 agrees on other keys within the connection."""
    words = [WORDS[0], b"R", WORDS[1]]
    with server(folder, "-tls1_2", "-client_renegotiation", "-cipher", "AES128-GCM-SHA256") as relay:
        client(relay, tmp_path / "log", words)
    for secrets in (known(tmp_path / "log"), Secrets(server_keys([str(folder / "server-key.pem")]))):
        session = Session.of(secrets, Earlier())
        said, answered = read(session, relay.flights[0])
        assert said == b"\n".join([WORDS[0], WORDS[1]]) + b"\n"
        assert answered == backwards([WORDS[0], WORDS[1]])
        assert session.failed == 0


def test_early_data(folder: Path, tmp_path: Path) -> None:
    """What a client says with its first flight, by the keys of an earlier session."""
    ticket, early = tmp_path / "ticket", tmp_path / "early"
    early.write_bytes(b"REGISTER sip:example.com SIP/2.0\n")
    more = ("-tls1_3", "-early_data", "-max_early_data", "16384", "-no_anti_replay")
    with server(folder, *more, answers=False) as relay:
        client(relay, tmp_path / "log", WORDS[:1], "-sess_out", str(ticket), answers=False)
        again = ("-sess_in", str(ticket), "-early_data", str(early))
        client(relay, tmp_path / "log", WORDS[1:], *again, answers=False)
    session = Session.of(known(tmp_path / "log"), Earlier())
    said, _ = read(session, relay.flights[1])
    assert said == early.read_bytes() + b"\n".join(WORDS[1:]) + b"\n"
    assert session.failed == 0


def test_encrypt_then_mac_or_not(folder: Path, tmp_path: Path) -> None:
    for number, more in enumerate(([], ["-no_etm"])):
        log = tmp_path / f"log{number}"
        with server(folder, "-tls1_2", *more) as relay:
            client(relay, log, WORDS, "-cipher", "ECDHE-RSA-AES256-SHA384")
        said, answered = read(Session.of(known(log), Earlier()), relay.flights[0])
        assert said == b"\n".join(WORDS) + b"\n"
        assert answered == backwards(WORDS)


def test_a_master_secret_that_is_not_extended(folder: Path, tmp_path: Path) -> None:
    with server(folder, "-tls1_2", conf="Options = -ExtendedMasterSecret") as relay:
        client(relay, tmp_path / "log", WORDS, "-cipher", "AES128-SHA256")
    session = Session.of(Secrets(server_keys([str(folder / "server-key.pem")])), Earlier())
    said, _ = read(session, relay.flights[0])
    assert said == b"\n".join(WORDS) + b"\n"


def test_a_client_with_a_certificate(folder: Path, tmp_path: Path) -> None:
    """Its messages stand before and behind the key exchange, and the server's key has to make sense of them."""
    pem = str(server_pem(folder))
    with server(folder, "-tls1_2", "-Verify", "1", "-cipher", "AES256-GCM-SHA384") as relay:
        client(relay, tmp_path / "log", WORDS, "-cert", pem)
    session = Session.of(Secrets(server_keys([str(folder / "server-key.pem")])), Earlier())
    said, _ = read(session, relay.flights[0])
    assert said == b"\n".join(WORDS) + b"\n"
