"""What is signed, and how: the hash file of a recording, and RSA PKCS#1 v1.5 over its SHA-256. Pure.

openssl dgst -sha256 -verify KEY -signature S_hash.SHA256withRSA.sig S_hash.txt
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

HASH, SIGNATURE = "_hash.txt", "_hash.SHA256withRSA.sig"
"""Endings of the files that vouch for the others of a recording."""


def hash_text(digests: Mapping[str, str]) -> bytes:
    """Return the hash file for files of these names and SHA-256 sums (hex), as `sha256sum -c` reads it."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()


def sha256(content: bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def sign(private: RSAPrivateKey, content: bytes) -> bytes:
    """Return the raw signature over the content."""
    return private.sign(content, padding.PKCS1v15(), hashes.SHA256())


def is_signed(public: RSAPublicKey, signature: bytes, content: bytes) -> bool:
    """Whether the signature is over this content, and by this key."""
    try:
        public.verify(signature, content, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def one_line(signature: bytes) -> str:
    """Return a signature as an info file names it: base64 in one line."""
    return base64.b64encode(signature).decode()


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate in hex, as `openssl x509 -fingerprint -sha256` has it, without colons."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate in PEM form."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def same_key(certificate: x509.Certificate, other: RSAPrivateKey | x509.Certificate) -> bool:
    """Whether a certificate is over this key, or over the key of this other certificate."""
    return _der(certificate.public_key()) == _der(other.public_key())


def public_key(certificate: x509.Certificate) -> RSAPublicKey:
    """Return a certificate's key. Raises ValueError for one that is not RSA."""
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        raise ValueError("its key is not an RSA key")
    return key


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An open key: its certificate, and all certificates of the box, newest first (PEM, one after the other)."""

    private: RSAPrivateKey
    certificate: x509.Certificate
    bundle: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate in hex."""
        return fingerprint(self.certificate)

    def sign(self, content: bytes) -> bytes:
        """Return the raw signature over the content."""
        return sign(self.private, content)

    def signed(self, signature: bytes, content: bytes) -> bool:
        """Whether a signature over this content is by this key, or by one that the box had before."""
        certificates: Iterable[x509.Certificate] = x509.load_pem_x509_certificates(self.bundle)
        return any(is_signed(public_key(one), signature, content) for one in certificates)


def _der(key: object) -> bytes:
    assert isinstance(key, RSAPublicKey)
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
