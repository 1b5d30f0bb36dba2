"""The programs that the alarms stage runs for others: for each change of an alarm, and for each finished recording.

Each has a thread of its own. A program that hangs or fails is tried again, then given up; it holds up nothing but what
comes after it for the same program.
"""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..storage import hook, state
from ..storage.alarm_desk import FOLDER, Desk
from ..storage.atomic import replace_file
from ..storage.event_cursor import Cursor, at_end, follow
from .background import Background
from .logs import log

FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0
FORGET_S = 3600.0
"""Seconds after the last failure from which on it is no alarm any more."""
ALARM_HOOK, RECORDING_HOOK = "alarms.hook", "alarms.recording_hook"

_IDLE_S = 1.0
_SAVE_EVERY = 200


@dataclass(frozen=True, slots=True)
class Program:
    """What is run, for how long at most, and how often for the same event. `setting` names it in messages."""

    setting: str
    command: tuple[str, ...]
    limit_s: float
    tries: int


def pause(tries: int) -> float:
    """Return the seconds before the next try, after so many."""
    return min(FIRST_PAUSE_S * 2.0 ** min(tries - 1, 16), LONGEST_PAUSE_S)


def attempt(program: Program, event: Mapping[str, Any]) -> str:
    """Run the program once, put what it prints into our log, and return what went wrong; empty if nothing did."""
    ran = hook.run(program.command, event, program.limit_s)
    facts = {"hook": program.setting, "seconds": round(ran.seconds, 2), "output": " | ".join(ran.output)}
    if ran.error:
        log().error("a hook failed", reason=ran.error, **facts)
    else:
        log().info("a hook ran", **facts)
    return ran.error


def give_up(folder: Path, program: Program, event: Mapping[str, Any], reason: str) -> None:
    """Say that nobody will be told of this event any more."""
    state.append(folder, "hook given up", hook=program.setting, id=event.get("id"), tries=program.tries, reason=reason)


@dataclass(slots=True)
class AlarmHook:
    """Runs the alarm hook for the calls of a desk, in their order. Belongs to the stage's thread."""

    folder: Path
    trouble: str = ""
    failed: float = 0.0
    _work: Background[tuple[str, str]] = field(default_factory=lambda: Background("alarm-hook"))
    _due: float = 0.0

    def step(self, desk: Desk, program: Program, now: float) -> None:
        """Start the program for the next call, once it is collected what has become of the one before."""
        if not program.command:
            desk.calls.clear()
        elif desk.calls and not self._work.busy and not now < self._due <= now + LONGEST_PAUSE_S:
            event = desk.calls[0]["event"]
            self._work.start(partial(_attempt, program, event))

    def try_again(self) -> None:
        """Something has changed: it is not known any more to fail."""
        self.trouble, self._due = "", 0.0

    def wait(self, patience_s: float) -> None:
        """Give a program that runs time to end: it would be run again otherwise."""
        self._work.wait(patience_s)

    def collect(self, desk: Desk, program: Program, now: float) -> None:
        """Take the result of the program that runs, if there is one by now."""
        for key, error in self._work.take():
            self._ended(desk, program, key, error, now)

    def _ended(self, desk: Desk, program: Program, key: str, error: str, now: float) -> None:
        if not desk.calls or _key(desk.calls[0]["event"]) != key:
            return  # there was no room for it any more
        first = desk.calls[0]
        if not error:
            self.trouble, self._due = "", 0.0
            del desk.calls[0]
            return
        first["tries"] += 1
        self.trouble, self.failed, self._due = error, now, now + pause(first["tries"])
        if first["tries"] >= program.tries:
            give_up(self.folder, program, first["event"], error)
            del desk.calls[0]


def _attempt(program: Program, event: Mapping[str, Any]) -> tuple[str, str]:
    return _key(event), attempt(program, event)


def _key(event: Mapping[str, Any]) -> str:
    return json.dumps([event.get("event"), event.get("id"), event.get("time")])


class RecordingHook(threading.Thread):
    """Runs the recording hook for each recording that the event log tells of, at least once, in their order.

    It begins with what comes after the moment in which it was configured for the first time. Where it is in the log is
    written down after each recording.
    """

    def __init__(self, state_folder: Path, recordings: Path, program: Program) -> None:
        super().__init__(name="recording-hook", daemon=True)
        self.trouble, self.failed, self.told = "", 0.0, 0
        self._folder, self._recordings, self._program = state_folder, recordings.absolute(), program
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Have it end soon: after the program that runs, if one does."""
        self._stopped.set()

    def run(self) -> None:
        """Go on until it is stopped."""
        cursor = load_cursor(self._folder)
        if cursor is None:
            cursor = at_end(self._folder)
            self._save(cursor)
        while not self._stopped.is_set():
            try:
                cursor = self._go_on(cursor)
            except OSError as error:
                self._fail(f"{error.filename}: {error.strerror}")
            self._stopped.wait(_IDLE_S)

    def _go_on(self, cursor: Cursor) -> Cursor:
        """Take what is new in the log; return how far it got. Raises OSError."""
        unsaved = 0
        for event, behind in follow(self._folder, cursor):
            if self._stopped.is_set():
                break
            told = event.get("event") == "call" and event.get("outcome") == "recorded"
            if told and not self._tell(event):
                break
            cursor, unsaved = behind, unsaved + 1
            if told or unsaved >= _SAVE_EVERY:
                self._save(cursor)
                unsaved = 0
        if unsaved:
            self._save(cursor)
        return cursor

    def _tell(self, event: Mapping[str, Any]) -> bool:
        """Run the program for one recording; False if it is to be done the next time we are started."""
        shown = finished(event, self._recordings)
        for tries in range(1, self._program.tries + 1):
            error = attempt(self._program, shown)
            if not error:
                self.trouble = ""
                self.told += 1
                return True
            self._fail(error)
            if tries < self._program.tries and self._stopped.wait(pause(tries)):
                return False
        give_up(self._folder, self._program, shown, self.trouble)
        return True

    def _fail(self, reason: str) -> None:
        self.trouble, self.failed = reason, time.time()

    def _save(self, cursor: Cursor) -> None:
        try:
            replace_file(_cursor_file(self._folder), json.dumps(cursor).encode())
        except OSError as error:
            self._fail(f"{error.filename}: {error.strerror}: recordings may be told of twice")


def finished(event: Mapping[str, Any], recordings: Path) -> dict[str, Any]:
    """Return what the recording hook is given for an event `call` of the log."""
    names = ("id", "call_id", "caller", "callee", "direction", "started", "ended", "duration_s", "codec")
    files = event.get("files")
    paths = [str(recordings / str(name)) for name in files] if isinstance(files, list) else []
    return {"event": "recording finished", **{name: event.get(name) for name in names}, "files": paths}


def load_cursor(state_folder: Path) -> Cursor | None:
    """Return how far the recording hook has got; None if it has never begun."""
    try:
        content = json.loads(_cursor_file(state_folder).read_bytes())
        return {str(name): int(place) for name, place in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def forget_cursor(state_folder: Path) -> None:
    """The recording hook is no longer configured: what comes until it is again is not for it. Raises OSError."""
    _cursor_file(state_folder).unlink(missing_ok=True)


def _cursor_file(state_folder: Path) -> Path:
    return state_folder / FOLDER / "recordings.json"
