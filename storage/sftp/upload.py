"""A file on its way to the server."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import zip_longest
from pathlib import PurePosixPath

from ..targets import NameTaken, TargetError, WillPass
from . import naming, wire
from .probe import MARK
from .remote import FSYNC, WINDOW, Full, Remote, part_of
from .stream import content
from .wire import Reply, Request, Ticket

SYNC_EVERY = 32 << 20
"""Bytes after which what was written goes to the disk there: one fsync of a long file would look like a stall."""

_AT_ONCE = 1 << 18
_FOR_BOTH = wire.READING | wire.WRITING | wire.CREATING
_TRIES = 3


class SftpUpload:
    """See targets.Upload."""

    def __init__(self, remote: Remote, path: PurePosixPath, size: int, digest: str) -> None:
        self.kept = 0
        self._remote, self._session, self._path, self._size = remote, remote.session, path, size
        self._part = part_of(path, digest)
        self._stays = bool(digest)
        self._written: deque[Ticket] = deque()
        self._offset = self._unsynced = 0
        if digest:
            self._find_room()
        self._handle, self._folder = b"", b""
        self._open(digest)
        self._offset = self.kept

    def write(self, block: bytes) -> None:  # noqa: D102 - see targets.Upload
        view, session = memoryview(block), self._session
        most = max(1, WINDOW // session.max_write)
        for start in range(0, len(view), session.max_write):
            piece = view[start : start + session.max_write]
            self._written.append(session.post(wire.write(self._handle, self._offset, piece)))
            self._offset += len(piece)
            self._unsynced += len(piece)
            if self._unsynced >= SYNC_EVERY:
                self._sync()
            if session.queued_bytes >= _AT_ONCE:
                session.settle(most)
                self._judge()

    def read_back(self) -> Iterator[bytes]:  # noqa: D102
        self._sync()
        (found,) = self._call(wire.fstat(self._handle))
        size = self._offset if found.attributes.size is None else found.attributes.size
        yield from content(self._remote, self._part, self._handle, size)

    def discard(self) -> None:  # noqa: D102
        self._stays = False

    def finish(self) -> None:
        """Make it durable and name it. Raises NameTaken, TargetError."""
        self._sync()
        self._call()
        remote, name, part = self._remote, self._remote.path(self._path), self._remote.path(self._part)
        linked = remote.nature.way == naming.LINK
        # A long file's part goes when its name is certain, a short one's in the same go.
        also = [wire.lstat(name), *self._sync_folder(), *([wire.remove(part)] if linked and not self._stays else [])]
        named, found, *others = naming.give_name(self._session, remote.nature.way, part, name, also)
        remote.named(self._path)
        if not named.ok:
            self._not_named(named, found)
        if not named.ok or (linked and (self._stays or not others[-1].ok)):
            self._remove()
        self._session.post(wire.close(self._handle))
        if self._folder and not others[0].ok:
            raise remote.trouble(self._path.parent, others[0])
        if named.ok and found.attributes.size == self._offset:
            remote.arrived(self._path, self._offset)

    def abandon(self, error: BaseException) -> None:
        """Leave nothing, or what the next attempt goes on from. Raises nothing."""
        if isinstance(error, (Full, NameTaken)):
            self._stays = False
        if self._session.broken:
            return
        with suppress(TargetError):
            self._session.settle()
            self._session.post(wire.close(self._handle))
            if self._stays:
                self._session.settle()
            else:
                self._remove()

    def _open(self, digest: str) -> None:
        """Open the file that is written to, in a folder that is made where it is missing. Raises TargetError."""
        remote, part = self._remote, self._remote.path(self._part)
        flags = _FOR_BOTH | (0 if digest else wire.EXCLUSIVE)
        for _ in range(_TRIES):
            self._enter_folder()
            if digest:
                self._clear(part)
            marked, opened = self._session.call(
                wire.lstat(remote.path(MARK)), wire.open_file(part, flags, remote.file_mode)
            )
            if opened.ok and marked.ok:
                self._handle = opened.data
                return
            if opened.ok:
                self._session.call(wire.close(opened.data), wire.remove(part))
            if not marked.ok:
                raise unmarked(remote)
            if opened.code == wire.NO_SUCH_FILE:
                remote.forget(self._path.parent)  # somebody has removed the folder
            elif opened.code != wire.FAILURE or not self._session.call(wire.remove(part))[0].ok:
                break
        raise remote.trouble(self._path, opened, self._size)

    def _enter_folder(self) -> None:
        """Have the folder above it. A place that is not what it was, a mount point without its disk, gets none."""
        remote = self._remote
        folder = remote.folder_handle(self._path.parent)
        if folder is None:
            if not self._session.call(wire.lstat(remote.path(MARK)))[0].ok:
                raise unmarked(remote)
            folder = remote.make_folder(self._path.parent)
        self._folder = folder

    def _clear(self, part: bytes) -> None:
        """Remove what other attempts have left, and see what there is of ours."""
        remote = self._remote
        for other in remote.leftovers(self._path, fresh=True):
            if other != self._part:
                self._session.call(wire.remove(remote.path(other)))
        found, named = self._session.call(wire.lstat(part), wire.lstat(remote.path(self._path)))
        if not found.ok:
            return
        kept = found.attributes.size or 0
        if named.ok or kept > self._size or not found.attributes.is_file:
            # A part may be another name of the whole file: writing to it would change that.
            self._session.call(wire.remove(part))
        else:
            self.kept = kept if self._session.in_order else max(0, kept - WINDOW)

    def _find_room(self) -> None:
        """Raises Full if there is no room, before anything is sent."""
        room = self._remote.room()
        if room and room[0] < self._size:
            (found,) = self._session.call(wire.lstat(self._remote.path(self._part)))
            if room[0] < self._size - (found.attributes.size or 0):
                raise self._remote.trouble(self._path, Reply(wire.FAILURE), self._size)

    def _sync(self) -> None:
        if self._remote.fsync and self._unsynced:
            self._written.append(self._session.post(wire.extended(FSYNC, self._handle)))
        self._unsynced = 0

    def _sync_folder(self) -> list[Request]:
        return [wire.extended(FSYNC, self._folder)] if self._folder else []

    def _call(self, *requests: Request) -> list[Reply]:
        """As Session.call, after what was written has been judged."""
        replies = self._session.call(*requests)
        self._judge()
        return replies

    def _judge(self) -> None:
        """Look at the replies that have come. Raises TargetError."""
        while self._written and (reply := self._written[0].reply) is not None:
            self._written.popleft()
            if not reply.ok:
                raise self._remote.trouble(self._path, reply, self._size - self.kept)

    def _remove(self) -> None:
        """Remove the temporary name. Raises TargetError."""
        remove = wire.remove(self._remote.path(self._part))
        (done,) = self._session.call(remove)
        if done.code not in (wire.OK, wire.NO_SUCH_FILE):  # some servers remove nothing that is open
            _, done = self._session.call(wire.close(self._handle), remove)
            if done.code not in (wire.OK, wire.NO_SUCH_FILE):
                raise self._remote.trouble(self._part, done)

    def _not_named(self, named: Reply, found: Reply) -> None:
        """Return if the name belongs to the same content. Raises NameTaken, TargetError."""
        if not found.ok:
            raise self._remote.trouble(self._path, named)
        if found.attributes.is_file and found.attributes.size == self._offset:
            (opened,) = self._session.call(wire.open_file(self._remote.path(self._path), wire.READING))
            if opened.ok:
                try:
                    if self._same(opened.data):
                        return
                finally:
                    self._session.post(wire.close(opened.data))
        raise NameTaken(f"{self._remote.shown(self._path)} on the server has other content")

    def _same(self, other: bytes) -> bool:
        """Whether another open file has the same content. The handle outlives the temporary name."""
        ours, theirs = (content(self._remote, self._path, one, self._offset) for one in (self._handle, other))
        return all(one == two for one, two in zip_longest(_even(ours), _even(theirs)))


def unmarked(remote: Remote) -> WillPass:
    """Return the error of a place that is not what it was."""
    return WillPass(
        f"{remote.shown()} on the server is not what it was: {MARK} is missing. Is the disk mounted there? If it is "
        f"a new one, make an empty file of that name in it"
    )


def _even(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in blocks of one size, and a rest."""
    held = bytearray()
    for block in blocks:
        held += block
        while len(held) >= _AT_ONCE:
            yield bytes(held[:_AT_ONCE])
            del held[:_AT_ONCE]
    yield bytes(held)
