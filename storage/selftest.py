"""The self-test: a synthetic call through the code of the box, in folders of its own beside the real ones.

Each step says in words what was seen, and raises Failed or OSError for what is wrong. A step may run in a process of
its own, as the user of its stage: what one hands to the next lies on disk, as it does between the stages.
"""

import os
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from ..sip.dialog import Party
from ..sniffer.items import Cycle, Over
from ..sniffer.live import LiveEngine
from ..sniffer.synthetic import NAME, PACKETS, SyntheticCall
from . import handover, info
from .atomic import make_folder
from .delivery import deliver
from .parcel import INFO, Parcel, parcel
from .sealing import Sealer
from .spool import DONE, LIVE, RESUME, Origin, SpoolBook, SpoolFiles
from .spool_file import SpoolError, read_spool
from .targets import Target, TargetError

MISTAKE = (
    "Run it again. If it stays: Tapdeck is wrong, or this machine's memory or disk is. Check a recording by ear, and "
    "report it with what `tapdeck selftest --json` says."
)
TARGET_DOWN = "Put the target right. Until then recordings wait on this machine, and are delivered later."

_SECOND = 1_000_000_000
_LONG_AFTER = 600 * _SECOND
"""After so long nothing more can come for a call that is over."""
_ALAW, _RATE = 6, 8000


class Failed(Exception):
    """A step has found something wrong: what was seen, and what to do; None where the place was at fault, as where a
    step raises OSError.
    """

    def __init__(self, seen: str, todo: str | None = MISTAKE) -> None:
        super().__init__(seen)
        self.seen, self.todo = seen, todo


