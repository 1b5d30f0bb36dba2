"""The end of each day in the seal stage: the checkpoint is made, and time-stamped without sealing waiting for that."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from ..storage import state
from ..storage.day_close import DayClose, Folders
from ..storage.day_watch import DayWatch
from ..storage.signing import Signing
from ..storage.timestamp import Stamp, StampError, fetch
from .logs import log
from .settings import Settings

SETTLE_S = 30.0
"""How long after its start the stage waits with days that were missed: capture then says how long it was down."""
AGAIN_S = 60.0
STAMP_AGAIN_S = 3600.0


@dataclass(slots=True)
class Days:
    """Closes the days. Make a new one for another recording log only."""

    settings: Settings
    alarms: state.Alarms
    signing: Signing
    _close: DayClose = field(init=False)
    _stamper: "Stamper" = field(init=False)
    _again: float = field(init=False, default=0.0)
    _begun: float = field(init=False)
    _began: int = field(init=False)

    def __post_init__(self) -> None:
        self._begun, self._began = time.monotonic(), time.time_ns()
        folder = Path(self.settings.storage.state)
        watch = DayWatch(self.signing.ledger, folder, self.settings.zone())
        self._close = self._closer(watch)
        self._stamper = Stamper(self.settings.signing.timestamp_url)

    def reload(self, settings: Settings, signing: Signing) -> None:
        """Take new settings."""
        self.settings, self.signing = settings, signing
        self._close.watch.zone = settings.zone()
        self._close = self._closer(self._close.watch)
        self._stamper.turn_to(settings.signing.timestamp_url)
        if not settings.signing.timestamp_url:
            self.alarms.clear("TIMESTAMP_FAILED")

    def look(self, media: Mapping[str, int], ended: bool = False) -> None:
        """Look at the counters of the stages; `media` are those of this stage. Raises OSError."""
        self._close.watch.look(media, ended)

    def tick(self, note_events: Callable[[], None], settle: float = SETTLE_S) -> None:
        """Close a day that is over, and see to its time stamp. Raises KeyLocked."""
        moment = time.monotonic()
        if moment >= self._again:
            try:
                while (day := self._due(moment, settle)) is not None:
                    note_events()
                    self._closed(day, self._close.close(day))
                self.alarms.clear("CHECKPOINT_FAILED")
            except OSError as error:
                self._again = moment + AGAIN_S
                self.alarms.raise_("CHECKPOINT_FAILED", f"the checkpoint of a day cannot be made: {error}")
        self._stamp()

    def _closer(self, watch: DayWatch) -> DayClose:
        storage, folders = self.settings.storage, Folders(self.settings.recording.folder_template)
        name = self.settings.recording.instance or os.uname().nodename
        return DayClose(self.signing, watch, Path(storage.recordings), Path(storage.state), folders, name)

    def _due(self, moment: float, settle: float) -> date | None:
        """Return a day to close. One that was over before this process began has time until capture has spoken."""
        day = self._close.due(time.time_ns())
        if day is None or moment - self._begun >= settle:
            return day
        return day if self._close.zone.end_of(day) >= self._began else None

    def _closed(self, day: date, path: Path) -> None:
        state.append(Path(self.settings.storage.state), "day closed", day=day.isoformat())
        log().info("the checkpoint of a day is made", day=day.isoformat(), file=path.name)

    def _stamp(self) -> None:
        """Take the time stamp that has come, and ask for the next."""
        try:
            answer = self._stamper.answer()
            if answer is not None:
                day, stamp = answer
                self._close.keep(day, stamp)
                self.alarms.clear("TIMESTAMP_FAILED")
                log().info("a checkpoint is time-stamped", day=day.isoformat(), time=stamp.time.isoformat())
            if self._stamper.is_free():
                wanted = self._close.unstamped(time.time_ns())
                if wanted is not None:
                    self._stamper.ask(*wanted)
                else:
                    self._stamper.rest()
        except (StampError, OSError) as error:
            self._stamper.fail()
            text = f"no time stamp for the checkpoint of a day: {error}; asked for again in an hour"
            self.alarms.raise_("TIMESTAMP_FAILED", text)


class Stamper:
    """Asks for one time stamp at a time, in a thread of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._thread: threading.Thread | None = None
        self._result: tuple[date, Stamp] | StampError | None = None
        self._again = 0.0

    def turn_to(self, url: str) -> None:
        """Ask another authority from now on, and at once."""
        self._url, self._again = url, 0.0

    def is_free(self) -> bool:
        """Whether the next may be asked for."""
        return bool(self._url) and self._thread is None and time.monotonic() >= self._again

    def rest(self) -> None:
        """There is nothing to ask for: look again in a while."""
        self._again = time.monotonic() + AGAIN_S

    def fail(self) -> None:
        """It did not work: not again before an hour is over."""
        self._again = time.monotonic() + STAMP_AGAIN_S

    def ask(self, day: date, content: bytes) -> None:
        """Ask for a time stamp over the checkpoint of a day."""
        self._thread = threading.Thread(target=self._run, args=(self._url, day, content), daemon=True)
        self._thread.start()

    def answer(self) -> tuple[date, Stamp] | None:
        """Return the time stamp that has come. Raises StampError if there will be none."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread, result, self._result = None, self._result, None
        if isinstance(result, StampError):
            raise result
        return result

    def _run(self, url: str, day: date, content: bytes) -> None:
        try:
            self._result = day, fetch(url, content)
        except StampError as error:
            self._result = error
        except Exception as error:  # noqa: BLE001 - a thread that dies would say nothing
            self._result = StampError(f"a mistake in Tapdeck; please report it: {type(error).__name__}: {error}")
