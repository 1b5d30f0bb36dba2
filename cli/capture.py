"""`tapdeck capture`: listen on a mirror port."""

import os
from pathlib import Path
from typing import Any

import click

from . import layout, lock, privileges
from .call_events import EventPrinter
from .config import load, with_options
from .rings import open_rings
from .settings import SECTIONS, Settings
from .tls_keys import TAIL, TlsKeys
from .tuning import tune
from .users import with_present_users

LOCK_PATIENCE_S = 30.0
"""How long to wait for an earlier capture on the same spool that is coming to its end, in seconds."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object an event.")
@click.option("--alone", is_flag=True, help="Only this stage, whatever --out says.")
@with_options(*SECTIONS)
def capture(as_json: bool, alone: bool, config: Path | None, **options: Any) -> int:
    """Listen on a mirror port, and keep the calls that cross it.

    What is heard goes to the spool, from where `tapdeck seal` makes recordings. With --out DIR a seal stage is started
    too, so that recordings appear in DIR by themselves; `tapdeck run` runs the whole box. Needs root or CAP_NET_RAW;
    stop it by Ctrl-C or SIGTERM, SIGHUP reads the configuration again.
    """
    if options.get("storage__recordings") and not alone:
        from .run import supervise

        return supervise(("capture", "seal"), as_json, config, options)
    settings = with_present_users(load(config, options))
    if not settings.capture.interfaces:
        raise click.UsageError("which interface? -i IFACE; `tapdeck interfaces` lists those there are")
    tune()
    rings = open_rings(settings)
    keys = TlsKeys(settings, TAIL)
    keys.poll()  # while everything may still be read
    layout.prepare(settings)
    give_up_privileges(settings)
    held = lock.hold(Path(settings.storage.spool), "capture", LOCK_PATIENCE_S)
    from .capture_stage import CaptureStage
    from .logs import set_up  # structlog takes a tenth of a second

    set_up(settings.monitoring.log_level, as_json)
    try:
        reread = lambda: with_present_users(load(config, options))  # noqa: E731
        stage = CaptureStage(settings, rings, EventPrinter(as_json), reread, keys)
        return stage.run()
    finally:
        os.close(held)


def give_up_privileges(settings: Settings) -> None:
    """Keep nothing but the sockets that are open."""
    users = settings.users
    privileges.protect_memory()
    privileges.drop_to(users.capture, [users.group] if users.group else [], "users.capture")
    privileges.drop_capabilities()
