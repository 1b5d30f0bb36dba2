"""The log of the service: lines of `key=value`, or JSON, to standard error, whence systemd takes them to the journal.

The journal knows the time and gets the level by its prefix (sd-daemon(3)); elsewhere both are in the line. All values
are made safe, for they may be a stranger's. structlog costs a tenth of a second to import: only services do.
"""

import json
import logging
import os
import sys
from collections.abc import MutableMapping
from datetime import datetime
from typing import Any, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger

from ..storage.safe_text import for_json, for_line

_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def set_up(level: str = "info", as_json: bool = False, stream: TextIO | None = None) -> FilteringBoundLogger:
    """Direct the log to `stream`, standard error by default, from `level` on; return its logger."""
    output = stream or sys.stderr
    to_journal = _is_journal(output)
    steps = [] if to_journal else [_add_time]
    structlog.configure(
        processors=[
            *steps,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _render_json if as_json else _Plain(to_journal),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: _Lines(output),
        cache_logger_on_first_use=False,
    )
    return log()


def log() -> FilteringBoundLogger:
    """Return the one logger: `log().warning("stage died", stage="capture")`."""
    if not structlog.is_configured():
        return set_up()
    return cast(FilteringBoundLogger, structlog.get_logger())


class _Lines:
    """Writes finished lines. A log that nobody takes any more must not end a recording."""

    def __init__(self, output: TextIO) -> None:
        self._output = output

    def msg(self, line: str) -> None:
        try:
            self._output.write(line + "\n")
            self._output.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = msg


class _Plain:
    """`2026-11-24T10:00:00+01:00 warning stage died stage=capture exit=9`."""

    def __init__(self, to_journal: bool) -> None:
        self._to_journal = to_journal

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        time, level, what = event.pop("time", ""), event.pop("level"), for_line(str(event.pop("event")))
        facts = " ".join(f"{for_line(key)}={_value(value)}" for key, value in event.items())
        if self._to_journal:
            return f"<{_PRIORITY[level]}>{what} {facts}".rstrip()
        return f"{time} {level} {what} {facts}".rstrip()


def _render_json(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    first = {key: event.pop(key) for key in ("time", "level", "event") if key in event}
    return json.dumps(for_json({**first, **event}), ensure_ascii=False)


def _value(value: Any) -> str:
    """A text that could be taken for more than one value is quoted."""
    if not isinstance(value, str):
        return json.dumps(for_json(value), ensure_ascii=False)
    text = for_line(value)
    return text if text and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False)


def _add_time(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["time"] = datetime.now().astimezone().isoformat(timespec="seconds")
    return event


def _is_journal(output: TextIO) -> bool:
    """Whether this very stream goes to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        about = os.fstat(output.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{about.st_dev}:{about.st_ino}"
