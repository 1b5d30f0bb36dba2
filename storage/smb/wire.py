"""A logged-in SMB connection: requests go out encrypted or signed, several at a time, and answers are checked.

The library's own way for files costs ten times the time of a small one; and it may come to talk in clear where this
cannot: how the wire is protected is settled at its birth, and it is never repaired, only replaced by another log-in.
"""

import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .packets import HEADER, UNIT, Request

PENDING = 0x103
_TRANSFORM = struct.Struct("<4s16s16sIHHQ")
_SIGNED, _RELATED, _FROM_SERVER = 8, 4, 1
_NO_SIGNATURE = bytes(16)
_CREDITS = 512
"""Credits to hold: some windows of large writes."""


class Broken(Exception):
    """The connection is of no more use. The message says how that came, without the server's name."""


class _Cipher(Protocol):
    """AESGCM or AESCCM."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytearray, associated_data: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Protection:
    """How messages are protected. `signature` computes one from a message, its number, and whether it is an answer."""

    sealing: _Cipher | None = None
    opening: _Cipher | None = None
    nonce_size: int = 12
    signature: Callable[[bytes, int, bool], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Ends:
    """What was agreed on at log-in. Sizes in bytes."""

    session: int
    tree: int
    dialect: int
    many_credits: bool
    max_read: int
    max_write: int
    first_message: int
    credits: int


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, and the whole packet."""

    status: int
    packet: memoryview


