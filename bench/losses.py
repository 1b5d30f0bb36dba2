"""What a run with kills has left, held against what was sent: each missing sample must be a kill's, and near it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.compare import Damage, Voice, by_call, voices
from bench.traffic import SAMPLE_US, START_US, Plan, call_id
from tests.support.box import Box
from tests.support.record import Recording
from tests.support.replay import Started

SECOND_US = 1_000_000
ALLOWED_S = 1.0
STOPPING_US = 500_000
"""When its supervisor is killed, capture stops in good order, about so much later."""
LATE_US = 60_000
"""A frame is sent, and a kill felt, at most so much later than it was due."""


@dataclass
class Verdict:
    """What was found. Texts name the calls; times are in seconds."""

    kills: list[tuple[float, tuple[str, ...]]]
    calls: int = 0
    recordings: int = 0
    continuations: int = 0
    in_shadow: int = 0
    in_shadow_recorded: int = 0
    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    unmarked: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    overlong: list[str] = field(default_factory=list)
    losses_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    exit_codes: dict[str, int] = field(default_factory=dict)

    @property
    def killed(self) -> dict[str, int]:
        """How often which processes were killed."""
        return dict(Counter("+".join(what) for _, what in self.kills))

    @property
    def worst_loss_s(self) -> float:
        """The most sound that a kill took of a call: from its last recorded sample to the kill."""
        return max(self.losses_s, default=0.0)

    @property
    def median_loss_s(self) -> float:
        return median(self.losses_s) if self.losses_s else 0.0

    @property
    def worst_gap_s(self) -> float:
        """The longest time from a kill to the next recorded sample of a call."""
        return max(self.gaps_s, default=0.0)

    @property
    def median_gap_s(self) -> float:
        return median(self.gaps_s) if self.gaps_s else 0.0

    @property
    def good(self) -> bool:
        """Whether all is as it must be."""
        return not self.findings and not any(self.exit_codes.values())

    @property
    def findings(self) -> list[str]:
        """All that must not be."""
        return [*self.lost, *self.damaged, *self.overlong, *self.unexplained, *self.unmarked, *self.leftovers]


@dataclass(frozen=True)
class Deaf:
    """When nothing listened: for each kill of capture, its time and when the next sample of any call was recorded."""

    kills: list[int]
    back: list[int]

    def shadows(self, time: int) -> bool:
        """Whether what was said at this time may have been missed, or forgotten a moment later."""
        before = int(ALLOWED_S * SECOND_US) + LATE_US
        return any(at - before <= time <= until for at, until in zip(self.kills, self.back, strict=True))


def judge(
    plans: Sequence[Plan],
    box: Box,
    started: Started,
    kills: Sequence[tuple[int, tuple[str, ...]]],
    exit_codes: dict[str, int],
) -> Verdict:
    """Hold a box's recordings against the plans that were played; kills are monotonic ns and names."""
    verdict = Verdict([((at - started.monotonic_ns) / 1e9, what) for at, what in kills], exit_codes=exit_codes)
    zero = started.zero_ns // 1000 - started.monotonic_ns // 1000
    times = [
        zero + at // 1000 + (0 if "capture" in what else STOPPING_US)
        for at, what in kills
        if {"capture", "run"} & set(what)
    ]
    found = by_call(box.recordings())
    heard = list(_heard(plans, found, verdict))
    deaf = Deaf(times, _back(times, heard))
    for plan, both in heard:
        for voice in both:
            _explain(plan, voice, deaf, verdict)
    _count(plans, found, deaf, verdict)
    known = {call_id(plan.first + call) for plan in plans for call in range(plan.calls)}
    verdict.damaged += [f"{name}: a call that was never made" for name in found if name not in known]
    verdict.leftovers = _leftovers(box)
    return verdict


Heard = tuple[Plan, list[Voice]]


def _heard(plans: Sequence[Plan], found: dict[str, list[Recording]], verdict: Verdict) -> Iterator[Heard]:
    for plan in plans:
        for call in range(plan.calls):
            pieces = found.get(call_id(plan.first + call), [])
            if not pieces:
                continue
            verdict.unmarked += _marks(pieces)
            try:
                yield plan, voices(plan, call, pieces)
            except Damage as error:
                verdict.damaged.append(str(error))


def _marks(pieces: Sequence[Recording]) -> list[str]:
    """What the info files of a call's recordings should say and do not."""
    wrong: list[str] = []
    for before, piece in zip([None, *pieces], pieces, strict=False):
        name = f"{piece.info['CallId']}, {piece.info['RecordingId']}"
        stopped = piece.info["EndReason"] == "recorder stopped"
        if piece is not pieces[-1] and not stopped and not piece.info.get("Truncated", "").startswith("yes"):
            wrong.append(f"{name}: goes on in another recording, and is not marked Truncated")
        continues = piece.info.get("ContinuationOf", "")
        if before is not None and before.info["RecordingId"] not in continues:
            wrong.append(f"{name}: ContinuationOf is {continues!r}, not {before.info['RecordingId']}")
        if before is None and continues:
            wrong.append(f"{name}: is a continuation ({continues}) of nothing")
    return wrong


