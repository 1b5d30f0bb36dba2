"""Finding out whether a place works, and what the server there can do, by doing it; and how files get their names.

A name is never given in place of another file. Version 3 of the protocol says that a rename fails where the new name
exists, and OpenSSH keeps to that: its rename is a hard link, which refuses an existing name in one step. On a server
that replaces, an empty file is made under the name first, which fails if it exists, and then replaced by the whole
one. Only what is empty is ever replaced: a name without its file is what a kill leaves.
"""

import asyncio
from pathlib import PurePosixPath
from typing import Any

import asyncssh
from asyncssh import SFTPAttrs, SFTPError

from ..targets import WillPass, part_name
from . import MARK
from .remote import Remote, is_file

_PART, _SECOND = (PurePosixPath(part_name(name)) for name in (MARK.name, f"{MARK.name}.second"))
_TEXT = b"""Tapdeck copies recordings to this folder, and knows by this file that the right disk is mounted here.
To use another disk in its place, put a file of this name on it; it may be empty.
"""
_TURN_S, _TURNS = 0.05, 60


async def give_name(
    remote: Remote, part: PurePosixPath, path: PurePosixPath, file: asyncssh.SFTPClientFile | None = None
) -> tuple[Any, Any]:
    """Name a file, which is closed. Returns what came of that, and of the fsync of its folder, if that is open."""
    claimed, free, new = None, True, remote.path(path)
    if remote.replaces:
        claimed, found = await remote.ask(remote.open(path, "xb"), remote.client.lstat(new))
        free = not isinstance(claimed, SFTPError) or (
            isinstance(found, SFTPAttrs) and is_file(found) and not found.size
        )
    closing = [one.close() for one in (file, claimed) if isinstance(one, asyncssh.SFTPClientFile)]
    naming = [remote.client.rename(remote.path(part), new)] if free else []
    syncing = remote.syncing(path)
    answers = (await remote.ask(*closing, *naming, *syncing))[len(closing) :]
    return answers[0] if free else claimed, answers[-1] if syncing else None


async def probe(remote: Remote) -> None:
    """Write a little, read it back, see how files get their names, and mark the place unless it is marked. Raises
    TargetError.
    """
    file = await _begin(remote)
    try:
        await _write(remote, file)
        remote.folder_sync = remote.fsync and await _syncs_folders(remote)
        remote.replaces = await _replaces(remote)
        remote.tried = True
        if await remote.look(MARK) is None:
            named, _ = await give_name(remote, _PART, MARK)
            if await remote.look(MARK) is None:
                raise await remote.trouble(MARK, named)
    finally:
        if not remote.session.broken:
            await remote.ask(*(remote.client.remove(remote.path(path)) for path in (_PART, _SECOND)))
    await remote.sync_folder(PurePosixPath("."))


async def _begin(remote: Remote) -> asyncssh.SFTPClientFile:
    """Open the file that is written for a try; wait while another courier of this target is at it. What has lain there
    for some seconds is a killed one's.
    """
    missing = 0
    for turn in range(2 * _TURNS):
        opened, found = await remote.ask(remote.open(_PART, "xb+"), remote.client.lstat(remote.path(_PART)))
        if isinstance(opened, asyncssh.SFTPClientFile):
            return opened
        missing = missing + 1 if isinstance(found, SFTPError) else 0
        if missing > 1:
            break
        if turn >= _TURNS:
            await remote.remove(_PART)
        await asyncio.sleep(_TURN_S)
    raise await remote.trouble(_PART, opened)


async def _write(remote: Remote, file: asyncssh.SFTPClientFile) -> None:
    written, synced, back, _ = await remote.ask(
        file.write(_TEXT, 0), file.fsync(), file.read(len(_TEXT) + 1, 0), file.close()
    )
    remote.fsync = not isinstance(synced, asyncssh.SFTPOpUnsupported)
    for answer in (written, synced if remote.fsync else None, back):
        if isinstance(answer, SFTPError):
            raise await remote.trouble(_PART, answer, len(_TEXT))
    if back != _TEXT:
        raise WillPass(f"{remote.shown()} on the server does not return what was written: the disk there fails")


async def _syncs_folders(remote: Remote) -> bool:
    """Whether a folder can be opened as if it were a file, and fsynced: on Linux it can."""
    (opened,) = await remote.ask(remote.open_folder(PurePosixPath(".")))
    if isinstance(opened, SFTPError):
        return False
    synced, _ = await remote.ask(opened.fsync(), opened.close())
    return not isinstance(synced, SFTPError)


async def _replaces(remote: Remote) -> bool:
    """Whether a rename replaces what has the new name. Raises WillPass."""
    part, second, client = remote.path(_PART), remote.path(_SECOND), remote.client
    await remote.remove(_SECOND)
    (made,) = await remote.need(_SECOND, remote.open(_SECOND, "xb"))
    _, again, over = await remote.ask(made.close(), remote.open(_SECOND, "xb"), client.rename(part, second))
    await remote.close(again)
    if isinstance(over, SFTPError):
        answers = await remote.ask(client.remove(second), client.rename(part, second), client.rename(second, part))
        if any(isinstance(answer, SFTPError) for answer in answers):
            raise WillPass(f"{remote.shown()} on the server: files cannot be renamed there; give the user the right")
        return False
    if not isinstance(again, SFTPError):
        raise WillPass(f"{remote.shown()}: the server there replaces files, however it is asked: it cannot be used")
    await remote.need(_PART, client.rename(second, part))
    return True
