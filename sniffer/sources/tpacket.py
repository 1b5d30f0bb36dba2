"""The memory of a TPACKET_V3 receive ring: how frames lie in its blocks, and how it is mapped.

The layout is the kernel's (linux/if_packet.h, Documentation/networking/packet_mmap.rst): a ring is blocks of one size;
a block begins with a header, frames follow it, each with a header that says how far the next one is. All fields are in
the machine's own byte order.
"""

import ctypes
import mmap
import os
import sys
import weakref

import numpy as np
import numpy.typing as npt

from ..records import PADDING, Bytes, Ints, Records, Walk, gather
from .capture_file import CaptureError

ETHERNET, RAW_IP = 1, 101
"""Link types (LINKTYPE_*) that a ring may have."""
BLOCK = np.dtype(
    {
        "names": ["status", "frames", "first", "length"],
        "formats": ["=u4", "=u4", "=u4", "=u4"],
        "offsets": [8, 12, 16, 20],
        "itemsize": 48,
    }
)
USER = 1
"""Bit of a block's status: it is ours until it is given back (TP_STATUS_USER)."""
KERNEL = 0
_FRAME = np.dtype(
    [
        ("next", "=u4"),
        ("seconds", "=u4"),
        ("nanoseconds", "=u4"),
        ("captured", "=u4"),
        ("wire", "=u4"),
        ("status", "=u4"),
        ("link", "=u2"),
        ("network", "=u2"),
        ("hash", "=u4"),
        ("tag", "=u4"),
        ("tag_kind", "=u2"),
        ("padding", "=u2"),
    ]
)
_VLAN_VALID, _VLAN_KIND_VALID = 0x10, 0x40
_C_TAG = 0x8100
TAG = 4
"""Bytes of an 802.1Q tag; so much room in front of each frame must be asked for (PACKET_RESERVE)."""
_MACS = 12
_SECOND = 1_000_000_000
_WALK = Walk(head=_FRAME.itemsize, field=0, base=0, little=sys.byteorder == "little")
_MAP_FIXED, _MAP_NORESERVE = 0x10, 0x4000
_NOTHING = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE


def frames(ring: Bytes, heads: npt.NDArray[np.void], block: int, first: int, link: int) -> Records:
    """Return the frames of neighbouring blocks, the first at number `first`; `heads` are their headers.

    `ring` is the ring's memory with PADDING readable bytes behind it, `block` the size of a block. Tags that the kernel
    took out of frames are put back in place: call this once for a block.
    """
    found = [_block(ring, (first + count) * block, head) for count, head in enumerate(heads)]
    at = np.concatenate(found) if len(found) > 1 else found[0]
    begin, end = first * block, (first + len(heads)) * block
    head = gather(ring, at, _FRAME)
    length, wire = head["captured"].astype(np.int64), head["wire"].astype(np.int64)
    offset = at - begin
    data = ring[begin : end + PADDING]
    if link == RAW_IP:  # some tunnels have a header in front of the packet, and say so only here
        offset += head["network"]
        skipped = head["network"].astype(np.int64) - head["link"]
        length, wire = np.maximum(length - skipped, 0), np.maximum(wire - skipped, 0)
    else:
        offset += head["link"]
        _restore_tags(data, head, offset, length, wire)
    return Records(
        data=data,
        offset=offset,
        length=length,
        wire=wire,
        time=head["seconds"].astype(np.int64) * _SECOND + head["nanoseconds"],
        link=np.full(len(at), link, dtype=np.uint16),
        position=0,
    )


def _block(ring: Bytes, begin: int, head: np.void) -> Ints:
    """Return where the headers of a block's frames lie. The last frame's step is 0, which ends the walk."""
    if not head["frames"]:
        return np.empty(0, dtype=np.int64)
    at, last, _ = _WALK.find(ring, begin + int(head["first"]), begin + int(head["length"]))
    at = np.append(at, last)
    if len(at) != head["frames"]:
        raise RuntimeError(f"a block of the ring holds {len(at)} frames where its header says {head['frames']}")
    return at


def _restore_tags(data: Bytes, head: npt.NDArray[np.void], offset: Ints, length: Ints, wire: Ints) -> None:
    """Put the VLAN tags back that the kernel moved to the headers, changing all arguments in place."""
    tagged = head["status"] & _VLAN_VALID != 0
    if not tagged.any():
        return
    rows = np.nonzero(tagged & (length >= _MACS))[0]
    head, old = head[rows], offset[rows]
    new = old - TAG
    macs = np.ndarray((len(data) - _MACS + 1,), dtype=f"V{_MACS}", buffer=data, strides=(1,))
    macs[new] = macs[old]
    tag = np.empty((len(rows), 2), dtype=">u2")
    tag[:, 0] = np.where(head["status"] & _VLAN_KIND_VALID, head["tag_kind"], _C_TAG)
    tag[:, 1] = head["tag"]
    tags = np.ndarray((len(data) - TAG + 1,), dtype=f"V{TAG}", buffer=data, strides=(1,))
    tags[new + _MACS] = tag.view(f"V{TAG}")[:, 0]
    offset[rows] = new
    length[rows] += TAG
    wire[rows] += TAG


class Mapping:
    """A ring's memory, with a page of zeros behind it. Raises CaptureError if it cannot be mapped.

    What still looks at it when it is closed sees zeros from then on; the addresses are given back when nobody does.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_longlong]
        self._libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._size = size
        whole = size + mmap.PAGESIZE
        self._start = self._map(None, whole, _NOTHING, -1)
        place = (ctypes.c_uint8 * whole).from_address(self._start)
        weakref.finalize(place, self._libc.munmap, self._start, whole).atexit = False
        self._map(self._start, size, mmap.MAP_SHARED | _MAP_FIXED, descriptor)
        self.data: Bytes = np.frombuffer(memoryview(place), dtype=np.uint8)

    def close(self) -> None:
        """Let go of the ring: its socket is free to end."""
        self._map(self._start, self._size, _NOTHING | _MAP_FIXED, -1)
        self.data = np.empty(0, dtype=np.uint8)

    def _map(self, place: int | None, size: int, kind: int, descriptor: int) -> int:
        start = self._libc.mmap(place, size, mmap.PROT_READ | mmap.PROT_WRITE, kind, descriptor, 0)
        if start in (None, ctypes.c_void_p(-1).value):
            raise CaptureError(
                f"the ring's {size >> 20} MiB cannot be mapped ({os.strerror(ctypes.get_errno())}): "
                "choose a smaller ring (capture.ring_mb)"
            )
        return int(start)
