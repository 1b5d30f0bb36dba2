"""Every fuzz target runs for two seconds with the tests; alone it runs as long as one likes."""

import subprocess
import sys
from pathlib import Path

import pytest

TARGETS = sorted(Path(__file__).parent.glob("fuzz_*.py"))


def test_there_are_targets() -> None:
    names = {path.stem.removeprefix("fuzz_") for path in TARGETS}
    assert names >= {
        "capture_file",
        "codecs",
        "columns",
        "kept",
        "keys",
        "live",
        "masking",
        "reassembly",
        "rtcp",
        "sdp",
        "sip",
        "spool",
        "srtp",
        "timeline",
        "tls",
        "websocket",
    }


@pytest.mark.parametrize("target", TARGETS, ids=lambda path: path.stem)
def test_two_seconds_without_a_breach(target: Path) -> None:
    run = subprocess.run([sys.executable, str(target), "2"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    assert "no breach" in run.stdout
