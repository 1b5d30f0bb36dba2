"""`tapdeck selftest`: a synthetic call through parser, spool, WAV, seal and every target, and what came of it."""

import hashlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..sniffer.finding import Colour, Finding, bad, ok, unjudged
from ..sniffer.synthetic import NAME, synthetic_call
from ..storage import state
from ..storage.safe_text import for_json, for_terminal
from ..storage.selftest import MISTAKE, Failed, SelfTest, clear
from . import lock
from .apart import Broken, NoAnswer, apart
from .config import load, with_options
from .exit_codes import ExitCode, Verdict
from .parts import live_engine, origin, sealer
from .privileges import user_entry
from .settings import SECTIONS, ConfigError, Settings
from .targets import configured_targets, known_targets
from .users import with_present_users

LIMIT_S = 120.0
"""What a step gets. On a healthy machine it takes a tenth of a second."""
HANGS = "A disk, or the connection to it, hangs: look at the system's log (journalctl -k)."
_FOLDERS = ("recordings", "spool", "state")
_ETHERNET = 1
_BEFORE_NS = 10_000_000_000
_STYLES: dict[Colour, dict[str, Any]] = {
    Colour.GREEN: {"fg": "green"},
    Colour.RED: {"fg": "red", "bold": True},
    Colour.OPEN: {"dim": True},
}
_ORPHANS_END_S = 15.0
_SIGNALS = {signal.SIGINT, signal.SIGTERM}

Show = Callable[[Finding, float], None]


class NotAllowed(click.ClickException):
    """This user is not the box's own: what he may not write says nothing of the box."""

    exit_code = ExitCode.NO_PERMISSION


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@with_options(*SECTIONS)
def selftest(as_json: bool, config: Path | None, **options: Any) -> int:
    """Send a synthetic call through the box, and say whether it came through.

    The call is read as from the wire, kept in the spool, made a recording and delivered to each target: with the code,
    the settings and the users of the stages, in folders of its own that are removed again. It disturbs no call that is
    being recorded, and needs neither the interface nor root. The exit code is 0 if all is well, 1 if a step failed.
    """
    settings = with_present_users(load(config, options))
    _check_place(settings)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    held = lock.hold(Path(settings.storage.state), "selftest", _ORPHANS_END_S)
    try:
        report = Run(settings, _silence if as_json else show_line).run()
    finally:
        os.close(held)
    if as_json:
        click.echo(json.dumps(for_json(report), ensure_ascii=False))
    else:
        click.echo(_last_line(report))
    return Verdict.PASSED if report["passed"] else Verdict.FAILED


def show_line(step: Finding, seconds: float) -> None:
    """Print what came of a step, and what to do where something is to be done."""
    mark = f"{step.colour.value:<5}"
    shown = click.style(mark, **_STYLES[step.colour]) if sys.stdout.isatty() else mark
    click.echo(f"{shown}  {seconds:6.2f} s  {for_terminal(step.check)}: {for_terminal(step.seen, 1000)}")
    if step.todo:
        click.echo(f"{'':<7}> {for_terminal(step.todo, 1000)}")


def _silence(step: Finding, seconds: float) -> None:
    """For JSON, which says all at once."""


def _last_line(report: dict[str, Any]) -> str:
    if report["passed"]:
        return f"\nPassed: a call comes through every step, in {report['seconds']:.1f} s."
    failed = ", ".join(step["check"] for step in report["steps"] if step["colour"] == Colour.RED.value)
    return f"\nFailed: {for_terminal(failed, 1000)}."


def _check_place(settings: Settings) -> None:
    """Raises ConfigError where there is nothing to test, and NotAllowed. Nothing is made that an installation makes."""
    for key in _FOLDERS:
        path = Path(getattr(settings.storage, key))
        if not path.is_dir():
            raise ConfigError(
                f"storage.{key}: there is no folder {path}: run `tapdeck install`, or start `tapdeck run` once"
            )
        if os.geteuid() != 0 and not os.access(path, os.W_OK | os.X_OK):
            raise NotAllowed(f"{path}: permission denied: run it as root, or as the user that runs Tapdeck")
    if os.geteuid() == 0:
        for stage in ("capture", "seal", "deliver"):
            if user := getattr(settings.users, stage):
                user_entry(user, f"users.{stage}")


@dataclass(frozen=True, slots=True)
class Step:
    """What is done as the user of a stage. `needs` is a step without which it makes no sense; `setting` names the place
    to look at where the system refuses something.
    """

    check: str
    needs: str
    stage: str
    setting: str
    work: Callable[[], str]


def steps(settings: Settings, test: SelfTest) -> Iterator[Step]:
    """Yield the steps of a self-test in their order."""
    yield Step("capture", "", "capture", "", test.hear)
    yield Step("spool", "capture", "capture", "storage.spool", test.keep)
    yield Step("seal", "spool", "seal", "storage.recordings", test.seal)
    yield Step("sound", "seal", "seal", "storage.recordings", test.compare_sound)
    yield Step("info file", "seal", "seal", "storage.recordings", test.read_info)
    known = known_targets(Path(settings.storage.state))
    for target in configured_targets(settings):
        work = partial(test.deliver, target, target.name in known)
        yield Step(f"target {target.name}", "seal", "deliver", "storage.recordings", work)


