"""What a call tells of calls that come of it: REFER, NOTIFY, redirections, and what names other calls."""

from __future__ import annotations

import pytest

from tapdeck.sip.call import Call, Forward, Party
from tapdeck.sip.link_headers import LINK_HEADERS, MAX_LINKS, links_of
from tapdeck.sip.siprec import participants
from tapdeck.sip.transfer import MAX_TARGETS, MAX_TRANSFERS
from tests.sip.test_parties import invite
from tests.sip.transcript import play

ANSWERED = """
    0    alice>bob INVITE 1 a/ uri=sip:bob@example.com
         Started
    1    bob>alice 200:INVITE 1 a/b
         Answered b
"""


def after(text: str) -> Call:
    (call,) = play(ANSWERED + text)
    return call


def test_a_transfer_and_what_became_of_it() -> None:
    call = after("""
        2    bob>alice REFER 2 b/a "Refer-To: <sip:carol@example.com>"
             Transferred carol
        2.1  alice>bob 202:REFER 2 b/a
        2.2  alice>bob NOTIFY 3 a/b "Event: refer" "Content-Type: message/sipfrag" "body=SIP/2.0 100 Trying"
        2.3  alice>bob NOTIFY 4 a/b "Event: refer" "Content-Type: message/sipfrag" "body=SIP/2.0 180 Ringing"
        2.4  alice>bob NOTIFY 5 a/b "Event: refer" "Content-Type: message/sipfrag" "body=SIP/2.0 200 OK|X"
        2.5  alice>bob NOTIFY 6 a/b "Event: refer" "Content-Type: message/sipfrag" "body=SIP/2.0 100 Trying"
        3    bob>alice BYE 3 b/a
             Ended BYE by callee
    """)
    (one,) = call.transfers
    assert (one.by, one.target, one.replaces, one.answer) == (Party.CALLEE, "carol", "", 202)
    assert (one.outcome, one.reason) == (200, "OK")


def test_each_transfer_has_its_own_outcome() -> None:
    call = after("""
        2    bob>alice REFER 2 b/a "Refer-To: <sip:carol@example.com>"
             Transferred carol
        2.1  alice>bob 603:REFER 2 b/a
        2.2  bob>alice REFER 3 b/a "Refer-To: sip:dave@example.com;method=INVITE"
             Transferred dave
        2.3  alice>bob 202:REFER 3 b/a
        2.4  alice>bob NOTIFY 5 a/b "Event: refer;id=3" "Content-Type: message/sipfrag" "body=SIP/2.0 486 Busy Here"
        2.5  bob>alice NOTIFY 9 b/a "Event: refer;id=3" "Content-Type: message/sipfrag" "body=SIP/2.0 200 OK"
        2.6  alice>bob NOTIFY 7 a/b "Event: refer;id=2" "Content-Type: text/plain" "body=SIP/2.0 200 OK"
        2.7  alice>bob NOTIFY 8 a/b "Event: presence" "Content-Type: message/sipfrag" "body=SIP/2.0 200 OK"
    """)
    assert [(one.target, one.answer, one.outcome) for one in call.transfers] == [("carol", 603, 0), ("dave", 202, 486)]


@pytest.mark.parametrize(
    "to",
    [
        "<sip:carol@example.com?Replaces=x%40h%3Bto-tag%3Dy%3Bfrom-tag%3Dz>",
        "Carol <sip:carol@example.com;transport=tcp?Require=replaces&replaces=x%40h%3Bto-tag%3Dy>",
    ],
)
def test_whose_place_is_taken(to: str) -> None:
    call = after(f"""
        2    bob>alice REFER 2 b/a "Refer-To: {to}"
             Transferred carol
    """)
    assert call.transfers[0].replaces == "x@h"


