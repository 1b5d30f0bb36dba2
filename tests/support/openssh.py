"""A real OpenSSH server on loopback, with users and host keys of its own.

with openssh(folder) as server:
    server.files   # what its user sees as server.folder
    server.kill(); server.start()

It runs in a mount namespace of its own with an /etc of its own: the user and the password exist there alone.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest

USER, UID = "tapdeck-sftp", 64123
PASSWORD = "correct horse, battery: staple"
FOLDER = "/mnt/recordings"
"""Where its user finds `files`."""

_NEEDED = (
    "passwd",
    "group",
    "shadow",
    "nsswitch.conf",
    "hosts",
    "ld.so.cache",
    "localtime",
    "login.defs",
    "ssh/moduli",
)
_CONFIG = """Port {port}
ListenAddress 127.0.0.1
HostKey /etc/ssh/own_ed25519
HostKey /etc/ssh/own_ecdsa
HostKey /etc/ssh/own_rsa
PidFile none
UsePAM no
UseDNS no
StrictModes no
AuthorizedKeysFile /etc/ssh/own_authorized_keys
PasswordAuthentication yes
KbdInteractiveAuthentication no
PermitRootLogin no
MaxStartups 100
MaxAuthTries 6
LoginGraceTime 20
Subsystem sftp internal-sftp {sftp_options}
{more}
"""


class OpenSsh:
    """See the module."""

    def __init__(self, folder: Path, sftp_options: str = "", more: str = "") -> None:
        self.base = folder
        self.files, self.log, self._etc = folder / "files", folder / "sshd.log", folder / "etc"
        self.key_file, self.other_key_file = folder / "id_ed25519", folder / "id_other"
        self.host, self.port, self.user, self.password, self.folder = "127.0.0.1", _free_port(), USER, PASSWORD, FOLDER
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (self._etc / "ssh").mkdir(parents=True)
        for name in _NEEDED:
            if Path("/etc", name).exists():
                shutil.copy(Path("/etc", name), self._etc / name)
        for path in (self.key_file, self.other_key_file):
            _keygen("ed25519", path)
        _keygen("ecdsa", self.base / "id_locked", passphrase="open sesame")
        for kind in ("ed25519", "ecdsa"):
            self.change_host_key(kind)
        private, public = _rsa_key()
        (self._etc / "ssh/own_rsa").touch(mode=0o600)
        (self._etc / "ssh/own_rsa").write_bytes(private)
        (self._etc / "ssh/own_rsa.pub").write_bytes(public)
        authorized = [path.with_suffix(".pub").read_text() for path in (self.key_file, self.base / "id_locked")]
        (self._etc / "ssh/own_authorized_keys").write_text("".join(authorized))
        self._make_user()
        config = _CONFIG.format(port=self.port, sftp_options=sftp_options, more=more)
        (self._etc / "ssh/own_config").write_text(config)
        self.files.mkdir(exist_ok=True)
        os.chown(self.files, UID, UID)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its ed25519 key, as ssh-keygen tells it."""
        return self.fingerprint_of("ed25519")

    def fingerprint_of(self, kind: str) -> str:
        words = ["ssh-keygen", "-l", "-E", "sha256", "-f", str(self._etc / f"ssh/own_{kind}.pub")]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[1]

    def public_key(self, kind: str = "ed25519") -> str:
        return (self._etc / f"ssh/own_{kind}.pub").read_text().strip()

    def change_host_key(self, kind: str) -> None:
        """Give it another key of this kind, for the next start."""
        path = self._etc / f"ssh/own_{kind}"
        for old in (path, path.with_suffix(".pub")):
            old.unlink(missing_ok=True)
        _keygen(kind, path)

    def drop_host_keys(self, *kinds: str) -> None:
        """Have it use these kinds of host key no longer, from the next start."""
        config = self._etc / "ssh/own_config"
        lines = config.read_text().splitlines(keepends=True)
        gone = {f"HostKey /etc/ssh/own_{kind}" for kind in kinds}
        config.write_text("".join(line for line in lines if line.strip() not in gone))

    def start(self) -> None:
        """Start it on its port, and wait until it answers."""
        mounts = (
            f"mount --bind {self._etc} /etc && mount -t tmpfs none /run && mkdir -m 755 /run/sshd && "
            f"mount -t tmpfs none /var/log && mount -t tmpfs -o mode=755 none /mnt && mkdir {FOLDER} && "
            f"mount --rbind {self.files} {FOLDER} && exec {_sshd()} -D -e -f /etc/ssh/own_config"
        )
        words = ["unshare", "--mount", "--propagation=private", "sh", "-c", mounts]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            with suppress(OSError), socket.create_connection((self.host, self.port), 1) as line:
                if line.recv(4) == b"SSH-":
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"sshd does not start: {self.log.read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill it and all its sessions, -9."""
        self._signal(signal.SIGKILL)
        if self._process:
            self._process.wait()

    def kill_sessions(self) -> None:
        """Kill what serves its clients, -9; it goes on listening."""
        self._signal(signal.SIGKILL, but=1)

    def stall(self) -> None:
        """Let it and its sessions stand still."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it; nothing of it stays."""
        if self._process and self._process.poll() is None:
            self.kill()

    def _signal(self, number: int, but: int = 0) -> None:
        if self._process:
            for process in _tree(self._process.pid)[but:]:
                with suppress(ProcessLookupError):
                    os.kill(process, number)

    def _make_user(self) -> None:
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"], input=self.password, capture_output=True, text=True, check=True
        ).stdout.strip()
        for file, line in (
            ("passwd", f"{USER}:x:{UID}:{UID}::/mnt:/bin/sh"),
            ("group", f"{USER}:x:{UID}:"),
            ("shadow", f"{USER}:{hashed}:20000:0:99999:7:::"),
        ):
            with (self._etc / file).open("a") as lines:
                lines.write(f"{line}\n")


@contextmanager
def openssh(folder: Path, sftp_options: str = "", more: str = "") -> Iterator[OpenSsh]:
    """Run a server with its state in `folder`. Skips where there is none, or it cannot run."""
    _sshd()
    if os.getuid() != 0:
        pytest.skip("sshd with a user of its own needs root")
    server = OpenSsh(folder, sftp_options, more)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _sshd() -> str:
    found = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("no sshd on this machine: scripts/setup --test installs it")
    return found


def _keygen(kind: str, path: Path, passphrase: str = "") -> None:
    """Make a key pair."""
    bits = ["-b", "2048"] if kind == "rsa" else []
    words = ["ssh-keygen", "-q", "-t", kind, *bits, "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


@cache
def _rsa_key() -> tuple[bytes, bytes]:
    """Return a key pair that takes long to make: one for all servers of this process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "key")
        _keygen("rsa", path)
        return path.read_bytes(), path.with_suffix(".pub").read_bytes()


def _tree(process: int) -> list[int]:
    """Return a process and all below it, itself first."""
    found = [process]
    for parent in found:
        for tasks in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, tasks.read_text().split())
    return found


def _free_port() -> int:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])
