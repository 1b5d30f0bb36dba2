"""Log-in to an SMB server: what is agreed on, who we are, which share. Loaded when it is needed: the library is slow to
import.

A connection is never repaired: the library may then come to talk in clear. It is replaced by another log-in.
"""

import logging
import socket
import struct
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from smbprotocol.connection import Ciphers, Connection, Dialects, SigningAlgorithms
from smbprotocol.exceptions import SMBAuthenticationError, SMBException, SMBResponseException
from smbprotocol.header import NtStatus, Smb2Flags
from smbprotocol.session import Session
from smbprotocol.tree import TreeConnect

from ..targets import TargetError, WillPass
from .errors import LOGON_FAILURE, REFUSED, explained
from .place import SmbPlace

_UNIT = 65536
"""Bytes that a credit pays for."""
_CREDITS, _SPARE = 512, 4
"""Credits to ask for, and to keep for what is said between reads and writes."""
_REFUSED_S = 600.0
"""After a refused password, for all connections: domains lock an account at five or ten wrong ones in half an hour."""

for _chatty in ("smbprotocol", "spnego"):
    # They write what they send to the log: tokens of the log-in, and what is said in the calls.
    logging.getLogger(_chatty).setLevel(logging.CRITICAL + 1)


class NoAnswer(SMBException):  # type: ignore[misc]
    """The server says nothing."""


class _Guest(SMBException):  # type: ignore[misc]
    """The server does not know the user, and would let us in as a guest."""


class Line(Connection):  # type: ignore[misc]
    """The library's connection with a time limit for each answer, and no trust in one that is not protected."""

    tree: TreeConnect

    def __init__(self, place: SmbPlace, limit: float) -> None:
        super().__init__(uuid.uuid4(), place.server, place.port, require_signing=place.require_signing)
        self._limit = limit

    def receive(
        self, request: Any, wait: bool = True, timeout: float | None = None, resolve_symlinks: bool = False
    ) -> Any:
        """Return an answer. Links are not followed. Raises SMBException."""
        try:
            return super().receive(request, wait, self._limit, False)
        except SMBException as error:
            if request.response_event.is_set() or not self.transport.connected:
                raise
            raise NoAnswer(f"the server has not answered for {self._limit:.0f} s") from error

    def verify_signature(self, header: Any, session_id: int, force: bool = False) -> None:
        """Called for answers that came in clear; the library takes them, signed or not. Raises SMBException."""
        session = self.session_table.get(session_id)
        if session is not None and not force:
            if session.encrypt_data:
                raise SMBException("the server answers without encryption: somebody may sit between")
            signed = header["flags"].has_flag(Smb2Flags.SMB2_FLAGS_SIGNED)
            if session.signing_required and not signed and header["status"].get_value() != NtStatus.STATUS_PENDING:
                raise SMBException("an answer is not signed as it must be: somebody may have changed it on its way")
        super().verify_signature(header, session_id, force)

    @property
    def works(self) -> bool:
        """Whether it is connected, as far as is known."""
        return bool(self.transport and self.transport.connected)

    @property
    def writes_through(self) -> bool:
        """Whether a write can be asked to be on the disk when it is answered."""
        return bool(self.dialect >= Dialects.SMB_2_1_0)

    def pieces(self, most: int, piece: int, depth: int) -> tuple[int, int]:
        """Return the size of a read or write, of `most` that the server takes, and how many may be under way."""
        credits = max(1, self.sequence_window["high"] - self.sequence_window["low"] - _SPARE)
        depth = min(depth, credits)
        units = credits // depth if self.supports_multi_credit else 1
        return min(piece, most, units * _UNIT), depth

    def hang_up(self) -> None:
        """Drop the connection; the server closes what is open."""
        if self.transport:
            with suppress(Exception):  # it is of no more use, whatever is wrong with it
                self.disconnect(close=False)

    def about(self) -> dict[str, str]:
        """Return what there is to say of it to people."""
        session, signing, encryption = self.tree.session, "none", "none"
        if session.encrypt_data:
            cipher = self.cipher_id if self.dialect >= Dialects.SMB_3_1_1 else Ciphers.AES_128_CCM
            signing, encryption = "by the encryption", _named(Ciphers, cipher)
        elif session.signing_required:
            old = SigningAlgorithms.AES_CMAC if self.dialect >= Dialects.SMB_3_0_0 else SigningAlgorithms.HMAC_SHA256
            signing = _named(SigningAlgorithms, old if self.signing_algorithm_id is None else self.signing_algorithm_id)
        return {
            "server": f"{self.tree.share_name}, port {self.port}",
            "dialect": _dialect(self),
            "signing": signing,
            "encryption": encryption,
        }


