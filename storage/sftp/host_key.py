"""The host key that the configuration names: only the server that has it is ever talked to."""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?")
_KEY = re.compile(r"(?:^|\s)((?:ssh|ecdsa)-[a-z0-9@.-]+)\s+(AAAA[A-Za-z0-9+/]+=*)(?:\s|$)")


class NotAHostKey(ValueError):
    """The configuration's text is no host key."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """A fingerprint `SHA256:...`, and the kind of the key where that is known."""

    fingerprint: str
    kind: str = ""


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
        digest = hashlib.sha256(base64.b64decode(found[2], validate=True)).digest()
    except binascii.Error:
        raise NotAHostKey("the public key in it is cut off") from None
    return HostKey("SHA256:" + base64.b64encode(digest).decode().rstrip("="), found[1])
