"""The keys of TLS and DTLS sessions that a run is given: read at its start, and as the key log grows."""

import threading
from pathlib import Path

import click

from ..sniffer.sources.key_log import KeyFileError, KeyLog, server_keys
from ..sniffer.tls.secrets import Secrets
from .exit_codes import ExitCode
from .settings import ConfigError, Settings

TAIL = 16 << 20
"""Of a key log that is there at the start of a live stage only so many bytes are read, the last ones: what is older
belongs to sessions whose beginning was not heard.
"""
PAUSE_S = 0.25


class UnreadableKeys(click.ClickException):
    """A file with keys cannot be used."""

    exit_code = ExitCode.UNREADABLE_INPUT


class TlsKeys:
    """The secrets by these settings, kept up to date. Raises ConfigError for a server's key that cannot be used.

    `tail`: see `TAIL`; None: the whole key log is read.
    """

    def __init__(self, settings: Settings, tail: int | None = None) -> None:
        self.secrets = Secrets(wanted=bool(settings.tls.key_log))
        try:
            self.secrets.servers += server_keys(settings.tls.server_keys)
        except KeyFileError as error:
            raise ConfigError(f"tls.server_keys: {error}") from None
        path = settings.tls.key_log
        self._log = KeyLog(path, self.secrets, tail) if path else None
        self._trouble = ""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def poll(self) -> None:
        """Read what the key log has got since, and see whether all is well with it."""
        if self._log is not None:
            self._log.poll()
            self._trouble = self._log.error or _exposed(self._log.path)

    def require(self) -> None:
        """Read the key log; it has to be there. Raises UnreadableKeys."""
        self.poll()
        if self.error:
            raise UnreadableKeys(f"{self.error}: name a key log that can be read with --key-log")

    def fresh(self) -> Secrets:
        """Return the secrets, with all that the key log holds by now."""
        self.poll()
        return self.secrets

    @property
    def error(self) -> str:
        """Why the key log cannot be read at the moment, empty if it can."""
        return self._log.error if self._log is not None else ""

    @property
    def trouble(self) -> str:
        """What was wrong with the key log when it was last read, in words; empty if nothing was."""
        return self._trouble

    def watch(self) -> None:
        """Go on reading the key log in a thread: it may lie on a share that hangs."""
        if self._log is not None and self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="key log", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread, if it does not hang."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def _watch(self) -> None:
        while not self._stopping.is_set():
            self.poll()
            self._stopping.wait(PAUSE_S)


def _exposed(path: str) -> str:
    """Tell whether everybody on this machine can read a key log, in words."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return ""
    return f"{path}: everybody on this machine may read it: chmod o-rwx" if mode & 0o007 else ""
