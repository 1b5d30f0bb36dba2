"""A share on a server: its files and folders, over a connection that is made when it is needed, and made anew."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from smbprotocol import file_info
from smbprotocol import open as files
from smbprotocol.connection import Dialects
from smbprotocol.exceptions import SMBConnectionClosed, SMBResponseException
from smbprotocol.file_info import FileAttributes, FileInformationClass
from smbprotocol.open import CreateDisposition, CreateOptions, Open, ShareAccess
from smbprotocol.open import FilePipePrinterAccessMask as Access

from ..targets import TargetError, WillPass
from . import errors
from .errors import explained
from .login import Line, log_in
from .place import SmbPlace

CHUNK = 1 << 20
"""Bytes of a read or write, at most."""
WINDOW = 4
"""Reads or writes that are under way at a time."""
READ = Access.FILE_READ_DATA | Access.FILE_READ_ATTRIBUTES
WRITE = Access.FILE_WRITE_DATA
DELETE = Access.DELETE

_IDLE_S = 60.0
"""After so long a connection is made anew: servers and firewalls drop idle ones without a word."""
_ALL = ShareAccess.FILE_SHARE_READ | ShareAccess.FILE_SHARE_WRITE | ShareAccess.FILE_SHARE_DELETE
_LINK = CreateOptions.FILE_OPEN_REPARSE_POINT
_MISSING = (errors.NAME_NOT_FOUND, errors.PATH_NOT_FOUND, errors.NOT_A_FOLDER)

Ask = tuple[Any, Callable[[Any], Any]]
"""What the library makes with `send=False`: a message (or, once sent, a request), and what reads the answer to it."""


class Answer(NamedTuple):
    """What came of a message: 0, or the status that refuses it; and what the library has read from it."""

    status: int
    value: Any = None


class Share:
    """Belongs to one thread. Paths are relative to the share, with backslashes; "" is the share itself."""

    def __init__(self, place: SmbPlace, limit: float) -> None:
        self.place = place
        self._limit = limit
        self._line: Line | None = None
        self._loose: list[Ask] = []
        self._used = 0.0

    def line(self) -> Line:
        """Return the connection, a new one if there is none that works. Raises WillPass."""
        if self._line is None or not self._line.works or time.monotonic() - self._used > _IDLE_S:
            self.close()
            self._line = log_in(self.place, self._limit)
        self._used = time.monotonic()
        return self._line

    def holds(self, line: Line) -> bool:
        """Whether a connection is still in use."""
        return line is self._line and line.works

    def close(self) -> None:
        """Drop the connection, if there is one."""
        line, self._line, self._loose = self._line, None, []
        if line is not None:
            line.hang_up()

    def call(self, path: str, line: Line, *asks: Ask) -> list[Answer]:
        """Send messages that are about a path as one compound, and return the answers. Raises WillPass."""
        return [self.answer(path, sent) for sent in self.send(path, line, *asks)]

    def send(self, path: str, line: Line, *asks: Ask) -> list[Ask]:
        """Send messages as one compound, without waiting. Raises WillPass."""
        if not self.holds(line):
            raise self._broken(path, ConnectionError("the connection broke"))
        session = line.tree.session.session_id
        messages = [message for message, _ in asks]
        try:
            requests = line.send_compound(messages, session, line.tree.tree_connect_id, related=True)
        except Exception as error:  # the library raises what its thread has met
            raise self._broken(path, error) from error
        except BaseException:
            self.close()  # half a message may have gone
            raise
        return [(request, read) for request, (_, read) in zip(requests, asks, strict=True)]

    def answer(self, path: str, sent: Ask) -> Answer:
        """Wait for an answer. Raises WillPass."""
        loose, self._loose = self._loose, []
        for earlier in loose:
            self.answer(path, earlier)
        request, read = sent
        try:
            value = read(request)
        except SMBResponseException as error:
            if error.status in errors.GONE:
                self.close()
                raise explained(error.status, self.where(path)) from error
            return Answer(error.status)
        except Exception as error:  # the library raises what its thread has met
            raise self._broken(path, error) from error
        self._used = time.monotonic()
        return Answer(0, value)

    def let_go(self, path: str, line: Line, *asks: Ask) -> None:
        """Send messages whose answers, and whose arrival, do not matter. Raises nothing."""
        with suppress(TargetError):
            self._loose += self.send(path, line, *asks)

    def expect(self, answer: Answer, path: str) -> Any:
        """Return what a good answer says. Raises the TargetError that a bad one stands for."""
        if answer.status:
            raise explained(answer.status, self.where(path))
        return answer.value

    def where(self, path: str) -> str:
        """Return a path as people know it."""
        return f"{self.place.share_path}\\{path}".rstrip("\\")

    def find(self, path: str) -> Open | None:
        """Look whether something has a name. Raises TargetError."""
        line = self.line()
        file, create = opening(line, path, Access.FILE_READ_ATTRIBUTES, options=_LINK)
        found = self.call(path, line, create, file.close(send=False))[0]
        if found.status in _MISSING:
            return None
        self.expect(found, path)
        return file

    def read(self, path: str) -> Iterator[bytes]:
        """Yield a file's content, asked of the server. Raises TargetError."""
        line = self.line()
        file, create = opening(line, path, READ, options=CreateOptions.FILE_NON_DIRECTORY_FILE)
        self.expect(self.call(path, line, create)[0], path)
        try:
            yield from self.blocks(path, line, file, file.end_of_file)
        finally:
            self.let_go(path, line, file.close(send=False))

    def blocks(self, path: str, line: Line, file: Open, size: int) -> Iterator[bytes]:
        """Yield what an open file holds, and a little more if it is longer than `size`. Raises TargetError."""
        chunk, depth = line.pieces(line.max_read_size, CHUNK, WINDOW)
        unbuffered = line.dialect >= Dialects.SMB_3_0_2
        starts = iter(range(0, size + 1, chunk))
        waiting: deque[Ask] = deque()
        try:
            while True:
                while len(waiting) < depth and (start := next(starts, None)) is not None:
                    waiting += self.send(path, line, file.read(start, chunk, unbuffered=unbuffered, send=False))
                if not waiting:
                    return
                answer = self.answer(path, waiting.popleft())
                if answer.status == errors.END_OF_FILE:
                    return
                yield self.expect(answer, path)
                if len(answer.value) < chunk:
                    return
        finally:
            if self.holds(line):
                self._loose += waiting

    def probe(self, path: str, other: str, content: bytes) -> None:
        """Write, read back, rename and remove a file. Nothing is left, whatever happens: the server removes it when it
        is closed, or the connection ends. Raises TargetError.
        """
        line = self.line()
        options = CreateOptions.FILE_NON_DIRECTORY_FILE | CreateOptions.FILE_DELETE_ON_CLOSE
        file, create = opening(line, path, READ | WRITE | DELETE, CreateDisposition.FILE_CREATE, options, share=0)
        write = file.write(content, write_through=line.writes_through, send=False)
        made, written, got = self.call(path, line, create, write, file.read(0, len(content), send=False))
        self.expect(made, path)
        try:
            if self.expect(written, path) != len(content) or self.expect(got, path) != content:
                raise WillPass(f"{self.where(path)} does not read back as it was written: the disk there fails")
            self.expect(self.call(path, line, renaming(file, other))[0], path)
        finally:
            self.let_go(path, line, file.close(send=False))

    def make_file(self, path: str, content: bytes) -> None:
        """Make a small file, unless there is one. Raises TargetError."""
        line = self.line()
        options = CreateOptions.FILE_NON_DIRECTORY_FILE
        file, create = opening(line, path, WRITE, CreateDisposition.FILE_CREATE, options)
        write = file.write(content, write_through=line.writes_through, send=False)
        made, written, *_ = self.call(path, line, create, write, file.close(send=False))
        if made.status != errors.NAME_COLLISION:
            self.expect(made, path)
            self.expect(written, path)

    def make_folder(self, path: str, root: str) -> None:
        """Make a folder below `root`, and those above it, unless they exist. Raises TargetError."""
        if path == root:
            raise self.no_root(root)
        status = self._make_one(path)
        if status == errors.PATH_NOT_FOUND:
            self.make_folder(path.rpartition("\\")[0], root)
            status = self._make_one(path)
        if status:
            raise explained(errors.NOT_A_FOLDER if status == errors.NAME_COLLISION else status, self.where(path))

    def _make_one(self, path: str) -> int:
        line = self.line()
        access, options = Access.FILE_READ_ATTRIBUTES, CreateOptions.FILE_DIRECTORY_FILE
        folder, create = opening(line, path, access, CreateDisposition.FILE_OPEN_IF, options)
        return self.call(path, line, create, folder.close(send=False))[0].status

    def no_root(self, root: str) -> WillPass:
        """Return the error of a target's folder that is not there."""
        return WillPass(
            f"{self.where(root)} is not there: is its disk in the server? If the target is new, make the folder"
        )

    def entries(self, folder: str, pattern: str) -> list[tuple[str, bool]]:
        """Return the names that match in a folder, each with whether it is a folder; nothing where there is none.
        Raises TargetError.
        """
        line, found = self.line(), []
        opened, create = opening(line, folder, READ, options=CreateOptions.FILE_DIRECTORY_FILE)
        asks = [create]
        while True:
            listing = opened.query_directory(pattern, FileInformationClass.FILE_DIRECTORY_INFORMATION, send=False)
            answers = self.call(folder, line, *asks, listing)
            if asks and answers[0].status in _MISSING:
                return []
            asks = []
            for answer in answers[:-1]:
                self.expect(answer, folder)
            last = answers[-1]
            if last.status in (errors.NO_MORE_FILES, errors.NO_SUCH_FILE):
                break
            for entry in self.expect(last, folder):
                name = entry["file_name"].get_value().decode("utf-16-le", "surrogatepass")
                if name not in (".", ".."):
                    found.append((name, is_folder(entry["file_attributes"].get_value())))
        self.let_go(folder, line, opened.close(send=False))
        return found

    def remove(self, path: str) -> None:
        """Remove a file or an empty folder, if there is one. Raises TargetError."""
        line = self.line()
        file, create = opening(line, path, DELETE, options=CreateOptions.FILE_DELETE_ON_CLOSE | _LINK)
        answer = self.call(path, line, create, file.close(send=False))[0]
        if answer.status not in (errors.NAME_NOT_FOUND, errors.PATH_NOT_FOUND):
            self.expect(answer, path)

    def remove_tree(self, folder: str) -> None:
        """Remove a folder with all that is in it, if there is one. Raises TargetError."""
        for name, below in self.entries(folder, "*"):
            (self.remove_tree if below else self.remove)(f"{folder}\\{name}")
        self.remove(folder)

    def _broken(self, path: str, error: Exception) -> WillPass:
        """Drop the connection, and return the error for people."""
        self.close()
        words: object = error
        if isinstance(error, SMBConnectionClosed):
            words = "the server has closed the connection"
        elif isinstance(error, BlockingIOError):
            words = f"the server has taken nothing for {self._limit:.0f} s and does not answer"
        return WillPass(f"{self.where(path)}: {words}; it is tried again. Does the server run, and the network?")