def log_in(place: SmbPlace, limit: float) -> Line:
    """Connect to the share of a place. Raises WillPass; no answer within `limit` seconds is one too."""
    line = Line(place, limit)
    try:
        with _plainly(place):
            line.connect(timeout=limit)
            # The library sends without a limit, and has no other way to set one.
            patience = struct.pack("ll", int(limit), int(limit % 1 * 1e6))
            line.transport._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line.transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
            _check_offer(place, line)
            session = _authenticated(place, line, limit)
            line.tree = TreeConnect(session, place.share_path)
            line.tree.connect()
            if line.tree.is_dfs_share:
                raise WillPass(
                    f"{place.share_path} is a DFS name space, which is not supported: put the server and the share "
                    "that it leads to into the configuration"
                )
            if line.supports_multi_credit:
                line.echo(session.session_id, limit, _CREDITS)
        return line
    except BaseException:
        line.hang_up()
        raise


def _named(kind: type, value: int) -> str:
    """Return the library's name for a value."""
    return next(name for name, known in vars(kind).items() if known == value).replace("_", "-")


def _dialect(line: Line) -> str:
    return _named(Dialects, line.dialect).replace("-", " ", 1).replace("-", ".")


def _check_offer(place: SmbPlace, line: Line) -> None:
    """Raises WillPass before a password is used with a server that does not encrypt."""
    if place.require_encryption and not line.supports_encryption:
        raise WillPass(
            f"{place.server} refuses encryption ({_dialect(line)}), and recordings do "
            "not go in clear: allow SMB 3 encryption on the server, or set require_encryption = false for this target"
        )


class _Account:
    """The log-ins of one account: one at a time, and none for a while after its password was refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._again = 0.0

    @contextmanager
    def trying(self, place: SmbPlace, limit: float) -> Iterator[None]:
        """Raises WillPass without a log-in where it must not be tried; TargetError."""
        if not self._lock.acquire(timeout=limit):
            raise NoAnswer
        try:
            if time.monotonic() < self._again:
                raise explained(LOGON_FAILURE, place.share_path)
            yield
        except SMBResponseException as error:
            if error.status in REFUSED:
                self._again = time.monotonic() + _REFUSED_S
            raise
        except _Guest as error:
            self._again = time.monotonic() + _REFUSED_S
            raise explained(LOGON_FAILURE, place.share_path) from error
        finally:
            self._lock.release()


_accounts: defaultdict[SmbPlace, _Account] = defaultdict(_Account)
_accounts_lock = threading.Lock()


def _authenticated(place: SmbPlace, line: Line, limit: float) -> Session:
    """Raises WillPass, SMBException."""
    user = f"{place.domain}\\{place.user}" if place.domain else place.user
    session = Session(line, user, place.password.reveal(), bool(line.supports_encryption))
    with _accounts_lock:
        account = _accounts[replace(place, name="", share="", folder="")]
    with account.trying(place, limit):
        try:
            session.connect()
        except SMBException as error:
            if session.session_id is None:  # a guest, and that cannot be encrypted
                raise _Guest from error
            raise
        finally:
            session.password = None
        if session.session_key is None:
            raise _Guest
    return session


@contextmanager
def _plainly(place: SmbPlace) -> Iterator[None]:
    """Turn the errors of a log-in into WillPass, in plain words."""
    where = f"{place.server} port {place.port}"
    try:
        yield
    except TargetError:
        raise
    except SMBResponseException as error:
        raise explained(error.status, place.share_path) from error
    except SMBAuthenticationError as error:
        raise explained(LOGON_FAILURE, place.share_path) from error
    except Exception as error:  # the library raises what it has met
        cause = error.__cause__ if isinstance(error, ValueError) else error
        if isinstance(cause, NoAnswer | TimeoutError):
            words = "does not answer: does the server run, and does the network reach it?"
        elif isinstance(cause, socket.gaierror):
            words = f"the name {place.server} is not known: correct it, or look at the name server"
            raise WillPass(words) from error
        elif isinstance(error, ValueError) and isinstance(cause, OSError):
            reason = cause.strerror or cause
            words = f"cannot be reached ({reason}): does the server run, and does the network reach it?"
        else:
            words = f"hangs up ({error}): is it an SMB server, and does it speak SMB 2 or 3?"
        raise WillPass(f"{where} {words}") from error
