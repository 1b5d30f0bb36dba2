"""A folder on an SFTP server as a target: NAS devices and Linux and Windows servers have one.

The server is known by its host key, which the configuration names; without it nothing is sent. What follows from each
step is in sftp/: login.py (host key, password, key), session.py (the connection, time limits), remote.py (the folder),
probe.py (what a server can do; why no file is ever replaced), upload.py. The protocol is the library's, asyncssh.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from .secret import Secret
from .sftp import MARK

if TYPE_CHECKING:  # the library below these is slow to import
    from .sftp.remote import Remote
    from .sftp.upload import SftpUpload

LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class SftpPlace:
    """Where to, as whom, and how the server is known. `host_key` is a fingerprint `SHA256:...`, a public key, or a line
    of known_hosts. `folder` is absolute, or below the user's own folder there. A password or a key file is needed.
    """

    name: str
    host: str
    folder: str
    user: str
    host_key: str = ""
    port: int = 22
    password: Secret | None = field(default=None, repr=False)
    key_file: str = ""
    key_passphrase: Secret | None = field(default=None, repr=False)


class SftpTarget:
    """Keeps copies below a folder of an SFTP server, which has to exist. `limit` is the time in seconds without any
    answer after which a call gives up.
    """

    def __init__(self, place: SftpPlace, limit: float = LIMIT_S) -> None:
        self._place, self._limit = place, limit
        self._used: Remote | None = None
        self._kind = ""  # of the host key that fitted

    @property
    def name(self) -> str:
        """The name that the configuration gives it."""
        return self._place.name

    def check(self, known: bool) -> None:
        """Connect; write and read back a few bytes; mark the folder at the first time. Raises TargetError."""
        from .sftp.probe import probe

        remote = self._remote
        remote.session.run(remote.find(known))
        remote.session.run(probe(remote))

    def size(self, path: PurePosixPath) -> int | None:
        """Return a file's size. Raises TargetError."""
        return self._remote.session.run(self._remote.size(path))

    def read(self, path: PurePosixPath) -> Iterator[bytes]:
        """Yield a file's content, as the server has it, and clear away what attempts at it have left. Raises
        TargetError.
        """
        remote = self._remote
        yield from remote.session.iterate(remote.read(path))

    @contextmanager
    def upload(self, path: PurePosixPath, size: int, digest: str = "") -> "Iterator[SftpUpload]":
        """Take in a file. Raises TargetError."""
        from .sftp.upload import SftpUpload

        if not self._remote.tried:
            self.check(known=True)
        remote = self._remote
        with remote.session.in_use():
            upload = SftpUpload(remote, path, size, digest)
            try:
                yield upload
                upload.finish()
            except BaseException as error:
                upload.abandon(error)
                raise

    @contextmanager
    def trial(self, folder: str, known: bool) -> Iterator["SftpTarget"]:
        """Lend a target in a folder below this one. Raises TargetError."""
        remote, path = self._remote, PurePosixPath(folder)
        remote.session.run(remote.find(known))
        remote.session.run(remote.remove_tree(path))
        remote.session.run(remote.make_folder(path))
        inner = SftpTarget(replace(self._place, folder=str(PurePosixPath(self._place.folder, path))), self._limit)
        try:
            yield inner
        finally:
            inner.close()
            self._remote.session.run(self._remote.remove_tree(path))

    def about(self) -> dict[str, str]:
        """Return what there is to say of the connection. Raises TargetError."""
        return self._remote.session.line.about(self._place.user) | self._remote.about()

    def close(self) -> None:
        """Drop the connection. Raises nothing."""
        if self._used is not None:
            self._used.session.close()
            self._used = None

    @property
    def _remote(self) -> "Remote":
        """The place, over a connection that works as far as is known. Raises WillPass."""
        from .sftp.remote import Remote
        from .sftp.session import Session

        if self._used is not None and self._used.session.broken:
            self.close()
        if self._used is None:
            kind, self._kind = self._kind, ""
            session = Session(self._place, self._limit, kind)
            self._kind = session.line.kind
            self._used = Remote(session, self._place.folder, self._place.user)
            try:
                session.run(self._used.find(known=False))
            except BaseException:
                self.close()
                raise
        return self._used


__all__ = ["MARK", "SftpPlace", "SftpTarget"]