def opening(
    line: Line,
    path: str,
    access: int,
    disposition: int = CreateDisposition.FILE_OPEN,
    options: int = 0,
    share: int = _ALL,
) -> tuple[Open, Ask]:
    """Return a file or folder, and what opens or makes it, without leave to cache anything of it."""
    file = Open(line.tree, path)
    return file, file.create(files.ImpersonationLevel.Impersonation, access, 0, share, disposition, options, send=False)


def setting(file: Open, info: Any) -> Ask:
    """Return what changes something about an open file."""
    message = files.SMB2SetInfoRequest()
    message["info_type"], message["file_info_class"] = info.INFO_TYPE, info.INFO_CLASS
    message["file_id"], message["buffer"] = file.file_id, info.pack()
    return message, file.connection.receive


def renaming(file: Open, path: str) -> Ask:
    """Return what gives an open file another name, unless that one exists."""
    info = file_info.FileRenameInformation()
    info["file_name"], info["replace_if_exists"] = path, False
    return setting(file, info)


def removing(file: Open) -> Ask:
    """Return what has an open file go when it is closed."""
    info = file_info.FileDispositionInformation()
    info["delete_pending"] = True
    return setting(file, info)


def room(file: Open) -> Ask:
    """Return what asks for the bytes that this user may still write."""
    message = files.SMB2QueryInfoRequest()
    message["info_type"] = file_info.FileFsFullSizeInformation.INFO_TYPE
    message["file_info_class"] = file_info.FileFsFullSizeInformation.INFO_CLASS
    message["output_buffer_length"], message["file_id"] = 32, file.file_id

    def read(request: Any) -> int:
        response = files.SMB2QueryInfoResponse()
        response.unpack(file.connection.receive(request)["data"].get_value())
        told = response.parse_buffer(file_info.FileFsFullSizeInformation)
        names = ("caller_available_units", "sectors_per_unit", "bytes_per_sector")
        units, sectors, size = (told[name].get_value() for name in names)
        return int(units * sectors * size)

    return message, read


def is_folder(attributes: int) -> bool:
    """Whether these are the attributes of a folder, and not of a link to one."""
    link = attributes & FileAttributes.FILE_ATTRIBUTE_REPARSE_POINT
    return bool(attributes & FileAttributes.FILE_ATTRIBUTE_DIRECTORY and not link)
