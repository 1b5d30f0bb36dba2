"""Keeping the stages running: start, look after, start again, reload, stop.

A stage is a command; what it says of itself is in its report (storage/state.py). Nothing here knows what a stage does.
One thread, one loop: signals are taken by sigtimedwait(2), so that nothing happens in the middle of something else.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from ..storage import state
from . import notify
from .daily import Daily
from .exit_codes import ExitCode
from .privileges import die_with_parent
from .secret_places import VARIABLES

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_HOPELESS = (ExitCode.USAGE, ExitCode.CONFIG)


@dataclass(frozen=True, slots=True)
class Stage:
    """How a stage is started and stopped. `grace_s` is what it gets to end, `hung_s` how long it may run without a
    fresh report before it is killed, `drain_s` what it gets before it is told to end, to do what its report calls
    `waiting`. `secrets`: variables with secrets are for this one.
    """

    name: str
    command: tuple[str, ...]
    grace_s: float = 20.0
    hung_s: float = 60.0
    drain_s: float = 0.0
    secrets: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a stage is started again, in seconds: twice as late each time, until it has lived for `settled`."""

    first: float = 1.0
    longest: float = 60.0
    settled: float = 60.0
    tick: float = 1.0


@dataclass(slots=True)
class _Running:
    """A stage at this moment. Times are monotonic, save `since`."""

    stage: Stage
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    well: float = 0.0
    due: float = 0.0
    deaths: int = 0
    starts: int = 0
    since: str = ""
    last_exit: str | None = None
    healthy: bool = False


