"""Speech to be played into calls: spoken by espeak-ng, brought to 8 kHz by SoX, different for each phone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from . import files, ip
from .media import PCMA, SAMPLE_NS, Rtp
from .netns import sh

RATE, SAMPLES = 8000, 160
SECONDS = 12
TEXTS = {
    "a": ("en-us+m3", "This is the office. The lift is out of order again, and the parcel is still in the cellar."),
    "b": ("en-gb+f3", "Thank you for ringing. Our engineer can come on Thursday morning, between nine and eleven."),
    "c": ("en-gb-scotland+m7", "Switchboard speaking. I shall put you through as soon as the line is free."),
}
"""Voice and text of each phone."""


@dataclass(frozen=True)
class Speech:
    """Twelve seconds: a WAV of 16 bits, its samples, and the same in A-law."""

    wav: Path
    samples: NDArray[np.float64]
    alaw: bytes

    def packets(self, folder: Path, ssrc: int, seconds: float = SECONDS) -> Path:
        """The A-law sound as a capture of RTP, 20 ms a packet, for sipp to play."""
        ends = (ip.Endpoint("127.0.0.1", 6000), ip.Endpoint("127.0.0.1", 6002))
        cut = [self.alaw[at : at + SAMPLES] for at in range(0, int(seconds * RATE), SAMPLES)]
        talk = [
            Rtp(n * SAMPLES * SAMPLE_NS, 0, *ends, n + 1, n * SAMPLES, ssrc, PCMA, payload, marker=not n)
            for n, payload in enumerate(cut)
        ]
        return files.write(folder, files.pcap([one.packet() for one in talk]), f"{self.wav.stem}.pcap")


def speech(folder: Path, host: str, rate: int = RATE, channels: int = 1) -> Speech:
    """Make the speech of a phone in a folder. Raises NetworkError if a tool fails."""
    voice, text = TEXTS[host]
    spoken, wav, alaw = folder / f"{host}-spoken.wav", folder / f"{host}.wav", folder / f"{host}.al"
    sh("espeak-ng", "-v", voice, "-s", 150, "-w", spoken, text)
    shape: tuple[str | float, ...] = ("rate", rate, "gain", "-n", "-6", "pad", 0.1, SECONDS, "trim", 0, SECONDS)
    # No dither (-D): a run gives the same bytes as the one before.
    sh("sox", "-D", spoken, "-c", channels, "-b", 16, wav, *shape)
    sh("sox", "-D", wav, "-t", "al", alaw)
    samples, _ = soundfile.read(str(wav), dtype="int16", always_2d=True)
    return Speech(wav, np.asarray(samples[:, 0], np.float64), alaw.read_bytes())
