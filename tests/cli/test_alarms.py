"""`tapdeck alarms` and its stage as real processes, with a real mail server; `tapdeck heartbeat-check`."""

import json
import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from tapdeck.cli.alarm_checks import ROLES, trouble
from tapdeck.cli.alarms_mail import Password
from tapdeck.cli.alarms_stage import AlarmsStage
from tapdeck.cli.exit_codes import ExitCode
from tapdeck.cli.main import cli
from tapdeck.cli.settings import AlarmSettings, HeartbeatSettings, RecordingSettings, Settings, StorageSettings
from tapdeck.storage import state
from tapdeck.storage.advice import ADVICE, routes
from tapdeck.storage.mail import MailServer
from tapdeck.storage.outbox import Letter
from tests.cli.test_admin_guide import ADMIN, first_cells, section, spans
from tests.support.mailbox import PASSWORD, USER, Mailbox
from tests.support.netns import wait_for
from tests.support.users import environment, needs_root, python_for_all


class Post:
    """The alarms stage of a box, a mail server, and what the two have to do with each other."""

    def __init__(self, folder: Path, mailbox: Mailbox, user: str = "", python: str = sys.executable) -> None:
        self.python = python
        self.folder, self.mailbox, self.state = folder, mailbox, folder / "state"
        self.config, self.calls = folder / "tapdeck.toml", folder / "calls"
        if not user:
            self.state.mkdir()
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o600)
        hook = folder / "hook.py"
        hook.write_text(f"import sys\nopen({str(self.calls)!r}, 'ab').write(sys.stdin.buffer.read())\n")
        self.config.write_text(f"""
[storage]
state = "{self.state}"
recordings = "{folder / "recordings"}"
spool = "{folder / "spool"}"
[signing]
keys = "{folder / "keys"}"
[users]
capture = ""
seal = ""
deliver = ""
metrics = ""
alarms = "{user}"
group = "{"nogroup" if user else ""}"
[alarms]
it = ["it@example.com"]
admin = ["admin@example.com"]
server = "127.0.0.1"
port = {mailbox.port}
user = "{USER}"
password_file = "{secret}"
ca_file = "{mailbox.ca_file}"
sender = "tapdeck@example.com"
gather_s = 0
hold_s = 1
mails_an_hour = 1000
hook = ["{python}", "-I", "{hook}"]
""")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            command = [self.python, "-m", "tapdeck.cli", "alarms", "run", "--config", str(self.config)]
            self.process = subprocess.Popen(command, env=environment(), stderr=log, stdout=log)

    def running(self) -> bool:
        report = state.read(self.state, "alarms")
        return bool(self.process and report and report["pid"] == self.process.pid)

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def run(self, *words: str) -> tuple[int, str]:
        command = [self.python, "-m", "tapdeck.cli", "alarms", *words, "--config", str(self.config)]
        done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout

    def events(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.calls.read_bytes().splitlines()] if self.calls.exists() else []


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    with Mailbox(tmp_path / "mail") as mailbox:
        found = Post(tmp_path, mailbox)
        yield found
        if found.process is not None and found.process.poll() is None:
            found.process.kill()
            found.process.wait()


