"""Telling systemd how a service is (sd_notify(3)): one datagram to the socket that NOTIFY_SOCKET names.

Without the variable nothing happens. No function raises: a service that systemd does not hear is still a service.
"""

import os
import socket
import time
from collections.abc import Mapping

from ..storage.safe_text import for_line

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What systemd sets for the main process of a service. A child that is no service of its own must not see it."""

_PATIENCE_S = 1.0


def ready(status: str = "") -> bool:
    """Say that the service is up, or has reloaded. Returns whether somebody was told, as all of these do."""
    return send("READY=1", *_status(status))


def status(text: str) -> bool:
    """Set the line that `systemctl status` shows."""
    return send(*_status(text))


def watchdog() -> bool:
    """Say that the service is well. Due every `watchdog_interval()` seconds."""
    return send("WATCHDOG=1")


def reloading() -> bool:
    """Say that the configuration is being read again; `ready()` ends it."""
    return send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping(status: str = "") -> bool:
    """Say that the service is coming to its end."""
    return send("STOPPING=1", *_status(status))


def watchdog_interval(environ: Mapping[str, str] | None = None) -> float | None:
    """Return the seconds between two calls of `watchdog()`, half of what systemd waits; None if it does not wait."""
    environ = os.environ if environ is None else environ
    pid, microseconds = environ.get("WATCHDOG_PID", ""), environ.get("WATCHDOG_USEC", "")
    if (pid and pid != str(os.getpid())) or not (microseconds.isascii() and microseconds.isdecimal()):
        return None
    return int(microseconds) / 2e6 or None


def send(*assignments: str) -> bool:
    """Send `NAME=value` lines as one datagram. Returns False where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(_PATIENCE_S)
            sock.sendto("\n".join(assignments).encode(), address)
    except OSError:
        return False
    return True


def _status(text: str) -> tuple[str, ...]:
    """A line break in it would begin another assignment."""
    return (f"STATUS={for_line(text)}",) if text else ()
