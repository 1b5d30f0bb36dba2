"""The key that seals, in a folder of its own that only the seal stage's user may enter.

    key.pem                   private key, PKCS#8, encrypted (AES-256)
    passphrase                its passphrase, unless it comes from a systemd credential or from a file that is named
    certificate.pem           its certificate, self-signed
    old/001-certificate.pem   certificate of the first key, when there is a second one
    old/001-cross.pem         the key that followed, certified by the first
    old/001-lost.pem          or, when the first was lost: the first, certified by the one that followed
    old/001-key.pem           a private key that could not be opened when it was replaced

Nothing is ever deleted here, save what a rotation that was broken off has left. Changes are made one at a time, under
a lock (flock); the switch to a new key is one rename.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from .atomic import make_folder, replace_file
from .certificates import self_signed, vouching
from .signature import SigningKey, pem, same_key

KEY, CERTIFICATE, PASSPHRASE, OLD = "key.pem", "certificate.pem", "passphrase", "old"
CREDENTIAL = "tapdeck-passphrase"
"""Name of the systemd credential with the passphrase."""

_NEXT_KEY, _NEXT_CERTIFICATE, _LOCK = ".next-key.pem", ".next-certificate.pem", ".lock"
_FOLDER_MODE, _PRIVATE, _PUBLIC = 0o700, 0o600, 0o644
_MAX_SIZE = 1 << 20
_EXPONENT = 65537

Stamp = tuple[object, ...]


class KeyLocked(Exception):
    """The key cannot be opened. `cause` is short and names no path; the message says what to do."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause}: {cure}")
        self.cause, self.cure = cause, cure


class KeyRefused(Exception):
    """Something would be overwritten or makes no sense; the message says what to do instead."""


