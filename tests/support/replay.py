"""Frames sent through an interface as a capture has them: in real time or faster, many at once, no copy in Python.

    python -m tests.support.replay --interface tx0 --speed 2 CAPTURE.pcap...

prints a JSON line when it begins (the two clocks) and one when it is done. `sendmmsg` takes frames where they lie, so
that 100,000 packets a second cost about a sixth of a core, the kernel's own work of delivering them included.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .netns import within

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

AT_ONCE = 1024
"""Messages of one call of sendmmsg; the kernel takes no more (UIO_MAXIOV)."""
TICK_S = 0.004
SECOND = 1_000_000_000

SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
ENOBUFS_PAUSE_S = 0.0005

_MESSAGE = np.dtype(
    {
        "names": ["iov", "iov_count"],
        "formats": ["<u8", "<u8"],
        "offsets": [16, 24],
        "itemsize": 64,  # struct mmsghdr of 64-bit Linux
    }
)


@dataclass(frozen=True)
class Frames:
    """Frames that lie in one buffer, in the order of time: place, length, and time in nanoseconds since 1970."""

    data: Bytes
    at: Numbers
    size: Numbers
    time_ns: Numbers

    def __len__(self) -> int:
        return len(self.at)

    def part(self, first: int, last: int) -> Frames:
        """The frames from number `first` to before `last`."""
        return Frames(self.data, self.at[first:last], self.size[first:last], self.time_ns[first:last])

    def from_zero(self) -> Frames:
        """The same, with times from the first frame on."""
        return Frames(self.data, self.at, self.size, self.time_ns - self.time_ns[:1])

    def frame(self, number: int) -> bytes:
        """One frame's bytes."""
        at = int(self.at[number])
        return self.data[at : at + int(self.size[number])].tobytes()


@dataclass(frozen=True)
class Played:
    """What was sent: frames, their bytes, seconds from the first to the last, CPU, how late a frame was at most, and of
    how many `Frames` these were.
    """

    packets: int
    bytes: int
    seconds: float
    cpu_s: float
    late_ms: float
    parts: int

    @property
    def rate(self) -> float:
        """Packets a second."""
        return self.packets / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Started:
    """When the frame with time `zero_ns` is due: wall clock and monotonic clock, nanoseconds."""

    zero_ns: int
    wall_ns: int
    monotonic_ns: int


