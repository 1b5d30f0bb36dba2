"""`tapdeck log`: the recording log of this machine, shown and verified; and deletions, written into it."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..storage import info, ledger_check
from ..storage.chain_check import Findings
from ..storage.keys import KeyLocked
from ..storage.ledger import NAME, Ledger
from ..storage.ledger_check import LogUnreadable
from ..storage.ledger_entry import Entry
from ..storage.parcel import ENDINGS, INFO
from ..storage.safe_text import for_json, for_terminal
from ..storage.trust import BadCertificate
from ..storage.verify import verify_log
from .config import load, with_options
from .exit_codes import ExitCode, Proof
from .privileges import drop_to
from .settings import Settings
from .signing import signing_with
from .users import with_present_users
from .verify import CERTIFICATES

_LEDGER = click.option(
    "--ledger",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The log. [default: ledger.sqlite in storage.state]",
)
_CONFIG = click.option("--config", metavar="FILE", type=click.Path(path_type=Path), help="Configuration file.")
_CODES = {"intact": Proof.INTACT, "altered": Proof.ALTERED, "missing": Proof.ALTERED}


class NotInLog(click.ClickException):
    """There is no such entry."""

    exit_code = ExitCode.NO_CALL


class StillThere(click.ClickException):
    """What is said to be deleted is not."""

    exit_code = ExitCode.CANNOT_WRITE


class CannotRead(click.ClickException):
    """The log cannot be read."""

    exit_code = ExitCode.UNREADABLE_INPUT


@click.group()
def log() -> None:
    """Show and verify the recording log of this machine.

    It holds every recording with hash and signature, refusals, stops, deletions, downtimes, keys, configurations and
    checkpoints. Recordings are named by id and hash alone.
    """


@log.command()
@click.argument("recording", required=False)
@_LEDGER
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="One JSON object an entry.")
def show(recording: str | None, ledger: Path | None, config: Path | None, as_json: bool) -> int:
    """Show the entries of the log, or those of RECORDING with hash and signature.

    RECORDING is an id, or any file of a recording. The hash is that of its _hash.txt, the signature that of its .sig.
    The exit code is 1 if the log does not name it.
    """
    path = ledger or _own(config)
    identity = _identity(recording) if recording else ""
    number = 0
    try:
        for row in ledger_check.read(path, identity):
            number += 1
            for line in [_json(row)] if as_json else _lines(row) if identity else [_line(row)]:
                click.echo(line)
    except LogUnreadable as error:
        raise CannotRead(for_terminal(str(error), 1000)) from None
    if identity and not number:
        raise NotInLog(f"the log does not name {for_terminal(identity)}")
    return ExitCode.OK


@log.command("verify")
@click.argument("archive", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@CERTIFICATES
@_LEDGER
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="One JSON object a finding.")
def verify_(
    archive: Path | None, certificates: tuple[Path, ...], ledger: Path | None, config: Path | None, as_json: bool
) -> int:
    """Verify the log: that no entry was changed, removed or added.

    Its entries are linked by hashes; recordings, deletions, keys and checkpoints are signed; the checkpoints in ARCHIVE
    (by default, the recordings of this machine) hold its hash at the end of each day. `tapdeck verify --against-log`
    compares it with the recordings themselves.

    The exit code is 0 if it is intact, 1 if it was altered, 2 if it cannot be checked.
    """
    path = ledger or _own(config)
    root = archive or (None if ledger else Path(load(config).storage.recordings))
    try:
        findings, verdict = verify_log(path, root, certificates)
    except BadCertificate as error:
        raise click.UsageError(for_terminal(str(error), 1000)) from None
    for line in _findings(findings, as_json):
        click.echo(line)
    findings.close()
    return _CODES.get(verdict, Proof.CANNOT_CHECK)


@log.command()
@click.argument("recording")
@click.option("--reason", required=True, help="Why it was deleted, as an auditor will read it; no number and no name.")
@click.option("--by", required=True, help="Who has decided that: an office or a role.")
@with_options("storage", "signing", "users")
def tombstone(recording: str, reason: str, by: str, config: Path | None, **options: Any) -> int:
    """Write down, signed, that RECORDING (its id) was lawfully deleted.

    Delete its files first, here and wherever they were delivered to: this only writes. From then on the recording is
    not called missing any more, here with `tapdeck verify --against-log`, elsewhere when the checkpoint of the day has
    come. Stop the service meanwhile (`systemctl stop tapdeck`, or the seal stage alone: calls wait): one process at a
    time writes the log. Nothing takes a tombstone back.
    """
    settings = with_present_users(load(config, options))
    users = settings.users
    drop_to(users.seal, [users.group] if users.group else [], "users.seal")
    if not _own_path(settings).is_file():
        raise NotInLog(f"there is no log at {for_terminal(str(_own_path(settings)))}")
    signing = signing_with(settings, _own_path(settings))
    try:
        if any(one.id == recording for one in signing.ledger.of_kind("tombstone")):
            click.echo(f"{for_terminal(recording)}: its deletion was written down before")
            return ExitCode.OK
        digest = _deleted(recording, signing.ledger, Path(settings.storage.recordings))
        signing.ledger.tombstone(recording, digest, reason, by, signing.ready().sign)
    except KeyLocked as error:
        raise CannotRead(str(error)) from None
    finally:
        signing.ledger.close()
    click.echo(f"{recording}: its deletion is written down")
    return ExitCode.OK


def _deleted(identity: str, ledger: Ledger, root: Path) -> str:
    """Return the hash of a recording that was sealed, and is not here any more."""
    entry = ledger.recording(identity)
    if entry is None:
        raise NotInLog(f"the log names no recording {for_terminal(identity)}: give its id, as the info file has it")
    here = next(root.rglob(f"*_{identity}{ENDINGS[-1]}"), None)
    if here is not None:
        raise StillThere(f"{for_terminal(str(here))} is still there: delete the recording first, all of its files")
    return entry.hash


def _own_path(settings: Settings) -> Path:
    return Path(settings.storage.state) / NAME


def _own(config: Path | None) -> Path:
    """Return the log of this machine."""
    path = _own_path(load(config))
    if not path.is_file():
        raise click.UsageError(f"there is no log at {for_terminal(str(path))}: name it with --ledger FILE")
    return path


def _identity(recording: str) -> str:
    """Return the id of a recording that is named by its id, by a file of it, or by what the files' names begin with."""
    path = Path(recording)
    fitting = (path.name.removesuffix(ending) for ending in sorted(ENDINGS, key=len, reverse=True))
    stem = next((one for one in fitting if one != path.name), path.name)
    try:
        with path.with_name(stem + INFO).open("rb") as file:
            said = dict(reversed(info.parse(file.read(info.MAX_SIZE))))
    except (OSError, ValueError, info.InfoError):
        said = {}
    return said.get("RecordingId") or stem.rpartition("_")[2]


