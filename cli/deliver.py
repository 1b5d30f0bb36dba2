"""`tapdeck deliver`: the third stage. Takes finished recordings to the targets, and keeps the account of the disk."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import layout, lock, notify
from .config import load, with_options
from .exit_codes import ExitCode
from .privileges import drop_to
from .settings import ConfigError, Settings
from .targets import with_secrets
from .users import with_present_users

if TYPE_CHECKING:
    from .deliver_stage import DeliverStage

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TICK_S = 1.0


@click.command()
@click.option("--once", is_flag=True, help="Deliver what is due, and end: for cron.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a recording.")
@with_options("storage", "deliver", "signing", "users")
def deliver(once: bool, as_json: bool, config: Path | None, **options: Any) -> int:
    """Copy finished recordings to the configured target, for as long as it takes.

    Each file is written under a temporary name, read back, compared, and then gets its name. What a target has
    confirmed is removed here, oldest first, only when the disk runs short (storage.reserve_mb). SIGTERM ends it, in the
    middle of a recording too, which is delivered the next time; at SIGHUP the configuration is read again.
    """
    settings = with_secrets(with_present_users(load(config, options)))
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    layout.prepare(settings)
    drop_to(settings.users.deliver, [settings.users.group] if settings.users.group else [], "users.deliver")
    state = Path(settings.storage.state)
    held = lock.hold(state, "deliver")
    try:
        return _run(settings, once, as_json, lambda: with_secrets(with_present_users(load(config, options)), settings))
    finally:
        os.close(held)


def _run(settings: Settings, once: bool, as_json: bool, reread: Callable[[], Settings]) -> int:
    from .deliver_stage import DeliverStage  # SQLAlchemy takes a third of a second

    stage = DeliverStage(settings, once, as_json)
    try:
        stage.begin()
        notify.ready()
        while True:
            number = _next_signal(once)
            if number in (signal.SIGTERM, signal.SIGINT):
                return ExitCode.INTERRUPTED if once else ExitCode.OK
            if number == signal.SIGHUP:
                _reload(stage, reread)
            stage.tick(time.time())
            notify.watchdog()
            if once and stage.idle:
                return stage.conclude()
    finally:
        notify.stopping()
        stage.end()


def _next_signal(once: bool) -> int | None:
    found = signal.sigtimedwait(_SIGNALS, 0.02 if once else _TICK_S)
    return found.si_signo if found else None


def _reload(stage: "DeliverStage", reread: Callable[[], Settings]) -> None:
    notify.reloading()
    try:
        stage.reload(reread())
    except ConfigError as error:
        stage.complain(f"the configuration stays as it was: {error}")
    notify.ready()
