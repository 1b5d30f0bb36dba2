"""Capture, spool and seal in one process: packets in visits of any size, and the same packets read from a file.

with Capture(folder) as capture:
    capture.hear(packets, size=7)
assert sealed(folder) == offline(folder, packets)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np

from tapdeck.cli.config import load
from tapdeck.cli.record import Captures, build_engine, own_of
from tapdeck.cli.settings import Settings
from tapdeck.sniffer.account import Account
from tapdeck.sniffer.engine import CallSettings, Limits
from tapdeck.sniffer.items import Cycle, Over
from tapdeck.sniffer.live import LiveEngine
from tapdeck.sniffer.records import PADDING, Records
from tapdeck.sniffer.sources.payloads import Payloads, RowParking
from tapdeck.storage.facts import Recorder
from tapdeck.storage.localtime import Zone
from tapdeck.storage.names import naming
from tapdeck.storage.recording import Archive
from tapdeck.storage.resume import Left, take_over
from tapdeck.storage.sealing import Sealer
from tapdeck.storage.spool import DONE, LIVE, Job, Origin, SpoolBook, SpoolFiles

from . import files
from .ip import Packet
from .record import Recording, read_info
from .wrap import WRAPPINGS

SECOND = 1_000_000_000
SIP_PORTS = frozenset({5060})
LINKS = (1, 113, 276, 0, 12, 108)
OF_THE_RUN = ("Recorder",)
"""Lines of an info file that say which run made it."""
OF_THE_END = ("End", "EndReason", "Truncated")
"""Lines that say how a call ended: one that did not is cut off by the end of a file, or by the recorder's."""

Files = dict[str, bytes]


def frames(packets: Sequence[Packet], wrapping: str = "ethernet") -> Records:
    """Packets as one block of frames behind each other, without anything between them."""
    shape = WRAPPINGS[wrapping]
    return block([(packet.time_ns, shape.frame(packet.ip)) for packet in packets], shape.link_type)


def block(stamped: Sequence[tuple[int, bytes]], link: int = 1) -> Records:
    """Frames with their times (ns) as one block."""
    data = np.frombuffer(bytearray(b"".join(frame for _, frame in stamped) + bytes(PADDING)), dtype=np.uint8)
    length = np.array([len(frame) for _, frame in stamped], dtype=np.int64)
    time = np.array([when for when, _ in stamped], dtype=np.int64)
    kinds = np.full(len(stamped), link, dtype=np.uint16)
    return Records(data, np.cumsum(length) - length, length, length.copy(), time, kinds, 0)


def part(records: Records, start: int, stop: int) -> Records:
    """Some frames of a block; the memory of the rest is blanked, as a ring's is when it has been given back."""
    rows = slice(start, stop)
    offset, length = records.offset[rows], records.length[rows]
    data = np.full(len(records.data), 0xEE, dtype=np.uint8)
    if len(offset):
        first, last = int(offset[0]), int(offset[-1] + length[-1])
        data[first:last] = records.data[first:last]
        data[last : last + PADDING] = 0
    return replace(
        records,
        data=data,
        offset=offset,
        length=length,
        wire=records.wire[rows],
        time=records.time[rows],
        link=records.link[rows],
    )


