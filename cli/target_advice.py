"""What `tapdeck config` says of the targets: where their secrets come from, and what somebody should think about."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..storage.safe_text import for_terminal
from .secret_places import MAIL, VARIABLES, NoSecret, needed, secret_places
from .settings import Settings
from .target_settings import TargetSettings
from .targets import all_targets, owners

ONLY_HERE = "there is no target that is enabled: recordings stay on this machine, and are lost with its disk"
_RIGHTS_OF_OTHERS = 0o177


def secrets_of(target: TargetSettings, settings: Settings, environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return of each secret of a target where it comes from, empty if nobody has set it, and what is wrong with it,
    empty if nothing is.
    """
    found = {}
    for what, place in secret_places(target).items():
        trouble = ""
        try:
            if place.read(environ, owners(settings)) is None and needed(target, what):
                trouble = f"there is no {what}: {place.advice}"
        except NoSecret as error:
            trouble = str(error)
        found[what] = (place.source(environ), trouble)
    return found


def warnings(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what is allowed, and may not be meant."""
    targets = all_targets(settings)
    if not any(target.enabled for target in targets):
        yield ONLY_HERE
    elif not any(target.enabled and target.required for target in targets):
        yield "no target is required: a recording leaves this machine as soon as any of them has it"
    for target in targets:
        for text in _of_one(target, settings, environ):
            yield f"target {target.shown}: {text}"
    yield from _doubles(targets)
    yield from _strange_variables(targets, environ)


def _of_one(target: TargetSettings, settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    if target.kind == "smb" and not target.require_encryption:
        yield "require_encryption is off: recordings may cross the network so that others can listen to them"
    if target.kind == "smb" and not target.require_signing:
        yield "require_signing is off: somebody on the way may change recordings, or pose as the server"
    if target.kind == "sftp" and not target.host_key:
        yield (
            "host_key is missing: nothing is sent to a server that cannot be told from another; "
            f"`tapdeck targets test {target.name}` shows the key, to be compared with what the server's owner says"
        )
    if target.enabled:
        yield from (trouble for _, trouble in secrets_of(target, settings, environ).values() if trouble)
    if target.enabled and target.key_file:
        yield from _key_file(Path(target.key_file), settings)
    if not target.read_back:
        yield "read_back is off: only the size of what has arrived is compared"
    yield from _nothing_fits(target, settings)


def _key_file(path: Path, settings: Settings) -> Iterator[str]:
    """Yield why the deliver stage cannot use a private key: it reads it at each login, when it is root no longer."""
    try:
        found = path.stat()
    except PermissionError:
        return  # whoever may look into its folder is told more
    except OSError as error:
        yield f"key_file: {path}: {error.strerror}"
        return
    if not stat.S_ISREG(found.st_mode):
        yield f"key_file: {path} is no file"
    elif stat.S_IMODE(found.st_mode) & _RIGHTS_OF_OTHERS:
        yield f"key_file: others may read {path}, so it is not used: run `chmod 600 {path}`"
    others = owners(settings)
    reader, name = (others[0], settings.users.deliver) if others else (os.geteuid(), str(os.geteuid()))
    if found.st_uid != reader:
        yield f"key_file: {path} belongs to user {found.st_uid}, not to that of deliver: run `chown {name} {path}`"


def _nothing_fits(target: TargetSettings, settings: Settings) -> Iterator[str]:
    """Yield why a selection leaves out every recording, as far as the other settings tell."""
    own = settings.own
    if target.directions and "unknown" not in target.directions and not own.numbers and not own.networks:
        yield (
            "directions leaves out every recording: without own.numbers or own.networks every direction is unknown; "
            "set one of them"
        )
    if target.classes:
        yield "classes leaves out every recording that has no class in its info file"


def _doubles(targets: tuple[TargetSettings, ...]) -> Iterator[str]:
    """Yield targets that are one place: two copies there are one copy."""
    places = Counter(_place(target) for target in targets if target.enabled)
    for place, number in places.items():
        if number > 1:
            names = ", ".join(target.shown for target in targets if target.enabled and _place(target) == place)
            yield f"targets {names} are the same place: what is lost there is lost for all of them"


def _place(target: TargetSettings) -> tuple[Any, ...]:
    server = (target.server or target.host).lower()
    return target.kind, server, target.port_number, target.share.lower(), target.user, target.folder.rstrip("/")


def _strange_variables(targets: tuple[TargetSettings, ...], environ: Mapping[str, str]) -> Iterator[str]:
    mail = f"{VARIABLES}{MAIL.upper()}_"
    known = {place.variable for target in targets for place in secret_places(target).values()}
    for name in sorted(environ):
        if name.startswith(VARIABLES) and not name.startswith(mail) and name not in known:
            yield f"variable {for_terminal(name)}: there is no target that it belongs to"
