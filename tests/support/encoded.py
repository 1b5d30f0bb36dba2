"""Calls in codecs other than G.711: sound encoded by other people's encoders, and what other people's decoders make of
it.

What a decoder makes of a payload is asked of FFmpeg's command line; where that has no reader for bare packets, of
PyAV, frame after frame.
"""

from __future__ import annotations

import bisect
import copy
import ctypes
import ctypes.util
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tapdeck.rtp.g726 import Itu40

from .ip import Endpoint
from .media import MS, SECOND, Rtp
from .scene import LAST_WORD_MS, START_NS, Scene, answered_ns, dialog, hang_up, set_up
from .signalling import Signal, sdp

Samples = NDArray[np.int16]
SECONDS = 3


@dataclass(frozen=True)
class Voice:
    """A codec and what is said in it: RTP name as in rtpmap, payload type, the frames that are sent (of `frame_ms`
    each), the sound that was encoded, and how other software decodes frames one after the other.
    """

    rtpmap: str
    pt: int
    rate: int
    frame_ms: int
    frames: tuple[bytes, ...]
    played: Samples
    decode: Callable[[Sequence[bytes]], Samples]
    fmtp: str = ""
    pack: Callable[[Sequence[bytes]], bytes] = b"".join

    @property
    def rtp_clock(self) -> int:
        return int(self.rtpmap.split("/")[1])

    @property
    def frame_samples(self) -> int:
        return self.rate * self.frame_ms // 1000


# -- sound -------------------------------------------------------------------------------------------------------------


@cache
def tune(rate: int, seed: int = 1, seconds: int = SECONDS) -> Samples:
    """Something between speech and music: a voice that glides, with harmonics and pauses; most of it below 3 kHz."""
    random = np.random.default_rng(seed)
    t = np.arange(rate * seconds) / rate
    pitch = 130 + 40 * np.sin(2 * np.pi * 0.7 * t + seed) + 15 * seed
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    weights = random.uniform(0.3, 1.0, 12) / np.arange(1, 13)
    sound = sum(weight * np.sin(number * phase) for number, weight in enumerate(weights, 1))
    loud = 0.35 + 0.65 * np.abs(np.sin(2 * np.pi * 1.3 * t + seed))
    return np.asarray(5000 * sound * loud, dtype=np.int16)


def run(*command: str, given: bytes) -> bytes:
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout


def ffmpeg(given: bytes, reader: Sequence[str], *writer: str) -> bytes:
    return run("ffmpeg", "-loglevel", "error", *reader, "-i", "-", *writer, "-", given=given)


def encoded(sound: Samples, rate: int, *writer: str) -> bytes:
    return ffmpeg(sound.astype("<i2").tobytes(), ("-f", "s16le", "-ar", str(rate), "-ac", "1"), *writer)


