"""Sealing: from the files of a recording to its entry in the log, one recording at a time, safe from any kill.

    1. it is written down that the recording is being sealed, when, and which was sealed before it
    2. its files are written under temporary names: sound, packets, info file, their hashes, the signature over those
    3. they get their names in this order
    4. its entry is added to the log, and 1 is deleted, in one transaction

After a kill the same spool file with what 1 says gives the same bytes, so that what is there already is left.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from . import info
from .atomic import AtomicBatch, AtomicFiles, DifferentFileExists, replace_file
from .keys import KeyLocked, KeyStore, Stamp
from .ledger import Ledger, New, Pending
from .ledger_entry import key_text
from .localtime import Zone
from .parcel import ENDINGS, INFO
from .signature import HASH, SIGNATURE, SigningKey, hash_text, one_line, sha256
from .trust import CERTIFICATE

STEPS = (
    "certified",
    "pending",
    "written",
    *(f"published {ending}" for ending in (".wav", ".pcapng", "_packets.pcapng", INFO, HASH, SIGNATURE)),
    "published",
    "logged",
    "handed over",
    "removed",
)
"""The steps in their order. Between any two the process may be killed; the last two are the stage's."""

AGAIN_S = 15.0
"""When a locked key is tried again although nothing in its folder has changed."""

SCRIPTS = Path(__file__).parent / "scripts"


class NotAsLogged(OSError):
    """A recording that the log says is sealed is not there, or is another."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A time in which the key could not be opened."""

    since: datetime
    until: datetime
    why: str


@dataclass(slots=True)
class Signing:
    """Seals recordings. `zone` is the one of `SealedAt`; `at` is told of each step that is done; `spool` names the
    file that is being sealed, `late` says why what is being sealed had to wait.
    """

    keys: KeyStore
    ledger: Ledger
    zone: Zone
    at: Callable[[str], None] = lambda step: None
    spool: str = ""
    late: str = ""
    _key: SigningKey | None = None
    _stamp: Stamp = ()
    _refused: KeyLocked | None = None
    _again: float = 0.0
    _certified: set[tuple[Path, str]] = field(default_factory=set)

    def ready(self) -> SigningKey:
        """Return the open key; open it again if it has changed, and write such a change into the log. Raises KeyLocked,
        OSError.
        """
        stamp = self.keys.stamp()
        if self._key is not None and stamp == self._stamp:
            return self._key
        if self._refused is not None and stamp == self._stamp and time.monotonic() < self._again:
            raise self._refused  # trying a passphrase takes a while, by design
        self._key, self._refused, self._stamp = None, None, stamp
        try:
            self._key = self._opened()
        except KeyLocked as error:
            self._refused, self._again = error, time.monotonic() + AGAIN_S
            raise
        self._stamp = self.keys.stamp()
        return self._key

    def waits(self) -> list[Wait]:
        """Return the times in which the key could not be opened."""
        facts = [(entry.time, entry.facts) for entry in self.ledger.of_kind("key")]
        return [
            Wait(datetime.fromisoformat(fact["since"]), datetime.fromisoformat(until), fact["why"])
            for until, fact in facts
            if fact.get("what") == "unlocked"
        ]

    def found(self, identity: str, folder: Path, stem: str) -> list[str] | None:
        """Return the files of a recording that has been sealed before, None if it has not. Raises NotAsLogged."""
        entry = self.ledger.recording(identity)
        if entry is None:
            return None
        path = folder / f"{stem}{HASH}"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        if sha256(content) != entry.hash:
            what = "is not the one that was" if content else "is not there"
            cure = "if the recording is safe elsewhere, remove its file from the spool"
            raise NotAsLogged(0, f"the recording {identity} was sealed before, and its hash file {what}: {cure}")
        return [f"{stem}{ending}" for ending in ENDINGS if (folder / f"{stem}{ending}").exists()]

    @contextmanager
    def sealing(self, identity: str, folder: Path, stem: str, day: str) -> Iterator["Seal"]:
        """Begin to seal a recording of a call that began on this day (ISO 8601): write its files to what `Seal.open`
        gives, then `Seal.publish` it. If that raises an Exception nothing of it is left. Raises KeyLocked, OSError.
        """
        key = self.ready()
        self.certify(folder, key)
        self.at("certified")
        pending = self.ledger.pending()
        resumed = pending is not None and pending.id == identity
        if pending is None or not resumed:
            now = self.zone.iso(time.time_ns())
            pending = Pending(identity, now, *self.ledger.previous(), self.late, self.spool)
            self.ledger.begin(pending)
        self.at("pending")
        with AtomicBatch() as batch:
            seal = Seal(self, key, pending, folder, stem, day, resumed, batch, batch.add(folder))
            try:
                yield seal
            except Exception:
                seal.withdraw()
                raise

    def _opened(self) -> SigningKey:
        """Open the key, and write into the log what has changed."""
        last = self.ledger.last("key")
        before = last.facts if last else {}
        try:
            key = self.keys.open()
        except KeyLocked as error:
            if before.get("what") != "locked":
                fingerprint = before.get("fingerprint", "")
                self.ledger.append(New("key", facts={"what": "locked", "why": error.cause, "fingerprint": fingerprint}))
            raise
        known = before.get("fingerprint", "")
        if last is not None and before.get("what") == "locked":
            facts = {"what": "unlocked", "since": last.time, "why": before.get("why", ""), "fingerprint": known}
            self.ledger.append(New("key", facts=facts))
        if known != key.fingerprint:
            facts = {"what": self.keys.history(), "fingerprint": key.fingerprint, "before": known}
            text = key_text(facts["what"], key.fingerprint, known)
            self.ledger.append(New("key", hash=sha256(text), signature=key.sign(text), facts=facts))
        return key

    def certify(self, folder: Path, key: SigningKey) -> None:
        """Put into a day folder what is needed to verify: the certificates, and the scripts that need nothing else."""
        if (folder, key.fingerprint) in self._certified:
            return
        scripts = sorted(SCRIPTS.glob("verify.*")) if SCRIPTS.is_dir() else []
        for name, content in [(CERTIFICATE, key.bundle), *((path.name, path.read_bytes()) for path in scripts)]:
            path = folder / name
            if not path.is_file() or path.read_bytes() != content:
                replace_file(path, content, executable=path.suffix == ".sh")
        self._certified.add((folder, key.fingerprint))


