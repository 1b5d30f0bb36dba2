"""The ground the layers stand on: parts of a block's frames, the queue of layers to peel, the fates."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .addresses import AddressBook
from .datagrams import Fate, Keys, Mask, SlowPacket
from .records import Bytes, Ints, Records

MAX_LAYERS = 32


@dataclass(slots=True)
class Part:
    """Frames at one layer: which frames (rows), where the layer begins and the packet ends in the block."""

    rows: Ints
    at: Ints
    end: Ints
    depth: int
    source: Keys = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    destination: Keys = field(default_factory=lambda: np.empty(0, dtype=np.uint64))

    def pick(self, mask: Mask, skip: Ints | int = 0) -> "Part":
        """Return the masked frames, `skip` bytes further on."""
        if mask.all():
            return Part(self.rows, self.at + skip, self.end, self.depth, self.source, self.destination)
        add = skip if isinstance(skip, int) else skip[mask]
        source = self.source[mask] if len(self.source) else self.source
        destination = self.destination[mask] if len(self.destination) else self.destination
        return Part(self.rows[mask], self.at[mask] + add, self.end[mask], self.depth, source, destination)


class Peeler:
    """One block of frames on its way through the layers."""

    def __init__(self, records: Records, book: AddressBook) -> None:
        self.records = records
        self.data: Bytes = records.data
        self.book = book
        self.fate = np.zeros(len(records), dtype=np.uint8)
        self.slow: list[tuple[int, SlowPacket]] = []
        self.work: deque[tuple[Callable[[Part], None], Part]] = deque()

    def later(self, layer: Callable[[Part], None], part: Part, deeper: bool = False) -> None:
        """Queue frames for a layer; `deeper` counts one more nesting and ends it at `MAX_LAYERS`."""
        if len(part.rows) == 0:
            return
        part.depth += deeper
        if part.depth > MAX_LAYERS:
            self.ends(part.rows, Fate.TOO_DEEP)
        else:
            self.work.append((layer, part))

    def ends(self, rows: Ints, fate: Fate) -> None:
        """Give frames their fate."""
        if len(rows):
            self.fate[rows] = fate

    def room(self, part: Part, size: int, fate: Fate) -> Part:
        """Return the frames that have `size` more bytes; the others end here."""
        enough = part.end - part.at >= size
        if enough.all():
            return part
        self.ends(part.rows[~enough], fate)
        return part.pick(enough)

    def split(
        self, part: Part, value: npt.NDArray[np.int64], ways: dict[int, tuple[Callable[[Part], None], int]]
    ) -> Mask:
        """Send frames on by a field's value: value -> (layer, bytes to skip).

        Return the mask of frames sent nowhere.
        """
        left = np.ones(len(value), dtype=bool)
        for key, (layer, skip) in ways.items():
            mask = value == key
            if mask.any():
                self.later(layer, part.pick(mask, skip), deeper=True)
                left &= ~mask
        return left

    def slow_packet(
        self, row: int, fate: Fate, flow: tuple[int, int, int, int], at: int, end: int, cut: bool = False
    ) -> None:
        """Hand a packet to the slow path; `flow` is source and destination key, source and destination port."""
        packet = SlowPacket(
            time=int(self.records.time[row]),
            fate=fate,
            source=self.book.text(flow[0]),
            destination=self.book.text(flow[1]),
            source_port=flow[2],
            destination_port=flow[3],
            payload=self.data[at:end].tobytes(),
            cut=cut or bool(self.records.wire[row] > self.records.length[row]),
        )
        self.slow.append((row, packet))
