"""TLS connections as a listener reads them: OpenSSL on both ends, the key log or the server's key in our hands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from ssl import TLSVersion

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapdeck.sniffer.sources.key_log import server_keys
from tapdeck.sniffer.tls.handshake import CLIENT, SERVER, Earlier
from tapdeck.sniffer.tls.records import Cutter
from tapdeck.sniffer.tls.secrets import Secrets
from tapdeck.sniffer.tls.session import Plain, Session
from tests.support.tls import Flight, Talk

SAYINGS = [(CLIENT, b"INVITE sip:b@c SIP/2.0\r\n" * 9), (SERVER, b"SIP/2.0 100 Trying\r\n"), (CLIENT, b"ACK" * 7000)]
V = TLSVersion
SUITES_12 = [
    *("AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA", "AES128-SHA256", "AES256-SHA256"),
    *("AES128-CCM", "AES256-CCM8", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"),
    *("ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-SHA", "ECDHE-RSA-AES256-SHA384", "ECDHE-RSA-AES128-SHA256"),
    *("DHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES256-SHA", "DHE-RSA-CHACHA20-POLY1305", "DHE-RSA-AES256-CCM"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


def known(talk: Talk) -> Secrets:
    secrets = Secrets()
    secrets.feed(talk.log.read_bytes())
    return secrets


def spoken(talk: Talk, sayings: Sequence[Flight] = SAYINGS) -> list[Flight]:
    flights = talk.shake_hands()
    for side, data in sayings:
        flights += talk.say(side, data)
    return flights


def read(session: Session, flights: Sequence[Flight]) -> list[Plain]:
    return [
        plain for time, (side, data) in enumerate(flights) for plain in session.feed(side, data, gap=False, time=time)
    ]


def joined(plains: Sequence[Plain], side: int) -> bytes:
    return b"".join(plain.data for plain in plains if plain.side == side)


def said(sayings: Sequence[Flight], side: int) -> bytes:
    return b"".join(data for who, data in sayings if who == side)


def assert_all(plains: Sequence[Plain], sayings: Sequence[Flight] = SAYINGS) -> None:
    assert [joined(plains, side) for side in (CLIENT, SERVER)] == [said(sayings, side) for side in (CLIENT, SERVER)]


# -- suites and versions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES_12)
def test_suites_of_tls_12_with_a_key_log(suite: str, folder: Path) -> None:
    talk = Talk(folder, V.TLSv1_2, V.TLSv1_2, suite)
    flights = spoken(talk)
    assert talk.suite == suite
    session = Session.of(known(talk), Earlier())
    assert_all(read(session, flights))
    assert (session.failed, session.unread, session.waiting) == (0, 0, 0)


@pytest.mark.parametrize("version", [V.TLSv1, V.TLSv1_1, V.TLSv1_3])
def test_other_versions(version: TLSVersion, folder: Path) -> None:
    talk = Talk(folder, version, version, "" if version is V.TLSv1_3 else "AES256-SHA")
    flights = spoken(talk)
    session = Session.of(known(talk), Earlier())
    assert_all(read(session, flights))
    assert (session.failed, session.unread) == (0, 0)


@pytest.mark.parametrize("suite", ["AES128-GCM-SHA256", "AES256-SHA", "AES128-SHA256"])
@pytest.mark.parametrize("version", [V.TLSv1_2, V.TLSv1])
def test_the_servers_key_opens_rsa_key_exchange(suite: str, version: TLSVersion, folder: Path) -> None:
    """OpenSSL binds the master secret to the handshake (extended) wherever both ends can."""
    if version is V.TLSv1 and suite != "AES256-SHA":
        pytest.skip("a suite of TLS 1.2")
    talk = Talk(folder, version, version, suite)
    flights = spoken(talk)
    session = Session.of(Secrets(server_keys([str(folder / "server-key.pem")])), Earlier())
    assert_all(read(session, flights))


def test_the_servers_key_opens_no_other_exchange(folder: Path) -> None:
    talk = Talk(folder, V.TLSv1_2, V.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256")
    session = Session.of(Secrets(server_keys([str(folder / "server-key.pem")])), Earlier())
    assert read(session, spoken(talk)) == []
    session.give_up()
    assert session.unread > 0


@pytest.mark.parametrize("tickets", [True, False])
@pytest.mark.parametrize("by_key", [True, False])
def test_a_session_that_is_taken_up_again(tickets: bool, by_key: bool, folder: Path) -> None:
    first = Talk(folder, V.TLSv1_2, V.TLSv1_2, "AES128-GCM-SHA256", tickets=tickets)
    flights = spoken(first)
    again = Talk(folder, before=first)
    more = spoken(again)
    assert again.sides[CLIENT].session_reused
    earlier = Earlier()
    secrets = Secrets(server_keys([str(folder / "server-key.pem")])) if by_key else known(again)
    assert_all(read(Session.of(secrets, earlier), flights))
    assert_all(read(Session.of(secrets, earlier), more))


def test_tls_13_taken_up_again(folder: Path) -> None:
    first = Talk(folder, V.TLSv1_3)
    spoken(first)
    again = Talk(folder, before=first)
    more = spoken(again)
    assert again.sides[CLIENT].session_reused
    assert_all(read(Session.of(known(again), Earlier()), more))


# -- how bytes arrive --------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 2000), min_size=1, max_size=60), modern=st.booleans())
def test_cut_anywhere_it_says_the_same(cuts: list[int], modern: bool, folder: Path) -> None:
    version = V.TLSv1_3 if modern else V.TLSv1_2
    flights, secrets = _kept(folder, version)
    session = Session.of(secrets, Earlier())
    plains: list[Plain] = []
    sizes = cycle(cuts)
    for time, (side, data) in enumerate(flights):
        while data:
            size = next(sizes)
            plains += session.feed(side, data[:size], gap=False, time=time)
            data = data[size:]
    assert_all(plains)


_TALKS: dict[TLSVersion, tuple[list[Flight], Secrets]] = {}


def _kept(folder: Path, version: TLSVersion) -> tuple[list[Flight], Secrets]:
    if version not in _TALKS:
        talk = Talk(folder, version, version)
        flights = spoken(talk)
        _TALKS[version] = flights, known(talk)
    return _TALKS[version]


@pytest.mark.parametrize("version", [V.TLSv1_2, V.TLSv1_3])
def test_keys_that_come_late_open_what_waited_with_its_times(version: TLSVersion, folder: Path) -> None:
    talk = Talk(folder, version, version)
    flights = spoken(talk)
    secrets = Secrets()
    session = Session.of(secrets, Earlier())
    assert read(session, flights) == []
    assert session.waiting > 20_000
    secrets.feed(talk.log.read_bytes())
    plains = session.catch_up()
    assert_all(plains)
    assert [plain.time for plain in plains] == sorted(plain.time for plain in plains)
    assert plains[-1].time == len(flights) - 1
    assert session.waiting == 0


@pytest.mark.parametrize("version", [V.TLSv1_2, V.TLSv1_3])
def test_keys_that_come_too_late_open_what_follows(version: TLSVersion, folder: Path) -> None:
    talk = Talk(folder, version, version)
    flights = spoken(talk)
    secrets = Secrets()
    session = Session.of(secrets, Earlier())
    read(session, flights)
    session.give_up()
    assert session.waiting == 0
    assert session.unread >= 3
    secrets.feed(talk.log.read_bytes())
    more = [(CLIENT, b"BYE sip:b SIP/2.0\r\n"), (SERVER, b"SIP/2.0 200 OK\r\n")]
    plains = read(session, [flight for side, data in more for flight in talk.say(side, data)])
    assert_all(plains, more)
    assert all(plain.gap for plain in plains)


def hundred(talk: Talk) -> Iterator[tuple[bytes, bytes]]:
    """A hundred messages, and how each crosses the wire."""
    for number in range(100):
        text = b"MESSAGE sip:%d SIP/2.0\r\n\r\n" % number
        yield text, b"".join(data for _, data in talk.say(CLIENT, text))


@pytest.mark.parametrize("suite", ["AES128-GCM-SHA256", "AES256-SHA", "ECDHE-RSA-CHACHA20-POLY1305", "", "tls1"])
@pytest.mark.parametrize("lost", [range(20, 21), range(20, 60)], ids=["one", "forty"])
def test_after_a_hole_it_goes_on_with_the_next_record(suite: str, lost: range, folder: Path) -> None:
    version = V.TLSv1 if suite == "tls1" else V.TLSv1_2 if suite else V.TLSv1_3
    talk = Talk(folder, version, version, "AES256-SHA" if suite == "tls1" else suite)
    flights = talk.shake_hands()
    sent = list(hundred(talk))
    session = Session.of(known(talk), Earlier())
    read(session, flights)
    found: list[Plain] = []
    for number, (_, data) in enumerate(sent):
        if number not in lost:
            gap = number == lost.stop
            found += session.feed(CLIENT, data[10:] if gap else data, gap=gap, time=number)
    heard = b"".join(plain.data for plain in found).split(b"\r\n\r\n")[:-1]
    # Of the record whose beginning is missing nothing is left; in TLS 1.0 the next one needs its end.
    expected = [text.split(b"\r\n\r\n")[0] for number, (text, _) in enumerate(sent) if number not in lost]
    gone = expected.pop(lost.start)
    assert gone
    assert [text for text in expected if text not in heard] == []
    assert session.holes == 1
    assert [plain.gap for plain in found].count(True) == 1


@pytest.mark.parametrize(
    ("version", "suite"), [(V.TLSv1_3, ""), (V.TLSv1_2, "AES128-GCM-SHA256"), (V.TLSv1_2, "AES256-SHA")]
)
def test_whatever_else_of_the_handshake_is_missing(version: TLSVersion, suite: str, folder: Path) -> None:
    """Any record but the two hellos may be lost: the key log says the rest."""
    talk = Talk(folder, version, version, suite)
    shaken = [(side, part) for side, data in talk.shake_hands() for part in records(data)]
    words = [flight for side, data in SAYINGS for flight in talk.say(side, data)]
    secrets = known(talk)
    lost = [number for number, (_, data) in enumerate(shaken) if data[0] != 22 or data[5] not in (1, 2)]
    assert len(lost) > 4
    for missing in lost:
        session = Session.of(secrets, Earlier())
        plains, gap = [], [False, False]
        for number, (side, data) in enumerate([*shaken, *words]):
            if number == missing:
                gap[side] = True
                continue
            plains += session.feed(side, data, gap=gap[side], time=number)
            gap[side] = False
        assert_all(plains)
        assert session.unread == 0


@pytest.mark.parametrize("late", [False, True])
def test_a_servers_hello_that_is_missing_is_made_up_for_in_tls_13(late: bool, folder: Path) -> None:
    talk = Talk(folder, V.TLSv1_3)
    shaken = [(side, part) for side, data in talk.shake_hands() for part in records(data)]
    words = [flight for side, data in SAYINGS for flight in talk.say(side, data)]
    secrets = Secrets()
    session = Session.of(secrets, Earlier())
    plains, gap = [], [False, False]
    for number, (side, data) in enumerate([*shaken, *words]):
        if number == (len(shaken) if late else 0):
            secrets.feed(talk.log.read_bytes())
        if data[0] == 22 and data[5] == 2:
            gap[side] = True
            continue
        plains += session.feed(side, data, gap=gap[side], time=number)
        gap[side] = False
    assert_all(plains)


def test_directions_that_come_in_the_wrong_order(folder: Path) -> None:
    """Two taps, one a little behind the other: all that the client says is heard before the server's answer."""
    for version in (V.TLSv1_2, V.TLSv1_3):
        talk = Talk(folder, version, version)
        flights = spoken(talk)
        session = Session.of(known(talk), Earlier())
        shaken = [flight for flight in flights if flight[0] == CLIENT][:2]
        plains = read(session, shaken) + read(session, [flight for flight in flights if flight not in shaken])
        assert_all(plains)


