"""`tapdeck config`: what is set, where it came from, and what is left open."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..storage.safe_text import for_terminal
from .config import load, with_options
from .settings import SECTIONS, Settings, Value, all_settings
from .target_advice import secrets_of, warnings
from .target_settings import TargetSettings, target_keys


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
        targets = [_target_as_dict(target, settings) for target in settings.targets]
        shown = {"source": settings.source, **as_dict(settings), "targets": targets}
        click.echo(json.dumps(shown, ensure_ascii=False))
        return
    click.echo(f"# read from: {settings.source or 'no file'}")
    click.echo(as_toml(settings))
    for target in settings.targets:
        click.echo("")
        for line in target_as_toml(target, whole=True):
            click.echo(line)
        for what, (source, trouble) in secrets_of(target, settings, os.environ).items():
            click.echo(f"# {what}: {_secret_text(source, trouble)}")


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
    for target in settings.targets:
        click.echo(f"target: {target.name}: {target.kind} {target.place}{'' if target.enabled else ', disabled'}")
        for what, (source, trouble) in secrets_of(target, settings, os.environ).items():
            if not trouble:
                click.echo(f"target: {target.name}: {what}: {_secret_text(source, trouble)}")
    for text in warnings(settings, os.environ):
        click.echo(f"warning: {for_terminal(text, 1000)}")
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


def target_as_toml(target: TargetSettings, whole: bool = False) -> Iterator[str]:
    """Yield the lines of a target's table: what differs from its default, or the `whole` of what its kind has."""
    yield "[[targets]]"
    for key in target_keys():
        value = getattr(target, key.name)
        if target.kind in key.kinds and (whole or value != key.default):
            yield f"{key.name} = {toml_value(value)}"


def as_dict(settings: Settings) -> dict[str, dict[str, Value]]:
    """Return the settings as section -> key -> value."""
    result: dict[str, dict[str, Value]] = {section: {} for section in SECTIONS}
    for setting in all_settings():
        result[setting.section][setting.key] = setting.of(settings)
    return result


def _target_as_dict(target: TargetSettings, settings: Settings) -> dict[str, Any]:
    secrets = secrets_of(target, settings, os.environ)
    shown = {key.name: getattr(target, key.name) for key in target_keys() if target.kind in key.kinds}
    return shown | {
        "secrets": {
            what: {"source": source, "there": bool(source) and not trouble, "trouble": trouble}
            for what, (source, trouble) in secrets.items()
        }
    }


def _secret_text(source: str, trouble: str) -> str:
    if trouble:
        return for_terminal(trouble, 1000)
    return f"from {for_terminal(source, 1000)}, which is there" if source else "none, and none is needed"


def toml_value(value: Value) -> str:
    """Return a value as TOML writes it: JSON's strings, numbers, booleans and lists are TOML's."""
    return json.dumps(value, ensure_ascii=False)
