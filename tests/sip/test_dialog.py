"""Calls as transcripts of what a listener hears, by the flows of RFC 3261, 3262, 3264, 3311, 3515 and 3665."""

import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sip import table
from tapdeck.sip.call import OVER, TRANSITIONS, Signal
from tapdeck.sip.dialog import Closed, Dialogs, Ended, Event, Party, Revived, Started, State
from tests.sip.transcript import SECOND, play, read_line, send

SUCCESS = """
    0    alice>bob INVITE 1 a/ sdp=4000
         Started
         Described caller 192.0.2.1:4000 hop 0
    0.1  bob>alice 100:INVITE 1 a/
    1    bob>alice 180:INVITE 1 a/b
         Ringing
    3    bob>alice 200:INVITE 1 a/b sdp=5000
         Answered b
         Described callee b 192.0.2.2:5000 hop 0
    3.1  alice>bob ACK 1 a/b
    9    bob>alice BYE 7 b/a
         Ended BYE by callee
    9.1  alice>bob 200:BYE 7 b/a
    12   ..
         Closed
"""

EARLY_MEDIA = """
    0    alice>bob INVITE 1 a/ sdp=4000
         Started
         Described caller 192.0.2.1:4000 hop 0
    1    bob>alice 183:INVITE 1 a/b sdp=5000
         Ringing
         Described callee b 192.0.2.2:5000 hop 0
    1.1  alice>bob PRACK 2 a/b sdp=4002
         Described caller 192.0.2.1:4002 hop 0
    1.2  bob>alice 200:PRACK 2 a/b sdp=5002
         Described callee b 192.0.2.2:5002 hop 0
    2    bob>alice UPDATE 1 b/a sdp=5004
         Described callee b 192.0.2.2:5004 hop 0
    2.1  alice>bob 200:UPDATE 1 b/a sdp=4004
         Described caller 192.0.2.1:4004 hop 0
    3    bob>alice 183:INVITE 1 a/b sdp=5006
         Described callee b 192.0.2.2:5006 hop 0
    4    bob>alice 200:INVITE 1 a/b
         Answered b
"""

DELAYED_OFFER = """
    0    alice>bob INVITE 1 a/
         Started
    1    bob>alice 200:INVITE 1 a/b sdp=5000
         Answered b
         Described callee b 192.0.2.2:5000 hop 0
    1.1  alice>bob ACK 1 a/b sdp=4000
         Described caller 192.0.2.1:4000 hop 0
"""

AUTHENTICATION = """
    0    alice>proxy INVITE 1 a/ sdp=4000
         Started
         Described caller 192.0.2.1:4000 hop 0
    0.1  proxy>alice 407:INVITE 1 a/p
         Ended 407 Reason
    0.2  alice>proxy ACK 1 a/p
    20   alice>proxy INVITE 2 a/ sdp=4000
         Revived
         Described caller 192.0.2.1:4000 hop 0
    21   proxy>alice 200:INVITE 2 a/b
         Answered b
"""

AUTHENTICATION_WITH_ANOTHER_TAG = """
    0    alice>proxy INVITE 1 a/
         Started
    0.1  proxy>alice 401:INVITE 1 a/p
         Ended 401 Reason
    1    alice>proxy INVITE 2 aa/
         Revived
    2    proxy>alice 200:INVITE 2 aa/b
         Answered b
    3    alice>proxy BYE 3 aa/b
         Ended BYE by caller
"""

NO_SECOND_TRY = """
    0    alice>proxy INVITE 1 a/
         Started
    0.1  proxy>alice 407:INVITE 1 a/p
         Ended 407 Reason
    60   ..
    100  ..
         Closed
"""

REDIRECTED = """
    0    alice>proxy INVITE 1 a/
         Started
    0.1  proxy>alice 302:INVITE 1 a/p
         Ended 302 Reason
    0.2  alice>carol INVITE 2 a/ uri=sip:carol@example.com
         Revived
    1    carol>alice 200:INVITE 2 a/c
         Answered c
"""

