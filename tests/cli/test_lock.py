"""Locks of a state folder."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tapdeck.cli.lock import AlreadyRunning, hold


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    first = hold(tmp_path, "capture")
    with pytest.raises(AlreadyRunning, match=rf"`tapdeck capture` \(process {os.getpid()}\) already runs") as refused:
        hold(tmp_path, "capture")
    assert refused.value.exit_code == 75
    os.close(hold(tmp_path, "seal"))
    os.close(first)
    os.close(hold(tmp_path, "capture"))


def test_a_running_holder_is_not_waited_for(tmp_path: Path) -> None:
    held = hold(tmp_path, "run")
    began = time.monotonic()
    with pytest.raises(AlreadyRunning):
        hold(tmp_path, "run", patience_s=30)
    assert time.monotonic() - began < 15
    os.close(held)


def test_children_of_a_dead_holder_are_waited_for(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys; from pathlib import Path; from tapdeck.cli.lock import hold\n"
        "held = hold(Path(sys.argv[1]), 'run')\n"
        "child = subprocess.Popen(['sleep', '60'], pass_fds=[held], stdout=-3, stderr=-3)\n"
        "print(child.pid)"
    )
    child = int(
        subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout
    )
    with pytest.raises(AlreadyRunning):
        hold(tmp_path, "run", patience_s=0.3)
    timer = threading.Timer(0.5, os.kill, (child, 9))
    timer.start()
    os.close(hold(tmp_path, "run", patience_s=30))
    timer.join()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("secret")
    (tmp_path / ".run.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        hold(tmp_path, "run")
    assert (tmp_path / "victim").read_text() == "secret"
