"""Certificates for verification: found in files, and which of their keys vouch for each other.

A key is named by the SHA-256 of its SubjectPublicKeyInfo; a certificate by the SHA-256 of its DER, as `openssl x509
-fingerprint` shows it.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

CERTIFICATE = "tapdeck-certificate.pem"
"""The file in every day folder that holds the certificates of the box."""

MAX_SIZE = 1 << 20
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


class BadCertificate(ValueError):
    """The file holds no certificate that can be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with an RSA key: its fingerprint (hex), its key (SubjectPublicKeyInfo, DER), the key's name, whose
    it is, and what its issuer signed.
    """

    fingerprint: str
    public: bytes
    key: str
    subject: str
    body: bytes
    signature: bytes

    def vouched_by(self, public: bytes) -> bool:
        """Return whether this key signed the certificate."""
        return signed_digest(public, self.signature) == hashlib.sha256(self.body).digest()


def read_certificates(path: Path) -> list[Certificate]:
    """Return the certificates of a PEM file. Raises OSError, BadCertificate."""
    with path.open("rb") as file:
        content = file.read(MAX_SIZE)
    found = _PEM.findall(content)
    if not found:
        raise BadCertificate(f"{path} holds no certificate in PEM form")
    if any(
        content.count(line) != len(found) for line in (b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----")
    ):
        raise BadCertificate(f"{path} holds a certificate that was changed or cut")
    return [_parsed(pem, path) for pem in found]


def signed_digest(public: bytes, signature: bytes) -> bytes | None:
    """Return the SHA-256 that was signed with this key (RSA, PKCS#1 v1.5), None if the signature is not by it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    try:
        return _loaded(public).recover_data_from_signature(signature, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError):
        return None


def key_bytes(public: bytes) -> int:
    """Return how many bytes a signature by this key has."""
    return (_loaded(public).key_size + 7) // 8


def trusted(pinned: Iterable[Certificate], found: Iterable[Certificate]) -> dict[str, bytes]:
    """Return the keys that may be trusted, by name: those pinned, and those certified by a trusted one."""
    keys = {one.key: one.public for one in pinned}
    waiting = list(found)
    while more := [one for one in waiting if one.key not in keys and any(map(one.vouched_by, keys.values()))]:
        keys.update({one.key: one.public for one in more})
    return keys


def certified(found: Collection[Certificate]) -> set[str]:
    """Return the names of the keys that another one certifies: who knows that one by its fingerprint knows them too."""
    return {one.key for one in found if any(other.key != one.key and one.vouched_by(other.public) for other in found)}


def together(found: Collection[Certificate], weight: Mapping[str, int]) -> set[str]:
    """Return the names of the keys that certify each other and that signed most, `weight` being what each signed."""
    best: set[str] = set()
    for start in found:
        group = {start.key}
        while (
            more := {other for one in found for other in _linked(one, found) if _joins(one.key, other, group)} - group
        ):
            group |= more
        if not best or sum(weight.get(key, 0) for key in group) > sum(weight.get(key, 0) for key in best):
            best = group
    return best


def _linked(one: Certificate, found: Iterable[Certificate]) -> set[str]:
    """Return the names of this certificate's key and of those that signed it."""
    return {one.key} | {other.key for other in found if one.vouched_by(other.public)}


def _joins(one: str, other: str, group: set[str]) -> bool:
    return one in group or other in group


def _parsed(pem: bytes, path: Path) -> Certificate:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        certificate = x509.load_pem_x509_certificate(pem)
        public = certificate.public_key()
        subject = certificate.subject.rfc4514_string()
        der = certificate.public_bytes(Encoding.DER)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise BadCertificate(f"{path} holds a certificate that was changed or cut: {error}") from None
    if not isinstance(public, RSAPublicKey):
        raise BadCertificate(f"{path} holds a certificate whose key is not an RSA key")
    key = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Certificate(
        hashlib.sha256(der).hexdigest(),
        key,
        hashlib.sha256(key).hexdigest(),
        subject,
        certificate.tbs_certificate_bytes,
        certificate.signature,
    )


@cache
def _loaded(public: bytes) -> "RSAPublicKey":
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(public)
    assert isinstance(key, RSAPublicKey)  # `_parsed` lets no other in
    return key
