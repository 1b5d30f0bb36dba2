"""Where calls are found: by Call-ID and tags, by their deadlines, and, for a while, after they are closed."""

import heapq
from collections import Counter, OrderedDict
from collections.abc import Iterator

from .call import Call, Endpoint, Party, State
from .headers import parse_params
from .message import Message

MAX_CLOSED = 20_000
MAX_TAGS = 64
MAX_LEGS = 8
"""Calls with one Call-ID, which a B2BUA may keep on its legs, from which on it proves nothing any more."""
_LOOKED_AT = 16


class CallTable:
    """The calls in progress, at most `limit`, and the keys of calls that are over or were refused."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: dict[int, Call] = {}
        self._by_tag: dict[tuple[str, str], Call] = {}
        self._challenged: dict[str, Call] = {}
        self._forgotten: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._given_up: dict[tuple[str, str], None] = {}
        self._deadlines: list[tuple[int, int]] = []
        self._call_ids: Counter[str] = Counter()
        self._unproven: dict[int, Call] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._open.values()))

    def knows(self, call_id: str) -> bool:
        """Whether a call in progress has this Call-ID, or a few have."""
        return 0 < self._call_ids[call_id] <= MAX_LEGS

    def prove(self, call: Call) -> None:
        """There is more to this call than words: it will not be given up for others."""
        self._unproven.pop(call.number, None)

    def unproven_since(self, time: int) -> Call | None:
        """A call, one of the oldest, of which there are only words, and none since `time`."""
        for _ in range(min(len(self._unproven), _LOOKED_AT)):
            number, call = next(iter(self._unproven.items()))
            if call.last_seen < time:
                return call
            self._unproven[number] = self._unproven.pop(number)
        return None

    def find(self, message: Message) -> tuple[Call | None, Party]:
        """The call, and which party sent the message: the tag in From is the request's sender's (section 12.2).

        A REFER may come in a dialog of its own, and name the call's (RFC 4538).
        """
        if message.method == "REFER" and not message.to.tag:
            return self._find_named(message.get("target-dialog"))
        call_id, from_tag, to_tag = message.call_id, message.from_.tag, message.to.tag
        call, asking = self._by_tag.get((call_id, from_tag)), Party.CALLER
        if call is None:
            call = self._by_tag.get((call_id, to_tag))
            if call is not None and not to_tag and from_tag not in call.forks:
                call = None
            asking = Party.CALLEE if call else Party.CALLER
        return call, asking if message.method else asking.other

    def _find_named(self, dialog: str) -> tuple[Call | None, Party]:
        """The call that a Target-Dialog value names, and which party's tag is the sender's."""
        call_id, _, rest = dialog.partition(";")
        params = parse_params(rest)
        for tag, sender in (("local-tag", Party.CALLER), ("remote-tag", Party.CALLEE)):
            call = self._by_tag.get((call_id.strip(), params.get(tag, "")))
            if call is not None:
                return call, sender
        return None, Party.CALLER

    def starts_anew(self, call: Call | None, message: Message) -> bool:
        """Whether this is a first INVITE, and not the late copy of a finished call's."""
        if message.method != "INVITE" or message.to.tag:
            return False
        if call is not None:
            return call.state in (State.ENDED, State.CANCELLED) and message.cseq.number > call.memory.invite
        return not self.is_late_invite(message)

    def is_late(self, message: Message) -> bool:
        """Whether the message belongs to a call that was ended or refused; one only given up may go on."""
        tags = message.from_.tag, message.to.tag
        keys = [(message.call_id, tag) for tag in tags]
        return any(key in self._forgotten and key not in self._given_up for key in keys)

    def is_late_invite(self, invite: Message) -> bool:
        """Whether a first INVITE is the copy of one that such a call has had."""
        return invite.cseq.number <= self._forgotten.get((invite.call_id, invite.from_.tag), -1)

    def claim_retry(self, invite: Message, source: Endpoint) -> Call | None:
        """The challenged call that its caller tries again under another From-tag (RFC 3261 section 8.1.3.5)."""
        call = self._challenged.get(invite.call_id)
        if call is None or call.state is not State.CHALLENGED or source[0] != call.invite_from[0]:
            return None
        if len(call.memory.tags) >= MAX_TAGS:
            return None
        call.caller_tag = invite.from_.tag
        self._index(call)
        return call

    def add(self, call: Call, deadline: int) -> None:
        """A new call; `deadline` is when it is given up unless something happens."""
        self._open[call.number] = self._unproven[call.number] = call
        self._call_ids[call.call_id] += 1
        self._index(call)
        self._forgotten.pop((call.call_id, call.caller_tag), None)
        self._given_up.pop((call.call_id, call.caller_tag), None)
        self.schedule(call, deadline)

    def _index(self, call: Call) -> None:
        call.memory.tags.add(call.caller_tag)
        self._by_tag[call.call_id, call.caller_tag] = call

    def refuse(self, message: Message) -> None:
        """Remember a call that there is no room for, so that its further messages are not taken for new calls."""
        self._forget((message.call_id, message.from_.tag), message.cseq.number)

    def remove(self, call: Call) -> None:
        """Take a closed call out; its late messages will be known as such."""
        del self._open[call.number]
        self._unproven.pop(call.number, None)
        self._call_ids[call.call_id] -= 1
        if not self._call_ids[call.call_id]:
            del self._call_ids[call.call_id]
        if self._challenged.get(call.call_id) is call:
            del self._challenged[call.call_id]
        for tag in call.memory.tags:
            if self._by_tag.get((call.call_id, tag)) is call:
                del self._by_tag[call.call_id, tag]
                self._forget((call.call_id, tag), call.memory.invite)
                if call.memory.given_up:
                    self._given_up[call.call_id, tag] = None

    def _forget(self, key: tuple[str, str], invite: int) -> None:
        self._forgotten[key] = max(invite, self._forgotten.get(key, -1))
        self._forgotten.move_to_end(key)
        while len(self._forgotten) > MAX_CLOSED:
            key, _ = self._forgotten.popitem(last=False)
            self._given_up.pop(key, None)

    def schedule(self, call: Call, deadline: int) -> None:
        """Have the call come due at `deadline`. A later one may also just be written into `call.memory.deadline`."""
        call.memory.deadline = deadline
        heapq.heappush(self._deadlines, (deadline, call.number))
        if call.state is State.CHALLENGED:
            self._challenged[call.call_id] = call

    def due(self, now: int) -> Iterator[tuple[Call, int]]:
        """Calls whose deadline is reached at `now`, with it, in its order; also those that come due while it runs."""
        while self._deadlines and self._deadlines[0][0] <= now:
            call = self._open.get(heapq.heappop(self._deadlines)[1])
            deadline = call.memory.deadline if call else None
            if call is None or deadline is None:
                continue
            if deadline > now:
                heapq.heappush(self._deadlines, (deadline, call.number))
            else:
                yield call, deadline
