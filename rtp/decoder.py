"""Payloads become 16-bit samples: tables of ours for what is samples already, FFmpeg's decoders (PyAV) for the rest.

G.726 at 40 kbit/s as the Recommendation has it is ours too.

A decoder is told only what crossed the wire. For what was lost, and for pauses, it is told nothing, so that it conceals
nothing; the silence is put there by others. Its state goes on over such a gap, as the sender's encoder did: a fresh one
would be wrong about loudness and pitch until it had caught up. What it cannot decode is silence of the same length, and
counted.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .codecs import Codec, Framing
from .frames import frames
from .g711 import PCM, Law
from .g726 import Itu40, codes

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext

Samples = npt.NDArray[np.int16]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
STEREO = 4
"""The bit of an Opus packet that says it is of two channels (RFC 6716 section 3.1)."""
_BLOCK = 61_440
"""Bytes of samples that are decoded at one time: whole samples of every width."""


def library() -> str:
    """Return the name and version of what decodes, for the record."""
    import av

    version = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"FFmpeg's libavcodec {version} (PyAV {av.__version__})"


class Decoder:
    """One stream's decoder, fed packet after packet. `failed` counts the packets that held what it cannot decode;
    `mixed` tells whether any was of two channels, which became one.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.failed = 0
        self.mixed = codec.channels > 1
        self._contexts: dict[int, AudioCodecContext] = {}
        self._openings: list[Any] = []
        self._own = Itu40()

    def decode(self, data: Bytes, size: Ints, count: Ints) -> Samples:
        """Return the samples of packets whose payloads of `size` bytes lie one behind the other in `data`: `count` of
        each, as `frames.samples` said.
        """
        if self.codec.framing is Framing.STREAM:
            return self._stream(data, size, count)
        out = np.zeros(int(count.sum()), dtype=np.int16)
        payloads, at, place = data.tobytes(), 0, 0
        for length, samples in zip(size.tolist(), count.tolist(), strict=True):
            if not self._packet(payloads[at : at + length], out[place : place + samples]):
                self.failed += 1
            at, place = at + length, place + samples
        return out

    def _packet(self, payload: bytes, out: Samples) -> bool:
        """Decode a packet's frames into `out`; tell whether all could be."""
        place, whole = 0, True
        for frame in frames(self.codec, payload):
            if frame.data:
                self.mixed |= self.codec.framing is Framing.OPUS and bool(frame.data[0] & STEREO)
                heard = self._frame(frame.data)
                room = out[place : place + frame.samples]
                room[: len(heard)] = heard[: len(room)]
                whole &= len(heard) > 0
            place += frame.samples
        return whole

    def _stream(self, data: Bytes, size: Ints, count: Ints) -> Samples:
        codec = self.codec
        rest = size % codec.unit
        if rest.any():  # bytes at a packet's end that are no whole sample are left out
            end = np.cumsum(size)
            edges = np.zeros(len(data) + 1, dtype=np.int64)
            np.add.at(edges, end - rest, 1)
            np.add.at(edges, end, -1)
            data = data[np.cumsum(edges[:-1]) == 0]
        if codec.law is not Law.NONE:
            return PCM[codec.law][data]
        if codec.name == "L16":
            return _mixed(data.view(">i2").reshape(-1, codec.channels))
        if not codec.decoders:
            return self._own.decode(codes(data, first_high=codec.name.startswith("AAL2")))
        total = int(count.sum())
        parts = [self._frame(data[at : at + _BLOCK].tobytes()) for at in range(0, len(data), _BLOCK)]
        heard = np.concatenate(parts) if parts else np.empty(0, dtype=np.int16)
        if len(heard) != total:
            self.failed += len(size)
            heard = np.resize(heard, total) if len(heard) > total else np.pad(heard, (0, total - len(heard)))
        return heard

    def _frame(self, data: bytes) -> Samples:
        """Decode what an FFmpeg decoder takes at one time; nothing if it cannot."""
        import av

        try:
            found = self._context(len(data)).decode(av.Packet(data))
        except (av.FFmpegError, ValueError):
            return np.empty(0, dtype=np.int16)
        parts = [_samples(frame) for frame in found]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype=np.int16), *parts])

    def _context(self, size: int) -> "AudioCodecContext":
        """Return the decoder's context, iLBC's by the size of a frame: its two modes are two decoders."""
        key = size if self.codec.framing is Framing.ILBC else 0
        if key not in self._contexts:
            self._contexts[key] = self._open(size)
        return self._contexts[key]

    def _open(self, size: int) -> "AudioCodecContext":
        import av

        av.logging.set_level(None)
        codec = self.codec
        if codec.decoders[0].startswith("g726"):
            return self._open_g726()
        name = next((name for name in codec.decoders if name in av.codecs_available), codec.decoders[-1])
        context: AudioCodecContext = av.AudioCodecContext.create(name, "r")  # type: ignore[assignment]
        context.thread_count = 1
        context.sample_rate = codec.rate
        context.layout = "mono"
        if codec.framing is Framing.ILBC:
            context.bit_rate = 15_200 if size == 38 else 13_333
        return context

    def _open_g726(self) -> "AudioCodecContext":
        """PyAV lets nobody set the bits of a sample but by way of FFmpeg's reader of raw files."""
        import av

        opening = av.open(_Nothing(), format=self.codec.decoders[0], options={"code_size": str(self.codec.bits)})
        self._openings.append(opening)  # the context lives as long as its reader
        context = opening.streams.audio[0].codec_context
        context.thread_count = 1
        return context


class _Nothing:
    """A short file of zeros, for FFmpeg to look at."""

    def __init__(self) -> None:
        self._rest = 4096

    def read(self, size: int) -> bytes:
        size = min(size, self._rest)
        self._rest -= size
        return bytes(size)


def _samples(frame: Any) -> Samples:
    """Return a decoded frame's samples; of what is in floating point, rounded as FFmpeg's resampler does."""
    kind, plane = frame.format.name, frame.planes[0]
    if kind in ("s16", "s16p"):
        return np.frombuffer(plane, dtype=np.int16, count=frame.samples).copy()
    wide = np.frombuffer(plane, dtype=np.float32, count=frame.samples) * np.float32(32768)
    whole: Samples = np.clip(np.rint(wide), -32768, 32767).astype(np.int16)
    return whole


def _mixed(samples: npt.NDArray[Any]) -> Samples:
    """Return channels as one: their mean, rounded down."""
    if samples.shape[1] == 1:
        only: Samples = samples[:, 0].astype(np.int16)
        return only
    mean: Samples = (samples.astype(np.int32).sum(axis=1) >> 1).astype(np.int16)
    return mean
