"""`tapdeck queue`: what waits for which target, why, and another attempt at once."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..storage import state
from ..storage.safe_text import for_json, for_terminal
from .config import load, with_options
from .exit_codes import ExitCode
from .settings import Settings
from .targets import all_targets, destinations

if TYPE_CHECKING:
    from ..storage.queue_visit import Fate, Known, QueueVisit

Given = tuple[Path | None, dict[str, Any]]
"""The configuration file and the options that stand before a subcommand."""
_OPTIONS = with_options("recording", "storage", "deliver", "users")
_target = click.option("--target", "names", multiple=True, metavar="NAME", help="Only this target.")
_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


class NotAllowed(click.ClickException):
    """This user may not use the queue."""

    exit_code = ExitCode.NO_PERMISSION


class Unknown(click.ClickException):
    """There is no such recording, or no such target."""

    exit_code = ExitCode.UNREADABLE_INPUT


@click.group(invoke_without_command=True)
@_as_json
@_OPTIONS
@click.pass_context
def queue(context: click.Context, /, as_json: bool, config: Path | None, **options: Any) -> None:
    """Show what waits for each target, since when, and why.

    It reads the queue itself: the deliver stage may run or not.
    """
    if context.invoked_subcommand is not None:
        context.obj = config, options
        return
    settings = load(config, options)
    with _visit(settings) as visit:
        rows = [_row(visit, settings, one.name, time.time()) for one in destinations(settings)]
        left = visit.left([one.name for one in destinations(settings)])
    if as_json:
        click.echo(json.dumps(for_json({"targets": rows, "other_targets": left}), ensure_ascii=False))
        return
    for row in rows:
        _show(row)
    for name, count in left.items():
        click.echo(f"{for_terminal(name)}: {count} waiting, but it is disabled or no longer configured: not counted")
    if not rows and not left:
        click.echo("There is no target: see `tapdeck targets list`.")


@queue.command()
@click.argument("recording", required=False)
@_target
@_OPTIONS
@click.pass_obj
def retry(given: Given, /, recording: str | None, names: tuple[str, ...], config: Path | None, **options: Any) -> None:
    """Try at once what waits: everything, one target's, or RECORDING (its id, or a file's path or name).

    A running deliver stage begins within two seconds.
    """
    settings = _settings(given, config, options)
    chosen = _chosen(settings, names)
    with _visit(settings) as visit:
        numbers = None if recording is None else [one.number for one in _find(visit, settings, recording)]
        count = visit.retry(chosen, numbers)
    told = state.read(Path(settings.storage.state), "deliver")
    when = "now" if state.alive(told) else "when `tapdeck deliver` runs: it does not at this moment"
    click.echo(f"{count} deliveries are tried {when}.")


@queue.command()
@click.argument("recording")
@_target
@_OPTIONS
@click.pass_obj
def drop(given: Given, /, recording: str, names: tuple[str, ...], config: Path | None, **options: Any) -> None:
    """Take note that RECORDING was lost before it was delivered, which ends the alarm. Nothing is deleted."""
    settings = _settings(given, config, options)
    chosen = _chosen(settings, names)
    with _visit(settings) as visit:
        count = visit.drop([one.number for one in _find(visit, settings, recording)], chosen)
    if not count:
        raise Unknown(f"{recording} is not lost: see `tapdeck queue why {recording}`")
    ids = {"recording": recording, "deliveries": count}
    state.append(Path(settings.storage.state), "lost recording noted", **ids)
    click.echo(f"{count} deliveries of it are no longer expected.")


@queue.command()
@click.argument("recording")
@_as_json
@_OPTIONS
@click.pass_obj
def why(given: Given, /, recording: str, as_json: bool, config: Path | None, **options: Any) -> None:
    """Say for each target where RECORDING is, or why not: its id, or a file's path or name."""
    settings = _settings(given, config, options)
    with _visit(settings) as visit:
        found = [(one, _fates(visit, settings, one)) for one in _find(visit, settings, recording)]
    if as_json:
        facts = [{"id": one.parcel.id, "stem": one.parcel.stem, "targets": fates} for one, fates in found]
        click.echo(json.dumps(for_json({"recordings": facts}), ensure_ascii=False))
        return
    for one, fates in found:
        where = f"removed from this machine {_when(one.removed)}" if one.removed else "on this machine"
        click.echo(f"{one.parcel.id}  {for_terminal(one.parcel.stem, 1000)}  {where}")
        for fate in fates:
            click.echo(f"  {for_terminal(fate['target'])}: {for_terminal(fate['text'], 2000)}")


def _settings(given: Given, config: Path | None, options: dict[str, Any]) -> Settings:
    """Load the settings. Options may stand before the subcommand and behind it; what is behind goes first."""
    before, others = given
    return load(config or before, others | {name: value for name, value in options.items() if value is not None})


@contextmanager
def _visit(settings: Settings) -> Iterator["QueueVisit"]:
    """Open the queue. Raises NotAllowed, QueueError."""
    from ..storage.queue_visit import QueueVisit  # SQLAlchemy takes a third of a second

    path = Path(settings.storage.state) / "queue.sqlite"
    user = settings.users.deliver or "that runs Tapdeck"
    if not os.access(path.parent, os.R_OK | os.X_OK) and path.parent.exists():
        raise NotAllowed(f"{path.parent}: permission denied: run it as root, or as the user {user}")
    if path.exists() and not (os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK)):
        raise NotAllowed(f"{path}: permission denied: run it as root, or as the user {user}")
    visit = QueueVisit(path)
    try:
        yield visit
    finally:
        visit.close()


