"""What happens to calls, a line each: on a terminal, as text or JSON in a pipe, in the journal of a service."""

import json
import os
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from ..storage.safe_text import for_json, for_terminal

_COLOURS = {
    "ringing": "cyan",
    "answered": "green",
    "ended": "blue",
    "recorded": "bold green",
    "not recorded": "yellow",
    "failed": "bold red",
}


@dataclass(frozen=True, slots=True)
class CallEvent:
    """One event: `kind` is a key of the colours above, `detail` is said behind the parties, `facts` only in JSON."""

    kind: str
    time: datetime
    id: str
    caller: str
    callee: str
    direction: str
    detail: str = ""
    facts: dict[str, Any] | None = None


class EventPrinter:
    """Prints call events to standard output. A reader that has gone stops nothing."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._journal = "JOURNAL_STREAM" in os.environ and not as_json
        self._terminal = sys.stdout.isatty() and not as_json

    def show(self, event: CallEvent) -> None:
        """Print one event."""
        if self._journal:
            self._log(event)
            return
        try:
            if self._terminal:
                _rich_line(event)
            else:
                click.echo(as_json(event) if self._json else line(event))
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    @staticmethod
    def _log(event: CallEvent) -> None:
        from .logs import log

        log().info(
            event.kind,
            id=event.id,
            caller=event.caller,
            callee=event.callee,
            direction=event.direction,
            detail=event.detail,
        )


def line(event: CallEvent) -> str:
    """Return `14:03:05  ringing   2001 -> 2002  in  detail`."""
    return f"{event.time:%H:%M:%S}  {event.kind:<12}  {_rest(event)}".rstrip()


def as_json(event: CallEvent) -> str:
    """Return one line of JSON; `time` is ISO 8601 with offset."""
    shown = {
        "event": event.kind,
        "time": event.time.isoformat(timespec="milliseconds"),
        "id": event.id,
        "caller": event.caller,
        "callee": event.callee,
        "direction": event.direction,
        "detail": event.detail,
        **(event.facts or {}),
    }
    return json.dumps(for_json(shown), ensure_ascii=False)


def _rest(event: CallEvent) -> str:
    parties = f"{for_terminal(event.caller) or '?'} -> {for_terminal(event.callee) or '?'}"
    return f"{parties:<40}  {event.direction:<8}  {for_terminal(event.detail, 300)}"


def _rich_line(event: CallEvent) -> None:
    from rich.console import Console
    from rich.text import Text

    text = Text(f"{event.time:%H:%M:%S}  ")
    text.append(f"{event.kind:<12}", style=_COLOURS.get(event.kind, ""))
    text.append(f"  {_rest(event)}")
    Console().print(text, no_wrap=True, overflow="ellipsis", crop=True)
