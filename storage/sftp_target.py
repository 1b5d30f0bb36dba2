"""A folder on an SFTP server as a target: NAS devices and Linux and Windows servers have one.

The server is known by its host key, which the configuration names; without it nothing is sent. What follows from each
step is in sftp/: login.py (host key, password, key), session.py (requests in flight, time limits), naming.py (why no
file is ever replaced), probe.py (what a server can do), upload.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from .secret import Secret
from .sftp import naming, wire
from .sftp.probe import MARK, probe
from .sftp.remote import Nature, Remote
from .sftp.session import LIMIT_S
from .sftp.stream import content
from .sftp.upload import SftpUpload, unmarked
from .targets import NameTaken

if TYPE_CHECKING:
    from .sftp.login import Login
    from .sftp.session import Session

__all__ = ["MARK", "SftpPlace", "SftpTarget"]


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


@dataclass(slots=True)
class _Line:
    """The connection to a server, made when it is needed."""

    place: SftpPlace
    limit: float
    login: "Login | None" = None
    current: "Session | None" = None

    def session(self) -> "Session":
        """Return a session that works, as far as is known. Raises WillPass."""
        if self.current is not None and self.current.broken:
            self.close()
        if self.current is None:
            from .sftp.login import Login

            self.login = self.login or Login(self.place, self.limit)
            self.current = self.login.session()
        return self.current

    def close(self) -> None:
        """Drop it. Raises nothing."""
        if self.current is not None:
            self.current.close()
            self.current = None


class SftpTarget:
    """Keeps copies below a folder of an SFTP server, which has to exist. `limit` is the time in seconds without any
    answer after which a call gives up.
    """

    def __init__(self, place: SftpPlace, limit: float = LIMIT_S, line: _Line | None = None) -> None:
        self._place = place
        self._line = line or _Line(place, limit)
        self._nature = Nature()
        self._used: Remote | None = None

    @property
    def name(self) -> str:
        """The name that the configuration gives it."""
        return self._place.name

    def check(self, known: bool) -> None:
        """Connect; write and read back a few bytes; mark the folder at the first time. Raises TargetError."""
        self._used = self._look(known)
        probe(self._used)

    def size(self, path: PurePosixPath) -> int | None:
        """Return a file's size, and clear away what an attempt at it has left. Raises TargetError."""
        remote = self._remote()
        if (fresh := remote.fresh(path)) is not None:
            return fresh
        if remote.missing(path):
            return None
        (found,) = remote.session.call(wire.lstat(remote.path(path)))
        if found.code == wire.NO_SUCH_FILE:
            remote.missed(path)
            return None
        if not found.ok:
            raise remote.trouble(path, found)
        if not found.attributes.is_file:
            raise NameTaken(f"{remote.shown(path)} on the server is no file")
        for part in remote.leftovers(path):
            remote.session.call(wire.remove(remote.path(part)))
        if remote.nature.way in (naming.CLAIM, naming.CLAIM_PLAINLY):
            return found.attributes.size or None
        return found.attributes.size

    def read(self, path: PurePosixPath) -> Iterator[bytes]:
        """Yield a file's content, as the server has it. Raises TargetError."""
        remote = self._remote()
        name = remote.path(path)
        found, opened = remote.session.call(wire.lstat(name), wire.open_file(name, wire.READING))
        remote.session.held += 1
        try:
            if not opened.ok:
                raise remote.trouble(path, opened)
            if not found.attributes.is_file:
                raise NameTaken(f"{remote.shown(path)} on the server is no file")
            yield from content(remote, path, opened.data, found.attributes.size or 0)
        finally:
            remote.session.held -= 1
            if opened.ok and not remote.session.broken:
                remote.session.post(wire.close(opened.data))

    @contextmanager
    def upload(self, path: PurePosixPath, size: int, digest: str = "") -> Iterator[SftpUpload]:
        """Take in a file. Raises TargetError."""
        remote = self._remote()
        if not self._nature.way:
            self._look(known=True)
            probe(remote)
        upload = SftpUpload(remote, path, size, digest)
        remote.session.held += 1
        try:
            yield upload
            upload.finish()
        except BaseException as error:
            upload.abandon(error)
            raise
        finally:
            remote.session.held -= 1

    @contextmanager
    def trial(self, folder: str, known: bool) -> Iterator["SftpTarget"]:
        """Lend a target in a folder below this one, over the same connection. Raises TargetError."""
        remote, path = self._look(known), PurePosixPath(folder)
        remote.remove_tree(path)
        (made,) = remote.session.call(wire.make_folder(remote.path(path), 0o700))
        if not made.ok:
            raise remote.trouble(path, made)
        try:
            yield SftpTarget(replace(self._place, folder=str(PurePosixPath(self._place.folder, path))), line=self._line)
        finally:
            self._look(known).remove_tree(path)

    def about(self) -> dict[str, str]:
        """Return what there is to say of the connection. Raises TargetError."""
        remote = self._remote()
        facts = remote.session.facts
        no_fsync = "no: the server has no fsync@openssh.com, and a power cut there may cost what was just delivered"
        return {
            "server": facts.server,
            "host key": facts.host_key,
            "cipher": facts.cipher,
            "user": facts.user,
            "durable": ("yes" if remote.nature.folder_sync else "files, not folders") if remote.fsync else no_fsync,
            "naming": naming.EXPLAINED.get(remote.nature.way, "not tried yet"),
        }

    def close(self) -> None:
        """Drop the connection. Raises nothing."""
        self._used = None
        self._line.close()

    def _look(self, known: bool) -> Remote:
        """Return the place, which has been looked at. Raises TargetError if it is not there, or not the known one."""
        session = self._line.session()
        remote = Remote(session, self._place.folder, self._place.user, self._nature)
        remote.find()
        if known and not session.call(wire.lstat(remote.path(MARK)))[0].ok:
            raise unmarked(remote)
        return remote

    def _remote(self) -> Remote:
        """Return the place over a connection that works. Raises TargetError."""
        session = self._line.session()
        if self._used is None or self._used.session is not session:
            self._used = self._look(known=False)
        return self._used