@dataclass(frozen=True, slots=True)
class KeyStore:
    """The folder. `passphrase_file` goes before a passphrase in the folder, and a credential before both; `name` is the
    recorder's, for new certificates.
    """

    folder: Path
    passphrase_file: Path | None = None
    bits: int = 3072
    name: str = ""

    def open(self) -> SigningKey:
        """Return the key; make it if the folder holds none and never did. Raises KeyLocked."""
        try:
            with self._locked():
                if self._is_new():
                    self._make()
                self._settle()
                private, certificate = self._private(), self._certificate()
                if not same_key(certificate, private):
                    raise KeyLocked(
                        "key and certificate do not belong together",
                        f"put back {self.folder / KEY} and {self.folder / CERTIFICATE} from one backup "
                        "(`tapdeck key restore FILE`)",
                    )
                return SigningKey(private, certificate, self.bundle())
        except OSError as error:
            raise KeyLocked(
                f"the folder of the key cannot be used ({error.strerror or error})",
                f"look at {error.filename or self.folder}; `tapdeck install` sets the folder up",
            ) from None

    def stamp(self) -> Stamp:
        """Return what changes when the key or its passphrase does, at the cost of a few stats."""
        places = (self.folder / KEY, self.folder / CERTIFICATE, self._passphrase_path())
        return tuple(_stamp(path) for path in places)

    def bundle(self) -> bytes:
        """Return all certificates of the box, newest first. Raises OSError."""
        found = [(self.folder / CERTIFICATE).read_bytes()]
        numbers = sorted({path.name[:3] for path in (self.folder / OLD).glob("[0-9][0-9][0-9]-*.pem")}, reverse=True)
        for number in numbers:
            for kind in ("cross", "lost", "certificate"):
                path = self.folder / OLD / f"{number}-{kind}.pem"
                found += [path.read_bytes()] if path.exists() else []
        return b"".join(found)

    def history(self) -> str:
        """Return how the key came to be: `made`, `rotated`, or `replaced` after a loss."""
        last = max((path.name for path in self._olds() if not path.name.endswith(f"-{KEY}")), default="")
        if not last:
            return "made"
        return "replaced" if (self.folder / OLD / f"{last[:3]}-lost.pem").exists() else "rotated"

    def rotate(self, now: datetime) -> SigningKey:
        """Make a new key that the old one certifies. Raises KeyLocked, OSError."""
        old = self.open()
        with self._locked():
            new, certificate = self._new_key(now)
            number = self._next_number()
            self._keep(f"{number}-certificate.pem", pem(old.certificate))
            self._keep(f"{number}-cross.pem", vouching(certificate, old.certificate, old.private, now))
            self._switch(new, certificate)
        return self.open()

    def replace_lost(self, now: datetime) -> SigningKey:
        """Make a new key in place of one that cannot be opened any more, and have it certify the old one's certificate,
        as far as that is there. Raises KeyRefused if the key opens, or if there is none; OSError.
        """
        if self._is_new():
            raise KeyRefused("there is no key that could have been lost: the first one is made when it is needed")
        try:
            self.open()
        except KeyLocked:
            pass
        else:
            raise KeyRefused("the key opens: `tapdeck key rotate` gives a new one that the old one certifies")
        with self._locked():
            new, certificate = self._new_key(now)
            number = self._next_number()
            if (self.folder / KEY).exists():
                self._keep(f"{number}-key.pem", (self.folder / KEY).read_bytes(), _PRIVATE)
            if (self.folder / CERTIFICATE).exists():
                old = self._certificate()
                self._keep(f"{number}-certificate.pem", pem(old))
                self._keep(f"{number}-lost.pem", vouching(old, certificate, new, now))
            self._switch(new, certificate)
        return self.open()

    def install(self, private: RSAPrivateKey, certificate: x509.Certificate, old: dict[str, bytes]) -> SigningKey:
        """Put in place what a backup holds; `old` is name -> PEM. Raises KeyRefused, KeyLocked, OSError."""
        with self._locked():
            if (self.folder / CERTIFICATE).exists() and not same_key(self._certificate(), certificate):
                raise KeyRefused(
                    "the backup holds another key than the one that this box had last: it is from before a rotation, "
                    f"or of another box. {self.folder} is left as it is. To look into the backup, name an empty folder "
                    "with --keys; on a new machine that has sealed nothing yet, stop it and move the folder aside first"
                )
            self._refuse_opening()
            for name, content in old.items():
                if not (self.folder / OLD / name).exists():
                    self._keep(name, content)
            if (self.folder / KEY).exists():
                self._keep(f"{self._next_number()}-key.pem", (self.folder / KEY).read_bytes(), _PRIVATE)
            self._switch(private, certificate)
        return self.open()

    # -- the folder ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time: the seal stage, and `tapdeck key`."""
        if not self.folder.is_dir():
            make_folder(self.folder.parent)
            self.folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
        try:
            self._give(self.folder / _LOCK)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _is_new(self) -> bool:
        """Whether there has never been a key. The passphrase alone was left by a first start that was broken off."""
        names = (KEY, CERTIFICATE, OLD)
        return not any((self.folder / name).exists() for name in names)

    def _make(self) -> None:
        self._switch(*self._new_key(datetime.now().astimezone()))

    def _new_key(self, now: datetime) -> tuple[RSAPrivateKey, x509.Certificate]:
        private = rsa.generate_private_key(public_exponent=_EXPONENT, key_size=self.bits)
        return private, self_signed(private, self.name, now)

    def _switch(self, private: RSAPrivateKey, certificate: x509.Certificate) -> None:
        """Put the new key in the place of the old one, if there is one: from the first rename on it is the key."""
        self._write(_NEXT_CERTIFICATE, pem(certificate), _PUBLIC)
        self._write(_NEXT_KEY, self._encrypted(private), _PRIVATE)
        os.replace(self.folder / _NEXT_KEY, self.folder / KEY)
        os.replace(self.folder / _NEXT_CERTIFICATE, self.folder / CERTIFICATE)
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _settle(self) -> None:
        """Bring a change to its end that was broken off, or take it back."""
        upcoming = self.folder / _NEXT_CERTIFICATE
        if upcoming.exists() and not (self.folder / _NEXT_KEY).exists() and self._fits(upcoming):
            os.replace(upcoming, self.folder / CERTIFICATE)
        elif (self.folder / CERTIFICATE).exists():
            self._take_back((self.folder / CERTIFICATE).read_bytes())
            (self.folder / _NEXT_KEY).unlink(missing_ok=True)
            upcoming.unlink(missing_ok=True)

    def _take_back(self, current: bytes) -> None:
        """Remove what a change has kept that never came to pass: the certificate that is in use is no old one."""
        for path in self._olds():
            if path.name.endswith(f"-{CERTIFICATE}") and path.read_bytes() == current:
                for kind in ("cross", "lost", "certificate"):
                    path.with_name(f"{path.name[:3]}-{kind}.pem").unlink(missing_ok=True)

    def _fits(self, path: Path) -> bool:
        return same_key(x509.load_pem_x509_certificate(path.read_bytes()), self._private())

    def _refuse_opening(self) -> None:
        try:
            if not same_key(self._certificate(), self._private()):
                return
        except KeyLocked:
            return
        raise KeyRefused(f"{self.folder} holds a key that opens: there is nothing to restore")

    def _olds(self) -> list[Path]:
        return list((self.folder / OLD).glob("[0-9][0-9][0-9]-*.pem"))

    def _next_number(self) -> str:
        return f"{max((int(path.name[:3]) for path in self._olds()), default=0) + 1:03d}"

    def _keep(self, name: str, content: bytes, mode: int = _PUBLIC) -> None:
        old = self.folder / OLD
        if not old.is_dir():
            old.mkdir(mode=_FOLDER_MODE)
            self._give(old)
        self._write(f"{OLD}/{name}", content, mode)

    def _write(self, name: str, content: bytes, mode: int) -> None:
        replace_file(self.folder / name, content, mode)
        self._give(self.folder / name)

    def _give(self, path: Path) -> None:
        """What root writes here is the seal stage's all the same: the folder's owner's."""
        if os.geteuid() == 0:
            owner = self.folder.stat()
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    # -- what is in it -------------------------------------------------------------------------------------------------

    def _certificate(self) -> x509.Certificate:
        path = self.folder / CERTIFICATE
        try:
            return x509.load_pem_x509_certificate(_read(path))
        except FileNotFoundError:
            cure = "`tapdeck key restore FILE` brings it back from a backup, and it is the first one in the file"
            cure = f"{path} is not there: {cure} tapdeck-certificate.pem of the last day folder"
            raise KeyLocked("the certificate is missing", cure) from None
        except ValueError:
            cure = f"{path} is no certificate: `tapdeck key restore FILE`, from a backup, or put the file back"
            raise KeyLocked("the certificate cannot be read", cure) from None

    def _private(self) -> RSAPrivateKey:
        path = self.folder / KEY
        lost = "`tapdeck key restore FILE` brings it back from a backup; without one, `tapdeck key replace --lost`"
        try:
            content = _read(path)
        except FileNotFoundError:
            raise KeyLocked("the key is missing", f"{path} is not there: {lost}") from None
        try:
            key = load_pem_private_key(content, self.passphrase())
        except (ValueError, TypeError) as error:
            if b"ENCRYPTED PRIVATE KEY" in content and "password" in str(error).lower():
                cure = f"correct it in {self._passphrase_path()}; if nobody knows it: {lost}"
                raise KeyLocked("the passphrase is wrong", cure) from None
            raise KeyLocked("the key cannot be read", f"{path} is damaged: {lost}") from None
        if not isinstance(key, RSAPrivateKey):
            raise KeyLocked("the key is not an RSA key", f"{path} was put there by another program: {lost}")
        return key

    def passphrase(self) -> bytes:
        """Return the passphrase. Raises KeyLocked if there is none, OSError."""
        path = self._passphrase_path()
        try:
            words = _read(path).rstrip(b"\r\n")
        except FileNotFoundError:
            words = b""
        if not words:
            cure = (
                f"there is none in {path}: put it back, one line of text; a systemd credential is known to the service"
            )
            raise KeyLocked("the passphrase is missing", f"{cure} alone: name its file with --passphrase-file")
        return words

    def _encrypted(self, private: RSAPrivateKey) -> bytes:
        own = self.folder / PASSPHRASE
        if self._passphrase_path() == own and not own.exists():
            self._write(PASSPHRASE, secrets.token_urlsafe(32).encode() + b"\n", _PRIVATE)
        return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(self.passphrase()))

    def _passphrase_path(self) -> Path:
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        if credentials and (Path(credentials) / CREDENTIAL).exists():
            return Path(credentials) / CREDENTIAL
        return self.passphrase_file or self.folder / PASSPHRASE


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_MAX_SIZE)


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_size, found.st_ino
