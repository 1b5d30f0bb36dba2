"""What comes into the delivery queue: hand-overs, recordings that nobody has handed over, what a new target lacks, and
recordings that were lost and are back.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..storage import handover
from ..storage.about import read_about
from ..storage.choice import selection_text
from ..storage.jobs import Job
from ..storage.parcel import Parcel, folders_in, parcels_in
from ..storage.queue import Queue
from .targets import Destination

WALK_EVERY_S = 3600.0
"""Seconds between two walks over the recordings, for those that nobody has handed over."""
LOST_EVERY_S = 60.0
"""Seconds between two looks for recordings that were lost."""
_SLICE_S = 0.2
_COMMIT = 500


class Intake:
    """Fills the queue, a little at a time. Its methods raise QueueError, OSError."""

    def __init__(self, state: Path, root: Path, queue: Queue, complain: Callable[[str], None]) -> None:
        self._state, self._root, self._queue, self._complain = state, root, queue, complain
        self._destinations: dict[str, Destination] = {}
        self._walk: Iterator[list[Parcel]] | None = None
        self._walk_due = self._lost_due = 0.0
        self._undecided: dict[str, int] = {}
        self.lost: list[Job] = []

    @property
    def idle(self) -> bool:
        """Whether nothing is half looked through."""
        return self._walk is None and not self._undecided

    def serve(self, destinations: Sequence[Destination], again: bool) -> None:
        """Fill the queue for these targets. See Queue.want."""
        self._destinations = {one.name: one for one in destinations}
        selections = {one.name: selection_text(one.route.selection) for one in destinations}
        self._queue.want(list(self._destinations), again, selections)
        self._undecided = {name: -1 for name, selection in selections.items() if selection}
        self._lost_due = 0.0

    def all_at_once(self) -> None:
        """Take in everything that there is, for a run that ends by itself."""
        self.take()
        self._walk = self._forgotten()
        while self._walk is not None:
            self._step_walk()
        while self._undecided:
            self._decide()
        self._look_for_lost()

    def step(self, walks: bool = True) -> int:
        """Take in what there is, for a moment at most; return how many recordings that were. Without `walks` nobody
        looks for recordings that were not handed over.
        """
        if walks and self._walk is None and time.monotonic() >= self._walk_due:
            self._walk = self._forgotten()
        return self.take() + self._step_walk() + self._decide() + self._look_for_lost()

    def take(self) -> int:
        """Take what was handed over into the queue; return how many."""
        count = 0
        while True:
            good, bad = handover.waiting(self._state, _COMMIT)
            for path, why in bad:
                self._complain(f"{path} is no hand-over and is set aside: {why}")
                handover.set_aside(path)
            if not good and not bad:
                return count
            self._add(good)
            for parcel in good:
                handover.taken(self._state, parcel)
            count += len(good)

    def _add(self, parcels: Sequence[Parcel]) -> None:
        self._queue.add(parcels, list(self._destinations), self._wants)

    def _wants(self, target: str, parcel: Parcel) -> bool:
        """Whether a target gets a recording. One that cannot be read is for all: delivering it will say why not."""
        route = self._destinations[target].route
        if not selection_text(route.selection):
            return True
        try:
            return route.wants(read_about(self._root, parcel))
        except OSError:
            return True

    def _step_walk(self) -> int:
        """Go on with the walk over the recordings for a moment; return how many it has found."""
        until, count = time.monotonic() + _SLICE_S, 0
        while self._walk is not None and time.monotonic() < until:
            found = next(self._walk, None)
            if found is None:
                self._walk, self._walk_due = None, time.monotonic() + WALK_EVERY_S
            elif found:
                self._add(found)
                count += len(found)
        return count

    def _forgotten(self) -> Iterator[list[Parcel]]:
        """Yield, folder by folder, the recordings of which the queue knows nothing."""
        for folder in folders_in(self._root):
            try:
                parcels = list(parcels_in(self._root, folder, time.time()))
            except OSError as error:
                self._complain(f"{error.filename}: {error.strerror}: recordings there may not be delivered")
                continue
            known = self._queue.stems(str(folder)) if parcels else set()
            yield [parcel for parcel in parcels if parcel.stem not in known]

    def _decide(self) -> int:
        """Go on for a moment with what is here and new targets may want; return how many."""
        until, count = time.monotonic() + _SLICE_S, 0
        while self._undecided and time.monotonic() < until:
            target, after = next(iter(self._undecided.items()))
            found = self._queue.undecided(target, after)
            self._queue.decide(target, [(number, one, self._wants(target, one)) for number, one in found])
            count += len(found)
            if found:
                self._undecided[target] = found[-1][0]
            else:
                del self._undecided[target]
        return count

    def _look_for_lost(self) -> int:
        """See which of the lost recordings are back; return how many."""
        if time.monotonic() < self._lost_due:
            return 0
        self._lost_due = time.monotonic() + LOST_EVERY_S
        lost = self._queue.lost(list(self._destinations))
        back = [job for job in lost if all((self._root / file).is_file() for file in job.parcel.files)]
        self._queue.found(back)
        self.lost = [job for job in lost if job not in back]
        return len(back)

    def look_for_lost_now(self) -> None:
        """Look at once the next time: another one was lost, or somebody has taken note."""
        self._lost_due = 0.0
