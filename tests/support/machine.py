"""A machine on which Tapdeck is installed, within this one: its /etc, its users, its services.

machine = Machine(folder, wire)
machine.tapdeck("install")
machine.start("tapdeck.service")
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .netns import Namespaces, Wire
from .record import REPOSITORY
from .users import environment, python_for_all


class Machine:
    """A copy of this machine's /etc, seen by what is started in it alone: users can be made and removed there."""

    def __init__(self, folder: Path, wire: Wire) -> None:
        self.folder, self.wire = folder, wire
        self.etc, self.config = folder / "etc", folder / "tapdeck.toml"
        shutil.copytree("/etc", self.etc, symlinks=True)
        self.config.write_text(
            f'[capture]\ninterfaces = ["{wire.tap_interface}"]\nring_mb = 8\n[calls]\nbye_linger_s = 1.0\n[storage]\n'
            + "".join(f'{name} = "{folder / name}"\n' for name in ("recordings", "spool", "state"))
            + f'[signing]\nkeys = "{folder / "keys"}"\n'
        )
        holder = f"mount --bind {self.etc} /etc && echo ready && exec sleep infinity"
        words = ["unshare", "--mount", "--propagation=private", "sh", "-c", holder]
        self.holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "ready\n"

    def command(self, *words: str) -> list[str]:
        spaces = [f"--mount=/proc/{self.holder.pid}/ns/mnt", f"--net=/run/netns/{self.wire.tap}"]
        return ["nsenter", *spaces, *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), env=environment(), capture_output=True, text=True, cwd=self.folder)

    def tapdeck(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(python_for_all(), "-P", "-m", "tapdeck.cli", *words, "--config", str(self.config))

    def start(self, unit: str) -> subprocess.Popen[bytes]:
        """Start a unit as it says, in a mount namespace of its own."""
        sandbox = ["unshare", "--mount", "--propagation=private", python_for_all(), "-P", "-m", "tests.support.sandbox"]
        environ = environment()
        environ["PYTHONPATH"] += f":{REPOSITORY}"
        with (self.folder / f"{unit}.log").open("ab") as log:
            return subprocess.Popen(
                self.command(*sandbox, f"/etc/systemd/system/{unit}"), env=environ, stdout=log, stderr=log, cwd="/"
            )

    def healthy(self) -> bool:
        return self.tapdeck("status").returncode == 0

    def logs(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("*.log"))

    def close(self) -> None:
        """Its /etc goes with the last process that sees it."""
        self.holder.kill()
        self.holder.wait()


@contextmanager
def machine_in(folder: Path) -> Iterator[Machine]:
    """A machine behind a wire of its own; gone at the end of the block."""
    with Namespaces() as spaces:
        here = Machine(folder, Wire.between(spaces))
        try:
            yield here
        finally:
            here.close()
