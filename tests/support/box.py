"""A recorder on a tap, started as an installer does, and what it leaves on disk, read without any of its code.

with Box(wire.tap, ["mon0"], tmp_path) as box:
    ...
    box.wait_until_sealed()
box.recordings()
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from .netns import stop, wait_for, within
from .record import REPOSITORY, Recording, read_info

STAGES = ("capture", "seal", "deliver")
SUPERVISED = {"run": STAGES, "capture": ("capture", "seal")}
"""What a command starts that starts others."""
READY_S, SEAL_S = 30.0, 120.0


class Box:
    """`tapdeck STAGE -i INTERFACE ...` in a namespace, with folders of its own under `folder`.

    `alone`: only this stage, as a service manager starts it; else `capture` seals too, and `run` runs all. `output`: a
    descriptor to print to, in place of the log.
    """

    def __init__(
        self,
        namespace: str,
        interfaces: Sequence[str],
        folder: Path,
        stage: str = "capture",
        more: Sequence[str] = (),
        *,
        alone: bool = False,
        output: int | None = None,
    ) -> None:
        self.stages = (stage,) if alone else SUPERVISED[stage]
        self.namespace, self.interfaces, self.stage, self.more = namespace, tuple(interfaces), stage, tuple(more)
        self.out, self.spool, self.state = folder / "recordings", folder / "spool", folder / "state"
        self.log = folder / "box.log"
        self.output = output
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Box:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def start(self, *, wait: bool = True) -> None:
        """Start it and wait until it is well. Raises RuntimeError with what it said if it ends instead."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TAPDECK_")}
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                within(self.namespace, *self._command()),
                stdin=subprocess.DEVNULL,
                stdout=sink if self.output is None else self.output,
                stderr=sink,
                env=environment | {"PYTHONPATH": str(REPOSITORY / "src"), "TZ": "UTC"},
                cwd=self.out.parent,
                start_new_session=True,
            )
        if wait:
            wait_for(f"tapdeck {self.stage}", self._ready, READY_S)

    def stop(self, patience_s: float = 60.0) -> int:
        """SIGTERM, as a service manager does; return the exit code."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience_s)

    def kill(self) -> None:
        """End all of its processes at once, whatever they do."""
        if self.process is not None:
            for pid in self.pids().values():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            stop(self.process, signal.SIGKILL)

    def report(self, stage: str) -> dict[str, Any]:
        """What a stage last said of itself; empty if it has not yet."""
        for _ in range(3):
            with suppress(FileNotFoundError, json.JSONDecodeError):
                found: dict[str, Any] = json.loads((self.state / f"{stage}.json").read_bytes())
                return found
        return {}

    def events(self) -> list[dict[str, Any]]:
        """The event log, all days."""
        lines = [
            line for path in sorted((self.state / "log").glob("*.jsonl")) for line in path.read_text().splitlines()
        ]
        return [json.loads(line) for line in lines if line.strip()]

    def pids(self) -> dict[str, int]:
        """The running processes by what they are: `run` or a stage."""
        if self.process is None or self.process.poll() is not None:
            return {}
        if self.stages == (self.stage,):
            return {self.stage: self.process.pid}
        found = {"run": self.process.pid}
        for pid in _descendants(self.process.pid):
            words = _words(pid)
            found |= {stage: pid for stage in self.stages if stage in words}
        return found

    def ended(self) -> bool:
        """Whether its process (the supervisor's, if there is one) is no more."""
        return self.process is None or self.process.poll() is not None

    def well(self) -> bool:
        """Whether each of its stages has said that it runs, and all interfaces are there."""
        pids = self.pids()
        reports = {stage: self.report(stage) for stage in self.stages}
        if any(stage not in pids or report.get("pid") != pids[stage] for stage, report in reports.items()):
            return False
        return all(port["present"] for port in reports.get("capture", {}).get("interfaces", ()))

    def spooled(self, folder: str) -> list[Path]:
        """The files in a folder of the spool: `live`, `done`, `resume`."""
        return sorted((self.spool / folder).glob("*.pcapng"))

    def wait_until_sealed(self, patience_s: float = SEAL_S) -> None:
        """Wait until no call runs and none waits to be sealed. Raises TimeoutError, or RuntimeError if it has ended."""
        wait_for("sealing", self._sealed, patience_s)

    def wait_until_recorded(self, calls: int, patience_s: float = SEAL_S) -> None:
        """Wait until there are so many recordings, others may be running. Raises TimeoutError."""

        def there() -> bool:
            return all(len(list(self.out.rglob(files))) >= calls for files in ("*.wav", "*_info.txt"))

        wait_for(f"{calls} recordings", there, patience_s)

    def recordings(self) -> list[Recording]:
        """All recordings, by name (and so by start)."""
        return [Recording(path, read_info(path)) for path in sorted(self.out.rglob("*.wav"))]

    def said(self) -> str:
        """What it printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _command(self) -> list[str]:
        ports = [word for interface in self.interfaces for word in ("-i", interface)]
        folders = ["--out", str(self.out), "--spool", str(self.spool), "--state", str(self.state)]
        folders += [f"--keys={self.state.with_name('keys')}"]
        users = ["--group=", *(f"--{name}-user=" for name in (*STAGES, "metrics"))]
        alone = ["--alone"] if self.stages == ("capture",) else []
        calm = ["--selftest-at="] if self.stage == "run" else []  # its call would be found among the recordings
        words = [*ports, *folders, *users, "--json", *alone, *calm, *self.more]
        return [sys.executable, "-m", "tapdeck.cli", self.stage, *words]

    def _ready(self) -> bool:
        self._check_alive()
        return self.well()

    def _sealed(self) -> bool:
        self._check_alive()
        if self.spooled("live") or self.spooled("done"):
            return False
        seal = self.report("seal")
        return seal.get("waiting") == 0 and time.time() - seal["updated"] < 5

    def _check_alive(self) -> None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.stage}: exit code {self.process.returncode}\n{self.said()[-3000:]}")


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            found += [child, *_descendants(child)]
    return found


def _words(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return []
