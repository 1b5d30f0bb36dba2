"""The WAV of a recording made again from its kept packets: the same samples, without the capture it came from."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..rtp.g711 import PCM, Law
from ..sniffer.account import Account
from ..sniffer.sources.payloads import Payloads
from . import decode
from .kept_file import KeptError, read_kept
from .listening import Copy, of_plan
from .plan import Plan, plan
from .render import Piece, Renderer, encoding, pieces
from .wav import Encoding, header, padding

_HEAD = 1 << 20
_LAWS = {Encoding.ALAW: Law.A, Encoding.MULAW: Law.MU}


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two WAVs part: the byte of their sound, and how long the sound of each is."""

    byte: int
    made: int
    there: int


class Remade:
    """The sound of a recording, made again from the file of its kept packets. Raises KeptError, OSError."""

    def __init__(self, kept: Path, scratch: Path) -> None:
        self._payloads = Payloads(scratch)
        try:
            self._plan: Plan = plan(read_kept(kept, self._payloads), Account(), self._payloads.fetch)
        except (KeptError, OSError):
            self._payloads.close()
            raise
        if not self._plan.has_sound:
            self._payloads.close()
            raise KeptError("there is no sound in it that can be decoded")

    def close(self) -> None:
        """Let go of the file."""
        self._payloads.close()

    @property
    def seconds(self) -> float:
        """How long the sound is."""
        return self._plan.frames / self._plan.rate

    def wav(self) -> Iterator[bytes]:
        """Yield the bytes of a WAV. Raises WavTooLong."""
        how = encoding(self._plan)
        yield header(how, 2, self._plan.rate, self._plan.frames)
        yield from self._sound()
        yield padding(how, 2, self._plan.frames)

    def compare(self, wav: Path) -> Difference | None:
        """Return where the sound of a WAV is another; None if it is the same, byte for byte. Raises KeptError."""
        with wav.open("rb") as file:
            place, there = _data_of(file.read(_HEAD))
            file.seek(place)
            seen = 0
            different = -1
            for part in self._sound():
                other = file.read(min(len(part), max(there - seen, 0)))
                if different < 0 and other != part:
                    same = min(len(other), len(part))
                    first = np.frombuffer(part, np.uint8, same) != np.frombuffer(other, np.uint8, same)
                    different = seen + (int(first.argmax()) if first.any() else same)
                seen += len(part)
        if different < 0 and seen == there:
            return None
        return Difference(different if different >= 0 else min(seen, there), seen, there)

    def listening(self) -> Copy:
        """Return the sound as a copy to listen to, with what was lost in it."""
        parts = (np.frombuffer(part, dtype=np.uint8) for part in self._sound())
        how = encoding(self._plan)
        pieces = (
            part.view("<i2").astype(np.int16) if how is Encoding.PCM16 else PCM[_LAWS[how]][part] for part in parts
        )
        return of_plan(self._plan, (part.reshape(-1, 2) for part in pieces))

    def _sound(self) -> Iterator[bytes]:
        if self._plan.decoded:
            yield from (part.tobytes() for part in decode.sound(self._plan, self._payloads))
            return
        renderer = Renderer(self._payloads)
        for piece in pieces(self._plan):
            yield from (part.tobytes() for part in renderer.render([Piece(self._plan, piece.start, piece.stop)]))


def _data_of(head: bytes) -> tuple[int, int]:
    """Return where the sound of a WAV begins, and its size in bytes."""
    place = 12
    while head[:4] == b"RIFF" and place + 8 <= len(head):
        name, size = head[place : place + 4], int.from_bytes(head[place + 4 : place + 8], "little")
        if name == b"data":
            return place + 8, size
        place += 8 + size + size % 2
    raise KeptError("the recording's WAV is none")
