"""Ended calls become files: the WAV, the info file and, where needed, the kept packets, published together."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..sip.dialog import Call, Party
from ..sniffer.account import Account
from ..sniffer.addresses import AddressBook
from ..sniffer.direction import Own, direction
from ..sniffer.records import Ints
from ..sniffer.selection import EndedCall, Track
from ..sniffer.sources.payloads import Payloads
from ..sniffer.tracked import Leg
from . import decode, info
from .atomic import AtomicBatch, AtomicFiles, make_folder
from .blanked import Patch, blanked
from .facts import Recorder, codec_text, late_notes, other_notes, pairs, side_notes
from .hearing import Hearing, listened
from .kept import pcapng
from .legs import given_way, other_leg
from .masking import mask
from .names import NameFields, Naming, call_seed, recording_id
from .plan import Plan, is_kept, plan
from .presses import presses
from .render import Piece, Renderer, encoding, pieces
from .unlock import Unlocker
from .wav import WavTooLong, header, padding

if TYPE_CHECKING:
    from .signing import Signing

BATCH = 100 << 20
"""Samples of both channels rendered at one time, at most."""
WORTH = 64 << 20
"""Samples that are rendered without waiting for more, where they lie densely: small buffers touch little memory."""
SPARSE = 8
"""Samples lie densely where one byte in so many of the input that is passed over is theirs."""
BATCH_CALLS = 256
"""Calls of a batch: each has up to three files open, and a process may have 1,024."""
BATCH_ROWS = 1 << 20
"""Packets whose rows may wait for a batch: calls without a WAV have no samples, but rows."""
PACKETS = "_packets.pcapng"
"""How the name of a capture file that is kept ends."""
_FAR = 1 << 62


class Sink(Protocol):
    """What a file is written to."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Write all of the data."""
        ...


class Files(Protocol):
    """Where a recording's files are opened, `follows` as in AtomicFiles."""

    def open(self, name: str, follows: bool = False) -> Sink:
        """Return a new file."""
        ...


