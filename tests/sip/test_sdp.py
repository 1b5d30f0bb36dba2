"""Session descriptions: the examples of RFC 8866, 3264, 3605, 4568 and 8839, and any bytes at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sip.message import parse as parse_message
from tapdeck.sip.sdp import (
    MAX_MEDIA,
    Format,
    Media,
    SdpError,
    SessionDescription,
    normal_address,
    parse,
    session_description,
)


def sdp(*lines: str) -> SessionDescription:
    return parse("\r\n".join(["v=0", "o=alice 2890844526 1 IN IP4 host.atlanta.example.com", "s=-", *lines]).encode())


def audio(*lines: str, session: tuple[str, ...] = ("c=IN IP4 192.0.2.1",)) -> Media:
    return sdp(*session, "m=audio 49170 RTP/AVP 0 8 97 101", *lines).media[0]


def test_offer_of_rfc_3264_section_10_1() -> None:
    offer = parse(
        b"v=0\r\n"
        b"o=alice 2890844526 2890844526 IN IP4 host.anywhere.com\r\n"
        b"s=\r\n"
        b"c=IN IP4 host.anywhere.com\r\n"
        b"t=0 0\r\n"
        b"m=audio 49170 RTP/AVP 0\r\n"
        b"a=rtpmap:0 PCMU/8000\r\n"
        b"m=video 51372 RTP/AVP 31\r\n"
        b"a=rtpmap:31 H261/90000\r\n"
        b"m=video 53000 RTP/AVP 32\r\n"
        b"a=rtpmap:32 MPV/90000\r\n"
    )
    assert offer.origin == "alice 2890844526 2890844526 IN IP4 host.anywhere.com"
    assert offer.session_id == "2890844526"
    assert [(media.kind, media.port, media.address) for media in offer.media] == [
        ("audio", 49170, "host.anywhere.com"),
        ("video", 51372, "host.anywhere.com"),
        ("video", 53000, "host.anywhere.com"),
    ]
    assert offer.media[1].formats == {31: Format("H261", 90000)}


def test_refused_stream_keeps_its_place() -> None:
    """RFC 3264 section 6: the answer has as many m-lines as the offer."""
    answer = sdp("c=IN IP4 192.0.2.1", "m=audio 49920 RTP/AVP 0", "m=video 0 RTP/AVP 31")
    assert [media.port for media in answer.media] == [49920, 0]


def test_formats_by_rtpmap_and_by_static_table() -> None:
    media = audio("a=rtpmap:97 opus/48000/2", "a=fmtp:97 useinbandfec=1", "a=rtpmap:101 telephone-event/8000")
    assert media.formats == {
        0: Format("PCMU", 8000),
        8: Format("PCMA", 8000),
        97: Format("OPUS", 48000, 2, "useinbandfec=1"),
        101: Format("TELEPHONE-EVENT", 8000),
    }


def test_rtpmap_overrides_the_static_table_and_unknown_is_empty() -> None:
    media = audio("a=rtpmap:0 G726-32/8000", "a=fmtp:101 0-15")
    assert media.formats[0] == Format("G726-32", 8000)
    assert media.formats[97] == Format("", 0)
    assert media.formats[101] == Format("", 0, 1, "0-15")


# RFC 3551 section 6, table 4: (payload type, encoding name, clock rate)
@pytest.mark.parametrize(
    ("number", "name", "rate"),
    [(3, "GSM", 8000), (4, "G723", 8000), (9, "G722", 8000), (13, "CN", 8000), (15, "G728", 8000), (18, "G729", 8000)],
)
def test_static_audio_formats(number: int, name: str, rate: int) -> None:
    assert sdp(f"m=audio 2 RTP/AVP {number}").media[0].formats == {number: Format(name, rate)}


def test_stereo_l16_is_static_type_10() -> None:
    assert sdp("m=audio 2 RTP/AVP 10 11").media[0].formats == {10: Format("L16", 44100, 2), 11: Format("L16", 44100)}


@pytest.mark.parametrize(
    "line", ["m=audio 49170/2 RTP/AVP 0", "m = audio 49170 RTP/AVP 0", "m=audio  49170  RTP/AVP  0"]
)
def test_odd_media_lines(line: str) -> None:
    media = sdp(line).media[0]
    assert (media.kind, media.port, list(media.formats)) == ("audio", 49170, [0])


def test_media_address_over_session_address() -> None:
    media = sdp("c=IN IP4 192.0.2.1", "m=audio 2 RTP/AVP 0", "c=IN IP4 198.51.100.9", "m=video 4 RTP/AVP 31").media
    assert [one.address for one in media] == ["198.51.100.9", "192.0.2.1"]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("224.2.1.1/127/3", "224.2.1.1"),
        ("FF15:0:0::101/3", "ff15::101"),
        ("2001:DB8:0:0::0001", "2001:db8::1"),
        ("::ffff:192.0.2.9", "192.0.2.9"),
        ("pc33.atlanta.com", "pc33.atlanta.com"),
    ],
)
def test_addresses_are_normalised(text: str, address: str) -> None:
    assert audio(session=(f"c=IN IP6 {text}",)).address == address


def test_normal_address_of_nothing() -> None:
    assert normal_address("") == ""


@pytest.mark.parametrize(
    ("lines", "direction", "held"),
    [
        ([], "sendrecv", False),
        (["a=sendonly"], "sendonly", True),
        (["a=recvonly"], "recvonly", False),
        (["a=inactive"], "inactive", True),
        (["c=IN IP4 0.0.0.0"], "sendrecv", True),
    ],
)
def test_hold(lines: list[str], direction: str, held: bool) -> None:
    media = audio(*lines)
    assert (media.direction, media.held) == (direction, held)


def test_direction_of_the_session_is_inherited() -> None:
    media = sdp("c=IN IP4 192.0.2.1", "a=inactive", "m=audio 2 RTP/AVP 0", "m=audio 4 RTP/AVP 0", "a=sendrecv").media
    assert [one.direction for one in media] == ["inactive", "sendrecv"]


def test_description_is_held_if_all_its_sound_is() -> None:
    held, talking, off = "m=audio 2 RTP/AVP 0\r\na=sendonly", "m=audio 4 RTP/AVP 0", "m=audio 0 RTP/AVP 0"
    assert sdp(held).held
    assert sdp(held, off).held
    assert not sdp(held, talking).held
    assert not sdp("m=video 2 RTP/AVP 31", "a=inactive").held


@pytest.mark.parametrize(
    ("value", "rtcp"),
    [("53020", ("192.0.2.1", 53020)), ("53020 IN IP6 2001:DB8::2", ("2001:db8::2", 53020)), ("none", None)],
)
def test_rtcp_of_rfc_3605(value: str, rtcp: tuple[str, int] | None) -> None:
    assert audio(f"a=rtcp:{value}").rtcp == rtcp


def test_rtcp_mux() -> None:
    assert audio("a=rtcp-mux").rtcp_mux
    assert not audio().rtcp_mux


def test_ptime() -> None:
    assert audio("a=ptime:30").ptime == 30


@pytest.mark.parametrize(
    ("media_line", "session_lines", "media_lines", "encrypted"),
    [
        ("m=audio 2 RTP/AVP 0", [], [], False),
        ("m=audio 2 RTP/SAVP 0", [], [], True),
        ("m=audio 2 UDP/TLS/RTP/SAVPF 0", [], [], True),
        (
            "m=audio 2 RTP/AVP 0",
            [],
            ["a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"],
            True,
        ),
        ("m=audio 2 RTP/AVP 0", ["a=fingerprint:sha-256 19:E2"], [], True),
    ],
)
def test_encrypted(media_line: str, session_lines: list[str], media_lines: list[str], encrypted: bool) -> None:
    assert sdp(*session_lines, media_line, *media_lines).media[0].encrypted is encrypted


def test_candidates_of_rfc_8839() -> None:
    media = audio(
        "a=candidate:1 1 UDP 2130706431 203.0.113.141 8998 typ host",
        "a=candidate:2 1 UDP 1694498815 192.0.2.3 45664 typ srflx raddr 203.0.113.141 rport 8998",
        "a=candidate:1 2 UDP 2130706430 203.0.113.141 8999 typ host",
        "a=candidate:3 1 TCP 2105458943 203.0.113.141 9 typ host tcptype active",
        "a=candidate:broken",
    )
    assert media.candidates == (("203.0.113.141", 8998), ("192.0.2.3", 45664))


def test_fax_has_no_payload_types() -> None:
    media = sdp("m=image 4000 udptl t38", "a=T38FaxVersion:0").media[0]
    assert (media.kind, media.port, media.proto, media.formats) == ("image", 4000, "UDPTL", {})


@pytest.mark.parametrize(
    "line", ["m=audio", "m=", "m=audio x RTP/AVP 0", "m=audio 70000 RTP/AVP 0", "m=audio -2 RTP/AVP 0"]
)
def test_unreadable_media_line_is_as_good_as_refused(line: str) -> None:
    assert [media.port for media in sdp(line, "m=audio 2 RTP/AVP 0").media] == [0, 2]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "not sdp"),
        (b"hello", "not sdp"),
        (b"v=0\r\n" + b"m=audio 2 RTP/AVP 0\r\n" * (MAX_MEDIA + 1), "too many media"),
        (b"a=" * 40_000, "too long"),
    ],
)
def test_refused(body: bytes, kind: str) -> None:
    with pytest.raises(SdpError) as caught:
        parse(body)
    assert caught.value.kind == kind


def carried(content_type: str, body: str) -> SessionDescription | None:
    head = "INVITE sip:a@b SIP/2.0\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n"
    return session_description(parse_message(f"{head}{content_type}\r\n\r\n{body}".encode()))


BODY = "v=0\r\nm=audio 5004 RTP/AVP 0\r\n"
# RFC 5621 section 3.1 shows such a body: SDP beside something else.
MULTIPART = (
    "preamble\r\n--boundary1\r\nContent-Type: text/plain\r\n\r\nv=0\r\n\r\n"
    "--boundary1\r\nContent-Disposition: session\r\ncontent-type:\r\n application/SDP; x=y\r\n\r\n"
    f"{BODY}\r\n--boundary1--\r\n"
)
NESTED = f"--outer\r\nContent-Type: multipart/alternative; boundary=boundary1\r\n\r\n{MULTIPART}\r\n--outer--"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("Content-Type: application/sdp", BODY),
        ("c: Application/SDP ;charset=utf-8", BODY),
        ("X-None: 1", BODY),
        ("Content-Type: multipart/mixed;boundary=boundary1", MULTIPART),
        ('Content-Type: multipart/mixed; boundary="boundary1"', MULTIPART.replace("\r\n", "\n")),
        ("Content-Type: multipart/mixed;boundary=outer", NESTED),
    ],
)
def test_description_is_found(content_type: str, body: str) -> None:
    found = carried(content_type, body)
    assert found is not None
    assert [(media.port, media.proto) for media in found.media] == [(5004, "RTP/AVP")]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("Content-Type: application/sdp", ""),
        ("Content-Type: application/dtmf-relay", "Signal=1"),
        ("Content-Type: multipart/mixed", MULTIPART),
        ("Content-Type: multipart/mixed;boundary=other", MULTIPART),
        (
            "Content-Type: multipart/mixed;boundary=boundary1",
            "--boundary1--\r\nContent-Type: application/sdp\r\n\r\n" + BODY,
        ),
    ],
)
def test_no_description(content_type: str, body: str) -> None:
    assert carried(content_type, body) is None


LINES = st.sampled_from(
    ["v=0", "o=- 1 1 IN IP4 x", "c=IN IP4 1.2.3.4", "c=", "m=audio 1 RTP/AVP 0 96", "a=rtpmap:96 x/8000", "a=rtpmap:"]
)


@given(st.binary(max_size=300) | st.lists(LINES | st.text(max_size=20), max_size=20).map("\r\n".join).map(str.encode))
def test_any_bytes_give_a_description_or_the_one_error(body: bytes) -> None:
    try:
        description = parse(body)
    except SdpError:
        return
    for media in description.media:
        assert 0 <= media.port <= 65535
        assert all(0 <= number < 128 for number in media.formats)
