"""A look at the calls that run, from their spool files a moment later: it costs capture nothing, whoever looks.

What was said in a call is in its small `resume` file. Of the media only the end of the call's file is read.
"""

import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..rtp.g711 import PCM, Law
from ..sip.dialog import Call, Party
from ..sniffer.account import Account
from ..sniffer.engine import CallSettings, Engine
from ..sniffer.merge import in_order
from ..sniffer.sources.capture_file import CaptureError, CaptureFile
from ..sniffer.sources.payloads import Payloads, nameless_file
from ..sniffer.tls.secrets import Secrets
from .plan import plan
from .side import Side
from .spool import LIVE, RESUME
from .spool_file import Head, SpoolError, read_spool
from .unlock import Unlocker

TAIL = 128 << 10
"""Bytes at the end of a spool file that are looked at: about six seconds of a G.711 call."""
SILENT_DB = -90.0
_PACKET = 6
_LONGEST = 1 << 17
_FOREVER = 1 << 62


@dataclass(frozen=True, slots=True)
class SideNow:
    """A party in the last seconds: codec, packets lost in per cent, level in dB of full scale; None where none came."""

    codec: str = ""
    loss: float | None = None
    level: float | None = None


@dataclass(frozen=True, slots=True)
class CallNow:
    """A running call: its spool's id, the dialog, the recording that it continues or an empty text, both sides."""

    id: str
    call: Call
    continues: str
    sides: dict[Party, SideNow]


class Running:
    """Looks at the running calls of a spool. `keys` gives the secrets of DTLS sessions that are known by now."""

    def __init__(self, spool: Path, sip_ports: frozenset[int], keys: Callable[[], Secrets] = Secrets) -> None:
        self._spool = spool
        self._sip_ports = sip_ports
        self._keys = keys

    def ids(self) -> list[str]:
        """Return the ids of the running calls, the oldest first. Raises OSError if the spool cannot be read."""
        with os.scandir(self._spool / LIVE) as entries:
            found = [entry.name for entry in entries if entry.name.endswith(".pcapng")]
        began = []
        for name in found:
            try:
                began.append(((self._spool / RESUME / name).stat().st_ino, name.removesuffix(".pcapng")))
            except FileNotFoundError:
                continue
        return [name for _, name in sorted(began)]

    def look(self, name: str) -> CallNow | None:
        """Return how a call is now, None if it is over, or nothing can be said of it."""
        resume, live = (self._spool / folder / f"{name}.pcapng" for folder in (RESUME, LIVE))
        try:
            head = read_spool(resume).head
            seen = resume.read_bytes() + _beginning(resume) + _tail(live)
        except (FileNotFoundError, SpoolError):
            return None
        payloads = Payloads(Path(tempfile.gettempdir()))  # the spool is not ours to write to
        try:
            return self._judge(head, seen, payloads)
        finally:
            payloads.close()

    def _judge(self, head: Head, seen: bytes, payloads: Payloads) -> CallNow | None:
        """Run the engine over what was said and the last of the media, as if that were all of a call."""
        with nameless_file(None) as file:
            file.write(seen)
            file.seek(0)
            base = payloads.add(file)
            patient = CallSettings(media_silence_s=1e9, held_silence_s=1e9, unclaimed_hold_s=1e9)
            engine = Engine(payloads.stash, settings=patient, sip_ports=self._sip_ports, secrets=self._keys())
            try:
                capture = CaptureFile(head.id, file, base=base)
                blocks = [engine.columns.read(records) for records in capture.blocks()]
            except CaptureError:
                return None
            ended = [one for block in in_order(blocks, _FOREVER) for one in engine.feed(block)]
            ended += engine.finish("running")
            if not ended:
                return None
            account = Account()
            Unlocker(payloads, account).unlock(ended[0])
            sides = plan(ended[0], account).sides
            now = {party: _side_now(side, payloads) for party, side in sides.items()}
            return CallNow(head.id, ended[0].call, head.continues, now)


def _side_now(side: Side, payloads: Payloads) -> SideNow:
    figures = side.figures
    if not figures.received:
        return SideNow()
    return SideNow(", ".join(side.codecs), figures.loss_percent, _level(side, payloads))


def _level(side: Side, payloads: Payloads) -> float | None:
    """Return the level of G.711 sound in dB of full scale, None for what is not decoded."""
    channel = side.channel
    squares, count = 0.0, 0
    for law in (Law.A, Law.MU):
        mine = channel.law == law
        if mine.any():
            sound = b"".join(payloads.fetch(channel.position[mine], channel.size[mine]))
            samples = PCM[law][np.frombuffer(sound, dtype=np.uint8)].astype(np.float64)
            squares, count = squares + float((samples**2).sum()), count + len(samples)
    if not count:
        return None
    rms = math.sqrt(squares / count) / 32768
    return max(20 * math.log10(rms), SILENT_DB) if rms > 0 else SILENT_DB


def _beginning(resume: Path) -> bytes:
    """Return the blocks that begin a spool file: the section and its interfaces, up to the first other block."""
    with resume.open("rb") as file:
        head = file.read(_LONGEST)
    place = 0
    while place + 8 <= len(head):
        kind, size = (int.from_bytes(head[place + at : place + at + 4], "little") for at in (0, 4))
        if kind not in (0x0A0D0D0A, 1):
            break
        place += size
    return head[:place]


def _tail(live: Path) -> bytes:
    """Return the whole blocks at the end of a file that is being written to. All blocks are multiples of four long."""
    with live.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - TAIL, 0) & ~3)
        data = file.read(TAIL + 4)
    words = np.frombuffer(data[: len(data) & ~3], dtype="<u4")
    for place in np.nonzero(words[:-1] == _PACKET)[0].tolist():
        length = int(words[place + 1])
        last = place + length // 4 - 1
        if 32 <= length <= _LONGEST and length % 4 == 0 and last < len(words) and int(words[last]) == length:
            return data[4 * place :]
    return b""
