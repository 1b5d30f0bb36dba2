"""What names the call that a leg is part of: RFC 3891, RFC 3911, headers of PBXs and session border controllers. Pure.

The settings are made from this; it imports nothing of ours.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .message import Message

MAX_CALL_ID = 256
MAX_LINKS = 8
MIN_LINK = 8
"""Characters that a value must have, at least, to name one call and not, say, a site."""

LINK_HEADERS = (
    *("x-call-id", "x-callid", "x-original-call-id", "x-orig-call-id", "x-inbound-call-id", "x-cid"),
    *("x-correlation-id", "x-session-id", "x-conversation-id", "x-linkedid", "x-asterisk-linkedid"),
    *(
        "x-genesys-calluuid",
        "x-ucid",
        "x-ani-ucid",
        "cisco-guid",
        "x-broadworks-correlation-info",
        "av-global-session-id",
    ),
)
"""Known ones, in lower case."""


def call_named(value: str) -> str:
    """The Call-ID in a Replaces or Join value."""
    return value.partition(";")[0].strip()[:MAX_CALL_ID]


def links_of(message: "Message", names: Iterable[str]) -> tuple[str, ...]:
    """What headers of these names (lower case) say that other legs of the call say too; and the ICID of RFC 7315."""
    found = [message.get(name) for name in names]
    charging = re.search(r"icid-value\s*=\s*\"?([^\";]+)", message.get("p-charging-vector"))
    found.append(charging[1] if charging else "")
    values = (value.strip()[:MAX_CALL_ID] for value in found)
    return tuple(dict.fromkeys(value for value in values if len(value) >= MIN_LINK))[:MAX_LINKS]