FORKED = """
    0    alice>proxy INVITE 1 a/ sdp=4000
         Started
         Described caller 192.0.2.1:4000 hop 0
    0.1  proxy>bob INVITE 1 a/ sdp=alice:4000 branch=z9hG4bK-bob
         Described caller 192.0.2.1:4000 hop 1
    0.2  proxy>carol INVITE 1 a/ sdp=alice:4000 branch=z9hG4bK-carol
    1    bob>proxy 183:INVITE 1 a/b sdp=5000 branch=z9hG4bK-bob
         Ringing
         Described callee b 192.0.2.2:5000 hop 0
    1.1  carol>proxy 183:INVITE 1 a/c sdp=6000 branch=z9hG4bK-carol
         Described callee c 192.0.2.3:6000 hop 0
    4    carol>proxy 200:INVITE 1 a/c sdp=6000 branch=z9hG4bK-carol
         Answered c
         Described callee c 192.0.2.3:6000 hop 0
    4.1  proxy>bob CANCEL 1 a/ branch=z9hG4bK-bob
    4.2  bob>proxy 487:INVITE 1 a/b branch=z9hG4bK-bob
    9    carol>proxy BYE 1 c/a
         Ended BYE by callee
"""

FORK_THAT_FAILS = """
    0    alice>proxy INVITE 1 a/
         Started
    0.1  proxy>bob INVITE 1 a/ branch=z9hG4bK-bob
    0.2  proxy>carol INVITE 1 a/ branch=z9hG4bK-carol
    1    bob>proxy 486:INVITE 1 a/b branch=z9hG4bK-bob
    30   carol>proxy 180:INVITE 1 a/c branch=z9hG4bK-carol
         Ringing
    40   carol>proxy 603:INVITE 1 a/c branch=z9hG4bK-carol
    40.1 proxy>alice 486:INVITE 1 a/b
         Ended 486 Busy Here
    46   ..
         Closed
"""

SERIAL_FORKS_WITHOUT_THE_FIRST_HOP = """
    0    proxy>bob INVITE 1 a/ branch=z9hG4bK-bob
         Started
    1    bob>proxy 486:INVITE 1 a/b branch=z9hG4bK-bob
         Ended 486 Busy Here
    2    proxy>carol INVITE 1 a/ branch=z9hG4bK-carol
         Revived
    3    carol>proxy 200:INVITE 1 a/c branch=z9hG4bK-carol
         Answered c
"""

PROXY_CANCELS_A_FORK = """
    0    alice>proxy INVITE 1 a/
         Started
    0.1  proxy>bob INVITE 1 a/ branch=z9hG4bK-bob
    9    proxy>bob CANCEL 1 a/ branch=z9hG4bK-bob
    9.1  bob>proxy 487:INVITE 1 a/b branch=z9hG4bK-bob
    9.2  proxy>alice 408:INVITE 1 a/p
         Ended 408 Reason
"""

LATE_COPY_OF_THE_CHALLENGE = """
    0    alice>proxy INVITE 1 a/ branch=same
         Started
    0.1  bob>proxy 407:INVITE 1 a/p branch=same
         Ended 407 Reason
    0.2  alice>proxy INVITE 2 a/ branch=same
         Revived
    0.3  proxy>alice 407:INVITE 1 a/p branch=same
    1    proxy>alice 200:INVITE 2 a/b branch=same
         Answered b
"""

OTHER_LEG_WHILE_THE_FIRST_IS_CHALLENGED = """
    0    alice>pbx INVITE 1 a/
         Started
    0.1  pbx>alice 407:INVITE 1 a/p
         Ended 407 Reason
    0.2  pbx>bob INVITE 1 q/
         2 Started
"""

OTHER_LEG_OF_A_CALL_WITHOUT_TAGS = """
    0    alice>pbx INVITE 1 /
         Started
    0.1  pbx>bob INVITE 1 q/
         2 Started
"""

HOPS_OUT_OF_ORDER = """
    0    proxy>bob INVITE 1 a/ branch=z9hG4bK-bob "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK-1-INVITE-alice"
         Started
    0    alice>proxy INVITE 1 a/
    0.1  proxy>carol INVITE 1 a/ branch=z9hG4bK-carol "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK-1-INVITE-alice"
    1    bob>proxy 486:INVITE 1 a/b branch=z9hG4bK-bob
    9    carol>proxy 200:INVITE 1 a/c branch=z9hG4bK-carol
         Answered c
"""

