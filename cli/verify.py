"""`tapdeck verify`: prove that recordings are as they were sealed, and that none is missing."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..storage.chain_check import Finding
from ..storage.safe_text import for_json, for_terminal
from ..storage.trust import BadCertificate, certified
from ..storage.verify import NothingThere, Report
from ..storage.verify import verify as verified
from .config import load
from .exit_codes import Proof
from .progress import ProgressBar

_CODES = {
    "intact": Proof.INTACT,
    "altered": Proof.ALTERED,
    "missing": Proof.ALTERED,
    "cannot be checked": Proof.CANNOT_CHECK,
}
_COLOURS = {"altered": "red", "missing": "red", "cannot be checked": "yellow", "intact": "green"}

CERTIFICATES = click.option(
    "--certificate",
    "certificates",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trust this certificate, and what it certifies, only; may be repeated. [default: those beside the recordings]",
)
"""Whose signatures count."""


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...", type=click.Path(path_type=Path))
@CERTIFICATES
@click.option("--against-log", is_flag=True, help="Compare with the recorder's log as well: give the whole archive.")
@click.option(
    "--ledger",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The log, for --against-log. [default: ledger.sqlite in storage.state]",
)
@click.option(
    "--config", metavar="FILE", type=click.Path(path_type=Path), help="Configuration file, for --against-log."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a recording, and the sum at the end.")
def verify(
    paths: tuple[Path, ...],
    certificates: tuple[Path, ...],
    against_log: bool,
    ledger: Path | None,
    config: Path | None,
    as_json: bool,
) -> int:
    """Prove that recordings are as they were sealed, and that none is missing.

    PATH is a file of a recording, a folder with all that is below it, a disc, an archive. Nothing is needed but the
    recordings and the recorder's certificate; nothing is written. With --against-log, PATH may be left out: the
    recordings of this machine are meant.

    The exit code is 0 if all are intact, 1 if one is altered or missing, 2 if one cannot be checked.
    """
    if against_log or ledger is not None:
        paths, ledger = _of_this_machine(paths, ledger, config)
    if not paths:
        raise click.UsageError("Missing argument 'PATH...'.")
    for path in paths:
        if not path.exists() and not path.parent.is_dir():
            raise click.BadParameter(f"{for_terminal(str(path))} does not exist", param_hint="PATH")
    with ProgressBar(None) as bar:
        report = _run(paths, certificates, ledger, bar)
    try:
        for line in _as_json(report) if as_json else _as_text(report):
            click.echo(line)
        return _CODES[report.worst]
    finally:
        report.findings.close()


def _of_this_machine(
    paths: tuple[Path, ...], ledger: Path | None, config: Path | None
) -> tuple[tuple[Path, ...], Path]:
    """Fill in from the settings what was not given."""
    if paths and ledger is not None:
        return paths, ledger  # no configuration is needed then, nor need there be a good one
    storage = load(config).storage
    ledger = ledger or Path(storage.state) / "ledger.sqlite"
    if not ledger.is_file():
        raise click.UsageError(f"there is no log at {for_terminal(str(ledger))}: name it with --ledger FILE")
    return paths or (Path(storage.recordings),), ledger


def _run(paths: tuple[Path, ...], certificates: tuple[Path, ...], ledger: Path | None, bar: ProgressBar) -> Report:
    def progress(done: int, total: int, recordings: int) -> None:
        bar.show(done, f"{recordings:,} recordings", total)

    try:
        return verified(paths, certificates, ledger, progress)
    except (BadCertificate, NothingThere) as error:
        raise click.UsageError(for_terminal(str(error), 1000)) from None


def _as_text(report: Report) -> Iterator[str]:
    """Yield a line for all that is not intact, the table, and whose keys were believed."""
    for finding in report.each():
        yield _line(finding)
    counts = report.counts
    yield ""
    for verdict, number in counts.items():
        text = f"{number:>9,}  {verdict}"
        yield click.style(text, fg=_COLOURS[verdict]) if number else text
    yield f"{sum(counts.values()):>9,}  recordings, {report.findings.size():,} bytes"
    if report.findings.copies:
        yield f"{report.findings.copies:>9,}  of these are copies of others"
    yield from _days(report)
    if report.findings.begins:
        yield f"           the chain begins with {for_terminal(report.findings.begins, 1000)}"
    for day, number in _elsewhere(report).items():
        yield f"{number:>9,}  of {for_terminal(day)} are named and lie in the folder of that day, which was not given"
    yield ""
    follow = certified(report.certificates.values())
    counted: set[str] = set()
    for one in report.certificates.values():
        signed = "the same key" if one.key in counted else f"{report.keys.get(one.key, 0):,} signed"
        counted.add(one.key)
        by = "certified by another key here" if one.key in follow else "no other key here certifies it"
        yield f"certificate {one.fingerprint}  {for_terminal(one.subject)}: {signed}; {by}"
    if report.certificates:
        yield "Compare these fingerprints (SHA-256) with those that were noted when the recorder was installed: what a"
        yield "key has signed that no other one certifies is proved by nothing else."


def _days(report: Report) -> Iterator[str]:
    """Yield how many days are closed, and what of it an authority has seen."""
    if report.days:
        days = [one.day for one in report.days]
        yield f"{len(days):>9,}  checkpoints of days, {min(days)} to {max(days)}"
    stamped = [(one.stamp, one.day) for one in report.days if one.stamp is not None]
    if stamped:
        time, day = max(stamped)
        yield f"{len(stamped):>9,}  of these are time-stamped, that of {day} at {time:%Y-%m-%d %H:%M:%S} UTC"
        yield "           (whose they are is not checked here: `openssl ts -verify`, see docs/compliance.md)"


def _elsewhere(report: Report) -> dict[str, int]:
    """Return of how many recordings it is known only that they lie in the folder of another day."""
    return dict(sorted(Counter(report.findings.elsewhere.values()).items()))


def _line(finding: Finding) -> str:
    what = finding.path or finding.id
    word = click.style(finding.verdict.upper(), fg=_COLOURS[finding.verdict])
    return ": ".join(part for part in (word, for_terminal(what, 1000), for_terminal(finding.reason, 2000)) if part)


def _as_json(report: Report) -> Iterator[str]:
    for one in report.each(intact=True):
        names = ("kind", "verdict", "path", "id", "file", "reason")
        yield _json({name: getattr(one, name) for name in names})
    follow = certified(report.certificates.values())
    certificates = [
        {
            "fingerprint": one.fingerprint,
            "subject": one.subject,
            "signed": report.keys.get(one.key, 0),
            "certified": one.key in follow,
        }
        for one in report.certificates.values()
    ]
    summary = {
        "recordings": report.counts,
        "copies": report.findings.copies,
        "checkpoints": {one.day: one.stamp.isoformat(timespec="seconds") if one.stamp else None for one in report.days},
        "begins": report.findings.begins,
        "elsewhere": _elsewhere(report),
        "bytes": report.findings.size(),
        "certificates": certificates,
        "verdict": report.worst,
        "exit_code": int(_CODES[report.worst]),
    }
    yield _json({"summary": summary})


def _json(value: dict[str, Any]) -> str:
    return json.dumps(for_json(value), ensure_ascii=False)
