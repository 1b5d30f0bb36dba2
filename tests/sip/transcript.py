"""Dialogs as transcripts: what goes over the wire, and under each line the events that it must give.

    0    alice>bob INVITE 1 a/ sdp=4000
         Started
         Described caller 192.0.2.1:4000 hop 0
    1.5  bob>alice 180:INVITE 1 a/b
         Ringing
    9    ..

A line that begins with a time in seconds is a message: sender>receiver, method or status:method, CSeq number,
From-tag/To-tag. Then, in any order: `sdp=PORT` or `sdp=PORT,DIRECTION` (`sdp=HOST:PORT` if it names another host
than the sender), `branch=`, `call=`, `uri=`, and "Header: value" in quotes. `..` lets the time pass. Events of another
call than the first begin with its number.
"""

import difflib
import shlex
from dataclasses import dataclass

from tapdeck.sip.dialog import (
    Answered,
    Call,
    Described,
    Dialogs,
    Digits,
    Ended,
    Event,
    Party,
    Started,
    Transferred,
)
from tapdeck.sip.message import Message, parse

SECOND = 1_000_000_000
HOSTS = {
    "alice": "192.0.2.1",
    "bob": "192.0.2.2",
    "carol": "192.0.2.3",
    "proxy": "192.0.2.10",
    "pbx": "192.0.2.20",
    "relay": "192.0.2.30",
}


def sdp(words: str, sender: str) -> str:
    where, _, direction = words.partition(",")
    host, colon, port = where.rpartition(":")
    address = HOSTS[host if colon else sender]
    lines = [
        "v=0",
        f"o=- {port} 1 IN IP4 {address}",
        "s=-",
        f"c=IN IP4 {address}",
        "t=0 0",
        f"m=audio {port} RTP/AVP 0",
    ]
    return "\r\n".join([*lines, f"a={direction}", ""] if direction else [*lines, ""])


@dataclass(frozen=True)
class Line:
    """One message of a transcript."""

    time: int
    sender: str
    receiver: str
    message: Message


def read_line(text: str) -> Line:
    when, ends, what, number, tags, *rest = shlex.split(text)
    sender, _, receiver = ends.partition(">")
    status, _, method = what.rpartition(":")
    from_tag, _, to_tag = tags.partition("/")
    options = dict(word.split("=", 1) for word in rest if ": " not in word)
    body = sdp(options["sdp"], sender) if "sdp" in options else options.get("body", "").replace("|", "\r\n")
    transaction = "INVITE" if method in ("ACK", "CANCEL") else method
    branch = options.get("branch", f"z9hG4bK-{number}-{transaction}-{receiver if status else sender}")
    reason = {"180": "Ringing", "200": "OK", "486": "Busy Here", "487": "Request Terminated"}.get(status, "Reason")
    lines = [
        f"SIP/2.0 {status} {reason}" if status else f"{method} {options.get('uri', 'sip:bob@example.com')} SIP/2.0",
        f"Via: SIP/2.0/UDP {HOSTS[receiver if status else sender]};branch={branch}",
        f"From: <sip:{options.get('from', 'alice')}@example.com>" + (f";tag={from_tag}" if from_tag else ""),
        "To: <sip:bob@example.com>" + (f";tag={to_tag}" if to_tag else ""),
        f"Call-ID: {options.get('call', 'one')}",
        f"CSeq: {number} {method}",
        *(word for word in rest if ": " in word),
        *(["Content-Type: application/sdp"] if "sdp" in options else []),
        f"Content-Length: {len(body)}",
    ]
    raw = "\r\n".join([*lines, "", body])
    return Line(int(float(when) * SECOND), sender, receiver, parse(raw.encode()))


def name_event(event: Event) -> str:
    words = [type(event).__name__]
    match event:
        case Described():
            media = event.sdp.media[0]
            words += [event.party.value, *([event.tag] if event.party is Party.CALLEE else [])]
            words += [f"{media.address}:{media.port}", f"hop {event.hop}"]
        case Answered():
            words.append(event.tag)
        case Ended():
            words.append(event.reason)
        case Digits():
            words += [event.party.value, event.digit]
        case Transferred():
            words.append(event.target)
    name = " ".join(words)
    return name if event.call.number == 1 else f"{event.call.number} {name}"


def send(dialogs: Dialogs, line: Line) -> list[Event]:
    source, destination = (HOSTS[line.sender], 5060), (HOSTS[line.receiver], 5060)
    return dialogs.handle(line.message, line.time, source, destination)


def is_input(line: str) -> bool:
    """Whether it begins with a time; an event of a later call begins with a number too, but then has a capital."""
    words = line.split()
    return words[0].replace(".", "").isdecimal() and not words[1][0].isupper()


def play(text: str, dialogs: Dialogs | None = None, *, times: int = 1) -> list[Call]:
    """Send every message of a transcript (`times` over, as a mirror does) and compare the events; gives the calls."""
    dialogs = dialogs or Dialogs()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    seen: list[str] = []
    calls: list[Call] = []
    for line in filter(is_input, lines):
        seen.append(line)
        if line.split()[1] == "..":
            events = dialogs.advance(int(float(line.split()[0]) * SECOND))
        else:
            events = [event for _ in range(times) for event in send(dialogs, read_line(line))]
        seen += map(name_event, events)
        calls += [event.call for event in events if isinstance(event, Started)]
    assert seen == lines, "\n".join(difflib.unified_diff(lines, seen, "expected", "seen", lineterm="", n=99))
    return calls
