"""The message parser and the stream framer: RFC 3261's own examples, what real phones send, and any bytes at all."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tapdeck.sip.headers import Via, parse_address, parse_uri
from tapdeck.sip.message import MAX_HEADERS, MAX_LINE, MAX_MESSAGE, Framer, Message, SipError, looks_like_sip, parse

TORTURE = Path(__file__).parents[2] / "fixtures" / "rfc4475"

# RFC 3261 section 24.2, message F1 (the body is left to the SDP tests).
INVITE = b"""\
INVITE sip:bob@biloxi.com SIP/2.0\r
Via: SIP/2.0/UDP pc33.atlanta.com;branch=z9hG4bKnashds8\r
Max-Forwards: 70\r
To: Bob <sip:bob@biloxi.com>\r
From: Alice <sip:alice@atlanta.com>;tag=1928301774\r
Call-ID: a84b4c76e66710@pc33.atlanta.com\r
CSeq: 314159 INVITE\r
Contact: <sip:alice@pc33.atlanta.com>\r
Content-Type: application/sdp\r
Content-Length: 4\r
\r
v=0
"""

MANDATORY = b"From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n"


def request(headers: bytes = b"", body: bytes = b"", mandatory: bytes = MANDATORY) -> bytes:
    return b"OPTIONS sip:c@d SIP/2.0\r\n" + mandatory + headers + b"\r\n" + body


def kind_of(data: bytes, *, stream: bool = False) -> str:
    with pytest.raises(SipError) as caught:
        parse(data, stream=stream)
    return caught.value.kind


def test_the_invite_of_rfc_3261() -> None:
    message = parse(INVITE)
    assert (message.method, message.uri, message.status) == ("INVITE", "sip:bob@biloxi.com", 0)
    assert message.call_id == "a84b4c76e66710@pc33.atlanta.com"
    assert message.cseq == (314159, "INVITE")
    assert (message.from_.display, message.from_.user, message.from_.host) == ("Alice", "alice", "atlanta.com")
    assert message.from_.tag == "1928301774"
    assert (message.to.display, message.to.uri, message.to.tag) == ("Bob", "sip:bob@biloxi.com", "")
    assert message.vias == [Via("UDP", "pc33.atlanta.com", 0, "z9hG4bKnashds8")]
    assert message.content_type == "application/sdp"
    assert message.body == b"v=0\n"


def test_response() -> None:
    message = parse(b"SIP/2.0 180 Ringing\r\n" + MANDATORY + b"\r\n")
    assert (message.method, message.uri, message.status, message.reason) == ("", "", 180, "Ringing")


def test_compact_names() -> None:
    """RFC 3261 section 7.3.3 and the registry after it."""
    message = parse(
        b"INVITE sip:c@d SIP/2.0\r\nv: SIP/2.0/TCP h:5070\r\nf: <sip:a@b>;tag=1\r\nt: <sip:c@d>\r\ni: x\r\n"
        b"CSeq: 1 INVITE\r\nm: <sip:a@h>\r\nc: text/plain\r\nk: timer\r\nx: 1800\r\nr: <sip:e@f>\r\nl: 2\r\n\r\nhi"
    )
    assert message.vias == [Via("TCP", "h", 5070, "")]
    assert [message.get(name) for name in ("contact", "content-type", "supported", "session-expires", "refer-to")] == [
        "<sip:a@h>",
        "text/plain",
        "timer",
        "1800",
        "<sip:e@f>",
    ]
    assert message.body == b"hi"


def test_bare_line_feeds_and_odd_case() -> None:
    message = parse(
        b"\r\n\r\nOPTIONS sip:c@d sip/2.0\nFROM:<sip:a@b>\nto :<sip:c@d>\ncALL-id: x\ncseq:7 OPTIONS\n\nbody"
    )
    assert message.cseq == (7, "OPTIONS")
    assert message.body == b"body"


def test_folding_order_and_repeats() -> None:
    message = parse(request(b"Subject: one\r\n two\r\n\tthree\r\nRoute: <sip:x>, <sip:y>\r\nRoute: <sip:z>\r\n"))
    assert message.get("subject") == "one two three"
    assert message.get_all("route") == ["<sip:x>, <sip:y>", "<sip:z>"]
    assert message.values("route") == ["<sip:x>", "<sip:y>", "<sip:z>"]


def test_commas_in_quotes_and_brackets_do_not_split() -> None:
    message = parse(request(b'Contact: "a, \\", b" <sip:x,y@z>;q=1 , <sip:w@z>\r\n'))
    assert message.values("contact") == ['"a, \\", b" <sip:x,y@z>;q=1', "<sip:w@z>"]


@pytest.mark.parametrize(("raw", "name"), [("Müller".encode(), "Müller"), ("Müller".encode("latin-1"), "Müller")])
def test_names_in_utf_8_and_latin_1(raw: bytes, name: str) -> None:
    mandatory = MANDATORY.replace(b"From: ", b'From: "' + raw + b'" ')
    assert parse(request(mandatory=mandatory)).from_.display == name


def test_one_latin_1_header_does_not_spoil_the_others() -> None:
    message = parse(request(b"Subject: \xfc\r\nOrganization: \xc3\xbc\r\n"))
    assert (message.get("subject"), message.get("organization")) == ("ü", "ü")


@pytest.mark.parametrize(
    ("length", "body"),
    [
        (b"", b"12345"),
        (b"l: 3\r\n", b"123"),
        (b"l: 99\r\n", b"12345"),
        (b"l: -1\r\n", b"12345"),
        (b"l: x\r\n", b"12345"),
    ],
)
def test_content_length_in_a_datagram(length: bytes, body: bytes) -> None:
    """RFC 3261 section 18.3: the rest is discarded; where it says nonsense, what is there is taken."""
    assert parse(request(length, b"12345")).body == body


def test_line_that_is_no_header_is_left_out() -> None:
    assert parse(request(b"no colon here\r\nbad name: x\r\nGood: y\r\n")).headers[-1] == ("good", "y")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "start line"),
        (b"GET / HTTP/1.1\r\n\r\n", "start line"),
        (b"OPTIONS SIP/2.0\r\n" + MANDATORY + b"\r\n", "start line"),
        (b"OPTIONS sip:a SIP/3.0\r\n" + MANDATORY + b"\r\n", "version"),
        (b"SIP/2.0 99 Low\r\n" + MANDATORY + b"\r\n", "status"),
        (b"SIP/2.0 700 High\r\n" + MANDATORY + b"\r\n", "status"),
        (request(b"A: b\r\n" * MAX_HEADERS), "too many headers"),
        (request(body=b"x" * MAX_MESSAGE), "too long"),
        (request(mandatory=MANDATORY.replace(b"Call-ID", b"X")), "call-id"),
        (request(mandatory=MANDATORY.replace(b"From", b"X")), "from"),
        (request(mandatory=MANDATORY.replace(b"To", b"X")), "to"),
        (request(mandatory=MANDATORY.replace(b"CSeq", b"X")), "cseq"),
        (request(mandatory=MANDATORY.replace(b"1 OPTIONS", b"OPTIONS")), "cseq"),
    ],
)
def test_refused(data: bytes, kind: str) -> None:
    assert kind_of(data) == kind


@pytest.mark.parametrize("length", [b"l: 6\r\n", b"l: -1\r\n", b"l: 99999999999999999999\r\n"])
def test_stream_message_must_be_whole(length: bytes) -> None:
    assert kind_of(request(length, b"12345"), stream=True) == "content length"


@pytest.mark.parametrize(
    ("text", "display", "user", "host"),
    [
        ("sip:alice@atlanta.com;tag=1", "", "alice", "atlanta.com"),
        ("<sips:alice@atlanta.com;x=y>;tag=1", "", "alice", "atlanta.com"),
        ('"A. G. Bell" <sip:agb@bell-telephone.com> ;tag=a48s', "A. G. Bell", "agb", "bell-telephone.com"),
        ('"say \\"hi\\" <sip:no@no>" <sip:yes@host>', 'say "hi" <sip:no@no>', "yes", "host"),
        ("Anonymous<sip:c8oqz84zk7z@privacy.org>", "Anonymous", "c8oqz84zk7z", "privacy.org"),
        ("<sip:alice:secret@[2001:DB8::10]:5070>", "", "alice", "2001:db8::10"),
        ("<sip:+358-555-1234567;postd=pp22@foo.com;user=phone>", "", "+358-555-1234567;postd=pp22", "foo.com"),
        ("<tel:+1-201-555-0123;ext=7>;tag=2", "", "+1-201-555-0123", ""),
        ("<sip:%61lice%40home@atlanta.com>", "", "alice@home", "atlanta.com"),
        ("<sip:alice@home@atlanta.com>", "", "alice@home", "atlanta.com"),
        ("sip:192.0.2.4:5062", "", "", "192.0.2.4"),
        ("<sip:a@b?Replaces=x%40y%3Bto-tag%3D1>", "", "a", "b"),
        ("alice@atlanta.com", "", "alice", "atlanta.com"),
        ("<urn:service:sos>", "", "", ""),
        ("", "", "", ""),
        ('"open quote <sip:a@b>', "open quote", "a", "b"),
    ],
)
def test_address(text: str, display: str, user: str, host: str) -> None:
    address = parse_address(text)
    assert (address.display, address.user, address.host) == (display, user, host)


def test_header_parameters_are_the_headers_own() -> None:
    """RFC 3261 section 20: without brackets a parameter belongs to the header, with them what is inside to the URI."""
    assert parse_address("sip:a@b;tag=x;y").params == {"tag": "x", "y": ""}
    assert parse_address("<sip:a@b;tag=uri>;TAG=header").tag == "header"


@pytest.mark.parametrize(
    ("uri", "port"), [("sip:a@b:5061", 5061), ("sip:a@b:0x1", 0), ("sip:a@b:99999", 0), ("sip:a@b", 0)]
)
def test_port(uri: str, port: int) -> None:
    assert parse_uri(uri).port == port


@pytest.mark.parametrize(
    ("data", "is_sip"),
    [
        (INVITE, True),
        (b"SIP/2.0 200 OK\r\n", True),
        (b"\r\n\r\nBYE sip:a SIP/2.0\r\n", True),
        (b"\x80\x08\x00\x01" + b"\xd5" * 160, False),
        (b"GET / HTTP/1.1\r\n\r\n", False),
        (b"\r\n\r\n", False),
        (b"", False),
        (b"\0\0\0\0", False),
    ],
)
def test_looks_like_sip(data: bytes, is_sip: bool) -> None:
    assert looks_like_sip(data) is is_sip


def heard(framer: Framer, *segments: bytes) -> list[str]:
    """What a framer finds: Call-IDs of messages, kinds of errors in brackets."""
    items = [item for segment in segments for item in framer.feed(segment)]
    return [item.call_id if isinstance(item, Message) else f"({item.kind})" for item in items]


def numbered(number: int, body: bytes = b"") -> bytes:
    return request(b"Content-Length: %d\r\n" % len(body), body, MANDATORY.replace(b"x", b"call-%d" % number))


def test_several_messages_in_a_segment_with_keep_alives() -> None:
    stream = b"\r\n\r\n" + numbered(1, b"\r\n\r\nSIP/2.0") + b"\r\n\r\n" + numbered(2) + numbered(3)
    assert heard(Framer(), stream) == ["call-1", "call-2", "call-3"]


def test_one_message_in_many_segments() -> None:
    message = numbered(1, b"12345")
    assert heard(Framer(), *(message[at : at + 1] for at in range(len(message)))) == ["call-1"]


@pytest.mark.parametrize("length", [b"-5", b"70000", b"nine"])
def test_absurd_length_gives_an_error_and_the_next_message_is_found(length: bytes) -> None:
    broken = request(b"Content-Length: " + length + b"\r\n", b"v=0\r\n")
    assert heard(Framer(), numbered(1) + broken + numbered(2)) == ["call-1", "(content length)", "call-2"]


def test_message_without_its_headers_is_skipped_whole() -> None:
    body = b"SIP/2.0 200 OK\r\n" + MANDATORY + b"\r\n"
    sipfrag = request(b"Content-Length: %d\r\n" % len(body), body, MANDATORY.replace(b"Call-ID", b"X"))
    assert heard(Framer(), sipfrag + numbered(1)) == ["(call-id)", "call-1"]


def test_junk_gives_one_error() -> None:
    assert heard(Framer(), b"\x16\x03\x01 tls\n or so\n" * 50 + numbered(1)) == ["(start line)", "call-1"]


def test_after_a_gap_the_rest_of_the_message_is_no_error() -> None:
    framer = Framer()
    assert heard(framer, numbered(1)[:40]) == []
    framer.reset()
    assert heard(framer, b"of a header\r\n\r\nv=0\r\n" + numbered(2)) == ["call-2"]


def test_gap_in_a_body() -> None:
    framer = Framer()
    assert heard(framer, request(b"Content-Length: 60000\r\n", b"v=0\r\n")) == []
    framer.reset()
    assert heard(framer, b"o=-\r\n" + numbered(2)) == ["call-2"]


def test_message_that_would_be_too_long_is_not_waited_for() -> None:
    assert heard(Framer(), request(b"Content-Length: 65500\r\n"), b"\r\n" + numbered(1)) == ["(too long)", "call-1"]


def test_head_without_end_is_given_up() -> None:
    endless = b"OPTIONS sip:a SIP/2.0\r\n" + b"A: b\r\n" * 12000
    assert heard(Framer(), endless, numbered(1)) == ["(too long)", "call-1"]


def test_line_without_end_stays_bounded() -> None:
    framer = Framer()
    for _ in range(50):
        framer.feed(b"x" * 10_000)
    assert len(framer._buffer) <= MAX_LINE + 10_000
    assert heard(framer, b"\n" + numbered(1)) == ["call-1"]


PIECES = st.sampled_from(
    [
        numbered(1),
        numbered(2, b"body\r\n\r\n"),
        request(b"Content-Length: -1\r\n"),
        request(b"Content-Length: 66000\r\n"),
        request(mandatory=b""),
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b"\0",
        b"junk\r\n",
        b"y" * (MAX_LINE - 1) + b"\n",
        b"x" * (MAX_LINE + 1),
        b"A: b\r\n" * 11000,
        INVITE,
    ]
)


@given(st.lists(PIECES | st.binary(max_size=40), max_size=8).map(b"".join), st.data())
def test_any_cut_of_a_stream_gives_the_same(stream: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=30).map(sorted))
    whole, cut = Framer(), Framer()
    segments = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    assert heard(cut, *segments) == heard(whole, stream)


@given(st.binary(max_size=400) | st.binary(max_size=200).map(lambda tail: INVITE[:-40] + tail))
@example(b"SIP/2.0 200\r\nCSeq:" + b"9" * 5000 + b" INVITE")
def test_any_bytes_give_a_message_or_the_one_error(data: bytes) -> None:
    looks_like_sip(data)
    try:
        message = parse(data)
    except SipError:
        return
    assert message.call_id
    assert message.cseq.number < 2**31
    assert isinstance(message.vias, list)
    assert isinstance(message.from_.tag + message.to.tag, str)


@given(st.sampled_from(sorted(TORTURE.glob("*.dat"))), st.data())
def test_any_bytes_changed_in_a_torture_message(path: Path, data: st.DataObject) -> None:
    raw = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=8)):
        raw[at] = data.draw(st.integers(0, 255))
    try:
        message = parse(bytes(raw))
    except SipError:
        return
    assert message.from_ is not None
    assert message.to is not None
    assert all(isinstance(via, Via) for via in message.vias)
