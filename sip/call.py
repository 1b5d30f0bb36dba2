"""A call and what can happen to it: the states as a table, the events, and what is remembered of one call.

    CALLING --18x--> RINGING --2xx--> ANSWERED --BYE--> ENDED   (back, if the BYE is refused)
       |                |
       +----------------+--401/407/3xx--> CHALLENGED   (waits for the caller to try again)
       +----------------+--4xx-6xx-----> FAILED        (revived if another target answers)
       +----------------+--CANCEL------> CANCELLED     (a 2xx may have crossed it)

All states on the right linger for late messages and media, then become CLOSED.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from .parties import Identity
from .sdp import SessionDescription

Endpoint = tuple[str, int]

SECOND = 1_000_000_000


class Party(Enum):
    """The two ends of a call; the caller is who sent the first INVITE."""

    CALLER = "caller"
    CALLEE = "callee"

    @property
    def other(self) -> "Party":
        """The one at the far end."""
        return Party.CALLEE if self is Party.CALLER else Party.CALLER


class State(Enum):
    """How far a call has come."""

    CALLING = auto()
    RINGING = auto()
    ANSWERED = auto()
    CHALLENGED = auto()
    CANCELLED = auto()
    FAILED = auto()
    ENDED = auto()
    CLOSED = auto()


class Signal(Enum):
    """What moves a call from state to state: a message of the INVITE's transaction, a BYE, or time."""

    INVITE = auto()
    RINGING = auto()
    ANSWER = auto()
    CHALLENGE = auto()
    FAILURE = auto()
    CANCEL = auto()
    BYE = auto()
    BYE_REFUSED = auto()
    LINGERED = auto()


_SETUP = {
    Signal.RINGING: State.RINGING,
    Signal.ANSWER: State.ANSWERED,
    Signal.CHALLENGE: State.CHALLENGED,
    Signal.FAILURE: State.FAILED,
    Signal.CANCEL: State.CANCELLED,
    Signal.BYE: State.ENDED,
}
_AGAIN = {
    Signal.INVITE: State.CALLING,
    Signal.RINGING: State.RINGING,
    Signal.ANSWER: State.ANSWERED,
    Signal.LINGERED: State.CLOSED,
}

# A signal that a state does not list changes nothing.
TRANSITIONS: Mapping[State, Mapping[Signal, State]] = {
    State.CALLING: _SETUP,
    State.RINGING: _SETUP,
    State.ANSWERED: {Signal.BYE: State.ENDED},
    State.CHALLENGED: _AGAIN | {Signal.FAILURE: State.FAILED, Signal.CANCEL: State.CANCELLED},
    State.FAILED: _AGAIN | {Signal.CHALLENGE: State.CHALLENGED},
    State.CANCELLED: {Signal.ANSWER: State.ANSWERED, Signal.LINGERED: State.CLOSED},
    State.ENDED: {Signal.BYE_REFUSED: State.ANSWERED, Signal.LINGERED: State.CLOSED},
    State.CLOSED: {},
}

OVER = frozenset({State.CHALLENGED, State.CANCELLED, State.FAILED, State.ENDED, State.CLOSED})


@dataclass(frozen=True)
class Fork:
    """One target that the INVITE reached, known by its To-tag: first seen when and where, and its newest status."""

    tag: str
    first_seen: int
    source: Endpoint
    status: int


@dataclass
class Transfer:
    """A REFER (RFC 3515): `by` sends the other party on to `target`, at `time` (ns).

    `replaces` is the Call-ID of the dialog that the new call is to take over (an attended transfer), "" for none.
    `answer` is the status that the REFER itself got; `outcome` that of the new call as the NOTIFYs tell it, 0 until
    they do; `refer` is the REFER's CSeq number.
    """

    time: int
    by: Party
    target: str
    replaces: str
    refer: int
    answer: int = 0
    outcome: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Forward:
    """A redirection: who was called answered `status` (3xx) at `time` (ns), and named others."""

    time: int
    status: int
    by: str
    targets: tuple[str, ...]