@dataclass(slots=True)
class Seal:
    """The sealing of one recording under way."""

    _signing: Signing
    _key: SigningKey
    _pending: Pending
    _folder: Path
    _stem: str
    _day: str
    _resumed: bool
    _batch: AtomicBatch
    _member: AtomicFiles
    _digests: dict[str, "Hashed"] = field(default_factory=dict)
    _named: list[str] = field(default_factory=list)

    @property
    def lines(self) -> info.Pairs:
        """What the info file says of the seal."""
        pending = self._pending
        before = self._signing.ledger.recording(pending.previous_id)
        lines = [
            ("SealedAt", pending.sealed_at),
            ("PreviousRecording", pending.previous_id),
            ("PreviousDay", str(before.facts.get("day", "")) if before else ""),
            ("PreviousSignature", one_line(pending.previous_signature)),
            ("SealedBy", self._key.fingerprint),
        ]
        return [*lines, ("SealedLate", pending.late)] if pending.late else lines

    def open(self, name: str, follows: bool = False) -> "Hashed":
        """Return a new file of the recording to write to. None merely `follows` the others: each byte is vouched
        for.
        """
        self._digests[name] = Hashed(self._member.open(name))
        return self._digests[name]

    def publish(self) -> list[str]:
        """Give the files their names, and the recording its entry in the log; return the names of hash file and
        signature. Raises OSError.
        """
        at = self._signing.at
        hashes = hash_text({name: file.digest for name, file in self._digests.items()})
        signature = self._key.sign(hashes)
        names = [f"{self._stem}{HASH}", f"{self._stem}{SIGNATURE}"]
        for name, content in zip(names, (hashes, signature), strict=True):
            self._member.open(name).write(content)
        at("written")
        try:
            self._give_names()
        except DifferentFileExists:
            whole = self._whole_on_disk() if self._resumed else None
            if whole is not None:  # written before the kill, with another key or by another version: it counts
                hashes, signature = whole
            else:
                self._clear()
                self._give_names()
        at("published")
        self._signing.ledger.finish(self._pending, sha256(hashes), signature, self._day)
        at("logged")
        return names

    def withdraw(self) -> None:
        """Leave nothing behind of a recording that could not be sealed. One whose files are all there stays, and so
        does the note that it is being sealed.
        """
        if f"{self._stem}{SIGNATURE}" in self._named or (self._folder / f"{self._stem}{SIGNATURE}").exists():
            return
        for name in self._named:
            (self._folder / name).unlink(missing_ok=True)
        if not self._resumed:
            self._signing.ledger.withdraw(self._pending.id)

    def _give_names(self) -> None:
        for error in self._batch.publish(self._told).values():
            raise error

    def _told(self, name: str) -> None:
        self._named.append(name)
        self._signing.at(f"published {name.removeprefix(self._stem)}")

    def _whole_on_disk(self) -> tuple[bytes, bytes] | None:
        """Return hash file and signature if the recording is there as a whole."""
        try:
            hashes = (self._folder / f"{self._stem}{HASH}").read_bytes()
            signature = (self._folder / f"{self._stem}{SIGNATURE}").read_bytes()
            there = {name: _digest(self._folder / name) for name in self._digests}
        except FileNotFoundError:
            return None
        good = hash_text(there) == hashes and self._key.signed(signature, hashes)
        return (hashes, signature) if good else None

    def _clear(self) -> None:
        """Make room: where a sealing was broken off, for all that it had written; else only in place of an info file
        without a seal.
        """
        endings = [SIGNATURE, HASH, *(name.removeprefix(self._stem) for name in self._digests)]
        if not self._resumed and not self._signing.ledger.abandoned(self._pending.id):
            endings = [HASH, INFO]
            if (self._folder / f"{self._stem}{SIGNATURE}").exists():
                return
        for ending in endings:
            (self._folder / f"{self._stem}{ending}").unlink(missing_ok=True)


class Hashed:
    """A file that knows the SHA-256 of what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sum = hashlib.sha256()

    def write(self, data: Any) -> int:
        """Write bytes, or what lies in memory one after the other, as an array does."""
        self._sum.update(data)
        return self._file.write(data)

    @property
    def digest(self) -> str:
        """SHA-256 in hex of all that was written."""
        return self._sum.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
