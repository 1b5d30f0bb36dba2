"""`tapdeck key`: the key that seals recordings. Nothing here overwrites or destroys one."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from ..storage import key_backup
from ..storage.keys import KeyLocked, KeyRefused, KeyStore
from ..storage.safe_text import for_terminal
from ..storage.signature import SigningKey
from . import layout
from .config import load, with_options
from .exit_codes import ExitCode
from .settings import Settings
from .signing import key_store
from .users import with_present_users

_words = click.option(
    "--words",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with the passphrase of the backup, in place of asking for it.",
)
_OPTIONS = with_options("recording", "storage", "signing", "users")


class CannotUseKey(click.ClickException):
    """The key cannot be opened, or what was asked for would harm it."""

    exit_code = ExitCode.CONFIG


class NotAllowed(click.ClickException):
    """This user may not look into the folder of the key."""

    exit_code = ExitCode.NO_PERMISSION


@click.group()
def key() -> None:
    """Look after the key that seals recordings.

    It is made when the recorder starts for the first time. Write down its fingerprint (`tapdeck key show`) and make a
    backup (`tapdeck key backup FILE`) on that day. A running recorder takes a changed key by itself.
    """


@key.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@_OPTIONS
def show(as_json: bool, config: Path | None, **options: Any) -> int:
    """Show the certificate's fingerprint, and whether the key opens.

    The fingerprint is what proves later that recordings are by this recorder: note it somewhere else. The exit code is
    0 if the key opens, 1 if it does not or if there is none yet.
    """
    store = _store(load(config, options), must_exist=False)
    facts = _facts(store) if _exists(store) else {"key": "none yet: it is made when the recorder starts"}
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        for name, value in facts.items():
            click.echo(f"{name.replace('_', ' '):<16}{for_terminal(str(value), 1000)}")
    return ExitCode.OK if facts.get("opens") == "yes" else ExitCode.NO_CALL


@key.command("export-cert")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@_OPTIONS
def export_cert(file: Path | None, config: Path | None, **options: Any) -> int:
    """Write all certificates of this recorder to FILE, or print them.

    That is what somebody else needs to verify recordings: `tapdeck verify --certificate FILE`, or openssl. There is no
    secret in it. They are in PEM form, the newest first, with those by which one key vouches for the next.
    """
    with _explained():
        bundle = _store(load(config, options)).bundle()
    if file is None:
        click.echo(bundle.decode(), nl=False)
        return ExitCode.OK
    try:
        with file.open("xb") as out:
            out.write(bundle)
    except FileExistsError:
        raise CannotUseKey(f"{file} exists, and is not overwritten: name another file") from None
    click.echo(f"{bundle.count(b'BEGIN CERTIFICATE')} certificates in {file}")
    return ExitCode.OK


@key.command()
@_OPTIONS
def rotate(config: Path | None, **options: Any) -> int:
    """Make a new key, which the old one certifies.

    Recordings are sealed with the new one from the next on; those before stay as they are, and the chain goes on. The
    old certificate is kept. Make a new backup afterwards: the old one does not hold the new key.
    """
    store = _store(load(config, options))
    with _explained():
        before, after = store.open(), store.rotate(_now())
    click.echo(f"before  {before.fingerprint}\nnow     {after.fingerprint}")
    click.echo("next: `tapdeck key backup FILE`; note the new fingerprint, and hand out `tapdeck key export-cert`")
    return ExitCode.OK


@key.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_words
@_OPTIONS
def backup(file: Path, words: Path | None, config: Path | None, **options: Any) -> int:
    """Write the key and its certificates to FILE, encrypted with a passphrase of its own.

    It is asked for twice. Keep the file away from this machine, and the passphrase away from the file. The format is
    PKCS#12, which openssl reads as well. An existing file is not overwritten.
    """
    store = _store(load(config, options))
    if file.exists():
        raise CannotUseKey(f"{file} exists, and is not overwritten: name another file")
    passphrase = _passphrase(words, confirm=True)
    with _explained():
        saved = key_backup.backup(store, file, passphrase)
    click.echo(f"the key {saved.fingerprint} is in {file}")
    return ExitCode.OK


@key.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@_words
@_OPTIONS
def restore(file: Path, words: Path | None, config: Path | None, **options: Any) -> int:
    """Bring the key back from a backup.

    Only where there is none, or one that cannot be opened any more: a key that opens is not replaced. Recordings that
    have waited for it are sealed then, with a note that they are late.
    """
    settings = with_present_users(load(config, options))
    layout.prepare(settings)
    store = _store(settings, must_exist=False)
    passphrase = _passphrase(words, confirm=False)
    with _explained():
        restored = key_backup.restore(store, file, passphrase)
    click.echo(f"the key {restored.fingerprint} is back")
    return ExitCode.OK


@key.command()
@click.option("--lost", is_flag=True, help="Confirm that the key is lost: there is no backup of it.")
@_OPTIONS
def replace(lost: bool, config: Path | None, **options: Any) -> int:
    """Start a new key in place of one that is lost.

    For a key that cannot be opened and of which there is no backup. What was sealed with the old one can be verified as
    before, with its certificate; but nothing proves that the new key is by the same recorder, save that the recording
    log says so. Note the new fingerprint with the day and the reason.
    """
    store = _store(load(config, options))
    if not lost:
        raise click.UsageError("without the old key nothing vouches for the new one: say --lost if there is no backup")
    with _explained():
        made = store.replace_lost(_now())
    click.echo(f"now     {made.fingerprint}")
    click.echo("next: `tapdeck key backup FILE`; note the new fingerprint, and hand out `tapdeck key export-cert`")
    return ExitCode.OK


def _store(settings: Settings, must_exist: bool = True) -> KeyStore:
    """Return the folder of the key. Raises NotAllowed where this user may not look into it, and CannotUseKey where
    there is none.
    """
    store = key_store(settings)
    if must_exist and not _exists(store):
        raise CannotUseKey(f"there is no key in {store.folder} yet: it is made when the recorder starts")
    return store


def _exists(store: KeyStore) -> bool:
    try:
        return store.folder.is_dir() and any(path.suffix == ".pem" for path in store.folder.iterdir())
    except PermissionError:
        raise NotAllowed(f"{store.folder}: permission denied: run it as root, or as the user that seals") from None


def _facts(store: KeyStore) -> dict[str, Any]:
    try:
        opened = store.open()
    except KeyLocked as error:
        return {"folder": str(store.folder), "opens": "no", "cause": error.cause, "cure": error.cure}
    return {"folder": str(store.folder), "opens": "yes", **_about(store, opened)}


def _about(store: KeyStore, opened: SigningKey) -> dict[str, Any]:
    certificate = opened.certificate
    return {
        "fingerprint": opened.fingerprint,
        "recorder": certificate.subject.rfc4514_string(),
        "key": f"RSA, {opened.private.key_size} bits, {store.history()}",
        "since": certificate.not_valid_before_utc.astimezone().isoformat(timespec="seconds"),
        "certificates": opened.bundle.count(b"BEGIN CERTIFICATE"),
    }


def _passphrase(file: Path | None, confirm: bool) -> bytes:
    if file is not None:
        return file.read_bytes().rstrip(b"\r\n")
    ask: Callable[..., str] = click.prompt
    return ask("Passphrase of the backup", hide_input=True, confirmation_prompt=confirm, err=True).encode()


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what the folder of the key says into an error for the terminal."""
    try:
        yield
    except (KeyLocked, KeyRefused) as error:
        raise CannotUseKey(str(error)) from None
    except PermissionError as error:
        raise NotAllowed(f"{error.filename}: permission denied: run it as root, or as the user that seals") from None


def _now() -> datetime:
    return datetime.now().astimezone()
