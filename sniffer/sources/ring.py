"""Listen on a network interface through a receive ring that the kernel fills (AF_PACKET, TPACKET_V3).

The kernel writes frames straight into memory that is mapped here; whole blocks of them are read as columns where they
lie, and given back. Nothing is ever sent: the socket can, but nobody asks it to.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..records import Records
from . import interfaces, tpacket
from .capture_file import CaptureError
from .ethtool import padded
from .tpacket import ETHERNET, RAW_IP

Instruction = tuple[int, int, int, int]
"""One instruction of classic BPF: code, jump if true, jump if false, operand."""

_LINKS = {
    1: ETHERNET,
    772: ETHERNET,  # loopback
    512: RAW_IP,  # PPP: the kernel has taken its header off
    519: RAW_IP,
    768: RAW_IP,  # IP in IP
    769: RAW_IP,
    776: RAW_IP,
    778: RAW_IP,  # GRE
    823: RAW_IP,
    0xFFFE: RAW_IP,  # no header at all: tun, WireGuard
}
"""Link types by hardware type (ARPHRD_*)."""
_SOL_PACKET = 263
_ADD_MEMBERSHIP, _RX_RING, _STATISTICS, _VERSION, _RESERVE, _TIMESTAMP, _IGNORE_OUTGOING = 1, 5, 6, 10, 12, 17, 23
_TPACKET_V3 = 2
_PROMISCUOUS = 1  # PACKET_MR_PROMISC
_ALL_PROTOCOLS = 3
_SO_ATTACH_FILTER, _SO_DETACH_FILTER, _SO_TIMESTAMPNS = 26, 27, 35
_SIOCSHWTSTAMP, _SIOCGHWTSTAMP = 0x89B0, 0x89B1
_STAMP_ALL = 1  # HWTSTAMP_FILTER_ALL
_RAW_HARDWARE = 1 << 6  # SOF_TIMESTAMPING_RAW_HARDWARE
_AWAY = (errno.ENETDOWN, errno.ENODEV, errno.ENXIO)


@dataclass(frozen=True, slots=True)
class Captured:
    """What was read at once: the frames of so many blocks. `records` is valid until the blocks are released."""

    records: Records
    blocks: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Since the ring was made: packets that the filter let through, drops among them because the ring was full, and how
    often it was full.
    """

    packets: int
    drops: int
    freezes: int


