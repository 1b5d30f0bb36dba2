"""SIP messages with SDP as phones write them: requests, responses, offers and answers of one dialog."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .ip import Endpoint
from .media import CN, EVENT, PCMA, PCMU

ENCODINGS = {PCMU: "PCMU/8000", PCMA: "PCMA/8000", CN: "CN/8000", EVENT: "telephone-event/8000", 98: "PCMA/8000"}


@dataclass(frozen=True)
class Party:
    """One end of a call: its number and name, where it speaks SIP, where its SDP says that it hears."""

    number: str
    name: str
    sip: Endpoint
    media: Endpoint
    tag: str
    pt: int = PCMA


@dataclass(frozen=True)
class Signal:
    """One SIP message at the time it crossed the wire."""

    time_ns: int
    source: Endpoint
    target: Endpoint
    text: bytes


def sdp(
    media: Endpoint,
    *,
    pts: tuple[int, ...] = (PCMA, EVENT),
    direction: str = "sendrecv",
    session: int = 1,
    more: tuple[str, ...] = (),
) -> str:
    """A session with one audio line (RFC 8866); `more` are further attribute lines."""
    family = "IP6" if ":" in media.address else "IP4"
    lines = [
        "v=0",
        f"o=- 7 {session} IN {family} {media.address}",
        "s=-",
        f"c=IN {family} {media.address}",
        "t=0 0",
        f"m=audio {media.port} RTP/AVP {' '.join(map(str, pts))}",
        *(f"a=rtpmap:{pt} {ENCODINGS[pt]}" for pt in pts),
        *(["a=fmtp:101 0-16"] if EVENT in pts else []),
        f"a={direction}",
        *more,
    ]
    return "\r\n".join(lines) + "\r\n"


@dataclass(frozen=True)
class Dialog:
    """What the messages of one dialog share; `via` is the transport's name in the Via header."""

    call_id: str
    caller: Party
    callee: Party
    via: str = "UDP"
    extra: tuple[str, ...] = ()

    def invite(self, time_ns: int, body: str = "", *, cseq: int = 1, again: bool = False) -> Signal:
        """An INVITE; `again` puts it inside the dialog (re-INVITE)."""
        return self.request(time_ns, "INVITE", body, cseq=cseq, inside=again)

    def request(
        self,
        time_ns: int,
        method: str,
        body: str = "",
        *,
        cseq: int = 1,
        inside: bool = True,
        backward: bool = False,
        extra: tuple[str, ...] = (),
    ) -> Signal:
        """A request of the caller, or `backward` of the callee."""
        here, there = (self.callee, self.caller) if backward else (self.caller, self.callee)
        first = f"{method} sip:{there.number}@{_host(there.sip)} SIP/2.0"
        to = _name(there, there.tag if inside else "")
        head = self._head(first, cseq, method, _name(here, here.tag), to, here)
        return Signal(time_ns, here.sip, there.sip, _text((*head, *self.extra, *extra), here, body))

    def reply(
        self,
        time_ns: int,
        status: str,
        body: str = "",
        *,
        method: str = "INVITE",
        cseq: int = 1,
        backward: bool = False,
        extra: tuple[str, ...] = (),
    ) -> Signal:
        """A response of the callee (`200 OK`), or `backward` of the caller."""
        here, there = (self.caller, self.callee) if backward else (self.callee, self.caller)
        to = _name(here, "" if status.startswith("100") else here.tag)
        head = self._head(f"SIP/2.0 {status}", cseq, method, _name(there, there.tag), to, there)
        return Signal(time_ns, here.sip, there.sip, _text((*head, *extra), here, body))

    def branch_of(self, tag: str, sip: Endpoint | None = None, media: Endpoint | None = None) -> Dialog:
        """The same call as another phone answers it: a fork (RFC 3261, 13.2.2.4)."""
        callee = replace(self.callee, tag=tag, sip=sip or self.callee.sip, media=media or self.callee.media)
        return replace(self, callee=callee)

    def _head(self, first: str, cseq: int, method: str, from_: str, to: str, sender: Party) -> tuple[str, ...]:
        number = f"{sender.tag}.{sender.sip.address.replace(':', '.')}.{cseq}.{method}"
        return (
            first,
            f"Via: SIP/2.0/{self.via} {_host(sender.sip)};branch=z9hG4bK.{number}",
            f"From: {from_}",
            f"To: {to}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {cseq} {method}",
            "Max-Forwards: 70",
        )


def _text(head: tuple[str, ...], sender: Party, body: str) -> bytes:
    content = body.encode()
    lines = [*head, f"Contact: <sip:{sender.number}@{_host(sender.sip)}>", f"User-Agent: Synth {sender.number}"]
    lines += ["Content-Type: application/sdp"] if content else []
    lines += [f"Content-Length: {len(content)}", "", ""]
    return "\r\n".join(lines).encode() + content


def _name(party: Party, tag: str) -> str:
    return f'"{party.name}" <sip:{party.number}@{_host(party.sip)}>' + (f";tag={tag}" if tag else "")


def _host(endpoint: Endpoint) -> str:
    address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"{address}:{endpoint.port}"
