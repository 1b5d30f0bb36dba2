"""One direction's records opened: authenticated, then given out (RFC 5246 section 6.2.3, RFC 8446 section 5.2).

A record's number is part of what authenticates it and does not cross the wire. So a cipher is asked with the numbers
that may be right, the likeliest first.
"""

import hmac
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .derive import expand_label, prf, prf_hash
from .suites import CBC, CCM, CHACHA, DES3, GCM, TLS11, CipherSuite

KEPT_END = 64
"""Bytes of a record's end that the next one may need (`Sealed.before`): a block, and a MAC behind it."""
FAR = 1 << 20
"""How many records may be missing where a nonce tells the number."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A record's number, true kind and content."""

    number: int
    kind: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A record to be opened; `before` are the last bytes of the record before it, for TLS 1.0."""

    kind: int
    version: int
    body: bytes = field(repr=False)
    before: bytes = b""


class Cipher(ABC):
    """Opens the records of one direction and one key."""

    @abstractmethod
    def open(self, sealed: Sealed, numbers: Sequence[int]) -> Opened | None:
        """Return what a record holds, if it is one of these numbers. None if it cannot be authenticated."""


def _number(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _mixed(iv: bytes, number: int) -> bytes:
    return (int.from_bytes(iv, "big") ^ number).to_bytes(len(iv), "big")


def _aead(suite: CipherSuite, key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers import aead

    if suite.cipher == GCM:
        return aead.AESGCM(key)
    if suite.cipher == CCM:
        return aead.AESCCM(key, suite.tag)
    return aead.ChaCha20Poly1305(key)


def _decrypted(aead: Any, nonce: bytes, body: bytes, header: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag

    try:
        data: bytes = aead.decrypt(nonce, body, header)
    except (InvalidTag, ValueError):
        return None
    return data


class Aead12(Cipher):
    """AES-GCM and AES-CCM with a nonce of which eight bytes cross the wire (RFC 5288, 6655), ChaCha20-Poly1305 with
    none of it (RFC 7905).
    """

    def __init__(self, suite: CipherSuite, key: bytes, iv: bytes) -> None:
        self._aead = _aead(suite, key)
        self._iv = iv
        self._explicit = 0 if suite.cipher == CHACHA else 8
        self._tag = suite.tag
        self._last: tuple[int, int] | None = None  # a nonce, and its record's number

    def open(self, sealed: Sealed, numbers: Sequence[int]) -> Opened | None:
        """Senders count the nonce up with the records, from wherever they please: it tells how many are missing."""
        size = len(sealed.body) - self._explicit - self._tag
        if size < 0 or not numbers:
            return None
        nonce, body = sealed.body[: self._explicit], sealed.body[self._explicit :]
        head = bytes([sealed.kind]) + sealed.version.to_bytes(2, "big") + size.to_bytes(2, "big")
        for number in self._ordered(nonce, numbers):
            whole = self._iv + nonce if nonce else _mixed(self._iv, number)
            data = _decrypted(self._aead, whole, body, _number(number) + head)
            if data is not None:
                self._last = int.from_bytes(nonce, "big"), number
                return Opened(number, sealed.kind, data)
        return None

    def _ordered(self, nonce: bytes, numbers: Sequence[int]) -> Iterable[int]:
        if not nonce or len(numbers) == 1:
            return numbers
        value = int.from_bytes(nonce, "big")
        hints = [value] if self._last is None else [self._last[1] + value - self._last[0], value]
        good = [hint for hint in hints if numbers[0] <= hint <= numbers[-1] + FAR]
        return dict.fromkeys((*good, *numbers))


class Aead13(Cipher):
    """TLS 1.3: the true kind is inside, behind it padding."""

    def __init__(self, suite: CipherSuite, secret: bytes) -> None:
        self._aead = _aead(suite, expand_label(suite.hash, secret, b"key", b"", suite.key))
        self._iv = expand_label(suite.hash, secret, b"iv", b"", 12)

    def open(self, sealed: Sealed, numbers: Sequence[int]) -> Opened | None:
        """Return what a record holds."""
        head = bytes([sealed.kind]) + sealed.version.to_bytes(2, "big") + len(sealed.body).to_bytes(2, "big")
        for number in numbers:
            data = _decrypted(self._aead, _mixed(self._iv, number), sealed.body, head)
            if data is not None:
                inner = data.rstrip(b"\0")
                return Opened(number, inner[-1] if inner else 0, inner[:-1])
        return None


class BlockCipher(Cipher):
    """CBC, and HMAC before it or, encrypt-then-MAC, behind it (RFC 7366). The initialisation vector stands before the
    record, in TLS 1.0 it is the end of the record before.
    """

    def __init__(self, suite: CipherSuite, version: int, keys: "Keys", mac_last: bool) -> None:
        self._block = 8 if suite.cipher == DES3 else 16
        self._suite, self._keys, self._mac_last = suite, keys, mac_last
        self._chained = version < TLS11

    @cached_property
    def _algorithm(self) -> Any:
        from cryptography.hazmat.primitives.ciphers import algorithms

        if self._suite.cipher == DES3:
            from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES

            return TripleDES(self._keys.key)
        return algorithms.AES(self._keys.key)

    def open(self, sealed: Sealed, numbers: Sequence[int]) -> Opened | None:
        """Return what a record holds."""
        body, mac = sealed.body, b""
        size = len(self._mac(b""))
        if self._mac_last:
            body, mac = body[:-size], body[-size:]
        text = self._plain(body, sealed.before[: -size if self._mac_last else None])
        if text is None:
            return None
        signed = body
        if not self._mac_last:
            if len(text) < size:
                return None
            text, mac = text[:-size], text[-size:]
            signed = text
        head = bytes([sealed.kind]) + sealed.version.to_bytes(2, "big") + len(signed).to_bytes(2, "big")
        for number in numbers:
            if hmac.compare_digest(self._mac(_number(number) + head + signed), mac):
                return Opened(number, sealed.kind, text)
        return None

    def _mac(self, data: bytes) -> bytes:
        return hmac.digest(self._keys.mac, data, self._suite.mac)

    def _plain(self, body: bytes, before: bytes) -> bytes | None:
        """Decrypt, and take the padding off; None if it is none."""
        from cryptography.hazmat.primitives.ciphers import Cipher as Ciphering
        from cryptography.hazmat.primitives.ciphers import modes

        block = self._block
        iv = (before[-block:] or self._keys.iv) if self._chained else body[:block]
        body = body if self._chained else body[block:]
        if len(iv) != block or not body or len(body) % block:
            return None
        text = Ciphering(self._algorithm, modes.CBC(iv)).decryptor().update(body)
        padding = text[-1] + 1
        if padding > len(text) or text[-padding:] != text[-1:] * padding:
            return None
        return text[:-padding]


@dataclass(frozen=True, slots=True)
class Keys:
    """What one party writes with, up to TLS 1.2 (RFC 5246 section 6.3)."""

    mac: bytes = field(repr=False)
    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)


def writers(suite: CipherSuite, version: int, master: bytes, randoms: bytes, mac_last: bool) -> tuple[Cipher, Cipher]:
    """Return the ciphers of client and server; `randoms` are the server's and the client's."""
    block = suite.cipher in (CBC, DES3)
    mac = {"sha1": 20, "sha256": 32, "sha384": 48}.get(suite.mac, 0)
    old = (8 if suite.cipher == DES3 else 16) if version < TLS11 else 0
    iv = old if block else 12 if suite.cipher == CHACHA else 4
    sizes = [size for size in (mac, suite.key, iv) for _ in range(2)]
    material = prf(prf_hash(version, suite.hash), master, b"key expansion", randoms, sum(sizes))
    parts = [material[sum(sizes[:index]) : sum(sizes[: index + 1])] for index in range(6)]
    return _writer(suite, version, Keys(*parts[0::2]), mac_last), _writer(suite, version, Keys(*parts[1::2]), mac_last)


def _writer(suite: CipherSuite, version: int, keys: Keys, mac_last: bool) -> Cipher:
    if suite.cipher in (CBC, DES3):
        return BlockCipher(suite, version, keys, mac_last)
    return Aead12(suite, keys.key, keys.iv)
