"""Connections that another run goes on with: by what is remembered, and the key log."""

from __future__ import annotations

import json
from pathlib import Path
from ssl import TLSVersion

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sip.message import may_begin_sip
from tapdeck.sniffer.reassembly import Connection, Stretch
from tapdeck.sniffer.sources.key_log import server_keys
from tapdeck.sniffer.tls.handshake import CLIENT, SERVER, Earlier
from tapdeck.sniffer.tls.memory import recalled, remembered
from tapdeck.sniffer.tls.secrets import Secrets
from tapdeck.sniffer.tls.session import Session
from tapdeck.sniffer.tls.streams import TlsStreams
from tapdeck.storage import tls_memory
from tests.support.tls import Flight, Talk

V = TLSVersion
KINDS = [
    *((V.TLSv1_3, ""), (V.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256"), (V.TLSv1_2, "ECDHE-RSA-CHACHA20-POLY1305")),
    *((V.TLSv1_2, "AES256-SHA"), (V.TLSv1_2, "AES128-GCM-SHA256")),
]
WAY: Connection = ("192.0.2.1", 40_000, "192.0.2.2", 5061)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("memory")


def told(talk: Talk) -> Secrets:
    secrets = Secrets()
    secrets.feed(talk.log.read_bytes())
    return secrets


def say(talk: Talk, count: int, what: bytes = b"OPTIONS") -> list[Flight]:
    flights = []
    for number in range(count):
        flights += talk.say(CLIENT, b"%b sip:%d SIP/2.0\r\n\r\n" % (what, number))
        flights += talk.say(SERVER, b"SIP/2.0 200 OK %d\r\n\r\n" % number)
    return flights


def read(session: Session, flights: list[Flight], gap: bool = False) -> dict[int, bytes]:
    heard = {CLIENT: b"", SERVER: b""}
    lost = {CLIENT: gap, SERVER: gap}
    for time, (side, data) in enumerate(flights):
        for plain in session.feed(side, data, gap=lost[side], time=time):
            heard[plain.side] += plain.data
        lost[side] = False
    return heard


@pytest.mark.parametrize(("version", "suite"), KINDS)
@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize("missed", [0, 300])
def test_a_connection_goes_on(version: TLSVersion, suite: str, by_key: bool, missed: int, folder: Path) -> None:
    if by_key and (version is V.TLSv1_3 or suite.startswith("ECDHE")):
        pytest.skip("no server's key opens this")
    talk = Talk(folder, version, version, suite)
    keys = [str(folder / "server-key.pem")]
    session = Session.of(Secrets(server_keys(keys)) if by_key else told(talk), Earlier())
    read(session, talk.shake_hands() + say(talk, 5))
    kept = json.loads(json.dumps(remembered(session)))
    say(talk, missed)
    again = recalled(kept, Secrets(server_keys(keys)) if by_key else told(talk), Earlier())
    assert again
    heard = read(again, say(talk, 2, b"INVITE"), gap=True)
    assert heard[CLIENT] == b"INVITE sip:0 SIP/2.0\r\n\r\nINVITE sip:1 SIP/2.0\r\n\r\n"
    assert heard[SERVER] == b"SIP/2.0 200 OK 0\r\n\r\nSIP/2.0 200 OK 1\r\n\r\n"
    assert again.failed == 0


def test_what_is_remembered_holds_no_secret(folder: Path) -> None:
    for version, suite in KINDS:
        talk = Talk(folder, version, version, suite)
        session = Session.of(Secrets(server_keys([str(folder / "server-key.pem")])), Earlier())
        session.handshake.secrets.feed(talk.log.read_bytes())
        read(session, talk.shake_hands() + say(talk, 1))
        text = json.dumps(remembered(session))
        assert not [line for line in talk.log.read_text().splitlines()[1:] if line.split()[2] in text]


def test_the_table_goes_on_by_way_of_the_disk(folder: Path, tmp_path: Path) -> None:
    talk = Talk(folder)
    flights = talk.shake_hands() + say(talk, 1)
    first, second = (TlsStreams(told(talk), frozenset({5061}), may_begin_sip) for _ in range(2))
    hear(first, flights)
    (tmp_path / "resume").mkdir()
    assert tls_memory.save(tmp_path, first.remember())
    assert second.recall(tls_memory.load(tmp_path)) == 1
    assert second.is_signalling(WAY)
    assert list(second.flows()) == [WAY]
    assert hear(second, say(talk, 1, b"INVITE"), gap=True)[0].startswith(b"INVITE")
    assert tls_memory.save(tmp_path, [])
    assert tls_memory.load(tmp_path) == []


def hear(tls: TlsStreams, flights: list[Flight], gap: bool = False) -> list[bytes]:
    back = WAY[2], WAY[3], WAY[0], WAY[1]
    ways = (WAY, back)
    lost = [gap, gap]
    found = []
    for side, data in flights:
        found += [said.stretch.data for said in tls.take(ways[side], Stretch(data, lost[side]), 0)]
        lost[side] = False
    return found


def test_a_disk_that_takes_nothing_and_files_that_make_no_sense(tmp_path: Path) -> None:
    assert not tls_memory.save(tmp_path / "none", [{}])
    (tmp_path / "resume").mkdir()
    for text in ("", "[]", '{"format": 2, "sessions": []}', '{"format": 1, "sessions": 3}', "[" * 100_000):
        (tmp_path / "resume" / tls_memory.NAME).write_text(text)
        assert tls_memory.load(tmp_path) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=5),
    max_leaves=10,
)
KEYS = ("client", "server", "premaster", "digest", "sides", "connection", "ours")


@given(told=st.lists(st.dictionaries(st.sampled_from(KEYS), JSON | st.just("00" * 80)), max_size=4))
def test_memories_of_any_kind(told: list[dict[str, object]]) -> None:
    tls = TlsStreams(Secrets(), frozenset({5061}), may_begin_sip)
    assert tls.recall(told) == 0
