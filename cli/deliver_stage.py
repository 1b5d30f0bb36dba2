"""The loop of the deliver stage: recordings in, couriers at work, the disk's account, the report."""

import os
import queue as queues
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from ..storage import state
from ..storage.courier import Courier, Report
from ..storage.dispatch import Dispatch, Terms
from ..storage.localtime import Zone
from ..storage.pace import Pauses, bandwidth, hours
from ..storage.queue import Queue, QueueError
from ..storage.removal import Ballast, finish
from ..storage.safe_text import for_terminal
from . import deliver_report as words
from .deliver_disk import DiskKeeper
from .deliver_intake import Intake
from .deliver_worker import Crew
from .exit_codes import ExitCode
from .settings import ConfigError, Settings
from .targets import Destination, destinations

SPACE_EVERY_S = 5.0
"""Seconds between two looks at the disk, and two counts of the queue while nothing happens."""
GRACE_S = 10.0
"""Seconds that couriers get to end."""

Result = TypeVar("Result")


class DeliverStage:
    """Everything that the stage does; `tick` once a second. Only a queue that cannot be opened ends it."""

    def __init__(self, settings: Settings, once: bool = False, as_json: bool = False) -> None:
        self._settings = settings
        self._once, self._json = once, as_json
        self._state, self._root = Path(settings.storage.state), Path(settings.storage.recordings)
        self._alarms = state.Alarms(self._state, "deliver")
        self._alarms.take_over()  # an outage that outlives us is one alarm
        self._ballast = Ballast(self._state)
        self._reports: queues.SimpleQueue[Report] = queues.SimpleQueue()
        self._destinations: list[Destination] = []
        self._crews: dict[str, Crew] = {}
        self._space_due = self._count_due = 0.0
        self._views: list[words.TargetView] = []
        self._trouble = ""
        self._queue = self._insist(lambda: Queue(self._state / "queue.sqlite"))
        self._intake = Intake(self._state, self._root, self._queue, self.complain)
        self._disk = DiskKeeper(settings.storage, self._queue, self._alarms, self._ballast)

    @property
    def idle(self) -> bool:
        """Whether everything has been looked at and nothing is under way."""
        return self._intake.idle and not any(crew.busy for crew in self._crews.values())

    def begin(self) -> None:
        """End what a kill has left half done, and set the couriers to work. Raises QueueError, OSError, ConfigError."""
        if self._queue.damaged:
            self.complain("the delivery queue was damaged and is set aside; a new one is made of what lies here")
        if left := self._queue.half_gone():
            self._insist(lambda: finish(left, self._root, self._queue, time.time()))
        self._serve(destinations(self._settings))
        if self._once:
            self._intake.all_at_once()
        else:
            state.append(self._state, "deliver started")
        self._employ()

    def tick(self, now: float) -> None:
        """Look after everything once. `now` is in seconds since the epoch."""
        self._trouble = ""
        for work in (self._look_at_space, self._take_in, self._tell):
            try:
                work(now)
            except (QueueError, OSError) as error:
                self._trouble = str(error)
        self._report(now)

    def conclude(self) -> int:
        """Return the exit code of a run that ends by itself."""
        self._tell(time.time())
        self._count_due = self._space_due = 0.0
        self.tick(time.time())
        left = any(view.totals.waiting or view.totals.lost for view in self._views)
        return ExitCode.CANNOT_WRITE if self._trouble or left else ExitCode.OK

    def reload(self, settings: Settings) -> None:
        """Take new settings. What cannot change while the stage runs raises ConfigError."""
        for key in ("recordings", "state"):
            if getattr(settings.storage, key) != getattr(self._settings.storage, key):
                raise ConfigError(f"storage.{key} has changed: restart `tapdeck deliver` for that")
        wanted = destinations(settings)  # what cannot be used is said before anything changes
        self._settings = settings
        self._disk.use(settings.storage)
        self._dismiss()
        self._serve(wanted)
        self._employ()
        self._space_due = self._count_due = 0.0
        state.append(self._state, "deliver reloaded", targets=list(self._crews))

    def complain(self, text: str) -> None:
        """Say what is wrong, here and in the event log."""
        state.append(self._state, "complaint", stage="deliver", text=text)
        click.echo(for_terminal(text, 1000), err=True)

    def end(self) -> None:
        """Stop the couriers; what they were at stays in the queue."""
        self._dismiss()
        self._tell(time.time())
        if not self._once:
            state.append(self._state, "deliver stopped")
        self._queue.close()

    def _insist(self, work: Callable[[], Result]) -> Result:
        """Do something with the queue, also on a disk that has filled up while nobody was looking."""
        while True:
            try:
                return work()
            except QueueError:
                if not self._ballast.give():
                    raise

    def _serve(self, wanted: list[Destination]) -> None:
        self._destinations = wanted
        self._insist(lambda: self._intake.serve(wanted, again=not self._once))

    def _employ(self) -> None:
        for one in self._destinations:
            dispatch = Dispatch(one.name, self._queue, self._root, _terms(one, self._settings))
            couriers = [Courier(one.make(), dispatch) for _ in range(one.settings.connections)]
            self._crews[one.name] = Crew(dispatch, couriers, self._reports, self._once)

    def _dismiss(self) -> None:
        for crew in self._crews.values():
            crew.stop()
        deadline = time.monotonic() + GRACE_S
        for crew in self._crews.values():
            crew.join(deadline)
        self._crews = {}

    def _take_in(self, now: float) -> None:
        if self._intake.step(walks=not self._once) > 0:
            for crew in self._crews.values():
                crew.wake()

    def _look_at_space(self, now: float) -> None:
        if not _due(now, self._space_due, SPACE_EVERY_S):
            return
        self._space_due = now + SPACE_EVERY_S
        for local, reason in self._disk.look(self._destinations, now):
            _say(words.removed_json(local, reason) if self._json else words.removed_line(local, reason))

    def _tell(self, now: float) -> None:
        """Print and log what the couriers have done."""
        while not self._reports.empty():
            report = self._reports.get()
            _say(words.json_line(report) if self._json else words.line(report))
            facts = {"id": report.id, "target": report.target}
            if report.outcome == "delivered":
                state.append(self._state, "delivered", **facts, folder=report.folder, bytes=report.bytes)
            elif report.outcome == "lost":
                state.append(self._state, "recording lost", **facts, text=report.error)
                self._intake.look_for_lost_now()
            self._count_due = 0.0

    def _report(self, now: float) -> None:
        if _due(now, self._count_due, SPACE_EVERY_S):
            self._count(now)
        raised: set[tuple[str, str]] = set()
        if self._trouble:
            raised.add(self._raise("DELIVER_FAILED", "", (self._trouble, "critical")))
        if found := words.lost(self._intake.lost):
            raised.add(self._raise("RECORDING_LOST", "", found))
        for view in self._views:
            for code, found in (("DELIVER_FAILED", words.failure(view, now)), ("NAME_TAKEN", words.name_taken(view))):
                if found:
                    raised.add(self._raise(code, view.name, found))
        for alarm in self._alarms.active:
            mine = alarm["code"] in ("DELIVER_FAILED", "NAME_TAKEN", "RECORDING_LOST")
            if mine and (alarm["code"], alarm["about"]) not in raised:
                self._alarms.clear(alarm["code"], alarm["about"])
        targets = [view.as_dict() for view in self._views]
        state.write(
            self._state, "deliver", {"targets": targets, "disk": self._disk.report, "alarms": self._alarms.active}
        )

    def _raise(self, code: str, about: str, found: words.Words) -> tuple[str, str]:
        self._alarms.raise_(code, *found, about=about)
        return code, about

    def _count(self, now: float) -> None:
        try:
            self._views = [self._view(name, crew, now) for name, crew in self._crews.items()]
            self._count_due = now + SPACE_EVERY_S
        except QueueError as error:
            self._trouble = str(error)

    def _view(self, name: str, crew: Crew, now: float) -> words.TargetView:
        target, totals = self._queue.target(name), self._queue.totals(name, now)
        return words.TargetView(name, target, totals, crew.silent_for, crew.trouble, crew.rate(), crew.dispatch.opens())


def _terms(one: Destination, settings: Settings) -> Terms:
    """Return how a target is served. Its hours are local time, also where names are in UTC."""
    return Terms(
        route=one.route,
        pauses=Pauses(settings.deliver.first_pause_s, settings.deliver.longest_pause_s),
        hours=hours(one.settings.hours, Zone(settings.recording.timezone)),
        bandwidth=bandwidth(one.settings.limit_kbit),
        read_back=one.settings.read_back,
    )


def _due(now: float, moment: float, interval: float) -> bool:
    """Whether a moment has come, on a clock that may be set back."""
    return now >= moment or moment - now > interval


def _say(text: str) -> None:
    """Print a line. When the reader has gone, delivery goes on without it."""
    try:
        click.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
