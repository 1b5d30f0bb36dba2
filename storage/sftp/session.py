"""A connection to an SFTP server, used from one thread: many requests in flight, none waited for without end.

The protocol is asyncssh's. Its event loop has a thread of its own, so that the server's keep-alives are answered while
nobody asks for anything, and so that a long file goes on while the next bytes of it are read here.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import asyncssh

from ..safe_text import for_line
from ..targets import WillPass
from .login import Line, log_in, where

if TYPE_CHECKING:
    from ..sftp_target import SftpPlace

_IDLE_S, _FAREWELL_S = 60.0, 1.0
_SMALLEST, _LARGEST = 16 << 10, 255 << 10
_GONE = (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost)
_T = TypeVar("_T")

for _name in ("asyncssh", "asyncssh.sftp"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)  # what is to be said is said in our errors


class Session:
    """One connection, made at once. Raises WillPass when it is broken, and is not used again then."""

    line: Line

    def __init__(self, place: "SftpPlace", limit: float, kind: str) -> None:
        self.broken = ""
        self._users = 0
        self._where, self._limit = where(place), limit
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)
        self._thread = threading.Thread(target=self._loop.run_forever, name="sftp", daemon=True)
        self._thread.start()
        try:
            self.line = self.run(log_in(place, limit, kind))
        except BaseException:
            self.close()
            raise
        self._used = self._loop.time()
        self._watch: Future[None] = asyncio.run_coroutine_threadsafe(self._end_when_idle(), self._loop)

    @property
    def piece(self) -> int:
        """Bytes of one request: what the server allows, but nothing that makes no sense, whatever it says."""
        limits = self.line.client.limits
        return max(_SMALLEST, min(limits.max_read_len, limits.max_write_len, _LARGEST))

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do something in the loop, and wait for it. Raises what it raises; WillPass."""
        if self.broken:
            work.close()
            raise self._error()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException as error:
            if not isinstance(error, Exception):
                future.cancel()
                self.broken = self.broken or "it was broken off in the middle"  # its state is unknown
            raise

    def iterate(self, blocks: AsyncGenerator[bytes, None]) -> Iterator[bytes]:
        """Yield what comes of the loop, each block when it is asked for."""

        async def following() -> bytes:
            return await anext(blocks, b"")

        async def end() -> None:
            await blocks.aclose()

        with self.in_use():
            try:
                while block := self.run(following()):
                    yield block
            except GeneratorExit:
                self.run(end())
                raise

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have it stay open for what is done in a block, however long a pause is."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1

    async def ask(self, *requests: Awaitable[Any]) -> list[Any]:
        """Send requests in one go and in this order; return what came of each, its result or the server's refusal, an
        SFTPError. Raises WillPass. For use in the loop.
        """
        try:
            async with asyncio.timeout(self._limit):
                answers = await asyncio.gather(*requests, return_exceptions=True)
        except TimeoutError:
            self.broken = f"the server has not answered for {self._limit:.0f} s: is it overloaded, or the network cut?"
            raise self._error() from None
        for answer in answers:
            if isinstance(answer, _GONE) or (
                isinstance(answer, BaseException) and not isinstance(answer, asyncssh.SFTPError)
            ):
                if not isinstance(answer, (asyncssh.Error, OSError)):
                    raise answer  # a mistake of ours
                self.broken = self.broken or for_line(f"the connection broke off: {answer}", 300)
                raise self._error() from None
        self._used = self._loop.time()
        return answers

    def close(self) -> None:
        """End the connection. Raises nothing."""
        self.broken = self.broken or "the connection was closed"
        if not self._loop.is_closed():
            with suppress(Exception):
                asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(2 * _FAREWELL_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _leave(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        with suppress(AttributeError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                self.line.connection.close()
                await self.line.connection.wait_closed()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end_when_idle(self) -> None:
        """Close what nobody uses: a firewall may have forgotten it when it is wanted again."""
        while (left := self._used + _IDLE_S - self._loop.time()) > 0 or self._users:
            await asyncio.sleep(max(left, _IDLE_S / 10))
        self.broken = self.broken or "the connection was not used"
        self.line.connection.close()

    def _error(self) -> WillPass:
        return WillPass(f"{self._where}: {self.broken}. It is tried again by itself")