BOTH_FORKS_ANSWER = """
    0    alice>proxy INVITE 1 a/
         Started
    1    bob>alice 200:INVITE 1 a/b sdp=5000
         Answered b
         Described callee b 192.0.2.2:5000 hop 0
    1.1  carol>alice 200:INVITE 1 a/c sdp=6000
         Described callee c 192.0.2.3:6000 hop 0
    1.2  alice>bob ACK 1 a/b
    1.3  alice>carol ACK 1 a/c
    1.4  alice>carol BYE 2 a/c
    9    alice>bob BYE 2 a/b
         Ended BYE by caller
"""

TAG_CHANGED_ON_THE_WAY = """
    0    alice>proxy INVITE 1 a/
         Started
    1    bob>proxy 200:INVITE 1 a/b2
         Answered b2
    1.1  proxy>alice 200:INVITE 1 a/b1
    1.2  alice>proxy ACK 1 a/b1
    9    alice>proxy BYE 2 a/b1
         Ended BYE by caller
"""

PROXY_WITH_A_RELAY = """
    0    alice>proxy INVITE 1 a/ sdp=4000
         Started
         Described caller 192.0.2.1:4000 hop 0
    0.1  proxy>bob INVITE 1 a/ sdp=relay:7000
         Described caller 192.0.2.30:7000 hop 1
    1    bob>proxy 200:INVITE 1 a/b sdp=5000
         Answered b
         Described callee b 192.0.2.2:5000 hop 0
    1.1  proxy>alice 200:INVITE 1 a/b sdp=relay:7002
         Described callee b 192.0.2.30:7002 hop 1
    1.2  bob>proxy 200:INVITE 1 a/b sdp=5000
    1.3  proxy>alice 200:INVITE 1 a/b sdp=relay:7002
    1.4  alice>proxy ACK 1 a/b
    1.5  proxy>bob ACK 1 a/b
    9    alice>proxy BYE 2 a/b
         Ended BYE by caller
    9.1  proxy>bob BYE 2 a/b
"""

BUSY = """
    0    alice>bob INVITE 1 a/ sdp=4000
         Started
         Described caller 192.0.2.1:4000 hop 0
    1    bob>alice 486:INVITE 1 a/b
         Ended 486 Busy Here
    1.1  alice>bob ACK 1 a/b
    3    alice>bob INVITE 1 a/ sdp=4000
    6.1  ..
         Closed
    7    bob>alice 486:INVITE 1 a/b
    7.1  alice>bob INVITE 1 a/ sdp=4000
"""

CANCELLED = """
    0    alice>bob INVITE 1 a/
         Started
    1    bob>alice 180:INVITE 1 a/b
         Ringing
    5    alice>bob CANCEL 1 a/
         Ended CANCEL
    5.1  bob>alice 200:CANCEL 1 a/b
    5.2  bob>alice 487:INVITE 1 a/b
    5.3  alice>bob ACK 1 a/b
    11   ..
         Closed
"""

CANCEL_CROSSES_THE_ANSWER = """
    0    alice>bob INVITE 1 a/
         Started
    5    alice>bob CANCEL 1 a/
         Ended CANCEL
    5.1  bob>alice 200:INVITE 1 a/b
         Revived
         Answered b
    5.2  alice>bob BYE 2 a/b
         Ended BYE by caller
"""

HOLD = """
    0    alice>bob INVITE 1 a/ sdp=4000
         Started
         Described caller 192.0.2.1:4000 hop 0
    1    bob>alice 200:INVITE 1 a/b sdp=5000
         Answered b
         Described callee b 192.0.2.2:5000 hop 0
    5    bob>alice INVITE 8 b/a sdp=5000,sendonly
         Described callee b 192.0.2.2:5000 hop 0
    5.1  alice>bob 200:INVITE 8 b/a sdp=4000,recvonly
         Described caller 192.0.2.1:4000 hop 0
"""

REFUSED_HOLD = """
    0    alice>bob INVITE 1 a/ sdp=4000
         Started
         Described caller 192.0.2.1:4000 hop 0
    1    bob>alice 200:INVITE 1 a/b sdp=5000
         Answered b
         Described callee b 192.0.2.2:5000 hop 0
    5    alice>bob INVITE 2 a/b sdp=4000,inactive
         Described caller 192.0.2.1:4000 hop 0
    5.1  bob>alice 488:INVITE 2 a/b sdp=9000
    9    alice>bob BYE 3 a/b
         Ended BYE by caller
"""

