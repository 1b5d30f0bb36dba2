"""The dialog table: SIP messages in, events of calls out (RFC 3261 sections 12-15, RFC 3264, 3262, 3311, 3515, 6026).

One call is what a caller's INVITE starts, with all its retries and forks. It is found by Call-ID and tags; a proxy that
shows the same message again, with one more Via, adds nothing but a copy of the session description.
"""

from collections import Counter
from collections.abc import Callable

from . import siprec, transfer
from .call import (
    OVER,
    TRANSITIONS,
    Answered,
    Call,
    Closed,
    Described,
    Digits,
    Ended,
    Endpoint,
    Event,
    Fork,
    Forward,
    Party,
    Revived,
    Ringing,
    Signal,
    Started,
    State,
    Transfer,
    Transferred,
)
from .detail import (
    MAX_TEXT,
    callee_tag,
    copy_number,
    first_of,
    is_repeat,
    new_call,
    note_answer,
    note_branch,
    note_fork,
    note_hold,
    note_sender,
    note_timer,
    refine_caller,
    take_back_offer,
    top_branch,
)
from .keys import digit_of
from .link_headers import LINK_HEADERS
from .message import Message
from .patience import BYE_NS, CALLING_NS, FAILURE_NS, GIVE_UP_NS, RETRY_NS, SETUP_NS
from .sdp import SdpError, SessionDescription, session_description
from .table import CallTable

__all__ = [
    "Answered",
    "Call",
    "Closed",
    "Described",
    "Dialogs",
    "Digits",
    "Ended",
    "Endpoint",
    "Event",
    "Fork",
    "Forward",
    "Party",
    "Revived",
    "Ringing",
    "Started",
    "State",
    "Transfer",
    "Transferred",
]

_CARRIES_MEDIA = frozenset({"INVITE", "ACK", "PRACK", "UPDATE"})
_IN_CALL = _CARRIES_MEDIA | {"BYE", "CANCEL", "INFO", "REFER", "NOTIFY"}


