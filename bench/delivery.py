"""Delivery to a Samba and to an OpenSSH server on loopback, beside what their own clients take for the same files.

    python bench/delivery.py                          4 files of 250 MB, and 2,000 small recordings
    python bench/delivery.py --small 5000 --large 1 --megabytes 500
    python bench/delivery.py --json

The same files go to the same server one way after the other: `smbclient` and `sftp` in one invocation each, in batch
mode (`put` of everything; for read-back, `get` of everything too, into another folder), and `tapdeck deliver --once`
with the connections that a target has by default, read-back off and on. The cipher is the same: SMB 3.1.1 as both sides
agree, and for SSH the one that Tapdeck has agreed on. The clients neither flush, nor rename, nor keep a queue; Tapdeck
does all of it, and its start is in its time. Needs root, `smbclient` and `sftp`.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from bench.delivery_faults import identity  # noqa: E402
from tests.support.delivering import Servers, Stage, held, servers  # noqa: E402
from tests.support.openssh import OpenSsh  # noqa: E402
from tests.support.parcels import DAY, noise, record  # noqa: E402
from tests.support.samba import PASSWORD, SHARE, USER, Samba  # noqa: E402

SMALL_ENDINGS = (".wav", "_info.txt", "_hash.txt", "_hash.SHA256withRSA.sig")
SMALL_BYTES = 30_000
CLIENTS = {"nas": "smbclient", "ssh": "sftp"}


@dataclass(frozen=True)
class Run:
    """One way over all files of a load. `ratio` is the client's time by ours: above 1 Tapdeck is the faster one."""

    load: str
    target: str
    what: str
    seconds: float
    recordings: int
    bytes: int
    ratio: float | None = None

    @property
    def rate(self) -> float:
        """MB/s, each byte counted once, read back or not."""
        return self.bytes / 1e6 / self.seconds


@dataclass(frozen=True)
class Load:
    """Recordings that lie in a folder, all of one kind."""

    name: str
    root: Path
    recordings: int

    @property
    def files(self) -> list[Path]:
        return sorted((self.root / DAY).iterdir())

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)


def make(folder: Path, name: str, count: int, size: int, endings: tuple[str, ...]) -> Load:
    """Write the recordings of a load."""
    for number in range(count):
        record(folder / "recordings", identity(number), noise(size), ended=1_795_000_000.0 + number, endings=endings)
    return Load(name, folder / "recordings", count)


def measure(load: Load, site: Servers, name: str, folder: Path, cipher: str) -> list[Run]:
    """Every way of a load to one server. Raises SystemExit if something did not arrive as it is."""
    put = _timed(load, site, name, _client(load, site, name, folder, cipher, back=False))
    both = _timed(load, site, name, _client(load, site, name, folder, cipher, back=True))
    shutil.rmtree(folder / "back")
    tool = CLIENTS[name]
    runs = [
        Run(load.name, name, f"{tool} put", put, load.recordings, load.bytes),
        Run(load.name, name, f"{tool} put, get", both, load.recordings, load.bytes),
    ]
    for read_back, theirs in ((False, put), (True, both)):
        stage = Stage(load.root.parent, {name: site.targets[name] | {"read_back": read_back}})
        seconds = _timed(load, site, name, stage.words("deliver", "--once", "--json"))
        what = f"tapdeck{', read back' if read_back else ''}"
        runs.append(Run(load.name, name, what, seconds, load.recordings, load.bytes, theirs / seconds))
        shutil.rmtree(stage.state)
    return runs


def _client(load: Load, site: Servers, name: str, folder: Path, cipher: str, back: bool) -> list[str]:
    """The command line of a server's own client, for all files in one invocation."""
    batch, fetched = folder / f"{name}.batch", folder / "back"
    shutil.rmtree(fetched, ignore_errors=True)
    fetched.mkdir()
    if name == "nas":
        return _smbclient(load, site.samba, fetched if back else None)
    far = f"{site.ssh.folder}/{DAY}"
    lines = [f"-mkdir {site.ssh.folder}/{path}" for path in ("2026", "2026/11", DAY)]
    lines += [f"cd {far}", f"lcd {load.root / DAY}"]
    lines += [f"put {path.name}" for path in load.files]
    lines += [f"lcd {fetched}", *(f"get {path.name}" for path in load.files)] if back else []
    batch.write_text("".join(f"{line}\n" for line in lines))
    return _sftp(site.ssh, batch, folder / "known_hosts", cipher)


