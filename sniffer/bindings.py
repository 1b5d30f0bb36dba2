"""Which endpoint belongs to which party of which call, and since when. No I/O."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..sip.dialog import Party
from ..sip.sdp import Media
from .datagrams import Keys, Mask, RtpColumns

if TYPE_CHECKING:
    from .tracked import Tracked

EndpointKey = tuple[int, int]
"""Address key and port."""

MAX_BINDINGS_PER_ENDPOINT = 64
MAX_ENDPOINTS = 512
"""Endpoints that a call may have named, one after the other: beyond it the oldest are forgotten."""
CROWDED, FEW = 1 << 18, 8
"""Endpoints from which on a call may name only a few more: INVITEs with 64 m-lines each must not fill the memory."""
MAX_BESIDE = 8192
"""Endpoints that were named for something else than RTP and are looked for; beyond it the oldest are not."""


class Source(IntEnum):
    """How we know an endpoint; higher is better."""

    LEARNED = 0
    """From a stream that answers one we know (symmetric RTP, RFC 4961), or from the address the party's SIP comes
    from."""
    RELAY = 1
    """From SDP that was rewritten on its way: the endpoint of a relay."""
    OWN = 2
    """From the party's own SDP."""


@dataclass(slots=True, eq=False)
class Binding:
    """One endpoint of one party of one call. `tag` is the fork's To-tag, empty for the caller; `since` in ns."""

    tracked: "Tracked"
    party: Party
    tag: str
    since: int
    announced_by: str
    source: Source
    media: Media | None
    kinds: set[str] = field(default_factory=set)
    """What it was ever named for, as m-lines have it; a fax by T.38 may follow sound on the same port."""
    beside: bool = False
    """Whether it was ever named for something else than RTP."""

    def __post_init__(self) -> None:
        if self.media is not None:
            self.kinds.add(self.media.kind)
            self.beside = "RTP" not in self.media.proto


@dataclass(slots=True)
class Match:
    """How well a stream fits a call: the bindings of where it goes to and where it comes from."""

    to: Binding | None = None
    from_: Binding | None = None

    @property
    def tracked(self) -> "Tracked":
        """The call."""
        binding = self.to or self.from_
        assert binding is not None
        return binding.tracked

    @property
    def consistent(self) -> bool:
        """Whether both ends are known and belong to opposite parties."""
        return self.to is not None and self.from_ is not None and self.to.party is not self.from_.party

    @property
    def score(self) -> int:
        """Rank: both ends over the destination alone over the source alone; announced ends over learned ones."""
        if self.to is not None and self.consistent:
            assert self.from_ is not None
            return 8 + (self.to.source > 0) + (self.from_.source > 0)
        if self.to is not None:
            return 4 + (self.to.source > 0)
        assert self.from_ is not None
        return 2 + (self.from_.source > 0)

    @property
    def since(self) -> int:
        """When the newer of the two bindings was made, in ns."""
        return max(binding.since for binding in (self.to, self.from_) if binding is not None)

    @property
    def sender(self) -> Party:
        """Whose sound this is: of the party that does not receive it."""
        if self.to is not None:
            return Party.CALLEE if self.to.party is Party.CALLER else Party.CALLER
        assert self.from_ is not None
        return self.from_.party

    @property
    def standing(self) -> int:
        """How close to its sender the stream was seen: 2 own endpoint, 1 an unknown one (NAT), 0 behind a relay."""
        if self.from_ is not None and self.consistent:
            return {Source.OWN: 2, Source.LEARNED: 1, Source.RELAY: 0}[self.from_.source]
        return 1

    @property
    def media(self) -> Media | None:
        """The m-line, of the receiver where it is known: its payload types hold (RFC 3264 section 6.1)."""
        for binding in (self.to, self.from_):
            if binding is not None and binding.media is not None:
                return binding.media
        return None

    @property
    def kind(self) -> str:
        """What RTP of this match is, as an m-line has it: sound if its end was ever named for that."""
        for binding in (self.to, self.from_):
            if binding is not None and binding.media is not None:
                return "audio" if "audio" in binding.kinds else binding.media.kind
        return "audio"


