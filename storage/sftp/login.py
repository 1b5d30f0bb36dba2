"""Getting a session: the host key first, then password or key. Imported only when a connection is wanted: asyncssh is
slow to load. Nothing of the user's own SSH set-up is used: no agent, no ~/.ssh, no GSSAPI.
"""

import asyncio
import logging
import os
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import asyncssh

from ..safe_text import for_line
from ..targets import WillPass
from .host_key import FAMILIES, HostKey, NotAHostKey, fingerprint, host_key
from .session import Facts, Session, discard

if TYPE_CHECKING:
    from ..sftp_target import SftpPlace

_CIPHERS = (
    "aes128-gcm@openssh.com",  # the fastest with the processors' own instructions
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes256-ctr",
    "chacha20-poly1305@openssh.com",
)
_RIGHTS_OF_OTHERS = 0o177
_ALL = tuple(algorithm for family in FAMILIES for algorithm in family)
_NAMES = {"ssh-rsa": "rsa-sha2-512"}
"""Kinds of key whose algorithm is called otherwise."""

for _name in ("asyncssh", "asyncssh.sftp"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)  # what is to be said is said in our errors


@dataclass(slots=True)
class Login:
    """Logs in to one place; remembers which kind of host key `fits`."""

    place: "SftpPlace"
    limit: float
    fits: tuple[str, ...] = ()

    def session(self) -> Session:
        """Connect. Raises WillPass."""
        wanted = self._wanted()
        options = _identity(self.place)
        presented: dict[str, str] = {}
        failed: WillPass | None = None
        for algorithms in self._plans(wanted):
            if any(_NAMES.get(kind, kind) in algorithms for kind in presented.values()) and algorithms != _ALL:
                continue
            attempt = _Attempt(self.place, self.limit, wanted, algorithms)
            session = attempt.run(options)
            if session is not None:
                kind = next(_NAMES.get(kind, kind) for kind in attempt.presented.values())
                self.fits = next((family for family in FAMILIES if kind in family), _ALL)
                return session
            presented |= attempt.presented
            failed = attempt.failed or failed
        self.fits = ()
        if failed and not presented:
            raise failed
        raise _not_trusted(self.place, wanted, presented)

    def _plans(self, wanted: HostKey | None) -> Iterable[tuple[str, ...]]:
        """Return the algorithms to offer, one connection after another: a server shows one of its host keys at a time,
        and the wanted one may not be the one it prefers.
        """
        known = wanted.families if wanted and wanted.kind else ()
        others = FAMILIES if wanted and not wanted.kind else ()
        return dict.fromkeys(plan for plan in (self.fits, *known, _ALL, *others) if plan)

    def _wanted(self) -> HostKey | None:
        try:
            return host_key(self.place.host_key)
        except NotAHostKey as error:
            raise WillPass(f"host_key of target {self.place.name} is no host key: {error}") from None


class _Attempt:
    """One connection with one family of host keys."""

    def __init__(self, place: "SftpPlace", limit: float, wanted: HostKey | None, family: tuple[str, ...]) -> None:
        self.place, self.limit, self.wanted, self.family = place, limit, wanted, family
        self.presented: dict[str, str] = {}
        self.trusted = ""
        self.failed: WillPass | None = None

    def run(self, identity: dict[str, Any]) -> Session | None:
        """Return the session; None where the host key is not the wanted one, or there is none of this family."""
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        session = Session(where(self.place), loop, self.limit)
        try:
            loop.run_until_complete(asyncio.wait_for(self._connect(session, identity), self.limit))
            session.greet()
        except asyncssh.HostKeyNotVerifiable:
            discard(loop)
            return None
        except (asyncssh.ConnectionLost, ConnectionResetError) as error:
            discard(loop)
            self.failed = self._explained(error, identity)
            if self.trusted or (self.family == _ALL and not self.presented):
                raise self.failed from None
            return None  # that is how OpenSSH says that it has no such host key
        except WillPass:
            session.close()
            raise
        except (TimeoutError, OSError, asyncssh.Error, UnicodeError, ValueError) as error:
            discard(loop)
            raise self._explained(error, identity) from None
        except BaseException:
            discard(loop)
            raise
        return session

    def judge(self, key: asyncssh.SSHKey) -> bool:
        """Whether this is the host key that the configuration names. Nothing is sent before it is."""
        mark = fingerprint(key.public_data)
        self.presented[mark] = key.get_algorithm()
        if self.wanted is None or mark != self.wanted.fingerprint:
            return False
        self.trusted = f"{mark} ({key.get_algorithm()})"
        return True

    async def _connect(self, session: Session, identity: dict[str, Any]) -> None:
        place = self.place
        connection = await asyncssh.connect(
            place.host,
            place.port,
            client_factory=lambda: _Client(self),
            config=None,
            known_hosts=([], [], []),
            server_host_key_algs=list(self.family),
            encryption_algs=list(_CIPHERS),
            compression_algs=["none"],
            username=place.user,
            agent_path=None,
            agent_forwarding=False,
            gss_host=None,
            gss_kex=False,
            gss_auth=False,
            host_based_auth=False,
            x509_trusted_certs=None,
            x11_forwarding=False,
            keepalive_interval=0,
            connect_timeout=self.limit,
            login_timeout=self.limit,
            **identity,
        )
        channel, _ = await connection.create_session(
            lambda: _Channel(session), subsystem="sftp", encoding=None, request_pty=False
        )
        facts = Facts(
            for_line(str(connection.get_extra_info("server_version", "")).removeprefix("SSH-2.0-"), 100),
            self.trusted,
            str(connection.get_extra_info("send_cipher", "")),
            place.user,
        )
        session.begin(connection, channel, facts)

    def _explained(self, error: Exception, identity: dict[str, Any]) -> WillPass:
        return WillPass(f"{where(self.place)} {_why(error, self.place, self.limit, identity)}")