@dataclass(slots=True)
class Supervisor:
    """Runs stages; the first one is what the box is for: with it the service is ready, by it the watchdog is fed.

    They are stopped in their order. `reload` is called before SIGHUP is passed on, and keeps it from them by False.
    `daily` is started beside them when its time comes.
    """

    stages: Sequence[Stage]
    folder: Path
    log: FilteringBoundLogger
    reload: Callable[[], bool] = lambda: True
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    pace: Pace = Pace()
    keep_open: tuple[int, ...] = ()
    daily: Daily | None = None
    _all: list[_Running] = field(default_factory=list)
    _alarms: state.Alarms = field(init=False)
    _ready: bool = False
    _said: str = ""
    _mask: set[signal.Signals] = field(default_factory=set)
    _hopeless: int | None = None

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code. A stage that cannot start for its configuration or command
        line, before the first has ever been ready, ends the run with its exit code.
        """
        self._alarms = state.Alarms(self.folder, "run")
        self._all = [_Running(stage) for stage in self.stages]
        with self._signals():
            state.append(self.folder, "run started", process=os.getpid())
            for one in self._all:
                self._start(one)
            while self._hopeless is None:
                number = self._next_signal(self.pace.tick)
                if number in (signal.SIGTERM, signal.SIGINT):
                    break
                if number == signal.SIGHUP:
                    self._reload()
                self._look()
            self._stop()
        state.append(self.folder, "run stopped", process=os.getpid())
        return ExitCode.OK if self._hopeless is None else self._hopeless

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Block them; stages get the mask that was before."""
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # type: ignore[assignment]
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _next_signal(self, patience: float) -> int | None:
        found = signal.sigtimedwait(_SIGNALS, patience)
        return found.si_signo if found else None

    def _start(self, one: _Running) -> None:
        now = time.monotonic()
        try:
            one.process = self._spawn(one.stage.command, one.stage.secrets)
        except (OSError, subprocess.SubprocessError) as error:
            one.last_exit = f"cannot be started: {error}"
            self._died(one, now)
            return
        one.started = one.well = now
        one.healthy = False
        one.starts += 1
        one.since = datetime.now().astimezone().isoformat(timespec="seconds")
        facts = {"stage": one.stage.name, "process": one.process.pid, "restarts": one.starts - 1}
        self.log.info("stage started", **facts)
        state.append(self.folder, "stage started", **facts)

    def _spawn(self, command: tuple[str, ...], secrets: bool) -> "subprocess.Popen[bytes]":
        """Start a command as a child that ends with us. Raises OSError, SubprocessError."""
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=_environment(self.environ, secrets),
            start_new_session=True,  # Ctrl-C is for the supervisor, which stops the stages in their order
            pass_fds=self.keep_open,
            preexec_fn=_prepare(self._mask, os.getpid()),
        )

    def _look(self) -> None:
        """One visit to all stages."""
        now = time.monotonic()
        for one in self._all:
            if one.process is not None and one.process.poll() is not None:
                self._reap(one, now)
            if one.process is None:
                if now >= one.due:
                    self._start(one)
                continue
            self._examine(one, one.process.pid, now)
        if self.daily is not None:
            self._look_at_daily(self.daily)
        self._say(now)

    def _look_at_daily(self, daily: Daily) -> None:
        daily.look(partial(self._spawn, secrets=True))  # it tries the targets
        if daily.trouble:
            self._alarms.raise_("SELFTEST_FAILED", daily.trouble)
        else:
            self._alarms.clear("SELFTEST_FAILED")

    def _reap(self, one: _Running, now: float) -> None:
        assert one.process is not None
        code = one.process.returncode
        one.process, one.last_exit = None, _reason(code)
        if code in _HOPELESS and not self._ready:
            self._hopeless = code
        if now - one.started >= self.pace.settled:
            one.deaths = 0
        self._died(one, now)

    def _died(self, one: _Running, now: float) -> None:
        delay = min(self.pace.first * 2.0**one.deaths, self.pace.longest)
        one.healthy, one.deaths, one.due = False, one.deaths + 1, now + delay
        self.log.error("stage died", stage=one.stage.name, exit=one.last_exit, again_in_s=delay)
        state.append(self.folder, "stage died", stage=one.stage.name, exit=one.last_exit, again_in_s=delay)

    def _examine(self, one: _Running, pid: int, now: float) -> None:
        report = state.read(self.folder, one.stage.name)
        one.healthy = state.alive(report) and report is not None and report["pid"] == pid
        if one.healthy:
            one.well = now
        elif now - one.well > one.stage.hung_s:
            self.log.error("stage says nothing and is killed", stage=one.stage.name, silent_s=round(now - one.well))
            one.well = now  # killed once, not at each visit
            _signal(one, signal.SIGKILL)

    def _say(self, now: float) -> None:
        """Say how things are: to systemd, to the alarm, to run.json."""
        first = self._all[0]
        if first.healthy and not self._ready:
            self._ready = True
            self.log.info("ready")
            notify.ready(self._summary())
        down = {one.stage.name: why for one in self._all if (why := _trouble(one, now))}
        if down:
            text = "; ".join(f"{name}: {why}" for name, why in down.items())
            self._alarms.raise_("STAGE_DOWN", text, "critical" if first.stage.name in down else "warning")
        else:
            self._alarms.clear("STAGE_DOWN")
        if self._said != (summary := self._summary()):
            self._said = summary
            notify.status(summary)
        if first.healthy:
            notify.watchdog()
        self._report()

    def _report(self, stopping: bool = False) -> None:
        children = {
            one.stage.name: {
                "pid": one.process.pid if one.process is not None else None,
                "healthy": one.healthy,
                "restarts": max(one.starts - 1, 0),
                "since": one.since,
                "last_exit": one.last_exit,
            }
            for one in self._all
        }
        report = {"children": children, "ready": self._ready, "stopping": stopping, "alarms": self._alarms.active}
        state.write(self.folder, "run", report)

    def _summary(self) -> str:
        return ", ".join(f"{one.stage.name} {'up' if one.healthy else 'down'}" for one in self._all)

    def _reload(self) -> None:
        notify.reloading()
        if self.reload():
            self.log.info("reload")
            state.append(self.folder, "reload")
            for one in self._all:
                _signal(one, signal.SIGHUP)
        if self._ready:
            notify.ready(self._summary())

    def _stop(self) -> None:
        """Stop the stages one after the other: what one hands over, the next still takes."""
        notify.stopping()
        self.log.info("stopping")
        if self.daily is not None:
            self.daily.stop()
        for one in self._all:
            if one.process is None:
                continue
            self._drain(one)
            _signal(one, signal.SIGTERM)
            if not self._wait(one.stage.grace_s, partial(_ended, one)):
                self.log.error("stage does not end and is killed", stage=one.stage.name, after_s=one.stage.grace_s)
                _signal(one, signal.SIGKILL)
                one.process.wait()
            one.last_exit, one.process, one.healthy = _reason(one.process.returncode), None, False
            self.log.info("stage stopped", stage=one.stage.name, exit=one.last_exit)
        self._report(stopping=True)

    def _drain(self, one: _Running) -> None:
        """Let a stage do what the one before it has just handed over. A second Ctrl-C cuts that short."""
        began = time.time()

        def idle() -> bool:
            report = state.read(self.folder, one.stage.name) or {}
            return _ended(one) or (report.get("updated", 0) > began and not report.get("waiting"))

        if one.stage.drain_s:
            self._wait(one.stage.drain_s, idle, interruptible=True)

    def _wait(self, patience: float, over: Callable[[], bool], interruptible: bool = False) -> bool:
        """Wait until something is over, and return whether it is."""
        deadline = time.monotonic() + patience
        while not over():
            if time.monotonic() >= deadline:
                return False
            self._report(stopping=True)
            notify.watchdog()
            if self._next_signal(self.pace.tick) in (signal.SIGTERM, signal.SIGINT) and interruptible:
                return False
        return True


def _environment(environ: Mapping[str, str], secrets: bool) -> dict[str, str]:
    """Return the variables of a child: none of systemd's for this service, secrets only where it needs them."""
    kept = {name: value for name, value in environ.items() if name not in notify.VARIABLES}
    return kept if secrets else {name: value for name, value in kept.items() if not name.startswith(VARIABLES)}


def _prepare(mask: set[signal.Signals], parent: int) -> Callable[[], None]:
    """Return what a new stage does before it becomes its command.

    Should the supervisor be killed, the kernel stops the stage as SIGTERM does. SIGHUP is ignored until the stage
    knows what to do with it.
    """

    def prepare() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        die_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(ExitCode.SOFTWARE)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return prepare


def _trouble(one: _Running, now: float) -> str | None:
    """What is wrong with a stage; None for one that is well, or starts for the first time."""
    if one.process is None:
        return one.last_exit
    if one.healthy or not (one.deaths or now - one.well > state.FRESH_S):
        return None
    return f"{one.last_exit}, starting again" if one.deaths else "running, but says nothing"


def _ended(one: _Running) -> bool:
    return one.process is None or one.process.poll() is not None


def _signal(one: _Running, number: signal.Signals) -> None:
    if one.process is not None:
        one.process.send_signal(number)


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
