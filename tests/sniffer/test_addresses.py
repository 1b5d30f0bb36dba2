"""Keys of addresses: the same from text and from columns, and back to text."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sniffer import addresses as module
from tapdeck.sniffer.addresses import UNKNOWN, AddressBook, address_key, v6_keys


def halves(address: ipaddress.IPv6Address) -> tuple[np.ndarray, np.ndarray]:
    number = int(address)
    return np.array([number >> 64], dtype=np.uint64), np.array([number & (1 << 64) - 1], dtype=np.uint64)


@given(address=st.ip_addresses(v=6))
def test_an_ipv6_address_has_one_key_and_its_text_comes_back(address: ipaddress.IPv6Address) -> None:
    high, low = halves(address)
    key = int(v6_keys(high, low)[0])
    assert key == address_key(str(address)) == address_key(address.exploded.upper())
    assert key >> 63 == 1, "no IPv4 address has this key"
    book = AddressBook()
    book.learn(v6_keys(high, low), high, low)
    assert book.text(key) == str(address)


@given(address=st.ip_addresses(v=4))
def test_an_ipv4_address_is_its_own_key(address: ipaddress.IPv4Address) -> None:
    assert address_key(str(address)) == int(address)
    assert AddressBook().text(int(address)) == str(address)


@pytest.mark.parametrize("text", ["", "sip.example.org", "192.0.2.256", "1.2.3", "::1::", "192.0.2.1:5060", "[::1]"])
def test_what_is_no_address_has_no_key(text: str) -> None:
    assert address_key(text) is None


def test_many_addresses_of_one_network_have_keys_of_their_own() -> None:
    """Also those that differ in a few bits of either half, as phones of one prefix do."""
    low = np.arange(50_000, dtype=np.uint64)
    prefix = np.full(50_000, 0x20010DB800000000, dtype=np.uint64)
    assert len(np.unique(np.concatenate((v6_keys(prefix, low), v6_keys(prefix + low, low[:1]))))) == 100_000 - 1


def test_the_book_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ADDRESSES", 10)
    book = AddressBook()
    keys = []
    for number in range(1, 26):
        high, low = halves(ipaddress.IPv6Address(number))
        keys.append(v6_keys(high, low))
        book.learn(keys[-1], high, low)
        if number == 3:
            book.keep(int(keys[-1][0]))
    known = [book.text(int(key[0])) for key in keys]
    assert known[15:] == [str(ipaddress.IPv6Address(number)) for number in range(16, 26)]
    assert known[:15] == [UNKNOWN, UNKNOWN, "::3", *[UNKNOWN] * 12]
