"""The architecture's import rules hold: one way from room to room, and no I/O in the protocol core."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_import_contracts_hold() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": "src", "PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_packages_hold_only_their_docstring() -> None:
    """Reading one room's package must not load another's libraries."""
    for room in ("sniffer", "rtp", "sip", "storage", "cli"):
        lines = (ROOT / room / "__init__.py").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 1
        assert lines[0].startswith('"""')