class Wire:
    """Sends requests and returns their answers. After Broken nothing but `close` may be called."""

    def __init__(self, line: socket.socket, ends: Ends, protection: Protection, limit: float) -> None:
        self.ends = ends
        self.broken = False
        self._line = line
        self._limit = limit
        line.settimeout(limit)
        self._protection = protection
        self._next, self._credits = ends.first_message, ends.credits
        self._waiting: set[int] = set()
        self._unwanted: set[int] = set()
        self._replies: dict[int, Reply] = {}
        self._sealed, self._nonce = 0, os.urandom(4)

    def call(self, *requests: Request) -> list[Reply]:
        """Send requests as one compound, and return their answers. Raises Broken."""
        return [self.reply(number) for number in self.send(*requests)]

    def send(self, *requests: Request) -> list[int]:
        """Send requests as one compound; return the numbers to ask for the answers with. Raises Broken."""
        while self._credits < sum(request.charge for request in requests) and self._waiting:
            self._receive()
        try:
            if self._credits < sum(request.charge for request in requests):
                raise Broken("the server lets go on too few requests at a time")
            numbers, message = self._pack(requests)
            self._put(self._seal(message) if self._protection.sealing else message)
        except BaseException:
            self.broken = True
            raise
        self._waiting.update(numbers)
        return numbers

    def reply(self, number: int) -> Reply:
        """Wait for an answer. Raises Broken."""
        while number not in self._replies:
            self._receive()
        return self._replies.pop(number)

    def forget(self, number: int) -> None:
        """Have an answer thrown away when it comes."""
        if self._replies.pop(number, None) is None:
            self._unwanted.add(number)

    def affords(self, size: int, most: int) -> int:
        """Return how many bytes a request may carry or ask for, of so many, where the server takes `most`."""
        return min(size, most, max(1, self._credits) * UNIT if self.ends.many_credits else UNIT)

    @property
    def is_stale(self) -> bool:
        """Whether the server has closed the connection, or says something although nothing was asked. Takes in the
        answers that have come, those too that nobody waits for.
        """
        try:
            while (said := self._peek()) and self._waiting:
                self._receive()
        except Broken:
            return True
        return said is not None

    def _peek(self) -> bytes | None:
        """Return a byte that has come, nothing if the connection is at its end, None if nothing has come."""
        try:
            self._line.setblocking(False)
            return self._line.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        finally:
            self._line.settimeout(self._limit)

    def close(self) -> None:
        """Drop the connection; the server closes what is open."""
        self.broken = True
        self._line.close()

    def _pack(self, requests: tuple[Request, ...]) -> tuple[list[int], bytes]:
        parts: list[bytes | memoryview] = []
        numbers = []
        for place, request in enumerate(requests):
            last = place == len(requests) - 1
            length = HEADER.size + len(request.head) + len(request.data)
            padding = 0 if last else -length % 8
            number, charge = self._next, request.charge if self.ends.many_credits else 0
            wanted = max(request.charge, _CREDITS - self._credits) if self.ends.many_credits else 1
            flags = (_RELATED if place else 0) | (_SIGNED if self._protection.signature else 0)
            header = HEADER.pack(
                b"\xfeSMB", 64, charge, 0, request.command, min(wanted, _CREDITS), flags,
                0 if last else length + padding, number, 0, self.ends.tree, self.ends.session, _NO_SIGNATURE,
            )  # fmt: skip
            numbers.append(number)
            self._next += max(1, charge)
            self._credits -= max(1, charge)
            if self._protection.signature:
                whole = b"".join((header, request.head, request.data, bytes(padding)))
                signature = self._protection.signature(whole, number, False)
                parts += [header[:48], signature, whole[64:]]
            else:
                parts += [header, request.head, request.data, bytes(padding)]
        return numbers, b"".join(parts)

    def _seal(self, message: bytes) -> bytes:
        """2.2.41, 3.1.4.3."""
        assert self._protection.sealing
        self._sealed += 1
        size = self._protection.nonce_size
        nonce = (self._nonce + self._sealed.to_bytes(8, "little"))[-size:].ljust(size, b"\0")
        rest = _TRANSFORM.pack(b"\xfdSMB", bytes(16), nonce, len(message), 0, 1, self.ends.session)[20:]
        sealed = self._protection.sealing.encrypt(nonce, message, rest)
        return b"".join((b"\xfdSMB", sealed[-16:], rest, memoryview(sealed)[:-16]))

    def _receive(self) -> None:
        """Take one message from the line, with the answers in it. Raises Broken."""
        try:
            packet = self._open(self._take())
            while packet:
                after = int.from_bytes(packet[20:24], "little")
                self._sort(packet[:after] if after else packet)
                packet = packet[after:] if after else packet[:0]
        except (struct.error, IndexError, ValueError) as error:
            self.broken = True
            raise Broken(f"an answer of the server makes no sense ({error})") from error
        except BaseException:
            self.broken = True
            raise

    def _sort(self, packet: memoryview) -> None:
        *_, status, command, granted, flags, _, number, _, _, _, signature = HEADER.unpack_from(packet)
        self._credits += granted
        if status == PENDING and flags & 2:
            return
        if number not in self._waiting:
            raise Broken(f"the server answers what was not asked (command {command})")
        if self._protection.signature and not self._protection.sealing:
            whole = b"".join((packet[:48], _NO_SIGNATURE, packet[64:]))
            if not flags & _SIGNED or self._protection.signature(whole, number, True) != signature:
                raise Broken("an answer is not signed as it must be: somebody may have changed it on its way")
        self._waiting.remove(number)
        if number in self._unwanted:
            self._unwanted.remove(number)
        else:
            self._replies[number] = Reply(status, packet)

    def _open(self, frame: bytearray) -> memoryview:
        """Decrypt a message, where all are encrypted."""
        if not self._protection.opening:
            return memoryview(frame)[:-16]
        from cryptography.exceptions import InvalidTag

        if frame[:4] != b"\xfdSMB":
            raise Broken("the server answers without encryption: somebody may sit between")
        frame[-16:] = frame[4:20]
        nonce = bytes(frame[20 : 20 + self._protection.nonce_size])
        try:
            return memoryview(self._protection.opening.decrypt(nonce, frame[52:], bytes(frame[20:52])))
        except InvalidTag:
            raise Broken("an answer cannot be decrypted: somebody may have changed it on its way") from None

    def _put(self, message: bytes) -> None:
        rest = memoryview(len(message).to_bytes(4) + message)
        try:
            while rest:
                rest = rest[self._line.send(rest) :]
        except TimeoutError:
            raise Broken(f"the server has taken nothing for {self._limit:.0f} s") from None
        except OSError as error:
            raise Broken(f"the connection broke ({error.strerror or error})") from error

    def _take(self) -> bytearray:
        """Return a message, with 16 bytes behind it to work with."""
        size = int.from_bytes(self._exactly(4, 0))
        return self._exactly(size, 16)

    def _exactly(self, size: int, spare: int) -> bytearray:
        frame = bytearray(size + spare)
        view, unsent = memoryview(frame), -1
        filled = 0
        while filled < size:
            try:
                got = self._line.recv_into(view[filled:size])
            except TimeoutError:
                before, unsent = unsent, self._unsent()
                if unsent and (before < 0 or unsent < before):
                    continue  # a slow line: what was sent is still on its way
                raise Broken(f"the server has not answered for {self._limit:.0f} s") from None
            except OSError as error:
                raise Broken(f"the connection broke ({error.strerror or error})") from error
            if not got:
                raise Broken("the server has closed the connection")
            filled += got
        return frame

    def _unsent(self) -> int:
        """Return the bytes that the other side's kernel has not confirmed."""
        return int(struct.unpack("i", fcntl.ioctl(self._line, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
