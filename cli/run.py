"""`tapdeck run`: the whole box, its stages as processes of their own under one supervisor."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import alarm_checks, layout, lock
from .config import load, with_options
from .privileges import group_entry, user_entry
from .settings import SECTIONS, ConfigError, Settings, all_settings, time_of_day
from .users import with_present_users

if TYPE_CHECKING:
    from .daily import Daily
    from .supervisor import Stage

_ORPHANS_END_S = 90.0


STAGES = ("capture", "seal", "deliver", "metrics", "alarms")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON, one object a line: what the stages print, and the log.")
@with_options(*SECTIONS)
def run(as_json: bool, config: Path | None, **options: Any) -> int:
    """Record the calls of a mirror port: capture, seal and deliver, each as a process of its own.

    Started as root, each stage changes to its own user once it has opened what it needs (users.*). A stage that dies is
    started again. SIGHUP has the configuration read again; SIGTERM and Ctrl-C end the run, and no call is lost by it.
    """
    return supervise(STAGES, as_json, config, options)


def supervise(names: Sequence[str], as_json: bool, config: Path | None, options: Mapping[str, Any]) -> int:
    """Run these stages until SIGTERM or SIGINT; return the exit code. Raises ConfigError, AlreadyRunning, OSError."""
    settings = with_present_users(load(config, options))
    if not settings.capture.interfaces:
        raise click.UsageError("which interface? -i IFACE; `tapdeck interfaces` lists those there are")
    _join_group(settings)
    layout.prepare(settings)
    held = lock.hold(Path(settings.storage.state), "run", _ORPHANS_END_S)

    from .logs import set_up  # structlog takes a tenth of a second
    from .supervisor import Supervisor

    log = set_up(settings.monitoring.log_level, as_json)
    daily = self_test(settings, as_json) if names == STAGES else None

    def reload() -> bool:
        try:
            new = load(config, options)
        except ConfigError as error:
            log.error("the new configuration is not taken", reason=str(error))
            return False
        if daily is not None:
            daily.at = time_of_day(new.monitoring.selftest_at)
        return True

    return Supervisor(
        stages=[stage for stage in stages(settings, as_json) if stage.name in names],
        folder=Path(settings.storage.state),
        log=log,
        reload=reload,
        environ=environment(settings, options, os.environ),
        keep_open=(held,),
        daily=daily,
    ).run()


def self_test(settings: Settings, as_json: bool) -> "Daily":
    """Return the self-test that is made once a day."""
    from .daily import Daily

    zone = settings.zone()
    return Daily(
        name="selftest",
        command=command("selftest", *(("--json",) if as_json else ())),
        folder=Path(settings.storage.state),
        at=time_of_day(settings.monitoring.selftest_at),
        now=lambda: zone.local(time.time_ns()),
    )


def command(name: str, *more: str) -> tuple[str, ...]:
    """Return the command line of one of our own commands. -P: root must not import what lies in the folder he is in."""
    return (sys.executable, "-P", "-m", "tapdeck.cli", name, *more)


def stages(settings: Settings, as_json: bool) -> "list[Stage]":
    """Return the stages of a run, in the order in which they are stopped."""
    from .supervisor import Stage

    output = ("--json",) if as_json else ()
    found = [
        Stage("capture", command("capture", "--alone", *output), grace_s=30, hung_s=60),
        # A long recording takes its time, and nothing waits for these two.
        Stage("seal", command("seal", *output), grace_s=60, hung_s=600, drain_s=30),
        Stage("deliver", command("deliver", *output), grace_s=20, hung_s=600, secrets=True),
    ]
    if settings.monitoring.prometheus_listen or settings.monitoring.prometheus_file:
        found.append(Stage("metrics", command("metrics"), grace_s=5, hung_s=60))
    if alarm_checks.wanted(settings.alarms, settings.heartbeat):
        found.append(Stage("alarms", command("alarms", "run"), grace_s=15, hung_s=120, secrets=True))
    return found


def environment(settings: Settings, options: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the stages: what was set on the command line goes on to them as variables, which they
    read again at each reload as the file.
    """
    given = {
        setting.variable: _text(value)
        for setting in all_settings()
        if (value := options.get(f"{setting.section}__{setting.key}")) is not None
    }
    source = {"TAPDECK_CONFIG": str(Path(settings.source).absolute())} if settings.source else {}
    return {**environ, **source, **given}


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _join_group(settings: Settings) -> None:
    """As root, become a member of the group that may read what the stages report, and see that their users exist."""
    if os.geteuid() != 0:
        return
    users = settings.users
    for name in STAGES:
        wanted = name != "alarms" or alarm_checks.wanted(settings.alarms, settings.heartbeat)
        if wanted and (user := getattr(users, name)):
            user_entry(user, f"users.{name}")
    if users.group:
        os.setgroups(sorted({*os.getgroups(), group_entry(users.group).gr_gid}))