def _chosen(settings: Settings, names: tuple[str, ...]) -> list[str]:
    """Return the targets in use, or those that were named. Raises Unknown."""
    known = [one.name for one in destinations(settings)]
    for name in names:
        if name not in known:
            raise Unknown(f"no target in use is called {name}: there is {', '.join(known) or 'none'}")
    return list(names) or known


def _find(visit: "QueueVisit", settings: Settings, text: str) -> list["Known"]:
    found = visit.find(text, Path(settings.storage.recordings).absolute())
    if not found:
        raise Unknown(f"the delivery queue knows no recording {text!r}: name its id, or one of its files")
    return found


def _row(visit: "QueueVisit", settings: Settings, name: str, now: float) -> dict[str, Any]:
    target, totals = visit.target(name), visit.totals(name, now)
    report = state.read(Path(settings.storage.state), "deliver")
    running: list[dict[str, Any]] = report.get("targets", []) if report and state.alive(report) else []
    told = next((one for one in running if one.get("name") == name), {})
    since = [moment for moment in (target.failing_since, totals.failing_since) if moment is not None]
    return {
        "name": name,
        "waiting": totals.waiting,
        "bytes": totals.bytes,
        "oldest": _when(totals.oldest),
        "confirmed": totals.confirmed,
        "refused": totals.failing,
        "lost": totals.lost,
        "failing_since": _when(min(since, default=None)),
        "next_try": _when(target.next_try if target.failing_since is not None else None),
        "error": target.error or totals.error or None,
        "rate": told.get("rate"),
        "opens": told.get("opens"),
    }


def _show(row: dict[str, Any]) -> None:
    from ..storage.space import size_text

    waits = f"{row['waiting']} waiting ({size_text(row['bytes'])})" if row["waiting"] else "nothing waits"
    oldest = f", the oldest of {row['oldest']}" if row["oldest"] else ""
    click.echo(f"{for_terminal(row['name'])}: {waits}{oldest}; {row['confirmed']} delivered")
    if row["error"]:
        tried = f", tried again at {row['next_try']}" if row["next_try"] else ""
        click.echo(f"  failing since {row['failing_since']}{tried}: {for_terminal(row['error'], 2000)}")
    if row["lost"]:
        click.echo(f"  {row['lost']} lost: their files have vanished from this machine before they were delivered")
    if row["opens"]:
        click.echo(f"  outside its hours until {row['opens']}")


def _fates(visit: "QueueVisit", settings: Settings, one: "Known") -> list[dict[str, Any]]:
    """Return for each target what has come of a recording, with words for it."""
    known = {fate.target: fate for fate in visit.fates(one.number)}
    enabled = {target.name: target.enabled for target in all_targets(settings)}
    rows = []
    for name in [*enabled, *(name for name in known if name not in enabled)]:
        fate = known.get(name)
        facts = {key: value for key, value in asdict(fate).items() if key != "target"} if fate else {"state": "none"}
        text = _words(visit, settings, one, fate) if fate else _without_job(enabled[name])
        if name not in enabled or not enabled[name]:
            text += " (the target is disabled)" if name in enabled else " (the target is no longer configured)"
        rows.append({"target": name, **facts, "text": text})
    return rows


def _without_job(enabled: bool) -> str:
    return "not looked at yet: `tapdeck deliver` does that" if enabled else "nothing is queued for it"


def _words(visit: "QueueVisit", settings: Settings, one: "Known", fate: "Fate") -> str:
    if fate.state == "confirmed":
        aside = ": the name was taken by another file" if fate.beside else ""
        return f"delivered {_when(fate.confirmed)}, in the folder {fate.place}{aside}"
    if fate.state == "lost":
        return f"lost since {_when(fate.failing_since)}: {fate.error}; `tapdeck queue drop` takes note of it"
    if fate.state == "dropped":
        return f"not delivered: it was lost, and somebody has taken note: {fate.error}"
    if fate.state == "unwanted":
        return f"not selected: {_unselected(settings, one, fate.target)}"
    target = visit.target(fate.target)
    if fate.failing_since is not None:
        tried = f"{fate.attempts} attempts, the next one {_when(fate.next_try) if fate.next_try else 'at once'}"
        return f"refused since {_when(fate.failing_since)}, {tried}: {fate.error}"
    if target.failing_since is not None:
        tried = f"tried again {_when(target.next_try) if target.next_try else 'at once'}"
        return f"waiting: the target takes nothing since {_when(target.failing_since)}, {tried}: {target.error}"
    return "waiting for its turn, oldest first"


def _unselected(settings: Settings, one: "Known", name: str) -> str:
    """Return which part of a target's selection left a recording out."""
    from ..storage.about import read_about
    from ..storage.choice import why_not

    route = next((target.route for target in destinations(settings) if target.name == name), None)
    if route is None:
        return "the target's selection left it out"
    try:
        said = why_not(route.selection, read_about(Path(settings.storage.recordings), one.parcel))
    except OSError:
        said = ""
    return said or "the target's selection left it out when the recording was new"


def _when(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment).astimezone().isoformat(timespec="seconds")
