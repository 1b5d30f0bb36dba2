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
_TAGGED = np.dtype([("macs", f"V{_MACS}"), ("kind", ">u2"), ("tag", ">u2")])
_SECOND = 1_000_000_000
_ALIGNMENT = 8
"""Headers of frames lie at multiples of this from each other."""
_LOOK = 24
"""Place of the fields `link` and `network` in a header."""
_STEP = np.dtype([("next", "=u4")])
_FEW, _LONG = 40, 2048
"""Below so many frames in a block, or with frames longer than that, walking from one to the next is cheaper."""
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
    """Return where the headers of a block's frames lie. The last frame's step is 0."""
    count, first, end = int(head["frames"]), begin + int(head["first"]), begin + int(head["length"])
    if count == 0:
        return np.empty(0, dtype=np.int64)
    at = _evenly(ring, first, end, count)
    if at is None and count > max(_FEW, (end - begin) // _LONG):
        at = _by_look(ring, first, end, count)
    if at is None:
        at, last, _ = _WALK.find(ring, first, end)
        at = np.append(at, last)
        if len(at) != count:
            raise RuntimeError(f"a block of the ring holds {len(at)} frames where its header says {count}")
    return at


def _evenly(ring: Bytes, first: int, end: int, count: int) -> Ints | None:
    """Return where headers lie if all steps from one to the next are the same."""
    step = int(ring[first : first + 4].view("=u4")[0])
    if (count > 1 and step < _FRAME.itemsize) or first + step * (count - 1) + _FRAME.itemsize > end:
        return None
    steps = np.ndarray((count - 1,), dtype="=u4", buffer=ring, offset=first, strides=(step,))
    return first + step * np.arange(count, dtype=np.int64) if (steps == step).all() else None


def _by_look(ring: Bytes, first: int, end: int, count: int) -> Ints | None:
    """Return where headers lie if they can be told by two fields that seldom differ; frames of all sizes in one step.

    The step of whatever looks like a header must lead to the next: what a frame's bytes pretend to be is found out.
    """
    shape = ((end - first - _FRAME.itemsize) // _ALIGNMENT + 1,)
    looks = np.ndarray(shape, dtype="=u4", buffer=ring, offset=first + _LOOK, strides=(_ALIGNMENT,))
    at = first + np.nonzero(looks == looks[0])[0] * _ALIGNMENT
    if len(at) != count:
        return None
    steps = gather(ring, at[:-1], _STEP)["next"]
    return at if (np.diff(at) == steps).all() else None


def _restore_tags(data: Bytes, head: npt.NDArray[np.void], offset: Ints, length: Ints, wire: Ints) -> None:
    """Put the VLAN tags back that the kernel moved to the headers, changing all arguments but `head` in place."""
    tagged = head["status"] & _VLAN_VALID != 0
    if not tagged.any():
        return
    rows = np.nonzero(tagged & (length >= _MACS))[0]
    old, size = offset[rows], _MACS + TAG
    windows = np.ndarray((len(data) - size + 1,), dtype=f"V{size}", buffer=data, strides=(1,))
    begin = windows[old].view(_TAGGED)
    begin["kind"] = np.where(head["status"][rows] & _VLAN_KIND_VALID, head["tag_kind"][rows], _C_TAG)
    begin["tag"] = head["tag"][rows]
    windows[old - TAG] = begin.view(f"V{size}")
    offset[rows] -= TAG
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
