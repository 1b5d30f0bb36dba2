"""Keys pressed, as a SIP message's body tells them (INFO, RFC 2976 and 6086; KPML, RFC 4730), and how to hide them."""

import re

from .headers import parse_params
from .message import BLANK_LINE, KEEP_ALIVE, Message

HIDDEN = "masked"
"""The name of a key that nobody can tell any more."""
FLASH = "flash"
_MARK = "X"
"""What stands in a body in place of a key, as often as that has characters."""

# RFC 2976 names no format; these are the two that phones send. Cisco's numbers its keys on to 16, the hook flash.
_RELAY_KEYS = {"10": "*", "11": "#", "12": "A", "13": "B", "14": "C", "15": "D", "16": FLASH, "FLASH": FLASH}
_KEYS = frozenset("0123456789*#ABCD")
_MOST = 256

_TYPE = re.compile(
    rb"^(?:content-type|c)[ \t]*:[^a-z0-9\r\n]*"
    rb"(?:application/(?:[a-z.+-]*(?:dtmf|digits|kpml|telephone-event)|vnd\.)|multipart/)",
    re.IGNORECASE | re.MULTILINE,
)
_FOLD = re.compile(rb"\r*\n[ \t]+")
_QUOTED = re.compile(rb"(?<=digits=\")[^\"]*|(?<=digits=')[^']*", re.IGNORECASE)
_SIGNAL = re.compile(rb"(?:^|[\r\n;])[ \t]*(?:signal|d|digits?)[ \t]*=[ \t]*[^\r\n;]*", re.IGNORECASE)
_PLAIN = re.compile(rb"(?:^|(?<=[\r\n]))[ \t]*[0-9A-D*#]{1,64}[ \t]*(?=[\r\n]|\Z)", re.IGNORECASE)
_ODD = re.compile("[^\t\r\n -~]")
"""What no phone writes beside a key; Python takes some of it for white space."""


def digit_of(message: Message) -> str:
    """Return the key pressed, `flash` for the hook, "" where there is none.

    Both content types are in use with both kinds of body: the key alone, and `Signal=` with a `Duration=`.
    """
    if message.content_type not in ("application/dtmf", "application/dtmf-relay"):
        return ""
    text = message.body[:_MOST].decode("latin-1")
    if _ODD.search(text):
        return ""
    if "=" in text:
        text = parse_params(re.sub(r"[\r\n]+", ";", text)).get("signal", "")
    elif message.content_type == "application/dtmf-relay":
        return ""
    key = text.strip().upper()
    if key and not key.strip(_MARK):
        return HIDDEN
    key = _RELAY_KEYS.get(key, key)
    return key if key in _KEYS or key == FLASH else ""


def masked(message: bytes) -> bytes:
    """Return a SIP message with every key that its body tells replaced by as many `X`; no length changes."""
    begin = len(message) - len(message.lstrip(KEEP_ALIVE))
    blank = BLANK_LINE.search(message, begin)
    if blank is None or not _TYPE.search(_FOLD.sub(b" ", message[begin : blank.start()])):
        return message
    head, body = message[: blank.end()], message[blank.end() :]
    for pattern in (_SIGNAL, _PLAIN, _QUOTED):
        body = pattern.sub(_hidden, body)
    return head + body


def _hidden(found: re.Match[bytes]) -> bytes:
    """Return a line without its key; the name before a `=` stays."""
    name, sign, value = found[0].rpartition(b"=")
    return name + sign + re.sub(rb"[^\s]", _MARK.encode(), value)