def test_an_alarm_from_its_beginning_to_its_end(post: Post) -> None:
    """Raised, listed, acknowledged, over: in the list, by mail, and for the hook."""
    post.start()
    wait_for("the stage", post.running, 30)
    assert post.run() == (0, "no alarm\n")
    deliver = state.Alarms(post.state, "deliver")
    deliver.raise_("DELIVER_FAILED", "the server is off", about="nas")
    wait_for("a mail", lambda: len(post.mailbox.mails) == 1, 20)
    [mail] = post.mailbox.mails
    assert mail["To"] == "it@example.com, admin@example.com"
    text = mail.get_content()
    for word in ("DELIVER_FAILED (nas)", "the server is off", "Since:", "Safe:", "Do:", ADVICE["DELIVER_FAILED"].do):
        assert word in text
    code, said = post.run("list")
    assert code == 0
    assert "DELIVER_FAILED nas: warning, active, since" in said
    assert post.run("ack", "NO_TRAFFIC")[0] == ExitCode.NO_CALL
    assert post.run("ack", "DELIVER_FAILED", "--about", "other")[0] == ExitCode.NO_CALL
    code, said = post.run("ack", "DELIVER_FAILED", "--by", "Anna", "--note", "called IT")
    assert (code, said) == (0, "DELIVER_FAILED: noted that Anna looks after it\n")
    [shown] = json.loads(post.run("--json")[1])["alarms"]
    assert (shown["state"], shown["by"], shown["note"]) == ("acknowledged", "Anna", "called IT")
    deliver.clear("DELIVER_FAILED", "nas")
    wait_for("another mail", lambda: len(post.mailbox.mails) == 2, 20)
    assert "Looked after by Anna: called IT." in post.mailbox.mails[1].get_content()
    assert post.run() == (0, "no alarm\n")
    assert "DELIVER_FAILED nas: warning, cleared" in post.run("--all")[1]
    wait_for("the hook", lambda: len(post.events()) == 3, 20)
    assert [one["event"] for one in post.events()] == ["alarm raised", "alarm acknowledged", "alarm over"]
    assert post.end() == 0


def test_a_new_password_is_taken_by_reload(post: Post) -> None:
    password = post.folder / "password"
    password.write_text("another one")
    post.start()
    wait_for("the stage", post.running, 30)
    state.Alarms(post.state, "deliver").raise_("DELIVER_FAILED", "off", about="nas")

    def codes() -> set[str]:
        return {one["code"] for one in (state.read(post.state, "alarms") or {}).get("alarms", [])}

    wait_for("trouble", lambda: codes() == {"MAIL_FAILED"}, 20)
    password.write_text(PASSWORD)
    assert post.process is not None
    post.process.send_signal(signal.SIGHUP)
    wait_for("a mail", lambda: len(post.mailbox.mails) == 1, 20)
    wait_for("no trouble", lambda: not codes(), 20)
    assert "another one" not in (post.folder / "log").read_text()
    assert post.end() == 0


@needs_root
def test_started_as_root_it_is_nobody_and_knows_the_password_still(tmp_path: Path) -> None:
    """The password's file is root's: it is read before, and what was read is kept at a reload."""
    python = python_for_all()
    with tempfile.TemporaryDirectory(prefix="tapdeck-alarms-") as name, Mailbox(tmp_path / "mail") as mailbox:
        folder = Path(name)
        folder.chmod(0o755)
        found = Post(folder, mailbox, "nobody", python)
        ca_file = folder / "ca.pem"
        shutil.copy(mailbox.ca_file, ca_file)
        found.config.write_text(found.config.read_text().replace(mailbox.ca_file, str(ca_file)))
        found.calls.touch()
        found.calls.chmod(0o666)
        found.start()
        try:
            process = found.process
            assert process is not None
            wait_for("the stage", lambda: found.running() or process.poll() is not None, 30)
            assert process.poll() is None, (folder / "log").read_text()
            status = Path(f"/proc/{process.pid}/status").read_text()
            [uids] = [line.split()[1:] for line in status.splitlines() if line.startswith("Uid:")]
            assert set(uids) == {str(pwd.getpwnam("nobody").pw_uid)}
            process.send_signal(signal.SIGHUP)
            wait_for("the reload", lambda: "alarms reloaded" in log_of(found.state), 20)
            state.Alarms(found.state, "deliver").raise_("DELIVER_FAILED", "off", about="nas")
            wait_for("a mail", lambda: mailbox.mails, 20)
            wait_for("the hook", found.events, 20)
            assert found.end() == 0
        finally:
            if found.process is not None:
                found.process.kill()
                found.process.wait()


