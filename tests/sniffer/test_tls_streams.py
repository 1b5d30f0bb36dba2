"""Which connections are followed, for how long, and what is counted of the others."""

from __future__ import annotations

from pathlib import Path
from ssl import TLSVersion

import pytest

from tapdeck.sip.message import may_begin_sip
from tapdeck.sniffer.reassembly import Connection, Stretch
from tapdeck.sniffer.tls import streams
from tapdeck.sniffer.tls.secrets import Secrets
from tapdeck.sniffer.tls.streams import MAX_BEGUN, MAX_STRANGERS, SECOND, Said, TlsStreams
from tests.support.tls import CLIENT, SERVER, Flight, Talk

ON_PORT: Connection = ("192.0.2.1", 40_000, "192.0.2.2", 5061)
ELSEWHERE: Connection = ("192.0.2.1", 40_000, "192.0.2.2", 443)
INVITE = b"INVITE sip:b@example.com SIP/2.0\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streams")


def back(connection: Connection) -> Connection:
    return connection[2], connection[3], connection[0], connection[1]


def hear(tls: TlsStreams, connection: Connection, flights: list[Flight], time: int = 0) -> list[Said]:
    found: list[Said] = []
    for side, data in flights:
        way, stretch = (connection, back(connection))[side], Stretch(data, gap=False)
        if tls.knows(way) or tls.begins(stretch):
            found += tls.take(way, stretch, time)
    return found


def told(talk: Talk) -> Secrets:
    secrets = Secrets()
    secrets.feed(talk.log.read_bytes())
    return secrets


def tls_of(secrets: Secrets) -> TlsStreams:
    return TlsStreams(secrets, frozenset({5061}), may_begin_sip)


@pytest.mark.parametrize("connection", [ON_PORT, ELSEWHERE])
def test_sip_is_heard_on_any_port_in_both_directions(connection: Connection, folder: Path) -> None:
    talk = Talk(folder)
    flights = talk.shake_hands() + talk.say(CLIENT, INVITE) + talk.say(SERVER, b"SIP/2.0 200 OK\r\n\r\n")
    tls = tls_of(told(talk))
    found = hear(tls, connection, flights)
    assert [(one.connection, one.stretch.data) for one in found] == [
        (connection, INVITE),
        (back(connection), b"SIP/2.0 200 OK\r\n\r\n"),
    ]
    assert tls.is_signalling(connection)
    assert list(tls.flows()) == [connection]


def forged(number: int = 1) -> bytes:
    """A ClientHello, as anybody may send it."""
    body = b"\x03\x03" + bytes([number & 0xFF]) * 32 + b"\0" + b"\0\2\x13\1" + b"\1\0"
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\3\1" + len(message).to_bytes(2, "big") + message


@pytest.mark.parametrize("version", [TLSVersion.TLSv1_2, TLSVersion.TLSv1_3])
@pytest.mark.parametrize("side", [CLIENT, SERVER])
@pytest.mark.parametrize("before", [b"", b"\x14\3\3\0\1\1"], ids=["at once", "behind a record"])
def test_a_forged_hello_does_not_end_a_connection(before: bytes, side: int, version: TLSVersion, folder: Path) -> None:
    talk = Talk(folder, version)
    flights = talk.shake_hands() + talk.say(CLIENT, INVITE)
    tls = tls_of(told(talk))
    found = hear(tls, ON_PORT, flights)
    for number in (1, 2):
        found += hear(tls, ON_PORT, [(side, before + forged(number))])
        found += hear(tls, ON_PORT, talk.say(SERVER, b"SIP/2.0 200 OK\r\n\r\n") + talk.say(CLIENT, INVITE))
    assert [one.stretch.data[:3] for one in found] == [b"INV", b"SIP", b"INV", b"SIP", b"INV"]
    assert {one.connection for one in found} == {ON_PORT, back(ON_PORT)}
    again = Talk(folder, version)
    assert hear(tls, ON_PORT, again.shake_hands() + again.say(CLIENT, INVITE)) == []
    tls.secrets.add(again.log.read_bytes())
    assert [one.stretch.data for one in tls.catch_up(0)] == [INVITE]  # the ports are used again


