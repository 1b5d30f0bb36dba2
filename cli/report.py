"""What a run says of its calls and packets: a line a call, tables at the end, or JSON. All text from the wire is made
safe here.
"""

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

import click

from ..storage.safe_text import for_json, for_terminal

MAX_TABLE = 500
"""Calls listed in the table at the end; each has had its line before, and a long run must not fill the memory."""

_NARROWEST_PARTY, _PARTY = 8, 18


@dataclass(frozen=True, slots=True)
class CallLine:
    """One call as the terminal shows it. `outcome` is one of the call account's, as `recorded`; `reason` why the call
    ended.
    """

    id: str
    start: datetime
    caller: str
    callee: str
    direction: str = "unknown"
    duration_s: float = 0.0
    codec: str = ""
    outcome: str = "recorded"
    reason: str = ""
    call_id: str = ""
    caller_name: str = ""
    callee_name: str = ""
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """The accounts of a run. In `packets` and `calls` the entry `seen` equals the sum of the others, or something was
    lost.
    """

    packets: dict[str, int] = field(default_factory=dict)
    packet_kinds: dict[str, dict[str, int]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def unaccounted(self) -> dict[str, int]:
        """What was seen less what became of it: zero twice, or the books are wrong."""
        return {"packets": gap(self.packets), "calls": gap(self.calls)}


class Reporter:
    """Prints calls as they end and the accounts at the end, to standard output: as text, with colour on a terminal,
    or JSON.
    """

    def __init__(self, as_json: bool = False) -> None:
        self._json = as_json
        self._calls: list[CallLine] = []
        self._more = 0

    def call(self, call: CallLine) -> None:
        """Print one call."""
        if self._json:
            _say(call_json(call))
            return
        _say(call_line(call, _width()))
        if len(self._calls) < MAX_TABLE:
            self._calls.append(call)
        else:
            self._more += 1

    def finish(self, summary: Summary) -> None:
        """Print the accounts."""
        if self._json:
            _say(summary_json(summary))
            return
        table = _rich_table if sys.stdout.isatty() else _plain_table
        if self._calls:
            narrow = (_width() or _WIDE) < _WIDE
            heads = [head for head in _CALL_CELLS if not (narrow and head in _ONLY_WHEN_WIDE)]
            table("Calls", heads, [tuple(_CALL_CELLS[head](call) for head in heads) for call in self._calls])
            if self._more:
                _say(f"and {self._more} more calls, listed above")
        table("Packets", _ACCOUNT_HEADS, _account_rows(summary.packets, summary.packet_kinds))
        table("Calls by outcome", _ACCOUNT_HEADS[:2], [row[:2] for row in _account_rows(summary.calls, {})])
        for kind, texts in (("damaged", summary.damaged), ("warning", summary.warnings)):
            for text in texts:
                _say(f"{kind}: {for_terminal(text, 500)}")


def call_line(call: CallLine, width: int | None = None) -> str:
    """Return a call as one line, `14:03:05  +31201234567 -> 2002  in  0:02:13  PCMA  BYE by caller  ok`.

    With a `width`, in columns of a terminal, it is cut to fit; without one nothing is cut.
    """
    cut = width is not None
    with_reason = width is None or width >= 100
    party = _PARTY if width is None else min(max((width - (76 if with_reason else 56)) // 2, _NARROWEST_PARTY), _PARTY)
    cells = [
        f"{call.start:%H:%M:%S}",
        f"{fit(for_terminal(call.caller), party, cut)} -> {fit(for_terminal(call.callee), party, cut)}",
        fit(for_terminal(call.direction), 8, cut),
        f"{_duration(call.duration_s):>7}",
        fit(for_terminal(call.codec), 6, cut),
        fit(for_terminal(call.reason), 18, cut) if with_reason else "",
        _outcome(call.outcome),
        *map(for_terminal, call.notes),
    ]
    line = "  ".join(cell for cell in cells if cell).rstrip()
    return line if width is None else fit(line, width).rstrip()


def call_json(call: CallLine) -> str:
    """Return a call as one line of JSON; `start` is ISO 8601 with offset."""
    shown = {field.name: getattr(call, field.name) for field in fields(call)}
    return _json({**shown, "start": call.start.isoformat(timespec="milliseconds")})


def summary_json(summary: Summary) -> str:
    """Return the accounts as one line of JSON, `{"summary": {...}}`."""
    return _json({"summary": {**asdict(summary), "unaccounted": summary.unaccounted}})


_RIGHT = ("count", "duration")
_ACCOUNT_HEADS = ("", "count", "kinds")


def _account_rows(account: dict[str, int], kinds: dict[str, dict[str, int]]) -> list[tuple[str, ...]]:
    """One row an entry that is not zero, the sum below them, and a last row for what the sum lacks."""
    rows: list[tuple[str, ...]] = [
        (name.replace("_", " "), f"{count:,}", ", ".join(f"{kind} {n:,}" for kind, n in kinds.get(name, {}).items()))
        for name, count in account.items()
        if name != "seen" and count
    ]
    rows.append(("seen", f"{account.get('seen', 0):,}", ""))
    if gap(account):
        rows.append(("UNACCOUNTED", f"{gap(account):,}", "a mistake in Tapdeck: please report it"))
    return rows


def _plain_table(title: str, heads: Sequence[str], rows: list[tuple[str, ...]]) -> None:
    safe = [tuple(for_terminal(cell, 500) for cell in row) for row in [tuple(heads), *rows]]
    widths = [max(columns(cell) for cell in column) for column in zip(*safe, strict=True)]
    _say(f"\n{title}")
    right = [head in _RIGHT for head in heads]
    for row in safe:
        cells = (fit(cell, width, right=side) for cell, width, side in zip(row, widths, right, strict=True))
        _say(("  " + "  ".join(cells)).rstrip())


def _rich_table(title: str, heads: Sequence[str], rows: list[tuple[str, ...]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=SIMPLE_HEAD)
    for head in heads:
        side: Literal["left", "right"] = "right" if head in _RIGHT else "left"
        table.add_column(head, justify=side, overflow="fold", no_wrap=head in ("start", "duration"))
    for row in rows:
        table.add_row(*(Text(for_terminal(cell, 500)) for cell in row))  # Text: square brackets are no markup in it
    Console().print(table)


def _say(text: str) -> None:
    """Print a line. When the reader has gone, as `head` does, recording goes on without it."""
    try:
        click.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _json(value: dict[str, Any]) -> str:
    return json.dumps(for_json(value), ensure_ascii=False)


def gap(account: dict[str, int]) -> int:
    """Return how many of what was seen stand in no other entry: 0 where the account adds up."""
    return 2 * account.get("seen", 0) - sum(account.values())


def _outcome(outcome: str) -> str:
    return "ok" if outcome == "recorded" else for_terminal(outcome.replace("_", " "))


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def fit(text: str, width: int, cut: bool = True, right: bool = False) -> str:
    """Pad to `width` columns of a terminal, and cut what is longer."""
    if cut and columns(text) > width:
        while text and columns(text) > width - 1:
            text = text[:-1]
        text += "…"
    room = " " * (width - columns(text))
    return room + text if right else text + room


def columns(text: str) -> int:
    """How many columns a terminal gives `text`: two to a wide character, none to a combining one."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


_CALL_CELLS: dict[str, Callable[[CallLine], str]] = {
    "start": lambda call: f"{call.start:%m-%d %H:%M:%S}",
    "caller": lambda call: call.caller,
    "callee": lambda call: call.callee,
    "direction": lambda call: call.direction,
    "duration": lambda call: _duration(call.duration_s),
    "codec": lambda call: call.codec,
    "ended": lambda call: call.reason,
    "outcome": lambda call: _outcome(call.outcome),
    "id": lambda call: call.id,
}
_ONLY_WHEN_WIDE = ("direction", "id")
_WIDE = 110