def records(data: bytes) -> Iterator[bytes]:
    """The records of a flight, one by one."""
    while data:
        size = 5 + int.from_bytes(data[3:5], "big")
        yield data[:size]
        data = data[size:]


def test_a_changed_byte_costs_one_record(folder: Path) -> None:
    talk = Talk(folder)
    flights = talk.shake_hands()
    sent = [data for _, data in hundred(talk)]
    sent[50] = sent[50][:-1] + bytes([sent[50][-1] ^ 1])
    session = Session.of(known(talk), Earlier())
    plains = read(session, [*flights, *((CLIENT, data) for data in sent)])
    assert len(joined(plains, CLIENT).split(b"\r\n\r\n")) - 1 == 99
    assert session.failed == 1


def test_without_a_handshake_nothing_is_read(folder: Path) -> None:
    talk = Talk(folder)
    flights = spoken(talk)
    session = Session.of(known(talk), Earlier())
    assert read(session, flights[2:]) == []


def test_the_wrong_keys_open_nothing(folder: Path) -> None:
    flights = spoken(Talk(folder, V.TLSv1_2, V.TLSv1_2))
    random = flights[0][1][11:43]
    secrets = Secrets()
    secrets.feed(b"CLIENT_RANDOM " + random.hex().encode() + b" " + b"ab" * 48 + b"\n")
    session = Session.of(secrets, Earlier())
    assert read(session, flights) == []
    assert session.failed > 3


