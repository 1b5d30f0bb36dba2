"""The keys that a run is given: read in a thread, watched over, refused with a word of advice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tapdeck.cli.config import load
from tapdeck.cli.settings import ConfigError, Settings
from tapdeck.cli.tls_keys import TlsKeys, UnreadableKeys
from tests.support.netns import wait_for

LINE = b"CLIENT_RANDOM " + b"ab" * 32 + b" " + b"cd" * 48 + b"\n"


def settings(**options: object) -> Settings:
    return load(None, {f"tls__{key}": value for key, value in options.items()}, environ={})


def test_without_a_setting_there_is_nothing_to_look_for() -> None:
    keys = TlsKeys(settings())
    assert not keys.secrets
    keys.require()
    keys.watch()
    assert keys.trouble == ""


def test_a_thread_reads_what_comes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    keys = TlsKeys(settings(key_log=str(path)))
    assert keys.secrets, "a key log is on its way: TLS has to be looked at"
    keys.watch()
    wait_for("trouble", lambda: keys.trouble.endswith("No such file or directory"))
    path.touch(0o640)
    wait_for("no trouble", lambda: keys.trouble == "")
    with path.open("ab") as file:
        file.write(LINE)
    wait_for("a secret", lambda: len(keys.secrets) == 1)
    path.chmod(0o644)
    wait_for("trouble", lambda: "everybody" in keys.trouble)
    keys.stop()


def test_a_command_wants_its_key_log_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(UnreadableKeys, match="--key-log"):
        TlsKeys(settings(key_log=str(tmp_path / "none"))).require()
    with pytest.raises(ConfigError, match=r"tls\.server_keys: .*none"):
        TlsKeys(settings(server_keys=(str(tmp_path / "none"),)))
