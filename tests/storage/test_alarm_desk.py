"""What is remembered of alarms: nothing is lost, and next to nothing is repeated, whenever the process is killed."""

import random
import time
from pathlib import Path

import pytest

from tapdeck.cli import alarms_stage
from tapdeck.cli.alarms_mail import Password
from tapdeck.cli.alarms_stage import AlarmsStage, make_folders
from tapdeck.cli.background import Background
from tapdeck.cli.settings import AlarmSettings, RecordingSettings, Settings, StorageSettings
from tapdeck.storage import alarm_acks, alarm_desk, hook, state
from tapdeck.storage.alarm_book import Change, Entry
from tapdeck.storage.alarm_desk import MOST_CALLS, Desk, load, peek, save
from tapdeck.storage.hook import Ran
from tapdeck.storage.mail import MailError, MailServer
from tapdeck.storage.outbox import Letter
from tapdeck.storage.secret import Secret

NOW = float(int(time.time()))
"""The event log has the time of the machine."""


def change(number: int = 0) -> Change:
    entry = Entry("deliver", "DELIVER_FAILED", f"nas{number}", "critical", "Ümläut \udcff", NOW, NOW)
    return Change("raised", entry, NOW)


def desk() -> Desk:
    found = Desk(cursor={"2026-11-24.jsonl": 12}, alive="2026-11-24")
    for number in range(5):
        found.book.active[change(number).entry.key] = change(number).entry
        found.take(change(number), mail=True, hook=True)
    found.outbox.post(Letter(("a@example.com",), "subject", "body", NOW))
    return found


def test_it_outlives_a_restart(tmp_path: Path) -> None:
    make_folders(tmp_path)
    before = desk()
    save(tmp_path, before)
    after = load(tmp_path, pytest.fail)
    assert (after.outbox.letters, after.calls[0]["tries"]) == (before.outbox.letters, 0)
    assert (after.cursor, after.alive) == (before.cursor, before.alive)
    assert after.book.active.keys() == before.book.active.keys()
    assert peek(tmp_path) == after


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert load(tmp_path, pytest.fail) == Desk()
    assert peek(tmp_path) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"version": 99}', b'{"version": 1}', b"[" * 100_000, b"\xff"]
)
def test_a_damaged_one_is_set_aside(tmp_path: Path, content: bytes) -> None:
    make_folders(tmp_path)
    path = tmp_path / "alarms" / "book.json"
    path.write_bytes(content)
    assert peek(tmp_path) is None
    complaints: list[str] = []
    assert load(tmp_path, complaints.append) == Desk()
    assert len(complaints) == 1
    assert (path.with_suffix(".damaged")).read_bytes() == content
    save(tmp_path, desk())
    assert peek(tmp_path) is not None


def test_calls_of_the_hook_are_bounded() -> None:
    found = Desk()
    for number in range(MOST_CALLS + 7):
        found.take(change(number), mail=False, hook=True)
    assert (len(found.calls), found.lost_calls) == (MOST_CALLS, 7)
    assert found.calls[-1]["event"]["about"] == f"nas{MOST_CALLS + 6}"


# -- killed at any moment ----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is no more."""


