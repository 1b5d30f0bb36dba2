"""A place in the event log that outlives a restart: what was written behind it has not been looked at yet.

The log has a file for each day, and at midnight, or when the clock is set, the stages may write to two of them for a
moment. So a cursor knows a place in each of the last few files.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .state import event_of

Cursor = dict[str, int]
"""Name of a log file -> bytes of it that were looked at. What is older than the oldest of them has been, all of it."""

_KEPT = 3
_MAX_LINE = 1 << 20


def at_end(folder: Path) -> Cursor:
    """Return the cursor behind everything that was ever written; `folder` is the state folder."""
    return {path.name: path.stat().st_size for path in _files(folder)[-_KEPT:]}


def follow(folder: Path, cursor: Cursor) -> Iterator[tuple[dict[str, Any], Cursor]]:
    """Yield each event behind the cursor, and the cursor behind that event. Ends where the log ends; a line that is
    only half written yet is left for the next time. Raises OSError.
    """
    oldest = min(cursor, default="")
    names = [path.name for path in _files(folder) if path.name >= oldest]
    places = {name: at for name, at in cursor.items() if name in names}
    for at, name in enumerate(names):
        for event, place in _read(folder / "log" / name, places.get(name, 0)):
            places[name] = place
            # Files further back are done with, save that a stage may still write to them.
            yield event, {one: places[one] for one in names[max(at + 1 - _KEPT, 0) :] if one in places}


def _read(path: Path, start: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each whole line's event with the place behind it."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        place = min(start, path.stat().st_size)  # a file that somebody has cut is not read again
        file.seek(place)
        while line := file.readline(_MAX_LINE):
            if not line.endswith(b"\n") and len(line) < _MAX_LINE:
                return
            place += len(line)
            if event := event_of(line):
                yield event, place


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "log").glob("[0-9]*.jsonl"))