class Capture:
    """A run of the capture stage, without its ring, clock and threads, on the spool `folder`/spool.

    Used as a context it stops at the end, after the calls that are over have been closed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: CallSettings | None = None,
        limits: Limits | None = None,
        new_calls_per_s: int = 500,
        files: SpoolFiles | None = None,
    ) -> None:
        self.folder = folder
        self.engine = LiveEngine(
            settings=settings or CallSettings(),
            limits=limits or Limits(memory=64 << 20),
            sip_ports=SIP_PORTS,
            links=LINKS,
            new_calls_per_s=new_calls_per_s,
        )
        self.book = SpoolBook(Origin("box", "box", "1.0", "mon0", LINKS), [])
        self.files = SpoolFiles(folder / "spool") if files is None else files
        self.do: Callable[[Job], None] = self.files.do
        self.over: list[Over] = []
        self.calls_seen = 0

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.rest()
            self.stop()

    def hear(self, packets: Sequence[Packet], *, size: int = 1 << 30, wrapping: str = "ethernet") -> None:
        """Listen to packets, so many at each visit."""
        records = frames(packets, wrapping)
        self.visits(records, range(size, len(records), size))

    def visits(self, records: Records, cuts: Iterable[int]) -> None:
        """Listen to frames in visits that begin at `cuts`."""
        edges = [0, *cuts, len(records)]
        for start, stop in pairwise(edges):
            if start < stop:
                self.take(self.engine.listen(part(records, start, stop)))

    def rest(self, seconds: int = 12) -> None:
        """Nothing comes for a while."""
        for _ in range(seconds):
            self.take(self.engine.idle(self.engine.now + SECOND))

    def stop(self) -> None:
        """Stop as at SIGTERM."""
        self.take(self.engine.stop())

    def take(self, cycle: Cycle) -> None:
        """Do what a visit gave, and see that every frame is accounted for."""
        for job in self.book.jobs(cycle.items):
            self.do(job)
        self.over += [item for item in cycle.items if isinstance(item, Over)]
        assert self.unaccounted == 0, self.engine.account.packet_kinds()

    @property
    def unaccounted(self) -> int:
        """Frames that were seen and of which nobody knows what became of them."""
        totals = self.engine.account.packet_totals()
        return totals.pop("seen") - sum(totals.values()) - self.engine.waiting

    def count(self, fate: str, kind: str | None = None) -> int:
        """Frames of one fate."""
        return sum(
            count for (what, how), count in self.engine.account.packets.items() if what == fate and kind in (None, how)
        )

    def take_over(self, oldest: int = 0) -> Left:
        """Go on where an earlier run on this spool was interrupted."""
        left = take_over(self.files.folder, SIP_PORTS, oldest)
        self.take(self.engine.resume(left.history))
        return left

    def files_of(self, name: str) -> list[Path]:
        """The files in `live`, `done` or `resume`."""
        return sorted((self.files.folder / name).iterdir())


def sealer(folder: Path, out: str = "sealed") -> Sealer:
    """What the seal stage uses, on `folder`/`out`."""
    own = _settings()
    (folder / out).mkdir(exist_ok=True)
    return Sealer(
        root=folder / out,
        scratch=folder,
        naming=naming(zone=Zone("UTC")),
        version="1.0",
        own=own_of(own),
        engine=lambda payloads: build_engine(own, payloads, RowParking(folder)),
    )


def sealed(folder: Path) -> Files:
    """Seal all that lies in the spool; the recordings' files by name."""
    seal(folder)
    return content(folder / "sealed")


def seal(folder: Path) -> Account:
    """Seal all that lies in the spool; what became of it."""
    assert not list((folder / "spool" / LIVE).iterdir()), "a call's file was not handed over"
    maker = sealer(folder)
    for path in sorted((folder / "spool" / DONE).iterdir()):
        for recording in maker.seal(path):
            assert not recording.error, recording.error
    return maker.account


def offline(folder: Path, packets: Sequence[Packet], wrapping: str = "ethernet") -> Files:
    """The files that `tapdeck record` makes of a capture of these packets."""
    return offline_file(folder, files.write(folder, files.pcap(packets, wrapping, nano=True)))


def offline_file(folder: Path, capture: Path, account: Account | None = None) -> Files:
    """The files that `tapdeck record` makes of a capture file."""
    root = folder / "offline"
    root.mkdir()
    payloads = Payloads(folder)
    engine = build_engine(_settings(), payloads, RowParking(folder))
    captures = Captures((str(capture),), payloads)
    archive = Archive(
        root=root,
        naming=naming(zone=Zone("UTC")),
        recorder=Recorder("box", "1.0", "box", "mon0"),
        payloads=payloads,
        book=engine.book,
        account=account or engine.account,
        own=own_of(_settings()),
        wall=captures.steps.walls,
    )
    for read in captures.blocks(engine):
        for ended in engine.feed(read):
            list(archive.add(ended))
    for ended in engine.finish():
        list(archive.add(ended))
    list(archive.flush())
    payloads.close()
    return content(root)


def content(root: Path) -> Files:
    """All files below a folder; info files without what is the run's own."""
    found = {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    return {name: without(data, OF_THE_RUN) if name.endswith("_info.txt") else data for name, data in found.items()}


def without_ends(found: Files) -> Files:
    """The files without the lines that say how calls ended."""
    return {name: without(data, OF_THE_END) if name.endswith("_info.txt") else data for name, data in found.items()}


def without(info: bytes, keys: Sequence[str]) -> bytes:
    """An info file without some lines."""
    starts = tuple(f"{key}: ".encode() for key in keys)
    return b"".join(line for line in info.splitlines(keepends=True) if not line.startswith(starts))


def recordings(folder: Path, out: str = "sealed") -> list[Recording]:
    """The recordings made, by name (and so by start)."""
    return [Recording(path, read_info(path)) for path in sorted((folder / out).rglob("*.wav"))]


@cache
def _settings() -> Settings:
    return load(None, {}, environ={})
