"""How the doctor shows what it finds: a live table on a terminal, plain lines in a pipe, JSON for scripts.

All text from the wire is made safe here.
"""

import json
import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..sniffer.checkup import Picture
from ..sniffer.finding import Colour, Finding, worst
from ..storage.safe_text import for_json, for_terminal
from .exit_codes import Health

if TYPE_CHECKING:
    from rich.table import Table

TITLES = {
    "traffic": "any traffic",
    "mirror": "a mirror",
    "sip": "SIP seen",
    "rtp": "RTP seen",
    "sip-both-ways": "SIP both ways",
    "sound-both-ways": "sound both ways",
    "signalling": "signalling of all sound",
    "encryption": "encryption",
    "copies": "packets once",
    "loss": "losses before this box",
    "truncated": "packets whole",
    "merged": "packets not joined",
    "wrapping": "tags and tunnels",
    "link": "link",
    "offloads": "card's offloads",
    "ring": "drops in this box",
    "virtual-card": "virtual machine",
    "promiscuous": "promiscuous",
    "separate-card": "a card of its own",
    "clock": "clock",
    "disk-speed": "disk speed",
    "disk-space": "disk space",
    "capture": "capture file",
}
"""What each check is called for people; those not here by their name."""
_STYLES = {Colour.GREEN: "green", Colour.AMBER: "yellow", Colour.RED: "bold red", Colour.OPEN: "dim"}
_MARKS: dict[Colour, dict[str, Any]] = {
    Colour.GREEN: {"fg": "green"},
    Colour.AMBER: {"fg": "yellow"},
    Colour.RED: {"fg": "red", "bold": True},
    Colour.OPEN: {"dim": True},
}
_EXITS = {Colour.OPEN: Health.GREEN, Colour.GREEN: Health.GREEN, Colour.AMBER: Health.AMBER, Colour.RED: Health.RED}
_WIDTH = 120
_MAX_TEXT = 800


def title(finding: Finding) -> str:
    """Return a check's name for people."""
    return TITLES.get(finding.check, finding.check.replace("-", " "))


def exit_code(findings: Sequence[Finding]) -> Health:
    """Return what the shell gets."""
    return _EXITS[worst(findings)]


class LivePicture:
    """A table that changes while the watch goes on; the checks turn colour in it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(), auto_refresh=False, transient=True)
        self._live.start()

    def show(self, head: str, picture: Picture, rate: float, findings: Sequence[Finding]) -> None:
        """Show how things stand."""
        from rich.console import Group
        from rich.text import Text

        line = Text(f"{head}   {_counts(picture, rate)}", style="bold", no_wrap=True, overflow="ellipsis")
        self._live.update(Group(line, _rich_table(findings)), refresh=True)

    def close(self) -> None:
        """Take the picture away: the report follows."""
        self._live.stop()


class PlainLines:
    """A line whenever a check turns colour: for pipes and log files."""

    def __init__(self) -> None:
        self._colours: dict[str, Colour] = {}

    def show(self, head: str, picture: Picture, rate: float, findings: Sequence[Finding]) -> None:
        """Print what has changed."""
        for one in findings:
            if self._colours.get(one.check, Colour.OPEN) is not one.colour:
                click.echo(f"{head}  {one.colour.value:<5}  {title(one)}: {for_terminal(one.seen, _MAX_TEXT)}")
            self._colours[one.check] = one.colour

    def close(self) -> None:
        """Part the lines from the report that follows."""
        click.echo()


class Silence:
    """Shows nothing, for JSON."""

    def show(self, head: str, picture: Picture, rate: float, findings: Sequence[Finding]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def print_report(findings: Sequence[Finding], verdict: str, notes: Sequence[str] = (), colourful: bool = False) -> None:
    """Print all checks, what is to be done, and the verdict. Lines are wrapped for a terminal only."""
    for note in notes:
        click.echo(for_terminal(note, _MAX_TEXT))
    width = min(shutil.get_terminal_size((_WIDTH, 24)).columns, _WIDTH) if colourful else 2 * _MAX_TEXT
    room = max((len(title(one)) for one in findings), default=0)
    for one in findings:
        mark = click.style(f"{one.colour.value:<5}", **_MARKS[one.colour]) if colourful else f"{one.colour.value:<5}"
        lines = textwrap.wrap(for_terminal(one.seen, _MAX_TEXT), max(width - room - 9, 30)) or [""]
        click.echo(f"{mark}  {title(one):<{room}}  {lines[0]}")
        for line in lines[1:]:
            click.echo(" " * (room + 9) + line)
        indent = " " * 7 + "> "
        todo = textwrap.wrap(for_terminal(one.todo, _MAX_TEXT), max(width - 9, 30), break_on_hyphens=False)
        for number, line in enumerate(todo):
            click.echo((indent if number == 0 else " " * 9) + line)
    click.echo()
    click.echo(f"Verdict: {verdict}")


def print_json(findings: Sequence[Finding], verdict: str, facts: dict[str, Any]) -> None:
    """Print one JSON object: the verdict's colour and words, each check, and figures."""
    checks = [{"check": one.check, "colour": one.colour.value, "seen": one.seen, "todo": one.todo} for one in findings]
    colour = worst(findings)
    shown = Colour.GREEN if colour is Colour.OPEN else colour
    report = {"colour": shown.value, "verdict": verdict, "checks": checks, **facts}
    click.echo(json.dumps(for_json(report), ensure_ascii=False))


def verdict_of(findings: Sequence[Finding], good: str) -> str:
    """Return the last line: all is `good`, or what is not."""
    colour = worst(findings)
    if colour in (Colour.GREEN, Colour.OPEN):
        return f"green. {good}"
    red = ", ".join(title(one) for one in findings if one.colour is Colour.RED)
    amber = ", ".join(title(one) for one in findings if one.colour is Colour.AMBER)
    if colour is Colour.RED:
        return f"red. Not ready: {red}" + (f"; look also at: {amber}" if amber else "")
    return f"amber. Usable, but look at: {amber}"


def _counts(picture: Picture, rate: float) -> str:
    calls = f"{picture.open_calls:,} calls now, {picture.calls:,} seen"
    return f"{rate:,.0f} packets/s   {calls}   {picture.streams:,} streams"


def _rich_table(findings: Sequence[Finding]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for one in findings:
        mark = "…" if one.colour is Colour.OPEN else "●"
        style = _STYLES[one.colour]
        table.add_row(Text(mark, style=style), Text(title(one)), Text(for_terminal(one.seen, _MAX_TEXT), style=style))
    return table
