"""What single messages add to a call: who, from where, which forks, timers and holds. The dialog table calls these."""

from collections.abc import Iterable
from typing import TypeVar

from . import parties, siprec
from .call import Call, DescribedKey, Endpoint, Fork, Party, State
from .headers import parse_number, parse_params
from .link_headers import call_named, links_of
from .message import Message

Key = TypeVar("Key")

MAX_FORKS = 64
MAX_REMEMBERED = 512
MAX_TEXT = 256


def new_call(
    number: int, message: Message, time: int, ends: tuple[Endpoint, Endpoint], link_headers: Iterable[str] = ()
) -> Call:
    """A call as its first message tells it; `ends` are the caller's side and the callee's."""
    asserted = tuple(parties.asserted(message, "calling")) if message.method else ()
    return Call(
        number=number,
        call_id=message.call_id,
        caller_tag=message.from_.tag,
        started=time,
        joined_late=False,
        caller=parties.caller_of(message) if message.method else parties.identity_of(message.from_),
        callee=parties.callee_of(message),
        dialled=parties.dialled_number(message),
        invite_from=ends[0],
        invite_to=ends[1],
        asserted=asserted,
        diversion=parties.diversions(message),
        replaces=call_named(message.get("replaces")) or None,
        early_only="early-only" in parse_params(message.get("replaces")),
        joins=call_named(message.get("join")),
        referred_by=parties.referred_by(message),
        links=links_of(message, link_headers),
        siprec=siprec.participants(message) if message.method else (),
        session_id=message.get("session-id").partition(";")[0].strip()[:MAX_TEXT],
        last_seen=time,
    )


def top_branch(message: Message) -> str:
    """The branch of the newest hop: names the transaction (RFC 3261 section 17.1.3)."""
    vias = message.vias
    return vias[0].branch if vias else ""


def callee_tag(message: Message, party: Party) -> str:
    """The tag of the callee's end of the dialog, for a message sent by `party`."""
    asked_by_caller = (party is Party.CALLER) == bool(message.method)
    return message.to.tag if asked_by_caller else message.from_.tag


def note_branch(call: Call, invite: Message) -> bool:
    """Keep the INVITE's transaction as one that awaits its final response; False if it is known.

    The caller's own is the one with the fewest hops, which a mirror may show after a proxy's copy.
    """
    memory = call.memory
    branch, hops = top_branch(invite), len(invite.vias)
    if invite.cseq.number > memory.invite:
        memory.invite, memory.own_branch, memory.own_hops = invite.cseq.number, branch, hops
        memory.branches.clear()
        memory.pending.clear()
    elif branch in memory.branches or len(memory.branches) >= MAX_FORKS:
        return False
    if hops < memory.own_hops:
        memory.own_branch, memory.own_hops = branch, hops
    memory.branches.add(branch)
    memory.pending.add(branch)
    return True


def is_repeat(call: Call, message: Message, source: Endpoint) -> bool:
    """Whether the very same message came from there before: a retransmission, or the mirror showing it twice."""
    fields = (message.method, message.uri, message.status, message.reason, message.headers, message.body, source)
    return not _remember(call.memory.repeats, hash(fields))


def first_of(call: Call, message: Message, party: Party) -> bool:
    """Whether this request is seen for the first time on any hop."""
    return _remember(call.memory.handled, (message.method, message.cseq.number, party))


def _remember(seen: dict[Key, None], key: Key) -> bool:
    """Add to a bounded set, the oldest goes first; False if it was there."""
    if key in seen:
        return False
    if len(seen) >= MAX_REMEMBERED:
        del seen[next(iter(seen))]
    seen[key] = None
    return True


def copy_number(call: Call, message: Message, source: Endpoint, key: DescribedKey) -> int | None:
    """On which hop this session description is seen: 0 the party's own; None if that hop has said the same before.

    A later, different description from a hop that is known (a second 183, say) keeps that hop's number.
    """
    described = call.memory.described
    if key not in described and len(described) >= MAX_REMEMBERED:
        del described[next(iter(described))]
    hops = described.setdefault(key, {})
    hop, before = hops.get(source, (len(hops), None))
    words = hash(message.body)
    if before == words or hop >= MAX_FORKS:
        return None
    hops[source] = hop, words
    return hop


def note_sender(call: Call, message: Message, source: Endpoint, party: Party) -> None:
    """Where a party is and what phone it has, by the first of its own messages.

    100, 401 and 407 come from the next proxy more often than from the callee.
    """
    if message.status in (100, 401, 407):
        return
    call.signalling.setdefault(party, source)
    agent = agent_of(message)
    if agent:
        call.user_agents.setdefault(party, agent)


def agent_of(message: Message) -> str:
    """What the sender calls itself (RFC 3261 sections 20.35 and 20.41)."""
    names = ("user-agent", "server") if message.method else ("server", "user-agent")
    return (message.get(names[0]) or message.get(names[1]))[:MAX_TEXT]


def refine_caller(call: Call, invite: Message) -> None:
    """A proxy that knows its caller asserts it on the next hop; the first had only From (RFC 3325 section 5).

    So it is with who diverted the call on its way.
    """
    call.diversion = call.diversion or parties.diversions(invite)
    asserted = parties.asserted(invite, "calling")
    if call.asserted or not asserted:
        return
    call.asserted = tuple(asserted)
    call.caller = parties.first_filled([*asserted, call.caller])


def note_fork(call: Call, message: Message, time: int, source: Endpoint) -> None:
    """A target of the INVITE that answers with a tag of its own (RFC 3261 section 12.1)."""
    tag = message.to.tag
    fork = call.forks.get(tag)
    if fork:
        call.forks[tag] = Fork(tag, fork.first_seen, fork.source, max(fork.status, message.status))
    elif tag and len(call.forks) < MAX_FORKS:
        call.forks[tag] = Fork(tag, time, source, message.status)


def note_answer(call: Call, message: Message, source: Endpoint) -> None:
    """The fork that answers is the callee, with its number if it is asserted, whoever rang besides."""
    call.answered_tag = message.to.tag
    call.signalling[Party.CALLEE] = source
    if agent_of(message):
        call.user_agents[Party.CALLEE] = agent_of(message)
    # A server that repeats the caller's assertion in its answer says nothing about the callee.
    asserted = [one for one in parties.asserted(message, "called") if one.number != call.caller.number]
    call.callee = parties.first_filled([*asserted, call.callee])


def note_timer(call: Call, message: Message) -> None:
    """The session timer that a 2xx grants, in seconds (RFC 4028 section 4)."""
    expires = parse_number(message.get("session-expires").partition(";")[0], 2**31)
    if message.cseq.method in ("INVITE", "UPDATE") and expires:
        call.session_expires = expires


def note_hold(call: Call, message: Message, party: Party, held: bool) -> None:
    """Keep the newest hold of each party, and the one before an offer, should that be refused.

    An answer can keep or lift its sender's hold, not begin one: it may be one-way only because the offer is.
    """
    memory = call.memory
    if not message.method or message.method == "ACK":
        held = held and memory.holds.get(party, False)
    elif call.state is State.ANSWERED:
        if len(memory.offers) >= MAX_REMEMBERED:
            del memory.offers[next(iter(memory.offers))]
        memory.offers[party, message.cseq.number] = memory.holds.get(party, False)
    memory.holds[party] = held


def take_back_offer(call: Call, number: int, party: Party) -> None:
    """A refused offer leaves the session as it was (RFC 3261 section 14.1)."""
    before = call.memory.offers.pop((party, number), None)
    if before is not None:
        call.memory.holds[party] = before
