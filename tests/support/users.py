"""Processes that change their user: they need a Python that every user may read."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import tapdeck

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="changes users, mounts or listens on interfaces: needs root")

_SOURCE = Path(tapdeck.__file__).parents[1]


@cache
def python_for_all() -> str:
    """Return a Python that the user `nobody` can import from; skip the test if there is none."""
    this = Path(sys.executable).resolve()
    candidates = [sys.executable if _open_to_all(this) else "", shutil.which("python3", path="/usr/bin:/usr/local/bin")]
    for python in filter(None, candidates):
        done = subprocess.run([python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
        if done.stdout.strip() == str(sys.version_info[:2]) and _open_to_all(_SOURCE):
            return python
    pytest.skip("no Python of this version that every user may read")


def environment() -> dict[str, str]:
    """Return an environment in which that Python finds Tapdeck and the libraries of this one."""
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TAPDECK_", "PYTHON", "NOTIFY"))}
    return {**clean, "PYTHONPATH": os.pathsep.join([str(_SOURCE), *libraries]), "PYTHONDONTWRITEBYTECODE": "1"}


def _open_to_all(path: Path) -> bool:
    return all(above.stat().st_mode & 0o005 == 0o005 for above in (path, *path.parents))
