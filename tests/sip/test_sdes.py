"""`a=crypto` lines: the examples of RFC 4568, what phones write, and what nobody should."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sip.sdes import KEY_AND_SALT, MAX_KEYS, MAX_LINES, Crypto, parse, parse_lines
from tapdeck.sip.sdp import parse as parse_sdp

KEY = bytes(range(16)), bytes(range(100, 114))
TEXT = base64.b64encode(b"".join(KEY)).decode()
SUITE = "AES_CM_128_HMAC_SHA1_80"


def line(text: str) -> Crypto:
    found = parse(text)
    assert found is not None
    return found


def test_the_example_of_rfc_4568() -> None:
    """Section 4: "inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20|1:32"."""
    found = line(f"1 {SUITE} inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20|1:32")
    (key,) = found.keys
    assert (found.tag, found.suite, found.usable) == (1, SUITE, True)
    assert key.key + key.salt == b"wDfvg&T+)xG7@fb5jU,RaA}\\|p0%*#"
    assert key.mki == (1).to_bytes(32, "big")


@pytest.mark.parametrize(
    ("rest", "mki"),
    [
        ("", b""),
        ("|2^31", b""),
        ("|1000000", b""),
        ("|1:4", b"\0\0\0\1"),
        ("|2^48|258:2", b"\1\2"),
        ("|66051:3", b"\1\2\3"),
    ],
)
def test_lifetime_and_identifier(rest: str, mki: bytes) -> None:
    (key,) = line(f"7 {SUITE} inline:{TEXT}{rest}").keys
    assert ((key.key, key.salt), key.mki) == (KEY, mki)


def test_several_keys_and_parameters() -> None:
    text = f"2 aes_cm_128_hmac_sha1_80 inline:{TEXT}|2^20|1:4; inline:{TEXT}|2^20|2:4 KDR=4 UNENCRYPTED_SRTP WSH=64"
    found = line(text)
    assert [key.mki[-1] for key in found.keys] == [1, 2]
    assert (found.suite, found.rate, found.clear, found.unauthenticated) == (SUITE, 4, True, False)
    assert not line(f"1 {SUITE} inline:{TEXT} UNAUTHENTICATED_SRTP").usable


@pytest.mark.parametrize("suite", KEY_AND_SALT)
def test_each_suite_has_keys_of_one_length(suite: str) -> None:
    size = sum(KEY_AND_SALT[suite])
    for length in range(size - 2, size + 3):
        text = base64.b64encode(bytes(length)).decode().rstrip("=")  # some forget the padding
        assert line(f"1 {suite} inline:{text}").usable is (length == size)


def test_the_names_of_the_drafts() -> None:
    text = base64.b64encode(bytes(46)).decode()
    assert line(f"1 AES_CM_256_HMAC_SHA1_80 inline:{text}").suite == "AES_256_CM_HMAC_SHA1_80"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        f"1 {SUITE}",
        f"1 {SUITE} {TEXT}",
        f"x {SUITE} inline:{TEXT}",
        f"-1 {SUITE} inline:{TEXT}",
        f"1 A=B inline:{TEXT}",
    ],
)
def test_what_is_no_line(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("rest", ["|2^20|1:4|9", "|1:0", "|1:129", "|256:1", "|x", "|2^20|2^20", "|:", "|1:x", "!"])
def test_what_is_no_key(rest: str) -> None:
    assert not line(f"1 {SUITE} inline:{TEXT}{rest}").usable


def test_a_suite_nobody_knows_has_no_keys() -> None:
    assert line(f"1 F8_128_HMAC_SHA1_80 inline:{TEXT}").keys == ()


def test_lists_are_bounded() -> None:
    many = ";".join([f"inline:{TEXT}"] * 1000)
    assert len(line(f"1 {SUITE} {many}").keys) == MAX_KEYS
    assert len(parse_lines([f"1 {SUITE} inline:{TEXT}"] * 1000)) == MAX_LINES


def test_lines_of_a_description() -> None:
    lines = (
        "v=0",
        "m=audio 4000 RTP/SAVP 8",
        f"a=crypto:1 {SUITE} inline:{TEXT}",
        "a=crypto:x",
        "m=video 2 RTP/AVP 31",
    )
    body = "\r\n".join(lines)
    sound, picture = parse_sdp(body.encode()).media
    assert [one.tag for one in sound.crypto] == [1]
    assert picture.crypto == ()


def test_no_key_shows_in_a_repr() -> None:
    found = parse_sdp(f"v=0\r\nm=audio 4000 RTP/SAVP 8\r\na=crypto:1 {SUITE} inline:{TEXT}\r\n".encode())
    assert SUITE in repr(found)
    for secret in (TEXT, repr(KEY[0])[2:20], repr(KEY[1])[2:12]):
        assert secret not in repr(found)


@given(
    st.text(max_size=200) | st.from_regex(r"[0-9]{1,3} AES_CM_128_HMAC_SHA1_(80|32) inline:[A-Za-z0-9+/=|:;^ ]{0,80}")
)
def test_any_text_gives_a_line_or_none(text: str) -> None:
    found = parse(text)
    if found is not None:
        assert found.tag >= 0
        assert 0 <= found.rate <= 24
        for key in found.keys:
            assert (len(key.key), len(key.salt)) == KEY_AND_SALT[found.suite]
            assert len(key.mki) <= 128


@given(
    tag=st.integers(0, 999_999_999),
    suite=st.sampled_from(sorted(KEY_AND_SALT)),
    mki=st.none() | st.integers(1, 128).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    data=st.data(),
)
def test_what_is_written_is_read(tag: int, suite: str, mki: bytes | None, data: st.DataObject) -> None:
    size = sum(KEY_AND_SALT[suite])
    raw = data.draw(st.binary(min_size=size, max_size=size))
    more = "" if mki is None else f"|{int.from_bytes(mki, 'big')}:{len(mki)}"
    (key,) = line(f"{tag} {suite} inline:{base64.b64encode(raw).decode()}{more}").keys
    assert (key.key + key.salt, key.mki) == (raw, mki or b"")
