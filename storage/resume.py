"""Going on with calls that ran when an earlier run of capture ended: what it left in the spool, and what was said."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from ..sip.message import SipError, parse
from ..sniffer.columns import Columns
from ..sniffer.datagrams import Fate, SlowPacket
from ..sniffer.items import Past
from ..sniffer.signalling import Heard
from ..sniffer.sources.capture_file import CaptureError, CaptureFile
from .spool import DONE, LIVE, RESUME, UNFINISHED
from .spool_file import Head, SpoolError, read_spool, signalling

MAX_MESSAGES = 4096
"""Messages of a call that are heard again."""

Said = Heard | SlowPacket


@dataclass(slots=True)
class Left:
    """What an earlier run left: what was said in each running call, in the order of time; how many unfinished files
    were handed over; and the files that could not be read.
    """

    history: list[tuple[Past, Said]] = field(default_factory=list)
    handed_over: int = 0
    unreadable: list[Path] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Running:
    """A call that ran: its resume file, and what that says."""

    path: Path
    head: Head
    past: Past
    said: list[Said]


def take_over(spool: Path, sip_ports: frozenset[int], oldest: int) -> Left:
    """Hand over the unfinished files of an earlier run, and return what was said in its running calls.

    What was last said before `oldest` (ns) is not gone on with. Raises OSError.
    """
    left = Left()
    for path in (spool / RESUME).glob(f"*{UNFINISHED}"):
        path.unlink()
    for running in _calls(spool, sip_ports, left.unreadable):
        if running.said and running.said[-1].time >= oldest:
            left.history += [(running.past, one) for one in running.said]
        else:
            running.path.unlink()
        if running.past.continues != running.past.id:
            (spool / LIVE / running.path.name).unlink(missing_ok=True)  # the call begins anew, with all that was said
    for path in sorted((spool / LIVE).glob("*.pcapng")):
        path.replace(spool / DONE / path.name)
        left.handed_over += 1
    left.history.sort(key=lambda entry: entry[1].time)
    return left


def _calls(spool: Path, sip_ports: frozenset[int], unreadable: list[Path]) -> Iterator[_Running]:
    """Read the resume files, and remove those that cannot be read or whose place another was about to take."""
    calls: dict[tuple[str, str, int], _Running] = {}
    for path in sorted((spool / RESUME).glob("*.pcapng")):
        try:
            running = _running(path, spool / LIVE / path.name, sip_ports)
        except SpoolError:
            unreadable.append(path)
            path.unlink()
            continue
        key = running.head.call_id, running.head.caller_tag, running.head.started
        older, newer = sorted((calls.get(key, running), running), key=lambda one: one.head.begun)
        calls[key] = newer
        if older is not newer:
            older.path.unlink()
    yield from calls.values()


def _running(path: Path, live: Path, sip_ports: frozenset[int]) -> _Running:
    """Read a resume file; `live` is the call's own, if that was not handed over."""
    file = read_spool(path)
    columns = Columns(sip_ports=sip_ports)
    has_media = bool(file.of_kind("media")) or _has_media(live, columns)
    past = Past(path.stem, path.stem if has_media else file.head.continues)
    said = list(islice(_messages(path, columns), MAX_MESSAGES))
    said.sort(key=lambda one: one.time)
    return _Running(path, file.head, past, said)


def _messages(path: Path, columns: Columns) -> Iterator[Said]:
    for records in signalling(path):
        for packet in columns.read(records).slow:
            if packet.fate in (Fate.ZRTP, Fate.DTLS):
                yield packet
            elif packet.fate is Fate.TEXT:
                try:
                    message = parse(packet.payload)
                except SipError:
                    continue
                source, destination = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
                yield Heard(message, packet.time, source, destination, "UDP")


def _has_media(live: Path, columns: Columns) -> bool:
    """Tell whether there is media in a call's file though the run was killed before it noted that. One that cannot be
    read is for the seal stage to look at.
    """
    try:
        with live.open("rb", buffering=0) as stream:
            return any(len(columns.read(records).rtp) for records in CaptureFile(str(live), stream).blocks())
    except FileNotFoundError:
        return False
    except CaptureError:
        return live.stat().st_size > 0
