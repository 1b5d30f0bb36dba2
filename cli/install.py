"""`tapdeck install`: users, folders and systemd units of a box; and the way back, which removes no data."""

import grp
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from .. import __file__ as _package
from . import layout
from .config import load, with_options
from .exit_codes import ExitCode
from .settings import ConfigError, Settings
from .units import BOX, CONFIG_FILE, STAGES, quoted, units

UNITS = Path("etc/systemd/system")
SYSUSERS, TMPFILES = Path("usr/lib/sysusers.d/tapdeck.conf"), Path("usr/lib/tmpfiles.d/tapdeck.conf")
_UNIT_MODE, _ETC_MODE, _CONFIG_MODE = 0o644, 0o750, 0o640
_NOLOGIN, _NOWHERE = "/usr/sbin/nologin", "/nonexistent"


class NotRoot(click.ClickException):
    """Installing is root's."""

    exit_code = ExitCode.NO_PERMISSION


@dataclass(frozen=True, slots=True)
class Step:
    """Something that is not as it should be yet: what will be done, and how."""

    text: str
    do: Callable[[], object]


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be done, print the units, and change nothing.")
@click.option("--uninstall", is_flag=True, help="Stop the service and remove its units; everything else stays.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write units, sysusers.d and tmpfiles.d below this folder, as for a package; touch nothing else.",
)
@click.option("--python", help="The Python of the units, which has Tapdeck; default: this one.")
@with_options("storage", "deliver", "signing", "users", "monitoring", "alarms", "heartbeat")
def install(
    dry_run: bool, uninstall: bool, root: Path | None, python: str | None, config: Path | None, **options: Any
) -> int:
    """Set this machine up as a recorder: system users, folders, systemd units.

    What is there already is left; a second run changes nothing. Run it again when folders or users in the configuration
    change. Next: `tapdeck setup`, if there is no configuration yet, and `systemctl enable --now tapdeck`.
    """
    settings = load(config, options)
    if root is None and not dry_run and os.geteuid() != 0:
        raise NotRoot("installing needs root: `sudo tapdeck install`; --dry-run shows what it would do")
    if uninstall:
        return _conclude(list(_removal(root or Path("/"))), dry_run, _left(settings))
    python = python or sys.executable
    problem = _hidden(python)
    if problem and root is None and not dry_run:
        raise ConfigError(problem)
    if problem:
        click.echo(f"warning: {problem}", err=True)
    content = units(settings, python, config.absolute() if config else CONFIG_FILE)
    steps = list(_files(content, root or Path("/")))
    if root is not None:
        steps += _declarations(settings, root)
    else:
        steps = [*_users(settings), *_folders(settings), *steps, *_configuration(settings, config or CONFIG_FILE)]
        steps += [Step("systemd reads its units again", _reload)] if steps and _systemd_runs() else []
    if dry_run:
        for name, text in content.items():
            click.echo(f"--- /{UNITS / name}\n{text}")
    return _conclude(steps, dry_run, _next() if root is None else "")


def _conclude(steps: list[Step], dry_run: bool, then: str) -> int:
    for step in steps:
        click.echo(f"would: {step.text}" if dry_run else step.text)
        if not dry_run:
            step.do()
    if not steps:
        click.echo("nothing to do")
    if then and not dry_run:
        click.echo(then)
    return 0


def _next() -> str:
    first = "" if CONFIG_FILE.exists() else "`tapdeck setup`, then "
    return (
        f"next: {first}`systemctl enable --now tapdeck`; `tapdeck status` and `journalctl -fu tapdeck` show how it does"
    )


def _hidden(python: str) -> str:
    """Return what is wrong with where Tapdeck is installed, for services that are other users; empty if nothing."""
    for path in (Path(python), Path(python).resolve(), Path(os.__file__), Path(_package).resolve()):
        for place in (path, *path.parents):
            try:
                closed = not place.stat().st_mode & 0o004
            except OSError:
                closed = True
            if closed or str(place) in ("/home", "/root"):
                return (
                    f"the users of the service cannot read {path}: install Python and Tapdeck where every user may "
                    "read them and no home folder is above, as in /opt/tapdeck"
                )
    return ""


