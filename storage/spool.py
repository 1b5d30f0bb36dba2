"""The spool: one pcapng file a running call, appended to as the packets come, handed over by rename when it is over.

    <spool>/live/ID.pcapng     running calls
    <spool>/done/ID.pcapng     calls that are over: the seal stage's
    <spool>/resume/ID.pcapng   what was said in each running call, to go on with it after a stop or crash

A file stands by itself: interface 0 holds the call's SIP, one datagram a message, and what was put together from
fragments; the others hold frames as they were captured. Decisions of the capture stage are JSON in comments: the
section's says whose the file is (`Head`), those of interface statistics what happened since (notes).
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..sniffer import blocks
from ..sniffer.items import Begun, Forgotten, Item, Media, Noted, Over, Reported, Spoke
from ..sniffer.ties import How, Tie
from ..sniffer.tracked import Leg, Tracked
from .atomic import make_folder, sync_filesystem
from .names import call_seed, recording_id
from .spool_file import Head, note_block

LIVE, DONE, RESUME = "live", "done", "resume"
UNFINISHED = ".part"
"""How a file in `resume` ends that is not whole yet."""
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
    """What is to be done to one call's files, in one go: `pieces` to append, `said` to append to the file that resumes
    it, then perhaps the end. `frames` of media are among the pieces, the call's `first` ones perhaps; `replaces` is an
    earlier run's file to go.
    """

    id: str
    pieces: list[Any] = field(default_factory=list)
    size: int = 0
    frames: int = 0
    first: bool = False
    said: list[bytes] = field(default_factory=list)
    begins: bool = False
    ends: str = ""
    """Empty, `done` (hand over), `stop` (hand over, but the call runs on), `drop` (without media: nobody needs it),
    `pause` (without media, but the call runs on) or `forget` (an earlier run's, that did not go on)."""
    replaces: str = ""


@dataclass(slots=True)
class _Call:
    """A call's spool: its id, what the kernel had dropped when it began, frames lost since, whether media came."""

    id: str
    kernel_drops: int
    lost: int = 0
    media: bool = False


class SpoolBook:
    """Turns what the live engine gives out into jobs for the files. No I/O: `SpoolFiles` does that.

    `steps` are those of the clock so far: (since, wall time ahead), steady ns; `kernel_drops` are packets that the
    kernel dropped so far. The caller keeps both up.
    """

    def __init__(self, origin: Origin, steps: list[tuple[int, int]]) -> None:
        self.origin = origin
        self.steps = steps
        self.kernel_drops = 0
        self._calls: dict[int, _Call] = {}
        self._taken: set[str] = set()

    def id_of(self, number: int) -> str:
        """Return the id of a call's spool, empty if it has none."""
        return self._calls[number].id if number in self._calls else ""

    def jobs(self, items: Iterable[Item]) -> list[Job]:
        """Return the jobs of one cycle."""
        jobs: dict[int, Job] = {}
        others: list[Job] = []
        for item in items:
            match item:
                case Begun():
                    self._begin(item, jobs)
                case Spoke():
                    self._append(jobs, item.number, blocks.packet(0, item.time, item.packet), said=True)
                case Reported():
                    self._append(jobs, item.number, blocks.packet(0, item.time, item.packet))
                case Media():
                    view = item.blocks.data.data
                    for number, start, stop, frames in item.parts:
                        self._media(jobs, number, view[start:stop], frames)
                case Noted():
                    self._append(jobs, item.number, note_block(item.note, item.time))
                case Forgotten():
                    others.append(Job(item.past.id, ends="forget"))
                case Over():
                    self._end(item, jobs)
        return [*jobs.values(), *others]

    def lost(self, job: Job) -> None:
        """Note that a job's frames could not be kept: there was no room for them in RAM while the disk failed."""
        call = next((call for call in self._calls.values() if call.id == job.id), None)
        if call is not None:
            call.lost += job.frames

    def _begin(self, item: Begun, jobs: dict[int, Job]) -> None:
        leg, past = item.tracked.leg, item.past
        continues = past.continues if past is not None else ""
        name = recording_id(call_seed(leg.call_id, leg.caller_tag, item.time if continues else leg.started))
        while name in self._taken:
            name = recording_id()
        self._calls[leg.number] = _Call(name, self.kernel_drops)
        self._taken.add(name)
        head = Head(
            id=name,
            call_id=leg.call_id,
            caller_tag=leg.caller_tag,
            started=leg.started,
            begun=item.time,
            continues=continues,
            clock=self.steps[-16:],
            related=_related(item.tracked),
            **{key: value for key, value in asdict(self.origin).items() if key != "links"},
        )
        job = jobs[leg.number] = Job(name, begins=True, replaces=past.id if past is not None else "")
        job.said += head.blocks(self.origin.links)
        for piece in job.said:
            _add(job, piece)

    def _media(self, jobs: dict[int, Job], number: int, piece: Any, frames: int) -> None:
        job = self._append(jobs, number, piece)
        job.frames += frames
        call = self._calls[number]
        job.first |= not call.media
        call.media = True

    def _append(self, jobs: dict[int, Job], number: int, piece: Any, said: bool = False) -> Job:
        job = jobs.get(number)
        if job is None:
            job = jobs[number] = Job(self._calls[number].id)
        _add(job, piece)
        if said:
            job.said.append(piece)
        return job

    def _end(self, item: Over, jobs: dict[int, Job]) -> None:
        number = item.tracked.leg.number
        call = self._calls.get(number)
        if call is None:
            return
        note = {
            "note": "over",
            "running": item.running,
            "frames": item.frames,
            "lost": call.lost,
            "kernel_drops": self.kernel_drops - call.kernel_drops,
            "related": _related(item.tracked),
        }
        block = note_block(note, item.time)
        job = self._append(jobs, number, block)
        job.ends = ("stop" if item.running else DONE) if item.frames else "pause" if item.running else "drop"
        del self._calls[number]
        self._taken.discard(call.id)


def _add(job: Job, piece: Any) -> None:
    job.pieces.append(piece)
    job.size += len(piece)


class Vanished(Exception):
    """A call's file was taken away while it was written to: what belonged there can be kept no more."""


class SpoolFiles:
    """The files of the running calls. A job that failed goes on where it failed when it is done again; each of its
    steps leaves files whole.
    """

    def __init__(self, folder: Path, most: int = 512) -> None:
        self.folder = folder
        self.written = 0
        self._most = most
        self._open: OrderedDict[str, int] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._folders = {name: make_folder(folder / name) for name in (LIVE, DONE, RESUME)}
        self._job: Job | None = None
        self._steps: list[Callable[[], object]] = []

    def __len__(self) -> int:
        return len(self._sizes)

    def do(self, job: Job) -> None:
        """Do one job. Raises OSError; the job may then be tried again, before any other. Raises Vanished when that
        would be in vain.
        """
        if job is not self._job:
            self._job, self._steps = job, list(self._steps_of(job))
        try:
            while self._steps:
                self._steps[0]()
                del self._steps[0]
        except FileNotFoundError as error:
            if not self._folders[LIVE].is_dir():
                raise
            self._close(job.id)
            raise Vanished(str(error)) from None
        self._job = None

    def _steps_of(self, job: Job) -> Iterator[Callable[[], object]]:
        """Yield what is to be done, in the order in which a crash between two steps loses nothing: what is said is kept
        for a later run before it is a call's file that shows that there is a call.
        """
        path, resume = (self._folders[name] / f"{job.id}.pcapng" for name in (LIVE, RESUME))
        if job.ends not in ("drop", "forget"):
            if job.said:
                yield lambda: _remember(resume, job.said, job.begins)
            if job.ends != "pause":
                yield lambda: self._append(path, job)
            if job.first:
                yield lambda: _remember(resume, [note_block({"note": "media"}, 0)])
        if job.replaces and job.replaces != job.id:
            yield lambda: resume.with_name(f"{job.replaces}.pcapng").unlink(missing_ok=True)
        if job.ends:
            yield lambda: self._close(job.id)
        if job.ends in (DONE, "stop"):
            yield lambda: path.replace(self._folders[DONE] / path.name)
        if job.ends in ("drop", "pause"):
            yield lambda: path.unlink(missing_ok=True)
        if job.ends in (DONE, "drop", "forget"):
            yield lambda: resume.unlink(missing_ok=True)

    def sync(self) -> None:
        """Make everything written so far durable: one syncfs(2). Raises OSError."""
        sync_filesystem(self._folders[LIVE])

    def _append(self, path: Path, job: Job) -> None:
        descriptor = self._descriptor(path, job)
        _write_whole(descriptor, self._sizes[job.id], job.pieces)
        self._sizes[job.id] += job.size
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
        self._sizes.setdefault(job.id, os.fstat(self._open[job.id]).st_size)
        return self._open[job.id]

    def _close(self, name: str) -> None:
        descriptor = self._open.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)
        self._sizes.pop(name, None)


