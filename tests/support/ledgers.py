"""What is said of a recording log."""

import json
from pathlib import Path

from click.testing import CliRunner

from tapdeck.cli.main import cli


def problems(path: Path) -> list[str]:
    """Return what `tapdeck log verify` says is wrong with a log's entries; of signatures nothing, without a key."""
    run = CliRunner().invoke(cli, ["log", "verify", "--ledger", str(path), "--json"])
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert found, run.output
    return [one["reason"] for one in found if one["kind"] == "log" and one["verdict"] in ("altered", "missing")]
