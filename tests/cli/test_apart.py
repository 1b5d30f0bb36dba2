"""Work in a process of its own: its answer, its user, its end."""

import grp
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tapdeck.cli.apart import Broken, NoAnswer, apart
from tests.support.netns import wait_for
from tests.support.users import environment, needs_root, python_for_all


def in_process(code: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)


def test_it_answers_from_a_process_of_its_own() -> None:
    assert apart(lambda: [os.getpid(), "ü" * 100_000], "", "", "", 30)[1] == "ü" * 100_000
    assert apart(os.getpid, "", "", "", 30) != os.getpid()
    assert apart(os.getppid, "", "", "", 30) == os.getpid()


def test_what_goes_wrong_in_it_is_said() -> None:
    with pytest.raises(Broken, match=r"ZeroDivisionError: .* \(test_apart.py:\d+\)"):
        apart(lambda: 1 // 0, "", "", "", 30)
    with pytest.raises(Broken, match="ended by signal 9"):
        apart(lambda: os.kill(os.getpid(), signal.SIGKILL), "", "", "", 30)
    with pytest.raises(Broken, match="exit code 7"):
        apart(lambda: os._exit(7), "", "", "", 30)


def test_one_that_takes_too_long_is_ended_and_may_tidy_up(tmp_path: Path) -> None:
    def work() -> None:
        try:
            (tmp_path / "pid").write_text(str(os.getpid()))
            time.sleep(60)
        finally:
            (tmp_path / "tidy").touch()

    with pytest.raises(NoAnswer, match=r"within 0.5 s"):
        apart(work, "", "", "", 0.5)
    assert (tmp_path / "tidy").exists()
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()


def test_one_that_will_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapdeck.cli.apart.GRACE_S", 0.3)

    def work() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(60)

    with pytest.raises(NoAnswer):
        apart(work, "", "", "", 0.3)
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()


SLOW = """
import sys, time; from pathlib import Path; from tapdeck.cli.apart import apart
folder = Path(sys.argv[1])
def work():
    try:
        (folder / "began").touch(); time.sleep(60)
    finally:
        time.sleep(0.3); (folder / "tidy").touch()
apart(work, "", "", "", 60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_it_tidies_up_when_its_caller_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C twice does not disturb it; a caller that is killed takes it along."""
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, tmp_path], env=environment(), stderr=subprocess.DEVNULL, start_new_session=True
    ) as caller:
        wait_for("the work", (tmp_path / "began").exists)
        os.killpg(caller.pid, number)
        time.sleep(0.1)
        caller.send_signal(number)
        caller.wait(30)
    wait_for("the end", (tmp_path / "tidy").exists, 5)


@needs_root
def test_it_is_the_user_who_is_wanted_and_its_caller_stays_root() -> None:
    code = (
        "import os; from tapdeck.cli.apart import apart\n"
        "who = lambda: [os.getuid(), os.getgroups(), open('/proc/self/status').read().split('CapEff:')[1].split()[0]]\n"
        "print(apart(who, 'nobody', 'games', 'users.seal', 30), os.getuid())"
    )
    done = in_process(code, python_for_all())
    nobody, games = pwd.getpwnam("nobody"), grp.getgrnam("games").gr_gid
    assert done.stdout == f"{[nobody.pw_uid, sorted([games, nobody.pw_gid]), '0' * 16]} 0\n", done.stderr


@needs_root
def test_a_user_that_there_is_not_is_a_matter_of_the_configuration() -> None:
    code = "from tapdeck.cli.apart import apart; apart(int, 'no-such-user', '', 'users.seal', 30)"
    assert "ConfigError: users.seal: there is no user 'no-such-user'" in in_process(code).stderr


@needs_root
def test_without_root_it_stays_the_caller() -> None:
    code = (
        "import os; os.setuid(65534); from tapdeck.cli.apart import apart\n"
        "print(apart(os.getuid, 'daemon', 'games', 'users.seal', 30))"
    )
    assert in_process(code, python_for_all()).stdout == "65534\n"
