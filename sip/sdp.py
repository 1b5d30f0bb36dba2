"""Session descriptions: what each party says about where it wants its media (RFC 8866, offer/answer RFC 3264).

Tolerant: lines that make no sense are left out; a body in which no line looks like SDP is an `SdpError`.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from .headers import decode, parse_number, parse_params
from .message import Message
from .sdes import Crypto, parse_lines

MAX_BODY = 65_535
MAX_MEDIA = 64
MAX_FORMATS = 128
MAX_ATTRIBUTES = 1_000  # of the session, and of each m-line
MAX_CANDIDATES = 64
_MAX_NESTING = 3
_MAX_PARTS = 64

_LINE = re.compile(r"([a-z])\s*=\s*(.*)")
_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")


class SdpError(ValueError):
    """A body that is no session description; `kind` is a short stable reason to count by."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True)
class Format:
    """What a payload type means: encoding name in upper case ("" if unknown), clock rate in Hz (0 if unknown)."""

    name: str
    rate: int
    channels: int = 1
    fmtp: str = ""


# RFC 3551 section 6, tables 4 and 5; 2 was G.721, now called G726-32, in RFC 1890, and phones still send it.
STATIC_FORMATS: Mapping[int, Format] = {
    0: Format("PCMU", 8000),
    2: Format("G726-32", 8000),
    3: Format("GSM", 8000),
    4: Format("G723", 8000),
    5: Format("DVI4", 8000),
    6: Format("DVI4", 16000),
    7: Format("LPC", 8000),
    8: Format("PCMA", 8000),
    9: Format("G722", 8000),
    10: Format("L16", 44100, 2),
    11: Format("L16", 44100),
    12: Format("QCELP", 8000),
    13: Format("CN", 8000),
    14: Format("MPA", 90000),
    15: Format("G728", 8000),
    16: Format("DVI4", 11025),
    17: Format("DVI4", 22050),
    18: Format("G729", 8000),
    25: Format("CELB", 90000),
    26: Format("JPEG", 90000),
    28: Format("NV", 90000),
    31: Format("H261", 90000),
    32: Format("MPV", 90000),
    33: Format("MP2T", 90000),
    34: Format("H263", 90000),
}


@dataclass(frozen=True)
class Media:
    """One m-line: where its sender wants to receive, and what. Port 0 means refused (RFC 3264 section 6)."""

    kind: str
    port: int
    proto: str
    address: str
    rtcp_mux: bool
    rtcp: tuple[str, int] | None
    direction: str
    held: bool
    formats: Mapping[int, Format]
    encrypted: bool
    candidates: tuple[tuple[str, int], ...]
    ptime: int
    crypto: tuple[Crypto, ...] = ()


@dataclass(frozen=True)
class SessionDescription:
    """An offer or an answer: the o= line, its session id, and the m-lines in their order."""

    origin: str
    session_id: str
    media: tuple[Media, ...]

    @property
    def held(self) -> bool:
        """Whether its sender puts the other party on hold: none of its accepted sound streams is to be heard."""
        sound = [media for media in self.media if media.kind == "audio" and media.port]
        return bool(sound) and all(media.held for media in sound)


@dataclass
class _Section:
    """The lines of the session or of one m-line while they are read."""

    media_line: str = ""
    address: str = ""
    attributes: list[tuple[str, str]] = field(default_factory=list)

    def first(self, name: str) -> str | None:
        return next((value for key, value in self.attributes if key == name), None)

    def has(self, name: str) -> bool:
        return self.first(name) is not None

    @property
    def direction(self) -> str | None:
        return next((key for key, _ in reversed(self.attributes) if key in _DIRECTIONS), None)


def parse(body: bytes) -> SessionDescription:
    """The session description in a body of type application/sdp.

    Raises:
        SdpError: of kind "too long", "too many media" or "not sdp".

    """
    if len(body) > MAX_BODY:
        raise SdpError("too long")
    session, origin = _Section(), ""
    sections = [session]
    found = False
    for letter, value in _lines(body):
        found = True
        if letter == "m":
            if len(sections) > MAX_MEDIA:
                raise SdpError("too many media")
            sections.append(_Section(media_line=value))
        elif letter == "o":
            origin = origin or value
        elif letter == "c":
            sections[-1].address = sections[-1].address or _connection(value)
        elif letter == "a" and len(sections[-1].attributes) < MAX_ATTRIBUTES:
            name, _, argument = value.partition(":")
            sections[-1].attributes.append((name.strip().lower(), argument.strip()))
    if not found:
        raise SdpError("not sdp")
    names = origin.split()
    media = tuple(_media(section, session) for section in sections[1:])
    return SessionDescription(origin, names[1] if len(names) > 1 else "", media)


def _lines(body: bytes) -> Iterator[tuple[str, str]]:
    for raw in body.replace(b"\r", b"\n").split(b"\n"):
        match = _LINE.fullmatch(decode(raw).strip())
        if match:
            yield match[1], match[2]


