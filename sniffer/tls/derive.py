"""Keys from secrets: the PRF of TLS 1.2 and before (RFC 5246, 2246, 7627), the schedule of TLS 1.3 (RFC 8446), and
exporters (RFC 5705). Pure.
"""

import hashlib
import hmac

from .suites import TLS12

MASTER = 48
"""Bytes of a master secret."""


def prf(hash_name: str, secret: bytes, label: bytes, seed: bytes, size: int) -> bytes:
    """Return `size` bytes (RFC 5246 section 5). The hash "md5sha1" is that of TLS 1.0 and 1.1 (RFC 2246 section 5)."""
    if hash_name != "md5sha1":
        return _expanded(hash_name, secret, label + seed, size)
    half = (len(secret) + 1) // 2
    first = _expanded("md5", secret[:half], label + seed, size)
    second = _expanded("sha1", secret[len(secret) - half :], label + seed, size)
    return bytes(one ^ two for one, two in zip(first, second, strict=True))


def _expanded(hash_name: str, secret: bytes, seed: bytes, size: int) -> bytes:
    out, state = b"", seed
    while len(out) < size:
        state = hmac.digest(secret, state, hash_name)
        out += hmac.digest(secret, state + seed, hash_name)
    return out[:size]


def prf_hash(version: int, hash_name: str) -> str:
    """Return the hash of the PRF: before TLS 1.2 there was but one."""
    return hash_name if version >= TLS12 else "md5sha1"


def master_secret(hash_name: str, premaster: bytes, randoms: bytes, session: bytes | None) -> bytes:
    """Return the master secret; `session` is the hash of the handshake, where that is bound to it (RFC 7627)."""
    if session is None:
        return prf(hash_name, premaster, b"master secret", randoms, MASTER)
    return prf(hash_name, premaster, b"extended master secret", session, MASTER)


def session_hash(hash_name: str, session: bytes) -> bytes:
    """Return the hash of a handshake's messages (RFC 7627 section 3)."""
    if hash_name == "md5sha1":
        return hashlib.md5(session, usedforsecurity=False).digest() + _sha1(session)
    return hashlib.new(hash_name, session).digest()


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def exported(hash_name: str, master: bytes, label: bytes, randoms: bytes, size: int) -> bytes:
    """Return keying material of a TLS or DTLS 1.2 session, without a context (RFC 5705 section 4)."""
    return prf(hash_name, master, label, randoms, size)


def expand_label(hash_name: str, secret: bytes, label: bytes, context: bytes, size: int, prefix: bytes = b"") -> bytes:
    """HKDF-Expand-Label (RFC 8446 section 7.1); DTLS has a prefix of its own (RFC 9147 section 5.9)."""
    full = (prefix or b"tls13 ") + label
    info = size.to_bytes(2, "big") + bytes([len(full)]) + full + bytes([len(context)]) + context
    out, state, count = b"", b"", 1
    while len(out) < size:
        state = hmac.digest(secret, state + info + bytes([count]), hash_name)
        out += state
        count += 1
    return out[:size]


def exported13(hash_name: str, exporter: bytes, label: bytes, size: int, prefix: bytes = b"") -> bytes:
    """Return keying material of a TLS or DTLS 1.3 session, without a context (RFC 8446 section 7.5)."""
    nothing = hashlib.new(hash_name, b"").digest()
    derived = expand_label(hash_name, exporter, label, nothing, len(nothing), prefix)
    return expand_label(hash_name, derived, b"exporter", nothing, size, prefix)


def updated(hash_name: str, secret: bytes) -> bytes:
    """Return the traffic secret after a KeyUpdate (RFC 8446 section 7.2)."""
    return expand_label(hash_name, secret, b"traffic upd", b"", len(secret))