def log_of(folder: Path) -> str:
    """The event log."""
    return "".join(path.read_text() for path in (folder / "log").glob("*.jsonl"))


def test_killed_at_ten_moments(post: Post) -> None:
    """Ten alarms come and go while the stage is killed again and again: each is told of, and few are told twice."""
    chance = random.Random(5)
    deliver = state.Alarms(post.state, "deliver")
    post.start()
    wait_for("the stage", post.running, 30)
    for number in range(10):
        deliver.raise_("DELIVER_FAILED", "off", about=f"nas{number}")
        time.sleep(chance.random() * 1.5)
        assert post.end(signal.SIGKILL) == -signal.SIGKILL
        deliver.clear("DELIVER_FAILED", f"nas{number}")
        post.start()
    wanted = {f"nas{number}" for number in range(10)}
    wait_for("the hook", lambda: ended(post) == wanted, 60)
    wait_for("mails", lambda: all(f"over: DELIVER_FAILED ({name})" in subjects(post) for name in wanted), 60)
    assert {one["about"] for one in post.events() if one["event"] == "alarm raised"} == wanted
    ids = [str(mail["Message-ID"]) for mail in post.mailbox.mails]
    assert len(ids) - len(set(ids)) <= 10
    assert post.end() == 0


def ended(post: Post) -> set[str]:
    return {one["about"] for one in post.events() if one["event"] == "alarm over"}


def subjects(post: Post) -> str:
    """All of them, with what goes together parted as if each had a mail of its own."""
    text = "\n".join(post.mailbox.subjects())
    bodies = "\n".join(str(mail.get_content()) for mail in post.mailbox.mails)
    return text + "\n" + bodies.replace("Over: ", "over: ")


def test_trying_it_out(post: Post) -> None:
    code, said = post.run("test")
    assert code == 0
    assert said.count("ok ") == 2
    assert post.mailbox.mails[0]["To"] == "admin@example.com, it@example.com"
    assert post.events()[0]["code"] == "TEST"
    post.mailbox.stop()
    code, said = post.run("test")
    assert code == ExitCode.NO_CALL
    assert "takes no connection" in said
    assert PASSWORD not in said


def test_no_stage_no_book(post: Post) -> None:
    state.Alarms(post.state, "deliver").raise_("DELIVER_FAILED", "off", about="nas")
    code, said = post.run("ack", "DELIVER_FAILED")
    assert code == ExitCode.NO_CALL
    assert "the alarms stage does not run" in said


def test_nobody_to_tell(tmp_path: Path) -> None:
    config = tmp_path / "tapdeck.toml"
    config.write_text(f'[storage]\nstate = "{tmp_path}"\n')
    for command in ("run", "test"):
        done = CliRunner().invoke(cli, ["alarms", command, "--config", str(config)])
        assert done.exit_code == ExitCode.CONFIG, done.output


# -- who is told what --------------------------------------------------------------------------------------------------


def settings(folder: Path, **more: object) -> Settings:
    people = {role: (f"{role}@example.com",) for role in ROLES}
    alarms = AlarmSettings(**people, server="mail.example.com", gather_s=0, hold_s=5)  # type: ignore[arg-type]
    alarms = replace(alarms, **more)  # type: ignore[arg-type]
    return Settings(recording=RecordingSettings(utc=True), storage=StorageSettings(state=str(folder)), alarms=alarms)


def told(folder: Path, moments: Sequence[float], codes: Sequence[str] = (), **more: object) -> list[Letter]:
    """The mails of a stage that looks at these moments, in which such alarms are raised."""
    letters: list[Letter] = []

    def send(server: MailServer, letter: Letter) -> dict[str, str]:
        letters.append(letter)
        return {}

    stage = AlarmsStage(settings(folder, **more), Password(), moments[0], send)
    for code in codes:
        state.Alarms(folder, "capture").raise_(code, "why")
    for moment in moments:
        stage.tick(moment)
        stage._post.wait(10)
    for _ in range(3):
        stage.tick(moments[-1])
        stage._post.wait(10)
    return letters