def normal_address(text: str) -> str:
    """An IP address in the one spelling used everywhere, IPv4 for IPv4-mapped IPv6; a host name as it is."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _connection(value: str) -> str:
    """The address of `IN IP4 224.2.1.1/127/3` (RFC 8866 section 5.7)."""
    words = value.split()
    return normal_address(words[2].partition("/")[0]) if len(words) > 2 else ""


def _media(section: _Section, session: _Section) -> Media:
    words = section.media_line.split()[: MAX_FORMATS + 3]
    words += [""] * (3 - len(words))
    address = section.address or session.address
    direction = section.direction or session.direction or "sendrecv"
    return Media(
        kind=words[0].lower(),
        port=parse_number(words[1].partition("/")[0], 65535),
        proto=words[2].upper(),
        address=address,
        rtcp_mux=section.has("rtcp-mux") or session.has("rtcp-mux"),
        rtcp=_rtcp(section.first("rtcp"), address),
        direction=direction,
        held=_is_unspecified(address) or direction in ("sendonly", "inactive"),
        formats=_formats(words[3:], section) if "RTP" in words[2].upper() else {},
        encrypted=_is_encrypted(words[2], section, session),
        candidates=_candidates(section),
        ptime=parse_number(section.first("ptime") or "", 1000),
        crypto=parse_lines(value for key, value in section.attributes if key == "crypto"),
    )


def _is_unspecified(address: str) -> bool:
    """The old way to hold: nowhere to send to (RFC 3264 section 8.4)."""
    return address in ("0.0.0.0", "::")


def _is_encrypted(proto: str, section: _Section, session: _Section) -> bool:
    """SRTP, by profile (RFC 3711), by keys in the description (RFC 4568), or by DTLS (RFC 5763)."""
    keyed = section.has("crypto") or section.has("fingerprint") or session.has("fingerprint")
    return "SAVP" in proto.upper() or keyed


def _rtcp(value: str | None, address: str) -> tuple[str, int] | None:
    """`a=rtcp:53020` or `a=rtcp:53020 IN IP4 192.0.2.1` (RFC 3605)."""
    if value is None:
        return None
    port, _, connection = value.partition(" ")
    number = parse_number(port, 65535)
    return (_connection(connection) or address, number) if number else None


def _formats(words: list[str], section: _Section) -> dict[int, Format]:
    """Each offered payload type, by rtpmap or the static table (RFC 8866 section 6.6, RFC 3551 section 6)."""
    maps = _by_payload_type(section, "rtpmap")
    parameters = _by_payload_type(section, "fmtp")
    formats: dict[int, Format] = {}
    for word in words:
        number = _payload_type(word)
        if number is None:
            continue
        fmtp = parameters.get(number, "")
        known = STATIC_FORMATS.get(number, Format("", 0))
        formats[number] = _rtpmap(maps.get(number, ""), fmtp) or Format(known.name, known.rate, known.channels, fmtp)
    return formats


def _rtpmap(value: str, fmtp: str) -> Format | None:
    """`L16/44100/2` as a format."""
    name, _, rest = value.partition("/")
    rate, _, channels = rest.partition("/")
    if not name.strip():
        return None
    return Format(name.strip().upper(), parse_number(rate, 1_000_000), parse_number(channels, 255) or 1, fmtp)


def _by_payload_type(section: _Section, name: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for key, value in section.attributes:
        number, _, rest = value.partition(" ")
        payload_type = _payload_type(number) if key == name else None
        if payload_type is not None:
            found.setdefault(payload_type, rest.strip())
    return found


def _payload_type(word: str) -> int | None:
    return int(word) if re.fullmatch("[0-9]{1,3}", word) and int(word) < 128 else None


def _candidates(section: _Section) -> tuple[tuple[str, int], ...]:
    """Where ICE may move the media to: UDP candidates of component 1 (RFC 8839 section 5.1)."""
    found: list[tuple[str, int]] = []
    for key, value in section.attributes:
        words = value.split()
        if key != "candidate" or len(words) < 6 or words[1] != "1" or words[2].lower() != "udp":
            continue
        port = parse_number(words[5], 65535)
        if port and len(found) < MAX_CANDIDATES:
            found.append((normal_address(words[4]), port))
    return tuple(found)


def session_description(message: Message) -> SessionDescription | None:
    """The session description in a message, alone or as a part of a multipart body (RFC 2046 section 5.1), or None.

    Raises:
        SdpError: as `parse` does, for a part that says it is one.

    """
    body = _find_sdp(message.get("content-type"), message.body, _MAX_NESTING)
    return None if body is None else parse(body)


def _find_sdp(content_type: str, body: bytes, depth: int) -> bytes | None:
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    if not body.strip():
        return None
    if kind == "application/sdp" or (not kind and body.lstrip()[:2] == b"v="):
        return body
    if not kind.startswith("multipart/") or not depth:
        return None
    for part_type, part in _parts(body, parse_params(parameters).get("boundary", "")):
        found = _find_sdp(part_type, part, depth - 1)
        if found is not None:
            return found
    return None


def _parts(body: bytes, boundary: str) -> Iterator[tuple[str, bytes]]:
    """Content type and content of each part; without a usable boundary nothing."""
    if not boundary:
        return
    delimiter = re.compile(rb"(?:^|\n)--" + re.escape(boundary.encode()) + rb"(--)?[ \t]*(?=\n|$)\n?")
    text = body.replace(b"\r\n", b"\n")
    marks = list(islice(delimiter.finditer(text), _MAX_PARTS))
    for number, mark in enumerate(marks):
        if mark[1]:
            return
        following = marks[number + 1] if number + 1 < len(marks) else None
        # The line end before the next delimiter belongs to the delimiter.
        part = text[mark.end() : following.start() if following else len(text)]
        head, blank, content = part.partition(b"\n\n")
        if part.startswith(b"\n"):
            head, blank, content = b"", b"\n", part[1:]
        yield _part_type(head), content if blank else b""


def _part_type(head: bytes) -> str:
    for line in re.sub(rb"\n[ \t]+", b" ", head).split(b"\n"):
        name, _, value = decode(line).partition(":")
        if name.strip().lower() in ("content-type", "c"):
            return value.strip()
    return ""
