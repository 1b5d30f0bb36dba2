"""A connection to an SFTP server, used from one thread: many requests in flight, none waited for without end.

The event loop runs in the thread that asks, and only while it waits: that costs no change of threads. While nobody
asks, a small thread of its own lets the loop answer the server's keep-alives, and closes what is not used for long.
"""

import asyncio
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..safe_text import for_line
from ..targets import WillPass
from . import wire
from .wire import Garbled, Reply, Request, Ticket, Wire

if TYPE_CHECKING:
    import asyncssh

LIMIT_S = 30.0
_BREATH_S, _IDLE_S = 5.0, 60.0
_FAREWELL_S = 1.0
_SMALLEST_PACKET = 32768


class Stream(Protocol):
    """What carries a session's bytes: a channel of asyncssh."""

    def write(self, data: bytes) -> None:
        """Send."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to say of a connection."""

    server: str
    host_key: str
    cipher: str
    user: str


class Session:
    """One connection. Its methods raise WillPass when it is broken, and it is not used again then."""

    def __init__(self, place: str, loop: asyncio.AbstractEventLoop, limit: float) -> None:
        self.facts = Facts("", "", "", "")
        self.max_read = self.max_write = _SMALLEST_PACKET
        self.broken = ""
        self.held = 0
        """How many files are being moved: meanwhile it is not closed, however long a pause is."""
        self._place, self._loop, self._limit = place, loop, limit
        self._connection: asyncssh.SSHClientConnection | None = None
        self._wire = Wire(lambda data: None)
        self._waiter: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._most = 0
        self._heard = self._used = time.monotonic()
        self._turn = threading.Lock()

    @property
    def extensions(self) -> "dict[str, bytes]":
        """What the server can do beyond version 3."""
        return dict(self._wire.extensions)

    @property
    def in_order(self) -> bool:
        """Whether it is known to carry out requests one by one: then a broken-off file has no holes."""
        return "OpenSSH" in self.facts.server

    def begin(self, connection: "asyncssh.SSHClientConnection", channel: Stream, facts: Facts) -> None:
        """Take over a channel that is open; `greet` comes next."""
        self._connection, self.facts = connection, facts
        self._wire = Wire(channel.write)
        channel.write(wire.hello())

    def greet(self) -> None:
        """Wait for the server's greeting, and ask for its limits."""
        self._turn_loop(0)
        if b"1" in self.extensions.get("limits@openssh.com", b""):
            limits = self.call(wire.extended("limits@openssh.com"))[0]
            if limits.ok and len(limits.data) >= 24:
                read, write = (int.from_bytes(limits.data[at : at + 8]) for at in (8, 16))
                self.max_read = min(read, 1 << 18) or _SMALLEST_PACKET
                self.max_write = min(write, 1 << 18) or _SMALLEST_PACKET
        threading.Thread(target=_keep_alive, args=(weakref.ref(self),), name="sftp keep-alive", daemon=True).start()

    def call(self, *requests: Request) -> list[Reply]:
        """Send requests in one go, with what is queued, and return their replies."""
        tickets = [self.post(request) for request in requests]
        self.settle()
        return [ticket.reply or Reply(wire.FAILURE) for ticket in tickets]

    def post(self, request: Request) -> Ticket:
        """Queue a request for `settle`."""
        return self._wire.post(request)

    @property
    def queued_bytes(self) -> int:
        """Return how much waits to be sent."""
        return self._wire.queued_bytes

    def settle(self, most: int = 0) -> None:
        """Send what is queued, and wait until at most so many requests are without a reply."""
        with self._turn:
            self._check()
            try:
                self._wire.flush()
            except OSError:
                self._break("the connection is closed")
            if self._wire.unanswered > most:
                self._turn_loop(most)
            self._check()
            self._used = time.monotonic()

    def close(self) -> None:
        """End the connection. Raises nothing."""
        with self._turn:
            if not self._loop.is_closed():
                with suppress(Exception):
                    self._loop.run_until_complete(self._farewell())
                discard(self._loop)
            self.broken = self.broken or "the connection was closed"

    def breathe(self) -> bool:
        """Let the loop do what has come up meanwhile; return whether there is still something to look after."""
        if not self._turn.acquire(blocking=False):
            return True
        try:
            if self.broken or self._loop.is_closed():
                return False
            self._loop.run_until_complete(asyncio.sleep(0.001))
            idle = time.monotonic() - self._used > _IDLE_S
        finally:
            self._turn.release()
        if idle and not self.held:
            self.close()
        return not self.broken

    # What the channel tells, in the loop.

    def received(self, data: bytes) -> None:
        """Take what the server sent."""
        self._heard = self._loop.time()
        try:
            self._wire.receive(data)
        except Garbled as error:
            self._break(f"what the server sends is no SFTP: {error}")
        if self._waiter and not self._waiter.done() and self._satisfied():
            self._waiter.set_result(None)

    def lost(self, reason: str) -> None:
        """Take note that the connection is gone."""
        self._break(reason)

    def _satisfied(self) -> bool:
        return bool(self.broken) or (self._wire.unanswered <= self._most and self._wire.greeted)

    def _turn_loop(self, most: int) -> None:
        """Run the loop until at most so many replies are missing."""
        self._most = most
        if not self._satisfied():
            self._heard = self._loop.time()
            self._alarm = self._alarm or self._loop.call_later(self._limit, self._watch)
            self._waiter = self._loop.create_future()
            try:
                self._loop.run_until_complete(self._waiter)
            except BaseException:
                self._break("it was broken off in the middle")  # its state is unknown
                raise
            finally:
                self._waiter = None
        self._check()

    def _watch(self) -> None:
        """Break off after the time limit without a byte from the server."""
        self._alarm = None
        if self._waiter is None:
            return
        left = self._heard + self._limit - self._loop.time()
        if left > 0:
            self._alarm = self._loop.call_later(left, self._watch)
        else:
            self._break(f"the server has not answered for {self._limit:.0f} s: is it overloaded, or the network cut?")

    def _break(self, reason: str) -> None:
        self.broken = self.broken or for_line(reason, 300)
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _check(self) -> None:
        if self.broken:
            raise WillPass(f"{self._place}: {self.broken}. It is tried again by itself")

    async def _farewell(self) -> None:
        if self._connection is None:
            return
        if self.broken:
            self._connection.abort()
        else:
            self._connection.close()
        await asyncio.wait_for(self._connection.wait_closed(), _FAREWELL_S)


def discard(loop: asyncio.AbstractEventLoop) -> None:
    """End a loop with all that is in it."""
    tasks: Sequence[asyncio.Task[object]] = list(asyncio.all_tasks(loop))
    for task in tasks:
        task.cancel()
    with suppress(Exception):
        loop.run_until_complete(asyncio.wait(tasks, timeout=_FAREWELL_S) if tasks else asyncio.sleep(0))
    loop.close()


def _keep_alive(kept: "weakref.ref[Session]") -> None:
    while True:
        time.sleep(_BREATH_S)
        session = kept()
        if session is None or not session.breathe():
            return
        del session