def _remember(resume: Path, said: list[bytes], begins: bool = False) -> None:
    """Keep what was said apart too: a later run need not search the packets for it."""
    path = resume.with_suffix(UNFINISHED) if begins else resume
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if begins else os.O_APPEND)
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        _write_whole(descriptor, os.fstat(descriptor).st_size, said)
    finally:
        os.close(descriptor)
    if begins:
        path.replace(resume)  # what an earlier run knew of the call stays until all of it stands here


def _write_whole(descriptor: int, size: int, pieces: Sequence[Any]) -> None:
    """Append pieces to a file that is `size` bytes long; it is cut back to that if they do not get there whole."""
    try:
        _write_all(descriptor, pieces)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _write_all(descriptor: int, pieces: Sequence[Any]) -> None:
    """Write all pieces; a short write goes on behind what was written."""
    rest = [memoryview(piece) for piece in pieces]
    while rest:
        done = os.writev(descriptor, rest[:MAX_PIECES])
        while rest and done >= len(rest[0]):
            done -= len(rest.pop(0))
        if rest and done:
            rest[0] = rest[0][done:]


def _related(tracked: Tracked) -> list[list[Any]]:
    """Return a call's related ones for a note: what names each, what it is, whether it has the same sound, and why."""
    return [[*leg[:3], tie.how.value, tie.heard, tie.by] for leg, tie in tracked.related.items()]


def leg_of(entry: Sequence[Any]) -> tuple[Leg, Tie] | None:
    """Return a related call as a note has it, None if it makes no sense."""
    match entry:
        case [str(call_id), str(tag), int(started), *more]:
            how = How(more[0]) if more and more[0] in set(How) else How.SAME_CALL
            return Leg(call_id, tag, started, 0), Tie(
                how, more[1:2] == [True], next((by for by in more[2:3] if isinstance(by, str)), "")
            )
    return None