def cut(data: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(data[at : at + size] for at in range(0, len(data) - size + 1, size))


def by_command(*reader: str, head: bytes = b"") -> Callable[[Sequence[bytes]], Samples]:
    """Decode with FFmpeg's command line, which reads the bare frames in a format of its own."""

    def decode(frames: Sequence[bytes]) -> Samples:
        out = ffmpeg(head + b"".join(frames), reader, "-f", "s16le")
        return np.frombuffer(out, dtype="<i2").astype(np.int16)

    return decode


def by_library(name: str, rate: int) -> Callable[[Sequence[bytes]], Samples]:
    """Decode with PyAV, a packet each frame."""

    def decode(frames: Sequence[bytes]) -> Samples:
        context: Any = av.CodecContext.create(name, "r")
        context.sample_rate, context.layout = rate, "mono"
        parts = [found.to_ndarray()[0] for frame in frames for found in context.decode(av.Packet(frame))]
        sound = np.concatenate(parts)
        if sound.dtype == np.float32:
            sound = np.clip(np.rint(sound * np.float32(32768)), -32768, 32767)
        return sound.astype(np.int16)

    return decode


# -- voices ------------------------------------------------------------------------------------------------------------


def g722(seed: int = 1) -> Voice:
    sound = tune(16000, seed)
    frames = cut(encoded(sound, 16000, "-c:a", "g722", "-f", "g722"), 80)
    return Voice("G722/8000", 9, 16000, 10, frames, sound, by_command("-f", "g722"))


def g726(bits: int, seed: int = 1, *, aal2: bool = False) -> Voice:
    sound, name = tune(8000, seed), "g726" if aal2 else "g726le"
    frames = cut(encoded(sound, 8000, "-c:a", name, "-code_size", str(bits), "-f", name), 10 * bits)
    reader = by_command("-f", name, "-code_size", str(bits))
    return Voice(f"{'AAL2-' if aal2 else ''}G726-{bits * 8}/8000", 97, 8000, 10, frames, sound, reader)


def g726_by_the_book(sound: Samples) -> bytes:
    """G.726 at 40 kbit/s: for each sample the code whose sound is nearest to it; the first code in the low bits.

    libsndfile's encoder departs from the Recommendation in how it rounds, FFmpeg's in more.
    """
    decoder, codes = Itu40(), []
    order = [*range(16, 32), *range(1, 16)]
    for sample in sound.tolist():

        def heard(place: int) -> int:
            return int(copy.deepcopy(decoder).decode([order[place]])[0])

        low = bisect.bisect_left(range(len(order) - 1), sample, key=heard)
        near = min((max(low - 1, 0), low), key=lambda place: abs(heard(place) - sample))
        codes.append(order[near])
        decoder.decode([order[near]])
    bits = np.array(codes)[:, None] >> np.arange(5) & 1
    return np.packbits(bits.reshape(-1), bitorder="little").tobytes()


def gsm(seed: int = 1) -> Voice:
    sound = tune(8000, seed)
    frames = cut(encoded(sound, 8000, "-c:a", "libgsm", "-f", "gsm"), 33)
    return Voice("GSM/8000", 3, 8000, 20, frames, sound, by_command("-f", "gsm"))


def g723(seed: int = 1) -> Voice:
    sound = tune(8000, seed)
    frames = cut(encoded(sound, 8000, "-c:a", "g723_1", "-b:a", "6300", "-f", "g723_1"), 24)
    return Voice("G723/8000", 4, 8000, 30, frames, sound, by_command("-f", "g723_1"))


def l16(rate: int = 16000, seed: int = 1) -> Voice:
    sound = tune(rate, seed)
    frames = cut(sound.astype(">i2").tobytes(), rate // 50)
    return Voice(f"L16/{rate}", 98, rate, 10, frames, sound, lambda parts: _big_endian(b"".join(parts)))


def _big_endian(data: bytes) -> Samples:
    return np.frombuffer(data, dtype=">i2").astype(np.int16)


def l16_stereo(first: Samples, second: Samples, rate: int = 16000) -> Voice:
    """Two channels, left first (RFC 3551 section 4.1)."""
    both = np.stack((first, second), axis=1).astype(">i2").tobytes()
    return replace(l16(rate), pt=99, rtpmap=f"L16/{rate}/2", frames=cut(both, rate // 25))


def opus(seed: int = 1, frame_ms: int = 20, bit_rate: int = 40_000) -> Voice:
    sound = tune(48000, seed)
    context: Any = av.CodecContext.create("libopus", "w")
    context.sample_rate, context.layout, context.format, context.bit_rate = 48000, "mono", "s16", bit_rate
    context.options = {"application": "audio", "frame_duration": str(frame_ms)}
    size = 48 * frame_ms
    frames = []
    for at in range(0, len(sound) - size + 1, size):
        frame = av.AudioFrame.from_ndarray(sound[None, at : at + size].copy(), format="s16", layout="mono")
        frame.sample_rate = 48000
        frames += [bytes(packet) for packet in context.encode(frame)]
    return Voice("opus/48000/2", 111, 48000, frame_ms, tuple(frames), sound, by_library("libopus", 48000))


def opus_dtx(sound: Samples, frame_ms: int = 20) -> Voice:
    """Opus for speech with discontinuous transmission: frames of one or two bytes are those that are not sent."""
    found = ctypes.util.find_library("opus")
    if found is None:
        pytest.skip("libopus is not installed")
    library = ctypes.CDLL(found)
    library.opus_encoder_create.restype = ctypes.c_void_p
    encoder = ctypes.c_void_p(library.opus_encoder_create(48000, 1, 2048, None))  # OPUS_APPLICATION_VOIP
    for request, value in ((4002, 20_000), (4016, 1), (4024, 3001)):  # bit rate, DTX, voice
        assert library.opus_encoder_ctl(encoder, request, ctypes.c_int(value)) == 0
    size, out = 48 * frame_ms, ctypes.create_string_buffer(1500)
    frames = []
    for at in range(0, len(sound) - size + 1, size):
        length = library.opus_encode(encoder, sound[at : at + size].tobytes(), size, out, 1500)
        frames.append(out.raw[:length])
    library.opus_encoder_destroy(encoder)
    return Voice("opus/48000/2", 111, 48000, frame_ms, tuple(frames), sound, by_library("libopus", 48000), "usedtx=1")


def opus_stereo(first: Samples, second: Samples) -> Voice:
    """Opus in two channels, 20 ms a packet; decoders that are asked for one channel give one."""
    context: Any = av.CodecContext.create("libopus", "w")
    context.sample_rate, context.layout, context.format, context.bit_rate = 48000, "stereo", "s16", 128_000
    both = np.stack((first, second), axis=1).reshape(1, -1)
    frames = []
    for at in range(0, both.shape[1] - 1919, 1920):
        frame = av.AudioFrame.from_ndarray(both[:, at : at + 1920].copy(), format="s16", layout="stereo")
        frame.sample_rate = 48000
        frames += [bytes(packet) for packet in context.encode(frame)]
    decode = by_library("libopus", 48000)
    return Voice("opus/48000/2", 111, 48000, 20, tuple(frames), first, decode, "stereo=1;sprop-stereo=1")


def speex(rate: int = 16000, seed: int = 1) -> Voice:
    sound = tune(rate, seed)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sound.spx"
        path.write_bytes(encoded(sound, rate, "-c:a", "libspeex", "-f", "ogg"))
        with av.open(str(path)) as file:
            frames = tuple(bytes(packet) for packet in file.demux(audio=0) if packet.size)
    size = {8000: 300, 16000: 556, 32000: 592}[rate]
    return Voice(
        f"speex/{rate}",
        110,
        rate,
        20,
        frames,
        sound,
        by_library("speex", rate),
        "",
        lambda all_: speex_bits(all_, size),
    )


def speex_bits(frames: Sequence[bytes], size: int) -> bytes:
    """RFC 5574 section 3.3: the bits of all frames, then a zero and ones to the end of the byte."""
    text = "".join("".join(f"{byte:08b}" for byte in frame)[:size] for frame in frames)
    text += ("0" + "1" * 7)[: -len(text) % 8]
    return bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))


AMR = {"AMR": (8000, (95, 103, 118, 134, 148, 159, 204, 244)),
       "AMR-WB": (16000, (132, 177, 253, 285, 317, 365, 397, 461, 477))}  # fmt: skip
"""By name: rate, and the bits of a frame of each mode (RFC 4867 section 3.6, 3GPP TS 26.201)."""


def amr(name: str = "AMR", seed: int = 1, *, octets: bool = False) -> Voice:
    rate, bits = AMR[name]
    sound = tune(rate, seed)
    frames = narrowband_frames(sound) if name == "AMR" else wideband_frames(sound)
    library = "libopencore_amrnb" if name == "AMR" else "libopencore_amrwb"
    pack = amr_octets if octets else lambda parts: amr_bits(parts, bits)
    fmtp = "octet-align=1" if octets else "mode-change-period=2"
    return Voice(f"{name}/{rate}", 96, rate, 20, tuple(frames), sound, by_library(library, rate), fmtp, pack)


def narrowband_frames(sound: Samples) -> list[bytes]:
    raw = ("-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-c", "1", "-")
    stored = run("sox", *raw, "-t", "amr-nb", "-C", "7", "-", given=sound.astype("<i2").tobytes())
    return list(cut(stored.removeprefix(b"#!AMR\n"), 32))


def wideband_frames(sound: Samples) -> list[bytes]:
    """By VisualOn's encoder, which neither SoX nor FFmpeg has here; the test is skipped where that is not installed."""
    found = ctypes.util.find_library("vo-amrwbenc")
    if found is None:
        pytest.skip("libvo-amrwbenc is not installed")
    library = ctypes.CDLL(found)
    library.E_IF_init.restype = ctypes.c_void_p
    state, out = ctypes.c_void_p(library.E_IF_init()), ctypes.create_string_buffer(64)
    frames = []
    for part in cut(sound.tobytes(), 640):
        size = library.E_IF_encode(state, 8, part, out, 0)
        frames.append(out.raw[:size])
    library.E_IF_exit(state)
    return frames


def amr_octets(frames: Sequence[bytes]) -> bytes:
    """RFC 4867 section 4.4: no request for a mode, the frames' headers with a mark on all but the last, the frames."""
    heads = bytes((frame[0] & 0x7C) | (0x80 if number < len(frames) - 1 else 0) for number, frame in enumerate(frames))
    return b"\xf0" + heads + b"".join(frame[1:] for frame in frames)


def amr_bits(frames: Sequence[bytes], bits: Sequence[int]) -> bytes:
    """RFC 4867 section 4.3: the same without bits to fill up, written here as text."""
    text = "1111"
    for number, frame in enumerate(frames):
        text += f"{int(number < len(frames) - 1)}{frame[0] >> 3 & 15:04b}{frame[0] >> 2 & 1}"
    for frame in frames:
        kind = frame[0] >> 3 & 15
        size = bits[kind] if kind < len(bits) else {8: 39, 9: 40}.get(kind, 0)
        text += "".join(f"{byte:08b}" for byte in frame[1:])[:size]
    text += "0" * (-len(text) % 8)
    return bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))


