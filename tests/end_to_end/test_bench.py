"""The throughput bench on a small capture: it runs, and what it calls right is right."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.support.record import REPOSITORY


@pytest.mark.skipif(not (shutil.which("tcpdump") and shutil.which("tshark")), reason="tcpdump and tshark are needed")
def test_the_bench_measures_and_checks() -> None:
    command = [sys.executable, "bench/throughput.py", "--calls", "3", "--seconds", "2", "--scale", "2", "--json"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert [(one["calls"], one["recordings"], one["channel_right"]) for one in figures["benches"]] == [
        (3, 3, True),
        (6, 6, True),
    ]
    assert [one["packets"] for one in figures["benches"]] == [3 * 207, 6 * 207]
    assert {one["name"] for one in figures["benches"][0]["runs"]} == {"tcpdump", "tapdeck", "tshark"}


def test_the_bench_of_sealing_seals_and_verifies() -> None:
    command = [
        sys.executable,
        "bench/seal.py",
        "--recordings",
        "5",
        "--calls",
        "4",
        "--seconds",
        "0.5",
        "--talk",
        "2",
        "--json",
    ]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert [(one["name"], one["recordings"], one["exit_code"]) for one in figures["runs"]] == [
        ("seal", 5, 0),
        ("verify", 5, 0),
        ("verify --against-log", 5, 0),
        ("seal --no-sign", 5, 0),
    ]
    assert figures["rush"]["calls"] == 4
    assert all(value > 0 for value in figures["parts_ms"].values())
