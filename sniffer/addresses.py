"""IP addresses as 64-bit keys, so that a column of them is one array.

An IPv4 address is its own key. An IPv6 address becomes a keyed hash with the top bit set; the factors are random for
each process, so that a sender cannot choose addresses whose keys collide. IPv4-mapped IPv6 addresses are kept as IPv6.
"""

import ipaddress
import secrets
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

_FACTORS = tuple(np.uint64(secrets.randbits(64) | 1) for _ in range(3))
_TOP = np.uint64(1 << 63)
MAX_ADDRESSES = 1 << 18
UNKNOWN = "::"
"""The text of an IPv6 address that was forgotten in a flood of others."""


def v6_keys(high: Keys, low: Keys) -> Keys:
    """Return the keys of IPv6 addresses given as two 64-bit halves."""
    first: Keys = (high ^ (high >> np.uint64(29))) * _FACTORS[0]
    second: Keys = (low ^ (low >> np.uint64(31))) * _FACTORS[1]
    mixed: Keys = np.add(first, second, dtype=np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _FACTORS[2]
    result: Keys = (mixed ^ (mixed >> np.uint64(29))) | _TOP
    return result


@lru_cache(maxsize=1 << 14)
def address_key(text: str) -> int | None:
    """Return the key of an address in text form, None if it is none (a host name, say)."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.version == 4:
        return int(address)
    high, low = int(address) >> 64, int(address) & 0xFFFFFFFFFFFFFFFF
    return int(v6_keys(np.array([high], dtype=np.uint64), np.array([low], dtype=np.uint64))[0])


class AddressBook:
    """Remembers the text of IPv6 keys; bounded, the oldest entries go first."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._kept: dict[int, str] = {}

    def keep(self, key: int) -> None:
        """Remember this address for longer than the others: it is in use. Bounded too."""
        if key >> 63 and key not in self._kept and key in self._texts:
            if len(self._kept) >= MAX_ADDRESSES:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = self._texts[key]

    def learn(self, keys: Keys, high: Keys, low: Keys) -> None:
        """Remember new addresses of a block."""
        unique, index = np.unique(keys, return_index=True)
        for key, row in zip(unique.tolist(), index.tolist(), strict=True):
            if key not in self._texts:
                if len(self._texts) >= MAX_ADDRESSES:
                    self._texts.pop(next(iter(self._texts)))
                self._texts[key] = str(ipaddress.IPv6Address(int(high[row]) << 64 | int(low[row])))

    def text(self, key: int) -> str:
        """Return the address as text."""
        if key >> 63:
            return self._texts.get(key) or self._kept.get(key, UNKNOWN)
        return f"{key >> 24}.{key >> 16 & 255}.{key >> 8 & 255}.{key & 255}"
