"""Key logs: their lines, and a file that grows, is exchanged, or is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sniffer.sources.key_log import KeyFileError, KeyLog, server_keys
from tapdeck.sniffer.tls.secrets import CLIENT_RANDOM, EXPORTER, PREMASTER, RSA, Secrets
from tests.support.netns import sh

NAME, MASTER = bytes(range(32)), bytes(range(48))


def line(name: bytes = NAME, secret: bytes = MASTER, label: str = CLIENT_RANDOM) -> bytes:
    return f"{label} {name.hex()} {secret.hex()}\n".encode()


def test_lines_of_every_kind() -> None:
    secrets = Secrets()
    short, long = b"a" * 32, b"b" * 48
    log = (
        b"# a comment\n\n"
        + line()
        + line(label=EXPORTER, secret=short)
        + line(label="SERVER_TRAFFIC_SECRET_0", secret=long)
    )
    log += (
        line(label=PREMASTER, secret=b"p" * 32)
        + line(b"12345678", MASTER, RSA)
        + line().upper().replace(b"CLIENT_RANDOM", b"CLIENT_RANDOM")
    )
    assert secrets.feed(log) == 5
    assert secrets.get(CLIENT_RANDOM, NAME) == MASTER
    assert secrets.get(EXPORTER, NAME) == short
    assert secrets.get("SERVER_TRAFFIC_SECRET_0", NAME) == long
    assert secrets.get(RSA, b"12345678") == MASTER
    assert secrets.get(CLIENT_RANDOM, bytes(32)) is None
    assert secrets.odd == 0


@pytest.mark.parametrize(
    "text",
    [
        b"CLIENT_RANDOM 00 11\n",
        b"CLIENT_RANDOM " + b"0" * 64 + b"\n",
        b"CLIENT_RANDOM " + b"g" * 64 + b" " + b"0" * 96 + b"\n",
        b"CLIENT_RANDOM " + b"0" * 64 + b" " + b"0" * 95 + b"\n",
        b"SOMETHING_ELSE " + b"0" * 64 + b" " + b"0" * 96 + b"\n",
        b"\xff\xfe\x00\n",
        b"x" * 100_000 + b"\n",
        "CLIENT_RANDOM é\n".encode(),
    ],
)
def test_lines_that_are_none_are_counted_and_passed_over(text: bytes) -> None:
    secrets = Secrets()
    assert secrets.feed(text + line()) == 1
    assert secrets.odd == 1
    assert secrets.get(CLIENT_RANDOM, NAME) == MASTER


@given(cuts=st.lists(st.integers(1, 200), max_size=30))
def test_however_it_grows(cuts: list[int]) -> None:
    log = b"".join(line(bytes([number]) * 32) for number in range(10))
    secrets = Secrets()
    for cut in cuts:
        secrets.feed(log[:cut])
        log = log[cut:]
    secrets.feed(log)
    assert all(secrets.get(CLIENT_RANDOM, bytes([number]) * 32) == MASTER for number in range(10))
    assert (len(secrets), secrets.odd) == (10, 0)


def test_a_last_line_without_an_end_counts() -> None:
    secrets = Secrets()
    assert secrets.feed(line().rstrip()) == 1
    assert secrets.get(CLIENT_RANDOM, NAME) == MASTER


def test_the_oldest_go() -> None:
    secrets = Secrets(limit=3)
    secrets.feed(b"".join(line(bytes([number]) * 32) for number in range(5)))
    assert [secrets.get(CLIENT_RANDOM, bytes([number]) * 32) is not None for number in range(5)] == [False] * 2 + [
        True
    ] * 3


# -- the file ----------------------------------------------------------------------------------------------------------


def follow(path: Path, **more: int) -> tuple[Secrets, KeyLog]:
    secrets = Secrets()
    return secrets, KeyLog(str(path), secrets, **more)


def test_a_file_that_comes_later_and_grows(tmp_path: Path) -> None:
    path = tmp_path / "log"
    secrets, log = follow(path)
    assert not log.poll()
    assert log.error == f"{path}: No such file or directory"
    path.write_bytes(line(b"a" * 32)[:50])
    assert not log.poll()
    assert log.error == ""
    with path.open("ab") as file:
        file.write(line(b"a" * 32)[50:] + line(b"b" * 32))
    assert log.poll()
    assert len(secrets) == 2
    assert not log.poll()
    log.close()


@pytest.mark.parametrize("how", ["replaced", "cut back", "moved away"])
def test_a_file_that_is_rotated(how: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line(b"a" * 32) + line(b"b" * 32) + b"CLIENT_RANDOM half a li")
    secrets, log = follow(path)
    assert log.poll()
    if how == "cut back":
        os.truncate(path, 0)
        with path.open("ab") as file:
            file.write(line(b"c" * 32))
    else:
        if how == "moved away":
            path.rename(tmp_path / "log.1")
            assert not log.poll()
            assert log.error
        (tmp_path / "new").write_bytes(line(b"c" * 32))
        (tmp_path / "new").replace(path)
    assert log.poll()
    assert len(secrets) == 3
    assert secrets.odd == 0
    log.close()


def test_of_a_long_file_only_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(line(bytes([number]) * 32) for number in range(100)))
    secrets, log = follow(path, tail=10 * len(line()) + 7)
    assert log.poll()
    assert len(secrets) == 10
    log.close()


def test_server_keys_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    sh("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", tmp_path / "ec.pem")
    sh("openssl", "genrsa", "-aes256", "-passout", "pass:x", "-out", tmp_path / "locked.pem", 2048)
    (tmp_path / "text.pem").write_text("nothing")
    for name, word in (
        ("ec", "not an RSA key"),
        ("locked", "passphrase"),
        ("text", "no private key"),
        ("none", "No such"),
    ):
        with pytest.raises(KeyFileError, match=word):
            server_keys([str(tmp_path / f"{name}.pem")])
