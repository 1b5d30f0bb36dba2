"""The benches on few calls: they run, and what they call right is right."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import flood, live, soak
from bench.traffic import Plan
from tests.support.netns import needs_namespaces
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


@needs_namespaces("tcpdump", "dumpcap")
@pytest.mark.parametrize("tool", list(live.TOOLS))
def test_live_capture_of_a_few_calls(tool: str) -> None:
    outcome = live.measure(tool, Plan(calls=4, seconds=2, spread=1))
    assert outcome.clean
    assert (outcome.sent, outcome.seen) == (4 * 207, 4 * 207)
    assert outcome.recordings == (4 if tool == "tapdeck" else None)
    assert tool in outcome.cores or "capture" in outcome.cores
    assert tool in live.row(outcome)


@needs_namespaces()
def test_a_small_flood(tmp_path: Path) -> None:
    flooded = flood.flood(5000, 2, 2, tmp_path)
    assert flooded.good, flood.text(flooded)
    assert flooded.invites == 10_000
    assert flooded.refused > 5000


@needs_namespaces()
def test_a_short_soak(tmp_path: Path) -> None:
    soaked, samples = soak.soak(4, 0.2, tmp_path, "capture", every_s=0.5)
    assert (soaked.recordings, soaked.wrong, soaked.dropped) == (soaked.calls, [], 0)
    assert {one.name for one in soaked.growth} == {"run", "capture", "seal"}
    assert all(one.early > 1 << 20 for one in soaked.growth)
    assert "flat" in soak.table(soaked, samples)
