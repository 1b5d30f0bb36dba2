"""`tapdeck report coverage`: known extensions that were never seen on the wire."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import click

from ..sniffer.direction import Own
from ..storage import state
from ..storage.safe_text import for_json, for_terminal
from .config import load, with_options
from .exit_codes import Health
from .settings import ConfigError, Settings

MAX_NUMBERS = 10
"""Numbers named for one pattern."""
MAX_KEPT = 10_000
"""Numbers remembered for one pattern."""


@click.group()
def report() -> None:
    """Reports over what was recorded."""


@dataclass(slots=True)
class Extension:
    """An extension, or a pattern of them: the calls that it was seen in, when last, and as which numbers."""

    pattern: str
    calls: int = 0
    last: str = ""
    numbers: dict[str, None] | None = None

    def note(self, number: str, time: str) -> None:
        """It was a party of a call."""
        self.calls += 1
        self.last = max(self.last, time)
        self.numbers = self.numbers or {}
        if len(self.numbers) < MAX_KEPT:
            self.numbers[number] = None


@dataclass(frozen=True, slots=True)
class Parties:
    """The numbers of a call's parties, and when it began (ISO 8601)."""

    caller: str
    callee: str
    started: str


@report.command()
@click.option(
    "--since", type=click.DateTime(["%Y-%m-%d"]), help="Only calls from this day on. [default: all that are logged]"
)
@click.option(
    "--capture", "captures", multiple=True, metavar="FILE", help="Calls of a capture file in place of the log."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@with_options("own", "sip")
def coverage(
    since: datetime | None, captures: tuple[str, ...], as_json: bool, config: Path | None, **options: Any
) -> int:
    """List known extensions (own.extensions) that were never seen on the wire.

    What nobody calls is never seen, nor what speaks where the mirror does not look (home offices, mobile clients,
    telephones at another site). The exit code is 0 if all were seen, 1 if some were not.
    """
    settings = load(config, options)
    if not settings.own.extensions:
        raise ConfigError(
            "own.extensions: name the extensions that should be heard, as in extensions = ['2001', '21??']"
        )
    calls = _of_captures(captures, settings) if captures else _logged(Path(settings.storage.state), since)
    found, total = covered(settings.own.extensions, settings.own.country_code, calls)
    _print(found, total, as_json)
    return Health.GREEN if all(one.calls for one in found) else Health.AMBER


def covered(patterns: Iterable[str], country_code: str, calls: Iterable[Parties]) -> tuple[list[Extension], int]:
    """Return what was seen of each extension or pattern, and how many calls there were."""
    found = [Extension(pattern) for pattern in dict.fromkeys(patterns)]
    owners = [(one, Own(numbers=(one.pattern,), country_code=country_code)) for one in found]
    total = 0
    for call in calls:
        total += 1
        for extension, own in owners:
            numbers = [number for number in dict.fromkeys((call.caller, call.callee)) if own.number(number)]
            for number in numbers[:1]:
                extension.note(number, call.started)
            if numbers[1:] and extension.numbers is not None:  # both parties of one call are of the pattern
                extension.numbers[numbers[1]] = None
    return found, total


def _logged(folder: Path, since: datetime | None) -> Iterator[Parties]:
    """Yield the calls of the event log."""
    start = since.astimezone() if since is not None else None
    for event in state.events(folder, start):
        if event.get("event") == "call":
            yield Parties(*(str(event.get(key) or "") for key in ("caller", "callee", "started")))


def _of_captures(names: tuple[str, ...], settings: Settings) -> Iterator[Parties]:
    """Yield the calls of capture files."""
    from ..sniffer.sources.payloads import Payloads, RowParking
    from .record import Captures, build_engine

    with tempfile.TemporaryDirectory(prefix="tapdeck-") as scratch:
        payloads = Payloads(Path(scratch))
        captures = Captures(names, payloads)
        engine = build_engine(settings, payloads, RowParking(Path(scratch)))
        zone = settings.zone().on(captures.steps.wall)
        ended = (one for block in captures.blocks(engine) for one in engine.feed(block))
        for every in (ended, engine.finish()):
            for one in every:
                call = one.call
                yield Parties(
                    call.caller.number, call.callee.number, zone.local(call.started).isoformat(timespec="seconds")
                )


def _print(found: list[Extension], total: int, as_json: bool) -> None:
    missing = [one for one in found if not one.calls]
    if as_json:
        extensions = [
            {"extension": one.pattern, "calls": one.calls, "last": one.last or None, "numbers": list(one.numbers or ())}
            for one in found
        ]
        never = [one.pattern for one in missing]
        click.echo(
            json.dumps(for_json({"calls": total, "never_seen": never, "extensions": extensions}), ensure_ascii=False)
        )
        return
    click.echo(f"{total:,} calls; {len(found) - len(missing):,} of {len(found):,} known extensions seen")
    width = max(len(one.pattern) for one in found)
    for one in found:
        numbers = list(one.numbers or ())
        more = f" and {len(numbers) - MAX_NUMBERS:,} more" if len(numbers) > MAX_NUMBERS else ""
        as_what = f"  as {', '.join(numbers[:MAX_NUMBERS])}{more}" if numbers and numbers != [one.pattern] else ""
        seen = f"{one.calls:,} calls, last {_day(one.last)}{as_what}" if one.calls else "NEVER SEEN"
        click.echo(f"  {for_terminal(one.pattern):<{width}}  {for_terminal(seen)}")
    if missing:
        click.echo(
            "Never seen: not used, not mirrored (another switch, site or VLAN), or in a home office or on a mobile."
        )


def _day(time: str) -> str:
    try:
        return str(date.fromisoformat(time[:10]))
    except ValueError:
        return "unknown"
