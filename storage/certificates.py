"""Making the certificates of a box: self-signed, or a key's certificate by another key. Pure but for the dice."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.x509.oid import NameOID

from .safe_text import for_line

NEVER = datetime(9999, 12, 31, 23, 59, 59)
"""RFC 5280, section 4.1.2.5: no date of expiry. What was sealed has to be checked for as long as it is kept."""
_MAX_NAME = 64


def self_signed(private: RSAPrivateKey, name: str, now: datetime) -> x509.Certificate:
    """Return a certificate by the key over itself. `name` is the recorder's."""
    subject = _subject(name)
    return _certificate(private.public_key(), subject, private, subject, now)


def vouching(certificate: x509.Certificate, by: x509.Certificate, private: RSAPrivateKey, now: datetime) -> bytes:
    """Return a certificate (PEM) for the key of `certificate`, by the key of another, whose `private` part is given."""
    from .signature import pem, public_key

    return pem(_certificate(public_key(certificate), certificate.subject, private, by.subject, now))


def _subject(name: str) -> x509.Name:
    text = for_line(name, _MAX_NAME - 1) or "recorder"
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tapdeck"),
            x509.NameAttribute(NameOID.COMMON_NAME, text[:_MAX_NAME]),
        ]
    )


def _certificate(
    public: RSAPublicKey, subject: x509.Name, signer: RSAPrivateKey, issuer: x509.Name, now: datetime
) -> x509.Certificate:
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - timedelta(days=1))  # a checker's clock may be behind
        .not_valid_after(NEVER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
