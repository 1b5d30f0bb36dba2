"""Which calls are legs of one conversation: B2BUA legs, transfers, replacements. Pure and bounded."""

from collections import deque
from typing import TYPE_CHECKING

from ..sip.dialog import Call

if TYPE_CHECKING:
    from .tracked import Tracked

SECOND = 1_000_000_000
SETUP = 180 * SECOND
"""How long after a leg's INVITE another leg may begin because of it, in ns."""
TRANSFER = 64 * SECOND
"""How long after a REFER the call that it asks for may begin, in ns."""
MAX_RECENT = 4096
MAX_RELATED = 16
MAX_SAME_KEY = 64


class Relations:
    """Relates each new call to the open and the lately closed ones."""

    def __init__(self) -> None:
        self._recent: deque[Tracked] = deque()
        self._index: dict[tuple[str, str], list[Tracked]] = {}
        self._transfers: deque[tuple[int, str, Tracked]] = deque(maxlen=1024)

    def begin(self, new: "Tracked", time: int) -> None:
        """Relate a call that begins now."""
        call = new.call
        for kind, key in _looks_for(call):
            for old in self._index.get((kind, key), ()):
                if kind != "host" or _made_by(old.call, call):
                    relate(old, new)
        for when, target, old in self._transfers:
            if 0 <= time - when <= TRANSFER and target in (call.dialled, call.callee.number):
                relate(old, new)
        self._remember(new)

    def transferred(self, old: "Tracked", target: str, time: int) -> None:
        """Note that a party of this call was sent to `target` (REFER, RFC 3515)."""
        if target:
            self._transfers.append((time, target, old))

    def _remember(self, new: "Tracked") -> None:
        self._recent.append(new)
        for key in _answers_to(new.call):
            held = self._index.setdefault(key, [])
            held.append(new)
            if len(held) > MAX_SAME_KEY:
                held.pop(0)
        if len(self._recent) > MAX_RECENT:
            old = self._recent.popleft()
            for key in _answers_to(old.call):
                held = [one for one in self._index.get(key, ()) if one is not old]
                if held:
                    self._index[key] = held
                else:
                    self._index.pop(key, None)


def relate(old: "Tracked", new: "Tracked") -> None:
    """Let two calls name each other; a closed one is only named."""
    if old is new:
        return
    if len(new.related) < MAX_RELATED and old.leg not in new.related:
        new.related.append(old.leg)
    if not old.closed and len(old.related) < MAX_RELATED and new.leg not in old.related:
        old.related.append(new.leg)


def _answers_to(call: Call) -> list[tuple[str, str]]:
    """Keys under which later calls may look for this one. All of them are fixed when the call begins."""
    keys = [("call-id", call.call_id), ("host", call.invite_to[0])]
    return keys + ([("session", call.session_id)] if call.session_id else [])


def _looks_for(call: Call) -> list[tuple[str, str]]:
    """Keys of calls that this one may continue: same Call-ID, Session-ID (RFC 7989), Replaces (RFC 3891), or B2BUA."""
    keys = [("call-id", call.call_id), ("host", call.invite_from[0])]
    if call.replaces and call.replaces != call.call_id:
        keys.append(("call-id", call.replaces))
    return keys + ([("session", call.session_id)] if call.session_id else [])


def _made_by(old: Call, new: Call) -> bool:
    """Tell whether the host that `old` was sent to started `new` because of it: it rings meanwhile, a party agrees."""
    if old.answered is not None or old.ended is not None or not 0 <= new.started - old.started <= SETUP:
        return False
    before = {_bare(number) for number in (old.caller.number, old.dialled, old.callee.number)} - {""}
    after = {_bare(number) for number in (new.caller.number, new.dialled, new.callee.number)} - {""}
    return any(_same(one, other) for one in before for other in after)


def _bare(number: str) -> str:
    """Return a number without what its prefix is written with; a name as it is."""
    if number.lower() == "anonymous":
        return ""
    digits = number.lstrip("+")
    return digits.lstrip("0") if digits.isdecimal() else number


def _same(one: str, other: str) -> bool:
    """Tell whether two numbers are one, written with and without country, area or outside-line prefix."""
    short, long = sorted((one, other), key=len)
    return short == long or (len(short) >= 6 and short.isdecimal() and long.endswith(short))
