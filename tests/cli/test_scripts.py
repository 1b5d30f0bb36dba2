"""The README's commands exist, and what checks every change is exactly the README's test command."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ["scripts/setup", "scripts/test", "scripts/demo", ".ci/run"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_executable_and_can_be_read_by_its_shell(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    shell = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#!")
    assert shell in ("/bin/sh", "/bin/bash")
    assert subprocess.run([shell, "-n", path], capture_output=True).returncode == 0


def test_the_readme_names_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^    (scripts/\w+)$", readme, re.MULTILINE) == ["scripts/demo", "scripts/test"]
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == "exec scripts/test"


def test_setup_refuses_an_unknown_option() -> None:
    done = subprocess.run([ROOT / "scripts" / "setup", "--bogus"], capture_output=True, text=True)
    assert done.returncode == 64
    assert "usage:" in done.stderr


def test_every_document_that_is_linked_exists() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "fixtures").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (path.parent / link).exists(), f"{path.name} links to {link}"
