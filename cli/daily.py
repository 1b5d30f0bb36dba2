"""A command once a day, at a time of day: the self-test of a running box.

Local days are counted, not hours: where the clock is set forward over the moment it comes a little later, where it is
set back it comes once.
"""

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from datetime import time as TimeOfDay
from pathlib import Path

from ..storage import state

DAY_S = 86_400.0
GRACE_S = 30.0
"""What the command gets to tidy up when it is stopped, in seconds."""

Spawn = Callable[[tuple[str, ...]], "subprocess.Popen[bytes]"]


@dataclass(slots=True)
class Daily:
    """Starts `command` when its time has come, and looks whether it leaves a result: `<folder>/<name>.json`.

    `at` is a local time, None for never. Where the last result is older than a day, as after a night in which the box
    was off, it is started `first_after_s` seconds after the beginning too.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    at: TimeOfDay | None
    now: Callable[[], datetime]
    first_after_s: float = 60.0
    trouble: str = ""
    _at: TimeOfDay | None = None
    _done: date | None = None
    _first: float | None = field(init=False)
    _process: "subprocess.Popen[bytes] | None" = None
    _ended: float = 0.0

    def __post_init__(self) -> None:
        self._first = time.monotonic() + self.first_after_s
        self._set(self.now())

    def look(self, spawn: Spawn) -> None:
        """Start the command if it is due; see what has become of it. `trouble` says what is wrong, if anything is."""
        if self._process is not None:
            self._reap()
        elif self._is_due():
            try:
                self._process = spawn(self.command)
            except (OSError, subprocess.SubprocessError) as error:
                self._fail(f"cannot be started: {error}")
        elif self.trouble and self._last() > self._ended:
            self.trouble = ""  # somebody has run it by hand

    def stop(self) -> None:
        """End the command if it runs."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process = None

    def _is_due(self) -> bool:
        now = self.now()
        if self.at != self._at:
            self._set(now)
        if self.at is None:
            return False
        if self._first is not None and time.monotonic() >= self._first:
            self._first = None
            return not 0 <= time.time() - self._last() < DAY_S
        if now.date() == self._done or now.time() < self.at:
            return False
        self._done = now.date()
        return True

    def _set(self, now: datetime) -> None:
        """Take the time that is set; where it is over for today, the next one is tomorrow's."""
        self._at = self.at
        self._done = now.date() if self.at is not None and now.time() >= self.at else None

    def _last(self) -> float:
        """Return when the last result was written, in seconds since the epoch; 0 if there is none."""
        updated = (state.read(self.folder, self.name) or {}).get("updated")
        return float(updated) if isinstance(updated, (int, float)) else 0.0

    def _reap(self) -> None:
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            return
        report = state.read(self.folder, self.name) or {}
        if report.get("pid") == self._process.pid:
            self.trouble = ""
        else:
            self._fail(f"ended with exit code {code} and no result" if code >= 0 else f"was ended by signal {-code}")
        self._process = None

    def _fail(self, how: str) -> None:
        self._ended = time.time()
        self.trouble = f"the daily {self.name} {how}: run `tapdeck {self.name}` by hand, which says what is wrong"
