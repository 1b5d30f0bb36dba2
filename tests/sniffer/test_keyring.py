"""Which keys a stream may have been made with, the likeliest first."""

from __future__ import annotations

from tapdeck.sip.call import Party
from tapdeck.sip.sdes import Crypto, InlineKey
from tapdeck.sniffer.keyring import MAX_LINES, MAX_MASTERS, Keyring

SUITE = "AES_CM_128_HMAC_SHA1_80"


def line(seed: int, tag: int = 1, suite: str = SUITE, mki: bytes = b"", **more: bool) -> Crypto:
    return Crypto(tag, suite, (InlineKey(seed.to_bytes(16, "big"), bytes(14), mki),), **more)


def seeds(ring: Keyring, sender: Party) -> list[int]:
    return [int.from_bytes(master.key, "big") for master in ring.masters(sender)]


def test_what_the_answer_took_comes_first_then_the_newest_then_the_other_sides() -> None:
    ring = Keyring()
    ring.add(Party.CALLER, (line(1, tag=1), line(2, tag=2), line(3, tag=3)))
    ring.add(Party.CALLEE, (line(4, tag=2),))
    assert seeds(ring, Party.CALLER) == [2, 3, 1, 4]
    assert seeds(ring, Party.CALLEE)[0] == 4


def test_a_key_identifier_may_be_told_and_not_sent() -> None:
    ring = Keyring()
    ring.add(Party.CALLER, (line(1, mki=b"\1"),))
    assert [master.mki for master in ring.masters(Party.CALLER)] == [b"\1", b""]


def test_what_cannot_be_authenticated_is_no_key() -> None:
    ring = Keyring()
    ring.add(Party.CALLER, (line(1, unauthenticated=True), Crypto(2, "F8_128_HMAC_SHA1_80", ())))
    assert not ring.usable
    assert ring.masters(Party.CALLER) == []


def test_a_flood_of_keys_is_bounded() -> None:
    ring = Keyring()
    for seed in range(3 * MAX_LINES):
        ring.add(Party.CALLER, (line(seed),))
    found = seeds(ring, Party.CALLER)
    assert len(found) == MAX_MASTERS
    assert found[0] == 3 * MAX_LINES - 1
