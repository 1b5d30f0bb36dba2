"""`tapdeck forecast`: how much disk calls will take."""

import json
import os
from pathlib import Path
from typing import Any

import click

from ..sniffer.forecast import CODECS, Codec, Forecast, bytes_per_day, days_until_full, size_text
from ..sniffer.forecast import forecast as reckon
from ..storage import state
from .config import load, with_options
from .exit_codes import ExitCode
from .settings import Settings

WORKING_DAYS, CALENDAR_DAYS = 250.0, 365.0
USUAL_YEARS = (5.0, 7.0)
"""For how long trade and tax laws have papers kept, and MiFID II has recordings."""


class NothingKnown(click.ClickException):
    """There is no real use to reckon from."""

    exit_code = ExitCode.UNREADABLE_INPUT


@click.command()
@click.option(
    "--minutes-per-day", type=click.FloatRange(0), metavar="N", help="Minutes of calls a day, all calls together."
)
@click.option(
    "--codec", type=click.Choice(list(CODECS)), default="g711", show_default=True, help="What most calls speak."
)
@click.option(
    "--days-per-year", type=click.FloatRange(1, 366), help="Days with calls. [default: 250; 365 with --from-status]"
)
@click.option(
    "--years", type=click.FloatRange(0.01, 200), multiple=True, help="For so long; repeatable. [default: 5, 7]"
)
@click.option("--from-status", is_flag=True, help="Reckon from what this box has recorded lately.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; sizes in bytes.")
@with_options()
def forecast(
    minutes_per_day: float | None,
    codec: str,
    days_per_year: float | None,
    years: tuple[float, ...],
    from_status: bool,
    as_json: bool,
    config: Path | None,
    **options: Any,
) -> None:
    """Say how much disk calls will take, and for how long this machine's disk lasts.

    A G.711 call takes 16,000 bytes a second, just under 1 MB a minute, for both parties. Codecs that have to be decoded
    are estimates.
    """
    settings = load(config, options)
    if (minutes_per_day is None) == (not from_status):
        raise click.UsageError("give either --minutes-per-day N or --from-status")
    kept = CODECS[codec]
    if minutes_per_day is not None:
        daily, days = bytes_per_day(minutes_per_day, kept), days_per_year or WORKING_DAYS
    else:
        daily, days = _real_use(settings), days_per_year or CALENDAR_DAYS
    sums = [reckon(daily, days, span) for span in years or USUAL_YEARS]
    facts = _facts(sums, kept if minutes_per_day is not None else None, minutes_per_day, days)
    disk = _disk(settings)
    if disk is not None:
        left = days_until_full(disk[1], daily)
        facts["disk"] = {"folder": disk[0], "free": disk[1], "days_until_full": round(left, 1) if daily else None}
    if as_json:
        click.echo(json.dumps(facts))
        return
    for line in _lines(sums, kept, minutes_per_day, days, disk):
        click.echo(line)


def _real_use(settings: Settings) -> float:
    """Return the bytes a day that the deliver stage has counted. Raises NothingKnown."""
    report = state.read(Path(settings.storage.state), "deliver") or {}
    disk = report.get("disk")
    daily = disk.get("bytes_per_day") if isinstance(disk, dict) else None
    if not isinstance(daily, (int, float)) or daily <= 0:
        raise NothingKnown(
            f"{settings.storage.state}: nothing is known of real use yet: let `tapdeck run` record for some days, or "
            "give --minutes-per-day"
        )
    return float(daily)


def _disk(settings: Settings) -> tuple[str, int] | None:
    """Return the folder of recordings, and what is free on its disk; None where there is no such folder yet."""
    folder = Path(settings.storage.recordings)
    try:
        room = os.statvfs(folder)
    except OSError:
        return None
    return str(folder), room.f_bavail * room.f_frsize


def _facts(sums: list[Forecast], codec: Codec | None, minutes: float | None, days: float) -> dict[str, Any]:
    named = {} if codec is None else {"codec": codec.name, "bytes_per_second": codec.bytes_per_second}
    return {
        "minutes_per_day": minutes,
        **named,
        "estimate": codec is None or not codec.exact,
        "bytes_per_day": round(sums[0].day),
        "days_per_year": days,
        "bytes_per_year": round(sums[0].year),
        "years": {f"{one.years:g}": round(one.total) for one in sums},
    }


def _lines(
    sums: list[Forecast], codec: Codec, minutes: float | None, days: float, disk: tuple[str, int] | None
) -> list[str]:
    if minutes is None:
        head = "as this box has recorded lately"
    else:
        about = "" if codec.exact else " (an estimate)"
        head = (
            f"{minutes:g} minutes of calls a day, {codec.name}: {codec.how}, {codec.bytes_per_second:,} bytes/s{about}"
        )
    rows = [("a day", sums[0].day), (f"a year of {days:g} days", sums[0].year)]
    rows += [(f"{one.years:g} years" if one.years != 1 else "1 year", one.total) for one in sums]
    width = max(len(name) for name, _ in rows)
    lines = [head, *(f"  {name:<{width}}  {size_text(size):>8}" for name, size in rows)]
    if disk is not None:
        left = days_until_full(disk[1], sums[0].day)
        lasts = f"enough for {left:,.0f} such days" if sums[0].day else "nothing is written to it"
        lines.append(f"{disk[0]}: {size_text(disk[1])} free, {lasts}")
    return lines
