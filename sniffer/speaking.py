"""What is said in calls, live: SIP, and what else tells of their sound, goes into the spools of the calls. No I/O."""

from dataclasses import dataclass, field

from ..sip.call import State
from ..sip.keys import masked
from . import blocks
from .datagrams import SlowPacket
from .dtls import Agreement
from .early import Early
from .engine import Engine
from .gate import Gate
from .items import Begun, Cycle, Past, Reported, Spoke
from .signalling import Heard
from .tracked import Claim, Tracked


@dataclass(slots=True)
class Spool:
    """What the engine remembers of a call's spool: whether it was begun, how many frames of media are in it, and the
    DTLS sessions that it knows of.
    """

    tracked: Tracked
    past: Past | None = None
    begun: bool = False
    frames: int = 0
    agreed: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class SpeakingEngine(Engine):
    """An engine that gives out what is said. With `mask_digits` no key that is pressed is given out."""

    mask_digits: bool = False
    gate: Gate = field(init=False)
    _spools: dict[int, Spool] = field(init=False, default_factory=dict)
    _cycle: Cycle = field(init=False, default_factory=Cycle)
    _past: Past | None = field(init=False, default=None)
    _early: Early = field(init=False, default_factory=Early)

    def _hear(self, heard: Heard) -> None:
        Engine._hear(self, heard)
        call = self.correlator.dialogs.call_of(heard.message)
        spool = self._spools.get(call.number) if call is not None else None
        if spool is None or call is None:
            return
        raw = masked(heard.message.raw) if self.mask_digits else heard.message.raw
        packet = blocks.datagram(heard.source, heard.destination, raw)
        spoke = Spoke(call.number, heard.time, packet)
        doubtful = (call.state is State.CALLING or call.joined_late) and self.gate.flooded(heard.time)
        if self._past is not None or (doubtful and not spool.begun):
            self._early.keep(spoke, anyway=self._past is not None)
        else:
            self._begin(spool, heard.time)
            self._cycle.items.append(spoke)

    def _secured(self, packet: SlowPacket) -> list[Tracked]:
        """The end of a ZRTP handshake belongs into the spool: it tells when sound ends and cipher begins."""
        found = Engine._secured(self, packet)
        ends = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
        for tracked in found:
            spool = self._spools.get(tracked.call.number)
            if spool is None:
                continue
            self._put(spool, Spoke(tracked.call.number, packet.time, blocks.datagram(*ends, packet.payload)))
        return found

    def _reported(self, packet: SlowPacket) -> list[Tracked]:
        """Reports belong into the spool: they tell how far away the parties are, and what reached them."""
        found = Engine._reported(self, packet)
        ends = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
        for tracked in found:
            spool = self._spools.get(tracked.call.number)
            if spool is not None and spool.begun:
                datagram = blocks.datagram(*ends, packet.payload)
                self._cycle.items.append(Reported(tracked.call.number, packet.time, datagram))
        return found

    def _shook_hands(self, packet: SlowPacket) -> Agreement | None:
        """A DTLS session begins between endpoints whose media a call may hold already."""
        agreement = Engine._shook_hands(self, packet)
        if agreement is not None:
            for stream in self.streams.touching(*agreement.client):
                for claim in self.correlator.holders(stream):
                    self._tell_agreements(stream, claim)
        return agreement

    def _tell_agreements(self, stream: int, claim: Claim) -> None:
        """The hellos of the DTLS sessions that a stream runs in belong into the spool: they say which keys it needs."""
        number = claim.tracked.call.number
        spool = self._spools.get(number)
        if spool is None:
            return
        for agreement in self._handshakes.between(*self.streams.ends(stream)):
            if agreement.taken.random in spool.agreed:
                continue
            spool.agreed.add(agreement.taken.random)
            for said in agreement.packets:
                ends = (said.source, said.source_port), (said.destination, said.destination_port)
                self._put(spool, Spoke(number, said.time, blocks.datagram(*ends, said.payload)))

    def _put(self, spool: Spool, spoke: Spoke) -> None:
        """Have something that was said in a call's spool, which may not have begun."""
        if spool.begun:
            self._cycle.items.append(spoke)
        else:
            self._early.keep(spoke, anyway=self._past is not None)

    def _begin(self, spool: Spool, time: int) -> None:
        """Begin the spool of a call with what it said so far."""
        if spool.begun:
            return
        spool.begun = True
        self._cycle.items.append(Begun(spool.tracked, time, spool.past))
        self._cycle.items += self._early.take(spool.tracked.call.number)
