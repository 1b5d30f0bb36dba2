"""Listening to a recording: soundfile decodes it, NumPy compares it with what was spoken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from .shark import RtpPacket, Stream

RATE = 8000
SILENCE = {6: b"\xd5", 7: b"\xff"}
"""What silence is in the bytes of a WAV's format tag: A-law, mu-law."""
LAWS = (0, 8)
"""The RTP payload types of G.711 (RFC 3551)."""

Sound = NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """Where a text is spoken in a channel: samples from its beginning (below 0: it began before), and how alike."""

    lag: int
    likeness: float


def sound(wav: Path) -> Sound:
    """The samples of a WAV, one row a channel."""
    samples, _ = soundfile.read(str(wav), dtype="int16", always_2d=True)
    return np.asarray(samples, dtype=np.float64).T


def alaw_file(path: Path) -> Sound:
    """The samples of a headerless A-law file."""
    samples, _ = soundfile.read(
        str(path), dtype="int16", format="RAW", subtype="ALAW", samplerate=RATE, channels=1, always_2d=True
    )
    return np.asarray(samples[:, 0], dtype=np.float64)


def match(channel: Sound, text: Sound) -> Match:
    """The lag at which `text` (as long as the channel, at most) correlates best, and the coefficient there."""
    text = text[: len(channel)]
    size = 1 << (len(channel) + len(text)).bit_length()
    products = np.fft.irfft(np.fft.rfft(channel, size) * np.conj(np.fft.rfft(text, size)), size)
    lag = int(np.argmax(np.abs(products)))
    lag = lag - size if lag > len(channel) else lag
    heard = channel[max(lag, 0) : len(text) + lag]
    said = text[max(-lag, 0) :][: len(heard)]
    scale = float(np.linalg.norm(heard) * np.linalg.norm(said))
    return Match(lag, float(np.dot(heard, said)) / scale if scale else 0.0)


def audible_windows(channel: Sound, window: int, loud: float) -> int:
    """Of the windows of that many samples, those whose RMS is above `loud`."""
    cut = channel[: len(channel) // window * window].reshape(-1, window)
    return int((np.sqrt((cut**2).mean(axis=1)) > loud).sum())


@dataclass(frozen=True)
class Placed:
    """A payload found in a channel, at its sample; `moved` by so many samples against what its time stamp says."""

    packet: RtpPacket
    sample: int
    moved: int


def placed(channel: bytes, streams: list[Stream], silence: bytes) -> list[Placed]:
    """Find every G.711 payload of the streams in the channel, in order; what no payload covers must be silence."""
    found: list[Placed] = []
    covered = np.zeros(len(channel), dtype=bool)
    for stream in streams:
        last: Placed | None = None
        for run in _runs(stream):
            content = b"".join(packet.payload for packet in run)
            hint = None if last is None else last.sample + _after(last.packet, run[0])
            after = found[-1].sample + len(found[-1].packet.payload) if found else 0
            start = _find(channel, content, hint, after)
            assert start >= 0, f"the payloads from sequence number {run[0].sequence} on are not in the channel"
            assert not covered[start : start + len(content)].any(), "two payloads at one place"
            covered[start : start + len(content)] = True
            moved = 0 if hint is None else start - hint
            for packet in run:
                found.append(Placed(packet, start, moved))
                start, moved = start + len(packet.payload), 0
            last = found[-1]
    rest = np.frombuffer(channel, dtype=np.uint8)[~covered]
    assert not rest.size or (rest == silence[0]).all(), "what no packet covers is not silence"
    return found


def _find(channel: bytes, content: bytes, hint: int | None, after: int) -> int:
    """Where the content is: at the hint if it is there, else the first place after what was found before."""
    if hint is not None and hint >= 0 and channel[hint : hint + len(content)] == content:
        return hint
    return channel.find(content, after)


def _runs(stream: Stream) -> list[list[RtpPacket]]:
    """G.711 packets whose time stamps follow each other without a gap."""
    runs: list[list[RtpPacket]] = []
    for packet in stream.ordered():
        if packet.payload_type not in LAWS:
            continue
        if runs and _after(runs[-1][-1], packet) == len(runs[-1][-1].payload):
            runs[-1].append(packet)
        else:
            runs.append([packet])
    return runs


def _after(before: RtpPacket, packet: RtpPacket) -> int:
    """Samples by which the time stamp is later, negative when it is earlier."""
    return (packet.stamp - before.stamp + 0x80000000) % 0x100000000 - 0x80000000
