"""SRTP keys in session descriptions: `a=crypto` (RFC 4568, suites of RFC 6188 and RFC 7714).

Tolerant: a line that cannot be used gives None, and the description goes on. Keys never show in a `repr`.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from .headers import parse_number

MAX_LINES = 32
MAX_KEYS = 16
MAX_MKI = 128
"""Bytes of a master key identifier (section 9.1)."""
MAX_RATE = 24

KEY_AND_SALT = {
    "AES_CM_128_HMAC_SHA1_80": (16, 14),
    "AES_CM_128_HMAC_SHA1_32": (16, 14),
    "AES_192_CM_HMAC_SHA1_80": (24, 14),
    "AES_192_CM_HMAC_SHA1_32": (24, 14),
    "AES_256_CM_HMAC_SHA1_80": (32, 14),
    "AES_256_CM_HMAC_SHA1_32": (32, 14),
    "AEAD_AES_128_GCM": (16, 12),
    "AEAD_AES_256_GCM": (32, 12),
}
"""Bytes of master key and master salt of each suite that we can read."""
_OTHER_NAMES = {
    f"AES_CM_{bits}_HMAC_SHA1_{tag}": f"AES_{bits}_CM_HMAC_SHA1_{tag}" for bits in (192, 256) for tag in (80, 32)
}
"""The drafts of RFC 6188 named its suites so, and phones still do."""

_TAG = re.compile("[0-9]{1,9}")
_LIFETIME = re.compile(r"(?:2\^)?[0-9]{1,15}")
_MKI = re.compile("([0-9]{1,310}):([0-9]{1,3})")
_WORD = re.compile("[A-Za-z0-9_]{1,64}")


@dataclass(frozen=True, slots=True)
class InlineKey:
    """Master key and master salt, and the identifier (MKI) that packets made with them bear, b"" for none."""

    key: bytes = field(repr=False)
    salt: bytes = field(repr=False)
    mki: bytes = b""


@dataclass(frozen=True, slots=True)
class Crypto:
    """One `a=crypto` line: what its sender encrypts with. `keys` is empty if we cannot read the suite.

    `rate` is the exponent of the key derivation rate, 0 if keys are derived once (section 6.3.1); `clear`: the payload
    is authenticated only; `unauthenticated`: it has no authentication tag.
    """

    tag: int
    suite: str
    keys: tuple[InlineKey, ...]
    rate: int = 0
    clear: bool = False
    unauthenticated: bool = False

    @property
    def usable(self) -> bool:
        """Whether packets can be authenticated and read with it."""
        return bool(self.keys) and not self.unauthenticated


def parse_lines(values: Iterable[str]) -> tuple[Crypto, ...]:
    """The `a=crypto` lines of an m-line, at most `MAX_LINES`, those that make no sense left out."""
    found: list[Crypto] = []
    for value in values:
        crypto = parse(value) if len(found) < MAX_LINES else None
        if crypto is not None:
            found.append(crypto)
    return tuple(found)


def parse(value: str) -> Crypto | None:
    """`1 AES_CM_128_HMAC_SHA1_80 inline:...|2^20|1:4 UNENCRYPTED_SRTCP`; None if tag, suite or keys are missing."""
    words = value.split(maxsplit=1)
    if len(words) != 2 or not _TAG.fullmatch(words[0]):
        return None
    name, _, rest = words[1].partition(" ")
    # Some phones put blanks behind the semicolons between keys.
    rest = re.sub(r"\s*;\s*", ";", rest.strip())
    keys, _, options = rest.partition(" ")
    suite = name.upper()
    suite = _OTHER_NAMES.get(suite, suite)
    if not _WORD.fullmatch(suite) or not keys.lower().startswith("inline:"):
        return None
    flags = [option.upper() for option in options.split()[:64]]
    return Crypto(
        tag=int(words[0]),
        suite=suite,
        keys=_keys(keys, suite),
        rate=_rate(flags),
        clear="UNENCRYPTED_SRTP" in flags,
        unauthenticated="UNAUTHENTICATED_SRTP" in flags,
    )


def _rate(flags: list[str]) -> int:
    return next((parse_number(flag.removeprefix("KDR="), MAX_RATE) for flag in flags if flag.startswith("KDR=")), 0)


def _keys(text: str, suite: str) -> tuple[InlineKey, ...]:
    """The keys of `inline:...;inline:...` that have the length their suite wants."""
    if suite not in KEY_AND_SALT:
        return ()
    found = [_key(part, *KEY_AND_SALT[suite]) for part in text.split(";")[:MAX_KEYS]]
    return tuple(key for key in found if key is not None)


def _key(text: str, key_size: int, salt_size: int) -> InlineKey | None:
    """`inline:<key||salt>["|" lifetime]["|" MKI ":" length]`."""
    method, _, rest = text.partition(":")
    secret, *more = rest.split("|")
    if method.strip().lower() != "inline" or len(more) > 2:
        return None
    raw = _decoded(secret.strip())
    mki = _mki(more[-1].strip()) if len(more) == 2 or (more and ":" in more[-1]) else b""
    lifetime = more[:1] if len(more) == 2 or (more and ":" not in more[0]) else []
    sane = mki is not None and all(_LIFETIME.fullmatch(value.strip()) for value in lifetime)
    if raw is None or len(raw) != key_size + salt_size or mki is None or not sane:
        return None
    return InlineKey(raw[:key_size], raw[key_size:], mki)


def _decoded(text: str) -> bytes | None:
    """Base64, its padding forgotten or not."""
    if len(text) > 256:
        return None
    text = text.rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _mki(text: str) -> bytes | None:
    """`1:4` as four bytes, None if it makes no sense."""
    match = _MKI.fullmatch(text)
    if match is None:
        return None
    number, size = int(match[1]), int(match[2])
    if not 0 < size <= MAX_MKI or number >= 1 << 8 * size:
        return None
    return number.to_bytes(size, "big")