@dataclass(slots=True)
class Bindings:
    """Endpoint -> bindings, newest last; bounded for each endpoint and each call."""

    _table: dict[EndpointKey, list[Binding]] = field(default_factory=dict)
    _beside: dict[EndpointKey, None] = field(default_factory=dict)
    _ends: Keys | None = None

    def __len__(self) -> int:
        return len(self._table)

    def add(self, endpoint: EndpointKey, new: Binding) -> bool:
        """Bind an endpoint. Return whether that told us anything new."""
        held = self._table.setdefault(endpoint, [])
        for old in held:
            if old.tracked is new.tracked and old.party is new.party and old.tag == new.tag:
                better = new.source > old.source
                old.source = max(old.source, new.source)
                if new.media is not None:
                    old.media = new.media
                    old.kinds |= new.kinds
                    old.beside |= new.beside
                    self._note_beside(endpoint, old.beside)
                return better
        if len(self._table) > CROWDED and len(new.tracked.endpoints) >= FEW:
            if not held:
                del self._table[endpoint]
            return False
        if len(held) >= MAX_BINDINGS_PER_ENDPOINT:
            held.pop(0)
        held.append(new)
        self._note_beside(endpoint, new.beside)
        new.tracked.endpoints.append(endpoint)
        if len(new.tracked.endpoints) > MAX_ENDPOINTS:
            self._drop(new.tracked.endpoints.pop(0), new.tracked)
        return True

    def bound(self, endpoint: EndpointKey) -> bool:
        """Tell whether SDP named this endpoint, for any call."""
        return any(binding.source > Source.LEARNED for binding in self._table.get(endpoint, ()))

    def remove(self, tracked: "Tracked") -> None:
        """Forget a call's endpoints."""
        for endpoint in tracked.endpoints:
            self._drop(endpoint, tracked)

    def _drop(self, endpoint: EndpointKey, tracked: "Tracked") -> None:
        held = [binding for binding in self._table.get(endpoint, ()) if binding.tracked is not tracked]
        if held:
            self._table[endpoint] = held
        else:
            self._table.pop(endpoint, None)
        if endpoint in self._beside and not any(binding.beside for binding in held):
            del self._beside[endpoint]
            self._ends = None

    def _note_beside(self, endpoint: EndpointKey, beside: bool) -> None:
        if beside and endpoint not in self._beside:
            self._beside[endpoint] = None
            if len(self._beside) > MAX_BESIDE:
                del self._beside[next(iter(self._beside))]
            self._ends = None

    @property
    def any_beside(self) -> bool:
        """Whether any endpoint was ever named for something else than RTP."""
        return bool(self._beside)

    def only_beside(self, endpoint: EndpointKey) -> bool:
        """Tell whether SDP named an endpoint last for something else than RTP, in all calls that know it: what one says
        must not take the sound of another.
        """
        said = [binding.media for binding in self._table.get(endpoint, ()) if binding.media is not None]
        return bool(said) and all("RTP" not in media.proto for media in said)

    def beside(self, rows: RtpColumns) -> Mask:
        """Tell which datagrams come from or go to an endpoint that SDP named for something else than RTP."""
        if not self._beside:
            return np.zeros(len(rows), dtype=bool)
        if self._ends is None:
            addresses, ports = zip(*self._beside, strict=True)
            self._ends = np.sort(_end_keys(np.array(addresses, dtype=np.uint64), np.array(ports, dtype=np.uint32)))
        found = _is_in(_end_keys(rows.destination, rows.ports & np.uint32(0xFFFF)), self._ends)
        return found | _is_in(_end_keys(rows.source, rows.ports >> np.uint32(16)), self._ends)

    def matches(self, source: EndpointKey, destination: EndpointKey) -> list[Match]:
        """Return how the calls that know either end of a stream fit it."""
        found: dict[int, Match] = {}
        for binding in self._table.get(destination, ()):
            match = found.setdefault(id(binding.tracked), Match())
            if match.to is None or binding.source >= match.to.source:
                match.to = binding
        for binding in self._table.get(source, ()):
            match = found.setdefault(id(binding.tracked), Match())
            opposite = match.to is None or match.to.party is not binding.party
            if match.from_ is None or (opposite and binding.source >= match.from_.source):
                match.from_ = binding
        return list(found.values())


def _is_in(keys: Keys, ends: Keys) -> Mask:
    """Tell which keys are among `ends`, which are in order and not none."""
    found: Mask = ends[np.minimum(np.searchsorted(ends, keys), len(ends) - 1)] == keys
    return found


def _end_keys(address: Keys, port: npt.NDArray[np.uint32]) -> Keys:
    """Return a key (uint64) of each endpoint."""
    keys: Keys = address * np.uint64(0x9E3779B97F4A7C15) + port.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    return keys
