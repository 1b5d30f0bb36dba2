"""The queue between capture and the disk: bounded memory, one thread that writes, so that a slow disk never reaches
the ring.

What a full or broken disk refuses is tried again until it is taken. When the memory is full, media that comes then is
given up and counted, call by call; what was said and decided is kept in as much memory again.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from .spool import Job, Vanished

RETRY_S = 0.5


class Files(Protocol):
    """Where jobs are done: `spool.SpoolFiles`."""

    def do(self, job: Job) -> None:
        """Do a job. Raises OSError if it is to be tried again, Vanished if that is in vain; files are whole then."""

    def sync(self) -> None:
        """Make all that was done durable, or raise OSError."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """How the queue is: bytes that wait, and the error that holds it up or an empty text."""

    waiting: int
    error: str


class SpoolQueue:
    """Takes jobs from one thread and does them in another. `limit` is in bytes, `sync_s` in seconds."""

    def __init__(self, files: Files, limit: int, sync_s: float) -> None:
        self._files = files
        self._limit = limit
        self._sync_s = sync_s
        self._jobs: deque[Job] = deque()
        self._waiting = 0
        self._error = ""
        self._vanished: list[Job] = []
        self._stopping = False
        self._fault: BaseException | None = None
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)

    def start(self) -> None:
        """Start writing; privileges have been dropped by then."""
        self._thread.start()

    def put(self, jobs: list[Job]) -> list[Job]:
        """Take jobs; return those whose media is given up: it found no room, or its file is gone. Never waits.

        Raises what has ended the writing thread, if anything has: a recorder that cannot write must not seem to.
        """
        if self._fault is not None:
            raise self._fault
        with self._change:
            lost, self._vanished = self._vanished, []
            for job in jobs:
                if self._waiting + job.size > self._limit and job.frames:
                    lost.append(job)
                    job = _without_media(job)
                if self._waiting + job.size > 2 * self._limit:
                    continue
                self._jobs.append(job)
                self._waiting += job.size
            self._change.notify()
        return lost

    @property
    def backlog(self) -> Backlog:
        """How the queue is."""
        return Backlog(self._waiting, self._error)

    def stop(self, patience_s: float) -> int:
        """Write what waits, for at most `patience_s` seconds; return the bytes that could not be written."""
        with self._change:
            self._stopping = True
            self._change.notify()
        self._thread.join(patience_s)
        if self._fault is not None:
            raise self._fault
        return self._waiting

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that puts
            self._fault = error

    def _work(self) -> None:
        synced, dirty = time.monotonic(), False
        while True:
            with self._change:
                if not self._jobs and not self._stopping:
                    self._change.wait(self._sync_s)
                job = self._jobs[0] if self._jobs else None
            if job is None and self._stopping:
                if dirty:
                    self._insist(self._files.sync)
                return
            if job is not None:
                self._do(job)
                dirty = True
            if dirty and time.monotonic() - synced >= self._sync_s:
                dirty = not self._try(self._files.sync)
                synced = time.monotonic()

    def _do(self, job: Job) -> None:
        """Do the first job, however long that takes, and take it out."""
        gone = False
        try:
            self._insist(lambda: self._files.do(job))
        except Vanished:
            gone = True
        with self._change:
            self._jobs.popleft()
            self._waiting -= job.size
            if gone and job.frames:
                self._vanished.append(job)

    def _insist(self, what: Callable[[], None]) -> None:
        while not self._try(what):
            time.sleep(RETRY_S)

    def _try(self, what: Callable[[], None]) -> bool:
        try:
            what()
        except OSError as error:
            self._error = f"{error.filename or 'spool'}: {error.strerror or error}"
            return False
        self._error = ""
        return True


def _without_media(job: Job) -> Job:
    """Return the job with what was said and decided only: media are the views into a cycle's packet blocks."""
    pieces = [piece for piece in job.pieces if isinstance(piece, bytes)]
    return replace(job, pieces=pieces, size=sum(map(len, pieces)), frames=0, first=False)