def _time(plan: Plan, voice: Voice, sample: int) -> int:
    """When a sample of a voice was sent, in microseconds of the plan."""
    return int(plan.starts_us[2 * (voice.call - plan.first) + voice.side]) + sample * SAMPLE_US


def _back(kills: Sequence[int], heard: Sequence[Heard]) -> list[int]:
    """For each kill of capture: when the first sample after it was recorded, of any call."""
    begins = sorted(_time(plan, voice, part.begin) for plan, both in heard for voice in both for part in voice.parts)
    never = 1 << 62
    return [next(iter(begins[bisect_right(begins, at + LATE_US) :]), never) for at in kills]


def _explain(plan: Plan, voice: Voice, deaf: Deaf, verdict: Verdict) -> None:
    """Find the kills to which each gap of a voice belongs, and what each of them took."""
    for gap in voice.gaps:
        begin, end = (_time(plan, voice, sample) for sample in gap)
        # What a kill takes of a voice may be its end, and the kill come after that.
        latest = end + LATE_US if gap[1] < voice.length else max(begin + int(ALLOWED_S * SECOND_US), end)
        inside = [n for n, at in enumerate(deaf.kills) if at <= latest and deaf.back[n] >= begin - LATE_US]
        missing = f"{(end - begin) / SECOND_US:.2f} s are missing at {(begin - START_US) / SECOND_US:.2f} s"
        name = f"{call_id(voice.call)}, {('caller', 'callee')[voice.side]}: {missing}"
        if not inside:
            verdict.unexplained.append(name)
            continue
        since = begin
        for n in inside:
            # What fell between two kills counts from the moment at which capture was back.
            loss = max(min(deaf.kills[n], end) - since, 0) / SECOND_US
            verdict.losses_s.append(loss)
            if loss > ALLOWED_S:
                at_s = (deaf.kills[n] - START_US) / SECOND_US
                verdict.overlong.append(f"{name}, {loss:.2f} s of it before the kill at {at_s:.2f} s")
            since = max(deaf.back[n], deaf.kills[n])
        late = (end - since) / SECOND_US
        if late > ALLOWED_S and not deaf.shadows(int(plan.invites_us[voice.call - plan.first])):
            verdict.overlong.append(f"{name}, {late:.2f} s of it after capture was back")
        if gap[1] < voice.length:
            verdict.gaps_s.append(max(end - deaf.kills[inside[-1]], 0) / SECOND_US)


def _count(plans: Sequence[Plan], found: dict[str, list[Recording]], deaf: Deaf, verdict: Verdict) -> None:
    """Account for every call that was made."""
    for plan in plans:
        for call, invite in enumerate(plan.invites_us.tolist()):
            name = call_id(plan.first + call)
            shadow = deaf.shadows(invite)
            verdict.calls += 1
            verdict.in_shadow += shadow
            verdict.in_shadow_recorded += shadow and name in found
            if not shadow and name not in found:
                verdict.lost.append(f"{name}: no recording")
    verdict.recordings = sum(map(len, found.values()))
    verdict.continuations = sum(len(pieces) - 1 for pieces in found.values())


def _leftovers(box: Box) -> list[str]:
    """Files that belong to no whole recording."""
    wanted = {path for wav in box.out.rglob("*.wav") for path in _whole(wav)}
    there = {path for path in box.out.rglob("*") if path.is_file() and not _ours(path)}
    # What is in resume/ may be of calls whose BYE nobody heard: they are waited for for hours.
    spooled = [path for folder in ("live", "done") for path in box.spooled(folder)]
    return [str(path) for path in sorted((there ^ wanted) | set(spooled))]


def _whole(wav: Path) -> list[Path]:
    """The files of a recording, of one that says that it is sealed its seal too."""
    info = wav.with_name(f"{wav.stem}_info.txt")
    sealed = info.exists() and b"\nSealedAt: " in info.read_bytes()
    endings = ("_hash.txt", "_hash.SHA256withRSA.sig") if sealed else ()
    return [wav, info, *(wav.with_name(f"{wav.stem}{ending}") for ending in endings)]


def _ours(path: Path) -> bool:
    """Locks, and what lies in each day's folder for whoever verifies it."""
    if path.name in ("tapdeck-certificate.pem", "verify.sh", "verify.ps1") or path.name.startswith("tapdeck-day-"):
        return True
    return path.name.startswith(".") and path.name.endswith("lock")
