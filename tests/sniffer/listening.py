"""The engine fed with packets from the generator, without files: what each call was found to consist of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tapdeck.sip.dialog import Party
from tapdeck.sniffer.engine import CallSettings, Engine, Limits
from tapdeck.sniffer.records import PADDING, Records
from tapdeck.sniffer.selection import EndedCall, Use
from tests.support.ip import Packet

RAW_IP = 101


@dataclass
class Wire:
    """Packets as one piece of memory, cut into blocks anywhere; `stashed` is what the engine put together itself."""

    packets: Sequence[Packet]
    stashed: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.data = np.frombuffer(b"".join(packet.ip for packet in self.packets) + bytes(PADDING), dtype=np.uint8)
        self.length = np.array([len(packet.ip) for packet in self.packets], dtype=np.int64)
        self.offset = np.cumsum(self.length) - self.length
        self.time = np.array([packet.time_ns for packet in self.packets], dtype=np.int64)

    def blocks(self, size: int) -> Iterator[Records]:
        link = np.full(len(self.packets), RAW_IP, dtype=np.uint16)
        for start in range(0, len(self.packets), size):
            part = slice(start, start + size)
            length = self.length[part]
            yield Records(self.data, self.offset[part], length, length, self.time[part], link[part], 0)

    def stash(self, data: bytes) -> int:
        self.stashed += data
        return len(self.data) + len(self.stashed) - len(data)

    def payload(self, position: int, size: int) -> bytes:
        whole = self.data if position < len(self.data) else self.stashed
        place = position if position < len(self.data) else position - len(self.data)
        return bytes(whole[place : place + size])


@dataclass(frozen=True)
class Found:
    """A call and the payloads of its tracks, by their use."""

    ended: EndedCall
    wire: Wire

    @property
    def reason(self) -> str:
        return self.ended.call.end_reason

    def payloads(self, party: Party, use: Use = Use.SOUND) -> list[bytes]:
        rows = [
            (int(row["time"]), int(row["sequence"]), self.wire.payload(int(row["position"]), int(row["size"])))
            for track in self.ended.tracks
            if track.sender is party and track.use is use
            for row in track.rows
        ]
        return [payload for _, _, payload in sorted(rows)]

    @property
    def left(self) -> list[bytes]:
        return self.payloads(Party.CALLER)

    @property
    def right(self) -> list[bytes]:
        return self.payloads(Party.CALLEE)

    @property
    def related(self) -> set[str]:
        return {other.call_id for other in self.ended.tracked.related}


@dataclass(frozen=True)
class Result:
    """All that a run gave."""

    found: list[Found]
    engine: Engine

    def __getitem__(self, call_id: str) -> Found:
        (one,) = (found for found in self.found if found.ended.call.call_id == call_id)
        return one

    def packets(self, fate: str, kind: str | None = None) -> int:
        return sum(
            count for (what, how), count in self.engine.account.packets.items() if what == fate and kind in (None, how)
        )


def listen(
    packets: Sequence[Packet],
    *,
    size: int = 1 << 20,
    settings: CallSettings | None = None,
    limits: Limits | None = None,
) -> Result:
    """Feed packets in blocks of `size`; give the ended calls in order of their start."""
    wire = Wire(packets)
    engine = Engine(stash=wire.stash, settings=settings or CallSettings(), limits=limits or Limits())
    ended = [one for block in wire.blocks(size) for one in engine.feed(engine.columns.read(block))]
    ended += engine.finish()
    ended.sort(key=lambda one: (one.call.started, one.call.call_id))
    return Result([Found(one, wire) for one in ended], engine)
