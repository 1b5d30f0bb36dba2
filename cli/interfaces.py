"""`tapdeck interfaces`: which of this machine's interfaces is the mirror port."""

import json

import click

from ..storage.safe_text import for_terminal
from .candidates import Candidate, candidates

_HEADS = ("interface", "kind", "link", "packets/s", "others'", "address", "hint")


@click.command()
@click.option("--seconds", type=click.FloatRange(0.2, 600), default=3, show_default=True, help="How long to listen.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def interfaces(seconds: float, as_json: bool) -> None:
    """List the network interfaces, the likeliest mirror port first.

    With the rights to capture (root, or CAP_NET_RAW) it listens to each: a mirror port shows packets between others.
    Without them it only counts packets.
    """
    found = candidates(seconds)
    if as_json:
        click.echo(json.dumps({"interfaces": [one.as_dict() for one in found]}))
        return
    for line in table(found):
        click.echo(line)


def table(found: list[Candidate]) -> list[str]:
    """Return the interfaces as lines of text."""
    rows = [_HEADS, *map(_row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS) - 1)]
    lines = []
    for row in rows:
        cells = [
            f"{cell:>{width}}" if head in ("packets/s", "others'") else f"{cell:<{width}}"
            for cell, width, head in zip(row[:-1], widths, _HEADS, strict=False)
        ]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return lines


def _row(one: Candidate) -> tuple[str, ...]:
    interface, heard = one.interface, one.traffic
    share = f"{heard.foreign / heard.frames:.0%}" if heard is not None and heard.frames else ""
    addresses = interface.addresses[0] if interface.addresses else ""
    more = f" +{len(interface.addresses) - 1}" if len(interface.addresses) > 1 else ""
    link = "up" if interface.link_up else "no link" if interface.up else "off"
    cells = (interface.name, interface.kind, link, f"{one.rate:,.0f}", share, addresses + more, one.hint)
    return tuple(for_terminal(cell) for cell in cells)