@pytest.mark.parametrize("code", sorted(ADVICE))
def test_each_alarm_goes_to_its_roles(tmp_path: Path, code: str) -> None:
    letters = told(tmp_path, [time.time()], [code])
    assert {address for one in letters for address in one.to} == {f"{role}@example.com" for role in ADVICE[code].roles}
    assert bool(letters) == (code != "MAIL_FAILED"), "that one cannot be told by mail"


def test_routes_of_the_settings(tmp_path: Path) -> None:
    assert routes(["DELIVER_FAILED=installer", "NO_TRAFFIC="])["NO_TRAFFIC"] == ()
    letters = told(
        tmp_path, [time.time()], ["DELIVER_FAILED", "NO_TRAFFIC"], routes=("DELIVER_FAILED=installer", "NO_TRAFFIC=")
    )
    assert [one.to for one in letters] == [("installer@example.com",)]
    assert "NO_TRAFFIC" not in letters[0].subject


def test_who_is_refused_for_the_moment_gets_it_later(tmp_path: Path) -> None:
    """Greylisting, and an address that is gone, of three who get the same mail."""
    now, sent = time.time(), list[Letter]()
    replies = [{"b@example.com": "451 later", "c@example.com": "550 gone"}, {}]

    def send(server: MailServer, letter: Letter) -> dict[str, str]:
        sent.append(letter)
        return replies.pop(0)

    found = settings(tmp_path, it=("a@example.com", "b@example.com", "c@example.com"), routes=("NO_TRAFFIC=it",))
    stage = AlarmsStage(found, Password(), now, send)
    state.Alarms(tmp_path, "capture").raise_("NO_TRAFFIC", "why")
    for moment in (now, now + 1, now + 2, now + 3600, now + 3601, now + 3602):
        stage.tick(moment)
        stage._post.wait(10)
    assert [one.to for one in sent] == [("a@example.com", "b@example.com", "c@example.com"), ("b@example.com",)]
    assert sent[0].id == sent[1].id