class Ring:
    """A receive ring on one interface. `size` and `block` in bytes; `timeout_ms` is when the kernel hands over a block
    that is not full yet; `instructions` as for `set_filter`, from the first frame on. Raises CaptureError, which says
    what to do.

    An interface that is down is no error: the ring is `gone` until it is up. `link` is the type of its frames,
    `hardware_stamps` whether the card stamps them.
    """

    def __init__(
        self,
        interface: str,
        *,
        size: int = 256 << 20,
        block: int = 1 << 20,
        timeout_ms: int = 50,
        promiscuous: bool = True,
        hardware_stamps: bool = False,
        instructions: Sequence[Instruction] | None = None,
    ) -> None:
        if block <= 0 or block % mmap.PAGESIZE:
            raise CaptureError(f"a ring's block is a multiple of {mmap.PAGESIZE} bytes, not {block} (capture.block_kb)")
        if size < 2 * block:
            raise CaptureError(f"a ring of {size} bytes holds no two blocks of {block} bytes: raise capture.ring_mb")
        self.name, self.blocks = interface, size // block
        self.hardware_stamps = hardware_stamps
        self._block, self._promiscuous = block, promiscuous
        self._next = self._held = 0
        self._gone = False
        self._packets = self._drops = self._freezes = 0
        self._socket = _open_socket(interface)
        try:
            self.link = link_type(interface, self._socket)
            self._set_up(timeout_ms)
            self.set_filter(instructions)
            self._memory = tpacket.Mapping(self._socket.fileno(), self.blocks * block)
            heads = np.ndarray((self.blocks,), tpacket.BLOCK, self._memory.data, strides=(block,))
            self._heads: npt.NDArray[np.void] = heads
            with _explained(interface, "listened on"):
                self._bind()
        except BaseException:
            self._socket.close()
            raise

    def _set_up(self, timeout_ms: int) -> None:
        """Ask for the ring, before the first frame can come."""
        with _explained(self.name, "given a ring"):
            self._set(_VERSION, struct.pack("i", _TPACKET_V3))
            self._set(_RESERVE, struct.pack("I", tpacket.TAG))
            # Stamped where frames enter the kernel, once for all who listen: not when this socket's turn comes.
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if interfaces.hardware_type(self.name, self._socket) == interfaces.LOOPBACK:
                self._set(_IGNORE_OUTGOING, struct.pack("i", 1))  # all that goes out of it comes in again
        if self.hardware_stamps:
            self._ask_for_hardware_stamps()
            self._set(_TIMESTAMP, struct.pack("i", _RAW_HARDWARE))
        _check_memory(self.blocks * self._block)
        # The third and fourth are a formality: frames are packed into blocks as they come.
        request = (self._block, self.blocks, self._block, self.blocks, timeout_ms, 0, 0)
        try:
            self._set(_RX_RING, struct.pack("7I", *request))
        except OSError as error:
            raise CaptureError(
                f"{self.name}: the kernel has no memory for a ring of {self.blocks * self._block >> 20} MiB "
                f"({error.strerror}): lower capture.ring_mb, or capture.block_kb"
            ) from None

    def _bind(self) -> None:
        """Listen. Raises OSError or CaptureError."""
        if self._promiscuous:  # ends with the interface, so that it is asked for anew
            number = interfaces.index(self.name, self._socket)
            self._set(_ADD_MEMBERSHIP, struct.pack("iHH8s", number, _PROMISCUOUS, 0, b""))
        self._notice_errors()
        self._socket.bind((self.name, _ALL_PROTOCOLS))
        self._gone = False
        self._notice_errors()

    def _set(self, option: int, value: bytes) -> None:
        self._socket.setsockopt(_SOL_PACKET, option, value)

    def _ask_for_hardware_stamps(self) -> None:
        """Have the card stamp all frames; what others asked it to do with frames that it sends stays as it is."""
        config = ctypes.create_string_buffer(12)
        request = padded(self.name) + struct.pack("P16x", ctypes.addressof(config))
        try:
            fcntl.ioctl(self._socket, _SIOCGHWTSTAMP, request)
            flags, sent, received = struct.unpack("3i", config.raw)
            if received != _STAMP_ALL:
                config.raw = struct.pack("3i", flags, sent, _STAMP_ALL)
                fcntl.ioctl(self._socket, _SIOCSHWTSTAMP, request)
        except OSError as error:
            raise CaptureError(
                f"{self.name}: the card gives no time stamps of its own for all frames ({error.strerror}): "
                "set capture.hardware_stamps to false"
            ) from None

    # -- reading -------------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """The descriptor to wait on: readable when a block is ready, in error when the interface is gone."""
        return self._socket.fileno()

    @property
    def ready(self) -> int:
        """How many blocks wait to be read."""
        return int(np.count_nonzero(self._heads["status"] & tpacket.USER)) - self._held

    @property
    def fill(self) -> float:
        """How much of the ring is not the kernel's to fill, 0 to 1: at 1 frames are lost."""
        return (self.ready + self._held) / self.blocks

    def read(self, limit: int = 32) -> Captured | None:
        """Return the frames of the blocks that are ready and lie behind each other, of at most `limit` blocks."""
        here = self._heads[self._next : self._next + min(limit, self.blocks - self._held)]
        mine = here["status"] & tpacket.USER != 0
        count = len(mine) if mine.all() else int(mine.argmin())
        if count == 0:
            return None
        records = tpacket.frames(self._memory.data, here[:count], self._block, self._next, self.link)
        self._next = (self._next + count) % self.blocks
        self._held += count
        return Captured(records, count)

    def release(self, blocks: int) -> None:
        """Give the oldest `blocks` blocks that were read back to the kernel: what lay in them is no longer valid."""
        if not 0 <= blocks <= self._held:
            raise ValueError(f"{blocks} blocks to release, {self._held} were read")
        first = (self._next - self._held) % self.blocks
        rest = first + blocks - self.blocks
        self._heads["status"][first : first + blocks] = tpacket.KERNEL
        self._heads["status"][: max(rest, 0)] = tpacket.KERNEL
        self._held -= blocks

    def statistics(self) -> Statistics:
        """Return the kernel's counts since the ring was made."""
        packets, drops, freezes = struct.unpack("3I", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 12))
        self._packets += packets  # reading sets the kernel's counts to zero
        self._drops += drops
        self._freezes += freezes
        return Statistics(self._packets, self._drops, self._freezes)

    def set_filter(self, instructions: Sequence[Instruction] | None) -> None:
        """Let the kernel pass on only what a program of classic BPF accepts; None: everything.

        The new one follows the old one without a gap. Raises CaptureError if the kernel refuses it.
        """
        if instructions is None:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
            return
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in instructions))
        program = struct.pack("@HP", len(instructions), ctypes.addressof(code))
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        except OSError as error:
            raise CaptureError(
                f"{self.name}: the kernel refuses the capture filter ({error.strerror}): make it shorter"
            ) from None

    # -- coming and going ----------------------------------------------------------------------------------------------

    @property
    def gone(self) -> bool:
        """Whether the interface has vanished, or was switched off: nothing comes until `reopen` returns True."""
        self._notice_errors()
        return self._gone

    def _notice_errors(self) -> None:
        """Take errors off the socket: it would be in error for ever, and nobody could wait on it."""
        wait = select.poll()
        wait.register(self._socket, 0)
        if wait.poll(0):
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error in _AWAY:
                self._gone = True
            elif error:
                raise CaptureError(f"{self.name}: listening failed: {os.strerror(error)}")

    def reopen(self) -> bool:
        """Listen again on an interface that was gone; return whether it is back. Needs no privileges.

        Raises CaptureError if something else has taken its name. Where the card no longer gives time stamps,
        `hardware_stamps` is False from then on.
        """
        try:
            if not interfaces.is_up(self.name, self._socket):
                return False
            if link_type(self.name, self._socket) != self.link:
                raise CaptureError(f"{self.name}: it has come back as another kind of interface: restart the recorder")
            if self.hardware_stamps:
                self.hardware_stamps = self._card_stamps()
            with _explained(self.name, "listened on"):
                self._bind()
        except CaptureError:
            if interfaces.is_up(self.name, self._socket):
                raise
            self._gone = True
        return not self._gone

    def _card_stamps(self) -> bool:
        """Ask the card again; False if it does not do it."""
        try:
            self._ask_for_hardware_stamps()
        except CaptureError:
            self._set(_TIMESTAMP, struct.pack("i", 0))
            return False
        return True

    def close(self) -> None:
        """Stop listening. Records that were read turn to zeros."""
        self._heads = np.empty(0, dtype=tpacket.BLOCK)
        self._memory.close()
        self._socket.close()

    def __enter__(self) -> "Ring":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def link_type(interface: str, door: socket.socket | None = None) -> int:
    """Return the link type (LINKTYPE_*) of a ring on an interface. Raises CaptureError."""
    if interface == "any":
        raise CaptureError("any: not an interface; name the interface of the mirror port, or several of them")
    hardware = interfaces.hardware_type(interface, door)
    if hardware not in _LINKS:
        raise CaptureError(
            f"{interface}: its frames cannot be read (hardware type {hardware}): choose an Ethernet interface"
        )
    return _LINKS[hardware]


