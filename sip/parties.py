"""Who talks to whom: numbers and names out of SIP headers (RFC 3261, 3325, 3966, 5806; Remote-Party-ID as in use)."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from .headers import Address, parse_address, parse_uri
from .message import Message

_VISUAL_SEPARATORS = str.maketrans("", "", "-.()")  # RFC 3966 section 5.1.1
MAX_NUMBER = 256
_MAX_DIVERSIONS = 16
_CAUSE = re.compile(r";\s*cause\s*=\s*[3-6][0-9][0-9]", re.IGNORECASE)
_REASON = re.compile(r"reason\s*=\s*sip\s*;\s*cause\s*=\s*[3-6][0-9][0-9]", re.IGNORECASE)


@dataclass(frozen=True)
class Identity:
    """A party as the signalling names it; any part may be empty. Text is as received: not safe for files or screens."""

    number: str
    name: str
    uri: str


def number_of(address: Address) -> str:
    """What a caller would dial: the user part without parameters, the host where there is no user."""
    user = address.user.partition(";")[0][:MAX_NUMBER]
    if parse_uri(address.uri).scheme == "tel":
        user = user.translate(_VISUAL_SEPARATORS)
    return user or address.host[:MAX_NUMBER]


def identity_of(address: Address) -> Identity:
    """The party an address names."""
    return Identity(number_of(address), address.display[:MAX_NUMBER], address.uri[: 2 * MAX_NUMBER])


def asserted(message: Message, party: str) -> list[Identity]:
    """What trusted elements say of the message's sender: P-Asserted-Identity (RFC 3325), then Remote-Party-ID.

    `party` is the Remote-Party-ID role that the sender has, "calling" or "called".
    """
    identities = [identity_of(parse_address(value)) for value in message.values("p-asserted-identity")]
    for value in message.values("remote-party-id"):
        address = parse_address(value)
        if address.params.get("party", party).lower() == party:
            identities.append(identity_of(address))
    return identities


def first_filled(identities: list[Identity]) -> Identity:
    """Number, name and URI, each from the first identity that has it."""
    return Identity(
        next((identity.number for identity in identities if identity.number), ""),
        next((identity.name for identity in identities if identity.name), ""),
        next((identity.uri for identity in identities if identity.uri), ""),
    )


def caller_of(invite: Message) -> Identity:
    """The caller: asserted identities over From, which an anonymous caller leaves empty (RFC 3323)."""
    return first_filled([*asserted(invite, "calling"), identity_of(invite.from_)])


def callee_of(message: Message) -> Identity:
    """The party called: To, and the Request-URI where To names nobody."""
    to = identity_of(message.to)
    dialled = dialled_number(message)
    return Identity((message.to.user.partition(";")[0] and to.number) or dialled or to.number, to.name, to.uri)


def dialled_number(message: Message) -> str:
    """The user part of the Request-URI; "" in a response."""
    uri = parse_uri(message.uri)
    user = uri.user.partition(";")[0][:MAX_NUMBER]
    return user.translate(_VISUAL_SEPARATORS) if uri.scheme == "tel" else user


def diversions(invite: Message) -> tuple[str, ...]:
    """The numbers that sent the call on, the last one first: Diversion (RFC 5806), and History-Info (RFC 7044)."""
    told = [number_of(parse_address(value)) for value in invite.values("diversion")]
    return tuple(dict.fromkeys([*told, *_history(invite)]))[:_MAX_DIVERSIONS]


def _history(invite: Message) -> list[str]:
    """Who sent the call on to somebody else, by History-Info, the last one first.

    An entry did so if it bears the reason (RFC 7044 section 5), or if a later one says that it was mapped from it
    (`mp`, section 10.4) or why it got the call (`cause`, RFC 4458).
    """
    entries = [parse_address(value) for value in invite.values("history-info")]
    mapped = {entry.params["mp"] for entry in entries if entry.params.get("mp")}
    found = []
    for number, entry in enumerate(entries):
        following = entries[number + 1 : number + 2]
        caused = any(_CAUSE.search(one.uri.partition("?")[0]) for one in following)
        bears = _REASON.search(unquote(entry.uri.partition("?")[2]))
        if caused or bears or entry.params.get("index") in mapped:
            found.append(number_of(entry))
    return found[::-1]


def referred_by(invite: Message) -> str:
    """The number of who sent the caller here (RFC 3892), "" if nobody did."""
    value = invite.get("referred-by")
    return number_of(parse_address(value)) if value else ""
