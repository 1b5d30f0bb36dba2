"""Running `tapdeck record` as a user does, and reading what it left without any of its code."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120

SEEN = "seen"
A_LAW, MU_LAW, PCM = 6, 7, 1
"""RIFF format tags (mmreg.h)."""

NO_CALL, USAGE, DAMAGED, UNREADABLE = 1, 64, 65, 66
"""Exit codes, as docs/exit-codes.md has them."""


@dataclass(frozen=True)
class Wav:
    """A RIFF file taken apart by hand: format tag, channels, rate, and the bytes of its data chunk."""

    tag: int
    channel_count: int
    rate: int
    bits: int
    data: bytes

    def channels(self) -> tuple[bytes, bytes]:
        """Left and right of a stereo file."""
        assert self.channel_count == 2
        width = self.bits // 8
        frames = [self.data[n : n + width] for n in range(0, len(self.data), width)]
        return b"".join(frames[0::2]), b"".join(frames[1::2])


@dataclass(frozen=True)
class Recording:
    """One call on disk: the sound and what is written about it."""

    path: Path
    info: dict[str, str]

    @cached_property
    def wav(self) -> Wav:
        return read_wav(self.path)


@dataclass(frozen=True)
class Result:
    """What one run of the command gave."""

    out: Path
    code: int
    stdout: str
    stderr: str

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON objects it printed."""
        return [json.loads(line) for line in self.stdout.splitlines() if line.strip()]

    @property
    def summary(self) -> dict[str, Any]:
        """The last JSON object: the accounts."""
        assert self.lines, f"exit code {self.code}, nothing printed\n{self.stderr}"
        summary: dict[str, Any] = self.lines[-1]["summary"]
        return summary

    @cached_property
    def recordings(self) -> list[Recording]:
        """All recordings in the output folder, by name (and so by start)."""
        return [Recording(path, read_info(path)) for path in sorted(self.out.rglob("*.wav"))]

    def by_call_id(self) -> dict[str, Recording]:
        """The recordings by the Call-ID in their text file."""
        found = {recording.info["CallId"]: recording for recording in self.recordings}
        assert len(found) == len(self.recordings), "a call was recorded more than once"
        return found

    def only(self) -> Recording:
        """The one recording there must be."""
        assert len(self.recordings) == 1, f"{len(self.recordings)} recordings, exit code {self.code}\n{self.stderr}"
        return self.recordings[0]


def record(out: Path, *captures: Path | str, stdin: Path | None = None, more: Sequence[str] = ()) -> Result:
    """Run `tapdeck record CAPTURES --out OUT --json` in a process of its own, in UTC."""
    command = [sys.executable, "-m", "tapdeck.cli", "record", *map(str, captures), "--out", str(out), "--json", *more]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TAPDECK_")}
    environment = plain | {"PYTHONPATH": str(REPOSITORY / "src"), "TZ": "UTC"}
    run = subprocess.run(
        command,
        input=stdin.read_bytes() if stdin else b"",
        capture_output=True,
        env=environment,
        cwd=out.parent,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Result(out, run.returncode, run.stdout.decode(), run.stderr.decode(errors="replace"))


def read_wav(path: Path) -> Wav:
    """Walk the chunks of a RIFF file; every length must fit and the sizes agree."""
    content = path.read_bytes()
    riff, size, wave = struct.unpack_from("<4sI4s", content)
    assert (riff, wave) == (b"RIFF", b"WAVE")
    assert size == len(content) - 8
    chunks: dict[bytes, bytes] = {}
    offset = 12
    while offset < len(content):
        name, length = struct.unpack_from("<4sI", content, offset)
        chunks[name] = content[offset + 8 : offset + 8 + length]
        assert len(chunks[name]) == length
        offset += 8 + length + length % 2
    tag, channel_count, rate, byte_rate, align, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
    assert byte_rate == rate * align == rate * channel_count * bits // 8
    return Wav(tag, channel_count, rate, bits, chunks[b"data"])


def read_info(wav: Path) -> dict[str, str]:
    """The `Key: value` lines beside a recording."""
    text = wav.with_name(wav.stem + "_info.txt").read_text(encoding="utf-8")
    pairs = [line.partition(":") for line in text.splitlines() if line.strip()]
    return {key: value.strip() for key, _, value in pairs}


def assert_sound(recording: Recording, left: bytes, right: bytes, *, tag: int = A_LAW) -> None:
    """The recording is stereo G.711 at 8 kHz and holds exactly these bytes."""
    wav = recording.wav
    assert (wav.tag, wav.channel_count, wav.rate, wav.bits) == (tag, 2, 8000, 8)
    heard = wav.channels()
    for name, found, expected in (("left", heard[0], left), ("right", heard[1], right)):
        assert found == expected, f"{name}: {_difference(found, expected)}"


def _difference(found: bytes, expected: bytes) -> str:
    same = min(len(found), len(expected))
    first = next((n for n in range(same) if found[n] != expected[n]), same)
    shift = found.find(expected[first : first + 80]) - first
    return (
        f"{len(found)} samples, expected {len(expected)}; they part at {first}"
        f" (found {found[first : first + 8].hex()}, expected {expected[first : first + 8].hex()}, shift {shift})"
    )


def unbalanced(account: dict[str, int]) -> int:
    """What of `seen` no other line of the account explains (0 when it balances)."""
    return account[SEEN] - sum(count for kind, count in account.items() if kind != SEEN)
