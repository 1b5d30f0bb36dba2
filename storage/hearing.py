"""A call's sound heard while it is written: levels and keys of each side, and what is wrong with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..rtp.ear import Ear
from ..rtp.g711 import PCM, Law
from ..rtp.levels import Sound
from ..rtp.tones import FLOOR_DBM0, Tone
from ..sip.dialog import Party
from ..sniffer.selection import FAX
from .plan import Plan
from .render import encoding
from .side import Side
from .wav import Encoding

Bytes = npt.NDArray[np.uint8]
_EVERY = 101
"""One sample of so many is held against the other side's."""
_LAWS = {Encoding.ALAW: Law.A, Encoding.MULAW: Law.MU, Encoding.PCM16: Law.NONE}
_LOUD = 256
"""From this on, in 16-bit samples, a sample is sound: -39 dBm0 for a sine."""
_LOUD_CODES = {law: np.abs(table.astype(np.int32)) >= _LOUD for law, table in PCM.items()}
_SAME = 0.98
_ENOUGH_S = 2.0
_PRINTS, _PRINT, _PRINT_AT = 500, 8, 16
"""Packets of each side at the call's begin of which some codes are held against the other side's, and which of them."""
_LOOPED, _FEW = 0.9, 50
SPOKE_S = 5.0
"""A side that is heard for so long has said something to which the other should have answered, in seconds."""
_UNREADABLE = "it cannot be decoded"
ONE_WAY, SAME, CLIPPING, NO_SOUND = "ONE_WAY_SOUND", "SAME_SOUND", "CLIPPING", "NO_SOUND"


@dataclass(frozen=True, slots=True)
class Hearing:
    """What is done about keys: whether those `in_band` are looked for, and whether all are to be masked."""

    in_band: bool = True
    mask: bool = False


class Listener:
    """Hears the sound of one call. Tones below `floor` (dBm0) are passed over."""

    def __init__(self, plan: Plan, *, keys: bool, floor: float = FLOOR_DBM0) -> None:
        self._plan = plan
        self._law = _LAWS[encoding(plan)]
        self._ears = {party: Ear(self._law, plan.rate, keys=keys, floor=floor) for party in Party}
        self._loud = self._equal = self._heard = 0
        self._apart: int | None = None
        self._sounds: dict[Party, Sound] = {}

    def watch(self, sound: Iterator[Bytes]) -> Iterator[Bytes]:
        """Yield the pieces of the WAV's sound as they come."""
        for piece in sound:
            self._hear(piece)
            yield piece

    def _hear(self, piece: Bytes) -> None:
        stereo = (piece if self._law else piece.view("<i2")).reshape(-1, 2)
        if not self._heard and self._law:
            self._apart = _apart(self._plan, stereo, self._law)
        self._heard += len(stereo)
        for side, party in enumerate((Party.CALLER, Party.CALLEE)):
            self._ears[party].hear(stereo[:, side], self._heard >= self._plan.frames)
        some = stereo[::_EVERY]
        left, right = some[:, 0], some[:, 1]
        loud = _is_loud(left, self._law)
        self._loud += int(np.count_nonzero(loud | _is_loud(right, self._law)))
        self._equal += int(np.count_nonzero(loud & (left == right)))

    def sound(self, party: Party) -> Sound:
        """Return a side's levels, when all has been heard."""
        if party not in self._sounds:
            self._sounds[party] = self._ears[party].sound()
        return self._sounds[party]

    def tones(self, party: Party) -> list[Tone]:
        """Return the keys in a side's sound, by samples of 8,000 a second."""
        return self._ears[party].tones

    @property
    def same(self) -> int | None:
        """By how many samples the callee's sound comes later than the caller's if both are the same: a mirror that
        shows one direction twice, or a loop. None if they are not.
        """
        enough = self._loud * _EVERY >= _ENOUGH_S * self._plan.rate
        return 0 if enough and self._equal >= _SAME * self._loud else self._apart


def _apart(plan: Plan, stereo: npt.NDArray[np.uint8], law: Law) -> int | None:
    """Return how much later (samples) the callee's packets bear what the caller's do, None if they do not."""
    prints, places = [], []
    for side, party in enumerate((Party.CALLER, Party.CALLEE)):
        channel = plan.sides[party].channel
        starts = channel.sample[:_PRINTS][channel.size[:_PRINTS] >= _PRINT_AT + _PRINT]
        starts = starts[starts + _PRINT_AT + _PRINT <= len(stereo)]
        codes = stereo[:, side][starts[:, None] + np.arange(_PRINT_AT, _PRINT_AT + _PRINT)]
        loud = _is_loud(codes, law).all(axis=1)
        prints.append(np.ascontiguousarray(codes[loud]).view("<u8")[:, 0])
        places.append(starts[loud])
    if min(len(one) for one in prints) < _FEW:
        return None
    found, mine, others = np.intersect1d(prints[0], prints[1], return_indices=True)
    if len(found) < _LOOPED * min(len(np.unique(one)) for one in prints) or len(found) < _FEW:
        return None
    return int(np.median(places[1][others] - places[0][mine]))


