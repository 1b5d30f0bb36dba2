"""A real Samba server on loopback, with a configuration and a state of its own: it can be stopped, killed, stalled."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

USER, PASSWORD = "root", "correct-horse-7"
SHARE = "recordings"

needs_samba = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("smbd") is None or shutil.which("smbpasswd") is None,
    reason="starts a Samba server: needs root, and smbd (Debian: samba)",
)


class Samba:
    """A server with one share, `folder`. `settings` go into the server's section, `share` into that of the share."""

    def __init__(self, folder: Path, settings: str = "", share: str = "read only = no") -> None:
        self.folder, self.settings, self.share = folder, settings, share
        folder.mkdir(exist_ok=True)
        self._state = Path(tempfile.mkdtemp(prefix="smbd-"))  # short: names of sockets are
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("private", "lock", "state", "cache", "pid", "rpc"):
            (self._state / name).mkdir(mode=0o755)
        self._configure()
        words: list[str | Path] = ["smbpasswd", "-c", self._state / "smb.conf", "-s", "-a", USER]
        subprocess.run(words, input=f"{PASSWORD}\n{PASSWORD}\n", text=True, check=True, capture_output=True)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._configure()
        words: list[str | Path] = [
            "smbd",
            "--foreground",
            "--no-process-group",
            "-s",
            self._state / "smb.conf",
            "-l",
            self._state,
        ]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"smbd does not start: {self.log()}")

    def signal(self, number: int) -> None:
        """Send a signal to it and to all its children, if it runs."""
        if self._process:
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Kill it with -9, with all its children."""
        if self._process:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it, and start it anew."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Kill it, and leave nothing but the share."""
        self.kill()
        shutil.rmtree(self._state)

    def log(self) -> str:
        """Return what it has written."""
        return "".join(path.read_text(errors="replace") for path in self._state.glob("log.*"))

    def _configure(self) -> None:
        state = self._state
        (state / "smb.conf").write_text(
            f"""[global]
server role = standalone server
passdb backend = tdbsam:{state}/private/passdb.tdb
private dir = {state}/private
lock directory = {state}/lock
state directory = {state}/state
cache directory = {state}/cache
pid directory = {state}/pid
ncalrpc dir = {state}/rpc
log file = {state}/log.smbd
smb ports = {self.port}
interfaces = lo
bind interfaces only = yes
disable netbios = yes
load printers = no
printcap name = /dev/null
disable spoolss = yes
{self.settings}
[{SHARE}]
path = {self.folder}
{self.share}
"""
        )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
