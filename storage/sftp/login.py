"""Getting in: the host key first, then password or key. Loaded only when a connection is wanted: asyncssh is slow to
load. Nothing of the user's own SSH set-up is used: no agent, no ~/.ssh, no GSSAPI.
"""

import asyncio
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh

from ..safe_text import for_line
from ..targets import WillPass
from .host_key import HostKey, NotAHostKey, host_key

if TYPE_CHECKING:
    from ..sftp_target import SftpPlace

_CIPHERS = (
    "aes128-gcm@openssh.com",  # the fastest with the processors' own instructions
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes256-ctr",
    "chacha20-poly1305@openssh.com",
)
_ALGORITHMS = {
    "ssh-ed25519": ("ssh-ed25519",),
    **{f"ecdsa-sha2-nistp{bits}": (f"ecdsa-sha2-nistp{bits}",) for bits in (256, 384, 521)},
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
"""Kinds of host key, the best first, and how they sign."""

_RIGHTS_OF_OTHERS = 0o177
_OPTIONS: dict[str, Any] = {
    "config": None,
    "known_hosts": ([], [], []),  # the key is judged by us
    "encryption_algs": list(_CIPHERS),
    "compression_algs": ["none"],
    "agent_path": None,
    "gss_host": None,
    "utf8_decode_errors": "replace",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A connection that is let in. `kind` is that of the host key, to ask for first the next time."""

    connection: asyncssh.SSHClientConnection
    client: asyncssh.SFTPClient
    host_key: str
    kind: str

    @property
    def server(self) -> str:
        """What the server calls itself."""
        return for_line(str(self.connection.get_extra_info("server_version", "")).removeprefix("SSH-2.0-"), 100)

    def about(self, user: str) -> dict[str, str]:
        """Return what there is to say of it, for people."""
        cipher = str(self.connection.get_extra_info("send_cipher", ""))
        return {"server": self.server, "host key": self.host_key, "cipher": cipher, "user": user}


class _Judge(asyncssh.SSHClient):
    """Looks at host keys, before anything else is said. Those that the server has shown, by kind, are in `shown`."""

    def __init__(self, wanted: HostKey | None) -> None:
        self.wanted = wanted
        self.shown: dict[str, str] = {}
        self.trusted = ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Whether this is the host key that the configuration names."""
        kind, mark = key.get_algorithm(), key.get_fingerprint()
        self.shown[kind] = mark
        self.trusted = kind if self.wanted and mark == self.wanted.fingerprint else ""
        return bool(self.trusted)


async def log_in(place: "SftpPlace", limit: float, kind: str) -> Line:
    """Connect, and have the server show a host key of this `kind` first, if any is known. It shows one at a time, so
    that the wanted one may take several connections. Raises WillPass.
    """
    judge, identity = _Judge(_wanted(place)), _identity(place)
    first = kind or (judge.wanted.kind if judge.wanted else "")
    for _ in _ALGORITHMS if judge.wanted else (first,):
        left = [one for one in sorted(_ALGORITHMS, key=lambda one: one != first) if one not in judge.shown]
        try:
            async with asyncio.timeout(limit):
                return await _connect(place, judge, left, identity)
        except asyncssh.HostKeyNotVerifiable:
            continue
        except (TimeoutError, OSError, asyncssh.Error, UnicodeError, ValueError) as error:
            broken_off = isinstance(error, (asyncssh.ConnectionLost, asyncssh.KeyExchangeFailed, ConnectionResetError))
            if judge.shown and not judge.trusted and broken_off:
                break  # that is how a server says that it has no other host keys
            raise _explained(error, place, limit, identity) from None
    raise _not_trusted(place, judge)


async def _connect(place: "SftpPlace", judge: _Judge, kinds: list[str], identity: dict[str, Any]) -> Line:
    connection = await asyncssh.connect(
        place.host,
        place.port,
        client_factory=lambda: judge,
        username=place.user,
        server_host_key_algs=[algorithm for kind in kinds for algorithm in _ALGORITHMS[kind]],
        **_OPTIONS,
        **identity,
    )
    try:
        client = await connection.start_sftp_client(path_encoding=None)
    except BaseException:
        connection.abort()
        raise
    return Line(connection, client, f"{judge.shown[judge.trusted]} ({judge.trusted})", judge.trusted)


def where(place: "SftpPlace") -> str:
    """Return how a server is called to people."""
    return f"{place.host}:{place.port}"


def _wanted(place: "SftpPlace") -> HostKey | None:
    try:
        return host_key(place.host_key)
    except NotAHostKey as error:
        raise WillPass(f"host_key of target {place.name} is no host key: {error}") from None


def _identity(place: "SftpPlace") -> dict[str, Any]:
    """Return what shows who we are, as options of asyncssh. Raises WillPass."""
    if not place.key_file and place.password is None:
        raise WillPass(f"target {place.name} has neither a password nor a key_file: see docs/configuration.md")
    word = place.password.reveal() if place.password else None
    return {
        "client_keys": [_key(place)] if place.key_file else None,
        "public_key_auth": bool(place.key_file),
        "password": word,
        "password_auth": word is not None,
        "kbdint_auth": word is not None,
    }


def _key(place: "SftpPlace") -> asyncssh.SSHKey:
    path = Path(place.key_file)
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if stat.S_IMODE(found.st_mode) & _RIGHTS_OF_OTHERS:
                raise WillPass(f"others may read the key {path}, so it is not used; run: chmod 600 '{path}'")
            if found.st_uid not in (0, os.geteuid()):
                raise WillPass(f"the key {path} belongs to somebody else; run: chown root '{path}', or to our user")
            content = file.read(1 << 16)
    except OSError as error:
        raise WillPass(f"the key {path} cannot be read: {error.strerror}") from None
    passphrase = place.key_passphrase.reveal() if place.key_passphrase else None
    try:
        return asyncssh.import_private_key(content, passphrase)
    except asyncssh.KeyEncryptionError:
        text = "its passphrase is wrong" if passphrase else "it has a passphrase, and none is configured"
    except (asyncssh.KeyImportError, ValueError):
        text = "it needs a passphrase, or is no private key" if passphrase is None else "it is no private key"
    raise WillPass(f"the key {path} cannot be used: {text}")


def _explained(error: Exception, place: "SftpPlace", limit: float, identity: dict[str, Any]) -> WillPass:
    """Say in plain words why there is no session, and what to do."""
    match error:
        case socket.gaierror():
            why = "is not known to the name server: check `host`, or whether the network is there"
        case ConnectionRefusedError():
            why = "refuses connections: does the SSH server run there, and is `port` right?"
        case TimeoutError():
            why = f"does not answer within {limit:.0f} s: is it on, and does a firewall let us through to its port?"
        case asyncssh.PermissionDenied():
            why = _refused(place, identity)
        case asyncssh.ChannelOpenError() | asyncssh.SFTPError() | BrokenPipeError():
            why = f"lets {place.user} in, but offers no SFTP: switch the sftp subsystem on there, for this user"
        case asyncssh.KeyExchangeFailed():
            why = f"and we have no method of encryption in common: {for_line(str(error), 200)}; update the server"
        case asyncssh.ConnectionLost() | ConnectionResetError():
            why = "broke the connection off before we were in: see the SSH server's log for why"
        case OSError():
            why = f"cannot be reached: {error.strerror or 'no route to it'}; check the network, `host` and `port`"
        case _:
            why = f"does not talk SSH as it should: {for_line(str(error), 200)}; see the SSH server's log"
    return WillPass(f"{where(place)} {why}")


def _refused(place: "SftpPlace", identity: dict[str, Any]) -> str:
    words = []
    if place.key_file:
        line = identity["client_keys"][0].export_public_key().decode().strip()
        words.append(f"the key {place.key_file} (on the server, its authorized_keys needs the line: {line})")
    if place.password is not None:
        words.append("the password (check it, and whether the server allows passwords)")
    return f"refuses user {place.user} with {' and '.join(words)}"


def _not_trusted(place: "SftpPlace", judge: _Judge) -> WillPass:
    """Say that nothing was sent, and what to compare."""
    shown = ", ".join(f"{mark} ({kind})" for kind, mark in judge.shown.items()) or "none that we know"
    compare = "on the server itself run: for f in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $f; done"
    if judge.wanted is None:
        line = " or ".join(f'host_key = "{mark}"' for mark in judge.shown.values())
        return WillPass(
            f"{where(place)}: no host key is configured for target {place.name}, so nothing was sent. The server shows "
            f"{shown}. Compare it with the server's own ({compare}); only if it is the same, put this line into the "
            f"target's section: {line}"
        )
    return WillPass(
        f"{where(place)}: ALARM: THE HOST KEY IS NOT THE CONFIGURED ONE. Somebody may be listening in between, or the "
        f"server was set up anew. Nothing was sent. Configured: {judge.wanted.fingerprint}; the server shows: {shown}. "
        f"Ask the server's administrator, and compare: {compare}. Change host_key only if the new one is the server's "
        f"own"
    )
