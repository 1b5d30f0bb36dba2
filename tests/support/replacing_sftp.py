"""An SFTP server on loopback that is not OpenSSH, and whose rename replaces what has the new name, as some do.

with replacing_sftp(folder) as server:
    server.files   # what its user sees as server.folder
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import asyncssh


class _Login(asyncssh.SSHServer):
    def __init__(self, server: "ReplacingSftp") -> None:
        self._server = server

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (self._server.user, self._server.password)


class ReplacingSftp:
    """See the module. It has the attributes of tests.support.openssh.OpenSsh that say how to get in."""

    def __init__(self, base: Path) -> None:
        self.files, self.key_file = base / "files", base / "id_ed25519"
        self.more_than_asked = b""
        """What comes behind the bytes that a client has asked for."""
        self.host, self.port, self.user, self.password, self.folder = "127.0.0.1", 0, "me", "open: sesame", "/in"
        self.files.mkdir(parents=True)
        (base / "root").mkdir()
        (base / "root/in").symlink_to(self.files)
        self._root = os.fsencode(base / "root")
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(self.key_file)
        key.write_public_key(base / "authorized")
        self.key_file.chmod(0o600)
        self._authorized = str(base / "authorized")
        self._host_key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
        self.fingerprint = self._host_key.get_fingerprint()

    async def listen(self) -> asyncssh.SSHAcceptor:
        root, server = self._root, self

        class Files(asyncssh.SFTPServer):
            def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
                super().__init__(channel)

            def map_path(self, path: bytes) -> bytes:
                return os.path.normpath(os.path.join(root, path.lstrip(b"/")))

            def rename(self, oldpath: bytes, newpath: bytes) -> None:
                os.replace(self.map_path(oldpath), self.map_path(newpath))

            def read(self, file_obj: object, offset: int, size: int) -> bytes:
                return cast(bytes, super().read(file_obj, offset, size)) + server.more_than_asked

        acceptor = await asyncssh.listen(
            self.host,
            0,
            server_factory=lambda: _Login(self),
            server_host_keys=[self._host_key],
            authorized_client_keys=self._authorized,
            sftp_factory=Files,
        )
        self.port = acceptor.get_port()
        return acceptor


@contextmanager
def replacing_sftp(base: Path) -> Iterator[ReplacingSftp]:
    """Run a server with its state in `base`."""
    server, loop = ReplacingSftp(base), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    acceptor = asyncio.run_coroutine_threadsafe(server.listen(), loop).result(20)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(acceptor.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
