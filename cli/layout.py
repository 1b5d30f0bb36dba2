"""The folders of an installed box: who owns them, who may read, and what each stage's user can do there.

    recordings          seal writes and shows them to deliver's group; deliver removes what the disk has no room for
    spool               capture writes and shows it to seal's group; seal removes what is sealed
    state, state/log    all stages write their own files, nobody another's (sticky); the group `users.group` may read
    state/handover      seal writes, deliver takes away
    state/alarms        the book of alarms, if anybody is told of them; the group may read, and acknowledge in acks
    keys                seal's alone: with the key anybody could sign what he likes

Nobody else may enter. A folder that exists keeps what is in it.
"""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..storage.atomic import make_folder
from . import alarm_checks
from .privileges import group_entry, user_entry
from .settings import ConfigError, Settings

_SHARED, _SHOWN, _STICKY, _SECRET = 0o2770, 0o2750, 0o3770, 0o700
_PARENT_MODE, _LOG_MODE = 0o711, 0o660
_STAGES = ("capture", "seal", "deliver", "metrics", "alarms")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder as it has to be; an empty name is root's. Its group is `group`, or else the own group of the user
    `shown`. `setting` is the one that names it, or a folder above.
    """

    path: Path
    mode: int
    user: str
    setting: str
    shown: str = ""
    group: str = ""

    @property
    def uid(self) -> int:
        """Number of its owner. Raises ConfigError for a user that does not exist."""
        return _uid(self.user)

    @property
    def gid(self) -> int:
        """Number of its group. Raises ConfigError for a user or group that does not exist."""
        if self.group:
            return group_entry(self.group).gr_gid
        return user_entry(self.shown, "users").pw_gid if self.shown else 0


def folders(settings: Settings) -> list[Folder]:
    """Return the folders in the order in which they are made."""
    users, storage = settings.users, settings.storage
    recordings, spool, state = Path(storage.recordings), Path(storage.spool), Path(storage.state)
    return [
        Folder(recordings, _SHARED, users.seal, "storage.recordings", shown=users.deliver),
        *(
            Folder(path, _SHARED, users.capture, "storage.spool", shown=users.seal)
            for path in (spool, spool / "live", spool / "done", spool / "resume")
        ),
        *(Folder(path, _STICKY, "", "storage.state", group=users.group) for path in (state, state / "log")),
        Folder(state / "handover", _SHARED, users.seal, "storage.state", shown=users.deliver),
        *(
            [
                Folder(state / "alarms", _SHOWN, users.alarms, "storage.state", group=users.group),
                Folder(state / "alarms" / "acks", _STICKY, users.alarms, "storage.state", group=users.group),
            ]
            if alarm_checks.wanted(settings.alarms, settings.heartbeat)
            else []
        ),
        *(
            [Folder(Path(settings.signing.keys), _SECRET, users.seal, "signing.keys")]
            if settings.signing.enabled
            else []
        ),
    ]


def is_prepared(settings: Settings) -> bool:
    """Whether all folders are as they have to be. Raises ConfigError for a user or group that does not exist."""
    return all(_is_right(folder) for folder in folders(settings))


def prepare(settings: Settings) -> list[str]:
    """Make what is missing, and return what was done. Raises ConfigError for what needs a decision, and OSError.

    Without root the folders are the user's own. With it, a folder that exists and belongs to another is taken over only
    while it is empty: a mistyped path must not give away a home folder.
    """
    if os.geteuid() != 0:
        for path in (settings.storage.recordings, settings.storage.spool, settings.storage.state):
            make_folder(Path(path))
        return []
    done = [text for folder in folders(settings) for text in _prepare(folder)]
    done += [text for path, user in _files(settings) for text in _give(path, user)]
    _share_log(settings)
    return done


def _prepare(folder: Folder) -> Iterator[str]:
    """By descriptor: a stage may have put a link in the place of a folder that is its own."""
    owner = f"{folder.user or 'root'}:{_group_name(folder.gid)}"
    try:
        if not _exists(folder.path):
            _make_parents(folder.path.parent)
            folder.path.mkdir(mode=0o700)
        descriptor = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EACCES:
            return  # a service without the right to look into others' folders finds those that were set up before
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise ConfigError(f"{folder.setting}: {folder.path} is no folder") from None
    try:
        found = os.fstat(descriptor)
        if (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (folder.uid, folder.gid, folder.mode):
            return
        if found.st_uid != folder.uid and os.listdir(descriptor):
            raise ConfigError(
                f"{folder.setting}: {folder.path} is not empty and belongs to {_name(found.st_uid)}, not to "
                f"{folder.user or 'root'}: name another folder, or if all of it is Tapdeck's, run "
                f"`chown -R {owner} {folder.path}` and `chmod -R u+rwX,g+rwX,o= {folder.path}`"
            )
        os.fchown(descriptor, folder.uid, folder.gid)
        os.fchmod(descriptor, folder.mode)
    finally:
        os.close(descriptor)
    yield f"folder {folder.path}: {owner} {folder.mode:04o}"


def _is_right(folder: Folder) -> bool:
    try:
        found = folder.path.lstat()
    except FileNotFoundError:
        return False
    right = (folder.uid, folder.gid, folder.mode)
    return stat.S_ISDIR(found.st_mode) and (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == right


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _make_parents(path: Path) -> None:
    if not path.exists():
        _make_parents(path.parent)
        path.mkdir()
        path.chmod(_PARENT_MODE)


def _files(settings: Settings) -> Iterator[tuple[Path, str]]:
    """Yield each file in the state folder that one stage writes, with its user."""
    state = Path(settings.storage.state)
    for stage in _STAGES:
        for name in (f"{stage}.json", f".{stage}.json.spare", f".{stage}.lock"):
            yield state / name, getattr(settings.users, stage)
    yield Path(settings.storage.spool) / ".capture.lock", settings.users.capture
    for pattern, stage in (("queue.sqlite*", "deliver"), (".ballast.*", "deliver"), ("*ledger.sqlite*", "seal")):
        for path in sorted(state.glob(pattern)):
            yield path, getattr(settings.users, stage)


def _give(path: Path, user: str) -> Iterator[str]:
    """Give a file of an earlier run, which had other users, to the user who writes it now."""
    with _plain_file(path) as descriptor:
        if descriptor is not None and os.fstat(descriptor).st_uid != _uid(user):
            os.fchown(descriptor, _uid(user), path.parent.stat().st_gid)
            yield f"file {path}: {user or 'root'}"


def _share_log(settings: Settings) -> None:
    """Let all stages write to logs that one of them has begun with other users."""
    gid = group_entry(settings.users.group).gr_gid if settings.users.group else 0
    for path in (Path(settings.storage.state) / "log").glob("*.jsonl"):
        with _plain_file(path) as descriptor:
            if descriptor is not None and os.fstat(descriptor).st_gid != gid:
                os.fchown(descriptor, -1, gid)
                os.fchmod(descriptor, _LOG_MODE)


@contextmanager
def _plain_file(path: Path) -> Iterator[int | None]:
    """Open a file by its only name; None if it is none: a link in a folder that stages write to leads anywhere."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.EACCES):
            raise
        yield None
        return
    try:
        found = os.fstat(descriptor)
        yield descriptor if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 else None
    finally:
        os.close(descriptor)


def _uid(user: str) -> int:
    return user_entry(user, "users").pw_uid if user else 0


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