def test_a_flood_of_hellos_does_not_push_out_what_is_read(folder: Path) -> None:
    talk = Talk(folder)
    flights = talk.shake_hands() + talk.say(CLIENT, INVITE)
    tls = tls_of(told(talk))
    assert len(hear(tls, ON_PORT, flights)) == 1
    for number in range(streams.MAX_SESSIONS + 2000):
        way = (f"198.51.100.{number % 250}", number + 1, "192.0.2.2", 5061)
        hear(tls, way, [(CLIENT, forged())], number * SECOND // 900)
    assert len(list(tls.flows())) <= streams.MAX_SESSIONS + 1
    assert [one.stretch.data for one in hear(tls, ON_PORT, talk.say(CLIENT, INVITE))] == [INVITE]


def test_what_is_not_sip_is_left_alone(folder: Path) -> None:
    talk = Talk(folder)
    flights = talk.shake_hands() + talk.say(CLIENT, b"GET / HTTP/1.1\r\n\r\n") + talk.say(CLIENT, INVITE)
    tls = tls_of(told(talk))
    assert hear(tls, ELSEWHERE, flights) == []
    assert not tls.knows(ELSEWHERE)
    assert not tls.counts


def test_keep_alives_before_sip_are_no_judgement(folder: Path) -> None:
    talk = Talk(folder)
    flights = talk.shake_hands() + talk.say(CLIENT, b"\r\n\r\n") + talk.say(SERVER, b"\r\n") + talk.say(CLIENT, INVITE)
    tls = tls_of(told(talk))
    assert [one.stretch.data for one in hear(tls, ELSEWHERE, flights)] == [INVITE]


def test_without_keys_a_stranger_is_forgotten_and_a_connection_on_the_port_is_counted(folder: Path) -> None:
    talk = Talk(folder)
    flights = talk.shake_hands() + talk.say(CLIENT, INVITE)
    tls = tls_of(Secrets(wanted=True))
    for connection in (ON_PORT, ELSEWHERE):
        assert hear(tls, connection, flights) == []
        assert tls.knows(connection)
    assert list(tls.catch_up(31 * SECOND)) == []
    assert tls.knows(ON_PORT)
    assert not tls.knows(ELSEWHERE)
    assert tls.counts["records without a key"] >= 3


def test_nothing_is_followed_without_hope_of_keys(folder: Path) -> None:
    talk = Talk(folder)
    tls = tls_of(Secrets())
    assert hear(tls, ON_PORT, talk.shake_hands()) == []
    assert list(tls.flows()) == []


def test_keys_within_the_patience_give_everything_with_its_time(folder: Path) -> None:
    talk = Talk(folder)
    shaken, said = talk.shake_hands(), talk.say(CLIENT, INVITE)
    secrets = Secrets(wanted=True)
    tls = tls_of(secrets)
    hear(tls, ON_PORT, shaken, SECOND)
    hear(tls, ON_PORT, said, 2 * SECOND)
    assert list(tls.catch_up(9 * SECOND)) == []
    secrets.feed(talk.log.read_bytes())
    found = list(tls.catch_up(20 * SECOND))
    assert [(one.time, one.stretch.data) for one in found] == [(2 * SECOND, INVITE)]
    assert not tls.counts


def test_a_new_connection_on_the_same_ports_begins_anew(folder: Path) -> None:
    first, second = Talk(folder), Talk(folder)
    flights = first.shake_hands() + first.say(CLIENT, INVITE) + second.shake_hands() + second.say(CLIENT, INVITE * 2)
    tls = tls_of(told(second))
    assert [one.stretch.data for one in hear(tls, ON_PORT, flights)] == [INVITE, INVITE * 2]


def test_a_connection_that_cannot_be_read_says_why(folder: Path) -> None:
    talk = Talk(folder, TLSVersion.TLSv1_2, TLSVersion.TLSv1_2, "ECDHE-RSA-CAMELLIA128-SHA256")
    tls = tls_of(told(talk))
    assert hear(tls, ON_PORT, talk.shake_hands() + talk.say(CLIENT, INVITE)) == []
    tls.finish()
    assert tls.counts["connections with cipher suite 0xc076, which cannot be read"] == 1


def test_tables_and_memory_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_TOTAL", 1 << 16)
    talk = Talk(folder)
    flights = talk.shake_hands() + talk.say(CLIENT, b"INVITE sip:" + b"b" * 16_000)
    tls = tls_of(Secrets(wanted=True))
    for number in range(30):
        hear(tls, ("192.0.2.1", 20_000 + number, "192.0.2.2", 5061), flights)
    waiting = sum(kept.session.waiting for kept in tls._unproven.values())
    assert waiting <= 1 << 16
    assert tls.counts["records without a key"] > 30
    for number in range(MAX_STRANGERS + 100):
        hear(tls, ("192.0.2.1", 1000 + number, "192.0.2.9", 443), flights[:1], number * SECOND // 900)
    assert sum(connection[3] == 443 for connection in tls.flows()) == MAX_STRANGERS
    assert sum(connection[3] == 5061 for connection in tls.flows()) == 30


def test_a_flood_of_beginnings_is_left_alone_and_counted(folder: Path) -> None:
    hello = Talk(folder).shake_hands()[:1]
    tls = tls_of(Secrets(wanted=True))
    for number in range(3 * MAX_BEGUN):
        hear(tls, ("192.0.2.1", number, "192.0.2.2", 5061), hello, SECOND)
    assert sum(1 for _ in tls.flows()) == MAX_BEGUN
    assert tls.counts["connections that are too many at once"] == 2 * MAX_BEGUN
