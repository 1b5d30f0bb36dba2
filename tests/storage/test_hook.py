"""Programs for events: what they are given, and that they hold up nobody."""

import json
import os
import sys
from pathlib import Path

import pytest

from tapdeck.storage import hook
from tests.support.netns import wait_for


def program(folder: Path, text: str) -> tuple[str, ...]:
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    return (sys.executable, "-I", str(path))


def test_it_gets_the_event_as_json(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    event = {"event": "alarm raised", "text": "Ümläut \u202e \n zwei", "files": ["a", "b"], "number": 1.5, "none": None}
    ran = hook.run(
        program(tmp_path, f"import sys; open({str(copy)!r}, 'wb').write(sys.stdin.buffer.read())"), event, 10
    )
    assert (ran.error, ran.output) == ("", ())
    content = copy.read_bytes()
    assert content.count(b"\n") == 1, "one line"
    given = json.loads(content)
    assert given.keys() == event.keys()
    assert (given["files"], given["number"], given["none"]) == (["a", "b"], 1.5, None)


def test_no_shell_sees_the_command_or_the_event(tmp_path: Path) -> None:
    bait = tmp_path / "bait"
    words = (*program(tmp_path, "import sys; print(sys.argv[1:])"), f"$(touch {bait})", f"; touch {bait}", "*", "a b")
    ran = hook.run(words, {"text": f"`touch {bait}`; $(touch {bait})"}, 10)
    assert not ran.error
    assert ran.output == (str([f"$(touch {bait})", f"; touch {bait}", "*", "a b"]),)
    assert not bait.exists()


def test_nothing_secret_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPDECK_SECRET_MAIL_PASSWORD", "the password")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/tapdeck")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        text = (
            "import os, json; print(json.dumps([sorted(os.environ), sorted(os.listdir('/proc/self/fd')), os.getcwd()]))"
        )
        ran = hook.run(program(tmp_path, text), {}, 10)
    names, descriptors, folder = json.loads(ran.output[0])
    assert set(names) <= {"PATH", "LC_ALL", "TZ", "LC_CTYPE"}
    assert set(descriptors) <= {"0", "1", "2", "3"}, "3 is the listing itself"
    assert folder == "/"


def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    text = f"""import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
open({str(child)!r} + ".new", "w").write(str(child.pid))
import os; os.rename({str(child)!r} + ".new", {str(child)!r})
time.sleep(1000)"""
    ran = hook.run(program(tmp_path, text), {}, 2.0)
    assert "did not end within 2 s and was killed" in ran.error
    assert 2 <= ran.seconds < 60
    pid = int(child.read_text())
    wait_for("the child's end", lambda: gone(pid), 10)


def gone(pid: int) -> bool:
    """Whether a process is no more, or only not yet waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_one_that_ignores_sigterm_and_closes_its_output_is_killed(tmp_path: Path) -> None:
    ignore = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    text = f"{ignore}; os.close(1); os.close(2); time.sleep(999)"
    assert "was killed" in hook.run(program(tmp_path, text), {}, 1.0).error


def test_one_that_leaves_somebody_behind_has_ended(tmp_path: Path) -> None:
    """A daemon that keeps the output open must not make its starter a failure, nor wait for it."""
    pids = tmp_path / "pid"
    text = f"""import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
open({str(pids)!r}, "w").write(str(child.pid)); print("begun")"""
    ran = hook.run(program(tmp_path, text), {}, 25.0)
    os.kill(int(pids.read_text()), 9)
    assert (ran.error, ran.output) == ("", ("begun",))
    assert ran.seconds < 25


@pytest.mark.parametrize(
    ("text", "error"), [("raise SystemExit(3)", "exit code 3"), ("import os; os.kill(os.getpid(), 9)", "signal 9")]
)
def test_one_that_fails(tmp_path: Path, text: str, error: str) -> None:
    ran = hook.run(program(tmp_path, f"print('why', flush=True)\n{text}"), {}, 10)
    assert error in ran.error
    assert ran.output == ("why",)


def test_megabytes_of_output_are_read_and_not_kept(tmp_path: Path) -> None:
    text = (
        "import sys\nfor _ in range(5000): sys.stdout.write('x' * 999 + '\\x1b[2J\\n')\nprint('end', file=sys.stderr)"
    )
    ran = hook.run(program(tmp_path, text), {}, 30)
    assert not ran.error
    assert 0 < sum(map(len, ran.output)) <= hook.MOST_OUTPUT
    assert not any("\x1b" in line for line in ran.output)


def test_megabytes_of_input_that_nobody_reads(tmp_path: Path) -> None:
    assert not hook.run(program(tmp_path, "pass"), {"text": "x" * (8 << 20)}, 30).error


@pytest.mark.parametrize("name", ["/nowhere/at/all", "/etc", "/etc/passwd"])
def test_what_cannot_be_started(name: str) -> None:
    assert hook.run((name,), {}, 5).error.startswith(f"{name} cannot be started: ")
