"""`tapdeck live`: the running calls of a running box."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..sip.dialog import Party
from ..sniffer.tracked import SECOND
from ..storage import state
from ..storage.localtime import Zone
from ..storage.running import CallNow, Running, SideNow
from ..storage.safe_text import for_json, for_terminal
from .config import load, with_options
from .exit_codes import ExitCode
from .tls_keys import TAIL, TlsKeys

if TYPE_CHECKING:
    from rich.table import Table

MOST = 200
"""Calls looked at in one round: each costs some milliseconds."""
RULE = "record all"
"""The rule that applies to every call, as long as there are no others."""
COLUMNS = ("since", "caller", "callee", "state", "length", "side", "codec", "loss", "level", "rule", "id")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a call, once.")
@click.option("--once", is_flag=True, help="Show the calls once, and end.")
@click.option("--every", "pause", default=1.0, show_default=True, type=click.FloatRange(0.2), help="Seconds a round.")
@with_options("storage", "recording", "sip")
def live(as_json: bool, once: bool, pause: float, config: Path | None, **options: Any) -> int:
    """Show the calls that run: who with whom since when, codec, loss and level of each side, and the rule that applies.

    Loss and level are those of the last seconds. What is shown is read from the spool: looking costs capture nothing.
    """
    settings = load(config, options)
    if not state.alive(state.read(Path(settings.storage.state), "capture")):
        click.echo(
            "no capture is running with this state folder: what is shown may be left from an earlier run", err=True
        )
    keys = TlsKeys(replace(settings, tls=replace(settings.tls, server_keys=())), TAIL)
    running = Running(Path(settings.storage.spool), frozenset(settings.sip.ports), keys.fresh)
    zone = settings.zone()
    if as_json:
        for one in _calls(running):
            click.echo(json.dumps(for_json(_facts(one, zone)), ensure_ascii=False))
    elif once or not sys.stdout.isatty():
        _plain(running, zone)
    else:
        _watch(running, zone, pause)
    return ExitCode.OK


def _calls(running: Running) -> Iterator[CallNow]:
    try:
        names = running.ids()
    except FileNotFoundError as error:
        raise click.ClickException(f"{error.filename}: there is no spool (storage.spool)") from None
    for name in names[:MOST]:
        found = running.look(name)
        if found is not None:
            yield found


def _facts(now: CallNow, zone: Zone) -> dict[str, Any]:
    call = now.call
    return {
        "id": now.id,
        "call_id": call.call_id,
        "since": zone.local(call.started).isoformat(timespec="milliseconds"),
        "answered": zone.local(call.answered).isoformat(timespec="milliseconds") if call.answered else None,
        "state": _state(now),
        "continues": now.continues,
        "rule": RULE,
        "caller": {"number": call.caller.number, "name": call.caller.name, **_side_facts(now.sides[Party.CALLER])},
        "callee": {"number": call.callee.number, "name": call.callee.name, **_side_facts(now.sides[Party.CALLEE])},
    }


def _side_facts(side: SideNow) -> dict[str, Any]:
    loss, level = side.loss, side.level
    return {
        "codec": side.codec,
        "loss_percent": round(loss, 2) if loss is not None else None,
        "level_db": round(level, 1) if level is not None else None,
    }


def _state(now: CallNow) -> str:
    call = now.call
    if call.held:
        return "held"
    return "ringing" if call.answered is None else "talking"


def _rows(now: CallNow, zone: Zone) -> Iterator[tuple[str, ...]]:
    """Two rows a call: caller and callee."""
    call = now.call
    seconds = max(int(time.time() - call.started / SECOND), 0)
    first = (
        f"{zone.local(call.started):%H:%M:%S}",
        for_terminal(call.caller.number, 24),
        for_terminal(call.callee.number, 24),
        _state(now),
        f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}",
    )
    for party in Party:
        side = now.sides[party]
        loss = f"{side.loss:.1f}%" if side.loss is not None else "-"
        heard = (party.value, side.codec or "nothing", loss, _meter(side.level))
        last = (RULE, now.id) if party is Party.CALLER else ("", "")
        yield (*(first if party is Party.CALLER else ("",) * len(first)), *heard, *last)


def _meter(level: float | None) -> str:
    """A bar of ten, 6 dB each, and the figure."""
    if level is None:
        return "-"
    bars = min(max(round((level + 60) / 6), 0), 10)
    return f"{'#' * bars:<10} {level:5.0f} dB"


def _plain(running: Running, zone: Zone) -> None:
    rows = [COLUMNS, *(row for now in _calls(running) for row in _rows(now, zone))]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _watch(running: Running, zone: Zone, pause: float) -> None:
    from rich.live import Live

    with Live(_table(running, zone), screen=True, auto_refresh=False) as screen:
        while True:
            time.sleep(pause)
            screen.update(_table(running, zone), refresh=True)


def _table(running: Running, zone: Zone) -> "Table":
    from rich.table import Table
    from rich.text import Text

    calls = list(_calls(running))
    title = f"{len(calls)} calls at {datetime.now():%H:%M:%S}; Ctrl-C ends"
    table = Table(title=title, title_justify="left", expand=False)
    for name in COLUMNS:
        table.add_column(name, no_wrap=True)
    for now in calls:
        for row in _rows(now, zone):
            table.add_row(*(Text(cell) for cell in row))
    return table
