"""Fuzz the spool's readers: `python tests/fuzz/fuzz_spool.py [seconds [seed]]`.

The law: any bytes in a spool file give recordings in their folder, or `SpoolError`; any bytes in a resume file give a
history that the next run can hear, and a spool that is handed over.
"""

import atexit
import contextlib
import random
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tapdeck.storage.spool import DONE, LIVE, RESUME  # noqa: E402
from tapdeck.storage.spool_file import SpoolError, note_block  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402
from tests.support.live import Capture, sealer  # noqa: E402
from tests.support.scene import START_NS, plain_call  # noqa: E402

FOLDER = Path(tempfile.mkdtemp(prefix="tapdeck-fuzz-"))
atexit.register(shutil.rmtree, FOLDER)
TO, BACK = ["10.0.1.12", 10000, "10.0.1.22", 20000], ["10.0.1.22", 20000, "10.0.1.12", 10000]
NOTES: list[dict[str, object]] = [
    {"note": "ignore", "flow": [*TO, 0xA0000001], "since": START_NS, "until": 1 << 61},
    {"note": "shared", "flow": [*BACK, 0xB0000001], "since": START_NS},
    {"note": "clock", "since": START_NS + 5, "ahead": 7},
]
TOKENS = [b"\0", b"\xff", b"\x0a\x0d\x0d\x0a", b"\x06\0\0\0", b"\x05\0\0\0", b"9", b"-", b"{", b'"', b"[[", b"null"]


def spools() -> tuple[list[bytes], list[bytes]]:
    """A spool file with notes of all kinds, and a resume file."""
    packets = plain_call(1, duration_ms=100).packets()
    capture = Capture(FOLDER / "made")
    capture.hear(packets[:10])
    resume = capture.files_of(RESUME)[0].read_bytes()
    capture.hear(packets[10:], size=3)
    capture.rest()
    done = capture.files_of(DONE)[0].read_bytes()
    return [done, done + b"".join(note_block(note, START_NS) for note in NOTES)], [resume, resume[:-40]]


FILES, RESUMES = spools()


def check(rng: random.Random) -> None:
    """One damaged spool file is sealed, and one damaged resume file gone on from."""
    path = FOLDER / "abcdefghij.pcapng"
    path.write_bytes(mutate(_other_words(rng.choice(FILES), rng), rng, FILES, TOKENS))
    with contextlib.suppress(SpoolError):
        sealer(FOLDER).seal(path)
    assert {one.name for one in FOLDER.iterdir()} <= {"made", "run", "sealed", path.name}, "written elsewhere"
    run = Capture(FOLDER / "run")
    (run.files.folder / RESUME / path.name).write_bytes(mutate(rng.choice(RESUMES), rng, RESUMES, TOKENS))
    (run.files.folder / LIVE / path.name).write_bytes(mutate(rng.choice(FILES), rng, FILES, TOKENS))
    run.take_over()
    run.rest(2)
    run.stop()
    assert not run.files_of(LIVE)
    for folder in (DONE, RESUME):
        for left in run.files_of(folder):
            left.unlink()


def _other_words(data: bytes, rng: random.Random) -> bytes:
    """A note with a value of another kind: sizes right, sense none."""
    if rng.random() < 0.5:
        return data
    note = dict(rng.choice(NOTES))
    note[rng.choice(list(note))] = rng.choice([None, -1, 1 << 70, "x", [], {}, [1], True, 1e300])
    return data + note_block(note, START_NS)


if __name__ == "__main__":
    sys.exit(main(check))
