"""Recording sessions (RFC 7866) that cross the wire: whose sound they hold, by their metadata (RFC 7865). Pure.

The metadata is XML of unknown senders. It is searched, not parsed: no entity is ever expanded.
"""

import html
import re

from . import parties
from .headers import decode, parse_address
from .message import Message

MAX_METADATA = 65_536
MAX_PARTICIPANTS = 16

_METADATA = re.compile(rb"<(?:[\w-]{1,32}:)?recording\b[^>]{0,1024}>(.*)", re.DOTALL)
_NAME_ID = re.compile(
    r"<(?:[\w-]{1,32}:)?nameID\b[^>]{0,512}?\baor\s{0,8}=\s{0,8}[\"']([^\"'<>]{1,512})[\"'][^>]{0,512}>"
    r"(?:\s{0,64}<(?:[\w-]{1,32}:)?name\b[^>]{0,256}>([^<]{0,256})<)?"
)
_OFFERS = re.compile(r"(?:^|[,\s;+])(?:siprec|sip\.src|sip\.srs)(?:$|[,\s;=])", re.IGNORECASE)


def is_recording_session(message: Message) -> bool:
    """Whether a request begins or changes a recording session (RFC 7866 section 6.1.1)."""
    return any(_OFFERS.search(message.get(name)) for name in ("require", "contact"))


def participants(message: Message) -> tuple[str, ...]:
    """Those whose call is recorded, as `name number`; empty for what is no recording session."""
    if not is_recording_session(message):
        return ()
    found = _METADATA.search(message.body[:MAX_METADATA])
    if found is None:
        return ()
    people = []
    for aor, name in _NAME_ID.findall(decode(found[1])):
        number = parties.number_of(parse_address(f"<{html.unescape(aor)}>"))
        people.append(f"{html.unescape(name).strip()} {number}".strip())
        if len(people) >= MAX_PARTICIPANTS:
            break
    return tuple(dict.fromkeys(people))
