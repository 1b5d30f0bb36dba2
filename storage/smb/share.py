"""A share on a server: its files and folders, over a connection that is made when it is needed, and made anew."""

import time
from collections import deque
from collections.abc import Iterator

from ..targets import ForGood, WillPass
from . import errors, packets
from .errors import explained
from .packets import Entry, Opened, Request
from .place import SmbPlace
from .wire import Broken, Reply, Wire

CHUNK = 1 << 20
"""Bytes of a read or write, at most."""
WINDOW = 4
"""Reads or writes that are under way at a time."""

_IDLE_S = 60.0
"""After so long a connection is made anew: servers and firewalls drop idle ones without a word."""
_LISTING = 65536
_UNBUFFERED_FROM = 0x302
_NOT_IN_A_NAME = frozenset('\\/:*?"<>|') | {chr(code) for code in range(32)}


class Share:
    """Belongs to one thread. Paths are relative to the share, with backslashes; "" is the share itself."""

    def __init__(self, place: SmbPlace, limit: float) -> None:
        self.place = place
        self._limit = limit
        self._wire: Wire | None = None
        self._about: dict[str, str] = {}
        self._used = 0.0

    def wire(self) -> Wire:
        """Return the connection, a new one if there is none that works. Raises WillPass."""
        from .login import log_in

        idle = time.monotonic() - self._used
        if self._wire is None or self._wire.broken or idle > _IDLE_S or self._wire.is_stale:
            self.close()
            logged_in = log_in(self.place, self._limit)
            self._wire, self._about = logged_in.wire, logged_in.about
        self._used = time.monotonic()
        return self._wire

    def about(self) -> dict[str, str]:
        """Return what there is to say of the connection. Raises WillPass."""
        self.wire()
        return dict(self._about)

    def close(self) -> None:
        """Drop the connection, if there is one."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def call(self, path: str, *requests: Request, wire: Wire | None = None) -> list[Reply]:
        """Send requests that are about a path as one compound, and return the answers. Raises WillPass."""
        wire = wire or self.wire()
        return [self.reply(path, number, wire) for number in self.send(path, wire, *requests)]

    def send(self, path: str, wire: Wire, *requests: Request) -> list[int]:
        """Send requests as one compound, without waiting. Raises WillPass."""
        try:
            return wire.send(*requests)
        except Broken as error:
            raise self.broken(path, error) from error

    def reply(self, path: str, number: int, wire: Wire) -> Reply:
        """Wait for an answer. Raises WillPass."""
        try:
            reply = wire.reply(number)
        except Broken as error:
            raise self.broken(path, error) from error
        if reply.status in errors.GONE:
            wire.close()
            raise explained(reply.status, self.where(path))
        self._used = time.monotonic()
        return reply

    def broken(self, path: str, error: Broken) -> WillPass:
        """Drop the connection, and return the error for people."""
        self.close()
        return WillPass(f"{self.where(path)}: {error}; it is tried again. Does the server run, and the network?")

    def where(self, path: str) -> str:
        """Return a path as people know it."""
        return f"{self.place.share_path}\\{path}".rstrip("\\")

    def expect(self, reply: Reply, path: str) -> memoryview:
        """Return the packet of a good answer. Raises the TargetError that a bad one stands for."""
        if reply.status:
            raise explained(reply.status, self.where(path))
        return reply.packet

    def find(self, path: str) -> Opened | None:
        """Look whether something has a name. Raises TargetError."""
        request = packets.create(path, packets.READ_ATTRIBUTES, options=packets.THE_LINK_ITSELF)
        reply = self.call(path, request, packets.close())[0]
        if reply.status in (errors.NAME_NOT_FOUND, errors.PATH_NOT_FOUND, errors.NOT_A_FOLDER):
            return None
        return packets.opened(self.expect(reply, path))

    def read(self, path: str) -> Iterator[bytes]:
        """Yield a file's content, asked of the server. Raises TargetError."""
        wire = self.wire()
        request = packets.create(path, packets.READ_DATA | packets.READ_ATTRIBUTES, options=packets.FILE)
        file = packets.opened(self.expect(self.call(path, request, wire=wire)[0], path))
        try:
            yield from self.blocks(path, wire, file.handle, file.size)
        finally:
            self.let_go(wire, packets.close(file.handle))

    def blocks(self, path: str, wire: Wire, handle: bytes, size: int) -> Iterator[bytes]:
        """Yield what an open file holds, and a little more if it is longer than `size`. Raises TargetError."""
        chunk = wire.affords(CHUNK, wire.ends.max_read)
        unbuffered = wire.ends.dialect >= _UNBUFFERED_FROM
        starts = iter(range(0, size + 1, chunk))
        waiting: deque[int] = deque()
        ended = False
        while not ended:
            for start in starts:
                waiting += self.send(path, wire, packets.read(start, chunk, handle, unbuffered))
                if len(waiting) >= WINDOW:
                    break
            if not waiting:
                return
            reply = self.reply(path, waiting.popleft(), wire)
            if reply.status != errors.END_OF_FILE:
                content = bytes(packets.content(self.expect(reply, path)))
                yield content
            ended = reply.status == errors.END_OF_FILE or len(content) < chunk
        for number in waiting:
            wire.forget(number)

    def let_go(self, wire: Wire, *requests: Request) -> None:
        """Send requests whose answers, and whose arrival, do not matter. Raises nothing."""
        if wire.broken:
            return
        try:
            for number in wire.send(*requests):
                wire.forget(number)
        except Broken:
            self.close()

    def make_folder(self, path: str, root: str) -> None:
        """Make a folder below `root`, and those above it, unless they exist. Raises TargetError."""
        if path == root:
            raise self.no_root(root)
        request = packets.create(path, packets.READ_ATTRIBUTES, packets.OPEN_OR_MAKE, packets.FOLDER)
        reply = self.call(path, request, packets.close())[0]
        if reply.status == errors.PATH_NOT_FOUND:
            self.make_folder(path.rpartition("\\")[0], root)
            reply = self.call(path, request, packets.close())[0]
        if reply.status == errors.NAME_COLLISION:
            raise explained(errors.NOT_A_FOLDER, self.where(path))
        self.expect(reply, path)

    def no_root(self, root: str) -> WillPass:
        """Return the error of a target's folder that is not there."""
        return WillPass(
            f"{self.where(root)} is not there: is its disk in the server? If the target is new, make the folder"
        )

    def entries(self, folder: str, pattern: str) -> list[Entry]:
        """Return what matches in a folder; nothing where there is none. Raises TargetError."""
        wire = self.wire()
        request = packets.create(folder, packets.READ_DATA | packets.READ_ATTRIBUTES, options=packets.FOLDER)
        first, reply = self.call(folder, request, packets.entries(pattern, _LISTING), wire=wire)
        if first.status in (errors.NAME_NOT_FOUND, errors.PATH_NOT_FOUND, errors.NOT_A_FOLDER):
            return []
        handle = packets.opened(self.expect(first, folder)).handle
        found = []
        while reply.status not in (errors.NO_MORE_FILES, errors.NO_SUCH_FILE):
            found += packets.listed(self.expect(reply, folder))
            (reply,) = self.call(folder, packets.entries(pattern, _LISTING, handle), wire=wire)
        self.let_go(wire, packets.close(handle))
        return found

    def remove(self, path: str) -> None:
        """Remove a file or an empty folder, if there is one. Raises TargetError."""
        options = packets.DELETE_ON_CLOSE | packets.THE_LINK_ITSELF
        reply = self.call(path, packets.create(path, packets.DELETE, options=options), packets.close())[0]
        if reply.status not in (errors.NAME_NOT_FOUND, errors.PATH_NOT_FOUND):
            self.expect(reply, path)

    def remove_tree(self, folder: str) -> None:
        """Remove a folder with all that is in it, if there is one. Raises TargetError."""
        for entry in self.entries(folder, "*"):
            path = f"{folder}\\{entry.name}"
            if entry.is_folder:
                self.remove_tree(path)
            else:
                self.remove(path)
        self.remove(folder)

    def check_name(self, name: str) -> None:
        """Raises ForGood for what is no name in a share: some would even be taken for something else."""
        try:
            size = len(name.encode("utf-16-le")) // 2
        except UnicodeEncodeError:
            size = 0
        if not 0 < size <= 255 or name in (".", "..") or _NOT_IN_A_NAME & set(name):
            raise ForGood(
                f"{self.place.share_path} cannot keep the name {name!r}: choose a folder and name template without "
                r'\ / : * ? " < > | in it'
            )
