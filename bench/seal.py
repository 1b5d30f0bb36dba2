"""What sealing and verifying cost, with the real stages as processes of their own.

    python bench/seal.py          # 10,000 recordings sealed and verified; 1,000 calls ending within a minute
    python bench/seal.py --recordings 500 --calls 100 --seconds 6 --json

The calls are small (2 s), so that what is the same for each counts: hashes, signature, log, fsync. Their spool files
are copies of one that the capture stage's own code has made, each with a Call-ID and an id of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "src")]

from bench.usage import Watch  # noqa: E402

MIB = 1 << 20
STAGES = ("capture", "seal", "deliver", "metrics")
TOKEN = "bench-000000"
START_NS = 1_795_000_000_000_000_000


@dataclass(frozen=True)
class Run:
    """One command: how long it took, the CPU of it and its children, the greatest memory of one process."""

    name: str
    exit_code: int
    seconds: float
    cpu_s: float
    peak_mib: float
    recordings: int

    @property
    def a_second(self) -> float:
        """Recordings a second."""
        return self.recordings / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU of one recording."""
        return 1000 * self.cpu_s / self.recordings


@dataclass(frozen=True)
class Rush:
    """Calls that end within a short time, and a seal stage that runs: the most that waited, and when all was sealed."""

    calls: int
    within_s: float
    talk_s: int
    most_waiting: int
    late_s: float
    cores: float
    peak_mib: float


def main() -> int:
    options = _options()
    root = Path(tempfile.mkdtemp(prefix="bench"))
    try:
        found = _bench(root, options)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(json.dumps(found, default=asdict) if options.json else "\n".join(_table(found)))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=10_000, help="recordings to seal and verify")
    parser.add_argument("--calls", type=int, default=1_000, help="calls that end within --seconds")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--talk", type=int, default=60, help="seconds of sound of each of these calls")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _bench(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    recordings: int = options.recordings
    template = _template(root / "template", 2)
    signed, plain = root / "signed", root / "plain"
    _spool(template, signed, recordings)
    runs = [_tapdeck("seal", recordings, signed, ["seal", "--once", *_places(signed)])]
    size = sum(path.stat().st_size for path in (signed / "recordings").rglob("*") if path.is_file())
    verify = ["verify", str(signed / "recordings")]
    ledger = ["--ledger", str(signed / "state" / "ledger.sqlite")]
    runs.append(_tapdeck("verify", recordings, signed, verify))
    runs.append(_tapdeck("verify --against-log", recordings, signed, [*verify, "--against-log", *ledger]))
    _check(signed, recordings, runs, verify)
    _spool(template, plain, min(recordings, 2000))
    runs.append(
        _tapdeck("seal --no-sign", min(recordings, 2000), plain, ["seal", "--once", *_places(plain), "--no-sign"])
    )
    parts = _parts(root / "parts", signed)
    for done_with in (plain, signed):
        shutil.rmtree(done_with)
    rush = _rush(_template(root / "long", options.talk), root / "rush", options)
    return {"runs": runs, "bytes": size, "parts_ms": parts, "rush": rush}


def _check(folder: Path, recordings: int, runs: list[Run], verify: list[str]) -> None:
    """All sealed, all intact; and a bit that is changed shows."""
    made = sum(1 for _ in (folder / "recordings").rglob("*_hash.SHA256withRSA.sig"))
    if made != recordings or any(run.exit_code for run in runs):
        raise SystemExit(f"{made} of {recordings} were sealed; exit codes {[run.exit_code for run in runs]}")
    victim = next((folder / "recordings").rglob("*.wav"))
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    if _tapdeck("", recordings, folder, verify).exit_code != 1:
        raise SystemExit("a changed bit was not found")


def _template(folder: Path, talk: int) -> tuple[bytes, str]:
    """Return a spool file that capture's own code has made, of a call of so many seconds, and its id."""
    from tapdeck.cli.parts import live_engine, origin
    from tapdeck.cli.settings import Settings
    from tapdeck.sniffer import synthetic
    from tapdeck.storage.spool import DONE, SpoolBook, SpoolFiles

    made = Settings()
    synthetic.PACKETS = 50 * talk
    call = synthetic.synthetic_call(TOKEN, START_NS, 5060)
    book, files = SpoolBook(origin(made, "bench", (101, 1)), []), SpoolFiles(folder)
    engine = live_engine(made, (1,))
    cycles = [engine.listen(records) for records in call.visits()]
    for cycle in [*cycles, engine.idle(call.ended + 600 * 10**9)]:
        for job in book.jobs(cycle.items):
            files.do(job)
    files.sync()
    (path,) = (folder / DONE).glob("*.pcapng")
    return path.read_bytes(), path.stem


def _files(template: tuple[bytes, str], count: int) -> Iterator[tuple[str, bytes]]:
    """Yield id and content of spool files that differ in their Call-ID and their id."""
    content, identity = template
    for number in range(count):
        name = "".join(chr(ord("a") + int(digit)) for digit in f"{number:010d}")
        token = f"bench-{number:06d}"
        yield name, content.replace(TOKEN.encode(), token.encode()).replace(identity.encode(), name.encode())


def _spool(template: tuple[bytes, str], folder: Path, count: int) -> None:
    done = folder / "spool" / "done"
    done.mkdir(parents=True)
    for number, (name, content) in enumerate(_files(template, count)):
        path = done / f"{name}.pcapng"
        path.write_bytes(content)
        os.utime(path, ns=(START_NS + number, START_NS + number))
    os.sync()