def test_the_mail_of_the_day(tmp_path: Path) -> None:
    """Once a day, after its time; on the first day not for a time that is over."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    log = tmp_path / "log" / f"{yesterday:%Y-%m-%d}.jsonl"
    log.parent.mkdir()
    events = [{"event": "call", "outcome": "recorded", "duration_s": 90}] * 2
    events += [{"event": "call", "outcome": "without_media"}, {"event": "delivered", "target": "nas"}]
    log.write_text("".join(json.dumps({"time": yesterday.isoformat(), **one}) + "\n" for one in events))
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    moments = [midnight + hour * 3600 + 60 for hour in (1, 5, 6, 6, 7, 23)]
    [letter] = told(tmp_path, moments, alive_at="06:00")
    assert letter.to == ("admin@example.com",)
    assert f"2 recordings on {yesterday:%Y-%m-%d}" in letter.subject
    for words in (
        "2 recordings, 0:03:00 long in all",
        "1 calls without media",
        "1 delivered to nas",
        "No alarm is raised",
    ):
        assert words in letter.body
    assert not told(tmp_path, [moments[-1]], alive_at="06:00"), "it was told already"


def test_every_alarm_of_the_guide_has_advice() -> None:
    explained = {code for cell in first_cells(section(ADMIN, "## Alarms")) for code in spans(cell)}
    assert explained == set(ADVICE)
    for code, one in ADVICE.items():
        assert all((one.means, one.safe, one.do)), code
        assert set(one.roles) <= set(ROLES)


@pytest.mark.parametrize(
    ("alarms", "heartbeat", "problem"),
    [
        ({"it": ("a@example.com\nBcc: b@example.com",)}, {}, "is no mail address"),
        ({"sender": "Tapdeck <a@example.com>"}, {}, "alarms.sender"),
        ({"routes": ("DELIVER_FAILED=boss",)}, {}, "alarms.routes"),
        ({"security": "maybe"}, {}, "alarms.security"),
        ({"security": "none", "user": "x"}, {}, "everybody on the way could read the password"),
        ({"hook": ("tell",)}, {}, "by its whole path"),
        ({}, {"url": "file:///etc/passwd"}, "heartbeat.url"),
        ({}, {"method": "PUT"}, "heartbeat.method"),
        ({"routes": ("DELIVER_FAILED=it+admin", "NO_TRAFFIC=")}, {"url": "https://example.com/x"}, ""),
    ],
)
def test_settings_that_are_wrong(alarms: dict[str, object], heartbeat: dict[str, str], problem: str) -> None:
    found = trouble(AlarmSettings(**alarms), HeartbeatSettings(**heartbeat))  # type: ignore[arg-type]
    assert problem in found
    assert bool(found) == bool(problem)


# -- signs of life -----------------------------------------------------------------------------------------------------


def alive(folder: Path, *, critical: bool = False) -> None:
    """A box whose capture runs: this process."""
    alarms = [{"code": "DISK_FULL", "since": "", "severity": "critical", "text": "", "about": ""}] if critical else []
    state.write(folder, "capture", {"alarms": alarms, "started": "2026-11-24T12:00:00+00:00"})


def test_signs_of_life_while_all_is_well(tmp_path: Path) -> None:
    folder, beat, now = tmp_path / "state", tmp_path / "beat.json", time.time()
    folder.mkdir()
    found = replace(settings(folder), heartbeat=HeartbeatSettings(file=str(beat), mail="watch@example.com", every_s=60))
    letters: list[Letter] = []
    stage = AlarmsStage(found, Password(), now, lambda server, letter: letters.append(letter) or {})  # type: ignore[func-returns-value]
    stage.tick(now)
    assert not beat.exists(), "capture does not run"
    alive(folder)
    stage.tick(now + 61)
    wait_for("a sign of life", beat.exists, 10)
    stage._post.wait(10)
    assert [one.to for one in letters] == [("watch@example.com",)]
    content = json.loads(beat.read_text())
    assert (content["state"], content["every_s"]) == ("healthy", 60)
    beat.unlink()
    stage.tick(now + 90)
    alive(folder, critical=True)
    stage.tick(now + 150)
    time.sleep(0.2)
    assert not beat.exists(), "silence is the alarm"


def check(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["heartbeat-check", *words])
    return done.exit_code, done.output


def test_the_other_side(tmp_path: Path) -> None:
    beat = tmp_path / "beat.json"
    assert check(str(beat))[0] == 2
    beat.write_text(json.dumps({"time": datetime.now(UTC).isoformat(), "instance": "b\x1b[2Jx", "state": "healthy"}))
    code, said = check(str(beat))
    assert code == 0
    assert said.startswith("OK: ")
    assert "\x1b" not in said
    beat.write_text(json.dumps({"time": (datetime.now(UTC) - timedelta(minutes=11)).isoformat()}))
    assert check(str(beat)) == (2, f"CRITICAL: {beat}: the last sign of life is 11 minutes old\n")
    assert check(str(beat), "--max-age", "15m")[0] == 0
    code, said = check(str(beat), "--json")
    assert code == 2
    assert json.loads(said)["fresh"] is False
    assert check(str(beat), "--max-age", "soon")[0] == ExitCode.USAGE


def test_the_stage_is_nobody_elses(post: Post) -> None:
    """A second one does not run beside it."""
    post.start()
    wait_for("the stage", post.running, 30)
    command = [sys.executable, "-m", "tapdeck.cli", "alarms", "run", "--config", str(post.config)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == ExitCode.ALREADY_RUNNING, done.stderr
    assert os.path.exists(f"/proc/{post.process.pid}" if post.process else "")