def _smbclient(load: Load, samba: Samba, fetched: Path | None) -> list[str]:
    commands = ["prompt OFF", "mkdir 2026", "mkdir 2026\\11", f"mkdir {DAY.replace('/', chr(92))}"]
    commands += [f"cd {DAY.replace('/', chr(92))}", f"lcd {load.root / DAY}", "mput *"]
    commands += [f"lcd {fetched}", "mget *"] if fetched else []
    words = ["smbclient", f"//127.0.0.1/{SHARE}", "-p", str(samba.port), "-U", f"{USER}%{PASSWORD}"]
    return [*words, "-m", "SMB3", "--client-protection=encrypt", "-s", "/dev/null", "-c", "; ".join(commands)]


def _sftp(ssh: OpenSsh, batch: Path, known: Path, cipher: str) -> list[str]:
    known.write_text(f"[{ssh.host}]:{ssh.port} {ssh.public_key()}\n")
    options = [f"UserKnownHostsFile={known}", f"Ciphers={cipher}", "StrictHostKeyChecking=yes", "BatchMode=yes"]
    words = ["sftp", "-q", "-F", "/dev/null", "-P", str(ssh.port), "-i", str(ssh.key_file), "-b", str(batch)]
    return [*words, *(word for option in options for word in ("-o", option)), f"{ssh.user}@{ssh.host}"]


def _timed(load: Load, site: Servers, name: str, words: list[str]) -> float:
    """Run a command and look whether all files are there; return its seconds. The server is empty before and after."""
    folder = site.folders[name]
    os.sync()
    started = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True)
    seconds = time.monotonic() - started
    found = held(folder)
    right = [path for path in load.files if filecmp.cmp(path, found.get(f"{DAY}/{path.name}", "/dev/null"), False)]
    if done.returncode or len(right) != len(load.files) or len(found) != len(load.files):
        said = (done.stdout + done.stderr)[-2000:]
        raise SystemExit(f"{words[0]}: exit code {done.returncode}, {len(right)} of {len(load.files)} right\n{said}")
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return seconds


def cipher_of(site: Servers, folder: Path) -> str:
    """Return the cipher that Tapdeck and the SSH server agree on."""
    stage = Stage(folder, {"ssh": site.targets["ssh"]})
    done = stage.run("targets test", "--json")
    (found,) = json.loads(done.stdout)["targets"]
    (site.ssh.files / ".tapdeck-target").unlink(missing_ok=True)
    return str(found["facts"]["cipher"])


def table(runs: list[Run]) -> str:
    """The figures for a reader."""
    lines = ["| load | way | seconds | recordings/s | MB/s | client's time by ours |", "|---|---|---|---|---|---|"]
    for run in runs:
        ratio = f"{run.ratio:.2f}" if run.ratio else "-"
        speed = f"{run.recordings / run.seconds:,.1f} | {run.rate:,.1f}"
        lines.append(f"| {run.load} | {run.target}: {run.what} | {run.seconds:.1f} | {speed} | {ratio} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", type=int, default=2000, help="small recordings; 0: none")
    parser.add_argument("--large", type=int, default=4, help="large recordings; 0: none")
    parser.add_argument("--megabytes", type=int, default=250, help="size of a large one")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="bench") as name, servers(Path(name, "servers")) as site:
        folder = Path(name)
        cipher = cipher_of(site, folder / "probe")
        large = arguments.megabytes * 1_000_000
        kinds = (
            ("large", arguments.large, large, (".wav", "_info.txt")),
            ("small", arguments.small, SMALL_BYTES, SMALL_ENDINGS),
        )
        loads = [make(folder / kind[0], *kind) for kind in kinds if kind[1]]
        runs = [run for load in loads for target in CLIENTS for run in measure(load, site, target, folder, cipher)]
    if arguments.json:
        print(json.dumps({"cipher": cipher, "runs": [asdict(run) for run in runs]}))
    else:
        print(f"SSH cipher: {cipher}\n\n{table(runs)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
