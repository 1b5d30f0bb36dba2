"""Calls from the generator as the storage room gets them: ended, with their payloads in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tapdeck.sniffer.engine import Engine
from tapdeck.sniffer.records import Records
from tapdeck.sniffer.selection import EndedCall
from tapdeck.sniffer.sources.payloads import Payloads
from tests.sniffer.listening import RAW_IP, Wire
from tests.support.ip import Packet


@dataclass(frozen=True)
class Heard:
    """What a capture held, and where its payloads can be fetched."""

    ended: list[EndedCall]
    payloads: Payloads
    engine: Engine

    @property
    def only(self) -> EndedCall:
        (one,) = self.ended
        return one


def heard(folder: Path, packets: Sequence[Packet]) -> Heard:
    """Run packets through the engine; their bytes lie in a file in `folder`."""
    wire = Wire(packets)
    path = folder / "packets"
    path.write_bytes(wire.data.tobytes())
    payloads = Payloads(folder)
    base = payloads.add(path.open("rb"))
    engine = Engine(stash=payloads.stash)
    link = np.full(len(packets), RAW_IP, dtype=np.uint16)
    records = Records(wire.data, wire.offset, wire.length, wire.length, wire.time, link, base)
    ended = [*engine.feed(engine.columns.read(records)), *engine.finish()]
    ended.sort(key=lambda one: one.call.started)
    return Heard(ended, payloads, engine)