class _Client(asyncssh.SSHClient):
    def __init__(self, attempt: _Attempt) -> None:
        self._attempt = attempt

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return self._attempt.judge(key)


class _Channel(asyncssh.SSHClientSession[bytes]):
    def __init__(self, session: Session) -> None:
        self._session = session

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is None:
            self._session.received(data)

    def eof_received(self) -> bool:
        self._session.lost("the server has ended the session")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.lost("the connection broke off")


def where(place: "SftpPlace") -> str:
    """Return how a server is called to people."""
    return f"{place.host}:{place.port}"


def _identity(place: "SftpPlace") -> dict[str, Any]:
    """Return what shows who we are, as options of asyncssh. Raises WillPass."""
    options: dict[str, Any] = {"client_keys": None, "public_key_auth": False, "password_auth": False}
    options["kbdint_auth"] = False
    if place.key_file:
        options |= {"client_keys": [_key(place)], "public_key_auth": True}
    if place.password is not None:
        options |= {"password": place.password.reveal(), "password_auth": True, "kbdint_auth": True}
    if not place.key_file and place.password is None:
        raise WillPass(f"target {place.name} has neither a password nor a key_file: see docs/configuration.md")
    return options


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


def _why(error: Exception, place: "SftpPlace", limit: float, identity: dict[str, Any]) -> str:
    """Say in plain words why there is no session, and what to do."""
    match error:
        case socket.gaierror():
            return "is not known to the name server: check `host`, or whether the network is there"
        case ConnectionRefusedError():
            return "refuses connections: does the SSH server run there, and is `port` right?"
        case TimeoutError():
            return f"does not answer within {limit:.0f} s: is it on, and does a firewall let us through to its port?"
        case asyncssh.PermissionDenied():
            return _refused(place, identity)
        case asyncssh.ChannelOpenError() | BrokenPipeError():
            return f"lets {place.user} in, but offers no SFTP: switch the sftp subsystem on there, for this user"
        case asyncssh.KeyExchangeFailed():
            return f"and we have no method of encryption in common: {for_line(str(error), 200)}; update the server"
        case asyncssh.ConnectionLost() | ConnectionResetError():
            return "broke the connection off before we were in: see the SSH server's log for why"
        case OSError():
            return f"cannot be reached: {error.strerror or 'no route to it'}; check the network, `host` and `port`"
        case _:
            return f"does not talk SSH as it should: {for_line(str(error), 200)}; see the SSH server's log"


def _refused(place: "SftpPlace", identity: dict[str, Any]) -> str:
    words = []
    if place.key_file:
        key = cast(asyncssh.SSHKey, identity["client_keys"][0])
        line = key.export_public_key().decode().strip()
        words.append(f"the key {place.key_file} (on the server, its authorized_keys needs the line: {line})")
    if place.password is not None:
        words.append("the password (check it, and whether the server allows passwords)")
    return f"refuses user {place.user} with {' and '.join(words)}"


def _not_trusted(place: "SftpPlace", wanted: HostKey | None, presented: dict[str, str]) -> WillPass:
    """Say that nothing was sent, and what to compare."""
    shown = ", ".join(f"{mark} ({kind})" for mark, kind in presented.items()) or "none that we know"
    compare = "on the server itself run: for f in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $f; done"
    if wanted is None:
        line = " or ".join(f'host_key = "{mark}"' for mark in presented)
        return WillPass(
            f"{where(place)}: no host key is configured for target {place.name}, so nothing was sent. The server shows "
            f"{shown}. Compare it with the server's own ({compare}); only if it is the same, put this line into the "
            f"target's section: {line}"
        )
    return WillPass(
        f"{where(place)}: ALARM: THE HOST KEY IS NOT THE CONFIGURED ONE. Somebody may be listening in between, or the "
        f"server was set up anew. Nothing was sent. Configured: {wanted.fingerprint}; the server shows: {shown}. Ask "
        f"the server's administrator, and compare: {compare}. Change host_key only if the new one is the server's own"
    )
