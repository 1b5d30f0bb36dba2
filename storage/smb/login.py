"""Log-in to an SMB server: what is agreed on, who we are, which share. The library does it; then the line is ours.

Its thread reads the line during log-in only. The module is loaded by the first log-in: the library is slow to import.
"""

import logging
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.ciphers import aead, algorithms
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from smbprotocol.connection import Ciphers, Connection, Dialects, SigningAlgorithms
from smbprotocol.exceptions import SMBAuthenticationError, SMBConnectionClosed, SMBException, SMBResponseException
from smbprotocol.session import Session
from smbprotocol.tree import TreeConnect

from ..targets import WillPass
from .errors import LOGON_FAILURE, explained
from .place import SmbPlace
from .wire import Ends, Protection, Wire

_DIALECTS = {
    Dialects.SMB_2_0_2: "SMB 2.0.2",
    Dialects.SMB_2_1_0: "SMB 2.1",
    Dialects.SMB_3_0_0: "SMB 3.0",
    Dialects.SMB_3_0_2: "SMB 3.0.2",
    Dialects.SMB_3_1_1: "SMB 3.1.1",
}
_CIPHERS = {
    Ciphers.AES_128_CCM: "AES-128-CCM",
    Ciphers.AES_128_GCM: "AES-128-GCM",
    Ciphers.AES_256_CCM: "AES-256-CCM",
    Ciphers.AES_256_GCM: "AES-256-GCM",
}
_SIGNING = {
    SigningAlgorithms.HMAC_SHA256: "HMAC-SHA256",
    SigningAlgorithms.AES_CMAC: "AES-128-CMAC",
    SigningAlgorithms.AES_GMAC: "AES-128-GMAC",
}

_LONGEST = 1 << 20
"""Bytes of a message during log-in. What is longer is no SMB."""

for _chatty in ("smbprotocol", "spnego"):
    # They write what they send to the log: tokens of the log-in, and what is said in the calls.
    logging.getLogger(_chatty).setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A wire that is ready for requests, and what there is to say of it to people."""

    wire: Wire
    about: dict[str, str]


def log_in(place: SmbPlace, limit: float) -> LoggedIn:
    """Connect to the share of a place. Raises WillPass; no answer within `limit` seconds is one too."""
    line = _Line(place, limit)
    try:
        with _plainly(place):
            connection = _Greeting(place, line)
            connection.connect(timeout=limit)
            _check_offer(place, connection)
            session = _authenticated(place, connection)
            tree = TreeConnect(session, place.share_path)
            tree.connect()
            if tree.is_dfs_share:
                raise WillPass(
                    f"{place.share_path} is a DFS name space, which is not supported: put the server and the share "
                    "that it leads to into the configuration"
                )
        return _taken_over(place, connection, session, tree, line.release(), limit)
    except BaseException:
        line.close()
        raise


class _NoAnswer(Exception):
    """The server says nothing. No TimeoutError: the library goes on waiting after that."""


class _Closed(Exception):
    """The server has hung up."""


class _Line:
    """What the library takes for its TCP connection, with a time limit; and the socket can be had from it."""

    def __init__(self, place: SmbPlace, limit: float) -> None:
        self.connected = False
        self._address = place.server, place.port
        self._limit = limit
        self._socket: socket.socket | None = None
        self._deadline = 0.0
        self._reader: int | None = None
        self._left = threading.Event()
        self._bell, self._button = socket.socketpair()

    def connect(self) -> None:
        self._deadline = time.monotonic() + self._limit
        self._socket = socket.create_connection(self._address, timeout=self._limit)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.connected = True

    def send(self, message: Any) -> None:
        if self._socket is None:
            raise _Closed
        data: bytes = message if isinstance(message, bytes) else message.pack()
        self._deadline = time.monotonic() + self._limit
        self._socket.sendall(len(data).to_bytes(4) + data)

    def recv(self, timeout: float) -> bytes:
        """Return a message; nothing at the end. Called by the library's thread, for which both that and an error are
        the end.
        """
        self._reader = threading.get_ident()
        message = b""
        try:
            size = int.from_bytes(self._exactly(4))
            message = self._exactly(size) if 0 < size < _LONGEST else b""
        finally:
            if not message:
                self.connected = False
                self._left.set()
        return message

    def release(self) -> socket.socket:
        """Send the library's thread home, and return the socket."""
        self._button.send(b"!")
        if self._socket is None or not self._left.wait(self._limit):
            raise _NoAnswer
        released, self._socket = self._socket, None
        self.close()
        return released

    def close(self) -> None:
        """Called by the library, too, and more than once."""
        self.connected = False
        if self._reader is not None and self._reader != threading.get_ident() and self._button.fileno() >= 0:
            self._button.send(b"!")
            self._left.wait(self._limit)
        for end in (self._socket, self._bell, self._button):
            if end is not None:
                end.close()

    def _exactly(self, size: int) -> bytes:
        data, line = b"", self._socket
        while line is not None and len(data) < size:
            poll = select.poll()
            for end in (line, self._bell):
                poll.register(end, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll(max(self._deadline - time.monotonic(), 0.0) * 1000)}
            if not ready and time.monotonic() >= self._deadline:
                raise _NoAnswer
            if self._bell.fileno() in ready:
                return b""
            if ready:
                more = line.recv(size - len(data))
                if not more:
                    return b""
                data += more
        return data


