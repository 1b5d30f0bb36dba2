"""The frames of one visit to the ring, and where each datagram's frame is. Pure."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from . import blocks, hiding
from .blocks import RAW_IP, PacketBlocks
from .datagrams import Mask, RtpColumns
from .records import PADDING, Ints, Records

_WHOLE = 1 << 60
_STEP = 1 << 17
"""What was put together from fragments lies at positions from `_WHOLE` on, `_STEP` apart: no packet is as long."""


class Visit:
    """What is to be taken from `records`, and from packets that were put together from fragments meanwhile. `links` are
    the link types that frames may have: in a spool file interface 0 is raw IP, the others follow in their order.
    """

    records: Records

    def __init__(self, links: tuple[int, ...]) -> None:
        self._whole: list[bytes] = []
        self._numbers = np.zeros(1 << 16, dtype=np.uint32)
        for number, link in enumerate(dict.fromkeys((RAW_IP, *links))):
            self._numbers[link] = number

    def keep_whole(self, packet: bytes) -> int:
        """Keep a packet that was put together from fragments; return its position."""
        self._whole.append(packet)
        return _WHOLE + (len(self._whole) - 1) * _STEP

    def end(self) -> None:
        """Forget what was put together: all of it has been taken."""
        self._whole.clear()

    def hide(self, rtp: RtpColumns, rows: Ints) -> None:
        """Take the numbers out of the events at these rows, wherever they lie: in the ring's memory itself."""
        whole = rtp.position[rows] >= _WHOLE
        for row in rows[whole].tolist():
            number, place = divmod(int(rtp.position[row]) - _WHOLE, _STEP)
            self._whole[number] = hiding.hidden(self._whole[number], place, int(rtp.head[row]))
        rows = rows[~whole]
        if len(rows) and not self.records.data.flags.writeable:
            self.records = replace(self.records, data=self.records.data.copy())
        hiding.hide(self.records.data, rtp.position[rows] - self.records.position, rtp.head[rows].astype(np.int64))

    def frames(self, rtp: RtpColumns) -> Iterator[tuple[Records, Mask, Ints]]:
        """Yield where datagrams lie: in which records, the mask of those that do, and the frame of each."""
        whole = rtp.position >= _WHOLE
        header_end = rtp.position - self.records.position - 1  # an empty payload would lie in the next frame
        frame = np.searchsorted(self.records.offset, header_end, side="right") - 1
        yield self.records, ~whole, frame
        if whole.any():
            place = (rtp.position - _WHOLE) // _STEP
            yield self._joined(place[whole], rtp.time[whole]), whole, place

    def _joined(self, place: Ints, time: Ints) -> Records:
        """Return what was put together as frames of raw IP; `time` (ns) is that of the packets at `place`."""
        sizes = np.array([len(packet) for packet in self._whole], dtype=np.int64)
        offset = np.concatenate(([0], np.cumsum(sizes)))[:-1]
        data = np.frombuffer(b"".join(self._whole) + bytes(PADDING), dtype=np.uint8)
        times = np.zeros(len(sizes), dtype=np.int64)
        times[place] = time
        return Records(data, offset, sizes, sizes, times, np.full(len(sizes), RAW_IP, dtype=np.uint16), 0)

    def packets(self, records: Records, frame: Ints) -> PacketBlocks:
        """Return frames as packet blocks for a spool file."""
        numbers: npt.NDArray[np.uint32] = self._numbers[records.link[frame]]
        return blocks.packets(records, frame, numbers)
