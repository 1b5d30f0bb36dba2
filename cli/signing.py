"""What sealing adds to the seal stage: the key, the recording log, and what is said when the key is locked."""

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..storage import ledger_events, state
from ..storage.keys import KeyLocked, KeyStore
from ..storage.ledger import NAME, Ledger, New
from ..storage.signature import SigningKey
from ..storage.signing import Signing, Wait
from .days import SETTLE_S, Days
from .logs import log
from .settings import Settings, all_settings

_CONFIGURATION = "configuration"


def key_store(settings: Settings) -> KeyStore:
    """Return the folder of the key."""
    signing = settings.signing
    passphrase = Path(signing.passphrase_file) if signing.passphrase_file else None
    return KeyStore(Path(signing.keys), passphrase, signing.bits, settings.recording.instance or os.uname().nodename)


def signing_with(settings: Settings, ledger: Path, at: Callable[[str], None] = lambda step: None) -> Signing:
    """Return what seals, with the recording log at this place. Raises ConfigError, OSError."""
    zone = settings.zone()
    return Signing(key_store(settings), Ledger(ledger, lambda: zone.iso(time.time_ns())), zone, at)


@dataclass(slots=True)
class Desk:
    """The seal stage's side of sealing. `at` is told of each step that is done."""

    settings: Settings
    alarms: state.Alarms
    at: Callable[[str], None] = lambda step: None
    signing: Signing = field(init=False)
    locked: bool = field(init=False, default=False)
    _key: SigningKey | None = field(init=False, default=None)
    _waits: list[Wait] = field(init=False, default_factory=list)
    _days: Days = field(init=False)

    def __post_init__(self) -> None:
        self.signing = signing_with(self.settings, Path(self.settings.storage.state) / NAME, self.at)
        self._days = Days(self.settings, self.alarms, self.signing)

    def close(self) -> None:
        """Let go of the recording log."""
        self.signing.ledger.close()

    def begin(self, done: Path) -> Path | None:
        """Return the spool file whose sealing a kill has broken off: it goes first. One that is gone is given up."""
        self.note_configuration()
        pending = self.signing.ledger.pending()
        if pending is None:
            return None
        path = done / (pending.spool or f"{pending.id}.pcapng")
        if path.exists():
            return path
        self.signing.ledger.abandon("its spool file is gone")
        log().error("a sealing that was broken off cannot be finished: its spool file is gone", recording=pending.id)
        return None

    def note_configuration(self) -> None:
        """Write into the log that the configuration is another one than before: its hash, nothing of what it says."""
        text = "\n".join(f"{one.name}={one.of(self.settings)!r}" for one in all_settings())
        digest = hashlib.sha256(text.encode()).hexdigest()
        ledger = self.signing.ledger
        if ledger.mark(_CONFIGURATION) != digest:
            entry = New("configuration", hash=digest, facts={"what": "settings of the seal stage"})
            ledger.append(entry, mark=(_CONFIGURATION, digest))

    def reload(self, settings: Settings) -> None:
        """Take new settings."""
        self.settings = settings
        before = self.signing
        self.signing = Signing(key_store(settings), before.ledger, settings.zone(), before.at)
        self._days.reload(settings, self.signing)
        self.note_configuration()

    def is_open(self) -> bool:
        """Whether recordings can be sealed now; raises or ends the alarm."""
        try:
            key = self.signing.ready()
        except KeyLocked as error:
            text = f"recordings wait in the spool, unsealed and undelivered: {error}"
            self.alarms.raise_("KEY_LOCKED", text, "critical")
            if not self.locked:
                log().critical("the key cannot be opened", cause=error.cause, cure=error.cure)
            self.locked = True
            return False
        self.alarms.clear("KEY_LOCKED")
        if self.locked:
            log().warning("the key is back")
        if key is not self._key:
            self._key, self._waits = key, self.signing.waits()
        self.locked = False
        return True

    def turn_to(self, path: Path) -> None:
        """Say which spool file is sealed next, and whether it had to wait for the key. Raises OSError."""
        handed_over = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        wait = next((one for one in self._waits if one.until >= handed_over), None)
        since = wait.since.isoformat(timespec="milliseconds") if wait else ""
        self.signing.late = f"since {since}: {wait.why}" if wait else ""
        self.signing.spool = path.name

    def give_up(self, path: Path, reason: str) -> None:
        """A spool file was set aside: if its sealing was under way, that is written down."""
        pending = self.signing.ledger.pending()
        if pending is not None and pending.spool == path.name:
            self.signing.ledger.abandon(reason)

    def note_events(self) -> None:
        """Take over what the stages' event log says since the last time. Raises OSError."""
        ledger = self.signing.ledger
        mark = ledger.mark(ledger_events.MARK)
        entries, after = ledger_events.new_entries(Path(self.settings.storage.state), mark)
        if after != mark:
            ledger.append(*entries, mark=(ledger_events.MARK, after))

    def look(self, media: Mapping[str, int], ended: bool = False) -> None:
        """Note what the stages have said and counted; `media` are this one's counters. Raises OSError."""
        self.note_events()
        self._days.look(media, ended)

    def close_days(self, settle: float = SETTLE_S) -> None:
        """Make the checkpoints of days that are over, those that were missed after so many seconds."""
        with suppress(KeyLocked):  # they wait, as recordings do
            self._days.tick(self._note_all, settle)

    def _note_all(self) -> None:
        before = None
        while (mark := self.signing.ledger.mark(ledger_events.MARK)) != before:
            before = mark
            self.note_events()

    def report(self, waiting: int) -> dict[str, Any]:
        """Return what the stage says of it; `waiting` files are not sealed yet."""
        return {
            "unsigned": waiting if self.locked else 0,
            "signing": {"certificate": self._key.fingerprint if self._key else "", "locked": self.locked},
        }
