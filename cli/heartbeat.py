"""`tapdeck heartbeat-check`: for the other side, which hears of a recorder that has fallen silent."""

import json
import re
from pathlib import Path

import click

from ..storage.heartbeat import look, span
from ..storage.safe_text import for_json, for_terminal
from .exit_codes import Health

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(context: click.Context, parameter: click.Parameter, text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text)
    if not found or float(found[1]) <= 0:
        raise click.BadParameter(f"{text!r} is no time like 90s, 10m, 2h or 1d")
    return float(found[1]) * _UNITS[found[2]]


@click.command("heartbeat-check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--max-age",
    default="10m",
    show_default=True,
    callback=_seconds,
    help="How old a sign of life may be: 90s, 10m, 2h, 1d.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def heartbeat_check(file: Path, max_age: float, as_json: bool) -> int:
    """Say whether the sign of life in FILE (heartbeat.file of a recorder) is fresh.

    For cron, Nagios and their kin, on any machine that sees the file: the exit code is 0 if it is, and 2 if it is too
    old, missing, or none. Nothing of a recorder has to be installed there but Tapdeck itself.
    """
    found = look(file, max_age)
    content = dict(found.content or {})
    if as_json:
        age = None if found.age_s is None else round(found.age_s, 1)
        report = {"fresh": not found.problem, "problem": found.problem or None, "age_s": age, "sign_of_life": content}
        click.echo(json.dumps(for_json(report), ensure_ascii=False))
    elif found.problem:
        click.echo(f"CRITICAL: {for_terminal(str(file))}: {for_terminal(found.problem)}")
    else:
        alarms = content.get("alarms")
        raised = f", {', '.join(map(str, alarms))}" if isinstance(alarms, list) and alarms else ""
        name = for_terminal(f"{content.get('instance')}: {content.get('state')}{raised}", 500)
        click.echo(f"OK: {name}; last sign of life {span(found.age_s or 0)} ago")
    return Health.RED if found.problem else Health.GREEN
