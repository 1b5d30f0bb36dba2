"""`tapdeck setup`: a few questions, and a configuration file; unattended with `--answers`."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click

from ..storage.safe_text import for_terminal
from .candidates import Candidate, candidates
from .config import load
from .config_file import as_file, write
from .exit_codes import ExitCode
from .interfaces import table
from .settings import ConfigError, Settings, Value, all_settings, check

LISTEN_S = 3.0
SYSTEM_FILE, USER_FILE = Path("/etc/tapdeck/tapdeck.toml"), Path("tapdeck.toml")


class Refused(click.ClickException):
    """A file that must not be overwritten."""

    exit_code = ExitCode.CANNOT_WRITE


@dataclass(frozen=True, slots=True)
class Question:
    """One question: the setting it sets, what is asked, an example for those who wonder; whether a folder is wanted."""

    section: str
    key: str
    ask: str
    example: str = ""
    folder: bool = False

    @property
    def name(self) -> str:
        """As in messages: `own.numbers`."""
        return f"{self.section}.{self.key}"


QUESTIONS = (
    Question(
        "own",
        "numbers",
        "Own numbers, with * and ? for other digits, to tell incoming from outgoing",
        "+3120123*, 2???",
    ),
    Question("own", "country_code", "Own country code, to compare 020... with +3120...", "31"),
    Question("own", "networks", "Own networks, for calls without own numbers", "192.168.0.0/16"),
    Question("storage", "recordings", "Folder for recordings", folder=True),
    Question(
        "deliver", "folder", "Folder that gets a copy of each recording, on a mounted share, say", "/mnt/archive", True
    ),
)
"""What has no default that is right for everybody; all else has one, and can be changed in the file."""


@click.command()
@click.option(
    "--answers",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Answers from a file, in the form of tapdeck.toml; asks nothing.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"File to write. [default: {SYSTEM_FILE} for root, else ./{USER_FILE}]",
)
@click.option("--force", is_flag=True, help="Replace an existing file; it is kept as NAME.bak.")
@click.option(
    "--seconds", type=click.FloatRange(0.2, 600), default=LISTEN_S, help="How long to listen to the interfaces."
)
def setup(answers: Path | None, output: Path | None, force: bool, seconds: float) -> None:
    """Ask the few questions that have no good default, and write tapdeck.toml.

    With --answers nothing is asked: what the file leaves out takes its default, an unknown key is refused. Without an
    interface in it, the one on which calls between others are heard is taken.
    """
    output = output or (SYSTEM_FILE if os.geteuid() == 0 else USER_FILE)
    if answers is None:
        _refuse(output, force)
    settings = _answered(answers, seconds) if answers is not None else _asked(seconds)
    check(settings)
    text = as_file(settings, {"capture.interfaces", *(one.name for one in QUESTIONS)})
    if output.exists() and output.read_text(encoding="utf-8", errors="replace") == text:
        click.echo(f"{output}: is so already")
    else:
        _refuse(output, force)
        kept = write(output, text, settings.users.group)
        click.echo(f"{output}: written" + (f"; the one before is kept as {kept}" if kept else ""))
    _next(output, settings)


def _refuse(output: Path, force: bool) -> None:
    if output.exists() and not force:
        raise Refused(f"{output}: is there already: edit it, or have it replaced with --force (it is kept as .bak)")


# -- unattended --------------------------------------------------------------------------------------------------------


def _answered(path: Path, seconds: float) -> Settings:
    """Return the settings of a file of answers, and the interface if it has none. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file of answers")
    settings = replace(load(path, environ={}), source="")
    if settings.capture.interfaces:
        return settings
    found = candidates(seconds)
    likely = [one.name for one in found if one.likely]
    if len(likely) != 1:
        heard = (
            f"several show packets between others: {', '.join(likely)}"
            if likely
            else "none shows packets between others"
        )
        raise ConfigError(f'{path}: capture.interfaces is missing, and {heard}: name it, as in interfaces = ["eth1"]')
    return replace(settings, capture=replace(settings.capture, interfaces=tuple(likely)))


# -- questions ---------------------------------------------------------------------------------------------------------


def _asked(seconds: float) -> Settings:
    """Ask, each question until its answer is good."""
    if sys.stdin.isatty():
        click.echo("Enter takes what stands in [brackets]; Ctrl-C ends without writing anything.")
    settings = _ask_interface(Settings(), seconds)
    for question in QUESTIONS:
        settings = _ask(settings, question)
    return settings


def _ask_interface(settings: Settings, seconds: float) -> Settings:
    click.echo(f"Listening to all interfaces for {seconds:g} s ...")
    found = candidates(seconds)
    for line in table(found):
        click.echo(f"  {line}")
    names = [one.name for one in found]
    best = found[0].name if found and _may_be(found[0]) else None

    def parse(answer: str) -> Value:
        chosen = _split(answer)
        unknown = [name for name in chosen if name not in names]
        if unknown or not chosen:
            raise ConfigError(f"{', '.join(unknown) or 'none'}: name one of {', '.join(names)}; two for a tap")
        return chosen

    return _until_good(settings, "capture", "interfaces", "Interface of the mirror port", best, parse)


def _may_be(one: Candidate) -> bool:
    return one.interface.up and not one.interface.default_route


def _ask(settings: Settings, question: Question) -> Settings:
    default = next(one.default for one in all_settings() if one.name == question.name)
    shown = ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    text = question.ask + (f", as in {question.example}" if question.example else "")
    parse: Callable[[str], Value] = _split if isinstance(default, tuple) else _folder if question.folder else str.strip
    return _until_good(settings, question.section, question.key, text, shown, parse)


def _until_good(
    settings: Settings, section: str, key: str, text: str, default: str | None, parse: Callable[[str], Value]
) -> Settings:
    """Ask until the answer passes the checks that a configuration file has to pass. No default: it must be answered."""
    shown = "" if default is None else f" [{default or 'none'}]"
    while True:
        answer = click.prompt(text + shown, default=default, show_default=False)
        answer = "" if answer.strip().lower() == "none" else answer
        try:
            changed = replace(settings, **{section: replace(getattr(settings, section), **{key: parse(answer)})})
            check(changed)
        except ConfigError as error:
            click.echo(f"  {for_terminal(str(error), 300)}")
            continue
        return changed


def _folder(answer: str) -> Value:
    if answer.strip() and not answer.strip().startswith("/"):
        raise ConfigError(f"{answer.strip()}: services need a path that begins with /")
    return answer.strip()


def _split(answer: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in answer.split(",") if part.strip())


def _next(output: Path, settings: Settings) -> None:
    """Say what to do now."""
    config = "" if output.absolute() in (SYSTEM_FILE, USER_FILE.absolute()) else f" --config {output}"
    click.echo("Next, as root:")
    for command, why in (
        ("doctor", "is this port a mirror that shows all calls?"),
        ("install", "users, folders and services"),
        ("run", "record from this terminal; for good: systemctl enable --now tapdeck"),
    ):
        click.echo(f"  tapdeck {command}{config}  # {why}")
