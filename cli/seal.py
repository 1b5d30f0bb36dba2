"""`tapdeck seal`: the second stage. Makes recordings of the calls that capture has handed over."""

import os
import signal
from pathlib import Path
from typing import Any

import click

from . import layout, lock, notify, privileges
from .call_events import EventPrinter
from .config import load, with_options
from .exit_codes import ExitCode
from .settings import SECTIONS
from .tls_keys import TAIL, TlsKeys
from .tuning import tune
from .users import with_present_users

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PAUSE_S = 0.5
KEYS_S = 60.0
"""How long a call waits for the keys of its sound (DTLS) after its end, where there is a key log, in seconds."""
NICENESS = 10


@click.command()
@click.option("--once", is_flag=True, help="Seal what is there, and end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a recording.")
@with_options(*SECTIONS)
def seal(once: bool, as_json: bool, config: Path | None, **options: Any) -> int:
    """Make recordings of the calls that `tapdeck capture` has handed over.

    Each call's spool file becomes a stereo WAV and an info file, as `tapdeck record` would make them. A file goes when
    its recording is durable; one that cannot be sealed stays, with an alarm. SIGTERM ends it after the call at hand; at
    SIGHUP the configuration is read again.
    """
    settings = with_present_users(load(config, options))
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    tune()
    layout.prepare(settings)
    keys = TlsKeys(settings, TAIL)
    keys.poll()  # while everything may still be read
    users = settings.users
    privileges.drop_to(users.seal, [users.group] if users.group else [], "users.seal")
    os.nice(NICENESS)  # capture goes first
    held = lock.hold(Path(settings.storage.state), "seal", 30.0)
    from .logs import set_up  # structlog takes a tenth of a second
    from .seal_stage import SealStage

    set_up(settings.monitoring.log_level, as_json)

    patience = KEYS_S if settings.tls.key_log and not once else 0.0
    stage = SealStage(settings, EventPrinter(as_json), keys=keys, patience_s=patience)
    try:
        stage.begin()
        notify.ready("sealing")
        while True:
            more = stage.tick()
            if once and not more:
                return stage.conclude()
            found = signal.sigtimedwait(_SIGNALS, 0 if more else PAUSE_S)
            if found is not None and found.si_signo == signal.SIGHUP:
                stage.reload(lambda: with_present_users(load(config, options)))
            elif found is not None:
                return ExitCode.INTERRUPTED if once else ExitCode.OK
    finally:
        notify.stopping()
        stage.end()
        os.close(held)