class World:
    """Everything outside of the process: its folder, its clock, who gets mails and calls. `left` actions until it is
    killed; each is something that others see, or that is on disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.now, self.left = folder, NOW, 10**9
        self.mails: list[Letter] = []
        self.calls: list[str] = []
        self.kills = 0

    def act(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def send(self, server: MailServer, letter: Letter) -> dict[str, str]:
        self.mails.append(letter)
        return {}

    def save(self, state_folder: Path, found: Desk) -> None:
        self.act()
        save(state_folder, found)
        self.act()

    def attempt(self, program: object, event: dict[str, object]) -> Ran:
        self.calls.append(f"{event['event']} {event['id']}")
        return Ran("", (), 0.0)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(tmp_path)

    def start(self: Background[object], work: object) -> None:
        """In the same thread: what a mail does has then happened, and its result is not known yet."""
        assert callable(work)
        found.act()
        result = work()
        self._thread = _Ended()  # type: ignore[assignment]
        self._done.append(lambda: result)
        found.act()

    monkeypatch.setattr(Background, "start", start)
    monkeypatch.setattr(alarm_desk, "save", found.save)
    monkeypatch.setattr(hook, "run", lambda command, event, limit: found.attempt(command, event))
    return found


class _Ended:
    def join(self, patience: float | None = None) -> None: ...


def settings(folder: Path) -> Settings:
    alarms = AlarmSettings(
        it=("it@example.com",), server="mail.example.com", gather_s=2, hold_s=5, mails_an_hour=1000, hook=("/bin/true",)
    )
    return Settings(recording=RecordingSettings(utc=True), storage=StorageSettings(state=str(folder)), alarms=alarms)


@pytest.mark.parametrize("seed", range(12))
def test_a_kill_at_any_moment_loses_nothing_and_repeats_one_mail_at_most(world: World, seed: int) -> None:
    chance = random.Random(seed)
    raised: list[str] = []
    running: AlarmsStage | None = None
    deliver = state.Alarms(world.folder, "deliver")
    AlarmsStage(settings(world.folder), Password(), world.now, world.send)
    for step in range(160):
        if step % 20 == 0 and step < 120:
            deliver.raise_("DELIVER_FAILED", "off", about=f"nas{step}")
            raised.append(f"nas{step}")
        if step % 20 == 10:
            deliver.clear("DELIVER_FAILED", about=f"nas{step - 10}")
        if step < 140 and chance.random() < 0.3:
            world.left = chance.randrange(6)
        try:
            if running is None:
                running = AlarmsStage(settings(world.folder), Password(), world.now, world.send)
            running.tick(world.now)
        except Killed:
            running, world.left = None, 10**9
            world.kills += 1
        world.now += 1
    assert world.kills > 5
    told = "\n".join(letter.subject for letter in world.mails)
    for name in raised:
        assert f"over: DELIVER_FAILED ({name})" in told
        for kind in ("raised", "over"):
            assert any(one.startswith(f"alarm {kind} ") and f":{name}:" in one for one in world.calls), (kind, name)
    ids = [letter.id for letter in world.mails]
    assert len(ids) - len(set(ids)) <= world.kills, "each kill repeats at most one"
    assert len(world.calls) - len(set(world.calls)) <= world.kills


def test_what_has_arrived_is_written_down_before_the_next_one_sets_out(world: World) -> None:
    """Two mails wait; the process is killed after the second has arrived: only that one is sent again."""
    make_folders(world.folder)
    before = Desk(cursor={})
    letters = [Letter(("it@example.com",), name, "b", NOW) for name in ("first", "second")]
    for letter in letters:
        before.outbox.post(letter)
    save(world.folder, before)
    stage = AlarmsStage(settings(world.folder), Password(), NOW, world.send)
    stage.tick(NOW)
    stage.tick(NOW + 1)
    assert [one.subject for one in world.mails] == ["first", "second"]
    again = AlarmsStage(settings(world.folder), Password(), NOW + 2, world.send)
    again.tick(NOW + 2)
    again.tick(NOW + 3)
    assert [one.subject for one in world.mails] == ["first", "second", "second"]


def test_a_mail_that_cannot_be_written_ends_nothing(world: World) -> None:
    def send(server: MailServer, letter: Letter) -> dict[str, str]:
        raise MailError("no", all_mail=False)

    stage = AlarmsStage(settings(world.folder), Password(), NOW, send)
    state.Alarms(world.folder, "deliver").raise_("DELIVER_FAILED", "off", about="nas")
    for second in range(20):
        stage.tick(NOW + second)
    found = state.read(world.folder, "alarms")
    assert found is not None
    assert [one["code"] for one in found["alarms"]] == ["MAIL_FAILED"]


def test_new_settings_end_what_is_not_known_any_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password, or a broken hook, that somebody has mended."""

    def send(server: MailServer, letter: Letter) -> dict[str, str]:
        if server.password is None:
            raise MailError("refuses user and password")
        return world.send(server, letter)

    monkeypatch.setattr(hook, "run", lambda command, event, limit: Ran("it fails", (), 0.0))
    stage = AlarmsStage(settings(world.folder), Password(), NOW, send)
    state.Alarms(world.folder, "deliver").raise_("DELIVER_FAILED", "off", about="nas")
    for second in range(10):
        stage.tick(NOW + second)
    assert codes(world.folder) == {"MAIL_FAILED", "HOOK_FAILED"}
    monkeypatch.setattr(alarms_stage, "reread_password", lambda *_: Password(Secret("right")))
    monkeypatch.setattr(hook, "run", lambda command, event, limit: Ran("", (), 0.0))
    stage.reload(settings(world.folder), NOW + 11)
    stage.tick(NOW + 12)
    assert codes(world.folder) == set()
    assert [one.subject.partition("] ")[2] for one in world.mails] == ["DELIVER_FAILED (nas)"]


def codes(folder: Path) -> set[str]:
    found = state.read(folder, "alarms")
    assert found is not None
    return {one["code"] for one in found["alarms"]}


def test_a_hook_that_fails_is_not_told_so_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def run(command: object, event: dict[str, object], limit: float) -> Ran:
        given.append(event["code"])
        return Ran("it fails", (), 0.0)

    monkeypatch.setattr(hook, "run", run)
    stage = AlarmsStage(settings(world.folder), Password(), NOW, world.send)
    state.Alarms(world.folder, "deliver").raise_("DELIVER_FAILED", "off", about="nas")
    for minute in range(4 * 60):
        stage.tick(NOW + minute * 60)
    assert given == ["DELIVER_FAILED"] * 3


def test_an_acknowledgement_is_kept_before_its_file_is_gone(world: World) -> None:
    stage = AlarmsStage(settings(world.folder), Password(), NOW, world.send)
    state.Alarms(world.folder, "deliver").raise_("DELIVER_FAILED", "off", about="nas")
    stage.tick(NOW)
    path = alarm_acks.drop(world.folder, alarm_acks.Ack("DELIVER_FAILED", "nas", "Anna", "asked IT"))
    world.left = 0
    with pytest.raises(Killed):
        stage.tick(NOW + 1)
    assert path.exists()
    world.left = 10**9
    AlarmsStage(settings(world.folder), Password(), NOW + 2, world.send).tick(NOW + 2)
    assert not path.exists()
    found = alarm_desk.peek(world.folder)
    assert found is not None
    [entry] = found.book.active.values()
    assert (entry.by, entry.note, entry.state) == ("Anna", "asked IT", "acknowledged")
