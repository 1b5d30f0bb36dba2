"""Reading `[[targets]]`, and refusing what cannot work: each message names the file, the target and the key."""

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from ..storage.names import TemplateError
from ..storage.pace import PaceError, hours
from ..storage.route import DIRECTIONS, route
from ..storage.safe_text import for_terminal
from ..storage.sftp.host_key import NotAHostKey, host_key
from .nearest import nearest
from .secret_places import MAIL, passphrase_place, password_place
from .settings import ConfigError
from .target_settings import KINDS, TargetKey, TargetSettings, target_keys

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.%a-z]*\]?")
_SECRET = re.compile(r"pass|secret|credential", re.IGNORECASE)
_NEEDED = {"folder": ("folder",), "smb": ("server", "share", "user"), "sftp": ("host", "user", "folder")}
_PATHS = ("key_file", "password_file", "passphrase_file")


def read_targets(tables: Any, file: str) -> tuple[TargetSettings, ...]:
    """Return the targets of a configuration file, checked, in their order. Raises ConfigError."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{file}: targets: each target is a table of its own, under a line [[targets]]")
    found: list[TargetSettings] = []
    for number, table in enumerate(tables, 1):
        target = _Table(table, file, number).read()
        if target.name.lower() in (other.name.lower() for other in found):
            raise ConfigError(f"{file}: target {target.name}: name: another target has it already")
        found.append(target)
    return tuple(found)


class _Table:
    """One table, and how its faults are told."""

    def __init__(self, table: dict[str, Any], file: str, number: int) -> None:
        name = table.get("name")
        self._table = table
        self._place = f"{file}: target {for_terminal(name) if isinstance(name, str) and name else number}"
        self._keys = {key.name: key for key in target_keys()}

    def read(self) -> TargetSettings:
        self._check_name()
        kind = self._check_kind()
        for key in self._table:
            self._check_key(key, kind)
        from .config_model import validate_target  # slow to import

        target = validate_target(self._table, self._place)
        for key, text in _faults(target, self._keys):
            self._refuse(key, text)
        return target

    def _refuse(self, key: str, text: str) -> NoReturn:
        raise ConfigError(f"{self._place}: {key}: {text}")

    def _check_name(self) -> None:
        name = self._table.get("name")
        if not isinstance(name, str) or not name:
            self._refuse("name", "every target needs one, as in nas")
        if not _NAME.fullmatch(name):
            self._refuse("name", "ASCII letters, digits and - only, 32 at most, and no - at its beginning")
        if name.lower() == MAIL:
            self._refuse("name", "this one is taken: the secret of the mail server goes by it")

    def _check_kind(self) -> str:
        kind = self._table.get("kind")
        if not isinstance(kind, str) or not kind:
            self._refuse("kind", f"every target has one of {', '.join(KINDS)}")
        if kind not in KINDS:
            self._refuse("kind", f"unknown kind {for_terminal(kind)}{nearest(kind, KINDS)}")
        return kind

    def _check_key(self, key: str, kind: str) -> None:
        """Refuse what is no key, and never show its value: it may be a password."""
        if key in self._keys:
            kinds = self._keys[key].kinds
            if kind not in kinds:
                self._refuse(key, f"belongs to targets of the kind {' or '.join(kinds)}, not to {kind}")
            return
        if _SECRET.search(key):
            name = self._table["name"]
            place = passphrase_place if "phrase" in key.lower() else password_place
            advice = place(TargetSettings(name=name)).advice
            self._refuse(key, f"a secret does not belong into this file, which others may read: {advice}")
        known = [one.name for one in self._keys.values() if kind in one.kinds]
        raise ConfigError(f"{self._place}: unknown key {for_terminal(key)}{nearest(key, known)}")


def _faults(target: TargetSettings, keys: dict[str, TargetKey]) -> Iterator[tuple[str, str]]:
    """Yield key and text of what types alone do not say."""
    for name in _NEEDED[target.kind]:
        if not getattr(target, name):
            yield name, f"a target of the kind {target.kind} needs it"
    for key in keys.values():
        value = getattr(target, key.name)
        if key.least is not None and value < key.least:
            yield key.name, f"{value} is less than {key.least:g}"
        if key.most is not None and value > key.most:
            yield key.name, f"{value} is more than {key.most:g}"
        texts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(text, str) and not (text.isprintable() and text == text.strip()) for text in texts):
            yield key.name, "there are blanks at an end of it, or control characters in it"
    yield from _place_faults(target)
    yield from _selection_faults(target)
    yield from _text_faults(target)


def _place_faults(target: TargetSettings) -> Iterator[tuple[str, str]]:
    absolute = (*_PATHS, "folder") if target.kind == "folder" else _PATHS
    for key in absolute:
        path = getattr(target, key)
        if path and not path.startswith("/"):
            yield key, "the whole path is needed, from / on"
    for key in ("server", "host"):
        if getattr(target, key) and not _HOST.fullmatch(getattr(target, key)):
            yield key, "the name or the address of a server alone is needed, as in nas.example.com"
    if target.kind == "smb" and set("/\\") & set(target.share):
        yield "share", "the name of the share alone is needed; what lies in it is `folder`"
    if target.kind == "smb" and target.folder.startswith(("/", "\\")):
        yield "folder", "it is within the share, and begins with no slash"
    if ".." in re.split(r"[/\\]", target.folder):
        yield "folder", "no .. in it"
    try:
        host_key(target.host_key)
    except NotAHostKey as error:
        yield "host_key", f"{error}, as `ssh-keygen -lf` and known_hosts have them"


def _selection_faults(target: TargetSettings) -> Iterator[tuple[str, str]]:
    for direction in target.directions:
        if direction not in DIRECTIONS:
            yield "directions", f"unknown direction {direction!r}{nearest(direction, DIRECTIONS)}"
    for key in ("classes", "numbers"):
        if "" in getattr(target, key):
            yield key, "an empty text fits nothing"
    for pattern in target.numbers:
        if pattern.count("[") != pattern.count("]"):
            yield "numbers", f"{pattern!r}: a bracket lacks the other one"


def _text_faults(target: TargetSettings) -> Iterator[tuple[str, str]]:
    for key, folder, file in (
        ("folder_template", target.folder_template, ""),
        ("name_template", "", target.name_template),
    ):
        try:
            route(target.name, folder=folder, file=file)
        except TemplateError as error:
            yield key, str(error)
    try:
        hours(target.hours)
    except PaceError as error:
        yield "hours", str(error)
