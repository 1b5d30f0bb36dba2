"""A piece of work in a process of its own: as another user, and for a limited time, whatever becomes of it."""

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from . import privileges
from .settings import ConfigError

GRACE_S = 10.0
"""What the process gets to tidy up, in seconds, before it is killed."""
_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_BLOCK = 1 << 16


class NoAnswer(Exception):
    """The process did not answer in time."""


class Broken(Exception):
    """The work, or its process, has broken off; the message says by what."""


def apart(work: Callable[[], Any], user: str, group: str, setting: str, limit_s: float) -> Any:
    """Return what `work` returns, as JSON can hold it. `setting` names the one of the user, for messages.

    A caller without root has it done as the user who he is; an empty `user` leaves root. Where the wait is broken off,
    by Ctrl-C or for the time, the work is told to end by KeyboardInterrupt, and waited for. One that hangs in the
    kernel is left behind. Raises NoAnswer, Broken for what the work raises, and ConfigError as `privileges.drop_to`.
    """
    reader, writer = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    pid = os.fork()
    if pid == 0:
        _be_apart(work, user, group, setting, writer)
    os.close(writer)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        said = _hear(reader, time.monotonic() + limit_s)
    except BaseException:
        _end(pid)
        raise
    finally:
        os.close(reader)
    if said is None:
        _end(pid)
        raise NoAnswer(f"no answer within {limit_s:g} s")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not said:
        raise Broken(f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}")
    answer = json.loads(said)
    if "refused" in answer:
        raise ConfigError(answer["refused"])
    if "mistake" in answer:
        raise Broken(answer["mistake"])
    return answer["done"]


def _be_apart(work: Callable[[], Any], user: str, group: str, setting: str, writer: int) -> NoReturn:
    code = 1
    try:
        os.setpgid(0, 0)  # Ctrl-C reaches it once, from its parent
        for number in _SIGNALS:
            signal.signal(number, signal.default_int_handler)
        privileges.die_with_parent(signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        try:
            privileges.drop_to(user, [group] if group else [], setting)
            answer = {"done": work()}
        except ConfigError as error:
            answer = {"refused": str(error)}
        except Exception as error:  # noqa: BLE001 - the parent says it
            last = traceback.extract_tb(error.__traceback__)[-1]
            answer = {"mistake": f"{type(error).__name__}: {error} ({os.path.basename(last.filename)}:{last.lineno})"}
        _say(writer, json.dumps(answer).encode())
        code = 0
    finally:
        os._exit(code)


def _say(writer: int, content: bytes) -> None:
    while content:
        content = content[os.write(writer, content) :]


def _hear(reader: int, deadline: float) -> bytes | None:
    """Return what was written until the other end was closed, None if that lasts too long."""
    found = b""
    while True:
        ready, _, _ = select.select([reader], [], [], max(deadline - time.monotonic(), 0.0))
        if not ready:
            return None
        block = os.read(reader, _BLOCK)
        if not block:
            return found
        found += block


def _end(pid: int) -> None:
    """End the process gently, then not; a second Ctrl-C does not disturb it while it tidies up."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 1.0)):
            os.kill(pid, number)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    return
                time.sleep(0.01)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
