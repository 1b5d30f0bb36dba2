"""What one call is to another: legs of a PBX, transfers, replacements, forwards. Values only."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tracked import Tracked


class How(StrEnum):
    """What the other call is to this one."""

    OUTER = "outer leg"
    """It is nearer to the caller: a PBX made this one because of it (B2BUA)."""
    INNER = "inner leg"
    """It is nearer to the callee: a PBX made it because of this one."""
    FROM = "transferred from"
    """A party of it was sent into this one (REFER)."""
    TO = "transferred to"
    CONSULTED = "consultation"
    """A transfer out of this one takes its place (Replaces in Refer-To)."""
    CONSULTS = "consultation for"
    REPLACED = "replaced"
    """This one took its place (Replaces, RFC 3891)."""
    REPLACES = "replaced by"
    PICKED_UP = "picked up"
    """This one took its place while it still rang (an early dialog)."""
    PICKS_UP = "picked up by"
    JOINED = "joined"
    """This one was added to it (Join, RFC 3911)."""
    JOINS = "joined by"
    FORWARDED = "forwarded from"
    """Its callee answered with another address (3xx)."""
    FORWARDS = "forwarded to"
    HELD = "held meanwhile"
    """A phone held it when it began this one: to ask somebody, or for three to talk."""
    HOLDS = "begun while held"
    SAME_SOUND = "same sound"
    """The same RTP packets crossed the wire in both."""
    SAME_CALL = "same call"
    """Headers say so: Call-ID, Session-ID (RFC 7989), or those of PBXs."""

    @property
    def other_way(self) -> "How":
        """What this call is to the other."""
        return _OTHER_WAY.get(self, self)

    @property
    def strength(self) -> int:
        """What says more, and is kept where several are true, is greater."""
        return {How.SAME_CALL: 0, How.HELD: 1, How.HOLDS: 1, How.SAME_SOUND: 1, How.OUTER: 2, How.INNER: 2}.get(self, 3)


_PAIRS = (
    (How.OUTER, How.INNER),
    (How.FROM, How.TO),
    (How.CONSULTED, How.CONSULTS),
    (How.REPLACED, How.REPLACES),
    (How.PICKED_UP, How.PICKS_UP),
    (How.JOINED, How.JOINS),
    (How.FORWARDED, How.FORWARDS),
    (How.HELD, How.HOLDS),
)
_OTHER_WAY = dict(_PAIRS) | {other: one for one, other in _PAIRS}


@dataclass(slots=True)
class Tie:
    """What another call is to this one. `heard`: all the sound that this one has was heard in the other as well, by
    whose it is and when. `by` is the number of who transferred or forwarded. `sure`: so it is even if the sound does
    not show it. `other` is that call while it is known.
    """

    how: How
    heard: bool = False
    by: str = ""
    sure: bool = True
    other: "Tracked | None" = None

    def __str__(self) -> str:
        return f"{self.how.value} (by {self.by})" if self.by else self.how.value
