"""The secrets that somebody lets us have: the lines of an NSS key log, and servers' RSA keys. Pure, and bounded.

Format: draft-ietf-tls-keylogfile, and the older lines that NSS wrote. Secrets never show in a `repr`.
"""

import binascii
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from .derive import MASTER

CLIENT_RANDOM, EXPORTER = "CLIENT_RANDOM", "EXPORTER_SECRET"
EARLY = "CLIENT_EARLY_TRAFFIC_SECRET"
HANDSHAKE = ("CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET")
TRAFFIC = ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0")
PREMASTER = "PMS_CLIENT_RANDOM"
RSA = "RSA"
"""Named by the first eight bytes of the encrypted premaster secret."""
_LABELS = (CLIENT_RANDOM, EXPORTER, EARLY, *HANDSHAKE, *TRAFFIC, PREMASTER, RSA)
_SIZES = {CLIENT_RANDOM: (MASTER,), PREMASTER: range(1, 1025), RSA: (MASTER,)}
_HASH_SIZES = (32, 48, 64)
MAX_LINE = 4096
MAX_SECRETS = 200_000
"""Secrets that are kept; beyond it the oldest go."""

Decrypt = Callable[[bytes], bytes | None]
"""Decrypts a premaster secret with a server's RSA key (RFC 8017 section 7.2.2), None if that cannot be."""


@dataclass(slots=True)
class Secrets:
    """What was told of TLS sessions so far. `revision` grows with it; `odd` counts lines that are no secrets."""

    servers: list[Decrypt] = field(default_factory=list, repr=False)
    limit: int = MAX_SECRETS
    revision: int = 0
    odd: int = 0
    wanted: bool = False
    """Whether TLS is to be looked at although there is no secret yet: a key log is on its way."""
    _premasters: bool = False
    _kept: OrderedDict[tuple[str, bytes], bytes] = field(default_factory=OrderedDict, repr=False)
    _rest: bytes = field(default=b"", repr=False)
    _long: bool = False

    def __bool__(self) -> bool:
        return self.wanted or bool(self._kept) or bool(self.servers)

    @property
    def wants_words(self) -> bool:
        """Whether there are secrets of which keys are made with what was said in the handshake."""
        return self._premasters or bool(self.servers)

    def __len__(self) -> int:
        return len(self._kept)

    def feed(self, data: bytes) -> int:
        """Take what was appended to a key log; return how many secrets came. A last line without its end is tried, and
        read again when more of it comes.
        """
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest
        if self._long and lines:
            lines, self._long = lines[1:], False
        if len(rest) > MAX_LINE:
            self._rest, self._long = b"", True
            self.odd += 1
        came = sum(self._line(line) for line in lines)
        return came + (self._take(_secret(rest.split())) if not self._long else 0)

    def add(self, key_log: bytes) -> int:
        """Take a key log that is whole, as a capture file may hold one; return how many secrets came."""
        return sum(self._line(line) for line in key_log.split(b"\n"))

    def restart(self) -> None:
        """Another key log begins: what is left of a line of the one before is none."""
        self._rest, self._long = b"", False

    def _line(self, line: bytes) -> bool:
        words = line.split()
        if not words or words[0].startswith(b"#"):
            return False
        found = _secret(words) if len(line) <= MAX_LINE else None
        self.odd += found is None
        return self._take(found)

    def _take(self, found: tuple[tuple[str, bytes], bytes] | None) -> bool:
        if found is None:
            return False
        key, secret = found
        self._premasters |= key[0] in (PREMASTER, RSA)
        if self._kept.get(key) == secret:
            return False
        self._kept[key] = secret
        self._kept.move_to_end(key)
        if len(self._kept) > self.limit:
            self._kept.popitem(last=False)
        self.revision += 1
        return True

    def get(self, label: str, name: bytes) -> bytes | None:
        """Return a secret of the session whose client's random is `name`; of `RSA`, the premaster's first bytes."""
        return self._kept.get((label, name))


def _secret(words: list[bytes]) -> tuple[tuple[str, bytes], bytes] | None:
    """Read a line; None for what is no secret, or of a kind that nobody needs."""
    label = words[0].decode("ascii", "replace") if len(words) == 3 else ""
    if label not in _LABELS:
        return None
    try:
        name, secret = binascii.unhexlify(words[1]), binascii.unhexlify(words[2])
    except (binascii.Error, ValueError):
        return None
    if len(name) != (8 if label == RSA else 32) or len(secret) not in _SIZES.get(label, _HASH_SIZES):
        return None
    return (label, name), secret
