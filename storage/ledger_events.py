"""From the event log of the stages to the recording log: downtimes, new configurations, stops, calls that were
refused, and recordings that made room. Names, numbers and paths stay behind.

How far was read is a text for the recording log's `marks`, so that each event becomes an entry once: file name ->
offset, of the newest files. An event is written to the log of its day, a moment after midnight perhaps to the one
before.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from .ledger import New

MARK = "events"
"""Name of the mark in the recording log."""

LIMIT = 5000
"""Events taken at one time."""
_FILES = 3
_MAX_LINE = 1 << 20
_STOPS = ("capture stopped", "seal stopped", "deliver stopped", "run stopped")
_CONFIGURATIONS = ("configuration reloaded", "deliver reloaded", "reload")
_REFUSED = ("without_media", "encrypted", "refused", "failed")
_DOWNTIME = ("from", "to", "clean", "unclaimed_lost")
_ID = re.compile(r"[a-z]{1,32}")


def new_entries(folder: Path, mark: str) -> tuple[list[New], str]:
    """Return the entries for what was written to the event log below `folder` since the mark, at most LIMIT events of
    it, and the mark behind them. Raises OSError.
    """
    offsets = _offsets(mark)
    paths = sorted((folder / "log").glob("*.jsonl"))
    oldest = min(offsets, default="")
    entries: list[New] = []
    left = LIMIT
    for path in paths:
        if path.name < oldest:
            continue
        for line, end in _lines(path, offsets.get(path.name, 0)):
            if not left:
                break
            left -= 1
            offsets[path.name] = end
            entries += _entry(line)
    kept = sorted(offsets)[-_FILES:]
    return entries, json.dumps({name: offsets[name] for name in kept})


def _lines(path: Path, offset: int) -> Iterator[tuple[bytes, int]]:
    """Yield each whole line from `offset` on, and where it ends."""
    with path.open("rb") as file:
        file.seek(offset)
        while line := file.readline(_MAX_LINE):
            if not line.endswith(b"\n") and len(line) < _MAX_LINE:
                return  # it is being written
            yield line, file.tell()


def _entry(line: bytes) -> list[New]:
    try:
        event = json.loads(line)
        datetime.fromisoformat(event["time"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    kind = event.get("event")
    if kind == "downtime":
        facts = {key: event[key] for key in _DOWNTIME if _plain(event.get(key))}
        return [New("downtime", facts=facts, time=event["time"])]
    if kind in _STOPS:
        return [New("stop", facts={"what": kind}, time=event["time"])]
    if kind in _CONFIGURATIONS:
        return [New("configuration", facts={"what": kind}, time=event["time"])]
    if kind == "call" and event.get("outcome") in _REFUSED:
        return [New("refusal", _id(event, "id"), facts={"outcome": event["outcome"]}, time=event["time"])]
    if kind == "recording removed":
        return [New("removal", _id(event, "id"), facts={"reason": "disk low"}, time=event["time"])]
    if kind == "not sealed":
        return [New("refusal", _id(event, "file"), facts={"outcome": "set aside"}, time=event["time"])]
    return []


def _id(event: Mapping[str, Any], key: str) -> str:
    """Return an id of ours, nothing if it is none: whatever else stands there is nobody's business."""
    found = str(event.get(key, "")).removesuffix(".pcapng")
    return found if _ID.fullmatch(found) else ""


def _plain(value: object) -> bool:
    """Whether it is a count, a yes or no, or a time."""
    if isinstance(value, (bool, int)):
        return True
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return True


def _offsets(mark: str) -> dict[str, int]:
    try:
        found = json.loads(mark or "{}")
    except ValueError:
        return {}
    return {str(name): int(offset) for name, offset in found.items()}
