"""The `tapdeck` command: what it says without work to do, and its exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import tapdeck
from tapdeck.cli.exit_codes import ExitCode
from tapdeck.cli.main import COMMANDS, cli
from tapdeck.cli.settings import ConfigError

SOURCE = str(Path(tapdeck.__file__).parents[1])
ROOT = Path(__file__).parents[2]


def tapdeck_process(*args: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    command = [sys.executable, "-m", "tapdeck.cli", *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["bogus"],
        ["--bogus"],
        ["config"],
        ["config", "bogus"],
        ["config", "show", "--bogus"],
        ["config", "show", "surplus"],
        ["config", "show", "--max-calls", "many"],
        ["config", "show", "--sip-ports", "x"],
        ["record"],
        ["record", "--bogus"],
        ["inspect"],
        ["inspect", "--bogus"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_with_64(args: list[str]) -> None:
    done = CliRunner().invoke(cli, args)
    assert done.exit_code == ExitCode.USAGE
    assert "Usage: " in done.stderr


def test_as_a_process() -> None:
    assert tapdeck_process("--version").stdout == f"tapdeck, version {tapdeck.__version__}\n"
    assert tapdeck_process("--bogus").returncode == 64
    assert tapdeck_process("config", "show").returncode == 0


def test_help_lists_every_command_and_imports_none() -> None:
    code = "import sys; from tapdeck.cli.main import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], env={**os.environ, "PYTHONPATH": SOURCE}, capture_output=True, text=True
    )
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in done.stdout
    assert not {"numpy", "rich", "pydantic", "tapdeck.cli.record"} & set(done.stderr.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_how_it_is_used(name: str) -> None:
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0
    assert done.stdout.startswith("Usage: ")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (click.UsageError("x"), ExitCode.USAGE),
        (ConfigError("x"), ExitCode.CONFIG),
        (click.Abort(), ExitCode.INTERRUPTED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (RuntimeError("\x1b[2J"), ExitCode.SOFTWARE),
    ],
)
def test_what_a_command_raises_becomes_an_exit_code(
    raised: BaseException, code: ExitCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def failing() -> None:
        raise raised

    monkeypatch.setattr(type(cli), "get_command", lambda *_: failing)
    done = CliRunner().invoke(cli, ["config"])
    assert done.exit_code == code
    assert done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("code", list(ExitCode))
def test_what_a_command_returns_is_the_exit_code(code: ExitCode, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def returning() -> ExitCode:
        return code

    monkeypatch.setattr(type(cli), "get_command", lambda *_: returning)
    assert CliRunner().invoke(cli, ["config"]).exit_code == code


def test_the_message_cannot_write_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise ConfigError("from the file: \x1b[2J\x9b")

    monkeypatch.setattr(type(cli), "get_command", lambda *_: failing)
    assert CliRunner().invoke(cli, ["config"]).stderr == "Error: from the file: \ufffd[2J\ufffd\n"


def test_a_reader_that_goes_away_causes_no_complaint() -> None:
    command = f"{sys.executable} -m tapdeck.cli config show | true"
    done = subprocess.run(command, shell=True, env={**os.environ, "PYTHONPATH": SOURCE}, capture_output=True, text=True)
    assert done.stderr == ""


def test_exit_codes_are_distinct_and_documented() -> None:
    text = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    assert len({int(code) for code in ExitCode}) == len(ExitCode)
    for code in ExitCode:
        assert f"| {int(code)} | `{code.name}` |" in text
