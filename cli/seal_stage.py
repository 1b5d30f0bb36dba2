"""What the seal stage does at each visit to the spool, and what it says of itself."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..sip.dialog import Party
from ..storage import handover, state
from ..storage.hearing import faults
from ..storage.keys import KeyLocked
from ..storage.ledger import NAME
from ..storage.parcel import parcel
from ..storage.quality import figures_of, flagged
from ..storage.recording import Recording
from ..storage.sealing import KeysLate, Sealer
from ..storage.spool import DONE
from ..storage.spool_file import SpoolError
from . import notify
from .call_events import CallEvent, EventPrinter
from .encrypted import EncryptedPeers
from .exit_codes import ExitCode
from .logs import log
from .parts import sealer
from .settings import ConfigError, Settings
from .signing import Desk
from .sound_alarms import SoundAlarms
from .tls_keys import TlsKeys

FAILED = "failed"
"""Folder of the spool for files that cannot be sealed, or not all of them: nothing is thrown away."""
AGAIN_S = (5.0, 300.0)
"""When a file that could not be sealed is tried again: first, and at most, in seconds."""
KEYS_AGAIN_S = 2.0
"""When a call whose keys are late is looked at again, in seconds."""
BEHIND = 200


@dataclass(slots=True)
class SealStage:
    """Seals the files of the spool, oldest first, one a tick. `at` is told of each step that is done, see
    `storage.signing.STEPS`. `keys` are those of DTLS sessions; a call waits for its own for `patience_s` after its end.
    """

    settings: Settings
    printer: EventPrinter
    at: Callable[[str], None] = lambda step: None
    keys: TlsKeys | None = None
    patience_s: float = 0.0
    _desk: Desk | None = field(init=False, default=None)
    _sealer: Sealer = field(init=False)
    _alarms: state.Alarms = field(init=False)
    _encrypted: EncryptedPeers = field(init=False)
    _sound: SoundAlarms = field(init=False)
    _poor: int = field(init=False)
    _again: dict[str, tuple[float, int]] = field(init=False, default_factory=dict)
    _errors: dict[str, str] = field(init=False, default_factory=dict)
    _late: dict[str, int] = field(init=False, default_factory=dict)
    _failed: bool = field(init=False, default=False)
    _queue: list[Path] = field(init=False, default_factory=list)
    _reported: float = field(init=False, default=0.0)
    _last: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._alarms = state.Alarms(self.folder, "seal")
        self._encrypted = EncryptedPeers(self._alarms)
        self._sound = SoundAlarms(self._alarms)
        self._poor = 0
        self._desk = Desk(self.settings, self._alarms, self.at) if self.settings.signing.enabled else None
        self._sealer = self._make_sealer()

    @property
    def folder(self) -> Path:
        """The folder of the stages' reports."""
        return Path(self.settings.storage.state)

    @property
    def _done(self) -> Path:
        return Path(self.settings.storage.spool) / DONE

    @property
    def _aside(self) -> Path:
        return Path(self.settings.storage.spool) / FAILED

    def _make_sealer(self) -> Sealer:
        storage = self.settings.storage
        signing = self._desk.signing if self._desk else None
        return sealer(self.settings, Path(storage.recordings), Path(storage.spool), signing, self.keys)

    def begin(self) -> None:
        """Say that the stage is there."""
        state.append(self.folder, "seal started")
        broken_off = self._desk.begin(self._done) if self._desk else None
        self._queue = [broken_off] if broken_off else []
        self._report()

    def reload(self, reread: Callable[[], Settings]) -> None:
        """Take new settings, if they are good."""
        notify.reloading()
        try:
            settings = reread()
        except ConfigError as error:
            log().error("the new configuration is not taken", reason=str(error))
        else:
            if settings.tls != self.settings.tls:
                self.keys = None
            self.settings = settings
            self._take_signing()
            account, self._sealer = self._sealer.account, self._make_sealer()
            self._sealer.account = account
        notify.ready()

    def _take_signing(self) -> None:
        """Begin or end to sign, or go on with other settings."""
        if self._desk is None:
            self._desk = Desk(self.settings, self._alarms, self.at) if self.settings.signing.enabled else None
        elif self.settings.signing.enabled:
            self._desk.reload(self.settings)
        else:
            self._desk.close()
            self._desk = None
            self._alarms.clear("KEY_LOCKED")

    def _is_open(self) -> bool:
        """Whether recordings can be made now: with a key that is locked they wait."""
        try:
            is_open = self._desk is None or self._desk.is_open()
        except OSError as error:
            self._errors[NAME] = str(error)
            return False
        self._errors.pop(NAME, None)
        return is_open

    def tick(self) -> bool:
        """Seal the next file that is due; return whether there may be another."""
        if not self._is_open():
            if time.monotonic() - self._reported >= 1:
                self._report()
            return False
        if not self._queue:
            self._queue = self._due()
        if self._queue:
            self._seal(self._queue.pop(0))
        if time.monotonic() - self._reported >= 1:
            self._report()
            if self._desk is not None:
                self._desk.close_days()
        return bool(self._queue) or bool(self._due())

    def conclude(self) -> int:
        """Return the exit code of a single run. Days that are over are closed."""
        if self._desk is not None:
            self._report()
            self._desk.close_days(settle=0)
        locked = self._desk is not None and self._desk.locked
        return ExitCode.CANNOT_WRITE if self._errors or self._failed or locked else ExitCode.OK

    def end(self) -> None:
        """Say that the stage ends."""
        state.append(self.folder, "seal stopped")
        self._report(ended=True)
        if self._desk is not None:
            self._desk.close()

    # -- one file ------------------------------------------------------------------------------------------------------

    def _due(self) -> list[Path]:
        """Return the files that wait and are not to be tried later, oldest first."""
        now = time.monotonic()
        try:
            with os.scandir(self._done) as entries:
                found = [
                    (entry.stat().st_mtime_ns, Path(entry.path)) for entry in entries if entry.name.endswith(".pcapng")
                ]
        except FileNotFoundError:
            return []
        return [path for _, path in sorted(found) if self._again.get(path.name, (0.0, 0))[0] <= now]

    def _seal(self, path: Path) -> None:
        try:
            if self._desk is not None:
                self._desk.turn_to(path)
            patient = time.time() - path.stat().st_mtime < self.patience_s
            if patient and self._has_no_news(path):
                raise KeysLate
            recordings = self._sealer.seal(path, patient)
            failed = next((one for one in recordings if one.error), None)
            if failed is not None:
                self._later(path, failed.error)
                return
            for recording in recordings:
                self._conclude(recording)
            self.at("handed over")
        except KeysLate:
            self._again[path.name] = time.monotonic() + KEYS_AGAIN_S, 0
            self._late[path.name] = self.keys.secrets.revision if self.keys else -1
            return
        except SpoolError as error:
            self._set_aside(path, str(error))
            return
        except OSError as error:
            if path.exists():
                self._later(path, str(error))
            return
        except KeyLocked:
            return  # the next tick says so; the file waits
        except Exception as error:  # noqa: BLE001 - one call that we cannot read must not keep the others from being sealed
            log().exception("a mistake in Tapdeck; please report it", file=path.name)
            self._set_aside(path, f"{type(error).__name__}: {error}")
            return
        harm = next((one.plan.ended.circumstances.harm for one in recordings), "there is no call in it")
        if harm:
            self._set_aside(path, harm)
            return
        path.unlink()
        self.at("removed")
        self._forget(path)

    def _has_no_news(self, path: Path) -> bool:
        """Tell whether no key has come since a call was looked at that lacked its own."""
        if self.keys is None or path.name not in self._late:
            return False
        return self.keys.fresh().revision == self._late[path.name]

    def _conclude(self, recording: Recording) -> None:
        """A recording is durable: hand it on, and say so."""
        facts = self._facts(recording)
        if recording.outcome == "recorded" and recording.files:
            files = [str(file) for file in recording.files]
            size = sum((self._sealer.root / file).stat().st_size for file in recording.files)
            handover.write(self.folder, parcel(recording.id, files, size, time.time()))
        state.append(self.folder, "call", **facts)
        self._judge(recording)
        self._encrypted.met(recording, self._now())
        self._sound.met(recording)
        self._last = facts
        recorded = recording.outcome == "recorded"
        detail = _quality(recording) if recorded else recording.outcome.replace("_", " ")
        event = CallEvent(
            "recorded" if recorded else "not recorded",
            datetime.fromisoformat(facts["ended"]),
            recording.id,
            facts["caller"],
            facts["callee"],
            recording.direction,
            "; ".join((detail, *recording.notes)),
            facts,
        )
        self.printer.show(event)

    def _judge(self, recording: Recording) -> None:
        """Note a recording whose sides lost more than a call bears."""
        losses = flagged(recording.plan) if recording.outcome == "recorded" else {}
        self._poor += bool(losses)
        for party, loss in losses.items():
            told = {"id": recording.id, "call_id": recording.call.call_id, "side": party.value}
            state.append(self.folder, "poor quality", **told, loss_percent=round(loss, 3))

    def _now(self) -> datetime:
        return self.settings.zone().local(time.time_ns())

    def _facts(self, recording: Recording) -> dict[str, Any]:
        call, zone = recording.call, self.settings.zone()
        ended = call.ended if call.ended is not None else recording.plan.last
        return {
            "id": recording.id,
            "outcome": recording.outcome,
            "caller": call.caller.number,
            "callee": call.callee.number,
            "direction": recording.direction,
            "started": zone.local(recording.plan.ended.started).isoformat(timespec="milliseconds"),
            "ended": zone.local(ended).isoformat(timespec="milliseconds"),
            "duration_s": round(recording.duration_s, 3),
            "codec": recording.codec,
            "reason": call.end_reason,
            "call_id": call.call_id,
            "files": [str(file) for file in recording.files],
            "quality": figures_of(recording.plan),
            "faults": [code for code, _ in faults(recording.plan)],
        }

    # -- what goes wrong -----------------------------------------------------------------------------------------------

    def _later(self, path: Path, reason: str) -> None:
        """Try a file again, later and later: a disk may be full, or a folder not there."""
        tries = self._again.get(path.name, (0.0, 0))[1]
        pause = min(AGAIN_S[0] * 2 ** min(tries, 10), AGAIN_S[1])
        self._again[path.name] = time.monotonic() + pause, tries + 1
        self._errors[path.name] = reason
        if tries == 0:
            log().error("a call cannot be sealed yet", file=path.name, reason=reason, again_in_s=pause)

    def _set_aside(self, path: Path, reason: str) -> None:
        """Keep a file that cannot be sealed, or not all of it, where it is in nobody's way."""
        try:
            self._aside.mkdir(mode=0o700, exist_ok=True)
            path.replace(self._aside / path.name)
        except OSError as error:
            self._later(path, f"{reason}; nor can it be set aside: {error}")
            return
        if self._desk is not None:
            self._desk.give_up(path, "its spool file cannot be read")
        self._forget(path)
        self._failed = True
        log().error("a spool file cannot be sealed", file=path.name, reason=reason, kept_in=str(self._aside))
        state.append(self.folder, "not sealed", file=path.name, reason=reason)

    def _forget(self, path: Path) -> None:
        """A file is done with."""
        self._again.pop(path.name, None)
        self._errors.pop(path.name, None)
        self._late.pop(path.name, None)

    def _look_at_failures(self) -> None:
        """Have an alarm while anything is not sealed."""
        kept = _spooled(self._aside)
        if self._errors:
            reason = next(reversed(self._errors.values()))
            text = (
                f"{len(self._errors)} calls cannot be sealed yet: {reason}; they stay in the spool and are tried again"
            )
            self._alarms.raise_("SEAL_FAILED", text, "critical")
        elif kept:
            text = f"{kept} spool files could not be sealed whole and are kept in {self._aside}: see the event log"
            self._alarms.raise_("SEAL_FAILED", text, "critical")
        else:
            self._alarms.clear("SEAL_FAILED")

    # -- what it says --------------------------------------------------------------------------------------------------

    def _report(self, ended: bool = False) -> None:
        self._reported = time.monotonic()
        if self._desk is not None:
            with suppress(OSError):  # a recording that cannot be logged says so; these come again
                self._desk.look(self._sealer.account.packet_totals(), ended)
        waiting = _spooled(self._done)
        self._look_at_failures()
        self._encrypted.look(self._now())
        if waiting > BEHIND:
            self._alarms.raise_("SPOOL_BEHIND", f"{waiting} calls wait to be sealed")
        else:
            self._alarms.clear("SPOOL_BEHIND")
        account = self._sealer.account
        report = {
            "waiting": waiting,
            "calls": account.call_totals(),
            "packets": account.packet_totals(),
            "packet_kinds": account.packet_kinds(),
            "last": self._last,
            "poor_quality": self._poor,
            **(self._desk.report(waiting) if self._desk else {"unsigned": 0}),
            "alarms": self._alarms.active,
        }
        state.write(self.folder, "seal", report)
        notify.watchdog()


def _spooled(folder: Path) -> int:
    """Count the spool files in a folder."""
    try:
        with os.scandir(folder) as entries:
            return sum(1 for entry in entries if entry.name.endswith(".pcapng"))
    except FileNotFoundError:
        return 0


def _quality(recording: Recording) -> str:
    """Return length, codec, and the loss and jitter of each side."""
    sides = recording.plan.sides
    parts = [f"{round(recording.duration_s)} s", recording.codec]
    for party in Party:
        figures = sides[party].figures
        if figures.received:
            parts.append(f"{party.value} loss {figures.loss_percent:.1f}% jitter {figures.jitter_ms:.0f} ms")
    return ", ".join(part for part in parts if part)
