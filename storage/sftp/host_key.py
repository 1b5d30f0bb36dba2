"""The host key that the configuration names: only the server that has it is ever talked to."""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

FAMILIES = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256"),
)
"""Signature algorithms of the kinds of key a server may have, the best first."""

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?")
_KEY = re.compile(r"(?:^|\s)((?:ssh|ecdsa)-[a-z0-9@.-]+)\s+(AAAA[A-Za-z0-9+/]+=*)(?:\s|$)")


class NotAHostKey(ValueError):
    """The configuration's text is no host key."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """A fingerprint `SHA256:...`, and the kind of the key where that is known."""

    fingerprint: str
    kind: str = ""

    @property
    def families(self) -> tuple[tuple[str, ...], ...]:
        """Return the signature algorithms that fit, by family."""
        wanted = {"ssh-rsa": "rsa-sha2-512"}.get(self.kind, self.kind)
        return tuple(family for family in FAMILIES if wanted in family) or FAMILIES


def host_key(text: str) -> HostKey | None:
    """Read a fingerprint, a public key or a line of known_hosts; None if there is none. Raises NotAHostKey."""
    text = text.strip()
    if not text:
        return None
    if _FINGERPRINT.fullmatch(text):
        return HostKey(text.rstrip("="))
    found = None if text.startswith("@") or "\n" in text else _KEY.search(text)
    if found is None:
        raise NotAHostKey("it is neither a fingerprint like SHA256:... nor one line with a public key")
    try:
        return HostKey(fingerprint(base64.b64decode(found[2], validate=True)), found[1])
    except binascii.Error:
        raise NotAHostKey("the public key in it is cut off") from None


def fingerprint(key: bytes) -> str:
    """Return the fingerprint of a public key in its wire format, as ssh-keygen -l shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
