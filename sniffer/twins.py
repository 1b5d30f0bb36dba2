"""Streams of two calls that are the same sound: a PBX that hands RTP on leaves its SSRC and numbers alone. Pure.

One goes to the host that the other comes from, or (a session border controller, with an address on each side) they
have no host in common; and their first packets' numbers fit. Load generators give all calls one SSRC: they have hosts
in common, and where several streams fit, none is taken for the twin.
"""

from typing import Any

from .tracked import FOREVER, SECOND, Claim

AHEAD = 1 << 15
MOST = 64
"""Streams with one SSRC that are looked at."""
RELAY_NS = SECOND
"""How long a relay may keep a packet: much longer than any does."""
RATES = (8_000, 16_000, 48_000, 90_000)
"""RTP clocks in use, in Hz."""


class Twins:
    """The claims of open calls by SSRC."""

    def __init__(self) -> None:
        self._claims: dict[int, list[Claim]] = {}

    def meet(self, claim: Claim, rows: Any) -> Claim | None:
        """Take a new claim; return that of another call on whose stream its sound passes too. `rows`: all streams."""
        known = self._claims.setdefault(int(rows["ssrc"][claim.stream]), [])
        mine = rows[claim.stream]
        found = {
            id(other.tracked): other
            for other in known
            if other.tracked is not claim.tracked
            and other.until == FOREVER
            and (_handed_on(rows[other.stream], mine) or _handed_on(mine, rows[other.stream]))
        }
        if len(known) < MOST:
            known.append(claim)
        return next(iter(found.values())) if len(found) == 1 else None

    def forget(self, claim: Claim, rows: Any) -> None:
        """A claim's call is closed."""
        ssrc = int(rows["ssrc"][claim.stream])
        known = [one for one in self._claims.get(ssrc, ()) if one is not claim]
        if known:
            self._claims[ssrc] = known
        else:
            self._claims.pop(ssrc, None)


def _handed_on(first: Any, second: Any) -> bool:
    """Tell whether the second stream shows the first one's packets behind a relay, by how each began."""
    ends = {int(first["source"]), int(first["destination"])} & {int(second["source"]), int(second["destination"])}
    if ends and first["destination"] != second["source"]:
        return False
    if not first["first"] <= second["first"] <= first["last"] + RELAY_NS:
        return False
    number = (int(second["sequence"]) - int(first["sequence"])) & 0xFFFF
    ticks = (int(second["stamp"]) - int(first["stamp"])) & 0xFFFFFFFF
    passed = int(second["first"]) - int(first["first"])
    if number >= AHEAD:
        return False
    return any(abs(ticks * SECOND // rate - passed) < RELAY_NS for rate in RATES)
