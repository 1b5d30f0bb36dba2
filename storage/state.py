"""What each stage says of itself, for `tapdeck status`, metrics and the supervisor: JSON files, and a log of events.

    <folder>/capture.json          one stage's report, rewritten each second
    <folder>/log/2026-11-24.jsonl  events of all stages, one JSON object a line

Nothing here is worth a call: what cannot be written is left, and the writer told so by False. Text from the wire may be
in reports and events; `for_json` makes it safe.
"""

import errno
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from .atomic import exchange
from .safe_text import for_json

Severity = Literal["warning", "critical"]

FRESH_S = 10.0
"""Age from which on a report is no sign of life."""

FOLDER_MODE, FILE_MODE = 0o750, 0o640

_PAGE = 4096
_MAX_REPORT = 16 << 20
_TRIES = 3


def write(folder: Path, stage: str, report: Mapping[str, Any]) -> bool:
    """Replace the stage's report in one step; add `stage`, `pid` and `updated` (epoch seconds). One writer a stage.

    Two files take turns, and are filled up to whole pages, so that a disk that has filled up in the meantime does not
    silence a stage that is well. Returns False if it could not be written.
    """
    full = {**report, "stage": stage, "pid": os.getpid(), "updated": time.time()}
    content = json.dumps(for_json(full), ensure_ascii=False).encode()
    content += b" " * (-len(content) % _PAGE)
    spare, path = folder / f".{stage}.json.spare", folder / f"{stage}.json"
    try:
        _make_folder(folder)
        _fill(spare, content)
        exchange(spare, path)
    except OSError:
        return False
    return True


def read(folder: Path, stage: str) -> dict[str, Any] | None:
    """Return the stage's last report, None if there is none or it is unreadable."""
    for _ in range(_TRIES):
        try:
            with (folder / f"{stage}.json").open("rb") as file:
                report = json.loads(file.read(_MAX_REPORT))
        except (OSError, RecursionError):
            return None
        except ValueError:
            continue  # held up between open and read for so long that the file's turn to be written came again
        return report if isinstance(report, dict) else None
    return None


def alive(report: Mapping[str, Any] | None) -> bool:
    """Whether the process that wrote the report runs, and wrote it less than FRESH_S ago."""
    if report is None:
        return False
    pid, updated = report.get("pid"), report.get("updated")
    if not isinstance(pid, int) or not isinstance(updated, (int, float)):
        return False
    return abs(time.time() - updated) < FRESH_S and process_runs(pid)


def process_runs(pid: int) -> bool:
    """Whether a process runs, another user's too: /proc may hide those."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def append(folder: Path, event: str, /, **facts: Any) -> bool:
    """Add an event, with its time, to today's log. Returns False if it could not be written."""
    now = datetime.now().astimezone()
    line = {"time": now.isoformat(timespec="milliseconds"), "event": event, **facts}
    content = json.dumps(for_json(line), ensure_ascii=False) + "\n"
    try:
        log = folder / "log"
        _make_folder(folder)
        _make_folder(log)
        writers = log.stat().st_mode & stat.S_IWGRP
        descriptor = _open(log / f"{now:%Y-%m-%d}.jsonl", os.O_RDWR | os.O_APPEND, FILE_MODE | writers)
    except OSError:
        return False
    try:
        whole = (b"" if _ends_whole(descriptor) else b"\n") + content.encode()
        return os.write(descriptor, whole) == len(whole)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def events(folder: Path, since: datetime | None = None) -> Iterator[dict[str, Any]]:
    """Yield the events in the order in which they were written, those from `since` (with a zone) on. A line that was
    cut by a full disk is left out.
    """
    first = f"{since - timedelta(days=2):%Y-%m-%d}" if since else ""
    for path in sorted((folder / "log").glob("*.jsonl")):
        if path.stem < first:
            continue
        with path.open("rb") as file:
            for line in file:
                event = event_of(line)
                if event and (since is None or datetime.fromisoformat(event["time"]) >= since):
                    yield event


@dataclass(slots=True)
class Alarms:
    """A stage's alarms, one for each code and what it is about: a target's name, or nothing. Each change becomes an
    event, `alarm` or `alarm over`; a new text for one that is already raised does not.
    """

    folder: Path
    stage: str
    _active: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def raise_(self, code: str, text: str, severity: Severity = "warning", about: str = "") -> None:
        """Raise an alarm, or give one that is raised a new text. Codes are listed in docs/admin.md."""
        known = self._active.get((code, about))
        if known is not None and known["severity"] == severity:
            known["text"] = text
            return
        since = known["since"] if known else datetime.now().astimezone().isoformat(timespec="seconds")
        alarm = {"code": code, "about": about, "since": since, "severity": severity, "text": text}
        self._active[code, about] = alarm
        append(self.folder, "alarm", stage=self.stage, code=code, about=about, severity=severity, text=text)

    def clear(self, code: str, about: str = "") -> None:
        """End an alarm, if it is raised."""
        known = self._active.pop((code, about), None)
        if known is not None:
            facts = {"code": code, "about": about, "since": known["since"], "text": known["text"]}
            append(self.folder, "alarm over", stage=self.stage, **facts)

    def take_over(self) -> None:
        """Go on with the alarms of the stage's last report: for one that is not there all the time."""
        report = read(self.folder, self.stage) or {}
        known = report.get("alarms")
        for alarm in known if isinstance(known, list) else []:
            if isinstance(alarm, dict) and {"code", "since", "severity", "text"} <= alarm.keys():
                about = str(alarm.get("about", ""))
                self._active[str(alarm["code"]), about] = {**alarm, "about": about}

    @property
    def active(self) -> list[dict[str, Any]]:
        """Return what is raised, as the reports have it: `code`, `about`, `since`, `severity`, `text`."""
        return [dict(alarm) for alarm in self._active.values()]


def event_of(line: bytes) -> dict[str, Any] | None:
    """Return the event of a line of the log, None for one that is broken."""
    try:
        event = json.loads(line)
        zone = datetime.fromisoformat(event["time"]).tzinfo
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return event if zone else None


def _ends_whole(descriptor: int) -> bool:
    """Whether the log's last line has its end. One that a full disk has cut must not swallow the next."""
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def _fill(path: Path, content: bytes) -> None:
    """Write over what is there, without giving its blocks back."""
    descriptor = _open(path, os.O_WRONLY, FILE_MODE)
    try:
        if os.write(descriptor, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.ftruncate(descriptor, len(content))
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int, mode: int) -> int:
    """Open a file; if there is none, make it.

    Never O_CREAT alone: the kernel (fs.protected_regular) refuses that for another's file in a shared folder.
    """
    for _ in range(2):
        try:
            return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            pass
        try:
            made = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue  # another stage was faster
        os.fchmod(made, mode)
        return made
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _make_folder(folder: Path) -> None:
    """Make a folder that its group may read. One within a shared folder (set-group-ID) is shared in the same way."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    above = folder.parent.stat().st_mode
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    folder.chmod(stat.S_IMODE(above) if above & stat.S_ISGID else FOLDER_MODE)
