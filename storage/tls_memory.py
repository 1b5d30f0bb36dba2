"""What capture has to know of running TLS connections after a restart, on disk: a file beside those of running calls.

There is no secret in it (`sniffer.tls.memory`).
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .atomic import replace_file
from .spool import RESUME

NAME = "tls.json"
FORMAT = 1
MODE = 0o640
MOST = 64 << 20


def save(spool: Path, sessions: Sequence[dict[str, Any]]) -> bool:
    """Replace what is remembered; without sessions there is no file. Returns False if it could not be written."""
    path = spool / RESUME / NAME
    content = json.dumps({"format": FORMAT, "sessions": list(sessions)}, separators=(",", ":")).encode()
    try:
        if sessions:
            replace_file(path, content, MODE)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def load(spool: Path) -> list[dict[str, Any]]:
    """Return what an earlier run remembered; nothing where that cannot be read."""
    told: Any = None
    with suppress(OSError, ValueError, RecursionError), (spool / RESUME / NAME).open("rb") as file:
        told = json.loads(file.read(MOST))
    if not isinstance(told, dict) or told.get("format") != FORMAT or not isinstance(told.get("sessions"), list):
        return []
    return [one for one in told["sessions"] if isinstance(one, dict)]
