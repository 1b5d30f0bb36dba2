"""Time stamps by a real `openssl ts`, and what an authority may send instead."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tapdeck.storage.timestamp import StampError, fetch, read, stamped
from tests.support.authority import Authority, serving

CONTENT = b"Day: 2026-11-24\n"


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "with its chain"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    with serving(tmp_path_factory.mktemp("authority"), chain=request.param) as authority:
        yield authority


@pytest.fixture
def authority(served: Authority) -> Authority:
    served.answer = "stamp"
    return served


def test_openssl_takes_the_time_stamp_and_reads_the_same_time(authority: Authority, tmp_path: Path) -> None:
    stamp = fetch(authority.url, CONTENT)
    file, data = tmp_path / "day.tsr", tmp_path / "day.txt"
    file.write_bytes(stamp.reply)
    data.write_bytes(CONTENT)
    assert authority.verifies(file, data)
    text = subprocess.run(["openssl", "ts", "-reply", "-in", file, "-text"], capture_output=True, text=True).stdout
    shown = next(line.partition(": ")[2] for line in text.splitlines() if line.startswith("Time stamp: "))
    assert datetime.strptime(shown, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC) == stamp.time
    assert abs(datetime.now(UTC) - stamp.time) < timedelta(minutes=1)
    assert stamped(data, CONTENT) == stamp


def test_it_is_over_one_file_only(authority: Authority, tmp_path: Path) -> None:
    stamp = fetch(authority.url, CONTENT)
    with pytest.raises(StampError, match="over another file"):
        read(stamp.reply, CONTENT + b"x")
    file, data = tmp_path / "day.tsr", tmp_path / "day.txt"
    file.write_bytes(stamp.reply)
    data.write_bytes(CONTENT + b"x")
    assert not authority.verifies(file, data)
    assert stamped(tmp_path / "other.txt", CONTENT) is None


@pytest.mark.parametrize("answer", ["error", "replay", "<html>hello</html>", ""])
def test_an_authority_that_sends_something_else(authority: Authority, answer: str) -> None:
    fetch(authority.url, CONTENT)
    authority.answer = answer
    said = {"error": "503 Not today", "replay": "another request"}.get(answer, "no time stamp")
    with pytest.raises(StampError, match=said):
        fetch(authority.url, CONTENT)


def test_a_refusal_is_told(authority: Authority) -> None:
    """OpenSSL's authority takes SHA-256 alone: a request with SHA-512 gets a reply that says no."""
    query = subprocess.run(
        ["openssl", "ts", "-query", "-data", "/dev/stdin", "-sha512"], input=CONTENT, capture_output=True, check=True
    )
    with pytest.raises(StampError, match=r"refuses .*algorithm"):
        read(authority.reply(query.stdout), CONTENT)


def test_one_that_does_not_answer(authority: Authority) -> None:
    authority.answer = "hang"
    with pytest.raises(StampError, match="cannot be reached"):
        fetch(authority.url, CONTENT, timeout=0.2)


def test_one_that_is_not_there() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port, and nobody answers
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(StampError, match="cannot be reached"):
            fetch(f"http://127.0.0.1:{taken.getsockname()[1]}/", CONTENT)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/", "authority.example"])
def test_no_other_address_than_http(url: str) -> None:
    with pytest.raises(StampError, match=r"signing\.timestamp_url"):
        fetch(url, CONTENT)


def test_proxies_of_the_environment_are_not_asked(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert fetch(authority.url, CONTENT).reply