class Dialogs:
    """All calls in progress. Times are in ns; a time that goes back is taken as it is. `link_headers`: see there.

    `refused_calls` counts calls that did not fit into the table, `sdp_errors` unreadable session descriptions by kind.
    """

    def __init__(
        self, *, limit: int = 100_000, linger_ns: int = BYE_NS, link_headers: tuple[str, ...] = LINK_HEADERS
    ) -> None:
        self.refused_calls = 0
        self.link_headers = link_headers
        self.sdp_errors: Counter[str] = Counter()
        self._linger = {
            State.CHALLENGED: RETRY_NS,
            State.FAILED: FAILURE_NS,
            State.CANCELLED: FAILURE_NS,
            State.ENDED: linger_ns,
        }
        self._table = CallTable(limit)
        self._numbered = 0
        self._now = 0
        self._requests: dict[str, Callable[[Call, Message, int, Party], list[Event]]] = {
            "ACK": self._on_ack,
            "BYE": self._on_bye,
            "CANCEL": self._on_cancel,
            "INFO": self._on_info,
            "REFER": transfer.on_refer,
            "NOTIFY": transfer.on_notify,
        }

    @property
    def calls(self) -> list[Call]:
        """The calls that are not closed, oldest first."""
        return list(self._table)

    def set_linger(self, linger_ns: int) -> None:
        """Set how long calls that end from now on stay open for what trails their BYE."""
        self._linger[State.ENDED] = linger_ns

    def prove(self, call: Call) -> None:
        """Tell that a call has media: it will not be given up for others when the table is full."""
        self._table.prove(call)

    def call_of(self, message: Message) -> Call | None:
        """The call in progress that a message belongs to."""
        return self._table.find(message)[0]

    def knows(self, call_id: str) -> bool:
        """Whether a call in progress has this Call-ID."""
        return self._table.knows(call_id)

    def handle(self, message: Message, time: int, source: Endpoint, destination: Endpoint) -> list[Event]:
        """What a message seen at `time` changes. Calls whose time is over by then are closed first. Raises nothing."""
        events = self.advance(time)
        call, party = self._table.find(message)
        if self._table.starts_anew(call, message):
            call = self._table.claim_retry(message, source)
            if call is None:
                call = self._start(message, time, (source, destination), events)
        elif call is None and self._joins_late(message):
            ends = (source, destination) if message.method else (destination, source)
            call = self._start(message, time, ends, events)
            party = Party.CALLER if message.method else Party.CALLEE
            events += self._join(call, message, time) if call else []
        return events + (self._in_call(call, message, time, source, party) if call else [])

    def advance(self, now: int) -> list[Event]:
        """Close the calls whose time to linger is over at `now`, and give up those whose set-up has died away."""
        self._now = max(self._now, now)
        events: list[Event] = []
        for call, deadline in self._table.due(now):
            if call.state in OVER:
                events += self._move(call, Signal.LINGERED, deadline)
            else:
                reason = call.memory.last_failure or "no final response"
                call.memory.given_up = not call.memory.last_failure
                events += self._move(call, Signal.FAILURE, deadline, reason)
        return events

    def finish(self) -> list[Event]:
        """The input is at its end: every call ends where it was last seen, and is closed."""
        events: list[Event] = []
        for call in self.calls:
            events += self.end(call, max(call.last_seen, call.started), "end of input")
            events += self._move(call, Signal.LINGERED, max(self._now, call.last_seen))
        return events

    def keep(self, call: Call, time: int) -> None:
        """Tell that a call not answered yet was alive at `time`: its set-up is given up only so much later."""
        if call.memory.deadline is not None and call.state not in OVER:
            call.memory.deadline = max(call.memory.deadline, time + SETUP_NS)

    def end(self, call: Call, time: int, reason: str) -> list[Event]:
        """End a call for a reason that signalling does not show, such as silence; nothing if it has ended.

        Should its dialog go on after all, that is another call, joined late.
        """
        if call.state in OVER:
            return []
        call.memory.given_up = True
        return self._enter(call, State.ENDED, time, reason)

    # Where calls begin

    def _joins_late(self, message: Message) -> bool:
        """Whether a message of an unknown dialog shows that a call is under way."""
        if self._table.is_late(message):
            return False
        if message.method:
            in_dialog = message.method in ("INVITE", "ACK", "UPDATE") and message.to.tag
            return bool(in_dialog) and self._sdp(message) is not None
        return message.cseq.method == "INVITE" and message.status < 300

    def _start(self, message: Message, time: int, ends: tuple[Endpoint, Endpoint], events: list[Event]) -> Call | None:
        if len(self._table) >= self._table.limit:
            events += self._give_up_one(time)
        if len(self._table) >= self._table.limit:
            self.refused_calls += 1
            self._table.refuse(message)
            return None
        self._numbered += 1
        call = new_call(self._numbered, message, time, ends, self.link_headers)
        self._table.add(call, time + CALLING_NS)
        events.append(Started(call, time))
        return call

    def _give_up_one(self, time: int) -> list[Event]:
        """Make room in a full table: a flood of INVITEs, or of answers, must not keep real calls out."""
        call = self._table.unproven_since(time - GIVE_UP_NS)
        if call is None:
            return []
        call.memory.given_up = True
        events = self.end(call, time, "given up: too many calls at once")
        return events + self._move(call, Signal.LINGERED, time)

    def _join(self, call: Call, message: Message, time: int) -> list[Event]:
        """Bring a call that was joined in its middle to where it must be; responses do that by themselves."""
        call.joined_late = True
        call.memory.invite = message.cseq.number if message.cseq.method == "INVITE" else -1
        if not message.method:
            return []
        call.answered_tag = message.to.tag
        return self._move(call, Signal.ANSWER, time)

    # What a message does

    def _in_call(self, call: Call, message: Message, time: int, source: Endpoint, party: Party) -> list[Event]:
        call.last_seen = max(call.last_seen, time)
        method = message.cseq.method if message.status else message.method
        if is_repeat(call, message, source) or method not in _IN_CALL or call.state is State.CLOSED:
            return []
        call.messages += 1
        if call.memory.deadline is not None and call.state not in OVER:
            heard = message.status or call.state is not State.CALLING
            call.memory.deadline = max(call.memory.deadline, time + (SETUP_NS if heard else CALLING_NS))
        if message.status:
            events = self._on_response(call, message, time, source, party)
        elif method == "INVITE" and not message.to.tag and party is Party.CALLER:
            events = self._on_invite(call, message, time)
        else:
            events = self._requests[method](call, message, time, party) if method in self._requests else []
        note_sender(call, message, source, party)
        return events + self._on_description(call, message, time, source, party, method)

    def _on_invite(self, call: Call, message: Message, time: int) -> list[Event]:
        """A first INVITE: the caller's, its copy on another hop, a fork's, or a retry (sections 8.1.3.5, 16.6)."""
        if message.cseq.number < call.memory.invite or call.state is State.ANSWERED:
            return []
        if not note_branch(call, message):
            return []
        refine_caller(call, message)
        call.siprec = call.siprec or siprec.participants(message)
        return self._move(call, Signal.INVITE, time)

    def _on_response(self, call: Call, message: Message, time: int, source: Endpoint, party: Party) -> list[Event]:
        if 200 <= message.status < 300:
            note_timer(call, message)
        if message.status >= 300:
            take_back_offer(call, message.cseq.number, party.other)
        if message.cseq.method == "BYE":
            return self._on_bye_response(call, message, time, party)
        if message.cseq.method == "REFER":
            transfer.answered(call, message)
        if message.cseq.method != "INVITE" or message.status == 100:
            return []
        if party is Party.CALLER:
            return []
        if -1 < call.memory.invite < message.cseq.number and call.answered is None:  # a retry whose INVITE was missed
            call.memory.invite, call.memory.own_branch = message.cseq.number, top_branch(message)
            call.memory.pending.clear()
        if call.memory.invite not in (-1, message.cseq.number):
            return []
        if message.status >= 300:
            return self._on_failure(call, message, time)
        note_fork(call, message, time, source)
        if message.status < 200:
            return self._move(call, Signal.RINGING, time)
        if call.answered_tag is None:
            note_answer(call, message, source)
        return self._move(call, Signal.ANSWER, time)

    def _on_failure(self, call: Call, message: Message, time: int) -> list[Event]:
        """A failure is the call's own only if it answers the caller's INVITE, or no fork is left (section 16.7)."""
        memory = call.memory
        branch = top_branch(message)
        memory.pending.discard(branch)
        memory.last_failure = f"{message.status} {message.reason[:MAX_TEXT]}".strip()
        transfer.redirected(call, message, time)
        if branch != memory.own_branch and memory.pending:
            return []
        retried = message.status in (401, 407) or message.status < 400
        return self._move(call, Signal.CHALLENGE if retried else Signal.FAILURE, time, memory.last_failure)

    def _on_ack(self, call: Call, message: Message, time: int, party: Party) -> list[Event]:
        """An ACK with a branch of its own acknowledges a 2xx (section 13.2.2.4), seen or not."""
        if party is Party.CALLEE or not message.to.tag:
            return []
        if message.to.tag in call.forks:
            call.memory.acknowledged.add(message.to.tag)
        if message.cseq.number != call.memory.invite:
            return []
        if call.state not in (State.CALLING, State.RINGING) or top_branch(message) in call.memory.branches:
            return []
        call.answered_tag = call.answered_tag or message.to.tag
        return self._move(call, Signal.ANSWER, time)

    def _on_bye_response(self, call: Call, message: Message, time: int, party: Party) -> list[Event]:
        """A refused BYE ends nothing (section 15.1.1 excepts 408 and 481); an accepted one shows what was missed."""
        if 200 <= message.status < 300:
            return self._move(call, Signal.BYE, time, f"BYE by {party.other.value}")
        if message.status < 300 or message.status in (408, 481) or call.answered is None:
            return []
        return self._move(call, Signal.BYE_REFUSED, time)

    def _on_bye(self, call: Call, message: Message, time: int, party: Party) -> list[Event]:
        """A BYE of the dialog that was answered; one that ends another fork's dialog changes nothing.

        A back-to-back element may give the callee another tag on each hop: then the ACK tells which is the call's.
        """
        tag = callee_tag(message, party)
        acknowledged = tag in call.memory.acknowledged and call.answered_tag not in call.memory.acknowledged
        if call.answered_tag not in (None, tag) and tag in call.forks and not acknowledged:
            return []
        return self._move(call, Signal.BYE, time, f"BYE by {party.value}")

    def _on_cancel(self, call: Call, message: Message, time: int, party: Party) -> list[Event]:
        """The caller's CANCEL has the branch of its INVITE (section 9.1); a proxy's ends one fork only."""
        memory = call.memory
        branch = top_branch(message)
        if party is Party.CALLEE or (branch != memory.own_branch and branch in memory.branches):
            return []
        return self._move(call, Signal.CANCEL, time, "CANCEL")

    def _on_info(self, call: Call, message: Message, time: int, party: Party) -> list[Event]:
        digit = digit_of(message)
        if not digit or call.state in OVER or not first_of(call, message, party):
            return []
        return [Digits(call, time, party, digit)]

    def _on_description(
        self, call: Call, message: Message, time: int, source: Endpoint, party: Party, method: str
    ) -> list[Event]:
        """The description in an offer or answer; a refusal's only lists what could have been (section 21.4.26)."""
        if method not in _CARRIES_MEDIA or message.status >= 300 or call.state in OVER:
            return []
        sdp = self._sdp(message)
        if sdp is None:
            return []
        tag = callee_tag(message, party) if party is Party.CALLEE else ""
        kind = message.method or f"{message.status // 100}xx {message.cseq.method}"
        hop = copy_number(call, message, source, (message.cseq.number, kind, party, tag))
        if hop is None:
            return []
        if hop == 0:
            note_hold(call, message, party, sdp.held)
        return [Described(call, time, party, tag, sdp, source[0], hop, message.method in ("INVITE", "UPDATE"))]

    def _sdp(self, message: Message) -> SessionDescription | None:
        try:
            return session_description(message)
        except SdpError as error:
            self.sdp_errors[error.kind] += 1
            return None

    # States

    def _move(self, call: Call, signal: Signal, time: int, reason: str = "") -> list[Event]:
        """Follow the table; the events say which state was entered."""
        target = TRANSITIONS[call.state].get(signal)
        return [] if target in (None, call.state) else self._enter(call, target, time, reason)

    def _enter(self, call: Call, state: State, time: int, reason: str) -> list[Event]:
        before, call.state = call.state, state
        if state is State.CLOSED:
            self._table.remove(call)
            return [Closed(call, time)]
        if state in OVER:
            return self._end(call, before, time, reason)
        events: list[Event] = []
        call.memory.deadline = time + SETUP_NS
        if before in OVER:
            call.ended, call.end_reason = None, ""
            events.append(Revived(call, time))
        if state is State.RINGING:
            events.append(Ringing(call, time))
        if state is State.ANSWERED:
            call.memory.deadline = None
            if call.answered is None:
                call.answered = time
                events.append(Answered(call, time, call.answered_tag or ""))
        return events

    def _end(self, call: Call, before: State, time: int, reason: str) -> list[Event]:
        self._table.schedule(call, time + self._linger[call.state])
        if before in OVER:
            return []
        call.ended, call.end_reason = time, reason
        return [Ended(call, time, reason)]
