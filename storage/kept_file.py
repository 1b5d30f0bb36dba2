"""A call's kept packets read again: as much of the call as its sound is made of (`kept.py` writes them)."""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..sip.call import Call
from ..sip.dialog import Party
from ..sip.parties import Identity
from ..sip.sdp import Format
from ..sniffer.bindings import Binding, Match, Source
from ..sniffer.rows import ROW
from ..sniffer.selection import EndedCall, Track, Use
from ..sniffer.sources.payloads import Payloads
from ..sniffer.tracked import Claim, Tracked
from .kept import FORMAT

MAX_STREAMS = 10_000
_FAR = 1 << 61  # ns; no clock shows such a time
_HEAD = {4: 40, 6: 60}  # IP, UDP and RTP, by version


class KeptError(ValueError):
    """The file is not one of a recording's kept packets; the message says why."""


@dataclass(slots=True)
class _Stream:
    about: dict[str, Any]
    rows: list[tuple[int, int, int, int, int, int, int]] = field(default_factory=list)
    ssrc: int = 0


def read_kept(path: Path, payloads: Payloads) -> EndedCall:
    """Return the call whose packets are kept in a file, for its sound. Raises KeptError, OSError."""
    data = path.read_bytes()
    base = payloads.add(path.open("rb"))
    streams, ahead = _read(data, base)
    call = Call(0, "", "", 0, False, Identity("", "", ""), Identity("", "", ""), "", ("", 0), ("", 0))
    tracked = Tracked(call)
    tracks = [_track(tracked, stream) for stream in streams if stream.rows]
    _make_steady(tracks, ahead)
    return EndedCall(tracked, tracks)


def _blocks(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each block: its kind, and where its body begins and ends."""
    place = 0
    while place < len(data):
        if place + 12 > len(data):
            raise KeptError("the file breaks off")
        kind, size = struct.unpack_from("<II", data, place)
        if size < 12 or size % 4 or place + size > len(data):
            raise KeptError(f"byte {place} is no block of a pcapng file")
        yield kind, place + 8, place + size - 4
        place += size


def _read(data: bytes, base: int) -> tuple[list[_Stream], list[list[int]]]:
    """Return the streams with their packets, and how far the shown times are ahead of steady ones from which packet
    on.
    """
    streams: list[_Stream] = []
    ahead: list[list[int]] | None = None
    number = 0
    for kind, begin, end in _blocks(data):
        if kind == 0x0A0D0D0A:
            ahead = _ahead(_comment(data[begin + 16 : end]))
        elif ahead is None:
            raise KeptError("it was not written by Tapdeck, or by one that did not keep what is needed")
        elif kind == 1 and len(streams) < MAX_STREAMS:
            streams.append(_Stream(_comment(data[begin + 8 : end])))
        elif kind == 6:
            _packet(data, begin, end, base, streams, number)
            number += 1
    if ahead is None:
        raise KeptError("it is empty")
    return streams, ahead


def _ahead(about: dict[str, Any]) -> list[list[int]] | None:
    found = about.get("ahead")
    if about.get("format") != FORMAT or not isinstance(found, list):
        return None
    return [entry for entry in found if isinstance(entry, list) and [_number(part) for part in entry] == [True, True]]


def _number(value: object) -> bool:
    return isinstance(value, int) and abs(value) <= _FAR


def _comment(options: bytes) -> dict[str, Any]:
    """Return what the comments of a block say in JSON, nothing if that is none."""
    text, place = b"", 0
    while place + 4 <= len(options):
        code, size = struct.unpack_from("<HH", options, place)
        if code == 0:
            break
        text += options[place + 4 : place + 4 + size] if code == 1 else b""
        place += 4 + size + -size % 4
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _packet(data: bytes, begin: int, end: int, base: int, streams: list[_Stream], number: int) -> None:
    stream, high, low, size = struct.unpack_from("<IIII", data, begin)
    if stream < len(streams) and streams[stream].about.get("use") == Use.OTHER_MEDIA.value:
        return  # no part of the sound
    packet = begin + 20
    head = _HEAD.get(data[packet] >> 4, 0) if size and packet + size <= end else 0
    if not head or size < head or stream >= len(streams):
        raise KeptError(f"packet {number + 1} is none that a recording keeps")
    rtp = packet + head - 12
    kind, sequence, stamp, ssrc = struct.unpack_from(">BHII", data, rtp + 1)
    time = high << 32 | low
    if time > _FAR:
        raise KeptError(f"packet {number + 1} bears an impossible time")
    one = streams[stream]
    one.ssrc = ssrc
    one.rows.append((time, base + packet + head, stamp, number, sequence, size - head, kind))


def _track(tracked: Tracked, stream: _Stream) -> Track:
    """Return a stream as the plan wants it. Its `stream` column numbers the packets of the file until times are set."""
    about = stream.about
    try:
        sender, use = Party(about["party"]), Use(about["use"])
        formats: list[tuple[int, Mapping[int, Format]]] = [
            (int(since), _formats(known)) for since, known in about["formats"] if _number(since)
        ]
        sure = bool(about["sure"])
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise KeptError(f"what it says of a stream is not readable ({type(error).__name__})") from None
    columns = np.array(stream.rows, dtype=np.int64).T
    rows = np.zeros(len(stream.rows), dtype=ROW)
    for name, column in zip(("time", "position", "stamp", "stream", "sequence", "size", "kind"), columns, strict=True):
        rows[name] = column
    rows["frames"] = 1
    to = Binding(tracked, sender.other, "", 0, "", Source.OWN, None)
    own = Binding(tracked, sender, "", 0, "", Source.OWN, None)
    match = Match(to, own if sure else None)
    ends = ((0, 0), (0, 0))
    fresh = np.ones(len(rows), dtype=bool)
    return Track(Claim(tracked, 0, match, 0), sender, *ends, stream.ssrc, rows, fresh, "audio", formats, None, use)


def _formats(known: dict[str, Any]) -> dict[int, Format]:
    found: dict[int, Format] = {}
    for number, (name, rate, channels, fmtp) in known.items():
        if not 0 <= int(rate) <= 1_000_000 or not 0 <= int(channels) <= 255:
            raise ValueError(f"payload type {number}")
        found[int(number)] = Format(str(name), int(rate), int(channels), str(fmtp))
    return found


def _make_steady(tracks: list[Track], ahead: list[list[int]]) -> None:
    """Turn the times shown back into those by which the sound was placed."""
    since = np.array([index for index, _ in ahead] or [0], dtype=np.int64)
    by = np.array([by for _, by in ahead] or [0], dtype=np.int64)
    for track in tracks:
        which = np.searchsorted(since, track.rows["stream"], side="right") - 1
        track.rows["time"] -= by[np.maximum(which, 0)]
