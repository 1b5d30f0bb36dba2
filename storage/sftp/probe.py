"""Finding out whether a place works, and what the server there can do, by doing it."""

import time
from pathlib import PurePosixPath

from ..targets import WillPass
from . import naming, wire
from .remote import FSYNC, HARDLINK, POSIX_RENAME, Remote, part_of

MARK = PurePosixPath(".tapdeck-target")
_SECOND = MARK.with_name(f"{MARK.name}.second")
_TEXT = b"""Tapdeck copies recordings to this folder, and knows by this file that the right disk is mounted here.
To use another disk in its place, put a file of this name on it; it may be empty.
"""
_NEW = wire.READING | wire.WRITING | wire.CREATING | wire.EXCLUSIVE
_TURN_S, _PATIENCE_S = 0.05, 3.0


def probe(remote: Remote) -> None:
    """Write a little, read it back, see how files get their names, and mark the place unless it is marked. Raises
    TargetError.
    """
    part = remote.path(part_of(MARK))
    handle = _begin(remote, part)
    call = remote.session.call
    try:
        _write(remote, handle)
        remote.nature.folder_sync = _syncs_folders(remote)
        remote.nature.way = _way(remote, part)
        (found,) = call(wire.lstat(remote.path(MARK)))
        if not found.ok:
            naming.give_name(remote.session, remote.nature.way, part, remote.path(MARK), [])
            (found,) = call(wire.lstat(remote.path(MARK)))
        if not found.ok:
            raise remote.trouble(MARK, found)
    finally:
        if not remote.session.broken:
            call(wire.close(handle), wire.remove(part), wire.remove(remote.path(part_of(_SECOND))))
    remote.sync_folder(PurePosixPath("."))


def _begin(remote: Remote, part: bytes) -> bytes:
    """Open the file that is written for a try; wait while another courier of this target is at it. What has lain there
    for some seconds is a killed one's.
    """
    until, missing = time.monotonic() + _PATIENCE_S, 0
    while True:
        opened, found = remote.session.call(wire.open_file(part, _NEW, remote.file_mode), wire.lstat(part))
        if opened.ok:
            return opened.data
        late = time.monotonic() - until
        missing = 0 if found.ok else missing + 1
        if missing > 1 or late > _PATIENCE_S or (missing and opened.code != wire.FAILURE):
            raise remote.trouble(part_of(MARK), opened)
        if found.ok and late > 0:
            remote.session.call(wire.remove(part))
        time.sleep(_TURN_S)


def _write(remote: Remote, handle: bytes) -> None:
    requests = [wire.write(handle, 0, _TEXT)]
    if remote.fsync:
        requests.append(wire.extended(FSYNC, handle))
    *written, back = remote.session.call(*requests, wire.read(handle, 0, len(_TEXT) + 1))
    for reply in written:
        if not reply.ok:
            raise remote.trouble(part_of(MARK), reply, len(_TEXT))
    if back.data != _TEXT:
        raise WillPass(f"{remote.shown()} on the server does not return what was written: the disk there fails")


def _syncs_folders(remote: Remote) -> bool:
    """Whether a folder can be opened as if it were a file, and fsynced: on Linux it can."""
    if not remote.fsync:
        return False
    (opened,) = remote.session.call(wire.open_file(remote.path(), wire.READING))
    if not opened.ok:
        return False
    done, _ = remote.session.call(wire.extended(FSYNC, opened.data), wire.close(opened.data))
    return done.ok


def _way(remote: Remote, part: bytes) -> str:
    """Return how files get their names here: see naming.py. Raises WillPass. `part` may be gone after it."""
    call, second = remote.session.call, remote.path(part_of(_SECOND))
    able = remote.session.extensions
    call(wire.remove(second))
    if HARDLINK in able:
        first, again = call(wire.extended(HARDLINK, part, second), wire.extended(HARDLINK, part, second))
        if first.ok and not again.ok:
            call(wire.remove(second))
            return naming.LINK
        call(wire.remove(second))
    opened, refused = call(
        wire.open_file(second, _NEW, remote.file_mode), wire.open_file(second, _NEW, remote.file_mode)
    )
    call(*(wire.close(reply.data) for reply in (opened, refused) if reply.ok))
    ways = [naming.CLAIM] if POSIX_RENAME in able else []
    for way in (*ways, naming.CLAIM_PLAINLY) if opened.ok and not refused.ok else ():
        (done,) = call(naming.replacing(way, part, second))
        if done.ok:
            call(wire.rename(second, part))  # the mark is made of it
            return way
    if opened.ok and call(wire.remove(second), wire.rename(part, second), wire.rename(second, part))[1].ok:
        return naming.RENAME
    user = remote.session.facts.user
    raise WillPass(f"{remote.shown()} on the server: files cannot be renamed there; give the user {user} the right")
