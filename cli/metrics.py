"""Figures for Prometheus, of the same reports as `tapdeck status`: an endpoint, or a file for the node exporter."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from ..storage import state
from . import box, layout, lock, notify, privileges
from .config import load, with_options
from .settings import ConfigError, Settings, endpoint
from .users import with_present_users

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TICK_S = 1.0
FILE_EVERY_S = 15.0
"""Seconds between two writes of the textfile: Prometheus asks for it about as often."""
_FILE_MODE = 0o644


@click.command()
@click.option("--once", is_flag=True, help="Print the figures, and end.")
@with_options("storage", "users", "monitoring")
def metrics(once: bool, config: Path | None, **options: Any) -> int:
    """Serve the figures of this machine's recorder to Prometheus.

    `tapdeck run` starts it where monitoring.prometheus_listen or monitoring.prometheus_file is set.
    """
    settings = with_present_users(load(config, options))
    if once:
        click.echo(_text(Path(settings.storage.state)), nl=False)
        return 0
    if not (settings.monitoring.prometheus_listen or settings.monitoring.prometheus_file):
        raise ConfigError("monitoring.prometheus_listen and monitoring.prometheus_file are both empty: set one")
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    layout.prepare(settings)
    privileges.drop_to(settings.users.metrics, [settings.users.group] if settings.users.group else [], "users.metrics")
    held = lock.hold(Path(settings.storage.state), "metrics", 10.0)
    try:
        return _serve(settings)
    finally:
        os.close(held)


def _serve(settings: Settings) -> int:
    folder, alarms = Path(settings.storage.state), state.Alarms(Path(settings.storage.state), "metrics")
    stop = _listen(folder, settings.monitoring.prometheus_listen)
    due = 0.0
    notify.ready()
    while True:
        if settings.monitoring.prometheus_file and time.monotonic() >= due:
            due = time.monotonic() + FILE_EVERY_S
            _try_to_write(Path(settings.monitoring.prometheus_file), folder, alarms)
        state.write(folder, "metrics", {"listen": settings.monitoring.prometheus_listen, "alarms": alarms.active})
        notify.watchdog()
        found = signal.sigtimedwait(_SIGNALS, _TICK_S)
        if found is not None and found.si_signo != signal.SIGHUP:
            stop()
            return 0


def _listen(folder: Path, address: str) -> Any:
    """Serve in a thread, and return what ends that. Raises ConfigError."""
    if not address:
        return lambda: None
    from prometheus_client import start_http_server

    host, port = endpoint(address)
    try:
        server, _ = start_http_server(port, host, registry=_registry(folder))
    except OSError as error:
        raise ConfigError(f"monitoring.prometheus_listen: cannot listen on {address}: {error.strerror}") from None
    return server.shutdown


def _try_to_write(path: Path, folder: Path, alarms: state.Alarms) -> None:
    try:
        write_file(path, _text(folder))
    except OSError as error:
        text = f"monitoring.prometheus_file: {path}: {error.strerror}: let the user of this stage write to its folder"
        alarms.raise_("METRICS_FILE", text)
    else:
        alarms.clear("METRICS_FILE")


def write_file(path: Path, text: str) -> None:
    """Replace the textfile in one step; everybody may read it, for the exporter is another user. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, _FILE_MODE)
            file.write(text)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _text(folder: Path) -> str:
    from prometheus_client import generate_latest

    return generate_latest(_registry(folder)).decode()


def _registry(folder: Path) -> Any:
    """Return a registry that reads the reports whenever it is asked."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    from .metric_families import families

    class Reader(Collector):
        def collect(self) -> Iterable[Any]:
            return families(box.read(folder))

        def describe(self) -> Iterator[Any]:
            return iter(())

    registry = CollectorRegistry()
    registry.register(Reader())
    return registry