@dataclass(frozen=True, slots=True)
class Recording:
    """What became of a call: `outcome` as in `sniffer.account.CALL_FATES`; `files` relative to the root, none if
    none."""

    plan: Plan
    id: str
    outcome: str
    direction: str
    codec: str
    files: tuple[PurePosixPath, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""

    @property
    def call(self) -> Call:
        """The dialog."""
        return self.plan.ended.call

    @property
    def duration_s(self) -> float:
        """Seconds of sound."""
        return self.plan.frames / self.plan.rate


def identity(leg: Leg) -> str:
    """Return the id of a call's recording; the same capture gives the same one again."""
    return recording_id(call_seed(leg.call_id, leg.caller_tag, leg.started))


def related_to(ended: EndedCall) -> dict[str, str]:
    """Return the calls that belong to this one, as `id (Call-ID)`, and what they are to it."""
    return {f"{identity(leg)} ({leg.call_id[:80]})": str(tie) for leg, tie in ended.tracked.related.items()}


def identity_of(ended: EndedCall) -> str:
    """Return the id of a call's recording: the one that was fixed when its spool file began, if it had one."""
    return ended.circumstances.id or identity(ended.tracked.leg)


@dataclass(slots=True)
class Archive:
    """Writes recordings below `root`. Collects calls until a batch is worth a pass over the input.

    `wall` turns the packets' times (ns) into what the capture's clock showed. `keep`: all packets of a call are to be
    kept, by keeping `packets`, a capture file that holds them, or else one by one. With `signing` each recording is
    sealed before the next one is begun. Of the `legs` of a conversation both are recorded, or one.
    """

    root: Path
    naming: Naming
    recorder: Recorder
    payloads: Payloads
    book: AddressBook
    account: Account
    own: Own = field(default_factory=Own)
    packets: Path | None = None
    keep: bool = False
    legs: str = "both"
    wall: Callable[[Ints], Ints] = field(default=np.asarray)
    signing: "Signing | None" = None
    hearing: Hearing = field(default_factory=Hearing)
    _waiting: list[Plan] = field(init=False, default_factory=list)
    _samples: int = field(init=False, default=0)
    _rows: int = field(init=False, default=0)
    _from: int = field(init=False, default=_FAR)
    _to: int = field(init=False, default=-_FAR)
    _renderer: Renderer = field(init=False)

    def __post_init__(self) -> None:
        self._renderer = Renderer(self.payloads)

    def add(self, ended: EndedCall) -> Iterator[Recording]:
        """Take a call; yield the recordings that are done."""
        if other_leg(ended, self.legs) is not None:
            planned = given_way(ended, self.account)
        else:
            Unlocker(self.payloads, self.account).unlock(ended)
            for track in ended.tracks:
                if self.keep and not track.is_rtp:
                    self._measure(track)
            planned = plan(ended, self.account, self.payloads.fetch, keep=self.keep)
            if self.hearing.mask and planned.outcome == "recorded":
                mask(planned, self.payloads, self._rendered)
        self._waiting.append(planned)
        self._samples += planned.frames * 2
        if planned.outcome != "recorded":
            ended.tracks = []  # their packets are counted, and nobody will look at them again
        self._rows += sum(len(track.rows) for track in ended.tracks)
        for side in planned.sides.values():
            if len(side.channel.position):
                self._from = min(self._from, int(side.channel.position[0]))
                self._to = max(self._to, int(side.channel.position[-1]))
        if self._is_batch():
            yield from self.flush()

    def _measure(self, track: Track) -> None:
        """Read the size of a fax's packets from their UDP headers: some looked like RTP with padding."""
        rows = track.rows
        size = rows["size"].astype(np.int64)
        fields = self.payloads.fetch(rows["position"] - 4, np.full(len(rows), 2, dtype=np.int64))
        told = np.array([int.from_bytes(field, "big") for field in fields], dtype=np.int64) - 8
        sane = (told > size) & (told <= size + 255)
        sane[sane] = self.payloads.holds(rows["position"][sane], told[sane])
        rows["size"] = np.where(sane, told, size)

    def _is_batch(self) -> bool:
        """Tell whether what waits is worth a pass over the input from its first payload to its last."""
        if self._samples >= BATCH or self._rows >= BATCH_ROWS or len(self._waiting) >= BATCH_CALLS:
            return True
        return self._samples >= WORTH and self._samples * SPARSE >= self._to - self._from

    def flush(self) -> Iterator[Recording]:
        """Write all calls that wait."""
        waiting, self._waiting, self._samples, self._rows = self._waiting, [], 0, 0
        self._from, self._to = _FAR, -_FAR
        together: list[Plan] = []
        for planned in waiting:
            if planned.frames * 2 > BATCH:
                yield from self._write_batch(together)
                together = []
                yield from self._write_batch([planned])
            else:
                together.append(planned)
        yield from self._write_batch(together)
        self.payloads.give_back()

    def _write_batch(self, batch: list[Plan]) -> Iterator[Recording]:
        if self.signing is not None:
            for planned, sound in self._sounds(batch):
                left_out = (self._left_out(planned), None)
                yield self._concluded(*(left_out if sound is None else self._seal(planned, sound, self.signing)))
            return
        results: list[tuple[Recording, AtomicFiles | None]] = []
        with AtomicBatch() as files:
            for planned, sound in self._sounds(batch):
                left_out = (self._left_out(planned), None)
                results.append(left_out if sound is None else self._record(planned, sound, files))
            failed = files.publish()
        for result, member in results:
            yield self._concluded(result, failed.get(member) if member is not None else None)

    def _sounds(self, batch: list[Plan]) -> Iterator[tuple[Plan, Iterator[np.ndarray] | None]]:
        """Yield each call with its sound, None if it is not recorded. What is yielded has to be used up in turn."""
        whole = [piece for planned in batch if _is_shared(planned) for piece in pieces(planned)]
        rendered = self._renderer.render(whole)
        for planned in batch:
            if planned.outcome != "recorded":
                yield planned, None
            elif _is_shared(planned):
                yield planned, listened(planned, islice(rendered, len(list(pieces(planned)))), self.hearing)
            else:
                yield planned, listened(planned, self._rendered(planned), self.hearing)

    def _concluded(self, result: Recording, error: OSError | None) -> Recording:
        """Count what became of a call."""
        if error is not None:
            result = replace(result, outcome="failed", files=(), error=str(error))
        if result.outcome in ("recorded", "failed"):
            self.account.calls[result.outcome] += 1
        return result

    def _rendered(self, planned: Plan) -> Iterator[np.ndarray]:
        return decode.sound(planned, self.payloads) if planned.decoded else self._rendered_singly(planned)

    def _rendered_singly(self, planned: Plan) -> Iterator[np.ndarray]:
        for piece in pieces(planned):
            yield from self._renderer.render([Piece(planned, piece.start, piece.stop)])

    def _direction(self, call: Call) -> str:
        addresses = [call.signalling[party][0] if party in call.signalling else "" for party in Party]
        return direction(self.own, call.caller.number, call.callee.number, *addresses)

    def _left_out(self, planned: Plan) -> Recording:
        call = planned.ended.call
        notes = ("Encrypted: yes, not recordable",) if planned.outcome == "encrypted" else tuple(other_notes(planned))
        other = other_leg(planned.ended, self.legs)
        if other is not None:
            notes = (f"recorded on the {self.legs} leg: {identity(other)} ({other.call_id[:80]})",)
        return Recording(
            planned,
            identity_of(planned.ended),
            planned.outcome,
            self._direction(call),
            codec_text(planned),
            (),
            notes,
        )

    def _named(self, planned: Plan) -> tuple[Recording, PurePosixPath, str]:
        """Return what the recording will be, the name of its files without ending, and that of kept packets."""
        call = planned.ended.call
        way, name = self._direction(call), identity_of(planned.ended)
        fields = NameFields(
            start=planned.ended.started,
            id=name,
            caller=call.caller.number,
            callee=call.callee.number,
            caller_name=call.caller.name,
            callee_name=call.callee.name,
            direction=way,
            call_id=call.call_id,
            instance=self.recorder.instance,
        )
        path = self.naming.path(fields)
        everything = planned.keep and self.packets is None
        kept = f"{path.name}.pcapng" if planned.keeps_packets or everything else ""
        notes = (*side_notes(planned, kept), *other_notes(planned, kept if everything else f"{path.name}{PACKETS}"))
        return Recording(planned, name, "recorded", way, codec_text(planned), notes=notes), path, kept

    def _record(
        self, planned: Plan, sound: Iterator[np.ndarray], batch: AtomicBatch
    ) -> tuple[Recording, AtomicFiles | None]:
        """Write a call's files, unpublished yet."""
        result, path, kept = self._named(planned)
        member: AtomicFiles | None = None
        try:
            member = batch.add(make_folder(self.root / path.parent))
            names = self._write(result, path, kept, sound, member, [])
        except (OSError, WavTooLong) as error:
            _use_up(planned, sound)
            if member is not None:
                batch.drop(member)
            return replace(result, outcome="failed", error=str(error)), None
        return replace(result, files=names, notes=result.notes + late_notes(planned)), member

    def _seal(self, planned: Plan, sound: Iterator[np.ndarray], signing: "Signing") -> tuple[Recording, OSError | None]:
        """Write a call's files and seal them, if that was not done before."""
        result, path, kept = self._named(planned)
        try:
            folder = make_folder(self.root / path.parent)
            there = signing.found(result.id, folder, path.name)
            if there is not None:
                names = tuple(path.parent / name for name in there)
            else:
                day = self.naming.zone.iso(planned.ended.started)[:10]
                with signing.sealing(result.id, folder, path.name, day) as seal:
                    names = self._write(result, path, kept, sound, seal, seal.lines)
                    names += tuple(path.parent / name for name in seal.publish())
        except (OSError, WavTooLong) as error:
            _use_up(planned, sound)
            return replace(result, outcome="failed", error=str(error)), None
        _use_up(planned, sound)
        return replace(result, files=names, notes=result.notes + late_notes(planned)), None

    def _write(
        self,
        result: Recording,
        path: PurePosixPath,
        kept: str,
        sound: Iterator[np.ndarray],
        files: Files,
        seal: info.Pairs,
    ) -> tuple[PurePosixPath, ...]:
        planned = result.plan
        names = []
        if planned.has_sound:
            names.append(f"{path.name}.wav")
            self._write_wav(planned, files.open(names[-1]), sound, self._about(result))
        if kept:
            names.append(kept)
            self._write_kept(planned, files.open(kept))
        if self.packets is not None:
            names.append(f"{path.name}{PACKETS}")
            self._write_packets(planned, self.packets, files.open(names[-1]))
        names.append(f"{path.name}_info.txt")
        files.open(names[-1], follows=True).write(info.render(self._pairs(result, kept, seal)))
        return tuple(path.parent / name for name in names)

    def _write_kept(self, planned: Plan, file: Sink) -> None:
        tracks = [track for track in planned.ended.tracks if is_kept(planned, track)]
        for part in pcapng(tracks, self.payloads, self.book, self.wall):
            file.write(part)

    def _write_packets(self, planned: Plan, packets: Path, file: Sink) -> None:
        """Keep a capture file, without the keys in it; of an encrypted call in its place what was decrypted."""
        encrypted = bool(planned.ended.srtp)
        with packets.open("rb") as source:
            for part in blanked(source, encrypted, masked=self.hearing.mask, patches=self._patches(planned, packets)):
                file.write(part)
        if encrypted:
            self._write_kept(planned, file)

    def _patches(self, planned: Plan, packets: Path) -> list[Patch]:
        """Return what was masked in the payloads that lie in this capture file."""
        patches = planned.masked.patches if planned.masked is not None else []
        places = [(self.payloads.offset(patch.position, packets), patch) for patch in patches]
        return [(place, patch.head, patch.payload) for place, patch in places if place is not None]

    def _about(self, result: Recording) -> Mapping[str, str]:
        """What a WAV says of itself, for whoever finds it without its other files."""
        return {
            "IART": self.recorder.instance,
            "ICRD": self.naming.zone.iso(result.plan.ended.started),
            "INAM": result.id,
            "ICMT": f"CallId {result.call.call_id}",
            "ISFT": f"Tapdeck {self.recorder.version}",
        }

    @staticmethod
    def _write_wav(planned: Plan, file: Sink, sound: Iterator[np.ndarray], about: Mapping[str, str]) -> None:
        how = encoding(planned)
        file.write(header(how, 2, planned.rate, planned.frames, about))
        for part in sound:
            file.write(part.data)
        file.write(padding(how, 2, planned.frames))

    def _pairs(self, result: Recording, kept: str, seal: info.Pairs) -> info.Pairs:
        return pairs(
            result.plan,
            identity=result.id,
            direction=result.direction,
            zone=self.naming.zone,
            recorder=self.recorder,
            presses=presses(result.plan, self.payloads),
            related=related_to(result.plan.ended),
            kept=kept,
            notes=result.notes + late_notes(result.plan),
            book=self.book,
            seal=seal,
        )


def _use_up(planned: Plan, sound: Iterator[np.ndarray]) -> None:
    """Skip what is left of a call's sound: the next call's follows it."""
    if _is_shared(planned):
        deque(sound, maxlen=0)


def _is_shared(planned: Plan) -> bool:
    """Tell whether a call's sound is rendered in one go with that of others."""
    return planned.outcome == "recorded" and not planned.decoded and planned.frames * 2 <= BATCH
