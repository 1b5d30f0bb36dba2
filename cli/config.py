"""Reading the settings: defaults, then `tapdeck.toml`, then TAPDECK_* variables, then the command line; the last one
wins.

pydantic-settings validates the file and the variables. It costs a third of a second to import, so that happens only
when there is a file or a variable.
"""

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from .nearest import nearest
from .secret_places import VARIABLES as SECRETS
from .settings import SECTIONS, ConfigError, Setting, Settings, all_settings, check
from .target_settings import TargetSettings

PLACES = (Path("tapdeck.toml"), Path("/etc/tapdeck/tapdeck.toml"))
"""Where a configuration file is looked for, when neither --config nor TAPDECK_CONFIG names one."""

_PREFIX = "TAPDECK_"
_FILE_VARIABLE = "TAPDECK_CONFIG"
_TARGETS = "targets"
_MAX_FILE = 1 << 20

Command = TypeVar("Command", bound=Callable[..., Any])


def load(
    path: Path | None = None,
    options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings in effect, checked.

    `options` are what `with_options` gave to the command: `section__key` -> value, None where the option was not
    used. Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    file = _find_file(path, environ)
    content = _read_file(file) if file else {}
    tables = content.pop(_TARGETS, None)
    variables = _variables(environ)
    settings = Settings()
    if content or variables:
        from .config_model import validate  # the slow import

        settings = validate(content, variables, str(file) if file else "")
    targets: tuple[TargetSettings, ...] = ()
    if tables is not None:
        from .target_tables import read_targets

        targets = read_targets(tables, str(file))
    settings = replace(settings, targets=targets, source=str(file) if file else "")
    settings = _overlaid(settings, options or {})
    check(settings)
    return settings


def with_options(*sections: str) -> Callable[[Command], Command]:
    """Give a click command `--config` and an option for every setting of these sections; pass them on to `load`."""
    text = "Configuration file; else TAPDECK_CONFIG, ./tapdeck.toml or /etc/tapdeck/tapdeck.toml."

    def decorate(command: Command) -> Command:
        for setting in reversed(list(all_settings())):
            if setting.section in sections:
                command = _option(setting)(command)
        return click.option("--config", type=click.Path(path_type=Path), help=text)(command)

    return decorate


def _find_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is None and environ.get(_FILE_VARIABLE):
        path = Path(environ[_FILE_VARIABLE])
    if path is not None:
        return path
    return next((place for place in PLACES if place.is_file()), None)


def _read_file(path: Path) -> dict[str, Any]:
    """Read the file and refuse unknown keys. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(raw) > _MAX_FILE:
        raise ConfigError(f"{path}: larger than 1 MiB, surely not a configuration file")
    try:
        content = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    for section, keys in content.items():
        if section == _TARGETS:
            continue
        if section not in SECTIONS:
            raise ConfigError(f"{path}: unknown section [{section}]{nearest(section, [*SECTIONS, _TARGETS])}")
        if not isinstance(keys, dict):
            raise ConfigError(f"{path}: {section} has to be a section, [{section}]")
        known = [setting.key for setting in all_settings() if setting.section == section]
        for key in keys:
            if key not in known:
                raise ConfigError(f"{path}: unknown key {section}.{key}{nearest(key, known)}")
    return content


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are settings. Raises ConfigError for one that only looks like a setting."""
    known = [setting.variable for setting in all_settings()]
    ours = {name: text for name, text in environ.items() if name.startswith(_PREFIX) and name != _FILE_VARIABLE}
    found = {name: text for name, text in ours.items() if not name.startswith(SECRETS)}
    for name in found:
        if name not in known:
            raise ConfigError(f"environment: unknown variable {name}{nearest(name, [*known, _FILE_VARIABLE])}")
    return found


def _overlaid(settings: Settings, options: Mapping[str, Any]) -> Settings:
    for section in SECTIONS:
        given = {
            setting.key: options[_parameter(setting)]
            for setting in all_settings()
            if setting.section == section and options.get(_parameter(setting)) is not None
        }
        if given:
            settings = replace(settings, **{section: replace(getattr(settings, section), **given)})
    return settings


def _parameter(setting: Setting) -> str:
    return f"{setting.section}__{setting.key}"


def _option(setting: Setting) -> Callable[[Command], Command]:
    default = setting.default
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    text = f"{setting.help[0].upper()}{setting.help[1:]}. [{setting.name}; default: {shown or 'none'}]"
    names = [setting.option, *([setting.short] if setting.short else []), _parameter(setting)]
    if isinstance(default, bool):
        both = f"{setting.option}/--no-{setting.option.removeprefix('--')}"
        return click.option(both, _parameter(setting), default=None, help=text)
    if isinstance(default, tuple):
        split = _numbers if setting.least is not None else _texts
        return click.option(*names, multiple=True, callback=split, metavar="LIST", help=text)
    return click.option(*names, type=type(default), default=None, help=text)


def _texts(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...] | None:
    """A list may be given at once, with commas, or by repeating the option."""
    return tuple(part.strip() for text in given for part in text.split(",") if part.strip()) if given else None


def _numbers(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[int, ...] | None:
    texts = _texts(context, parameter, given)
    try:
        return None if texts is None else tuple(map(int, texts))
    except ValueError:
        wrong = ",".join(given)
        raise click.BadParameter(f"{wrong!r} is not a list of numbers with commas between them") from None
