"""What the manifest of the public captures expects of each: its `expected` column as values."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

VIDEO = ("h263", "H264", "VP8")
"""Codecs of pictures: their streams are no part of a recording."""
NAMES = {
    "g711A": "PCMA",
    "g711U": "PCMU",
    "DVI4 8k": "DVI4",
    "DVI4 16k": "DVI4/16000",
    "Exp. from Xerox PARC": "LPC",
}
"""What RTP calls a codec where the manifest has another name for it; else they differ in case at most."""
NO_CODEC = ("CN", "telephone-event", "Unassigned", "rtpevent")


@dataclass(frozen=True)
class ExpectedStream:
    """Packets of one 5-tuple. `audible` of `sounding` G.711 packets are above the manifest's threshold."""

    ends: str
    codecs: tuple[str, ...]
    packets: int
    audible: int | None
    sounding: int
    encrypted: bool

    @property
    def is_video(self) -> bool:
        return any(codec in VIDEO for codec in self.codecs)


@dataclass(frozen=True)
class ExpectedCall:
    """A call. Times in seconds from the start of the capture; `final` the status of a call that was not answered."""

    number: int
    caller: str
    callee: str
    answered_s: float | None
    bye_s: float | None
    final: str
    streams: tuple[ExpectedStream, ...]


@dataclass(frozen=True)
class ExpectedCapture:
    """One line of the manifest. `invites` counts Call-IDs with an INVITE; `calls` may name only the first of many."""

    name: str
    invites: int
    calls: tuple[ExpectedCall, ...]
    strangers: tuple[ExpectedStream, ...]


_CALL = re.compile(r"\[(?P<number>\d+)\] (?P<parties>.*?->\S*) (?P<fate>.*?)RTP: (?P<streams>.*)", re.DOTALL)
_STREAM = re.compile(
    r"(?P<source>\S+?)>(?P<target>\S+) (?P<codecs>.+?) (?P<packets>\d+)pk \S+s"
    r"(?: lost-?\d+)?(?: audible(?P<audible>\d+)/(?P<sounding>\d+))?(?P<encrypted> ENCRYPTED\(.*\))?"
)


def read(path: Path) -> list[ExpectedCapture]:
    """All lines of the manifest."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [
            _capture(row["file"], row["expected"])
            for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]


def _capture(name: str, text: str) -> ExpectedCapture:
    head, *parts = text.split(" || ")
    strangers = [part.removeprefix("RTP not tied to SDP: ") for part in parts if part.startswith("RTP not")]
    if "no INVITE" in text:
        return ExpectedCapture(name, 0, (), _streams("; ".join(strangers)))
    count, _, calls = head.partition(": ")
    invites = re.match(r"(\d+) INVITE Call-ID", count)
    assert invites, text
    named = [call for call in calls.split(" | ") if not call.endswith("more")]
    return ExpectedCapture(name, int(invites[1]), tuple(map(_call, named)), _streams("; ".join(strangers)))


def _call(text: str) -> ExpectedCall:
    found = _CALL.fullmatch(text)
    assert found, text
    caller, _, callee = found["parties"].partition("->")
    fate = found["fate"]
    times = {key: re.search(rf"{key} t=([\d.]+)s", fate) for key in ("answered", "BYE")}
    final = re.search(r"final (\d{3})", fate)
    return ExpectedCall(
        number=int(found["number"]),
        caller=caller,
        callee=callee,
        answered_s=float(times["answered"][1]) if times["answered"] else None,
        bye_s=float(times["BYE"][1]) if times["BYE"] else None,
        final=final[1] if final else "",
        streams=() if found["streams"] == "none" else _streams(found["streams"]),
    )


def _streams(text: str) -> tuple[ExpectedStream, ...]:
    return tuple(_stream(part) for part in text.split("; ") if part)


def _stream(text: str) -> ExpectedStream:
    found = _STREAM.fullmatch(text.strip())
    assert found, text
    return ExpectedStream(
        ends=f"{found['source']} > {found['target']}",
        codecs=tuple(found["codecs"].split(", ")),
        packets=int(found["packets"]),
        audible=int(found["audible"]) if found["audible"] else None,
        sounding=int(found["sounding"] or 0),
        encrypted=bool(found["encrypted"]),
    )