# -- calls -------------------------------------------------------------------------------------------------------------


PICTURES = ("m=video 40000 RTP/AVP 100", "a=rtpmap:100 H264/90000", "m=image 40002 udptl t38", "m=image 0 udptl t38")
"""What is offered beside sound: video, and a fax by T.38; what has port 0 is not."""


def offer(media: Endpoint, *voices: Voice, more: Iterable[str] = ()) -> str:
    """A session description that offers these codecs, and `more` lines at its end."""
    text = sdp(media, pts=(8,))
    pts = " ".join(str(voice.pt) for voice in voices)
    text = text.replace("RTP/AVP 8\r\n", f"RTP/AVP {pts}\r\n").replace("a=rtpmap:8 PCMA/8000\r\n", "")
    for voice in voices:
        text += f"a=rtpmap:{voice.pt} {voice.rtpmap}\r\n"
        text += f"a=fmtp:{voice.pt} {voice.fmtp}\r\n" if voice.fmtp else ""
    return text + "".join(f"{line}\r\n" for line in more)


def spoken(
    voice: Voice, source: Endpoint, target: Endpoint, start_ns: int, ssrc: int, per_packet: int = 2, first: int = 7
) -> tuple[Rtp, ...]:
    """The voice as RTP, so many frames a packet."""
    step = voice.rtp_clock * voice.frame_ms // 1000
    return tuple(
        Rtp(
            time_ns=start_ns + at * voice.frame_ms * MS,
            place_ns=start_ns + at * voice.frame_ms * MS,
            source=source,
            target=target,
            seq=first + at // per_packet,
            ts=40_000 + at * step,
            ssrc=ssrc,
            pt=voice.pt,
            payload=voice.pack(voice.frames[at : at + per_packet]),
        )
        for at in range(0, len(voice.frames) - per_packet + 1, per_packet)
    )


