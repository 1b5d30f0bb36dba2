"""The bench of delivery on few recordings: it runs, and sees to it that all arrives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.support.record import REPOSITORY
from tests.support.samba import needs_samba

pytestmark = needs_samba


@pytest.mark.skipif(not (shutil.which("smbclient") and shutil.which("sftp")), reason="smbclient and sftp are needed")
def test_the_bench_of_delivery_measures_and_checks() -> None:
    few = ["--small", "6", "--large", "1", "--megabytes", "9", "--json"]
    command = [sys.executable, "bench/delivery.py", *few]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert figures["cipher"]
    runs = [(one["load"], one["target"], one["what"], one["recordings"]) for one in figures["runs"]]
    assert runs == [
        (load, target, what, count)
        for load, count in (("large", 1), ("small", 6))
        for target, tool in (("nas", "smbclient"), ("ssh", "sftp"))
        for what in (f"{tool} put", f"{tool} put, get", "tapdeck", "tapdeck, read back")
    ]
    assert all(one["bytes"] > 100_000 and one["seconds"] > 0 for one in figures["runs"])
