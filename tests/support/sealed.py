"""Sealed recordings made with the real `openssl`, by the documented formats and none of Tapdeck's code."""

import base64
import hashlib
import os
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

ZONE = timezone(timedelta(hours=1))
START = datetime(2026, 11, 24, 9, 0, tzinfo=ZONE)
ENDINGS = (".wav", "_packets.pcapng", "_info.txt", "_hash.txt", "_hash.SHA256withRSA.sig")
SIG = "_hash.SHA256withRSA.sig"


def openssl(*args: str | Path, given: bytes = b"") -> bytes:
    """Run openssl, and return what it printed."""
    done = subprocess.run(["openssl", *map(str, args)], input=given, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@dataclass(frozen=True, slots=True)
class Key:
    """A private key and its certificate, as PEM files."""

    private: Path
    certificate: Path

    @property
    def fingerprint(self) -> str:
        text = openssl("x509", "-in", self.certificate, "-noout", "-fingerprint", "-sha256").decode()
        return text.strip().rpartition("=")[2].replace(":", "").lower()

    def sign(self, content: bytes) -> bytes:
        return openssl("dgst", "-sha256", "-sign", self.private, given=content)


@cache
def key(folder: Path, name: str, by: "Key | None" = None) -> Key:
    """Make a key of 3072 bits with a certificate, self-signed or by another key."""
    made = Key(folder / f"{name}.key", folder / f"{name}.pem")
    new: list[str | Path] = ["-newkey", "rsa:3072", "-nodes", "-keyout", made.private, "-subj", f"/CN=Tapdeck {name}"]
    issuer: list[str | Path] = ["-CA", by.certificate, "-CAkey", by.private] if by else []
    openssl("req", "-x509", "-days", "3650", *new, *issuer, "-out", made.certificate)
    return made


@dataclass
class Box:
    """A recorder that seals: `seal` writes a recording, `checkpoint` a day's checkpoint, `ledger` the log."""

    root: Path
    key: Key
    certificates: list[Key] = field(default_factory=list)
    last: tuple[str, bytes] = ("", b"")
    sealed: dict[str, tuple[Path, str]] = field(default_factory=dict)
    days: dict[str, str] = field(default_factory=dict)
    entries: list[tuple[int, str, str, str, str, bytes, str, str]] = field(default_factory=list)
    previous_checkpoint: str = ""

    def __post_init__(self) -> None:
        self.certificates = self.certificates or [self.key]

    def rotate(self, new: Key) -> None:
        self.key = new
        self.certificates.insert(0, new)
        for pem in self.root.rglob("tapdeck-certificate.pem"):
            pem.write_bytes(self._certificate_file())

    def seal(self, identity: str, day: int = 0, sound: bytes = b"", folder_day: int | None = None) -> Path:
        """Write a recording; return its files' common path."""
        number = len(self.sealed)
        moment = START + timedelta(days=day, minutes=number)
        opened = moment if folder_day is None else START + timedelta(days=folder_day)
        folder = self.root / f"{opened:%Y/%m/%d}"
        stem = f"{opened:%Y%m%d-%H%M%S}.{number:03d}_+31201234567_2002_{identity}"
        info = {
            "Datetime": _iso(opened),
            "RecordingId": identity,
            "Caller": "+31201234567",
            "SealedAt": moment.isoformat(timespec="milliseconds"),
            "PreviousRecording": self.last[0],
            "PreviousDay": self.days.get(self.last[0], ""),
            "PreviousSignature": base64.b64encode(self.last[1]).decode(),
            "SealedBy": self.key.fingerprint,
            "Recorder": "Tapdeck",
        }
        body = b"WAVEfmt " + (sound or hashlib.sha512(identity.encode()).digest() * 4)
        content = {
            ".wav": b"RIFF" + len(body).to_bytes(4, "little") + body,
            "_packets.pcapng": hashlib.sha512(b"packets" + identity.encode()).digest(),
            "_info.txt": "".join(f"{name}: {value}".rstrip() + "\n" for name, value in info.items()).encode(),
        }
        signature, digest = write(folder, stem, content, self.key)
        self.last = (identity, signature)
        self.sealed[identity] = (folder / stem, digest)
        self.days[identity] = f"{opened:%Y-%m-%d}"
        self._certify(folder)
        self._log("recording", identity, digest, signature, moment)
        return folder / stem

    def tombstone(self, identity: str) -> None:
        path, digest = self.sealed[identity]
        remove(path)
        moment = START + timedelta(days=30)
        text = f"Tombstone: {identity} {digest}\nTime: {_iso(moment)}\nReason: order\nBy: admin\n"
        body = '{"by": "admin", "reason": "order"}'
        self._log("tombstone", identity, digest, self.key.sign(text.encode()), moment, body)

    def checkpoint(self, day: int = 0) -> Path:
        """Write the checkpoint over all that was sealed on this day."""
        moment = START + timedelta(days=day)
        entries = [one for one in self.entries if one[1].startswith(f"{moment:%Y-%m-%d}")]
        lines = [
            f"Day: {moment:%Y-%m-%d}",
            "Recorder: Tapdeck",
            f"SealedAt: {(moment + timedelta(hours=14)).isoformat(timespec='milliseconds')}",
            f"CertificateFingerprint: {self.key.fingerprint}",
            f"LedgerFrom: {entries[0][0]}",
            f"LedgerTo: {entries[-1][0]}",
            f"LedgerLink: {entries[-1][7]}",
            f"Packets-kept: {100 * len(entries)}",
            "KernelDrops: 0",
            f"PreviousCheckpoint: {self.previous_checkpoint}",
            *(
                f"{one[2].title()}: {one[0]} {one[3]} {one[4]}"
                for one in entries
                if one[2] in ("recording", "tombstone")
            ),
            *(
                f"OtherDay: {one[0]} {one[3]} {self.days[one[3]]}"
                for one in entries
                if one[2] == "recording" and self.days[one[3]] != f"{moment:%Y-%m-%d}"
            ),
        ]
        content = "".join(line.rstrip() + "\n" for line in lines).encode()
        path = self.root / f"{moment:%Y/%m/%d}" / f"tapdeck-day-{moment:%Y-%m-%d}.txt"
        path.write_bytes(content)
        path.with_suffix(".SHA256withRSA.sig").write_bytes(self.key.sign(content))
        self.previous_checkpoint = hashlib.sha256(content).hexdigest()
        return path

    def ledger(self, path: Path) -> Path:
        """Write the log."""
        base = sqlite3.connect(path)
        base.execute(
            "CREATE TABLE entries(seq INTEGER PRIMARY KEY, time TEXT, kind TEXT, id TEXT, hash TEXT, signature BLOB,"
            " body TEXT, link TEXT)"
        )
        base.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self.entries)
        base.commit()
        base.close()
        return path

    def _log(self, kind: str, identity: str, digest: str, signature: bytes, moment: datetime, body: str = "{}") -> None:
        time, seq = _iso(moment), len(self.entries) + 1
        before = self.entries[-1][7] if self.entries else ""
        text = "\n".join([before, str(seq), time, kind, identity, digest, base64.b64encode(signature).decode(), body])
        link = hashlib.sha256(text.encode()).hexdigest()
        self.entries.append((seq, time, kind, identity, digest, signature, body, link))

    def _certify(self, folder: Path) -> None:
        if not (folder / "tapdeck-certificate.pem").exists():
            (folder / "tapdeck-certificate.pem").write_bytes(self._certificate_file())

    def _certificate_file(self) -> bytes:
        return b"".join(one.certificate.read_bytes() for one in self.certificates)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def write(folder: Path, stem: str, content: dict[str, bytes], by: Key) -> tuple[bytes, str]:
    """Write the files of a recording with their seal; return the signature, and the hash file's hash."""
    folder.mkdir(parents=True, exist_ok=True)
    for ending, data in content.items():
        (folder / f"{stem}{ending}").write_bytes(data)
    names = sorted(f"{stem}{ending}" for ending in content)
    hashes = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names).encode()
    signature = by.sign(hashes)
    (folder / f"{stem}_hash.txt").write_bytes(hashes)
    (folder / f"{stem}{SIG}").write_bytes(signature)
    return signature, hashlib.sha256(hashes).hexdigest()