class _Greeting(Connection):  # type: ignore[misc]
    """The library's connection, on a line of ours."""

    def __init__(self, place: SmbPlace, line: _Line) -> None:
        self._own_line = line
        super().__init__(uuid.uuid4(), place.server, place.port, require_signing=place.require_signing)

    @property
    def transport(self) -> _Line:
        return self._own_line

    @transport.setter
    def transport(self, theirs: object) -> None:
        """The one that the library makes for itself is not used."""


def _check_offer(place: SmbPlace, connection: Connection) -> None:
    """Raises WillPass before a password is used with a server that does not encrypt."""
    if place.require_encryption and not connection.supports_encryption:
        raise WillPass(
            f"{place.server} refuses encryption ({_DIALECTS.get(connection.dialect, 'an old SMB')}), and recordings do "
            "not go in clear: allow SMB 3 encryption on the server, or set require_encryption = false for this target"
        )


def _authenticated(place: SmbPlace, connection: Connection) -> Session:
    """Raises WillPass, SMBException."""
    user = f"{place.domain}\\{place.user}" if place.domain else place.user
    session = Session(connection, user, place.password.reveal(), bool(connection.supports_encryption))
    try:
        session.connect()
    finally:
        session.password = None
    if session.session_key is None:
        raise explained(LOGON_FAILURE, place.share_path)  # it would let us in as a guest
    return session


def _taken_over(
    place: SmbPlace, connection: Connection, session: Session, tree: TreeConnect, line: socket.socket, limit: float
) -> LoggedIn:
    window = connection.sequence_window
    ends = Ends(
        session.session_id,
        tree.tree_connect_id,
        connection.dialect,
        bool(connection.supports_multi_credit),
        connection.max_read_size,
        connection.max_write_size,
        window["low"],
        window["high"] - window["low"],
    )
    about = {"server": f"{place.share_path}, port {place.port}", "dialect": _DIALECTS[connection.dialect]}
    if session.encrypt_data or tree.encrypt_data:
        cipher = connection.cipher_id if connection.dialect >= Dialects.SMB_3_1_1 else Ciphers.AES_128_CCM
        kind, nonce = (aead.AESGCM, 12) if cipher in (Ciphers.AES_128_GCM, Ciphers.AES_256_GCM) else (aead.AESCCM, 11)
        protection = Protection(kind(session.encryption_key), kind(session.decryption_key), nonce)
        about |= {"signing": "by the encryption", "encryption": _CIPHERS[cipher]}
    elif session.signing_required:
        signing = _signing(connection)
        protection = Protection(signature=_signature(signing, session.signing_key))
        about |= {"signing": _SIGNING[signing], "encryption": "none"}
    else:
        protection = Protection()
        about |= {"signing": "none", "encryption": "none"}
    return LoggedIn(Wire(line, ends, protection, limit), about)


def _signing(connection: Connection) -> int:
    """Return the algorithm ([MS-SMB2] 3.1.4.1)."""
    if connection.dialect < Dialects.SMB_3_0_0:
        return SigningAlgorithms.HMAC_SHA256  # type: ignore[no-any-return]
    if connection.dialect >= Dialects.SMB_3_1_1 and connection.signing_algorithm_id is not None:
        return connection.signing_algorithm_id  # type: ignore[no-any-return]
    return SigningAlgorithms.AES_CMAC  # type: ignore[no-any-return]


def _signature(algorithm: int, key: bytes) -> Callable[[bytes, int, bool], bytes]:
    """Return what computes a signature from a message, its number, and whether it is an answer."""

    def hmac(message: bytes, number: int, answer: bool) -> bytes:
        mac = HMAC(key, SHA256())
        mac.update(message)
        return mac.finalize()[:16]

    def cmac(message: bytes, number: int, answer: bool) -> bytes:
        mac = CMAC(algorithms.AES(key))
        mac.update(message)
        return mac.finalize()

    def gmac(message: bytes, number: int, answer: bool) -> bytes:
        return aead.AESGCM(key).encrypt(number.to_bytes(8, "little") + bytes((answer, 0, 0, 0)), b"", message)

    return {SigningAlgorithms.HMAC_SHA256: hmac, SigningAlgorithms.AES_CMAC: cmac}.get(algorithm, gmac)


@contextmanager
def _plainly(place: SmbPlace) -> Iterator[None]:
    """Turn the errors of a log-in into WillPass, in plain words."""
    where = f"{place.server} port {place.port}"
    try:
        yield
    except SMBResponseException as error:
        raise explained(error.status, place.share_path) from error
    except SMBAuthenticationError as error:
        raise explained(LOGON_FAILURE, place.share_path) from error
    except (_NoAnswer, TimeoutError) as error:
        raise WillPass(f"{where} does not answer: does the server run, and does the network reach it?") from error
    except (_Closed, SMBConnectionClosed, ConnectionResetError, BrokenPipeError) as error:
        raise WillPass(f"{where} hangs up: is it an SMB server, and does it speak SMB 2 or 3?") from error
    except socket.gaierror as error:
        raise WillPass(f"the name {place.server} is not known: correct it, or look at the name server") from error
    except OSError as error:
        raise WillPass(
            f"{where} cannot be reached ({error.strerror or error}): does the server run, and does the network "
            "reach it?"
        ) from error
    except (SMBException, ValueError, KeyError, IndexError) as error:
        raise WillPass(f"the log-in to {place.share_path} went wrong: {error}") from error
