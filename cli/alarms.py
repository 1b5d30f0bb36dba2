"""`tapdeck alarms`: what is wrong, who looks after it, and the stage that has people told."""

import getpass
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..storage import alarm_acks, alarm_desk
from ..storage.safe_text import for_json, for_terminal
from . import alarm_checks, box, layout, lock, notify, privileges
from .config import load, with_options
from .exit_codes import ExitCode
from .settings import ConfigError, Settings
from .users import with_present_users

if TYPE_CHECKING:
    from .alarms_stage import AlarmsStage

TAKEN_S = 5.0
"""Seconds in which the stage takes an acknowledgement, else something is wrong with it."""

_OPTIONS = with_options("recording", "storage", "signing", "users", "monitoring", "alarms", "heartbeat")
_TICK_S = 1.0

_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object.")
_all = click.option("--all", "everything", is_flag=True, help="Those that are over too.")


class NotDone(click.ClickException):
    """What was asked for cannot be done; the message says why."""

    exit_code = ExitCode.NO_CALL


@click.group(invoke_without_command=True)
@_as_json
@_all
@with_options("storage")
@click.pass_context
def alarms(context: click.Context, /, as_json: bool, everything: bool, config: Path | None, **options: Any) -> int:
    """Show the alarms: what is wrong, since when, and who looks after it.

    Needs root, or the group users.group, which is `tapdeck`.
    """
    return _list(load(config, options), as_json, everything) if context.invoked_subcommand is None else 0


@alarms.command("list")
@_as_json
@_all
@with_options("storage")
def list_(as_json: bool, everything: bool, config: Path | None, **options: Any) -> int:
    """Show the alarms, as `tapdeck alarms` alone does."""
    return _list(load(config, options), as_json, everything)


@alarms.command()
@click.argument("code")
@click.option("--about", help="Only the alarm about this, as the name of a target; else all of this code.")
@click.option("--by", help="Who looks after it; else the name of the user.")
@click.option("--note", default="", help="What the others should know.")
@with_options("storage")
def ack(code: str, about: str | None, by: str | None, note: str, config: Path | None, **options: Any) -> int:
    """Say that you look after an alarm. CODE is its name, as NO_TRAFFIC.

    Everybody sees it then in `tapdeck alarms`, `tapdeck status` and later mails. The alarm goes on until its cause is
    gone; when it comes again after that, it is a new one.
    """
    folder = Path(load(config, options).storage.state)
    if "alarms" not in box.read(folder).alive:
        raise NotDone("the alarms stage does not run, so there is no book to note it in: see docs/alarms.md")
    desk = alarm_desk.peek(folder)
    found = [] if desk is None else [one for one in desk.book.active.values() if one.over is None]
    if not any(one.code == code and about in (None, one.about) for one in found):
        raised = ", ".join(sorted({one.name for one in found})) or "none"
        raise NotDone(f"no such alarm is raised; raised are: {for_terminal(raised, 1000)}")
    try:
        path = alarm_acks.drop(folder, alarm_acks.Ack(code, about, by or _user(), note))
    except OSError as error:
        raise NotDone(f"{error.filename}: {error.strerror}: run it as root, or as a member of users.group") from None
    deadline = time.monotonic() + TAKEN_S
    while path.exists():
        if time.monotonic() > deadline:
            path.unlink(missing_ok=True)
            raise NotDone("the alarms stage did not take it: is the disk full? `tapdeck status` says how the box is")
        time.sleep(0.05)
    click.echo(f"{for_terminal(code)}: noted that {for_terminal(by or _user())} looks after it")
    return ExitCode.OK


@alarms.command()
@_OPTIONS
def test(config: Path | None, **options: Any) -> int:
    """Send a test mail to all addresses, run the hooks with an example, and say what happened.

    The exit code is 0 if all of it went well, and 1 if something did not. Needs root, or the user of the alarms stage.
    """
    from .alarms_mail import read_password
    from .alarms_test import trials

    settings = with_present_users(load(config, options))
    if not alarm_checks.wanted(settings.alarms, settings.heartbeat):
        raise ConfigError("nobody is told of alarms: set alarms.server and addresses, or a hook; see docs/alarms.md")
    password = read_password(settings)
    _drop(settings)
    well = True
    for name, trouble in trials(settings, password, time.time()):
        click.echo(f"{'failed' if trouble else 'ok':<8}{for_terminal(name, 500)}")
        if trouble:
            click.echo(f"        {for_terminal(trouble, 1000)}")
        well = well and not trouble
    return ExitCode.OK if well else ExitCode.NO_CALL


