"""Running somebody's program for an event: JSON on its standard input, what it prints into our log, and never too long.

No shell is involved, and nothing of our environment is handed on.
"""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .safe_text import for_json, for_line

MOST_OUTPUT = 4096
"""Bytes of a program's output that are kept; the rest is read and thrown away."""

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of it: `error` is empty if the program has ended with exit code 0; `output` is the begin of what it
    printed, one safe line each.
    """

    error: str
    output: tuple[str, ...]
    seconds: float


def run(command: Sequence[str], event: Mapping[str, Any], limit_s: float) -> Ran:
    """Run a program until it ends or `limit_s` are over; then it and its children are killed. Raises nothing."""
    began = time.monotonic()
    try:
        process = _start(command, event)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Ran(f"{command[0]} cannot be started: {why}", (), time.monotonic() - began)
    assert process.stdout is not None
    with process.stdout as output:
        said, in_time = _listen(process, output.fileno(), began + limit_s)
    if not in_time:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    return Ran(_trouble(command[0], code, in_time, limit_s), _lines(said), time.monotonic() - began)


def _start(command: Sequence[str], event: Mapping[str, Any]) -> "subprocess.Popen[bytes]":
    """Its input is a file in memory: a program that does not read it keeps nobody waiting."""
    content = json.dumps(for_json(event), ensure_ascii=False).encode() + b"\n"
    memory = os.memfd_create("event", os.MFD_CLOEXEC)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(memory, 0, os.SEEK_SET)
        return subprocess.Popen(
            list(command),
            stdin=memory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={**_ENVIRONMENT, **({"TZ": os.environ["TZ"]} if "TZ" in os.environ else {})},
            start_new_session=True,
        )
    finally:
        os.close(memory)


def _listen(process: "subprocess.Popen[bytes]", output: int, deadline: float) -> tuple[bytes, bool]:
    """Read what it prints until it has ended; return the begin of that, and whether it has ended in time."""
    said, open_ = b"", True
    while True:
        ended = process.poll() is not None
        left = deadline - time.monotonic()
        if not ended and left <= 0:
            return said, False
        ready = select.select([output], [], [], 0 if ended else min(left, _POLL_S))[0] if open_ else []
        if ready:
            block = os.read(output, 1 << 16)
            said, open_ = (said + block)[:MOST_OUTPUT], bool(block)
            if left <= 0:
                return said, True  # it has ended, but left somebody behind who goes on printing
        elif ended:
            return said, True
        elif not open_:
            time.sleep(min(max(left, 0.0), 0.02))


def _trouble(program: str, code: int, in_time: bool, limit_s: float) -> str:
    if not in_time:
        return f"{program} did not end within {limit_s:g} s and was killed"
    if code < 0:
        return f"{program} was ended by signal {-code}"
    return f"{program} ended with exit code {code}" if code else ""


def _lines(said: bytes) -> tuple[str, ...]:
    lines = (for_line(line, 500) for line in said.decode(errors="replace").splitlines())
    return tuple(line for line in lines if line)[:50]
