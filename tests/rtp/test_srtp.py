"""SRTP: the vectors of the RFCs, and packets made by another program's rules."""

from __future__ import annotations

import hmac
import random
import struct

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from tapdeck.rtp.rollover import Opener, Tries
from tapdeck.rtp.srtp import (
    AUTHENTICATION,
    ENCRYPTION,
    SALT,
    SUITES,
    Master,
    Packets,
    Session,
    counters,
    derive,
    encrypted,
    nonce,
)


def h(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


def ctr(key: bytes, first: bytes, data: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(first)).encryptor().update(data)


# -- vectors -----------------------------------------------------------------------------------------------------------


def test_key_derivation_of_rfc_3711() -> None:
    """RFC 3711 appendix B.3: cipher key, cipher salt, and 94 bytes of authentication key."""
    key, salt = h("E1F97A0D3E018BE0D64FA32C06DE4139"), h("0EC675AD498AFEEBB6960B3AABE6")
    assert derive(key, salt, ENCRYPTION, 16) == h("C61E7A93744F39EE10734AFE3FF7A087")
    assert derive(key, salt, SALT, 14) == h("30CBBC08863D8C85D49DB34A9AE1")
    assert derive(key, salt, AUTHENTICATION, 94) == h(
        "CEBE321F6FF7716B6FD4AB49AF256A15 6D38BAA48F0A0ACF3C34E2359E6CDBCE E049646C43D9327AD175578EF7227098"
        "6371C10C9A369AC2F94A8C5FBCDDDC25 6D6E919A48B610EF17C2041E47403576 6B68642C59BBFC2F34DB60DBDFB2"
    )


@pytest.mark.parametrize(
    ("key", "salt", "session_key", "session_salt", "authentication"),
    [
        (
            "f0f04914b513f2763a1b1fa130f10e29 98f6f6e43e4309d1e622a0e332b9f1b6",
            "3b04803de51ee7c96423ab5b78d2",
            "5ba1064e30ec51613cad926c5a28ef73 1ec7fb397f70a960653caf06554cd8c4",
            "fa31791685ca444a9e07c6c64e93",
            "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05",
        ),
        (
            "73edc66c4fa15776fb57f9505c171365 50ffda71f3e8e5f1",
            "c8522f3acd4ce86d5add78edbb11",
            "31874736a8f1143870c26e4857d8a5b2 c4a354407faadabb",
            "2372b82d639b6d8503a47adc0a6c",
            "355b10973cd95b9eacf4061c7e1a7151e7cfbfcb",
        ),
    ],
    ids=["section 7.2, AES-256", "section 7.4, AES-192"],
)
def test_key_derivation_of_rfc_6188(
    key: str, salt: str, session_key: str, session_salt: str, authentication: str
) -> None:
    """RFC 6188 sections 7.2 (AES_256_CM_PRF) and 7.4 (AES_192_CM_PRF)."""
    assert derive(h(key), h(salt), ENCRYPTION, len(h(session_key))) == h(session_key)
    assert derive(h(key), h(salt), SALT, 14) == h(session_salt)
    assert derive(h(key), h(salt), AUTHENTICATION, 20) == h(authentication)


SALT_B2 = h("F0F1F2F3F4F5F6F7F8F9FAFBFCFD")


@pytest.mark.parametrize(
    ("key", "first", "last"),
    [
        (
            "2B7E151628AED2A6ABF7158809CF4F3C",
            "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0",
            "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44",
        ),
        (
            "57f82fe3613fd170a85ec93c40b1f092 2ec4cb0dc025b58272147cc438944a98",
            "92bdd28a93c3f52511c677d08b5515a4 9da71b2378a854f67050756ded165bac 63c4868b7096d88421b563b8c94c9a31",
            "cea518c90fd91ced9cbb18c078a54711 3dbc4814f4da5f00a08772b63c6a046d 6eb246913062a16891433e97dd01a57f",
        ),
        (
            "eab234764e517b2d3d160d587d8c8621 9740f65f99b6bcf7",
            "35096cba4610028dc1b57503804ce37c 5de986291dcce161d5165ec4568f5c9a 474a40c77894bc17180202272a4c264d",
            "d108d1a31a00bad6367ec23eb044b415 c8f57129fdeb970b59f917b257662d4c a5dab625811034e8cebdfeb6dc158dd3",
        ),
    ],
    ids=["RFC 3711 B.2", "RFC 6188 section 7.1", "RFC 6188 section 7.3"],
)
def test_key_streams(key: str, first: str, last: str) -> None:
    """RFC 3711 appendix B.2, RFC 6188 sections 7.1 and 7.3: SSRC and index 0, blocks 0 to 2 and 0xFEFF to 0xFF01."""
    stream = encrypted(h(key), counters(SALT_B2, 0, np.zeros(1, dtype=np.int64), np.array([0xFF02])))
    assert stream[: 3 * 16] == h(first)
    assert stream[-3 * 16 :] == h(last)


@pytest.mark.parametrize(
    ("name", "sealed"),
    [
        (
            "AEAD_AES_128_GCM",
            "f24de3a3fb34de6cacba861c9d7e4bca be633bd50d294e6f42a5f47a51c7d19b 36de3adf8833"
            "899d7f27beb16a9152cf765ee4390cce",
        ),
        (
            "AEAD_AES_256_GCM",
            "32b1de78a822fe12ef9f78fa332e33aa b18012389a58e2f3b50b2a0276ffae0f 1ba63799b87b"
            "7aa3db36dfffd6b0f9bb7878d7a76c13",
        ),
    ],
)
def test_packets_of_rfc_7714(name: str, sealed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7714 section 16, 16.1.2 and 16.2.2. Its key and salt are those of the session: nothing is derived."""
    header, salt = h("8040f17b8041f8d35501a0b2"), b"Quid pro quo"
    assert nonce(salt, 0x5501A0B2, 0xF17B) == h("51753c6580c2726f20718414")
    monkeypatch.setattr("tapdeck.rtp.srtp.derive", lambda key, salt, label, *_: key if label == ENCRYPTION else salt)
    session = Session(Master(SUITES[name], bytes(range(SUITES[name].key)), salt))
    packet = header + h(sealed)
    found = session.open(batch([packet]), np.array([0xF17B]))
    assert (found.rows.tolist(), found.data.tobytes()) == ([0], b"Gallia est omnis divisa in partes tres")
    for place in (0, 5, 12, -1):
        changed = bytearray(packet)
        changed[place] ^= 1
        assert not len(session.open(batch([bytes(changed)]), np.array([0xF17B])).rows)


# -- packets made by the text of the RFCs, one at a time -----------------------------------------------------------


def protect(master: Master, packet: bytes, head: int, index: int) -> bytes:
    """RFC 3711 sections 3.3, 4.1.1, 4.2 and 4.3.1 for one packet, with AES in counter mode as a library has it."""
    quotient = index >> master.rate if master.rate else 0

    def key(label: int, size: int) -> bytes:
        mixed = int.from_bytes(bytes([label]) + quotient.to_bytes(6, "big"), "big") ^ int.from_bytes(master.salt, "big")
        return ctr(master.key, mixed.to_bytes(14, "big") + b"\0\0", bytes(size))

    ssrc = int.from_bytes(packet[8:12], "big")
    salt = int.from_bytes(key(2, 14), "big") << 16
    first = (salt ^ ssrc << 64 ^ index << 16).to_bytes(16, "big")
    body = packet[head:] if master.clear else ctr(key(0, master.suite.key), first, packet[head:])
    tag = hmac.digest(key(1, 20), packet[:head] + body + (index >> 16).to_bytes(4, "big"), "sha1")
    return packet[:head] + body + master.mki + tag[: master.suite.tag]


def batch(packets: list[bytes], head: int = 12) -> Packets:
    size = np.array([len(one) for one in packets], dtype=np.int64)
    sequence = np.array([int.from_bytes(one[2:4], "big") for one in packets], dtype=np.int64)
    ssrc = int.from_bytes(packets[0][8:12], "big")
    return Packets(b"".join(packets), np.cumsum(size) - size, np.full(len(size), head), size, sequence, ssrc)


def master(name: str, seed: int = 1, **more: object) -> Master:
    suite, rng = SUITES[name], random.Random(seed)
    return Master(suite, rng.randbytes(suite.key), rng.randbytes(suite.salt), **more)  # type: ignore[arg-type]


def rtp(sequence: int, payload: bytes, ssrc: int = 0xCAFE) -> bytes:
    return struct.pack(">BBHII", 0x80, 8, sequence & 0xFFFF, sequence * 160 & 0xFFFFFFFF, ssrc) + payload


def opened(opener: Opener, packets: Packets) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for part in opener.open(packets):
        for row, place, size in zip(part.rows.tolist(), part.place.tolist(), part.size.tolist(), strict=True):
            assert row not in found
            found[row] = part.data[place : place + size].tobytes()
    return found


COUNTER_SUITES = [name for name, suite in SUITES.items() if not suite.aead]


@pytest.mark.parametrize("name", COUNTER_SUITES)
@pytest.mark.parametrize("more", [{}, {"mki": b"\1\2"}, {"rate": 4}, {"clear": True}], ids=str)
def test_packets_of_any_size_across_a_wrap(name: str, more: dict[str, object]) -> None:
    key, rng = master(name, 1, **more), random.Random(7)
    plain = [rng.randbytes(rng.choice((0, 1, 15, 16, 17, 160, 160, 160, 1400))) for _ in range(200)]
    sent = [protect(key, rtp(65_436 + n, text), 12, 65_436 + n) for n, text in enumerate(plain)]
    assert opened(Opener([master(name, 9), key]), batch(sent)) == dict(enumerate(plain))


@pytest.mark.parametrize("wraps", [0, 1, 2, 100, 255])
def test_a_late_listener_finds_the_rollover_counter(wraps: int) -> None:
    key = master("AES_256_CM_HMAC_SHA1_80")
    index = [(wraps << 16) + 65_500 + n for n in range(100)]
    sent = [protect(key, rtp(one, bytes([one % 251]) * 20), 12, one) for one in index]
    opener = Opener([key])
    for start in (0, 30, 60):
        found = opened(opener, batch(sent[start : start + 30]))
        assert found == {n: bytes([index[start + n] % 251]) * 20 for n in range(30)}
    assert opener.used == [key]


def test_a_key_that_comes_and_goes() -> None:
    keys = [master("AES_CM_128_HMAC_SHA1_32", seed) for seed in (1, 2, 3)]
    use = [keys[(n // 25) % 3] for n in range(200)]
    sent = [protect(key, rtp(n, b"a" * 20), 12, n) for n, key in enumerate(use)]
    assert len(opened(Opener(keys), batch(sent))) == 200


def test_guesses_come_to_an_end() -> None:
    keys = [master("AES_CM_128_HMAC_SHA1_80", seed) for seed in range(1, 100)]
    noise = [rtp(n, random.Random(n).randbytes(40)) for n in range(500)]
    tries = Tries(1000)
    assert opened(Opener(keys, tries), batch(noise)) == {}
    assert tries.left < 0


def test_no_key_shows() -> None:
    key = master("AES_CM_128_HMAC_SHA1_80")
    session = Session(key)
    session.turn(0)
    for text in (repr(key), repr(session), repr(Opener([key]))):
        assert repr(key.key)[2:10] not in text
        assert key.key.hex() not in text


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_was_changed_is_not_opened_and_the_rest_is(data: st.DataObject) -> None:
    """Any bits flipped in any packets; cut ones too."""
    key = master(data.draw(st.sampled_from(COUNTER_SUITES)))
    start = data.draw(st.integers(0, 65_535))
    count = data.draw(st.integers(3, 30))
    sent = [protect(key, rtp(start + n, bytes([n]) * 30), 12, start + n) for n in range(count)]
    spoiled = data.draw(st.sets(st.integers(0, count - 1), max_size=count - 2))
    for n in spoiled:
        place = data.draw(st.integers(12, len(sent[n]) - 1))
        changed = bytearray(sent[n])
        changed[place] ^= data.draw(st.integers(1, 255))
        sent[n] = bytes(changed[: data.draw(st.sampled_from((len(changed), len(changed) - 1, 20, 12)))])
    assert opened(Opener([key]), batch(sent)) == {n: bytes([n]) * 30 for n in range(count) if n not in spoiled}