@alarms.command("run")
@_OPTIONS
def run_(config: Path | None, **options: Any) -> int:
    """Have people told of alarms, until SIGTERM: by mail, hooks and signs of life.

    `tapdeck run` starts it where any of that is set (alarms.*, heartbeat.*). At SIGHUP the configuration is read again.
    """
    settings = with_present_users(load(config, options))
    if not alarm_checks.wanted(settings.alarms, settings.heartbeat):
        raise ConfigError("nobody is to be told of alarms: set something of alarms.* or heartbeat.*")
    from .alarms_mail import read_password
    from .alarms_stage import AlarmsStage
    from .logs import set_up

    set_up(settings.monitoring.log_level)
    password = read_password(settings)
    layout.prepare(settings)
    _drop(settings)
    if password.trouble:
        password = read_password(settings)  # the file may be this user's own
    held = lock.hold(Path(settings.storage.state), "alarms", 10.0)
    try:
        stage = AlarmsStage(settings, password, time.time())
        return _run(stage, lambda: with_present_users(load(config, options)))
    finally:
        os.close(held)


def _run(stage: "AlarmsStage", reread: Callable[[], Settings]) -> int:
    """By handlers, not by a blocked mask: the programs of hooks would inherit that, and could not be ended."""
    wake, told = threading.Event(), [0]

    def take(number: int, _: object) -> None:
        told[0] = number if told[0] in (0, signal.SIGHUP) else told[0]
        wake.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, take)
    stage.begin()
    notify.ready()
    while told[0] in (0, signal.SIGHUP):
        if told[0] == signal.SIGHUP:
            told[0] = 0
            _reload(stage, reread)
        wake.clear()
        stage.tick(time.time())
        notify.watchdog()
        wake.wait(0 if told[0] else _TICK_S)
    notify.stopping()
    stage.end()
    return ExitCode.OK


def _reload(stage: "AlarmsStage", reread: Callable[[], Settings]) -> None:
    from .logs import log

    notify.reloading()
    try:
        stage.reload(reread(), time.time())
    except ConfigError as error:
        log().error("the configuration stays as it was", reason=str(error))
    notify.ready()


def _drop(settings: Settings) -> None:
    users = settings.users
    privileges.drop_to(users.alarms, [users.group] if users.group else [], "users.alarms")


def _user() -> str:
    """Who asks for it, as far as he does not say: whom sudo knows, or whom the system knows."""
    with suppress(OSError, KeyError):
        return os.environ.get("SUDO_USER") or getpass.getuser()
    return f"user {os.getuid()}"


# -- the list ----------------------------------------------------------------------------------------------------------


def _list(settings: Settings, as_json: bool, everything: bool) -> int:
    folder = Path(settings.storage.state)
    if not os.access(folder, os.R_OK | os.X_OK):
        why = "there is no such folder" if not folder.exists() else "permission denied"
        raise NotDone(f"storage.state: {folder}: {why}: run it as root, or as a member of users.group, on the recorder")
    reports, desk = box.read(folder), alarm_desk.peek(folder)
    found = list(_found(reports, desk, everything))
    if as_json:
        waiting = 0 if desk is None else len(desk.outbox.letters)
        report = {"running": "alarms" in reports.alive, "mails_waiting": waiting, "alarms": found}
        click.echo(json.dumps(for_json(report), ensure_ascii=False))
        return ExitCode.OK
    for one in found:
        click.echo("\n".join(_lines(one)))
    if not found:
        click.echo("no alarm")
    return ExitCode.OK


def _found(reports: box.Reports, desk: alarm_desk.Desk | None, everything: bool) -> Iterator[dict[str, Any]]:
    """Yield the alarms of the book, if it is kept; else those of the reports. What is over comes last."""
    past: Sequence[Any] = ()
    if desk is not None:
        past = [*desk.book.past, *(one for one in desk.book.active.values() if one.over is not None)]
    if desk is not None and "alarms" in reports.alive:
        yield from (one.shown() for one in desk.book.active.values() if one.over is None)
    else:
        for alarm in box.active_alarms(reports):
            yield {"about": "", "state": "active", "by": "", "note": "", "cleared": None, **alarm, "acknowledged": None}
    if everything:
        yield from (one.shown() for one in reversed(past))


def _lines(one: dict[str, Any]) -> Iterator[str]:
    name = f"{one.get('code')} {one.get('about') or ''}".strip()
    yield f"{for_terminal(name)}: {one.get('severity')}, {one.get('state')}, since {box.local(one.get('since'))}"
    yield f"    {for_terminal(str(one.get('text', '')), 1000)}"
    if one.get("acknowledged"):
        note = f": {for_terminal(str(one['note']), 500)}" if one.get("note") else ""
        yield f"    looked after by {for_terminal(str(one.get('by')))} {box.local(one['acknowledged'])}{note}"
    if one.get("cleared"):
        yield f"    over since {box.local(one['cleared'])}"