def _users(settings: Settings) -> Iterator[Step]:
    users = settings.users
    group = users.group
    if group and not _known(grp.getgrnam, group):
        yield Step(f"group {group}", partial(_call, "groupadd", "--system", group))
    for stage in STAGES:
        user = getattr(users, stage)
        if not user or user == "root":
            continue
        if not _known(pwd.getpwnam, user):
            yield Step(f"user {user}, for the {stage} stage", partial(_add_user, user))
        if group and not _is_member(user, group):
            add = partial(_call, "usermod", "--append", "--groups", group, user)
            yield Step(f"user {user} in the group {group}", add)


def _add_user(user: str) -> None:
    about = ("--comment", "Tapdeck", "--home-dir", _NOWHERE, "--no-create-home", "--shell", _NOLOGIN)
    _call("useradd", "--system", "--user-group", *about, user)


def _folders(settings: Settings) -> Iterator[Step]:
    """One step, and only if something is to be done, which nobody can say before the users are there."""
    with suppress(ConfigError):  # users that an earlier step makes
        if layout.is_prepared(settings):
            return
    keys = (settings.signing.keys,) if settings.signing.enabled else ()
    names = ", ".join((settings.storage.recordings, settings.storage.spool, settings.storage.state, *keys))

    def prepare() -> None:
        for text in layout.prepare(settings):
            click.echo(f"  {text}")

    yield Step(f"folders {names}", prepare)


def _files(content: dict[str, str], root: Path) -> Iterator[Step]:
    for name, text in content.items():
        yield from _file(root / UNITS / name, text)


def _file(path: Path, text: str) -> Iterator[Step]:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_text(text, encoding="utf-8")
        part.chmod(_UNIT_MODE)
        part.replace(path)

    yield Step(f"file {path}", write)


def _configuration(settings: Settings, file: Path) -> Iterator[Step]:
    """The stages read the configuration again as their own users."""
    group, folder = settings.users.group or "root", file.parent
    if not folder.is_dir():
        yield Step(f"folder {folder}", lambda: _make_readable(folder, group, _ETC_MODE))
    if file.is_file() and (file.stat().st_mode & 0o777, file.group()) != (_CONFIG_MODE, group):
        yield Step(f"{file}: readable for the group {group}", lambda: _make_readable(file, group, _CONFIG_MODE))


def _make_readable(path: Path, group: str, mode: int) -> None:
    if not path.exists():
        path.mkdir(parents=True)
    shutil.chown(path, group=group)
    path.chmod(mode)


def _declarations(settings: Settings, root: Path) -> Iterator[Step]:
    """The same users and folders, as a package declares them to systemd-sysusers and systemd-tmpfiles."""
    users = settings.users
    names = [name for stage in STAGES if (name := getattr(users, stage)) and name != "root"]
    people = [f"g {users.group} -"] if users.group else []
    for name in names:
        people += [f'u {name} - "Tapdeck" {_NOWHERE} {_NOLOGIN}']
        people += [f"m {name} {users.group}"] if users.group else []
    yield from _file(root / SYSUSERS, "\n".join(people) + "\n")
    lines = [
        f"d {quoted(str(one.path))} {one.mode:04o} {one.user or 'root'} {one.group or one.shown or 'root'} -"
        for one in layout.folders(settings)
    ]
    yield from _file(root / TMPFILES, "\n".join(lines) + "\n")


def _removal(root: Path) -> Iterator[Step]:
    names = [BOX, *(f"tapdeck-{stage}.service" for stage in STAGES)]
    there = [root / UNITS / name for name in names if (root / UNITS / name).is_file()]
    manage = root == Path("/") and _systemd_runs()
    if there and manage:
        yield Step("the service is stopped and disabled", lambda: _call("systemctl", "disable", "--now", *names))
    for path in there:
        yield Step(f"remove {path}", path.unlink)
    if there and manage:
        yield Step("systemd reads its units again", _reload)


def _left(settings: Settings) -> str:
    storage = settings.storage
    folders = (storage.recordings, storage.spool, storage.state, settings.signing.keys)
    kept = ", ".join((*folders, str(CONFIG_FILE.parent)))
    return f"kept: {kept} and the users who own them"


def _systemd_runs() -> bool:
    return Path("/run/systemd/system").is_dir()


def _reload() -> None:
    _call("systemctl", "daemon-reload")


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")


def _known(look_up: Callable[[str], object], name: str) -> bool:
    try:
        look_up(name)
    except KeyError:
        return False
    return True


def _is_member(user: str, group: str) -> bool:
    return _known(grp.getgrnam, group) and user in grp.getgrnam(group).gr_mem
