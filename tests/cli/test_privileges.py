"""What a process may still do after it gave up its privileges, asked of the kernel in a process of its own."""

import json
import os
import pwd
import signal
import subprocess
import textwrap

import pytest

from tapdeck.cli import privileges
from tapdeck.cli.settings import ConfigError
from tests.support.users import environment, needs_root, python_for_all

NOBODY = pwd.getpwnam("nobody")

PRELUDE = """
import errno, json, os, resource, signal, socket, sys, threading, time
from tapdeck.cli.privileges import die_with_parent, drop_capabilities, drop_to, protect_memory

def status():
    lines = (line.split(":", 1) for line in open("/proc/self/status"))
    return {name: value.split() for name, value in lines}

def attempt(call):
    try:
        return call() and "done"
    except OSError as error:
        return errno.errorcode[error.errno]

def listen():
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))

def tell(**facts):
    print(json.dumps({"status": status(), **facts}), flush=True)
"""


def run(code: str) -> dict[str, object]:
    command = [python_for_all(), "-c", PRELUDE + textwrap.dedent(code)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def capability_sets(answer: dict[str, object]) -> dict[str, int]:
    status = answer["status"]
    assert isinstance(status, dict)
    return {name: int(status[name][0], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")}


@needs_root
def test_a_dropped_process_keeps_its_socket_and_nothing_else() -> None:
    told = run("""
        before = listen()
        drop_to("nobody", ["daemon"])
        tell(
            listen=attempt(listen),
            back=attempt(lambda: os.setuid(0) or True),
            shadow=attempt(lambda: open("/etc/shadow")),
            core=resource.getrlimit(resource.RLIMIT_CORE),
            bound=before.bind(("lo", 0)) is None,
            umask=os.umask(0),
        )
    """)
    status = told["status"]
    assert isinstance(status, dict)
    assert set(capability_sets(told).values()) == {0}
    assert status["NoNewPrivs"] == ["1"]
    assert set(status["Uid"]) == {str(NOBODY.pw_uid)}
    assert set(status["Gid"]) == {str(NOBODY.pw_gid)}
    assert set(status["Groups"]) == {str(NOBODY.pw_gid), "1"}
    assert (told["listen"], told["back"], told["shadow"]) == ("EPERM", "EPERM", "EACCES")
    assert told["core"] == [0, 0]
    assert told["bound"] is True
    assert told["umask"] == 0o007


@needs_root
def test_a_dropped_process_shows_its_memory_to_nobody() -> None:
    """Not to another process of the same user either."""
    told = run("""
        drop_to("nobody")
        reader, writer = os.pipe()
        if os.fork() == 0:
            answer = attempt(lambda: open(f"/proc/{os.getppid()}/mem", "rb"))
            os.write(writer, f"{answer} {attempt(lambda: os.listdir(f'/proc/{os.getppid()}/fd'))}".encode())
            os._exit(0)
        os.wait()
        tell(answer=os.read(reader, 100).decode())
    """)
    assert told["answer"] == "EACCES EACCES"


@needs_root
def test_a_user_with_one_capability_gives_that_up() -> None:
    """As systemd starts it: the unit's user, AmbientCapabilities=CAP_NET_RAW."""
    setpriv = ["setpriv", "--reuid=nobody", "--clear-groups", "--inh-caps=+net_raw", "--ambient-caps=+net_raw"]
    code = """
        import json
        before = status()["CapEff"]
        with listen():
            drop_to("root")
            tell(before=before, listen=attempt(listen))
    """
    command = [*setpriv, python_for_all(), "-c", PRELUDE + textwrap.dedent(code)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert int(told["before"][0], 16) == 1 << 13
    assert told["listen"] == "EPERM"
    sets = capability_sets(told)
    assert sets.pop("CapBnd")  # not its own to change; of no use to it without new privileges
    assert set(sets.values()) == {0}
    assert told["status"]["NoNewPrivs"] == ["1"]


@needs_root
def test_locked_memory_stays_locked_and_can_grow_after_the_drop() -> None:
    told = run("""
        locked = protect_memory()
        drop_to("nobody")
        block = bytearray(b"x") * (32 << 20)
        tell(locked=locked)
    """)
    status = told["status"]
    assert isinstance(status, dict)
    if not told["locked"]:
        pytest.skip("this machine does not let root lock memory")
    assert int(status["VmLck"][0]) > 32 << 10


@needs_root
def test_a_limit_on_locked_memory_leaves_it_unlocked() -> None:
    told = run("""
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
        os.setresuid(65534, 65534, 65534)
        locked = protect_memory()
        block = bytearray(b"x") * (8 << 20)
        tell(locked=locked)
    """)
    status = told["status"]
    assert isinstance(status, dict)
    assert (told["locked"], status["VmLck"][0]) == (False, "0")


@needs_root
def test_threads_would_keep_their_capabilities() -> None:
    told = run("""
        stop = threading.Event()
        threading.Thread(target=stop.wait).start()
        try:
            drop_to("nobody")
            refused = False
        except RuntimeError:
            refused = True
        stop.set()
        tell(refused=refused)
    """)
    assert told["refused"] is True


@needs_root
def test_the_parents_death_is_still_heard_after_the_drop() -> None:
    code = PRELUDE + textwrap.dedent("""
        if os.fork():
            time.sleep(60)
        else:
            die_with_parent(signal.SIGTERM)
            signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"heard\\n"), os._exit(0)))
            drop_to("nobody")
            print(os.getpid(), flush=True)
            while True:
                time.sleep(1)
    """)
    command = [python_for_all(), "-c", code]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert int(parent.stdout.readline()) > 0
        parent.send_signal(signal.SIGKILL)
        assert parent.stdout.readline() == "heard\n"


@needs_root
def test_root_stays_root_where_no_user_is_set() -> None:
    told = run("""
        drop_to("")
        tell()
    """)
    status = told["status"]
    assert isinstance(status, dict)
    assert (status["Uid"][0], status["NoNewPrivs"]) == ("0", ["1"])


@needs_root
def test_a_missing_user_or_group_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"users\.seal: .*no-such-user.*`tapdeck install`.*empty name"):
        privileges.drop_to("no-such-user", setting="users.seal")
    with pytest.raises(ConfigError, match=r"users\.group: .*no-such-group.*`tapdeck install`"):
        privileges.drop_to("nobody", ["no-such-group"])
    assert os.geteuid() == 0


@needs_root
def test_an_installation_that_the_user_cannot_read_is_refused_at_once() -> None:
    code = PRELUDE + textwrap.dedent("""
        os.__file__ = "/root/python/os.py"
        drop_to("nobody", setting="users.deliver")
    """)
    done = subprocess.run([python_for_all(), "-c", code], env=environment(), capture_output=True, text=True)
    assert "ConfigError: users.deliver: the user 'nobody' cannot read /root/python/os.py" in done.stderr
