"""A TLS key log on disk, read as it grows; and servers' RSA keys. What is read goes into `Secrets` and nowhere else."""

import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

from ..tls.secrets import Decrypt, Secrets

STEP = 1 << 20
MAX_KEY_FILE = 1 << 16


class KeyFileError(Exception):
    """A file that should hold keys and cannot be used; the text says which, why, and what to do."""


class KeyLog:
    """A key log file. It may not be there yet, may grow, be written anew or be exchanged for another.

    `error` is why it cannot be read at the moment, empty if it can. `tail`: of a long file only so many bytes are read
    at first, the last ones.
    """

    def __init__(self, path: str, secrets: Secrets, tail: int | None = None) -> None:
        self.path = path
        self.error = ""
        self._secrets = secrets
        self._tail = tail
        self._file: FileIO | None = None
        self._of: tuple[int, int] = (0, 0)
        self._place = 0

    def poll(self) -> bool:
        """Read what was appended since; return whether that brought secrets. What goes wrong stands in `error`."""
        try:
            came = self._read()
        except OSError as error:
            self.error = f"{self.path}: {error.strerror or error}"
            return False
        self.error = ""
        return came

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> bool:
        file = self._follow()
        came = False
        while True:
            data = os.pread(file.fileno(), STEP, self._place)
            if not data:
                return came
            self._place += len(data)
            came |= self._secrets.feed(data) > 0

    def _follow(self) -> FileIO:
        """Open the file if that was not done, or if another stands in its place, or it was cut back."""
        now = os.stat(self.path)
        known = (now.st_dev, now.st_ino) == self._of and now.st_size >= self._place
        if self._file is not None and known:
            return self._file
        first = self._file is None
        file = open(self.path, "rb", buffering=0)  # noqa: SIM115  (read from as long as it grows)
        self.close()
        self._file, self._of = file, (now.st_dev, now.st_ino)
        skipped = max(now.st_size - self._tail, 0) if first and self._tail is not None else 0
        self._place = skipped
        self._secrets.restart()
        return file


def server_keys(paths: Iterable[str]) -> list[Decrypt]:
    """Return what decrypts with the RSA keys in these PEM files. Raises KeyFileError."""
    return [_server_key(path) for path in paths]


def _server_key(path: str) -> Decrypt:
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_KEY_FILE)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror or error}: it has to be readable for this user") from None
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        raise KeyFileError(f"{path}: this key has a passphrase: take it off with `openssl pkey`") from None
    except (ValueError, ArithmeticError):
        raise KeyFileError(f"{path}: no private key in PEM form") from None
    if not isinstance(key, RSAPrivateKey):
        raise KeyFileError(f"{path}: not an RSA key: only RSA key exchange can be read with a server's key") from None

    def decrypt(cipher: bytes) -> bytes | None:
        try:
            return key.decrypt(cipher, padding.PKCS1v15())
        except ValueError:
            return None

    return decrypt
