"""Signs of life: a file that is written anew, an address that is called. Whoever waits for them hears of it when they
stop, whatever has stopped: the recorder, its machine, its network.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .atomic import replace_file
from .safe_text import for_json, for_line

_MODE = 0o644
_MAX_FILE = 1 << 20
_AHEAD_S = 300.0
_PATIENCE_S = 20.0


class HeartbeatError(Exception):
    """A sign of life did not get through; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a file of signs of life says: `age_s` of the last one, None if there is none; `problem` is empty if it is
    young enough.
    """

    problem: str
    age_s: float | None = None
    content: Mapping[str, Any] | None = None


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the file in one step; everybody may read it. Raises HeartbeatError."""
    try:
        replace_file(path, _json(content) + b"\n", _MODE)
    except OSError as error:
        why = f"{error.strerror or error}: may the user of this stage write to its folder?"
        raise HeartbeatError(f"heartbeat.file: {path}: {why}") from None


def call(url: str, method: str, content: Mapping[str, Any]) -> None:
    """Call an address; any answer below 300 will do. Raises HeartbeatError."""
    request = urllib.request.Request(url, method=method, headers={"User-Agent": "tapdeck"})
    if method == "POST":
        request.data = _json(content)
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
            answer.read(1024)
    except urllib.error.HTTPError as error:
        raise HeartbeatError(
            f"heartbeat.url: the server answers {error.code} {for_line(str(error.reason), 100)}"
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        why = for_line(str(reason) or type(error).__name__, 200)
        raise HeartbeatError(f"heartbeat.url: {why}: does a firewall let this machine through?") from None


def look(path: Path, max_age_s: float, now: float | None = None) -> Fresh:
    """Say whether the last sign of life in a file is young enough. Its own time counts, not the file's, which a copy
    changes.
    """
    now = time.time() if now is None else now
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_FILE))
        beat = datetime.fromisoformat(content["time"]).timestamp()
    except FileNotFoundError:
        return Fresh("there is no such file: no sign of life has ever come")
    except OSError as error:
        return Fresh(f"it cannot be read: {error.strerror}")
    except (ValueError, TypeError, KeyError, RecursionError):
        return Fresh("it is no sign of life")
    age = now - beat
    if age > max_age_s:
        return Fresh(f"the last sign of life is {span(age)} old", age, content)
    if age < -_AHEAD_S:
        return Fresh(f"its time is {span(-age)} ahead of this machine's: one of the clocks is wrong", age, content)
    return Fresh("", age, content)


def span(seconds: float) -> str:
    """Return a time in words."""
    for name, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{max(seconds, 0):.0f} seconds"


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(for_json(content), ensure_ascii=False).encode()
