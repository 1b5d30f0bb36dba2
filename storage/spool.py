"""The spool: one pcapng file a running call, appended to as the packets come, handed over by rename when it is over.

    <spool>/live/ID.pcapng     running calls
    <spool>/done/ID.pcapng     calls that are over: the seal stage's
    <spool>/resume/ID.pcapng   what was said in calls that ran on when capture was stopped

A file stands by itself: interface 0 holds the call's SIP, one datagram a message, and what was put together from
fragments; the others hold frames as they were captured. Decisions of the capture stage are JSON in comments: the
section's says whose the file is (`Head`), those of interface statistics what happened since (notes).
"""

import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..sniffer import blocks
from ..sniffer.correlator import Leg
from ..sniffer.live import Begun, Item, Media, Noted, Over, Spoke
from .atomic import make_folder, sync_filesystem
from .names import call_seed, recording_id
from .spool_file import Head, note_block

LIVE, DONE, RESUME = "live", "done", "resume"
FILE_MODE = 0o640
MAX_PIECES = 512
"""Pieces written by one writev(2): the system's limit is 1,024."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What every spool of a run has in common: the recorder, its interfaces by link type, and its clock's steps."""

    instance: str
    host: str
    version: str
    interfaces: str
    links: tuple[int, ...]


@dataclass(slots=True)
class Job:
    """What is to be done to one call's file, in one go: `pieces` to append, then perhaps the end."""

    id: str
    pieces: list[Any] = field(default_factory=list)
    size: int = 0
    frames: int = 0
    begins: bool = False
    ends: str = ""
    """Empty, or `done` (hand over) or `drop` (a call without media: nobody needs the file)."""


class SpoolBook:
    """Turns what the live engine gives out into jobs for the files. No I/O: `SpoolFiles` does that.

    `keep_all` also hands over the files of calls without media.
    """

    def __init__(self, origin: Origin, steps: "list[tuple[int, int]]", keep_all: bool = False) -> None:
        self.origin = origin
        self.steps = steps
        self._keep_all = keep_all
        self._ids: dict[int, str] = {}
        self._lost: dict[int, int] = {}

    def id_of(self, number: int) -> str:
        """Return the id of a call's spool, empty if it has none."""
        return self._ids.get(number, "")

    def jobs(self, items: Iterable[Item], facts: dict[str, Any] | None = None) -> list[Job]:
        """Return the jobs of one cycle; `facts` go into the last note of each call that is over."""
        jobs: dict[int, Job] = {}
        for item in items:
            match item:
                case Begun():
                    self._begin(item, jobs)
                case Spoke():
                    self._append(jobs, item.number, blocks.packet(0, item.time, item.packet))
                case Media():
                    view = memoryview(item.blocks.data)
                    for number, start, stop, frames in item.parts:
                        self._append(jobs, number, view[start:stop], frames)
                case Noted():
                    self._append(jobs, item.number, note_block(item.note, item.time))
                case Over():
                    self._end(item, jobs, facts or {})
        return list(jobs.values())

    def lost(self, job: Job) -> None:
        """Note that a job's frames could not be kept: there was no room for them in RAM while the disk failed."""
        number = next((number for number, name in self._ids.items() if name == job.id), None)
        if number is not None:
            self._lost[number] = self._lost.get(number, 0) + job.frames

    def _begin(self, item: Begun, jobs: dict[int, Job]) -> None:
        leg = item.tracked.leg
        started = item.time if item.origin else leg.started
        name = recording_id(call_seed(leg.call_id, leg.caller_tag, started))
        while name in self._ids.values():
            name = recording_id()
        self._ids[leg.number] = name
        head = Head(
            id=name,
            call_id=leg.call_id,
            caller_tag=leg.caller_tag,
            started=leg.started,
            begun=item.time,
            continues=item.origin,
            clock=self.steps[-16:],
            related=[list(other[:3]) for other in item.tracked.related],
            **{key: value for key, value in asdict(self.origin).items() if key != "links"},
        )
        job = jobs[leg.number] = Job(name, begins=True)
        for piece in head.blocks(self.origin.links):
            _add(job, piece)

    def _append(self, jobs: dict[int, Job], number: int, piece: Any, frames: int = 0) -> None:
        job = jobs.get(number)
        if job is None:
            job = jobs[number] = Job(self._ids[number])
        _add(job, piece)
        job.frames += frames

    def _end(self, item: Over, jobs: dict[int, Job], facts: dict[str, Any]) -> None:
        number = item.tracked.leg.number
        if number not in self._ids:
            return
        note = {
            "note": "over",
            "running": item.running,
            "frames": item.frames,
            "lost": self._lost.pop(number, 0),
            "related": [list(other[:3]) for other in item.tracked.related],
            **facts,
        }
        self._append(jobs, number, note_block(note, item.time))
        jobs[number].ends = DONE if item.frames or item.running or self._keep_all else "drop"
        del self._ids[number]


