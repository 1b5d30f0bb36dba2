"""Words for what crossed the wire: each SIP message as an arrow of a ladder, and why a stream went to no call. Pure."""

from collections import Counter
from dataclasses import dataclass, field, replace

from ..sip.dialog import Call
from ..sip.headers import parse_address
from ..sip.message import Message
from ..sip.parties import number_of
from ..sip.sdp import Media, SdpError, SessionDescription, session_description
from .datagrams import RtpColumns
from .engine import Listener
from .signalling import Heard
from .streams import Lookup
from .watch import Endpoint, Figures, Seen, StreamWatch

MAX_ARROWS = 50_000
MAX_ARROWS_OF_ONE = 300
"""Messages kept in all, and of one Call-ID; further ones are only counted."""
MAX_THREADS = 50_000
MAX_ENDPOINTS = 50_000
MAX_CALLS_AT_AN_ENDPOINT = 16
MAX_OFFERS = 10_000
MIRROR_NS = 50_000_000
"""The same message again within this time is a copy that the mirror made; later it is sent again (RFC 3261: 500 ms)."""
SECOND = 1_000_000_000

_NOBODY = "no SDP of any call names its source or destination"
_OUTSIDE_CALLS = frozenset({"REGISTER", "OPTIONS", "SUBSCRIBE", "NOTIFY", "PUBLISH", "MESSAGE"})


@dataclass(frozen=True, slots=True)
class Arrow:
    """One SIP message: when (ns), from where to where, what it is, and what is to be said of it."""

    time: int
    source: Endpoint
    destination: Endpoint
    label: str
    note: str
    transport: str
    tags: tuple[str, str] = ("", "")


@dataclass(slots=True)
class Thread:
    """All messages of one Call-ID; `more` were not kept."""

    arrows: list[Arrow] = field(default_factory=list)
    more: int = 0
    repeats: dict[int, int] = field(default_factory=dict)
    held: set[Endpoint] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Named:
    """An SDP names an endpoint: of which call, and when (ns)."""

    call_id: str
    time: int


class Overheard(Listener):
    """Collects what `inspect` tells; give it to an engine as its listener."""

    def __init__(self, streams: StreamWatch) -> None:
        self.streams = streams
        self.threads: dict[str, Thread] = {}
        self.methods: Counter[str] = Counter()
        self.endpoints: dict[Endpoint, list[Named]] = {}
        self.not_kept = 0
        self._arrows = 0
        self._offers: dict[tuple[str, int], bool] = {}

    def streamed(self, rtp: RtpColumns, found: Lookup) -> None:
        """Media packets."""
        self.streams.take(rtp, found)

    def heard(self, heard: Heard) -> None:
        """A SIP message."""
        message = heard.message
        self.methods[message.method or "response"] += 1
        sdp = _sdp(message)
        if sdp is not None:
            self._note_endpoints(heard, sdp)
        if message.method and message.method != "ACK" and len(self._offers) < MAX_OFFERS:
            self._offers.setdefault((message.call_id, message.cseq.number), sdp is not None)
        thread = self.threads.get(message.call_id)
        if thread is None:
            if message.cseq.method in _OUTSIDE_CALLS:
                return
            if len(self.threads) >= MAX_THREADS:
                self.not_kept += 1
                return
            thread = self.threads[message.call_id] = Thread()
        if self._arrows >= MAX_ARROWS or len(thread.arrows) >= MAX_ARROWS_OF_ONE:
            thread.more += 1
            self.not_kept += 1
            return
        self._arrows += 1
        thread.arrows.append(self._arrow(heard, sdp, thread))

    def drop(self, call_id: str) -> None:
        """Forget the messages of a call that nobody asks for; keep that there was one."""
        thread = self.threads.get(call_id)
        if thread is not None:
            self._arrows -= len(thread.arrows)
            self.threads[call_id] = Thread()

    def _note_endpoints(self, heard: Heard, sdp: SessionDescription) -> None:
        for media in sdp.media:
            for address in {media.address, heard.source[0]} if media.port else ():
                self._name((address, media.port), Named(heard.message.call_id, heard.time))
            for endpoint in media.candidates[:16]:
                self._name(endpoint, Named(heard.message.call_id, heard.time))

    def _name(self, endpoint: Endpoint, named: Named) -> None:
        known = self.endpoints.get(endpoint)
        if known is None:
            if len(self.endpoints) < MAX_ENDPOINTS:
                self.endpoints[endpoint] = [named]
        elif len(known) < MAX_CALLS_AT_AN_ENDPOINT and all(one.call_id != named.call_id for one in known):
            known.append(named)

    def _arrow(self, heard: Heard, sdp: SessionDescription | None, thread: Thread) -> Arrow:
        message = heard.message
        notes = [self._repeat(heard, thread), _about(message)]
        if sdp is not None and not notes[0]:
            notes += [f"{self._role(message)} {_media_text(sdp)}", _hold(sdp, heard.source, thread)]
        tags = message.from_.tag, message.to.tag
        note = ", ".join(text for text in notes if text)
        return Arrow(heard.time, heard.source, heard.destination, _label(message), note, heard.transport, tags)

    @staticmethod
    def _repeat(heard: Heard, thread: Thread) -> str:
        one = heard.message
        key = hash((one.method, one.uri, one.status, one.headers, one.body, heard.source, heard.destination))
        before = thread.repeats.get(key)
        thread.repeats[key] = heard.time
        if before is None:
            return ""
        return "copy made by the mirror" if heard.time - before <= MIRROR_NS else "retransmission"

    def _role(self, message: Message) -> str:
        """Whether a description is an offer or an answer (RFC 3264): the first of a transaction offers."""
        if message.method:
            return "answer" if message.method == "ACK" else "offer"
        offered = self._offers.get((message.call_id, message.cseq.number))
        return "SDP" if offered is None else "answer" if offered else "offer"