@pytest.mark.parametrize(
    ("tags", "by"), [("local-tag=b;remote-tag=a", "callee"), ("local-tag=a;remote-tag=b", "caller")]
)
def test_a_transfer_asked_for_in_a_dialog_of_its_own(tags: str, by: str) -> None:
    call = after(f"""
        2    bob>alice REFER 1 q/ call=other "Target-Dialog: one;{tags}" "Refer-To: <sip:carol@example.com>"
             Transferred carol
        3    bob>alice REFER 1 r/ call=third "Target-Dialog: none;{tags}" "Refer-To: <sip:dave@example.com>"
        4    bob>alice REFER 1 s/ call=fourth "Refer-To: <sip:dave@example.com>"
    """)
    assert [(one.by.value, one.target) for one in call.transfers] == [(by, "carol")]


def test_transfers_without_end() -> None:
    lines = "".join(
        f'\n        2.{n:04}    bob>alice REFER {n} b/a "Refer-To: <sip:c{n}@x>"\n             Transferred c{n}'
        for n in range(2, 2 + MAX_TRANSFERS + 5)
    )
    assert len(after(lines).transfers) == MAX_TRANSFERS


def test_redirections() -> None:
    (call,) = play("""
        0    alice>bob INVITE 1 a/ uri=sip:bob@example.com
             Started
        1    bob>alice 302:INVITE 1 a/b "Contact: <sip:carol@example.com>;q=0.7, <sip:dave@example.com>"
             Ended 302 Reason
        1.1  alice>bob INVITE 2 a/ uri=sip:carol@example.com
             Revived
        2    bob>alice 301:INVITE 2 a/c "Contact: <sip:erin@example.com>"
             Ended 301 Reason
        2.1  alice>bob INVITE 3 a/ uri=sip:erin@example.com
             Revived
        3    bob>alice 302:INVITE 3 a/e "Contact: *"
             Ended 302 Reason
    """)
    assert [(one.status, one.by, one.targets) for one in call.forwards][:2] == [
        (302, "bob", ("carol", "dave")),
        (301, "carol", ("erin",)),
    ]
    assert all(isinstance(one, Forward) and len(one.targets) <= MAX_TARGETS for one in call.forwards)


def test_what_the_legs_of_a_call_have_in_common() -> None:
    message = invite(
        "X-Call-ID: 12345678", "X-CID: short", 'P-Charging-Vector: icid-value="abcd-efgh";orig-ioi=x', "X-Y: z"
    )
    assert links_of(message, LINK_HEADERS) == ("12345678", "abcd-efgh")
    assert links_of(message, ("x-y",)) == ("abcd-efgh",)
    many = invite(*(f"X-{n}: value-{n:04}" for n in range(40)))
    assert len(links_of(many, [f"x-{n}" for n in range(40)])) == MAX_LINKS


@pytest.mark.parametrize(
    ("body", "people"),
    [
        (
            "<recording><nameID aor='sip:1@x'><name>A</name></nameID><nameID aor=\"tel:+31-20\"/></recording>",
            ("A 1", "+3120"),
        ),
        ('<r:recording xmlns:r="u"><r:nameID x="1" aor="sip:2@x">\n<r:name xml:lang="it">B</r:name>', ("B 2",)),
        ("<recording><nameID aor='sip:1@x'/>" * 2, ("1",)),
        ('<!DOCTYPE x [<!ENTITY a "b">]><recording><nameID aor="sip:1@x"><name>&a;&lt;</name>', ("&a;< 1",)),
        ("<nameID aor='sip:1@x'/>", ()),
        ("", ()),
        ("<recording>" + "<nameID aor=" * 4000, ()),
        ("<recording>" + "<nameID " + " " * 60_000, ()),
    ],
)
def test_whose_sound_a_recording_session_holds(body: str, people: tuple[str, ...]) -> None:
    message = invite("Require: siprec")
    object.__setattr__(message, "body", body.encode())
    assert participants(message) == people
    plain = invite()
    object.__setattr__(plain, "body", body.encode())
    assert participants(plain) == ()