@dataclass
class Memory:
    """What the dialog table needs to recognise retries, copies on other hops and repeats; of no use to others."""

    tags: set[str] = field(default_factory=set)
    invite: int = -1
    own_branch: str = ""
    own_hops: int = 0
    branches: set[str] = field(default_factory=set)
    pending: set[str] = field(default_factory=set)
    last_failure: str = ""
    acknowledged: set[str] = field(default_factory=set)
    repeats: dict[int, None] = field(default_factory=dict)
    handled: dict[tuple[str, int, Party], None] = field(default_factory=dict)
    described: dict["DescribedKey", dict[Endpoint, tuple[int, int]]] = field(default_factory=dict)
    holds: dict[Party, bool] = field(default_factory=dict)
    offers: dict[tuple[Party, int], bool] = field(default_factory=dict)
    deadline: int | None = None
    given_up: bool = False


DescribedKey = tuple[int, str, Party, str]


@dataclass(eq=False)
class Call:
    """One call; times in ns. Owned and changed by the dialog table alone.

    `signalling` is where each party's own messages were first seen coming from; `messages` counts different ones.
    `replaces` and `joins` are Call-IDs of the call that this one takes over (RFC 3891) or joins (RFC 3911), `links` are
    values that its other legs may have too; `siprec` are those whose sound a recording session holds.
    """

    number: int
    call_id: str
    caller_tag: str
    started: int
    joined_late: bool
    caller: Identity
    callee: Identity
    dialled: str
    invite_from: Endpoint
    invite_to: Endpoint
    asserted: tuple[Identity, ...] = ()
    diversion: tuple[str, ...] = ()
    answered: int | None = None
    answered_tag: str | None = None
    ended: int | None = None
    end_reason: str = ""
    state: State = State.CALLING
    forks: dict[str, Fork] = field(default_factory=dict)
    user_agents: dict[Party, str] = field(default_factory=dict)
    signalling: dict[Party, Endpoint] = field(default_factory=dict)
    session_expires: int | None = None
    replaces: str | None = None
    early_only: bool = False
    joins: str = ""
    referred_by: str = ""
    session_id: str = ""
    links: tuple[str, ...] = ()
    transfers: list[Transfer] = field(default_factory=list)
    forwards: list[Forward] = field(default_factory=list)
    siprec: tuple[str, ...] = ()
    messages: int = 0
    last_seen: int = 0
    memory: Memory = field(default_factory=Memory, repr=False)

    @property
    def held(self) -> bool:
        """Whether the newest description of either party puts the other on hold (RFC 3264 section 8.4)."""
        return any(self.memory.holds.values())


@dataclass(frozen=True)
class Event:
    """Something that happened to a call, at a time in ns."""

    call: Call
    time: int


@dataclass(frozen=True)
class Started(Event):
    """A new call."""


@dataclass(frozen=True)
class Described(Event):
    """A party's session description: its own words at `hop` 0, a copy that a relay may have changed at 1 and up.

    `tag` is the callee's fork, "" for the caller; `announced_by` is the IP address that sent this copy; `asks` tells
    that it is an offer that the other party may refuse (in an INVITE or UPDATE).
    """

    party: Party
    tag: str
    sdp: SessionDescription
    announced_by: str
    hop: int
    asks: bool = False


@dataclass(frozen=True)
class Ringing(Event):
    """The first 101-199."""


@dataclass(frozen=True)
class Answered(Event):
    """The first 2xx to the INVITE; `tag` is the fork that answered."""

    tag: str


@dataclass(frozen=True)
class Ended(Event):
    """BYE, CANCEL, a final failure or silence; the call lingers."""

    reason: str


@dataclass(frozen=True)
class Revived(Event):
    """An ended call goes on: a retry, or another target of the INVITE."""


@dataclass(frozen=True)
class Closed(Event):
    """The call's time to linger is over; it has no further events."""


@dataclass(frozen=True)
class Digits(Event):
    """A key pressed, sent by INFO."""

    party: Party
    digit: str


@dataclass(frozen=True)
class Transferred(Event):
    """A REFER: one party sends the other on to `target` (RFC 3515), perhaps into a call's place (`replaces`)."""

    target: str
    replaces: str = ""
