"""Writes `tapdeck.toml`: only what was decided, with what it means; whole or not at all."""

import grp
import os
import shutil
import textwrap
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ..storage.atomic import sync_folder
from .settings import Settings, all_settings
from .show_config import target_as_toml, toml_value

FILE_MODE, FOLDER_MODE = 0o640, 0o755
"""Numbers and networks of the house are nobody's business, but the stages' users have to read them."""
_HEAD = """\
# Settings of Tapdeck, by `tapdeck setup`. What is not here has its default: `tapdeck config show` lists all settings,
# `tapdeck config check` checks this file.
"""


def as_file(settings: Settings, always: Collection[str]) -> str:
    """Return a configuration file with the settings named in `always`, and all that differ from their default."""
    lines: list[str] = []
    for setting in all_settings():
        value = setting.of(settings)
        if setting.name not in always and value == setting.default:
            continue
        if f"[{setting.section}]" not in lines:
            lines += ["", f"[{setting.section}]"]
        lines += textwrap.wrap(setting.help, 116, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        lines.append(f"{setting.key} = {_toml(value)}")
    for target in settings.targets:
        lines += ["", *target_as_toml(target)]
    return _HEAD + "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    return toml_value(value).replace("\x7f", "\\u007f")  # type: ignore[arg-type]  # the one control that JSON lets pass


def write(path: Path, text: str, group: str) -> Path | None:
    """Put a configuration file in place, readable for `group`. Return where the one before is kept, None if there was
    none. Raises OSError.
    """
    _make_folder(path.parent)
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, FILE_MODE)
        with suppress(KeyError, PermissionError):  # `tapdeck install` makes the group, and gives it the file
            os.fchown(descriptor, -1, grp.getgrnam(group).gr_gid)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    kept = None
    if path.exists():
        kept = path.with_name(path.name + ".bak")
        shutil.copy2(path, kept)
    part.replace(path)
    sync_folder(path.parent)
    return kept


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=FOLDER_MODE)
        sync_folder(folder.parent)
