"""A conversation that crosses the wire on two legs of a PBX, recorded once: which leg gives way to which. Pure."""

from typing import TYPE_CHECKING

from ..sip.dialog import Party
from ..sniffer.ties import How
from .plan import Plan
from .side import Side

if TYPE_CHECKING:
    from ..sniffer.account import Account
    from ..sniffer.selection import EndedCall
    from ..sniffer.tracked import Leg

_GIVES_WAY = {"outer": How.OUTER, "inner": How.INNER}


def other_leg(ended: "EndedCall", legs: str) -> "Leg | None":
    """Return the leg that is recorded in this one's place, None if this one is to be recorded.

    One gives way only if all its sound was heard on the other leg too: by the same parties, from begin to end, and not
    encrypted there without a key.
    """
    how = _GIVES_WAY.get(legs)
    return next((leg for leg, tie in ended.tracked.related.items() if tie.how is how and tie.heard), None)


def given_way(ended: "EndedCall", account: "Account") -> Plan:
    """Return the plan for a leg that gives way, and count its packets as the other's copies."""
    account.calls["seen"] += 1
    account.calls["refused"] += 1
    for track in ended.tracks:
        account.packet("relayed", "RTP of the other leg", int(track.rows["frames"][track.fresh].sum()))
    return Plan(ended, {party: Side() for party in Party}, "refused", ended.call.started, 0, 0)
