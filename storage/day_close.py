"""Closing a day: its checkpoint is made when the local day is over, once, and signed.

A checkpoint covers the entries of the recording log from where the one before it ended up to the last that is of this
day. It is published, handed over to delivery, and then noted in the log: a kill between any two is made good at the
next start. A day on which the recorder was down has one too, made when it is up again, for the last CATCH_UP days.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path, PurePosixPath

from . import handover
from .atomic import make_folder, write_files
from .checkpoint import SIGNATURE, STAMP, TEXT, Day, Line, render, stem
from .day_watch import DayWatch
from .ledger import New
from .ledger_entry import Entry
from .localtime import Zone
from .parcel import parcel_of_day
from .signature import SigningKey, sha256
from .signing import Signing
from .timestamp import Stamp

CATCH_UP = 31
"""Days that are made up for, at most."""
STAMP_DAYS = 7
"""Days whose time stamp is asked for: each checkpoint names the one before it, so the newest speaks for all."""
STAMPED = "time stamp"


@dataclass(slots=True)
class DayClose:
    """Makes the checkpoints below `root`, in `folders` (a day's folder, from the day). `state` is where hand-overs lie;
    `recorder` names this box.
    """

    signing: Signing
    watch: DayWatch
    root: Path
    state: Path
    folders: "Folders"
    recorder: str
    _nothing_before: int = field(init=False, default=0)

    @property
    def zone(self) -> Zone:
        """The zone of the days."""
        return self.signing.zone

    def due(self, now: int) -> date | None:
        """Return the first day that is over and not closed, None if there is none. `now` in ns since the epoch."""
        if now < self._nothing_before:
            return None
        first = next(self.signing.ledger.entries(), None)
        if first is None:
            return None
        today = self.zone.local(now).date()
        closed = {entry.facts.get("day") for entry in self._closings()}
        day = max(datetime.fromisoformat(first.time).date(), today - timedelta(CATCH_UP))
        while day < today:
            if day.isoformat() not in closed and self.zone.end_of(day) <= now:
                # What is being sealed was begun on that day, perhaps: first things first.
                return None if self.signing.ledger.pending() else day
            day += timedelta(1)
        self._nothing_before = self.zone.end_of(today)
        return None

    def close(self, day: date) -> Path:
        """Make the checkpoint of a day, and return its file. Raises KeyLocked, OSError."""
        key = self.signing.ready()
        folder = make_folder(self.root / self.folders.of(day))
        self.signing.certify(folder, key)
        path = folder / f"{stem(day)}{TEXT}"
        last = self._last_closing()
        first = int(last.facts.get("to", 0)) + 1 if last else 1
        content = self._made_before(path, key)
        if content is None:
            content, to = self._content(day, key, first, last.hash if last else "")
            signature = key.sign(content)
            write_files(folder, [(path.name, content), (f"{stem(day)}{SIGNATURE}", signature)])
        else:
            signature = (folder / f"{stem(day)}{SIGNATURE}").read_bytes()
            to = self._covered(content, first)
        self._hand_over(day)
        facts = {"day": day.isoformat(), "to": to}
        self.signing.ledger.append(New("checkpoint", hash=sha256(content), signature=signature, facts=facts))
        self.watch.counts.forget(day)
        return path

    # -- time stamps ---------------------------------------------------------------------------------------------------

    def unstamped(self, now: int) -> tuple[date, bytes] | None:
        """Return the oldest of the last days that has a checkpoint without a time stamp, and the checkpoint. Raises
        OSError.
        """
        first = self.zone.local(now).date() - timedelta(STAMP_DAYS)
        entries = list(self.signing.ledger.of_kind("checkpoint"))
        stamped = {entry.facts.get("day") for entry in entries if entry.facts.get("what") == STAMPED}
        for entry in entries:
            day = str(entry.facts.get("day", ""))
            if day and day >= first.isoformat() and day not in stamped:
                content = self._path(date.fromisoformat(day)).read_bytes()
                if sha256(content) == entry.hash:
                    return date.fromisoformat(day), content
        return None

    def keep(self, day: date, stamp: Stamp) -> None:
        """Put a time stamp beside the checkpoint of its day. Raises OSError."""
        path = self._path(day).with_suffix(STAMP)
        path.unlink(missing_ok=True)  # one that a kill has left before it was noted
        write_files(path.parent, [(path.name, stamp.reply)])
        self._hand_over(day)
        facts = {"day": day.isoformat(), "what": STAMPED, "time": stamp.time.isoformat()}
        self.signing.ledger.append(New("checkpoint", hash=sha256(stamp.reply), facts=facts))

    # -- what it is made of --------------------------------------------------------------------------------------------

    def _content(self, day: date, key: SigningKey, first: int, previous: str) -> tuple[bytes, int]:
        """Return the checkpoint, and the last entry that it covers."""
        since, until = self.zone.end_of(day - timedelta(1)), self.zone.end_of(day)
        entries = list(self._entries(first, until))
        last = entries[-1].seq if entries else first - 1
        link = entries[-1].link if entries else self._link(last)
        counts = self.watch.counts
        captured = counts.sums(day, "capture")
        calls = {name.removeprefix("calls "): count for name, count in captured.items() if name.startswith("calls ")}
        made = Day(
            day=day,
            since=self.zone.iso(since),
            until=self.zone.iso(until),
            recorder=self.recorder,
            sealed_at=self.zone.iso(time.time_ns()),
            certificate=key.fingerprint,
            first=first,
            last=last,
            link=link,
            previous=previous,
            packets={name: count for name, count in captured.items() if not name.startswith("calls ")},
            media=counts.sums(day, "seal"),
            calls=_calls(calls, entries),
            kernel_drops=captured.get("kernel_dropped", 0),
            downtimes=list(self._downtimes(since, until)),
            uncounted=counts.gaps_of(day),
        )
        return render(made, [*_lines(entries), *_elsewhere(entries, day)]), last

    def _entries(self, first: int, until: int) -> Iterator[Entry]:
        """Yield the entries of the log from this one to the last that is from before `until`, without a gap: also one
        that a clock which was set wrong has dated later.
        """
        waiting: list[Entry] = []
        end = until / 1e9
        for entry in self.signing.ledger.entries(first - 1):
            waiting.append(entry)
            if datetime.fromisoformat(entry.time).timestamp() < end:
                yield from waiting
                waiting = []

    def _downtimes(self, since: int, until: int) -> Iterator[tuple[str, str]]:
        for entry in self.signing.ledger.of_kind("downtime"):
            down, up = entry.facts.get("from"), entry.facts.get("to")
            if isinstance(down, str) and isinstance(up, str) and _ns(down) < until and _ns(up) > since:
                yield down, up

    def _link(self, seq: int) -> str:
        entry = next(self.signing.ledger.entries(seq - 1), None) if seq > 0 else None
        return entry.link if entry else ""

    # -- what was made before ------------------------------------------------------------------------------------------

    def _made_before(self, path: Path, key: SigningKey) -> bytes | None:
        """Return the checkpoint if it is there, signed by this box. One without its signature was broken off by a kill:
        it is removed, and made anew.
        """
        signature = path.with_suffix(SIGNATURE)
        try:
            content = path.read_bytes()
            if key.signed(signature.read_bytes(), content):
                return content
        except FileNotFoundError as error:
            if error.filename == str(signature):
                path.unlink()
            return None
        raise FileExistsError(17, "is there already, and not by this recorder: move it away", str(path))

    def _covered(self, content: bytes, first: int) -> int:
        """Return the last entry that a checkpoint covers which was made before; none of ours if it is of another log,
        one that was moved aside.
        """
        values = dict(line.split(": ", 1) for line in content.decode().splitlines() if ": " in line)
        last = int(values.get("LedgerTo", "0"))
        return last if last >= first - 1 and values.get("LedgerLink", "") == self._link(last) else first - 1

    def _closings(self) -> Iterator[Entry]:
        return (entry for entry in self.signing.ledger.of_kind("checkpoint") if entry.facts.get("what") != STAMPED)

    def _last_closing(self) -> Entry | None:
        return max(self._closings(), key=lambda entry: entry.seq, default=None)

    def _path(self, day: date) -> Path:
        return self.root / self.folders.of(day) / f"{stem(day)}{TEXT}"

    def _hand_over(self, day: date) -> None:
        handover.write(self.state, parcel_of_day(self.root, self.folders.of(day), stem(day), time.time()))


@dataclass(frozen=True, slots=True)
class Folders:
    """The folder of each day, from the template of folders."""

    template: str

    def of(self, day: date) -> PurePosixPath:
        """Return a day's folder, below the root."""
        from .names import day_folder

        return day_folder(self.template, day)


def _lines(entries: Sequence[Entry]) -> Iterator[Line]:
    kinds = {"recording": "Recording", "tombstone": "Tombstone"}
    return (Line(kinds[one.kind], one.seq, one.id, one.hash) for one in entries if one.kind in kinds)


def _elsewhere(entries: Sequence[Entry], day: date) -> Iterator[Line]:
    """Yield the day of each recording of a call that had begun on another: it lies in that day's folder."""
    for one in entries:
        if one.kind == "recording" and one.facts.get("day", day.isoformat()) != day.isoformat():
            yield Line("OtherDay", one.seq, one.id, str(one.facts["day"]))


def _calls(captured: Mapping[str, int], entries: Sequence[Entry]) -> dict[str, int]:
    """Return what became of the calls: what capture counted, and what the log says. A call that was sealed twice, by
    a kill, is one.
    """
    outcomes: dict[str, set[str]] = {"recorded": {one.id for one in entries if one.kind == "recording"}}
    for one in entries:
        if one.kind == "refusal":
            outcomes.setdefault(str(one.facts.get("outcome", "failed")).replace(" ", "_"), set()).add(one.id)
    sealed = {name: len(ids) for name, ids in sorted(outcomes.items())}
    return {name: captured.get(name, 0) + sealed.get(name, 0) for name in dict.fromkeys((*captured, *sealed))}


def _ns(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1e9)
