"""`tapdeck config`: what is set, where it came from, and what is left open."""

import json
from pathlib import Path
from typing import Any

import click

from .config import load, with_options
from .settings import SECTIONS, Settings, Value, all_settings


@click.group()
def config() -> None:
    """Show or check the configuration."""


@config.command()
@with_options(*SECTIONS)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def show(config: Path | None, as_json: bool, **options: Any) -> None:
    """Print the settings in effect, as a configuration file."""
    settings = load(config, options)
    if as_json:
        click.echo(json.dumps({"source": settings.source, **as_dict(settings)}, ensure_ascii=False))
        return
    click.echo(f"# read from: {settings.source or 'no file'}")
    click.echo(as_toml(settings))


@config.command()
@with_options(*SECTIONS)
def check(config: Path | None, **options: Any) -> None:
    """Check the configuration, and say what it decides and what it leaves open."""
    settings = load(config, options)
    click.echo(f"read from: {settings.source or 'no file'}")
    for setting in all_settings():
        value = setting.of(settings)
        if value != setting.default:
            click.echo(f"set: {setting.name} = {toml_value(value)}")
    for setting in all_settings():
        if setting.of(settings) in ("", ()):
            click.echo(f"open: {setting.name} ({setting.help})")
    click.echo("the configuration is good")


def as_toml(settings: Settings) -> str:
    """Return the settings as a configuration file that sets them all."""
    lines: list[str] = []
    for setting in all_settings():
        if f"[{setting.section}]" not in lines:
            lines += ["", f"[{setting.section}]"]
        lines.append(f"# {setting.help}")
        lines.append(f"{setting.key} = {toml_value(setting.of(settings))}")
    return "\n".join(lines[1:])


def as_dict(settings: Settings) -> dict[str, dict[str, Value]]:
    """Return the settings as section -> key -> value."""
    result: dict[str, dict[str, Value]] = {section: {} for section in SECTIONS}
    for setting in all_settings():
        result[setting.section][setting.key] = setting.of(settings)
    return result


def toml_value(value: Value) -> str:
    """Return a value as TOML writes it: JSON's strings, numbers, booleans and lists are TOML's."""
    return json.dumps(value, ensure_ascii=False)
