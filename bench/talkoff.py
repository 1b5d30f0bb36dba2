"""Does speech make keys that nobody pressed? An hour of it, in many voices and languages, and all keys under noise.

    python bench/talkoff.py                    an hour
    python bench/talkoff.py --minutes 600      ten of them
    python bench/talkoff.py --json             figures for a machine

It needs espeak-ng and SoX. Speech is brought to -15 dBm0, as loud as people get, in A-law. The exit code is 1 if a key
is found in it, or if one is missing of those that were made: 40 ms long, -20 dBm0, in noise 10 dB below them.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "src")]

import numpy as np  # noqa: E402
import soundfile  # noqa: E402

from tapdeck.rtp.ear import Ear  # noqa: E402
from tapdeck.rtp.g711 import Law  # noqa: E402
from tapdeck.rtp.tones import RATE  # noqa: E402
from tests.support.keys import FULL, KEYS, encoded, quiet, with_keys  # noqa: E402

VOICES = (
    "en-us", "en-gb", "de", "nl", "fr-fr", "es", "it", "pl", "sv", "pt", "tr", "en-us+f2", "en-gb+f4", "de+m3", "nl+f5",
    "fr-fr+f3", "es+m7", "it+f1", "en-us+croak", "de+whisper", "en-gb-scotland+m7", "ru", "cs", "en-us+klatt2",
)  # fmt: skip
TEXT = """
the call recorder listens on the mirror port and keeps what it hears we should be glad to see you on thursday morning
at half past nine please bring the papers that were signed in october and tell my sister that the train leaves from
platform seven because eight people are coming and nobody knows whether the weather will hold over the weekend if not
we shall meet inside one two three four five six seven eight nine zero star hash account balance seventeen euros mia
mama moon oh eee aaa ooo loop blue laola hallo ja nein nummer wie bitte allo oui non merci hola bueno pronto
"""
SPEECH_DBM0 = -15.0


def speech(folder: Path, voice: str, seconds: float, seed: int) -> np.ndarray:
    """So much speech of a voice, as samples; its pitch and pace are the seed's."""
    own = random.Random(seed)
    words, sentences = TEXT.split(), int(seconds / 1.5) + 10
    text = ". ".join(" ".join(own.choices(words, k=own.randint(3, 14))) for _ in range(sentences))
    spoken, wav = folder / "spoken.wav", folder / "speech.wav"
    pace = ["-s", str(own.randint(110, 190)), "-p", str(own.randint(15, 90)), "-w", str(spoken)]
    subprocess.run(["espeak-ng", "-v", voice, *pace, "--stdin"], input=text.encode(), check=True)
    cut = ["gain", "-4", "trim", "0", str(seconds)]
    shape = ["-r", str(RATE), "-c", "1", "-b", "16"]
    subprocess.run(["sox", "-V1", "-D", str(spoken), *shape, str(wav), *cut], check=True)
    samples, _ = soundfile.read(str(wav), dtype="float64")
    power = np.sqrt(np.mean(samples[np.abs(samples) > 0.01] ** 2)) * np.sqrt(2)
    return np.asarray(samples * FULL * 10 ** (SPEECH_DBM0 / 20) / power)


def spoken(folder: Path, minutes: float, seed: int = 1) -> Iterator[tuple[str, np.ndarray]]:
    """Yield speech by voice until there is as much as is wanted."""
    each = min(minutes * 60 / len(VOICES), 600.0)
    count = round(minutes * 60 / each)
    for number in range(count):
        voice = VOICES[number % len(VOICES)]
        yield voice, speech(folder, voice, each, seed + number)


def keys_of(sound: np.ndarray) -> tuple[list[str], float]:
    """The keys found in sound, in A-law, each with its place; and how long that took, in seconds of CPU."""
    codes = np.frombuffer(encoded(sound), dtype=np.uint8)
    ear, begin = Ear(Law.A, RATE), time.process_time()
    ear.hear(codes, last=True)
    return [f"{tone.digit} at {tone.start / RATE:.3f} s" for tone in ear.tones], time.process_time() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="how much speech")
    parser.add_argument("--json", action="store_true", help="figures for a machine")
    options = parser.parse_args()
    found: list[str] = []
    heard_s = cpu = 0.0
    with TemporaryDirectory() as folder:
        for voice, sound in spoken(Path(folder), options.minutes):
            keys, took = keys_of(sound)
            found += [f"{voice}: {key}" for key in keys]
            cpu += took
            heard_s += len(sound) / RATE
    wanted = missing = 0
    for seed in range(50):
        text = KEYS * 4
        sound = with_keys(quiet(len(text) * 0.08 + 1, -30.0, seed), text, ms=40, pause_ms=40, seed=seed)
        wanted += len(text)
        missing += abs(len(text) - len(keys_of(sound)[0]))
    figures = {
        "speech_s": round(heard_s),
        "false_keys": found,
        "keys": wanted,
        "missing": missing,
        "cpu_s_per_hour_of_call": round(2 * cpu / heard_s * 3600, 3),
    }
    sys.stdout.write(json.dumps(figures, indent=None if options.json else 2) + "\n")
    return 1 if found or missing else 0


if __name__ == "__main__":
    sys.exit(main())
