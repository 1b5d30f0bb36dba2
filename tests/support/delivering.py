"""`tapdeck deliver --config FILE` as a process, and a folder, a Samba and an OpenSSH server as its targets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tapdeck.storage import handover, state
from tapdeck.storage.parcel import Parcel

from .openssh import OpenSsh, openssh
from .samba import PASSWORD, SHARE, USER, Samba
from .users import environment

PATIENCE_S = 60.0
USERS = ("group", "capture", "seal", "deliver", "metrics", "alarms")
MARK = ".tapdeck-target"


class Stage:
    """The stage with folders of its own below `folder`; `targets` are the tables of its configuration."""

    def __init__(self, folder: Path, targets: dict[str, dict[str, Any]], **sections: dict[str, Any]) -> None:
        self.folder = folder
        self.root, self.state, self.config = folder / "recordings", folder / "state", folder / "tapdeck.toml"
        self.log = folder / "deliver.out"
        self.targets, self.sections = targets, sections
        self.process: subprocess.Popen[bytes] | None = None
        self.root.mkdir(parents=True, exist_ok=True)
        self.configure()

    def configure(self) -> None:
        """Write the configuration file."""
        places = {"recordings": str(self.root), "state": str(self.state), "spool": str(self.folder / "spool")}
        pauses = {"first_pause_s": 0.2, "longest_pause_s": 1.0}
        sections: dict[str, dict[str, Any]] = {
            **self.sections,
            "storage": {"reserve_mb": 1, **self.sections.get("storage", {}), **places},
            "deliver": pauses | self.sections.get("deliver", {}),
            "signing": {"keys": str(self.folder / "keys")},
            "users": dict.fromkeys(USERS, ""),
        }
        tables = [f"[{name}]\n{_toml(values)}" for name, values in sections.items()]
        tables += [f"[[targets]]\n{_toml({'name': name, **values})}" for name, values in self.targets.items()]
        self.config.write_text("\n".join(tables))

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.words("deliver", "--json"), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )

    def words(self, command: str, *more: str) -> list[str]:
        return [sys.executable, "-m", "tapdeck.cli", *command.split(), "--config", str(self.config), *more]

    def run(self, command: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Run another command with the same configuration."""
        words = self.words(command, *more)
        return subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S)

    def queue(self) -> dict[str, dict[str, Any]]:
        """What `tapdeck queue --json` says, by target."""
        done = self.run("queue", "--json")
        assert done.returncode == 0, done.stderr
        return {row["name"]: row for row in json.loads(done.stdout)["targets"]}

    def hand_over(self, parcel: Parcel) -> None:
        handover.write(self.state, parcel)

    def report(self) -> dict[str, Any]:
        """What the running process says of itself."""
        report = state.read(self.state, "deliver")
        return report if report and self.process and report["pid"] == self.process.pid else {}

    def views(self) -> dict[str, dict[str, Any]]:
        """What it says of its targets."""
        return {one["name"]: one for one in self.report().get("targets", ())}

    def until(self, condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
        """Wait for something while the stage runs."""
        deadline = time.monotonic() + patience_s
        while not condition():
            assert self.process is not None
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"it did not happen: {self.report()}\n{self.said()}"
            time.sleep(0.05)

    def until_confirmed(self, patience_s: float = PATIENCE_S, **counts: int) -> None:
        """Wait until targets (_ for - in their names) have confirmed so many, and nothing waits for them."""

        def all_there() -> bool:
            views = self.views()
            return all(
                (views.get(name, {}).get("confirmed"), views.get(name, {}).get("waiting")) == (count, 0)
                for name, count in counts.items()
            )

        self.until(all_there, patience_s)

    def alarms(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(alarm["code"], alarm["about"]): alarm for alarm in self.report().get("alarms", ())}

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in state.events(self.state) if event["event"] == kind]

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def reload(self) -> None:
        """Write the configuration, and have it read."""
        self.configure()
        before = len(self.events("deliver reloaded"))
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        self.until(lambda: len(self.events("deliver reloaded")) > before)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """End it as a service manager does; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


class Servers:
    """A folder, a share of a Samba and a folder of an OpenSSH server, and how targets for them are configured."""

    def __init__(self, folder: Path, samba: Samba, ssh: OpenSsh) -> None:
        self.samba, self.ssh, self.disk = samba, ssh, folder / "disk"
        self.disk.mkdir()
        self._password = folder / "password"
        self._password.touch(mode=0o600)
        self._password.write_text(PASSWORD)

    @property
    def folders(self) -> dict[str, Path]:
        """Where what each target has got lies on this machine."""
        return {"disk": self.disk, "nas": self.samba.folder, "ssh": self.ssh.files}

    @property
    def targets(self) -> dict[str, dict[str, Any]]:
        """The three tables."""
        nas = {"server": "127.0.0.1", "port": self.samba.port, "share": SHARE, "user": USER, "folder": ""}
        ssh = {"host": self.ssh.host, "port": self.ssh.port, "user": self.ssh.user, "folder": self.ssh.folder}
        return {
            "disk": {"kind": "folder", "folder": str(self.disk)},
            "nas": {"kind": "smb", **nas, "password_file": str(self._password)},
            "ssh": {
                "kind": "sftp",
                **ssh,
                "host_key": self.ssh.fingerprint,
                "key_file": str(self.ssh.key_file),
            },
        }


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Run both servers, with what they keep below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with openssh(folder / "ssh") as ssh:
        samba = Samba(folder / "share")
        try:
            yield Servers(folder, samba, ssh)
        finally:
            samba.close()


def held(folder: Path) -> dict[str, Path]:
    """Return every file below a folder by its relative path, but for the mark of a target."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    found.pop(MARK, None)
    return found


def _toml(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
