"""A file's bytes from the server, with many requests in flight."""

from collections import deque
from collections.abc import Iterator
from pathlib import PurePosixPath

from . import wire
from .remote import WINDOW, Remote
from .wire import Ticket


def content(remote: Remote, path: PurePosixPath, handle: bytes, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of an open file, or as much as there is. Raises TargetError."""
    session, asked = remote.session, 0
    waiting: deque[tuple[int, int, Ticket]] = deque()
    most = max(1, WINDOW // session.max_read)
    while waiting or asked < size:
        while asked < size and len(waiting) < most:
            length = min(session.max_read, size - asked)
            waiting.append((asked, length, session.post(wire.read(handle, asked, length))))
            asked += length
        offset, length, ticket = waiting.popleft()
        while ticket.reply is None:
            session.settle(max(0, len(waiting) - most // 2))
        reply = ticket.reply
        if reply.code == wire.EOF:
            return
        if not reply.ok:
            raise remote.trouble(path, reply)
        yield reply.data
        if len(reply.data) < length:  # servers may give less than was asked for
            offset, length = offset + len(reply.data), length - len(reply.data)
            waiting.appendleft((offset, length, session.post(wire.read(handle, offset, length))))
