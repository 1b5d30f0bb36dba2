"""Who spoke with whom, from when to when, in the calls of a story. Pure.

A conversation that crosses a PBX has two legs or more; after a transfer there, the legs of those who stay go on without
any further call.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..sniffer.ties import How
from .story import Moment, Told

Span = tuple[datetime, datetime]
_STAYS = timedelta(milliseconds=200)
"""How much longer a leg has to last than another for its party to have stayed."""


@dataclass(frozen=True, slots=True)
class Talk:
    """Two parties spoke with each other from `begin` to `end`; the call is `at` (its place in the story, from 0)."""

    begin: datetime
    end: datetime
    caller: str
    callee: str
    at: int


def talks(calls: list[Told]) -> list[Talk]:
    """Return who spoke with whom, in the order of time; without times on hold."""
    known = {call.id: call for call in calls}
    place = {call.id: number for number, call in enumerate(calls)}
    found = []
    for call in calls:
        if call.answered is not None and not _tied(call, known, How.INNER, answered=True):
            caller, chain = _caller_of(call, known)
            found += [
                Talk(begin, end, caller, who(call.callee, call.callee_name), place[call.id])
                for begin, end in _unheld(chain)
            ]
        for moment in call.moments:
            found += _bridged(call, moment, known, place)
    return sorted(found, key=lambda talk: (talk.begin, talk.at))


def who(number: str, name: str) -> str:
    """Return a party as people read it."""
    return f"{name} ({number})" if name and name != number else number or name or "?"


def _tied(call: Told, known: Mapping[str, Told], how: How, *, answered: bool = False) -> list[Told]:
    """The calls that are this to a call."""
    tied = [known[name] for name, (what, _) in call.related.items() if what == how.value and name in known]
    return [one for one in tied if one.answered is not None] if answered else tied


def _caller_of(call: Told, known: Mapping[str, Told]) -> tuple[str, list[Told]]:
    """Who speaks in a call with its callee, and all legs between the two.

    That is the caller of the outermost leg; or, if a PBX made the call for a transfer, who stayed on the other side of
    the one who asked for it.
    """
    chain = [call]
    while outer := [one for one in _tied(chain[-1], known, How.OUTER) if one not in chain]:
        chain.append(outer[0])
    for old in _tied(chain[-1], known, How.FROM):
        for party, leg in _staying(old, known, call.answered or call.start):
            return party, [*chain, leg]
    return who(chain[-1].caller, chain[-1].caller_name), chain


def _staying(old: Told, known: Mapping[str, Told], time: datetime) -> Iterator[tuple[str, Told]]:
    """Yield who is at the far end of a call's other legs, and which leg, where that goes on after a time."""
    for how in (How.OUTER, How.INNER):
        for leg in _tied(old, known, how, answered=True):
            if leg.end > time + _STAYS:
                yield _far_end(leg, known, how), leg


def _far_end(leg: Told, known: Mapping[str, Told], how: How) -> str:
    """The party at the end of the legs that go on in one direction."""
    chain = [leg]
    while more := [one for one in _tied(chain[-1], known, how, answered=True) if one not in chain]:
        chain.append(more[0])
    last = chain[-1]
    return who(last.caller, last.caller_name) if how is How.OUTER else who(last.callee, last.callee_name)


def _bridged(call: Told, moment: Moment, known: Mapping[str, Told], place: Mapping[str, int]) -> Iterator[Talk]:
    """Yield what an attended transfer at a PBX led to, that joined two calls' other legs without a further call."""
    if moment.kind != "Transfer" or not moment.text.startswith("attended ") or _tied(call, known, How.TO):
        return
    for other in _tied(call, known, How.CONSULTED):
        for one, its_leg in _staying(call, known, moment.time):
            for two, other_leg in _staying(other, known, moment.time):
                begin = max(moment.time, min(call.end, other.end))
                for span in _free([(begin, min(its_leg.end, other_leg.end))], _held([its_leg, other_leg])):
                    yield Talk(*span, one, two, place[other_leg.id])
                return


def _unheld(chain: list[Told]) -> list[Span]:
    """The times in which all legs were answered, and nobody was on hold."""
    begin = max(call.answered for call in chain if call.answered is not None)
    return _free([(begin, min(call.end for call in chain))], _held(chain))


def _held(calls: list[Told]) -> list[Span]:
    spans = []
    for call in calls:
        since: dict[str, datetime] = {}
        for moment in sorted((one for one in call.moments if one.kind == "Hold"), key=lambda one: one.time):
            what, _, rest = moment.text.partition(" by ")
            party = rest.partition(" ")[0]
            if what == "held":
                since.setdefault(party, moment.time)
            elif party in since:
                spans.append((since.pop(party), moment.time))
        spans += [(begin, call.end) for begin in since.values()]
    return spans


def _free(spans: list[Span], taken: list[Span]) -> list[Span]:
    """What is left of spans without others."""
    for begin, end in taken:
        left = [(first, min(last, begin)) for first, last in spans] + [(max(first, end), last) for first, last in spans]
        spans = [span for span in dict.fromkeys(left) if span[0] < span[1]]
    return sorted(span for span in spans if span[0] < span[1])