def _is_loud(codes: npt.NDArray[np.integer[Any]], law: Law) -> npt.NDArray[np.bool_]:
    if law is Law.NONE:
        return np.abs(codes.astype(np.int32)) >= _LOUD
    found: npt.NDArray[np.bool_] = np.take(_LOUD_CODES[law], codes, mode="clip")
    return found


def listened(plan: Plan, sound: Iterator[Bytes], hearing: Hearing) -> Iterator[Bytes]:
    """Return a call's sound; what is in it is noted in the plan as it passes, if that is not known yet."""
    if plan.listener is not None or not plan.has_sound:
        return sound
    plan.listener = Listener(plan, keys=hearing.in_band)
    return plan.listener.watch(sound)


def faults(plan: Plan) -> list[tuple[str, str]]:
    """Return what is wrong with a call's sound: the code of the alarm that it may raise, and what to say."""
    heard = plan.listener
    if heard is None or not plan.has_sound:
        return []
    found: list[tuple[str, str]] = []
    sounds = {party: heard.sound(party) for party in Party}
    fax = any(kind == FAX for _, kind in plan.others)
    answered = plan.ended.call.answered is not None and not fax
    for party in Party:
        spoke = sounds[party.other].active_s
        why = _nothing(plan.sides[party]) or "it is silent"
        told = answered and not _only_listens(plan, party)
        if told and sounds[party].silent and spoke >= SPOKE_S and why != _UNREADABLE:
            found.append((ONE_WAY, f"{party.value} is not heard ({why}), {party.other.value} is, for {spoke:.0f} s"))
    silent = [party for party in Party if sounds[party].silent and _nothing(plan.sides[party]) != _UNREADABLE]
    if answered and plan.frames >= 2 * SPOKE_S * plan.rate and len(silent) == len(Party):
        found.append((NO_SOUND, f"{plan.frames / plan.rate:.0f} s of silence from both sides"))
    if (apart := heard.same) is not None:
        later = f", {'callee' if apart > 0 else 'caller'} {abs(apart) * 1000 // plan.rate} ms later" if apart else ""
        found.append((SAME, f"both sides are the same sound{later}: a loop, or one direction is mirrored twice"))
    for party, sound in sounds.items():
        if sound.overdriven:
            text = f"{party.value} is overdriven: {100 * sound.clipped:.1f}% of its sound is at full scale"
            found.append((CLIPPING, text))
    return found


def _nothing(side: Side) -> str:
    """Return why a side has no sound at all, "" if it has some."""
    if len(side.channel.sample):
        return ""
    events = sum(len(rows) for rows, _ in side.events)
    if side.foreign or side.sealed:
        return _UNREADABLE
    return "only comfort noise came" if side.figures.received > events else "no packets with sound came"


def _only_listens(plan: Plan, party: Party) -> bool:
    """Tell whether a party was not to speak all along, by what was agreed (RFC 3264 section 5.1): an announcement."""
    media = plan.ended.tracked.media
    mine, others = ({one.direction for _, one in media[who]} for who in (party, party.other))
    return bool(mine and mine <= {"recvonly", "inactive"}) or bool(others and others <= {"sendonly", "inactive"})


def described(plan: Plan, party: Party) -> list[str]:
    """Return what an info file says of a side's sound, nothing if nobody listened."""
    if plan.listener is None or not plan.has_sound:
        return []
    sound = plan.listener.sound(party)
    if nothing := _nothing(plan.sides[party]):
        return [f"none: {nothing}" + (", as agreed: it only listens" if _only_listens(plan, party) else "")]
    if sound.silent:
        return ["silent"]
    peak = f"peak={sound.peak:.1f}dBFS" if sound.peak is not None else ""
    if sound.level is None:
        return [f"quiet {peak}"]
    share, clipped = 100 * sound.active, 100 * sound.clipped
    return [f"level={sound.level:.1f}dBm0 {peak} active={share:.0f}% clipped={clipped:.2f}%"]
