"""Numbers and names: the examples of RFC 3261, 3323, 3325, 3966 and 5806."""

import pytest

from tapdeck.sip.headers import parse_address
from tapdeck.sip.message import Message, parse
from tapdeck.sip.parties import (
    Identity,
    asserted,
    callee_of,
    caller_of,
    dialled_number,
    diversions,
    number_of,
    referred_by,
)


def invite(*headers: str, uri: str = "sip:bob@biloxi.com", to: str = "Bob <sip:bob@biloxi.com>") -> Message:
    lines = [f"INVITE {uri} SIP/2.0", "Call-ID: x", "CSeq: 1 INVITE", f"To: {to}"]
    if not any(header.startswith("From") for header in headers):
        lines.append('From: "Alice" <sip:alice@atlanta.com>;tag=1')
    return parse("\r\n".join([*lines, *headers, "", ""]).encode())


@pytest.mark.parametrize(
    ("address", "number"),
    [
        ("<sip:+12125551212@phone2net.com>", "+12125551212"),
        ("<sip:+358-555-1234567;postd=pp22@foo.com;user=phone>", "+358-555-1234567"),
        ("<tel:+1-201-555-0123>", "+12015550123"),
        ("<tel:863-1234;phone-context=+1-914-555>", "8631234"),
        ("<sip:%2B4930123@gw>", "+4930123"),
        ("<sip:192.0.2.4>", "192.0.2.4"),
    ],
)
def test_number(address: str, number: str) -> None:
    assert number_of(parse_address(address)) == number


def test_caller_by_from() -> None:
    assert caller_of(invite()) == Identity("alice", "Alice", "sip:alice@atlanta.com")


def test_anonymous_caller_is_known_by_his_network() -> None:
    """RFC 3325 section 10.1."""
    message = invite(
        'From: "Anonymous" <sip:anonymous@anonymous.invalid>;tag=9802748',
        'P-Asserted-Identity: "Cullen Jennings" <sip:fluffy@cisco.com>, tel:+14085264000',
        "Privacy: id",
    )
    assert caller_of(message) == Identity("fluffy", "Cullen Jennings", "sip:fluffy@cisco.com")
    assert [identity.number for identity in asserted(message, "calling")] == ["fluffy", "+14085264000"]


def test_name_from_the_first_that_has_one() -> None:
    message = invite("P-Asserted-Identity: <sip:1234@pbx>")
    assert caller_of(message) == Identity("1234", "Alice", "sip:1234@pbx")


def test_remote_party_id_after_asserted_identity_and_only_in_its_role() -> None:
    message = invite(
        'Remote-Party-ID: "Line" <sip:11@pbx>;party=calling;screen=yes',
        'Remote-Party-ID: "Other" <sip:12@pbx>;party=called',
        "P-Asserted-Identity: <sip:10@pbx>",
    )
    assert [identity.number for identity in asserted(message, "calling")] == ["10", "11"]
    assert caller_of(message) == Identity("10", "Line", "sip:10@pbx")


@pytest.mark.parametrize(
    ("uri", "to", "number", "dialled"),
    [
        ("sip:bob@biloxi.com", "Bob <sip:bob@biloxi.com>", "bob", "bob"),
        ("sip:77@gw", "<sip:gw.example.com>", "77", "77"),
        ("sip:gw.example.com", "<sip:gw.example.com>", "gw.example.com", ""),
        ("tel:+1-201-555-0123", "<sip:0123@gw>", "0123", "+12015550123"),
    ],
)
def test_callee(uri: str, to: str, number: str, dialled: str) -> None:
    message = invite(uri=uri, to=to)
    assert callee_of(message).number == number
    assert dialled_number(message) == dialled


def test_diversions_newest_first() -> None:
    message = invite(
        "Diversion: <sip:+19195551212>;reason=user-busy", 'Diversion: "x, y" <tel:+1-919-1>;reason=no-answer, <sip:a@b>'
    )
    assert diversions(message) == ("+19195551212", "+19191", "a")


def test_referred_by() -> None:
    assert referred_by(invite("b: <sip:referrer@referrer.example>;cid=1")) == "referrer"
    assert referred_by(invite()) == ""


@pytest.mark.parametrize(
    ("headers", "numbers"),
    [
        # RFC 7044, appendix B.1: Bob's call was tried at a phone, then went to voicemail.
        (
            (
                "History-Info: <sip:bob@example.com>;index=1",
                "History-Info: <sip:bob@192.0.2.4?Reason=SIP%3Bcause%3D302>;index=1.1;rc=1",
                "History-Info: <sip:vm@example.com;target=sip:bob%40example.com;cause=480>;index=1.2;mp=1",
            ),
            ("bob", "bob"),
        ),
        (("History-Info: <sip:2002@pbx>;index=1, <sip:2003@pbx;cause=302>;index=1.1",), ("2002",)),
        (("History-Info: <sip:2002@pbx>;index=1, <sip:2003@pbx>;index=1.1;mp=1",), ("2002",)),
        (
            (
                "History-Info: <sip:1@a?Reason=SIP%3Bcause%3D486>;index=1",
                "History-Info: <sip:2@a?reason=SIP;cause=408>;index=1.1, <sip:3@a>",
            ),
            ("2", "1"),
        ),
        (("History-Info: <sip:2002@pbx>;index=1, <sip:2002@192.0.2.4>;index=1.1;rc=1",), ()),
        (
            ("Diversion: <sip:5@a>;reason=no-answer", "History-Info: <sip:4@a>;index=1, <sip:5@a;cause=408>;index=1.1"),
            ("5", "4"),
        ),
        (("History-Info: ;;;,<>,%%", "History-Info: "), ()),
    ],
)
def test_who_sent_a_call_on_by_its_history(headers: tuple[str, ...], numbers: tuple[str, ...]) -> None:
    assert diversions(invite(*headers)) == tuple(dict.fromkeys(numbers))
