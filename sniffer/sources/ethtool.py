"""What a card's driver says of itself, and its offloads: ethtool's ioctl without ethtool.

Names of features are the kernel's own (`rx-gro`, as `ethtool -k` prints the finer ones); `OFFLOADS` are those that
matter to a recorder, by the names people use.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass

from .capture_file import CaptureError

SIOCETHTOOL = 0x8946
_GET_DRIVER, _GET_STRINGS, _COUNT_STRINGS, _GET_FEATURES, _SET_FEATURES = 0x03, 0x1B, 0x37, 0x3A, 0x3B
_FEATURE_NAMES = 4  # ETH_SS_FEATURES
_STRING = 32  # ETH_GSTRING_LEN
_NAME = 16  # IFNAMSIZ, the zero behind it included

OFFLOADS = {
    "gro": "rx-gro",
    "gro-hw": "rx-gro-hw",
    "gro-list": "rx-gro-list",
    "gro-udp": "rx-udp-gro-forwarding",
    "lro": "rx-lro",
    "gso": "tx-generic-segmentation",
    "tso": "tx-tcp-segmentation",
}
"""Short names of offloads. Those that begin with gro, and lro, merge packets before a recorder sees them."""


@dataclass(frozen=True, slots=True)
class Offload:
    """Whether a feature is on, and whether it can be changed at all."""

    on: bool
    fixed: bool


def driver(name: str) -> tuple[str, str]:
    """Return the driver of an interface and the bus address of its card; empty strings where there is none.

    Raises CaptureError if there is no such interface.
    """
    request = bytearray(struct.pack("=I", _GET_DRIVER) + bytes(192))
    try:
        _ioctl(name, request)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return "", ""
        raise explained(name, error) from None
    kind, bus = (_text(request[start : start + 32]) for start in (4, 100))
    return kind, "" if bus in ("N/A", "tun", "tap") else bus


def offloads(name: str) -> dict[str, Offload]:
    """Return the state of all `OFFLOADS` that the kernel knows. Raises CaptureError."""
    try:
        names = _feature_names(name)
        words = _features(name, len(names))
    except OSError as error:
        raise explained(name, error) from None
    found = {}
    for short, long in OFFLOADS.items():
        if long in names:
            available, _, active, never = words[names.index(long) // 32]
            bit = 1 << names.index(long) % 32
            found[short] = Offload(bool(active & bit), not available & bit or bool(never & bit))
    return found


def set_offload(name: str, feature: str, on: bool) -> None:
    """Switch one of `OFFLOADS`. Raises CaptureError if there is none, it is fixed, or this needs root."""
    if feature not in OFFLOADS:
        raise CaptureError(f"{feature}: not an offload that can be set here; it is one of {', '.join(OFFLOADS)}")
    state = offloads(name).get(feature)
    if state is None or (state.fixed and state.on != on):
        raise CaptureError(f"{name}: its driver does not let {feature} be switched {'on' if on else 'off'}")
    if state.on == on:
        return
    names = _feature_names(name)
    place = names.index(OFFLOADS[feature])
    words = [[0, 0] for _ in range(_words(len(names)))]
    words[place // 32] = [1 << place % 32, on << place % 32]
    request = bytearray(struct.pack("=II", _SET_FEATURES, len(words)))
    request += b"".join(struct.pack("=II", *word) for word in words)
    try:
        _ioctl(name, request)
    except OSError as error:
        raise explained(name, error) from None
    if offloads(name)[feature].on != on:
        raise CaptureError(f"{name}: its driver did not switch {feature} {'on' if on else 'off'}")


def explained(name: str, error: OSError) -> CaptureError:
    """Return what an error of an interface's ioctl means, and what to do."""
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return CaptureError(f"{name}: there is no such interface; `tapdeck interfaces` lists those there are")
    if error.errno in (errno.EPERM, errno.EACCES):
        return CaptureError(f"{name}: only root may change an interface's settings (CAP_NET_ADMIN): run this with sudo")
    return CaptureError(f"{name}: the driver refused: {error.strerror}")


def padded(name: str) -> bytes:
    """Return an interface's name as ioctls want it. Raises OSError if none can have it."""
    raw = os.fsencode(name)
    if not 0 < len(raw) < _NAME:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    return raw.ljust(_NAME, b"\0")


def _feature_names(name: str) -> list[str]:
    """Return the kernel's features, by number."""
    request = bytearray(struct.pack("=IIQI", _COUNT_STRINGS, 0, 1 << _FEATURE_NAMES, 0))
    _ioctl(name, request)
    count = struct.unpack_from("=I", request, 16)[0]
    request = bytearray(struct.pack("=III", _GET_STRINGS, _FEATURE_NAMES, count) + bytes(count * _STRING))
    _ioctl(name, request)
    return [_text(request[12 + n * _STRING :][:_STRING]) for n in range(count)]


def _features(name: str, count: int) -> list[tuple[int, int, int, int]]:
    """Return, by words of 32 features, bits for: changeable by the driver, asked for, active, never changeable."""
    words = _words(count)
    request = bytearray(struct.pack("=II", _GET_FEATURES, words) + bytes(words * 16))
    _ioctl(name, request)
    return list(struct.iter_unpack("=4I", bytes(request[8:])))


def _words(features: int) -> int:
    return -(-features // 32)


def _text(field: bytearray) -> str:
    return field.split(b"\0")[0].decode("ascii", "replace")


def _ioctl(name: str, request: bytearray) -> None:
    """Have the kernel read and fill a request. Raises OSError."""
    space = (ctypes.c_char * len(request)).from_buffer(request)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        fcntl.ioctl(door, SIOCETHTOOL, padded(name) + struct.pack("P16x", ctypes.addressof(space)))
