"""What live capture gives out, for the spool of each call and for people. Pure."""

from dataclasses import dataclass, field
from typing import Any

from ..sip.call import Event
from .blocks import PacketBlocks
from .tracked import Tracked


@dataclass(frozen=True, slots=True)
class Past:
    """What an earlier run left of a call that was running when it ended: the id of its spool, and that of the recording
    which this run's goes on from, empty if there was no media yet.
    """

    id: str
    continues: str


@dataclass(frozen=True, slots=True)
class Begun:
    """A call's spool begins: at `time` (ns). `past` is what an earlier run knew of the call, if one did."""

    tracked: Tracked
    time: int
    past: Past | None = None


@dataclass(frozen=True, slots=True)
class Spoke:
    """A SIP message of a call, in one IP datagram."""

    number: int
    time: int
    packet: bytes


@dataclass(frozen=True, slots=True)
class Reported:
    """An RTCP packet of a call, in one IP datagram."""

    number: int
    time: int
    packet: bytes


@dataclass(frozen=True, slots=True)
class Media:
    """Packet blocks of several calls: `parts` are (call number, first byte, end, captured frames) in `blocks.data`."""

    blocks: PacketBlocks
    parts: list[tuple[int, int, int, int]]


@dataclass(frozen=True, slots=True)
class Noted:
    """A decision that belongs into a call's spool."""

    number: int
    time: int
    note: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Nothing more came of a call of an earlier run: what was kept to go on with it may go."""

    past: Past


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing more comes for this call: it is closed, or capture stops (`running`). `frames` of media it was given."""

    tracked: Tracked
    time: int
    frames: int
    running: bool = False


Item = Begun | Spoke | Reported | Media | Noted | Forgotten | Over


@dataclass(slots=True)
class Cycle:
    """What one visit gave: items for the spool, in order, and what happened to calls, for people."""

    items: list[Item] = field(default_factory=list)
    events: list[tuple[Tracked, Event]] = field(default_factory=list)
