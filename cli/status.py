"""`tapdeck status`: how the box is, for people and for monitoring."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from ..storage.safe_text import for_json, for_terminal
from ..storage.space import size_text
from . import box
from .config import load, with_options
from .exit_codes import Health
from .settings import Settings

_STYLES = {Health.GREEN: "bold green", Health.AMBER: "bold yellow", Health.RED: "bold red"}
_MANY = 10

Row = tuple[str, str, Health]


class Unreadable(click.ClickException):
    """Nothing can be said of the box."""

    exit_code = Health.RED


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@with_options("storage", "monitoring")
def status(as_json: bool, config: Path | None, **options: Any) -> int:
    """Say how the recorder on this machine is.

    The exit code is what monitoring systems (Nagios, Icinga, Zabbix) want: 0 healthy, 1 warning, 2 critical or not
    running. Needs root, or the group users.group, which is `tapdeck`.
    """
    settings = load(config, options)
    folder = Path(settings.storage.state)
    if not folder.is_dir():
        raise Unreadable(f"not running, and never did: there is no state folder {folder} (storage.state)")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise Unreadable(
            f"{folder}: permission denied: run it as root, or as a member of the group {settings.users.group}"
        )
    summary = box.summary(box.read(folder))
    if as_json:
        click.echo(json.dumps(for_json(summary), ensure_ascii=False))
    else:
        show = _show_table if sys.stdout.isatty() else _show_lines
        show(rows(summary, settings))
    return int(summary["exit_code"])


def rows(summary: dict[str, Any], settings: Settings) -> list[Row]:
    """Return what is shown: name, text, and how good or bad it is."""
    return [
        *_head(summary),
        *_capture(summary),
        *_after(summary),
        *_stages(summary),
        *_selftest(summary),
        *(_alarm(alarm) for alarm in summary["alarms"]),
        *_downtimes(summary),
        ("remote access", _access(settings), Health.GREEN),
    ]


def _head(summary: dict[str, Any]) -> list[Row]:
    health = Health(summary["exit_code"])
    if not summary["running"]:
        return [("tapdeck", "capture is not running, no call is recorded", Health.RED)]
    word = "healthy, " if health is Health.GREEN else ""
    return [("tapdeck", f"{word}recording since {box.local(summary['since'])}", health)]


def _capture(summary: dict[str, Any]) -> list[Row]:
    packets, calls, drops = summary["packets"], summary["calls"], summary["kernel_drops"]
    kinds = _parts(packets)
    lost = summary["mirror_loss"]
    return [
        *(_interface(one) for one in summary["interfaces"]),
        ("packets", f"{kinds or 'none yet'}; {_count(summary['packets_per_second'])} a second", Health.GREEN),
        ("kernel drops", _count(drops), Health.AMBER if drops else Health.GREEN),
        (
            "mirror loss",
            f"{_count(lost)} packets missed in all streams at once",
            Health.AMBER if lost else Health.GREEN,
        ),
        ("calls", f"{_count(calls.get('running'))} running, {_count(calls.get('seen'))} over", Health.GREEN),
        *_tls(summary["tls"]),
    ]


def _tls(tls: dict[str, Any]) -> list[Row]:
    """How SIP over TLS is read, where there is something to say."""
    if not tls["secrets"] and not tls["not_read"]:
        return []
    lost = ", ".join(f"{kind} {_count(count)}" for kind, count in tls["not_read"].items())
    return [("SIP over TLS", f"{_count(tls['secrets'])} secrets known; not read: {lost or 'nothing'}", Health.GREEN)]


def _interface(one: dict[str, Any]) -> Row:
    text = f"{_count(one.get('packets'))} packets, {_count(one.get('drops'))} dropped"
    if one.get("tx_packets") is not None:
        text += f", {_count(one['tx_packets'])} sent by this machine"
    here = bool(one.get("present"))
    return f"interface {one.get('name', '?')}", text if here else f"gone; {text}", Health.GREEN if here else Health.RED


def _after(summary: dict[str, Any]) -> list[Row]:
    spool, made = summary["spool"], summary["recordings"]
    waiting = f"{_count(spool.get('files'))} running, {_count(spool['waiting_to_be_sealed'])} to be sealed"
    if spool["unsigned"]:
        waiting += ", Signed: no (the key is locked)"
    queued = spool.get("queued_bytes") or 0
    poor = f"; {_count(summary['poor_quality'])} of them lost over 3 % of a side" if summary["poor_quality"] else ""
    found: list[Row] = [
        (
            "spool",
            f"{waiting}, {size_text(queued)} in memory",
            Health.RED if spool.get("error") or spool["unsigned"] else Health.GREEN,
        ),
        ("recordings", (_parts(made) or "none yet") + poor, Health.RED if made.get("failed") else Health.GREEN),
    ]
    for target in summary["queue"]:
        text = f"{_count(target.get('waiting'))} waiting, {_count(target.get('confirmed'))} delivered"
        since = box.local(target.get("failing_since"))
        if target.get("error"):
            text += f"; failing{' since ' + since if since else ''}: {target['error']}"
        found.append((f"target {target.get('name', '?')}", text, Health.AMBER if target.get("error") else Health.GREEN))
    return [*found, *_disk(summary)]


def _disk(summary: dict[str, Any]) -> list[Row]:
    disk, days = summary["disk"], summary["days_until_full"]
    if not disk:
        return []
    text = f"{size_text(disk.get('free') or 0)} of {size_text(disk.get('total') or 0)} free"
    full = f"full in {days:,.0f} days" if isinstance(days, (int, float)) else "not filling up by what is known"
    return [("disk", f"{text}, {full}", Health.GREEN)]


def _stages(summary: dict[str, Any]) -> list[Row]:
    found: list[Row] = []
    for name, stage in summary["stages"].items():
        if not stage["running"] and not stage["expected"]:
            continue
        if not stage["running"]:
            found.append(
                (f"stage {name}", f"not running, last heard of {_span(stage['report_age_s'])} ago", Health.AMBER)
            )
            continue
        text = f"process {stage['pid']}, report {stage['report_age_s']:.0f} s old"
        if stage["restarts"]:
            text += f", {_count(stage['restarts'])} restarts, the last after: {stage['last_exit']}"
        found.append((f"stage {name}", text, Health.GREEN))
    return found


def _selftest(summary: dict[str, Any]) -> list[Row]:
    test = summary["selftest"]
    if test is None:
        return []
    word, health = ("passed", Health.GREEN) if test["passed"] else ("failed", Health.AMBER)
    return [("self-test", f"{word} {box.local(test['ended'])}".rstrip(), health)]


def _alarm(alarm: dict[str, Any]) -> Row:
    care = alarm.get("acknowledged")
    known = f"; acknowledged by {care.get('by', '?')} {box.local(care.get('at'))}".rstrip() if care else ""
    if care and care.get("note"):
        known += f": {care['note']}"
    text = f"{alarm.get('text', '')} (since {box.local(alarm.get('since'))}{known})"
    name = f"alarm {alarm.get('code', '?')} {alarm.get('about', '')}".rstrip()
    return name, text, Health.RED if alarm.get("severity") == "critical" else Health.AMBER


def _downtimes(summary: dict[str, Any]) -> list[Row]:
    """The last ones: a report keeps some."""
    return [
        ("down", f"from {box.local(one.get('from'))} to {box.local(one.get('to'))}", Health.GREEN)
        for one in summary["downtimes"][-_MANY:]
    ]


def _access(settings: Settings) -> str:
    listen = settings.monitoring.prometheus_listen
    return f"none; Prometheus may read figures at {listen}" if listen else "none; nothing listens"


def _show_lines(found: list[Row]) -> None:
    for name, text, health in found:
        mark = "" if health is Health.GREEN else f"[{box.WORDS[health]}] "
        click.echo(f"{for_terminal(name)}: {mark}{for_terminal(text, 1000)}")


def _show_table(found: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text, health in found:
        mark = Text("●", style=_STYLES[health])
        style = "" if health is Health.GREEN else _STYLES[health]
        table.add_row(mark, Text(for_terminal(name), style="bold"), Text(for_terminal(text, 1000), style=style))
    Console().print(table)


def _parts(account: dict[str, Any]) -> str:
    """Return an account in words: the sum, and what it is made of."""
    parts = [f"{name.replace('_', ' ')} {_count(count)}" for name, count in account.items() if count and name != "seen"]
    return f"{_count(account['seen'])} seen: {', '.join(parts)}" if account.get("seen") else ", ".join(parts)


def _count(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, (int, float)) else "0"


def _span(seconds: float) -> str:
    for name, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} s"