def self_test(settings: Settings) -> SelfTest:
    """Return a self-test with a call of its own, made of what the stages are made of."""
    storage = settings.storage
    where = f"{os.uname().nodename}\0{Path(storage.state).resolve()}"  # several boxes may share a target
    return SelfTest(
        call=synthetic_call(secrets.token_hex(8), time.time_ns() - _BEFORE_NS, settings.sip.ports[0]),
        name=f".{NAME}-{hashlib.sha256(where.encode()).hexdigest()[:8]}",
        spool=Path(storage.spool),
        recordings=Path(storage.recordings),
        state=Path(storage.state),
        engine=lambda: live_engine(settings, (_ETHERNET,)),
        origin=origin(settings, NAME, live_engine(settings, (_ETHERNET,)).links),
        sealer=partial(sealer, settings),
    )


@dataclass(slots=True)
class Run:
    """One run: `show` is told of each step as it is done."""

    settings: Settings
    show: Show
    found: list[tuple[Finding, float]] = field(default_factory=list)
    _critical: bool = False

    def run(self) -> dict[str, Any]:
        """Do all steps, store what came of them, and return it."""
        began, test = time.monotonic(), self_test(self.settings)
        clearing = [
            Step("tidying up", "", "capture", "storage.spool", partial(clear, test.spool / test.name)),
            Step("tidying up", "", "seal", "storage.recordings", partial(clear, test.recordings / test.name)),
            Step("tidying up", "", "seal", "storage.state", partial(clear, test.state / test.name)),
        ]
        try:
            self._clear(clearing, quiet=True)  # what a killed self-test has left
            for step in steps(self.settings, test):
                self._do(step)
        finally:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            self._clear(clearing, quiet=False)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self._conclude(time.monotonic() - began)

    def _do(self, step: Step) -> None:
        began = time.monotonic()
        green = {finding.check for finding, _ in self.found if finding.colour is Colour.GREEN}
        if step.needs and step.needs not in green:
            self._add(unjudged(step.check, f"not tried: it needs what {step.needs} gives"), 0.0)
            return
        finding = self._attempt(step)
        self._critical |= finding.colour is Colour.RED and step.stage != "deliver"
        self._add(finding, time.monotonic() - began)

    def _clear(self, clearing: list[Step], quiet: bool) -> None:
        began = time.monotonic()
        found = [self._attempt(step) for step in clearing]
        wrong = next((finding for finding in found if finding.colour is Colour.RED), None)
        if wrong is not None:
            self._critical = True
            self._add(wrong, time.monotonic() - began)
        elif not quiet:
            self._add(ok("tidying up", "nothing of the call is left"), time.monotonic() - began)

    def _attempt(self, step: Step) -> Finding:
        users = self.settings.users
        user = getattr(users, step.stage)
        try:
            said = apart(partial(_outcome, step, user), user, users.group, f"users.{step.stage}", LIMIT_S)
        except NoAnswer as error:
            return bad(step.check, str(error), HANGS)
        except Broken as error:
            return bad(step.check, str(error), MISTAKE)
        return bad(step.check, *said) if len(said) > 1 else ok(step.check, *said)

    def _add(self, finding: Finding, seconds: float) -> None:
        self.found.append((finding, seconds))
        self.show(finding, seconds)

    def _conclude(self, seconds: float) -> dict[str, Any]:
        """Store the report, tell the event log, and raise or end the alarm."""
        folder = Path(self.settings.storage.state)
        failed = [finding for finding, _ in self.found if finding.colour is Colour.RED]
        alarms = state.Alarms(folder, "selftest")
        alarms.take_over()
        if failed:
            text = "; ".join(f"{finding.check}: {finding.seen}" for finding in failed)
            text = f"the self-test fails: {text}. Run `tapdeck selftest` to see what to do"
            alarms.raise_("SELFTEST_FAILED", text, "critical" if self._critical else "warning")
        else:
            alarms.clear("SELFTEST_FAILED")
        names = [finding.check for finding in failed]
        state.append(folder, "selftest", passed=not failed, failed=names, seconds=round(seconds, 2))
        report = {
            "passed": not failed,
            "ended": datetime.now().astimezone().isoformat(timespec="seconds"),
            "seconds": round(seconds, 2),
            "steps": [_as_dict(finding, duration) for finding, duration in self.found],
            "alarms": alarms.active,
        }
        if not state.write(folder, "selftest", report):
            todo = "Make room on its disk; `tapdeck status` does not know of this run."
            self._add(bad("report", f"the result cannot be written to {folder}", todo), 0.0)
            report |= {"passed": False, "steps": [_as_dict(finding, duration) for finding, duration in self.found]}
        return report


def _outcome(step: Step, user: str) -> list[str]:
    """Do a step; return what was seen, and what to do if that is bad."""
    try:
        return [step.work()]
    except Failed as error:
        seen, todo = error.seen, error.todo
    except OSError as error:
        seen, todo = f"{error.filename or step.setting}: {error.strerror or error}", None
    who = f"the user {user}" if user else "this user"
    place = f"Look at the folder and the disk of {step.setting}: is there room, may {who} write there? "
    return [seen, place + "`tapdeck install` sets it up." if todo is None else todo]


def _as_dict(finding: Finding, seconds: float) -> dict[str, Any]:
    return {
        "check": finding.check,
        "colour": finding.colour.value,
        "seen": finding.seen,
        "todo": finding.todo,
        "seconds": round(seconds, 3),
    }