@dataclass(frozen=True, slots=True)
class SelfTest:
    """One run. `name` is that of its folders below `spool`, `recordings`, `state` and each target; `sealer` is given
    the folder for recordings and one for what does not fit into memory.
    """

    call: SyntheticCall
    name: str
    spool: Path
    recordings: Path
    state: Path
    engine: Callable[[], LiveEngine]
    origin: Origin
    sealer: Callable[[Path, Path], Sealer]

    # -- the steps -----------------------------------------------------------------------------------------------------

    def hear(self) -> str:
        """Have the capture stage's engine find the call in the frames, and account for each of them."""
        engine = self.engine()
        over = [item for cycle in self._cycles(engine) for item in cycle.items if isinstance(item, Over)]
        counted = {fate: count for fate, count in engine.account.packet_totals().items() if count}
        expected = {"seen": len(self.call.frames), "kept": 2 * PACKETS, "signalling": self.call.sip_messages}
        if counted != expected:
            raise Failed(f"the frames are not accounted for: {_words(counted)}, not {_words(expected)}")
        if [(item.tracked.call.call_id, item.frames) for item in over] != [(self.call.call_id, 2 * PACKETS)]:
            raise Failed(f"{len(over)} calls were found in the frames of one")
        return f"one call in {len(self.call.frames)} frames, each of them accounted for"

    def keep(self) -> str:
        """Write the call's spool file, and hand it over."""
        folder = self.spool / self.name
        book, files = SpoolBook(self.origin, []), SpoolFiles(folder)
        for cycle in self._cycles(self.engine()):
            for job in book.jobs(cycle.items):
                files.do(job)
        files.sync()
        path = self._handed_over()
        spool = read_spool(path)
        over = spool.over or {}
        if spool.damage or (spool.head.call_id, over.get("frames")) != (self.call.call_id, 2 * PACKETS):
            raise Failed(f"{path} does not hold what was written: {spool.damage or 'other content'}")
        if left := [file.name for part in (LIVE, RESUME) for file in (folder / part).iterdir()]:
            raise Failed(f"the call is over, and {', '.join(left)} still there")
        return f"written, synced and handed over in {self.spool}"

    def seal(self) -> str:
        """Make the recording of the spool file, and hand that over."""
        path = self._handed_over()
        sealer = self.sealer(self.recordings / self.name, self.spool / self.name)
        try:
            recordings = sealer.seal(path)
        except SpoolError as error:
            raise Failed(str(error)) from None
        if trouble := next((recording.error for recording in recordings if recording.error), ""):
            raise Failed(trouble, None)
        if [recording.outcome for recording in recordings] != ["recorded"]:
            raise Failed(f"of the spool file came {[one.outcome for one in recordings]}, not a recording")
        files = [str(file) for file in recordings[0].files]
        sizes = [(sealer.root / file).stat().st_size for file in files]
        whole = parcel(recordings[0].id, files, sum(sizes), self.call.ended / _SECOND)
        make_folder(self.state / self.name / handover.FOLDER)
        handover.write(self.state / self.name, whole)
        path.unlink()
        return f"{len(files)} files, {sum(sizes):,} bytes, written and synced in {self.recordings}"

    def compare_sound(self) -> str:
        """Compare both channels of the WAV with what was sent."""
        channels = _channels(self._file(".wav").read_bytes())
        for party, heard in zip(Party, channels, strict=True):
            expected = self.call.sound[party]
            if heard != expected:
                where = next((n for n, pair in enumerate(zip(heard, expected, strict=False)) if pair[0] != pair[1]), -1)
                place = f"from sample {where} on" if where >= 0 else f"{len(heard)} samples, not {len(expected)}"
                raise Failed(f"the {party.value}'s sound is not what was sent: {place}")
        return f"both sides as they were sent, {2 * len(channels[0]):,} bytes compared"

    def read_info(self) -> str:
        """Compare what the text file says with what is known of the call."""
        try:
            pairs = info.parse(self._file(INFO).read_bytes())
        except info.InfoError as error:
            raise Failed(f"the text file cannot be read: {error}") from None
        found = dict(pairs)
        for key, expected in self._expected().items():
            if found.get(key) != expected:
                raise Failed(f"the text file says {key}: {found.get(key)!r}, not {expected!r}")
        for side in ("Caller", "Callee"):
            if not found.get(f"{side}-Packets", "").startswith(f"received={PACKETS} expected={PACKETS} lost=0 "):
                raise Failed(f"the text file says {side}-Packets: {found.get(f'{side}-Packets')!r}")
        started = datetime.fromisoformat(found["DatetimeUtc"])
        if abs(started - datetime.fromtimestamp(self.call.started / _SECOND, started.tzinfo)) > timedelta(seconds=0.01):
            raise Failed(f"the text file says that the call began at {started}")
        return f"{len(pairs)} lines, as the call was"

    def deliver(self, target: Target, known: bool) -> str:
        """Deliver the recording to a target, in a folder of its own that is removed again."""
        root, whole = self.recordings / self.name, self._parcel()
        try:
            with target.trial(self.name, known) as lent:
                lent.check(known=False)
                done = deliver(whole, root, lent, lambda size: None)
                for file in whole.files:
                    if b"".join(lent.read(PurePosixPath(file))) != (root / file).read_bytes():
                        raise Failed(f"{file} does not read back as it was written", MISTAKE)
        except TargetError as error:
            raise Failed(str(error), TARGET_DOWN) from None
        return f"{len(whole.files)} files, {done.sent:,} bytes, delivered, read back, compared and removed again"

    # -- what they have in common --------------------------------------------------------------------------------------

    def _cycles(self, engine: LiveEngine) -> Iterator[Cycle]:
        for records in self.call.visits():
            yield engine.listen(records)
        yield engine.idle(self.call.ended + _LONG_AFTER)

    def _handed_over(self) -> Path:
        found = list((self.spool / self.name / DONE).glob("*.pcapng"))
        if len(found) != 1:
            raise Failed(f"{len(found)} spool files were handed over for one call")
        return found[0]

    def _parcel(self) -> Parcel:
        found, _ = handover.waiting(self.state / self.name)
        if len(found) != 1:
            raise Failed(f"{len(found)} recordings were handed over for one call")
        return found[0]

    def _file(self, ending: str) -> Path:
        whole = self._parcel()
        path = self.recordings / self.name / (whole.stem + ending)
        if whole.stem + ending not in whole.files:
            raise Failed(f"the recording has no {path.name}")
        return path

    def _expected(self) -> dict[str, str]:
        return {
            "RecordingId": self._parcel().id,
            "CallId": self.call.call_id,
            "Caller": NAME,
            "Callee": NAME,
            "EndReason": "BYE by caller",
            "Codec": "PCMA",
            "Channels": "left=caller right=callee",
            "Duration": f"{len(self.call.sound[Party.CALLER]) / _RATE:.3f}",
        }


def clear(folder: Path) -> str:
    """Remove one of the self-test's folders with all that is in it, if it is there. Raises OSError."""
    if os.path.lexists(folder):
        shutil.rmtree(folder)
        return f"{folder} removed"
    return f"no {folder}"


def _channels(wav: bytes) -> tuple[bytes, bytes]:
    """Return left and right of a stereo A-law file, read here by the format's rules and not by the code that writes."""
    chunks: dict[bytes, bytes] = {}
    place = 12
    while place + 8 <= len(wav):
        name, size = struct.unpack_from("<4sI", wav, place)
        chunks[name] = wav[place + 8 : place + 8 + size]
        place += 8 + size + size % 2
    form = chunks.get(b"fmt ", b"")
    kind = struct.unpack_from("<HHI", form) if len(form) >= 8 else None
    if (wav[:4], wav[8:12], kind) != (b"RIFF", b"WAVE", (_ALAW, 2, _RATE)):
        raise Failed(f"the WAV is no stereo A-law at {_RATE} Hz: {kind}")
    data = chunks.get(b"data", b"")
    return data[0::2], data[1::2]


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {fate.replace('_', ' ')}" for fate, count in counts.items())