SAME_CALL_ID_BEHIND_A_B2BUA = """
    0    alice>pbx INVITE 1 a/ sdp=4000
         Started
         Described caller 192.0.2.1:4000 hop 0
    0.1  pbx>bob INVITE 200 p/ sdp=7000
         2 Started
         2 Described caller 192.0.2.20:7000 hop 0
    1    bob>pbx 200:INVITE 200 p/b sdp=5000
         2 Answered b
         2 Described callee b 192.0.2.2:5000 hop 0
    1.1  pbx>alice 200:INVITE 1 a/q sdp=7002
         Answered q
         Described callee q 192.0.2.20:7002 hop 0
    9    bob>pbx BYE 1 b/p
         2 Ended BYE by callee
    9.1  pbx>alice BYE 1 q/a
         Ended BYE by callee
"""

JOINED_BY_REINVITE = """
    0    bob>alice INVITE 8 b/a sdp=5000
         Started
         Answered a
         Described caller 192.0.2.2:5000 hop 0
    0.1  alice>bob 200:INVITE 8 b/a sdp=4000
         Described callee a 192.0.2.1:4000 hop 0
    5    alice>bob BYE 3 a/b
         Ended BYE by callee
    8    ..
         Closed
    8.1  bob>alice INVITE 9 b/a sdp=5000
    8.2  bob>alice 200:INVITE 9 b/a sdp=5000
"""

JOINED_BY_ANSWER = """
    0    bob>alice 200:INVITE 1 a/b sdp=5000
         Started
         Answered b
         Described callee b 192.0.2.2:5000 hop 0
    0.1  alice>bob ACK 1 a/b sdp=4000
         Described caller 192.0.2.1:4000 hop 0
"""

JOINED_BY_ACK = """
    0    alice>bob ACK 1 a/b sdp=4000
         Started
         Answered b
         Described caller 192.0.2.1:4000 hop 0
"""

NOTHING_TO_JOIN = """
    0    alice>bob BYE 2 a/b
    1    bob>alice 486:INVITE 1 a/b
    2    bob>alice 200:BYE 2 a/b
    3    alice>bob ACK 1 a/b
    4    alice>bob INFO 4 a/b
    5    alice>bob REGISTER 1 a/
    6    bob>alice 200:OPTIONS 1 a/b
    7    alice>bob CANCEL 1 a/
    8    alice>bob INVITE 9 a/b
"""

NEW_CALL_AFTER_BYE_WITH_THE_OLD_CALL_ID = """
    0    alice>bob INVITE 1 a/
         Started
    1    bob>alice 200:INVITE 1 a/b
         Answered b
    2    alice>bob BYE 2 a/b
         Ended BYE by caller
    3    alice>bob INVITE 3 a/
         2 Started
    3.5  bob>alice 200:INVITE 3 a/c
         2 Answered c
    9    ..
         Closed
    9.1  alice>bob BYE 4 a/c
         2 Ended BYE by caller
"""

NO_ANSWER_SEEN = """
    0    alice>bob INVITE 1 a/
         Started
    50   bob>alice 180:INVITE 1 a/b
         Ringing
    600  ..
    655  ..
         Ended no final response
         Closed
"""

NOBODY_THERE = """
    0    alice>bob INVITE 1 a/
         Started
    60   ..
    70   ..
         Ended no final response
         Closed
"""

RFC_2543_WITHOUT_TAGS = """
    0    alice>bob INVITE 1 /
         Started
    1    bob>alice 200:INVITE 1 /b
         Answered b
    2    bob>alice BYE 2 b/
         Ended BYE by callee
"""

