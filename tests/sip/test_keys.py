"""Keys in the bodies of SIP messages: read, and hidden."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sip.keys import HIDDEN, digit_of, masked
from tapdeck.sip.message import parse

KEYS = "0123456789*#ABCD"


def info(kind: str, body: str, method: str = "INFO") -> bytes:
    return (
        f"{method} sip:7@10.0.0.7 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1\r\nFrom: <sip:1@a>;tag=1\r\n"
        f"To: <sip:7@a>;tag=2\r\nCall-ID: 5551234\r\nCSeq: 7 {method}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


BODIES = [
    ("application/dtmf-relay", "Signal={}\r\nDuration=160\r\n"),
    ("application/dtmf-relay", "Signal= {}\r\nDuration= 160"),
    ("Application/DTMF-Relay;x=y", "Duration=160\nsignal ={}\n"),
    ("application/dtmf", "{}"),
    ("application/dtmf", "{}\r\n"),
    ("application/dtmf", "Signal={}\r\nDuration=250\r\n"),
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("kind", "body"), BODIES)
def test_both_content_types_with_both_kinds_of_body(kind: str, body: str, key: str) -> None:
    message = info(kind, body.format(key))
    assert digit_of(parse(message)) == key
    hidden = masked(message)
    assert digit_of(parse(hidden)) == HIDDEN
    assert len(hidden) == len(message)
    assert hidden.partition(b"\r\n\r\n")[0] == message.partition(b"\r\n\r\n")[0]


@pytest.mark.parametrize(
    "sent",
    [
        lambda text: text.replace(b"\r\n", b"\n"),
        lambda text: text.replace(b"\r\n\r\n", b"\r\n\n"),
        lambda text: text.replace(b"\r\n\r\n", b"\n\r\n"),
        lambda text: text.replace(b"Type: ", b"Type:\r\n  "),
        lambda text: text.replace(b"Content-Type: ", b"c :\x0b\xa0"),
        lambda text: b"\r\n\r\n" + text,
        lambda text: b"\0\n\r\n" + text,
    ],
    ids=["LF", "LF at the end", "LF before the blank line", "folded", "odd blanks", "behind a keep-alive", "and more"],
)
def test_a_key_is_hidden_however_its_message_is_written(sent: Callable[[bytes], bytes]) -> None:
    message = sent(info("application/dtmf-relay", "Signal=7\r\nDuration=160\r\n"))
    assert digit_of(parse(message)) == "7"
    hidden = masked(message)
    assert digit_of(parse(hidden)) == HIDDEN
    assert len(hidden) == len(message)
    assert b"=7" not in hidden


def test_lower_case_letters_are_keys_and_are_hidden() -> None:
    assert digit_of(parse(info("application/dtmf", "d"))) == "D"
    assert masked(info("application/dtmf", "d")).endswith(b"\r\n\r\nX")


def test_numbers_above_nine_are_the_other_keys() -> None:
    found = [digit_of(parse(info("application/dtmf-relay", f"Signal={one}"))) for one in range(10, 18)]
    assert found == ["*", "#", "A", "B", "C", "D", "flash", ""]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/kpml-response+xml", '<kpml-response version="1.0" code="200" digits="4929"/>'),
        ("application/vnd.nortelnetworks.digits", "p=Digit-Collection\r\nd=4929\r\n"),
        ("multipart/mixed;boundary=z", "--z\r\nContent-Type: application/dtmf-relay\r\n\r\nSignal=4929\r\n--z--"),
        ("application/dtmf-relay", "Signal=4\r\nSignal=9\r\nSignal=2\r\nSignal=9"),
    ],
)
def test_other_bodies_that_tell_keys_are_hidden(kind: str, body: str) -> None:
    hidden = masked(info(kind, body, "NOTIFY"))
    text = hidden.partition(b"\r\n\r\n")[2]
    assert len(hidden) == len(info(kind, body, "NOTIFY"))
    assert text.count(b"X") == 4
    assert not re.search(rb"[49]", text)


@pytest.mark.parametrize("kind", ["application/sdp", "text/plain", "application/pidf+xml"])
def test_what_tells_no_keys_stays_as_it_is(kind: str) -> None:
    message = info(kind, "v=0\r\nm=audio 5004 RTP/AVP 0\r\n5\r\nSignal=5\r\n", "INVITE")
    assert masked(message) == message


def test_a_response_has_its_keys_hidden_too() -> None:
    answer = info("application/dtmf-relay", "Signal=5").replace(b"INFO sip:7@10.0.0.7 SIP/2.0", b"SIP/2.0 200 OK")
    assert b"Signal=X" in masked(answer)


@given(st.binary(max_size=400))
def test_any_body_keeps_its_length_and_hides_once(body: bytes) -> None:
    message = info("application/dtmf", "").replace(b"Content-Length: 0", b"Content-Length: %d" % len(body)) + body
    hidden = masked(message)
    assert len(hidden) == len(message)
    assert masked(hidden) == hidden
    assert digit_of(parse(hidden)) in ("", HIDDEN)


_NEARLY_KEYS = st.sampled_from(
    [
        b"5",
        b"#",
        b"A",
        b"12",
        b"Signal",
        b"signal",
        b"=",
        b" ",
        b"\t",
        b"\r",
        b"\n",
        b"\x0b",
        b"\xa0",
        b";",
        b'"',
        b"d",
        b"X",
    ]
)


@given(st.lists(_NEARLY_KEYS, max_size=12), st.sampled_from(["application/dtmf", "application/dtmf-relay"]))
def test_what_is_read_as_a_key_is_hidden(pieces: list[bytes], kind: str) -> None:
    body = b"".join(pieces)
    message = info(kind, "").replace(b"Content-Length: 0", b"Content-Length: %d" % len(body)) + body
    assert digit_of(parse(masked(message))) in ("", HIDDEN)
