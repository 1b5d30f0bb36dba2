"""What a target may choose recordings and make names by: a few facts of a recording, as its info file says them."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from . import info
from .parcel import INFO, Parcel, is_day

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANCE = re.compile(r"instance=(.*?) version=")


@dataclass(frozen=True, slots=True)
class About:
    """Facts of a recording. `started` is in ns since the epoch; `kind` is its class, empty where it has none. Numbers
    and names come from the wire. `of_a_day`: this is no recording but the checkpoint of a day.
    """

    id: str
    started: int
    caller: str = ""
    callee: str = ""
    caller_name: str = ""
    callee_name: str = ""
    direction: str = "unknown"
    kind: str = ""
    call_id: str = ""
    instance: str = ""
    of_a_day: bool = False


def read_about(root: Path, parcel: Parcel) -> About:
    """Return what a recording's info file says, or that this is a day's checkpoint. Raises OSError where it cannot be
    read.
    """
    if is_day(parcel):
        return About(parcel.id, round(parcel.ended * 1000) * 1_000_000, of_a_day=True)
    with (root / (parcel.stem + INFO)).open("rb") as file:
        return about_of(parcel, file.read(info.MAX_SIZE + 1))


def about_of(parcel: Parcel, content: bytes) -> About:
    """Return what the content of an info file says. Of one that is damaged only the parcel's own facts are left: it
    fits no selection, and its names say `unknown`.
    """
    nothing = About(parcel.id, round(parcel.ended * 1000) * 1_000_000)
    try:
        # Of a key that comes twice the first one counts.
        said = dict(reversed(info.parse(content)))
    except info.InfoError:
        return nothing
    instance = _INSTANCE.match(said.get("Recorder", ""))
    return About(
        id=said.get("RecordingId") or parcel.id,
        started=_nanoseconds(said.get("DatetimeUtc", ""), nothing.started),
        caller=said.get("Caller", ""),
        callee=said.get("Callee", ""),
        caller_name=said.get("CallerName", ""),
        callee_name=said.get("CalleeName", ""),
        direction=said.get("Direction") or "unknown",
        kind=said.get("Class", ""),
        call_id=said.get("CallId", ""),
        instance=instance[1] if instance else "",
    )


def _nanoseconds(text: str, otherwise: int) -> int:
    try:
        return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, TypeError):  # no time, or one without an offset
        return otherwise
