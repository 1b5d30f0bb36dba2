"""Calls in which keys are pressed, and a plain look for keys in sound: none of it knows how Tapdeck finds them.

sound = with_keys(quiet(5), "4929", at_s=1.0)
scene = talking(sound, quiet(5))
assert keys_in(samples) == "4929"
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import soundfile
from numpy.typing import NDArray

from .media import EVENT, MS, PCMA, Rtp
from .scene import START_NS, Scene, answered_ns, dialog, ended, hang_up, set_up
from .signalling import Dialog, Signal, sdp

Samples = NDArray[np.float64]
KEYS = "0123456789ABCD*#"
TONES = {
    key: (low, high)
    for low, row in zip((697, 770, 852, 941), ("123A", "456B", "789C", "*0#D"), strict=True)
    for key, high in zip(row, (1209, 1336, 1477, 1633), strict=True)
}
"""ITU-T Q.23, table 1."""
RATE = 8000
FULL = 32768 / 10 ** (3.14 / 20)
"""Amplitude of a sine of 0 dBm0 in 16-bit samples (G.711: the largest is +3.14)."""


def tone(
    key: str,
    ms: float = 60,
    *,
    level: float = -20.0,
    off: tuple[float, float] = (0.0, 0.0),
    twist: float = 0.0,
    phase: tuple[float, float] = (0.0, 0.0),
    rate: int = RATE,
) -> Samples:
    """A key of so many ms; `level` in dBm0 of both tones together, `off` their frequencies' error in per cent, `twist`
    how much louder (dB) the high one is."""
    t = np.arange(round(ms * rate / 1000)) / rate
    ratio = 10 ** (twist / 20)
    low = FULL * 10 ** (level / 20) / np.sqrt(1 + ratio**2)
    sines = [
        size * np.sin(2 * np.pi * frequency * (1 + error / 100) * t + start)
        for size, frequency, error, start in zip((low, low * ratio), TONES[key], off, phase, strict=True)
    ]
    return np.asarray(sines[0] + sines[1])


def quiet(seconds: float, level: float = -70.0, seed: int = 1, rate: int = RATE) -> Samples:
    """White noise at a level in dBm0, by its mean power."""
    random = np.random.default_rng(seed)
    return np.asarray(random.normal(size=round(seconds * rate)) * FULL * 10 ** (level / 20) / np.sqrt(2))


def with_keys(
    sound: Samples,
    keys: str,
    *,
    at_s: float = 0.5,
    ms: float = 60,
    pause_ms: float = 60,
    level: float = -20.0,
    twist: float = 0.0,
    seed: int = 1,
    rate: int = RATE,
) -> Samples:
    """The sound with these keys over it."""
    random = np.random.default_rng(seed)
    sound = sound.copy()
    place = round(at_s * rate)
    for key in keys:
        phase = (float(random.uniform(0, 6.28)), float(random.uniform(0, 6.28)))
        made = tone(key, ms, level=level, twist=twist, phase=phase, rate=rate)
        sound[place : place + len(made)] += made
        place += len(made) + round(pause_ms * rate / 1000)
    return sound


def encoded(sound: Samples, pt: int = PCMA) -> bytes:
    """G.711 by libsndfile."""
    file = io.BytesIO()
    whole = np.clip(np.round(sound), -32768, 32767).astype(np.int16)
    soundfile.write(file, whole, RATE, format="RAW", subtype="ALAW" if pt == PCMA else "ULAW")
    return file.getvalue()


def decoded(codes: bytes, pt: int = PCMA) -> Samples:
    """G.711 by libsndfile."""
    subtype = "ALAW" if pt == PCMA else "ULAW"
    found, _ = soundfile.read(
        io.BytesIO(codes), dtype="int16", samplerate=RATE, channels=1, format="RAW", subtype=subtype
    )
    return np.asarray(found, dtype=np.float64)


def stream(
    shape: Dialog, codes: bytes, *, backward: bool = False, pt: int = PCMA, start_ns: int = 0
) -> tuple[Rtp, ...]:
    """Sound as packets of 20 ms."""
    here, there = (shape.callee, shape.caller) if backward else (shape.caller, shape.callee)
    start = start_ns or answered_ns() + 10 * MS
    return tuple(
        Rtp(
            start + n * 20 * MS,
            start + n * 20 * MS,
            here.media,
            there.media,
            1000 + n,
            160 * n,
            0xC0DE0000 + backward,
            pt,
            codes[n * 160 : (n + 1) * 160],
            marker=n == 0,
        )
        for n in range(len(codes) // 160)
    )


def talking(
    left: Samples, right: Samples, seed: int = 1, pts: tuple[int, int] = (PCMA, PCMA), more: Iterable[Signal] = ()
) -> Scene:
    """A call in which the caller's and the callee's sound are these."""
    shape = dialog(seed, pts=pts)
    offer = sdp(shape.caller.media, pts=(*dict.fromkeys(pts), EVENT))
    answer = sdp(shape.callee.media, pts=(*dict.fromkeys(pts), EVENT))
    caller = stream(shape, encoded(left, pts[0]), pt=pts[0])
    callee = stream(shape, encoded(right, pts[1]), backward=True, pt=pts[1])
    signals = (*set_up(shape, START_NS, offer, answer), *more, *hang_up(shape, START_NS))
    return ended(Scene(shape, signals, caller, callee))


def pressed(
    packets: Iterable[Rtp], at: int, key: str, updates: int = 5, ends: int = 3, pt: int = EVENT, marker: bool = True
) -> tuple[Rtp, ...]:
    """RTP events (RFC 4733) in place of the packets from `at` on: updates, and then its ends at once, 5 ms apart."""
    code = "0123456789*#ABCD".index(key)
    result = list(packets)
    first = result[at]
    for step in range(updates + ends):
        duration = min(step + 1, updates) * 160
        payload = struct.pack("!BBH", code, (0x80 if step >= updates else 0) | 10, duration)
        known = result[at + step]
        result[at + step] = replace(
            known, pt=pt, ts=first.ts, payload=payload, marker=marker and step == 0, sound=False
        )
    return tuple(result)


def info(shape: Dialog, time_ns: int, body: str, kind: str = "application/dtmf-relay", cseq: int = 2) -> Signal:
    """A key by SIP INFO."""
    signal = shape.request(time_ns, "INFO", body, cseq=cseq)
    return replace(signal, text=signal.text.replace(b"Content-Type: application/sdp", f"Content-Type: {kind}".encode()))


def keys_in(sound: Samples, least_ms: int = 20, rate: int = RATE, floor: float = -58.0) -> str:
    """The keys that a plain look finds: where a spectrum of 25 ms has its two highest points near the tones of a key.

    It is easily fooled by speech and noise, so what it does not find is not there.
    """
    size, step = rate // 40, rate // 200
    window = np.hanning(size)
    if len(sound) < size:
        return ""
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::step] * window
    spectrum = np.abs(np.fft.rfft(frames, 4 * size)) ** 2
    bins = np.arange(spectrum.shape[1]) * rate / (4 * size)
    least = (FULL * 10 ** (floor / 20) * window.sum() / 2) ** 2
    powers = {
        f: spectrum[:, np.abs(bins - f) <= 0.02 * f].max(axis=1) for f in {f for pair in TONES.values() for f in pair}
    }
    band = spectrum[:, (bins >= 300) & (bins <= 3400)].sum(axis=1) / (4 * 1.5)
    found: list[str] = []
    for n in range(len(frames)):
        low = max((697, 770, 852, 941), key=lambda f: powers[f][n])
        high = max((1209, 1336, 1477, 1633), key=lambda f: powers[f][n])
        both = powers[low][n] + powers[high][n]
        strong = both > 0.6 * band[n] and min(powers[low][n], powers[high][n]) > least
        found.append(next(key for key, pair in TONES.items() if pair == (low, high)) if strong else " ")
    text, count = "", 0
    for before, here in zip([" ", *found], found, strict=False):
        count = count + 1 if here == before else 1
        if here != " " and count == max(least_ms * 200 // 1000, 1):
            text += here
    return text