DIGITS = """
    0    alice>bob INVITE 1 a/
         Started
    1    bob>alice 200:INVITE 1 a/b
         Answered b
    2    alice>bob INFO 2 a/b "Content-Type: application/dtmf-relay" body=Signal=5|Duration=160|
         Digits caller 5
    2.1  proxy>bob INFO 2 a/b "Content-Type: application/dtmf-relay" body=Signal=5|Duration=160|
    3    bob>alice INFO 9 b/a "Content-Type: application/dtmf" body=#
         Digits callee #
    4    alice>bob INFO 3 a/b "Content-Type: application/dtmf-relay" body=Signal=11
         Digits caller #
    5    alice>bob INFO 4 a/b "Content-Type: application/dtmf-relay" body=Signal=!
    6    alice>bob INFO 5 a/b "Content-Type: text/plain" body=5
    7    alice>bob INFO 6 a/b "Content-Type: application/dtmf" body=Signal=7|Duration=250|
         Digits caller 7
    8    alice>bob INFO 7 a/b "Content-Type: application/dtmf-relay" body=Signal=16|Duration=250|
         Digits caller flash
    9    alice>bob INFO 8 a/b "Content-Type: application/dtmf-relay; charset=utf-8" body=Signal=X|Duration=250|
         Digits caller masked
"""

TRANSFER = """
    0    alice>bob INVITE 1 a/
         Started
    1    bob>alice 200:INVITE 1 a/b
         Answered b
    2    bob>alice REFER 2 b/a "Refer-To: <sip:carol@example.com?Replaces=x%3Bto-tag%3Dy>"
         Transferred carol
    2.1  proxy>alice REFER 2 b/a "Refer-To: <sip:carol@example.com?Replaces=x%3Bto-tag%3Dy>"
    3    bob>alice BYE 3 b/a
         Ended BYE by callee
"""