def test_secrets_show_in_no_text(folder: Path) -> None:
    talk = Talk(folder)
    flights = spoken(talk)
    secrets = known(talk)
    session = Session.of(secrets, Earlier())
    read(session, flights)
    text = repr(session) + repr(secrets)
    for line in talk.log.read_text().splitlines()[1:]:
        word = line.split()[2]
        assert word not in text
        assert repr(bytes.fromhex(word))[2:30] not in text


@given(
    flights=st.lists(st.tuples(st.integers(0, 1), st.binary(max_size=400), st.booleans()), max_size=20),
    shaped=st.booleans(),
)
def test_noise_says_nothing_and_is_accounted_for(flights: list[tuple[int, bytes, bool]], shaped: bool) -> None:
    """Bytes of any kind, and records of any kind with them."""
    session = Session.of(Secrets(wanted=True), Earlier())
    cutter, fed, cut = Cutter(), 0, 0
    for time, (side, noise, gap) in enumerate(flights):
        data = bytes((20 + len(noise) % 5, 3, 3)) + len(noise).to_bytes(2, "big") + noise if shaped else noise
        assert session.feed(side, data, gap=gap, time=time) == []
        if gap:
            cutter.reset()
        fed += len(data)
        cut += sum(len(record.body) + 5 for record in cutter.feed(data))
        assert cut + cutter.waiting + cutter.skipped == fed
