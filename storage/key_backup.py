"""Key and certificates of a box in one file, encrypted with a passphrase: PKCS#12, which OpenSSL reads as well.

openssl pkcs12 -in tapdeck-key.p12 -info -noout
"""

import os
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import (
    PBES,
    PKCS12Certificate,
    PKCS12KeyAndCertificates,
    load_pkcs12,
    serialize_key_and_certificates,
)
from cryptography.x509 import load_pem_x509_certificate

from .keys import OLD, KeyRefused, KeyStore
from .signature import SigningKey, pem, same_key

LEAST = 12
"""Characters of a passphrase of a backup: whoever finds the file may try for as long as he likes."""

_NAME = b"tapdeck"
_ROUNDS = 600_000
_MAX_SIZE = 4 << 20


def backup(store: KeyStore, path: Path, passphrase: bytes) -> SigningKey:
    """Write key and certificates to a new file, read it back, and return the key. Raises KeyRefused if the passphrase
    is short or the file exists; KeyLocked, OSError.
    """
    if len(passphrase.decode(errors="replace")) < LEAST:
        raise KeyRefused(f"a backup needs a passphrase of at least {LEAST} characters")
    key = store.open()
    olds = sorted((store.folder / OLD).glob("[0-9][0-9][0-9]-*.pem"))
    others = [
        PKCS12Certificate(load_pem_x509_certificate(one.read_bytes()), one.name.encode())
        for one in olds
        if not one.name.endswith("-key.pem")
    ]
    how = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(_ROUNDS)
        .key_cert_algorithm(PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(passphrase)
    )
    content = serialize_key_and_certificates(_NAME, key.private, key.certificate, others, how)
    _check(content, passphrase, key)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise KeyRefused(f"{path} exists, and is not overwritten: name another file") from None
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    return key


def restore(store: KeyStore, path: Path, passphrase: bytes) -> SigningKey:
    """Put a backup's key and certificates in place, and return the key. Raises KeyRefused if that would overwrite one
    that can be used, or if the passphrase is wrong; KeyLocked, OSError.
    """
    with path.open("rb") as file:
        content = file.read(_MAX_SIZE)
    found = _loaded(content, passphrase, str(path))
    certificate, private = found.cert, found.key
    if certificate is None or not isinstance(private, RSAPrivateKey):
        raise KeyRefused(f"{path} is no backup of a Tapdeck key: there is no RSA key with its certificate in it")
    old = {
        one.friendly_name.decode(): pem(one.certificate)
        for one in found.additional_certs
        if one.friendly_name and _is_name(one.friendly_name)
    }
    return store.install(private, certificate.certificate, old)


def _check(content: bytes, passphrase: bytes, key: SigningKey) -> None:
    """Read back what is about to be written: a backup that cannot be read is found out when it is too late."""
    found = _loaded(content, passphrase, "the backup")
    if not isinstance(found.key, RSAPrivateKey) or not same_key(key.certificate, found.key):
        raise KeyRefused("the backup cannot be read back; nothing was written")


def _loaded(content: bytes, passphrase: bytes, name: str) -> PKCS12KeyAndCertificates:
    try:
        return load_pkcs12(content, passphrase)
    except ValueError as error:
        if "password" in str(error).lower():
            raise KeyRefused(f"{name}: the passphrase is wrong, or the file is damaged; nothing was changed") from None
        raise KeyRefused(f"{name} is no backup of a key: {error}") from None


def _is_name(name: bytes) -> bool:
    number, _, kind = name.partition(b"-")
    return len(number) == 3 and number.isdigit() and kind in (b"certificate.pem", b"cross.pem", b"lost.pem")