TRANSCRIPTS = {
    name: text for name, text in vars(sys.modules[__name__]).items() if name.isupper() and isinstance(text, str)
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcript(name: str) -> None:
    play(TRANSCRIPTS[name])


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_a_mirror_that_shows_everything_twice_changes_nothing(name: str) -> None:
    once, twice = play(TRANSCRIPTS[name]), play(TRANSCRIPTS[name], times=2)
    assert [(call.messages, call.end_reason) for call in once] == [(call.messages, call.end_reason) for call in twice]


def test_what_a_call_tells() -> None:
    (call,) = play("""
        0    alice>bob INVITE 1 a/ uri=sip:+4930123@gw "User-Agent: Phone 1" "Replaces: old@x;t=1" "Session-ID: ab;r=0"
             Started
        1    bob>alice 180:INVITE 1 a/b
             Ringing
        2    bob>alice 200:INVITE 1 a/b "Server: Phone 2" "Session-Expires: 1800;refresher=uac"
             Answered b
        9    alice>bob BYE 2 a/b
             Ended BYE by caller
    """)
    assert (call.call_id, call.caller_tag, call.started, call.joined_late) == ("one", "a", 0, False)
    assert (call.answered, call.answered_tag, call.ended) == (2 * SECOND, "b", 9 * SECOND)
    assert (call.state, call.end_reason) == (State.ENDED, "BYE by caller")
    assert call.user_agents == {Party.CALLER: "Phone 1", Party.CALLEE: "Phone 2"}
    assert call.signalling == {Party.CALLER: ("192.0.2.1", 5060), Party.CALLEE: ("192.0.2.2", 5060)}
    assert (call.invite_from, call.invite_to) == (("192.0.2.1", 5060), ("192.0.2.2", 5060))
    assert (call.dialled, call.session_expires, call.replaces, call.session_id) == ("+4930123", 1800, "old@x", "ab")
    assert (call.messages, call.last_seen) == (4, 9 * SECOND)
    assert {tag: (fork.first_seen, fork.status) for tag, fork in call.forks.items()} == {"b": (SECOND, 200)}


def test_proxies_that_only_try_or_challenge_are_not_the_callee() -> None:
    (call,) = play("""
        0    alice>proxy INVITE 1 a/
             Started
        0.1  proxy>alice 100:INVITE 1 a/ "Server: Proxy"
        0.2  proxy>alice 407:INVITE 1 a/p "Server: Proxy"
             Ended 407 Reason
        0.3  alice>proxy INVITE 2 a/
             Revived
        1    bob>proxy 180:INVITE 2 a/b "Server: Phone"
             Ringing
    """)
    assert call.signalling[Party.CALLEE] == ("192.0.2.2", 5060)
    assert call.user_agents[Party.CALLEE] == "Phone"


def test_callee_is_who_answered() -> None:
    (call,) = play("""
        0    alice>proxy INVITE 1 a/
             Started
        1    bob>proxy 180:INVITE 1 a/b "Server: Desk"
             Ringing
        2    carol>proxy 200:INVITE 1 a/c "Server: Mobile" "P-Asserted-Identity: \\"Carol\\" <sip:33@example.com>"
             Answered c
    """)
    assert (call.callee.number, call.callee.name) == ("33", "Carol")
    assert call.user_agents[Party.CALLEE] == "Mobile"
    assert call.signalling[Party.CALLEE] == ("192.0.2.3", 5060)


def test_assertion_on_a_later_hop_names_the_caller() -> None:
    (call,) = play("""
        0    alice>proxy INVITE 1 a/ from=anonymous
             Started
        0.1  proxy>bob INVITE 1 a/ from=anonymous "P-Asserted-Identity: <tel:+49-30-123>"
    """)
    assert call.caller.number == "+4930123"


@pytest.mark.parametrize(
    ("more", "held"),
    [
        ("", True),
        ("7 bob>alice INVITE 9 b/a sdp=5000\nDescribed callee b 192.0.2.2:5000 hop 0", False),
        # The other party's offer does not lift it while the holder's answer keeps it.
        (
            "7 alice>bob UPDATE 4 a/b sdp=4002\nDescribed caller 192.0.2.1:4002 hop 0\n"
            "8 bob>alice 200:UPDATE 4 a/b sdp=5002,sendonly\nDescribed callee b 192.0.2.2:5002 hop 0",
            True,
        ),
        (
            "7 alice>bob UPDATE 4 a/b sdp=4002\nDescribed caller 192.0.2.1:4002 hop 0\n"
            "8 bob>alice 200:UPDATE 4 a/b sdp=5002\nDescribed callee b 192.0.2.2:5002 hop 0",
            False,
        ),
    ],
)
def test_hold(more: str, held: bool) -> None:
    (call,) = play(HOLD + more)
    assert call.held is held


def test_relays_copy_is_no_hold() -> None:
    (call,) = play("""
        0    alice>proxy INVITE 1 a/ sdp=4000
             Started
             Described caller 192.0.2.1:4000 hop 0
        0.1  proxy>bob INVITE 1 a/ sdp=relay:7000,inactive
             Described caller 192.0.2.30:7000 hop 1
    """)
    assert not call.held


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_refused_hold_is_none(method: str) -> None:
    (call,) = play(REFUSED_HOLD.replace("INVITE 2", f"{method} 2"))
    assert not call.held


def test_hold_is_one_until_it_is_refused() -> None:
    (call,) = play(REFUSED_HOLD.partition("5.1")[0])
    assert call.held


def test_one_way_answer_to_a_one_way_offer_is_no_hold() -> None:
    (call,) = play("""
        0    alice>bob INVITE 1 a/ sdp=4000,recvonly
             Started
             Described caller 192.0.2.1:4000 hop 0
        1    bob>alice 200:INVITE 1 a/b sdp=5000,sendonly
             Answered b
             Described callee b 192.0.2.2:5000 hop 0
    """)
    assert not call.held


def test_joined_late() -> None:
    for transcript in (JOINED_BY_REINVITE, JOINED_BY_ANSWER, JOINED_BY_ACK):
        (call,) = play(transcript)
        assert call.joined_late
        assert call.started == 0


def test_refused_calls_are_counted_once() -> None:
    dialogs = Dialogs(limit=1)
    play(
        """
        0    alice>bob INVITE 1 a/ call=first
             Started
        1    alice>bob INVITE 1 x/ call=second
        1.1  alice>bob INVITE 1 x/ call=second
        1.2  bob>alice 200:INVITE 1 x/y call=second
        1.3  alice>bob ACK 1 x/y call=second sdp=4000
        2    bob>alice 486:INVITE 1 a/ call=first
             Ended 486 Busy Here
        8    alice>bob INVITE 1 x/ call=third
             Closed
             2 Started
        """,
        dialogs,
    )
    assert dialogs.refused_calls == 1


def test_memory_of_closed_calls_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_CLOSED", 10)
    dialogs = Dialogs()
    for number in range(30):
        invite = f"{100 * number} alice>bob INVITE 1 a/ call={number}"
        events = send(dialogs, read_line(invite)) + send(dialogs, read_line(invite.replace("INVITE", "CANCEL")))
        assert [type(event) for event in events][-2:] == [Started, Ended]
        dialogs.advance((100 * number + 50) * SECOND)
    again = [bool(send(dialogs, read_line(f"9000 alice>bob INVITE 1 a/ call={number}"))) for number in range(30)]
    assert again == [True] * 20 + [False] * 10


def test_unreadable_descriptions_are_counted() -> None:
    dialogs = Dialogs()
    text = '0 alice>bob INVITE 1 a/ "Content-Type: application/sdp" body=nonsense\nStarted'
    play(text, dialogs)
    assert dialogs.sdp_errors == {"not sdp": 1}


def test_end_by_silence() -> None:
    dialogs = Dialogs()
    (call,) = play(EARLY_MEDIA, dialogs)
    (ended,) = dialogs.end(call, 300 * SECOND, "media silence")
    assert ended == Ended(call, 300 * SECOND, "media silence")
    assert dialogs.end(call, 301 * SECOND, "media silence") == []
    assert dialogs.advance(303 * SECOND) == [Closed(call, 302 * SECOND)]
    assert dialogs.calls == []


def test_finish_ends_what_is_left() -> None:
    dialogs = Dialogs()
    (call,) = play(DELAYED_OFFER, dialogs)
    assert dialogs.finish() == [Ended(call, 1_100_000_000, "end of input"), Closed(call, 1_100_000_000)]
    assert dialogs.finish() == []


def test_longer_linger() -> None:
    dialogs = Dialogs(linger_ns=60 * SECOND)
    play(SUCCESS.replace("12   ..", "68   ..\n69   .."), dialogs)


def test_time_that_goes_back_is_no_harm() -> None:
    play("""
        9    alice>bob INVITE 1 a/
             Started
        3    bob>alice 200:INVITE 1 a/b
             Answered b
        1    alice>bob BYE 2 a/b
             Ended BYE by caller
        9.5  ..
             Closed
    """)


def test_the_table_of_states_is_whole() -> None:
    assert set(TRANSITIONS) == set(State)
    assert not TRANSITIONS[State.CLOSED]
    assert {target for row in TRANSITIONS.values() for target in row.values()} == set(State)
    for state in OVER - {State.CLOSED}:
        assert TRANSITIONS[state][Signal.LINGERED] is State.CLOSED


def messages() -> Iterator[str]:
    for call in ("one", "two"):
        for tags in ("a/", "a/b", "b/a", "a/c", "c/a", "p/", "p/b", "/"):
            for number in (1, 2):
                for what in ("INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "REFER", "INFO", "OPTIONS"):
                    yield f"alice>bob {what} {number} {tags} call={call} sdp=4000"
                for status in (100, 183, 200, 302, 401, 486, 487):
                    yield f"bob>alice {status}:INVITE {number} {tags} call={call} sdp=5000"
                    yield f"carol>proxy {status}:BYE {number} {tags} call={call}"


STEPS = st.tuples(st.sampled_from(sorted(messages())), st.integers(0, 40))


@given(st.lists(STEPS, max_size=40), st.sampled_from([1, 100]))
def test_any_order_of_messages_gives_each_call_one_orderly_life(steps: list[tuple[str, int]], limit: int) -> None:
    dialogs = Dialogs(limit=limit)
    time = 0
    events: list[Event] = []
    for text, pause in steps:
        time += pause
        events += send(dialogs, read_line(f"{time} {text}"))
    events += dialogs.finish()
    assert dialogs.calls == []
    lives: dict[int, list[Event]] = {}
    for event in events:
        lives.setdefault(event.call.number, []).append(event)
    for life in lives.values():
        assert isinstance(life[0], Started)
        assert isinstance(life[-1], Closed)
        turns = [type(event) for event in life if isinstance(event, Ended | Revived | Closed)]
        assert turns == [*([Ended, Revived] * len(turns))[: len(turns) - 1], Closed]
        assert len(turns) % 2 == 0
        assert [type(event) for event in life].count(Started) == 1