def _check_memory(size: int) -> None:
    """Check that there is room for a ring: a kernel that has none ends other programs to make some.

    Raises CaptureError.
    """
    with open("/proc/meminfo", encoding="ascii") as file:
        facts = dict(line.split(":", 1) for line in file)
    room = int(facts["MemAvailable"].split()[0]) << 10
    if size > room * 3 // 4:
        raise CaptureError(
            f"a ring of {size >> 20} MiB is too much for this machine, which has {room >> 20} MiB left: "
            "lower capture.ring_mb"
        )


def _open_socket(interface: str) -> socket.socket:
    """Return a socket that hears nothing yet. Raises CaptureError."""
    with _explained(interface, "listened on"):
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)


@contextmanager
def _explained(interface: str, what: str) -> Iterator[None]:
    """Turn the kernel's errors into CaptureError."""
    try:
        yield
    except OSError as error:
        raise _explanation(interface, what, error) from None


def _explanation(interface: str, what: str, error: OSError) -> CaptureError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return CaptureError(
            f"{interface}: listening needs the right to open raw sockets: start as root, or with CAP_NET_RAW"
        )
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return CaptureError(f"{interface}: there is no such interface; `tapdeck interfaces` lists those there are")
    if error.errno in (errno.ENOPROTOOPT, errno.EAFNOSUPPORT):
        return CaptureError(f"{interface}: this kernel is too old to listen as needed: Linux 4.20 or newer is")
    return CaptureError(f"{interface}: cannot be {what}: {error.strerror}")