def frames(source: Path | bytes | memoryview) -> Frames:
    """The frames of a pcap file (not pcapng), by path or content. Raises ValueError for anything else.

    They keep the file's order: one that is stamped earlier than the one before it is due with that one.
    """
    data = np.frombuffer(_mapped(source) if isinstance(source, Path) else source, np.uint8)
    magic = data[:4].tobytes()
    order = "<" if magic in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    units = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}
    unit = units.get(struct.unpack(order + "I", magic)[0])
    if unit is None:
        raise ValueError("not a pcap file")
    heads = np.concatenate(list(_heads(data, order)) or [np.empty(0, np.int64)])
    fields = np.lib.stride_tricks.sliding_window_view(data, 12)[heads].view(order + "u4").astype(np.int64)
    time_ns = np.maximum.accumulate(fields[:, 0] * SECOND + fields[:, 1] * unit)
    return Frames(data, heads + 16, fields[:, 2], time_ns)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _heads(data: Bytes, order: str) -> Iterator[Numbers]:
    """Where the records begin. A run of records of one length is taken in one step."""
    length = struct.Struct(order + "I").unpack_from
    at, end, guess = 24, len(data), 1
    while at + 16 <= end:
        step = 16 + length(data.data, at + 8)[0]
        count = max(min((end - at) // step, guess), 1)
        lengths = np.lib.stride_tricks.as_strided(data[at + 8 :], (count, 4), (step, 1))
        same = (lengths == lengths[0]).all(axis=1)
        run = count if same.all() else int(np.argmin(same))
        if at + run * step > end:
            return
        yield at + step * np.arange(run, dtype=np.int64)
        at += run * step
        guess = min(2 * guess, 1 << 16) if run == count else max(2 * run, 1)


class Sender:
    """A raw socket that sends frames out of one interface, and receives nothing."""

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        self._socket.bind((interface, 0))
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._places = np.zeros((AT_ONCE, 2), np.uint64)
        self._messages = np.zeros(AT_ONCE, _MESSAGE)
        self._messages["iov"] = self._places.ctypes.data + 16 * np.arange(AT_ONCE)
        self._messages["iov_count"] = 1

    def send(self, some: Frames) -> None:
        """Send all of them at once, in order. Raises OSError."""
        base, done = some.data.ctypes.data, 0
        while done < len(some):
            count = min(len(some) - done, AT_ONCE)
            self._places[:count, 0] = some.at[done : done + count] + base
            self._places[:count, 1] = some.size[done : done + count]
            sent = self._libc.sendmmsg(
                self._socket.fileno(), ctypes.c_void_p(self._messages.ctypes.data), ctypes.c_uint(count), 0
            )
            if sent < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            done += sent

    def close(self) -> None:
        self._socket.close()


class Player:
    """Plays frames by the clock. Several `Frames` may overlap in time; they come in the order of their beginnings."""

    def __init__(
        self, sender: Sender, source: Iterable[Frames], speed: float = 1.0, zero_ns: int | None = None
    ) -> None:
        self._sender, self._source, self._speed = sender, iter(source), speed
        self._next = next(self._source, None)
        first = int(self._next.time_ns[0]) if self._next is not None and len(self._next) else 0
        self._zero_ns = first if zero_ns is None else zero_ns
        self._running: list[Frames] = []
        self._packets = self._bytes = self._parts = 0
        self._late_ns = 0

    def start(self) -> Started:
        """From now on the clock runs."""
        self._cpu = time.process_time()
        self._begin = time.monotonic_ns()
        return Started(self._zero_ns, time.time_ns(), self._begin)

    def play(self) -> Played:
        """Send everything, each frame when its time has come."""
        last = self._begin
        while self._next is not None or self._running:
            last = self._tick()
            rest = TICK_S - (time.monotonic_ns() - self._begin) / 1e9 % TICK_S
            time.sleep(rest)
        cpu = time.process_time() - self._cpu
        return Played(self._packets, self._bytes, (last - self._begin) / 1e9, cpu, self._late_ns / 1e6, self._parts)

    def _tick(self) -> int:
        """Send what is due, return when that was."""
        now = time.monotonic_ns()
        due = self._zero_ns + int((now - self._begin) * self._speed)
        while self._next is not None and (not len(self._next) or self._next.time_ns[0] <= due):
            self._running.append(self._next)
            self._parts += 1
            self._next = next(self._source, None)
        rest: list[Frames] = []
        for some in self._running:
            count = int(np.searchsorted(some.time_ns, due, side="right"))
            if count:
                self._send(some.part(0, count), due)
            if count < len(some):
                rest.append(some.part(count, len(some)))
        self._running = rest
        return now

    def _send(self, some: Frames, due: int) -> None:
        self._sender.send(some)
        self._packets += len(some)
        self._bytes += int(some.size.sum())
        self._late_ns = max(self._late_ns, int((due - int(some.time_ns[0])) / self._speed))


def replay(namespace: str, interface: str, *captures: Path, speed: float = 1.0) -> Played:
    """Replay captures to their end, all from now on, from a process in the namespace."""
    words = within(namespace, *command(interface, *captures, speed=speed))
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=_ROOT)
    return Played(**json.loads(done.stdout.splitlines()[-1]))


def command(interface: str, *captures: Path, speed: float = 1.0) -> list[str | Path]:
    """The command line of this module, to be run at the top of the repository."""
    return [sys.executable, "-m", "tests.support.replay", "--interface", interface, "--speed", str(speed), *captures]


_ROOT = Path(__file__).resolve().parents[2]


def run(interface: str, source: Iterable[Frames], speed: float, zero_ns: int | None = None) -> None:
    """Play as a process of its own: a line at the start, a line at the end."""
    player = Player(Sender(interface), source, speed, zero_ns)
    for step in (player.start, player.play):
        sys.stdout.write(json.dumps(asdict(step())) + "\n")
        sys.stdout.flush()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("captures", type=Path, nargs="+")
    parser.add_argument("--interface", required=True)
    parser.add_argument("--speed", type=float, default=1.0)
    arguments = parser.parse_args()
    run(arguments.interface, [frames(path).from_zero() for path in arguments.captures], arguments.speed)


if __name__ == "__main__":
    main()