def part(stem: Path, ending: str) -> Path:
    """Return a file of a recording."""
    return stem.with_name(stem.name + ending)


def change(path: Path, edit: Callable[[bytes], bytes]) -> None:
    """Change a file's content."""
    path.write_bytes(edit(path.read_bytes()))


def flip(path: Path, bit: int) -> None:
    """Turn one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def rename(stem: Path, new: str, endings: tuple[str, ...] = ENDINGS) -> Path:
    """Rename a recording's files."""
    for ending in endings:
        os.rename(part(stem, ending), part(stem.with_name(new), ending))
    return stem.with_name(new)


def remove(stem: Path, endings: tuple[str, ...] = ENDINGS) -> None:
    """Remove files of a recording."""
    for ending in endings:
        part(stem, ending).unlink()


def swap(one: Path, other: Path) -> None:
    """Give each of two files the content of the other."""
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def by_hand(stem: Path, certificate: Path) -> bool:
    """Verify as documented for OpenSSL and sha256sum alone; return whether both say yes."""
    public = openssl("x509", "-in", certificate, "-pubkey", "-noout")
    command: list[str | Path] = ["openssl", "dgst", "-sha256", "-verify", "/dev/stdin", "-signature", part(stem, SIG)]
    signed = subprocess.run([*command, part(stem, "_hash.txt")], input=public, capture_output=True)
    listed = subprocess.run(
        ["sha256sum", "-c", "--strict", "--quiet", part(stem, "_hash.txt").name], cwd=stem.parent, capture_output=True
    )
    return signed.returncode == 0 and listed.returncode == 0
