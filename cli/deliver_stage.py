"""The loop of the deliver stage: hand-overs in, couriers at work, the disk's account, the report."""

import os
import queue as queues
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import click

from ..storage import handover, state
from ..storage.courier import Courier, Report
from ..storage.parcel import Parcel, folders_in, parcels_in
from ..storage.queue import Queue, QueueError
from ..storage.removal import Ballast, disk_of, finish, remove
from ..storage.safe_text import for_terminal
from ..storage.space import DAY_S, WINDOW_DAYS, DiskAlarm, Limits, decide, per_day, size_text
from . import deliver_report as words
from .deliver_worker import Worker
from .exit_codes import ExitCode
from .settings import ConfigError, Settings
from .targets import configured_targets

WALK_EVERY_S = 3600.0
"""Seconds between two walks over the recordings, for those that nobody has handed over."""
WALK_SLICE_S = 0.2
SPACE_EVERY_S = 5.0
"""Seconds between two looks at the disk, and two counts of the queue while nothing happens."""
GRACE_S = 10.0
"""Seconds that couriers get to end."""
_COMMIT = 500

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
        self._workers: dict[str, Worker] = {}
        self._walk: Iterator[list[Parcel]] | None = None
        self._walk_due = self._space_due = self._count_due = 0.0
        self._disk: dict[str, object] = {}
        self._views: list[words.TargetView] = []
        self._trouble = ""
        self._queue = self._insist(lambda: Queue(self._state / "queue.sqlite"))

    @property
    def idle(self) -> bool:
        """Whether everything has been looked at and nothing is under way."""
        return self._walk is None and not any(worker.busy for worker in self._workers.values())

    def begin(self) -> None:
        """End what a kill has left half done, and set the couriers to work. Raises QueueError, OSError."""
        if self._queue.damaged:
            self.complain("the delivery queue was damaged and is set aside; a new one is made of what lies here")
        if left := self._queue.half_gone():
            self._insist(lambda: finish(left, self._root, self._queue, time.time()))
        if self._once:
            self._take()
            self._walk = self._forgotten()
            while self._walk is not None:
                self._step_walk()
        else:
            state.append(self._state, "deliver started")
        self._employ(self._settings)

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
        return (
            ExitCode.CANNOT_WRITE if self._trouble or any(view.totals.waiting for view in self._views) else ExitCode.OK
        )

    def reload(self, settings: Settings) -> None:
        """Take new settings. What cannot change while the stage runs raises ConfigError."""
        for key in ("recordings", "state"):
            if getattr(settings.storage, key) != getattr(self._settings.storage, key):
                raise ConfigError(f"storage.{key} has changed: restart `tapdeck deliver` for that")
        configured_targets(settings)  # what cannot be used is said before anything changes
        self._settings = settings
        self._dismiss()
        self._employ(settings)
        self._space_due = self._count_due = 0.0
        state.append(self._state, "deliver reloaded", targets=list(self._workers))

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

    def _employ(self, settings: Settings) -> None:
        wanted = configured_targets(settings)
        names = [target.name for target in wanted]
        self._insist(lambda: self._queue.want(names, again=not self._once))
        for target in wanted:
            courier = Courier(target, self._queue, self._root)
            self._workers[target.name] = Worker(courier, self._reports, self._once)

    def _dismiss(self) -> None:
        for worker in self._workers.values():
            worker.stop()
        deadline = time.monotonic() + GRACE_S
        for worker in self._workers.values():
            worker.join(max(deadline - time.monotonic(), 0.0))
        self._workers = {}

    def _take_in(self, now: float) -> None:
        if self._take() + self._step_walk():
            for worker in self._workers.values():
                worker.wake()

    def _take(self) -> int:
        """Take what was handed over into the queue; return how many."""
        count = 0
        while True:
            good, bad = handover.waiting(self._state, _COMMIT)
            for path, why in bad:
                self.complain(f"{path} is no hand-over and is set aside: {why}")
                handover.set_aside(path)
            if not good and not bad:
                return count
            self._queue.add(good, list(self._workers))
            for parcel in good:
                handover.taken(self._state, parcel)
            count += len(good)

    def _step_walk(self) -> int:
        """Go on with the walk over the recordings for a moment; return how many it has found."""
        now, count = time.monotonic(), 0
        if self._walk is None and now >= self._walk_due and not self._once:
            self._walk = self._forgotten()
        while self._walk is not None and time.monotonic() - now < WALK_SLICE_S:
            found = next(self._walk, None)
            if found is None:
                self._walk, self._walk_due = None, time.monotonic() + WALK_EVERY_S
            elif found:
                self._queue.add(found, list(self._workers))
                count += len(found)
        return count

    def _forgotten(self) -> Iterator[list[Parcel]]:
        """Yield, folder by folder, the recordings of which the queue knows nothing."""
        for folder in folders_in(self._root):
            try:
                parcels = list(parcels_in(self._root, folder, time.time()))
            except OSError as error:
                self.complain(f"{error.filename}: {error.strerror}: recordings there may not be delivered")
                continue
            known = self._queue.stems(str(folder)) if parcels else set()
            yield [parcel for parcel in parcels if parcel.stem not in known]

    def _look_at_space(self, now: float) -> None:
        if not _due(now, self._space_due, SPACE_EVERY_S):
            return
        self._space_due = now + SPACE_EVERY_S
        storage, names = self._settings.storage, frozenset(self._workers)
        here = next(folder for folder in (self._root, *self._root.absolute().parents) if folder.exists())
        disk = disk_of(here)
        used, lately, first = self._queue.here(now - WINDOW_DAYS * DAY_S)
        daily = per_day(lately, first, now)
        limits = Limits(storage.reserve_mb << 20, storage.warn_days)
        decision = decide(disk, daily, limits, self._queue.local(), names)
        self._disk = words.disk_report(disk, used, daily, decision)
        self._warn([*decision.alarms, *self._other_disk(here, limits)])
        if decision.go:
            gone = remove(decision.go, self._root, self._state, self._queue, self._ballast, now)
            for local in gone:
                _say(words.removed_json(local) if self._json else words.removed_line(local))
            used -= sum(local.parcel.bytes for local in gone)
            self._disk = words.disk_report(disk_of(here), used, daily, decision)
        elif disk.free > limits.reserve:
            self._ballast.fill()

    def _other_disk(self, here: Path, limits: Limits) -> Iterator[DiskAlarm]:
        """Yield an alarm if running calls lie on a disk of their own that is full."""
        spool = Path(self._settings.storage.spool)
        if spool.exists() and spool.stat().st_dev != here.stat().st_dev:
            disk = disk_of(spool)
            if disk.free < limits.reserve:
                free = f"the disk of {spool}: {size_text(disk.free)} of {size_text(disk.total)} are free"
                yield DiskAlarm("DISK_FULL", "critical", f"{free}: make room there, or running calls are lost")

    def _warn(self, alarms: list[DiskAlarm]) -> None:
        raised = {alarm.code: alarm for alarm in reversed(alarms)}
        for code in ("DISK_LOW", "DISK_FULL"):
            if code in raised:
                self._alarms.raise_(code, raised[code].text, raised[code].severity)
            else:
                self._alarms.clear(code)

    def _tell(self, now: float) -> None:
        """Print and log what the couriers have done."""
        while not self._reports.empty():
            report = self._reports.get()
            _say(words.json_line(report) if self._json else words.line(report))
            if report.outcome == "delivered":
                facts = {"id": report.id, "target": report.target, "folder": report.folder, "bytes": report.bytes}
                state.append(self._state, "delivered", **facts)
            self._count_due = 0.0

    def _report(self, now: float) -> None:
        if _due(now, self._count_due, SPACE_EVERY_S):
            self._count(now)
        views = self._views
        for code, found in (("DELIVER_FAILED", self._failure(views, now)), ("NAME_TAKEN", words.name_taken(views))):
            if found is None:
                self._alarms.clear(code)
            else:
                self._alarms.raise_(code, *found)
        targets = [view.as_dict() for view in views]
        state.write(self._state, "deliver", {"targets": targets, "disk": self._disk, "alarms": self._alarms.active})

    def _count(self, now: float) -> None:
        try:
            self._views = [
                words.TargetView(
                    name,
                    self._queue.target(name),
                    self._queue.totals(name, now),
                    worker.courier.silent_for(),
                    worker.trouble,
                )
                for name, worker in self._workers.items()
            ]
            self._count_due = now + SPACE_EVERY_S
        except QueueError as error:
            self._trouble = str(error)

    def _failure(self, views: list[words.TargetView], now: float) -> words.Words | None:
        return (self._trouble, "critical") if self._trouble else words.failure(views, now)


def _due(now: float, moment: float, interval: float) -> bool:
    """Whether a moment has come, on a clock that may be set back."""
    return now >= moment or moment - now > interval


def _say(text: str) -> None:
    """Print a line. When the reader has gone, delivery goes on without it."""
    try:
        click.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
