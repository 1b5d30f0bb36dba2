"""The checkpoint of a day, `tapdeck-day-2026-11-24.txt`: what the recorder says, signed, when a day is over. Pure.

It names every recording that was sealed, in their order, with the hash of its hash file, the state of the recording
log behind the last of them, and what became of packets and calls. Each names the one before it by its hash. A copy
of one that is somewhere else, or has a time stamp, proves what the log was at that time: docs/compliance.md.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from .safe_text import for_line

TEXT, SIGNATURE, STAMP = ".txt", ".SHA256withRSA.sig", ".tsr"
"""The endings of a checkpoint's files: itself, its signature, its time stamp."""

_NAME = re.compile(r"tapdeck-day-(\d{4}-\d\d-\d\d)")


@dataclass(frozen=True, slots=True)
class Line:
    """A recording or a tombstone of the log: its entry's number, the id, the hash of the hash file; or `OtherDay` with
    the day on which the call began, if that was another.
    """

    kind: str
    seq: int
    id: str
    hash: str


@dataclass(frozen=True, slots=True)
class Day:
    """What a checkpoint says. Times are ISO 8601 with offset. `first` to `last` are the entries of the log that it
    covers, `link` the log's after them; `first` is greater by one if there are none.
    """

    day: date
    since: str
    until: str
    recorder: str
    sealed_at: str
    certificate: str
    first: int
    last: int
    link: str
    previous: str = ""
    packets: Mapping[str, int] = field(default_factory=dict)
    media: Mapping[str, int] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)
    kernel_drops: int = 0
    downtimes: Sequence[tuple[str, str]] = ()
    uncounted: Sequence[tuple[str, str, str]] = ()


def stem(day: date) -> str:
    """Return what the names of a checkpoint's files begin with."""
    return f"tapdeck-day-{day.isoformat()}"


def day_of(name: str) -> date | None:
    """Return the day of a checkpoint from what the names of its files begin with, None if it is another file's."""
    found = _NAME.fullmatch(name)
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def render(day: Day, lines: Iterable[Line]) -> bytes:
    """Return the file."""
    pairs = [*_head(day), *_accounts(day)]
    pairs += [("Downtime", f"from {since} to {until}") for since, until in day.downtimes]
    pairs += [("Uncounted", f"{stage} from {since} to {until}") for stage, since, until in day.uncounted]
    pairs.append(("PreviousCheckpoint", day.previous))
    pairs += [(line.kind, f"{line.seq} {line.id} {line.hash}") for line in lines]
    return "".join(f"{key}: {value}".rstrip() + "\n" for key, value in pairs).encode()


def _head(day: Day) -> Iterator[tuple[str, str]]:
    yield "Day", day.day.isoformat()
    yield "From", day.since
    yield "Until", day.until
    yield "Recorder", for_line(day.recorder)
    yield "SealedAt", day.sealed_at
    yield "CertificateFingerprint", day.certificate
    yield "LedgerFrom", str(day.first)
    yield "LedgerTo", str(day.last)
    yield "LedgerLink", day.link


def _accounts(day: Day) -> Iterator[tuple[str, str]]:
    for prefix, counts in (("Packets", day.packets), ("InCalls", day.media), ("Calls", day.calls)):
        for name, count in counts.items():
            yield f"{prefix}-{_words(name)}", str(count)
    yield "KernelDrops", str(day.kernel_drops)


def _words(name: str) -> str:
    """Return `not_a_call` as `NotACall`."""
    return "".join(part.capitalize() for part in name.split("_"))
