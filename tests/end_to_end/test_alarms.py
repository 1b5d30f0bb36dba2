"""A box on a tap whose target fails: one mail, and one when it is back; and a program that is told of a recording."""

import ctypes
import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.support import files
from tests.support.box import Box
from tests.support.mailbox import PASSWORD, USER, Mailbox
from tests.support.netns import Namespaces, Wire, needs_namespaces, wait_for
from tests.support.replay import replay
from tests.support.scene import plain_call

pytestmark = needs_namespaces()


def in_namespace(name: str, what: Callable[[], None]) -> None:
    """Do something in a thread in another network namespace, where the threads that it starts stay."""
    troubles: list[BaseException] = []

    def enter() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/run/netns/{name}") as space:
                if libc.setns(space.fileno(), 0):
                    raise OSError(ctypes.get_errno(), f"setns {name}")
            what()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            troubles.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    for error in troubles:
        raise error


def configuration(folder: Path, mailbox: Mailbox, told: Path) -> Path:
    password, hook = folder / "password", folder / "hook.py"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    hook.write_text(f"import sys\nopen({str(told)!r}, 'ab').write(sys.stdin.buffer.read())\n")
    path = folder / "tapdeck.toml"
    path.write_text(f"""
[calls]
bye_linger_s = 0.2
[deliver]
folder = "{folder / "target"}"
first_pause_s = 0.5
longest_pause_s = 1
[alarms]
it = ["it@example.com"]
server = "127.0.0.1"
port = {mailbox.port}
user = "{USER}"
password_file = "{password}"
ca_file = "{mailbox.ca_file}"
sender = "tapdeck@example.com"
gather_s = 0
hold_s = 3
routes = ["NO_TRAFFIC=", "CLOCK_STEP=", "DISK_LOW=", "DISK_FULL=", "STAGE_DOWN="]
recording_hook = ["{sys.executable}", "-I", "{hook}"]
""")
    return path


def test_a_target_that_fails_and_is_back(tmp_path: Path) -> None:
    target, told = tmp_path / "target", tmp_path / "told"
    target.mkdir()
    with Namespaces() as spaces:
        wire = Wire.between(spaces)
        mailbox = Mailbox(tmp_path / "mail")
        in_namespace(wire.tap, mailbox.begin)
        more = ("--config", str(configuration(tmp_path, mailbox, told)), "--alarms-user=")
        with closing(mailbox), Box(wire.tap, [wire.tap_interface], tmp_path, "run", more) as box:
            wait_for("the target", lambda: box.report("deliver").get("targets"), 30)
            wait_for("the alarms stage", lambda: box.report("alarms"), 30)
            target.rename(tmp_path / "away")
            scene = plain_call(seed=9, duration_ms=500)
            replay(wire.sender, wire.interface, files.write(tmp_path, files.pcap(scene.packets())))
            wait_for("a mail", lambda: mailbox.mails, 60)
            assert mailbox.subjects() == [mailbox.subjects()[0]]
            assert f"DELIVER_FAILED ({target})" in mailbox.subjects()[0]
            assert f"{target}: 1" in mailbox.mails[0].get_content(), "what waits"
            (tmp_path / "away").rename(target)
            wait_for("the mail of the end", lambda: len(mailbox.mails) == 2, 60)
            assert f"over: DELIVER_FAILED ({target})" in mailbox.subjects()[1]
            wait_for("the hook", told.exists, 30)
            [recording] = box.recordings()
        [event] = [json.loads(line) for line in told.read_bytes().splitlines()]
        assert event["event"] == "recording finished"
        assert str(recording.path) in event["files"]
        assert all(os.path.exists(path) for path in event["files"])
        assert (event["caller"], event["callee"]) == (recording.info["Caller"], recording.info["Callee"])
        assert event["id"]
        assert (target / recording.path.relative_to(box.out)).read_bytes() == recording.path.read_bytes()
        assert len(mailbox.mails) == 2
