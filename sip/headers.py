"""The grammar inside SIP header values: lists, addresses, URIs, Via and CSeq (RFC 3261 section 25).

Everything here is tolerant and total: any text gives a value, and an unreadable field is empty or 0. Only
`parse_cseq` says "no".
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

# RFC 3261 section 7.3.3, and the compact forms registered since (RFC 3265, 3515, 3841, 3892, 4028, 4474).
LONG_NAMES = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "n": "identity-info",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}

MAX_VALUES = 256
MAX_TAG = 512

TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+\Z")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_CSEQ = re.compile(r"\s*([0-9]{1,10})\s+(\S+)\s*\Z")
_MAX_CSEQ = 2**31  # RFC 3261 section 8.1.1.5


class CSeq(NamedTuple):
    """A request's place in its dialog: the number rises with each new request (RFC 3261 section 20.16)."""

    number: int
    method: str


class Via(NamedTuple):
    """One hop of a request's way; `port` is 0 where none is written (RFC 3261 section 20.42)."""

    transport: str
    host: str
    port: int
    branch: str


class Uri(NamedTuple):
    """A URI taken apart: `user` and `host` are percent-decoded, `port` is 0 where none is written."""

    scheme: str
    user: str
    host: str
    port: int


@dataclass(frozen=True)
class Address:
    """A name-addr or addr-spec with its header parameters (RFC 3261 section 20.10).

    `user` holds all before the "@" but the password, parameters of a telephone number included; the names in
    `params` are lower-case.
    """

    display: str
    uri: str
    user: str
    host: str
    params: Mapping[str, str]

    @property
    def tag(self) -> str:
        """The dialog tag, "" where there is none (RFC 2543 peers send none)."""
        return self.params.get("tag", "")[:MAX_TAG]


def decode(raw: bytes) -> str:
    """Text of header bytes: UTF-8 as the RFC asks, Latin-1 as old phones send it."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _pieces(text: str, separator: str) -> Iterator[str]:
    """Cut at separators that stand outside "quotes" and <brackets>."""
    if '"' not in text and "<" not in text and ">" not in text:
        yield from text.split(separator)
        return
    start, quoted, depth, skip = 0, False, 0, False
    for position, char in enumerate(text):
        if skip:
            skip = False
        elif quoted:
            skip = char == "\\"
            quoted = char != '"'
        elif char == '"':
            quoted = True
        elif char in "<>":
            depth = 1 if char == "<" else 0
        elif char == separator and not depth:
            yield text[start:position]
            start = position + 1
    yield text[start:]


def split_values(text: str) -> list[str]:
    """The first `MAX_VALUES` members of a comma-separated value, empty ones left out (RFC 3261 section 7.3.1)."""
    return [piece.strip() for piece in islice(_pieces(text, ","), MAX_VALUES) if piece.strip()]


def unquote_string(text: str) -> str:
    """A display name or parameter value without its quotes and backslash escapes."""
    text = text.strip()
    if not text.startswith('"'):
        return text
    inner = text[1:-1] if text.endswith('"') and len(text) > 1 else text[1:]
    return _ESCAPED.sub(r"\1", inner)


def parse_params(text: str) -> dict[str, str]:
    """`;a=1;b` as {"a": "1", "b": ""}; of a repeated name the first counts."""
    params: dict[str, str] = {}
    for piece in _pieces(text, ";"):
        name, _, value = piece.partition("=")
        if name.strip():
            params.setdefault(name.strip().lower(), unquote_string(value))
    return params


def parse_address(text: str) -> Address:
    """The address in one From, To, Contact, Refer-To, P-Asserted-Identity... value.

    A list has to be split first: some phones leave a name with a comma in it unquoted (RFC 4475 section 3.1.2.15).
    """
    value = text.strip()
    opening = _bracket(value)
    if opening >= 0:
        display = unquote_string(value[:opening])
        uri, _, rest = value[opening + 1 :].partition(">")
    else:
        # RFC 3261 section 20: without brackets, what follows the first semicolon belongs to the header, not to the URI.
        display = ""
        uri, _, rest = value.partition(";")
    uri = uri.strip()
    parts = parse_uri(uri)
    return Address(display, uri, parts.user, parts.host, parse_params(rest))


def _bracket(value: str) -> int:
    """Where the "<" of a name-addr stands, -1 if there is none; one inside a quoted name does not count."""
    end = 0
    if value.startswith('"'):
        end = len(value) - len(_after_quoted(value))
    return value.find("<", end)


def _after_quoted(value: str) -> str:
    match = re.match(r'"(?:[^"\\]|\\.)*+"', value, re.DOTALL)
    return value[match.end() :] if match else value


def parse_uri(uri: str) -> Uri:
    """A sip:, sips: or tel: URI, or a bare `user@host`; of others only the scheme is known (RFC 3261 section 19.1)."""
    scheme, colon, rest = uri.strip().strip("<>").partition(":")
    scheme = scheme.strip().lower()
    if scheme == "tel":
        return Uri(scheme, _percent_decode(rest.partition(";")[0].strip()), "", 0)
    if scheme not in ("sip", "sips"):
        if colon and "@" not in scheme and not rest[:5].isdecimal():
            return Uri(scheme, "", "", 0)
        scheme, rest = "", uri.strip()
    user, hostport = _split_user(rest)
    host, port = parse_hostport(re.split(r"[;?]", hostport, maxsplit=1)[0])
    return Uri(scheme, _percent_decode(user.partition(":")[0].strip()), host, port)


def _split_user(text: str) -> tuple[str, str]:
    """Cut at the "@" that ends the user part, which itself may hold ";", "?" and, from careless phones, another "@"."""
    user, at, rest = text.partition("@")
    if not at:
        return "", text
    ahead = re.split(r"[;?]", rest, maxsplit=1)[0]
    if "@" in ahead:
        cut = ahead.rindex("@")
        return f"{user}@{rest[:cut]}", rest[cut + 1 :]
    return user, rest


def parse_hostport(text: str) -> tuple[str, int]:
    """`host`, `host:port`, `[ipv6]:port` as host in lower case and port, 0 where none is readable."""
    text = text.strip()
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.strip().removeprefix(":")
    else:
        host, _, port = text.partition(":")
    return host.strip().lower(), parse_number(port, 65535)


def parse_number(text: str, most: int) -> int:
    """A non-negative decimal number up to `most`; 0 for anything else."""
    text = text.strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        return 0
    return int(text) if int(text) <= most else 0


def _percent_decode(text: str) -> str:
    return decode(unquote_to_bytes(text)) if "%" in text else text


def parse_via(text: str) -> Via:
    """One Via value, spaces anywhere (`SIP / 2.0 / UDP host ; branch=x`)."""
    sent, _, rest = text.partition(";")
    transport, host, *_ = [*sent.rpartition("/")[2].split(None, 1), "", ""]
    name, port = parse_hostport(host)
    return Via(transport.upper(), name, port, parse_params(rest).get("branch", "")[:MAX_TAG])


def parse_cseq(text: str) -> CSeq | None:
    """`314159 INVITE`; None where a part is missing or the number is 2**31 or more (RFC 3261 section 8.1.1.5)."""
    match = _CSEQ.match(text)
    if match is None or int(match[1]) >= _MAX_CSEQ:
        return None
    return CSeq(int(match[1]), match[2])
