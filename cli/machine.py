"""Asks the operating system what the doctor wants to know of this machine: cards, clock, disk."""

import ctypes
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..sniffer.machine import RECEIVE_OFFLOADS, Card, Disk, SystemClock
from ..sniffer.sources.capture_file import CaptureError
from ..sniffer.sources.interfaces import Interface, flags, interface, interfaces, set_offload

MEBIBYTE = 1 << 20
SAMPLE = 16 * MEBIBYTE
"""Bytes written to measure a disk: little enough for a memory card, enough to be more than its cache of names."""
SYNCS = 5
_PROMISCUOUS = 0x100  # IFF_PROMISC
_UNSYNCHRONISED = 0x40  # STA_UNSYNC


class _Timex(ctypes.Structure):
    """The beginning of struct timex, and more room than the rest of it needs."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    )


def card(before: Interface, promiscuous: bool) -> Card:
    """Return an interface as the checks see it; `promiscuous` says that the ring asked for it."""
    found = Card(
        name=before.name,
        driver=before.driver,
        machine=before.machine,
        link_up=before.link_up,
        addresses=before.addresses,
        default_route=before.default_route,
        promiscuous=promiscuous,
        offloads={
            name: not state.fixed for name, state in before.offloads.items() if name in RECEIVE_OFFLOADS and state.on
        },
    )
    try:
        now = interface(before.name)
        return replace(
            found,
            link_up=now.link_up,
            promiscuous=promiscuous or bool(flags(before.name) & _PROMISCUOUS),
            sent=max(now.counters.tx_packets - before.counters.tx_packets, 0),
        )
    except CaptureError:  # it has vanished meanwhile
        return replace(found, link_up=False)


def other_way(captured: Sequence[str]) -> bool:
    """Tell whether another interface than these has an address: this machine is reached by it."""
    return any(one.addresses and one.up and one.kind != "loopback" and one.name not in captured for one in interfaces())


def turn_off_offloads(found: Iterable[Interface]) -> list[str]:
    """Turn off what puts packets together. Return what was done, or why not, in words."""
    done = []
    for one in found:
        for name, state in one.offloads.items():
            if name in RECEIVE_OFFLOADS and state.on and not state.fixed:
                try:
                    set_offload(one.name, name, False)
                    done.append(f"{one.name}: {name} is off now, until the machine starts anew")
                except CaptureError as error:
                    done.append(str(error))
    return done


def system_clock() -> SystemClock | None:
    """Ask the kernel whether its clock is synchronised (adjtimex(2)); None where it does not say."""
    libc, state = ctypes.CDLL(None), _Timex()
    if not hasattr(libc, "adjtimex") or libc.adjtimex(ctypes.byref(state)) < 0:
        return None
    return SystemClock(not state.status & _UNSYNCHRONISED, state.maxerror / 1000)


def disk(folder: Path) -> Disk:
    """Measure the disk of a folder, or of the nearest one above it that exists: free space, a small write, a sync."""
    place = next((one for one in (folder, *folder.absolute().parents) if one.is_dir()), Path("/"))
    room = os.statvfs(place)
    found = Disk(str(place), room.f_bavail * room.f_frsize)
    if found.free < 4 * SAMPLE:
        return replace(found, problem=f"{place} is too full to be measured")
    try:
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            chunk = os.urandom(MEBIBYTE)
            start = time.monotonic()
            for _ in range(SAMPLE // MEBIBYTE):
                file.write(chunk)
            os.fsync(file.fileno())
            speed = SAMPLE / 1e6 / max(time.monotonic() - start, 1e-6)
            return replace(
                found, write_mb_s=speed, sync_ms=statistics.median(_sync(file.fileno()) for _ in range(SYNCS))
            )
    except OSError as error:
        return replace(found, problem=f"{place} cannot be written to: {error.strerror}; run this as root")


def _sync(descriptor: int) -> float:
    """Write a little and sync it; return how long that took, in ms."""
    start = time.monotonic()
    os.write(descriptor, bytes(4096))
    os.fsync(descriptor)
    return (time.monotonic() - start) * 1000
