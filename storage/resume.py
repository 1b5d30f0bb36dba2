"""Going on with calls that ran when an earlier run of capture ended: what it left in the spool, and what was said."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..sip.message import SipError, parse
from ..sniffer.columns import Columns
from ..sniffer.datagrams import Fate
from ..sniffer.live import Past
from ..sniffer.signalling import Heard
from .spool import DONE, LIVE, RESUME
from .spool_file import SpoolError, read_spool, signalling


@dataclass(slots=True)
class Left:
    """What an earlier run left: what was said in each running call, in the order of time; how many unfinished files
    were handed over; and the files that could not be read.
    """

    history: list[tuple[Past, Heard]] = field(default_factory=list)
    handed_over: int = 0
    unreadable: list[Path] = field(default_factory=list)


def take_over(spool: Path, sip_ports: frozenset[int], oldest: int) -> Left:
    """Hand over the unfinished files of an earlier run, and return what was said in its running calls.

    What was last said before `oldest` (ns) is not gone on with. Raises OSError.
    """
    left = Left()
    for path in sorted((spool / RESUME).glob("*.pcapng")):
        try:
            past, heard = _history(path, sip_ports)
        except SpoolError:
            left.unreadable.append(path)
            path.unlink()
            continue
        if heard and heard[-1].time >= oldest:
            left.history += [(past, one) for one in heard]
        else:
            path.unlink()
        if not past.media:
            (spool / LIVE / path.name).unlink(missing_ok=True)  # the call begins anew, with all that was said
    for path in sorted((spool / LIVE).glob("*.pcapng")):
        path.rename(spool / DONE / path.name)
        left.handed_over += 1
    left.history.sort(key=lambda entry: entry[1].time)
    return left


def _history(path: Path, sip_ports: frozenset[int]) -> tuple[Past, list[Heard]]:
    file = read_spool(path)
    heard = sorted(_messages(path, sip_ports), key=lambda one: one.time)
    return Past(file.head.id, bool(file.head.continues or file.of_kind("media"))), heard


def _messages(path: Path, sip_ports: frozenset[int]) -> Iterator[Heard]:
    columns = Columns(sip_ports=sip_ports)
    for records in signalling(path):
        for packet in columns.read(records).slow:
            if packet.fate is not Fate.TEXT:
                continue
            try:
                message = parse(packet.payload)
            except SipError:
                continue
            source, destination = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
            yield Heard(message, packet.time, source, destination, "UDP")
