"""Which calls are legs of one conversation: B2BUA legs, transfers, forwards, replacements. Pure and bounded."""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..sip.dialog import Call, Endpoint, Forward, Party
from .ties import How, Tie

if TYPE_CHECKING:
    from .tracked import Claim, Tracked

SECOND = 1_000_000_000
SETUP = 180 * SECOND
"""How long after a leg's INVITE another leg may begin because of it, in ns."""
SOON = 10 * SECOND
"""How long after a leg's INVITE another one between other hosts may begin that only the numbers relate to it, in ns."""
TRANSFER = 64 * SECOND
"""How long after a REFER or a redirection the call that it asks for may begin, in ns."""
MAX_RECENT = 4096
MAX_AWAITED = 1024
MAX_RELATED = 16
MAX_SAME_KEY = 64
MAX_SAME_LINK = 8
"""Calls that may bear the same value in a PBX's header: from then on it names something else than a call."""

_NAMED = ("replaces", "joins")
"""What names another call by its Call-ID."""

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A call that is asked for at `time` (ns), by number: `old` is then `how` to it, because of `by`."""

    time: int
    targets: frozenset[str]
    how: How
    old: "Tracked"
    by: str


class _Awaited:
    """The calls that were asked for lately, by whom they go to."""

    def __init__(self) -> None:
        self._all: deque[_Asked] = deque()
        self._by_target: dict[str, list[_Asked]] = {}

    def add(self, asked: _Asked) -> None:
        """Wait for a call; the oldest one gives way."""
        self._all.append(asked)
        for target in asked.targets:
            self._by_target.setdefault(target, []).append(asked)
        while len(self._all) > MAX_AWAITED or asked.time - self._all[0].time > TRANSFER:
            old = self._all.popleft()
            for target in old.targets:
                self._by_target[target].remove(old)
                if not self._by_target[target]:
                    del self._by_target[target]

    def reached(self, call: Call, time: int) -> list[_Asked]:
        """Return what a call that begins now may have been asked for by."""
        asked = {id(one): one for to in (call.dialled, call.callee.number) for one in self._by_target.get(to, ())}
        return [one for one in asked.values() if 0 <= time - one.time <= TRANSFER]


class Relations:
    """Relates each new call to the open and the lately closed ones."""

    def __init__(self) -> None:
        self._recent: deque[Tracked] = deque()
        self._index: dict[Key, list[Tracked]] = {}
        self._awaited = _Awaited()

    def begin(self, new: "Tracked", time: int) -> None:
        """Relate a call that begins now."""
        call = new.call
        for kind, key in _looks_for(call):
            known = self._index.get(("call-id" if kind in _NAMED else kind, key), [])
            if kind == "link" and len(known) > MAX_SAME_LINK:
                continue
            if kind == "numbers":
                known = [old for old in known if _passed_on(old.call, call)]
                known = known if len(known) == 1 else []  # of several, nobody knows which
            found = [(old, how) for old in known if (how := _how(kind, old.call, call)) is not None]
            for old, how in found:
                relate(old, new, how, sure=kind != "host" or len(found) == 1 or old is _alone(found))
        for asked in self._awaited.reached(call, time):
            if asked.how is How.FROM or _same_caller(asked.old.call, call):
                relate(asked.old, new, asked.how, asked.by)
        self._remember(new)

    def transferred(self, old: "Tracked", target: str, time: int, replaces: str = "") -> None:
        """A party of this call was sent to `target` (REFER, RFC 3515), perhaps into the place of a call (its Call-ID).

        A PBX may join the two without any further call.
        """
        asked = old.call.transfers[-1:]
        by = [old.call.caller if one.by is Party.CALLER else old.call.callee for one in asked]
        number = by[0].number if by else ""
        self._awaited.add(_Asked(time, frozenset({target}), How.FROM, old, number))
        if replaces:
            for other in self._index.get(("call-id", replaces), ()):
                relate(other, old, How.CONSULTED, number)

    def forwarded(self, old: "Tracked", forward: Forward) -> None:
        """The callee named others in its place (3xx); the caller may begin another call with one of them."""
        targets = frozenset(forward.targets)
        self._awaited.add(_Asked(forward.time, targets, How.FORWARDED, old, forward.by))

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


def _alone(found: "list[tuple[Tracked, How]]") -> "Tracked | None":
    """Of several calls between the same numbers that wait at one PBX, return the only one that has no inner leg yet."""
    lonely = [old for old, _ in found if all(tie.how is not How.INNER or not tie.sure for tie in old.related.values())]
    return lonely[0] if len(lonely) == 1 else None


def same_sound(one: "Claim | None", other: "Claim") -> None:
    """Relate two calls whose streams are the same sound, if there is one such.

    They are legs of a PBX if the later one began while the other rang, and the caller of both is the same.
    """
    if one is None:
        return
    old, new = sorted((one.tracked, other.tracked), key=lambda tracked: tracked.call.number)
    rang = old.call.answered is None or new.call.started <= old.call.answered
    soon = 0 <= new.call.started - old.call.started <= SETUP
    relate(old, new, How.OUTER if rang and soon and one.sender is other.sender else How.SAME_SOUND)


def relate(old: "Tracked", new: "Tracked", how: How, by: str = "", *, sure: bool = True) -> None:
    """Let two calls name each other, `how` being what the old one is to the new, and `by` who brought that about; a
    closed one is only named. If that is not `sure` their sound has to show it.
    """
    if old is new:
        return
    _tie(new, old, how, by, sure)
    if not old.closed:
        _tie(old, new, how.other_way, by, sure)


def _tie(one: "Tracked", other: "Tracked", how: How, by: str, sure: bool) -> None:
    known = one.related.get(other.leg)
    if known is not None:
        known.sure = known.sure or sure
        if how.strength > known.how.strength:
            known.how, known.by = how, by
    elif len(one.related) < MAX_RELATED:
        one.related[other.leg] = Tie(how, by=by, sure=sure, other=other)


def _answers_to(call: Call) -> list[Key]:
    """Keys under which later calls may look for this one. All of them are fixed when the call begins."""
    keys = [("call-id", call.call_id), ("link", call.call_id), ("host", call.invite_to[0])]
    keys += dict.fromkeys((_phone(call.invite_from, call.caller.number), _phone(call.invite_to, call.callee.number)))
    keys += [("link", link) for link in call.links if link != call.call_id]
    keys += _numbers(call)
    return keys + ([("session", call.session_id)] if call.session_id else [])


def _looks_for(call: Call) -> list[Key]:
    """Keys of calls that this one may continue: same Call-ID, Session-ID (RFC 7989), Replaces (RFC 3891), Join (RFC
    3911), what PBXs write into headers, B2BUA by hosts or by numbers.
    """
    keys = [("call-id", call.call_id), ("host", call.invite_from[0]), _phone(call.invite_from, call.caller.number)]
    keys += [("link", link) for link in (*call.links, call.call_id)]
    keys += _numbers(call)
    for kind, other in (("replaces", call.replaces), ("joins", call.joins)):
        if other and other != call.call_id:
            keys.append((kind, other))
    return keys + ([("session", call.session_id)] if call.session_id else [])


def _phone(host: Endpoint, number: str) -> Key:
    return "phone", f"{host[0]} {number}"


def _how(kind: str, old: Call, new: Call) -> How | None:
    """What the old call is to the new one that was found by such a key, None if it is nothing to it."""
    if kind == "numbers":
        return How.OUTER
    if kind == "host":
        return How.OUTER if _made_by(old, new) else None
    if kind == "phone":
        return How.HELD if old.held and old.answered is not None and old.ended is None else None
    if kind == "replaces":
        return How.PICKED_UP if old.answered is None else How.REPLACED
    if kind == "joins":
        return How.JOINED
    return How.OUTER if _waits(old, new) else How.SAME_CALL


def _waits(old: Call, new: Call) -> bool:
    """Whether a call still rang when another began that has to do with it."""
    return old.answered is None and old.ended is None and 0 <= new.started - old.started <= SETUP


def _made_by(old: Call, new: Call) -> bool:
    """Tell whether the host that `old` was sent to started `new` because of it: it rings meanwhile, a party agrees."""
    if not _waits(old, new):
        return False
    before = {_bare(number) for number in (old.caller.number, old.dialled, old.callee.number)} - {""}
    after = {_bare(number) for number in (new.caller.number, new.dialled, new.callee.number)} - {""}
    return any(_same(one, other) for one in before for other in after)


def _passed_on(old: Call, new: Call) -> bool:
    """Tell whether a session border controller has passed a call on from another address of its own: caller and callee
    agree while the first leg rings, and neither leg has a host in common with the other, as two calls of one host have.
    """
    if not (_waits(old, new) and new.started - old.started <= SOON):
        return False
    hosts = {old.invite_from[0], old.invite_to[0]} & {new.invite_from[0], new.invite_to[0]}
    return not hosts and _same_caller(old, new)


def _numbers(call: Call) -> list[Key]:
    """Keys of who calls whom, by the ends of their numbers, which all ways of writing them have in common."""
    caller = _bare(call.caller.number)[-6:]
    called = {_bare(number)[-6:] for number in (call.dialled, call.callee.number)} - {""}
    return [("numbers", f"{caller} {number}") for number in sorted(called) if caller]


def _same_caller(old: Call, new: Call) -> bool:
    one, other = _bare(old.caller.number), _bare(new.caller.number)
    return bool(one and other) and _same(one, other)


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
