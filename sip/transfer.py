"""Calls that are sent on: REFER and NOTIFY (RFC 3515, 3420, 3891), redirections (RFC 3261 section 8.1.3.4). Pure."""

import re
from urllib.parse import unquote_to_bytes

from . import parties
from .call import OVER, Call, Event, Forward, Party, Transfer, Transferred
from .detail import first_of
from .headers import Address, decode, parse_address, parse_number
from .link_headers import call_named
from .message import Message

MAX_TRANSFERS = 64
MAX_TARGETS = 8
CONTENTS = ("message/sipfrag", "message/sip")

_STATUS = re.compile(rb"\s*SIP/2\.0 +([1-6][0-9][0-9])(?: +([^\r\n]*))?", re.IGNORECASE)


def on_refer(call: Call, message: Message, time: int, party: Party) -> list[Event]:
    """A party asks the other to call somebody else."""
    asked = asked_for(message, time, party)
    if asked is None or call.state in OVER or not first_of(call, message, party):
        return []
    if len(call.transfers) < MAX_TRANSFERS:
        call.transfers.append(asked)
    return [Transferred(call, time, asked.target, asked.replaces)]


def on_notify(call: Call, message: Message, time: int, party: Party) -> list[Event]:
    """A party tells, perhaps, how it fares with the call that it was asked for."""
    progressed(call, message, party)
    return []


def asked_for(message: Message, time: int, party: Party) -> Transfer | None:
    """The transfer that a REFER asks for; None if it names nobody."""
    address = parse_address(message.get("refer-to"))
    target = parties.number_of(address)
    if not target:
        return None
    replaces = call_named(_uri_header(address, "replaces"))
    return Transfer(time, party, target, replaces, message.cseq.number)


def answered(call: Call, message: Message) -> None:
    """Note the final response to a REFER."""
    for transfer in reversed(call.transfers):
        if transfer.refer == message.cseq.number and message.status >= 200:
            transfer.answer = transfer.answer or message.status
            return


def progressed(call: Call, message: Message, party: Party) -> None:
    """Note what a NOTIFY says of the call that a REFER asked for: it comes from who was sent on."""
    event, _, params = message.get("event").partition(";")
    if event.strip().lower() != "refer" or message.content_type not in CONTENTS:
        return
    line = _STATUS.match(message.body[:512])
    if line is None:
        return
    named = re.search(r"(?:^|;)\s*id\s*=\s*([0-9]+)", params)
    for transfer in reversed(call.transfers):
        if transfer.by is party or (named and parse_number(named[1], 2**31) != transfer.refer):
            continue
        if transfer.outcome < 200:
            transfer.outcome = int(line[1])
            transfer.reason = decode(line[2] or b"").strip()[: parties.MAX_NUMBER]
        return


def redirected(call: Call, message: Message, time: int) -> None:
    """Note whom a failure names instead, if it is a 3xx (RFC 3261 section 21.3)."""
    if message.status >= 400:
        return
    addresses = [parse_address(value) for value in message.values("contact")[:MAX_TARGETS]]
    targets = tuple(dict.fromkeys(parties.number_of(address) for address in addresses))
    by = call.forwards[-1].targets[0] if call.forwards else call.dialled or call.callee.number
    if any(targets) and len(call.forwards) < MAX_TARGETS and targets not in [one.targets for one in call.forwards]:
        call.forwards.append(Forward(time, message.status, by, tuple(filter(None, targets))))


def _uri_header(address: Address, name: str) -> str:
    """A header that a URI asks for (RFC 3261 section 19.1.1), "" if it does not."""
    for piece in address.uri.partition("?")[2].split("&"):
        key, _, value = piece.partition("=")
        if key.strip().lower() == name:
            return decode(unquote_to_bytes(value))
    return ""
