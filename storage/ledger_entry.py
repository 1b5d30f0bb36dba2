"""An entry of the recording log: what its link and its signature are over."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .verify_files import open_seal

_SIGNED = ("recording", "tombstone", "checkpoint")
"""Kinds of entries that carry a signature; of `key` those do by which the key is another one than before."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. `body` is JSON; `typed` tells whether each field that was read is of the type it was written with."""

    seq: int
    time: str
    kind: str
    id: str
    hash: str
    signature: bytes
    body: str
    link: str
    typed: bool = True

    @property
    def facts(self) -> dict[str, Any]:
        """What the body says."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def name(self) -> str:
        """How it is called in a sentence."""
        return f"entry {self.seq} ({self.kind}, {self.time})"

    def linked_to(self, previous: str) -> str:
        """Return the link that it has to have behind an entry with the link `previous`."""
        fields = [previous, *map(str, (self.seq, self.time, self.kind, self.id, self.hash))]
        text = "\n".join([*fields, base64.b64encode(self.signature).decode(), self.body])
        return _sha256(text.encode(errors="surrogateescape"))

    def is_genuine(self, keys: Mapping[str, bytes]) -> bool:
        """Whether it needs no signature, or has one by one of these keys, over what it should be over."""
        facts = self.facts
        stamp_only = self.kind == "checkpoint" and "what" in facts
        if self.kind == "key" and facts.get("what") not in ("locked", "unlocked"):
            text = key_text(str(facts.get("what")), str(facts.get("fingerprint")), str(facts.get("before")))
            return _sha256(text) == self.hash and open_seal(self.signature, keys).digest == self.hash
        if self.kind == "tombstone":
            text = tombstone_text(self.id, self.hash, str(facts.get("reason")), str(facts.get("by")), self.time)
            return open_seal(self.signature, keys).digest == _sha256(text)
        return self.kind not in _SIGNED or stamp_only or open_seal(self.signature, keys).digest == self.hash


def tombstone_text(identity: str, digest: str, reason: str, by: str, time: str) -> bytes:
    """Return what the signature of a tombstone is over."""
    text = f"Tombstone: {identity} {digest}\nTime: {time}\nReason: {reason}\nBy: {by}\n"
    return text.encode(errors="surrogateescape")


def key_text(what: str, fingerprint: str, before: str) -> bytes:
    """Return what the signature of an entry is over that tells of another key."""
    return f"Key: {what} {fingerprint}\nBefore: {before}\n".encode(errors="surrogateescape")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
