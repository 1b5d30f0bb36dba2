"""The targets that the configuration names: which way recordings go to each, and what makes a connection to it.

A kind of targets is a file in storage/ and a line in the table of kinds here; its keys are in target_settings.py.
"""

import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..sniffer.direction import Own
from ..storage import state
from ..storage.route import Route, Selection, route
from ..storage.secret import Secret
from ..storage.targets import Target
from .secret_places import NoSecret, needed, secret_places
from .settings import Settings
from .target_settings import TargetSettings


@dataclass(frozen=True, slots=True)
class Destination:
    """One enabled target: what is set for it, which recordings go there and where to, and `make`, which returns one
    more connection to it without touching the network.
    """

    settings: TargetSettings
    route: Route
    make: Callable[[], Target]

    @property
    def name(self) -> str:
        """The target's name."""
        return self.settings.name


def destinations(settings: Settings) -> list[Destination]:
    """Return all enabled targets. None of them is touched by that. Raises ConfigError."""
    return [_destination(target, settings) for target in all_targets(settings) if target.enabled]


def configured_targets(settings: Settings) -> list[Target]:
    """Return one connection for each enabled target, none of which is made by that. Raises ConfigError."""
    return [destination.make() for destination in destinations(settings)]


def all_targets(settings: Settings) -> tuple[TargetSettings, ...]:
    """Return all targets, disabled ones too; `deliver.folder` is the first."""
    if not settings.deliver.folder:
        return settings.targets
    path = str(Path(settings.deliver.folder).absolute())
    return TargetSettings(name=path, kind="folder", folder=path, connections=1), *settings.targets


def known_targets(folder: Path) -> set[str]:
    """Return the targets that have taken a recording before, by what the deliver stage says in the state folder."""
    told = (state.read(folder, "deliver") or {}).get("targets")
    found = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    return {one["name"] for one in found if one.get("confirmed") and isinstance(one.get("name"), str)}


def with_secrets(settings: Settings, before: Settings | None = None) -> Settings:
    """Return the settings with the secrets that can be read now. Those that cannot are taken over from `before`, where
    they come from the same place: whoever has given up root cannot read root's files again.
    """
    kept = {} if before is None else _still_valid(settings, before)
    found: dict[tuple[str, str], Secret] = {}
    for target in settings.targets:
        for what, place in secret_places(target).items() if target.enabled else ():
            try:
                secret = place.read(os.environ, owners(settings))
            except NoSecret:
                secret = kept.get((target.name, what))
            if secret is not None:
                found[target.name, what] = secret
    return replace(settings, secrets=found)


def _still_valid(settings: Settings, before: Settings) -> dict[tuple[str, str], Secret]:
    files = {(one.name, what): place.file for one in before.targets for what, place in secret_places(one).items()}
    return {
        (one.name, what): before.secrets[one.name, what]
        for one in settings.targets
        for what, place in secret_places(one).items()
        if (one.name, what) in before.secrets and place.file == files.get((one.name, what))
    }


def _destination(target: TargetSettings, settings: Settings) -> Destination:
    return Destination(target, _route(target, settings), lambda: _make(target, settings))


def _route(target: TargetSettings, settings: Settings) -> Route:
    numbers = Own(target.numbers, country_code=settings.own.country_code)
    selection = Selection(frozenset(target.classes), frozenset(target.directions), numbers)
    return route(target.name, selection, target.folder_template, target.name_template, settings.zone())


def _make(target: TargetSettings, settings: Settings) -> Target:
    try:
        return _KINDS[target.kind](target, settings)
    except NoSecret as error:
        from ..storage.unusable_target import UnusableTarget

        return UnusableTarget(target.name, f"{error}; then `systemctl reload tapdeck`, or restart it")


def _folder(target: TargetSettings, settings: Settings) -> Target:
    from ..storage.folder_target import FolderTarget

    return FolderTarget(Path(target.folder), Path(settings.storage.recordings), target.name)


def _smb(target: TargetSettings, settings: Settings) -> Target:
    from ..storage.smb.place import SmbPlace
    from ..storage.smb_target import SmbTarget

    password = _secret(target, settings, "password")
    assert password is not None  # without it NoSecret was raised
    return SmbTarget(
        SmbPlace(
            name=target.name,
            server=target.server,
            port=target.port_number,
            share=target.share,
            folder=target.folder,
            user=target.user,
            domain=target.domain,
            password=password,
            require_encryption=target.require_encryption,
            require_signing=target.require_signing,
        )
    )


def _sftp(target: TargetSettings, settings: Settings) -> Target:
    from ..storage.sftp_target import SftpPlace, SftpTarget

    return SftpTarget(
        SftpPlace(
            name=target.name,
            host=target.host,
            port=target.port_number,
            folder=target.folder,
            user=target.user,
            host_key=target.host_key,
            password=_secret(target, settings, "password"),
            key_file=target.key_file,
            key_passphrase=_secret(target, settings, "passphrase"),
        )
    )


_KINDS: dict[str, Callable[[TargetSettings, Settings], Target]] = {"folder": _folder, "smb": _smb, "sftp": _sftp}


def _secret(target: TargetSettings, settings: Settings, what: str) -> Secret | None:
    """Return a secret that was read before, or read it now. Raises NoSecret where the target cannot do without."""
    place = secret_places(target).get(what)
    secret = settings.secrets.get((target.name, what))
    if secret is not None or place is None:
        return secret
    secret = place.read(os.environ, owners(settings))
    if secret is None and needed(target, what):
        raise NoSecret(f"there is no {what}: {place.advice}")
    return secret


def owners(settings: Settings) -> list[int]:
    """Return the number of the deliver stage's user, who may own files with secrets, if there is one."""
    try:
        return [pwd.getpwnam(settings.users.deliver).pw_uid]
    except KeyError:
        return []