def _line(row: Entry) -> str:
    facts = "  ".join(f"{name}={value}" for name, value in row.facts.items())
    return for_terminal(f"{row.seq:<8}  {row.time}  {row.kind:<13} {row.id:<10}  {row.hash[:16]:<16}  {facts}", 1000)


def _lines(row: Entry) -> Iterator[str]:
    facts = _facts(row)
    link = facts.pop("link")
    for name, value in [*facts.items(), *row.facts.items(), ("link", link)]:
        yield f"{name:<10} {for_terminal(str(value), 4000)}"
    yield ""


def _facts(row: Entry) -> dict[str, Any]:
    return {
        "entry": row.seq,
        "time": row.time,
        "kind": row.kind,
        "id": row.id,
        "hash": row.hash,
        "signature": base64.b64encode(row.signature).decode(),
        "link": row.link,
    }


def _json(row: Entry) -> str:
    return json.dumps(for_json(_facts(row) | {"facts": row.facts}), ensure_ascii=False)


def _findings(findings: Findings, as_json: bool) -> Iterator[str]:
    for one in findings.findings(intact=True):
        if as_json:
            facts = {name: getattr(one, name) for name in ("kind", "verdict", "path", "reason")}
            yield json.dumps(for_json(facts), ensure_ascii=False)
        elif one.verdict != "intact" or one.kind == "log":
            words = (one.verdict.upper(), for_terminal(one.path, 1000), for_terminal(one.reason, 2000))
            yield ": ".join(word for word in words if word)
