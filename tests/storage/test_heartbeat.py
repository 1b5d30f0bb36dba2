"""Signs of life: a file, a real server that is called, and the look of the other side."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tapdeck.storage.heartbeat import HeartbeatError, call, look, span, write
from tests.support.mailbox import free_port

TIME = "2026-11-24T12:00:00+01:00"
EPOCH = 1_795_518_000.0
"""`date -d TIME +%s`"""
SIGN = {"time": TIME, "instance": "Mül\u202eheim", "state": "healthy"}


def test_the_file_is_written_whole_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "beat.json"
    write(path, SIGN)
    write(path, SIGN | {"state": "warning"})
    assert json.loads(path.read_text())["state"] == "warning"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in tmp_path.iterdir()] == ["beat.json"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HeartbeatError, match=r"heartbeat\.file: .*may the user of this stage write"):
        write(tmp_path / "none" / "beat.json", SIGN)


@pytest.mark.parametrize(
    ("now", "problem"),
    [
        (EPOCH, ""),
        (EPOCH + 600, ""),
        (EPOCH + 601, "the last sign of life is 10 minutes old"),
        (EPOCH + 7 * 86_400, "7 days old"),
        (EPOCH - 299, ""),
        (EPOCH - 7200, "2 hours ahead"),
    ],
)
def test_how_old_it_is(tmp_path: Path, now: float, problem: str) -> None:
    path = tmp_path / "beat.json"
    write(path, SIGN)
    found = look(path, 600, now)
    assert found.age_s == now - EPOCH
    assert problem in found.problem
    assert bool(problem) == bool(found.problem)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', '{"time": 5}', '{"time": "soon"}', "[" * 99_999])
def test_what_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "beat.json"
    path.write_text(content)
    assert look(path, 600, EPOCH).problem == "it is no sign of life"


def test_none_at_all(tmp_path: Path) -> None:
    assert "no such file" in look(tmp_path / "none", 600, EPOCH).problem
    assert "cannot be read" in look(tmp_path, 600, EPOCH).problem


def test_spans() -> None:
    assert [span(one) for one in (0, 90, 119, 120, 7200, 172_800)] == [
        "0 seconds",
        "90 seconds",
        "119 seconds",
        "2 minutes",
        "2 hours",
        "2 days",
    ]


@contextmanager
def serving(status: int) -> Iterator[tuple[str, list[tuple[str, str, Any]]]]:
    """A server that answers so, its address, and what it was asked: method, path, body."""
    asked: list[tuple[str, str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.command, self.path, json.loads(body) if body else None))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            """Not on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/ping/secret-token", asked
    finally:
        server.shutdown()
        server.server_close()


def test_an_address_is_called() -> None:
    with serving(204) as (url, asked):
        call(url, "POST", SIGN)
        call(url, "GET", SIGN)
    assert [one[:2] for one in asked] == [("POST", "/ping/secret-token"), ("GET", "/ping/secret-token")]
    assert asked[0][2]["time"] == TIME
    assert asked[1][2] is None


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_refuses(status: int) -> None:
    """The address is a secret with many services: it is in no message."""
    with serving(status) as (url, _), pytest.raises(HeartbeatError, match=rf"heartbeat\.url: .* {status}") as caught:
        call(url, "POST", SIGN)
    assert "secret-token" not in str(caught.value)


def test_nobody_there() -> None:
    with pytest.raises(HeartbeatError, match="firewall"):
        call(f"http://127.0.0.1:{free_port()}/ping", "POST", SIGN)