def _sdp(message: Message) -> SessionDescription | None:
    try:
        return session_description(message)
    except SdpError:
        return None


def _label(message: Message) -> str:
    if message.method:
        return f"re-{message.method}" if message.method == "INVITE" and message.to.tag else message.method
    of = "" if message.cseq.method == "INVITE" else f" ({message.cseq.method})"
    return f"{message.status} {message.reason}".strip()[:60] + of


def _about(message: Message) -> str:
    """What else of a message a support engineer looks for."""
    said = []
    if message.method == "INVITE" and (message.get("proxy-authorization") or message.get("authorization")):
        said.append("with credentials")
    if message.method == "REFER":
        said.append(f"to {number_of(parse_address(message.get('refer-to')))}")
    if 300 <= message.status < 400 and message.get("contact"):
        said.append(f"to {number_of(parse_address(message.get('contact')))}")
    if message.method == "INVITE" and message.get("replaces"):
        said.append("replaces another call")
    if message.method in ("BYE", "CANCEL") and message.get("reason"):
        said.append(f"reason {message.get('reason')[:80]}")
    if message.get("warning"):
        said.append(f"warning {message.get('warning')[:80]}")
    return ", ".join(said)


def _media_text(sdp: SessionDescription) -> str:
    return "; ".join(_line_text(media) for media in sdp.media[:4]) + (" ..." if len(sdp.media) > 4 else "")


def _line_text(media: Media) -> str:
    if not media.port:
        return f"{media.kind} refused"
    names = dict.fromkeys(format_name(form.name) or str(number) for number, form in media.formats.items())
    shown = " ".join([*list(names)[:6], *(["..."] if len(names) > 6 else [])])
    words = [media.kind, endpoint_text((media.address, media.port)), shown or media.proto]
    words += [media.direction] if media.direction != "sendrecv" else []
    words += ["encrypted"] if media.encrypted else []
    return " ".join(word for word in words if word)


def _hold(sdp: SessionDescription, source: Endpoint, thread: Thread) -> str:
    if sdp.held:
        thread.held.add(source)
        return "hold"
    if source in thread.held:
        thread.held.discard(source)
        return "resume"
    return ""


def format_name(name: str) -> str:
    """Return an encoding name as people write it; SDP's are kept in capitals, of which this one is too long."""
    return "telephone-event" if name == "TELEPHONE-EVENT" else name


