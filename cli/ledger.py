"""`tapdeck log`: the recording log of this machine, shown and verified. It is only read."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..storage import info, ledger_check
from ..storage.chain_check import Findings
from ..storage.ledger_check import LogUnreadable, Row
from ..storage.parcel import ENDINGS, INFO
from ..storage.safe_text import for_json, for_terminal
from ..storage.trust import BadCertificate
from ..storage.verify import verify_log
from .config import load
from .exit_codes import ExitCode, Proof

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
@click.option(
    "--certificate",
    "certificates",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trust this certificate, and what it certifies, only; may be repeated. [default: those in ARCHIVE]",
)
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


def _own(config: Path | None) -> Path:
    """Return the log of this machine."""
    path = Path(load(config).storage.state) / "ledger.sqlite"
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


def _line(row: Row) -> str:
    facts = "  ".join(f"{name}={value}" for name, value in row.facts.items())
    return for_terminal(f"{row.seq:<8}  {row.time}  {row.kind:<13} {row.id:<10}  {row.hash[:16]:<16}  {facts}", 1000)


def _lines(row: Row) -> Iterator[str]:
    facts = _facts(row)
    link = facts.pop("link")
    for name, value in [*facts.items(), *row.facts.items(), ("link", link)]:
        yield f"{name:<10} {for_terminal(str(value), 4000)}"
    yield ""


def _facts(row: Row) -> dict[str, Any]:
    return {
        "entry": row.seq,
        "time": row.time,
        "kind": row.kind,
        "id": row.id,
        "hash": row.hash,
        "signature": base64.b64encode(row.signature).decode(),
        "link": row.link,
    }


def _json(row: Row) -> str:
    return json.dumps(for_json(_facts(row) | {"facts": row.facts}), ensure_ascii=False)


def _findings(findings: Findings, as_json: bool) -> Iterator[str]:
    for one in findings.findings(intact=True):
        if as_json:
            facts = {name: getattr(one, name) for name in ("kind", "verdict", "path", "reason")}
            yield json.dumps(for_json(facts), ensure_ascii=False)
        elif one.verdict != "intact" or one.kind == "log":
            words = (one.verdict.upper(), for_terminal(one.path, 1000), for_terminal(one.reason, 2000))
            yield ": ".join(word for word in words if word)
