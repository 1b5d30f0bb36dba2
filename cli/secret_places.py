"""Where passwords and passphrases come from: a file, else a systemd credential, else a variable. Never the
configuration itself, which many may read.
"""

import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..storage.secret import Secret
from .target_settings import TargetSettings

VARIABLES = "TAPDECK_SECRET_"
"""What the names of variables with secrets begin with: they are no settings."""

MAIL = "mail"
"""What stands in the place of a target's name in the names of the mail server's secret."""

_CREDENTIALS = "CREDENTIALS_DIRECTORY"
_MODES = (0o600, 0o400)
_MAX = 64 << 10


class NoSecret(Exception):
    """A secret cannot be had; the message says why, and what to do, and nothing of the secret."""


@dataclass(frozen=True, slots=True)
class SecretPlace:
    """The places of one secret, in the order in which they are looked at. `key` is the setting that names the file."""

    key: str
    file: str
    credential: str
    variable: str

    @property
    def advice(self) -> str:
        """Where the secret belongs, as an instruction."""
        return (
            f"put it alone into a file of mode 0600 and name that file by {self.key}, or make it the systemd "
            f"credential {self.credential}, or the variable {self.variable}"
        )

    def source(self, environ: Mapping[str, str]) -> str:
        """Return in words which place is used; empty if the secret is nowhere."""
        if self.file:
            return f"file {self.file}"
        if self._credential(environ) is not None:
            return f"systemd credential {self.credential}"
        return f"variable {self.variable}" if environ.get(self.variable) else ""

    def read(self, environ: Mapping[str, str], owners: Collection[int] = ()) -> Secret | None:
        """Return the secret, None where nobody has set it. A file has to be root's, the reader's or that of one of
        `owners` (numbers of users); where it may not be opened, the credential stands for it. Raises NoSecret.
        """
        credential = self._credential(environ)
        if self.file and (credential is None or os.access(self.file, os.R_OK) or _is_blank(credential)):
            return _read(Path(self.file), {0, os.geteuid(), *owners})
        if credential is not None:
            return _read(credential)
        return Secret(environ[self.variable]) if environ.get(self.variable) else None

    def _credential(self, environ: Mapping[str, str]) -> Path | None:
        path = Path(environ.get(_CREDENTIALS) or "/", self.credential)
        return path if environ.get(_CREDENTIALS) and path.exists() else None


def password_place(target: TargetSettings) -> SecretPlace:
    """Return where the password of a target's account comes from."""
    return _place(target.name, "password", target.password_file)


def passphrase_place(target: TargetSettings) -> SecretPlace:
    """Return where the passphrase of a target's key comes from."""
    return _place(target.name, "passphrase", target.passphrase_file)


def secret_places(target: TargetSettings) -> dict[str, SecretPlace]:
    """Return the secrets that a target of this kind may have, by what they are."""
    if not target.network:
        return {}
    places = {"password": password_place(target)}
    return places | {"passphrase": passphrase_place(target)} if target.key_file else places


def needed(target: TargetSettings, what: str) -> bool:
    """Whether the target cannot work without this secret. A key may have no passphrase, and needs no password."""
    return what == "password" and not target.key_file


def _place(name: str, what: str, file: str) -> SecretPlace:
    variable = f"{VARIABLES}{name.upper().replace('-', '_')}_{what.upper()}"
    return SecretPlace(f"{what}_file", file, f"tapdeck-{name}-{what}", variable)


def _is_blank(credential: Path) -> bool:
    """Whether systemd had no file to make the credential of (see units.py)."""
    return credential.stat().st_size <= 1


def _read(path: Path, owners: Collection[int] | None = None) -> Secret:
    """Read a file with a secret; `owners` is None where somebody else has seen to who may read it. Raises NoSecret."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise NoSecret(f"{path} is no file")
            if owners is not None:
                _check_access(path, found, owners)
            content = file.read(_MAX + 1)
    except PermissionError:
        raise NoSecret(f"{path} may not be read: it has to belong to the user who needs it") from None
    except OSError as error:
        raise NoSecret(f"{path}: {error.strerror}") from None
    try:
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise NoSecret(f"{path} is not UTF-8 text") from None
    if not text or len(content) > _MAX:
        raise NoSecret(f"{path} is empty" if not text else f"{path} is too large for a secret")
    return Secret(text)


def _check_access(path: Path, found: os.stat_result, owners: Collection[int]) -> None:
    """Raises NoSecret where others could read the secret, or could have put another one in its place."""
    if stat.S_IMODE(found.st_mode) not in _MODES:
        raise NoSecret(f"{path} has mode {stat.S_IMODE(found.st_mode):04o}: run `chmod 600 {path}`")
    if found.st_uid not in owners:
        raise NoSecret(
            f"{path} belongs to user {found.st_uid}, not to root or to the user who needs it: run `chown root {path}`"
        )
