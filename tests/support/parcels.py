"""Recordings as seal leaves them, small disks, and what lies on a target."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tapdeck.storage.parcel import Parcel, parcel

DAY = "2026/11/24"
ENDINGS = (".wav", "_info.txt")
ALL_ENDINGS = (".wav", ".pcapng", "_info.txt", "_hash.txt", "_hash.SHA256withRSA.sig")


def record(
    root: Path,
    identity: str,
    sound: bytes = b"RIFF and the rest",
    *,
    folder: str = DAY,
    ended: float = 1_795_000_000.0,
    endings: tuple[str, ...] = ENDINGS,
    name: str = "20261124-100000.000_+31201234567_2002",
) -> Parcel:
    """Write a recording below `root`, and return it as it would be handed over."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    files, size = [], 0
    for ending in endings:
        content = {".wav": sound, "_info.txt": f"RecordingId: {identity}\nCaller: 2001\n".encode()}.get(
            ending, f"{identity}{ending}".encode()
        )
        path = root / folder / f"{name}_{identity}{ending}"
        path.write_bytes(content)
        os.utime(path, (ended, ended))
        files.append(str(path.relative_to(root)))
        size += len(content)
    return parcel(identity, files, size, ended)


def noise(size: int) -> bytes:
    """Return bytes without any order, quickly."""
    block = os.urandom(1 << 20)
    return b"".join(number.to_bytes(8) + block for number in range(size // (len(block) + 8) + 1))[:size]


def visible(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder, hidden ones left out."""
    return {path: content for path, content in everything(folder).items() if not Path(path).name.startswith(".")}


def everything(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount an ext4 of this size at `folder`, from a file beside it. Needs root."""
    image = folder.with_name(f"{folder.name}.image")
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image], check=True)
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        subprocess.run(["rmdir", folder / "lost+found"], check=True)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        image.unlink()


def fill(folder: Path, leave: int = 0) -> Path:
    """Fill the disk of a folder but for `leave` bytes; return the file that does it."""
    path = folder / ".filler"
    room = os.statvfs(folder)
    left = room.f_bavail * room.f_frsize - leave
    with path.open("wb", buffering=0) as file:
        for size in (left // 2, 65536, 4096, 512):
            while left >= size > 0:
                try:
                    left -= file.write(bytes(size))
                except OSError:
                    break
    return path