def endpoint_text(endpoint: Endpoint) -> str:
    """Return `192.0.2.1:5060` or `[2001:db8::1]:5060`."""
    address, port = endpoint
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def arrows_of(call: Call, thread: Thread | None, until: int | None) -> list[Arrow]:
    """Return a call's messages of its Call-ID's, which it may share with another: those with its tags and in its time.

    `until` is when the next call of the same Call-ID and caller began (ns).
    """
    if thread is None:
        return []
    mine = call.memory.tags | {call.caller_tag}
    return [
        arrow
        for arrow in thread.arrows
        if (arrow.tags[0] in mine or arrow.tags[1] in mine)
        and arrow.time >= call.started
        and (until is None or arrow.time < until)
    ]


@dataclass(frozen=True, slots=True)
class Life:
    """When a call began and ended (ns), and its number in the report."""

    number: int
    started: int
    ended: int


@dataclass(slots=True)
class Why:
    """Why a stream went to no call. `lives` are the calls by Call-ID, `hold` how long media waits for SDP (ns)."""

    overheard: Overheard
    seen: Seen
    hold: int
    lives: dict[str, list[Life]] = field(default_factory=dict)
    _strangers: dict[str, str] | None = None

    def words(self, stream: Figures) -> str:
        """Return the reason for one stream without a call."""
        named = [
            one
            for endpoint in (stream.destination, stream.source)
            for one in self.overheard.endpoints.get(endpoint, ())
        ]
        if named:
            return self._named(stream, named)
        if stream.packets == 1:
            return "a single packet that no SDP explains"
        if stream.accidental:
            return "looks like RTP by accident: its sequence numbers do not follow each other"
        return self._unnamed(stream)

    def _named(self, stream: Figures, named: list[Named]) -> str:
        lives = [(one, life) for one in named for life in self.lives.get(one.call_id, ())]
        if not lives:
            return f"its endpoint is named by the SDP of {named[0].call_id}, whose beginning was not seen"
        one, life = min(lives, key=lambda pair: max(pair[1].started - stream.last, stream.first - pair[1].ended, 0))
        call = f"call {life.number}"
        if stream.first >= life.ended:
            late = (stream.first - life.ended) / SECOND
            return f"its endpoint's {call} was over {late:.1f} s before it began"
        if stream.last < life.started:
            early = (life.started - stream.last) / SECOND
            return f"it was over {early:.1f} s before {call} began, which has its endpoint"
        if stream.last < one.time - self.hold:
            return f"it was over more than {self.hold / SECOND:g} s before the SDP of {call} named its endpoint"
        return f"its endpoint belongs to {call}, which holds another stream there"

    def _unnamed(self, stream: Figures) -> str:
        hosts = {stream.source[0], stream.destination[0]}
        strangers = self._strange_calls()
        for host in sorted(hosts & strangers.keys()):
            return f"{_NOBODY}; of call {strangers[host]} at {host} the beginning was not seen"
        near = [kind for pair, kind in self.seen.others.items() if not hosts.isdisjoint(pair)]
        if near:
            return f"{_NOBODY}; its host speaks {near[0]}, which cannot be read"
        if self.seen.others:
            kind = next(iter(self.seen.others.values()))
            return f"{_NOBODY}; the capture holds {kind}, which cannot be read"
        if not self.overheard.methods:
            return f"{_NOBODY}: the capture holds no SIP"
        return _NOBODY

    def _strange_calls(self) -> dict[str, str]:
        """Return the hosts that spoke of calls whose beginning was not seen, with one Call-ID each."""
        if self._strangers is None:
            self._strangers = {}
            for call_id, thread in self.overheard.threads.items():
                if call_id not in self.lives:
                    for arrow in thread.arrows[:8]:
                        self._strangers.setdefault(arrow.source[0], call_id)
                        self._strangers.setdefault(arrow.destination[0], call_id)
        return self._strangers


def without_copies(arrows: list[Arrow]) -> list[Arrow]:
    """Return the arrows with the mirror's copies taken out and counted in the note of what they copy."""
    result: list[Arrow] = []
    for arrow in arrows:
        if arrow.note.startswith("copy made by the mirror"):
            for index in range(len(result) - 1, max(len(result) - 20, -1), -1):
                one = result[index]
                if (one.label, one.source, one.destination) == (arrow.label, arrow.source, arrow.destination):
                    note = one.note if one.note.endswith("(seen twice)") else f"{one.note} (seen twice)".strip()
                    result[index] = replace(one, note=note)
                    break
            continue
        result.append(arrow)
    return result
