"""The deliver stage's account of the disk here: what goes because it is old enough, or because room runs short."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..storage.queue import Queue
from ..storage.removal import DISK_LOW, Ballast, disk_of, remove
from ..storage.retention import keep_local
from ..storage.space import (
    DAY_S,
    WINDOW_DAYS,
    DiskAlarm,
    Limits,
    Local,
    Outlook,
    Receivers,
    decide,
    may_go,
    per_day,
    size_text,
)
from ..storage.state import Alarms
from . import deliver_report as words
from .settings import StorageSettings
from .targets import Destination

_AT_A_TIME = 200
"""Recordings that go at a time because of their age: the stage has other work too."""


class DiskKeeper:
    """Looks after the disk that holds the recordings. Its methods raise QueueError, OSError."""

    def __init__(self, storage: StorageSettings, queue: Queue, alarms: Alarms, ballast: Ballast) -> None:
        self._storage, self._queue, self._alarms, self._ballast = storage, queue, alarms, ballast
        self._root, self._state = Path(storage.recordings), Path(storage.state)
        self._limits = Limits(storage.reserve_mb << 20, storage.warn_days, keep=keep_local(storage.keep_local))
        self.report: dict[str, Any] = {}

    def use(self, storage: StorageSettings) -> None:
        """Take new settings."""
        self._storage = storage
        self._limits = Limits(storage.reserve_mb << 20, storage.warn_days, keep=keep_local(storage.keep_local))

    def look(self, destinations: Sequence[Destination], now: float) -> Iterator[tuple[Local, str]]:
        """Look after everything once; yield what has gone from the disk, and why."""
        receivers = Receivers(
            frozenset(one.name for one in destinations),
            frozenset(one.name for one in destinations if one.settings.required),
        )
        for local in self._old_enough(receivers, now):
            yield local, f"storage.keep_local = {self._storage.keep_local}"
        here = next(folder for folder in (self._root, *self._root.absolute().parents) if folder.exists())
        disk = disk_of(here)
        used, lately, first = self._queue.here(now - WINDOW_DAYS * DAY_S)
        daily = per_day(lately, first, now)
        recordings = self._queue.local(receivers.required)
        limits = self._limits if receivers.targets else replace(self._limits, keep=None)  # then nothing goes
        decision = decide(disk, daily, limits, recordings, receivers, self._outlook(receivers, now))
        self.report = words.disk_report(disk, used, daily, decision)
        self._warn([*decision.alarms, *self._other_disk(here)])
        if decision.go:
            gone = remove(decision.go, self._root, self._state, self._queue, self._ballast, now)
            used -= sum(local.parcel.bytes for local in gone)
            self.report = words.disk_report(disk_of(here), used, daily, decision)
            yield from ((local, DISK_LOW) for local in gone)
        elif disk.free > self._limits.reserve:
            self._ballast.fill()

    def _old_enough(self, receivers: Receivers, now: float) -> list[Local]:
        """Remove what has been here for long enough, and return it."""
        if self._limits.keep is None or not receivers.targets:
            return []
        found = self._queue.local(receivers.required, now - self._limits.keep)
        chosen = list(islice((one for one in found if may_go(one, receivers, self._limits.copies)), _AT_A_TIME))
        reason = f"storage.keep_local = {self._storage.keep_local}"
        return remove(chosen, self._root, self._state, self._queue, self._ballast, now, reason) if chosen else []

    def _outlook(self, receivers: Receivers, now: float) -> Outlook:
        """Return when what lies here will be old enough to go, and what must not go although it is a day old."""
        stuck = self._queue.by_day(now - DAY_S, receivers.required) if receivers.required else {}
        backlog = sum(stuck.values())
        if self._limits.keep is None:
            return Outlook(backlog=backlog)
        leaving = [
            (max((day + 1) * DAY_S + self._limits.keep - now, 0.0) / DAY_S, size - stuck.get(day, 0))
            for day, size in self._queue.by_day(now).items()
        ]
        return Outlook(tuple(sorted(leaving)), backlog)

    def _other_disk(self, here: Path) -> Iterator[DiskAlarm]:
        """Yield an alarm if running calls lie on a disk of their own that is full."""
        spool = Path(self._storage.spool)
        if spool.exists() and spool.stat().st_dev != here.stat().st_dev:
            disk = disk_of(spool)
            if disk.free < self._limits.reserve:
                free = f"the disk of {spool}: {size_text(disk.free)} of {size_text(disk.total)} are free"
                yield DiskAlarm("DISK_FULL", "critical", f"{free}: make room there, or running calls are lost")

    def _warn(self, alarms: list[DiskAlarm]) -> None:
        raised = {alarm.code: alarm for alarm in reversed(alarms)}
        for code in ("DISK_LOW", "DISK_FULL"):
            if code in raised:
                self._alarms.raise_(code, raised[code].text, raised[code].severity)
            else:
                self._alarms.clear(code)