def _places(folder: Path) -> list[str]:
    names = {"out": "recordings", "spool": "spool", "state": "state", "keys": "keys"}
    places = [f"--{option}={folder / name}" for option, name in names.items()]
    return [*places, "--json", "--group=", *(f"--{stage}-user=" for stage in STAGES)]


def _command(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "tapdeck.cli", *words]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}


def _tapdeck(name: str, recordings: int, folder: Path, words: list[str]) -> Run:
    """Run a command, and return what it cost."""
    os.sync()
    with (folder / "output").open("wb") as output:
        begin = time.monotonic()
        process = subprocess.Popen(_command(words), env=_environment(), stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode > 1:
        raise SystemExit(
            f"{' '.join(words)}: exit code {process.returncode}\n{(folder / 'output').read_text()[-2000:]}"
        )
    cpu = used.ru_utime + used.ru_stime
    return Run(name, process.returncode, round(seconds, 2), round(cpu, 2), round(used.ru_maxrss / 1024, 1), recordings)


def _parts(folder: Path, signed: Path) -> dict[str, float]:
    """Return what the steps of sealing one recording take, in ms: the real functions, one after the other."""
    from tapdeck.storage.atomic import write_files
    from tapdeck.storage.keys import KeyStore
    from tapdeck.storage.ledger import Ledger, Pending

    folder.mkdir()
    key = KeyStore(signed / "keys").open()
    sound = os.urandom(32_000)
    ledger = Ledger(folder / "ledger.sqlite")

    def logged(number: int) -> None:
        pending = Pending(f"{number}", "2026-11-24T12:00:00+01:00", "", b"")
        ledger.begin(pending)
        ledger.finish(pending, "0" * 64, b"x" * 384, "2026-11-24")

    def written(number: int) -> None:
        write_files(folder, [(f"{number}_hash.txt", b"x" * 300), (f"{number}.sig", b"x" * 384)])

    steps = {
        "SHA-256 of 32 kB of sound": lambda number: hashlib.sha256(sound).hexdigest(),
        "RSA-3072 signature": lambda number: key.sign(b"x" * 300),
        "recording log: two transactions, durable": logged,
        "hash file and signature, each with fsync": written,
    }
    result = {}
    for name, step in steps.items():
        begin, count = time.perf_counter(), 200
        for number in range(count):
            step(number)
        result[name] = round(1000 * (time.perf_counter() - begin) / count, 3)
    ledger.close()
    return result


def _rush(template: tuple[bytes, str], folder: Path, options: argparse.Namespace) -> Rush:
    """Hand calls over to a running seal stage, evenly, and see how it keeps up."""
    calls, seconds = options.calls, options.seconds
    waiting = folder / "spool" / "waiting"
    done = folder / "spool" / "done"
    for place in (waiting, done):
        place.mkdir(parents=True)
    for name, content in _files(template, calls):
        (waiting / f"{name}.pcapng").write_bytes(content)
    os.sync()
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            _command(["seal", *_places(folder)]), env=_environment(), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _until(lambda: (folder / "state" / "seal.json").exists(), 30)
        with Watch(lambda: {"seal": process.pid}) as watch:
            most = _hand_over(waiting, done, calls, seconds)
            over = time.monotonic()
            _until(lambda: not any(done.iterdir()), 600)
            late = time.monotonic() - over
    finally:
        process.terminate()
        process.wait()
    sealed = sum(1 for _ in (folder / "recordings").rglob("*_hash.SHA256withRSA.sig"))
    if sealed != calls:
        raise SystemExit(f"{sealed} of {calls} calls were sealed")
    cores, peak = round(watch.cores("seal"), 2), round(watch.peak("seal") / MIB, 1)
    return Rush(calls, seconds, options.talk, most, round(late, 2), cores, peak)


def _hand_over(waiting: Path, done: Path, calls: int, seconds: float) -> int:
    """Return how many waited at most."""
    most, begin = 0, time.monotonic()
    for number, path in enumerate(sorted(waiting.iterdir())):
        time.sleep(max(0.0, begin + number * seconds / calls - time.monotonic()))
        os.utime(path)
        path.rename(done / path.name)
        if number % 10 == 0:
            most = max(most, sum(1 for _ in done.iterdir()))
    return most


def _until(is_so: Any, patience_s: float) -> None:
    end = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit("the seal stage does not keep up, or did not start")
        time.sleep(0.01)


def _table(found: dict[str, Any]) -> Iterator[str]:
    yield "| run | recordings | seconds | recordings/s | CPU s | CPU ms a recording | peak memory, MiB |"
    yield "|---|---|---|---|---|---|---|"
    for run in found["runs"]:
        yield (
            f"| {run.name} | {run.recordings:,} | {run.seconds:.1f} | {run.a_second:,.0f} | {run.cpu_s:.1f} | "
            f"{run.cpu_ms:.2f} | {run.peak_mib:.0f} |"
        )
    yield f"\n{found['bytes'] / MIB:,.0f} MiB were verified.\n"
    yield "| step of sealing one recording | ms |"
    yield "|---|---|"
    for name, value in found["parts_ms"].items():
        yield f"| {name} | {value:.2f} |"
    rush = found["rush"]
    yield (
        f"\n{rush.calls:,} calls of {rush.talk_s} s ended within {rush.within_s:.0f} s: at most {rush.most_waiting} "
        f"waited, the last was sealed {rush.late_s:.1f} s after it had ended; {rush.cores:.2f} cores, "
        f"{rush.peak_mib:.0f} MiB."
    )


if __name__ == "__main__":
    sys.exit(main())