def call(left: Voice, right: Voice, per_packet: tuple[int, int] = (2, 2), more: Sequence[str] = ()) -> Scene:
    """A call in which the caller says `left` and the callee `right`; `more` are lines of the caller's offer."""
    shape = dialog(3)
    ends = shape.caller.media, shape.callee.media
    start = answered_ns() + 10 * MS
    said = (
        spoken(left, *ends, start, 0xA, per_packet[0]),
        spoken(right, *ends[::-1], start + 20 * MS, 0xB, per_packet[1]),
    )
    both = (left, right) if (left.pt, left.rtpmap) != (right.pt, right.rtpmap) else (left,)
    signals: tuple[Signal, ...] = set_up(shape, START_NS, offer(ends[0], *both, more=more), offer(ends[1], *both))
    last = max(packet.time_ns for side in said for packet in side)
    return Scene(shape, signals + hang_up(shape, last + LAST_WORD_MS * MS), *said)


def heard(voice: Voice, stream: Sequence[Rtp], zero_ns: int, rate: int | None = None, per_packet: int = 2) -> Samples:
    """What a channel must hold: the packets that came, decoded one after the other, each where it belongs; no more."""
    rate = rate or voice.rate
    first = stream[0].seq
    arrived = sorted(stream, key=lambda packet: packet.seq)
    frames = [voice.frames[(p.seq - first) * per_packet + k] for p in arrived for k in range(per_packet)]
    sound = voice.decode(frames)
    size = voice.frame_samples * per_packet
    assert len(sound) == size * len(arrived)
    end = (arrived[-1].place_ns - zero_ns) * rate // SECOND + size
    out = np.zeros(end, dtype=np.int16)
    for number, packet in enumerate(arrived):
        at = (packet.place_ns - zero_ns) * rate // SECOND
        out[at : at + size] = sound[number * size : (number + 1) * size]
    return out