def _add(job: Job, piece: Any) -> None:
    job.pieces.append(piece)
    job.size += len(piece)


class SpoolFiles:
    """The files of the running calls. A job that fails leaves its file as it was, and may be tried again."""

    def __init__(self, folder: Path, most: int = 512) -> None:
        self.folder = folder
        self.written = 0
        self._most = most
        self._open: OrderedDict[str, int] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._folders = {name: make_folder(folder / name) for name in (LIVE, DONE, RESUME)}

    def __len__(self) -> int:
        return len(self._sizes)

    def do(self, job: Job) -> None:
        """Do one job. Raises OSError, and then nothing of it is done."""
        path = self._folders[LIVE] / f"{job.id}.pcapng"
        if job.ends == "drop":
            if not job.begins:
                self._close(job.id)
                path.unlink(missing_ok=True)
            return
        self._append(path, job)
        if job.ends:
            self._close(job.id)
            path.rename(self._folders[job.ends] / path.name)

    def sync(self) -> None:
        """Make everything written so far durable: one syncfs(2). Raises OSError."""
        sync_filesystem(self._folders[LIVE])

    def _append(self, path: Path, job: Job) -> None:
        size = self._sizes.get(job.id, 0)
        descriptor = self._descriptor(path, job)
        try:
            for start in range(0, len(job.pieces), MAX_PIECES):
                _write_all(descriptor, job.pieces[start : start + MAX_PIECES])
        except OSError:
            os.ftruncate(descriptor, size)
            raise
        self._sizes[job.id] = size + job.size
        self.written += job.size

    def _descriptor(self, path: Path, job: Job) -> int:
        known = self._open.get(job.id)
        if known is not None:
            self._open.move_to_end(job.id)
            return known
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        if job.begins and job.id not in self._sizes:
            flags |= os.O_CREAT | os.O_TRUNC
        while len(self._open) >= self._most:
            os.close(self._open.popitem(last=False)[1])
        self._open[job.id] = os.open(path, flags, FILE_MODE)
        self._sizes.setdefault(job.id, 0)
        return self._open[job.id]

    def _close(self, name: str) -> None:
        descriptor = self._open.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)
        self._sizes.pop(name, None)


def _write_all(descriptor: int, pieces: Sequence[Any]) -> None:
    """Write all pieces; a short write goes on behind what was written."""
    rest = [memoryview(piece) for piece in pieces]
    while rest:
        done = os.writev(descriptor, rest)
        while rest and done >= len(rest[0]):
            done -= len(rest.pop(0))
        if rest and done:
            rest[0] = rest[0][done:]


def leg_of(entry: Sequence[Any]) -> Leg | None:
    """Return a related call as a note has it, None if it makes no sense."""
    match entry:
        case [str(call_id), str(tag), int(started)]:
            return Leg(call_id, tag, started, 0)
    return None
