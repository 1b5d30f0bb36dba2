"""What a call costs in each codec: CPU-seconds of `tapdeck record` per hour of call, both sides talking.

    python bench/codecs.py                 every codec
    python bench/codecs.py --only G.722    one, beside FFmpeg decoding the same payload to WAV

FFmpeg's CPU is that of decoding both sides' bare payload, one after the other; it knows of no network, places nothing
and keeps no packets. The exit code is 1 if G.722 takes more than 1.3 times as much.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from bench.throughput import best, compiled, elsewhere, record  # noqa: E402

HOUR = 3600
RUNS = 3
LIMIT = 1.3


@dataclass(frozen=True)
class Cost:
    """One codec's: CPU-seconds per hour of call, FFmpeg's where it was measured, and bytes of memory."""

    name: str
    cpu: float
    ffmpeg: float | None
    memory: int


def voices() -> dict[str, Callable[[int], object]]:
    """By name: what makes a voice of a seed."""
    from tests.support import encoded

    return {
        "G.722": encoded.g722,
        "G.729": lambda seed: any_frames("G729/8000", 18, 10, 10, seed),
        "GSM": encoded.gsm,
        "G.726-32": lambda seed: encoded.g726(4, seed),
        "Opus": encoded.opus,
        "AMR": lambda seed: encoded.amr("AMR", seed),
        "AMR-WB": lambda seed: encoded.amr("AMR-WB", seed),
        "iLBC": lambda seed: any_frames("iLBC/8000", 97, 30, 50, seed),
        "Speex": lambda seed: encoded.speex(8000, seed),
        "Speex/16000": encoded_speex_wide,
        "G.723.1": encoded.g723,
        "L16/16000": lambda seed: encoded.l16(16000, seed),
    }


def any_frames(rtpmap: str, pt: int, frame_ms: int, size: int, seed: int) -> object:
    """Frames of any bytes, where there is no encoder: to decode them takes as long."""
    from tests.support import encoded

    frames = tuple(random.Random(seed).randbytes(size) for _ in range(encoded.SECONDS * 1000 // frame_ms))
    return encoded.Voice(rtpmap, pt, 8000, frame_ms, frames, encoded.tune(8000), encoded.by_command())


def encoded_speex_wide(seed: int) -> object:
    """Wideband Speex."""
    from tests.support import encoded

    return encoded.speex(16000, seed)


def make(name: str, seconds: int, capture: Path, bare: tuple[Path, Path]) -> None:
    """Make a call as a capture, and the bare payload of both sides."""
    from tests.support import encoded, files

    both = []
    for seed, path in enumerate(bare, 1):
        voice = voices()[name](seed)
        assert isinstance(voice, encoded.Voice)
        voice = replace(voice, frames=voice.frames * (seconds // encoded.SECONDS))
        path.write_bytes(b"".join(voice.frames))
        both.append(voice)
    count = 1 if both[0].frame_ms >= 20 else 20 // both[0].frame_ms
    capture.write_bytes(files.pcap(encoded.call(both[0], both[1], (count, count)).packets(), nano=True))


def cost(name: str, seconds: int, folder: Path) -> Cost:
    """Measure one codec."""
    capture, bare, log = folder / "call.pcap", (folder / "left", folder / "right"), folder / "log"
    elsewhere(make, name, seconds, capture, bare)
    ours = best(name, [record(capture, folder / f"out{number}") for number in range(RUNS)], log)
    if len(list(folder.rglob("*.wav"))) != RUNS:
        raise SystemExit(f"{name}: a recording is missing")
    theirs = None
    if name == "G.722":
        theirs = 0.0
        for path in bare:
            words = ["ffmpeg", "-loglevel", "error", "-y", "-f", "g722", "-i", str(path), f"{path}.wav"]
            theirs += best("ffmpeg", [words] * RUNS, log).cpu
    hours = HOUR / seconds
    return Cost(name, ours.cpu * hours, None if theirs is None else theirs * hours, ours.memory)


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600, help="length of the call; of G.722 always an hour")
    parser.add_argument("--only", metavar="CODEC")
    arguments = parser.parse_args()
    compiled()
    return table([arguments.only] if arguments.only else list(voices()), arguments.seconds)


def table(names: Sequence[str], seconds: int) -> int:
    """Measure these codecs and print a row each; the exit code."""
    print("| codec | CPU-seconds per hour of call | times FFmpeg's | peak memory |\n|---|---|---|---|")
    worst = 0.0
    for name in names:
        with TemporaryDirectory(prefix="bench") as folder:
            done = cost(name, HOUR if name == "G.722" else seconds, Path(folder))
        times = done.cpu / done.ffmpeg if done.ffmpeg else None
        worst = max(worst, times or 0.0)
        shown = f"{times:.2f}" if times else "-"
        print(f"| {name} | {done.cpu:.2f} | {shown} | {done.memory / 1e6:.0f} MB |", flush=True)
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    raise SystemExit(main())
